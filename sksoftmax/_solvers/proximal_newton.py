"""Proximal Newton solver for an L1 penalty, with the Hessian of a sample of the rows.

Made by ``plan`` for the last stage of a fit with an L1 penalty. A step of the solver:

1. Search the line to the minimum of the quadratic model of F plus the L1 term (``proximal``).
2. If F decreased much less than predicted because the sample misses curvature, mark the sample as stale: the next one
   is twice as large.
3. Adapt the damping of the model: raise it if the line search had to shorten the step, and lower it otherwise.
4. Draw a new sample if it is stale, or if F has decreased much since the last draw.
5. Minimise the new model. Estimate F - F* by its predicted decrease, as by the Newton decrement without an L1 term.
   If the estimate may end the fit, minimise more accurately, then check for rows that saturate along the step.

Lee, Sun & Saunders (2014), SIAM J. Optim. 24(3), 1420-1443.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from sksoftmax._maths.newton_direction import (
    StepHistory,
    absolute_suboptimality,
    estimate_suboptimality,
    relative_excess,
)
from sksoftmax._maths.objective import better_start
from sksoftmax._maths.preconditioner import GramPreconditioner
from sksoftmax._maths.proximal import Step, local_model, remove_class_shift, saturate_proximal_step, to_params, to_theta
from sksoftmax._maths.row_sampling import next_sample_size
from sksoftmax._solvers._hessian_sample import draw_sample, is_outdated, misses_curvature
from sksoftmax._solvers._line_search import rounding_error, search_segment
from sksoftmax._types import Array, Batch, Evaluation, Moments, Params, Problem, Report, Solver

#: Relative accuracy of the minimum of the model for a step.
_STEP_RTOL = 0.3

#: The same for the step that ends the fit.
_FINAL_RTOL = 0.03

#: Smallest positive damping, in units of the bound on the curvature of the loss (``gram_preconditioner``).
_MIN_DAMPING = 0.1

#: The damping is multiplied by this factor if a step had to be shortened, and divided by it otherwise.
_DAMPING_FACTOR = 4.0


class ProximalState(NamedTuple):
    """State of the solver.

    Attributes
    ----------
    params, evaluation : Params, Evaluation
        Parameters, and F and its gradient there.
    end : Params
        Minimum of the model.
    decrease : float
        Decrease of F that the model predicts at its minimum.
    excess, ratio, value_before, at_precision
        As in ``newton.NewtonState``.
    damping : float
        Curvature added to the model, in units of the curvature bound. Where the probabilities are close to 0 or 1, the
        local curvature describes F poorly.
    n_drawn, rows, sample_is_stale, value_drawn, leverage, n_rounds, next_check, check_interval
        As in ``newton.NewtonState``.
    """

    params: Params
    evaluation: Evaluation
    end: Params
    decrease: float
    excess: float
    ratio: float
    damping: float
    value_before: float
    at_precision: bool
    n_drawn: int
    rows: Batch
    sample_is_stale: bool
    value_drawn: float
    leverage: Array | None
    n_rounds: int = 0
    next_check: int = 0
    check_interval: int = 1


class ProximalSettings(NamedTuple):
    """Settings of the solver: see `proximal_newton`; ``final_tol`` is at least ``tol``."""

    base: GramPreconditioner
    moments: Moments
    final_tol: float
    n_drawn: int
    is_matrix: bool


def proximal_newton(
    base: GramPreconditioner, moments: Moments, tol: float, *, final_tol: float = 0.0, n_drawn: int, is_matrix: bool
) -> Solver:
    """Return the solver whose step goes to the minimum of a quadratic model plus the L1 term.

    Parameters
    ----------
    base : GramPreconditioner
        Means and scales of the columns.
    moments : Moments
        Moments of the columns.
    tol : float
        Excess at which the fit is to end.
    final_tol : float
        Excess that the fit has to reach, if that is larger than ``tol``. Below it the minimum of the model is computed
        more accurately and checked for saturation.
    n_drawn : int
        First sample size. It is doubled if the sample misses curvature.
    is_matrix : bool
        Whether the Hessian of the sample is formed as a matrix.
    """
    settings = ProximalSettings(base, moments, max(tol, final_tol), n_drawn, is_matrix)
    init, step = functools.partial(_init, settings), functools.partial(_step, settings)
    return Solver("proximal_newton", init, step, _evaluate, None)


def _init(settings: ProximalSettings, problem: Problem, params: Params) -> ProximalState:
    """Return the state at ``params``, or at the class priors if F is less there."""
    shifted = to_params(
        problem, settings.base, remove_class_shift(problem, settings.base, to_theta(problem, settings.base, params))
    )
    params, evaluation = better_start(problem, shifted)
    state = ProximalState(
        params=params,
        evaluation=evaluation,
        end=params,
        decrease=0.0,
        excess=np.inf,
        ratio=0.0,
        damping=0.0,
        value_before=evaluation.value,
        at_precision=False,
        n_drawn=min(settings.n_drawn, problem.n_samples),
        rows=problem.data,
        sample_is_stale=True,
        value_drawn=np.inf,
        leverage=None,
    )
    return _with_model_minimum(settings, problem, state)


def _step(settings: ProximalSettings, problem: Problem, state: ProximalState, batch: Batch) -> ProximalState:
    # 1.
    """Take a step: steps 1 to 5 of the module docstring."""
    trial = search_segment(problem, state.params, state.evaluation.value, state.end, state.decrease)
    if trial is None:
        return state._replace(at_precision=True)
    params, evaluation, halvings = trial
    value, expected = state.evaluation.value, state.decrease
    # 2.
    ends = (state.params, state.evaluation), (params, evaluation)
    if misses_curvature(problem, state.rows, *ends, expected, may_exceed_memory=False):
        state = state._replace(n_drawn=next_sample_size(problem, state.n_drawn), sample_is_stale=True)
    at_precision = expected <= rounding_error(problem, state.evaluation.value) and evaluation.value >= value
    # 3.
    damping = _next_damping(state.damping, is_full_step=halvings == 0)
    state = state._replace(params=params, evaluation=evaluation, at_precision=at_precision)
    return _with_model_minimum(settings, problem, state._replace(damping=damping, value_before=value))


def _with_model_minimum(settings: ProximalSettings, problem: Problem, state: ProximalState) -> ProximalState:
    """Return the state with the minimum of the model at its parameters: steps 4 and 5."""
    value, noise = state.evaluation.value, rounding_error(problem, state.evaluation.value)
    history = StepHistory(state.decrease, max(0.0, state.value_before - value), state.ratio, not state.sample_is_stale)
    # 4.
    state = _with_rows(settings, problem, state)
    rows = state.rows
    # 5.
    model = local_model(
        problem, settings.base, state.params, state.evaluation.grads, rows, is_matrix=settings.is_matrix
    )
    allowed = absolute_suboptimality(value, settings.final_tol)
    steps: tuple[Callable[[], Step], ...] = (
        lambda: model.step(_STEP_RTOL, state.damping),
        lambda: model.step(_FINAL_RTOL),
        lambda: saturate_proximal_step(
            model, settings.base, state.evaluation, rows, _FINAL_RTOL, allowed, is_matrix=settings.is_matrix
        ),
    )
    n_rounds = state.n_rounds + 1
    # each is more reliable, and more expensive
    for make_step in steps if n_rounds >= state.next_check else steps[:2]:
        step = make_step()
        suboptimality, ratio = estimate_suboptimality(history, step.decrease, step.remaining, noise)
        excess = relative_excess(value, suboptimality) if suboptimality >= -noise else np.inf
        if excess > settings.final_tol:
            break
    if n_rounds < state.next_check and excess <= settings.final_tol:
        excess = np.inf  # unknown without the check for saturation
    interval, next_check = state.check_interval, state.next_check
    if np.isinf(step.remaining):
        interval *= 2
        next_check = n_rounds + interval
    return state._replace(
        end=step.end,
        decrease=step.decrease,
        ratio=ratio,
        excess=excess,
        n_rounds=n_rounds,
        next_check=next_check,
        check_interval=interval,
    )


def _with_rows(settings: ProximalSettings, problem: Problem, state: ProximalState) -> ProximalState:
    """Return the state with a sample for the curvature at its parameters."""
    value = state.evaluation.value
    if not state.sample_is_stale and not is_outdated(problem, state.rows, value, state.value_drawn):
        return state
    rows, leverage = draw_sample(problem, state.params, settings.moments, state.leverage, state.n_drawn)
    return state._replace(rows=rows, leverage=leverage, sample_is_stale=False, value_drawn=value)


def _evaluate(problem: Problem, state: ProximalState) -> Report:
    """Return F and its estimated excess."""
    return Report(state.evaluation.value, state.excess, state.at_precision)


def _next_damping(damping: float, *, is_full_step: bool) -> float:
    """Return the damping of the next model.

    After Levenberg (1944) and Marquardt (1963): more if the model predicted too much, and none in the end.
    """
    if not is_full_step:
        return max(_MIN_DAMPING, _DAMPING_FACTOR * damping)
    return damping / _DAMPING_FACTOR if damping > _MIN_DAMPING else 0.0
