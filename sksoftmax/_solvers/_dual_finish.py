"""The end of a fit by the dual solver: F and a bound of F - F*, and Newton steps if the bound is too large.

`dual` calls `certify` if its estimate of F - F* suggests that the fit may end. `_certificate` states the bound.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from sksoftmax._maths.curvature import robust_decrease, safe_divide
from sksoftmax._maths.newton_direction import NewtonStep, absolute_suboptimality, relative_excess
from sksoftmax._maths.objective import value_and_grad
from sksoftmax._maths.saturation import check_saturation
from sksoftmax._solvers._certificate import Certifier
from sksoftmax._solvers._dual_data import scaled_coef
from sksoftmax._solvers._dual_state import DualState, move_center, penalty_value, to_params
from sksoftmax._types import Params, Problem, normalize_weights, scale_params

#: Hessian products for one final Newton step, per epoch so far; a product costs a sixth of an epoch to a whole one.
_PRODUCTS_PER_EPOCH = 1

#: Minimum of the products for one final Newton step. All steps of one attempt together may take twice the products.
_MIN_PRODUCTS = 10

#: Step lengths of a final Newton step, tried in this order until F decreases.
_STEP_LENGTHS = (1.0, 0.5, 0.25, 0.125)

#: Rounding error of a row's gap, a difference of larger numbers, in units of eps times its loss.
_GAP_ROUNDING = 16

#: Accuracy of a final Newton step: bound of the decrease it misses, as a fraction of the suboptimality allowed.
_NEWTON_ACCURACY = 0.5

#: F - F* for a loss that decays exponentially, in units of the predicted reduction of its Newton step.
_EXPONENTIAL_FACTOR = 2.0

#: Decrease of a loss that decays exponentially by its Newton step, in the same units: ``2 (1 - 1 / e)``, and some
#: rounding. A logistic loss falls by less. If F fell by more, the step assumed too little.
_MAX_FALL = 1.27


def certify(problem: Problem, state: DualState, tol: float) -> DualState:
    """Return the state with F and a bound of its excess, after Newton steps if the bound is above ``tol``.

    If the bound is still above ``tol``, the next attempt follows after a quarter more epochs. Special cases:

    - Without a penalty there is no bound. Another solver has to go on, which checks the center's estimate.
    - Without a squared norm (``l1_ratio=1``) there is no bound either, and the center's estimate takes its place. If
      the predicted decrease along the gradient is above the suboptimality allowed, another solver has to go on. On text
      and digits the predicted decrease was 0.1 to 0.6 of it, and more if outlying rows dominate a direction.
    """
    state = state._replace(next_check=state.n_epochs + 1 + state.n_epochs // 4)
    certifier = Certifier(problem, state.prox_weights, state.rows, state.dual_vars)
    loss, gap, _ = certifier.evaluate(state.model, np.empty(0, state.model.table.dtype))
    value = loss + state.penalty
    abs_tol = absolute_suboptimality(value, tol)
    rounding = _GAP_ROUNDING * float(np.finfo(problem.data.X.dtype).eps)
    if not problem.alpha:
        return state._replace(value=value, is_done=True)
    rounding *= value
    if problem.l1_ratio == 1:
        suboptimality = max(state.cautious_estimate, gap + state.prox_center.cautious_estimate) + rounding
        if suboptimality <= abs_tol < _decrease_along_gradient(problem, state, certifier.gradient(state.model)[1]):
            return state._replace(value=value, is_done=True)
        return state._replace(value=value, excess=relative_excess(value, suboptimality))
    suboptimality = (
        certifier.bound(negative_gradient(problem, state), max(gap, 0.0) + rounding, abs_tol) + certifier.rounding()
    )
    if suboptimality > abs_tol:
        state, value, suboptimality = _newton_polish(problem, state, certifier, value, suboptimality, abs_tol)
    return state._replace(value=value, excess=relative_excess(value, suboptimality))


def _newton_polish(
    problem: Problem, state: DualState, certifier: Certifier, value: float, suboptimality: float, abs_tol: float
) -> tuple[DualState, float, float]:
    """Take Newton steps until F - F* is at most ``abs_tol``; return the state, and F and F - F* there.

    1. Compute a Newton step. Its predicted reduction (twice that, for an exponential), plus the bound of what conjugate
       gradients missed, is an estimate of F - F* before the step.
    2. If the estimate is at most ``abs_tol`` but rows saturate along the step, another solver has to go on.
    3. Take the longest step that decreases F; return if there is none.
    4. F - F* is the estimate if it is at most ``abs_tol`` and F fell by no more than an exponential.
       Otherwise it is the bound at the new coefficients. Return after a step shorter than 1, as F is then not close to
       quadratic.
    """
    _, grads = certifier.gradient(state.model)
    n_each = max(_MIN_PRODUCTS, _PRODUCTS_PER_EPOCH * state.n_epochs)
    n_products, by_penalty = 0, True
    while suboptimality > abs_tol >= certifier.rounding() and n_products < 2 * n_each:
        max_products = min(n_each, 2 * n_each - n_products)
        # 1.
        newton = certifier.newton(state.model, grads, _NEWTON_ACCURACY * abs_tol, max_products, by_penalty=by_penalty)
        n_products += newton.n_products
        by_penalty &= newton.cg_remainder <= abs_tol
        estimate = _EXPONENTIAL_FACTOR * newton.decrease + newton.cg_remainder
        is_near = estimate <= abs_tol
        # 2.
        if is_near and not _saturation_is_negligible(problem, state, newton, abs_tol):
            return state._replace(is_done=True), value, suboptimality
        # 3.
        trial, old_value = _line_search(problem, state, certifier, value, newton), value
        if trial is None:
            return state, value, estimate if is_near else suboptimality
        state, value, grads, length = trial
        # 4.
        is_as_expected = old_value - value <= _MAX_FALL * newton.decrease
        suboptimality = (
            estimate if is_as_expected and is_near else certifier.bound(grads, 0.0, abs_tol) + certifier.rounding()
        )
        if length < 1:
            break
    return state, value, suboptimality


def _saturation_is_negligible(problem: Problem, state: DualState, newton: NewtonStep, abs_tol: float) -> bool:
    """Return whether the decrease that the step overlooks because rows saturate along it is negligible."""
    params = state.params
    step = to_params(state, newton.direction.coef.reshape(state.n_columns, -1), newton.direction.intercept)
    evaluation = value_and_grad(problem, params)
    return check_saturation(
        problem, params, evaluation, None, step, problem.kernel, abs_tol, is_exact=False
    ).is_negligible(abs_tol)


def _line_search(
    problem: Problem, state: DualState, certifier: Certifier, value: float, newton: NewtonStep
) -> tuple[DualState, float, Params, float] | None:
    """Take the longest step of ``_STEP_LENGTHS`` that decreases F; return the state, F, its gradient and the length.

    Returns None if no step decreases F.
    """
    for length in _STEP_LENGTHS if newton.decrease > 0 else ():
        trial = _move_model(state, scale_params(length, newton.direction))
        trial = trial._replace(penalty=penalty_value(problem, trial))
        loss, grads = certifier.gradient(trial.model)
        if loss + trial.penalty < value:
            return trial, loss + trial.penalty, grads, length
    return None


def _decrease_along_gradient(problem: Problem, state: DualState, grads: Params) -> float:
    """Return the predicted decrease of F along its subgradient, by the robust diagonal of the Hessian.

    The moves of the center do not detect a direction whose curvature is due to a few outlying rows.
    """
    root = state.prox_weights.root[:-1]
    by_column = grads.coef.reshape(state.n_columns, -1)[:, : state.n_outputs].T
    intercept = grads.intercept[: state.n_outputs].astype(np.float64)
    gradient = Params(safe_divide(by_column, np.broadcast_to(root, by_column.shape)), intercept)
    gradient = gradient._replace(coef=gradient.coef + np.outer(intercept, state.rows.mean))
    params, data = state.params, normalize_weights(problem.data)
    if sp.issparse(data.X):  # in most columns of text both are 0
        columns = np.flatnonzero((params.coef != 0).any(axis=0) | (gradient.coef != 0).any(axis=0))
        params, gradient = (Params(pair.coef[:, columns], pair.intercept) for pair in (params, gradient))
        data = data._replace(X=data.X[:, columns])
    return robust_decrease(problem._replace(data=data), params, data, gradient)


def negative_gradient(problem: Problem, state: DualState) -> Params:
    """Return minus the gradient of F at the dual variables; it is the proximal part of the gradient, up to rounding."""
    sums, intercept_sums = state.rows.dual_gradient_sums(state.dual_vars)
    scaled = scaled_coef(state.model)
    ridge = problem.alpha * (1 - problem.l1_ratio) * state.prox_weights.scale[:-1, None]
    coef = sums
    coef *= -1 / problem.n_samples
    if len(state.model.l1_thresholds):
        coef += scaled - state.model.table.reshape(scaled.shape)  # minus the part of L1
    coef -= ridge.astype(coef.dtype) * scaled
    return Params(coef.ravel(), -intercept_sums / problem.n_samples * problem.fit_intercept)


def _move_model(state: DualState, direction: Params) -> DualState:
    """Return the state with its center moved so that the active columns move by ``direction``; the model is copied."""
    prox_weights, prox_center, n_outputs = state.prox_weights, state.prox_center, state.n_outputs
    step = np.zeros_like(prox_center.position)
    step[:-1] = direction.coef.reshape(state.n_columns, -1)[prox_weights.active] / prox_weights.prox_fraction[:-1, None]
    if prox_weights.scale[-1]:
        step[-1, :n_outputs] = direction.intercept[:n_outputs] / prox_weights.root[-1]
    model = state.model._replace(table=state.model.table.copy(), intercept=state.model.intercept.copy())
    target = prox_center._replace(target=prox_center.position + step, last=None, pairs=(), gains=())
    return move_center(state._replace(model=model, prox_center=target))
