"""The first Newton steps on few dense rows, by kernels: Python's calls would take longer than the steps.

Made by ``plan`` for the first stage of a fit whose Hessian is factorized. The steps have the exact Hessian, and end
near the minimum; `newton` takes the last ones and bounds F - F*. An epoch is a step. If no callback looks at the
epochs, one call takes them all, with the same result.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from sksoftmax._engines import compiled
from sksoftmax._maths.class_curvature import STEP_OVERHEAD, hessian_time, pass_time
from sksoftmax._maths.objective import better_start, has_hard_labels
from sksoftmax._maths.preconditioner import GramPreconditioner, absorb_constant_columns
from sksoftmax._types import Batch, Params, Problem, Report, Solver

#: Largest number of steps.
_MAX_STEPS = 30

#: Steps that are saved their overhead, about. Near the minimum one Hessian is computed twice: it must take less.
_N_SAVED = 5


class FirstStepsState(NamedTuple):
    """State of the first Newton steps.

    Attributes
    ----------
    params : Params
    value : float
        F at ``params``.
    earlier_values : tuple of float
        F after each earlier step of the last call.
    following : tuple of (Params, float) or None
        End of the next step, and F there; None if the steps are over.
    n_left : int
        Steps left, with the next one.
    """

    params: Params
    value: float
    earlier_values: tuple[float, ...]
    following: tuple[Params, float] | None
    n_left: int

    @property
    def is_over(self) -> bool:
        """Whether the next stage follows."""
        return self.following is None


def has_first_steps(problem: Problem) -> bool:
    """Return whether there are kernels for these rows, and a step takes less time than the overhead that is saved."""
    if problem.kernel is not compiled or not isinstance(problem.data.X, np.ndarray) or not has_hard_labels(problem):
        return False
    return pass_time(problem) + hessian_time(problem, problem.n_samples) <= _N_SAVED * STEP_OVERHEAD


def first_steps(base: GramPreconditioner, tol: float, max_steps: int, *, is_watched: bool) -> Solver:
    """Return the solver whose step is a Newton step with the exact Hessian, or as many as are left.

    Parameters
    ----------
    base : GramPreconditioner
        Scale of the columns.
    tol : float
        Excess at which the fit is to end. The steps end when their predicted decrease is at most ``sqrt(tol) * F``.
    max_steps : int
        Largest number of steps.
    is_watched : bool
        Whether to take one step at a time.
    """

    def take(problem: Problem, params: Params, n_steps: int) -> tuple[Params, list[float]]:
        return compiled.newton_steps(problem, params, base.scale, float(np.sqrt(tol)), n_steps)

    def with_following(problem: Problem, state: FirstStepsState) -> FirstStepsState:
        params, values = take(problem, state.params, min(1, state.n_left))
        return state._replace(following=(params, values[0]) if values else None)

    def init(problem: Problem, params: Params) -> FirstStepsState:
        params, evaluation = better_start(problem, absorb_constant_columns(base, params))
        state = FirstStepsState(params, evaluation.value, (), None, min(max_steps, _MAX_STEPS))
        return with_following(problem, state)

    def step(problem: Problem, state: FirstStepsState, batch: Batch) -> FirstStepsState:
        assert state.following is not None, "the steps are over"
        params, value = state.following
        if is_watched:
            return with_following(problem, FirstStepsState(params, value, (), None, state.n_left - 1))
        params, values = take(problem, params, state.n_left - 1)
        *earlier, last = (value, *values)
        return FirstStepsState(params, last, tuple(earlier), None, 0)

    def evaluate(problem: Problem, state: FirstStepsState) -> Report:
        return Report(state.value, np.inf, state.is_over)

    return Solver("newton", init, step, evaluate, None)
