"""Curvature of F at given parameters: diagonals, Cholesky factors and class blocks of the Hessian of some rows.

The Newton and L1 solvers factorize or invert the Hessian of a sample of the rows (``row_sampling``), and the stopping
rules use ``robust_decrease``.
"""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.linalg
import scipy.sparse as sp

from sksoftmax._engines import compiled
from sksoftmax._engines.device import (
    DeviceArray,
    block_factor,
    match_device,
    to_device_of,
    to_host,
)
from sksoftmax._engines.moments import gram, loss_hessian
from sksoftmax._engines.threads import GRAM_PER_PASS, map_in_order
from sksoftmax._maths.objective import (
    block_length,
    column_medians,
    has_finite_squares,
    iter_blocks,
    pass_work,
    probabilities,
)
from sksoftmax._maths.preconditioner import GramPreconditioner, inverse_of_unit_diagonal
from sksoftmax._types import Array, Batch, Params, Problem, dot, normalize_weights

#: Minimum entries of a block (rows x parameters) while a Hessian is accumulated. A large Hessian uses blocks of
#: half of its own entries, because adding a block to it takes as long as computing the block.
_MIN_BLOCK_ENTRIES = 2**16

#: Entries of a table of probabilities that is kept whatever the size of X: 64 MiB with the variances.
_CACHED_ENTRIES = 2**22

#: Maximum distance of an entry from its column's center, in units of the geometric mean of the distances. Larger
#: distances are clipped: none in a normal column, few in a column with heavier tails.
_OUTLIER_RATIO = 10.0

#: Maximum rows from which the geometric means of dense columns are estimated, and minimum rows of the subsample of
#: ``robust_decrease``.
_N_SUBSAMPLE = 1000

#: Cost of the diagonal of dense rows, in passes over the rows.
_DIAGONAL_PASSES = 8

#: Minimum entries of a block (rows x columns and classes) of the classes' own curvatures, which threads share.
_CLASS_BLOCK_ENTRIES = 2**18

#: Rows per column in such a block. Adding up the blocks then costs little next to their products.
_ROWS_PER_COLUMN = 4


def exact_proba(proba: Any, largest: Any = None) -> Any:
    """Return float32 probabilities of three or more classes in float64, the largest as 1 minus the sum of the others.

    Returns other probabilities unchanged. ``largest`` is the index of the largest probabilities, or None.
    """
    if len(proba) == 1 or proba.dtype != np.float32 or isinstance(proba, DeviceArray):
        return proba
    largest = _argmax_index(proba) if largest is None else largest
    proba = proba.astype(np.float64)
    proba[largest] = 0
    proba[largest] = 1 - proba.sum(axis=0)
    return proba


def class_variances(proba: Any, largest: Any = None) -> Any:
    """Return ``p (1 - p)`` of each class, (n_outputs, n).

    The largest p is multiplied by the sum of the others, because ``1 - p`` would lose digits. ``largest`` is the index
    of the largest probabilities, or None.
    """
    if len(proba) == 1 or isinstance(proba, DeviceArray):
        return proba * (1 - proba)
    largest = _argmax_index(proba) if largest is None else largest
    others = proba.copy()
    others[largest] = 0
    variances = proba * (1 - proba)
    variances[largest] = proba[largest] * others.sum(axis=0)
    return variances


def proba_and_variances(proba: Any, *, is_compiled: bool = False) -> tuple[Any, Any]:
    """Return ``exact_proba(proba)`` and ``class_variances(proba)``; ``is_compiled``: by a kernel."""
    if len(proba) == 1 or isinstance(proba, DeviceArray):
        return proba, class_variances(proba)
    if is_compiled:
        return compiled.proba_and_variances(proba)
    largest = _argmax_index(proba)
    proba = exact_proba(proba, largest)
    return proba, class_variances(proba, largest)


def _argmax_index(proba: Array) -> tuple[Array, Array]:
    """Return the index of each row's largest probability in a class-major table."""
    return proba.argmax(axis=0), np.arange(proba.shape[1])


class CholeskyPreconditioner(NamedTuple):
    """Inverse of the full Hessian of a sample of rows, all classes coupled, by its Cholesky factor.

    ``factor`` is in the coordinates of ``GramPreconditioner``, scaled by ``unit`` so that the Hessian's diagonal is 1.
    """

    mean: Array
    scale: Array
    unit: Array
    factor: Array

    def apply(self, grads: Params) -> Params:
        """Return the inverse Hessian times ``grads``, in the coordinates of the parameters."""
        u = (grads.coef - np.outer(grads.intercept, self.mean)) / self.scale
        n_outputs, p = u.shape
        q = len(self.unit) // n_outputs
        v = np.empty((n_outputs, q))
        v[:, :p] = u
        v[:, p:] = grads.intercept[:, None]
        d, _ = scipy.linalg.lapack.dpotrs(self.factor, v.ravel() * self.unit)
        d = (d * self.unit).reshape(n_outputs, q)
        coef = d[:, :p] / self.scale
        intercept = d[:, p] - coef @ self.mean if q > p else np.zeros(n_outputs)
        return Params(coef, intercept)


class BlockPreconditioner(NamedTuple):
    """Inverse of each class's block of the Hessian, restricted to directions that sum to 0 over the classes.

    With B_c the curvature of class c, the minimum of ``sum_c d_c' B_c d_c / 2 - g_c' d_c`` with
    ``sum_c d_c = 0`` is ``d_c = B_c^-1 (g_c - m)``, ``m = (sum_c B_c^-1)^-1 sum_c B_c^-1 g_c``. A shift common to all
    classes does not change the softmax, so the constraint does not exclude the minimum of F. Without the constraint,
    the shift, along which F is flat, would worsen the conditioning.

    Attributes
    ----------
    mean, scale : ndarray of shape (n_features,)
        As in ``GramPreconditioner``.
    inverse : ndarray of shape (n_outputs, q, q)
        ``B_c^-1``; q is n_features, plus 1 with an intercept.
    constraint : ndarray of shape (q, q) or None
        ``(sum_c B_c^-1)^-1``; None for two classes.
    """

    mean: Array
    scale: Array
    inverse: Array
    constraint: Array | None

    def apply(self, grads: Params) -> Params:
        """Return the inverse times ``grads``, in the coordinates of the parameters."""
        u = (grads.coef - np.outer(grads.intercept, self.mean)) / self.scale
        has_intercept = self.inverse.shape[1] > u.shape[1]
        if has_intercept:
            u = np.hstack([u, grads.intercept[:, None]])
        size = np.abs(u).max() or 1.0  # gradients of any scale would not fit in the range of float32
        d = ((u / size).astype(self.inverse.dtype)[:, None, :] @ self.inverse)[:, 0]
        if self.constraint is not None:
            d -= (self.constraint @ d.sum(axis=0)) @ self.inverse
        d = d * size
        coef = d[:, : len(self.mean)] / self.scale
        intercept = d[:, -1] - coef @ self.mean if has_intercept else np.zeros(len(coef))
        return Params(coef, intercept)


class Diagonal(NamedTuple):
    """Diagonal of the Hessian for columns centred at ``mean``, which decouples the intercept.

    Attributes
    ----------
    mean : ndarray of shape (n_features,)
        Mean of each column, with rows weighted by their curvature; 0 without intercept.
    unit : float
        Divisor of all columns, so that their squares do not overflow.
    coef : ndarray of shape (n_outputs, n_features)
        Curvature along each coefficient, for columns divided by ``unit``.
    intercept : ndarray of shape (n_outputs,)
        Curvature along each intercept; 0 without intercept.
    """

    mean: Array
    unit: float
    coef: Array
    intercept: Array

    def apply(self, grads: Params) -> Params:
        """Return the inverse times ``grads``, in the coordinates of the parameters."""
        slope = (grads.coef - np.outer(grads.intercept, self.mean)) / self.unit
        coef = safe_divide(slope, self.coef) / self.unit
        return Params(coef, safe_divide(grads.intercept, self.intercept) - coef @ self.mean)


def safe_divide(numbers: Array, by: Array) -> Array:
    """Return ``numbers / by``, and 0 where ``by`` is not positive."""
    return np.divide(numbers, by, out=np.zeros_like(numbers), where=by > 0)


class HessianBlock(NamedTuple):
    """Block of n rows, with their weights, (n,), and their probabilities and ``class_variances``, (n_outputs, n)."""

    X: Any
    weight: Array
    proba: Any
    spread: Any


def hessian_blocks(problem: Problem, params: Params, rows: Batch) -> list[Callable[[], HessianBlock]]:
    """Return functions that each make a block of the rows, in their order.

    Caches the probabilities if n_outputs <= n_features, so that they take no more memory than a dense X, or if they
    take little anyway.
    """
    size = _block_rows(problem) * block_factor(rows.X)
    spans = [slice(start, start + size) for start in range(0, len(rows.y), size)]

    def table(span: slice) -> tuple[Any, Any]:
        proba = problem.kernel.proba(params, rows.X[span])
        return proba_and_variances(proba, is_compiled=problem.kernel.is_compiled)

    work = 0.5 * pass_work(problem._replace(data=rows))
    is_cached = problem.n_outputs <= problem.n_features or problem.n_outputs * len(rows.y) <= _CACHED_ENTRIES
    cached = list(map_in_order(table, spans, work)) if is_cached else None

    def make(i: int) -> HessianBlock:
        span = spans[i]
        return HessianBlock(rows.X[span], rows.weight[span], *(table(span) if cached is None else cached[i]))

    return [functools.partial(make, i) for i in range(len(spans))]


def curvature_mean(problem: Problem, blocks: Sequence[Callable[[], HessianBlock]]) -> Array:
    """Return the mean of each column, (n_features,), with rows weighted by their curvature; 0 without intercept."""
    if not problem.fit_intercept:
        return np.zeros(problem.n_features)
    linear, total = 0.0, 0.0
    for make in blocks:
        part = make()
        spread = (to_host(part.spread).sum(axis=0) * to_host(part.weight)).astype(part.X.dtype)
        total += float(spread.sum(dtype=np.float64))
        linear += to_host(match_device(spread, part.X) @ part.X).astype(np.float64)
    return np.asarray(linear / total if total > 0 else np.zeros(problem.n_features))


def hessian_diagonal(problem: Problem, params: Params, rows: Batch, *, is_robust: bool = False) -> Diagonal:
    """Return the diagonal of the Hessian of ``rows``, whose weights sum to about 1, at ``params``.

    With ``is_robust``, outlying entries are clipped, so that the diagonal is the curvature that most rows share.
    """
    part = problem._replace(data=rows)
    clip = _make_clip(rows.X) if is_robust else None
    total, linear = np.zeros(problem.n_outputs), np.zeros((problem.n_outputs, problem.n_features))
    sum_squares = np.zeros((problem.n_outputs, problem.n_features))
    is_small = isinstance(rows.X, DeviceArray) or has_finite_squares(rows.X)
    unit = 1.0 if is_small else float(np.abs(rows.X).max())

    def weighted_blocks() -> Iterator[tuple[Any, Any]]:
        for block, proba in zip(iter_blocks(part), probabilities(part, params), strict=True):
            spread = class_variances(exact_proba(to_host(proba)))
            X = block.X if clip is None else clip(block.X)
            yield match_device(spread * to_host(block.weight), X), X

    for spread, X in weighted_blocks():
        total += to_host(spread.sum(axis=1))
        linear += to_host(spread @ X)
        if sp.issparse(X):
            sum_squares += spread @ (X / unit).power(2)
    mean = np.zeros(problem.n_features)
    if problem.fit_intercept and total.sum() > 0:
        mean = linear.sum(axis=0) / total.sum()
    if sp.issparse(rows.X):
        column_offset = mean / unit
        sum_squares = np.maximum(
            sum_squares - 2 * column_offset * (linear / unit) + column_offset**2 * total[:, None], 0
        )
    else:
        for spread, X in weighted_blocks():
            centred = (X - to_device_of(mean, X)) / unit if unit != 1 else X - to_device_of(mean, X)
            sum_squares += to_host(spread @ (centred * centred))
    ridge = problem.alpha * (1 - problem.l1_ratio) / unit / unit
    return Diagonal(mean, unit, sum_squares + ridge, total * problem.fit_intercept)


def robust_decrease(problem: Problem, params: Params, rows: Batch, grads: Params) -> float:
    """Return ``g' D^-1 g / 2``, the decrease of F that a diagonal curvature D predicts for the gradient g.

    D is the diagonal of the curvature that most rows share: a few outlying rows could make the Hessian of all rows so
    large along a direction that the decrease is missed. For 2000 or more dense rows, D is estimated from every second
    row, and for more rows from fewer, down to every eighth: it then costs about one pass.
    """
    stride = min(_DIAGONAL_PASSES, len(rows.y) // _N_SUBSAMPLE)
    if stride > 1 and not sp.issparse(rows.X):
        rows = normalize_weights(Batch(*(column[::stride] for column in rows)))
    return 0.5 * dot(grads, hessian_diagonal(problem, params, rows, is_robust=True).apply(grads))


def _make_clip(X: Any) -> Callable[[Any], Any]:
    """Return a function that clips a block's entries at ``_OUTLIER_RATIO`` times the typical distance from the center.

    The typical distance of a column is the geometric mean of the nonzero distances. For dense X, the center is the
    median of a subsample of rows; for sparse X, the center is 0 and the mean is over the stored entries.
    """
    if sp.issparse(X):
        n_stored = np.bincount(X.indices, minlength=X.shape[1])
        logs = np.bincount(X.indices, np.log(np.maximum(np.abs(X.data), np.finfo(X.dtype).tiny)), X.shape[1])
        max_distance = _OUTLIER_RATIO * np.exp(logs / np.maximum(n_stored, 1))

        def clip_sparse(block: Any) -> Any:
            limits = max_distance[block.indices]
            return sp.csr_array((np.clip(block.data, -limits, limits), block.indices, block.indptr), shape=block.shape)

        return clip_sparse
    sample = to_host(X[:: -(-X.shape[0] // _N_SUBSAMPLE)]).astype(np.float64)
    median = column_medians(sample)
    distance = np.abs(sample - median)
    is_off = distance > 0
    logs = np.log(distance, where=is_off, out=np.zeros_like(distance)).sum(axis=0)
    n_off = is_off.sum(axis=0)
    max_distance = np.where(n_off > 0, _OUTLIER_RATIO * np.exp(logs / np.maximum(n_off, 1)), np.inf)
    low, high = (to_device_of(limit, X, X.dtype) for limit in (median - max_distance, median + max_distance))
    return lambda block: np.minimum(np.maximum(block, low), high)


def factorize_hessian(
    problem: Problem, params: Params, rows: Batch, preconditioner: GramPreconditioner
) -> CholeskyPreconditioner:
    """Return the Cholesky preconditioner of the Hessian of ``rows`` at ``params``.

    The columns are centred at their curvature-weighted mean, and scaled as in ``preconditioner``.
    """
    blocks = hessian_blocks(problem, params, rows)
    preconditioner = preconditioner._replace(mean=curvature_mean(problem, blocks))
    matrix = hessian_matrix(problem, blocks, preconditioner)
    K = problem.n_outputs
    q = len(matrix) // K
    if K > 1:  # add curvature along the shift common to all classes, where F has only that of the penalty
        shift = np.diagonal(matrix).reshape(K, q).mean(axis=0) / K
        np.einsum("cjdj->jcd", matrix.reshape(K, q, K, q))[...] += shift[:, None, None]
    matrix_diagonal = np.diagonal(matrix)
    unit = 1 / np.sqrt(np.where(matrix_diagonal > 0, matrix_diagonal, 1.0))
    matrix *= unit
    matrix *= unit[:, None]
    return CholeskyPreconditioner(
        preconditioner.mean,
        preconditioner.scale,
        unit,
        cholesky_of_unit_diagonal(matrix, float(np.finfo(np.float64).eps)),
    )


def factorize_subsample(
    problem: Problem, params: Params, rows: Batch, preconditioner: GramPreconditioner, *, n_samples: int
) -> CholeskyPreconditioner:
    """Return ``factorize_hessian`` of ``n_samples`` of the sampled rows, evenly spaced."""
    if n_samples < len(rows.y):
        index = np.arange(n_samples) * len(rows.y) // n_samples
        rows = Batch(*(column[index] for column in rows))
        rows = normalize_weights(rows)
    return factorize_hessian(problem, params, rows, preconditioner)


def hessian_matrix(
    problem: Problem, blocks: Sequence[Callable[[], HessianBlock]], preconditioner: GramPreconditioner
) -> Array:
    """Return the Hessian of the rows: the sum of ``w (diag(p) - p p') (x) x x'``, plus the L2 strength.

    Only the lower triangle is valid. The coordinates are those of ``preconditioner``.
    """
    K, p = problem.n_outputs, problem.n_features
    q = p + problem.fit_intercept
    mean, factor = preconditioner.mean, 1 / preconditioner.scale

    def block_hessian(make: Callable[[], HessianBlock]) -> Array:
        X, weight, proba, variances = make()
        return loss_hessian(problem.kernel, X, mean, factor, weight, proba, variances, q)

    n_samples = len(blocks) * _block_rows(problem)
    work = 0.5 / GRAM_PER_PASS * n_samples * (K * q) ** 2 * (not isinstance(problem.data.X, DeviceArray))
    parts = map_in_order(block_hessian, blocks, work)
    matrix = next(parts)
    for part in parts:
        matrix += part
    np.einsum("cjcj->cj", matrix.reshape(K, q, K, q))[:, :p] += _ridge(problem, preconditioner)
    return matrix


def _ridge(problem: Problem, preconditioner: GramPreconditioner) -> Array:
    """Return the curvature of the L2 penalty along each column, in the preconditioner's coordinates."""
    return problem.alpha * (1 - problem.l1_ratio) / preconditioner.scale / preconditioner.scale


def class_block_preconditioner(
    problem: Problem, params: Params, rows: Batch, preconditioner: GramPreconditioner
) -> BlockPreconditioner:
    """Return the inverse of each class's Hessian block at ``params``: ``X' diag(w p_c (1 - p_c)) X + alpha I``."""
    K, p = problem.n_outputs, problem.n_features
    q = p + problem.fit_intercept
    dtype = rows.X.dtype
    ridge = np.zeros(q)
    ridge[:p] = _ridge(problem, preconditioner)
    inverse = np.zeros((K, q, q), dtype)
    size = max(_CLASS_BLOCK_ENTRIES // (q + K), _ROWS_PER_COLUMN * q) * block_factor(rows.X)
    gram_work = 0.5 / GRAM_PER_PASS * K * q * q * (not isinstance(rows.X, DeviceArray))
    for start in range(0, len(rows.y), size):
        X, weight = rows.X[start : start + size], rows.weight[start : start + size]
        roots = np.sqrt(weight * class_variances(problem.kernel.proba(params, X)))
        X = X.toarray() if sp.issparse(X) else X

        def add_class(c: int, X: Any = X, roots: Array = roots) -> None:
            inverse[c] += gram(problem.kernel, X, preconditioner.mean, 1 / preconditioner.scale, roots[c], q)

        deque(map_in_order(add_class, range(K), gram_work * len(weight)), maxlen=0)
    for c in range(K):
        np.einsum("ii->i", inverse[c])[...] += ridge
        inverse[c] = _invert(inverse[c])
    constraint = _invert(inverse.sum(axis=0)) if K > 1 else None
    return BlockPreconditioner(preconditioner.mean, preconditioner.scale, inverse, constraint)


def _invert(matrix: Array) -> Array:
    """Return the inverse of a positive semi-definite matrix with any diagonal; only its lower triangle is read."""
    matrix_diagonal = np.diagonal(matrix)
    unit = np.sqrt(np.where(matrix_diagonal > 0, matrix_diagonal, 1))
    inverse = inverse_of_unit_diagonal(matrix / unit / unit[:, None], float(np.finfo(matrix.dtype).eps))
    inverse /= unit
    inverse /= unit[:, None]
    return inverse


def _block_rows(problem: Problem) -> int:
    """Return the number of rows per block of a Hessian: adding up the blocks costs little next to their products.

    The compiled engine divides dense blocks itself.
    """
    n_columns = problem.n_outputs * (problem.n_features + problem.fit_intercept)
    n_rows = max(1, _MIN_BLOCK_ENTRIES // n_columns, n_columns)
    is_divided = problem.kernel.is_compiled and isinstance(problem.data.X, np.ndarray)
    return max(n_rows, block_length(problem)) if is_divided else n_rows


def cholesky_of_unit_diagonal(matrix: Array, jitter: float) -> Array:
    """Return the upper Cholesky factor of a positive semi-definite matrix with unit diagonal, in its dtype.

    Adds ``jitter`` to the diagonal, and ten times more until the matrix is definite. Only the lower triangle of
    ``matrix`` is read, and its diagonal is overwritten. Calls LAPACK directly: for small data SciPy's checks would take
    as long.
    """
    potrf = scipy.linalg.lapack.spotrf if matrix.dtype == np.float32 else scipy.linalg.lapack.dpotrf
    while True:
        np.einsum("ii->i", matrix)[...] = 1.0 + jitter
        factor, info = potrf(matrix.T, clean=False)  # .T: a Fortran-order view, upper triangle
        if info == 0:
            return np.asarray(factor)
        jitter *= 10.0
