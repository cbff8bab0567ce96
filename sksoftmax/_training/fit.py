"""From a problem to its minimum: the choice, and the training; of a sample first, if memory does not hold all rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp

from sksoftmax._data.chunks import center_chunks, split_rows, sum_loss_grad
from sksoftmax._engines.device import DeviceArray, squares
from sksoftmax._maths.newton_direction import absolute_suboptimality, relative_excess
from sksoftmax._maths.objective import (
    center_params,
    compute_column_offset,
    in_c_order,
    iter_blocks,
    penalty,
    prior_objective,
    prior_params,
    shift_intercept,
    total_weight,
    value_and_grad,
)
from sksoftmax._maths.reduction import classes_with_rows, reduce_columns, restrict_classes
from sksoftmax._solvers._dual_data import is_mostly_zeros
from sksoftmax._training.loop import Epoch, Monitor, Result, Rules, train
from sksoftmax._training.plan import make_plan, plan_moments, use_dual
from sksoftmax._training.precision import center_or_widen
from sksoftmax._training.settings import Settings
from sksoftmax._training.stopping import StopReason
from sksoftmax._types import Array, Moments, Params, Problem, is_finite

#: Rounding of the parameters that is not worth another look, as a share of ``tol``.
_LITTLE = 0.1

#: Excess up to which a model is fitted to a sample: the sample's minimum itself is further from that of all rows.
_TOL_OF_SAMPLE = 1e-2


def minimize(
    problem: Problem,
    params: Params,
    settings: Settings,
    rules: Rules,
    *,
    is_warm: bool,
    rng: np.random.RandomState,
    monitor: Monitor,
) -> tuple[Result, dict[str, object]]:
    """The parameters that minimise F, from ``params``, and what was chosen.

    ``is_warm`` says whether these are the result of an earlier fit; where F is larger there than at the class priors,
    the fit starts from the priors. Of rows that memory does not hold ``solver="auto"`` fits the sample first, and goes
    on from there.
    """
    if problem.n_classes == 1:
        return _of_one_class(params, rules, monitor), {}
    if (seen := classes_with_rows(problem)) is not None:
        few = restrict_classes(problem, seen)
        rules, monitor = _map_callbacks(rules, monitor, few.back)
        result, info = minimize(
            *(few.problem, few.to(params), settings, rules), is_warm=is_warm, rng=rng, monitor=monitor
        )
        wide = Params(*(part.astype(result.params.coef.dtype) for part in few.back(result.params)))
        return result._replace(params=wide), info
    tol = max(rules.tol, float(np.finfo(problem.data.X.dtype).eps))
    if is_warm and not is_start(problem, params):
        params, is_warm = prior_params(problem), False
    if problem.data_source is None or is_warm or settings.solver != "auto":
        result, info = _minimize_reduced(problem, params, settings, rules, is_warm=is_warm, rng=rng, monitor=monitor)
        return finalize(problem, result, tol), info
    sample = problem._replace(data_source=None, mean_weight=float(problem.data.weight.mean()))
    rough = max(_TOL_OF_SAMPLE, tol)
    start, _ = _minimize_reduced(
        *(sample, params, settings._replace(tol=rough), rules._replace(tol=rough)),
        is_warm=False,
        rng=rng,
        monitor=NO_MONITOR,
    )
    result, info = _minimize_reduced(problem, start.params, settings, rules, is_warm=True, rng=rng, monitor=monitor)
    return finalize(problem, result, tol), {**info, "sample": f"{problem.n_samples} rows, {start.solver}"}


def is_start(problem: Problem, params: Params) -> bool:
    """Whether F of the rows in memory is no larger than at the class priors.

    Further out no row may have any curvature to start from.
    """
    sample = problem._replace(data_source=None)
    return value_and_grad(sample, params).value <= prior_objective(sample)


def finalize(problem: Problem, result: Result, tol: float) -> Result:
    """The result with its parameters as they are kept: of sum 0 over the classes, and in X's dtype if that holds them.

    In float32 the intercept makes up for what the coefficients lose at the columns' centre. F's excess is that of what
    is kept. Float64 is kept where rounding would take F further from its minimum than ``tol``, as of columns that are
    far from 0 and vary little.
    """
    params = center_params(result.params, has_l1=problem.l1_ratio > 0)
    if problem.data.X.dtype == np.float64:
        return result._replace(params=params)
    kept = _in_float32(params, None)
    if is_finite(kept) and _rounding(problem, params) <= _LITTLE * tol:
        return result._replace(params=kept)
    has_centre = problem.fit_intercept and not sp.issparse(problem.data.X)
    column_offset = compute_column_offset(problem.data.X) if has_centre else None
    value = result.loss_curve[-1]

    def excess_of(these: Params) -> float:
        rise = exact_value(problem, these, column_offset) - value
        left = rise + absolute_suboptimality(value, result.excess) if np.isfinite(result.excess) else np.inf
        return relative_excess(value + rise, left)

    kept = _in_float32(params, column_offset)
    excess = excess_of(Params(*(part.astype(np.float64) for part in kept)))
    is_lost = not is_finite(kept)
    if is_lost or excess > tol:
        unrounded = excess_of(params)
        is_lost = is_lost or unrounded <= tol
        excess = unrounded if is_lost else excess
    reason = StopReason.PRECISION if result.stop_reason is StopReason.TOL and excess > tol else result.stop_reason
    return result._replace(params=params if is_lost else kept, excess=excess, stop_reason=reason)


def _in_float32(params: Params, column_offset: Array | None) -> Params:
    """The parameters rounded, and the intercept so that it makes up for that at the centre."""
    coef, intercept = params.coef.astype(np.float32), params.intercept
    if column_offset is not None:
        intercept = intercept + (params.coef - coef) @ column_offset.astype(np.float64)
    return Params(coef, intercept.astype(np.float32))


def _rounding(problem: Problem, params: Params) -> float:
    """A bound of what rounding the parameters changes F by, relative."""
    data = problem.data if problem.data_source is None else None
    if data is None or isinstance(data.X, DeviceArray):
        return float("inf")
    longest = float(np.sqrt(max(float(largest) for largest in _squared_norms(problem))))
    reach = longest * float(np.sqrt((params.coef**2).sum(axis=1)).max()) + float(np.abs(params.intercept).max())
    return 2 * float(np.finfo(np.float32).eps) * reach


def exact_value(problem: Problem, params: Params, column_offset: Array | None) -> float:
    """F, with ``column_offset`` taken off X piece by piece: as exact as X is, whatever its columns' offsets."""
    if column_offset is None:
        return value_and_grad(problem, params).value
    moved, total = shift_intercept(params, column_offset, 1.0), total_weight(problem)
    if problem.data_source is None:
        loss, _ = sum_loss_grad(center_chunks(split_rows(problem.data), column_offset, None), problem, moved, total)
    else:
        loss, _ = problem.data_source.center_columns(column_offset).loss_grad(problem, moved, total)
    return float(loss + penalty(params.coef, problem.alpha, problem.l1_ratio)[0])


def _squared_norms(problem: Problem) -> Iterator[Any]:
    for block in iter_blocks(problem):
        if sp.issparse(block.X):
            yield block.X.multiply(block.X).sum(axis=1).max()
        else:
            yield squares(block.X, axis=1).max()


def _minimize_reduced(
    problem: Problem,
    params: Params,
    settings: Settings,
    rules: Rules,
    *,
    is_warm: bool,
    rng: np.random.RandomState,
    monitor: Monitor,
) -> tuple[Result, dict[str, object]]:
    reduced = reduce_columns(problem, may_rotate=may_rotate(problem, settings)) if problem.data_source is None else None
    if reduced is not None:
        rules, monitor = _map_callbacks(rules, monitor, reduced.back)
        result, info = _minimize_reduced(
            *(reduced.problem, reduced.to(params), settings, rules), is_warm=is_warm, rng=rng, monitor=monitor
        )
        return result._replace(params=reduced.back(result.params)), info
    prepared = in_solvers_coordinates(problem, settings)
    result, info = minimize_prepared(prepared, params, settings, rules, is_warm=is_warm, rng=rng, monitor=monitor)
    return result._replace(path_cache=None), info  # no fit goes on from it: it would be kept in memory for nothing


def _of_one_class(params: Params, rules: Rules, monitor: Monitor) -> Result:
    """Return the result of a fit to rows of one class: one epoch, and F = 0 whatever the parameters."""
    score = None if rules.score is None else rules.score(params)
    result = Result(params, [0.0], [0.0], [] if score is None else [score], StopReason.TOL, 0.0, "priors")
    monitor.on_epoch_begin()
    monitor.on_epoch_end(Epoch(1, 0.0, 0.0, score, lambda: result))
    return result


def may_rotate(problem: Problem, settings: Settings) -> bool:
    """Whether a fit is as good in any coordinates: the solver sees to them, and X has few zeros to lose.

    And there is a penalty: among coefficients that predict the same none are meant but the shortest. The naive engine
    shows the sums in the coordinates given.
    """
    is_free = settings.solver == "auto" and settings.engine != "naive" and problem.alpha > 0
    return is_free and isinstance(problem.data.X, np.ndarray) and not is_mostly_zeros(problem.data.X)


class PreparedProblem(NamedTuple):
    """A problem as its solvers take it.

    Attributes
    ----------
    problem : Problem
    column_offset : ndarray of shape (n_features,) or None
        What its columns are less by.
    moments : Moments or None
        Their statistics, if known.
    path_cache : object
        What a fit of another penalty has paid for: see ``Solver``.
    is_wide : bool
        Whether X is in float64, and was not.
    """

    problem: Problem
    column_offset: Array | None = None
    moments: Moments | None = None
    path_cache: Any = None
    is_wide: bool = False


def in_solvers_coordinates(problem: Problem, settings: Settings) -> PreparedProblem:
    """The problem as Newton's solvers take it, or as the dual does: as it is."""
    if use_dual(problem, settings):
        return PreparedProblem(in_c_order(problem))
    own, column_offset = center_or_widen(problem, settings)
    return PreparedProblem(own, column_offset, is_wide=own.data.X.dtype != problem.data.X.dtype)


def prepare(problem: Problem, settings: Settings) -> PreparedProblem:
    """The problem with what fits of any penalty to these rows, or to most of them, share."""
    prepared = in_solvers_coordinates(problem, settings)
    if use_dual(problem, settings):
        return prepared
    return prepared._replace(moments=plan_moments(prepared.problem, settings, is_warm=False))


def minimize_prepared(
    prepared: PreparedProblem,
    params: Params,
    settings: Settings,
    rules: Rules,
    *,
    is_warm: bool,
    rng: np.random.RandomState,
    monitor: Monitor,
    allow_estimate: bool = False,
) -> tuple[Result, dict[str, object]]:
    """As ``minimize``; the parameters are those of X as it was given. ``allow_estimate``: see ``make_plan``."""
    problem, column_offset, moments, path_cache, is_wide = prepared
    plan = make_plan(
        problem,
        settings,
        is_warm=is_warm,
        rng=rng,
        moments=moments,
        path_cache=path_cache,
        allow_estimate=allow_estimate,
        is_widened=is_wide,
    )
    rules, monitor = _map_callbacks(rules, monitor, lambda params: shift_intercept(params, column_offset, -1.0))
    start = shift_intercept(params, column_offset, 1.0)
    result = train(problem, start, plan, rules, shuffle=settings.shuffle, rng=rng, monitor=monitor)
    return result._replace(params=shift_intercept(result.params, column_offset, -1.0)), plan.info


def _map_callbacks(rules: Rules, monitor: Monitor, back: Callable[[Params], Params]) -> tuple[Rules, Monitor]:
    """The rules and the watch of a problem in other coordinates, from which ``back`` leads."""
    score = rules.score
    if score is not None:
        rules = rules._replace(score=lambda params: score(back(params)))

    def on_epoch_end(epoch: Epoch) -> bool:
        def snapshot() -> Result:
            result = epoch.snapshot()
            return result._replace(params=back(result.params))

        return monitor.on_epoch_end(epoch._replace(snapshot=snapshot))

    return rules, monitor._replace(on_epoch_end=on_epoch_end)


#: Nobody is told of the epochs.
NO_MONITOR = Monitor(lambda: None, lambda epoch: False)
