"""What ``partial_fit`` does with the rows of a call: a new fit to those it keeps, or steps on the new ones.

A stream's rows are kept while they are few (`KEPT_SIZE` bytes), and the model is fitted to all of them whenever those
that it has not seen say that it must: one look at each row does not lead within a few per cent of F's minimum where F
is small. A longer stream goes on by schedule-free steps, each row seen once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from sksoftmax._fit import SILENT, minimum
from sksoftmax._narrow import widened
from sksoftmax._objective import class_weights, loss, penalty, prior_params
from sksoftmax._pieces import copied, joined, n_bytes
from sksoftmax._plan import Settings, choose_engine, choose_for_stream, rows_of_a_step
from sksoftmax._solvers.schedule_free import known_from
from sksoftmax._train import Rules, one_pass
from sksoftmax._types import Array, Batch, Params, Problem

#: Bytes of X that are kept.
KEPT_SIZE = 2**28

#: Excess to which the rows kept are fitted; and that of the fit over all rows, as far as the new ones tell, from which
#: the model is fitted again.
_TOL, _STALE = 1e-2, 2e-2

#: New rows, as a share of those in the last fit, before which there is no other, and after which there is. The former
#: makes all fits of a stream cost 1 / share + 1 times the last.
_LEAST_GROWTH, _MOST_GROWTH = 0.25, 1.0

#: Operations of a pass below which a fit costs its calls, however few the rows, and may come sooner.
_LITTLE_WORK = 2**20


class Kept(NamedTuple):
    """The rows of a stream, and how well the model knows them.

    Attributes
    ----------
    pieces : tuple of Batch
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
    """

    pieces: tuple[Batch, ...] = ()
    seen: Array = np.empty(0, dtype=np.intp)
    n_learned: int = 0
    value: float = 0.0
    loss: float = 0.0
    surplus: float = 0.0
    params: Params | None = None
    info: dict[str, object] = {}
    n_epochs: int = 0

    @property
    def n_bytes(self) -> int:
        return sum(n_bytes(piece.X) for piece in self.pieces)

    @property
    def n_samples(self) -> int:
        return _n_rows(self.pieces)


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
    kept : Kept or None
        None where rows are not kept, or no longer.
    waiting : tuple of Batch
        Rows that are too few for a step of "auto", in pieces as those kept.
    info : dict
        Of the last step.
    """

    solver: str
    has_l1: bool
    learning_rate: float | None
    solver_state: Any
    n_samples: int
    weight: float
    n_fitted: int
    kept: Kept | None
    waiting: tuple[Batch, ...] = ()
    info: dict[str, object] = {}

    def has_other_targets(self, y: Array) -> bool:
        """Whether the rows in memory have a table of targets, and ``y`` codes; or the other way round."""
        pieces = (*(self.kept.pieces if self.kept else ()), *self.waiting)
        return bool(pieces) and pieces[0].y.ndim != y.ndim


class Advance(NamedTuple):
    """Where the rows of a call have led; ``params`` are None where they stay what they were."""

    stream: Stream
    params: Params | None
    info: dict[str, object]
    n_epochs: int


def begun(settings: Settings, *, has_l1: bool, n_samples: int, weight: float) -> Stream:
    """A stream after ``n_samples`` rows that are not kept."""
    kept = Kept() if _keeps_rows(settings) and n_samples == 0 else None
    return Stream(settings.solver, has_l1, settings.learning_rate, None, n_samples, weight, n_samples, kept)


def advanced(
    stream: Stream,
    problem: Problem,
    before: Callable[[], Params | None],
    settings: Settings,
    rng: np.random.RandomState,
) -> Advance:
    """The stream after the rows of ``problem``; ``before`` tells the parameters so far, None at its beginning."""
    has_l1 = problem.l1_ratio > 0
    data = problem.data
    n_samples, weight = stream.n_samples + len(data.y), stream.weight + float(data.weight.sum())
    problem = problem._replace(mean_weight=weight / n_samples)
    if (stream.solver, stream.has_l1) != (settings.solver, has_l1):
        stream = stream._replace(solver=settings.solver, has_l1=has_l1, solver_state=None)
    stream = stream._replace(n_samples=n_samples, weight=weight)
    if stream.kept is not None and _keeps_rows(settings) and stream.kept.n_bytes + n_bytes(data.X) <= KEPT_SIZE:
        kept = _learned(stream.kept, problem, settings, rng)
        kept_info = {"kept": f"{n_samples} rows, {kept.n_learned} of them in the last fit"}
        info = {"engine": choose_engine(settings.engine, data.X), **kept.info, **kept_info}
        learned = None if kept.params is stream.kept.params else kept.params
        return Advance(stream._replace(kept=kept, n_fitted=n_samples), learned, info, kept.n_epochs)
    return _stepped(stream, problem, before, settings, rng)


def _keeps_rows(settings: Settings) -> bool:
    return settings.keep_rows and settings.solver == "auto" and settings.half_life == np.inf


# --- rows that are kept -----------------------------------------------------------------------------------


def _learned(kept: Kept, problem: Problem, settings: Settings, rng: np.random.RandomState) -> Kept:
    """The rows with the new ones, and fitted again if these ask for it."""
    data = problem.data
    seen = np.union1d(kept.seen, np.flatnonzero(class_weights(problem)))
    has_new_class = len(seen) > len(kept.seen)
    kept = kept._replace(pieces=_added(kept.pieces, copied(data)), seen=seen)
    if has_new_class or kept.params is None:
        return _fitted(kept, problem, settings, rng)
    surplus = loss(problem, kept.params) - float(data.weight.sum()) * kept.loss
    kept = kept._replace(surplus=kept.surplus + surplus)
    return _fitted(kept, problem, settings, rng) if _is_due(kept, problem.mean_weight) else kept


def _is_due(kept: Kept, mean_weight: float) -> bool:
    """Whether the new rows ask for another fit.

    Over all rows F at the parameters is ``value + surplus / weight``, and F's minimum, about, ``value``.
    """
    n_new = kept.n_samples - kept.n_learned
    if n_new >= _MOST_GROWTH * kept.n_learned:
        return True
    is_stale = kept.surplus >= _STALE * kept.value * kept.n_samples * mean_weight
    assert kept.params is not None
    work = 4 * kept.n_learned * kept.params.coef.size
    return is_stale and n_new >= _LEAST_GROWTH * min(1.0, work / _LITTLE_WORK) * kept.n_learned


def _fitted(kept: Kept, problem: Problem, settings: Settings, rng: np.random.RandomState) -> Kept:
    """The rows, with the parameters that minimise F over them."""
    rows = joined(list(kept.pieces))
    problem = problem._replace(data=rows)
    start = prior_params(problem) if kept.params is None else kept.params
    rules = Rules(settings.max_iter, _TOL, None, 1)
    is_warm = bool(start.coef.any())
    result, info = minimum(
        *(problem, start, settings._replace(tol=_TOL), rules), is_warm=is_warm, rng=rng, watch=SILENT
    )
    fitted, info = result.params, {"solver": result.solver, **info}
    mean_loss = loss(problem, fitted) / float(rows.weight.sum())
    value = float(mean_loss + penalty(fitted.coef, problem.alpha, problem.l1_ratio)[0])
    return Kept((rows,), kept.seen, len(rows.y), value, mean_loss, 0.0, fitted, info, len(result.loss_curve))


def _n_rows(pieces: tuple[Batch, ...]) -> int:
    return sum(len(piece.y) for piece in pieces)


def _added(pieces: tuple[Batch, ...], piece: Batch) -> tuple[Batch, ...]:
    while pieces and len(pieces[-1].y) < 2 * len(piece.y):
        pieces, piece = pieces[:-1], joined([pieces[-1], piece])
    return (*pieces, piece)


def with_classes(stream: Stream, places: Array, n_classes: int, *, has_l1: bool, has_intercept: bool) -> Stream:
    """The stream with more classes, the old ones at ``places``; averages and a named solver's state start anew."""
    kept, state = stream.kept, stream.solver_state

    def wide(params: Params) -> Params:
        return widened(params, places, n_classes, stream.n_samples, has_l1=has_l1, has_intercept=has_intercept)

    if kept is not None and kept.params is not None:
        pieces = tuple(piece._replace(y=places[piece.y]) for piece in kept.pieces)
        kept = kept._replace(pieces=pieces, seen=places[kept.seen], params=wide(kept.params))
    waiting = tuple(piece._replace(y=places[piece.y]) for piece in stream.waiting)
    if state is not None:
        start = wide(state.params)
        state = state._replace(params=start, iterate=start, step=0) if stream.solver == "auto" else None
    return stream._replace(kept=kept, solver_state=state, n_fitted=0, waiting=waiting)


# --- rows that are not ------------------------------------------------------------------------------------


def _stepped(
    stream: Stream,
    problem: Problem,
    before: Callable[[], Params | None],
    settings: Settings,
    rng: np.random.RandomState,
) -> Advance:
    """The stream after a pass of steps over the new rows, with those that wait; of too few it waits for more."""
    is_auto, state, asked = settings.solver == "auto", stream.solver_state, settings.learning_rate
    if state is not None and not is_auto and asked == stream.learning_rate:
        settings = settings._replace(learning_rate=state.rate)  # found from the first rows
    stream = stream._replace(learning_rate=asked)
    may_wait = is_auto and state is not None
    if may_wait or stream.waiting:
        waiting = _added(stream.waiting, copied(problem.data))
        n_waiting = _n_rows(waiting)
        if may_wait and n_waiting < rows_of_a_step(problem, settings, stream.n_samples - n_waiting):
            info = {**stream.info, "waiting": f"{n_waiting} rows, too few for a step"}
            return Advance(stream._replace(waiting=waiting), None, info, 1)
        problem = problem._replace(data=joined(list(waiting)))
    plan = choose_for_stream(problem, settings, getattr(state, "stats", None))
    solver = plan.stages[0].solver
    if state is None:
        state = solver.init(problem, before() or prior_params(problem))
        if is_auto:
            batch_size = solver.batch_size or 1
            state = state._replace(step=-(-stream.n_fitted // batch_size))
            if stream.kept is not None and stream.kept.pieces:
                rows = joined(list(stream.kept.pieces))
                state = known_from(problem, state, rows, batch_size, whole=plan.info["metric"] == "gram")
    elif not is_auto:
        state = state._replace(rate=plan.info["learning_rate"])
    with np.errstate(over="ignore", invalid="ignore", divide="ignore", under="ignore"):
        state = one_pass(problem, solver, state, settings.shuffle, rng)
    rate = plan.info["learning_rate"] if is_auto else state.rate  # "auto": that of each batch
    info = {
        "engine": choose_engine(settings.engine, problem.data.X),
        "solver": solver.name,
        **plan.info,
        "learning_rate": rate,
    }
    stream = stream._replace(solver_state=state, n_fitted=stream.n_samples, kept=None, waiting=(), info=info)
    return Advance(stream, state.params, info, 1)
