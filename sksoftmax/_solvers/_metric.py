"""kappa: how strongly the dual's proximal steps hold each coefficient to the centre. See ``dual``."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from sksoftmax._types import Array, Problem

#: kappa_j + alpha_2 is proportional to this power of (m_j / 2 + alpha_2), m_j the column's mean square; so that the
#: mean of q / (1 + q) over the rows is as wanted, on a sample of the rows; and so that the intercept's q is no larger.
_POWER, _CURVATURE = 0.5, 0.5
_MEAN_SHARE, _N_SAMPLED = 0.8, 2000
GREATEST_INTERCEPT = 0.3


class Metric(NamedTuple):
    """kappa, and what follows from it; with the intercept last, (n_features + 1,) in float64.

    ``scale`` is D; 0 for the intercept of a problem without one.
    """

    kappa: Array
    scale: Array
    root: Array
    active: Array
    share: Array


def chosen(problem: Problem, weight: Array) -> tuple[Metric, Array]:
    """The metric to begin with, by bisection for the proportion, and each row's q."""
    from sksoftmax import _compiled as compiled

    X, n = problem.data.X, problem.n_samples
    alpha_2 = problem.alpha * (1 - problem.l1_ratio)
    squares = np.zeros(problem.n_features)
    compiled.mean_squares(X.indptr, X.indices, X.data, weight / n, squares)
    base = (_CURVATURE * squares + alpha_2) ** _POWER
    base[squares == 0] = base.max() or 1.0  # never visited
    base_intercept = (_CURVATURE + alpha_2) ** _POWER
    every = max(1, n // _N_SAMPLED)
    some, some_share = X[::every], weight[::every] / n
    room = np.empty(some.shape[0])

    def scales(log_t: float) -> tuple[Array, float]:
        t = np.exp(log_t)
        intercept = min(1 / (t * base_intercept), GREATEST_INTERCEPT * n) if problem.fit_intercept else 0.0
        return 1 / np.maximum(alpha_2, t * base), intercept

    middle = float(np.log(max((squares / base).sum() / n, 1e-300)))
    low, high = middle - 30.0, middle + 30.0
    for _ in range(24):
        middle = 0.5 * (low + high)
        found = compiled.row_curvatures(some.indptr, some.indices, some.data, some_share, *scales(middle), room)
        low, high = (middle, high) if found > _MEAN_SHARE else (low, middle)
    scale, intercept = scales(middle)
    kappa = 1 / scale - alpha_2
    kappa[(squares == 0) | (kappa * scale < 1e-9)] = 0
    if problem.fit_intercept:  # which columns of one value would share, against the penalty, for ever
        alike = _constants(X)
        scale[alike] = kappa[alike] = 0
    metric = metric_of(np.append(kappa, 1 / intercept if intercept else 0.0), np.append(scale, intercept))
    return metric, curvatures(problem, weight, metric)


def metric_of(kappa: Array, scale: Array) -> Metric:
    active = np.flatnonzero(kappa[:-1])
    share = np.append((kappa * scale)[active], 1.0)
    return Metric(kappa, scale, np.sqrt(scale), active, share)


def curvatures(problem: Problem, weight: Array, metric: Metric) -> Array:
    """Each row's q, in X's dtype."""
    from sksoftmax import _compiled as compiled

    X, n = problem.data.X, problem.n_samples
    q = np.empty(n)
    scale = metric.scale
    compiled.row_curvatures(X.indptr, X.indices, X.data, weight / n, scale[:-1], float(scale[-1]), q)
    return np.maximum(q, 1e-30).astype(X.dtype)


def _constants(X: Any) -> Array:
    """Columns of one value, not 0."""
    full = np.flatnonzero(np.bincount(X.indices, minlength=X.shape[1]) == X.shape[0])
    if not len(full):
        return full
    values = X[:, full].toarray()
    return full[values.max(axis=0) == values.min(axis=0)]
