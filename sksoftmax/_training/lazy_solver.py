"""Build a solver only if its stage of a fit is reached.

`plan` wraps the Newton solver that follows the dual solver: most fits end before they need it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

from sksoftmax._maths.objective import shift_intercept
from sksoftmax._types import Array, Batch, Params, Problem, Report, Solver


class LazySolver(NamedTuple):
    """A solver, its problem, and the offset subtracted from the columns of that problem (None for no offset)."""

    solver: Solver
    problem: Problem
    column_offset: Array | None


class LazyState(NamedTuple):
    """The state of a lazy solver, and its parameters in the coordinates of the given problem."""

    state: Any
    params: Params


def lazy_solver(name: str, make: Callable[[], LazySolver]) -> Solver:
    """Return a solver that calls ``make`` when its first state is initialized."""
    get = functools.cache(make)

    def to_lazy_state(state: Any) -> LazyState:
        return LazyState(state, shift_intercept(state.params, get().column_offset, -1.0))

    def init(problem: Problem, params: Params) -> LazyState:
        solver, own_problem, column_offset = get()
        return to_lazy_state(solver.init(own_problem, shift_intercept(params, column_offset, 1.0)))

    def step(problem: Problem, lazy_state: LazyState, batch: Batch) -> LazyState:
        solver, own_problem, _ = get()
        return to_lazy_state(solver.step(own_problem, lazy_state.state, own_problem.data))

    def evaluate(problem: Problem, lazy_state: LazyState) -> Report:
        solver, own_problem, _ = get()
        assert solver.evaluate is not None
        return solver.evaluate(own_problem, lazy_state.state)

    return Solver(name, init, step, evaluate, None)
