"""An exact method for F with an L1 term: Newton steps within an orthant, by conjugate gradients.

Andrew & Gao (2007), Scalable training of L1-regularized log-linear models, ICML (the orthant and its projection);
Byrd, Chin, Nocedal & Oztoprak (2016), A family of second-order methods for convex l1-regularized optimization,
Math. Program. 159 (the Newton steps). Slow, and sure: it is what the race's F* are computed by.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import scipy.sparse as sp
from scipy.special import entr, expit, softmax

from benchmarks.rivals import objective
from sksoftmax._types import Array, Params, add_scaled, dot, scale_params

_BLOCK = 4096

#: Newton steps, products with the Hessian in each, halvings of a step.
_STEPS, _PRODUCTS, _HALVINGS = 200, 200, 40

#: Range of the damping.
_LEAST_DAMPING, _MOST_DAMPING = 1e-10, 1e-2

#: Share of the expected decrease that a step must bring.
_DECREASE = 1e-4


class Smooth:
    """F but for its L1 term: mean loss + strength / 2 * ||coef||^2, and its derivatives.

    Parameters
    ----------
    X : array or CSR matrix of shape (n_samples, n_features)
    y : array of int of shape (n_samples,)
        Class codes.
    strength : float
        Of the squared norm, >= 0.
    """

    def __init__(self, X: Any, y: Array, strength: float) -> None:
        self.X, self.y, self.strength = X, y, strength

    def _blocks(self) -> Iterator[tuple[Any, Array, slice]]:
        for start in range(0, len(self.y), _BLOCK):
            rows = slice(start, start + _BLOCK)
            yield self.X[rows].astype(np.float64), self.y[rows], rows

    def proba(self, params: Params) -> Array:
        """Of every row, (n_samples, n_classes); for two classes (n_samples, 1), the second's."""
        raw = np.vstack([X @ params.coef.T + params.intercept for X, _, _ in self._blocks()])
        return np.asarray(expit(raw) if raw.shape[1] == 1 else softmax(raw, axis=1))

    def _back(self, rows_out: Array, params: Params) -> Params:
        """``X' R / n`` and the penalty's part at ``params``."""
        coef = np.zeros(params.coef.shape)
        for X, _, rows in self._blocks():
            coef += (X.T @ rows_out[rows]).T
        n = len(self.y)
        return Params(coef / n + self.strength * params.coef, rows_out.sum(axis=0) / n)

    def grads(self, params: Params) -> Params:
        residual = self.proba(params)
        if residual.shape[1] == 1:
            residual[:, 0] -= self.y
        else:
            residual[np.arange(len(self.y)), self.y] -= 1
        return self._back(residual, params)

    def product(self, proba: Array, direction: Params) -> Params:
        """The Hessian where ``proba`` are the probabilities, times ``direction``."""
        raw = np.vstack([X @ direction.coef.T + direction.intercept for X, _, _ in self._blocks()])
        mean = (proba * raw).sum(axis=1, keepdims=True)
        return self._back(proba * (raw - mean), direction)

    def diagonal(self, proba: Array) -> Params:
        """The Hessian's diagonal."""
        spread = proba * (1 - proba)
        coef = np.zeros((proba.shape[1], self.X.shape[1]))
        for X, _, rows in self._blocks():
            squared = X.multiply(X) if sp.issparse(X) else X**2
            coef += (squared.T @ spread[rows]).T
        return Params(coef / len(self.y) + self.strength, spread.mean(axis=0))

    def dual(self, params: Params, share: float) -> float:
        """The dual's value, strength 0, at the residuals times ``share``: a bound of F from below if feasible.

        The dual of the mean loss is the mean entropy; residuals are feasible if |X' R / n| is nowhere more than
        the L1 strength and no class's sum to more than 0.
        """
        proba = self.proba(params)
        proba = np.hstack([1 - proba, proba]) if proba.shape[1] == 1 else proba
        true = np.zeros_like(proba)
        true[np.arange(len(self.y)), self.y] = 1
        return float(entr(np.clip(true + share * (proba - true), 0, 1)).sum() / len(self.y))


def pseudo_gradient(grads: Params, params: Params, l1: float) -> Params:
    """The least subgradient of F, where ``grads`` is the smooth part's gradient and ``l1`` the L1 term's strength."""
    at_zero = np.sign(grads.coef) * np.maximum(np.abs(grads.coef) - l1, 0)
    return Params(np.where(params.coef, grads.coef + l1 * np.sign(params.coef), at_zero), grads.intercept)


def newton(
    X: Any, y: Array, alpha: float, l1_ratio: float, accuracy: float = 1e-16, start: Params | None = None
) -> tuple[Params, int]:
    """Minimise F with an L1 term, from ``start`` or from 0; the parameters, and how many Newton steps that took.

    Ends when a step promises less than ``accuracy`` of F.
    """
    n_outputs = 1 if y.max() == 1 else int(y.max()) + 1
    F, smooth, l1 = objective(X, y, alpha, l1_ratio), Smooth(X, y, alpha * (1 - l1_ratio)), alpha * l1_ratio
    params = start or Params(np.zeros((n_outputs, X.shape[1])), np.zeros(n_outputs))
    value = F(params)
    n_steps, damping = 0, _LEAST_DAMPING if start else _MOST_DAMPING
    for _ in range(_STEPS):
        slope = pseudo_gradient(smooth.grads(params), params, l1)
        orthant = np.where(params.coef, np.sign(params.coef), -np.sign(slope.coef))
        direction = _direction(smooth, params, slope, orthant != 0, damping)
        if not -dot(slope, direction) > accuracy * value:
            break
        length = 1.0
        for _ in range(_HALVINGS):
            moved = add_scaled(params, length, direction)
            moved = Params(np.where(moved.coef * orthant > 0, moved.coef, 0.0), moved.intercept)
            new_value = F(moved)
            if new_value <= value + _DECREASE * dot(slope, add_scaled(moved, -1.0, params)):
                break
            length /= 2
        else:
            break
        params, value, n_steps = moved, new_value, n_steps + 1
        damping = max(damping / 10, _LEAST_DAMPING) if length == 1 else min(10 * damping, _MOST_DAMPING)
    return params, n_steps


def _times(left: Params, right: Params) -> Params:
    return Params(left.coef * right.coef, left.intercept * right.intercept)


def _direction(smooth: Smooth, params: Params, slope: Params, may_move: Array, damping: float) -> Params:
    """Solve ``(H + damping * D) d = -slope`` among the free coefficients, by conjugate gradients with D, H's diagonal.

    Without damping there need be no solution: one number added to a column's coefficients of all classes changes
    the L1 term, but not the loss.

    Not free, but moved along their own slope, are those that such a move takes across 0: coupled to the others they
    would jam the search (Bertsekas, 1982, Projected Newton methods, SIAM J. Control Optim. 20(2), 221-246).
    """
    proba = smooth.proba(params)
    diagonal = smooth.diagonal(proba)
    tiny = 1e-12 * max(diagonal.coef.max(), diagonal.intercept.max())
    diagonal = Params(np.maximum(diagonal.coef, tiny), np.maximum(diagonal.intercept, tiny))
    alone = scale_params(-1.0, Params(slope.coef / diagonal.coef, slope.intercept / diagonal.intercept))
    crosses = (params.coef != 0) & (params.coef * (params.coef + alone.coef) <= 0)
    is_free = may_move & ~crosses

    def free(some: Params) -> Params:
        return Params(np.where(is_free, some.coef, 0.0), some.intercept)

    residual = free(slope)
    direction = scale_params(0.0, residual)
    search = free(alone)
    size = start = -dot(residual, search)
    accuracy = min(0.1, np.sqrt(start)) ** 2
    for _ in range(_PRODUCTS):
        product = free(add_scaled(smooth.product(proba, search), damping, _times(diagonal, search)))
        curvature = dot(search, product)
        if not curvature > 0:
            break
        direction = add_scaled(direction, size / curvature, search)
        residual = add_scaled(residual, size / curvature, product)
        whitened = Params(residual.coef / diagonal.coef, residual.intercept / diagonal.intercept)
        new_size = dot(residual, whitened)
        if new_size <= accuracy * start:
            break
        search = add_scaled(scale_params(-1.0, whitened), new_size / size, search)
        size = new_size
    return Params(np.where(crosses, alone.coef, direction.coef), direction.intercept)
