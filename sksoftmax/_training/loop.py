"""Run the one training loop: epochs of batches, an evaluation of F, and a decision.

`fit` calls `train` with a plan of solvers. `stream` calls `one_pass`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from sksoftmax._data.batches import epoch_batches
from sksoftmax._maths.curvature import robust_decrease
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

#: Factor on the rate of a solver that diverged and restarts from its last good parameters.
_SHRINK = 0.1

#: Relative accuracy of the expected decrease of F, from which the excess is computed.
_CERTIFICATE_ACCURACY = 0.1


class StoppingCriteria(NamedTuple):
    """When to stop.

    Attributes
    ----------
    max_iter : int
        Maximum number of epochs.
    tol : float
        Relative excess of F over its minimum.
    score : callable or None
        Maps parameters to a validation score for early stopping; higher is better.
    n_iter_no_change : int
        Number of epochs without a better score before early stopping.
    """

    max_iter: int
    tol: float
    score: Callable[[Params], float] | None
    n_iter_no_change: int


class Result(NamedTuple):
    """The result of a fit.

    Attributes
    ----------
    params : Params
    loss_curve : list of float
        F for each epoch, or its mean over the epoch. The last value is F at the parameters after the last epoch, unless
        the plan allows an estimate.
    excess_curve : list of float
        Estimate of ``(F - F*) / F*`` after each epoch.
    validation_scores : list of float
        Validation score after each epoch; empty without early stopping.
    stop_reason : StopReason
    excess : float
        Estimate of ``(F - F*) / F*`` at ``params``.
    solver : str
        Names of the solvers that ran, joined by "+".
    path_cache : object
        State that a fit of the same rows with another penalty can reuse, or None.
    """

    params: Params
    loss_curve: list[float]
    excess_curve: list[float]
    validation_scores: list[float]
    stop_reason: StopReason
    excess: float
    solver: str
    path_cache: Any = None


class Epoch(NamedTuple):
    """The report of an epoch to a monitor.

    Attributes
    ----------
    number : int
        From 1.
    value : float
        F, or its mean over the epoch.
    excess : float
        Estimate of ``(F - F*) / F*``; inf if unknown.
    score : float or None
        Validation score, if there is one.
    snapshot : callable
        ``() -> Result``: the result if the fit ended here. It may evaluate F; call it before the next epoch.
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
    """Callbacks of the loop.

    Attributes
    ----------
    on_epoch_begin : callable
        ``() -> None``, called before each epoch.
    on_epoch_end : callable
        ``Epoch -> bool``, called after each epoch; True ends the fit.
    is_idle : bool, default=False
        Whether they do nothing. Several epochs may then be one call.
    """

    on_epoch_begin: Callable[[], None]
    on_epoch_end: Callable[[Epoch], bool]
    is_idle: bool = False


class _Fit:
    """The variables of a running fit.

    Attributes
    ----------
    state : object
        State of the current solver; None before the first stage.
    params : Params
        Parameters from which a diverged solver restarts, and from which the first stage starts.
    best_params : Params
        Parameters of the best validation score.
    start_value, limit : float
        F at the start; and the value of F above which a solver has diverged.
    progress : Progress
    excess : float
    values, are_exact, excesses, scores : list
        One entry for each epoch: F or its mean over the epoch, whether it is F, the excess, the validation score.
    solver_names : list of str
        Solvers that ran.
    """

    def __init__(self, problem: Problem, params: Params, plan: Plan) -> None:
        self.problem = problem
        self.state: Any = None
        self.params = self.best_params = params
        self.start_value = prior_objective(problem)
        if params.coef.any() and plan.stages[0].solver.batch_size is not None:  # other solvers do not overshoot
            self.start_value = value_and_grad(problem, params).value
        self.limit = 2.0 * max(self.start_value, prior_objective(problem))
        self.progress = Progress(value=self.start_value)
        self.excess = np.inf
        self.values: list[float] = []
        self.are_exact: list[bool] = []
        self.excesses: list[float] = []
        self.scores: list[float] = []
        self.solver_names: list[str] = []

    def start_stage(self, solver: Solver) -> None:
        """Initialize a solver at the current parameters, or at the start of the last stage if that diverged."""
        if self.state is not None and not _stopping.is_diverged(self.progress.value, self.start_value):
            self.params = center_state_params(self.problem, self.state)
        self.state = solver.init(self.problem, self.params)
        if self.solver_names[-1:] != [solver.name]:
            self.solver_names.append(solver.name)

    def record(self, report: Report, score: float | None) -> None:
        """Append the values of an epoch."""
        self.excess = float(report.excess)
        self.progress = _stopping.record_epoch(self.progress, report.value, score)
        self.values.append(float(report.value))
        self.are_exact.append(report.is_exact)
        self.excesses.append(self.excess)
        if score is not None:
            self.scores.append(score)
            self.best_params = self.params if self.progress.best_epoch == self.progress.epoch else self.best_params

    def evaluate_last(self) -> None:
        """Replace the last value by F, if it is a mean over the epoch."""
        if not self.are_exact[-1]:
            params = center_state_params(self.problem, self.state)
            self.values[-1], self.are_exact[-1] = float(value_and_grad(self.problem, params).value), True

    def snapshot(self) -> Result:
        """Return the result if a callback ended the fit after the last epoch."""
        self.evaluate_last()
        curves = list(self.values), list(self.excesses), list(self.scores)
        return Result(self.state.params, *curves, StopReason.CALLBACK, self.excess, "+".join(self.solver_names))


def train(
    problem: Problem,
    params: Params,
    plan: Plan,
    criteria: StoppingCriteria,
    *,
    shuffle: bool,
    rng: np.random.RandomState,
    monitor: Monitor,
) -> Result:
    """Minimize F.

    1. Initialize the solver of a new stage.
    2. Make one pass over the batches.
    3. Evaluate F; restart the solver if it diverged.
    4. Check the excess, if the solver has no estimate of it and progress is slow.
    5. Record F, the excess and the validation score.
    6. Decide whether to stop, or to continue with the next stage.
    7. Call the monitor, which may end the fit.

    Parameters
    ----------
    problem : Problem
    params : Params
        Start.
    plan : Plan
        Solvers, in their order.
    criteria : StoppingCriteria
    shuffle : bool
        Whether the batches are drawn in random order.
    rng : RandomState
        For the batches.
    monitor : Monitor
        Called before and after each epoch.
    """
    fit = _Fit(problem, params, plan)
    reason: StopReason | None = None
    stages, n_epochs = plan.stages, 0
    with np.errstate(over="ignore", invalid="ignore", divide="ignore", under="ignore"):
        while fit.progress.epoch < criteria.max_iter:
            monitor.on_epoch_begin()
            # 1.
            if n_epochs == 0:
                fit.start_stage(stages[0].solver)
                if getattr(fit.state, "is_over", False):  # it has no step to take
                    stages = stages[1:]
                    fit.start_stage(stages[0].solver)
            stage, is_last = stages[0], len(stages) == 1
            # 2.
            fit.state = one_pass(problem, stage.solver, fit.state, shuffle, rng)
            # 3.
            fit.state, report = _evaluate(problem, stage.solver, fit.state, fit.params, fit.limit)
            # 4.
            if is_last and stage.solver.evaluate is None:
                fit.progress, report = _certify(problem, plan, fit.state, report, fit.progress)
            # 5.
            if stage.solver.evaluate is None or criteria.score is not None:  # otherwise they are not needed
                fit.params = fit.state.params
            score = None if criteria.score is None else criteria.score(fit.params)
            for value in getattr(fit.state, "earlier_values", ()):  # of epochs that were one call
                fit.record(Report(value, np.inf, False), None)
            fit.record(report, score)
            # 6.
            reason = _decide(fit, criteria, report, plan.tol)
            n_epochs += 1
            if not is_last and (reason is StopReason.PRECISION or (reason is None and n_epochs == stage.n_epochs)):
                stages, n_epochs, reason = stages[1:], 0, None
            # 7.
            if (reason is not None or fit.progress.epoch == criteria.max_iter) and not plan.allow_estimate:
                fit.evaluate_last()
            epoch = Epoch(fit.progress.epoch, fit.values[-1], fit.excess, score, fit.snapshot, fit.are_exact[-1])
            if monitor.on_epoch_end(epoch):
                fit.evaluate_last()
                reason = reason or StopReason.CALLBACK
            if reason is not None:
                break
        return _to_result(fit, plan, criteria, reason)


def _to_result(fit: _Fit, plan: Plan, criteria: StoppingCriteria, reason: StopReason | None) -> Result:
    """Return the result after the last epoch; ``reason`` is None if all epochs are over.

    If the epochs are over or no step changes F, an excess that is within the tolerance or unknown is computed anew.
    """
    tol = max(criteria.tol, float(np.finfo(fit.problem.data.X.dtype).eps))
    params, excess = fit.state.params, fit.excess
    is_undecided = reason in (None, StopReason.PRECISION)
    if reason is StopReason.EARLY_STOPPING:
        params, excess = fit.best_params, np.inf
    elif is_undecided and plan.preconditioner is not None and (excess <= criteria.tol or not np.isfinite(excess)):
        excess = fit.excesses[-1] = float(_excess(fit.problem, params, plan.preconditioner, tol))
    if is_undecided:
        reason = StopReason.TOL if excess <= tol else reason or StopReason.MAX_ITER
    assert reason is not None
    values = raise_estimates(fit.values, fit.are_exact, excess, is_minimum=reason is StopReason.TOL)
    solver, path_cache = "+".join(fit.solver_names), getattr(fit.state, "path_cache", None)
    return Result(params, values, fit.excesses, fit.scores, reason, excess, solver, path_cache)


def raise_estimates(values: list[float], are_exact: list[bool], excess: float, *, is_minimum: bool) -> list[float]:
    """Return the values of F, with estimates below any possible value raised to the lowest possible value.

    This is the last value, F at the end, if the fit ended at the minimum. Otherwise it is the lower bound of the
    minimum from the last value and its excess, which is 0 if the excess is inf.
    """
    lowest = values[-1] if is_minimum else values[-1] / (1 + excess)
    return [value if is_exact else max(value, lowest) for value, is_exact in zip(values, are_exact, strict=True)]


def _decide(fit: _Fit, criteria: StoppingCriteria, report: Report, tol: float) -> StopReason | None:
    """Return the reason to stop after an epoch, or None to go on; set the excess to inf if F has no minimum."""
    if is_separable(fit.problem, report.value) and is_separable(
        fit.problem, value_and_grad(fit.problem, fit.state.params).value
    ):
        fit.excess = fit.excesses[-1] = np.inf
        return StopReason.SEPARABLE
    if criteria.score is not None and _stopping.has_stopped_improving(fit.progress, criteria.n_iter_no_change):
        return StopReason.EARLY_STOPPING
    if report.excess <= tol:
        return StopReason.TOL
    return StopReason.PRECISION if report.at_precision else None


def is_separable(problem: Problem, value: float) -> bool:
    """Return whether F has no penalty, and is so small that every row must be predicted right.

    F then has no minimum: multiples of such coefficients take F to 0 (Albert & Anderson 1984, Biometrika 71(1), 1-10).
    A row that is not predicted right has a loss of at least log 2. For out-of-core data, the smallest weight is that of
    the rows in memory.
    """
    if problem.alpha or not has_hard_labels(problem):
        return False
    return value * total_weight(problem) < np.log(2) * float(problem.data.weight.min())


def center_state_params(problem: Problem, state: Any) -> Params:
    """Return the parameters of the state, centered over the classes as in a result; F is not higher there."""
    return center_params(state.params, has_l1=problem.l1_ratio > 0)


def one_pass(problem: Problem, solver: Solver, state: Any, shuffle: bool, rng: np.random.RandomState) -> Any:
    """Return the state after a step on each batch."""
    if problem.data_source is None or solver.batch_size is None:
        batches = epoch_batches(problem.data, solver.batch_size, rng, shuffle=shuffle)
    else:
        batches = problem.data_source.batches(solver.batch_size, rng, shuffle=shuffle)
    for batch in batches:
        state = solver.step(problem, state, batch)
    return state


def _evaluate(problem: Problem, solver: Solver, state: Any, last_good: Params, limit: float) -> tuple[Any, Report]:
    """Return the state and F at its parameters; a diverged state restarts from ``last_good`` at a smaller rate."""
    if solver.batch_size is not None and not is_finite(state.params):  # solvers without batches do not overshoot
        report = Report(np.nan, np.inf, False)
    elif solver.evaluate is not None:
        report = solver.evaluate(problem, state)
    else:
        report = Report(value_and_grad(problem, center_state_params(problem, state)).value, np.inf, False)
    if solver.batch_size is not None and _stopping.is_diverged(report.value, limit):
        state = solver.init(problem, last_good)._replace(rate=state.rate * _SHRINK)
        report = report._replace(value=value_and_grad(problem, last_good).value, is_exact=True)
    return state, report


def _certify(problem: Problem, plan: Plan, state: Any, report: Report, progress: Progress) -> tuple[Progress, Report]:
    """Return the report with the excess, if progress is so slow that F may be within the tolerance of its minimum.

    If the excess is above the tolerance, the report stays as it is and the next check is postponed.
    """
    if plan.preconditioner is None or not _stopping.is_slow(progress, report.value, plan.tol):
        return progress, report
    excess = _excess(problem, state.params, plan.preconditioner, plan.tol)
    if excess <= plan.tol:
        return progress, report._replace(excess=excess)
    return _stopping.postpone_check(progress), report


def _excess(problem: Problem, params: Params, preconditioner: GramPreconditioner, tol: float) -> float:
    """Return an estimate of the relative excess of F, from the decrease that a Newton step predicts."""
    evaluation = value_and_grad(problem, params)
    allowed = absolute_suboptimality(evaluation.value, tol)
    if problem.l1_ratio:
        decrease = expected_decrease(problem, preconditioner, params, evaluation, _CERTIFICATE_ACCURACY, allowed)
        return relative_excess(evaluation.value, decrease)
    noise = 0.5 * float(np.finfo(problem.data.X.dtype).eps) * evaluation.value
    rows = normalize_weights(problem.data)
    if problem.alpha and robust_decrease(problem, params, rows, evaluation.grads) <= noise:  # the gradient is rounding
        return relative_excess(evaluation.value, noise)
    newton = newton_step(problem, params, evaluation, preconditioner, allowed, _CERTIFICATE_ACCURACY, MAX_PRODUCTS)
    return relative_excess(evaluation.value, newton.decrease + newton.cg_remainder)
