"""Dual coordinate ascent with a moving centre, compiled: for sparse rows.

Each row keeps the probabilities p_i that it last agreed to; t_i is its one-hot truth. With weights of mean 1,
``G = sum_i w_i (p_i - t_i) x_i' / n`` and ``alpha_2 = alpha (1 - l1_ratio)``, the coefficients of a column are ::

    W_j = soft(kappa_j V_j - G_j, alpha l1_ratio) / (alpha_2 + kappa_j)

which minimises the penalty plus ``kappa / 2 ||W - V||^2 + <G, W>`` (the intercept: a column of ones without
penalty). A visit of row i replaces p_i by what is best for the dual, the solution of ::

    p = softmax(z_i - q_i (p - p_i)),     q_i = w_i / n x_i' D x_i,     D = 1 / (alpha_2 + kappa)

so there is no step length, and no row can overshoot. (Shalev-Shwartz & Zhang, 2013, J. Mach. Learn. Res. 14,
567-599.) Once an epoch the centre V moves to W, or further (``_centre``): a proximal point method (Rockafellar, 1976,
SIAM J. Control Optim. 14(5), 877-898; as an accelerator: Lin, Mairal & Harchaoui, 2015, arXiv:1506.02186), whose fixed
point is the minimum of F whatever kappa > 0. Where the penalty is strong enough kappa_j is 0.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp

from sksoftmax._maths.curvature import ratio, shared_decrease
from sksoftmax._maths.newton_direction import Newton, decrease_of_excess, relative_excess
from sksoftmax._maths.objective import value_and_grad
from sksoftmax._maths.saturation import check
from sksoftmax._solvers._centre import Centre, assessed, rescaled
from sksoftmax._solvers._certificate import Certifier, squared
from sksoftmax._solvers._metric import GREATEST_INTERCEPT, Metric, chosen, curvatures, metric_of
from sksoftmax._solvers._rows import Rows, rows_of, uncentred
from sksoftmax._types import Array, Batch, Params, Problem, Report, Solver, normalize_weights, scaled

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
    rows, model, agreed, tools
        What the kernels see: see ``compiled``.
    metric : Metric
    centre : Centre
    value : float
        F: along the last epoch, on average, or at ``params``.
    is_exact : bool
        Whether ``value`` is F at ``params``, as where the excess is certified.
    excess : float
    estimate : float
        Estimate of F - F*, as the moves of the centre and of kappa take it.
    most : float
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
    agreed: Any
    tools: Any
    metric: Metric
    centre: Centre
    value: float
    excess: float
    estimate: float
    most: float
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
    def bought(self) -> Rows:
        """What a fit of another penalty to the same rows may go on from."""
        rows: Rows = self.rows.unscaled()
        return rows


def is_available() -> bool:
    """Whether the kernels can be had: numba is installed, and works with this NumPy. Imports it."""
    try:
        from sksoftmax._engines import compiled as _compiled  # noqa: F401
    except ImportError:
        return False
    return True


def dual(next_order: Callable[[], Array], tol: float, *, is_rough: bool = False, bought: Rows | None = None) -> Solver:
    """Solver whose step is an epoch: a visit of each row, and a move of the centre.

    Parameters
    ----------
    next_order : callable
        The order of an epoch's visits, an array of row numbers.
    tol : float
        Excess at which the fit is to end.
    is_rough : bool
        Whether the estimate of the excess will do for that; else it is certified, and F evaluated exactly.
    bought : Rows or None
        The problem's rows, if a fit of another penalty has made them.
    """

    def init(problem: Problem, params: Params) -> DualState:
        state = _cold(problem, rows_of(problem) if bought is None else bought, params.intercept)
        return _warmed(problem, state, params) if params.coef.any() else state

    def step(problem: Problem, state: DualState, batch: Batch) -> DualState:
        floor = max(state.value - state.estimate, _LEAST * state.value) if np.isfinite(state.estimate) else 0.0
        skip = min(_SKIP * tol, _MOST_SKIPPED) * floor
        if state.centre.target is not None:
            state = _adapted(problem, _recentred(state), skip)
        if state.n_epochs >= state.next_sum:
            state = _summed(problem, state, tol)
        state, loss, gap = _visited(problem, state, next_order(), skip)
        return _assessed(problem, state, loss, gap, tol, is_rough=is_rough)

    def report(problem: Problem, state: DualState) -> Report:
        is_rounding = len(state.gaps) > 0 and state.gaps[-1] < -tol * state.value  # in exact numbers no gap is negative
        return Report(state.value, state.excess, is_rounding or state.is_done, state.is_exact)

    return Solver("dual", init, step, report, None)


def _cold(problem: Problem, rows: Rows, intercept: Array) -> DualState:
    """The state in which each row agrees to its truth, which makes all coefficients 0."""
    from sksoftmax._engines import compiled as _compiled
    from sksoftmax._engines.compiled_row import tools
    from sksoftmax._engines.simd import LANES

    X = problem.data.X
    n, K = problem.n_samples, problem.n_classes
    n_lanes = 1 if K == 2 else -(-K // LANES) * LANES
    metric, q = chosen(problem, rows)
    soft = problem.alpha * problem.l1_ratio * metric.root[:-1]
    model = _compiled.Model(
        np.zeros(problem.n_features * n_lanes, X.dtype),
        soft.astype(X.dtype) if soft.any() else np.empty(0, X.dtype),
        np.full(n_lanes, -1e9, X.dtype),  # so that the padding has no probability
    )
    model.intercept[: problem.n_outputs] = intercept
    residual = np.zeros(n if K == 2 else (n, n_lanes), X.dtype)
    centre = np.zeros((len(metric.active) + 1, n_lanes), X.dtype)
    if problem.fit_intercept:
        centre[-1, : problem.n_outputs] = intercept / metric.root[-1]
    return DualState(
        rows=rows.scaled(metric.root),
        model=model,
        agreed=_compiled.Agreed(residual, np.zeros(n, X.dtype), q),
        tools=tools(X.dtype, n_lanes),
        metric=metric,
        centre=Centre(centre),
        value=np.inf,
        excess=np.inf,
        estimate=np.inf,
        most=np.inf,
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


def _warmed(problem: Problem, state: DualState, params: Params) -> DualState:
    """The state in which each row agrees to what ``params`` predict of it, and the centre is where they are from.

    That of a column which has none is then what the rows agree to: near the minimum of F the same.
    """
    from sksoftmax._engines import compiled as _compiled

    metric, n_outputs, (_, soft, intercept) = state.metric, state.n_outputs, state.model
    soft = soft[:, None] if len(soft) else 0.0
    table = state.model.table.reshape(state.n_columns, -1)
    inverse = np.divide(1, metric.root[:-1], out=np.zeros(state.n_columns), where=metric.root[:-1] > 0)
    table[:, :n_outputs] = params.coef.T * inverse[:, None]
    table += soft * np.sign(table)
    intercept[:n_outputs] = params.intercept + params.coef @ state.rows.mean
    slope = _compiled.Sums(np.zeros_like(state.model.table), np.zeros(len(intercept)))
    state.rows.weighing(1 / problem.n_samples).measure(state.model, state.agreed, slope, state.tools)
    of_rows = -slope.table.reshape(table.shape)
    is_free = table == 0  # with L1, what keeps it 0; without, the same as any
    table[is_free] = np.clip(of_rows, -soft, soft)[is_free]
    has_none = metric.kappa[:-1] == 0
    table[has_none] = of_rows[has_none]
    at = np.zeros_like(state.centre.at)
    at[:-1] = (table - of_rows)[metric.active] / metric.share[:-1, None]
    if metric.scale[-1]:
        at[-1, :n_outputs] = intercept[:n_outputs] / metric.root[-1] + metric.root[-1] * slope.intercept[:n_outputs]
    state = state._replace(centre=Centre(at), penalty=_penalty(problem, state))
    return state._replace(centre=state.centre._replace(target=_stacked(state)))


def _softened(state: DualState) -> Array:
    """Scaled coefficients, (n_features, n_lanes)."""
    table: Array = state.model.table.reshape(state.n_columns, -1)
    soft = state.model.soft[:, None]
    return table - np.clip(table, -soft, soft) if len(soft) else table


def _unscaled(state: DualState, table: Array, intercept: Array) -> Params:
    """Coefficients of a table of scaled ones, (n_features, n_lanes), and their intercept, as a copy."""
    scaled, root = table[:, : state.n_outputs], state.metric.root[:-1, None]
    coef = np.empty((state.n_outputs, state.n_columns))
    for start in range(0, state.n_columns, _BLOCK):
        columns = slice(start, start + _BLOCK)
        np.multiply(scaled[columns].T, root[columns].T, out=coef[:, columns])
    return uncentred(state.rows, Params(coef, intercept[: state.n_outputs].astype(np.float64)))


def _stacked(state: DualState) -> Array:
    """Scaled coefficients of the columns that have a centre and, last, the intercept."""
    metric, n_outputs = state.metric, state.n_outputs
    stacked = np.zeros_like(state.centre.at)
    stacked[:-1] = _softened(state)[metric.active]
    if metric.scale[-1]:
        stacked[-1, :n_outputs] = state.model.intercept[:n_outputs] / metric.root[-1]
    return stacked


def _penalty(problem: Problem, state: DualState) -> float:
    """``objective.penalty`` of the coefficients, from the scaled ones."""
    scaled = _softened(state)
    value = (
        0.5 * problem.alpha * (1 - problem.l1_ratio) * (np.einsum("ij,ij->i", scaled, scaled) @ state.metric.scale[:-1])
    )
    if problem.l1_ratio:
        value += problem.alpha * problem.l1_ratio * (np.abs(scaled).sum(axis=1) @ state.metric.root[:-1])
    return float(value)


def _visited(problem: Problem, state: DualState, order: Array, skip: float) -> tuple[DualState, float, float]:
    """The state after a visit of each row; the mean loss along the way, and the mean gap."""
    n = problem.n_samples
    scales = np.array([state.metric.scale[-1], 1 / n], dtype=problem.data.X.dtype)
    loss, gap = state.rows.visit(state.model, state.agreed, order, scales, skip, state.tools)
    return state._replace(n_epochs=state.n_epochs + 1), loss / n, gap / n


def _assessed(problem: Problem, state: DualState, loss: float, gap: float, tol: float, *, is_rough: bool) -> DualState:
    """The state with where its centre is to go, and the excess.

    The mean gap of the rows bounds what they can still bring at this centre; what moving it can, ``_centre`` estimates.
    Where the gaps that the visits met are small enough for the fit to end, those that they left are measured: a heavy
    row's may have grown. Unless an estimate will do (``is_rough``).
    """
    reached = _stacked(state)
    after = _penalty(problem, state)
    value = loss + 0.5 * (after + state.penalty)  # the losses are those of the way: so is the penalty, about
    rose = not value <= state.value + max(state.estimate, 0.0)
    centre = assessed(state.centre, reached, state.metric.share, is_plain=rose)
    last_rise = state.n_epochs if rose else state.last_rise
    most = max(gap, 0.0) + centre.most
    left = max(most, state.most) if state.n_epochs <= last_rise + _ERRATIC else most
    state = state._replace(
        centre=centre,
        value=value,
        is_exact=False,
        excess=np.inf,
        estimate=gap + centre.remaining,
        most=most,
        penalty=after,
        gaps=(*state.gaps, gap)[-_PATIENCE - 1 :],
        last_rise=last_rise,
    )
    known = _known(problem, state, max(gap, 0.0))
    if is_rough:
        left = np.inf if len(centre.gains) == 1 else _DOUBT * left  # how the gains fall, one does not tell
        return state._replace(excess=relative_excess(value, min(left, known)))
    excess = relative_excess(value, min(left, known))
    if state.n_epochs >= state.next_check and excess <= tol:
        return _certified(problem, state, tol)._replace(is_exact=True)
    return state


def _known(problem: Problem, state: DualState, gap: float) -> float:
    """That part of the bound of F - F* which costs nothing; without the intercept's, no bound by itself."""
    assert state.centre.last is not None
    if problem.l1_ratio == 1 or not problem.alpha:
        return np.inf
    ridge = problem.alpha * (1 - problem.l1_ratio) * state.metric.scale[state.metric.active]
    return gap + squared(state.centre.last.g[:-1], ridge)


def _certified(problem: Problem, state: DualState, tol: float) -> DualState:
    """The state with F and a bound of its excess; moved by Newton steps where that is above tol.

    If it is so all the same, the next is due when a quarter more epochs are over. Without a penalty there is no bound,
    and what the centre's estimate is worth is for another solver to say. Nor is there one without a squared norm, in
    whose place the centre's estimate has to do, unless F falls by more along its slope: by 0.1 to 0.6 of what it may
    be off by on text and digits, by more where outlying rows hold a direction. Another solver goes on there.
    """
    state = state._replace(next_check=state.n_epochs + 1 + state.n_epochs // 4)
    certifier = Certifier(problem, state.metric, state.rows, state.agreed, state.tools)
    loss, gap, _ = certifier.measured(state.model, np.empty(0, state.model.table.dtype))
    value = loss + state.penalty
    most = decrease_of_excess(value, tol)
    rounding = _ROUNDING * float(np.finfo(problem.data.X.dtype).eps)
    if not problem.alpha:
        return state._replace(value=value, is_done=True)
    rounding *= value
    if problem.l1_ratio == 1:
        left = max(state.most, gap + state.centre.most) + rounding
        if left <= most < _along_slope(problem, state, certifier.slope(state.model)[1]):
            return state._replace(value=value, is_done=True)
        return state._replace(value=value, excess=relative_excess(value, left))
    left = certifier.bound(_slope(problem, state), max(gap, 0.0) + rounding, most) + certifier.rounding()
    if left > most:
        state, value, left = _stepped(problem, state, certifier, value, left, most)
    return state._replace(value=value, excess=relative_excess(value, left))


def _stepped(
    problem: Problem, state: DualState, certifier: Certifier, value: float, left: float, most: float
) -> tuple[DualState, float, float]:
    """The state after Newton steps, as long as F falls and its excess may be above ``most``; F and the excess there.

    The excess is at most the bound; and about that which a Newton step from there expects to bring, if it hardly does.
    Where rows saturate along that step, another solver goes on.
    """
    _, grads = certifier.slope(state.model)
    n_each = max(_LEAST_PRODUCTS, _PRODUCTS * state.n_epochs)
    n_products, by_penalty = 0, True
    while left > most >= certifier.rounding() and n_products < 2 * n_each:
        n_most = min(n_each, 2 * n_each - n_products)
        newton = certifier.newton(state.model, grads, _MARGIN * most, n_most, by_penalty=by_penalty)
        n_products += newton.n_products
        by_penalty &= newton.remaining <= most
        expected = _EXPONENTIAL * newton.decrease + newton.remaining
        is_near = expected <= most
        if is_near and not _holds(problem, state, newton, most):
            return state._replace(is_done=True), value, left
        moved, before = _improved(problem, state, certifier, value, newton), value
        if moved is None:
            return state, value, expected if is_near else left
        state, value, grads, length = moved
        is_as_expected = before - value <= _EXPONENTIAL * newton.decrease
        left = expected if is_as_expected and is_near else certifier.bound(grads, 0.0, most) + certifier.rounding()
        if length < 1:  # F is not the quadratic
            break
    return state, value, left


def _holds(problem: Problem, state: DualState, newton: Newton, most: float) -> bool:
    """Whether a Newton step brings what it expects once rows have saturated along it."""
    params = state.params
    step = _unscaled(state, newton.direction.coef.reshape(state.n_columns, -1), newton.direction.intercept)
    evaluation = value_and_grad(problem, params)
    return check(problem, params, evaluation, None, step, problem.kernel, most, is_exact=False).is_little(most)


def _improved(
    problem: Problem, state: DualState, certifier: Certifier, value: float, newton: Newton
) -> tuple[DualState, float, Params, float] | None:
    """The state after the longest of the steps that F falls by; F and its slope there, and the length. None if none."""
    for length in _LENGTHS if newton.decrease > 0 else ():
        moved = _moved(state, scaled(length, newton.direction))
        moved = moved._replace(penalty=_penalty(problem, moved))
        loss, grads = certifier.slope(moved.model)
        if loss + moved.penalty < value:
            return moved, loss + moved.penalty, grads, length
    return None


def _along_slope(problem: Problem, state: DualState, grads: Params) -> float:
    """What F falls by along its least subgradient, by the diagonal of the curvature that most rows share.

    The centre's moves tell nothing of a direction that a few outlying rows hold.
    """
    root = state.metric.root[:-1]
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
    of_rows, of_intercept = state.rows.slope(state.agreed)
    scaled = _softened(state)
    ridge = problem.alpha * (1 - problem.l1_ratio) * state.metric.scale[:-1, None]
    coef = scaled - state.model.table.reshape(scaled.shape)  # minus L1's part
    coef -= ridge.astype(coef.dtype) * scaled
    coef -= of_rows / problem.n_samples
    return Params(coef.ravel(), -of_intercept / problem.n_samples * problem.fit_intercept)


def _moved(state: DualState, direction: Params) -> DualState:
    """The state whose centre has moved so that the coefficients of the columns which have one move by ``direction``."""
    metric, centre, n_outputs = state.metric, state.centre, state.n_outputs
    step = np.zeros_like(centre.at)
    step[:-1] = direction.coef.reshape(state.n_columns, -1)[metric.active] / metric.share[:-1, None]
    if metric.scale[-1]:
        step[-1, :n_outputs] = direction.intercept[:n_outputs] / metric.root[-1]
    model = state.model._replace(table=state.model.table.copy(), intercept=state.model.intercept.copy())
    target = centre._replace(target=centre.at + step, last=None, pairs=(), gains=())
    return _recentred(state._replace(model=model, centre=target))


def _recentred(state: DualState) -> DualState:
    """The state with its centre at the target; the coefficients move along by kappa D of it."""
    metric, centre, n_outputs = state.metric, state.centre, state.n_outputs
    assert centre.target is not None
    moved = centre.target - centre.at
    table = state.model.table.reshape(state.n_columns, -1)
    table[metric.active] += metric.share[:-1, None].astype(table.dtype) * moved[:-1]
    if metric.scale[-1]:
        state.model.intercept[:n_outputs] += moved[-1, :n_outputs] * table.dtype.type(metric.root[-1])
    return state._replace(centre=centre._replace(at=centre.target, target=None), n_waiting=state.n_waiting + 1)


def _summed(problem: Problem, state: DualState, tol: float) -> DualState:
    """The state with the same coefficients, and the centre that makes them what the rows agreed to.

    Those of columns without a centre become what the rows agreed to. The visits add to the coefficients what little
    each changes; rounding adds up, as if the rows had agreed to something else, of which F's minimum is another.
    """
    metric, n_outputs, n = state.metric, state.n_outputs, problem.n_samples
    slope, of_intercept = state.rows.slope(state.agreed)
    slope /= n
    at, table = np.zeros_like(state.centre.at), state.model.table.reshape(slope.shape)
    own = table + slope
    at[:-1] = own[metric.active] / metric.share[:-1, None]
    has_none = metric.kappa[:-1] == 0
    table[has_none] -= own[has_none]
    if metric.scale[-1]:
        from_rows = metric.scale[-1] * of_intercept[:n_outputs] / n
        at[-1, :n_outputs] = (state.model.intercept[:n_outputs] + from_rows) / metric.root[-1]
    own[metric.active] -= metric.share[:-1, None].astype(own.dtype) * state.centre.at[:-1]
    alpha_2, n_between = problem.alpha * (1 - problem.l1_ratio), state.n_between
    if alpha_2:
        off = squared(own, alpha_2 * metric.scale[:-1])
        is_little = off <= _LITTLE * decrease_of_excess(state.value, tol)
        n_between = 2 * n_between if is_little else max(1, n_between // 2)
    return state._replace(centre=state.centre._replace(at=at), next_sum=state.n_epochs + n_between, n_between=n_between)


def _adapted(problem: Problem, state: DualState, skip: float) -> DualState:
    """The state with less kappa where it is the centre that is slow, and more where the rows are.

    ``skip`` is the gap up to which a row is left alone.
    """
    if state.n_waiting <= _PATIENCE or not len(state.metric.active):
        return state
    gap, before, remaining = state.gaps[-1], state.gaps[0], state.centre.remaining
    if state.factor < 1 and min(state.gaps) > max(_NOISY * max(state.centre.gains), skip):
        return _rescaled(problem, state, 2.0)
    if gap < max(_LEAST_GAP * remaining, skip):
        return _rescaled(problem, state, 0.25)
    if gap < min(_LOW * remaining, _FAST * before):
        return _rescaled(problem, state, 0.5)
    if gap > _HIGH * remaining and (state.factor < 1 or gap > _SLOW * before):
        return _rescaled(problem, state, 2.0)
    return state


def _rescaled(problem: Problem, state: DualState, factor: float) -> DualState:
    """The state with kappa times ``factor``, and the same coefficients."""
    reached, old = _stacked(state), state.metric
    alpha_2 = problem.alpha * (1 - problem.l1_ratio)
    kappa = factor * old.kappa
    scale = np.divide(1, alpha_2 + kappa, out=old.scale.copy(), where=kappa > 0)
    if scale[-1]:
        scale[-1] = min(1 / kappa[-1], GREATEST_INTERCEPT * problem.n_samples)
        kappa[-1] = 1 / scale[-1]
    new = metric_of(kappa, scale)
    grow = np.divide(new.root, old.root, out=np.ones_like(scale), where=old.root > 0)
    table = state.model.table.reshape(state.n_columns, -1)
    coefficients = _softened(state)
    above = table - coefficients  # what L1 takes away scales by D, not by its inverse root
    table[:] = coefficients / grow[:-1, None].astype(table.dtype) + above * grow[:-1, None].astype(table.dtype)
    if len(state.model.soft):
        state.model.soft[:] = problem.alpha * problem.l1_ratio * new.root[:-1]
    both = np.append(old.active, len(kappa) - 1)
    factors = np.divide(kappa, old.kappa, out=np.ones_like(kappa), where=old.kappa > 0)
    return state._replace(
        rows=state.rows.scaled(new.root),
        metric=new,
        centre=rescaled(state.centre, reached, grow[both], factors[both]),
        agreed=state.agreed._replace(q=curvatures(state.rows, new)),
        n_waiting=0,
        factor=state.factor * factor,
    )
