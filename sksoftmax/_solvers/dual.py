"""Dual coordinate ascent with a moving centre, compiled: for sparse rows.

Each row keeps the probabilities p_i that it last agreed to; t_i is its one-hot truth. With weights of mean 1,
``G = sum_i w_i (p_i - t_i) x_i' / n`` and ``alpha_2 = alpha (1 - l1_ratio)``, the coefficients of a column are ::

    W_j = soft(kappa_j V_j - G_j, alpha l1_ratio) / (alpha_2 + kappa_j)

which minimises the penalty plus ``kappa / 2 ||W - V||^2 + <G, W>`` (the intercept: a column of ones without
penalty). A visit of row i replaces p_i by what is best for the dual, the solution of ::

    p = softmax(z_i - q_i (p - p_i)),     q_i = w_i / n x_i' D x_i,     D = 1 / (alpha_2 + kappa)

so there is no step length, and no row can overshoot. (Shalev-Shwartz & Zhang, 2013, J. Mach. Learn. Res. 14,
567-599.) Once an epoch the centre V moves to W, or further (``_prox_center``): a proximal point method (Rockafellar,
1976, SIAM J. Control Optim. 14(5), 877-898; as an accelerator: Lin, Mairal & Harchaoui, 2015, arXiv:1506.02186), whose
fixed point is the minimum of F whatever kappa > 0. Where the penalty is strong enough kappa_j is 0.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp

from sksoftmax._maths.curvature import ratio, shared_decrease
from sksoftmax._maths.newton_direction import NewtonStep, absolute_suboptimality, relative_excess
from sksoftmax._maths.objective import value_and_grad
from sksoftmax._maths.saturation import check_saturation
from sksoftmax._solvers._certificate import Certifier, squared
from sksoftmax._solvers._dual_data import DualData, rows_of, uncentred
from sksoftmax._solvers._prox_center import ProxCenter, rescale_center, update_center
from sksoftmax._solvers._prox_weights import (
    GREATEST_INTERCEPT,
    ProxWeights,
    curvatures,
    init_prox_weights,
    prox_weights_of,
)
from sksoftmax._types import Array, Batch, Params, Problem, Report, Solver, normalize_weights, scale_params

#: kappa is halved where the rows' gaps are below this share of what the centre can bring, and fell fast, and halved
#: again where they are next to nothing; doubled where they are above, and slow, and where they are this many times what
#: the centre's moves bring, which are then noise; and then left alone for some epochs.
_LOW, _HIGH, _FAST, _SLOW, _LEAST_GAP, _NOISY, _PATIENCE = 0.3, 5.0, 0.5, 0.7, 0.03, 3.0, 2

#: Epochs after a rise of F in which two estimates in a row count, the greater one.
_ERRATIC = 3

#: A row is left alone whose own gap is this share of what all may keep, and at most this share of F.
_SKIP, _MOST_SKIPPED = 0.1, 1e-3

#: Hessian products of the Newton steps by which a fit may end: a step's as many an epoch, which costs one to three, and
#: at least; those of all steps twice that.
_PRODUCTS, _LEAST_PRODUCTS = 1, 10

#: Lengths of such a step that are tried until F falls.
_LENGTHS = (1.0, 0.5, 0.25, 0.125)

#: Rounding of a row's gap, a difference of larger numbers, in units of the last digit of its loss.
_ROUNDING = 16

#: Factor on what a fit may end by where nothing is measured.
_DOUBT = 3.0

#: Share of what may be left that a Newton step is to leave of what it expects; and what an exponential has left, in
#: units of what its Newton step expects.
_MARGIN, _EXPONENTIAL = 0.5, 2.0

#: Rounding of F along an epoch's way, as a share of it.
_LEAST = 1e-3


#: Epochs of float32 after which G is summed anew, to begin with; twice or half as many where it was off by little
#: or by more than that, as a share of what may be left.
_N_BETWEEN, _LITTLE = 8, 0.1

#: Columns that are transposed together, in a cache.
_BLOCK = 1024


class DualState(NamedTuple):
    """State of the dual solver; its arrays change from step to step.

    Attributes
    ----------
    rows, model, dual_vars, workspace
        What the kernels see: see ``compiled``.
    prox_weights : Metric
    prox_center : Centre
    value : float
        F: along the last epoch, on average, or at ``params``.
    is_exact : bool
        Whether ``value`` is F at ``params``, as where the excess is certified.
    excess : float
    estimate : float
        Estimate of F - F*, as the moves of the centre and of kappa take it.
    cautious_estimate : float
        The same with caution, as the excess takes it.
    penalty : float
        Penalty at the end of the last epoch.
    gaps : tuple of float
        Mean Fenchel-Young gap of the visits of the last epochs.
    n_waiting, n_epochs, last_rise : int
        Epochs since kappa changed; all; the one in which F last rose.
    factor : float
        On kappa, so far.
    n_outputs, n_columns : int
        Of ``params.coef``.
    next_sum, n_between : int
        Epoch after which ``G`` is summed again, and epochs between two sums.
    next_check : int
        Epoch from which the excess may be bounded again.
    is_done : bool
        Whether it is for another solver to go on.
    """

    rows: Any
    model: Any
    dual_vars: Any
    workspace: Any
    prox_weights: ProxWeights
    prox_center: ProxCenter
    value: float
    excess: float
    estimate: float
    cautious_estimate: float
    penalty: float
    gaps: tuple[float, ...]
    n_waiting: int
    n_epochs: int
    last_rise: int
    factor: float
    n_outputs: int
    n_columns: int
    next_sum: float
    n_between: int = _N_BETWEEN
    next_check: int = 0
    is_done: bool = False
    is_exact: bool = False

    @property
    def params(self) -> Params:
        """The coefficients, unscaled, as a copy."""
        return _unscaled(self, _softened(self), self.model.intercept)

    @property
    def path_cache(self) -> DualData:
        """What a fit of another penalty to the same rows may go on from."""
        rows: DualData = self.rows.unscaled()
        return rows


def is_available() -> bool:
    """Whether the kernels can be had: numba is installed, and works with this NumPy. Imports it."""
    try:
        from sksoftmax._engines import compiled as _compiled  # noqa: F401
    except ImportError:
        return False
    return True


def dual(
    next_order: Callable[[], Array], tol: float, *, allow_estimate: bool = False, path_cache: DualData | None = None
) -> Solver:
    """Solver whose step is an epoch: a visit of each row, and a move of the centre.

    Parameters
    ----------
    next_order : callable
        The order of an epoch's visits, an array of row numbers.
    tol : float
        Excess at which the fit is to end.
    allow_estimate : bool
        Whether the estimate of the excess will do for that; else it is certified, and F evaluated exactly.
    path_cache : Rows or None
        The problem's rows, if a fit of another penalty has made them.
    """

    def init(problem: Problem, params: Params) -> DualState:
        state = _init_cold(problem, rows_of(problem) if path_cache is None else path_cache, params.intercept)
        return _init_warm(problem, state, params) if params.coef.any() else state

    def step(problem: Problem, state: DualState, batch: Batch) -> DualState:
        floor = max(state.value - state.estimate, _LEAST * state.value) if np.isfinite(state.estimate) else 0.0
        gap_tol = min(_SKIP * tol, _MOST_SKIPPED) * floor
        if state.prox_center.target is not None:
            state = _adapt_kappa(problem, _move_center(state), gap_tol)
        if state.n_epochs >= state.next_sum:
            state = _recompute_dual_sums(problem, state, tol)
        state, loss, gap = _run_epoch(problem, state, next_order(), gap_tol)
        return _update_estimates(problem, state, loss, gap, tol, allow_estimate=allow_estimate)

    def evaluate(problem: Problem, state: DualState) -> Report:
        is_rounding = len(state.gaps) > 0 and state.gaps[-1] < -tol * state.value  # in exact numbers no gap is negative
        return Report(state.value, state.excess, is_rounding or state.is_done, state.is_exact)

    return Solver("dual", init, step, evaluate, None)


def _init_cold(problem: Problem, rows: DualData, intercept: Array) -> DualState:
    """The state in which each row agrees to its truth, which makes all coefficients 0."""
    from sksoftmax._engines import compiled as _compiled
    from sksoftmax._engines.compiled_row import make_workspace
    from sksoftmax._engines.simd import LANES

    X = problem.data.X
    n, K = problem.n_samples, problem.n_classes
    n_lanes = 1 if K == 2 else -(-K // LANES) * LANES
    prox_weights, q = init_prox_weights(problem, rows)
    l1_thresholds = problem.alpha * problem.l1_ratio * prox_weights.root[:-1]
    model = _compiled.FlatModel(
        np.zeros(problem.n_features * n_lanes, X.dtype),
        l1_thresholds.astype(X.dtype) if l1_thresholds.any() else np.empty(0, X.dtype),
        np.full(n_lanes, -1e9, X.dtype),  # so that the padding has no probability
    )
    model.intercept[: problem.n_outputs] = intercept
    residual = np.zeros(n if K == 2 else (n, n_lanes), X.dtype)
    prox_center = np.zeros((len(prox_weights.active) + 1, n_lanes), X.dtype)
    if problem.fit_intercept:
        prox_center[-1, : problem.n_outputs] = intercept / prox_weights.root[-1]
    return DualState(
        rows=rows.scaled(prox_weights.root),
        model=model,
        dual_vars=_compiled.DualVariables(residual, np.zeros(n, X.dtype), q),
        workspace=make_workspace(X.dtype, n_lanes),
        prox_weights=prox_weights,
        prox_center=ProxCenter(prox_center),
        value=np.inf,
        excess=np.inf,
        estimate=np.inf,
        cautious_estimate=np.inf,
        penalty=0.0,
        gaps=(),
        n_waiting=0,
        n_epochs=0,
        last_rise=-_ERRATIC - 1,
        factor=1.0,
        n_outputs=problem.n_outputs,
        n_columns=problem.n_features,
        next_sum=_N_BETWEEN if X.dtype == np.float32 else np.inf,
    )


def _init_warm(problem: Problem, state: DualState, params: Params) -> DualState:
    """The state in which each row agrees to what ``params`` predict of it, and the centre is where they are from.

    That of a column which has none is then what the rows agree to: near the minimum of F the same.
    """
    from sksoftmax._engines import compiled as _compiled

    prox_weights, n_outputs, (_, l1_thresholds, intercept) = state.prox_weights, state.n_outputs, state.model
    l1_thresholds = l1_thresholds[:, None] if len(l1_thresholds) else 0.0
    table = state.model.table.reshape(state.n_columns, -1)
    inverse = np.divide(1, prox_weights.root[:-1], out=np.zeros(state.n_columns), where=prox_weights.root[:-1] > 0)
    table[:, :n_outputs] = params.coef.T * inverse[:, None]
    table += l1_thresholds * np.sign(table)
    intercept[:n_outputs] = params.intercept + params.coef @ state.rows.mean
    slope = _compiled.GradientSums(np.zeros_like(state.model.table), np.zeros(len(intercept)))
    state.rows.scale_weights(1 / problem.n_samples).measure(state.model, state.dual_vars, slope, state.workspace)
    of_rows = -slope.table.reshape(table.shape)
    is_free = table == 0  # with L1, what keeps it 0; without, the same as any
    table[is_free] = np.clip(of_rows, -l1_thresholds, l1_thresholds)[is_free]
    has_none = prox_weights.kappa[:-1] == 0
    table[has_none] = of_rows[has_none]
    at = np.zeros_like(state.prox_center.at)
    at[:-1] = (table - of_rows)[prox_weights.active] / prox_weights.prox_fraction[:-1, None]
    if prox_weights.scale[-1]:
        at[-1, :n_outputs] = (
            intercept[:n_outputs] / prox_weights.root[-1] + prox_weights.root[-1] * slope.intercept[:n_outputs]
        )
    state = state._replace(prox_center=ProxCenter(at), penalty=_penalty(problem, state))
    return state._replace(prox_center=state.prox_center._replace(target=_stacked(state)))


def _softened(state: DualState) -> Array:
    """Scaled coefficients, (n_features, n_lanes)."""
    table: Array = state.model.table.reshape(state.n_columns, -1)
    l1_thresholds = state.model.l1_thresholds[:, None]
    return table - np.clip(table, -l1_thresholds, l1_thresholds) if len(l1_thresholds) else table


def _unscaled(state: DualState, table: Array, intercept: Array) -> Params:
    """Coefficients of a table of scaled ones, (n_features, n_lanes), and their intercept, as a copy."""
    scaled, root = table[:, : state.n_outputs], state.prox_weights.root[:-1, None]
    coef = np.empty((state.n_outputs, state.n_columns))
    for start in range(0, state.n_columns, _BLOCK):
        columns = slice(start, start + _BLOCK)
        np.multiply(scaled[columns].T, root[columns].T, out=coef[:, columns])
    return uncentred(state.rows, Params(coef, intercept[: state.n_outputs].astype(np.float64)))


def _stacked(state: DualState) -> Array:
    """Scaled coefficients of the columns that have a centre and, last, the intercept."""
    prox_weights, n_outputs = state.prox_weights, state.n_outputs
    stacked = np.zeros_like(state.prox_center.at)
    stacked[:-1] = _softened(state)[prox_weights.active]
    if prox_weights.scale[-1]:
        stacked[-1, :n_outputs] = state.model.intercept[:n_outputs] / prox_weights.root[-1]
    return stacked


def _penalty(problem: Problem, state: DualState) -> float:
    """``objective.penalty`` of the coefficients, from the scaled ones."""
    scaled = _softened(state)
    value = (
        0.5
        * problem.alpha
        * (1 - problem.l1_ratio)
        * (np.einsum("ij,ij->i", scaled, scaled) @ state.prox_weights.scale[:-1])
    )
    if problem.l1_ratio:
        value += problem.alpha * problem.l1_ratio * (np.abs(scaled).sum(axis=1) @ state.prox_weights.root[:-1])
    return float(value)


def _run_epoch(problem: Problem, state: DualState, order: Array, gap_tol: float) -> tuple[DualState, float, float]:
    """The state after a visit of each row; the mean loss along the way, and the mean gap."""
    n = problem.n_samples
    scales = np.array([state.prox_weights.scale[-1], 1 / n], dtype=problem.data.X.dtype)
    loss, gap = state.rows.visit(state.model, state.dual_vars, order, scales, gap_tol, state.workspace)
    return state._replace(n_epochs=state.n_epochs + 1), loss / n, gap / n


def _update_estimates(
    problem: Problem, state: DualState, loss: float, gap: float, tol: float, *, allow_estimate: bool
) -> DualState:
    """The state with where its centre is to go, and the excess.

    The mean gap of the rows bounds what they can still bring at this centre; what moving it can, ``_prox_center``
    estimates. Where the gaps that the visits met are small enough for the fit to end, those that they left are
    measured: a heavy row's may have grown. Unless an estimate will do (``allow_estimate``).
    """
    reached = _stacked(state)
    after = _penalty(problem, state)
    value = loss + 0.5 * (after + state.penalty)  # the losses are those of the way: so is the penalty, about
    rose = not value <= state.value + max(state.estimate, 0.0)
    prox_center = update_center(state.prox_center, reached, state.prox_weights.prox_fraction, is_plain=rose)
    last_rise = state.n_epochs if rose else state.last_rise
    cautious_estimate = max(gap, 0.0) + prox_center.cautious_estimate
    left = (
        max(cautious_estimate, state.cautious_estimate) if state.n_epochs <= last_rise + _ERRATIC else cautious_estimate
    )
    state = state._replace(
        prox_center=prox_center,
        value=value,
        is_exact=False,
        excess=np.inf,
        estimate=gap + prox_center.remaining,
        cautious_estimate=cautious_estimate,
        penalty=after,
        gaps=(*state.gaps, gap)[-_PATIENCE - 1 :],
        last_rise=last_rise,
    )
    known = _partial_bound(problem, state, max(gap, 0.0))
    if allow_estimate:
        left = np.inf if len(prox_center.gains) == 1 else _DOUBT * left  # how the gains fall, one does not tell
        return state._replace(excess=relative_excess(value, min(left, known)))
    excess = relative_excess(value, min(left, known))
    if state.n_epochs >= state.next_check and excess <= tol:
        return _certify(problem, state, tol)._replace(is_exact=True)
    return state


def _partial_bound(problem: Problem, state: DualState, gap: float) -> float:
    """That part of the bound of F - F* which costs nothing; without the intercept's, no bound by itself."""
    assert state.prox_center.last is not None
    if problem.l1_ratio == 1 or not problem.alpha:
        return np.inf
    ridge = problem.alpha * (1 - problem.l1_ratio) * state.prox_weights.scale[state.prox_weights.active]
    return gap + squared(state.prox_center.last.g[:-1], ridge)


def _certify(problem: Problem, state: DualState, tol: float) -> DualState:
    """The state with F and a bound of its excess; moved by Newton steps where that is above tol.

    If it is so all the same, the next is due when a quarter more epochs are over. Without a penalty there is no bound,
    and what the centre's estimate is worth is for another solver to say. Nor is there one without a squared norm, in
    whose place the centre's estimate has to do, unless F falls by more along its slope: by 0.1 to 0.6 of what it may
    be off by on text and digits, by more where outlying rows hold a direction. Another solver goes on there.
    """
    state = state._replace(next_check=state.n_epochs + 1 + state.n_epochs // 4)
    certifier = Certifier(problem, state.prox_weights, state.rows, state.dual_vars, state.workspace)
    loss, gap, _ = certifier.measured(state.model, np.empty(0, state.model.table.dtype))
    value = loss + state.penalty
    allowed = absolute_suboptimality(value, tol)
    rounding = _ROUNDING * float(np.finfo(problem.data.X.dtype).eps)
    if not problem.alpha:
        return state._replace(value=value, is_done=True)
    rounding *= value
    if problem.l1_ratio == 1:
        left = max(state.cautious_estimate, gap + state.prox_center.cautious_estimate) + rounding
        if left <= allowed < _decrease_along_gradient(problem, state, certifier.slope(state.model)[1]):
            return state._replace(value=value, is_done=True)
        return state._replace(value=value, excess=relative_excess(value, left))
    left = certifier.bound(_slope(problem, state), max(gap, 0.0) + rounding, allowed) + certifier.rounding()
    if left > allowed:
        state, value, left = _newton_polish(problem, state, certifier, value, left, allowed)
    return state._replace(value=value, excess=relative_excess(value, left))


def _newton_polish(
    problem: Problem, state: DualState, certifier: Certifier, value: float, left: float, allowed: float
) -> tuple[DualState, float, float]:
    """The state after Newton steps, as long as F falls and its excess may be above ``allowed``; F and the excess there.

    The excess is at allowed the bound; and about that which a Newton step from there expects to bring, if it hardly
    does. Where rows saturate along that step, another solver goes on.
    """
    _, grads = certifier.slope(state.model)
    n_each = max(_LEAST_PRODUCTS, _PRODUCTS * state.n_epochs)
    n_products, by_penalty = 0, True
    while left > allowed >= certifier.rounding() and n_products < 2 * n_each:
        n_most = min(n_each, 2 * n_each - n_products)
        newton = certifier.newton(state.model, grads, _MARGIN * allowed, n_most, by_penalty=by_penalty)
        n_products += newton.n_products
        by_penalty &= newton.cg_remainder <= allowed
        expected = _EXPONENTIAL * newton.decrease + newton.cg_remainder
        is_near = expected <= allowed
        if is_near and not _has_no_saturation(problem, state, newton, allowed):
            return state._replace(is_done=True), value, left
        moved, before = _better_of(problem, state, certifier, value, newton), value
        if moved is None:
            return state, value, expected if is_near else left
        state, value, grads, length = moved
        is_as_expected = before - value <= _EXPONENTIAL * newton.decrease
        left = expected if is_as_expected and is_near else certifier.bound(grads, 0.0, allowed) + certifier.rounding()
        if length < 1:  # F is not the quadratic
            break
    return state, value, left


def _has_no_saturation(problem: Problem, state: DualState, newton: NewtonStep, allowed: float) -> bool:
    """Whether a Newton step brings what it expects once rows have saturated along it."""
    params = state.params
    step = _unscaled(state, newton.direction.coef.reshape(state.n_columns, -1), newton.direction.intercept)
    evaluation = value_and_grad(problem, params)
    return check_saturation(
        problem, params, evaluation, None, step, problem.kernel, allowed, is_exact=False
    ).is_negligible(allowed)


def _better_of(
    problem: Problem, state: DualState, certifier: Certifier, value: float, newton: NewtonStep
) -> tuple[DualState, float, Params, float] | None:
    """The state after the longest of the steps that F falls by; F and its slope there, and the length. None if none."""
    for length in _LENGTHS if newton.decrease > 0 else ():
        moved = _move_model(state, scale_params(length, newton.direction))
        moved = moved._replace(penalty=_penalty(problem, moved))
        loss, grads = certifier.slope(moved.model)
        if loss + moved.penalty < value:
            return moved, loss + moved.penalty, grads, length
    return None


def _decrease_along_gradient(problem: Problem, state: DualState, grads: Params) -> float:
    """What F falls by along its least subgradient, by the diagonal of the curvature that most rows share.

    The centre's moves tell nothing of a direction that a few outlying rows hold.
    """
    root = state.prox_weights.root[:-1]
    by_column = grads.coef.reshape(state.n_columns, -1)[:, : state.n_outputs].T
    intercept = grads.intercept[: state.n_outputs].astype(np.float64)
    slope = Params(ratio(by_column, np.broadcast_to(root, by_column.shape)), intercept)
    slope = slope._replace(coef=slope.coef + np.outer(intercept, state.rows.mean))
    params, data = state.params, normalize_weights(problem.data)
    if sp.issparse(data.X):  # most columns of text have neither a coefficient nor a slope
        used = np.flatnonzero((params.coef != 0).any(axis=0) | (slope.coef != 0).any(axis=0))
        params, slope = (Params(both.coef[:, used], both.intercept) for both in (params, slope))
        data = data._replace(X=data.X[:, used])
    return shared_decrease(problem._replace(data=data), params, data, slope)


def _slope(problem: Problem, state: DualState) -> Params:
    """Minus F's slope, as far as the rows agree: the centre's part, but for rounding."""
    of_rows, of_intercept = state.rows.slope(state.dual_vars)
    scaled = _softened(state)
    ridge = problem.alpha * (1 - problem.l1_ratio) * state.prox_weights.scale[:-1, None]
    coef = scaled - state.model.table.reshape(scaled.shape)  # minus L1's part
    coef -= ridge.astype(coef.dtype) * scaled
    coef -= of_rows / problem.n_samples
    return Params(coef.ravel(), -of_intercept / problem.n_samples * problem.fit_intercept)


def _move_model(state: DualState, direction: Params) -> DualState:
    """The state whose centre has moved so that the coefficients of the columns which have one move by ``direction``."""
    prox_weights, prox_center, n_outputs = state.prox_weights, state.prox_center, state.n_outputs
    step = np.zeros_like(prox_center.at)
    step[:-1] = direction.coef.reshape(state.n_columns, -1)[prox_weights.active] / prox_weights.prox_fraction[:-1, None]
    if prox_weights.scale[-1]:
        step[-1, :n_outputs] = direction.intercept[:n_outputs] / prox_weights.root[-1]
    model = state.model._replace(table=state.model.table.copy(), intercept=state.model.intercept.copy())
    target = prox_center._replace(target=prox_center.at + step, last=None, pairs=(), gains=())
    return _move_center(state._replace(model=model, prox_center=target))


def _move_center(state: DualState) -> DualState:
    """The state with its centre at the target; the coefficients move along by kappa D of it."""
    prox_weights, prox_center, n_outputs = state.prox_weights, state.prox_center, state.n_outputs
    assert prox_center.target is not None
    moved = prox_center.target - prox_center.at
    table = state.model.table.reshape(state.n_columns, -1)
    table[prox_weights.active] += prox_weights.prox_fraction[:-1, None].astype(table.dtype) * moved[:-1]
    if prox_weights.scale[-1]:
        state.model.intercept[:n_outputs] += moved[-1, :n_outputs] * table.dtype.type(prox_weights.root[-1])
    return state._replace(
        prox_center=prox_center._replace(at=prox_center.target, target=None), n_waiting=state.n_waiting + 1
    )


def _recompute_dual_sums(problem: Problem, state: DualState, tol: float) -> DualState:
    """The state with the same coefficients, and the centre that makes them what the rows agreed to.

    Those of columns without a centre become what the rows agreed to. The visits add to the coefficients what little
    each changes; rounding adds up, as if the rows had agreed to something else, of which F's minimum is another.
    """
    prox_weights, n_outputs, n = state.prox_weights, state.n_outputs, problem.n_samples
    slope, of_intercept = state.rows.slope(state.dual_vars)
    slope /= n
    at, table = np.zeros_like(state.prox_center.at), state.model.table.reshape(slope.shape)
    own = table + slope
    at[:-1] = own[prox_weights.active] / prox_weights.prox_fraction[:-1, None]
    has_none = prox_weights.kappa[:-1] == 0
    table[has_none] -= own[has_none]
    if prox_weights.scale[-1]:
        from_rows = prox_weights.scale[-1] * of_intercept[:n_outputs] / n
        at[-1, :n_outputs] = (state.model.intercept[:n_outputs] + from_rows) / prox_weights.root[-1]
    own[prox_weights.active] -= prox_weights.prox_fraction[:-1, None].astype(own.dtype) * state.prox_center.at[:-1]
    alpha_2, n_between = problem.alpha * (1 - problem.l1_ratio), state.n_between
    if alpha_2:
        off = squared(own, alpha_2 * prox_weights.scale[:-1])
        is_negligible = off <= _LITTLE * absolute_suboptimality(state.value, tol)
        n_between = 2 * n_between if is_negligible else max(1, n_between // 2)
    return state._replace(
        prox_center=state.prox_center._replace(at=at), next_sum=state.n_epochs + n_between, n_between=n_between
    )


def _adapt_kappa(problem: Problem, state: DualState, gap_tol: float) -> DualState:
    """The state with less kappa where it is the centre that is slow, and more where the rows are.

    ``gap_tol`` is the gap up to which a row is left alone.
    """
    if state.n_waiting <= _PATIENCE or not len(state.prox_weights.active):
        return state
    gap, before, remaining = state.gaps[-1], state.gaps[0], state.prox_center.remaining
    if state.factor < 1 and min(state.gaps) > max(_NOISY * max(state.prox_center.gains), gap_tol):
        return _rescale_kappa(problem, state, 2.0)
    if gap < max(_LEAST_GAP * remaining, gap_tol):
        return _rescale_kappa(problem, state, 0.25)
    if gap < min(_LOW * remaining, _FAST * before):
        return _rescale_kappa(problem, state, 0.5)
    if gap > _HIGH * remaining and (state.factor < 1 or gap > _SLOW * before):
        return _rescale_kappa(problem, state, 2.0)
    return state


def _rescale_kappa(problem: Problem, state: DualState, factor: float) -> DualState:
    """The state with kappa times ``factor``, and the same coefficients."""
    reached, old = _stacked(state), state.prox_weights
    alpha_2 = problem.alpha * (1 - problem.l1_ratio)
    kappa = factor * old.kappa
    scale = np.divide(1, alpha_2 + kappa, out=old.scale.copy(), where=kappa > 0)
    if scale[-1]:
        scale[-1] = min(1 / kappa[-1], GREATEST_INTERCEPT * problem.n_samples)
        kappa[-1] = 1 / scale[-1]
    new = prox_weights_of(kappa, scale)
    grow = np.divide(new.root, old.root, out=np.ones_like(scale), where=old.root > 0)
    table = state.model.table.reshape(state.n_columns, -1)
    coefficients = _softened(state)
    above = table - coefficients  # what L1 takes away scales by D, not by its inverse root
    table[:] = coefficients / grow[:-1, None].astype(table.dtype) + above * grow[:-1, None].astype(table.dtype)
    if len(state.model.l1_thresholds):
        state.model.l1_thresholds[:] = problem.alpha * problem.l1_ratio * new.root[:-1]
    both = np.append(old.active, len(kappa) - 1)
    factors = np.divide(kappa, old.kappa, out=np.ones_like(kappa), where=old.kappa > 0)
    return state._replace(
        rows=state.rows.scaled(new.root),
        prox_weights=new,
        prox_center=rescale_center(state.prox_center, reached, grow[both], factors[both]),
        dual_vars=state.dual_vars._replace(q=curvatures(state.rows, new)),
        n_waiting=0,
        factor=state.factor * factor,
    )
