"""L-BFGS preconditioned by the mean curvature of each class.

Made by ``plan`` if the unknowns are about as many as the rows. The Hessian of a sample has no higher rank than the
sample has rows. So ``E[p_c (1 - p_c)] X'X / n`` takes the place of the curvature of class c, and L-BFGS pairs correct
it. A step:

1. Try the length that is exact for the curvature along the direction, which a sample estimates well; halve it until F
   decreases enough.
2. Add the pair of the step.
3. Estimate the mean curvature of each class from the sample. Compute the direction by the L-BFGS recursion, with the
   preconditioner by these curvatures as the initial matrix, which may change from step to step.
4. Estimate F - F*. If the estimate may end the fit, take the maximum with the decrease along the gradient by the
   curvature that most rows share.

So a step costs one pass over the data. Nocedal & Wright (2006), Numerical Optimization, algorithm 7.4.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from sksoftmax._maths.curvature import robust_decrease
from sksoftmax._maths.newton_direction import NewtonStep, Pair, lbfgs_correct, relative_excess
from sksoftmax._maths.objective import hessian_products, iter_blocks, probabilities, value_and_grad
from sksoftmax._maths.preconditioner import Spectrum, absorb_constant_columns, spectrum
from sksoftmax._solvers._line_search import ARMIJO, rounding_error
from sksoftmax._types import (
    Array,
    Batch,
    Evaluation,
    Moments,
    Params,
    Problem,
    Report,
    Solver,
    add_scaled,
    dot,
    normalize_weights,
    scale_params,
)

#: Largest number of lengths that a line search tries.
_MAX_HALVINGS = 8

#: Largest ratio of the geometric series that estimates F - F*.
_MAX_RATIO = 0.9

#: Safety factor on this estimate: slow directions hide behind fast ones. (Measured: up to 1.4 times the estimate.)
_SAFETY = 2.0


class LbfgsState(NamedTuple):
    """State of L-BFGS.

    Attributes
    ----------
    params : Params
    evaluation : Evaluation
        F and its gradient at ``params``.
    step : Params
        Next step.
    decrease : float
        Decrease of F that the quadratic model predicts along the next step.
    ratio : float
        Ratio of ``decrease`` to the predicted decrease of the last step, capped.
    actual_reduction : float
        Decrease of F that the last step achieved.
    excess : float
        Estimate of ``(F - F*) / F*``.
    at_precision : bool
        Whether no step decreases F by more than rounding.
    pairs : tuple of Pair
        L-BFGS pairs of the last steps.
    rows : Batch
        Sample that estimates the mean curvature of each class and the curvature along a step; its weights sum to 1.
    spectrum : Spectrum
        Directions along which X'X and the penalty are both diagonal.
    """

    params: Params
    evaluation: Evaluation
    step: Params
    decrease: float
    ratio: float
    actual_reduction: float
    excess: float
    at_precision: bool
    pairs: tuple[Pair, ...]
    rows: Batch
    spectrum: Spectrum


def lbfgs(moments: Moments, n_drawn: int, n_pairs: int, tol: float = 0.0) -> Solver:
    """Return the solver whose step is a step of L-BFGS.

    Parameters
    ----------
    moments : Moments
        Moments of the columns, with all of X'X.
    n_drawn : int
        Sample size. The sample is evenly spaced.
    n_pairs : int
        Largest number of L-BFGS pairs, each of two sets of parameters.
    tol : float
        Excess at which the fit is to end. From there on F - F* is estimated along the gradient as well.
    """

    def init(problem: Problem, params: Params) -> LbfgsState:
        rows = _evenly_spaced_rows(problem, n_drawn)
        basis = spectrum(problem, moments, float(_mean_curvature(problem, params, rows).mean()))
        params = absorb_constant_columns(basis, params)
        evaluation = value_and_grad(problem, params)
        start = LbfgsState(params, evaluation, evaluation.grads, 0.0, 0.0, 0.0, np.inf, False, (), rows, basis)
        return _with_shared_decrease(problem, _with_direction(problem, start))

    def step(problem: Problem, state: LbfgsState, batch: Batch) -> LbfgsState:
        if state.at_precision:
            return state
        noise = rounding_error(problem, state.evaluation.value)
        # 1.
        for halvings in range(_MAX_HALVINGS):
            length = 0.5**halvings
            params = add_scaled(state.params, length, state.step)
            evaluation = value_and_grad(problem, params)
            if evaluation.value <= state.evaluation.value - ARMIJO * length * 2 * state.decrease + noise:
                return _with_shared_decrease(
                    problem, _with_direction(problem, _accept_step(problem, state, params, evaluation, n_pairs))
                )
        return state._replace(at_precision=True)

    def _with_shared_decrease(problem: Problem, state: LbfgsState) -> LbfgsState:
        """Return the state with an excess that is at least the decrease along the gradient.

        It is estimated by the curvature that most rows share: see ``robust_decrease``.
        """
        if state.excess > tol:
            return state
        shared = robust_decrease(problem, state.params, state.rows, state.evaluation.grads)
        return state._replace(excess=max(state.excess, relative_excess(state.evaluation.value, shared)))

    def evaluate(problem: Problem, state: LbfgsState) -> Report:
        return Report(state.evaluation.value, state.excess, False)  # the next solver goes on where this one stalls

    return Solver("lbfgs", init, step, evaluate, None)


def _evenly_spaced_rows(problem: Problem, n_drawn: int) -> Batch:
    """Return about ``n_drawn`` evenly spaced rows, with weights that sum to 1."""
    spaced = slice(None, None, max(1, problem.n_samples // n_drawn))
    X, y, weight = (column[spaced] for column in problem.data)
    return normalize_weights(Batch(np.ascontiguousarray(X) if isinstance(X, np.ndarray) else X, y, weight))


def _mean_curvature(problem: Problem, params: Params, rows: Batch) -> Array:
    """Return the mean of ``p_c (1 - p_c)`` of each class, (n_outputs,)."""
    part = problem._replace(data=rows)
    spread = np.zeros(problem.n_outputs)
    for block, proba in zip(iter_blocks(part), probabilities(part, params), strict=True):
        spread += (proba * (1 - proba)) @ block.weight
    return np.maximum(spread, np.finfo(rows.X.dtype).eps)


def _accept_step(
    problem: Problem, state: LbfgsState, params: Params, evaluation: Evaluation, n_pairs: int
) -> LbfgsState:
    """Return the state at the end of a step, with the pair of the step."""
    # 2.
    pair = Pair(add_scaled(params, -1.0, state.params), add_scaled(evaluation.grads, -1.0, state.evaluation.grads))
    pairs = (*state.pairs, pair)[-n_pairs:] if dot(*pair) > 0 else state.pairs
    actual_reduction = state.evaluation.value - evaluation.value
    at_precision = state.decrease <= rounding_error(problem, state.evaluation.value) and actual_reduction <= 0
    return state._replace(
        params=params, evaluation=evaluation, actual_reduction=actual_reduction, at_precision=at_precision, pairs=pairs
    )


def _with_direction(problem: Problem, state: LbfgsState) -> LbfgsState:
    """Return the state with the next step, of the length that is exact for the curvature along it, and the excess.

    F - F* is assumed to shrink by a ratio from step to step and estimated by the sum of a geometric series. Its first
    term is the next predicted decrease, or the last actual reduction times the ratio if that is larger. Its ratio is
    the larger of the last two.
    """
    # 3.
    params, grads, rows = state.params, state.evaluation.grads, state.rows
    preconditioner = state.spectrum.preconditioner(_mean_curvature(problem, params, rows))

    def solve(gradient: Params) -> NewtonStep:
        return NewtonStep(scale_params(-1.0, preconditioner.apply(gradient)), 0.0, 0.0, 0)

    direction = lbfgs_correct(state.pairs, grads, solve).direction
    slope = -dot(grads, direction)
    curvature = dot(direction, hessian_products(problem, params, rows)(direction))
    if not (slope > 0 and curvature > 0):
        return state._replace(at_precision=True, excess=0.0 if slope == 0 else np.inf)
    decrease = 0.5 * slope * slope / curvature
    # 4.
    ratio = min(decrease / state.decrease, _MAX_RATIO) if state.decrease > 0 else _MAX_RATIO
    series_ratio = max(ratio, state.ratio)
    suboptimality = _SAFETY * max(decrease, series_ratio * state.actual_reduction) / (1 - series_ratio)
    return state._replace(
        step=scale_params(slope / curvature, direction),
        decrease=decrease,
        ratio=ratio,
        excess=relative_excess(state.evaluation.value, suboptimality),
    )
