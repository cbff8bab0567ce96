"""What the parts hand to each other: parameters, batches, the problem, evaluations."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol, Self

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


class Params(NamedTuple):
    """The parameters, or anything of their shape: a gradient, a direction, a velocity.

    Kept in float64 whatever the data's dtype, so that columns of any scale can be learned.

    Attributes
    ----------
    coef : ndarray of shape (n_outputs, n_features)
        ``n_outputs`` is 1 for two classes and ``n_classes`` otherwise.
    intercept : ndarray of shape (n_outputs,)
    """

    coef: Array
    intercept: Array


def zeros_like(params: Params) -> Params:
    return Params(np.zeros_like(params.coef), np.zeros_like(params.intercept))


def scale_params(factor: float, params: Params) -> Params:
    return Params(factor * params.coef, factor * params.intercept)


def add_scaled(params: Params, factor: float, other: Params) -> Params:
    """``params + factor * other``."""
    coef = factor * other.coef
    coef += params.coef  # in place: of wide data new memory costs more than the sum
    return Params(coef, params.intercept + factor * other.intercept)


def interpolate(left: Params, share: float, right: Params) -> Params:
    """``left + share * (right - left)``."""
    coef = right.coef - left.coef
    coef *= share
    coef += left.coef
    return Params(coef, left.intercept + share * (right.intercept - left.intercept))


def dot(left: Params, right: Params) -> float:
    return float(np.vdot(left.coef, right.coef) + np.vdot(left.intercept, right.intercept))


def is_finite(params: Params) -> bool:
    return bool(np.isfinite(params.coef).all() and np.isfinite(params.intercept).all())


class Batch(NamedTuple):
    """Some rows of the data.

    Attributes
    ----------
    X : ndarray or csr_array of shape (n_outputs, n_features)
    y : ndarray of intp of shape (n_outputs,), or of X's dtype of shape (n_outputs, n_classes)
        Class codes, 0 to n_classes - 1; or targets, rows >= 0 that sum to 1.
    weight : ndarray of float64 of shape (n_outputs,)

    Of an X of another library these are all rows' in host memory, and those of blocks and batches where X is.
    """

    X: Any
    y: Any
    weight: Any


def normalize_weights(rows: Batch) -> Batch:
    """Return the rows with weights that sum to 1."""
    return rows._replace(weight=rows.weight / rows.weight.sum())


class Moments(NamedTuple):
    """Weighted statistics of the columns.

    Attributes
    ----------
    mean : ndarray of shape (n_features,)
        0 for a model without intercept, whose columns cannot be centred.
    max_deviation : ndarray of shape (n_features,)
        Largest ``|x - mean|``; exactly 0 for a column of one value.
    second_moment : ndarray of shape (n_features, n_features) or (n_features,)
        Mean of ``u u'``, or of ``u**2``, with ``u = (x - mean) / max_deviation``; 0 where peak is.
    """

    mean: Array
    max_deviation: Array
    second_moment: Array


class Kernel(Protocol):
    """An engine: the sums over rows that every solver is made of (see ``vectorized``); ``y`` as in ``Batch``."""

    def loss_grad(self, params: Params, X: Any, y: Any, weight: Any, total: float) -> tuple[Any, Params]: ...

    def raw_prediction(self, params: Params, X: Any) -> Array: ...

    def proba(self, params: Params, X: Any) -> Array: ...

    def hessian_product(self, proba: Array, direction: Params, X: Any, weight: Array, total: float) -> Params: ...


class DataSource(Protocol):
    """All rows, where memory does not hold them: what is asked of them are sums, and batches if need be."""

    @property
    def n_samples(self) -> int: ...

    @property
    def class_weights(self) -> Array:
        """Sum of the weights of each class, (n_classes,)."""

    @property
    def moments(self) -> Moments:
        """Of the columns; ``second_moment`` is the diagonal."""

    def loss_grad(self, problem: Problem, params: Params, total: float) -> tuple[float, Params]:
        """The kernel's, over all rows; of ``problem`` the data are not used."""

    def hessian_product(self, problem: Problem, params: Params, direction: Params, total: float) -> Params:
        """The kernel's, over all rows, at ``params``."""

    def batches(self, batch_size: int, rng: np.random.RandomState, *, shuffle: bool) -> Iterator[Batch]:
        """One pass."""

    def center_columns(self, column_offset: Array) -> Self:
        """The same rows, with ``column_offset`` taken off X."""

    def of_classes(self, seen: Array) -> Self:
        """The same rows, whose codes become places in ``seen``, the sorted codes of the classes that have rows."""


class Problem(NamedTuple):
    """Validated data and the objective's constants; what F is a function of, but the parameters.

    Attributes
    ----------
    data : Batch
        All rows, or a sample of ``data_source``; weights are positive.
    n_classes : int
        At least 2.
    alpha : float
        L2 strength, >= 0, on the mean loss.
    fit_intercept : bool
    kernel : Kernel
        The engine.
    mean_weight : float
        Mean weight of a row: over all rows, on a stream over those seen so far.
    l1_ratio : float
        Share of L1 in the penalty, in [0, 1]; only solvers that do not need F smooth take any but 0.
    data_source : DataSource or None
        All rows, where memory does not hold them: F and its gradient are theirs, and its curvature the sample's.
    label_smoothing : float
        Share of the targets that is spread evenly over all classes, in [0, 1).
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
        """Rows in memory."""
        return int(self.data.X.shape[0])

    @property
    def n_total_samples(self) -> int:
        """Rows of which F is the mean."""
        return self.n_samples if self.data_source is None else self.data_source.n_samples

    @property
    def n_features(self) -> int:
        return int(self.data.X.shape[1])

    @property
    def n_outputs(self) -> int:
        return 1 if self.n_classes == 2 else self.n_classes


class Evaluation(NamedTuple):
    """F and its gradient at some parameters, over all rows."""

    value: float
    grads: Params


class Report(NamedTuple):
    """What a solver says after an epoch, if it knows.

    Attributes
    ----------
    value : float
        F at the state's parameters, or an estimate of it.
    excess : float
        Estimate of ``(F - F*) / F*``; inf while the solver cannot tell.
    at_precision : bool
        No step changes F by more than rounding.
    is_exact : bool, default=True
        Whether ``value`` is F at the state's parameters; else it is the mean of F over the epoch.
    """

    value: float
    excess: float
    at_precision: bool
    is_exact: bool = True


class Solver(NamedTuple):
    """A solver: pure functions of (problem, state); the state has ``params``.

    It may have ``path_cache``, too: what a fit of another penalty to the same rows may go on from.

    Attributes
    ----------
    name : str
    init : callable
        ``(problem, params) -> state``.
    step : callable
        ``(problem, state, batch) -> state``.
    evaluate : callable or None
        ``(problem, state) -> Report``, once an epoch; None for a solver that leaves the evaluation of F, and
        of how far its minimum may be, to the loop.
    batch_size : int or None
        Rows of a batch; None for a solver whose step takes the whole data.
    """

    name: str
    init: Callable[[Problem, Params], Any]
    step: Callable[[Problem, Any, Batch], Any]
    evaluate: Callable[[Problem, Any], Report] | None
    batch_size: int | None
