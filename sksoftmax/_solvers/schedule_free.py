"""Schedule-free averaging with a preconditioner that is updated as new rows arrive.

The solver of streams of unknown length: `plan` makes it for ``partial_fit``, and `serialization` saves its state.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from sksoftmax._maths.objective import batch_value_and_grad, soft_threshold
from sksoftmax._maths.preconditioner import (
    ROWS_PER_VARIANCE,
    GramPreconditioner,
    compute_moments,
    gram_preconditioner,
    mean_and_max_deviation,
    merge_max_deviation,
    merge_moments,
)
from sksoftmax._types import Array, Batch, Moments, Params, Problem, Solver, add_scaled, interpolate

#: Weight of the average in the point at which gradients are evaluated; Defazio et al. (2024), section 4, use 0.9.
_INTERPOLATION = 0.9


class ScheduleFreeState(NamedTuple):
    """State of the schedule-free solver.

    Attributes
    ----------
    params : Params
        The running average of the iterates, which is the solver's result.
    iterate : Params
        The last iterate.
    step : int
        Updates so far.
    moments : Moments or None
        Moments of the columns over the rows so far; None before the first batch.
    weight : float
        Total weight of these rows, with decay.
    preconditioner : GramPreconditioner or None
        None before the first batch.
    preconditioner_weight : float
        Total weight of the rows that the preconditioner was computed from, with decay.
    preconditioner_max_deviation : ndarray of shape (n_features,) or None
        Largest absolute deviation of each column from its mean to which the preconditioner is scaled.
    """

    params: Params
    iterate: Params
    step: int
    moments: Moments | None
    weight: float
    preconditioner: GramPreconditioner | None
    preconditioner_weight: float
    preconditioner_max_deviation: Array | None


def schedule_free(batch_size: int, rate: float | None, *, full_gram: bool, half_life: float = np.inf) -> Solver:
    """Return the solver: preconditioned SGD without a horizon, whose result is the average of the iterates.

    Parameters
    ----------
    batch_size : int
        Rows of a batch.
    rate : float or None
        Step length, in the coordinates of the preconditioner. None for ``1 / (1 + dimension / n)``, with the
        preconditioner's dimension and n the rows of the batch: the curvature of a batch exceeds the curvature of all
        rows by the inverse of this factor, on average over directions.
    full_gram : bool
        Whether the preconditioner inverts all of X'X, or its diagonal, which an L1 penalty needs. The preconditioner is
        recomputed when the weight of the rows has doubled, so a logarithmic number of times.
    half_life : float, default=inf
        Number of rows, > 0, after which the weight of older rows has halved. It bounds the weight of an iterate in the
        average from below, and decays the weight of the moments. inf for no decay.

    References
    ----------
    Defazio, Yang, Mehta, Mishchenko, Khaled & Cutkosky (2024), arXiv:2405.15682, eqs. 3-5. Here the start has no weight
    in the average, because no gradient has changed it.
    """

    def init(problem: Problem, params: Params) -> ScheduleFreeState:
        return ScheduleFreeState(params, params, 0, None, 0.0, None, 0.0, None)

    def step(problem: Problem, state: ScheduleFreeState, batch: Batch) -> ScheduleFreeState:
        decay = 0.5 ** (len(batch.y) / half_life)
        state = state._replace(weight=decay * state.weight, preconditioner_weight=decay * state.preconditioner_weight)
        state = _observe_batch(problem, state, batch, full_gram=full_gram)
        assert state.preconditioner is not None
        point = interpolate(state.iterate, _INTERPOLATION, state.params)
        grads = batch_value_and_grad(problem, point, batch).grads
        length = rate or 1.0 / (1.0 + state.preconditioner.dimension / len(batch.y))
        iterate = add_scaled(state.iterate, -length, state.preconditioner.apply(grads))
        if problem.l1_ratio:
            iterate = _threshold_params(problem, state.preconditioner, iterate, length)
        params = interpolate(state.params, max(1.0 / (state.step + 1), 1.0 - decay), iterate)
        return state._replace(params=params, iterate=iterate, step=state.step + 1)

    return Solver("schedule_free", init, step, None, batch_size)


def moments_from_rows(
    problem: Problem, state: ScheduleFreeState, rows: Batch, batch_size: int, *, full_gram: bool
) -> ScheduleFreeState:
    """Return the state with the moments of ``rows``, which a fit has used already, and their preconditioner."""
    rows_problem = problem._replace(data=rows)
    moments, weight = compute_moments(rows_problem, full_gram=full_gram), float(rows.weight.sum())
    return _with_moments(rows_problem, state, moments, weight, batch_size)


def _threshold_params(problem: Problem, preconditioner: GramPreconditioner, params: Params, length: float) -> Params:
    """Take the proximal step of the L1 term for a diagonal preconditioner.

    The intercepts for centred columns stay the same.
    """
    scale = preconditioner.inverse / preconditioner.scale / preconditioner.scale
    coef = soft_threshold(params.coef, length * problem.alpha * problem.l1_ratio * scale)
    return Params(coef, params.intercept + (params.coef - coef) @ preconditioner.mean)


def _observe_batch(problem: Problem, state: ScheduleFreeState, batch: Batch, *, full_gram: bool) -> ScheduleFreeState:
    """Return the state after an update of the moments by a batch, and of the preconditioner if it is out of date.

    Some rows a column (``ROWS_PER_VARIANCE``) estimate X'X well enough. After that many rows, only the maximum
    deviations of the columns are updated.
    """
    batch_problem = problem._replace(data=batch)
    n_rows = state.weight / problem.mean_weight
    if full_gram and state.moments is not None and n_rows >= ROWS_PER_VARIANCE * problem.n_features:
        return _grow_scales(state, merge_max_deviation(state.moments, *mean_and_max_deviation(batch_problem)))
    moments, weight = compute_moments(batch_problem, full_gram=full_gram), float(batch.weight.sum())
    if state.moments is not None:
        moments = merge_moments(state.moments, state.weight, moments, weight)
        weight += state.weight
    if state.preconditioner is None or weight >= 2 * state.preconditioner_weight:
        return _with_moments(batch_problem, state, moments, weight, len(batch.y))
    return _grow_scales(state._replace(moments=moments, weight=weight), moments.max_deviation)


def _with_moments(
    problem: Problem, state: ScheduleFreeState, moments: Moments, weight: float, batch_size: int
) -> ScheduleFreeState:
    """Return the state with these moments and their preconditioner."""
    preconditioner = gram_preconditioner(problem, moments, batch_size=batch_size)
    return state._replace(
        moments=moments,
        weight=weight,
        preconditioner=preconditioner,
        preconditioner_weight=weight,
        preconditioner_max_deviation=moments.max_deviation,
    )


def _grow_scales(state: ScheduleFreeState, max_deviation: Array) -> ScheduleFreeState:
    """Return the state with larger column scales in the preconditioner if maximum deviations have grown.

    The scales grow in proportion. So steps stay stable before the preconditioner is recomputed.
    """
    assert state.preconditioner is not None
    assert state.preconditioner_max_deviation is not None
    growth = max_deviation / np.where(
        state.preconditioner_max_deviation > 0, state.preconditioner_max_deviation, np.inf
    )
    if (growth > 1).any():
        preconditioner = state.preconditioner._replace(scale=state.preconditioner.scale * np.maximum(growth, 1.0))
        return state._replace(
            preconditioner=preconditioner,
            preconditioner_max_deviation=np.maximum(max_deviation, state.preconditioner_max_deviation),
        )
    return state
