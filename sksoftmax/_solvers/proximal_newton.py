"""The solver for an L1 penalty: proximal Newton steps whose curvature is that of a part of the rows.

A step goes to the minimum of the quadratic model of F plus the L1 term (``proximal``), or as far towards it as F
falls: Lee, Sun & Saunders (2014), SIAM J. Optim. 24(3), 1420-1443. What the model expects it to bring is the excess,
as Newton's decrement is without an L1 term.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from sksoftmax._maths.curvature import curvature_ratio, draw_rows, leverage, next_sample_size
from sksoftmax._maths.newton_direction import (
    StepHistory,
    absolute_suboptimality,
    estimate_suboptimality,
    relative_excess,
)
from sksoftmax._maths.objective import better_start, value_and_grad
from sksoftmax._maths.preconditioner import GramPreconditioner
from sksoftmax._maths.proximal import Step, local_model, remove_class_shift, saturate_proximal_step, to_params, to_theta
from sksoftmax._types import Array, Batch, Evaluation, Moments, Params, Problem, Report, Solver, interpolate

#: Share of the expected decrease below which the rows drawn are suspected; and the share of the curvature along the
#: step below which they then are too few.
_POOR, _TOO_LITTLE = 0.5, 0.5

#: F's fall since rows were drawn from which others hold the curvature.
_CHANGED = 0.8

#: Accuracy of the model's minimum that a step is worth, and that of the one which ends the fit.
_LOOSE, _CERTIFYING = 0.3, 0.03

#: Least damping but none, in units of the bound of the loss's curvature (``gram_preconditioner``), and its factor when
#: a step had to be shortened; by the same it falls when none had to.
_LEAST_DAMPING, _FACTOR = 0.1, 4.0

#: Sufficient decrease, as a share of the expected one; halvings of a step; rounding of F, in units of its last digit.
_ARMIJO, _MAX_HALVINGS, _NOISE = 1e-4, 40, 8


class ProximalState(NamedTuple):
    """State of the solver.

    Attributes
    ----------
    params, evaluation : Params, Evaluation
        The parameters, and F and its gradient there.
    end : Params
        The model's minimum.
    decrease : float
        What F is expected to fall by on the way to it.
    excess, ratio, value_before, at_precision
        As in ``newton.NewtonState``.
    damping : float
        What the model's curvature is raised by. Where the probabilities are near 0 or 1 its own tells little of F.
    n_drawn, rows, sample_is_stale, value_drawn, leverage, n_rounds, next_check, check_interval
        As there.
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


def proximal_newton(
    base: GramPreconditioner, moments: Moments, tol: float, *, final_tol: float = 0.0, n_drawn: int, is_matrix: bool
) -> Solver:
    """Solver whose step is one to the minimum of a model.

    Parameters
    ----------
    base : Preconditioner
        Centres and scales of the columns.
    moments : Moments
        Of the columns.
    tol : float
        Excess at which the fit is to end: the model's minimum is then found more accurately, to make sure.
    final_tol : float
        Excess from which on it has to be true, if that is more than ``tol``.
    n_drawn : int
        Rows that the curvature is estimated from; doubled when they see too little.
    is_matrix : bool
        Whether their Hessian is formed.
    """

    final_tol = max(tol, final_tol)

    def init(problem: Problem, params: Params) -> ProximalState:
        settled = to_params(problem, base, remove_class_shift(problem, base, to_theta(problem, base, params)))
        params, evaluation = better_start(problem, settled)
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
            n_drawn=min(n_drawn, problem.n_samples),
            rows=problem.data,
            sample_is_stale=True,
            value_drawn=np.inf,
            leverage=None,
        )
        return _with_model_minimum(problem, state)

    def step(problem: Problem, state: ProximalState, batch: Batch) -> ProximalState:
        found = _line_search(problem, state)
        if found is None:
            return state._replace(at_precision=True)
        params, evaluation, halvings = found
        value, expected = state.evaluation.value, state.decrease
        if value - evaluation.value < _POOR * expected and _misses_curvature(problem, state, params, evaluation):
            state = state._replace(n_drawn=next_sample_size(problem, state.n_drawn), sample_is_stale=True)
        at_precision = expected <= _rounding_error(problem, state) and evaluation.value >= value
        damping = _next_damping(state.damping, is_whole=halvings == 0)
        state = state._replace(params=params, evaluation=evaluation, at_precision=at_precision)
        return _with_model_minimum(problem, state._replace(damping=damping, value_before=value))

    def _line_search(problem: Problem, state: ProximalState) -> tuple[Params, Evaluation, int] | None:
        """The longest of the steps 1, 1/2, 1/4, ... that decreases F enough, up to noise, and how often it was halved.

        None if none does.
        """
        expected, noise, params = state.decrease, _rounding_error(problem, state), state.end
        for halvings in range(_MAX_HALVINGS):
            length = 0.5**halvings
            evaluation = value_and_grad(problem, params)
            if evaluation.value <= state.evaluation.value - _ARMIJO * length * expected + noise:
                return params, evaluation, halvings
            if length * expected <= noise:
                break
            params = interpolate(state.params, 0.5, params)
        return None

    def _with_model_minimum(problem: Problem, state: ProximalState) -> ProximalState:
        """The state with the minimum of the model of where it stands, and the excess that it certifies."""
        value, noise = state.evaluation.value, _rounding_error(problem, state)
        last = StepHistory(state.decrease, max(0.0, state.value_before - value), state.ratio, not state.sample_is_stale)
        state = _with_rows(problem, state)
        rows = state.rows
        start = local_model(problem, base, state.params, state.evaluation.grads, rows, is_matrix=is_matrix)
        allowed = absolute_suboptimality(value, final_tol)
        steps: tuple[Callable[[], Step], ...] = (
            lambda: start.step(_LOOSE, state.damping),
            lambda: start.step(_CERTIFYING),
            lambda: saturate_proximal_step(
                start, base, state.evaluation, rows, _CERTIFYING, allowed, is_matrix=is_matrix
            ),
        )
        n_rounds = state.n_rounds + 1
        for make in steps if n_rounds >= state.next_check else steps[:2]:  # each makes surer that the fit may end
            step = make()
            left, ratio = estimate_suboptimality(last, step.decrease, step.remaining, noise)
            excess = relative_excess(value, left) if left >= -noise else np.inf
            if excess > final_tol:
                break
        if n_rounds < state.next_check and excess <= final_tol:
            excess = np.inf  # not found out
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

    def _with_rows(problem: Problem, state: ProximalState) -> ProximalState:
        """The state with rows that hold the curvature where it stands."""
        value = state.evaluation.value
        if not state.sample_is_stale and (value >= _CHANGED * state.value_drawn or not _is_subsampled(problem, state)):
            return state
        if state.leverage is None and state.n_drawn < problem.n_samples:
            state = state._replace(leverage=leverage(problem, moments))
        rows = draw_rows(problem, state.params, state.leverage, state.n_drawn)
        return state._replace(rows=rows, sample_is_stale=False, value_drawn=value)

    def evaluate(problem: Problem, state: ProximalState) -> Report:
        return Report(state.evaluation.value, state.excess, state.at_precision)

    return Solver("proximal_newton", init, step, evaluate, None)


def _next_damping(damping: float, *, is_whole: bool) -> float:
    """After Levenberg (1944) and Marquardt (1963): more where the model promised too much, and in the end none."""
    if not is_whole:
        return max(_LEAST_DAMPING, _FACTOR * damping)
    return damping / _FACTOR if damping > _LEAST_DAMPING else 0.0


def _is_subsampled(problem: Problem, state: ProximalState) -> bool:
    """Whether the rows drawn are not all."""
    return len(state.rows.y) < problem.n_total_samples


def _misses_curvature(problem: Problem, state: ProximalState, params: Params, evaluation: Evaluation) -> bool:
    """Whether the rows drawn see much less curvature along the step to ``params`` than all rows do."""
    if len(state.rows.y) >= problem.n_samples:  # there are no more to draw
        return False
    return curvature_ratio(problem, state.rows, (state.params, state.evaluation), (params, evaluation)) < _TOO_LITTLE


def _rounding_error(problem: Problem, state: ProximalState) -> float:
    return _NOISE * float(np.finfo(problem.data.X.dtype).eps) * abs(state.evaluation.value)
