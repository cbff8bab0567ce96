"""Types that all layers share: parameters, batches, column moments, the problem, kernels, data sources and solvers.

It imports no other module of the package.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol, Self

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


class Params(NamedTuple):
    """Parameters of the model, or anything of the same shape: a gradient, a direction, a velocity.

    Parameters are float64 whatever the dtype of X, so that columns of any scale can be learned.

    Attributes
    ----------
    coef : ndarray of shape (n_outputs, n_features)
        ``n_outputs`` is 1 for two classes and ``n_classes`` otherwise.
    intercept : ndarray of shape (n_outputs,)
    """

    coef: Array
    intercept: Array


def zeros_like(params: Params) -> Params:
    """Return zeros of the shape of ``params``."""
    return Params(np.zeros_like(params.coef), np.zeros_like(params.intercept))


def scale_params(factor: float, params: Params) -> Params:
    """Return ``factor * params``."""
    return Params(factor * params.coef, factor * params.intercept)


def add_scaled(params: Params, factor: float, other: Params) -> Params:
    """Return ``params + factor * other``."""
    coef = factor * other.coef
    coef += params.coef  # in place: for wide data, allocating memory costs more than the sum
    return Params(coef, params.intercept + factor * other.intercept)


def interpolate(start: Params, fraction: float, end: Params) -> Params:
    """Return ``start + fraction * (end - start)``."""
    coef = end.coef - start.coef
    coef *= fraction
    coef += start.coef
    return Params(coef, start.intercept + fraction * (end.intercept - start.intercept))


def dot(left: Params, right: Params) -> float:
    """Return the inner product of all coefficients and intercepts."""
    return float(np.vdot(left.coef, right.coef) + np.vdot(left.intercept, right.intercept))


def is_finite(params: Params) -> bool:
    """Return whether all coefficients and intercepts are finite."""
    return bool(np.isfinite(params.coef).all() and np.isfinite(params.intercept).all())


class Batch(NamedTuple):
    """Rows of the data, n of them.

    Attributes
    ----------
    X : ndarray, csr_array or DeviceArray of shape (n, n_features)
    y : ndarray of intp of shape (n,), or of X's dtype of shape (n, n_classes)
        Class codes, 0 to n_classes - 1; or targets, >= 0, each row of sum 1.
    weight : ndarray of float64 of shape (n,)

    If X is an array of another library, ``y`` and ``weight`` of all rows are in host memory. In blocks and batches
    they are on the device of X.
    """

    X: Any
    y: Any
    weight: Any


def normalize_weights(rows: Batch) -> Batch:
    """Return the rows with their weights divided by the sum of the weights."""
    return rows._replace(weight=rows.weight / rows.weight.sum())


class Moments(NamedTuple):
    """Weighted statistics of the columns.

    Attributes
    ----------
    mean : ndarray of shape (n_features,)
        0 for a model without intercept, because its columns cannot be centred.
    max_deviation : ndarray of shape (n_features,)
        Largest ``|x - mean|``; exactly 0 for a constant column.
    second_moment : ndarray of shape (n_features, n_features) or (n_features,)
        Mean of ``u u'``, or of ``u**2``, with ``u = (x - mean) / max_deviation``; 0 where ``max_deviation`` is 0.
    """

    mean: Array
    max_deviation: Array
    second_moment: Array


class Kernel(Protocol):
    """Engine: the sums over rows that every solver uses.

    ``vectorized`` documents the functions; ``y`` is as in ``Batch``.
    """

    @property
    def is_compiled(self) -> bool:
        """Whether it is the compiled engine, or calls it."""

    def loss_grad(self, params: Params, X: Any, y: Any, weight: Any, total: float) -> tuple[Any, Params]: ...

    def raw_prediction(self, params: Params, X: Any) -> Array: ...

    def proba(self, params: Params, X: Any) -> Array: ...

    def hessian_product(self, proba: Array, direction: Params, X: Any, weight: Array, total: float) -> Params: ...


class DataSource(Protocol):
    """All rows of data that is not held in memory. Solvers take sums over the rows, or batches."""

    @property
    def n_samples(self) -> int:
        """Number of rows."""

    @property
    def class_weights(self) -> Array:
        """Sum of the weights of each class, (n_classes,)."""

    @property
    def moments(self) -> Moments:
        """Moments of the columns; ``second_moment`` is the diagonal only."""

    def loss_grad(self, problem: Problem, params: Params, total: float) -> tuple[float, Params]:
        """Return the kernel's loss and gradient, summed over all rows; ``problem.data`` is not used."""

    def hessian_product(self, problem: Problem, params: Params, direction: Params, total: float) -> Params:
        """Return the kernel's Hessian product at ``params``, summed over all rows."""

    def batches(self, batch_size: int, rng: np.random.RandomState, *, shuffle: bool) -> Iterator[Batch]:
        """Yield the batches of one pass over all rows."""

    def center_columns(self, column_offset: Array) -> Self:
        """Return the same rows with ``column_offset`` subtracted from X."""

    def restrict_classes(self, present_classes: Array) -> Self:
        """Return the same rows with y as positions in ``present_classes``, the sorted codes of classes with rows."""


class Problem(NamedTuple):
    """Validated data and constants of the objective: everything that F depends on, except the parameters.

    Attributes
    ----------
    data : Batch
        All rows, or a sample of ``data_source``. Weights are positive.
    n_classes : int
        At least 2.
    alpha : float
        Strength of the penalty, >= 0, next to the mean loss; ``l1_ratio`` splits it into L1 and L2.
    fit_intercept : bool
    kernel : Kernel
        The engine.
    mean_weight : float
        Mean weight of a row: over all rows, or for a stream over the rows so far.
    l1_ratio : float
        Fraction of L1 in the penalty, in [0, 1]. Solvers that need a smooth F require 0.
    data_source : DataSource or None
        All rows, if they are not held in memory. F and its gradient are then sums over these rows, and ``data`` is a
        sample for the curvature.
    label_smoothing : float
        Fraction of each target that is spread evenly over all classes, in [0, 1).
    """

    data: Batch
    n_classes: int
    alpha: float
    fit_intercept: bool
    kernel: Kernel
    mean_weight: float
    l1_ratio: float = 0.0
    data_source: DataSource | None = None
    label_smoothing: float = 0.0

    @property
    def n_samples(self) -> int:
        """Number of rows in memory."""
        return int(self.data.X.shape[0])

    @property
    def n_total_samples(self) -> int:
        """Number of rows that F averages over, in memory or not."""
        return self.n_samples if self.data_source is None else self.data_source.n_samples

    @property
    def n_features(self) -> int:
        """Number of columns of X."""
        return int(self.data.X.shape[1])

    @property
    def n_outputs(self) -> int:
        """Number of rows of the coefficients: 1 for two classes, else ``n_classes``."""
        return 1 if self.n_classes == 2 else self.n_classes


class Evaluation(NamedTuple):
    """Value of F over all rows, and its gradient, at some parameters."""

    value: float
    grads: Params


class Report(NamedTuple):
    """Evaluation that a solver returns after an epoch.

    Attributes
    ----------
    value : float
        F at the state's parameters, or an estimate of F.
    excess : float
        Estimate of ``(F - F*) / F*``; inf while the solver has no estimate.
    at_precision : bool
        Whether the solver cannot go on: no step changes F by more than rounding, or the next stage is to take over.
    is_exact : bool, default=True
        Whether ``value`` is F at the state's parameters. Otherwise it is the mean of F over the epoch.
    """

    value: float
    excess: float
    at_precision: bool
    is_exact: bool = True


class Solver(NamedTuple):
    """Solver: pure functions of the problem and a state, which has ``params``.

    The state may also have ``path_cache``, which a later fit with another penalty to the same rows can reuse.

    Attributes
    ----------
    name : str
    init : callable
        ``(problem, params) -> state``.
    step : callable
        ``(problem, state, batch) -> state``.
    evaluate : callable or None
        ``(problem, state) -> Report``, called once per epoch. None if the training loop has to evaluate F and
        estimate the suboptimality itself.
    batch_size : int or None
        Rows per batch; None for a solver whose step uses all rows.
    """

    name: str
    init: Callable[[Problem, Params], Any]
    step: Callable[[Problem, Any, Batch], Any]
    evaluate: Callable[[Problem, Any], Report] | None
    batch_size: int | None
