"""Minimise a quadratic plus an L1 term, for a Hessian H that is known by its products or as a matrix.

Called by ``proximal`` for the model of a proximal Newton step. If H is known by its products, `minimize_model` repeats:

1. Remove the shift that is common to all classes.
2. Take accelerated proximal gradient steps, which find the zeros (Beck & Teboulle, 2009, SIAM J. Imaging Sci. 2(1),
   183-202; restarted: O'Donoghue & Candes, 2015, Found. Comput. Math. 15, 715-732).
3. Take Newton steps on the support, the coefficients that are not 0. Stop if they converged and the round decreased
   the model by little.
4. If the products have cost as much as the matrix H and its factors would, form H and use an interior point method.
   It finds the zeros whatever the condition of H (``interior_point``).
5. Give up after `_MAX_PRODUCTS` products.

The alternation of 2 and 3 is that of Byrd, Nocedal & Solntsev (2016), Math. Program. 160. ``theta`` has the shape
(n_outputs, q), and ``t`` the thresholds of its columns, (q,).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import scipy.linalg

from sksoftmax._maths.interior_point import interior_point
from sksoftmax._maths.objective import soft_threshold
from sksoftmax._types import Array

#: Proximal gradient steps of the first round, and the largest number of CG products of a Newton step in it.
_FIRST_ROUND_STEPS = 10

#: Growth of these numbers from round to round.
_ROUND_GROWTH = 1.5

#: Largest number of Hessian products of a minimisation.
_MAX_PRODUCTS = 500

#: Largest number of Newton steps on the support before coefficients may enter it again.
_MAX_SUPPORT_STEPS = 10

#: Smallest entry of the diagonal of H, relative to its largest entry. Below it is rounding.
_MIN_DIAGONAL = 1e-30

#: Smallest curvature along a direction, relative to the curvature by the diagonal. Below it is rounding.
_MIN_CURVATURE = 1e-12


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


def add_damping(model: QuadraticModel, damping: Array) -> QuadraticModel:
    """Return the model with ``sum_j damping_j ||d_j||^2 / 2`` added."""
    if not damping.any():
        return model
    diagonal = model.diagonal + damping

    def form_matrix() -> Array:
        return model.form_matrix() + np.diag(np.broadcast_to(damping, diagonal.shape).ravel())

    return QuadraticModel(lambda d: model.product(d) + damping * d, diagonal, form_matrix, model.matrix_cost)


_Evaluate = Callable[[Array, Array], "ModelPoint"]


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
