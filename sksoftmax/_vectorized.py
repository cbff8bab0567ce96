"""The vectorized engine: NumPy/SciPy kernels, one code for dense and CSR rows.

Class-major inside: ``z`` and ``p`` are (n_rows, n), so that the maximum and the sum over classes run along
the long axis. Every kernel is additive over rows for a fixed ``total`` and writes none of its inputs.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import expit

from sksoftmax._types import Array, Params


def raw_prediction(params: Params, X: Any) -> Array:
    """``coef @ x_i + intercept`` for every row, class-major: (n_rows, n), in X's dtype."""
    z = params.coef.astype(X.dtype, copy=False) @ X.T
    z += params.intercept.astype(X.dtype, copy=False)[:, None]
    return z


def proba(params: Params, X: Any) -> Array:
    """Probabilities, (n_rows, n); for two classes the one row is the second class's."""
    z = raw_prediction(params, X)
    if z.shape[0] == 1:
        return expit(z)
    z -= z.max(axis=0)
    np.exp(z, out=z)
    z /= z.sum(axis=0)
    return z


def loss_grad(params: Params, X: Any, y: Array, weight: Array, total: float) -> tuple[float, Params]:
    """``sum_i weight_i * loss_i / total`` and its gradient (p - t)^T X (DESIGN of F: ``_objective``)."""
    z = raw_prediction(params, X)
    if z.shape[0] == 1:
        losses = np.logaddexp(0, np.where(y, -z[0], z[0]))
        residual = expit(z)
        residual -= y
    else:
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
    residual *= (weight / total).astype(residual.dtype, copy=False)
    grads = Params(residual @ X, residual.sum(axis=1))
    return float(np.dot(weight, losses)) / total, grads


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
    return Params(dz @ X, dz.sum(axis=1))
