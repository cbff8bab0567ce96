"""L-BFGS whose initial matrix improves as the fit goes on, and which ends by a bound of F - F*.

Made by ``plan`` for dense rows if the Hessian is too large to factorize at each step. An epoch is a run of steps. A
step:

1. Compute the direction by the L-BFGS recursion, with the preconditioner at hand as the initial matrix: Nocedal &
   Wright (2006), Numerical Optimization, algorithm 7.4.
2. Try the whole step. If F does not decrease enough, add the pair of the trial, whose curvature was unknown, and
   compute the direction anew; after some trials, shorten it.
3. Accept the step, and add its pair.
4. Build a better preconditioner (see `class_preconditioner`) as soon as the passes so far have cost as much, if the
   fall of F suggests that the passes to come will. Keep it if it describes the curvature along the last steps better.
5. If the fall of F suggests that the minimum is near, bound F - F* by conjugate gradients (CG) with the Hessian of all
   rows, preconditioned by the L-BFGS matrix, and by the duality gap of the resulting direction (see `saturation`). The
   direction is the next step, so that the products with the Hessian are no loss. End CG as soon as its decrease shows
   that the minimum is not near.

The bound gives a lower bound of F*, which holds for all later steps. A step costs one pass over the data.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy.linalg

from sksoftmax._maths.class_curvature import (
    ClassPreconditioner,
    ColumnUnits,
    DiagonalPreconditioner,
    FlatPreconditioner,
    class_preconditioner,
    column_units,
    gram_of_units,
    mean_curvature,
    preconditioner_costs,
    shared_preconditioner,
)
from sksoftmax._maths.newton_direction import absolute_suboptimality, relative_excess
from sksoftmax._maths.objective import (
    better_start,
    center_over_classes,
    hessian_products,
    penalty,
    value_and_grad,
)
from sksoftmax._maths.preconditioner import absorb_constant_columns, compute_moments
from sksoftmax._maths.saturation import newton_step
from sksoftmax._solvers._line_search import ARMIJO, rounding_error, search_direction
from sksoftmax._types import (
    Array,
    Batch,
    Evaluation,
    Moments,
    Params,
    Problem,
    Report,
    Solver,
    add_scaled,
    dot,
    normalize_weights,
    scale_params,
)

#: Steps of an epoch.
_STEPS = 10

#: Trials of a step with directions computed anew, and all trials.
_MAX_NEW_DIRECTIONS = 3
_MAX_TRIALS = 30

#: Factor on the length of a step after these.
_SHRINK = 0.25

#: Ratio of mean curvatures from which the shared preconditioner is computed anew.
_CURVATURE_RATIO = 2.0

#: Passes since the last preconditioner, in units of the cost of the next one.
_PATIENCE = 2.0

#: Steps with a better preconditioner, in units of those with the one at hand, about; and the largest number of steps
#: left that is expected.
_STEPS_RATIO = 1 / 3
_MAX_STEPS_LEFT = 1000.0

#: Pairs by which two preconditioners are compared: with fewer than the first number, the better one is unknown.
_MIN_COMPARED = 8
_N_COMPARED = 20

#: F - F* that the fall of F suggests, in units of the F - F* at which the fit may end, at which it is bounded.
_NEAR = 0.5

#: Largest ratio of the geometric series that predicts the fall of F.
_MAX_RATIO = 0.95

#: Relative CG accuracy of the bound, and its accuracy in units of the F - F* at which the fit may end.
_CG_RTOL = 0.5
_MAX_REMAINDER = 0.4

#: What CG has left unsolved is negligible up to this fraction of the F - F* at which the fit may end.
_NEGLIGIBLE_REMAINDER = 0.05

#: Products of a bound: the smallest number, unless the passes so far are fewer; its fraction of the passes so far; and
#: the largest number. The more steps the fit has taken, the further CG has to look for directions along which F falls
#: slowly. It takes no more products than there were passes, or twice the smallest number, as F may seem to be near its
#: minimum too early.
_MIN_PRODUCTS = 10
_MIN_FRACTION = 0.25
_MAX_PRODUCTS = 200

#: Error of the bound, as a fraction of it: F is not quadratic, and the remainder of CG is an estimate. F - F* at the
#: end of the step is no less.
_BOUND_ERROR = 0.25


class FlatPairs(NamedTuple):
    """L-BFGS pairs in the coordinates of `ColumnUnits`, flat; ``scales`` are 1 / s'y."""

    steps: tuple[Array, ...] = ()
    changes: tuple[Array, ...] = ()
    scales: tuple[float, ...] = ()

    def add(self, step: Array, change: Array, n_pairs: int) -> FlatPairs:
        """Return the last ``n_pairs`` pairs with one more, unless its curvature is not positive."""
        curvature = float(np.vdot(step, change))
        eps = float(np.finfo(step.dtype).eps)
        if not curvature > eps * float(np.linalg.norm(step)) * float(np.linalg.norm(change)):
            return self
        return FlatPairs(
            (*self.steps, step)[-n_pairs:], (*self.changes, change)[-n_pairs:], (*self.scales, 1 / curvature)[-n_pairs:]
        )


class LbfgsMatrix(NamedTuple):
    """The L-BFGS approximation of the inverse Hessian, as a preconditioner.

    ``factor`` scales the preconditioner to the curvature of the last pair.
    """

    units: ColumnUnits
    preconditioner: FlatPreconditioner
    pairs: FlatPairs
    factor: float

    def apply(self, grads: Params) -> Params:
        """Return the matrix times ``grads``."""
        return self.units.to_step(self.multiply(self.units.flatten_gradient(grads)))

    def multiply(self, gradient: Array) -> Array:
        """Return the matrix times a gradient in the coordinates of ``units``: the two-loop recursion."""
        dtype = self.pairs.steps[0].dtype if self.pairs.steps else gradient.dtype
        size = float(np.abs(gradient).max()) or 1.0  # gradients of any scale would not fit in the range of float32
        g = (gradient / size).ravel().astype(dtype)
        coefficients = []
        axpy = scipy.linalg.blas.saxpy if dtype == np.float32 else scipy.linalg.blas.daxpy
        for step, change, scale in zip(*map(reversed, self.pairs), strict=True):
            coefficients.append(scale * float(np.dot(step, g)))
            axpy(change, g, a=-coefficients[-1])
        d = (self.factor * self.preconditioner.apply(g.reshape(gradient.shape))).ravel().astype(dtype)
        for step, change, scale, coefficient in zip(*self.pairs, reversed(coefficients), strict=True):
            axpy(step, d, a=coefficient - scale * float(np.dot(change, d)))
        return d.reshape(gradient.shape).astype(np.float64) * size


class LbfgsState(NamedTuple):
    """State of L-BFGS.

    Attributes
    ----------
    params : Params
    evaluation : Evaluation
        F and its gradient at ``params``.
    units : ColumnUnits
        Coordinates of the pairs and preconditioners.
    gram : Array or None
        X'X in these coordinates, once it is bought.
    preconditioner : FlatPreconditioner
        Initial matrix.
    curvature : float
        Mean curvature of the rows when it was computed.
    certainty : ndarray of shape (n_samples,) or None
        Curvature of each row when the curvature of each class was computed last.
    leverage : ndarray of shape (n_samples,) or None
        Leverage of each row, once needed.
    pairs : FlatPairs
    n_passes : float
        Passes of steps since the last preconditioner was computed.
    values : tuple of float
        F after each step with this preconditioner.
    lower_bound : float
        Lower bound of F*; -inf if there is none.
    minimum : float
        Estimate of F* by the last bound; -inf if there is none.
    n_passes_bound : float
        Passes until the next bound, at least.
    n_total : float
        Passes of all steps.
    excess : float
        Bound of ``(F - F*) / F*``.
    at_precision : bool
        Whether no step decreases F by more than rounding.
    rows : Batch
        Sample that estimates the mean curvature and the length of the first step; its weights sum to 1.
    """

    params: Params
    evaluation: Evaluation
    units: ColumnUnits
    gram: Array | None
    preconditioner: FlatPreconditioner
    curvature: float
    certainty: Array | None
    leverage: Array | None
    pairs: FlatPairs
    n_passes: float
    values: tuple[float, ...]
    lower_bound: float
    minimum: float
    n_passes_bound: float
    n_total: float
    excess: float
    at_precision: bool
    rows: Batch


class LbfgsSettings(NamedTuple):
    """Settings of L-BFGS: see `lbfgs`."""

    n_pairs: int
    tol: float
    final_tol: float


def lbfgs(moments: Moments, n_drawn: int, n_pairs: int, tol: float, final_tol: float = 0.0) -> Solver:
    """Return the solver whose step is a run of steps of L-BFGS.

    Parameters
    ----------
    moments : Moments
        Moments of the columns. If they have no X'X, it is computed once it pays.
    n_drawn : int
        Size of the evenly spaced sample that estimates the mean curvature.
    n_pairs : int
        Largest number of L-BFGS pairs, each of two sets of parameters in X's dtype.
    tol : float
        Excess at which the fit is to end.
    final_tol : float
        Excess that the fit has to reach, if that is larger: see `saturation`.
    """
    settings = LbfgsSettings(n_pairs, tol, max(tol, final_tol))

    def init(problem: Problem, params: Params) -> LbfgsState:
        units = column_units(moments)
        params, evaluation = better_start(problem, absorb_constant_columns(units, params))
        rows = _evenly_spaced_rows(problem, n_drawn)
        curvature = mean_curvature(problem, params, rows)
        gram = gram_of_units(moments, units) if moments.second_moment.ndim == 2 else None
        state = LbfgsState(
            params=params,
            evaluation=evaluation,
            units=units,
            gram=gram,
            preconditioner=DiagonalPreconditioner(problem, units, curvature)
            if gram is None
            else shared_preconditioner(problem, units, gram, curvature),
            curvature=curvature,
            certainty=None,
            leverage=None,
            pairs=FlatPairs(),
            n_passes=0.0,
            values=(evaluation.value,),
            lower_bound=-np.inf,
            minimum=-np.inf,
            n_passes_bound=0.0,
            n_total=1.0,
            excess=np.inf,
            at_precision=False,
            rows=rows,
        )
        return _with_preconditioner(settings, problem, state)

    def step(problem: Problem, state: LbfgsState, batch: Batch) -> LbfgsState:
        for _ in range(_STEPS):
            state = _step(settings, problem, state)
            if state.at_precision or state.excess <= settings.tol:
                break
        return state

    def evaluate(problem: Problem, state: LbfgsState) -> Report:
        # the result is centred over the classes, which changes the penalty alone
        coef = state.params.coef
        change = penalty(center_over_classes(coef), problem.alpha)[0] - penalty(coef, problem.alpha)[0]
        return Report(float(state.evaluation.value + change), state.excess, state.at_precision)

    return Solver("lbfgs", init, step, evaluate, None)


def _evenly_spaced_rows(problem: Problem, n_drawn: int) -> Batch:
    """Return about ``n_drawn`` evenly spaced rows, with weights that sum to 1."""
    spaced = slice(None, None, max(1, problem.n_samples // n_drawn))
    X, y, weight = (column[spaced] for column in problem.data)
    return normalize_weights(Batch(np.ascontiguousarray(X) if isinstance(X, np.ndarray) else X, y, weight))


def _step(settings: LbfgsSettings, problem: Problem, state: LbfgsState) -> LbfgsState:
    """Take a step: steps 1 to 5 of the module docstring."""
    # 1. and 2.
    state, trial = _search(settings, problem, state)
    if trial is None:
        return state._replace(at_precision=True)
    # 3.
    state = _accept(settings, state, *trial)
    # 4.
    state = _with_preconditioner(settings, problem, state)
    # 5.
    return _with_bound(settings, problem, state) if _is_near(settings, state) else state


def _is_near(settings: LbfgsSettings, state: LbfgsState) -> bool:
    """Return whether F seems to be so near its minimum that it is time for a bound.

    Until the steps have taken as many passes as the last bound, its estimate of the minimum decides.
    """
    value = state.evaluation.value
    wanted = _NEAR * settings.tol * value
    _, most_steps = _steps_left(state.values, wanted)
    return value - state.minimum <= wanted or (most_steps == 0 and state.n_passes_bound <= 0)


def _search(
    settings: LbfgsSettings, problem: Problem, state: LbfgsState
) -> tuple[LbfgsState, tuple[Params, Evaluation] | None]:
    """Return the state with the pairs of rejected trials, and the end of a step that decreases F enough, if any."""
    value, noise = state.evaluation.value, rounding_error(problem, state.evaluation.value)
    length, direction = 1.0, _direction(problem, state)
    for n_trials in range(1, _MAX_TRIALS + 1):
        slope = -dot(direction, state.evaluation.grads)
        if not slope > 0:
            break
        params = add_scaled(state.params, length, direction)
        evaluation = value_and_grad(problem, params)
        state = _count_passes(state, 1)._replace(n_passes_bound=state.n_passes_bound - 1)
        flattens = abs(dot(direction, evaluation.grads)) < slope  # where F is flat to rounding, the slope decides
        if evaluation.value <= value - ARMIJO * length * slope + (noise if flattens else 0.0):
            return state, (params, evaluation)
        if length * slope <= noise:
            break
        if np.isfinite(evaluation.value) and n_trials <= _MAX_NEW_DIRECTIONS:
            state = state._replace(pairs=_with_pair(settings, state, params, evaluation))
            direction = _direction(problem, state)
        else:
            length *= _SHRINK
    return state, None


def _count_passes(state: LbfgsState, n_passes: float) -> LbfgsState:
    """Return the state after some passes."""
    return state._replace(n_passes=state.n_passes + n_passes, n_total=state.n_total + n_passes)


def _matrix(state: LbfgsState) -> LbfgsMatrix:
    """Return the L-BFGS matrix."""
    factor = 1.0
    if state.pairs.steps:
        change = state.pairs.changes[-1].reshape(state.units.shape(state.params))
        factor = 1 / (state.pairs.scales[-1] * float(np.vdot(change, state.preconditioner.apply(change))))
    return LbfgsMatrix(state.units, state.preconditioner, state.pairs, factor)


def _direction(problem: Problem, state: LbfgsState) -> Params:
    """Return the direction; the first one has the length that is exact for the curvature along it of the sample."""
    direction = scale_params(-1.0, _matrix(state).apply(state.evaluation.grads))
    if state.pairs.steps:
        return direction
    curvature = dot(direction, hessian_products(problem, state.params, state.rows)(direction))
    slope = -dot(direction, state.evaluation.grads)
    return scale_params(slope / curvature, direction) if curvature > 0 else direction


def _with_pair(settings: LbfgsSettings, state: LbfgsState, params: Params, evaluation: Evaluation) -> FlatPairs:
    """Return the pairs with that of a step to ``params``."""
    units, dtype = state.units, state.rows.X.dtype
    step = units.flatten_step(add_scaled(params, -1.0, state.params)).ravel()
    change = units.flatten_gradient(add_scaled(evaluation.grads, -1.0, state.evaluation.grads)).ravel()
    return state.pairs.add(step.astype(dtype), change.astype(dtype), settings.n_pairs)


def _accept(settings: LbfgsSettings, state: LbfgsState, params: Params, evaluation: Evaluation) -> LbfgsState:
    """Return the state at the end of a step."""
    state = state._replace(pairs=_with_pair(settings, state, params, evaluation))
    excess = relative_excess(evaluation.value, evaluation.value - state.lower_bound)
    return state._replace(params=params, evaluation=evaluation, values=(*state.values, evaluation.value), excess=excess)


def _with_preconditioner(settings: LbfgsSettings, problem: Problem, state: LbfgsState) -> LbfgsState:
    """Return the state with a better preconditioner, if it is due: X'X, then the curvature of each class.

    It is due if the passes so far have cost as much, and if the steps that are left with the one at hand, and the
    products of a bound, would cost more than it does and than `_STEPS_RATIO` times as many steps do with it.

    The shared ones follow the mean curvature of the rows, which falls as the classes separate.
    """
    costs = preconditioner_costs(problem)
    least_steps, _ = _steps_left(state.values, _NEAR * settings.tol * state.evaluation.value)
    n_left = min(least_steps + _min_products(state.n_total), _MAX_STEPS_LEFT)
    left = n_left * (1 + costs.apply(state.preconditioner))

    def saves(cost: float, apply_cost: float) -> bool:
        return left - _STEPS_RATIO * n_left * apply_cost >= cost

    if state.gram is None and _PATIENCE * costs.gram < costs.classes:
        if state.n_passes >= costs.gram and saves(costs.gram, costs.apply_shared):
            gram = gram_of_units(compute_moments(problem, full_gram=True), state.units)
            preconditioner = shared_preconditioner(problem, state.units, gram, state.curvature)
            state = _with_better(state._replace(gram=gram, n_passes=0.0), preconditioner)
    elif state.n_passes >= _PATIENCE * costs.classes and saves(costs.classes, costs.apply_classes):
        built = class_preconditioner(problem, state.params, state.units, state.gram, state.certainty, state.leverage)
        state = state._replace(n_passes=0.0, leverage=built.leverage)
        if built.preconditioner is not None:
            state = _with_better(state, built.preconditioner)._replace(certainty=built.certainty)
    if not isinstance(state.preconditioner, ClassPreconditioner):
        curvature = mean_curvature(problem, state.params, state.rows)
        ratio = max(curvature / state.curvature, state.curvature / curvature)
        is_diagonal = isinstance(state.preconditioner, DiagonalPreconditioner)
        if ratio > _CURVATURE_RATIO and (is_diagonal or state.n_passes >= costs.factor):
            changed: FlatPreconditioner = DiagonalPreconditioner(problem, state.units, curvature)
            if not is_diagonal and state.gram is not None:
                changed = shared_preconditioner(problem, state.units, state.gram, curvature)
            state = state._replace(preconditioner=changed, curvature=curvature)
    return state


def _with_better(state: LbfgsState, preconditioner: FlatPreconditioner) -> LbfgsState:
    """Return the state with ``preconditioner``, unless the one at hand describes the last pairs better."""
    changes, scales = state.pairs.changes[-_N_COMPARED:], state.pairs.scales[-_N_COMPARED:]

    def spread(candidate: FlatPreconditioner) -> float:
        shape = state.units.shape(state.params)
        products = [float(np.vdot(change, candidate.apply(change.reshape(shape)).ravel())) for change in changes]
        return float(np.std(np.log(np.maximum(products, 1e-300) * np.array(scales))))

    if len(changes) >= _MIN_COMPARED and spread(preconditioner) > spread(state.preconditioner):
        return state
    # F falls faster from here, and the next bound takes fewer products than the last one did
    return state._replace(preconditioner=preconditioner, values=state.values[-1:], minimum=-np.inf, n_passes_bound=0.0)


def _steps_left(values: tuple[float, ...], wanted: float) -> tuple[float, float]:
    """Return the least and the largest number of steps after which F - F* is ``wanted``; inf for few values.

    They assume that F falls by a geometric series, by the last sixth and by the last third of the values.
    """
    n = len(values)
    least, most = sorted(_steps_left_by(values, wanted, max(2, n // part)) for part in (6, 3))
    return least, most


def _steps_left_by(values: tuple[float, ...], wanted: float, h: int) -> float:
    """Return the number of steps that the values suggest whose distance is ``h``."""
    if len(values) <= 2 * h:
        return float("inf")
    last, before = values[-1 - h] - values[-1], values[-1 - 2 * h] - values[-1 - h]
    ratio = min(last / before, _MAX_RATIO) if before > 0 else _MAX_RATIO
    suboptimality = max(last, 0.0) * ratio / (1 - ratio)
    return h * float(np.log(suboptimality / wanted) / -np.log(ratio)) if suboptimality > wanted else 0.0


def _min_products(n_passes: float) -> int:
    """Return the smallest number of products of a bound after so many passes."""
    return int(min(max(min(_MIN_PRODUCTS, n_passes), _MIN_FRACTION * n_passes), _MAX_PRODUCTS))


def _with_bound(settings: LbfgsSettings, problem: Problem, state: LbfgsState) -> LbfgsState:
    """Return the state with a bound of F - F*, at the end of a step along the direction that gave it."""
    value = state.evaluation.value
    allowed = absolute_suboptimality(value, settings.final_tol)
    min_products = _min_products(state.n_total)
    max_products = min(max(2 * min_products, int(state.n_total)), _MAX_PRODUCTS)
    wanted = absolute_suboptimality(value, settings.tol)
    newton = newton_step(
        *(problem, state.params, state.evaluation, _matrix(state), allowed, _CG_RTOL, max_products),
        max_remainder=_NEGLIGIBLE_REMAINDER * wanted,
        max_decrease=wanted / _BOUND_ERROR,
        remainder_cap=_MAX_REMAINDER * wanted,
        min_products=min_products,
        is_solved=False,
    )
    bound = (1 + _BOUND_ERROR) * (newton.decrease + newton.cg_remainder)
    lower_bound = value - bound
    trial = search_direction(problem, state.params, value, newton, is_risky=True) if newton.decrease > 0 else None
    if trial is not None:
        # where F decreases by more than the model says, its minimum may be less by as much
        surprise = max(0.0, value - trial[1].value - newton.decrease)
        suboptimality = max(newton.cg_remainder + surprise, _BOUND_ERROR * bound)
        lower_bound = min(lower_bound, trial[1].value - suboptimality)
        state = _accept(settings, state, *trial)
    return state._replace(
        lower_bound=lower_bound,
        minimum=value - newton.decrease - newton.cg_remainder,
        excess=relative_excess(state.evaluation.value, state.evaluation.value - lower_bound),
        n_passes_bound=newton.n_products + 1,
    )
