"""Update a model with the rows of a `partial_fit` call.

Rows are buffered up to `MAX_BUFFER_BYTES` bytes. The model is refitted to all buffered rows when the new rows show that
it is out of date: a single pass is not enough to get within a few per cent of the minimum when F is small. A longer
stream takes schedule-free steps and uses each row once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from sksoftmax._data.chunks import concatenate_rows, copy_rows, n_bytes
from sksoftmax._maths.objective import class_weights, loss, penalty, prior_params
from sksoftmax._maths.preconditioner import gram_preconditioner
from sksoftmax._maths.reduction import add_classes
from sksoftmax._solvers.schedule_free import moments_from_rows
from sksoftmax._training.fit import NO_MONITOR, minimize
from sksoftmax._training.loop import Result, StoppingCriteria, one_pass
from sksoftmax._training.plan import choose_engine, make_stream_plan, rows_of_a_step
from sksoftmax._training.settings import Settings
from sksoftmax._types import Array, Batch, Params, Problem, is_finite

#: Maximum bytes of X in the row buffer.
MAX_BUFFER_BYTES = 2**28

#: Tolerance of a refit to the buffered rows; a larger excess gives a warning.
REFIT_TOL = 1e-2

#: Estimated excess over all rows, relative to F, from which the model counts as out of date.
_STALE = 2e-2

#: Growth of the rows, relative to those of the last fit, from which an out-of-date model is refitted. All fits of a
#: stream together then cost 1 / 0.25 + 1 = 5 times the last fit.
_MIN_GROWTH = 0.25

#: Growth of the rows from which the model is refitted in any case.
_MAX_GROWTH = 1.0

#: Ratios that define heavy rows. The new rows are heavy if the total weight grows 2 times faster than the number of
#: rows, or if the root mean square of the new weights is 2 times their mean.
_HEAVY = 2.0

#: Growth, in place of `_MIN_GROWTH`, if the new rows are heavy or if the model predicts them no better than equal
#: probabilities: a few such rows can move the minimum of F far.
_EARLY_GROWTH = 0.05

#: Operations of a pass below which a fit costs only its calls (a few milliseconds, as long as ten passes of this
#: size), so that refits may come sooner. A stream has at most ``2 (_SMALL_PASS / (4 c))^(1/2)`` such fits of models
#: with c coefficients.
_SMALL_PASS = 2**21


#: Constants of F other than the rows: see `_objective_of`.
Objective = tuple[float | bool, ...]


class RowBuffer(NamedTuple):
    """The buffered rows of a stream, and the last fit to them.

    Attributes
    ----------
    chunks : tuple of Batch
        Rows in order. Each chunk is at least twice as long as the next, so that there are few chunks and each row is
        copied only a few times.
    seen : ndarray of int
        Sorted codes of the classes that have rows or a share of the targets.
    n_learned : int
        Number of rows of the last fit.
    value : float
        F at the end of the last fit.
    loss : float
        Mean loss at the end of the last fit.
    surplus : float
        Sum over the rows since the last fit of weight times (loss of the row minus ``loss``).
    params : Params or None
        Parameters of the last fit.
    info : dict
        ``solver_info_`` of the last fit.
    n_epochs : int
        Number of epochs of the last fit.
    weight : float
        Sum of the weights of the rows of the last fit; 0 if unknown.
    squares : float
        Sum of the squared weights of the rows since the last fit.
    objective : tuple
        Constants of F in the last fit, see `_objective_of`; empty if unknown.
    """

    chunks: tuple[Batch, ...] = ()
    seen: Array = np.empty(0, dtype=np.intp)
    n_learned: int = 0
    value: float = 0.0
    loss: float = 0.0
    surplus: float = 0.0
    params: Params | None = None
    info: dict[str, object] = {}
    n_epochs: int = 0
    weight: float = 0.0
    squares: float = 0.0
    objective: Objective = ()

    @property
    def n_bytes(self) -> int:
        return sum(n_bytes(chunk.X) for chunk in self.chunks)

    @property
    def n_samples(self) -> int:
        return _count_samples(self.chunks)


class Stream(NamedTuple):
    """State of ``partial_fit`` between calls, except the coefficients.

    Attributes
    ----------
    solver : str
        Solver of ``solver_state``, which starts anew if the solver changes.
    has_l1 : bool
        Whether ``solver_state`` is for an L1 penalty, which has its own preconditioner; starts anew if this changes.
    learning_rate : float or None
        Setting of the last step; if it changes, ``solver_state`` continues at the new rate.
    solver_state : Any
        None before the first step.
    n_samples : int
        Number of all rows so far, including the rows of a fit before the stream.
    weight : float
        Sum of their weights.
    n_fitted : int
        Number of rows that the parameters were fitted to; they count in the average of the first steps.
    row_buffer : RowBuffer or None
        None if rows are not buffered, or no longer.
    waiting : tuple of Batch
        Rows that are too few for a step of "auto", in chunks as in `RowBuffer`.
    info : dict
        ``solver_info_`` of the last step.
    objective : tuple
        Constants of F in the last step, see `_objective_of`; empty before it.
    """

    solver: str
    has_l1: bool
    learning_rate: float | None
    solver_state: Any
    n_samples: int
    weight: float
    n_fitted: int
    row_buffer: RowBuffer | None
    waiting: tuple[Batch, ...] = ()
    info: dict[str, object] = {}
    objective: Objective = ()

    def has_other_targets(self, y: Array) -> bool:
        """Return whether one of the rows in memory and ``y`` is class codes and the other a table of targets."""
        chunks = (*(self.row_buffer.chunks if self.row_buffer else ()), *self.waiting)
        return bool(chunks) and chunks[0].y.ndim != y.ndim


class StreamUpdate(NamedTuple):
    """Result of one call of ``partial_fit``.

    Attributes
    ----------
    stream : Stream
    params : Params or None
        None if the parameters do not change.
    info : dict
        For ``solver_info_``.
    n_epochs : int
    result : Result or None
        Result of the refit to the buffered rows, to a tolerance of `REFIT_TOL`; None without a refit.
    """

    stream: Stream
    params: Params | None
    info: dict[str, object]
    n_epochs: int
    result: Result | None = None


def new_stream(settings: Settings, *, has_l1: bool, n_samples: int, weight: float) -> Stream:
    """Return a stream after ``n_samples`` rows that are not buffered."""
    row_buffer = RowBuffer() if _buffers_rows(settings) and n_samples == 0 else None
    return Stream(settings.solver, has_l1, settings.learning_rate, None, n_samples, weight, n_samples, row_buffer)


def update_stream(
    stream: Stream,
    problem: Problem,
    get_params: Callable[[], Params | None],
    settings: Settings,
    rng: np.random.RandomState,
) -> StreamUpdate:
    """Return the stream after the rows of ``problem``.

    ``get_params`` returns the current parameters, and None at the beginning of a stream.
    """
    has_l1 = problem.l1_ratio > 0
    data = problem.data
    n_samples, weight = stream.n_samples + len(data.y), stream.weight + float(data.weight.sum())
    problem = problem._replace(mean_weight=weight / n_samples)
    had_intercept = stream.objective[2] if stream.objective else problem.fit_intercept
    if (stream.solver, stream.has_l1, had_intercept) != (settings.solver, has_l1, problem.fit_intercept):
        stream = stream._replace(solver=settings.solver, has_l1=has_l1, solver_state=None)
    stream = stream._replace(n_samples=n_samples, weight=weight)
    if (
        stream.row_buffer is not None
        and _buffers_rows(settings)
        and stream.row_buffer.n_bytes + n_bytes(data.X) <= MAX_BUFFER_BYTES
    ):
        row_buffer, result = _buffer_rows(stream.row_buffer, problem, settings, rng)
        buffer_info = {"kept": f"{n_samples} rows, {row_buffer.n_learned} of them in the last fit"}
        info = {"engine": choose_engine(settings.engine, data.X), **row_buffer.info, **buffer_info}
        new_params = None if result is None else row_buffer.params
        stream = stream._replace(row_buffer=row_buffer, n_fitted=n_samples)
        return StreamUpdate(stream, new_params, info, row_buffer.n_epochs, result)
    return _step_solver(stream, problem, get_params, settings, rng)


def _buffers_rows(settings: Settings) -> bool:
    """Return whether the settings allow a row buffer."""
    return settings.keep_rows and settings.solver == "auto" and settings.half_life == np.inf


# --- buffered rows ----------------------------------------------------------------------------------------


def _buffer_rows(
    row_buffer: RowBuffer, problem: Problem, settings: Settings, rng: np.random.RandomState
) -> tuple[RowBuffer, Result | None]:
    """Return the buffer with the new rows, refitted if they require it, and the result of the refit or None."""
    data = problem.data
    seen = np.union1d(row_buffer.seen, np.flatnonzero(class_weights(problem)))
    is_other_problem = len(seen) > len(row_buffer.seen) or row_buffer.objective != _objective_of(problem)
    row_buffer = row_buffer._replace(chunks=_append_rows(row_buffer.chunks, copy_rows(data)), seen=seen)
    if is_other_problem or row_buffer.params is None:
        return _refit(row_buffer, problem, settings, rng)
    surplus = loss(problem, row_buffer.params) - float(data.weight.sum()) * row_buffer.loss
    squares = float(data.weight @ data.weight)
    row_buffer = row_buffer._replace(surplus=row_buffer.surplus + surplus, squares=row_buffer.squares + squares)
    return (
        _refit(row_buffer, problem, settings, rng) if _is_due(row_buffer, problem.mean_weight) else (row_buffer, None)
    )


def _is_due(row_buffer: RowBuffer, mean_weight: float) -> bool:
    """Return whether the new rows require a refit.

    Over all rows F at the parameters is ``value + surplus / weight``, and the minimum of F is about ``value``. If a few
    rows have much of the weight, ``value`` is a poor estimate of the minimum, so heavy new rows allow an earlier refit.

    1. Refit if the rows or their weight have grown by `_MAX_GROWTH`; heavy new rows: by `_MIN_GROWTH`.
    2. Do not refit if the estimated excess is below `_STALE`.
    3. Refit if F is no better than with equal probabilities, or NaN.
    4. Refit if the rows or their weight have grown by `_MIN_GROWTH`; by `_EARLY_GROWTH` for heavy or unpredicted rows.

    Every growth is scaled down for a fit so small that it costs only its calls.
    """
    assert row_buffer.params is not None
    n_new, weight = row_buffer.n_samples - row_buffer.n_learned, row_buffer.n_samples * mean_weight
    learned_weight = row_buffer.weight or row_buffer.n_learned * mean_weight
    row_growth, weight_growth = n_new / row_buffer.n_learned, weight / learned_weight - 1
    new_weight = weight - learned_weight
    is_uneven = np.sqrt(row_buffer.squares) * np.sqrt(n_new) >= _HEAVY * new_weight
    is_heavy = weight_growth >= _HEAVY * row_growth or is_uneven
    growth = max(row_growth, weight_growth)
    scale = min(1.0, 4 * row_buffer.n_learned * row_buffer.params.coef.size / _SMALL_PASS)
    # 1.
    if growth >= (_MIN_GROWTH if is_heavy else _MAX_GROWTH) * scale:
        return True
    # 2.
    excess = row_buffer.surplus / weight
    if excess < _STALE * row_buffer.value:  # false for NaN
        return False
    # 3.
    equal_probabilities_loss = np.log(max(2, len(row_buffer.params.coef)))
    if not row_buffer.value + excess < equal_probabilities_loss:
        return True
    # 4.
    is_unpredicted = row_buffer.loss + row_buffer.surplus / new_weight >= equal_probabilities_loss  # the new rows
    min_growth = _EARLY_GROWTH if is_heavy or is_unpredicted else _MIN_GROWTH
    return growth >= min_growth * scale


def _objective_of(problem: Problem) -> Objective:
    """Return the constants of F: alpha, l1_ratio, fit_intercept and label_smoothing."""
    return (problem.alpha, problem.l1_ratio, problem.fit_intercept, problem.label_smoothing)


def _refit(
    row_buffer: RowBuffer, problem: Problem, settings: Settings, rng: np.random.RandomState
) -> tuple[RowBuffer, Result]:
    """Return the buffer after a fit to all its rows, and the result of the fit."""
    rows = concatenate_rows(list(row_buffer.chunks))
    problem = problem._replace(data=rows)
    start = (
        prior_params(problem) if row_buffer.params is None else with_intercept(row_buffer.params, problem.fit_intercept)
    )
    criteria = StoppingCriteria(settings.max_iter, REFIT_TOL, None, 1)
    is_warm = bool(start.coef.any())
    result, info = minimize(
        *(problem, start, settings._replace(tol=REFIT_TOL), criteria), is_warm=is_warm, rng=rng, monitor=NO_MONITOR
    )
    fitted = Params(*(part.astype(np.float64) for part in result.params))
    info = {"solver": result.solver, **info}
    mean_loss = loss(problem, fitted) / float(rows.weight.sum())
    value = float(mean_loss + penalty(fitted.coef, problem.alpha, problem.l1_ratio)[0])
    fit_fields = (fitted, info, len(result.loss_curve), float(rows.weight.sum()), 0.0, _objective_of(problem))
    return RowBuffer((rows,), row_buffer.seen, len(rows.y), value, mean_loss, 0.0, *fit_fields), result


def with_intercept(params: Params, has_intercept: bool) -> Params:
    """Return the parameters, with intercepts of 0 if ``has_intercept`` is False."""
    return params if has_intercept else params._replace(intercept=np.zeros_like(params.intercept))


def _count_samples(chunks: tuple[Batch, ...]) -> int:
    """Return the number of rows in ``chunks``."""
    return sum(len(chunk.y) for chunk in chunks)


def _append_rows(chunks: tuple[Batch, ...], chunk: Batch) -> tuple[Batch, ...]:
    """Return the chunks with one more, after merging those at the end that are less than twice as long as the next."""
    while chunks and len(chunks[-1].y) < 2 * len(chunk.y):
        chunks, chunk = chunks[:-1], concatenate_rows([chunks[-1], chunk])
    return (*chunks, chunk)


def with_classes(stream: Stream, places: Array, n_classes: int, *, has_l1: bool, has_intercept: bool) -> Stream:
    """Return the stream with more classes; the codes of the old classes are ``places``.

    The average of "auto" and the state of a named solver start anew.
    """
    row_buffer, state = stream.row_buffer, stream.solver_state

    def widen(params: Params) -> Params:
        return add_classes(params, places, n_classes, stream.n_samples, has_l1=has_l1, has_intercept=has_intercept)

    if row_buffer is not None and row_buffer.params is not None:
        chunks = tuple(chunk._replace(y=places[chunk.y]) for chunk in row_buffer.chunks)
        row_buffer = row_buffer._replace(chunks=chunks, seen=places[row_buffer.seen], params=widen(row_buffer.params))
    waiting = tuple(chunk._replace(y=places[chunk.y]) for chunk in stream.waiting)
    if state is not None:
        start = widen(state.params)
        state = state._replace(params=start, iterate=start, step=0) if stream.solver == "auto" else None
    return stream._replace(row_buffer=row_buffer, solver_state=state, n_fitted=0, waiting=waiting)


# --- rows that are not buffered ---------------------------------------------------------------------------


def _step_solver(
    stream: Stream,
    problem: Problem,
    get_params: Callable[[], Params | None],
    settings: Settings,
    rng: np.random.RandomState,
) -> StreamUpdate:
    """Return the stream after one pass of solver steps over the new rows and the waiting rows.

    If the rows are too few for a step of "auto", they are added to the waiting rows instead.
    """
    is_auto, state, learning_rate = settings.solver == "auto", stream.solver_state, settings.learning_rate
    is_same_objective = stream.objective in ((), _objective_of(problem))
    if state is not None and not is_auto and learning_rate == stream.learning_rate and is_same_objective:
        settings = settings._replace(learning_rate=state.rate)  # computed from the first rows
    stream = stream._replace(learning_rate=learning_rate, objective=_objective_of(problem))
    may_wait = is_auto and state is not None
    if may_wait or stream.waiting:
        waiting = _append_rows(stream.waiting, copy_rows(problem.data))
        n_waiting = _count_samples(waiting)
        if may_wait and n_waiting < rows_of_a_step(problem, settings, stream.n_samples - n_waiting):
            info = {**stream.info, "waiting": f"{n_waiting} rows, too few for a step"}
            return StreamUpdate(stream._replace(waiting=waiting), None, info, 1)
        problem = problem._replace(data=concatenate_rows(list(waiting)))
    plan = make_stream_plan(problem, settings, getattr(state, "moments", None))
    solver = plan.stages[0].solver
    if state is None:
        state = solver.init(problem, get_params() or prior_params(problem))
        if is_auto:
            batch_size = solver.batch_size or 1
            state = state._replace(step=-(-stream.n_fitted // batch_size))
            if stream.row_buffer is not None and stream.row_buffer.chunks:
                rows = concatenate_rows(list(stream.row_buffer.chunks))
                state = moments_from_rows(problem, state, rows, batch_size, full_gram=plan.info["metric"] == "gram")
    elif not is_auto:
        state = state._replace(rate=plan.info["learning_rate"])
    elif not is_same_objective:  # the preconditioner depends on alpha
        state = state._replace(
            preconditioner=gram_preconditioner(problem, state.moments, batch_size=solver.batch_size or 1)
        )
    with np.errstate(over="ignore", invalid="ignore", divide="ignore", under="ignore"):
        state = one_pass(problem, solver, state, settings.shuffle, rng)
        if is_auto and not is_finite(state.params):  # raw predictions of the new rows overflow: start anew
            state = one_pass(problem, solver, solver.init(problem, prior_params(problem)), settings.shuffle, rng)
    rate = plan.info["learning_rate"] if is_auto else state.rate  # "auto": each batch has its own rate
    info = {
        "engine": choose_engine(settings.engine, problem.data.X),
        "solver": solver.name,
        **plan.info,
        "learning_rate": rate,
    }
    stream = stream._replace(solver_state=state, n_fitted=stream.n_samples, row_buffer=None, waiting=(), info=info)
    return StreamUpdate(stream, state.params, info, 1)
