"""Loss and gradient of a softmax layer, as functions for teaching and verification.

Users call them directly. The signature is the usual one of course exercises: W has one column per class, and there is
no intercept. The engines of the estimators do the computation. See ``docs/derivation.md``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from sksoftmax._data.arrays import as_array_or_none, check_finite_numbers, check_matrix, check_number
from sksoftmax._engines import naive, vectorized
from sksoftmax._types import Array, Kernel, Params


@np.errstate(all="ignore")
def softmax_loss_naive(W: ArrayLike, X: Any, y: ArrayLike, reg: float) -> tuple[float, Array]:
    """Compute the softmax cross-entropy loss and its gradient by loops over samples, classes and features.

    Parameters
    ----------
    W : array-like of shape (n_features, n_classes)
        Weights with one column per class, finite; n_classes >= 2.
    X : array-like or sparse matrix of shape (n_samples, n_features)
        Samples in rows, finite; n_samples >= 1. Sparse matrices are converted to CSR.
    y : array-like of int of shape (n_samples,)
        Class codes, 0 to n_classes - 1.
    reg : float
        L2 strength, >= 0.

    Returns
    -------
    loss : float
        ``mean_i [ logsumexp(x_i W) - (x_i W)[y_i] ] + reg / 2 * sum(W * W)``; finite for logits of any finite size.
    dW : ndarray of shape (n_features, n_classes)
        ``X^T (p - t) / n_samples + reg * W``, where p is the softmax of X W and t are the one-hot labels.

    Raises
    ------
    ValueError
        - If the shapes do not match, or W has fewer than two columns.
        - If W or X is not of finite real numbers, y is not of class codes, or reg is not a finite number >= 0.
        - If the result overflows.

    See Also
    --------
    softmax_loss_vectorized : The same without Python loops.

    References
    ----------
    Bishop (2006), Pattern Recognition and Machine Learning, eqs. 4.104, 4.108 and 4.109.

    Examples
    --------
    >>> loss, dW = softmax_loss_naive([[0.0, 0.0]], [[1.0], [3.0]], [0, 1], reg=0.0)
    >>> round(loss, 4)  # log 2: both classes are equally likely
    0.6931
    >>> dW.tolist()
    [[0.5, -0.5]]
    """
    W, X, y, reg = _check_arguments(W, X, y, reg)
    loss, dW = _data_term(naive, W, X, y)
    for j in range(W.shape[0]):
        for k in range(W.shape[1]):
            loss += 0.5 * reg * W[j, k] * W[j, k]
            dW[j, k] += reg * W[j, k]
    return _check_finite(loss, dW)


@np.errstate(all="ignore")
def softmax_loss_vectorized(W: ArrayLike, X: Any, y: ArrayLike, reg: float) -> tuple[float, Array]:
    """Compute the softmax cross-entropy loss and its gradient without Python loops.

    The result equals `softmax_loss_naive` up to rounding.

    Parameters
    ----------
    W : array-like of shape (n_features, n_classes)
        Weights with one column per class, finite; n_classes >= 2.
    X : array-like or sparse matrix of shape (n_samples, n_features)
        Samples in rows, finite; n_samples >= 1. Sparse matrices are converted to CSR.
    y : array-like of int of shape (n_samples,)
        Class codes, 0 to n_classes - 1.
    reg : float
        L2 strength, >= 0.

    Returns
    -------
    loss : float
        ``mean_i [ logsumexp(x_i W) - (x_i W)[y_i] ] + reg / 2 * sum(W * W)``; finite for logits of any finite size.
    dW : ndarray of shape (n_features, n_classes)
        ``X^T (p - t) / n_samples + reg * W``, where p is the softmax of X W and t are the one-hot labels.

    Raises
    ------
    ValueError
        - If the shapes do not match, or W has fewer than two columns.
        - If W or X is not of finite real numbers, y is not of class codes, or reg is not a finite number >= 0.
        - If the result overflows.

    See Also
    --------
    softmax_loss_naive : The same by explicit loops.

    References
    ----------
    Bishop (2006), Pattern Recognition and Machine Learning, eqs. 4.104, 4.108 and 4.109.

    Examples
    --------
    >>> import numpy as np
    >>> X, y = np.array([[1e4, -1e4]]), np.array([0])
    >>> loss, dW = softmax_loss_vectorized(np.eye(2), X, y, reg=0.0)
    >>> loss
    0.0
    """
    W, X, y, reg = _check_arguments(W, X, y, reg)
    loss, dW = _data_term(vectorized, W, X, y)
    shrinkage = reg * W
    return _check_finite(loss + 0.5 * np.vdot(shrinkage, W), dW + shrinkage)


def _data_term(kernel: Kernel, W: Array, X: Any, y: Array) -> tuple[float, Array]:
    """Return the mean loss and its gradient with respect to W, without the penalty."""
    n_samples = X.shape[0]
    params = Params(W.T, np.zeros(W.shape[1]))
    loss, grads = kernel.loss_grad(params, X, y, np.ones(n_samples), n_samples)
    return loss, np.asarray(grads.coef.T, dtype=np.float64)


def _check_finite(loss: Any, dW: Array) -> tuple[float, Array]:
    """Return both; raise ValueError if they overflow."""
    if not (np.isfinite(loss) and np.isfinite(dW).all()):
        raise ValueError("W, X and reg must be small enough for a finite loss and gradient, got an overflow; scale X.")
    return float(loss), dW


def _check_arguments(W: Any, X: Any, y: Any, reg: float) -> tuple[Array, Any, Array, float]:
    """Return the arguments as float64 arrays, class codes and a float; raise ValueError if they do not match."""
    W, X, y = check_finite_numbers(W, "W"), check_matrix(X), as_array_or_none(y)
    if W.ndim != 2 or W.shape[1] < 2:
        raise ValueError(f"W must be (n_features, n_classes) with n_classes >= 2, got shape {W.shape}.")
    if X.ndim != 2 or X.shape[1] != W.shape[0] or X.shape[0] < 1:
        raise ValueError(f"X must be (n_samples, {W.shape[0]}) to match W of shape {W.shape}, got shape {X.shape}.")
    if y.shape != (X.shape[0],) or not np.issubdtype(y.dtype, np.integer):
        raise ValueError(
            f"y must hold {X.shape[0]} integer class codes, one per row of X, got shape {y.shape} and dtype "
            f"{y.dtype}; encode labels with numpy.unique(y, return_inverse=True)."
        )
    if y.min() < 0 or y.max() >= W.shape[1]:
        raise ValueError(
            f"y must hold class codes from 0 to {W.shape[1] - 1}, since W has {W.shape[1]} columns, got {y.min()} to "
            f"{y.max()}."
        )
    return W, X, y.astype(np.intp, copy=False), check_number("reg", reg)
