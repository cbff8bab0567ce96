"""Minimize F: prepare the problem, choose the solvers, train, and round the result.

The estimators, `stream` and `path` call this module. For out-of-core data the sample in memory is fitted first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp

from sksoftmax._data.chunks import center_chunks, split_rows, sum_loss_grad
from sksoftmax._engines.device import DeviceArray
from sksoftmax._engines.moments import exact_loss, row_squares
from sksoftmax._engines.threads import COPY_WORK, map_in_order
from sksoftmax._maths.newton_direction import absolute_suboptimality, relative_excess
from sksoftmax._maths.objective import (
    block_slices,
    center_params,
    compute_column_offset,
    in_c_order,
    pass_work,
    penalty,
    prior_objective,
    prior_params,
    shift_intercept,
    smooth_targets,
    total_weight,
    value_and_grad,
)
from sksoftmax._maths.reduction import classes_with_rows, identity_reduction, reduce_columns, restrict_classes
from sksoftmax._solvers._dual_data import is_mostly_zeros
from sksoftmax._training.loop import Epoch, Monitor, Result, StoppingCriteria, train
from sksoftmax._training.plan import make_plan, plan_moments, use_dual
from sksoftmax._training.settings import Settings
from sksoftmax._training.start import first_sample
from sksoftmax._training.stopping import StopReason
from sksoftmax._training.tolerance import center_or_widen
from sksoftmax._types import Array, Moments, Params, Problem, is_finite

#: Change of F by rounding the parameters that needs no further check, as a fraction of ``tol``.
_NEGLIGIBLE = 0.1

#: Minimum tolerance of the fit to the sample in memory. The minimum of the sample is further than this from that of all
#: rows.
_SAMPLE_TOL = 1e-2


class PreparedProblem(NamedTuple):
    """A problem in the coordinates of its solvers.

    Attributes
    ----------
    problem : Problem
    column_offset : ndarray of shape (n_features,) or None
        Offset subtracted from the columns.
    moments : Moments or None
        Statistics of the columns, if known.
    path_cache : object
        State of a fit with another penalty that this fit can reuse: see ``Solver``.
    is_widened : bool
        Whether X was converted to float64.
    """

    problem: Problem
    column_offset: Array | None = None
    moments: Moments | None = None
    path_cache: Any = None
    is_widened: bool = False


#: Sparse rows whose norms are computed at once.
_ROWS_OF_NORMS = 2**16

#: A monitor that does nothing.
NO_MONITOR = Monitor(lambda: None, lambda epoch: False, is_idle=True)


def minimize(
    problem: Problem,
    params: Params,
    settings: Settings,
    criteria: StoppingCriteria,
    *,
    is_warm: bool,
    rng: np.random.RandomState,
    monitor: Monitor,
) -> tuple[Result, dict[str, object]]:
    """Return the parameters that minimize F, and the choices for ``solver_info_``.

    1. Leave out the classes without rows.
    2. Replace a warm start by the class priors, if F is higher there.
    3. For out-of-core data and ``solver="auto"``, fit the sample in memory and start from its parameters; for other
       data, a sample of the rows, if that is the fastest start (see `start`).
    4. Fit all rows.
    5. Center the parameters and round them to X's dtype.

    Parameters
    ----------
    problem : Problem
    params : Params
        Start.
    settings, criteria
    is_warm : bool
        Whether ``params`` are the result of an earlier fit.
    rng : RandomState
    monitor : Monitor
        Called before and after each epoch, except those of the sample.
    """
    if problem.n_classes == 1:
        return _fit_one_class(params, criteria, monitor), {}
    # 1.
    if (class_codes := classes_with_rows(problem)) is not None:
        reduced = restrict_classes(problem, class_codes)
        criteria, monitor = _map_callbacks(criteria, monitor, reduced.back)
        result, info = minimize(
            *(reduced.problem, reduced.to(params), settings, criteria), is_warm=is_warm, rng=rng, monitor=monitor
        )
        all_params = Params(*(part.astype(result.params.coef.dtype) for part in reduced.back(result.params)))
        return result._replace(params=all_params), info
    # 2.
    if is_warm and not is_start(problem, params):
        params, is_warm = prior_params(problem), False
    # 3.
    tol = max(criteria.tol, float(np.finfo(problem.data.X.dtype).eps))
    sample_info: dict[str, object] = {}
    if not is_warm and (sample_result := _fit_sample(problem, params, settings, criteria, rng)) is not None:
        params, is_warm = sample_result.params, True
        if problem.data_source is not None:
            sample_info = {"sample": f"{problem.n_samples} rows, {sample_result.solver}"}
    # 4.
    result, info = _minimize_reduced(problem, params, settings, criteria, is_warm=is_warm, rng=rng, monitor=monitor)
    # 5.
    return finalize(problem, result, tol), {**info, **sample_info}


def _fit_one_class(params: Params, criteria: StoppingCriteria, monitor: Monitor) -> Result:
    """Return the result of a fit to rows of one class: one epoch, and F = 0 whatever the parameters."""
    score = None if criteria.score is None else criteria.score(params)
    result = Result(params, [0.0], [0.0], [] if score is None else [score], StopReason.TOL, 0.0, "priors")
    monitor.on_epoch_begin()
    monitor.on_epoch_end(Epoch(1, 0.0, 0.0, score, lambda: result))
    return result


def is_start(problem: Problem, params: Params) -> bool:
    """Return whether F of the rows in memory is no higher at ``params`` than at the class priors.

    Otherwise the curvature of all rows may vanish there.
    """
    sample = problem._replace(data_source=None)
    return value_and_grad(sample, params).value <= prior_objective(sample)


def _fit_sample(
    problem: Problem,
    params: Params,
    settings: Settings,
    criteria: StoppingCriteria,
    rng: np.random.RandomState,
) -> Result | None:
    """Return the fit of a sample of the rows, whose start may be a sample itself; None if the fit needs none."""
    if problem.data_source is None:
        sample = first_sample(problem, settings)
    elif settings.solver == "auto":
        sample = problem._replace(data_source=None, mean_weight=float(problem.data.weight.mean()))
    else:
        sample = None
    if sample is None:
        return None
    tol, is_warm = max(_SAMPLE_TOL, criteria.tol), False
    settings, criteria = settings._replace(tol=tol), criteria._replace(tol=tol)
    if (smaller := _fit_sample(sample, params, settings, criteria, rng)) is not None:
        params, is_warm = smaller.params, True
    result, _ = _minimize_reduced(sample, params, settings, criteria, is_warm=is_warm, rng=rng, monitor=NO_MONITOR)
    return result


def _minimize_reduced(
    problem: Problem,
    params: Params,
    settings: Settings,
    criteria: StoppingCriteria,
    *,
    is_warm: bool,
    rng: np.random.RandomState,
    monitor: Monitor,
) -> tuple[Result, dict[str, object]]:
    """Minimize F in as few columns as possible; parameters are those of all columns. Arguments as in `minimize`."""
    reduced = reduce_columns(problem, may_rotate=may_rotate(problem, settings)) if problem.data_source is None else None
    reduced = reduced or identity_reduction(problem)
    prepared = in_solvers_coordinates(reduced.problem, settings)
    criteria, monitor = _map_callbacks(criteria, monitor, reduced.back)
    result, info = minimize_prepared(
        *(prepared, reduced.to(params), settings, criteria), is_warm=is_warm, rng=rng, monitor=monitor
    )
    # no other fit reuses the cache, which would only take memory
    return result._replace(params=reduced.back(result.params), path_cache=None), info


def may_rotate(problem: Problem, settings: Settings) -> bool:
    """Return whether the columns may be rotated: the solver is rotation invariant, and X has few zeros to lose.

    The penalty has to be positive. Among coefficients with equal predictions, those of least norm are then the
    minimizer. The naive engine is excluded, because it computes the sums in the given coordinates.
    """
    is_invariant = settings.solver == "auto" and settings.engine != "naive" and problem.alpha > 0
    return is_invariant and isinstance(problem.data.X, np.ndarray) and not is_mostly_zeros(problem.data.X)


def in_solvers_coordinates(problem: Problem, settings: Settings) -> PreparedProblem:
    """Return the problem as the solvers take it: in C order for the dual, centered or widened for Newton's method."""
    if use_dual(problem, settings):
        return PreparedProblem(in_c_order(problem))
    own_problem, column_offset = center_or_widen(problem, settings)
    is_widened = own_problem.data.X.dtype != problem.data.X.dtype
    return PreparedProblem(own_problem, column_offset, is_widened=is_widened)


def prepare(problem: Problem, settings: Settings) -> PreparedProblem:
    """Return the problem with everything that fits with any penalty to these rows, or to most of them, share."""
    prepared = in_solvers_coordinates(problem, settings)
    if use_dual(problem, settings):
        return prepared
    return prepared._replace(moments=plan_moments(prepared.problem, settings, is_warm=False))


def minimize_prepared(
    prepared: PreparedProblem,
    params: Params,
    settings: Settings,
    criteria: StoppingCriteria,
    *,
    is_warm: bool,
    rng: np.random.RandomState,
    monitor: Monitor,
    allow_estimate: bool = False,
) -> tuple[Result, dict[str, object]]:
    """Minimize F of a prepared problem; parameters are those of X without the offset.

    Arguments as in `minimize`; ``allow_estimate``: whether the dual solver may stop at an uncertified estimate of the
    excess.
    """
    problem, column_offset, moments, path_cache, is_widened = prepared
    plan = make_plan(
        problem,
        settings,
        is_warm=is_warm,
        rng=rng,
        moments=moments,
        path_cache=path_cache,
        allow_estimate=allow_estimate,
        is_widened=is_widened,
        is_watched=not monitor.is_idle or criteria.score is not None,
    )
    criteria, monitor = _map_callbacks(criteria, monitor, lambda params: shift_intercept(params, column_offset, -1.0))
    start = shift_intercept(params, column_offset, 1.0)
    result = train(problem, start, plan, criteria, shuffle=settings.shuffle, rng=rng, monitor=monitor)
    return result._replace(params=shift_intercept(result.params, column_offset, -1.0)), plan.info


def _map_callbacks(
    criteria: StoppingCriteria, monitor: Monitor, back: Callable[[Params], Params]
) -> tuple[StoppingCriteria, Monitor]:
    """Return the criteria and the monitor for a problem in other coordinates; ``back`` maps its parameters back."""
    score = criteria.score
    if score is not None:
        criteria = criteria._replace(score=lambda params: score(back(params)))

    def on_epoch_end(epoch: Epoch) -> bool:
        def snapshot() -> Result:
            result = epoch.snapshot()
            return result._replace(params=back(result.params))

        return monitor.on_epoch_end(epoch._replace(snapshot=snapshot))

    return criteria, monitor._replace(on_epoch_end=on_epoch_end)


# --- the final parameters ---------------------------------------------------------------------------------


def finalize(problem: Problem, result: Result, tol: float) -> Result:
    """Return the result with parameters that sum to 0 over the classes, in X's dtype if that is accurate enough.

    For float32 X the intercept compensates for the rounding of the coefficients at the center of the columns, and the
    excess is that of the rounded parameters. The parameters stay in float64 if rounding would take F further from its
    minimum than ``tol``, as for columns that are far from 0 and vary little.
    """
    params = center_params(result.params, has_l1=problem.l1_ratio > 0)
    if problem.data.X.dtype == np.float64:
        return result._replace(params=params)
    rounded = _in_float32(params, None)
    if is_finite(rounded) and _rounding_bound(problem, params) <= _NEGLIGIBLE * tol:
        return result._replace(params=rounded)
    has_center = problem.fit_intercept and not sp.issparse(problem.data.X)
    column_offset = compute_column_offset(problem.data.X) if has_center else None
    # in float32, rounding of F may exceed what is lost
    value = min(result.loss_curve[-1], exact_value(problem, params, column_offset))

    def excess_of(candidate: Params) -> float:
        rise = exact_value(problem, candidate, column_offset) - value
        gap = rise + absolute_suboptimality(value, result.excess) if np.isfinite(result.excess) else np.inf
        return relative_excess(value + rise, gap)

    rounded = _in_float32(params, column_offset)
    excess = excess_of(Params(*(part.astype(np.float64) for part in rounded)))
    keeps_float64 = not is_finite(rounded)
    if keeps_float64 or excess > tol:
        float64_excess = excess_of(params)
        keeps_float64 = keeps_float64 or float64_excess <= tol
        excess = float64_excess if keeps_float64 else excess
    reason = StopReason.PRECISION if result.stop_reason is StopReason.TOL and excess > tol else result.stop_reason
    return result._replace(params=params if keeps_float64 else rounded, excess=excess, stop_reason=reason)


def _in_float32(params: Params, column_offset: Array | None) -> Params:
    """Return the parameters in float32; the intercept compensates for the rounding at ``column_offset``, if given."""
    coef, intercept = params.coef.astype(np.float32), params.intercept
    if column_offset is not None:
        intercept = intercept + (params.coef - coef) @ column_offset.astype(np.float64)
    return Params(coef, intercept.astype(np.float32))


def _rounding_bound(problem: Problem, params: Params) -> float:
    """Return a bound of the relative change of F if the parameters are rounded to float32.

    Returns inf for out-of-core data and for arrays of other libraries.
    """
    data = problem.data if problem.data_source is None else None
    if data is None or isinstance(data.X, DeviceArray):
        return float("inf")
    max_norm = float(np.sqrt(max(float(largest) for largest in _max_squared_norms(problem))))
    max_prediction = max_norm * float(np.sqrt((params.coef**2).sum(axis=1)).max()) + float(
        np.abs(params.intercept).max()
    )
    return 2 * float(np.finfo(np.float32).eps) * max_prediction


def _max_squared_norms(problem: Problem) -> Iterator[Any]:
    """Yield the largest squared norm of the rows of each block."""
    X = problem.data.X
    if not sp.issparse(X):
        zeros, ones = np.zeros(problem.n_features), np.ones(problem.n_features)
        take, spans = block_slices(problem)
        work = COPY_WORK * pass_work(problem) / problem.n_outputs
        yield from map_in_order(lambda span: row_squares(problem.kernel, take(span).X, zeros, ones).max(), spans, work)
        return
    yield 0.0
    for start in range(0, X.shape[0], _ROWS_OF_NORMS):
        indptr = X.indptr[start : start + _ROWS_OF_NORMS + 1]
        squares = np.square(X.data[indptr[0] : indptr[-1]], dtype=np.float64)
        if len(squares):  # a row ends where the next one with entries begins
            yield np.add.reduceat(squares, (indptr[:-1] - indptr[0])[np.diff(indptr) > 0]).max()


def exact_value(problem: Problem, params: Params, column_offset: Array | None) -> float:
    """Return F, with ``column_offset`` subtracted from X in chunks: as exact as X itself, whatever the offset.

    For float32 X of NumPy or SciPy the raw predictions are computed in float64: in float32 their rounding may exceed
    what the rounding of the coefficients adds to F.
    """
    shifted, total = shift_intercept(params, column_offset, 1.0), total_weight(problem)
    penalty_value = float(penalty(params.coef, problem.alpha, problem.l1_ratio)[0])
    if problem.data_source is None and not isinstance(problem.data.X, DeviceArray):
        offset = np.zeros(problem.n_features) if column_offset is None else column_offset
        take, spans = block_slices(problem)

        def block_loss(span: slice) -> float:
            X, y, weight = take(span)
            return exact_loss(problem.kernel, shifted, X, offset, smooth_targets(problem, y), weight / total)

        return sum(map_in_order(block_loss, spans, pass_work(problem))) + penalty_value
    if column_offset is None:
        return value_and_grad(problem, params).value
    if problem.data_source is None:
        loss, _ = sum_loss_grad(center_chunks(split_rows(problem.data), column_offset, None), problem, shifted, total)
    else:
        loss, _ = problem.data_source.center_columns(column_offset).loss_grad(problem, shifted, total)
    return float(loss) + penalty_value
