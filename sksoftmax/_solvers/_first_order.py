"""What the first-order solvers share: a batch's gradient, a rule that turns it into an update, a rate."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from sksoftmax._maths.objective import batch_value_and_grad, soft_threshold
from sksoftmax._solvers.schedules import Schedule
from sksoftmax._types import Batch, Params, Problem, Solver, add_scaled

#: ``(grads, memory, step) -> (direction, memory, scale)``: the direction is added to the parameters times the rate;
#: a gradient that stays as it is becomes minus ``scale`` times it, a number or one for each coefficient.
Rule = Callable[[Params, Any, int], tuple[Params, Any, Any]]

#: Exponent of the average's weights: late iterates count more, and no start has to be chosen.
_AVERAGE_POWER = 3


class FirstOrderState(NamedTuple):
    """State of a first-order solver.

    Attributes
    ----------
    params : Params
        What the solver answers with: the average of the iterates, or the iterate.
    iterate : Params
    memory : Any
        The rule's: velocity, sums of squares.
    step : int
        Updates so far.
    rate : float
        Base learning rate, > 0; the loop shrinks it after a divergence.
    """

    params: Params
    iterate: Params
    memory: Any
    step: int
    rate: float


def first_order(
    name: str,
    rule: Rule,
    init_memory: Callable[[Params], Any],
    rate: float,
    schedule: Schedule,
    batch_size: int,
    horizon: int | None,
    *,
    average: bool = False,
) -> Solver:
    """Solver that adds ``rate * schedule * rule(gradient)`` after every batch.

    With an L1 penalty a proximal step follows, in the rule's own scale, so that a step of F's minimum stays there:
    Duchi, Shalev-Shwartz, Singer & Tewari (2010), Composite objective mirror descent, COLT.

    Parameters
    ----------
    horizon : int or None
        Updates planned, for the schedule; None on a stream.
    average : bool
        Answer with the polynomial-decay average of the iterates: Shamir & Zhang (2013), arXiv:1212.1824,
        eq. 2, eta = 3.
    """

    def init(problem: Problem, params: Params) -> FirstOrderState:
        return FirstOrderState(params, params, init_memory(params), 0, rate)

    def step(problem: Problem, state: FirstOrderState, batch: Batch) -> FirstOrderState:
        grads = batch_value_and_grad(problem, state.iterate, batch).grads
        direction, memory, scale = rule(grads, state.memory, state.step)
        length = state.rate * schedule(state.step, horizon)
        iterate = add_scaled(state.iterate, length, direction)
        if problem.l1_ratio:
            threshold = length * scale * problem.alpha * problem.l1_ratio
            iterate = iterate._replace(coef=soft_threshold(iterate.coef, threshold))
        params = iterate
        if average:
            share = (_AVERAGE_POWER + 1) / (state.step + 1 + _AVERAGE_POWER)
            params = add_scaled(state.params, share, add_scaled(iterate, -1.0, state.params))
        return FirstOrderState(params, iterate, memory, state.step + 1, state.rate)

    return Solver(name, init, step, None, batch_size)
