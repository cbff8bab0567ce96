"""kappa: how strongly the dual's proximal steps hold each coefficient to the centre. See ``dual``."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from sksoftmax._solvers._dual_data import DualData
from sksoftmax._types import Array, Problem

#: kappa_j + alpha_2 is proportional to this power of (m_j / 2 + alpha_2), m_j the column's mean square; so that the
#: mean of q / (1 + q) over the rows is as wanted, on a sample of the rows; and so that the intercept's q is no larger.
_POWER, _CURVATURE = 0.5, 0.5
_MEAN_SHARE, _N_SAMPLED = 0.8, 2000
GREATEST_INTERCEPT = 0.3

#: Halvings of a factor of e^60: to .4 %.
_HALVINGS = 14


class ProxWeights(NamedTuple):
    """kappa, and what follows from it; with the intercept last, (n_features + 1,) in float64.

    ``scale`` is D; 0 for the intercept of a problem without one.
    """

    kappa: Array
    scale: Array
    root: Array
    active: Array
    prox_fraction: Array


def init_prox_weights(problem: Problem, rows: DualData) -> tuple[ProxWeights, Array]:
    """The metric to begin with, by bisection for the proportion, and each row's q."""
    n = problem.n_samples
    alpha_2 = problem.alpha * (1 - problem.l1_ratio)
    squares = rows.second_moment
    base = (_CURVATURE * squares + alpha_2) ** _POWER
    base[squares == 0] = base.max() or 1.0  # never visited
    base_intercept = (_CURVATURE + alpha_2) ** _POWER
    some = rows.sampled(_N_SAMPLED)

    def scales(log_t: float) -> tuple[Array, float]:
        t = np.exp(log_t)
        intercept = min(1 / (t * base_intercept), GREATEST_INTERCEPT * n) if problem.fit_intercept else 0.0
        return 1 / np.maximum(alpha_2, t * base), intercept

    middle = float(np.log(max((squares / base).sum() / n, 1e-300)))
    low, high = middle - 30.0, middle + 30.0
    for _ in range(_HALVINGS):
        middle = 0.5 * (low + high)
        _, found = some.curvatures(*scales(middle))
        low, high = (middle, high) if found > _MEAN_SHARE else (low, middle)
    scale, intercept = scales(middle)
    kappa = 1 / scale - alpha_2
    kappa[(squares == 0) | (kappa * scale < 1e-9)] = 0
    alike = rows.constant  # which columns of one value would share, against the penalty, for ever
    scale[alike] = kappa[alike] = 0
    prox_weights = prox_weights_of(np.append(kappa, 1 / intercept if intercept else 0.0), np.append(scale, intercept))
    return prox_weights, curvatures(rows, prox_weights)


def prox_weights_of(kappa: Array, scale: Array) -> ProxWeights:
    active = np.flatnonzero(kappa[:-1])
    prox_fraction = np.append((kappa * scale)[active], 1.0)
    return ProxWeights(kappa, scale, np.sqrt(scale), active, prox_fraction)


def curvatures(rows: DualData, prox_weights: ProxWeights) -> Array:
    """Each row's q, in X's dtype."""
    q, _ = rows.curvatures(prox_weights.scale[:-1], float(prox_weights.scale[-1]))
    return np.maximum(q, 1e-30).astype(rows.weight.dtype)
