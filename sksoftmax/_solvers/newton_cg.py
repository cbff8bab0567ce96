"""The finish: Newton-CG over all rows, in a metric that follows the classes' curvature."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from sksoftmax._newton import Newton, newton_direction, relative_excess
from sksoftmax._objective import value_and_grad
from sksoftmax._precondition import (
    ClassPreconditioner,
    Preconditioner,
    class_curvature_passes,
    class_preconditioner,
    without_constants,
)
from sksoftmax._types import Batch, Evaluation, Params, Problem, Report, Solver, dot, plus

#: Accuracy of the expected decrease: first steps need little, and the last no more than rounding allows.
_LOOSEST, _TIGHTEST = 0.3, 1e-4

#: Sufficient decrease, as a share of the slope: Nocedal & Wright (2006), Numerical Optimization, 3.1.
_ARMIJO = 1e-4
_MAX_HALVINGS = 40

#: Rounding of F, in units of F's last digit.
_NOISE = 8


class NewtonState(NamedTuple):
    """State of the Newton-CG solver.

    Attributes
    ----------
    params : Params
    evaluation : Evaluation
        F and its gradient at ``params``.
    excess : float
        Estimate of ``(F - F*) / F*`` before the last step, so an upper estimate after it.
    is_stuck : bool
    metric : Preconditioner or ClassPreconditioner
        What conjugate gradients are preconditioned by.
    unpaid : int
        Hessian products in this metric: when they have cost what a better one does, it is bought.
    """

    params: Params
    evaluation: Evaluation
    excess: float
    is_stuck: bool
    metric: Preconditioner | ClassPreconditioner
    unpaid: int


def newton_cg(base: Preconditioner, max_products: int) -> Solver:
    """Solver whose step is one truncated Newton step over all rows.

    Parameters
    ----------
    base : Preconditioner
        The metric to begin with; the classes' own curvature takes its place once conjugate gradients have
        spent as many passes as it costs (never more than twice the cost of the better choice).
    max_products : int
        Hessian products of a step.

    References
    ----------
    Dembo & Steihaug (1983), Math. Program. 26, 190-212: truncated Newton methods.
    """

    def init(problem: Problem, params: Params) -> NewtonState:
        params = without_constants(base, params)
        return NewtonState(params, value_and_grad(problem, params), np.inf, False, base, 0)

    def step(problem: Problem, state: NewtonState, batch: Batch) -> NewtonState:
        params, evaluation = state.params, state.evaluation
        metric, unpaid = state.metric, state.unpaid
        if base.inverse.ndim == 2 and unpaid > class_curvature_passes(problem):
            metric, unpaid = class_preconditioner(problem, params, base), 0
        # 1/2 g' P g, P below the inverse Hessian, is a decrease that a step is sure of
        sure = max(0.0, 0.5 * dot(evaluation.grads, base.apply(evaluation.grads)))
        accuracy = min(_LOOSEST, max(_TIGHTEST, float(np.sqrt(sure / max(evaluation.value, 1e-300)))))
        newton = newton_direction(problem, params, evaluation, metric, accuracy, max_products)
        noise = _NOISE * float(np.finfo(problem.data.X.dtype).eps) * abs(evaluation.value)
        found = _line_search(problem, params, evaluation, newton, noise)
        is_stuck = found is None or (newton.decrease <= noise and found[1].value >= evaluation.value)
        excess = relative_excess(problem, evaluation.value, newton.decrease + newton.remaining)
        return NewtonState(
            *(found or (params, evaluation)),
            excess,
            is_stuck,
            metric,
            unpaid + newton.n_products,
        )

    def report(problem: Problem, state: NewtonState) -> Report:
        return Report(state.evaluation.value, state.excess, state.is_stuck)

    return Solver("newton_cg", init, step, report, None)


def _line_search(
    problem: Problem, params: Params, evaluation: Evaluation, newton: Newton, noise: float
) -> tuple[Params, Evaluation] | None:
    """The longest of the steps 1, 1/2, 1/4, ... that decreases F enough, up to noise; None if none does."""
    for halvings in range(_MAX_HALVINGS):
        length = 0.5**halvings
        new = plus(params, length, newton.direction)
        new_evaluation = value_and_grad(problem, new)
        if new_evaluation.value <= evaluation.value - _ARMIJO * length * 2 * newton.decrease + noise:
            return new, new_evaluation
    return None
