"""The vectorized engine: NumPy/SciPy kernels, one code for dense and CSR rows.

Class-major inside: ``z`` and ``p`` are (n_outputs, n), so that the maximum and the sum over classes run along
the long axis. Every kernel is additive over rows for a fixed ``total`` and writes none of its inputs.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp
from scipy.special import expit

from sksoftmax._types import Array, Params

#: Multiplications up to which a BLAS multiplies matrices as they lie: packing them first takes as long as the thin
#: product of rows with a few classes. And the fewest rows that are worth a call.
_UNPACKED = 10**6
_LEAST_ROWS = 64


def _pieces(X: Any, n_outputs: int) -> list[slice]:
    """Spans of the rows whose products with ``n_outputs`` classes need no packing; none where those are not thin."""
    size = _UNPACKED // max(1, n_outputs * X.shape[1])
    if size < _LEAST_ROWS or sp.issparse(X):
        return []
    return [slice(start, start + size) for start in range(0, X.shape[0], size)]


def raw_prediction(params: Params, X: Any) -> Array:
    """``coef @ x_i + intercept`` for every row, class-major: (n_outputs, n), in X's dtype."""
    coef = params.coef.astype(X.dtype, copy=False)
    intercept = params.intercept.astype(X.dtype, copy=False)[:, None]
    pieces = _pieces(X, len(coef))
    if not pieces or len(coef) == 1:
        z = coef @ X.T
        z += intercept
        return z
    columns, z = np.ascontiguousarray(coef.T), np.empty((X.shape[0], len(coef)), X.dtype)
    for rows in pieces:
        np.matmul(X[rows], columns, out=z[rows])
    return np.add(z.T, intercept, order="C")


def _accumulate_gradient(residual: Array, X: Any) -> Params:
    """``residual @ X``, and the sum of ``residual`` over the rows: gradients."""
    pieces = _pieces(X, len(residual))
    if len(pieces) < 2 or len(residual) == 1:
        return Params(residual @ X, residual.sum(axis=1))
    coef = residual[:, pieces[0]] @ X[pieces[0]]
    for rows in pieces[1:]:
        coef += residual[:, rows] @ X[rows]
    return Params(coef, residual.sum(axis=1))


def proba(params: Params, X: Any) -> Array:
    """Probabilities, (n_outputs, n); for two classes the one row is the second class's, in float64: near 1 it is all
    that is left of the first's.
    """
    z = raw_prediction(params, X)
    if z.shape[0] == 1:
        return expit(z, dtype=np.float64)
    z -= z.max(axis=0)
    np.exp(z, out=z)
    z /= z.sum(axis=0)
    return z


def loss_grad(params: Params, X: Any, y: Array, weight: Array, total: float) -> tuple[float, Params]:
    """``sum_i weight_i * loss_i / total`` and its gradient (p - t)^T X (DESIGN of F: ``objective``)."""
    z = raw_prediction(params, X)
    losses, residual = _loss_and_residual(z, y) if y.ndim == 1 else _loss_and_residual_soft(z, y)
    residual *= (weight / total).astype(residual.dtype, copy=False)
    return float(np.dot(weight, losses)) / total, _accumulate_gradient(residual, X)


def _loss_and_residual(z: Array, y: Array) -> tuple[Array, Array]:
    """The rows' losses and p - t, of raw predictions, which are overwritten, and class codes."""
    if z.shape[0] == 1:
        sign = np.where(y, z.dtype.type(-1), z.dtype.type(1))  # of what the other class has over the true one
        residual = expit(sign * z)  # not by a difference, which would lose what is next to nothing
        residual *= sign
        return np.logaddexp(0, sign * z[0]), residual
    true_class = (y, np.arange(len(y)))
    largest = z.max(axis=0)
    losses = (largest - z[true_class]).astype(np.float64)
    z -= largest
    residual = np.exp(z, out=z)
    true = residual[true_class].astype(np.float64)
    residual[true_class] = 0
    others = residual.sum(axis=0, dtype=np.float64)  # apart from the true class's, which would hide them
    losses += np.log1p(others + (true - 1))
    residual /= others + true
    residual[true_class] = -others / (others + true)
    return losses, residual


def _loss_and_residual_soft(z: Array, t: Array) -> tuple[Array, Array]:
    """As ``_loss_and_residual``, of targets (n, n_classes)."""
    if z.shape[0] == 1:
        losses = t[:, 0] * np.logaddexp(0, z[0]) + t[:, 1] * np.logaddexp(0, -z[0])
        return losses, expit(z) - t[:, 1]
    z -= z.max(axis=0)
    losses = -np.einsum("kn,nk->n", z, t, dtype=np.float64)
    residual = np.exp(z, out=z)
    norm = residual.sum(axis=0, dtype=np.float64)
    losses += np.log(norm)
    residual /= norm
    residual -= t.T
    return losses, residual


def hessian_product(proba: Array, direction: Params, X: Any, weight: Array, total: float) -> Params:
    """The data term's Hessian, at the parameters that gave ``proba``, times ``direction``.

    For a row with probabilities p the Hessian by its raw prediction is diag(p) - p p^T (for two classes
    p (1 - p)): Boehning (1992), Ann. Inst. Statist. Math. 44(1), 197-200, eq. 2.3.
    """
    dz = raw_prediction(direction, X)
    if dz.shape[0] == 1:
        dz *= proba
        dz *= 1 - proba
    else:
        dz -= np.einsum("kn,kn->n", proba, dz)
        dz *= proba
    dz *= (weight / total).astype(dz.dtype, copy=False)
    return _accumulate_gradient(dz, X)
