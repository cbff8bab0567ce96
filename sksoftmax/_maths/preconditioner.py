"""Column moments, and preconditioners from bounds of F's curvature, with which a step length near 1 suits all data.

The plan makes these preconditioners for the first-order, Newton and L-BFGS solvers.

The softmax Hessian is at most ``bound * (I - 11'/K) (x) X'X / n``, with bound 1/2, or 1/4 for two classes with one row
of coefficients: Boehning (1992), Ann. Inst. Statist. Math. 44(1), 197-200. So ``(bound * X'X / n + alpha I)^-1`` times
the gradient is a step that never overshoots, whatever the scales and correlations of the columns. The columns are
centred (the intercept absorbs the means) and scaled to a curvature of 1. Both are changes of variables of the
parameters, so that X is neither copied nor changed:

    u = coef * scale,   b = intercept + coef @ mean     (raw prediction: u @ (x - mean) / scale + b)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import numpy as np
import scipy.linalg
import scipy.sparse as sp

from sksoftmax._engines import vectorized
from sksoftmax._engines.device import to_host, zeros_on_device
from sksoftmax._engines.moments import column_squares, gram, summarize_columns
from sksoftmax._engines.threads import GRAM_PER_PASS, map_in_order
from sksoftmax._maths.objective import block_slices, iter_blocks, pass_work
from sksoftmax._types import Array, Batch, Moments, Params, Problem

#: Maximum cost of X'X and its factor, in passes over the data. Above it, only the diagonal of X'X is used.
_MAX_GRAM_PASSES = 200

#: Cost of a flop of a sparse X'X, in flops of a pass.
_SPARSE_FACTOR = 10.0

#: Rows per column in a block of a Gram matrix. Adding up the blocks then costs little next to their products.
_ROWS_PER_COLUMN = 4

#: Rows per column that estimate X'X well enough for a preconditioner: to a relative error of about sqrt(1 / 20) in any
#: direction.
ROWS_PER_VARIANCE = 20

#: Minimum ratio of a column's variance in the sample to its variance over all rows. Below it, the sample has missed the
#: rows with most of the variance.
_MIN_VARIANCE_RATIO = 0.5

#: Golden ratio minus 1. Its multiples modulo 1 are evenly spread and have no period.
_GOLDEN_RATIO = (5**0.5 - 1) / 2

#: Flops of X'X per entry of X and output that take as long as a pass: a pass has 4, and X'X is 4 times faster per flop.
_GRAM_FLOPS_PER_PASS = 16

#: Maximum number of columns for X'X: the matrix then takes 128 MiB.
_MAX_GRAM_FEATURES = 4096


class GramPreconditioner(NamedTuple):
    """Inverse of the curvature bound, the same for every class; the module's docstring has the formula.

    Attributes
    ----------
    mean : ndarray of shape (n_features,)
        Column means.
    scale : ndarray of shape (n_features,)
        Column scales; inf for a constant column, whose coefficient does not move because the intercept replaces it.
    inverse : ndarray of shape (n_features, n_features) or (n_features,)
        Inverse P of the bound in the scaled coordinates; (n_features,) for the diagonal alone.
    intercept_rate : float
        Inverse of the bound along an intercept; 0 without intercept.
    dimension : float
        Mean of ``bound * x' P x`` over the rows, at most n_features. A batch of b rows has up to ``1 + dimension / b``
        times the curvature of all rows, on average over directions.
    """

    mean: Array
    scale: Array
    inverse: Array
    intercept_rate: float
    dimension: float

    def apply(self, grads: Params) -> Params:
        """Return the inverse times ``grads``, in the coordinates of the parameters."""
        coef = np.outer(grads.intercept, self.mean)
        np.subtract(grads.coef, coef, out=coef)
        coef /= self.scale
        if self.inverse.ndim == 2:
            coef = coef @ self.inverse
        else:
            coef *= self.inverse
        coef /= self.scale
        return Params(coef, self.intercept_rate * grads.intercept - coef @ self.mean)


class Preconditioner(Protocol):
    """Linear operator that maps a gradient to a well-scaled direction."""

    def apply(self, grads: Params) -> Params:
        """Return the direction."""


class PreconditionerCandidate(NamedTuple):
    """Builder of a preconditioner, and its cost.

    Attributes
    ----------
    make : callable
        ``(problem, params, rows, base) -> Preconditioner``, with ``rows`` the sample and ``base`` the bound of the
        curvature.
    products : float
        Cost of building it, in Hessian products.
    is_factor : bool
        Whether it is the inverse of the Hessian of a sample.
    """

    make: Callable[[Problem, Params, Batch, GramPreconditioner], Preconditioner]
    products: float
    is_factor: bool = False


def curvature_bound(problem: Problem) -> float:
    """Return Boehning's bound of the loss's curvature with respect to the raw prediction."""
    return 0.25 if problem.n_outputs == 1 else 0.5


def diagonal_moments(rows: Batch, *, fit_intercept: bool) -> Moments:
    """Return the moments of the columns of ``rows``, with the diagonal of X'X only."""
    problem = Problem(rows, 2, 0.0, fit_intercept, vectorized, 1.0)
    return compute_moments(problem, full_gram=False)


def mean_and_max_deviation(problem: Problem) -> tuple[Array, Array]:
    """Return each column's weighted mean and largest deviation from the mean, computed in one pass.

    A column is constant if its values differ by rounding only, or by at most the smallest normal number of X's dtype,
    whose reciprocal may overflow. Its deviation is 0.
    """
    total = problem.data.weight.sum()
    mean = np.zeros(problem.n_features)
    low, high = np.full(problem.n_features, np.inf), np.full(problem.n_features, -np.inf)
    take, spans = block_slices(problem)

    def summarize(span: slice) -> tuple[Array, Array, Array]:
        X, _, weight = take(span)
        return summarize_columns(problem.kernel, X, weight / total)

    for block_low, block_high, block_mean in map_in_order(summarize, spans, pass_work(problem)):
        low, high = np.minimum(low, block_low), np.maximum(high, block_high)
        mean += block_mean
    size = np.maximum(np.abs(low), np.abs(high))
    dtype = problem.data.X.dtype if sp.issparse(problem.data.X) else np.float64  # dense float32 is centred exactly
    smallest = np.finfo(problem.data.X.dtype).tiny
    is_constant = high - low <= np.maximum(2 * np.finfo(dtype).eps * size, smallest)  # differs in the last digit only
    if problem.fit_intercept:
        mean = np.where(is_constant, low, mean)
        return mean, np.where(is_constant, 0.0, np.maximum(high - mean, mean - low))
    return np.zeros_like(mean), np.where(size <= smallest, 0.0, size)


def compute_moments(problem: Problem, *, full_gram: bool) -> Moments:
    """Return the moments of the columns, computed in two passes; with ``full_gram`` all of X'X, else its diagonal.

    For dense X with many rows, X'X would cost more than a pass, and is estimated:

    1. Draw at least 20 rows per column, evenly spread but without a period.
    2. Compute X'X of these rows, centred at their own means.
    3. Replace the variance of a column by its variance over all rows, if the drawn rows have less than half of it.

    If the rows are not all in memory, X'X is estimated in the same way from the rows in memory.
    """
    n_drawn = _gram_sample_size(problem)
    if problem.data_source is not None:
        mean, max_deviation, spread = problem.data_source.moments
        if not full_gram:
            return problem.data_source.moments
    else:
        mean, max_deviation = mean_and_max_deviation(problem)
        if not full_gram or n_drawn == problem.n_samples:
            return Moments(
                mean, max_deviation, _compute_second_moment(problem, mean, max_deviation, full_gram=full_gram)
            )
        spread = _compute_second_moment(problem, mean, max_deviation, full_gram=False)
    # 1.
    sample = problem
    if n_drawn < problem.n_samples:
        rows = np.unique((np.arange(n_drawn) * _GOLDEN_RATIO % 1.0 * problem.n_samples).astype(np.intp))
        sample = problem._replace(data=Batch(*(column[rows] for column in problem.data)))
    # 2.
    column_offset = mean
    if problem.fit_intercept:
        column_offset = sum(to_host(block.weight @ block.X) for block in iter_blocks(sample)) / sample.data.weight.sum()
    second_moment = _compute_second_moment(sample, column_offset, max_deviation, full_gram=True)
    # 3.
    sampled_variance = np.diagonal(second_moment).copy()
    np.einsum("ii->i", second_moment)[...] += np.where(
        sampled_variance < _MIN_VARIANCE_RATIO * spread, spread - sampled_variance, 0.0
    )
    return Moments(mean, max_deviation, second_moment)


def _gram_sample_size(problem: Problem) -> int:
    """Return the number of rows for X'X: at least 20 per column, and more as long as X'X costs at most a pass.

    Returns all rows if that is more than half of them, or if X is sparse.
    """
    n, p = problem.n_samples, problem.n_features
    n_drawn = max(ROWS_PER_VARIANCE * p, _GRAM_FLOPS_PER_PASS * problem.n_outputs * n // p)
    return n if sp.issparse(problem.data.X) or 2 * n_drawn > n else n_drawn


def _compute_second_moment(problem: Problem, mean: Array, max_deviation: Array, *, full_gram: bool) -> Array:
    """Return ``Moments.second_moment``."""
    unit = _column_unit(max_deviation)
    p = problem.n_features
    total = problem.data.weight.sum()
    second_moment: Any = zeros_on_device((p, p) if full_gram else (p,), problem.data.X)
    take, spans = block_slices(problem, _ROWS_PER_COLUMN * p if full_gram else 1)

    def square(span: slice) -> Any:
        X, _, weight = take(span)
        norm_weight = weight / total
        if full_gram:
            return gram(problem.kernel, X, mean, 1 / unit, np.sqrt(norm_weight), p)
        return column_squares(problem.kernel, X, mean, 1 / unit, norm_weight)

    is_dense_gram = full_gram and not sp.issparse(problem.data.X)
    work = pass_work(problem) * (p / problem.n_outputs / GRAM_PER_PASS if is_dense_gram else 1.0)
    for block_moment in map_in_order(square, spans, work):
        second_moment += block_moment
    second_moment = to_host(second_moment)
    if full_gram and not sp.issparse(problem.data.X):
        second_moment = np.tril(second_moment)
        second_moment += np.tril(second_moment, -1).T
    if sp.issparse(problem.data.X):
        column_offset = mean / unit
        second_moment -= np.outer(column_offset, column_offset) if full_gram else column_offset**2
        second_moment = (
            second_moment * np.outer(max_deviation > 0, max_deviation > 0)
            if full_gram
            else second_moment * (max_deviation > 0)
        )  # exactly 0 for constant columns, without rounding
    return second_moment


def _column_unit(max_deviation: Array) -> Array:
    """Return the divisor of each column: its largest deviation, or 1 for a constant column."""
    return np.where(max_deviation > 0, max_deviation, 1.0)


def gram_preconditioner(problem: Problem, moments: Moments, batch_size: int | None = None) -> GramPreconditioner:
    """Return the inverse of the curvature bound.

    Parameters
    ----------
    problem : Problem
    moments : Moments
    batch_size : int or None
        Rows per batch. The curvature of a batch reaches ``bound * max (x - mean)^2 / batch_size`` along a column if the
        batch contains the column's few large values. This is added to the bound, so that rare features cannot make a
        step overshoot. None for steps that use all rows.
    """
    bound = curvature_bound(problem)
    full_gram = moments.second_moment.ndim == 2
    # constant columns as in `mean_and_max_deviation`: the means of merged batches may differ by less than `tiny`
    smallest = np.finfo(problem.data.X.dtype).tiny
    moments = moments._replace(max_deviation=np.where(moments.max_deviation <= smallest, 0.0, moments.max_deviation))
    spread = np.diagonal(moments.second_moment) if full_gram else moments.second_moment
    unit = _column_unit(moments.max_deviation)
    curvature = bound * np.maximum(spread, 0.0) + problem.alpha * (1 - problem.l1_ratio) / unit / unit
    if batch_size is not None:
        curvature = curvature + bound / batch_size
    eps = float(np.finfo(problem.data.X.dtype).eps)
    relative = np.sqrt(curvature)
    relative[moments.max_deviation == 0] = np.inf
    inverse = np.ones(problem.n_features)
    if full_gram:
        matrix = bound * moments.second_moment / relative / relative[:, None]
        inverse = inverse_of_unit_diagonal(matrix.copy(), eps)
        dimension = float(np.vdot(inverse, matrix))
    else:
        dimension = float((bound * np.maximum(spread, 0.0) / relative**2).sum())
    intercept_rate = 1.0 / bound if problem.fit_intercept else 0.0
    return GramPreconditioner(moments.mean, unit * relative, inverse, intercept_rate, dimension)


class ScaledColumns(Protocol):
    """Columns with their means, and scales that are inf for constant columns."""

    @property
    def mean(self) -> Array:
        """Mean of each column, (n_features,)."""

    @property
    def scale(self) -> Array:
        """Scale of each column, (n_features,)."""


def absorb_constant_columns(preconditioner: ScaledColumns, params: Params) -> Params:
    """Return the parameters with the coefficients of constant columns moved into the intercept: same predictions."""
    is_constant = np.isinf(preconditioner.scale)
    absorbed = params.coef[:, is_constant] @ preconditioner.mean[is_constant]
    return Params(np.where(is_constant, 0.0, params.coef), params.intercept + absorbed)


def inverse_of_unit_diagonal(matrix: Array, eps: float) -> Array:
    """Return the inverse of a symmetric positive semi-definite matrix with unit diagonal; reads its lower triangle.

    Adds sqrt(eps) to the diagonal, which makes the matrix definite if columns are duplicates of each other. Multiplies
    this by ten until the factorization succeeds: sparse columns far from 0 lose more digits, because they are centred
    after the product. Overwrites the diagonal of ``matrix``.
    """
    lapack = scipy.linalg.lapack
    is_single = matrix.dtype == np.float32
    potrf, potri = (lapack.spotrf, lapack.spotri) if is_single else (lapack.dpotrf, lapack.dpotri)
    jitter = float(np.sqrt(eps))
    while True:
        np.fill_diagonal(matrix, 1.0 + jitter)
        factor, info = potrf(matrix, lower=1, clean=1)
        if info == 0:
            break
        jitter *= 10.0
    lower_triangle, _ = potri(factor, lower=1, overwrite_c=1)
    inverse = lower_triangle + lower_triangle.T
    np.einsum("ii->i", inverse)[...] *= 0.5
    return np.asarray(inverse)


def use_full_gram(problem: Problem, *, is_stream: bool = False) -> bool:
    """Return whether X'X and its Cholesky factor cost little compared with the passes that they save.

    With s stored entries per row, they cost ``n s^2 + p^3`` flops (sparse ones are about ten times slower). A pass, a
    loss and gradient, costs ``4 n s n_outputs``. For a stream, whose length is unknown, n is at least p, as if the
    first rows were at least as many as the columns.
    """
    n, p = problem.n_samples, problem.n_features
    if p > _MAX_GRAM_FEATURES:
        return False
    is_sparse = sp.issparse(problem.data.X)
    entries_per_row = max(1.0, problem.data.X.nnz / n) if is_sparse else float(p)
    rows = max(n, p) if is_stream else n
    gram = rows * entries_per_row**2 * (_SPARSE_FACTOR if is_sparse else 1.0)
    return gram + p**3 <= _MAX_GRAM_PASSES * 4 * rows * entries_per_row * problem.n_outputs


def merge_max_deviation(moments: Moments, mean: Array, max_deviation: Array) -> Array:
    """Return a bound of the largest ``|x - moments.mean|`` over two sets of rows.

    The first set has ``moments``; the second set has the given ``mean`` and ``max_deviation``.
    """
    return np.asarray(np.maximum(moments.max_deviation, max_deviation + np.abs(mean - moments.mean)))


def merge_moments(left: Moments, left_weight: float, right: Moments, right_weight: float) -> Moments:
    """Return the moments of the union of two sets of rows: Chan, Golub & LeVeque (1983), Am. Stat. 37(3), 242-247.

    ``max_deviation`` is then an upper bound of the largest ``|x - mean|``.
    """
    right_fraction = right_weight / (left_weight + right_weight)
    mean = left.mean + right_fraction * (right.mean - left.mean)
    max_deviation = merge_max_deviation(
        left._replace(mean=mean, max_deviation=left.max_deviation + np.abs(mean - left.mean)),
        right.mean,
        right.max_deviation,
    )
    unit = _column_unit(max_deviation)
    full_gram = left.second_moment.ndim == 2
    second_moment = np.zeros_like(left.second_moment)
    for part, fraction in ((left, 1 - right_fraction), (right, right_fraction)):
        ratio, offset = part.max_deviation / unit, (part.mean - mean) / unit
        if full_gram:
            second_moment += fraction * (part.second_moment * np.outer(ratio, ratio) + np.outer(offset, offset))
        else:
            second_moment += fraction * (part.second_moment * ratio**2 + offset**2)
    return Moments(mean, max_deviation, second_moment)
