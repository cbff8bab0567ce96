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
3. Give up if the duality gap is below minus the F - F* at which the fit may end.
4. Correct the step, by conjugate gradients (CG) with the Hessian of the probabilities that have not saturated, or by
   its Cholesky factor. Go to 1, at most `MAX_ROUNDS` times.
5. If memory holds only some of the rows, check the step by all rows as well.

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

from sksoftmax._engines import compiled
from sksoftmax._engines.device import match_device, to_host
from sksoftmax._maths.curvature import class_variances, exact_proba, hessian_diagonal, robust_decrease, safe_divide
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
_NEGLIGIBLE = 0.1

#: The gaps of two rounds agree if they differ by at most this fraction of the larger gap, or of a small gap.
_GAP_RTOL = 0.5

#: Relative CG accuracy of a correction of the step.
_CG_RTOL = 0.1

#: Largest number of Hessian products of such a correction.
_MAX_PRODUCTS = 50

#: Relative CG accuracy of a correction that is preconditioned by the Cholesky factor that the step was solved with.
_FACTOR_CG_RTOL = 1e-3

#: A Cholesky factor costs as much as one Hessian product for each group of this many unknowns.
_UNKNOWNS_PER_PRODUCT = 4

#: Rounding error of a change of a raw prediction, in units of machine epsilon. For an outlying row it may be as large
#: as F.
_ROUNDING = 4

#: Rounding error of the duality gap, a difference of terms as large as F, in units of machine epsilon times F.
_GAP_ROUNDING = 8

#: Relative change of a probability below which the divergence is computed by its series. In float32 the difference of
#: its terms would have no digits left.
_SERIES_BELOW = 1e-2


class Saturating(NamedTuple):
    """Engine whose probabilities are 0 if they saturate along ``direction``.

    The other probabilities of the row keep their ratios and sum to 1.
    """

    kernel: Kernel
    direction: Params

    @property
    def is_compiled(self) -> bool:
        return self.kernel.is_compiled

    def raw_prediction(self, params: Params, X: Any) -> Any:
        return self.kernel.raw_prediction(params, X)

    def proba(self, params: Params, X: Any) -> Any:
        """Return the probabilities with the saturated ones set to 0, (n_outputs, n)."""
        rounded = self.kernel.proba(params, X)
        proba = exact_proba(to_host(rounded))
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
    step_kernel : Kernel
        Engine that the step was solved for.
    """

    kernel: Kernel
    step_kernel: Kernel

    @property
    def is_compiled(self) -> bool:
        return self.kernel.is_compiled

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
        params, step = _split_halves(params)
        if self.kernel is compiled and self.step_kernel is compiled:
            proba, change = compiled.proba(params, X), compiled.raw_prediction(step, X)
            return compiled.linearize(proba, change, X, weight / total)
        proba, norm_weight = exact_proba(to_host(self.kernel.proba(params, X))), to_host(weight) / total
        change = to_host(self.kernel.raw_prediction(step, X)).astype(proba.dtype)
        unsaturated = _saturate(proba, change)
        linearized = _linearize(unsaturated, change)
        step_proba = (
            proba if self.step_kernel is self.kernel else exact_proba(to_host(self.step_kernel.proba(params, X)))
        )
        proba_change = linearized - proba
        linear = proba_change * change
        rounding = _ROUNDING * float(np.finfo(X.dtype).eps) * np.abs(linear)
        sums = _sum_divergences(linearized, proba) - (linear - rounding).sum(axis=0)
        differences = np.concatenate([proba_change, linearized - _linearize(step_proba, change)]) * norm_weight
        intercept = np.concatenate([differences.sum(axis=1), class_variances(unsaturated) @ norm_weight])
        return float(sums @ norm_weight), Params(match_device(differences, X) @ X, match_device(intercept, X))


def _split_halves(stacked: Params) -> tuple[Params, Params]:
    """Return the parameters in the upper half of the rows, and those in the lower half."""
    n = len(stacked.coef) // 2
    return Params(stacked.coef[:n], stacked.intercept[:n]), Params(stacked.coef[n:], stacked.intercept[n : 2 * n])


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
        saturates = np.logical_and(1 + change - (proba * change).sum(axis=0) < 0, proba > 0)
        if not saturates.any():
            return proba
        proba = np.where(saturates, 0.0, proba)
        proba = proba / proba.sum(axis=0)
    return proba


def _sum_divergences(linearized: Any, proba: Any) -> Any:
    """Return ``KL(linearized || proba)`` of each row, (n,).

    This is ``sum_k p ((1 + e) log(1 + e) - e)`` with e the relative change of the probability p.
    """
    if len(proba) == 1:
        return _divergence(linearized[0], proba[0]) + _divergence(1 - linearized[0], 1 - proba[0])
    return _divergence(linearized, proba).sum(axis=0)


def _divergence(linearized: Any, proba: Any) -> Any:
    """Return ``p ((1 + e) log(1 + e) - e)``, by its series for small e."""
    tiny = float(np.finfo(proba.dtype).tiny)
    e = np.maximum(linearized / np.maximum(proba, tiny) - 1, -1.0)
    series = e * e * (0.5 - e * (1 / 6 - e / 12))
    return proba * np.where(np.abs(e) < _SERIES_BELOW, series, (1 + e) * np.log(np.maximum(1 + e, tiny)) - e)


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
    newly_missed : Params
        Part of the missed gradient due to rows that have saturated since the previous check.
    kernel : Kernel
        Engine for which rows saturate along the step.
    """

    gap: float
    missed_gradient: Params
    missed_decrease: float
    newly_missed: Params
    kernel: Kernel

    def is_negligible(self, allowed: float) -> bool:
        """Return whether the missed decrease is small; ``allowed`` is the F - F* at which the fit may end."""
        return self.missed_decrease <= _NEGLIGIBLE * max(self.gap, allowed) and self.gap >= -_NEGLIGIBLE * allowed

    def agrees_with(self, previous: SaturationCheck | None, allowed: float) -> bool:
        """Return whether the previous round found about the same gap, or both gaps are small."""
        if previous is None:
            return False
        negligible = _NEGLIGIBLE * max(self.gap, allowed)
        return abs(self.gap - previous.gap) <= _GAP_RTOL * max(self.gap, previous.gap, negligible)

    def is_confirmed(self, previous: SaturationCheck | None, bound: float, allowed: float) -> bool:
        """Return whether ``bound`` on the missed decrease is small, or the previous round found about the same gap."""
        return bound <= _NEGLIGIBLE * max(self.gap, allowed) or self.agrees_with(previous, allowed)


def check_saturation(
    problem: Problem,
    params: Params,
    evaluation: Evaluation,
    rows: Batch | None,
    step: Params,
    step_kernel: Kernel,
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
    step_kernel : Kernel
        Engine that the step was solved for.
    allowed : float
        F - F* at which the fit may end.
    is_exact : bool
        Whether the gradient of the model should be 0 at the end of the step. This is so if F is smooth and the Hessian
        is that of all rows. Then all of the remaining gradient counts as missed. Otherwise only the part counts that is
        due to rows saturated since ``step_kernel``.
    previous : SaturationCheck or None
        Check of the previous round.

    Returns
    -------
    SaturationCheck
        ``missed_decrease`` is a bound by the penalty if that bound is small, or if ``is_exact`` and the gap does not
        agree with the gap of the previous round. Otherwise it is estimated, which takes another pass.
    """
    ridge = problem.alpha * (1 - problem.l1_ratio)
    sample_problem = problem if rows is None else problem._replace(data=rows, data_source=None)
    total = total_weight(problem) if rows is None else 1.0
    sum_loss_grad = loss_grad if sample_problem.data_source is None else sample_problem.data_source.loss_grad
    intercepts = np.concatenate([params.intercept, step.intercept, np.zeros(problem.n_outputs)])
    stacked = Params(np.concatenate([params.coef, step.coef]), intercepts)
    divergence, stacked = sum_loss_grad(
        sample_problem._replace(kernel=_LinearizedSums(problem.kernel, step_kernel)), stacked, total
    )
    if not problem.fit_intercept:
        stacked.intercept[:] = 0
    proba_gradient, newly_missed = _split_halves(stacked)
    grads, missed_gradient = evaluation.grads, newly_missed
    if is_exact:
        missed_gradient = add_scaled(proba_gradient, 1.0, grads._replace(coef=grads.coef + ridge * step.coef))
    end = params.coef + step.coef
    penalty_decrease = (
        penalty(params.coef, problem.alpha, problem.l1_ratio)[0] - penalty(end, problem.alpha, problem.l1_ratio)[0]
    )
    gap = float(divergence + penalty_decrease) - dot(grads, step) + ridge * float(np.vdot(params.coef, step.coef))
    kernel = Saturating(problem.kernel, step)
    intercept_decrease = safe_divide(missed_gradient.intercept**2, stacked.intercept[2 * problem.n_outputs :])
    bound = _penalty_bound(problem, evaluation.value, missed_gradient) + 0.5 * float(intercept_decrease.sum())
    check = SaturationCheck(gap, missed_gradient, bound, newly_missed, kernel)
    if bound <= _NEGLIGIBLE * allowed or (is_exact and not check.agrees_with(previous, allowed)):
        return check
    missed_decrease = robust_decrease(
        problem._replace(kernel=kernel), params, _normalized_rows(problem, rows), missed_gradient
    )
    return check._replace(missed_decrease=missed_decrease)


def _normalized_rows(problem: Problem, rows: Batch | None) -> Batch:
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
    l2_bound = 0.5 * squared / ridge if ridge else np.inf
    return min(l2_bound, 2 * value * float(np.abs(gradient.coef).max()) / threshold if threshold else np.inf)


def saturate_step(
    problem: Problem,
    params: Params,
    evaluation: Evaluation,
    rows: Batch | None,
    newton: NewtonStep,
    preconditioner: Preconditioner,
    allowed: float,
    factorize: Callable[[Problem], Preconditioner] | None = None,
    *,
    is_solved: bool = True,
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
    factorize : callable or None
        ``problem -> preconditioner``: factorizes the Hessian, if the step was solved by a factor. Called only if CG,
        preconditioned by the old factor, does not converge at the same cost.
    is_solved : bool
        Whether the step is solved so accurately that what is left of the gradient counts as missed. Otherwise it is
        covered by the remainder of CG alone, and rows that saturate add to it.

    Returns
    -------
    NewtonStep
        ``newton``, or a corrected step. If the rounds do not converge, the step tried that decreases F the most, with
        ``cg_remainder`` inf.
    """
    is_exact = is_solved and (rows is None or len(rows.y) == problem.n_total_samples)
    trial, kernel, trials = newton, problem.kernel, [newton]
    previous: SaturationCheck | None = None
    rounding = _GAP_ROUNDING * float(np.finfo(np.float64).eps) * abs(evaluation.value)
    for _ in range(MAX_ROUNDS):
        # 1.
        check = check_saturation(
            *(problem, params, evaluation, rows, trial.direction, kernel, allowed), is_exact=is_exact, previous=previous
        )
        # 2.
        gap_decrease = max(check.gap - rounding, newton.decrease)
        trial = trial._replace(decrease=gap_decrease, cg_remainder=max(trial.cg_remainder, check.missed_decrease))
        if check.is_negligible(allowed):
            # a factor leaves no gradient of the model, but CG leaves some by its accuracy: count only the new part
            remaining_gradient = check.newly_missed if factorize is None else check.missed_gradient
            bound = _penalty_bound(problem, evaluation.value, remaining_gradient) if is_exact else 0.0
            if check.is_confirmed(previous, bound, allowed):
                # 5.
                return _check_all_rows(problem, params, evaluation, rows, trial, kernel, check, allowed)
        # 3. a gap so negative is no duality gap: further corrections do not help
        if check.gap < -allowed:
            break
        # 4.
        previous, kernel = check, check.kernel
        saturated_problem = problem._replace(kernel=kernel)
        correction = _correction(saturated_problem, params, rows, check.missed_gradient, preconditioner, factorize)
        direction = add_scaled(trial.direction, 1.0, correction.direction)
        if not is_finite(direction):
            break
        n_products = trial.n_products + correction.n_products
        trial = NewtonStep(direction, check.gap, correction.cg_remainder, n_products)
        trials.append(trial)
    values = [_value_after(problem, params, candidate.direction) for candidate in trials]
    best = int(np.argmin(values))
    expected = max(evaluation.value - values[best], newton.decrease)
    return NewtonStep(trials[best].direction, expected, np.inf, trial.n_products)


def _correction(
    problem: Problem,
    params: Params,
    rows: Batch | None,
    missed_gradient: Params,
    preconditioner: Preconditioner,
    factorize: Callable[[Problem], Preconditioner] | None,
) -> NewtonStep:
    """Return the Newton direction for the missed gradient, by the Hessian of ``problem`` with saturated rows.

    The parameters are those of `saturate_step`.
    """
    hessian = hessian_products(problem, params, rows)
    if factorize is None:
        summed = _SumPreconditioner(preconditioner, hessian_diagonal(problem, params, _normalized_rows(problem, rows)))
        return conjugate_gradients(hessian, missed_gradient, summed, _CG_RTOL, _MAX_PRODUCTS)
    n_products = max(1, missed_gradient.coef.size // _UNKNOWNS_PER_PRODUCT)
    correction = conjugate_gradients(hessian, missed_gradient, preconditioner, _FACTOR_CG_RTOL, n_products)
    if correction.cg_remainder <= _FACTOR_CG_RTOL * correction.decrease:
        return correction
    direction = scale_params(-1.0, factorize(problem).apply(missed_gradient))
    return NewtonStep(direction, 0.0, 0.0, n_products)


def _check_all_rows(
    problem: Problem,
    params: Params,
    evaluation: Evaluation,
    rows: Batch | None,
    trial: NewtonStep,
    kernel: Kernel,
    check: SaturationCheck,
    allowed: float,
) -> NewtonStep:
    """Check the step by all rows as well, if memory holds only some of them.

    ``cg_remainder`` becomes inf if rows outside memory saturate along the step. An outlying row may be among the rows
    that the step was solved for, or among the others. Either hides how much F can decrease.
    """
    if rows is None or problem.data_source is None:
        return trial
    full_check = check_saturation(
        *(problem, params, evaluation, None, trial.direction, kernel, allowed), is_exact=True, previous=check
    )
    remainder = max(trial.cg_remainder, full_check.missed_decrease) if full_check.is_negligible(allowed) else np.inf
    return trial._replace(decrease=max(trial.decrease, full_check.gap), cg_remainder=remainder)


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
    *,
    max_remainder: float = 0.0,
    remainder_cap: float = np.inf,
    max_decrease: float = np.inf,
    min_products: int = 0,
    is_solved: bool = True,
) -> NewtonStep:
    """Return the Newton direction by all rows, corrected for saturation unless its decrease is above ``max_decrease``.

    ``is_solved`` is that of `saturate_step`, the other parameters are those of `conjugate_gradients`.
    """
    hessian = hessian_products(problem, params)
    newton = conjugate_gradients(
        *(hessian, evaluation.grads, preconditioner, accuracy, max_products),
        max_remainder=max_remainder,
        remainder_cap=remainder_cap,
        max_decrease=max_decrease,
        min_products=min_products,
    )
    if newton.decrease > max_decrease:
        return newton
    return saturate_step(problem, params, evaluation, None, newton, preconditioner, allowed, is_solved=is_solved)
