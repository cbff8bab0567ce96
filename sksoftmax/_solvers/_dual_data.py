"""The rows of the dual solver: CSR rows, which are processed one at a time, and dense rows, in blocks.

Both classes have the methods of `DualData`, on columns less ``mean`` (0 for CSR rows) and times ``root``. `dual` and
`_certificate` call them; the loops over rows are the kernels of the compiled engine. `plan` and `fit` ask
`is_mostly_zeros`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol, Self, TypeVar

import numpy as np
import scipy.sparse as sp

from sksoftmax._engines import compiled
from sksoftmax._engines.moments import row_squares
from sksoftmax._engines.threads import COPY_WORK, count_threads, map_in_order
from sksoftmax._maths.preconditioner import compute_moments
from sksoftmax._solvers._rounds import count_ranges, count_rows, row_work
from sksoftmax._types import Array, Params, Problem

#: Rows per lane in a dense block. The inner products of the rows then cost about as much as two or three products with
#: the coefficients.
_BLOCK_PER_LANE = 2

#: Minimum number of rows in a dense block.
_MIN_BLOCK = 48

#: Maximum number of rows in a dense block of an epoch, and minimum in passes that take no steps.
_MAX_BLOCK = 128

#: Number of entries in a dense block of a pass that takes no steps, to fit in a cache.
_BLOCK_ENTRIES = 2**17

#: Maximum fraction of nonzeros of dense rows that are converted to CSR.
_MAX_NONZEROS = 0.25

#: Number of dense rows that are converted to CSR at once.
_CONVERTED_ROWS = 4096

#: Multiplications of a thread in a round, some microseconds: with fewer it would mostly wait for the others.
_MIN_PART_WORK = 2**15

#: Columns whose coefficients are processed at once.
_COLUMNS_AT_ONCE = 4096

#: Entries of a sparse X that are scaled at once.
_SCALED_ENTRIES = 2**20

#: Number of rows on which this fraction is counted.
_N_COUNTED_ROWS = 1000

_Result = TypeVar("_Result")


class DualData(Protocol):
    """The interface of the rows for the dual solver."""

    @property
    def weight(self) -> Array:
        """Weights, (n_samples,), of mean 1 unless `scale_weights` changed them."""

    @property
    def mean(self) -> Array:
        """Means that are subtracted from the columns, (n_features,)."""

    @property
    def second_moment(self) -> Array:
        """Weighted mean square of each column less ``mean``, (n_features,)."""

    @property
    def constant(self) -> Array:
        """Indices of the constant columns, which the intercept replaces; empty without intercept."""

    def subsample(self, max_rows: int) -> Self:
        """Return about ``max_rows`` of the rows, equally spaced; their ``norm_weight`` is relative to all rows."""

    def curvatures(self, scale: Array, intercept_scale: float) -> tuple[Array, float]:
        """Return the q of each row, and the mean of q / (1 + q), see `_row_curvatures`.

        ``scale`` is (n_features,).
        """

    def scale_columns(self, root: Array) -> Self:
        """Return the rows with the original columns times ``root``, (n_features,) or longer."""

    def unscale_columns(self) -> Self:
        """Return the rows with the original columns."""

    def run_epoch(
        self, model: Any, dual_vars: Any, order: Array, intercept_scale: float, gap_tol: float
    ) -> tuple[float, float]:
        """Take the dual steps of the rows in ``order``, see ``sdca_epoch`` in sparse.hpp.

        ``intercept_scale`` is the scale of the intercept.
        """

    def choose_rounds(self, q: Array, intercept_scale: float) -> Self:
        """Return the rows with rounds for these q, see `_rounds`. Only CSR rows have rounds."""

    def shorten_rounds(self) -> Self:
        """Return the rows with rounds of half the length."""

    def scale_weights(self, factor: float) -> Self:
        """Return the rows with the weights times ``factor``."""

    def dual_gradient_sums(self, dual_vars: Any) -> tuple[Array, Array]:
        """Return ``X' diag(weight) R``, (n_features, n_lanes), and ``sum_i weight_i R_i``, (n_lanes,).

        R is ``dual_vars.residual``.
        """

    def evaluate(self, model: Any, dual_vars: Any, gradient: Any) -> tuple[float, float]:
        """Return the sums of loss and gap, see ``evaluate`` in sparse.hpp."""

    def add_product(self, dual_vars: Any, direction: Any, product: Any) -> None:
        """Add a Hessian product to ``product``, see ``add_hessian_product`` in sparse.hpp."""


def make_dual_data(problem: Problem) -> DualData:
    """Return the rows of the problem, not scaled yet; dense X that is mostly zeros is converted to CSR."""
    X, y, weight = problem.data
    if sp.issparse(X):
        X = sp.csr_array(tuple(map(compiled.align, (X.data, X.indices, X.indptr))), X.shape)
    else:
        X = compiled.align(X)
    y = compiled.align(y)
    if not sp.issparse(X) and is_mostly_zeros(X):
        X = _as_csr(X)
    weight, norm_weight = (weight / weight.mean()).astype(X.dtype), weight / weight.sum()
    if sp.issparse(X):
        constant = _constant_columns(X) if problem.fit_intercept else np.empty(0, np.intp)
        splits = compiled.split_rows(X, count_ranges(X, problem.n_classes))
        return SparseRows(X, y, weight, norm_weight, _mean_squares(X, norm_weight), constant, X.data, splits)
    return DenseRows(X, y, weight, norm_weight, *_dense_statistics(problem))


def is_mostly_zeros(X: Array) -> bool:
    """Return whether CSR is faster for X, by the fraction of nonzeros of some rows.

    The CSR copy then takes at most half of the memory of X.
    """
    sample = X[:: max(1, len(X) // _N_COUNTED_ROWS)]
    return bool(np.count_nonzero(sample) <= _MAX_NONZEROS * sample.size)


def _as_csr(X: Array) -> Any:
    """Return a CSR copy of a dense X."""
    spans = [slice(start, start + _CONVERTED_ROWS) for start in range(0, len(X), _CONVERTED_ROWS)]

    def count(span: slice) -> Array:
        rows = np.ascontiguousarray(X[span])
        indptr = np.zeros(len(rows) + 1, np.intp)
        compiled.kernels.count_nonzeros(rows, indptr)
        return indptr

    indptr = np.zeros(len(X) + 1, np.intp)
    for span, counts in zip(spans, map_in_order(count, spans, COPY_WORK * X.size), strict=True):
        indptr[span.start : span.stop + 1] = indptr[span.start] + counts
    is_short = indptr[-1] <= np.iinfo(np.int32).max
    indices = np.empty(indptr[-1], np.int32 if is_short else np.int64)
    values = np.empty(indptr[-1], X.dtype)

    def copy(span: slice) -> None:
        rows = np.ascontiguousarray(X[span])
        entries = slice(indptr[span.start], indptr[span.start + len(rows)])
        compiled.kernels.copy_nonzeros(rows, indices[entries], values[entries])

    deque(map_in_order(copy, spans, COPY_WORK * X.size), maxlen=0)
    return sp.csr_array((values, indices, indptr.astype(indices.dtype)), X.shape)


def _row_curvatures(squared_norms: Array, norm_weight: Array, intercept_scale: float) -> tuple[Array, float]:
    """Return ``q_i = norm_weight_i (||x_i||^2 + intercept_scale)``, and the mean of s = q / (1 + q).

    The q of the mean is without the intercept's part. The mean is weighted by s itself, so that empty and nearly empty
    rows do not count.
    """
    q = squared_norms * norm_weight
    s = q / (1 + q)
    return q + intercept_scale * norm_weight, float(s @ s) / (float(s.sum()) + 1e-300)


def uncenter_params(rows: DualData, params: Params) -> Params:
    """Return the parameters for the original columns, given the parameters for the columns less their means."""
    return Params(params.coef, params.intercept - params.coef @ rows.mean)


def _mean_squares(X: Any, norm_weight: Array) -> Array:
    """Return the weighted mean square of each column of a CSR X, (n_features,)."""
    squares = np.zeros(X.shape[1])
    compiled.kernels.add_mean_squares(X.indptr, X.indices, X.data, norm_weight, squares)
    return squares


def _constant_columns(X: Any) -> Array:
    """Return the indices of the constant columns of a CSR X."""
    columns = np.arange(X.shape[1])
    for stride in (max(1, X.shape[0] // _N_COUNTED_ROWS), 1):  # a few rows rule out most columns: they have a 0 there
        sample = X[::stride, columns]
        columns = columns[np.bincount(sample.nonzero()[1], minlength=len(columns)) == sample.shape[0]]
    values = X[:, columns].toarray()
    return columns[values.max(axis=0) == values.min(axis=0)]


class SparseRows(NamedTuple):
    """CSR rows; ``values`` are the values of X times the ``root`` of their column.

    ``norm_weight`` is the weights with sum 1 over all rows, ``splits`` the first entry of each range of columns in each
    row, and ``round_size`` the number of rows whose steps start from the same model: `_rounds` explains both. The other
    fields and the methods are those of `DualData`.
    """

    X: Any
    y: Array
    weight: Array
    norm_weight: Array
    second_moment: Array
    constant: Array
    values: Array
    splits: Array
    round_size: int = 1

    @property
    def mean(self) -> Array:
        return np.zeros(self.X.shape[1])

    def subsample(self, max_rows: int) -> SparseRows:
        stride = slice(None, None, max(1, len(self.y) // max_rows))
        return self._replace(X=self.X[stride], norm_weight=self.norm_weight[stride])

    def curvatures(self, scale: Array, intercept_scale: float) -> tuple[Array, float]:
        squared_norms = np.empty(len(self.norm_weight))
        compiled.kernels.squared_norms(self.X.indptr, self.X.indices, self.X.data, scale, squared_norms)
        return _row_curvatures(squared_norms, self.norm_weight, intercept_scale)

    def scale_columns(self, root: Array) -> SparseRows:
        X, values = self.X, np.empty_like(self.X.data)
        spans = [slice(start, start + _SCALED_ENTRIES) for start in range(0, len(values), _SCALED_ENTRIES)]

        def scale(span: slice) -> None:
            compiled.kernels.scale_values(X.indices[span], X.data[span], root, values[span])

        deque(map_in_order(scale, spans, COPY_WORK * len(values)), maxlen=0)
        return self._replace(values=values)

    def unscale_columns(self) -> SparseRows:
        return self._replace(values=self.X.data)

    def run_epoch(
        self, model: Any, dual_vars: Any, order: Array, intercept_scale: float, gap_tol: float
    ) -> tuple[float, float]:
        n_threads = min(self._count_threads(model), 1 + int(self.round_size * self._row_work(model)) // _MIN_PART_WORK)
        sums: tuple[float, float] = compiled.kernels.sdca_epoch(
            *(self._csr(), model, dual_vars, order, intercept_scale, 1 / len(self.y), gap_tol),
            *(self.round_size, n_threads),
        )
        return sums

    def choose_rounds(self, q: Array, intercept_scale: float) -> SparseRows:
        return self._replace(round_size=count_rows(self, q, intercept_scale))

    def shorten_rounds(self) -> SparseRows:
        return self._replace(round_size=max(1, self.round_size // 2))

    def scale_weights(self, factor: float) -> SparseRows:
        return self._replace(weight=self.weight * self.weight.dtype.type(factor))

    def dual_gradient_sums(self, dual_vars: Any) -> tuple[Array, Array]:
        n_lanes = dual_vars.residual.size // len(self.y)
        sums = compiled.GradientSums(np.zeros((self.X.shape[1], n_lanes), self.values.dtype), np.zeros(n_lanes))
        compiled.kernels.add_dual_gradient(self._csr(), dual_vars, sums, self._count_threads(sums))
        return sums.table, sums.intercept

    def evaluate(self, model: Any, dual_vars: Any, gradient: Any) -> tuple[float, float]:
        sums: tuple[float, float] = compiled.kernels.evaluate(
            self._csr(), model, dual_vars, gradient, self._count_threads(model)
        )
        return sums

    def add_product(self, dual_vars: Any, direction: Any, product: Any) -> None:
        compiled.kernels.add_hessian_product(self._csr(), dual_vars, direction, product, self._count_threads(direction))

    def _row_work(self, model: Any) -> float:
        """Return the mean multiplications of a row with the model."""
        return row_work(self.X, len(model.intercept))

    def _count_threads(self, model: Any) -> int:
        """Return the number of threads of a pass with the model."""
        return count_threads(len(self.y) * self._row_work(model))

    def _csr(self) -> Any:
        """Return the rows as the compiled functions take them."""
        return compiled.CsrRows(self.splits, self.X.indices, self.values, self.y, self.weight)


class DenseRows(NamedTuple):
    """Dense rows, processed in blocks; ``mean`` and ``root`` are in the dtype of X.

    ``norm_weight`` is the weights with sum 1 over all rows. The other fields and the methods are those of `DualData`.
    An epoch takes the dual steps of the rows of a block in order, with their raw predictions from one product with the
    coefficients; `blocks.hpp` has its steps. The inner products of the rows give the effect of each step on the raw
    predictions of the later rows, so that the result equals one-row-at-a-time steps. With L1 the effect is only an
    upper bound, as is q, because coefficients follow only beyond the threshold.
    """

    X: Array
    y: Array
    weight: Array
    norm_weight: Array
    mean: Array
    second_moment: Array
    constant: Array
    root: Array

    def subsample(self, max_rows: int) -> DenseRows:
        stride = slice(None, None, max(1, len(self.y) // max_rows))
        return self._replace(X=self.X[stride], norm_weight=self.norm_weight[stride])

    def curvatures(self, scale: Array, intercept_scale: float) -> tuple[Array, float]:
        root = np.sqrt(scale)
        parts = self._map_blocks(lambda span: row_squares(compiled, self.X[span], self.mean, root), COPY_WORK)
        return _row_curvatures(np.concatenate(list(parts)), self.norm_weight, intercept_scale)

    def scale_columns(self, root: Array) -> DenseRows:
        return self._replace(root=root[: self.X.shape[1]].astype(self.X.dtype))

    def unscale_columns(self) -> DenseRows:
        return self._replace(root=np.ones_like(self.root))

    def run_epoch(
        self, model: Any, dual_vars: Any, order: Array, intercept_scale: float, gap_tol: float
    ) -> tuple[float, float]:
        n_lanes = len(model.intercept)
        size = int(np.clip(_BLOCK_PER_LANE * n_lanes, _MIN_BLOCK, _MAX_BLOCK))
        sums: tuple[float, float] = compiled.kernels.sdca_epoch_dense(
            *(self.X, self.y, self.weight, self.mean, self.root, model, dual_vars, order),
            *(intercept_scale, 1 / len(self.y), gap_tol, size),
            count_threads(2 * self.X.size * n_lanes, calls_blas=True),
        )
        return sums

    def choose_rounds(self, q: Array, intercept_scale: float) -> DenseRows:
        return self

    def shorten_rounds(self) -> DenseRows:
        return self

    def scale_weights(self, factor: float) -> DenseRows:
        return self._replace(weight=self.weight * self.weight.dtype.type(factor))

    def dual_gradient_sums(self, dual_vars: Any) -> tuple[Array, Array]:
        residual = dual_vars.residual.reshape(len(self.y), -1)
        sums = compiled.GradientSums(
            np.zeros((self.X.shape[1], residual.shape[1]), self.X.dtype), np.zeros(residual.shape[1])
        )

        def block_sums(span: slice) -> tuple[Array, Array]:
            return _products(self._block(span), residual[span] * self.weight[span, None])

        for part in self._map_blocks(block_sums, 2 * residual.shape[1]):
            _add(sums, part)
        return sums.table, sums.intercept

    def evaluate(self, model: Any, dual_vars: Any, gradient: Any) -> tuple[float, float]:
        table, with_gradient = scaled_coef(model), len(gradient.table) > 0
        loss = gaps = 0.0

        def block_sums(span: slice) -> tuple[tuple[float, float], tuple[Array, Array] | None]:
            block = self._block(span)
            z = block @ table
            z += model.intercept
            sums = compiled.kernels.evaluate_block(span.start, z, self.y, self.weight, dual_vars, with_gradient)
            return sums, _products(block, z) if with_gradient else None

        for sums, part in self._map_blocks(block_sums, 2 * table.shape[1]):
            loss, gaps = loss + sums[0], gaps + sums[1]
            if part is not None:
                _add(gradient, part)
        return loss, gaps

    def add_product(self, dual_vars: Any, direction: Any, product: Any) -> None:
        has_coef = len(direction.table) > 0
        table = scaled_coef(direction) if has_coef else None

        def block_product(span: slice) -> tuple[Array, Array]:
            block = self._block(span)
            residual = dual_vars.residual[span].reshape(len(block), -1)
            z = block @ table if has_coef else np.zeros_like(residual)
            z += direction.intercept
            if dual_vars.residual.ndim == 1:
                p = np.abs(residual)
                z *= p * (1 - p)
            else:
                class_entries = np.arange(len(block)), self.y[span]
                z -= z[class_entries][:, None]
                mean = np.einsum("ik,ik->i", residual, z)
                z -= mean[:, None]
                z *= residual
                z[class_entries] -= mean
            z *= self.weight[span, None]
            return _products(block, z)

        for part in self._map_blocks(block_product, 2 * len(direction.intercept)):
            _add(product, part)

    def _block(self, span: slice) -> Array:
        """Return scaled rows."""
        block: Array = self.X[span] - self.mean
        block *= self.root
        return block

    def _map_blocks(self, function: Callable[[slice], _Result], entry_work: float) -> Iterator[_Result]:
        """Yield ``function(span)`` for blocks of all rows that fit in a cache, computed side by side.

        ``entry_work`` is the number of multiplications that an entry of X takes.
        """
        n, size = len(self.X), max(_MAX_BLOCK, _BLOCK_ENTRIES // self.X.shape[1])
        spans = [slice(start, min(start + size, n)) for start in range(0, n, size)]
        return map_in_order(function, spans, entry_work * self.X.size)


def scaled_coef(model: Any) -> Array:
    """Return the scaled coefficients of the model after soft thresholding, (n_features, n_lanes).

    Without L1 they are the model's table itself.
    """
    table: Array = model.table.reshape(-1, len(model.intercept))
    if not len(model.l1_thresholds):
        return table
    coef = np.empty_like(table)

    def threshold(span: slice) -> None:
        compiled.kernels.threshold_rows(table[span], model.l1_thresholds[span], coef[span])

    deque(map_columns(threshold, table), maxlen=0)
    return coef


def map_columns(function: Callable[[slice], _Result], table: Array) -> Iterator[_Result]:
    """Yield ``function(span)`` for slices of the rows of ``table``, computed side by side."""
    spans = [slice(start, start + _COLUMNS_AT_ONCE) for start in range(0, len(table), _COLUMNS_AT_ONCE)]
    return map_in_order(function, spans, COPY_WORK * table.size)


def _products(block: Array, changes: Array) -> tuple[Array, Array]:
    """Return ``block' changes``, and the column sums of the changes."""
    return block.T @ changes, changes.sum(axis=0, dtype=np.float64)


def _add(sums: Any, part: tuple[Array, Array]) -> None:
    """Add `_products` to the table and the intercept of the sums."""
    table = sums.table.reshape(part[0].shape)
    table += part[0]
    sums.intercept[:] += part[1]


def _dense_statistics(problem: Problem) -> tuple[Array, Array, Array, Array]:
    """Return the column means of a dense X, the mean squares about them, the constant columns, and roots of 1."""
    moments = compute_moments(problem, full_gram=False)
    dtype = problem.data.X.dtype
    constant = np.flatnonzero(moments.max_deviation == 0) if problem.fit_intercept else np.empty(0, np.intp)
    second_moment = np.maximum(moments.second_moment, 0) * moments.max_deviation**2
    return moments.mean.astype(dtype), second_moment, constant, np.ones(len(second_moment), dtype)
