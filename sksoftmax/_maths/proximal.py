"""The quadratic model of F with an L1 penalty, whose minimum is the end of a proximal Newton step.

Called by the proximal Newton solver and, for an estimate of F - F*, by the training loop. `quadratic_l1` minimises the
model.

The coordinates are those of ``GramPreconditioner``. ``theta`` is an array of shape (n_outputs, n_features + 1): the
coefficients times the scale of their column, and the intercept of the centred columns. Without intercept it has one
column less. The model is ::

    <g, d> + 1/2 <d, H d> + sum_j t_j |theta_j + d_j|

with g the gradient and H (about) the Hessian of the smooth part of F. t_j is alpha l1_ratio / scale_j, and 0 for the
intercept.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp

from sksoftmax._maths.curvature import Diagonal, hessian_blocks, hessian_diagonal, hessian_matrix
from sksoftmax._maths.objective import hessian_products
from sksoftmax._maths.preconditioner import GramPreconditioner
from sksoftmax._maths.quadratic_l1 import QuadraticModel, add_damping, minimize_model
from sksoftmax._maths.saturation import MAX_ROUNDS, check_saturation
from sksoftmax._types import Array, Batch, Evaluation, Params, Problem, add_scaled, normalize_weights

#: Typical number of factors of the matrix that an interior point method takes.
_INTERIOR_POINT_FACTORS = 15

#: Largest number of unknowns for which `expected_decrease` forms H as a matrix.
_MAX_MATRIX_UNKNOWNS = 256


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
        matrix = hessian_matrix(problem, hessian_blocks(problem, params, rows), preconditioner)
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
    rows_diagonal = hessian_diagonal(problem, params, rows)
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
