"""Fit a path of penalties, each model started from the models before it, and score each on held-out rows.

`SoftmaxClassifierCV` calls `path` once for each fold and each `l1_ratio`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from sksoftmax._data.batches import row_order
from sksoftmax._maths.objective import loss, objective_value, penalty, prior_params, shift_intercept
from sksoftmax._solvers.first_steps import has_first_steps
from sksoftmax._training.fit import NO_MONITOR, PreparedProblem, minimize_prepared, prepare
from sksoftmax._training.loop import Result, StoppingCriteria
from sksoftmax._training.plan import use_dual
from sksoftmax._training.settings import Settings
from sksoftmax._types import Array, Batch, Params, Problem, interpolate

#: Tolerance of the models on a path, as a fraction of the generalization gap: held-out loss minus training loss. The
#: gap is about twice the estimation error, so the remaining excess of F is negligible next to it (Bottou & Bousquet
#: 2008, The tradeoffs of large scale learning, NeurIPS 20, sec. 3).
_GAP_FRACTION = 0.1

#: Largest tolerance of the models on a path. On separable rows F is close to 0, and a tolerance of a multiple of F
#: would leave the coefficients undetermined.
_MAX_TOL = 0.03

#: Maximum number of rows on which two starting points are compared.
_N_COMPARED = 2000


class PathPoint(NamedTuple):
    """A model of the path.

    Attributes
    ----------
    params : Params
    score : float
        Score on the held-out rows.
    tol : float
        Tolerance of the next model: a relative excess of F.
    is_fitted : bool
        Whether F is within the requested tolerance of its minimum.
    n_epochs : int
    """

    params: Params
    score: float
    tol: float
    is_fitted: bool
    n_epochs: int


def path(
    prepared: PreparedProblem,
    held_out: Batch,
    alphas: Array,
    settings: Settings,
    criteria: StoppingCriteria,
    *,
    score: Callable[[Params], float],
    n_no_change: int | None,
    rng: np.random.RandomState,
) -> list[PathPoint]:
    """Return the models of ``alphas``, in their order; fewer if the score stops rising.

    Parameters
    ----------
    prepared : PreparedProblem
        The training rows; its alpha is not used.
    held_out : Batch
        The held-out rows, in the columns (not centered) and classes of ``prepared.problem``; may be empty.
    alphas : ndarray of shape (n_alphas,)
        Decreasing.
    settings, criteria
        As for a single fit; ``criteria.tol`` is the smallest tolerance of the models.
    score : callable
        Maps parameters to a score, higher is better.
    n_no_change : int or None
        The path ends after this number of models without a better score; None for the full path.
    """
    if prepared.problem.n_classes == 1:  # there is nothing to fit
        params = Params(np.zeros((1, prepared.problem.n_features)), np.zeros(1))
        return [PathPoint(params, score(params), criteria.tol, True, 1)] * len(alphas)
    points: list[PathPoint] = []
    for i, alpha in enumerate(alphas):
        settings = settings if prepared.moments is None else _without_dual(settings)
        prepared = prepared._replace(problem=prepared.problem._replace(alpha=float(alpha)))
        if prepared.moments is None and not use_dual(prepared.problem, settings):
            prepared = prepare(prepared.problem, settings)
        tol = points[-1].tol if points else criteria.tol
        start = _start(prepared, points, alphas[: i + 1], rng)
        result, _ = minimize_prepared(
            *(prepared, start, settings._replace(tol=tol), criteria._replace(tol=tol)),
            is_warm=bool(points),
            rng=rng,
            monitor=NO_MONITOR,
            allow_estimate=bool(points),
        )
        prepared = prepared._replace(path_cache=result.path_cache)
        next_tol = max(criteria.tol, min(_MAX_TOL, _GAP_FRACTION * _relative_gap(prepared.problem, held_out, result)))
        is_fitted = result.excess <= tol
        points.append(PathPoint(result.params, score(result.params), next_tol, is_fitted, len(result.loss_curve)))
        if prepared.moments is None and "+" in result.solver:  # another solver had to finish
            settings = _without_dual(settings)
        scores = [point.score for point in points]
        if n_no_change is not None and len(points) - 1 - int(np.argmax(scores)) >= n_no_change:
            break
    return points


def _relative_gap(problem: Problem, held_out: Batch, result: Result) -> float:
    """Return held-out loss minus training loss, relative to F; 0 if no rows are held out or F is not positive."""
    if len(held_out.y) == 0:
        return 0.0
    value = result.loss_curve[-1]
    training_loss = value - penalty(result.params.coef, problem.alpha, problem.l1_ratio)[0]
    held_out_loss = loss(problem._replace(data=held_out), result.params) / float(held_out.weight.sum())
    return (held_out_loss - training_loss) / value if value > 0 else 0.0


def _without_dual(settings: Settings) -> Settings:
    """Return the settings without the dual solver."""
    return settings._replace(use_dual=False)


def _start(prepared: PreparedProblem, points: Sequence[PathPoint], alphas: Array, rng: np.random.RandomState) -> Params:
    """Return the start of the fit for the last of ``alphas``.

    It is the class priors for the first model. It is the last model for the second one, for L1 penalties, and where the
    first Newton steps take less time than a comparison. Otherwise it is a linear extrapolation of the last two models
    over log(alpha), if F is lower there than at the last model. F is compared on a random subsample.
    """
    problem, column_offset = prepared.problem, prepared.column_offset
    if not points:
        return shift_intercept(prior_params(problem), column_offset, -1.0)
    last = points[-1].params
    if len(points) == 1 or problem.l1_ratio or has_first_steps(problem):  # an extrapolation would not keep zeros
        return last
    step = np.log(alphas[-1] / alphas[-3]) / np.log(alphas[-2] / alphas[-3]) if alphas[-1] else 1.0
    extrapolated = interpolate(points[-2].params, float(step), last)
    rows = row_order(problem.n_samples, rng, shuffle=True)[:_N_COMPARED]
    problem = problem._replace(data=Batch(*(column[rows] for column in problem.data)))
    starts = (last, extrapolated)
    return min(starts, key=lambda params: objective_value(problem, shift_intercept(params, column_offset, 1.0)))
