"""Rows that saturate along a Newton step, and the decrease of F that the model overlooks because of them.

Called by the Newton solvers, the dual solver and the training loop before an estimate of F - F* may end a fit.

The quadratic model of a Newton step takes the curvature of a row for constant. But a row contributes no more than its
residual. Along a step the model changes the probabilities of a row linearly, and where one of them would leave
[0, 1], the row has no curvature any more. Until then, one outlying row can hold nearly all of the curvature along a
direction. The step and its predicted decrease are then tiny, however much F could fall for the other rows.
`saturate_step` finds the step of the model in which no probability leaves [0, 1]:

1. Linearise the probabilities along the step. Set those that would be negative to 0: they saturate.
2. Compute the gradient that the other probabilities have to make up for, the missed gradient. Estimate the decrease of
   F along it by the diagonal of their Hessian. Stop if this missed decrease is small. If the Hessian is that of all
   rows, further rows may saturate: stop only if the bound by the penalty is small as well, or if the duality gap is
   about that of the previous round.
3. Give up if the duality gap is negative.
4. Correct the step, by conjugate gradients (CG) with the Hessian of the probabilities that have not saturated, or by
   its Cholesky factor. Go to 1.

The linearised probabilities q are a feasible point of the dual of F if the step is solved exactly and over all rows.
Then ::

    F(W) - F* <= sum_i w_i KL(q_i || p_i) / sum_i w_i + alpha_2 / 2 ||step||^2

This is the duality gap of the Newton step (Boyd & Vandenberghe, 2004, Convex Optimization, 5.5.1). To second order in
the step it is half the squared Newton decrement. It holds however far F is from its quadratic model.
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

#: Largest number of rounds. Each round may let further rows saturate.
MAX_ROUNDS = 6

#: A missed decrease is small up to this fraction of the duality gap, or of the F - F* at which the fit may end.
_LITTLE = 0.1

#: The gaps of two rounds agree if they differ by at most this fraction of the larger gap, or of a small gap.
_AGREES = 0.5

#: Relative CG accuracy of a correction of the step.
_ACCURACY = 0.1

#: Largest number of Hessian products of such a correction.
_MAX_PRODUCTS = 50

#: Relative CG accuracy of a correction that is preconditioned by the Cholesky factor that the step was solved with.
_SOLVED = 1e-3

#: A Cholesky factor costs as much as one Hessian product for each group of this many unknowns.
_UNKNOWNS_PER_PRODUCT = 4

#: Rounding error of a change of a raw prediction, in units of machine epsilon. For an outlying row it may be as large
#: as F.
_ROUNDING = 4

#: Relative change of a probability below which the divergence is computed by its series. In float32 the difference of
#: its terms would have no digits left.
_SMALL = 1e-2


class Saturating(NamedTuple):
    """Engine whose probabilities are 0 if they saturate along ``direction``.

    The other probabilities of the row keep their ratios and sum to 1.
    """

    kernel: Kernel
    direction: Params

    def raw_prediction(self, params: Params, X: Any) -> Any:
        return self.kernel.raw_prediction(params, X)

    def proba(self, params: Params, X: Any) -> Any:
        """Return the probabilities with the saturated ones set to 0, (n_outputs, n)."""
        rounded = self.kernel.proba(params, X)
        proba = exact(to_host(rounded))
        change = to_host(self.kernel.raw_prediction(self.direction, X)).astype(proba.dtype)
        return match_device(_saturate(proba, change).astype(proba.dtype if len(proba) == 1 else X.dtype), X)

    def hessian_product(self, proba: Any, direction: Params, X: Any, weight: Any, total: float) -> Params:
        return self.kernel.hessian_product(proba, direction, X, weight, total)

    def loss_grad(self, params: Params, X: Any, y: Any, weight: Any, total: float) -> tuple[Any, Params]:
        raise NotImplementedError("probabilities that saturate have no losses")


class _LinearizedSums(NamedTuple):
    """Engine whose ``loss_grad`` sums the linearised probabilities along a step.

    It lets a ``DataSource`` compute these sums as it computes a loss and its gradient.

    Attributes
    ----------
    kernel : Kernel
        Engine of F.
    before : Kernel
        Engine that the step was solved for.
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
        """Return the divergence of the linearised probabilities minus the first-order change of F, and gradients.

        ``params`` holds the parameters and, in the rows below them, the step. The returned rows hold two gradients:

        - first, of the difference between the linearised probabilities and those of F;
        - below, of their difference from the linearised probabilities of the engine that the step was solved for.

        The intercept part has a third block, the curvature along each intercept.
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
    """Return the parameters in the upper half of the rows, and those in the lower half."""
    n = len(both.coef) // 2
    return Params(both.coef[:n], both.intercept[:n]), Params(both.coef[n:], both.intercept[n : 2 * n])


def _linearize(proba: Any, change: Any) -> Any:
    """Return the probabilities, (n_outputs, n), after a first-order change of the raw predictions by ``change``."""
    if len(proba) == 1:
        return proba + proba * (1 - proba) * change
    return proba + proba * (change - (proba * change).sum(axis=0))


def _saturate(proba: Any, change: Any) -> Any:
    """Set the probabilities to 0 that are negative to first order in ``change``, (n_outputs, n).

    The other probabilities of a row keep their ratios. With two classes, a probability whose complement saturates is 1.
    """
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
    """Return ``KL(reached || proba)`` of each row, (n,).

    This is ``sum_k p ((1 + e) log(1 + e) - e)`` with e the relative change of the probability p.
    """
    if len(proba) == 1:
        return _divergence(reached[0], proba[0]) + _divergence(1 - reached[0], 1 - proba[0])
    return _divergence(reached, proba).sum(axis=0)


def _divergence(reached: Any, proba: Any) -> Any:
    """Return ``p ((1 + e) log(1 + e) - e)``, by its series for small e."""
    tiny = float(np.finfo(proba.dtype).tiny)
    e = np.maximum(reached / np.maximum(proba, tiny) - 1, -1.0)
    series = e * e * (0.5 - e * (1 / 6 - e / 12))
    return proba * np.where(np.abs(e) < _SMALL, series, (1 + e) * np.log(np.maximum(1 + e, tiny)) - e)


class _SumPreconditioner(NamedTuple):
    """Sum of two preconditioners.

    One is for the curvature without saturation, the other for the curvature that remains after it.
    """

    first: Preconditioner
    second: Preconditioner

    def apply(self, grads: Params) -> Params:
        """Return the sum of both preconditioners applied to ``grads``."""
        return add_scaled(self.first.apply(grads), 1.0, self.second.apply(grads))


class SaturationCheck(NamedTuple):
    """Duality gap of a step, and what the model overlooks.

    Attributes
    ----------
    gap : float
        Duality gap of the linearised probabilities, without the part due to ``missed_gradient``.
    missed_gradient : Params
        Gradient of the model at the end of the step once rows have saturated.
    missed_decrease : float
        Estimate of the decrease of F along ``missed_gradient``, or a bound on it.
    new : Params
        Part of the missed gradient due to rows that have saturated since the previous check.
    kernel : Kernel
        Engine for which rows saturate along the step.
    """

    gap: float
    missed_gradient: Params
    missed_decrease: float
    new: Params
    kernel: Kernel

    def is_negligible(self, allowed: float) -> bool:
        """Return whether the missed decrease is small; ``allowed`` is the F - F* at which the fit may end."""
        return self.missed_decrease <= _LITTLE * max(self.gap, allowed) and self.gap >= -_LITTLE * allowed

    def agrees_with(self, previous: SaturationCheck | None, allowed: float) -> bool:
        """Return whether the previous round found about the same gap, or both gaps are small."""
        if previous is None:
            return False
        little = _LITTLE * max(self.gap, allowed)
        return abs(self.gap - previous.gap) <= _AGREES * max(self.gap, previous.gap, little)

    def is_confirmed(self, previous: SaturationCheck | None, bound: float, allowed: float) -> bool:
        """Return whether ``bound`` on the missed decrease is small, or the previous round found about the same gap."""
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
    """Linearise the probabilities along ``step``, and compute what the model overlooks.

    Parameters
    ----------
    problem : Problem
    params : Params
        Start of the step.
    evaluation : Evaluation
        F and its gradient at ``params``.
    rows : Batch or None
        Rows of the model's Hessian, with weights that sum to about 1; None for all rows.
    step : Params
        End of the step minus ``params``.
    before : Kernel
        Engine that the step was solved for.
    allowed : float
        F - F* at which the fit may end.
    is_exact : bool
        Whether the gradient of the model should be 0 at the end of the step. This is so if F is smooth and the Hessian
        is that of all rows. Then all of the remaining gradient counts as missed. Otherwise only the part counts that is
        due to rows saturated since ``before``.
    previous : SaturationCheck or None
        Check of the previous round.

    Returns
    -------
    SaturationCheck
        ``missed_decrease`` is a bound by the penalty if that bound is small, or if ``is_exact`` and the gap does not
        agree with the gap of the previous round. Otherwise it is estimated, which takes another pass.
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
    """Return ``rows``, or all rows in memory if None, with weights that sum to about 1."""
    return normalize_weights(problem.data) if rows is None else rows


def _penalty_bound(problem: Problem, value: float, gradient: Params) -> float:
    """Bound the decrease of the minimum of F if ``gradient``, by the coefficients, is added to F.

    The bound uses the penalty alone. It follows from the strong convexity of the L2 term, or from the L1 norm of any
    minimum, which is limited because F there is at most F at 0.
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
    """Correct the Newton step of a smooth F for the saturation of rows; its decrease becomes the duality gap.

    The steps are numbered in the module docstring.

    Parameters
    ----------
    problem, params, evaluation, rows
        See `check_saturation`.
    newton : NewtonStep
        Newton step without regard to saturation.
    preconditioner : Preconditioner
        Preconditioner of CG. If the step was solved by a Cholesky factor, this factor.
    allowed : float
        F - F* at which the fit may end.
    factorise : callable or None
        ``problem -> preconditioner``: factorises the Hessian, if the step was solved by a factor. Called only if CG,
        preconditioned by the old factor, does not converge at the same cost.

    Returns
    -------
    NewtonStep
        ``newton``, or a corrected step. If the rounds do not converge, the step tried that decreases F the most, with
        ``cg_remainder`` inf.
    """
    is_exact = rows is None or len(rows.y) == problem.n_total_samples
    part = _in_memory(problem, rows)
    found, kernel, tried = newton, problem.kernel, [newton]
    before: SaturationCheck | None = None
    for _ in range(MAX_ROUNDS):
        # 1.
        seen = check_saturation(
            *(problem, params, evaluation, rows, found.direction, kernel, allowed), is_exact=is_exact, previous=before
        )
        # 2.
        certified = max(seen.gap, newton.decrease)
        found = found._replace(decrease=certified, cg_remainder=max(found.cg_remainder, seen.missed_decrease))
        if seen.is_negligible(allowed):
            # a factor leaves no gradient of the model, but CG leaves some by its accuracy: count only the new part
            left = seen.new if factorise is None else seen.missed_gradient
            bound = _penalty_bound(problem, evaluation.value, left) if is_exact else 0.0
            if seen.is_confirmed(before, bound, allowed):
                return _checked_by_all_rows(problem, params, evaluation, rows, found, kernel, seen, allowed)
        # 3. a gap so negative is no duality gap: further corrections do not help
        if seen.gap < -allowed:
            break
        # 4.
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
    """Check the step by all rows as well, if memory holds only some of them.

    ``cg_remainder`` becomes inf if rows outside memory saturate along the step. An outlying row may be among the rows
    that the step was solved for, or among the others. Either hides how much F can decrease.
    """
    if rows is None or problem.data_source is None:
        return found
    of_all = check_saturation(
        *(problem, params, evaluation, None, found.direction, kernel, allowed), is_exact=True, previous=seen
    )
    remainder = max(found.cg_remainder, of_all.missed_decrease) if of_all.is_negligible(allowed) else np.inf
    return found._replace(decrease=max(found.decrease, of_all.gap), cg_remainder=remainder)


def _value_after(problem: Problem, params: Params, step: Params) -> float:
    """Return F at the end of a step; inf if it is not finite."""
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
    """Return the Newton direction by all rows, corrected for saturation."""
    hessian = hessian_products(problem, params)
    newton = conjugate_gradients(hessian, evaluation.grads, preconditioner, accuracy, max_products)
    return saturate_step(problem, params, evaluation, None, newton, preconditioner, allowed)
