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
from sksoftmax._types import Array, Moments, Problem

#: Rows of an "auto" batch, at least, and batches of an epoch, at least and about.
_LEAST_ROWS, _LEAST_BATCHES, _N_BATCHES = 16, 8, 64

#: Change of a raw prediction by a step of the "auto" rate.
_MAX_CHANGE = 2.0


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
    auto_size = MIN_BATCH if is_stream else _auto_batch_size(problem, settings.solver)
    batch_size = min(settings.batch_size or auto_size, problem.n_samples)
    update_rule, init_memory, auto_rate = {
        "sgd": (sgd_rule(settings.momentum, settings.nesterov), init_velocity, _gradient_rate),
        "adagrad": (adagrad_rule(settings.epsilon), init_squares, _column_rate),
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


def _auto_batch_size(problem: Problem, solver: str) -> int:
    """Return the rows of a batch: about 1/64 of the rows; for "sgd" not fewer than columns.

    The rate of "sgd" falls with the size of a batch that has fewer rows than columns. The batch has 16 to 256 rows, and
    at most an eighth of all: few updates do not reach the minimum. Fewer than 8 batches of 16 rows are one batch, whose
    gradient does not depend on the order of the rows.
    """
    most = min(MIN_BATCH, problem.n_total_samples // _LEAST_BATCHES)
    if most < _LEAST_ROWS:
        return problem.n_total_samples
    least = problem.n_features if solver == "sgd" else 1
    return min(max(least, problem.n_total_samples // _N_BATCHES, _LEAST_ROWS), most)


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
    """Return the rate for which a step of this length in every parameter changes a raw prediction by at most 2.

    This holds on average over the rows. The change is ``||x||_1`` (plus 1 for the intercept), on average at most the
    sum of the root mean squares of the columns (Jensen).
    """
    return _MAX_CHANGE / (float(_sizes(problem, moments).sum()) + np.finfo(float).tiny)


def _column_rate(problem: Problem, moments: Moments, batch_size: int) -> float:
    """Return the rate for which a step of this length in one parameter changes a raw prediction by 2, on average.

    The average is over the columns. AdaGrad's regret is least for a rate about the size of the coefficients: Duchi,
    Hazan & Singer (2011), corollary 6.
    """
    return _MAX_CHANGE / (float(_sizes(problem, moments).mean()) + np.finfo(float).tiny)


def _sizes(problem: Problem, moments: Moments) -> Array:
    """Return the root mean square of each column, and 1 for the intercept if there is one."""
    spread = np.diagonal(moments.second_moment) if moments.second_moment.ndim == 2 else moments.second_moment
    rms = np.hypot(moments.max_deviation * np.sqrt(np.maximum(spread, 0)), moments.mean)
    return np.append(rms, np.ones(int(problem.fit_intercept)))
