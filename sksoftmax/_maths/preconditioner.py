"""The metric that makes a step length near 1 right for every data set: bounds of F's curvature.

The softmax Hessian is at most ``bound * (I - 11'/K) (x) X'X / n``, bound 1/2, and for two classes, one row,
1/4: Boehning (1992), Ann. Inst. Statist. Math. 44(1), 197-200. So ``(bound * X'X / n + alpha I)^-1`` times the
gradient is a step that never overshoots, whatever the scales and correlations of the columns. The columns are
centred (the intercept absorbs it) and scaled to a curvature of 1, both by a change of variables of the
parameters, so that X is neither copied nor changed:

    u = coef * scale,   b = intercept + coef @ mean     (raw prediction: u @ (x - mean) / scale + b)
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np
import scipy.linalg
import scipy.sparse as sp

from sksoftmax._engines import vectorized
from sksoftmax._engines.device import DeviceArray, squares, to_device_of, to_host, zeros
from sksoftmax._maths.objective import iter_blocks
from sksoftmax._types import Array, Batch, Moments, Params, Problem

#: X'X is worth at most this many passes over the data; above it, its diagonal is used.
_GRAM_PASSES = 200
_SPARSE_FACTOR = 10.0

#: Rows a column in a block of a Gram matrix: adding the block up costs little next to its product.
_ROWS_PER_COLUMN = 4

#: Rows a column that tell X'X well enough for a metric: along any direction to some (1 / 20)^(1/2), relative; and
#: the share of a column's variance below which they have missed the rows that hold it.
ROWS_PER_VARIANCE = 20
_SEEN = 0.5

#: Multiples of it, modulo 1, are spread evenly and have no period.
_GOLDEN = (5**0.5 - 1) / 2

#: Operations of X'X, which are fast, that take as long as one of a thin product, times the 4 of a pass.
_GRAM_PER_PASS = 16

#: And at most this many columns: 128 MiB.
_MAX_GRAM_FEATURES = 4096


class GramPreconditioner(NamedTuple):
    """Inverse of the curvature bound, the same for every class; see the module.

    ``inverse`` is (n_features, n_features) or, for the diagonal alone, (n_features,); ``scale`` is inf for a
    column of one value, which the intercept stands for: its coefficient does not move. ``dimension`` is the mean
    of ``bound * x' P x`` over the rows, at most n_features: a batch of b rows has up to ``1 + dimension / b``
    times the curvature of all rows, on average over directions.
    """

    mean: Array
    scale: Array
    inverse: Array
    intercept_rate: float
    dimension: float

    def apply(self, grads: Params) -> Params:
        """The inverse times ``grads``, in the coordinates of the parameters."""
        coef = np.outer(grads.intercept, self.mean)
        np.subtract(grads.coef, coef, out=coef)
        coef /= self.scale
        if self.inverse.ndim == 2:
            coef = coef @ self.inverse
        else:
            coef *= self.inverse
        coef /= self.scale
        return Params(coef, self.intercept_rate * grads.intercept - coef @ self.mean)


class SpectralPreconditioner(NamedTuple):
    """Inverse of ``v_c X'X / n + alpha I`` for each class c, v_c its mean curvature; see ``Spectrum``.

    ``inverse`` is (n_outputs, n_features), of the curvatures along the columns of ``basis``.
    """

    mean: Array
    scale: Array
    basis: Any
    inverse: Array
    intercept_rate: Array

    def apply(self, grads: Params) -> Params:
        """The inverse times ``grads``, in the coordinates of the parameters."""
        u = (grads.coef - np.outer(grads.intercept, self.mean)) / self.scale
        coef = to_host(((u @ self.basis) * self.inverse) @ self.basis.T) / self.scale
        return Params(coef, self.intercept_rate * grads.intercept - coef @ self.mean)


class Spectrum(NamedTuple):
    """Directions, the columns of ``basis``, along which X'X and the penalty are both diagonal.

    In them ``v X'X / n + alpha I`` is inverted for any v at no cost. ``share`` is X'X's part of the curvature at
    v = ``curvature``, where it is 1 along each direction. ``basis`` is where X is, for its products.
    """

    mean: Array
    scale: Array
    basis: Any
    share: Array
    curvature: float
    has_intercept: bool

    def preconditioner(self, curvatures: Array) -> SpectralPreconditioner:
        """The metric for each class's mean curvature."""
        relative = (curvatures / self.curvature)[:, None]
        inverse = 1.0 / (relative * self.share + (1.0 - self.share))
        return SpectralPreconditioner(self.mean, self.scale, self.basis, inverse, self.has_intercept / curvatures)


class Preconditioner(Protocol):
    """Anything that turns a gradient into a well-scaled direction."""

    def apply(self, grads: Params) -> Params: ...


def curvature_bound(problem: Problem) -> float:
    """Largest curvature of the loss by the raw prediction, Boehning's bound."""
    return 0.25 if problem.n_outputs == 1 else 0.5


def moments_of(rows: Batch, *, fit_intercept: bool) -> Moments:
    """Statistics of some rows, without X'X but for its diagonal."""
    problem = Problem(rows, 2, 0.0, fit_intercept, vectorized, 1.0)
    return compute_moments(problem, full_gram=False)


def mean_and_max_deviation(problem: Problem) -> tuple[Array, Array]:
    """Weighted mean and largest distance from it of each column, in one pass.

    A column whose values differ by less than the smallest normal number of X's dtype, whose reciprocal may overflow,
    counts as one of one value.
    """
    total = problem.data.weight.sum()
    mean = np.zeros(problem.n_features)
    low, high = np.full(problem.n_features, np.inf), np.full(problem.n_features, -np.inf)
    for block in iter_blocks(problem):
        X = block.X
        if sp.issparse(X):
            least, most = X.min(axis=0).toarray().ravel(), X.max(axis=0).toarray().ravel()
        else:
            least, most = to_host(X.min(axis=0)), to_host(X.max(axis=0))
        low, high = np.minimum(low, least), np.maximum(high, most)
        mean += (block.weight / total).astype(X.dtype) @ X
    size = np.maximum(np.abs(low), np.abs(high))
    dtype = problem.data.X.dtype if sp.issparse(problem.data.X) else np.float64  # rows of float32 are centred exactly
    smallest = np.finfo(problem.data.X.dtype).tiny
    is_constant = high - low <= np.maximum(2 * np.finfo(dtype).eps * size, smallest)  # one value, or its last digit
    if problem.fit_intercept:
        mean = np.where(is_constant, low, mean)
        return mean, np.where(is_constant, 0.0, np.maximum(high - mean, mean - low))
    return np.zeros_like(mean), np.where(size <= smallest, 0.0, size)


def compute_moments(problem: Problem, *, full_gram: bool) -> Moments:
    """Statistics of the columns in two passes; ``full_gram`` asks for all of X'X, not its diagonal.

    Where X'X of dense rows would cost more than a pass it is that of 20 rows a column or more, spread evenly but with
    no period; and columns of which these rows see little have the variance that all rows have. Where memory does not
    hold all rows X'X is the sample's, in the same way.
    """
    n_drawn = _rows_of_gram(problem)
    if problem.data_source is not None:
        mean, max_deviation, spread = problem.data_source.moments
        if not full_gram:
            return problem.data_source.moments
    else:
        mean, max_deviation = mean_and_max_deviation(problem)
        if not full_gram or n_drawn == problem.n_samples:
            return Moments(mean, max_deviation, _second(problem, mean, max_deviation, full_gram=full_gram))
        spread = _second(problem, mean, max_deviation, full_gram=False)
    part = problem
    if n_drawn < problem.n_samples:
        rows = np.unique((np.arange(n_drawn) * _GOLDEN % 1.0 * problem.n_samples).astype(np.intp))
        part = problem._replace(data=Batch(*(column[rows] for column in problem.data)))
    column_offset = mean
    if problem.fit_intercept:
        column_offset = sum(to_host(block.weight @ block.X) for block in iter_blocks(part)) / part.data.weight.sum()
    second_moment = _second(part, column_offset, max_deviation, full_gram=True)
    seen = np.diagonal(second_moment).copy()
    np.einsum("ii->i", second_moment)[...] += np.where(seen < _SEEN * spread, spread - seen, 0.0)
    return Moments(mean, max_deviation, second_moment)


def _rows_of_gram(problem: Problem) -> int:
    """As many rows as make X'X no dearer than a pass, and at least 20 a column; all of them instead of most."""
    n, p = problem.n_samples, problem.n_features
    n_drawn = max(ROWS_PER_VARIANCE * p, _GRAM_PER_PASS * problem.n_outputs * n // p)
    return n if sp.issparse(problem.data.X) or 2 * n_drawn > n else n_drawn


def _second(problem: Problem, mean: Array, max_deviation: Array, *, full_gram: bool) -> Array:
    """``Moments.second_moment``."""
    unit = _unit(max_deviation)
    p = problem.n_features
    total = problem.data.weight.sum()
    second_moment: Any = zeros((p, p) if full_gram else (p,), problem.data.X)
    dtype = problem.data.X.dtype
    for block in iter_blocks(problem, _ROWS_PER_COLUMN * p if full_gram else 1):
        root = np.sqrt(block.weight / total).astype(dtype)
        if sp.issparse(block.X):
            u = (sp.diags_array(root) @ block.X @ sp.diags_array((1 / unit).astype(dtype))).tocsr()
            second_moment += (u.T @ u).toarray() if full_gram else np.asarray(u.multiply(u).sum(axis=0))
        else:
            u = block.X - mean.astype(dtype)
            u *= (1 / unit).astype(dtype)
            u *= root[:, None]
            second_moment += lower_gram(u) if full_gram else squares(u, axis=0)
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
        )  # no rounding of nothing
    return second_moment


def lower_gram(rows: Any) -> Any:
    """``rows' rows``, of which the lower triangle counts, in their dtype and where they are."""
    if isinstance(rows, DeviceArray):
        return rows.T @ rows
    syrk = scipy.linalg.blas.ssyrk if rows.dtype == np.float32 else scipy.linalg.blas.dsyrk
    return np.asarray(syrk(1.0, rows.T, lower=1))


def _unit(max_deviation: Array) -> Array:
    """What to divide a column by: its peak, or 1 for a column of one value."""
    return np.where(max_deviation > 0, max_deviation, 1.0)


def gram_preconditioner(problem: Problem, moments: Moments, batch_size: int | None = None) -> GramPreconditioner:
    """Invert the curvature bound.

    Parameters
    ----------
    problem : Problem
    moments : Moments
    batch_size : int or None
        Rows of the batches it is for. The curvature of a batch reaches ``bound * max (x - mean)^2 /
        batch_size`` along a column whose few large values happen to be in it: this is added, so that rare
        features cannot make a step overshoot. None for steps that see all rows.
    """
    bound = curvature_bound(problem)
    full_gram = moments.second_moment.ndim == 2
    smallest = np.finfo(
        problem.data.X.dtype
    ).tiny  # as in `mean_and_max_deviation`: means of batches may differ by less
    moments = moments._replace(max_deviation=np.where(moments.max_deviation <= smallest, 0.0, moments.max_deviation))
    spread = np.diagonal(moments.second_moment) if full_gram else moments.second_moment
    unit = _unit(moments.max_deviation)
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


def spectrum(problem: Problem, moments: Moments, curvature: float) -> Spectrum:
    """The directions, from all of X'X, for mean curvatures about ``curvature``."""
    unit = _unit(moments.max_deviation)
    ridge = problem.alpha / unit / unit
    relative = np.sqrt(curvature * np.maximum(np.diagonal(moments.second_moment), 0.0) + ridge)
    relative[moments.max_deviation == 0] = np.inf
    of_data = curvature * moments.second_moment / relative / relative[:, None]
    combined = of_data.copy()
    np.einsum("ii->i", combined)[...] = 1.0 + np.sqrt(np.finfo(problem.data.X.dtype).eps)
    share, basis = scipy.linalg.eigh(of_data, combined, check_finite=False)
    basis, share = to_device_of(basis, problem.data.X, np.float64), np.clip(share, 0, 1)
    return Spectrum(moments.mean, unit * relative, basis, share, curvature, problem.fit_intercept)


def absorb_constant_columns(preconditioner: GramPreconditioner | Spectrum, params: Params) -> Params:
    """The parameters with the columns of one value left to the intercept: the same predictions of the rows."""
    is_constant = np.isinf(preconditioner.scale)
    absorbed = params.coef[:, is_constant] @ preconditioner.mean[is_constant]
    return Params(np.where(is_constant, 0.0, params.coef), params.intercept + absorbed)


def inverse_of_unit_diagonal(matrix: Array, eps: float) -> Array:
    """Inverse of a symmetric positive semi-definite matrix, whose lower triangle counts, of diagonal 1.

    At least sqrt(eps) on the diagonal keeps it definite to rounding: columns may be duplicates of each other.
    Sparse columns far from 0, centred after the product, have lost more digits, and need more.
    """
    lapack = scipy.linalg.lapack
    is_single = matrix.dtype == np.float32
    potrf, potri = (lapack.spotrf, lapack.spotri) if is_single else (lapack.dpotrf, lapack.dpotri)
    excess = float(np.sqrt(eps))
    while True:
        np.fill_diagonal(matrix, 1.0 + excess)
        factor, info = potrf(matrix, lower=1, clean=1)
        if info == 0:
            break
        excess *= 10.0
    half, _ = potri(factor, lower=1, overwrite_c=1)
    inverse = half + half.T
    np.einsum("ii->i", inverse)[...] *= 0.5
    return np.asarray(inverse)


def use_full_gram(problem: Problem, *, is_stream: bool = False) -> bool:
    """Whether X'X and its Cholesky factor cost little next to the passes that they save.

    With s stored entries a row, ``n s^2 + p^3`` operations (sparse ones are some ten times slower), against
    ``4 n s n_outputs`` for a pass (a loss and gradient). Of a stream, whose end is not known, the factor of the
    first rows is to cost no more than their X'X would if they were as many as the columns.
    """
    n, p = problem.n_samples, problem.n_features
    if p > _MAX_GRAM_FEATURES:
        return False
    is_sparse = sp.issparse(problem.data.X)
    stored = max(1.0, problem.data.X.nnz / n) if is_sparse else float(p)
    rows = max(n, p) if is_stream else n
    gram = rows * stored**2 * (_SPARSE_FACTOR if is_sparse else 1.0)
    return gram + p**3 <= _GRAM_PASSES * 4 * rows * stored * problem.n_outputs


def merge_max_deviation(known: Moments, mean: Array, max_deviation: Array) -> Array:
    """A bound of the largest ``|x - known.mean|`` of those rows and of some with this mean and peak."""
    return np.asarray(np.maximum(known.max_deviation, max_deviation + np.abs(mean - known.mean)))


def merge_moments(left: Moments, left_weight: float, right: Moments, right_weight: float) -> Moments:
    """Statistics of two sets of rows together: Chan, Golub & LeVeque (1983), Am. Stat. 37(3), 242-247.

    ``max_deviation`` becomes a bound of the largest ``|x - mean|``.
    """
    share = right_weight / (left_weight + right_weight)
    mean = left.mean + share * (right.mean - left.mean)
    max_deviation = merge_max_deviation(
        left._replace(mean=mean, max_deviation=left.max_deviation + np.abs(mean - left.mean)),
        right.mean,
        right.max_deviation,
    )
    unit = _unit(max_deviation)
    full_gram = left.second_moment.ndim == 2
    second_moment = np.zeros_like(left.second_moment)
    for part, part_share in ((left, 1 - share), (right, share)):
        ratio, offset = part.max_deviation / unit, (part.mean - mean) / unit
        if full_gram:
            second_moment += part_share * (part.second_moment * np.outer(ratio, ratio) + np.outer(offset, offset))
        else:
            second_moment += part_share * (part.second_moment * ratio**2 + offset**2)
    return Moments(mean, max_deviation, second_moment)
