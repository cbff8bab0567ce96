"""Rows that saturate along a step, and what F may fall by once they have.

Newton's model takes a row's curvature for constant. But a row has no more to give than its residual: along a step the
model changes its probabilities linearly, and where one of them would leave [0, 1] the row has no curvature any more.
One outlying row can hold nearly all of the curvature along a direction until then; the step, and the decrease that the
model predicts, are tiny, whatever the other rows could gain. `saturate_step` finds the step of the model in which no
probability leaves [0, 1], as follows:

1. Linearise the probabilities along the step. Those that would be negative are 0 from now on: they saturate.
2. What the others have to make up for is a gradient. Its decrease, estimated by the diagonal of their Hessian, is
   what the model overlooks. Stop if that is little. If the Hessian is that of all rows, the bound that the penalty
   gives has to be little as well, or the gap that of the round before: further rows may saturate. Give up if the gap
   is negative.
3. Correct the step by conjugate gradients with the Hessian of what has not saturated, or by its factor, and go to 1.

The linearised probabilities q are a feasible point of F's dual, so that, solved exactly and over all rows, ::

    F(W) - F* <= sum_i w_i KL(q_i || p_i) / sum_i w_i + alpha_2 / 2 ||step||^2

the duality gap of Newton's step (Boyd & Vandenberghe, 2004, Convex Optimization, 5.5.1; to second order in the step
half the squared Newton decrement). It holds however far F is from its quadratic model.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from sksoftmax._engines.device import match_device, to_host
from sksoftmax._maths.curvature import diagonal, exact, ratio, shared_decrease, spreads
from sksoftmax._maths.newton_direction import NewtonStep, conjugate_gradients
from sksoftmax._maths.objective import hessian_products, loss_grad, penalty, total_weight, value_and_grad
from sksoftmax._maths.preconditioner import Preconditioner
from sksoftmax._types import (
    Batch,
    Evaluation,
    Kernel,
    Params,
    Problem,
    add_scaled,
    dot,
    is_finite,
    normalize_weights,
    scale_params,
)

#: Rounds of steps, each of which lets further rows saturate.
MAX_ROUNDS = 6

#: A round is the last if the model overlooks at most this share of what it predicts, or of what F may be off by.
_LITTLE = 0.1

#: Two rounds agree if their gaps differ by at most this fraction of the larger, or of a little.
_AGREES = 0.5

#: Accuracy, and products, of a correction of the step.
_ACCURACY, _MAX_PRODUCTS = 0.1, 50

#: Accuracy of a correction by conjugate gradients that are preconditioned by the factor that the step was solved with.
_SOLVED = 1e-3

#: A factor costs as much as one Hessian product for this many unknowns.
_UNKNOWNS_PER_PRODUCT = 4

#: Rounding of a change of a raw prediction, in units of the last digit: of an outlying row it may be all that F has.
_ROUNDING = 4

#: Relative changes of a probability below which their divergence is summed as a series: float32 has no digits left.
_SMALL = 1e-2


class Saturating(NamedTuple):
    """An engine whose probabilities are those that do not saturate along ``direction``; those that do are 0."""

    kernel: Kernel
    direction: Params

    def raw_prediction(self, params: Params, X: Any) -> Any:
        return self.kernel.raw_prediction(params, X)

    def proba(self, params: Params, X: Any) -> Any:
        rounded = self.kernel.proba(params, X)
        proba = exact(to_host(rounded))
        change = to_host(self.kernel.raw_prediction(self.direction, X)).astype(proba.dtype)
        return match_device(_saturate(proba, change).astype(proba.dtype if len(proba) == 1 else X.dtype), X)

    def hessian_product(self, proba: Any, direction: Params, X: Any, weight: Any, total: float) -> Params:
        return self.kernel.hessian_product(proba, direction, X, weight, total)

    def loss_grad(self, params: Params, X: Any, y: Any, weight: Any, total: float) -> tuple[Any, Params]:
        raise NotImplementedError("there are no losses of probabilities that saturate")


class _LinearizedSums(NamedTuple):
    """In the place of an engine, what the linearised probabilities along a step add up to.

    ``kernel`` is F's engine, ``before`` the one that the step was solved for.
    """

    kernel: Kernel
    before: Kernel

    def raw_prediction(self, params: Params, X: Any) -> Any:
        raise NotImplementedError

    def proba(self, params: Params, X: Any) -> Any:
        raise NotImplementedError

    def hessian_product(self, proba: Any, direction: Params, X: Any, weight: Any, total: float) -> Params:
        raise NotImplementedError

    def loss_grad(self, params: Params, X: Any, y: Any, weight: Any, total: float) -> tuple[Any, Params]:
        """The divergence of the linearised probabilities, less what they change F by to first order.

        ``params`` are the parameters and, below them, the step. Two gradients, one above the other: of how they differ
        from F's probabilities, and of how from those that the step was solved for. Below those by the intercept its
        curvature.
        """
        params, step = _halves(params)
        proba, share = exact(to_host(self.kernel.proba(params, X))), to_host(weight) / total
        change = to_host(self.kernel.raw_prediction(step, X)).astype(proba.dtype)
        left = _saturate(proba, change)
        reached = _linearize(left, change)
        solved = proba if self.before is self.kernel else exact(to_host(self.before.proba(params, X)))
        moved = reached - proba
        linear = moved * change
        rounding = _ROUNDING * float(np.finfo(X.dtype).eps) * np.abs(linear)
        sums = _sum_divergences(reached, proba) - (linear - rounding).sum(axis=0)
        both = np.concatenate([moved, reached - _linearize(solved, change)]) * share
        intercept = np.concatenate([both.sum(axis=1), spreads(left) @ share])
        return float(sums @ share), Params(match_device(both, X) @ X, match_device(intercept, X))


def _halves(both: Params) -> tuple[Params, Params]:
    """Those in the upper rows, and those in the lower ones."""
    n = len(both.coef) // 2
    return Params(both.coef[:n], both.intercept[:n]), Params(both.coef[n:], both.intercept[n : 2 * n])


def _linearize(proba: Any, change: Any) -> Any:
    """Probabilities, (n_outputs, n), to first order after the raw predictions have changed."""
    if len(proba) == 1:
        return proba + proba * (1 - proba) * change
    return proba + proba * (change - (proba * change).sum(axis=0))


def _saturate(proba: Any, change: Any) -> Any:
    """The probabilities with those 0 that are negative to first order, and of the others the same ratios."""
    if len(proba) == 1:
        proba = np.where(1 + (1 - proba) * change < 0, 0.0, proba)
        return np.where(1 - proba * change < 0, 1.0, proba)
    for _ in range(len(proba)):
        is_spent = np.logical_and(1 + change - (proba * change).sum(axis=0) < 0, proba > 0)
        if not is_spent.any():
            return proba
        proba = np.where(is_spent, 0.0, proba)
        proba = proba / proba.sum(axis=0)
    return proba


def _sum_divergences(reached: Any, proba: Any) -> Any:
    """``KL(reached || proba)`` of each row, (n,): ``sum_k p ((1 + e) log(1 + e) - e)``, e the relative change."""
    if len(proba) == 1:
        return _divergence(reached[0], proba[0]) + _divergence(1 - reached[0], 1 - proba[0])
    return _divergence(reached, proba).sum(axis=0)


def _divergence(reached: Any, proba: Any) -> Any:
    tiny = float(np.finfo(proba.dtype).tiny)
    e = np.maximum(reached / np.maximum(proba, tiny) - 1, -1.0)
    series = e * e * (0.5 - e * (1 / 6 - e / 12))
    return proba * np.where(np.abs(e) < _SMALL, series, (1 + e) * np.log(np.maximum(1 + e, tiny)) - e)


class _SumPreconditioner(NamedTuple):
    """The sum of two preconditioners: of one for the curvature as it was, and of one for what is left of it."""

    first: Preconditioner
    second: Preconditioner

    def apply(self, grads: Params) -> Params:
        return add_scaled(self.first.apply(grads), 1.0, self.second.apply(grads))


class SaturationCheck(NamedTuple):
    """What saturation makes of a step.

    Attributes
    ----------
    gap : float
        The duality gap of the linearised probabilities; without the part of ``missed_gradient``.
    missed_gradient : Params
        What is left of the model's gradient at the end of the step, once rows have saturated.
    missed_decrease : float
        Estimate of the decrease along it, or a bound of it.
    new : Params
        That part of it which rows have left that have saturated anew.
    kernel : Kernel
        The engine for which rows saturate along the step.
    """

    gap: float
    missed_gradient: Params
    missed_decrease: float
    new: Params
    kernel: Kernel

    def is_negligible(self, allowed: float) -> bool:
        """Return whether the step brings about what it predicts, if F may be ``allowed`` above its minimum."""
        return self.missed_decrease <= _LITTLE * max(self.gap, allowed) and self.gap >= -_LITTLE * allowed

    def agrees_with(self, previous: SaturationCheck | None, allowed: float) -> bool:
        """Return whether the round before has come to the same gap, or both to a little one."""
        if previous is None:
            return False
        little = _LITTLE * max(self.gap, allowed)
        return abs(self.gap - previous.gap) <= _AGREES * max(self.gap, previous.gap, little)

    def is_confirmed(self, previous: SaturationCheck | None, bound: float, allowed: float) -> bool:
        """Return whether a bound of the decrease shows it as well, or the round before has come to the same."""
        return bound <= _LITTLE * max(self.gap, allowed) or self.agrees_with(previous, allowed)


def check_saturation(
    problem: Problem,
    params: Params,
    evaluation: Evaluation,
    rows: Batch | None,
    step: Params,
    before: Kernel,
    allowed: float,
    *,
    is_exact: bool,
    previous: SaturationCheck | None = None,
) -> SaturationCheck:
    """Linearise the probabilities along ``step``, and see what the model has overlooked.

    Parameters
    ----------
    problem, params, evaluation : Problem, Params, Evaluation
        F, where the step starts, and F and its gradient there.
    rows : Batch or None
        The rows of the model's Hessian, weights that sum to about 1; None for all.
    step : Params
        Where it leads, less ``params``.
    before : Kernel
        The engine that the step was solved for.
    allowed : float
        How far F may be above its minimum where the fit ends.
    is_exact : bool
        Whether the model's gradient should be 0 at the end: F is smooth, and the Hessian that of all rows. All that is
        left of it has then been missed, and otherwise only what has saturated since ``before``.
    previous : Check or None
        The check of the round before. If ``is_exact``, the gaps of the two rounds have to agree before the pass that
        estimates ``missed_decrease`` is worth its time; until then ``missed_decrease`` is the penalty's bound.
    """
    ridge = problem.alpha * (1 - problem.l1_ratio)
    part = problem if rows is None else problem._replace(data=rows, data_source=None)
    total = total_weight(problem) if rows is None else 1.0
    sums = loss_grad if part.data_source is None else part.data_source.loss_grad
    intercepts = np.concatenate([params.intercept, step.intercept, np.zeros(problem.n_outputs)])
    both = Params(np.concatenate([params.coef, step.coef]), intercepts)
    divergence, both = sums(part._replace(kernel=_LinearizedSums(problem.kernel, before)), both, total)
    if not problem.fit_intercept:
        both.intercept[:] = 0
    moved, new = _halves(both)
    grads, missed_gradient = evaluation.grads, new
    if is_exact:
        missed_gradient = add_scaled(moved, 1.0, grads._replace(coef=grads.coef + ridge * step.coef))
    end = params.coef + step.coef
    fall = penalty(params.coef, problem.alpha, problem.l1_ratio)[0] - penalty(end, problem.alpha, problem.l1_ratio)[0]
    gap = float(divergence + fall) - dot(grads, step) + ridge * float(np.vdot(params.coef, step.coef))
    kernel = Saturating(problem.kernel, step)
    of_intercept = ratio(missed_gradient.intercept**2, both.intercept[2 * problem.n_outputs :])
    bound = _penalty_bound(problem, evaluation.value, missed_gradient) + 0.5 * float(of_intercept.sum())
    seen = SaturationCheck(gap, missed_gradient, bound, new, kernel)
    if bound <= _LITTLE * allowed or (is_exact and not seen.agrees_with(previous, allowed)):
        return seen
    missed_decrease = shared_decrease(
        problem._replace(kernel=kernel), params, _in_memory(problem, rows), missed_gradient
    )
    return seen._replace(missed_decrease=missed_decrease)


def _in_memory(problem: Problem, rows: Batch | None) -> Batch:
    """The rows, or all in memory, with weights that sum to about 1."""
    return normalize_weights(problem.data) if rows is None else rows


def _penalty_bound(problem: Problem, value: float, gradient: Params) -> float:
    """A bound of what F's minimum falls by if a gradient by the coefficients is added to it, from the penalty alone.

    By its strong convexity, or as no minimum is further from 0 than the penalty lets F be at 0.
    """
    ridge, threshold = problem.alpha * (1 - problem.l1_ratio), problem.alpha * problem.l1_ratio
    squared = float(np.vdot(gradient.coef, gradient.coef))
    if squared == 0:
        return 0.0
    by_square = 0.5 * squared / ridge if ridge else np.inf
    return min(by_square, 2 * value * float(np.abs(gradient.coef).max()) / threshold if threshold else np.inf)


def saturate_step(
    problem: Problem,
    params: Params,
    evaluation: Evaluation,
    rows: Batch | None,
    newton: NewtonStep,
    preconditioner: Preconditioner,
    allowed: float,
    factorise: Callable[[Problem], Preconditioner] | None = None,
) -> NewtonStep:
    """The step of a smooth F with the saturation of rows taken into account, and the duality gap as its decrease.

    Parameters
    ----------
    problem, params, evaluation, rows
        See `check_saturation`.
    newton : Newton
        The step, without regard to saturation.
    preconditioner : Metric
        What conjugate gradients are preconditioned by; the factor, if the step was solved by one.
    allowed : float
        How far F may be above its minimum where the fit ends.
    factorise : callable or None
        ``problem -> preconditioner``: the factor of its Hessian, if that is how the step was solved. It is made where
        conjugate gradients, preconditioned by the old one, cost as much.

    Returns
    -------
    Newton
        ``newton``, or another step; where the rounds come to no end that at whose end F is least, with infinitely
        much ``cg_remainder``.
    """
    is_exact = rows is None or len(rows.y) == problem.n_total_samples
    part = _in_memory(problem, rows)
    found, kernel, tried = newton, problem.kernel, [newton]
    before: SaturationCheck | None = None
    for _ in range(MAX_ROUNDS):
        seen = check_saturation(
            *(problem, params, evaluation, rows, found.direction, kernel, allowed), is_exact=is_exact, previous=before
        )
        certified = max(seen.gap, newton.decrease)
        found = found._replace(decrease=certified, cg_remainder=max(found.cg_remainder, seen.missed_decrease))
        if seen.is_negligible(allowed):
            # a factor leaves nothing of the model's gradient, conjugate gradients as much as they are asked for
            left = seen.new if factorise is None else seen.missed_gradient
            bound = _penalty_bound(problem, evaluation.value, left) if is_exact else 0.0
            if seen.is_confirmed(before, bound, allowed):
                return _checked_by_all_rows(problem, params, evaluation, rows, found, kernel, seen, allowed)
        if seen.gap < -allowed:  # far from any duality gap: the corrections lead nowhere
            break
        before, kernel = seen, seen.kernel
        own = problem._replace(kernel=kernel)
        hessian = hessian_products(own, params, rows)
        if factorise is None:
            both = _SumPreconditioner(preconditioner, diagonal(own, params, part))
            correction = conjugate_gradients(hessian, seen.missed_gradient, both, _ACCURACY, _MAX_PRODUCTS)
        else:
            n_products = max(1, seen.missed_gradient.coef.size // _UNKNOWNS_PER_PRODUCT)
            correction = conjugate_gradients(hessian, seen.missed_gradient, preconditioner, _SOLVED, n_products)
            if not correction.cg_remainder <= _SOLVED * correction.decrease:
                correction = NewtonStep(
                    scale_params(-1.0, factorise(own).apply(seen.missed_gradient)), 0.0, 0.0, n_products
                )
        direction = add_scaled(found.direction, 1.0, correction.direction)
        if not is_finite(direction):
            break
        n_products = found.n_products + correction.n_products
        found = NewtonStep(direction, seen.gap, correction.cg_remainder, n_products)
        tried.append(found)
    best = min(tried, key=lambda one: _value_after(problem, params, one.direction))
    expected = max(evaluation.value - _value_after(problem, params, best.direction), newton.decrease)
    return NewtonStep(best.direction, expected, np.inf, found.n_products)


def _checked_by_all_rows(
    problem: Problem,
    params: Params,
    evaluation: Evaluation,
    rows: Batch | None,
    found: NewtonStep,
    kernel: Kernel,
    seen: SaturationCheck,
    allowed: float,
) -> NewtonStep:
    """The step, with infinitely much ``cg_remainder`` if rows that memory does not hold saturate along it.

    An outlying row may be among the rows that the step was solved for, or among the others; either hides what F can
    fall by.
    """
    if rows is None or problem.data_source is None:
        return found
    of_all = check_saturation(
        *(problem, params, evaluation, None, found.direction, kernel, allowed), is_exact=True, previous=seen
    )
    remainder = max(found.cg_remainder, of_all.missed_decrease) if of_all.is_negligible(allowed) else np.inf
    return found._replace(decrease=max(found.decrease, of_all.gap), cg_remainder=remainder)


def _value_after(problem: Problem, params: Params, step: Params) -> float:
    """F at the end of a step; inf if it is no number."""
    value = value_and_grad(problem, add_scaled(params, 1.0, step)).value
    return value if np.isfinite(value) else np.inf


def newton_step(
    problem: Problem,
    params: Params,
    evaluation: Evaluation,
    preconditioner: Preconditioner,
    allowed: float,
    accuracy: float,
    max_products: int,
) -> NewtonStep:
    """Newton's direction by all rows, their saturation taken into account."""
    hessian = hessian_products(problem, params)
    newton = conjugate_gradients(hessian, evaluation.grads, preconditioner, accuracy, max_products)
    return saturate_step(problem, params, evaluation, None, newton, preconditioner, allowed)
