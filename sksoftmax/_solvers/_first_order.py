"""The common part of the first-order solvers: the step on a batch, given an update rule and a learning rate.

`plan` builds a solver from `first_order` and a rule of `sgd`, `adagrad` or `adam`. `serialization` saves its state.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from sksoftmax._maths.objective import batch_value_and_grad, soft_threshold
from sksoftmax._solvers.schedules import Schedule
from sksoftmax._types import Batch, Params, Problem, Solver, add_scaled

#: An update rule, ``(grads, memory, step) -> (direction, memory, scale)``. The rate times the direction is added to the
#: parameters. For a constant gradient the direction tends to ``-scale * grads``; ``scale`` is a number, or an array of
#: the shape of ``coef``.
UpdateRule = Callable[[Params, Any, int], tuple[Params, Any, Any]]

#: Exponent of the weights of the averaged iterates: late iterates count more, so that no start has to be chosen.
_AVERAGE_POWER = 3


class FirstOrderState(NamedTuple):
    """State of a first-order solver.

    Attributes
    ----------
    params : Params
        The solver's result: the average of the iterates, or the last iterate.
    iterate : Params
        The last iterate.
    memory : Any
        Memory of the rule, such as a velocity or sums of squares.
    step : int
        Updates so far.
    rate : float
        Base learning rate, > 0; the training loop reduces it after a divergence.
    """

    params: Params
    iterate: Params
    memory: Any
    step: int
    rate: float


def first_order(
    name: str,
    rule: UpdateRule,
    init_memory: Callable[[Params], Any],
    rate: float,
    schedule: Schedule,
    batch_size: int,
    horizon: int | None,
    *,
    average: bool = False,
) -> Solver:
    """Return the solver that adds ``rate * schedule * direction`` after each batch, the direction given by the rule.

    With an L1 penalty a proximal step follows, in the scale of the rule, so that the minimum of F is a fixed point of
    the step: Duchi, Shalev-Shwartz, Singer & Tewari (2010), Composite objective mirror descent, COLT.

    Parameters
    ----------
    name : str
        Name of the solver.
    rule : callable
        The update rule, see `UpdateRule`.
    init_memory : callable
        Maps parameters to the initial memory of the rule.
    rate : float
        Base learning rate, > 0.
    schedule : callable
        Maps step and horizon to a factor on ``rate``.
    batch_size : int
        Rows of a batch.
    horizon : int or None
        Number of updates planned, for the schedule; None on a stream.
    average : bool, default=False
        Whether to return the polynomial-decay average of the iterates: Shamir & Zhang (2013), arXiv:1212.1824, eq. 2,
        eta = 3.
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
            weight = (_AVERAGE_POWER + 1) / (state.step + 1 + _AVERAGE_POWER)
            params = add_scaled(state.params, weight, add_scaled(iterate, -1.0, state.params))
        return FirstOrderState(params, iterate, memory, state.step + 1, state.rate)

    return Solver(name, init, step, None, batch_size)
