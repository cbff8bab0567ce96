"""Engine for arrays of other libraries: the sums of ``vectorized`` with functions of the array API standard.

It runs on the device of X (see ``device``) if X is an array of another library, and its results stay on that device.
Tables are class-major, as in ``vectorized``. The standard has no assignment by integer index arrays, so masks are used
instead. The prediction methods use its ``predicted_proba`` and ``predicted_log_proba``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sksoftmax._engines.device import DeviceArray, to_device_of
from sksoftmax._types import Array, Params

#: Whether the kernels of ``compiled`` compute this engine's sums; the engines have this constant in common.
is_compiled = False


def raw_prediction(params: Params, X: Any) -> Any:
    """Return ``coef @ x_i + intercept`` for every row, class-major: (n_outputs, n), in the dtype of X."""
    coef, intercept = to_device_of(params.coef, X), to_device_of(params.intercept, X)
    return coef @ X.T + intercept[:, None]


def proba(params: Params, X: Any) -> Any:
    """Return the probabilities, (n_outputs, n); for two classes there is one row, that of the second class."""
    z = raw_prediction(params, X)
    return expit(z) if len(z) == 1 else softmax(z, axis=0)


def expit(raw: DeviceArray) -> DeviceArray:
    """Return ``1 / (1 + exp(-raw))``."""
    xp, z = raw.xp, raw.array
    small = xp.exp(-xp.abs(z))
    return DeviceArray(xp.where(z >= 0, 1 / (1 + small), small / (1 + small)), xp)


def log_expit(raw: DeviceArray) -> DeviceArray:
    """Return the logarithm of ``expit(raw)``."""
    xp, z = raw.xp, raw.array
    return DeviceArray(xp.where(z >= 0, xp.zeros_like(z), z) - xp.log1p(xp.exp(-xp.abs(z))), xp)


def softmax(raw: DeviceArray, axis: int) -> DeviceArray:
    """Return the softmax of raw predictions along ``axis``."""
    xp, z = raw.xp, raw.array
    p = xp.exp(z - xp.max(z, axis=axis, keepdims=True))
    return DeviceArray(p / xp.sum(p, axis=axis, keepdims=True), xp)


def log_softmax(raw: DeviceArray, axis: int) -> DeviceArray:
    """Return the logarithm of the softmax of raw predictions along ``axis``."""
    xp, z = raw.xp, raw.array
    z = z - xp.max(z, axis=axis, keepdims=True)
    return DeviceArray(z - xp.log(xp.sum(xp.exp(z), axis=axis, keepdims=True)), xp)


def predicted_proba(raw: DeviceArray) -> DeviceArray:
    """Return probabilities, (n, n_classes), from raw predictions as ``decision_function`` returns them."""
    return softmax(raw, axis=1) if raw.ndim == 2 else _stack_columns(expit(-raw), expit(raw))


def predicted_log_proba(raw: DeviceArray) -> DeviceArray:
    """Return log probabilities, (n, n_classes).

    For probabilities above 0.5, where the logarithm is near 0, the result is the logarithm of `predicted_proba`.
    """
    proba: Any = predicted_proba(raw)
    logs: Any = log_softmax(raw, axis=1) if raw.ndim == 2 else _stack_columns(log_expit(-raw), log_expit(raw))
    log_proba: Any = np.where(proba > 0.5, np.log(np.maximum(proba, 0.5)), logs)
    return log_proba


def _stack_columns(first: DeviceArray, second: DeviceArray) -> DeviceArray:
    """Return the table of two columns, (n, 2)."""
    columns: Any = [first[:, None], second[:, None]]
    table: Any = np.concatenate(columns, axis=1)
    return table


def loss_grad(params: Params, X: Any, y: Any, weight: Any, total: float) -> tuple[Any, Params]:
    """Return ``sum_i weight_i * loss_i / total`` and its gradient (p - t)^T X, as arrays on the device of X.

    Nothing is copied to host memory, so the call does not wait for the device.
    """
    xp, z = X.xp, raw_prediction(params, X).array
    codes, norm_weight = X.to_device(y), weight / total
    if z.shape[0] == 1:
        is_second = (codes == 1)[None, :]
        margin = DeviceArray(xp.where(is_second, -z, z), xp)
        losses = -log_expit(-margin).array[0, :]
        wrong = expit(margin).array
        residual = xp.where(is_second, -wrong, wrong) * to_device_of(norm_weight, X).array
    else:
        n_outputs, n = z.shape
        classes, rows = (xp.arange(size, dtype=codes.dtype, device=codes.device) for size in (n_outputs, n))
        is_true = codes[None, :] == classes[:, None]
        z = z - xp.max(z, axis=0, keepdims=True)
        z_true = xp.take(xp.reshape(z, (-1,)), codes * n + rows, axis=0)
        exp_true = xp.astype(xp.exp(z_true), X.widest_float)
        zero = xp.zeros((1, 1), dtype=z.dtype, device=z.device)
        odds = xp.where(is_true, zero, xp.exp(z))
        # without the true class, whose rounding would exceed small others
        others = xp.sum(odds, axis=0, dtype=X.widest_float)
        losses = xp.log1p(others + (exp_true - 1)) - xp.astype(z_true, X.widest_float)
        per_odds = X.to_device(norm_weight) / (others + exp_true)
        true_residual, per_odds = (xp.astype(part, z.dtype)[None, :] for part in (-others * per_odds, per_odds))
        residual = xp.where(is_true, true_residual, odds * per_odds)
    loss = (DeviceArray(losses, xp).astype(float) * norm_weight).sum()
    return loss, _accumulate_gradient(DeviceArray(residual, xp), X)


def hessian_product(proba: Any, direction: Params, X: Any, weight: Array, total: float) -> Params:
    """Return the data term's Hessian, at the parameters of ``proba``, times ``direction``; see ``vectorized``."""
    dz = raw_prediction(direction, X)
    dz = dz * (1 - proba) if len(dz) == 1 else dz - (proba * dz).sum(axis=0)
    return _accumulate_gradient(dz * proba * to_device_of(weight / total, X), X)


def _accumulate_gradient(residual: Any, X: Any) -> Params:
    """Return ``residual @ X`` and the sum of ``residual`` over the rows: the gradients."""
    return Params(residual @ X, residual.sum(axis=1))
