"""The rows as the dual visits them: CSR ones one at a time, dense ones in blocks, both in the order asked for.

Both kinds have the same methods, on columns less ``mean`` (0 for CSR rows) and times ``root``; the kernels are in
``compiled``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol, Self

import numpy as np
import scipy.sparse as sp

from sksoftmax._maths.preconditioner import compute_moments
from sksoftmax._types import Array, Params, Problem

#: Rows of a dense block: what they say of each other costs as many operations as two or three of them have lanes.
_BLOCK_PER_LANE, _LEAST_BLOCK, _MOST_BLOCK = 2, 48, 128

#: Numbers of a block of rows that are not visited but summed over.
_BLOCK_NUMBERS = 2**17

#: Share of nonzeros up to which dense rows are visited as CSR, and rows that it is counted on.
_SPARSE, _N_COUNTED = 0.25, 1000


class DualData(Protocol):
    """What the dual asks of its rows. ``weight`` has mean 1; scales are (n_features,) and the intercept's."""

    @property
    def weight(self) -> Array: ...

    @property
    def mean(self) -> Array: ...

    @property
    def second_moment(self) -> Array:
        """Weighted mean square of each column, (n_features,)."""

    @property
    def constant(self) -> Array:
        """The columns of one value that the intercept stands for."""

    def sampled(self, most: int) -> Self:
        """Some of them, weighing as they do among all."""

    def curvatures(self, scale: Array, intercept_scale: float) -> tuple[Array, float]:
        """Each row's q, and the mean of q / (1 + q) as ``compiled_data.row_curvatures`` has it."""

    def scaled(self, root: Array) -> Self:
        """The same rows, columns times ``root``."""

    def unscaled(self) -> Self:
        """The same rows, columns as they were given."""

    def visit(
        self, model: Any, dual_vars: Any, order: Array, scales: Array, gap_tol: float, workspace: Any
    ) -> tuple[float, float]:
        """See ``compiled.sdca_epoch_softmax``."""

    def scale_weights(self, factor: float) -> Self:
        """The same rows, weights times ``factor``."""

    def slope(self, dual_vars: Any) -> tuple[Array, Array]:
        """``X' diag(w) R`` of the columns, (n_features, n_lanes), and of a column of ones; R ``dual_vars.residual``."""

    def measure(self, model: Any, dual_vars: Any, slope: Any, workspace: Any) -> tuple[float, float]:
        """See ``compiled.evaluate_softmax``."""

    def add_product(self, dual_vars: Any, direction: Any, product: Any, workspace: Any) -> None:
        """See ``compiled.product_softmax``."""


def rows_of(problem: Problem) -> DualData:
    """The problem's rows, not scaled yet; dense ones that are mostly zeros as CSR."""
    X, y, weight = problem.data
    if not sp.issparse(X) and is_mostly_zeros(X):
        X = _as_csr(X)
    weight, norm_weight = (weight / weight.mean()).astype(X.dtype), weight / weight.sum()
    if sp.issparse(X):
        constant = _constant(X) if problem.fit_intercept else np.empty(0, np.intp)
        return SparseRows(X, y, weight, norm_weight, _mean_squares(X, norm_weight), constant, X.data)
    return DenseRows(X, y, weight, norm_weight, *_located(problem))


def is_mostly_zeros(X: Array) -> bool:
    """Whether CSR is quicker to visit and takes at most half of X's memory: nonzeros of some rows."""
    some = X[:: max(1, len(X) // _N_COUNTED)]
    return bool(np.count_nonzero(some) <= _SPARSE * some.size)


def _as_csr(X: Array) -> Any:
    from sksoftmax._engines import compiled_data as _compiled_data

    indptr = np.zeros(len(X) + 1, np.intp)
    _compiled_data.count_nonzeros(X, indptr)
    is_short = indptr[-1] <= np.iinfo(np.int32).max
    indices = np.empty(indptr[-1], np.int32 if is_short else np.int64)
    values = np.empty(indptr[-1], X.dtype)
    _compiled_data.copy_nonzeros(X, indices, values)
    return sp.csr_array((values, indices, indptr.astype(indices.dtype)), X.shape)


def uncentred(rows: DualData, params: Params) -> Params:
    """Parameters for the columns as they are, from those for the columns less their means."""
    return Params(params.coef, params.intercept - params.coef @ rows.mean)


def _mean_squares(X: Any, norm_weight: Array) -> Array:
    from sksoftmax._engines import compiled_data as _compiled_data

    squares = np.zeros(X.shape[1])
    _compiled_data.mean_squares(X.indptr, X.indices, X.data, norm_weight, squares)
    return squares


def _constant(X: Any) -> Array:
    """The columns of one value of a CSR X."""
    full = np.arange(X.shape[1])
    for every in (max(1, X.shape[0] // _N_COUNTED), 1):  # most columns have a 0 in some of a few rows
        part = X[::every, full]
        full = full[np.bincount(part.nonzero()[1], minlength=len(full)) == part.shape[0]]
    values = X[:, full].toarray()
    return full[values.max(axis=0) == values.min(axis=0)]


class SparseRows(NamedTuple):
    """CSR rows; ``values`` are X's times the columns' roots."""

    X: Any
    y: Array
    weight: Array
    norm_weight: Array
    second_moment: Array
    constant: Array
    values: Array

    @property
    def mean(self) -> Array:
        return np.zeros(self.X.shape[1])

    def sampled(self, most: int) -> SparseRows:
        every = slice(None, None, max(1, len(self.y) // most))
        return self._replace(X=self.X[every], norm_weight=self.norm_weight[every])

    def curvatures(self, scale: Array, intercept_scale: float) -> tuple[Array, float]:
        from sksoftmax._engines import compiled_data as _compiled_data

        X, q = self.X, np.empty(len(self.norm_weight))
        mean = _compiled_data.row_curvatures(X.indptr, X.indices, X.data, self.norm_weight, scale, intercept_scale, q)
        return q, mean

    def scaled(self, root: Array) -> SparseRows:
        from sksoftmax._engines import compiled_data as _compiled_data

        values = np.empty_like(self.X.data)
        _compiled_data.scale_values(self.X.indices, self.X.data, root, values)
        return self._replace(values=values)

    def unscaled(self) -> SparseRows:
        return self._replace(values=self.X.data)

    def visit(
        self, model: Any, dual_vars: Any, order: Array, scales: Array, gap_tol: float, workspace: Any
    ) -> tuple[float, float]:
        from sksoftmax._engines import compiled as _compiled

        if dual_vars.residual.ndim == 1:
            return _compiled.sdca_epoch_binary(self._csr(), model, dual_vars, order, scales, gap_tol)
        return _compiled.sdca_epoch_softmax(self._csr(), model, dual_vars, order, scales, gap_tol, workspace)

    def scale_weights(self, factor: float) -> SparseRows:
        return self._replace(weight=self.weight * self.weight.dtype.type(factor))

    def slope(self, dual_vars: Any) -> tuple[Array, Array]:
        residual = dual_vars.residual.reshape(len(self.y), -1) * self.weight[:, None]
        scaled = sp.csr_array((self.values, self.X.indices, self.X.indptr), self.X.shape)
        return scaled.T @ residual, residual.sum(axis=0, dtype=float)

    def measure(self, model: Any, dual_vars: Any, slope: Any, workspace: Any) -> tuple[float, float]:
        from sksoftmax._engines import compiled as _compiled

        if dual_vars.residual.ndim == 1:
            return _compiled.evaluate_binary(self._csr(), model, dual_vars, slope)
        return _compiled.evaluate_softmax(self._csr(), model, dual_vars, slope, workspace)

    def add_product(self, dual_vars: Any, direction: Any, product: Any, workspace: Any) -> None:
        from sksoftmax._engines import compiled as _compiled

        if dual_vars.residual.ndim == 1:
            _compiled.product_binary(self._csr(), dual_vars, direction, product)
        else:
            _compiled.product_softmax(self._csr(), dual_vars, direction, product, workspace)

    def _csr(self) -> Any:
        from sksoftmax._engines import compiled as _compiled

        return _compiled.CsrRows(self.X.indptr, self.X.indices, self.values, self.y, self.weight)


class DenseRows(NamedTuple):
    """Dense rows, visited in blocks; ``mean`` and ``root`` are in X's dtype, ``second_moment`` the mean squares.

    Of a block the raw predictions are one product with the coefficients. What a visit changes of those of the block's
    later rows, their inner products tell, so that the visits are those of single rows in order; with L1, where the
    coefficients do not follow at once, it is a bound, as q is. Then one more product brings the changes to them.
    """

    X: Array
    y: Array
    weight: Array
    norm_weight: Array
    mean: Array
    second_moment: Array
    constant: Array
    root: Array

    def sampled(self, most: int) -> DenseRows:
        every = slice(None, None, max(1, len(self.y) // most))
        return self._replace(X=self.X[every], norm_weight=self.norm_weight[every])

    def curvatures(self, scale: Array, intercept_scale: float) -> tuple[Array, float]:
        from sksoftmax._engines import compiled_data as _compiled_data

        q = np.empty(len(self.norm_weight))
        mean = _compiled_data.dense_row_curvatures(self.X, self.mean, self.norm_weight, scale, intercept_scale, q)
        return q, mean

    def scaled(self, root: Array) -> DenseRows:
        return self._replace(root=root[: self.X.shape[1]].astype(self.X.dtype))

    def unscaled(self) -> DenseRows:
        return self._replace(root=np.ones_like(self.root))

    def visit(
        self, model: Any, dual_vars: Any, order: Array, scales: Array, gap_tol: float, workspace: Any
    ) -> tuple[float, float]:
        from sksoftmax._engines import compiled as _compiled

        n_lanes = len(model.intercept)
        table = model.table.reshape(-1, n_lanes)
        size = int(np.clip(_BLOCK_PER_LANE * n_lanes, _LEAST_BLOCK, _MOST_BLOCK))
        buffer = np.empty((size, self.X.shape[1]), self.X.dtype)
        moved = np.empty(size, np.intp)
        loss = gaps = 0.0
        for start in range(0, len(order), size):
            rows = order[start : start + size]
            block = np.take(self.X, rows, 0, buffer[: len(rows)], "clip")
            block -= self.mean
            block *= self.root
            z = block @ _softened(model)
            z += model.intercept
            coupling = block @ block.T
            coupling += scales[0]
            if dual_vars.residual.ndim == 1:
                part = _compiled.sdca_epoch_block_binary(
                    rows, z, coupling, self.y, self.weight, dual_vars, scales[1], gap_tol, moved
                )
            else:
                part = _compiled.sdca_epoch_block_softmax(
                    rows, z, coupling, self.y, self.weight, dual_vars, scales[1], gap_tol, moved, workspace
                )
            loss, gaps, n_moved = loss + part[0], gaps + part[1], part[2]
            if n_moved:  # z holds the changes now
                table += block.T @ z
                model.intercept[:] += scales[0] * z.sum(axis=0)
        return loss, gaps

    def scale_weights(self, factor: float) -> DenseRows:
        return self._replace(weight=self.weight * self.weight.dtype.type(factor))

    def slope(self, dual_vars: Any) -> tuple[Array, Array]:
        residual = dual_vars.residual.reshape(len(self.y), -1) * self.weight[:, None]
        table = np.zeros((self.X.shape[1], residual.shape[1]), self.X.dtype)
        for span, block in self._blocks():
            table += block.T @ residual[span]
        return table, residual.sum(axis=0, dtype=float)

    def measure(self, model: Any, dual_vars: Any, slope: Any, workspace: Any) -> tuple[float, float]:
        from sksoftmax._engines import compiled as _compiled

        table, with_gradient = _softened(model), len(slope.table) > 0
        loss = gaps = 0.0
        for span, block in self._blocks():
            z = block @ table
            z += model.intercept
            if dual_vars.residual.ndim == 1:
                part = _compiled.evaluate_block_binary(span.start, z, self.y, self.weight, dual_vars, with_gradient)
            else:
                part = _compiled.evaluate_block_softmax(
                    span.start, z, self.y, self.weight, dual_vars, with_gradient, workspace
                )
            loss, gaps = loss + part[0], gaps + part[1]
            if with_gradient:
                _add(slope, block, z)
        return loss, gaps

    def add_product(self, dual_vars: Any, direction: Any, product: Any, workspace: Any) -> None:
        is_whole = len(direction.table) > 0
        table = _softened(direction) if is_whole else None
        for span, block in self._blocks():
            residual = dual_vars.residual[span].reshape(len(block), -1)
            z = block @ table if is_whole else np.zeros_like(residual)
            z += direction.intercept
            if dual_vars.residual.ndim == 1:
                p = np.abs(residual)
                z *= p * (1 - p)
            else:
                own = np.arange(len(block)), self.y[span]
                z -= z[own][:, None]
                mean = np.einsum("ik,ik->i", residual, z)
                z -= mean[:, None]
                z *= residual
                z[own] -= mean
            z *= self.weight[span, None]
            _add(product, block, z)

    def _blocks(self) -> Iterator[tuple[slice, Array]]:
        """All rows in order, less their means and scaled, as many as a cache keeps."""
        size = max(_MOST_BLOCK, _BLOCK_NUMBERS // self.X.shape[1])
        for start in range(0, len(self.y), size):
            block = self.X[start : start + size] - self.mean
            block *= self.root
            yield slice(start, start + len(block)), block


def _softened(model: Any) -> Array:
    """Coefficients, (n_features, n_lanes)."""
    table = model.table.reshape(-1, len(model.intercept))
    l1_thresholds = model.l1_thresholds[:, None]
    return np.asarray(table - np.clip(table, -l1_thresholds, l1_thresholds) if len(l1_thresholds) else table)


def _add(sums: Any, block: Array, changes: Array) -> None:
    """Add each row of a block times its changes."""
    table = sums.table.reshape(block.shape[1], -1)
    table += block.T @ changes
    sums.intercept[:] += changes.sum(axis=0)


def _located(problem: Problem) -> tuple[Array, Array, Array, Array]:
    """A dense X's means, mean squares about them, columns of one value, and roots to begin with."""
    moments = compute_moments(problem, full_gram=False)
    dtype = problem.data.X.dtype
    constant = np.flatnonzero(moments.max_deviation == 0) if problem.fit_intercept else np.empty(0, np.intp)
    second_moment = np.maximum(moments.second_moment, 0) * moments.max_deviation**2
    return moments.mean.astype(dtype), second_moment, constant, np.ones(len(second_moment), dtype)
