"""Naive engine: the same sums as ``vectorized`` by explicit loops over samples, classes and features.

It is the reference for the tests and for readers (``engine="naive"``). The loops are plain Python over plain arrays,
meant to be compiled unchanged. A matrix is given by the entries of its rows, ``(indptr, indices, values)``;
dense rows store every entry, so that one loop serves dense and sparse rows. A model of two classes has one row of
coefficients: the raw prediction of class 0 is then 0, and ``first`` is 1.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import scipy.sparse as sp

from sksoftmax._types import Array, Params

#: Whether the kernels of ``compiled`` compute this engine's sums; the engines have this constant in common.
is_compiled = False


def _entries(X: Any) -> tuple[Array, Array, Array]:
    """Return the row pointers, column indices and values of a CSR or dense matrix."""
    if sp.issparse(X):
        return X.indptr, X.indices, X.data
    n, p = X.shape
    return np.arange(n + 1) * p, np.tile(np.arange(p), n), np.ascontiguousarray(X).ravel()


def _row_raw(coef: Array, intercept: Array, indptr: Array, indices: Array, values: Array, i: int, z: Array) -> float:
    """Write the raw predictions of row i, one per class, into ``z``; return their maximum."""
    first = len(z) - len(coef)
    largest = 0.0 if first else -math.inf
    z[0] = 0.0
    for k in range(len(coef)):
        total = intercept[k]
        for e in range(indptr[i], indptr[i + 1]):
            total += coef[k, indices[e]] * values[e]
        z[k + first] = total
        largest = max(largest, total)
    return largest


def _row_softmax(z: Array, largest: float) -> float:
    """Overwrite the raw predictions ``z`` with probabilities; return logsumexp(z) - largest."""
    norm = 0.0
    for k in range(len(z)):
        z[k] = math.exp(z[k] - largest)
        norm += z[k]
    for k in range(len(z)):
        z[k] /= norm
    return math.log(norm)


def _row_target(y: Array, i: int, t: Array) -> None:
    """Write the target of row i, one number per class, into ``t``; ``y`` has class codes or is a table of targets."""
    for k in range(len(t)):
        if y.ndim == 2:
            t[k] = y[i, k]
        else:
            t[k] = 1.0 if y[i] == k else 0.0


def _proba(coef: Array, intercept: Array, indptr: Array, indices: Array, values: Array, p: Array) -> None:
    """Write the probabilities of all rows into ``p``, (n_outputs, n)."""
    n_outputs = len(coef)
    z = np.empty(max(n_outputs, 2))
    for i in range(len(indptr) - 1):
        _row_softmax(z, _row_raw(coef, intercept, indptr, indices, values, i, z))
        for k in range(n_outputs):
            p[k, i] = z[k + len(z) - n_outputs]


def _loss_grad(
    coef: Array,
    intercept: Array,
    indptr: Array,
    indices: Array,
    values: Array,
    y: Array,
    weight: Array,
    total: float,
    dcoef: Array,
    dintercept: Array,
) -> float:
    """Add the gradient to ``dcoef`` and ``dintercept``; return ``sum_i weight_i * loss_i / total``."""
    n_outputs = len(coef)
    z = np.empty(max(n_outputs, 2))
    t = np.empty(len(z))
    first = len(z) - n_outputs
    loss = 0.0
    for i in range(len(indptr) - 1):
        _row_target(y, i, t)
        largest = _row_raw(coef, intercept, indptr, indices, values, i, z)
        below = 0.0  # the largest raw prediction minus the target-weighted mean of the raw predictions
        for k in range(len(z)):
            if t[k] > 0:
                below += t[k] * (largest - z[k])
        loss += weight[i] * (below + _row_softmax(z, largest)) / total
        for k in range(n_outputs):
            residual = weight[i] * (z[k + first] - t[k + first]) / total
            dintercept[k] += residual
            for e in range(indptr[i], indptr[i + 1]):
                dcoef[k, indices[e]] += residual * values[e]
    return loss


def _hessian_product(
    p: Array,
    coef: Array,
    intercept: Array,
    indptr: Array,
    indices: Array,
    values: Array,
    weight: Array,
    total: float,
    dcoef: Array,
    dintercept: Array,
) -> None:
    """Add the Hessian times the direction ``coef``, ``intercept`` to ``dcoef`` and ``dintercept``."""
    n_outputs = len(coef)
    dz = np.empty(max(n_outputs, 2))
    first = len(dz) - n_outputs
    for i in range(len(indptr) - 1):
        _row_raw(coef, intercept, indptr, indices, values, i, dz)
        mean = 0.0  # the expected change of the raw prediction; in a model of one row, that of class 0 is 0
        for k in range(n_outputs):
            mean += p[k, i] * dz[k + first]
        for k in range(n_outputs):
            change = weight[i] * p[k, i] * (dz[k + first] - mean) / total
            dintercept[k] += change
            for e in range(indptr[i], indptr[i + 1]):
                dcoef[k, indices[e]] += change * values[e]


def raw_prediction(params: Params, X: Any) -> Array:
    """Return raw predictions, (n_outputs, n), by loops; see ``vectorized.raw_prediction``."""
    n_outputs, entries = len(params.coef), _entries(X)
    raw, z = np.empty((n_outputs, X.shape[0])), np.empty(max(n_outputs, 2))
    for i in range(X.shape[0]):
        _row_raw(*params, *entries, i, z)
        raw[:, i] = z[len(z) - n_outputs :]
    return raw


def proba(params: Params, X: Any) -> Array:
    """Return probabilities, (n_outputs, n), by loops; see ``vectorized.proba``."""
    p = np.empty((len(params.coef), X.shape[0]))
    _proba(*params, *_entries(X), p)
    return p


def loss_grad(params: Params, X: Any, y: Array, weight: Array, total: float) -> tuple[float, Params]:
    """Return the weighted mean loss and its gradient by loops; see ``vectorized.loss_grad``."""
    grads = Params(np.zeros(params.coef.shape), np.zeros(params.intercept.shape))
    loss = _loss_grad(*params, *_entries(X), y, weight, total, *grads)
    return float(loss), grads


def hessian_product(proba: Array, direction: Params, X: Any, weight: Array, total: float) -> Params:
    """Return the Hessian times ``direction`` by loops; see ``vectorized.hessian_product``."""
    product = Params(np.zeros(direction.coef.shape), np.zeros(direction.intercept.shape))
    _hessian_product(proba, *direction, *_entries(X), weight, total, *product)
    return product
