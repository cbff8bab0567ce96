"""Plan a solver that the user named ("sgd", "adagrad", "adam"), and compute its "auto" learning rate.

`plan` calls `plan_by_name` for fits and for streams.
"""

from __future__ import annotations

import numpy as np

from sksoftmax._maths.preconditioner import curvature_bound, gram_preconditioner
from sksoftmax._solvers import schedules
from sksoftmax._solvers._first_order import first_order
from sksoftmax._solvers.adagrad import adagrad_rule, init_squares
from sksoftmax._solvers.adam import adam_rule, init_means
from sksoftmax._solvers.sgd import init_velocity, sgd_rule
from sksoftmax._training.settings import MIN_BATCH, Plan, Settings, Stage
from sksoftmax._training.tolerance import stop_tol
from sksoftmax._types import Moments, Problem


def plan_by_name(problem: Problem, settings: Settings, moments: Moments | None, *, is_stream: bool) -> Plan:
    """Return the plan of a named solver.

    Parameters
    ----------
    problem : Problem
    settings : Settings
    moments : Moments or None
        Required if ``settings.learning_rate`` is None. Without them a fit has no check of the excess.
    is_stream : bool
        Whether the solver runs for one pass, with no known end.
    """
    batch_size = min(settings.batch_size or MIN_BATCH, problem.n_samples)
    update_rule, init_memory, auto_rate = {
        "sgd": (sgd_rule(settings.momentum, settings.nesterov), init_velocity, _gradient_rate),
        "adagrad": (adagrad_rule(settings.epsilon), init_squares, _coordinate_rate),
        "adam": (adam_rule(settings.beta_1, settings.beta_2, settings.epsilon), init_means, _coordinate_rate),
    }[settings.solver]
    rate = settings.learning_rate
    if rate is None:
        assert moments is not None
        rate = float(auto_rate(problem, moments, batch_size))  # a NumPy float would print its type
    n_batches = -(-problem.n_total_samples // batch_size)
    solver = first_order(
        settings.solver,
        update_rule,
        init_memory,
        rate,
        schedules.schedule(settings.schedule, settings.power_t),
        batch_size,
        None if is_stream else settings.max_iter * n_batches,
        average=settings.average and settings.solver == "sgd",
    )
    info: dict[str, object] = {"batch_size": batch_size, "learning_rate": rate, "metric": "none"}
    stages = [Stage(solver, 1 if is_stream else None)]
    preconditioner = None if is_stream or moments is None else gram_preconditioner(problem, moments)
    return Plan(stages, preconditioner, stop_tol(problem, settings), info)


def _gradient_rate(problem: Problem, moments: Moments, batch_size: int) -> float:
    """Return 1 / L for batches of b rows, L = ``bound * (lambda_max(X'X / n) + (1/b - 1/n) mean ||x||^2) + alpha``.

    L bounds the mean curvature of a batch drawn without replacement: the intrinsic-dimension bound of Tropp (2015),
    arXiv:1501.01571, 7.3. If the moments have only the diagonal of X'X, its trace replaces lambda_max, which is at most
    the trace.
    """
    has_intercept = float(problem.fit_intercept)
    unit = max(float(np.max(moments.max_deviation)), float(np.max(np.abs(moments.mean))), has_intercept) or 1.0
    max_deviation, mean = moments.max_deviation / unit, np.append(moments.mean / unit, has_intercept / unit)
    second_moment = moments.second_moment
    spread = np.diagonal(second_moment) if second_moment.ndim == 2 else second_moment
    trace = float(max_deviation**2 @ spread + mean @ mean)
    largest = trace
    if second_moment.ndim == 2:
        matrix = np.outer(mean, mean)
        matrix[:-1, :-1] += second_moment * np.outer(max_deviation, max_deviation)
        largest = float(np.linalg.eigvalsh(matrix)[-1])
    batch_spread = trace * (1.0 / batch_size - 1.0 / problem.n_total_samples)
    curvature = curvature_bound(problem) * (largest + batch_spread)
    return 1.0 / (curvature * unit * unit + problem.alpha)


def _coordinate_rate(problem: Problem, moments: Moments, batch_size: int) -> float:
    """Return the rate for which a step of this length in every parameter changes a raw prediction by at most 1.

    This holds on average over the rows. The change is ``||x||_1`` (plus 1 for the intercept), on average at most the
    sum of the root mean squares of the columns (Jensen).
    """
    spread = np.diagonal(moments.second_moment) if moments.second_moment.ndim == 2 else moments.second_moment
    rms = np.hypot(moments.max_deviation * np.sqrt(np.maximum(spread, 0)), moments.mean)
    return 1.0 / (float(rms.sum()) + float(problem.fit_intercept) + np.finfo(float).tiny)
