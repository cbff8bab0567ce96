"""Subsample of the rows for the Hessian of a Newton step, and the check that it is large enough.

A Newton step needs the Hessian only approximately. The Newton solvers draw rows with ``draw_rows``. After a poor step
they compare the curvature of the sample with that of all rows, and draw a larger sample if the ratio is too small.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp

from sksoftmax._engines.device import to_host
from sksoftmax._engines.moments import row_squares
from sksoftmax._engines.threads import COPY_WORK, map_in_order
from sksoftmax._maths.objective import block_slices, pass_work, probabilities, value_and_grad
from sksoftmax._types import Array, Batch, Evaluation, Moments, Params, Problem, add_scaled, dot, normalize_weights


def leverage(problem: Problem, moments: Moments) -> Array:
    """Return for each row the mean over the columns of ``(x - mean)^2 / variance``, (n_samples,); 1 on average.

    Rows with rare values have a large leverage; a sample must not miss them.
    """
    spread = np.diagonal(moments.second_moment) if moments.second_moment.ndim == 2 else moments.second_moment
    is_varying: Array = np.logical_and(moments.max_deviation > 0, spread > 0)
    scale = np.zeros(problem.n_features)
    scale[is_varying] = (
        1.0 / moments.max_deviation[is_varying] / np.sqrt(spread[is_varying]) / max(1, int(is_varying.sum())) ** 0.5
    )
    dtype = problem.data.X.dtype
    scale, column_offset = scale.astype(dtype), moments.mean.astype(dtype)
    take, spans = block_slices(problem)

    def block_leverage(span: slice) -> Any:
        X = take(span).X
        if sp.issparse(X):
            scaled = X @ sp.diags_array(scale)
            offset = column_offset * scale
            return scaled.multiply(scaled).sum(axis=1) - 2 * (scaled @ offset) + offset @ offset
        return row_squares(problem.kernel, X, column_offset, scale)

    parts = list(map_in_order(block_leverage, spans, COPY_WORK * pass_work(problem) / problem.n_outputs))
    return np.maximum(to_host(np.concatenate(parts)), 0)


def draw_rows(problem: Problem, params: Params, rows_leverage: Array | None, n_drawn: int) -> Batch:
    """Draw ``n_drawn`` rows without replacement for the Hessian, with weights that sum to about 1.

    The inclusion probability of a row is proportional to ``1 + leverage`` times its fraction of the curvature
    ``p_c (1 - p_c)``, summed over the classes c, and at most 1: see `draw_systematically`. Returns all rows if there
    are no more than ``n_drawn``.

    Parameters
    ----------
    problem : Problem
    params : Params
        Parameters at which the curvature is taken.
    rows_leverage : ndarray of shape (n_samples,) or None
        ``leverage`` of the rows; not needed if all rows are returned.
    n_drawn : int
        Sample size.
    """
    all_rows = normalize_weights(problem.data)
    if n_drawn >= problem.n_samples:
        return all_rows
    X, y, norm_weight = all_rows
    assert rows_leverage is not None
    cached = list(probabilities(problem, params)) if problem.n_outputs <= problem.n_features else None
    totals = np.zeros(problem.n_outputs)
    start = 0
    for proba in cached or probabilities(problem, params):
        span = slice(start, start + proba.shape[1])
        totals += (proba * (1 - proba)) @ norm_weight[span]
        start = span.stop
    parts = [
        (1 / np.maximum(totals, np.finfo(float).tiny)) @ (p * (1 - p)) for p in cached or probabilities(problem, params)
    ]
    index, inclusion = draw_systematically(norm_weight * to_host(np.concatenate(parts)) * (1 + rows_leverage), n_drawn)
    del cached, parts  # before the rows are copied
    return Batch(X[index], y[index], norm_weight[index] / inclusion)


def curvature_ratio(
    problem: Problem, rows: Batch, start: tuple[Params, Evaluation], end: tuple[Params, Evaluation]
) -> float:
    """Return the curvature of ``rows`` along a step divided by the curvature of all rows, for F's smooth part.

    The curvature is measured as the rise of F above its tangent at ``start``. Returns 1 if all rows have none.
    """
    start_params, end_params = start[0], end[0]
    step = add_scaled(end_params, -1.0, start_params)
    l1_rise = problem.alpha * problem.l1_ratio * float(np.abs(end_params.coef).sum() - np.abs(start_params.coef).sum())

    def rise_above_tangent(before: Evaluation, after: Evaluation) -> float:
        return after.value - before.value - l1_rise - dot(before.grads, step)

    sample = problem._replace(data=rows, data_source=None)
    sampled = rise_above_tangent(value_and_grad(sample, start_params), value_and_grad(sample, end_params))
    actual = rise_above_tangent(start[1], end[1])
    return sampled / actual if actual > 0 else 1.0


def next_sample_size(problem: Problem, n_drawn: int) -> int:
    """Return twice the sample size ``n_drawn``, or all rows if that is more than half of the rows.

    With a ``data_source`` the result may exceed the rows in memory. Callers then use products with all rows instead.
    """
    doubled = 2 * n_drawn
    return problem.n_samples if problem.data_source is None and 2 * doubled > problem.n_samples else doubled


def draw_systematically(size: Array, n_drawn: int) -> tuple[Array, Array]:
    """Draw about ``n_drawn`` rows with probabilities proportional to ``size``, and at most 1.

    The sampling is systematic (Madow 1949, Ann. Math. Statist. 20(3), 333-354), without random numbers. Returns the
    indices of the rows, and their inclusion probabilities.
    """
    inclusion = _inclusion_probabilities(size, n_drawn)
    n_up_to_row = np.floor(np.cumsum(inclusion) + 0.5)  # draws at 1/2, 3/2, ... of the sum of the probabilities
    index = np.flatnonzero(np.diff(n_up_to_row, prepend=0.0))
    return index, inclusion[index]


def _inclusion_probabilities(size: Array, n_drawn: int) -> Array:
    """Return probabilities proportional to ``size``, clipped to 1, that sum to ``n_drawn``."""
    size = np.maximum(size, np.finfo(float).tiny)
    is_certain = np.zeros(len(size), dtype=bool)
    while True:
        n_remaining = n_drawn - np.count_nonzero(is_certain)
        inclusion = np.where(is_certain, 1.0, size * (n_remaining / size[~is_certain].sum()))
        too_high = inclusion > 1.0
        if not too_high.any():
            return inclusion
        is_certain |= too_high
