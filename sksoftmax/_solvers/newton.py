"""The finish: Newton steps with the gradient of all rows and the curvature of a part of them.

A step solves ``H d = -g``, g the gradient of F over all rows and H the Hessian of the rows drawn, by its Cholesky
factor or by conjugate gradients; L-BFGS pairs of the steps before correct what the part of the rows misses. So a
step costs one or two passes over the data, whatever it takes to solve.

Sub-sampled Newton: Roosta-Khorasani & Mahoney (2019), Math. Program. 174, 293-326.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from sksoftmax._maths.curvature import (
    CholeskyPreconditioner,
    curvature_ratio,
    draw_rows,
    factorize_hessian,
    leverage,
    next_sample_size,
)
from sksoftmax._maths.newton_direction import (
    NewtonStep,
    Pair,
    SampledHessianPreconditioner,
    StepHistory,
    absolute_suboptimality,
    conjugate_gradients,
    estimate_suboptimality,
    lbfgs_correct,
    relative_excess,
)
from sksoftmax._maths.objective import better_start, hessian_products, value_and_grad
from sksoftmax._maths.preconditioner import GramPreconditioner, Preconditioner, absorb_constant_columns
from sksoftmax._maths.saturation import saturate_step
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
    scale_params,
)

#: Pairs that are kept; and by how much, relative, what a step brings may differ from its promise: beyond it F is no
#: parabola there, and what the gradients changed by along other steps tells nothing of the curvature.
_N_PAIRS, _PARABOLA = 20, 0.5

#: Share of the expected decrease below which the rows drawn are suspected; and the share of the curvature along the
#: step below which they then are too few.
_POOR, _MIN_CURVATURE_RATIO = 0.5, 0.5

#: The latter where memory holds no more rows: all have to be read for each product, so only where steps get nowhere.
_MIN_CURVATURE_RATIO_OUT_OF_CORE = 0.1

#: F's fall since rows were drawn from which others hold the curvature.
_CHANGED = 0.8

#: Accuracy of conjugate gradients: first steps need little, the last no more than rounding allows, and part of the
#: rows no more than they are worth.
_LOOSEST, _TIGHTEST, _SAMPLED = 0.3, 1e-4, 0.1

#: Accuracy of the direction that ends the fit: their first iterations say little of the small eigenvalues.
_CERTIFYING = 0.03

#: Factor on an excess by the curvature of one step before: curvature falls where classes separate.
_STALE_FACTOR_SAFETY = 4.0

#: What an exponential has left, in units of what its Newton step is expected to bring; and the ratio of what two rounds
#: are expected to bring above which F may be one: that of a parabola is next to 0.
_EXPONENTIAL, _PARABOLIC = 2.0, 0.02

#: Hessian products of a step, as in scikit-learn's newton-cg.
MAX_PRODUCTS = 200

#: Sufficient decrease, as a share of the slope: Nocedal & Wright (2006), Numerical Optimization, 3.1.
_ARMIJO = 1e-4

#: Share of the slope that must be left at the end of a step for one of twice its length to be tried: along a parabola
#: it would win from 1/3 on, along an exponential, of which 1/e is left, sooner.
_STEEP = 0.25

#: Halvings of a step; few along a direction that part of the rows gave.
_MAX_HALVINGS, _FEW_HALVINGS = 40, 4

#: Rounding of F, in units of F's last digit.
_NOISE = 8


class NewtonState(NamedTuple):
    """State of the Newton solver.

    Attributes
    ----------
    params : Params
    evaluation : Evaluation
        F and its gradient at ``params``.
    newton : Newton
        The direction from there.
    excess : float
        Estimate of ``(F - F*) / F*`` there.
    ratio : float
        Of the decrease expected to that expected of the last round's first step.
    predicted_reduction : float
        The latter.
    value_before : float
        F before the last round.
    at_precision : bool
    pairs : tuple of Pair
        The last steps, while F was a parabola along them.
    n_drawn : int
        Rows to draw.
    rows : Batch or None
        Rows drawn; None for all where memory does not hold them: a product is then a pass.
    sample_is_stale : bool
        Whether others are to be drawn.
    value_drawn : float
        F when they were.
    leverage : ndarray of shape (n_samples,) or None
    is_factorised : bool
        Whether their Hessian is to be factorised.
    factor : Factor or None
    preconditioner : Preconditioner, ClassPreconditioner, Factor or SampleMetric
        What conjugate gradients are preconditioned by.
    products_since_build : tuple of int
        For each metric that can be bought the Hessian products since it was, or since the start; those that are
        cheaper than the metric at hand no longer count.
    n_rounds : int
        Rounds so far.
    next_check : int
        The round from which on it may be tried whether rows saturate.
    check_interval : int
        Rounds between the last two tries.
    """

    params: Params
    evaluation: Evaluation
    newton: NewtonStep
    excess: float
    ratio: float
    predicted_reduction: float
    value_before: float
    at_precision: bool
    pairs: tuple[Pair, ...]
    n_drawn: int
    rows: Batch | None
    sample_is_stale: bool
    value_drawn: float
    leverage: Array | None
    is_factorised: bool
    factor: CholeskyPreconditioner | None
    preconditioner: Preconditioner
    products_since_build: tuple[float, ...]
    n_rounds: int = 0
    next_check: int = 0
    check_interval: int = 1

    @property
    def path_cache(self) -> PreconditionerCache:
        """What a fit of another penalty to the same rows may go on from."""
        return PreconditionerCache(self.preconditioner, self.products_since_build)


class PreconditionerCandidate(NamedTuple):
    """A metric, made from the problem, the parameters, the rows drawn and the bound, and what it costs in products."""

    make: Callable[[Problem, Params, Batch, GramPreconditioner], Preconditioner]
    products: float


class PreconditionerCache(NamedTuple):
    """What a fit of another penalty to the same rows has paid for: its metric, and
    ``NewtonState.products_since_build``.
    """

    preconditioner: Preconditioner
    products_since_build: tuple[float, ...]


def newton(
    base: GramPreconditioner,
    moments: Moments,
    tol: float,
    *,
    final_tol: float = 0.0,
    n_drawn: int,
    is_factorised: bool,
    n_steps: int,
    candidates: Sequence[PreconditionerCandidate],
    path_cache: PreconditionerCache | None = None,
) -> Solver:
    """Solver whose step is a round: a new curvature, and the Newton steps that pay for it.

    Parameters
    ----------
    base : Preconditioner
        Bound of the curvature: what conjugate gradients are preconditioned by to begin with.
    moments : Moments
        Of the columns.
    tol : float
        Excess at which a round is over.
    final_tol : float
        Excess that the fit promises, if that is more than ``tol``: where rows saturate, less than it counts as little.
    n_drawn : int
        Rows that the curvature is estimated from; doubled when they see too little.
    is_factorised : bool
        Whether to factorise their Hessian; given up, for conjugate gradients, if a step along its direction fails.
    n_steps : int
        Steps of a round with the same factor.
    candidates : sequence of Offer
        Metrics closer to F's curvature than ``base``, the cheapest first: each takes the place of the one before
        once as many Hessian products have been spent as it costs, and is made anew once as many more have, so that
        never more than twice the cost of the better choice is.
    path_cache : Bought or None
        What to go on from: curvature is much the same under a penalty that is not much weaker.
    """

    final_tol = max(tol, final_tol)

    def init(problem: Problem, params: Params) -> NewtonState:
        assert problem.l1_ratio == 0, "F is not smooth"
        params, evaluation = better_start(problem, absorb_constant_columns(base, params))
        unknown = NewtonStep(evaluation.grads, 0.0, 0.0, 0)
        state = NewtonState(
            params=params,
            evaluation=evaluation,
            newton=unknown,
            excess=np.inf,
            ratio=0.0,
            predicted_reduction=0.0,
            value_before=evaluation.value,
            at_precision=False,
            pairs=(),
            n_drawn=min(n_drawn, problem.n_samples),
            rows=problem.data,
            sample_is_stale=True,
            value_drawn=np.inf,
            leverage=None,
            is_factorised=is_factorised,
            factor=None,
            preconditioner=base
            if path_cache is None or isinstance(path_cache.preconditioner, GramPreconditioner)
            else path_cache.preconditioner,
            products_since_build=(0.0,) * len(candidates) if path_cache is None else path_cache.products_since_build,
        )
        return _refresh_curvature(problem, state)

    def step(problem: Problem, state: NewtonState, batch: Batch) -> NewtonState:
        is_near = state.excess <= np.sqrt(tol)
        state = state._replace(n_rounds=state.n_rounds + 1)
        for i in range(n_steps if state.is_factorised else 1):
            if i > 0:
                state = state._replace(newton=_direction(problem, state))
                if 2 * state.newton.decrease <= tol * state.evaluation.value:
                    break
            found = _line_search(problem, state)
            if found is None:
                if i == 0 and not (state.is_factorised and _is_subsampled(problem, state)):
                    return state._replace(at_precision=True)
                state = state._replace(is_factorised=i > 0)
                break
            state = _accept_step(problem, state, *found)
            if state.sample_is_stale:
                break
            if i == 0 and is_near and state.factor is not None:  # the next factor would hardly be another
                aimed = _with_direction(problem, state, _direction(problem, state), same_sample=True)
                if _STALE_FACTOR_SAFETY * aimed.excess <= tol:
                    aimed = _with_saturation_check(problem, state, aimed, same_sample=True)
                if _STALE_FACTOR_SAFETY * aimed.excess <= tol:
                    return aimed._replace(excess=_STALE_FACTOR_SAFETY * aimed.excess)
        return _refresh_curvature(problem, state)

    def evaluate(problem: Problem, state: NewtonState) -> Report:
        return Report(state.evaluation.value, state.excess, state.at_precision)

    def _refresh_curvature(problem: Problem, state: NewtonState) -> NewtonState:
        """The state with the curvature of where it stands, the direction by it, and the excess that it certifies."""
        same_sample = not state.sample_is_stale  # rows that were taken for too few are others now
        state = _with_rows(problem, state)
        rows = state.rows
        if rows is None:
            state = state._replace(preconditioner=_sample_preconditioner(problem, state), factor=None)
        elif state.is_factorised:
            state = state._replace(factor=factorize_hessian(problem, state.params, rows, base), pairs=())
        else:
            state = _with_preconditioner(problem, state._replace(factor=None), rows)
        if not _is_subsampled(problem, state):
            state = state._replace(pairs=())
        aimed = _with_direction(problem, state, _direction(problem, state), same_sample=same_sample)
        if aimed.excess <= tol and aimed.newton.cg_remainder > _CERTIFYING * aimed.newton.decrease:  # make sure
            aimed = _with_direction(problem, state, _direction(problem, state, _CERTIFYING), same_sample=same_sample)
        may_end = aimed.excess <= tol and state.n_rounds > 0  # no fit ends before its first step
        return _with_saturation_check(problem, state, aimed, same_sample=same_sample) if may_end else aimed

    def _with_saturation_check(
        problem: Problem, state: NewtonState, aimed: NewtonState, *, same_sample: bool
    ) -> NewtonState:
        """The state ``aimed``, or with another direction, with an excess that holds once rows have saturated.

        Where it is not found out, rounds are taken before it is tried again: two, and twice as many after each try.
        """
        if state.n_rounds < state.next_check:
            return aimed._replace(excess=np.inf)
        aimed = _with_direction(problem, state, _saturated_step(problem, aimed), same_sample=same_sample, is_gap=True)
        is_known = np.isfinite(aimed.newton.cg_remainder)
        if is_known:
            return aimed
        interval = 2 * state.check_interval
        return aimed._replace(check_interval=interval, next_check=state.n_rounds + interval)

    def _saturated_step(problem: Problem, state: NewtonState) -> NewtonStep:
        """The direction with the saturation of rows taken into account."""
        rows, preconditioner, factorise = state.rows, state.preconditioner, None
        if state.factor is not None:
            assert rows is not None
            preconditioner = state.factor

            def factorise(own: Problem) -> Preconditioner:
                return factorize_hessian(own, state.params, rows, base)

        allowed = absolute_suboptimality(state.evaluation.value, final_tol)
        return saturate_step(
            problem, state.params, state.evaluation, rows, state.newton, preconditioner, allowed, factorise
        )

    def _with_preconditioner(problem: Problem, state: NewtonState, rows: Batch) -> NewtonState:
        """The state with the dearest metric whose cost has been spent on products, if any."""
        due = [i for i, offer in enumerate(candidates) if state.products_since_build[i] > offer.products]
        if not due:
            return state
        preconditioner = candidates[due[-1]].make(problem, state.params, rows, base)
        cheaper = (-np.inf,) * due[-1]
        return state._replace(
            preconditioner=preconditioner,
            products_since_build=(*cheaper, 0.0, *state.products_since_build[due[-1] + 1 :]),
        )

    def _sample_preconditioner(problem: Problem, state: NewtonState) -> Preconditioner:
        """The inverse Hessian of the sample."""
        rows = draw_rows(problem, state.params, None, problem.n_samples)
        if is_factorised:
            return factorize_hessian(problem, state.params, rows, base)
        return SampledHessianPreconditioner(hessian_products(problem, state.params, rows), base)

    def _with_rows(problem: Problem, state: NewtonState) -> NewtonState:
        """The state with rows that hold the curvature where it stands."""
        value = state.evaluation.value
        if not state.sample_is_stale and (value >= _CHANGED * state.value_drawn or not _is_subsampled(problem, state)):
            return state
        if problem.data_source is not None and state.n_drawn > problem.n_samples:
            return state._replace(rows=None, sample_is_stale=False, is_factorised=False, pairs=())
        if state.leverage is None and state.n_drawn < problem.n_samples:
            state = state._replace(leverage=leverage(problem, moments))
        rows = draw_rows(problem, state.params, state.leverage, state.n_drawn)
        return state._replace(rows=rows, sample_is_stale=False, value_drawn=value)

    return Solver("newton", init, step, evaluate, None)


def _with_direction(
    problem: Problem, state: NewtonState, aim: NewtonStep, *, same_sample: bool, is_gap: bool = False
) -> NewtonState:
    """The state with the direction ``aim``, and the excess that it certifies, from round to round."""
    value = state.evaluation.value
    last = StepHistory(state.predicted_reduction, max(0.0, state.value_before - value), state.ratio, same_sample)
    is_exponential = (
        not is_gap and not _is_subsampled(problem, state) and aim.decrease > _PARABOLIC * state.predicted_reduction > 0
    )
    expected = aim.decrease * (_EXPONENTIAL if is_exponential else 1.0)
    left, ratio = estimate_suboptimality(last, expected, aim.cg_remainder, _rounding_error(problem, state))
    return state._replace(
        newton=aim,
        excess=relative_excess(value, left),
        ratio=ratio,
        predicted_reduction=aim.decrease,
        value_before=value,
        products_since_build=tuple(n + aim.n_products for n in state.products_since_build),
    )


def _is_subsampled(problem: Problem, state: NewtonState) -> bool:
    """Whether the rows drawn are not all."""
    return state.rows is not None and len(state.rows.y) < problem.n_total_samples


def _direction(problem: Problem, state: NewtonState, accuracy: float | None = None) -> NewtonStep:
    """Newton's direction from where the state stands; None for the accuracy that a step is worth."""
    grads, factor, preconditioner = state.evaluation.grads, state.factor, state.preconditioner
    if factor is not None:

        def solve(gradient: Params) -> NewtonStep:
            direction = scale_params(-1.0, factor.apply(gradient))
            return NewtonStep(direction, -0.5 * dot(direction, gradient), 0.0, 0)
    else:
        hessian = hessian_products(problem, state.params, state.rows)
        if accuracy is None:
            # 1/2 g' P g is about the decrease that is left, relative to F the accuracy that is worth having
            expected = 0.5 * dot(grads, preconditioner.apply(grads)) / max(state.evaluation.value, 1e-300)
            tightest = _SAMPLED if _is_subsampled(problem, state) else _TIGHTEST
            accuracy = min(_LOOSEST, max(tightest, float(np.sqrt(max(0.0, expected)))))

        def solve(gradient: Params) -> NewtonStep:
            return conjugate_gradients(hessian, gradient, preconditioner, accuracy, MAX_PRODUCTS)

    return lbfgs_correct(state.pairs, grads, solve)


def _rounding_error(problem: Problem, state: NewtonState) -> float:
    return _NOISE * float(np.finfo(problem.data.X.dtype).eps) * abs(state.evaluation.value)


def _accept_step(problem: Problem, state: NewtonState, params: Params, evaluation: Evaluation) -> NewtonState:
    """The state at the end of a step; with more rows to draw, should those drawn have misled it."""
    before, aim = state.evaluation, state.newton
    actual_reduction = before.value - evaluation.value
    pair = Pair(add_scaled(params, -1.0, state.params), add_scaled(evaluation.grads, -1.0, before.grads))
    eps = float(np.finfo(problem.data.X.dtype).eps)
    pairs = state.pairs
    if abs(actual_reduction - aim.decrease) > _PARABOLA * aim.decrease:
        pairs = ()
    elif dot(*pair) > eps * np.sqrt(dot(pair.step, pair.step) * dot(pair.change, pair.change)):
        pairs = (*pairs, pair)[-_N_PAIRS:]
    at_precision = aim.decrease <= _rounding_error(problem, state) and actual_reduction <= 0
    if actual_reduction < _POOR * aim.decrease and _misses_curvature(problem, state, params, evaluation):
        state = state._replace(n_drawn=next_sample_size(problem, state.n_drawn), sample_is_stale=True)
    return state._replace(params=params, evaluation=evaluation, pairs=pairs, at_precision=at_precision)


def _misses_curvature(problem: Problem, state: NewtonState, params: Params, evaluation: Evaluation) -> bool:
    """Whether the rows drawn see much less curvature along the step to ``params`` than all rows do.

    If they see as much, it is F's curvature that changes along the step, and more rows would not help.
    """
    if state.rows is None or not _is_subsampled(problem, state):
        return False
    share = curvature_ratio(problem, state.rows, (state.params, state.evaluation), (params, evaluation))
    return share < (_MIN_CURVATURE_RATIO if problem.data_source is None else _MIN_CURVATURE_RATIO_OUT_OF_CORE)


def _lengthen_step(
    found: tuple[Params, Evaluation], at: Callable[[float], tuple[Params, Evaluation]], aim: NewtonStep, noise: float
) -> tuple[Params, Evaluation]:
    """The step, doubled again and again while F still falls steeply at its end and is less at twice the length."""
    length = 1.0
    while -dot(found[1].grads, aim.direction) > _STEEP * 2 * aim.decrease > noise:
        length *= 2
        longer = at(length)
        if not longer[1].value < found[1].value:
            break
        found = longer
    return found


def _line_search(problem: Problem, state: NewtonState) -> tuple[Params, Evaluation] | None:
    """The longest of the steps 1, 1/2, 1/4, ... that decreases F enough, up to noise; None if none does.

    The first, if it decreases F enough, is lengthened while F falls steeply.
    """
    value, aim, noise = state.evaluation.value, state.newton, _rounding_error(problem, state)

    def at(length: float) -> tuple[Params, Evaluation]:
        new = add_scaled(state.params, length, aim.direction)
        return new, value_and_grad(problem, new)

    is_risky = state.factor is not None and _is_subsampled(problem, state)
    for halvings in range(_FEW_HALVINGS if is_risky else _MAX_HALVINGS):
        length = 0.5**halvings
        found = at(length)
        if found[1].value <= value - _ARMIJO * length * 2 * aim.decrease + noise:
            return _lengthen_step(found, at, aim, noise) if halvings == 0 else found
        if length * aim.decrease <= noise:
            break
    return None
