"""What ``partial_fit`` does with the rows of a call: a new fit to those it keeps, or steps on the new ones.

A stream's rows are kept while they are few (`KEPT_SIZE` bytes), and the model is fitted to all of them whenever those
that it has not seen say that it must: one look at each row does not lead within a few per cent of F's minimum where F
is small. A longer stream goes on by schedule-free steps, each row seen once.
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
from sksoftmax._training.loop import Result, Rules, one_pass
from sksoftmax._training.plan import Settings, choose_engine, make_stream_plan, rows_of_a_step
from sksoftmax._types import Array, Batch, Params, Problem, is_finite

#: Bytes of X that are kept.
KEPT_SIZE = 2**28

#: Excess to which the rows kept are fitted, if not with a warning; and that of the fit over all rows, as far as the new
#: ones tell, from which the model is fitted again.
TOL, _STALE = 1e-2, 2e-2

#: New rows, as a share of those in the last fit, before which there is no other, and after which there is. The former
#: makes all fits of a stream cost 1 / share + 1 times the last.
_LEAST_GROWTH, _MOST_GROWTH = 0.25, 1.0

#: Ratio of the growth of the weight to that of the rows from which the new rows are much heavier than those before; and
#: of the root of the mean square of their weights to the mean from which some are much heavier than others.
_HEAVY = 2.0

#: The least growth by such rows, of their weight, or by rows of which the model knows nothing: few can move F's minimum
#: far.
_EARLY_GROWTH = 0.05

#: Operations of a pass below which a fit costs its calls, however few the rows, and may come sooner. The calls take a
#: few milliseconds, as some ten passes of so many operations do. All fits of this kind in a stream of models with c
#: coefficients are at most ``2 (_LITTLE_WORK / (4 c))^(1/2)`` in number.
_LITTLE_WORK = 2**21


#: The constants of F, beside the rows.
Objective = tuple[float | bool, ...]


class RowBuffer(NamedTuple):
    """The rows of a stream, and how well the model knows them.

    Attributes
    ----------
    chunks : tuple of Batch
        In order, each of more than half as many rows as the one before: few, and a row is copied a few times.
    seen : ndarray of int
        Codes of the classes that have rows, or a share of their targets, sorted.
    n_learned : int
        Rows of the last fit.
    value, loss : float
        F at its end, and the mean loss.
    surplus : float
        What the rows since lose more than ``loss`` each, summed with their weights.
    params : Params or None
        Its result.
    info : dict
        What ran.
    n_epochs : int
    weight : float
        Sum of the weights of the rows of the last fit; 0 if it is not known.
    squares : float
        Sum of the squared weights of the rows since.
    objective : tuple
        What it minimised, as `_objective_of` has it; empty if it is not known.
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
    """What ``partial_fit`` keeps from call to call, besides the coefficients.

    Attributes
    ----------
    solver : str
    has_l1 : bool
    learning_rate : float or None
        What ``solver_state`` is of: after a change of the solver, or of whether there is an L1 penalty, which has a
        metric of its own, it starts anew; after one of the rate it goes on at the new one.
    solver_state : Any
        None before the first step.
    n_samples : int
    weight : float
        Of all rows so far, those of a fit before the stream included.
    n_fitted : int
        Rows that the parameters were fitted to, which count in the average that steps start with.
    row_buffer : RowBuffer or None
        None where rows are not kept, or no longer.
    waiting : tuple of Batch
        Rows that are too few for a step of "auto", in pieces as those kept.
    info : dict
        Of the last step.
    objective : tuple
        What the last step minimised, as `_objective_of` has it; empty before it.
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
        """Whether the rows in memory have a table of targets, and ``y`` codes; or the other way round."""
        chunks = (*(self.row_buffer.chunks if self.row_buffer else ()), *self.waiting)
        return bool(chunks) and chunks[0].y.ndim != y.ndim


class StreamUpdate(NamedTuple):
    """Where the rows of a call have led.

    Attributes
    ----------
    stream : Stream
    params : Params or None
        None where they stay what they were.
    info : dict
        What ran.
    n_epochs : int
    result : Result or None
        Of the fit to the rows kept, to an excess of `TOL`, if there was one.
    """

    stream: Stream
    params: Params | None
    info: dict[str, object]
    n_epochs: int
    result: Result | None = None


def new_stream(settings: Settings, *, has_l1: bool, n_samples: int, weight: float) -> Stream:
    """A stream after ``n_samples`` rows that are not kept."""
    row_buffer = RowBuffer() if _keeps_rows(settings) and n_samples == 0 else None
    return Stream(settings.solver, has_l1, settings.learning_rate, None, n_samples, weight, n_samples, row_buffer)


def update_stream(
    stream: Stream,
    problem: Problem,
    before: Callable[[], Params | None],
    settings: Settings,
    rng: np.random.RandomState,
) -> StreamUpdate:
    """The stream after the rows of ``problem``; ``before`` tells the parameters so far, None at its beginning."""
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
        and _keeps_rows(settings)
        and stream.row_buffer.n_bytes + n_bytes(data.X) <= KEPT_SIZE
    ):
        row_buffer, result = _learn_rows(stream.row_buffer, problem, settings, rng)
        kept_info = {"kept": f"{n_samples} rows, {row_buffer.n_learned} of them in the last fit"}
        info = {"engine": choose_engine(settings.engine, data.X), **row_buffer.info, **kept_info}
        learned = None if result is None else row_buffer.params
        return StreamUpdate(
            stream._replace(row_buffer=row_buffer, n_fitted=n_samples), learned, info, row_buffer.n_epochs, result
        )
    return _step_solver(stream, problem, before, settings, rng)


def _keeps_rows(settings: Settings) -> bool:
    return settings.keep_rows and settings.solver == "auto" and settings.half_life == np.inf


# --- rows that are kept -----------------------------------------------------------------------------------


def _learn_rows(
    row_buffer: RowBuffer, problem: Problem, settings: Settings, rng: np.random.RandomState
) -> tuple[RowBuffer, Result | None]:
    """The rows with the new ones, and fitted again if these ask for it."""
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
    """Return whether the new rows ask for another fit.

    Over all rows F at the parameters is ``value + surplus / weight``, and F's minimum, about, ``value``. Where few rows
    have much of the weight, ``value`` says little of the minimum over all: if the new rows are much heavier than those
    before, or some of them than others, a fit may come sooner.
    """
    assert row_buffer.params is not None
    n_new, weight = row_buffer.n_samples - row_buffer.n_learned, row_buffer.n_samples * mean_weight
    learned_weight = row_buffer.weight or row_buffer.n_learned * mean_weight
    growth, growth_of_weight = n_new / row_buffer.n_learned, weight / learned_weight - 1
    new_weight = weight - learned_weight
    is_uneven = np.sqrt(row_buffer.squares) * np.sqrt(n_new) >= _HEAVY * new_weight
    is_heavy = growth_of_weight >= _HEAVY * growth or is_uneven
    little = min(1.0, 4 * row_buffer.n_learned * row_buffer.params.coef.size / _LITTLE_WORK)
    if max(growth, growth_of_weight) >= (_LEAST_GROWTH if is_heavy else _MOST_GROWTH) * little:
        return True
    excess = row_buffer.surplus / weight
    if excess < _STALE * row_buffer.value:  # NaN is not
        return False
    of_equal_probabilities = np.log(max(2, len(row_buffer.params.coef)))
    if not row_buffer.value + excess < of_equal_probabilities:
        return True
    is_lost = row_buffer.loss + row_buffer.surplus / new_weight >= of_equal_probabilities  # on the new rows
    least = _EARLY_GROWTH if is_heavy or is_lost else _LEAST_GROWTH
    return max(growth, growth_of_weight) >= least * little


def _objective_of(problem: Problem) -> Objective:
    return (problem.alpha, problem.l1_ratio, problem.fit_intercept, problem.label_smoothing)


def _refit(
    row_buffer: RowBuffer, problem: Problem, settings: Settings, rng: np.random.RandomState
) -> tuple[RowBuffer, Result]:
    """The rows, with the parameters that minimise F over them."""
    rows = concatenate_rows(list(row_buffer.chunks))
    problem = problem._replace(data=rows)
    start = (
        prior_params(problem) if row_buffer.params is None else with_intercept(row_buffer.params, problem.fit_intercept)
    )
    rules = Rules(settings.max_iter, TOL, None, 1)
    is_warm = bool(start.coef.any())
    result, info = minimize(
        *(problem, start, settings._replace(tol=TOL), rules), is_warm=is_warm, rng=rng, monitor=NO_MONITOR
    )
    fitted = Params(*(part.astype(np.float64) for part in result.params))
    info = {"solver": result.solver, **info}
    mean_loss = loss(problem, fitted) / float(rows.weight.sum())
    value = float(mean_loss + penalty(fitted.coef, problem.alpha, problem.l1_ratio)[0])
    of_fit = (fitted, info, len(result.loss_curve), float(rows.weight.sum()), 0.0, _objective_of(problem))
    return RowBuffer((rows,), row_buffer.seen, len(rows.y), value, mean_loss, 0.0, *of_fit), result


def with_intercept(params: Params, has_intercept: bool) -> Params:
    """Return the parameters, with intercepts of 0 if there are to be none."""
    return params if has_intercept else params._replace(intercept=np.zeros_like(params.intercept))


def _count_samples(chunks: tuple[Batch, ...]) -> int:
    return sum(len(chunk.y) for chunk in chunks)


def _append_rows(chunks: tuple[Batch, ...], chunk: Batch) -> tuple[Batch, ...]:
    while chunks and len(chunks[-1].y) < 2 * len(chunk.y):
        chunks, chunk = chunks[:-1], concatenate_rows([chunks[-1], chunk])
    return (*chunks, chunk)


def with_classes(stream: Stream, places: Array, n_classes: int, *, has_l1: bool, has_intercept: bool) -> Stream:
    """The stream with more classes, the old ones at ``places``; averages and a named solver's state start anew."""
    row_buffer, state = stream.row_buffer, stream.solver_state

    def wide(params: Params) -> Params:
        return add_classes(params, places, n_classes, stream.n_samples, has_l1=has_l1, has_intercept=has_intercept)

    if row_buffer is not None and row_buffer.params is not None:
        chunks = tuple(chunk._replace(y=places[chunk.y]) for chunk in row_buffer.chunks)
        row_buffer = row_buffer._replace(chunks=chunks, seen=places[row_buffer.seen], params=wide(row_buffer.params))
    waiting = tuple(chunk._replace(y=places[chunk.y]) for chunk in stream.waiting)
    if state is not None:
        start = wide(state.params)
        state = state._replace(params=start, iterate=start, step=0) if stream.solver == "auto" else None
    return stream._replace(row_buffer=row_buffer, solver_state=state, n_fitted=0, waiting=waiting)


# --- rows that are not ------------------------------------------------------------------------------------


def _step_solver(
    stream: Stream,
    problem: Problem,
    before: Callable[[], Params | None],
    settings: Settings,
    rng: np.random.RandomState,
) -> StreamUpdate:
    """The stream after a pass of steps over the new rows, with those that wait; of too few it waits for more."""
    is_auto, state, asked = settings.solver == "auto", stream.solver_state, settings.learning_rate
    is_same = stream.objective in ((), _objective_of(problem))
    if state is not None and not is_auto and asked == stream.learning_rate and is_same:
        settings = settings._replace(learning_rate=state.rate)  # found from the first rows
    stream = stream._replace(learning_rate=asked, objective=_objective_of(problem))
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
        state = solver.init(problem, before() or prior_params(problem))
        if is_auto:
            batch_size = solver.batch_size or 1
            state = state._replace(step=-(-stream.n_fitted // batch_size))
            if stream.row_buffer is not None and stream.row_buffer.chunks:
                rows = concatenate_rows(list(stream.row_buffer.chunks))
                state = moments_from_rows(problem, state, rows, batch_size, full_gram=plan.info["metric"] == "gram")
    elif not is_auto:
        state = state._replace(rate=plan.info["learning_rate"])
    elif not is_same:  # the metric holds alpha
        state = state._replace(
            preconditioner=gram_preconditioner(problem, state.moments, batch_size=solver.batch_size or 1)
        )
    with np.errstate(over="ignore", invalid="ignore", divide="ignore", under="ignore"):
        state = one_pass(problem, solver, state, settings.shuffle, rng)
        if is_auto and not is_finite(state.params):  # raw predictions of the new rows overflow: begin anew
            state = one_pass(problem, solver, solver.init(problem, prior_params(problem)), settings.shuffle, rng)
    rate = plan.info["learning_rate"] if is_auto else state.rate  # "auto": that of each batch
    info = {
        "engine": choose_engine(settings.engine, problem.data.X),
        "solver": solver.name,
        **plan.info,
        "learning_rate": rate,
    }
    stream = stream._replace(solver_state=state, n_fitted=stream.n_samples, row_buffer=None, waiting=(), info=info)
    return StreamUpdate(stream, state.params, info, 1)
