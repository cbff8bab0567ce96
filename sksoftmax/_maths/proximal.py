"""The quadratic model of F with an L1 penalty, and its minimum, which is the end of a proximal Newton step.

Called by the proximal Newton solver and, for an estimate of F - F*, by the training loop.

The coordinates are those of ``GramPreconditioner``. ``theta`` is an array of shape (n_outputs, n_features + 1): the
coefficients times the scale of their column, and the intercept of the centred columns. Without intercept it has one
column less. The model is ::

    <g, d> + 1/2 <d, H d> + sum_j t_j |theta_j + d_j|

with g the gradient and H (about) the Hessian of the smooth part of F. t_j is alpha l1_ratio / scale_j, and 0 for the
intercept. If H is known by its products only, `minimize_model` repeats:

1. Remove the shift that is common to all classes.
2. Take accelerated proximal gradient steps, which find the zeros (Beck & Teboulle, 2009, SIAM J. Imaging Sci. 2(1),
   183-202; restarted: O'Donoghue & Candes, 2015, Found. Comput. Math. 15, 715-732).
3. Take Newton steps on the support, the coefficients that are not 0. Stop if they converged and the round decreased
   the model by little.
4. If the products have cost as much as the matrix H and its factors would, form H and use an interior point method.
   It finds the zeros whatever the condition of H (``interior_point``).
5. Give up after `_MAX_PRODUCTS` products.

The alternation of 2 and 3 is that of Byrd, Nocedal & Solntsev (2016), Math. Program. 160.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import scipy.linalg
import scipy.sparse as sp

from sksoftmax._maths.curvature import Diagonal, curved_rows, diagonal, hessian_matrix
from sksoftmax._maths.interior_point import interior_point
from sksoftmax._maths.objective import hessian_products, soft_threshold
from sksoftmax._maths.preconditioner import GramPreconditioner
from sksoftmax._maths.saturation import MAX_ROUNDS, check_saturation
from sksoftmax._types import Array, Batch, Evaluation, Params, Problem, add_scaled, normalize_weights

#: Proximal gradient steps of the first round, and the largest number of CG products of a Newton step in it.
_FIRST_ROUND_STEPS = 10

#: Growth of these numbers from round to round.
_ROUND_GROWTH = 1.5

#: Largest number of Hessian products of a minimisation.
_MAX_PRODUCTS = 500

#: Typical number of factors of the matrix that an interior point method takes.
_INTERIOR_POINT_FACTORS = 15

#: Largest number of unknowns for which `expected_decrease` forms H as a matrix.
_MAX_MATRIX_UNKNOWNS = 256

#: Largest number of Newton steps on the support before coefficients may enter it again.
_MAX_SUPPORT_STEPS = 10

#: Smallest entry of the diagonal of H, relative to its largest entry. Below it is rounding.
_MIN_DIAGONAL = 1e-30

#: Smallest curvature along a direction, relative to the curvature by the diagonal. Below it is rounding.
_MIN_CURVATURE = 1e-12


def to_theta(problem: Problem, preconditioner: GramPreconditioner, params: Params) -> Array:
    """Return ``params`` as theta."""
    is_constant = np.isinf(preconditioner.scale)
    u = np.where(is_constant, 0.0, params.coef * np.where(is_constant, 0.0, preconditioner.scale))
    return _append_intercept(problem, u, params.intercept + params.coef @ preconditioner.mean)


def to_params(problem: Problem, preconditioner: GramPreconditioner, theta: Array) -> Params:
    """Return theta as parameters."""
    coef = theta[:, : problem.n_features] / preconditioner.scale
    if not problem.fit_intercept:
        return Params(coef, np.zeros(len(coef)))
    return Params(coef, theta[:, -1] - coef @ preconditioner.mean)


def gradient_by_theta(problem: Problem, preconditioner: GramPreconditioner, grads: Params) -> Array:
    """Return the gradient in the coordinates of theta.

    The gradient by the intercepts sums to 0 except for rounding; this sum is removed.
    """
    b = grads.intercept if problem.n_outputs == 1 else grads.intercept - grads.intercept.mean()
    return _append_intercept(
        problem, (grads.coef - np.outer(grads.intercept, preconditioner.mean)) / preconditioner.scale, b
    )


def _append_intercept(problem: Problem, u: Array, b: Array) -> Array:
    """Return ``u`` with the column ``b`` of the intercepts appended, if there are intercepts."""
    return np.hstack([u, b[:, None]]) if problem.fit_intercept else u


def thresholds(problem: Problem, preconditioner: GramPreconditioner) -> Array:
    """Return the threshold t of each column of theta."""
    t = problem.alpha * problem.l1_ratio / preconditioner.scale
    return np.append(t, 0.0) if problem.fit_intercept else t


def remove_class_shift(problem: Problem, preconditioner: GramPreconditioner, theta: Array) -> Array:
    """Shift each column of theta, by the same number for all classes, to the minimum of the penalty.

    No prediction depends on this shift. ``sum_k a/2 (x_k - s)^2 + t |x_k - s|`` is minimal if s is the median of the
    x_k and of ``mean(x) + t (K - 2 j) / (a K)``, j from 0 to K; for a = 0, if s is a median of the x_k.
    """
    K, p = len(theta), problem.n_features
    if K == 1:
        return theta
    coef = theta[:, :p] / preconditioner.scale
    candidates, median_index = coef, (K - 1) // 2
    if problem.l1_ratio < 1:
        offset = problem.l1_ratio / (1 - problem.l1_ratio) * (1 - 2 * np.arange(K + 1) / K)
        candidates, median_index = np.vstack([coef, coef.mean(axis=0) + offset[:, None]]), K
    shift = np.sort(candidates, axis=0)[median_index]
    shifted = theta.copy()
    shifted[:, :p] = np.where(
        shift == coef, 0.0, theta[:, :p] - shift * np.where(np.isinf(preconditioner.scale), 0, preconditioner.scale)
    )
    return shifted


class QuadraticModel(NamedTuple):
    """Hessian H of the quadratic model.

    Attributes
    ----------
    product : callable
        ``d -> H d``, both of the shape of theta.
    diagonal : ndarray of the shape of theta
    form_matrix : callable
        ``() -> ndarray of shape (d, d)``: forms H as a matrix.
    matrix_cost : float
        Cost of the matrix and of its factors, in Hessian products; 0 if the matrix is to be formed at once.
    """

    product: Callable[[Array], Array]
    diagonal: Array
    form_matrix: Callable[[], Array]
    matrix_cost: float


_Evaluate = Callable[[Array, Array], "ModelPoint"]


def quadratic_model(
    problem: Problem,
    preconditioner: GramPreconditioner,
    params: Params,
    rows: Batch,
    rows_diagonal: Diagonal,
    *,
    is_matrix: bool,
) -> QuadraticModel:
    """Return the H of the model at ``params``, estimated from ``rows``.

    Parameters
    ----------
    rows : Batch
        Rows of the Hessian, with weights that sum to about 1.
    rows_diagonal : Diagonal
        Diagonal of the Hessian of ``rows``, by the parameters.
    is_matrix : bool
        Whether to form the matrix at once.
    """
    shape = (problem.n_outputs, problem.n_features + problem.fit_intercept)

    @functools.cache
    def form_matrix() -> Array:
        matrix = hessian_matrix(problem, curved_rows(problem, params, rows)(), preconditioner)
        matrix = np.tril(matrix) + np.tril(matrix, -1).T
        if problem.fit_intercept and problem.n_outputs > 1:  # F is constant along a common shift: add curvature there
            intercepts = matrix.reshape(*shape, *shape)[:, -1, :, -1]
            intercepts += np.trace(intercepts) / problem.n_outputs**2
        return matrix

    hessian = hessian_products(problem, params, rows)

    def product(direction: Array) -> Array:
        return gradient_by_theta(problem, preconditioner, hessian(to_params(problem, preconditioner, direction)))

    unit_over_scale = rows_diagonal.unit / preconditioner.scale
    n, d = len(rows.y), shape[0] * shape[1]
    n_stored = rows.X.nnz if sp.issparse(rows.X) else n * problem.n_features
    matrix_cost = (
        0.0 if is_matrix else d * d * (n + _INTERIOR_POINT_FACTORS * d / 3) / (4 * problem.n_outputs * max(1, n_stored))
    )
    return QuadraticModel(
        product,
        _append_intercept(problem, rows_diagonal.coef * unit_over_scale * unit_over_scale, rows_diagonal.intercept),
        form_matrix,
        matrix_cost,
    )


def add_damping(model: QuadraticModel, damping: Array) -> QuadraticModel:
    """Return the model with ``sum_j damping_j ||d_j||^2 / 2`` added."""
    if not damping.any():
        return model
    diagonal = model.diagonal + damping

    def form_matrix() -> Array:
        return model.form_matrix() + np.diag(np.broadcast_to(damping, diagonal.shape).ravel())

    return QuadraticModel(lambda d: model.product(d) + damping * d, diagonal, form_matrix, model.matrix_cost)


class ModelPoint(NamedTuple):
    """Point of a minimisation: theta, and there the gradient of the smooth part and the value of the model."""

    theta: Array
    grad: Array
    value: float


class Solution(NamedTuple):
    """Approximate minimum of the model.

    Attributes
    ----------
    theta : ndarray of shape (n_outputs, q)
    decrease : float
        Decrease that the model predicts, approached from below.
    remaining : float
        How much more the model could decrease. A bound if H is a matrix. Otherwise the gain of the last round or, if
        `_MAX_PRODUCTS` was reached, the decrease that a Newton step predicts if that is more.
    """

    theta: Array
    decrease: float
    remaining: float


def minimize_model(
    model: QuadraticModel, theta: Array, grad: Array, t: Array, remove_shift: Callable[[Array], Array], accuracy: float
) -> Solution:
    """Minimise the model to a relative accuracy, or until the Hessian products are spent.

    The steps are numbered in the module docstring.

    Parameters
    ----------
    model : QuadraticModel
    theta, grad : ndarray of shape (n_outputs, q)
        Start, and the gradient of the smooth part of the model there.
    t : ndarray of shape (q,)
        Thresholds.
    remove_shift : callable
        ``theta -> theta``: `remove_class_shift`.
    accuracy : float
        Gain of the last round relative to the total decrease at which to stop.
    """
    if model.matrix_cost == 0:
        return _minimize_by_matrix(model.form_matrix(), theta, grad, t, remove_shift, accuracy)
    diagonal = np.maximum(model.diagonal, _MIN_DIAGONAL * max(float(model.diagonal.max()), 1e-300))
    evaluate = _evaluator(theta, grad, t)
    point, n_products, length, n_steps = ModelPoint(theta, grad, 0.0), 0, 1.0, float(_FIRST_ROUND_STEPS)
    while True:
        # 1.
        start_value = point.value
        shifted = remove_shift(point.theta)
        point = evaluate(shifted, point.grad + model.product(shifted - point.theta))
        n_products += 1
        # 2.
        point, length, n_used = _fista(model, diagonal, evaluate, point, t, length, int(n_steps))
        n_products += n_used
        # 3.
        direction_from = functools.partial(_support_direction_cg, model, diagonal, int(n_steps))
        point, has_converged, n_used = _newton_on_support(model.product, direction_from, evaluate, point, t)
        n_products += n_used
        gain = start_value - point.value
        if has_converged and gain <= max(accuracy * -point.value, 0.0):
            return Solution(point.theta, -point.value, max(gain, 0.0))
        # 4.
        if n_products >= model.matrix_cost:
            return _minimize_by_matrix(model.form_matrix(), theta, grad, t, remove_shift, accuracy)
        # 5.
        if n_products >= _MAX_PRODUCTS:
            subgradient = _min_norm_subgradient(point, t)
            direction, _ = direction_from(subgradient, (point.theta != 0) | (subgradient != 0))
            return Solution(point.theta, -point.value, max(gain, -0.5 * float(np.vdot(subgradient, direction))))
        n_steps *= _ROUND_GROWTH


def _minimize_by_matrix(
    H: Array, theta: Array, grad: Array, t: Array, remove_shift: Callable[[Array], Array], accuracy: float
) -> Solution:
    """Minimise the model if H is a matrix.

    1. Take Newton steps on the support, the coefficients that are not 0. Return their end if it is the minimum.
    2. Otherwise minimise by an interior point method, which also bounds the minimum from below.
    3. Set the coefficients to 0 that the interior point method leaves close to 0, and take Newton steps on the rest.
    4. Return the better end of the two Newton runs, unless the interior point is better by more than the accuracy.
    """
    evaluate, flat_t = _evaluator(theta, grad, t), np.broadcast_to(t, theta.shape).ravel()

    def product(d: Array) -> Array:
        return np.asarray(H @ d.ravel()).reshape(d.shape)

    def point_at(position: Array) -> ModelPoint:
        return evaluate(position, grad + product(position - theta))

    def newton_from(start: Array) -> tuple[ModelPoint, bool]:
        point, has_converged, _ = _newton_on_support(
            product, functools.partial(_support_direction_cholesky, H), evaluate, point_at(start), t
        )
        in_support = (point.theta != 0) | (t == 0)
        return point, has_converged and bool((in_support | (np.abs(point.grad) <= t)).all())

    # 1.
    support_point, is_minimum = newton_from(remove_shift(theta))
    if is_minimum:
        return Solution(support_point.theta, -support_point.value, 0.0)
    # 2.
    c = (grad - product(theta)).ravel()
    z, is_zero, gap = interior_point(H, c, flat_t, 0.5 * accuracy * -support_point.value)
    interior = point_at(remove_shift(z.reshape(theta.shape)))
    # 3.
    sparse_point, _ = newton_from(remove_shift(np.where(is_zero, 0.0, z).reshape(theta.shape)))
    # 4.
    lower_bound = interior.value - gap
    best = min(support_point, sparse_point, key=lambda point: point.value)
    best = best if best.value <= interior.value + accuracy * abs(interior.value) else interior
    return Solution(best.theta, -best.value, max(best.value - lower_bound, 0.0))


def _evaluator(theta: Array, grad: Array, t: Array) -> _Evaluate:
    """Return a function ``(theta, gradient there) -> ModelPoint``.

    The model has the value 0 and the gradient ``grad`` at ``theta``.
    """
    start = float((t * np.abs(theta)).sum())

    def evaluate(theta_now: Array, grad_now: Array) -> ModelPoint:
        smooth = 0.5 * float(np.vdot(theta_now - theta, grad + grad_now))
        return ModelPoint(theta_now, grad_now, smooth + float((t * np.abs(theta_now)).sum()) - start)

    return evaluate


def _min_norm_subgradient(point: ModelPoint, t: Array) -> Array:
    """Return the subgradient of the model of least norm."""
    in_support = (point.theta != 0) | (t == 0)
    return np.where(in_support, point.grad + t * np.sign(point.theta), point.grad - np.clip(point.grad, -t, t))


class Step(NamedTuple):
    """Step to the minimum of a model.

    Attributes
    ----------
    end : Params
        End of the step.
    decrease, remaining : float
        See `Solution`.
    """

    end: Params
    decrease: float
    remaining: float


class LocalModel(NamedTuple):
    """Quadratic model of F, in coordinates of its own, and the start of its steps.

    Attributes
    ----------
    problem : Problem
    preconditioner : GramPreconditioner
        Means and scales of the columns.
    model : QuadraticModel
    units : ndarray of shape (n_features,)
        Squared scales of the columns by the bound on the curvature of F, relative to their own scales.
    params, grads : Params
        Start of a step, and the gradient of the smooth part of the model there.
    """

    problem: Problem
    preconditioner: GramPreconditioner
    model: QuadraticModel
    units: Array
    params: Params
    grads: Params

    def step(self, accuracy: float, damping: float = 0.0) -> Step:
        """Return the step to the minimum of the model, with ``damping`` times the curvature bound added to H."""
        problem, preconditioner = self.problem, self.preconditioner
        theta, grad = (
            to_theta(problem, preconditioner, self.params),
            gradient_by_theta(problem, preconditioner, self.grads),
        )
        remove_shift = functools.partial(remove_class_shift, problem, preconditioner)
        model = add_damping(self.model, damping * (np.append(self.units, 1.0) if problem.fit_intercept else self.units))
        solution = minimize_model(model, theta, grad, thresholds(problem, preconditioner), remove_shift, accuracy)
        return Step(to_params(problem, preconditioner, solution.theta), solution.decrease, solution.remaining)


def local_model(
    problem: Problem, base: GramPreconditioner, params: Params, grads: Params, rows: Batch, *, is_matrix: bool
) -> LocalModel:
    """Return the model of F at ``params``, with the curvature of ``rows``.

    By this curvature, the columns have a mean of 0 and a scale of 1 in its coordinates.
    """
    rows_diagonal = diagonal(problem, params, rows)
    scale = rows_diagonal.unit * np.sqrt(rows_diagonal.coef.mean(axis=0))
    preconditioner = base._replace(
        mean=rows_diagonal.mean, scale=np.where((scale > 0) & np.isfinite(base.scale), scale, base.scale)
    )
    model = quadratic_model(problem, preconditioner, params, rows, rows_diagonal, is_matrix=is_matrix)
    with np.errstate(invalid="ignore"):  # a constant column has no scale
        units = np.nan_to_num(base.scale / preconditioner.scale, nan=1.0) ** 2
    return LocalModel(problem, preconditioner, model, units, params, grads)


def saturate_proximal_step(
    start: LocalModel,
    base: GramPreconditioner,
    evaluation: Evaluation,
    rows: Batch,
    accuracy: float,
    allowed: float,
    *,
    is_matrix: bool,
) -> Step:
    """Return the step corrected for the saturation of rows: see ``saturation``.

    If the rounds do not converge, this is the first step with ``remaining`` inf.
    """
    problem, params = start.problem, start.params
    uncorrected = step = start.step(accuracy)
    for _ in range(MAX_ROUNDS):
        direction = add_scaled(step.end, -1.0, params)
        check = check_saturation(
            problem, params, evaluation, rows, direction, start.problem.kernel, allowed, is_exact=False
        )
        step = step._replace(
            decrease=max(check.gap, step.decrease), remaining=max(step.remaining, check.missed_decrease)
        )
        if check.is_negligible(allowed):
            return step
        curvature_term = hessian_products(start.problem, params, rows)(add_scaled(step.end, -1.0, start.params))
        end_grads = add_scaled(add_scaled(start.grads, 1.0, curvature_term), 1.0, check.missed_gradient)
        saturated = local_model(
            problem._replace(kernel=check.kernel), base, params, check.missed_gradient, rows, is_matrix=is_matrix
        )
        start = saturated._replace(params=step.end, grads=end_grads)
        step = start.step(accuracy)
        if not np.isfinite(step.decrease):
            break
    return uncorrected._replace(remaining=np.inf)


def expected_decrease(
    problem: Problem, base: GramPreconditioner, params: Params, evaluation: Evaluation, accuracy: float, allowed: float
) -> float:
    """Return the decrease of F from ``params`` that the model by all rows predicts."""
    rows = normalize_weights(problem.data)
    is_matrix = params.coef.size + params.intercept.size <= _MAX_MATRIX_UNKNOWNS
    start = local_model(problem, base, params, evaluation.grads, rows, is_matrix=is_matrix)
    step = saturate_proximal_step(start, base, evaluation, rows, accuracy, allowed, is_matrix=is_matrix)
    return step.decrease + step.remaining


def _fista(
    model: QuadraticModel,
    diagonal: Array,
    evaluate: _Evaluate,
    point: ModelPoint,
    t: Array,
    length: float,
    n_steps: int,
) -> tuple[ModelPoint, float, int]:
    """Take accelerated proximal gradient steps of ``length`` over the diagonal.

    The length is halved if the model rises faster than its square allows. The momentum is dropped if the model rises.

    Returns
    -------
    point : ModelPoint
    length : float
        Step length, in units of 1 / diagonal.
    n_products : int
        Hessian products.
    """
    momentum, previous = 1.0, point
    for k in range(n_steps):
        next_momentum = 0.5 * (1 + np.sqrt(1 + 4 * momentum**2))
        extrapolation = (momentum - 1) / next_momentum
        y = point.theta + extrapolation * (point.theta - previous.theta)
        y_grad = point.grad + extrapolation * (point.grad - previous.grad)
        scale = length / diagonal
        step = soft_threshold(y - scale * y_grad, scale * t) - y
        product = model.product(step)
        if np.vdot(step, product) > 1.01 * np.vdot(step, diagonal * step) / length:  # 1.01 allows for rounding
            length *= 0.5
            continue
        trial = evaluate(y + step, y_grad + product)
        if trial.value >= point.value:
            if extrapolation == 0:
                return point, length, k + 1
            momentum, previous = 1.0, point
            continue
        point, previous, momentum = trial, point, next_momentum
    return point, length, n_steps


def _newton_on_support(
    product: Callable[[Array], Array],
    direction_from: Callable[[Array, Array], tuple[Array, int]],
    evaluate: _Evaluate,
    point: ModelPoint,
    t: Array,
) -> tuple[ModelPoint, bool, int]:
    """Take Newton steps on the support, until one meets no sign change.

    The support consists of the coefficients that are not 0 or not penalised. Coefficients that would change sign along
    a step are set to 0. If the model does not decrease, the step is halved, but not below the first sign change, up to
    which a decrease is guaranteed.

    Parameters
    ----------
    direction_from : callable
        ``(slope, in_support) -> (direction, n_products)``.

    Returns
    -------
    point : ModelPoint
    has_converged : bool
        Whether the last step met no sign change, or could not decrease the model.
    n_products : int
        Hessian products.
    """
    n_products = 0
    for _ in range(_MAX_SUPPORT_STEPS):
        in_support = (point.theta != 0) | (t == 0)
        slope = np.where(in_support, point.grad + t * np.sign(point.theta), 0.0)
        direction, n_used = direction_from(slope, in_support)
        n_products += n_used
        if not np.isfinite(direction).all():
            return point, True, n_products
        shrinks = (t > 0) & (direction * point.theta < 0)
        reach = np.where(shrinks, np.abs(point.theta), np.inf) / np.where(shrinks, np.abs(direction), 1.0)
        first_change = min(1.0, float(reach.min()))
        length, trial = 1.0, point
        while True:
            position = np.where(reach <= length, 0.0, point.theta + length * direction)
            trial = evaluate(position, point.grad + product(position - point.theta))
            n_products += 1
            if trial.value < point.value or length == first_change:
                break
            length = max(0.5 * length, first_change)
        if not trial.value < point.value:
            return point, True, n_products
        point = trial
        if first_change == 1.0:
            return point, True, n_products
    return point, False, n_products


def _support_direction_cholesky(matrix: Array, slope: Array, in_support: Array) -> tuple[Array, int]:
    """Return the Newton direction on the support, by a Cholesky factor, and 0 products.

    As little as needed is added to the diagonal to make the matrix positive definite.
    """
    direction = np.zeros(slope.shape)
    support = np.flatnonzero(in_support)
    if not len(support):
        return direction, 0
    block = matrix[np.ix_(support, support)]
    unit = np.sqrt(np.maximum(np.diagonal(block), np.finfo(float).tiny))
    block = block / unit / unit[:, None]
    jitter = float(np.finfo(float).eps)
    while True:
        np.fill_diagonal(block, 1.0 + jitter)
        try:
            factor = scipy.linalg.cho_factor(block, lower=True, check_finite=False)
        except np.linalg.LinAlgError:
            jitter *= 10
            continue
        direction.ravel()[support] = (
            -scipy.linalg.cho_solve(factor, slope.ravel()[support] / unit, check_finite=False) / unit
        )
        return direction, 0


def _support_direction_cg(
    model: QuadraticModel, diagonal: Array, n_steps: int, slope: Array, in_support: Array
) -> tuple[Array, int]:
    """Return the Newton direction on the support, by CG preconditioned by the diagonal, and the products."""
    direction, residual = np.zeros_like(slope), slope
    search = -residual / diagonal
    squared_norm = -float(np.vdot(residual, search))
    for k in range(n_steps):
        product = np.where(in_support, model.product(search), 0.0)
        curvature = float(np.vdot(search, product))
        if not curvature > _MIN_CURVATURE * float(np.vdot(search, diagonal * search)):
            return direction, k + 1
        length = squared_norm / curvature
        direction = direction + length * search
        residual = residual + length * product
        preconditioned = residual / diagonal
        new_squared_norm = float(np.vdot(residual, preconditioned))
        search = new_squared_norm / squared_norm * search - preconditioned
        squared_norm = new_squared_norm
    return direction, n_steps
