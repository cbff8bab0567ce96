"""Stochastic dual coordinate ascent with a proximal center, for wide or sparse X.

`plan` uses this solver with the compiled engine, and Newton steps finish a fit that it does not.

The dual variables of row i are probabilities p_i; t_i is its one-hot target. With weights of mean 1,
``G = sum_i w_i (p_i - t_i) x_i' / n`` and ``alpha_2 = alpha (1 - l1_ratio)``, the coefficients of a column are ::

    W_j = soft(kappa_j V_j - G_j, alpha l1_ratio) / (alpha_2 + kappa_j)

They minimise the penalty plus ``kappa / 2 ||W - V||^2 + <G, W>``. (The intercept is a column of ones without penalty.)
The dual step of row i maximises the dual over p_i alone. With z_i its raw predictions, the new p_i solves ::

    p = softmax(z_i - q_i (p - p_i)),     q_i = w_i / n x_i' D x_i,     D = 1 / (alpha_2 + kappa)

so that there is no step length, and no step can overshoot (Shalev-Shwartz & Zhang, 2013, J. Mach. Learn. Res. 14,
567-599). After each epoch the proximal center V moves to W, or beyond (`_prox_center`). This is a proximal point method
(Rockafellar, 1976, SIAM J. Control Optim. 14(5), 877-898; as an accelerator: Lin, Mairal & Harchaoui, 2015,
arXiv:1506.02186). Its fixed point is the minimum of F for any kappa > 0. If the penalty is strong enough, kappa_j is 0.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from sksoftmax._engines import compiled
from sksoftmax._maths.newton_direction import absolute_suboptimality, relative_excess
from sksoftmax._solvers._certificate import strong_convexity_bound
from sksoftmax._solvers._dual_data import DualData, make_dual_data, scaled_coef
from sksoftmax._solvers._dual_finish import certify
from sksoftmax._solvers._dual_state import DualState, active_coef, move_center, penalty_value
from sksoftmax._solvers._prox_center import ProxCenter, rescale_center, update_center
from sksoftmax._solvers._prox_weights import MAX_INTERCEPT_Q, curvatures, init_prox_weights, make_prox_weights
from sksoftmax._types import Array, Batch, Params, Problem, Report, Solver

#: Halve kappa if the duality gap is below this fraction of the center's estimate ``remaining``, and fell fast.
_LOW_GAP = 0.3

#: Double kappa if the duality gap is above this multiple of ``remaining``, and fell slowly or kappa was halved before.
_HIGH_GAP = 5.0

#: The gap fell fast if it is below this fraction of the gap ``_PATIENCE`` epochs before.
_FAST_FALL = 0.5

#: The gap fell slowly if it is above this fraction of the gap ``_PATIENCE`` epochs before.
_SLOW_FALL = 0.7

#: Quarter kappa if the duality gap is below this fraction of ``remaining``.
_NEGLIGIBLE_GAP = 0.03

#: Double kappa if it was halved before and the gaps are above this multiple of the gains of the last center moves: then
#: these gains are noise.
_NOISY_GAP = 3.0

#: Number of epochs without a change of kappa after a change.
_PATIENCE = 2

#: Number of epochs after a rise of F in which the larger of the last two estimates counts.
_N_ERRATIC = 3

#: Rows with a gap of at most this fraction of ``tol * F*`` take no step.
_SKIP_FRACTION = 0.1

#: Upper limit of the gap of such rows, as a fraction of F*.
_MAX_SKIPPED_GAP = 1e-3

#: Safety factor of the estimate of F - F* that ends a fit with ``allow_estimate``.
_ESTIMATE_SAFETY = 3.0

#: Lower limit of the estimate of F* by F less the estimated suboptimality, as a fraction of F.
_MIN_FRACTION = 1e-3

#: Number of epochs in float32 after which G is first recomputed.
_EPOCHS_BETWEEN_SUMS = 8

#: If the rounding error of G was below this fraction of the suboptimality allowed, the number of epochs until the next
#: recomputation is doubled; otherwise it is halved.
_SMALL_ERROR = 0.1


def dual(
    next_order: Callable[[], Array], tol: float, *, allow_estimate: bool = False, path_cache: DualData | None = None
) -> Solver:
    """Return the dual solver. Its step is an epoch:

    1. Move the center to its target, and adapt kappa.
    2. In float32, recompute G every few epochs to remove accumulated rounding.
    3. Take the dual step of each row.
    4. Compute the next target of the center and the estimates of F and F - F*. If they suggest that the fit may end,
       compute F and a bound of F - F*. If the bound is too large, take Newton steps (`_dual_finish`).

    Parameters
    ----------
    next_order : callable
        Returns the order of the rows in the next epoch, an array of row numbers.
    tol : float
        Excess at which the fit should end, >= 0.
    allow_estimate : bool, default=False
        Whether the fit may end by an estimate of the excess. Otherwise the excess is certified, and F is exact.
    path_cache : DualData or None, default=None
        The rows of the problem, if a fit with another penalty has built them.
    """

    def init(problem: Problem, params: Params) -> DualState:
        state = _init_cold(problem, make_dual_data(problem) if path_cache is None else path_cache, params.intercept)
        return _init_warm(problem, state, params) if params.coef.any() else state

    def step(problem: Problem, state: DualState, batch: Batch) -> DualState:
        floor = max(state.value - state.estimate, _MIN_FRACTION * state.value) if np.isfinite(state.estimate) else 0.0
        gap_tol = min(_SKIP_FRACTION * tol, _MAX_SKIPPED_GAP) * floor
        # 1.
        if state.prox_center.target is not None:
            state = _adapt_kappa(problem, move_center(state), gap_tol)
        # 2.
        if state.n_epochs >= state.next_sum:
            state = _recompute_dual_sums(problem, state, tol)
        # 3.
        state, loss, gap = _run_epoch(problem, state, next_order(), gap_tol)
        # 4.
        return _update_estimates(problem, state, loss, gap, tol, allow_estimate=allow_estimate)

    def evaluate(problem: Problem, state: DualState) -> Report:
        # in exact arithmetic no gap is negative
        is_rounding = len(state.gaps) > 0 and state.gaps[-1] < -tol * state.value
        return Report(state.value, state.excess, is_rounding or state.is_done, state.is_exact)

    return Solver("dual", init, step, evaluate, None)


def _init_cold(problem: Problem, rows: DualData, intercept: Array) -> DualState:
    """Return the state with all dual variables equal to the targets, and hence all coefficients 0."""
    X = problem.data.X
    n, K = problem.n_samples, problem.n_classes
    n_lanes = compiled.count_lanes(K)
    prox_weights, q = init_prox_weights(problem, rows)
    l1_thresholds = problem.alpha * problem.l1_ratio * prox_weights.root[:-1]
    model = compiled.FlatModel(
        np.zeros(problem.n_features * n_lanes, X.dtype),
        l1_thresholds.astype(X.dtype) if l1_thresholds.any() else np.empty(0, X.dtype),
        np.full(n_lanes, -1e9, X.dtype),  # the padding gets probability 0
    )
    model.intercept[: problem.n_outputs] = intercept
    residual = np.zeros(n if K == 2 else (n, n_lanes), X.dtype)
    position = np.zeros((len(prox_weights.active) + 1, n_lanes), X.dtype)
    if problem.fit_intercept:
        position[-1, : problem.n_outputs] = intercept / prox_weights.root[-1]
    return DualState(
        rows=rows.scale_columns(prox_weights.root).choose_rounds(q, float(prox_weights.scale[-1])),
        model=model,
        dual_vars=compiled.DualVariables(residual, np.zeros(n, X.dtype), q),
        prox_weights=prox_weights,
        prox_center=ProxCenter(position),
        value=np.inf,
        excess=np.inf,
        estimate=np.inf,
        cautious_estimate=np.inf,
        penalty=0.0,
        gaps=(),
        n_since_change=0,
        n_epochs=0,
        last_rise=-_N_ERRATIC - 1,
        factor=1.0,
        n_outputs=problem.n_outputs,
        n_columns=problem.n_features,
        next_sum=_EPOCHS_BETWEEN_SUMS if X.dtype == np.float32 else np.inf,
        n_between=_EPOCHS_BETWEEN_SUMS,
    )


def _init_warm(problem: Problem, state: DualState, params: Params) -> DualState:
    """Return the state with the dual variables of ``params``, and the center for which the coefficients are ``params``.

    Columns with kappa = 0 have no center. Their coefficients follow from the dual variables; near the minimum of F the
    change is small.
    """
    prox_weights, n_outputs, (_, l1_thresholds, intercept) = state.prox_weights, state.n_outputs, state.model
    l1_thresholds = l1_thresholds[:, None] if len(l1_thresholds) else 0.0
    table = state.model.table.reshape(state.n_columns, -1)
    inverse = np.divide(1, prox_weights.root[:-1], out=np.zeros(state.n_columns), where=prox_weights.root[:-1] > 0)
    table[:, :n_outputs] = params.coef.T * inverse[:, None]
    table += l1_thresholds * np.sign(table)
    intercept[:n_outputs] = params.intercept + params.coef @ state.rows.mean
    gradient = compiled.GradientSums(np.zeros_like(state.model.table), np.zeros(len(intercept)))
    state.rows.scale_weights(1 / problem.n_samples).evaluate(state.model, state.dual_vars, gradient)
    from_dual = -gradient.table.reshape(table.shape)
    is_zero = table == 0  # with L1, a value within the thresholds; without L1, 0
    table[is_zero] = np.clip(from_dual, -l1_thresholds, l1_thresholds)[is_zero]
    has_no_center = prox_weights.kappa[:-1] == 0
    table[has_no_center] = from_dual[has_no_center]
    position = np.zeros_like(state.prox_center.position)
    position[:-1] = (table - from_dual)[prox_weights.active] / prox_weights.prox_fraction[:-1, None]
    if prox_weights.scale[-1]:
        position[-1, :n_outputs] = (
            intercept[:n_outputs] / prox_weights.root[-1] + prox_weights.root[-1] * gradient.intercept[:n_outputs]
        )
    state = state._replace(prox_center=ProxCenter(position), penalty=penalty_value(problem, state))
    return state._replace(prox_center=state.prox_center._replace(target=active_coef(state)))


def _run_epoch(problem: Problem, state: DualState, order: Array, gap_tol: float) -> tuple[DualState, float, float]:
    """Take a dual step for each row; return the state, and the mean loss and gap of the rows before their steps."""
    n = problem.n_samples
    intercept_scale = float(state.prox_weights.scale[-1])
    loss, gap = state.rows.run_epoch(state.model, state.dual_vars, order, intercept_scale, float(gap_tol))
    return state._replace(n_epochs=state.n_epochs + 1), loss / n, gap / n


def _update_estimates(
    problem: Problem, state: DualState, loss: float, gap: float, tol: float, *, allow_estimate: bool
) -> DualState:
    """Return the state with the next target of the center, F, and the excess.

    The mean gap bounds the decrease that further dual steps can achieve for this center, and `_prox_center` estimates
    the decrease by moving it. If their sum, or `_partial_bound`, is small enough for the fit to end, the suboptimality
    is certified. The gaps are then computed anew, as the gap of a row of large norm may have grown since its step. With
    ``allow_estimate`` the estimate itself is the excess.
    """
    coef = active_coef(state)
    new_penalty = penalty_value(problem, state)
    value = loss + 0.5 * (new_penalty + state.penalty)  # both are means over the epoch, the penalty's approximate
    rose = not value <= state.value + max(state.estimate, 0.0)
    prox_center = update_center(state.prox_center, coef, state.prox_weights.prox_fraction, is_plain=rose)
    last_rise = state.n_epochs if rose else state.last_rise
    cautious_estimate = max(gap, 0.0) + prox_center.cautious_estimate
    suboptimality = (
        max(cautious_estimate, state.cautious_estimate)
        if state.n_epochs <= last_rise + _N_ERRATIC
        else cautious_estimate
    )
    state = state._replace(
        rows=state.rows.shorten_rounds() if rose else state.rows,
        prox_center=prox_center,
        value=value,
        is_exact=False,
        excess=np.inf,
        estimate=gap + prox_center.remaining,
        cautious_estimate=cautious_estimate,
        penalty=new_penalty,
        gaps=(*state.gaps, gap)[-_PATIENCE - 1 :],
        last_rise=last_rise,
    )
    partial_bound = _partial_bound(problem, state, max(gap, 0.0))
    if allow_estimate:
        # the contraction factor needs two gains
        suboptimality = np.inf if len(prox_center.gains) == 1 else _ESTIMATE_SAFETY * suboptimality
        return state._replace(excess=relative_excess(value, min(suboptimality, partial_bound)))
    excess = relative_excess(value, min(suboptimality, partial_bound))
    if state.n_epochs >= state.next_check and excess <= tol:
        return certify(problem, state, tol)._replace(is_exact=True)
    return state


def _partial_bound(problem: Problem, state: DualState, gap: float) -> float:
    """Return the part of the bound of F - F* that needs no pass over the rows; inf without a squared norm.

    It lacks the part of the intercept, so that it is no bound by itself.
    """
    assert state.prox_center.last is not None
    if problem.l1_ratio == 1 or not problem.alpha:
        return np.inf
    ridge = problem.alpha * (1 - problem.l1_ratio) * state.prox_weights.scale[state.prox_weights.active]
    return gap + strong_convexity_bound(state.prox_center.last.g[:-1], ridge)


def _recompute_dual_sums(problem: Problem, state: DualState, tol: float) -> DualState:
    """Recompute G, and return the state with the same coefficients and the center for which they follow from G.

    The steps add small changes to the coefficients, and their rounding errors accumulate. The solver would then
    converge to the minimum of another F, as if G belonged to other dual variables. Columns with kappa = 0 have no
    center: their coefficients are recomputed from G.
    """
    prox_weights, n_outputs, n = state.prox_weights, state.n_outputs, problem.n_samples
    dual_sums, intercept_sums = state.rows.dual_gradient_sums(state.dual_vars)
    dual_sums /= n
    position, table = np.zeros_like(state.prox_center.position), state.model.table.reshape(dual_sums.shape)
    prox_part = table + dual_sums
    position[:-1] = prox_part[prox_weights.active] / prox_weights.prox_fraction[:-1, None]
    has_no_center = prox_weights.kappa[:-1] == 0
    table[has_no_center] -= prox_part[has_no_center]
    if prox_weights.scale[-1]:
        from_dual = prox_weights.scale[-1] * intercept_sums[:n_outputs] / n
        position[-1, :n_outputs] = (state.model.intercept[:n_outputs] + from_dual) / prox_weights.root[-1]
    prox_part[prox_weights.active] -= (
        prox_weights.prox_fraction[:-1, None].astype(prox_part.dtype) * state.prox_center.position[:-1]
    )
    alpha_2, n_between = problem.alpha * (1 - problem.l1_ratio), state.n_between
    if alpha_2:
        error = strong_convexity_bound(prox_part, alpha_2 * prox_weights.scale[:-1])
        is_negligible = error <= _SMALL_ERROR * absolute_suboptimality(state.value, tol)
        n_between = 2 * n_between if is_negligible else max(1, n_between // 2)
    return state._replace(
        prox_center=state.prox_center._replace(position=position),
        next_sum=state.n_epochs + n_between,
        n_between=n_between,
    )


def _adapt_kappa(problem: Problem, state: DualState, gap_tol: float) -> DualState:
    """Return the state with a smaller kappa if the center is slow, or a larger one if the rows are.

    ``gap_tol`` is the gap up to which a row takes no step.
    """
    if state.n_since_change <= _PATIENCE or not len(state.prox_weights.active):
        return state
    gap, old_gap, remaining = state.gaps[-1], state.gaps[0], state.prox_center.remaining
    if state.factor < 1 and min(state.gaps) > max(_NOISY_GAP * max(state.prox_center.gains), gap_tol):
        return _rescale_kappa(problem, state, 2.0)
    if gap < max(_NEGLIGIBLE_GAP * remaining, gap_tol):
        return _rescale_kappa(problem, state, 0.25)
    if gap < min(_LOW_GAP * remaining, _FAST_FALL * old_gap):
        return _rescale_kappa(problem, state, 0.5)
    if gap > _HIGH_GAP * remaining and (state.factor < 1 or gap > _SLOW_FALL * old_gap):
        return _rescale_kappa(problem, state, 2.0)
    return state


def _rescale_kappa(problem: Problem, state: DualState, factor: float) -> DualState:
    """Return the state with kappa times ``factor`` and the same coefficients."""
    coef, old = active_coef(state), state.prox_weights
    alpha_2 = problem.alpha * (1 - problem.l1_ratio)
    kappa = factor * old.kappa
    scale = np.divide(1, alpha_2 + kappa, out=old.scale.copy(), where=kappa > 0)
    if scale[-1]:
        scale[-1] = min(1 / kappa[-1], MAX_INTERCEPT_Q * problem.n_samples)
        kappa[-1] = 1 / scale[-1]
    new = make_prox_weights(kappa, scale)
    growth = np.divide(new.root, old.root, out=np.ones_like(scale), where=old.root > 0)
    table = state.model.table.reshape(state.n_columns, -1)
    coefficients = scaled_coef(state.model)
    # coefficients scale with the inverse of root D, the part within the thresholds with root D
    clipped = table - coefficients
    table[:] = coefficients / growth[:-1, None].astype(table.dtype) + clipped * growth[:-1, None].astype(table.dtype)
    if len(state.model.l1_thresholds):
        state.model.l1_thresholds[:] = problem.alpha * problem.l1_ratio * new.root[:-1]
    moving = np.append(old.active, len(kappa) - 1)
    factors = np.divide(kappa, old.kappa, out=np.ones_like(kappa), where=old.kappa > 0)
    q = curvatures(state.rows, new)
    return state._replace(
        rows=state.rows.scale_columns(new.root).choose_rounds(q, float(new.scale[-1])),
        prox_weights=new,
        prox_center=rescale_center(state.prox_center, coef, growth[moving], factors[moving]),
        dual_vars=state.dual_vars._replace(q=q),
        n_since_change=0,
        factor=state.factor * factor,
    )
