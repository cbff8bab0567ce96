"""Vectorized engine: NumPy and SciPy kernels, with the same code for dense and CSR rows.

``_maths.objective`` calls it for every block and batch of rows, unless the problem has another engine. Tables are
class-major: ``z`` and ``p`` are (n_outputs, n), so that the maximum and the sum over classes run along the long axis.
Every kernel is additive over rows for a fixed ``total``, and modifies none of its inputs.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp
from scipy.special import expit

from sksoftmax._types import Array, Params

#: Whether the kernels of ``compiled`` compute this engine's sums; the engines have this constant in common.
is_compiled = False

#: Maximum multiplications of a matrix product that a BLAS computes without packing its operands first. For a thin
#: product, of rows with a few classes, packing takes as long as the product.
_MAX_UNPACKED = 10**6

#: Minimum rows per product; for fewer, the overhead of a call dominates.
_MIN_ROWS = 64


def _row_spans(X: Any, n_outputs: int) -> list[slice]:
    """Return spans of the rows whose products with ``n_outputs`` classes need no packing.

    Returns no spans if X is sparse, or if such spans would have fewer than ``_MIN_ROWS`` rows.
    """
    size = _MAX_UNPACKED // max(1, n_outputs * X.shape[1])
    if size < _MIN_ROWS or sp.issparse(X):
        return []
    return [slice(start, start + size) for start in range(0, X.shape[0], size)]


def raw_prediction(params: Params, X: Any) -> Array:
    """Return ``coef @ x_i + intercept`` for every row, class-major: (n_outputs, n), in the dtype of X."""
    coef = params.coef.astype(X.dtype, copy=False)
    intercept = params.intercept.astype(X.dtype, copy=False)[:, None]
    spans = _row_spans(X, len(coef))
    if not spans or len(coef) == 1:
        z = coef @ X.T
        z += intercept
        return z
    columns, z = np.ascontiguousarray(coef.T), np.empty((X.shape[0], len(coef)), X.dtype)
    for rows in spans:
        np.matmul(X[rows], columns, out=z[rows])
    return np.add(z.T, intercept, order="C")


def accumulate_gradient(residual: Array, X: Any) -> Params:
    """Return ``residual @ X`` and the sum of ``residual`` over the rows: the gradients."""
    spans = _row_spans(X, len(residual))
    if len(spans) < 2 or len(residual) == 1:
        return Params(residual @ X, residual.sum(axis=1))
    coef = residual[:, spans[0]] @ X[spans[0]]
    for rows in spans[1:]:
        coef += residual[:, rows] @ X[rows]
    return Params(coef, residual.sum(axis=1))


def proba(params: Params, X: Any) -> Array:
    """Return the probabilities, (n_outputs, n).

    For two classes there is one row, the probability of the second class. It is float64, because the probability of the
    first class is computed as 1 minus it.
    """
    z = raw_prediction(params, X)
    if z.shape[0] == 1:
        return expit(z, dtype=np.float64)
    z -= z.max(axis=0)
    np.exp(z, out=z)
    z /= z.sum(axis=0)
    return z


def loss_grad(params: Params, X: Any, y: Array, weight: Array, total: float) -> tuple[float, Params]:
    """Return ``sum_i weight_i * loss_i / total`` and its gradient (p - t)^T X; ``objective`` defines the loss."""
    z = raw_prediction(params, X)
    losses, residual = loss_and_residual(z, y) if y.ndim == 1 else loss_and_residual_soft(z, y)
    residual *= (weight / total).astype(residual.dtype, copy=False)
    return float(np.dot(weight, losses)) / total, accumulate_gradient(residual, X)


def loss_and_residual(z: Array, y: Array) -> tuple[Array, Array]:
    """Return the loss and p - t of each row, from raw predictions and class codes; overwrites ``z``."""
    if z.shape[0] == 1:
        # sign * z is the raw prediction of the wrong class minus that of the true class
        sign = np.where(y, z.dtype.type(-1), z.dtype.type(1))
        residual = expit(sign * z)  # not as 1 - p, which would lose the digits of a small residual
        residual *= sign
        return np.logaddexp(0, sign * z[0]), residual
    true_class = (y, np.arange(len(y)))
    largest = z.max(axis=0)
    losses = (largest - z[true_class]).astype(np.float64)
    z -= largest
    residual = np.exp(z, out=z)
    exp_true = residual[true_class].astype(np.float64)
    residual[true_class] = 0
    others = residual.sum(axis=0, dtype=np.float64)  # without the true class, whose rounding would exceed small others
    losses += np.log1p(others + (exp_true - 1))
    residual /= others + exp_true
    residual[true_class] = -others / (others + exp_true)
    return losses, residual


def loss_and_residual_soft(z: Array, t: Array) -> tuple[Array, Array]:
    """Return the loss and p - t of each row, from raw predictions and targets (n, n_classes); overwrites ``z``."""
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
    """Return the data term's Hessian, at the parameters of ``proba``, times ``direction``.

    For a row with probabilities p, the Hessian with respect to the raw prediction is diag(p) - p p^T, or p (1 - p) for
    two classes: Boehning (1992), Ann. Inst. Statist. Math. 44(1), 197-200, eq. 2.3.
    """
    return accumulate_gradient(multiply_hessian(proba, raw_prediction(direction, X), weight / total), X)


def multiply_hessian(proba: Array, dz: Array, weight: Array) -> Array:
    """Return ``weight * (diag(p) - p p') dz`` for each row, class-major; overwrites ``dz``."""
    if dz.shape[0] == 1:
        dz *= proba
        dz *= 1 - proba
    else:
        dz -= np.einsum("kn,kn->n", proba, dz)
        dz *= proba
    dz *= weight.astype(dz.dtype, copy=False)
    return dz
