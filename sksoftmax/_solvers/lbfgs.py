"""L-BFGS in the metric of each class's mean curvature: for more unknowns than part of the rows can tell apart.

A part of the rows gives a Hessian of no more rank than it has rows. Where the unknowns are as many as the rows, or
more, ``E[p_c (1 - p_c)] X'X / n`` stands for each class's curvature instead, and the last steps correct it. A step
costs one pass over the data: its length is exact for the curvature along it, a number that part of the rows does
tell.

Nocedal & Wright (2006), Numerical Optimization, algorithm 7.4; the initial matrix may change from step to step.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from sksoftmax._maths.curvature import shared_decrease
from sksoftmax._maths.newton_direction import NewtonStep, Pair, lbfgs_correct, relative_excess
from sksoftmax._maths.objective import hessian_products, iter_blocks, probabilities, value_and_grad
from sksoftmax._maths.preconditioner import Spectrum, absorb_constant_columns, spectrum
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

#: Sufficient decrease, as a share of the slope, and halvings of a step.
_ARMIJO, _MAX_HALVINGS = 1e-4, 8

#: The excess is that of a geometric series of decreases, of at most this ratio.
_GREATEST_RATIO = 0.9

#: How much more than that may be left: slow directions hide behind fast ones. (Measured: up to 1.4 times.)
_DOUBT = 2.0

#: Rounding of F, in units of F's last digit.
_NOISE = 8


class LbfgsState(NamedTuple):
    """State of L-BFGS.

    Attributes
    ----------
    params : Params
    evaluation : Evaluation
        F and its gradient at ``params``.
    step : Params
        The next step.
    decrease : float
        What F is expected to fall by along it.
    ratio : float
        Of the decrease expected to that expected of the last step.
    actual_reduction : float
        What the last step brought.
    excess : float
        Estimate of ``(F - F*) / F*``.
    at_precision : bool
        No step decreases F by more than rounding.
    pairs : tuple of Pair
        The last steps.
    rows : Batch
        Rows that tell the classes' mean curvature, and the curvature along a step; weights that sum to 1.
    spectrum : Spectrum
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
    """Solver whose step is one of L-BFGS.

    Parameters
    ----------
    moments : Moments
        Of the columns, with all of X'X.
    n_drawn : int
        Rows, evenly spread, that tell a curvature.
    n_pairs : int
        Pairs that are kept, each of two sets of parameters.
    tol : float
        Excess at which the fit is to end: F is then looked at along its gradient, too, by the curvature that most rows
        share.
    """

    def init(problem: Problem, params: Params) -> LbfgsState:
        rows = _evenly_spaced_rows(problem, n_drawn)
        basis = spectrum(problem, moments, float(_mean_curvature(problem, params, rows).mean()))
        params = absorb_constant_columns(basis, params)
        evaluation = value_and_grad(problem, params)
        start = LbfgsState(params, evaluation, evaluation.grads, 0.0, 0.0, 0.0, np.inf, False, (), rows, basis)
        return _with_saturation_check(problem, _with_direction(problem, start))

    def step(problem: Problem, state: LbfgsState, batch: Batch) -> LbfgsState:
        if state.at_precision:
            return state
        noise = _rounding_error(problem, state)
        for halvings in range(_MAX_HALVINGS):
            length = 0.5**halvings
            params = add_scaled(state.params, length, state.step)
            evaluation = value_and_grad(problem, params)
            if evaluation.value <= state.evaluation.value - _ARMIJO * length * 2 * state.decrease + noise:
                return _with_saturation_check(
                    problem, _with_direction(problem, _accept_step(problem, state, params, evaluation, n_pairs))
                )
        return state._replace(at_precision=True)

    def _with_saturation_check(problem: Problem, state: LbfgsState) -> LbfgsState:
        if state.excess > tol:
            return state
        left = shared_decrease(problem, state.params, state.rows, state.evaluation.grads)
        return state._replace(excess=max(state.excess, relative_excess(state.evaluation.value, left)))

    def evaluate(problem: Problem, state: LbfgsState) -> Report:
        return Report(state.evaluation.value, state.excess, False)  # what is stuck is left to the next solver

    return Solver("lbfgs", init, step, evaluate, None)


def _evenly_spaced_rows(problem: Problem, n_drawn: int) -> Batch:
    every = slice(None, None, max(1, problem.n_samples // n_drawn))
    X, y, weight = (part[every] for part in problem.data)
    return normalize_weights(Batch(np.ascontiguousarray(X) if isinstance(X, np.ndarray) else X, y, weight))


def _mean_curvature(problem: Problem, params: Params, rows: Batch) -> Array:
    """Each class's mean ``p_c (1 - p_c)``."""
    part = problem._replace(data=rows)
    spread = np.zeros(problem.n_outputs)
    for block, proba in zip(iter_blocks(part), probabilities(part, params), strict=True):
        spread += (proba * (1 - proba)) @ block.weight
    return np.maximum(spread, np.finfo(rows.X.dtype).eps)


def _rounding_error(problem: Problem, state: LbfgsState) -> float:
    return _NOISE * float(np.finfo(problem.data.X.dtype).eps) * abs(state.evaluation.value)


def _accept_step(
    problem: Problem, state: LbfgsState, params: Params, evaluation: Evaluation, n_pairs: int
) -> LbfgsState:
    pair = Pair(add_scaled(params, -1.0, state.params), add_scaled(evaluation.grads, -1.0, state.evaluation.grads))
    pairs = (*state.pairs, pair)[-n_pairs:] if dot(*pair) > 0 else state.pairs
    actual_reduction = state.evaluation.value - evaluation.value
    at_precision = state.decrease <= _rounding_error(problem, state) and actual_reduction <= 0
    return state._replace(
        params=params, evaluation=evaluation, actual_reduction=actual_reduction, at_precision=at_precision, pairs=pairs
    )


def _with_direction(problem: Problem, state: LbfgsState) -> LbfgsState:
    """The state with the next step, as long as the curvature along it asks for, and the excess that it tells.

    F falls by some ratio from step to step: what is left is the sum of a geometric series, of what the next step is
    to bring or of what the last has brought, whichever is more, at the greater of the last two ratios.
    """
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
    ratio = min(decrease / state.decrease, _GREATEST_RATIO) if state.decrease > 0 else _GREATEST_RATIO
    slowest = max(ratio, state.ratio)
    left = _DOUBT * max(decrease, slowest * state.actual_reduction) / (1 - slowest)
    return state._replace(
        step=scale_params(slope / curvature, direction),
        decrease=decrease,
        ratio=ratio,
        excess=relative_excess(state.evaluation.value, left),
    )
