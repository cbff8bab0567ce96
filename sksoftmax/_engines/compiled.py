"""Compiled engine: the sums over rows by kernels in C++, and the passes of the dual solver.

The kernels are the module ``_sksoftmax_kernels``, which is compiled when the package is installed. Its files in
``cpp/`` explain them: `sparse.hpp` (CSR rows), `dense.hpp` (dual steps of dense rows), `products.hpp` (dense rows times
a table), `softmax.hpp` (tables of raw predictions), `saturation.hpp` (linearised probabilities), `columns.hpp` (X
alone), `moments.hpp` (moments and curvatures of dense rows: see `moments`), `newton.hpp` (Newton steps on few dense
rows), `center.hpp` (coefficients between epochs).
Without a C++ compiler the module is missing: ``kernels`` is then None, and ``missing`` says why. `registry` then does
not list this engine, and nothing calls the functions below.

The kernels release the interpreter's lock and check the shapes of their arguments. They take contiguous arrays,
convert none, and write only to the arrays that they are given.

One flat array holds the coefficients of the dual solver, the ``n_lanes`` classes of a feature side by side. ``n_lanes``
is 1 for two classes, and otherwise n_classes padded to a multiple of 8. Each coefficient is divided by the square root
of its feature's scale, and the values of X are multiplied by it: the inner loops need no further look-up.
"""

from __future__ import annotations

from collections import deque
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp
from scipy.linalg import cython_blas, cython_lapack

from sksoftmax._engines import vectorized
from sksoftmax._engines.threads import COPY_WORK, count_threads, map_in_order
from sksoftmax._types import Array, Params, Problem

#: Whether the kernels below compute this engine's sums.
is_compiled = True

#: Version of the kernels that this file needs; setup.py writes it into them.
_VERSION = 14


def _import_kernels() -> tuple[ModuleType | None, str | None]:
    """Return the module of the kernels, or None and why it cannot be used."""
    try:
        import _sksoftmax_kernels
    except ImportError as error:
        return None, str(error)
    if _sksoftmax_kernels.VERSION != _VERSION:
        return None, f"the installed kernels have version {_sksoftmax_kernels.VERSION}, this package needs {_VERSION}"
    _sksoftmax_kernels.set_blas(
        *(cython_blas.__pyx_capi__[name] for name in ("sgemm", "sgemv", "ssyrk", "dgemm", "dgemv", "dsyrk"))
    )
    _sksoftmax_kernels.set_lapack(*(cython_lapack.__pyx_capi__[name] for name in ("dpotrf", "dpotrs")))
    return _sksoftmax_kernels, None


kernels: Any
kernels, missing = _import_kernels()

#: Classes are padded to a multiple of this number.
_LANES = 8

#: Sparse rows that a thread predicts at once, and rows of a table that it transposes at once.
_PREDICTED_ROWS = 4096
_TRANSPOSED_ROWS = 2048

#: Entries of X from which ranges of columns are estimated.
_N_SAMPLED_ENTRIES = 2**14


class CsrRows(NamedTuple):
    """CSR rows: scaled values, class codes (intp), and weights (of mean 1 in an epoch, in the dtype of X).

    ``indptr`` is that of a CSR matrix, or has the first entry of each range of columns in each row, one row after the
    other: (n_samples * n_ranges + 1,). Threads can share the ranges.
    """

    indptr: Array
    indices: Array
    values: Array
    y: Array
    weight: Array


class FlatModel(NamedTuple):
    """A flat table of scaled coefficients, their soft thresholds (empty without L1), and the intercepts.

    An empty table stands for coefficients of 0.
    """

    table: Array
    l1_thresholds: Array
    intercept: Array


class GradientSums(NamedTuple):
    """Gradient or Hessian product, summed over the rows, in the layout of a `FlatModel`; the intercept in float64.

    An empty table means that it is not wanted.
    """

    table: Array
    intercept: Array


class DualVariables(NamedTuple):
    """The dual variables of each row.

    ``residual`` is p - t: the probabilities of the last step less the one-hot target. Its shape is (n_samples,) for
    two classes, of the second class, and otherwise (n_samples, n_lanes), with 0 in the padding. ``entropy`` is the
    entropy of p, and ``q`` the curvature of the row's step (see `_solvers.dual`), both of shape (n_samples,).
    """

    residual: Array
    entropy: Array
    q: Array


def count_lanes(n_classes: int) -> int:
    """Return ``n_lanes``."""
    return 1 if n_classes == 2 else -(-n_classes // _LANES) * _LANES


def _pad(values: Array, dtype: Any) -> Array:
    """Return a contiguous array whose rows are ``values.T``, (n_outputs, n), padded with 0 to ``n_lanes`` columns."""
    n_outputs, n = values.shape
    padded = np.zeros((n, count_lanes(2 if n_outputs == 1 else n_outputs)), dtype)

    def fill(start: int) -> None:  # a part that fits in a cache
        padded[start : start + _TRANSPOSED_ROWS, :n_outputs] = values[:, start : start + _TRANSPOSED_ROWS].T

    deque(map_in_order(fill, range(0, n, _TRANSPOSED_ROWS), COPY_WORK * padded.size), maxlen=0)
    return padded


def _unpad(table: Array, n_outputs: int, total: float = 1.0, dtype: Any = None) -> Array:
    """Return a contiguous ``table[:, :n_outputs].T / total``; in the dtype of the table, unless another is given."""
    values = np.empty((n_outputs, len(table)), dtype or table.dtype)

    def fill(start: int) -> None:
        part = table[start : start + _TRANSPOSED_ROWS, :n_outputs].T
        np.divide(part, total, out=values[:, start : start + _TRANSPOSED_ROWS], casting="same_kind")

    deque(map_in_order(fill, range(0, len(table), _TRANSPOSED_ROWS), COPY_WORK * table.size), maxlen=0)
    return values


def _cast(params: Params, X: Array) -> tuple[Array, Array, Array]:
    """Return X, ``coef.T`` and intercept as contiguous arrays of X's dtype."""
    coef, intercept = (np.ascontiguousarray(part.T, dtype=X.dtype) for part in params)
    return align(X), coef, intercept


def align(array: Array) -> Array:
    """Return a contiguous array whose entries are aligned; those that come from a file or a network may not be."""
    return np.require(array, requirements=("C", "A"))


def _csr(X: Any) -> tuple[Array, Array, Array]:
    """Return the arrays of CSR rows."""
    return align(X.indptr.astype(X.indices.dtype, copy=False)), align(X.indices), align(X.data)


def raw_prediction(params: Params, X: Any) -> Array:
    """Do `vectorized.raw_prediction`; the result is contiguous."""
    if not sp.issparse(X):
        z = np.empty((len(params.coef), X.shape[0]), X.dtype)
        kernels.raw_predictions_dense(*_cast(params, X), z)
        return z
    return np.ascontiguousarray(sparse_predictions(params, X).T)


def sparse_predictions(params: Params, X: Any) -> Array:
    """Return the raw predictions of CSR rows, (n_samples, n_outputs), computed side by side."""
    intercept = _pad(params.intercept[:, None], X.dtype).ravel()
    model = FlatModel(_pad(params.coef, X.dtype), np.empty(0, X.dtype), intercept)
    z = np.empty((X.shape[0], len(intercept)), X.dtype)
    indptr, indices, values = _csr(X)

    def predict(start: int) -> None:
        block = z[start : start + _PREDICTED_ROWS]
        kernels.raw_predictions((indptr[start : start + len(block) + 1], indices, values), model, block)

    deque(map_in_order(predict, range(0, len(z), _PREDICTED_ROWS), X.nnz * len(intercept)), maxlen=0)
    return z[:, : len(params.coef)]


def proba(params: Params, X: Any) -> Array:
    """Do `vectorized.proba`."""
    z = raw_prediction(params, X)
    if len(z) == 1:
        p = np.empty(z.shape)
        kernels.expit(z.ravel(), p.ravel())
        return p
    kernels.softmax_in_place(z)
    return z


def proba_and_variances(proba: Array) -> tuple[Array, Array]:
    """Do `curvature.proba_and_variances` for three or more classes."""
    tables = np.empty(proba.shape), np.empty(proba.shape)
    kernels.proba_and_variances(align(proba), *tables)
    return tables


def loss_grad(params: Params, X: Any, y: Array, weight: Array, total: float) -> tuple[float, Params]:
    """Do `vectorized.loss_grad`, with the loss and the residual in one pass."""
    if sp.issparse(X) and y.ndim == 1:
        return _sparse_loss_grad(params, X, y, weight, total)
    weight = weight / total
    if y.ndim > 1:
        losses, residual = vectorized.loss_and_residual_soft(raw_prediction(params, X), y)
        residual *= weight.astype(residual.dtype, copy=False)
        return float(np.dot(weight, losses)), _accumulate_gradient(residual, X)
    y, sums = align(y), np.zeros(len(params.coef))
    gradient = np.zeros(params.coef.shape)
    loss: float = kernels.add_loss_gradient(*_cast(params, X), y, weight, gradient, sums)
    return loss, Params(gradient, sums)


def _sparse_loss_grad(params: Params, X: Any, y: Array, weight: Array, total: float) -> tuple[float, Params]:
    """Do `loss_grad` for CSR rows with class codes, in rounds that threads share; the gradient is in float64.

    No table has an entry for each row, so that X may be all rows.
    """
    n_outputs, dtype = len(params.coef), X.dtype
    intercept = np.full(count_lanes(2 if n_outputs == 1 else n_outputs), -1e9, dtype)  # the padding has probability 0
    intercept[:n_outputs] = params.intercept
    model = FlatModel(_pad(params.coef, dtype), np.empty(0, dtype), intercept)
    n_threads = count_threads(2.0 * X.nnz * len(intercept))
    unit = 2.0 ** np.ceil(np.log2(total))  # division by it is exact, and no sum of finite rows overflows
    # how the columns are divided among threads changes no sum
    splits = split_rows(X, n_threads if X.has_sorted_indices else 1)
    rows = CsrRows(splits, *_csr(X)[1:], align(y), (weight / unit).astype(dtype))
    none = DualVariables(*(np.empty(0, dtype) for _ in range(3)))
    sums = GradientSums(np.zeros(model.table.shape, dtype), np.zeros(len(intercept)))
    loss, _ = kernels.evaluate(rows, model, none, sums, n_threads)
    total /= unit
    return loss / total, Params(_unpad(sums.table, n_outputs, total, np.float64), sums.intercept[:n_outputs] / total)


def split_rows(X: Any, n_ranges: int) -> Array:
    """Return the first entry of each range of columns in each row of a CSR X, (n_samples * n_ranges + 1,).

    The ranges have about the same number of entries. The columns of a row must be in order.
    """
    indptr, indices, _ = _csr(X)
    if n_ranges == 1 or len(indices) == 0:
        return indptr
    sample = np.sort(indices[:: max(1, X.nnz // _N_SAMPLED_ENTRIES)])
    bounds = sample[np.arange(n_ranges) * len(sample) // n_ranges].astype(np.intp)
    bounds[0] = 0
    splits = np.empty(X.shape[0] * n_ranges + 1, indices.dtype)
    kernels.split_rows(indptr, indices, bounds, splits)
    return splits


def hessian_product(proba: Array, direction: Params, X: Any, weight: Array, total: float) -> Params:
    """Do `vectorized.hessian_product`."""
    weight, sums, is_binary = weight / total, np.zeros(len(direction.coef)), len(proba) == 1
    if is_binary and isinstance(X, np.ndarray):
        product = np.zeros(direction.coef.shape)
        second = proba.ravel().astype(np.float64, copy=False)
        kernels.add_hessian_product_binary(*_cast(direction, X), align(second), weight, product, sums)
        return Params(product, sums)
    if is_binary or proba.dtype != X.dtype:
        return _accumulate_gradient(vectorized.multiply_hessian(proba, raw_prediction(direction, X), weight), X)
    proba = align(proba)
    if sp.issparse(X):
        dz = raw_prediction(direction, X)
        kernels.multiply_hessian(proba, dz, weight, sums)
        return Params(_accumulate_coef(dz, X), sums.astype(X.dtype))
    product = np.zeros(direction.coef.shape)
    kernels.add_hessian_product_dense(*_cast(direction, X), proba, weight, product, sums)
    return Params(product, sums)


def newton_steps(
    problem: Problem, params: Params, scale: Array, tol: float, max_steps: int
) -> tuple[Params, list[float]]:
    """Take Newton steps with the exact Hessian of dense rows with class codes; return their end, and F after each.

    The steps end when their predicted decrease is at most ``tol`` F, when none decreases F, or after ``max_steps``. The
    coordinates are those of `curvature.factorize_hessian`, with ``scale`` for its preconditioner's.
    """
    X, y, weight = problem.data
    coef, intercept = params.coef.astype(np.float64, order="C"), params.intercept.astype(np.float64)
    values = np.empty(max_steps)
    arrays = align(X), align(y), weight / weight.sum(), scale.astype(np.float64)
    n_steps = kernels.newton_steps(*arrays, problem.alpha, problem.fit_intercept, tol, coef, intercept, values)
    return Params(coef, intercept), values[:n_steps].tolist()


def linearize(proba: Array, change: Array, X: Any, weight: Array) -> tuple[float, Params]:
    """Return the sums of `saturation._LinearizedSums` for a step that no row has saturated for.

    ``proba`` and ``change`` are (n_outputs, n). ``weight`` is divided by the total. The products with X are in float64:
    with an outlying row they hardly differ from 0.
    """
    n_outputs, n = proba.shape
    differences, sums = np.empty((2 * n_outputs, n)), np.zeros(3 * n_outputs)
    divergence: float
    if n_outputs == 1:
        divergence = kernels.linearize_binary(align(proba[0]), align(change[0]), weight, differences, sums)
    else:
        divergence = kernels.linearize(align(proba), align(change), weight, differences, sums)
    if sp.issparse(X):
        return divergence, Params(np.asarray(differences @ X), sums)
    gradients = np.zeros((len(differences), X.shape[1]))
    kernels.add_exact_product(differences, align(X), gradients)
    return divergence, Params(gradients, sums)


def _accumulate_coef(residual: Array, X: Any) -> Array:
    """Return ``residual @ X`` for sparse X."""
    padded = _pad(residual, X.dtype)
    table = np.zeros((X.shape[1], padded.shape[1]), X.dtype)
    kernels.add_transposed_product(_csr(X), padded, table)
    return _unpad(table, len(residual))


def _accumulate_gradient(residual: Array, X: Any) -> Params:
    """Do `vectorized.accumulate_gradient`."""
    if sp.issparse(X):
        return Params(_accumulate_coef(residual, X), residual.sum(axis=1))
    return vectorized.accumulate_gradient(residual, X)
