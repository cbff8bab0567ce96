"""Sub-sampled Newton solver: the gradient of all rows, and the Hessian of a sample of them.

Made by ``plan`` for the last stage of a fit without an L1 penalty. A step of the solver is a round. Steps 1 to 4
repeat, up to ``n_steps`` times, with the Cholesky factor at hand. Steps 5 to 8 renew the curvature.

1. From the second time on, compute the direction. End the repetition if its predicted decrease is small.
2. Search the line along the direction. If no step decreases F, end the repetition. The first time, give up the factor
   if it is that of a sample, which may have misled the step. Otherwise F is at its limit of precision: stop.
3. Accept the step. If it achieved much less than its predicted reduction because the sample misses curvature, mark
   the sample as stale: the next one is larger.
4. If the round began close to the minimum, estimate F - F* by CG that is preconditioned by the factor at hand, the
   first time only, and unless a new factor takes less time. If the estimate ends the fit, return without a new factor.
5. Draw a new sample if it is stale, or if F has decreased much since the last draw.
6. Factorise the Hessian of the sample; or build a better preconditioner for conjugate gradients (CG) once it pays.
7. Solve ``H d = -g`` by the factor or by CG, with g the gradient of F over all rows and H the Hessian of the sample.
   L-BFGS pairs of the previous steps correct what the sample misses. If CG breaks down, drop the preconditioner of 6.
8. Estimate F - F* from round to round. If the estimate may end the fit, check for rows that saturate along the step.

So a step costs one or two passes over the data, plus the solution of the system: Roosta-Khorasani & Mahoney (2019),
Math. Program. 174, 293-326.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from sksoftmax._maths.class_curvature import hessian_time, pass_time
from sksoftmax._maths.curvature import CholeskyPreconditioner, factorize_hessian
from sksoftmax._maths.newton_direction import (
    MAX_INNER_PRODUCTS,
    NewtonStep,
    Pair,
    StepHistory,
    absolute_suboptimality,
    conjugate_gradients,
    estimate_suboptimality,
    lbfgs_correct,
    relative_excess,
)
from sksoftmax._maths.objective import better_start, hessian_products
from sksoftmax._maths.preconditioner import (
    GramPreconditioner,
    Preconditioner,
    PreconditionerCandidate,
    absorb_constant_columns,
)
from sksoftmax._maths.row_sampling import next_sample_size
from sksoftmax._maths.saturation import saturate_step
from sksoftmax._solvers._hessian_sample import (
    draw_sample,
    is_outdated,
    is_subsampled,
    misses_curvature,
    sample_preconditioner,
)
from sksoftmax._solvers._line_search import rounding_error, search_direction
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

#: Largest number of L-BFGS pairs.
_N_PAIRS = 20

#: Largest relative difference between actual and predicted reduction at which the pairs are kept. Beyond it F is not
#: close to quadratic, and older pairs do not describe its curvature here.
_QUADRATIC_RTOL = 0.5

#: Loosest relative accuracy of CG: the first steps need little.
_MAX_CG_RTOL = 0.3

#: Tightest relative accuracy of CG: rounding allows little more.
_MIN_CG_RTOL = 1e-4

#: Tightest relative accuracy of CG with a sample: more would exceed the accuracy of its Hessian.
_MIN_SAMPLED_CG_RTOL = 0.1

#: Relative CG accuracy of the direction that ends the fit. The first iterations hardly see the small eigenvalues.
_FINAL_CG_RTOL = 0.03

#: Relative CG accuracy of a direction that is preconditioned by the Cholesky factor of the last step: what it leaves of
#: the gradient has to be small against the penalty alone.
_STALE_FACTOR_CG_RTOL = 1e-3

#: Products of CG with that preconditioner, and the time in nanoseconds that a product takes beside its multiplications,
#: less a third of that of a factor. (Measured.)
_STALE_PRODUCTS, _PRODUCT_OVERHEAD = 3, 4e4

#: F - F* where F decays exponentially, in units of the predicted reduction.
_EXPONENTIAL_FACTOR = 2.0

#: Ratio of two successive predicted reductions above which F may decay exponentially. For a quadratic it is close to 0.
_MAX_QUADRATIC_RATIO = 0.02

#: Largest number of Hessian products of a step, as in scikit-learn's newton-cg.
MAX_PRODUCTS = 200


class NewtonState(NamedTuple):
    """State of the Newton solver.

    Attributes
    ----------
    params : Params
    evaluation : Evaluation
        F and its gradient at ``params``.
    newton : NewtonStep
        Direction from there.
    excess : float
        Estimate of ``(F - F*) / F*`` there.
    ratio : float
        Ratio of the predicted reduction to the predicted reduction of the last estimate, capped.
    predicted_reduction : float
        Decrease of F that the quadratic model predicted at the last estimate, for the first step of a round.
    value_before : float
        F at the last estimate.
    at_precision : bool
        Whether no step decreases F by more than rounding.
    pairs : tuple of Pair
        L-BFGS pairs of the last steps along which F was close to quadratic.
    n_drawn : int
        Sample size.
    rows : Batch or None
        Sample of the Hessian. None for all rows if memory does not hold them: a product is then a pass.
    sample_is_stale : bool
        Whether a new sample must be drawn.
    value_drawn : float
        F when the sample was drawn.
    leverage : ndarray of shape (n_samples,) or None
        Leverage of the rows in memory, computed with the first sample that is smaller than all rows.
    is_factorized : bool
        Whether to factorise the Hessian of the sample.
    factor : CholeskyPreconditioner or None
        Its Cholesky factor.
    preconditioner : Preconditioner
        Preconditioner of CG.
    products_since_build : tuple of float
        For each candidate, the Hessian products since it was built, or since the start. -inf for candidates that are
        cheaper than the current preconditioner: they are not built again.
    n_rounds : int
        Rounds so far.
    next_check, check_interval : int
        First round in which to check for saturation again, and the rounds between the last two checks.
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
    is_factorized: bool
    factor: CholeskyPreconditioner | None
    preconditioner: Preconditioner
    products_since_build: tuple[float, ...]
    n_rounds: int = 0
    next_check: int = 0
    check_interval: int = 1

    @property
    def path_cache(self) -> PreconditionerCache:
        """Return what a fit with another penalty to the same rows reuses."""
        return PreconditionerCache(self.preconditioner, self.products_since_build)


class PreconditionerCache(NamedTuple):
    """Preconditioner that a fit with another penalty to the same rows reuses.

    Attributes
    ----------
    preconditioner : Preconditioner
    products_since_build : tuple of float
        See `NewtonState`.
    """

    preconditioner: Preconditioner
    products_since_build: tuple[float, ...]


class NewtonSettings(NamedTuple):
    """Settings of the Newton solver: see `newton`; ``final_tol`` is at least ``tol``."""

    base: GramPreconditioner
    moments: Moments
    tol: float
    final_tol: float
    n_drawn: int
    is_factorized: bool
    n_steps: int
    candidates: Sequence[PreconditionerCandidate]
    path_cache: PreconditionerCache | None


def newton(
    base: GramPreconditioner,
    moments: Moments,
    tol: float,
    *,
    final_tol: float = 0.0,
    n_drawn: int,
    is_factorized: bool,
    n_steps: int,
    candidates: Sequence[PreconditionerCandidate],
    path_cache: PreconditionerCache | None = None,
) -> Solver:
    """Return the solver whose step is a round: a new curvature, and the Newton steps that use it.

    Parameters
    ----------
    base : GramPreconditioner
        Bound of the curvature: the first preconditioner of CG.
    moments : Moments
        Moments of the columns.
    tol : float
        Excess at which a round ends.
    final_tol : float
        Excess that the fit has to reach, if that is larger than ``tol``. The check for saturation ignores smaller
        decreases.
    n_drawn : int
        First sample size. It is doubled if the sample misses curvature.
    is_factorized : bool
        Whether to factorise the Hessian of the sample. Given up in favour of CG if a step along its direction fails.
    n_steps : int
        Steps of a round with the same factor.
    candidates : sequence of PreconditionerCandidate
        Preconditioners closer to the curvature of F than ``base``, the cheapest first. A candidate is built once the
        Hessian products since its last build, or since the start, exceed its cost. So the total cost is at most twice
        that of the best choice in hindsight.
    path_cache : PreconditionerCache or None
        Preconditioner to start with. The curvature is similar under a penalty that is not much weaker.
    """
    settings = NewtonSettings(
        base, moments, tol, max(tol, final_tol), n_drawn, is_factorized, n_steps, candidates, path_cache
    )
    return Solver("newton", functools.partial(_init, settings), functools.partial(_step, settings), _evaluate, None)


def _init(settings: NewtonSettings, problem: Problem, params: Params) -> NewtonState:
    """Return the state at ``params``, or at the class priors if F is less there."""
    assert problem.l1_ratio == 0, "F is not smooth"
    params, evaluation = better_start(problem, absorb_constant_columns(settings.base, params))
    no_step = NewtonStep(evaluation.grads, 0.0, 0.0, 0)
    state = NewtonState(
        params=params,
        evaluation=evaluation,
        newton=no_step,
        excess=np.inf,
        ratio=0.0,
        predicted_reduction=0.0,
        value_before=evaluation.value,
        at_precision=False,
        pairs=(),
        n_drawn=min(settings.n_drawn, problem.n_samples),
        rows=problem.data,
        sample_is_stale=True,
        value_drawn=np.inf,
        leverage=None,
        is_factorized=settings.is_factorized,
        factor=None,
        preconditioner=settings.base
        if settings.path_cache is None or isinstance(settings.path_cache.preconditioner, GramPreconditioner)
        else settings.path_cache.preconditioner,
        products_since_build=(0.0,) * len(settings.candidates)
        if settings.path_cache is None
        else settings.path_cache.products_since_build,
    )
    return _refresh_curvature(settings, problem, state)


def _step(settings: NewtonSettings, problem: Problem, state: NewtonState, batch: Batch) -> NewtonState:
    """Take a round: steps 1 to 8 of the module docstring."""
    is_near = state.excess <= np.sqrt(settings.tol)
    state = state._replace(n_rounds=state.n_rounds + 1)
    for i in range(settings.n_steps if state.is_factorized else 1):
        # 1.
        if i > 0:
            state = state._replace(newton=_direction(problem, state))
            if 2 * state.newton.decrease <= settings.tol * state.evaluation.value:
                break
        # 2.
        is_risky = state.factor is not None and is_subsampled(problem, state.rows)
        trial = search_direction(problem, state.params, state.evaluation.value, state.newton, is_risky=is_risky)
        if trial is None:
            if i == 0 and not (state.is_factorized and is_subsampled(problem, state.rows)):
                return state._replace(at_precision=True)
            state = state._replace(is_factorized=i > 0)
            break
        # 3.
        state = _accept_step(problem, state, *trial)
        if state.sample_is_stale:
            break
        # 4.
        if i == 0 and is_near and _prefers_stale_factor(problem, state):  # a new factor would hardly differ
            direction = _direction(problem, state, _STALE_FACTOR_CG_RTOL, is_stale=True)
            renewed = _with_direction(problem, state, direction, same_sample=True)
            if renewed.excess <= settings.tol:
                renewed = _with_saturation_check(settings, problem, state, renewed, same_sample=True)
            if renewed.excess <= settings.tol:
                return renewed
    return _refresh_curvature(settings, problem, state)


def _prefers_stale_factor(problem: Problem, state: NewtonState) -> bool:
    """Return whether CG that is preconditioned by the factor at hand is predicted to be faster than a new factor."""
    if state.factor is None:
        return False
    assert state.rows is not None
    rows = problem._replace(data=state.rows)
    return _STALE_PRODUCTS * (pass_time(rows) + _PRODUCT_OVERHEAD) < hessian_time(rows, rows.n_samples)


def _evaluate(problem: Problem, state: NewtonState) -> Report:
    """Return F and its estimated excess."""
    return Report(state.evaluation.value, state.excess, state.at_precision)


def _refresh_curvature(settings: NewtonSettings, problem: Problem, state: NewtonState) -> NewtonState:
    """Return the state with the curvature at its parameters and the direction: steps 5 to 8."""
    # 5.
    same_sample = not state.sample_is_stale  # a stale sample is replaced
    state = _with_rows(settings, problem, state)
    # 6.
    rows = state.rows
    if rows is None:
        by_sample = sample_preconditioner(problem, state.params, settings.base, _factorize_sample(settings, state))
        state = state._replace(preconditioner=by_sample, factor=None)
    elif state.is_factorized:
        state = state._replace(factor=factorize_hessian(problem, state.params, rows, settings.base), pairs=())
    else:
        state = _with_preconditioner(settings, problem, state._replace(factor=None), rows)
    if not is_subsampled(problem, state.rows):
        state = state._replace(pairs=())
    # 7.
    newton_step = _direction(problem, state)
    is_candidate = state.factor is None and rows is not None and state.preconditioner is not settings.base
    if is_candidate and not np.isfinite(newton_step.cg_remainder):
        state = _without_candidate(settings, state)
        newton_step = _direction(problem, state)
    renewed = _with_direction(problem, state, newton_step, same_sample=same_sample)
    if renewed.excess <= settings.tol and renewed.newton.cg_remainder > _FINAL_CG_RTOL * renewed.newton.decrease:
        renewed = _with_direction(problem, state, _direction(problem, state, _FINAL_CG_RTOL), same_sample=same_sample)
    # 8.
    may_end = renewed.excess <= settings.tol and state.n_rounds > 0  # no fit ends before its first step
    return _with_saturation_check(settings, problem, state, renewed, same_sample=same_sample) if may_end else renewed


def _with_saturation_check(
    settings: NewtonSettings, problem: Problem, state: NewtonState, renewed: NewtonState, *, same_sample: bool
) -> NewtonState:
    """Return the state ``renewed`` with an excess that holds once rows have saturated, and maybe another direction.

    If the check fails, some rounds are taken before the next one: two, and twice as many after each failed check.
    """
    if state.n_rounds < state.next_check:
        return renewed._replace(excess=np.inf)
    renewed = _with_direction(
        problem, state, _saturated_step(settings, problem, renewed), same_sample=same_sample, is_gap=True
    )
    if np.isfinite(renewed.newton.cg_remainder):
        return renewed
    interval = 2 * state.check_interval
    return renewed._replace(check_interval=interval, next_check=state.n_rounds + interval)


def _saturated_step(settings: NewtonSettings, problem: Problem, state: NewtonState) -> NewtonStep:
    """Return the direction, corrected for the saturation of rows."""
    rows, preconditioner, factorize = state.rows, state.preconditioner, None
    if state.factor is not None:
        assert rows is not None
        preconditioner = state.factor

        def factorize(saturated_problem: Problem) -> Preconditioner:
            return factorize_hessian(saturated_problem, state.params, rows, settings.base)

    allowed = absolute_suboptimality(state.evaluation.value, settings.final_tol)
    return saturate_step(
        problem, state.params, state.evaluation, rows, state.newton, preconditioner, allowed, factorize
    )


def _with_preconditioner(settings: NewtonSettings, problem: Problem, state: NewtonState, rows: Batch) -> NewtonState:
    """Return the state with the most expensive candidate that is due, if any."""
    due = [i for i, candidate in enumerate(settings.candidates) if state.products_since_build[i] > candidate.products]
    if not due:
        return state
    preconditioner = settings.candidates[due[-1]].make(problem, state.params, rows, settings.base)
    cheaper = (-np.inf,) * due[-1]
    return state._replace(
        preconditioner=preconditioner,
        products_since_build=(*cheaper, 0.0, *state.products_since_build[due[-1] + 1 :]),
    )


def _factorize_sample(settings: NewtonSettings, state: NewtonState) -> Callable[..., Preconditioner] | None:
    """Return what factorizes the Hessian of the sample, if inner CG cost more in the last round; else None."""
    if settings.is_factorized:
        return factorize_hessian
    n_inner_products = MAX_INNER_PRODUCTS * state.newton.n_products
    due = [one for one in settings.candidates if one.is_factor and one.products < n_inner_products]
    return due[-1].make if due else None


def _without_candidate(settings: NewtonSettings, state: NewtonState) -> NewtonState:
    """Return the state without the current candidate, with which CG broke down: it is indefinite to rounding."""
    counts = state.products_since_build
    i = next(i for i, count in enumerate(counts) if count > -np.inf)
    return state._replace(preconditioner=settings.base, products_since_build=(*counts[:i], -np.inf, *counts[i + 1 :]))


def _with_rows(settings: NewtonSettings, problem: Problem, state: NewtonState) -> NewtonState:
    """Return the state with a sample for the curvature at its parameters."""
    value = state.evaluation.value
    if not state.sample_is_stale and not is_outdated(problem, state.rows, value, state.value_drawn):
        return state
    if problem.data_source is not None and state.n_drawn > problem.n_samples:
        return state._replace(rows=None, sample_is_stale=False, is_factorized=False, pairs=())
    rows, leverage = draw_sample(problem, state.params, settings.moments, state.leverage, state.n_drawn)
    return state._replace(rows=rows, leverage=leverage, sample_is_stale=False, value_drawn=value)


def _with_direction(
    problem: Problem, state: NewtonState, newton_step: NewtonStep, *, same_sample: bool, is_gap: bool = False
) -> NewtonState:
    """Return the state with the direction ``newton_step`` and the excess estimated from it.

    Parameters
    ----------
    same_sample : bool
        Whether the sample is that of the last direction.
    is_gap : bool
        Whether ``newton_step.decrease`` is a duality gap, which needs no factor for exponential decay.
    """
    value = state.evaluation.value
    history = StepHistory(state.predicted_reduction, max(0.0, state.value_before - value), state.ratio, same_sample)
    is_exponential = (
        not is_gap
        and not is_subsampled(problem, state.rows)
        and newton_step.decrease > _MAX_QUADRATIC_RATIO * state.predicted_reduction > 0
    )
    expected = newton_step.decrease * (_EXPONENTIAL_FACTOR if is_exponential else 1.0)
    suboptimality, ratio = estimate_suboptimality(
        history, expected, newton_step.cg_remainder, rounding_error(problem, state.evaluation.value)
    )
    return state._replace(
        newton=newton_step,
        excess=relative_excess(value, suboptimality),
        ratio=ratio,
        predicted_reduction=newton_step.decrease,
        value_before=value,
        products_since_build=tuple(n + newton_step.n_products for n in state.products_since_build),
    )


def _direction(
    problem: Problem, state: NewtonState, accuracy: float | None = None, *, is_stale: bool = False
) -> NewtonStep:
    """Return the Newton direction, corrected by the L-BFGS pairs.

    ``accuracy`` is that of CG; None chooses it by the predicted decrease. ``is_stale``: whether the factor is that of
    earlier parameters, so that it is a preconditioner of CG only.
    """
    grads, factor, pairs = state.evaluation.grads, state.factor, state.pairs
    if factor is not None and not is_stale:

        def solve(gradient: Params) -> NewtonStep:
            direction = scale_params(-1.0, factor.apply(gradient))
            return NewtonStep(direction, -0.5 * dot(direction, gradient), 0.0, 0)
    else:
        hessian = hessian_products(problem, state.params, state.rows)
        preconditioner = state.preconditioner if factor is None else factor
        if accuracy is None:
            # 1/2 g' P g is about F - F*; relative to F, its root is the accuracy that pays
            expected = 0.5 * dot(grads, preconditioner.apply(grads)) / max(state.evaluation.value, 1e-300)
            tightest = _MIN_SAMPLED_CG_RTOL if is_subsampled(problem, state.rows) else _MIN_CG_RTOL
            accuracy = min(_MAX_CG_RTOL, max(tightest, float(np.sqrt(max(0.0, expected)))))

        def solve(gradient: Params) -> NewtonStep:
            return conjugate_gradients(hessian, gradient, preconditioner, accuracy, MAX_PRODUCTS)

    # of the Hessian of all rows, CG leaves nothing to correct
    return solve(grads) if is_stale and not is_subsampled(problem, state.rows) else lbfgs_correct(pairs, grads, solve)


def _accept_step(problem: Problem, state: NewtonState, params: Params, evaluation: Evaluation) -> NewtonState:
    """Return the state at the end of a step; its sample is stale if it misled the step."""
    start, predicted = state.evaluation, state.newton
    actual_reduction = start.value - evaluation.value
    pair = Pair(add_scaled(params, -1.0, state.params), add_scaled(evaluation.grads, -1.0, start.grads))
    eps = float(np.finfo(problem.data.X.dtype).eps)
    pairs = state.pairs
    if abs(actual_reduction - predicted.decrease) > _QUADRATIC_RTOL * predicted.decrease:
        pairs = ()
    elif dot(*pair) > eps * np.sqrt(dot(pair.step, pair.step) * dot(pair.change, pair.change)):
        pairs = (*pairs, pair)[-_N_PAIRS:]
    at_precision = predicted.decrease <= rounding_error(problem, state.evaluation.value) and actual_reduction <= 0
    ends = (state.params, start), (params, evaluation)
    if misses_curvature(problem, state.rows, *ends, predicted.decrease, may_exceed_memory=True):
        state = state._replace(n_drawn=next_sample_size(problem, state.n_drawn), sample_is_stale=True)
    return state._replace(params=params, evaluation=evaluation, pairs=pairs, at_precision=at_precision)
