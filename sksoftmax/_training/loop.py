"""The one training loop: epochs of batches, an evaluation, a decision."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from sksoftmax._data.batches import epoch_batches
from sksoftmax._maths.curvature import shared_decrease
from sksoftmax._maths.newton_direction import absolute_suboptimality, relative_excess
from sksoftmax._maths.objective import center_params, has_hard_labels, prior_objective, total_weight, value_and_grad
from sksoftmax._maths.preconditioner import GramPreconditioner
from sksoftmax._maths.proximal import expected_decrease
from sksoftmax._maths.saturation import newton_step
from sksoftmax._solvers.newton import MAX_PRODUCTS
from sksoftmax._training import stopping as _stopping
from sksoftmax._training.settings import Plan
from sksoftmax._training.stopping import Progress, StopReason
from sksoftmax._types import Params, Problem, Report, Solver, is_finite, normalize_weights

#: A diverged solver starts again, from its last good state, with this share of its rate.
_SHRINK = 0.1

#: Relative accuracy of the expected decrease that the certificate rests on.
_CERTIFICATE_ACCURACY = 0.1


class Rules(NamedTuple):
    """When to stop.

    Attributes
    ----------
    max_iter : int
        Epochs.
    tol : float
        Relative excess of F over its minimum.
    score : callable or None
        Validation score of parameters, higher is better, for early stopping.
    n_iter_no_change : int
        Epochs without a better score before early stopping.
    """

    max_iter: int
    tol: float
    score: Callable[[Params], float] | None
    n_iter_no_change: int


class Result(NamedTuple):
    """What a fit hands over; of the curves a number an epoch.

    The last number of ``loss_curve`` is F, at the parameters after the last epoch, unless the plan is rough.
    """

    params: Params
    loss_curve: list[float]
    excess_curve: list[float]
    validation_scores: list[float]
    stop_reason: StopReason
    excess: float
    solver: str
    path_cache: Any = None  # what a fit of another penalty to these rows may go on from


class Epoch(NamedTuple):
    """What is told of an epoch.

    Attributes
    ----------
    number : int
        From 1.
    value : float
        F, or its mean over the epoch.
    excess : float
        Estimate of ``(F - F*) / F*``; inf if it is not known.
    score : float or None
        Validation score, if there is one.
    snapshot : callable
        ``() -> Result``: what the fit would hand over if it ended here. Not cheap; to be called before the next epoch.
    is_exact : bool, default=True
        Whether ``value`` is F.
    """

    number: int
    value: float
    excess: float
    score: float | None
    snapshot: Callable[[], Result]
    is_exact: bool = True


class Monitor(NamedTuple):
    """Who is told of the epochs.

    Attributes
    ----------
    on_epoch_begin : callable
        ``() -> None``, before each.
    on_epoch_end : callable
        ``Epoch -> bool``, after it: whether the fit is to end here.
    """

    on_epoch_begin: Callable[[], None]
    on_epoch_end: Callable[[Epoch], bool]


def train(
    problem: Problem,
    params: Params,
    plan: Plan,
    rules: Rules,
    *,
    shuffle: bool,
    rng: np.random.RandomState,
    monitor: Monitor,
) -> Result:
    """Minimise F.

    Parameters
    ----------
    problem, params : Problem, Params
        What, and from where.
    plan : Plan
        Which solvers, in which order.
    rules : Rules
    shuffle, rng
        For the batches.
    monitor : Watch
        Told of each epoch.
    """
    eps = float(np.finfo(problem.data.X.dtype).eps)
    start = prior_objective(problem)
    if params.coef.any() and plan.stages[0].solver.batch_size is not None:  # others do not overshoot
        start = value_and_grad(problem, params).value
    limit = 2.0 * max(start, prior_objective(problem))
    progress = Progress(value=start)
    curve: list[float] = []
    are_exact: list[bool] = []
    excesses: list[float] = []
    scores: list[float] = []
    best = params
    reason: StopReason | None = None
    state: Any = None
    ran: list[str] = []
    excess = np.inf

    def evaluate_last() -> None:
        if not are_exact[-1]:
            curve[-1], are_exact[-1] = float(value_and_grad(problem, center_state_params(problem, state)).value), True

    def snapshot() -> Result:
        evaluate_last()
        curves = list(curve), list(excesses), list(scores)
        return Result(state.params, *curves, StopReason.CALLBACK, excess, "+".join(ran))

    with np.errstate(over="ignore", invalid="ignore", divide="ignore", under="ignore"):
        stages, n_epochs = plan.stages, 0
        for _ in range(rules.max_iter):
            stage, is_last = stages[0], len(stages) == 1
            monitor.on_epoch_begin()
            if n_epochs == 0:
                if state is not None and not _stopping.is_diverged(progress.value, start):  # else from where it began
                    params = center_state_params(problem, state)
                state = stage.solver.init(problem, params)
                ran.append(stage.solver.name)
            state = one_pass(problem, stage.solver, state, shuffle, rng)
            state, report = _evaluate(problem, stage.solver, state, params, limit)
            if is_last and stage.solver.evaluate is None:
                progress, report = _certify(problem, plan.preconditioner, state, report, progress, plan.tol)
            excess = float(report.excess)
            if stage.solver.evaluate is None or rules.score is not None:  # else not before they are needed
                params = state.params
            score = None if rules.score is None else rules.score(params)
            progress = _stopping.record_epoch(progress, report.value, score)
            curve.append(float(report.value))
            are_exact.append(report.is_exact)
            excesses.append(excess)
            if score is not None:
                scores.append(score)
                best = params if progress.best_epoch == progress.epoch else best
            reason = _decide(progress, rules, report, plan.tol)
            if is_separable(problem, report.value) and is_separable(
                problem, value_and_grad(problem, state.params).value
            ):
                reason, excess = StopReason.SEPARABLE, np.inf
                excesses[-1] = excess
            n_epochs += 1
            if not is_last and (reason is StopReason.PRECISION or (reason is None and n_epochs == stage.n_epochs)):
                stages, n_epochs, reason = stages[1:], 0, None
            if (reason is not None or progress.epoch == rules.max_iter) and not plan.allow_estimate:
                evaluate_last()
            if monitor.on_epoch_end(Epoch(progress.epoch, curve[-1], excess, score, snapshot, are_exact[-1])):
                evaluate_last()
                reason = reason or StopReason.CALLBACK
            if reason is not None:
                break
        params = state.params
        if reason is StopReason.EARLY_STOPPING:
            params, excess = best, np.inf
        elif (
            reason in (None, StopReason.PRECISION)
            and plan.preconditioner is not None
            and (excess <= rules.tol or not np.isfinite(excess))
        ):  # an estimate that has ended no fit yet, or none
            excess = excesses[-1] = float(_excess(problem, params, plan.preconditioner, max(rules.tol, eps)))
    if reason in (None, StopReason.PRECISION):
        reason = StopReason.TOL if excess <= max(rules.tol, eps) else reason or StopReason.MAX_ITER
    curve = raise_estimates(curve, are_exact, excess, is_minimum=reason is StopReason.TOL)
    return Result(params, curve, excesses, scores, reason, excess, "+".join(ran), getattr(state, "path_cache", None))


def raise_estimates(values: list[float], are_exact: list[bool], excess: float, *, is_minimum: bool) -> list[float]:
    """Return the values of F, with estimates that are too low to be true raised to the lowest value that may be.

    That is the last value, F at the end, if the fit ended at the minimum. Otherwise it is the bound of the minimum
    that the last value and its excess give, which is 0 if the excess is inf.
    """
    lowest = values[-1] if is_minimum else values[-1] / (1 + excess)
    return [value if is_exact else max(value, lowest) for value, is_exact in zip(values, are_exact, strict=True)]


def _decide(progress: Progress, rules: Rules, report: Report, tol: float) -> StopReason | None:
    """Why to stop now; None to go on."""
    if rules.score is not None and _stopping.has_stopped_improving(progress, rules.n_iter_no_change):
        return StopReason.EARLY_STOPPING
    if report.excess <= tol:
        return StopReason.TOL
    return StopReason.PRECISION if report.at_precision else None


def is_separable(problem: Problem, value: float) -> bool:
    """Whether F, without a penalty, is so small that every row must be predicted right, and F has no minimum.

    Multiples of such coefficients take F to 0: Albert & Anderson (1984), Biometrika 71(1), 1-10. A row that is not
    predicted right loses log 2 or more. Where memory does not hold all rows, the least weight is that of the sample.
    """
    if problem.alpha or not has_hard_labels(problem):
        return False
    return value * total_weight(problem) < np.log(2) * float(problem.data.weight.min())


def center_state_params(problem: Problem, state: Any) -> Params:
    """Return the state's parameters as a fit hands them over; their F is not higher."""
    return center_params(state.params, has_l1=problem.l1_ratio > 0)


def one_pass(problem: Problem, solver: Solver, state: Any, shuffle: bool, rng: np.random.RandomState) -> Any:
    """The state after a step on each batch."""
    if problem.data_source is None or solver.batch_size is None:
        batches = epoch_batches(problem.data, solver.batch_size, rng, shuffle=shuffle)
    else:
        batches = problem.data_source.batches(solver.batch_size, rng, shuffle=shuffle)
    for batch in batches:
        state = solver.step(problem, state, batch)
    return state


def _evaluate(problem: Problem, solver: Solver, state: Any, last_good: Params, limit: float) -> tuple[Any, Report]:
    """F at the state's parameters; a diverged state is replaced by the last good one, at a smaller rate."""
    if solver.batch_size is not None and not is_finite(state.params):  # no other overshoots
        report = Report(np.nan, np.inf, False)
    elif solver.evaluate is not None:
        report = solver.evaluate(problem, state)
    else:
        report = Report(value_and_grad(problem, center_state_params(problem, state)).value, np.inf, False)
    if solver.batch_size is not None and _stopping.is_diverged(report.value, limit):
        state = solver.init(problem, last_good)._replace(rate=state.rate * _SHRINK)
        report = report._replace(value=value_and_grad(problem, last_good).value, is_exact=True)
    return state, report


def _certify(
    problem: Problem,
    preconditioner: GramPreconditioner | None,
    state: Any,
    report: Report,
    progress: Progress,
    tol: float,
) -> tuple[Progress, Report]:
    """The report with the excess, where the progress has become so slow that F may be near its minimum."""
    if preconditioner is None or not _stopping.is_slow(progress, report.value, tol):
        return progress, report
    excess = _excess(problem, state.params, preconditioner, tol)
    if excess <= tol:
        return progress, report._replace(excess=excess)
    return _stopping.postpone_check(progress), report


def _excess(problem: Problem, params: Params, preconditioner: GramPreconditioner, tol: float) -> float:
    """Estimate of the relative excess of F."""
    evaluation = value_and_grad(problem, params)
    allowed = absolute_suboptimality(evaluation.value, tol)
    if problem.l1_ratio:
        left = expected_decrease(problem, preconditioner, params, evaluation, _CERTIFICATE_ACCURACY, allowed)
        return relative_excess(evaluation.value, left)
    noise = 0.5 * float(np.finfo(problem.data.X.dtype).eps) * evaluation.value
    rows = normalize_weights(problem.data)
    if problem.alpha and shared_decrease(problem, params, rows, evaluation.grads) <= noise:  # it has no direction
        return relative_excess(evaluation.value, noise)
    newton = newton_step(problem, params, evaluation, preconditioner, allowed, _CERTIFICATE_ACCURACY, MAX_PRODUCTS)
    return relative_excess(evaluation.value, newton.decrease + newton.cg_remainder)
