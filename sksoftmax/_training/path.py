"""A path of penalties: each model from those before it, and judged on rows that are held out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from sksoftmax._data.batches import row_order
from sksoftmax._maths.objective import loss, objective_value, penalty, prior_params, shift_intercept
from sksoftmax._training.fit import NO_MONITOR, PreparedProblem, minimize_prepared, prepare
from sksoftmax._training.loop import Result, Rules
from sksoftmax._training.plan import Settings, use_dual
from sksoftmax._types import Array, Batch, Params, Problem, interpolate

#: Excess of F that a path's models may be left with, as a share of what the loss on the rows held out exceeds that on
#: the rows of the fit by: that is about twice what the model is off for having seen some rows only, next to which what
#: is left of F does not count (Bottou & Bousquet 2008, The tradeoffs of large scale learning, NeurIPS 20, sec. 3). And
#: at most: where rows can be told apart F is next to 0, and a multiple of it would leave the coefficients anywhere.
_OF_ESTIMATION, _MOST = 0.1, 0.03

#: Rows by which starts are compared, at most.
_N_COMPARED = 2000


class PathPoint(NamedTuple):
    """A model of the path.

    Attributes
    ----------
    params : Params
    score : float
        On the rows held out.
    tol : float
        Excess of F that the next model may be left with.
    is_fitted : bool
        Whether F is as near its minimum as was asked for.
    n_epochs : int
    """

    params: Params
    score: float
    tol: float
    is_fitted: bool
    n_epochs: int


def path(
    prepared: PreparedProblem,
    held: Batch,
    alphas: Array,
    settings: Settings,
    rules: Rules,
    *,
    score: Callable[[Params], float],
    n_no_change: int | None,
    rng: np.random.RandomState,
) -> list[PathPoint]:
    """The models of ``alphas``, in their order; fewer if the score stops rising.

    Parameters
    ----------
    prepared : Ready
        The rows to train on; its alpha is not used.
    held : Batch
        The rows held out, of the columns and classes of ``prepared.problem``, means and all; there may be none.
    alphas : ndarray of shape (n_alphas,)
        Falling.
    settings, rules
        Of a fit of its own; ``rules.tol`` is the least excess that the models are fitted to.
    score : callable
        Of parameters, higher is better.
    n_no_change : int or None
        Models without a better score after which the path ends; None for all.
    """
    if prepared.problem.n_classes == 1:  # there is nothing to fit
        params = Params(np.zeros((1, prepared.problem.n_features)), np.zeros(1))
        return [PathPoint(params, score(params), rules.tol, True, 1)] * len(alphas)
    points: list[PathPoint] = []
    for i, alpha in enumerate(alphas):
        settings = settings if prepared.moments is None else _without_dual(settings)
        prepared = prepared._replace(problem=prepared.problem._replace(alpha=float(alpha)))
        if prepared.moments is None and not use_dual(prepared.problem, settings):
            prepared = prepare(prepared.problem, settings)
        tol = points[-1].tol if points else rules.tol
        start = _start(prepared, points, alphas[: i + 1], rng)
        result, _ = minimize_prepared(
            *(prepared, start, settings._replace(tol=tol), rules._replace(tol=tol)),
            is_warm=bool(points),
            rng=rng,
            monitor=NO_MONITOR,
            allow_estimate=bool(points),
        )
        prepared = prepared._replace(path_cache=result.path_cache)
        next_tol = max(rules.tol, min(_MOST, _OF_ESTIMATION * _estimation_tol(prepared.problem, held, result)))
        is_fitted = result.excess <= tol
        points.append(PathPoint(result.params, score(result.params), next_tol, is_fitted, len(result.loss_curve)))
        if prepared.moments is None and "newton" in result.solver:
            settings = _without_dual(settings)
        scores = [point.score for point in points]
        if n_no_change is not None and len(points) - 1 - int(np.argmax(scores)) >= n_no_change:
            break
    return points


def _estimation_tol(problem: Problem, held: Batch, result: Result) -> float:
    """What the loss on rows held out exceeds that on the rows of the fit by, relative to F; 0 without such rows."""
    if len(held.y) == 0:
        return 0.0
    reached = result.loss_curve[-1]
    if len(held.y) == 0:
        return 0.0
    seen = reached - penalty(result.params.coef, problem.alpha, problem.l1_ratio)[0]
    unseen = loss(problem._replace(data=held), result.params) / float(held.weight.sum())
    return (unseen - seen) / reached if reached > 0 else 0.0


def _without_dual(settings: Settings) -> Settings:
    return settings._replace(engine="vectorized") if settings.engine != "naive" else settings


def _start(prepared: PreparedProblem, points: Sequence[PathPoint], alphas: Array, rng: np.random.RandomState) -> Params:
    """Where the model of the last of ``alphas`` starts: on the line through the last two, if F is less there.

    (A line over the logarithm of alpha; and F of some of the rows, drawn at random.)
    """
    problem, column_offset = prepared.problem, prepared.column_offset
    if not points:
        return shift_intercept(prior_params(problem), column_offset, -1.0)
    last = points[-1].params
    if len(points) == 1 or problem.l1_ratio:  # along a line zeros would not stay
        return last
    share = np.log(alphas[-1] / alphas[-3]) / np.log(alphas[-2] / alphas[-3]) if alphas[-1] else 1.0
    ahead = interpolate(points[-2].params, float(share), last)
    some = row_order(problem.n_samples, rng, shuffle=True)[:_N_COMPARED]
    problem = problem._replace(data=Batch(*(column[some] for column in problem.data)))
    return min((last, ahead), key=lambda params: objective_value(problem, shift_intercept(params, column_offset, 1.0)))
