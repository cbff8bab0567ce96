"""kappa, the weights of the proximal terms in the dual solver: one for each column, and one for the intercept.

`dual` explains what kappa is; it calls `init_prox_weights` at the start of a fit.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from sksoftmax._solvers._dual_data import DualData
from sksoftmax._types import Array, Problem

#: Exponent of the column scales: kappa_j + alpha_2 is proportional to ``(_CURVATURE * m_j + alpha_2) ** _POWER``, where
#: m_j is the mean square of column j.
_POWER = 0.5

#: Factor on m_j in this formula: an upper bound of the curvature of a row's loss in its raw predictions.
_CURVATURE = 0.5

#: Mean of q / (1 + q) over the rows, from which the factor of proportionality follows (for q see `dual`).
_MEAN_RATIO = 0.8

#: Number of rows of the sample on which this mean is evaluated.
_N_SAMPLED = 2000

#: Maximum of the intercept's part of q, for a row of mean weight.
MAX_INTERCEPT_Q = 0.3

#: Number of bisection steps for the factor, in a range of e^60: it is accurate to 0.4 %.
_N_BISECTIONS = 14


class ProxWeights(NamedTuple):
    """The weights kappa, and what is computed from them, in float64.

    Attributes
    ----------
    kappa : ndarray of shape (n_features + 1,)
        Weights of the proximal terms, >= 0; the intercept's is last.
    scale : ndarray of shape (n_features + 1,)
        ``D = 1 / (alpha_2 + kappa)``; 0 for a parameter that does not move, such as the intercept of a problem without
        one.
    root : ndarray of shape (n_features + 1,)
        Square root of ``scale``.
    active : ndarray of intp of shape (n_active,)
        Columns with kappa > 0.
    prox_fraction : ndarray of shape (n_active + 1,)
        ``kappa * D`` of the active columns, and 1 for the intercept.
    """

    kappa: Array
    scale: Array
    root: Array
    active: Array
    prox_fraction: Array


def init_prox_weights(problem: Problem, rows: DualData) -> tuple[ProxWeights, Array]:
    """Choose the initial kappa, its factor by bisection; return the weights and the q of each row."""
    n = problem.n_samples
    alpha_2 = problem.alpha * (1 - problem.l1_ratio)
    squares = rows.second_moment
    base = (_CURVATURE * squares + alpha_2) ** _POWER
    base[squares == 0] = base.max() or 1.0  # no row changes their coefficients
    base_intercept = (_CURVATURE + alpha_2) ** _POWER
    sample = rows.subsample(_N_SAMPLED)

    def scales(log_factor: float) -> tuple[Array, float]:
        factor = np.exp(log_factor)
        intercept = min(1 / (factor * base_intercept), MAX_INTERCEPT_Q * n) if problem.fit_intercept else 0.0
        return 1 / np.maximum(alpha_2, factor * base), intercept

    middle = float(np.log(max((squares / base).sum() / n, 1e-300)))
    low, high = middle - 30.0, middle + 30.0
    for _ in range(_N_BISECTIONS):
        middle = 0.5 * (low + high)
        _, mean_ratio = sample.curvatures(*scales(middle))
        low, high = (middle, high) if mean_ratio > _MEAN_RATIO else (low, middle)
    scale, intercept = scales(middle)
    kappa = 1 / scale - alpha_2
    kappa[(squares == 0) | (kappa * scale < 1e-9)] = 0
    # constant columns are collinear with the intercept: only the penalty separates them, and the solver is slow there
    constant = rows.constant
    scale[constant] = kappa[constant] = 0
    prox_weights = make_prox_weights(np.append(kappa, 1 / intercept if intercept else 0.0), np.append(scale, intercept))
    return prox_weights, curvatures(rows, prox_weights)


def make_prox_weights(kappa: Array, scale: Array) -> ProxWeights:
    """Return the `ProxWeights` of ``kappa`` and ``scale``."""
    active = np.flatnonzero(kappa[:-1])
    prox_fraction = np.append((kappa * scale)[active], 1.0)
    return ProxWeights(kappa, scale, np.sqrt(scale), active, prox_fraction)


def curvatures(rows: DualData, prox_weights: ProxWeights) -> Array:
    """Return the q of each row, (n_samples,), in the dtype of X."""
    q, _ = rows.curvatures(prox_weights.scale[:-1], float(prox_weights.scale[-1]))
    return np.maximum(q, 1e-30).astype(rows.weight.dtype)
