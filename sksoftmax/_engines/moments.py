"""Sums over rows beside those of a gradient: statistics of columns, Gram matrices, the Hessian, and an exact loss.

Each function takes the engine first. The compiled engine has kernels for dense NumPy rows, which make no table of the
size of the block; all other rows take the same steps with NumPy, SciPy or the array's own library. Columns are centred
and scaled on the way: ``u = (x - mean) * factor``. Sparse rows are not centred.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.linalg
import scipy.sparse as sp

from sksoftmax._engines import compiled
from sksoftmax._engines.device import DeviceArray, match_device, sum_of_squares, to_host
from sksoftmax._types import Array, Kernel, Params


def _has_kernels(kernel: Kernel, X: Any) -> bool:
    """Return whether the rows are for the compiled kernels."""
    return kernel.is_compiled and isinstance(X, np.ndarray)


def summarize_columns(kernel: Kernel, X: Any, weight: Array) -> tuple[Array, Array, Array]:
    """Return the least and the largest entry of each column, and the sum of ``weight_i x_i``, each (n_features,)."""
    if _has_kernels(kernel, X):
        p = X.shape[1]
        low, high, sums = np.full(p, np.inf, X.dtype), np.full(p, -np.inf, X.dtype), np.zeros(p)
        compiled.kernels.summarize_columns(compiled.align(X), weight, low, high, sums)
        return low, high, sums
    sums = to_host(weight.astype(X.dtype) @ X)
    if sp.issparse(X):
        return X.min(axis=0).toarray().ravel(), X.max(axis=0).toarray().ravel(), sums
    return to_host(X.min(axis=0)), to_host(X.max(axis=0)), sums


def column_squares(kernel: Kernel, X: Any, mean: Array, factor: Array, weight: Array) -> Any:
    """Return the sum of ``weight_i u_i^2``, (n_features,), on the device of X."""
    mean, factor = mean.astype(X.dtype), factor.astype(X.dtype)
    if _has_kernels(kernel, X):
        sums = np.zeros(X.shape[1])
        compiled.kernels.add_column_squares(compiled.align(X), mean, factor, weight, sums)
        return sums
    root = np.sqrt(weight).astype(X.dtype)
    if sp.issparse(X):
        u = sp.diags_array(root) @ X @ sp.diags_array(factor)
        return np.asarray(u.multiply(u).sum(axis=0))
    return sum_of_squares(_scale_rows(X, mean, factor, root, X.shape[1]), axis=0)


def row_squares(kernel: Kernel, X: Any, mean: Array, factor: Array) -> Any:
    """Return ``||u_i||^2`` of dense rows, (n,), on the device of X."""
    mean = mean.astype(X.dtype)
    if _has_kernels(kernel, X):
        squares = np.empty(len(X))
        compiled.kernels.row_squares(compiled.align(X), mean, factor.astype(np.float64), squares)
        return squares
    return sum_of_squares((X - mean) * factor.astype(X.dtype), axis=1)


def gram(kernel: Kernel, X: Any, mean: Array, factor: Array, root: Array, n_columns: int) -> Any:
    """Return the Gram matrix of the rows ``root_i u_i``, (n_columns, n_columns); only its lower triangle is valid.

    With ``n_columns`` = n_features + 1 the rows have one more column, ``root``. The result has the dtype of X and is on
    its device.
    """
    mean, factor, root = (part.astype(X.dtype) for part in (mean, factor, root))
    if _has_kernels(kernel, X):
        sums = np.zeros((n_columns, n_columns), X.dtype)
        compiled.kernels.add_gram(compiled.align(X), mean, factor, root, sums)
        return sums
    if sp.issparse(X):
        u = (sp.diags_array(root) @ X @ sp.diags_array(factor)).tocsr()
        return (u.T @ u).toarray()
    u = _scale_rows(X, mean, factor, root, n_columns)
    if isinstance(u, DeviceArray):
        return u.T @ u
    syrk = scipy.linalg.blas.ssyrk if u.dtype == np.float32 else scipy.linalg.blas.dsyrk
    return np.asarray(syrk(1.0, u.T, lower=1))


def loss_hessian(
    kernel: Kernel, X: Any, mean: Array, factor: Array, weight: Any, proba: Any, variances: Any, n_columns: int
) -> Array:
    """Return the Hessian of the loss, (n_outputs * n_columns, n_outputs * n_columns), in float64.

    It is the sum of ``weight_i (diag(p_i) - p_i p_i') (x) u_i u_i'``; only its lower triangle is valid. The rows have a
    column of ones if ``n_columns`` = n_features + 1. In float32, rounding of the sums would exceed the penalty.

    Parameters
    ----------
    kernel : Kernel
    X : dense array or CSR array of shape (n, n_features)
    mean, factor : ndarray of shape (n_features,)
    weight : array of shape (n,)
    proba, variances : array of shape (n_outputs, n)
        Probabilities p, and p (1 - p) with the digits of a p near 1: ``curvature.proba_and_variances``.
    n_columns : int
    """
    X, n_outputs = X.toarray() if sp.issparse(X) else X, len(proba)
    hessian = np.zeros((n_outputs * n_columns, n_outputs * n_columns))
    if _has_kernels(kernel, X):
        p, v, weight = (compiled.align(table.astype(np.float64, copy=False)) for table in (proba, variances, weight))
        compiled.kernels.add_hessian(compiled.align(X), mean, factor, weight, p, v, hessian)
        return hessian
    weight, ones = (match_device(part, X) for part in (to_host(weight), np.ones(X.shape[0])))
    u = _scale_rows(X, mean.astype(np.float64), factor.astype(np.float64), ones, n_columns)
    blocks = hessian.reshape(n_outputs, n_columns, n_outputs, n_columns)
    for c in range(n_outputs):
        for d in range(c + 1):
            covariance = variances[c] if d == c else -proba[c] * proba[d]
            blocks[c, :, d] = to_host((u.T * (covariance * weight)) @ u)
    return hessian


def exact_loss(kernel: Kernel, params: Params, X: Any, offset: Array, y: Array, weight: Array) -> float:
    """Return the sum of ``weight_i * loss_i`` of the rows ``x_i - offset``, computed in float64.

    Parameters
    ----------
    kernel : Kernel
    params : Params
    X : ndarray or CSR array of shape (n, n_features)
        Sparse rows are not shifted.
    offset : ndarray of shape (n_features,)
    y : ndarray of shape (n,) or (n, n_classes)
    weight : ndarray of shape (n,)
    """
    if _has_kernels(kernel, X) and y.ndim == 1:
        columns = np.ascontiguousarray(params.coef.T, dtype=np.float64)
        arrays = compiled.align(X), offset.astype(np.float64), np.ones(len(columns)), columns, params.intercept
        loss: float = compiled.kernels.exact_loss(*arrays, compiled.align(y), weight)
        return loss
    X = X.astype(np.float64)
    loss, _ = kernel.loss_grad(params, X if sp.issparse(X) else X - offset, y, weight, 1.0)
    return float(loss)


def _scale_rows(X: Any, mean: Array, factor: Array, root: Any, n_columns: int) -> Any:
    """Return the rows ``root_i u_i``, with a column of ``root`` if ``n_columns`` is n_features + 1."""
    if isinstance(X, DeviceArray):
        u = (X.astype(mean.dtype) - mean) * factor
        if n_columns > X.shape[1]:
            u = np.concatenate([u, np.ones((X.shape[0], 1), mean.dtype)], axis=1)
        return u * root[:, None]
    u = np.ones((X.shape[0], n_columns), mean.dtype)
    columns = u[:, : len(mean)]
    np.subtract(X, mean, out=columns, casting="same_kind")
    columns *= factor
    u *= root[:, None]
    return u
