"""Line searches of the Newton solvers, and the rounding error of F.

`newton` searches along a direction, `proximal_newton` on the segment to the minimum of its model. `lbfgs` uses the
rounding error.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from sksoftmax._maths.newton_direction import NewtonStep
from sksoftmax._maths.objective import value_and_grad
from sksoftmax._types import Evaluation, Params, Problem, add_scaled, dot, interpolate

#: Sufficient decrease, as a fraction of the slope: Nocedal & Wright (2006), Numerical Optimization, 3.1.
ARMIJO = 1e-4

#: Fraction of the slope that must be left at the end of a step to try twice its length. For a quadratic, twice the
#: length is better from 1/3 on. For an exponential, of whose slope 1/e is left, it is better at smaller fractions too.
_STEEP_SLOPE = 0.25

#: Largest number of lengths that a line search tries.
_MAX_HALVINGS = 40

#: The same along a direction by the factor of a sample, which CG may replace.
_MAX_RISKY_HALVINGS = 4

#: Rounding error of F, in units of machine epsilon times F.
ROUNDING_EPS = 8


def rounding_error(problem: Problem, value: float) -> float:
    """Return the rounding error of F where it is ``value``."""
    return ROUNDING_EPS * float(np.finfo(problem.data.X.dtype).eps) * abs(value)


def search_direction(
    problem: Problem, start: Params, value: float, newton_step: NewtonStep, *, is_risky: bool
) -> tuple[Params, Evaluation] | None:
    """Find the longest of the steps 1, 1/2, 1/4, ... along a Newton direction that decreases F enough, up to rounding.

    If the first step decreases F enough, it is lengthened while F falls steeply.

    Parameters
    ----------
    start : Params
        Start of the search.
    value : float
        F at ``start``.
    newton_step : NewtonStep
        Direction, and its predicted decrease.
    is_risky : bool
        Whether the direction is by the factor of a sample. The search then gives up early.

    Returns
    -------
    tuple of (Params, Evaluation) or None
        End of the step, and F and its gradient there; None if no step decreases F enough.
    """
    noise = rounding_error(problem, value)

    def evaluate_at(length: float) -> tuple[Params, Evaluation]:
        end = add_scaled(start, length, newton_step.direction)
        return end, value_and_grad(problem, end)

    for halvings in range(_MAX_RISKY_HALVINGS if is_risky else _MAX_HALVINGS):
        length = 0.5**halvings
        trial = evaluate_at(length)
        if trial[1].value <= value - ARMIJO * length * 2 * newton_step.decrease + noise:
            return _lengthen_step(trial, evaluate_at, newton_step, noise) if halvings == 0 else trial
        if length * newton_step.decrease <= noise:
            break
    return None


def _lengthen_step(
    trial: tuple[Params, Evaluation],
    evaluate_at: Callable[[float], tuple[Params, Evaluation]],
    newton_step: NewtonStep,
    noise: float,
) -> tuple[Params, Evaluation]:
    """Return the step, doubled while F falls steeply at its end and is less at twice the length."""
    length = 1.0
    while -dot(trial[1].grads, newton_step.direction) > _STEEP_SLOPE * 2 * newton_step.decrease > noise:
        length *= 2
        longer = evaluate_at(length)
        if not longer[1].value < trial[1].value:
            break
        trial = longer
    return trial


def search_segment(
    problem: Problem, start: Params, value: float, end: Params, decrease: float
) -> tuple[Params, Evaluation, int] | None:
    """Find the longest of the steps 1, 1/2, 1/4, ... of the way to ``end`` that decreases F enough, up to rounding.

    Parameters
    ----------
    start, end : Params
        Ends of the segment.
    value : float
        F at ``start``.
    decrease : float
        Predicted decrease of F at ``end``.

    Returns
    -------
    tuple of (Params, Evaluation, int) or None
        End of the step, F and its gradient there, and the number of halvings; None if no step decreases F enough.
    """
    noise = rounding_error(problem, value)
    for halvings in range(_MAX_HALVINGS):
        length = 0.5**halvings
        evaluation = value_and_grad(problem, end)
        if evaluation.value <= value - ARMIJO * length * decrease + noise:
            return end, evaluation, halvings
        if length * decrease <= noise:
            break
        end = interpolate(start, 0.5, end)
    return None
