"""``check_gradient``: verification of the gradient that a fit uses.

Users call it directly, and ``python -m sksoftmax`` as part of its self-test. It compares the functions that the solvers
call, term by term, to finite differences.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import check_grad

from sksoftmax._data.arrays import check_integer, check_number
from sksoftmax._data.batches import normal, subset
from sksoftmax._data.validation import check_data_without_estimator
from sksoftmax._engines.registry import KERNELS
from sksoftmax._maths.objective import penalty, value_and_grad
from sksoftmax._maths.preconditioner import compute_moments
from sksoftmax._training.plan import choose_engine
from sksoftmax._types import Array, Params, Problem

#: Errors are relative to the derivative, or to this fraction of the largest derivative of its term if that is larger.
_MIN_SCALE = 1e-2

#: Errors are relative to at least this fraction of the term's value, 0.15 %: the rounding of a finite difference is eps
#: over the step of check_grad, which is eps ** 0.5.
_MIN_SCALE_BY_VALUE = 1e5 * float(np.finfo(np.float64).eps) ** 0.5

#: Below this number the rounding errors of float64 are subnormal, and numbers lose digits.
_SMALLEST_EXACT = float(np.finfo(np.float64).tiny / np.finfo(np.float64).eps)

#: Largest seed of NumPy's RandomState: 32 bits.
_MAX_SEED = 2**32 - 1


@np.errstate(all="ignore")
def check_gradient(
    X: Any,
    y: ArrayLike,
    *,
    alpha: float = 1e-4,
    sample_weight: ArrayLike | None = None,
    fit_intercept: bool = True,
    engine: str = "auto",
    max_checks: int = 100,
    random_state: int = 0,
) -> float:
    """Compare the gradient of the objective to finite differences with `scipy.optimize.check_grad`.

    The objective is checked as the solvers use it. Its terms, mean loss and penalty, are also checked separately, so
    that a large term does not hide an error in a small one. Each parameter is checked separately and scaled to the size
    of its column, so that columns of any scale are treated alike. The parameters are random, and give raw predictions
    of about 1.

    Parameters
    ----------
    X : array-like or sparse matrix of shape (n_samples, n_features)
        Finite numbers.
    y : array-like of shape (n_samples,)
        Labels of at least two classes.
    alpha : float, default=1e-4
        L2 strength, >= 0.
    sample_weight : array-like of shape (n_samples,), default=None
        Weights, >= 0.
    fit_intercept : bool, default=True
        Whether the model has an intercept, whose derivatives are then checked too.
    engine : {"auto", "vectorized", "naive"}, default="auto"
        Engine whose gradient to check.
    max_checks : int, default=100
        Maximum number of parameters to check, >= 1. If there are more, a random subset is checked.
    random_state : int, default=0
        Seed of the parameters and of the subset.

    Returns
    -------
    float
        Largest relative error ``|gradient - difference| / |gradient|``. The denominator is at least 1 % of the largest
        derivative of the term, and at least 0.15 % of its value. The error of a correct gradient is below 1e-4, mostly
        below 1e-6, and due to rounding of the differences.

    Raises
    ------
    ValueError
        If an argument is not as above, or if a term or its gradient overflows at these parameters.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> check_gradient(*load_iris(return_X_y=True)) < 1e-4
    True
    """
    if engine not in ("auto", *KERNELS):
        raise ValueError(f"engine must be one of {sorted(('auto', *KERNELS))}, got {engine!r}.")
    if not isinstance(fit_intercept, bool | np.bool_):
        raise ValueError(f"fit_intercept must be True or False, got {fit_intercept!r}.")
    random_state = check_integer("random_state", random_state, 0, _MAX_SEED)
    alpha = check_number("alpha", alpha)
    max_checks = check_integer("max_checks", max_checks, 1)
    data, classes = check_data_without_estimator(X, y, sample_weight)
    data = data._replace(weight=data.weight / data.weight.max())  # F does not depend on the scale of the weights
    kernel = KERNELS[choose_engine(engine)]
    problem = Problem(data, len(classes), alpha, fit_intercept, kernel, float(data.weight.mean()))
    rng = np.random.RandomState(random_state)
    params, units = _random_params(problem, rng)
    n_params = params.coef.size + fit_intercept * len(params.intercept)
    indices = subset(n_params, max_checks, rng)
    terms = [_objective(problem), _loss_term(problem)] + [_penalty_term(alpha)] * (alpha > 0)
    return max(_relative_error(term, params, units, indices) for term in terms)


def _random_params(problem: Problem, rng: np.random.RandomState) -> tuple[Params, Array]:
    """Draw parameters that give raw predictions of about 1; return them and the unit of each, as a flat array."""
    moments = compute_moments(problem, full_gram=False)
    shape = (problem.n_outputs, problem.n_features)
    size = moments.max_deviation + np.abs(moments.mean)
    units = np.broadcast_to(1.0 / np.where(size > 0, size, 1.0), shape)
    coef = units * normal(shape, rng) / np.sqrt(problem.n_features)
    intercept = normal(shape[:1], rng) * problem.fit_intercept
    return Params(coef, intercept), np.append(units.ravel(), np.ones(len(intercept)))


#: A term of the objective: a function of the parameters that returns its value and its gradient.
_Term = Callable[[Params], tuple[float, Params]]


def _objective(problem: Problem) -> _Term:
    return lambda params: value_and_grad(problem, params)


def _loss_term(problem: Problem) -> _Term:
    total = float(problem.data.weight.sum())
    return lambda params: problem.kernel.loss_grad(params, *problem.data, total)


def _penalty_term(alpha: float) -> _Term:
    def term(params: Params) -> tuple[float, Params]:
        value, grad = penalty(params.coef, alpha)
        return value, Params(grad, np.zeros_like(params.intercept))

    return term


def _relative_error(term: _Term, params: Params, units: Array, indices: Array) -> float:
    """Return the largest relative error of the derivatives of the term by the parameters with these flat indices."""
    theta = np.append(params.coef.ravel(), params.intercept) / units
    n_coef = params.coef.size

    def evaluate(theta: Array) -> tuple[float, Array]:
        flat = theta * units
        value, grads = term(Params(flat[:n_coef].reshape(params.coef.shape), flat[n_coef:]))
        return value, np.append(grads.coef.ravel(), grads.intercept) * units

    value, gradient = evaluate(theta)
    largest = float(np.abs(gradient).max())
    _check_finite(value, largest)
    # check_grad squares the errors, so the term is scaled
    scale = max(largest, _MIN_SCALE_BY_VALUE / _MIN_SCALE * abs(value), _SMALLEST_EXACT)
    gradient = gradient / scale
    errors = []
    for j in indices:

        def scaled_term(x: Array, j: int = j) -> float:
            theta_j = theta.copy()
            theta_j[j] = x[0]
            return evaluate(theta_j)[0] / scale

        error = check_grad(scaled_term, lambda x, j=j: gradient[j : j + 1], theta[j : j + 1])
        errors.append(error / max(abs(gradient[j]), _MIN_SCALE))
    _check_finite(*errors)
    return float(np.max(errors))


def _check_finite(*values: float) -> None:
    """Raise ValueError if a term, its gradient or a difference has overflowed."""
    if not np.isfinite(values).all():
        raise ValueError(
            "X and alpha must give a loss and a penalty that are finite at raw predictions of about 1, got an "
            "overflow; scale the columns of X, or lower alpha."
        )
