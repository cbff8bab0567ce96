"""Preconditioners of L-BFGS on dense rows, from the cheapest to the best: a diagonal, X'X, and each class's curvature.

`lbfgs` calls them, and decides by their costs when to build them. They work in coordinates in which the columns are
centred and have variance 1:

    u = coef * unit,   b = intercept + coef @ mean     (raw prediction: u @ (x - mean) / unit + b)

With v the mean of ``p_c (1 - p_c)`` over rows and classes, the shared preconditioner is ``(v X'X / n + alpha I)^-1``.
That of each class has its own curvature, ``(X' diag(p_c (1 - p_c)) X / n + alpha I)^-1``, from rows that are drawn with
probabilities by their curvature times their leverage: Cohen, Lee, Musco, Musco, Peng & Sidford (2015), ITCS, 181-190.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np
import scipy.linalg
import scipy.sparse as sp

from sksoftmax._engines.device import match_device, to_host
from sksoftmax._engines.moments import gram
from sksoftmax._maths.curvature import cholesky_of_unit_diagonal, class_variances
from sksoftmax._maths.objective import block_slices, iter_blocks, params_to_device, probabilities
from sksoftmax._maths.preconditioner import ROWS_PER_VARIANCE, compute_moments
from sksoftmax._maths.row_sampling import draw_systematically
from sksoftmax._types import Array, Batch, Moments, Params, Problem

#: Times in nanoseconds: an entry of X in a pass, for all and for each output, and a multiplication of a factorization
#: or of a Gram matrix. (Measured; their ratios matter.)
_ENTRY_TIME, _OUTPUT_TIME, _FACTOR_TIME = 0.3, 0.05, 0.011

#: Times in nanoseconds of an entry of a factor in the solution of a system, and of each further right-hand side.
#: (Measured.)
_SOLVE_TIME, _RIGHT_TIME = 1.0, 0.06

#: Times in nanoseconds that a step, and the curvature of a class, take beside their multiplications. (Measured.)
STEP_OVERHEAD, _CLASS_OVERHEAD = 2e5, 2e5

#: Times in nanoseconds of each row that a sample is drawn from; and, for the Hessian, of a row and class, of an entry
#: of a row, and, for each pair of classes, of an entry and of a product of two. (Measured.)
DRAW_TIME = 50.0
_CLASS_TIME, _SCALED_ENTRY_TIME, _PAIR_ENTRY_TIME, _PAIR_PRODUCT_TIME = 4.0, 1.0, 0.2, 0.045

#: Passes that the curvatures of all rows take, with the leverage.
_CURVATURE_PASSES = 2.0

#: Rows per column from which the curvature of a class is estimated, and the largest fraction of all rows; above it, all
#: rows are used.
_ROWS_PER_COLUMN = 8
_MAX_FRACTION = 0.4

#: Rows per unknown of a sample whose Hessian is factorized.
HESSIAN_ROWS_PER_UNKNOWN = 5

#: Normal vectors that estimate the leverage of the rows.
_N_SKETCHED = 12

#: Fraction of the curvature of all rows that has to change before the curvature of each class is computed anew.
_MIN_CHANGE = 0.3

#: Leverage that is added to each row's, as a fraction of the mean: the estimate of a row may be too small.
_MIN_LEVERAGE = 0.01


class FlatPreconditioner(Protocol):
    """Linear operator on gradients in the coordinates of `ColumnUnits`, (n_outputs, n_features + 1)."""

    def apply(self, gradient: Array) -> Array:
        """Return the operator times ``gradient``."""


class ColumnUnits(NamedTuple):
    """The coordinates of the module docstring.

    Attributes
    ----------
    mean : ndarray of shape (n_features,)
    scale : ndarray of shape (n_features,)
        Standard deviation of each column; inf for a constant column, whose coefficient does not move.
    """

    mean: Array
    scale: Array

    def shape(self, params: Params) -> tuple[int, int]:
        """Return the shape of gradients and steps in these coordinates."""
        return len(params.coef), len(self.scale) + 1

    def flatten_gradient(self, grads: Params) -> Array:
        """Return a gradient in these coordinates."""
        coef = (grads.coef - np.outer(grads.intercept, self.mean)) / self.scale
        return np.concatenate([coef, grads.intercept[:, None]], axis=1)

    def flatten_step(self, step: Params) -> Array:
        """Return a step in these coordinates."""
        coef = step.coef * np.where(np.isinf(self.scale), 0.0, self.scale)
        return np.concatenate([coef, (step.intercept + step.coef @ self.mean)[:, None]], axis=1)

    def to_step(self, step: Array) -> Params:
        """Return a step in the coordinates of the parameters."""
        coef = step[:, :-1] / self.scale
        return Params(coef, step[:, -1] - coef @ self.mean)


def column_units(moments: Moments) -> ColumnUnits:
    """Return the coordinates of the columns with these moments."""
    spread = moments.second_moment
    spread = np.maximum(np.diagonal(spread) if spread.ndim == 2 else spread, 0.0)
    scale = moments.max_deviation * np.sqrt(spread)
    return ColumnUnits(moments.mean, np.where(scale > 0, scale, np.inf))


class DiagonalPreconditioner:
    """Inverse of ``curvature + alpha / scale^2`` along each column."""

    def __init__(self, problem: Problem, units: ColumnUnits, curvature: float) -> None:
        inverse_intercept = problem.fit_intercept / curvature
        self.inverse = np.append(1 / (curvature + problem.alpha / units.scale**2), inverse_intercept)

    def apply(self, gradient: Array) -> Array:
        """Return the inverse times ``gradient``."""
        return self.inverse * gradient


class SharedPreconditioner(NamedTuple):
    """Inverse of ``v X'X / n + alpha I``, by its Cholesky factor for columns multiplied by ``unit``."""

    factor: Array
    unit: Array
    inverse_intercept: float

    def apply(self, gradient: Array) -> Array:
        """Return the inverse times ``gradient``."""
        scaled = (gradient[:, :-1] * self.unit).astype(self.factor.dtype)
        solved = _solve(self.factor, scaled.T).T * self.unit
        return np.concatenate([solved, self.inverse_intercept * gradient[:, -1:]], axis=1)


class ClassPreconditioner(NamedTuple):
    """Inverse of the curvature of each class, by Cholesky factors; columns are centred by ``mean`` of each class.

    ``factors`` and ``unit`` have one entry for each class; ``mean`` is (n_outputs, n_features).
    """

    factors: list[Array]
    unit: Array
    mean: Array
    inverse_intercept: Array

    def apply(self, gradient: Array) -> Array:
        """Return the inverse times ``gradient``."""
        intercept = gradient[:, -1:]
        scaled = ((gradient[:, :-1] - intercept * self.mean) * self.unit).astype(self.factors[0].dtype)
        solved = np.stack([_solve(factor, g) for factor, g in zip(self.factors, scaled, strict=True)]) * self.unit
        shift = (solved * self.mean).sum(axis=1, keepdims=True)
        return np.concatenate([solved, self.inverse_intercept[:, None] * intercept - shift], axis=1)


def _factorize(matrix: Array, dtype: Any) -> tuple[Array, Array]:
    """Return the Cholesky factor of a matrix scaled to a unit diagonal, and the scale of its columns."""
    diagonal = np.diagonal(matrix).copy()
    unit = 1 / np.sqrt(np.where(diagonal > 0, diagonal, 1.0))
    scaled = (matrix * unit * unit[:, None]).astype(dtype)
    return cholesky_of_unit_diagonal(scaled, 10 * float(np.finfo(dtype).eps)), unit


def _solve(factor: Array, right: Array) -> Array:
    """Return the solution of the system with this Cholesky factor."""
    potrs = scipy.linalg.lapack.spotrs if factor.dtype == np.float32 else scipy.linalg.lapack.dpotrs
    return np.asarray(potrs(factor, right, lower=0)[0])


def mean_curvature(problem: Problem, params: Params, rows: Batch) -> float:
    """Return the mean of ``p_c (1 - p_c)`` over the classes and ``rows``, whose weights sum to 1."""
    part = problem._replace(data=rows)
    total = 0.0
    for block, proba in zip(iter_blocks(part), probabilities(part, params), strict=True):
        total += float((class_variances(to_host(proba)) @ to_host(block.weight)).mean())
    return max(total, float(np.finfo(rows.X.dtype).eps))


class Costs(NamedTuple):
    """Costs in passes.

    Attributes
    ----------
    gram : float
        Of X'X and its factor.
    factor : float
        Of the factor alone.
    classes : float
        Of the curvature of each class.
    hessian : float
        Of the Hessian of a sample of the rows, with its Cholesky factor, in float64.
    apply_shared, apply_classes : float
        Of one application of the shared preconditioner, and of that of each class.
    """

    gram: float
    factor: float
    classes: float
    hessian: float
    apply_shared: float
    apply_classes: float

    def apply(self, preconditioner: FlatPreconditioner) -> float:
        """Return the cost of one application."""
        if isinstance(preconditioner, ClassPreconditioner):
            return self.apply_classes
        return self.apply_shared if isinstance(preconditioner, SharedPreconditioner) else 0.0


def pass_time(problem: Problem) -> float:
    """Predict the nanoseconds of a pass over dense rows, without the overhead of a step."""
    return problem.n_samples * max(1, problem.n_features) * (_ENTRY_TIME + _OUTPUT_TIME * problem.n_outputs)


def hessian_time(problem: Problem, n_rows: int) -> float:
    """Predict the nanoseconds of the Hessian of ``n_rows`` dense rows in float64 and of its Cholesky factor."""
    K, q = problem.n_outputs, problem.n_features + problem.fit_intercept
    pair_time = q * _PAIR_ENTRY_TIME + q * q / 2 * _PAIR_PRODUCT_TIME
    row_time = K * _CLASS_TIME + q * _SCALED_ENTRY_TIME + K * (K + 1) / 2 * pair_time
    return n_rows * row_time + _FACTOR_TIME * (K * q) ** 3 / 3


def preconditioner_costs(problem: Problem) -> Costs:
    """Predict the costs of the preconditioners."""
    n, p, n_outputs = problem.n_samples, max(1, problem.n_features), problem.n_outputs
    one_pass = pass_time(problem) + STEP_OVERHEAD
    unit, solve = _FACTOR_TIME / one_pass, _SOLVE_TIME * p**2 / one_pass
    factor = p**3 / 3 * unit
    gram = min(n, ROWS_PER_VARIANCE * p) * p**2 * unit
    rows = _n_class_rows(problem) * p**2 * unit
    overhead = _CLASS_OVERHEAD * unit / _FACTOR_TIME
    d = n_outputs * (p + 1)
    hessian = 2 * d**2 * (min(n, HESSIAN_ROWS_PER_UNKNOWN * d) / 2 + d / 3) * unit
    return Costs(
        gram=gram + factor,
        factor=factor,
        classes=n_outputs * (rows + factor + overhead) + _CURVATURE_PASSES,
        hessian=hessian,
        apply_shared=solve * (1 + _RIGHT_TIME * n_outputs),
        apply_classes=solve * n_outputs,
    )


def _n_class_rows(problem: Problem) -> int:
    """Return the number of rows from which the curvature of a class is estimated."""
    n_drawn = _ROWS_PER_COLUMN * problem.n_features
    return n_drawn if n_drawn <= _MAX_FRACTION * problem.n_samples else problem.n_samples


def gram_of_units(moments: Moments, units: ColumnUnits) -> Array:
    """Return X'X / n in these coordinates, (n_features, n_features), from moments that have it."""
    ratio = moments.max_deviation / units.scale
    return np.asarray(moments.second_moment * ratio * ratio[:, None])


def shared_preconditioner(
    problem: Problem, units: ColumnUnits, gram_matrix: Array, curvature: float
) -> SharedPreconditioner:
    """Return the preconditioner of all classes for their mean curvature."""
    matrix = curvature * gram_matrix
    np.einsum("ii->i", matrix)[...] += problem.alpha / units.scale**2
    factor, unit = _factorize(matrix, problem.data.X.dtype)
    return SharedPreconditioner(factor, unit, problem.fit_intercept / curvature)


class BuiltPreconditioner(NamedTuple):
    """The preconditioner by the curvature of each class; None if the curvature has hardly changed.

    ``certainty`` is the curvature of each row at which it was built, and ``leverage`` that of each row.
    """

    preconditioner: ClassPreconditioner | None
    certainty: Array
    leverage: Array


def class_preconditioner(
    problem: Problem,
    params: Params,
    units: ColumnUnits,
    gram_matrix: Array | None,
    certainty_before: Array | None,
    leverage: Array | None,
) -> BuiltPreconditioner:
    """Return the preconditioner by the curvature of each class.

    1. Compute ``p_c (1 - p_c)`` of all rows, and their sum over the classes.
    2. Return None for the preconditioner if this sum, weighted by the leverage, has hardly changed since the last one.
    3. For each class, draw rows, and factorize the curvature of these rows.
    """
    norm_weight = problem.data.weight / problem.data.weight.sum()
    # 1.
    variances = np.concatenate([class_variances(to_host(proba)) for proba in probabilities(problem, params)], axis=1)
    certainty = variances.sum(axis=0)
    n_drawn = _n_class_rows(problem)
    if leverage is None:
        is_sampled = n_drawn < problem.n_samples
        leverage = _leverage(problem, units, gram_matrix) if is_sampled else np.ones(problem.n_samples)
    # 2.
    if certainty_before is not None:
        weights = leverage * norm_weight
        change = weights @ np.abs(certainty - certainty_before)
        if change < _MIN_CHANGE * (weights @ np.maximum(certainty, certainty_before)):
            return BuiltPreconditioner(None, certainty_before, leverage)
    # 3.
    X, dtype, p = problem.data.X, problem.data.X.dtype, problem.n_features
    ridge = problem.alpha / units.scale**2
    factors, columns, means, curvatures = [], [], [], []
    for variance in variances:
        weight = norm_weight * variance
        rows, root = X, weight
        if n_drawn < problem.n_samples:
            index, inclusion = draw_systematically(weight * leverage, n_drawn)
            rows, root = X[index], weight[index] / inclusion
        rows = rows.toarray() if sp.issparse(rows) else rows  # sparse rows could not be centred
        total = max(float(root.sum()), float(np.finfo(dtype).tiny))
        mean = np.zeros(p)
        if problem.fit_intercept:
            mean = to_host(match_device((root / total).astype(dtype), rows) @ rows)
        root = match_device(np.sqrt(root).astype(dtype), rows)
        matrix = to_host(gram(problem.kernel, rows, mean, 1 / units.scale, root, p))
        np.einsum("ii->i", matrix)[...] += ridge
        factor, unit = _factorize(matrix, dtype)
        factors.append(factor)
        columns.append(unit)
        means.append((mean - units.mean) / units.scale)
        curvatures.append(total)
    inverse_intercept = problem.fit_intercept / np.array(curvatures)
    built = ClassPreconditioner(factors, np.stack(columns), np.stack(means), inverse_intercept)
    return BuiltPreconditioner(built, certainty, leverage)


def _leverage(problem: Problem, units: ColumnUnits, gram_matrix: Array | None) -> Array:
    """Return estimates of ``u' (X'X / n)^-1 u`` of each row, (n_samples,), from its products with random vectors.

    The vectors are those of a fixed seed: the same problem has the same estimates.
    """
    dtype = problem.data.X.dtype
    gram_matrix = gram_of_units(compute_moments(problem, full_gram=True), units) if gram_matrix is None else gram_matrix
    factor, unit = _factorize(gram_matrix, dtype)
    vectors = np.random.RandomState(0).standard_normal((problem.n_features, _N_SKETCHED)).astype(dtype)
    trtrs = scipy.linalg.lapack.strtrs if dtype == np.float32 else scipy.linalg.lapack.dtrtrs
    vectors = trtrs(factor, vectors, lower=0)[0] * (unit / units.scale)[:, None]
    sketch = params_to_device(Params(np.ascontiguousarray(vectors.T), -units.mean @ vectors), problem.data.X)
    take, spans = block_slices(problem)
    parts = [to_host(problem.kernel.raw_prediction(sketch, take(span).X)) for span in spans]
    leverage = np.concatenate([(part**2).mean(axis=0) for part in parts])
    return np.asarray(leverage + _MIN_LEVERAGE * leverage.mean())
