"""Verification of the gradient that a fit descends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import check_grad

from sksoftmax._data.batches import normal, subset
from sksoftmax._data.validation import KERNELS, check_integer, check_number, plain_data
from sksoftmax._maths.objective import penalty, value_and_grad
from sksoftmax._maths.preconditioner import compute_moments
from sksoftmax._training.plan import choose_engine
from sksoftmax._types import Array, Params, Problem

#: A derivative is compared to itself, or to this share of its term's largest if it is smaller than that.
_LEAST_SHARE = 1e-2

#: The same as a share of the term: a difference is off by its rounding, eps, over check_grad's step, eps ** 0.5.
_ROUNDING = 1e5 * float(np.finfo(np.float64).eps) ** 0.5

#: Below it numbers lose digits.
_SMALLEST = float(np.finfo(np.float64).tiny / np.finfo(np.float64).eps)

#: NumPy's generator takes seeds of 32 bits.
_LARGEST_SEED = 2**32 - 1


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
    """Compare the objective's gradient to finite differences by `scipy.optimize.check_grad`.

    The objective is checked as the solvers see it, and its terms, mean loss and penalty, apart, so that an error
    in a small term is not hidden behind a large one; so is each parameter, in units of its column's largest
    distance from the mean, so that columns of any scale are checked alike. The parameters are random and make
    raw predictions of about 1.

    Parameters
    ----------
    X : array-like or sparse matrix of shape (n_samples, n_features)
        Finite.
    y : array-like of shape (n_samples,)
        Labels of at least two classes.
    alpha : float, default=1e-4
        L2 strength, >= 0.
    sample_weight : array-like of shape (n_samples,), default=None
        Weights, >= 0.
    fit_intercept : bool, default=True
        Whether the model has an intercept, and its derivatives are checked.
    engine : {"auto", "vectorized", "naive"}, default="auto"
        Whose gradient to check.
    max_checks : int, default=100
        Most parameters to check, >= 1; of more, a random subset is drawn.
    random_state : int, default=0
        Seed of the parameters and of the subset.

    Returns
    -------
    float
        Largest relative error, ``|gradient - difference| / |gradient|``, where gradients below 1 % of their
        term's largest, or 0.15 % of the term, count as that. Below 1e-4 for a right gradient, and mostly below 1e-6:
        what is left is the differences' rounding.

    Raises
    ------
    ValueError
        If an argument is not as above; or if a term, or its gradient, overflows at these parameters.

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
    random_state = check_integer("random_state", random_state, 0, _LARGEST_SEED)
    alpha = check_number("alpha", alpha)
    max_checks = check_integer("max_checks", max_checks, 1)
    data, classes = plain_data(X, y, sample_weight)
    data = data._replace(weight=data.weight / data.weight.max())  # F is the same, whatever their scale
    problem = Problem(
        data, len(classes), alpha, fit_intercept, KERNELS[choose_engine(engine)], float(data.weight.mean())
    )
    rng = np.random.RandomState(random_state)
    moments = compute_moments(problem, full_gram=False)
    shape = (problem.n_outputs, problem.n_features)
    size = moments.max_deviation + np.abs(moments.mean)
    units = np.broadcast_to(1.0 / np.where(size > 0, size, 1.0), shape)
    coef = units * normal(shape, rng) / np.sqrt(problem.n_features)
    intercept = normal(shape[:1], rng) * fit_intercept
    params = Params(coef, intercept)

    n_params = coef.size + fit_intercept * len(intercept)
    chosen = subset(n_params, max_checks, rng)
    units = np.append(units.ravel(), np.ones(len(intercept)))
    terms = [_objective(problem), _loss_term(problem)] + [_penalty_term(alpha)] * (alpha > 0)
    return max(_relative_error(term, params, units, chosen) for term in terms)


#: A term of the objective: its value and gradient.
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


def _relative_error(term: _Term, params: Params, units: Array, chosen: Array) -> float:
    """Largest relative error of the term's derivatives by the chosen parameters, in the parameters' units."""
    theta = np.append(params.coef.ravel(), params.intercept) / units
    n_coef = params.coef.size

    def at(theta: Array) -> tuple[float, Array]:
        flat = theta * units
        value, grads = term(Params(flat[:n_coef].reshape(params.coef.shape), flat[n_coef:]))
        return value, np.append(grads.coef.ravel(), grads.intercept) * units

    at_theta, gradient = at(theta)
    largest = float(np.abs(gradient).max())
    _finite(at_theta, largest)
    unit = max(largest, _ROUNDING / _LEAST_SHARE * abs(at_theta), _SMALLEST)  # check_grad squares
    gradient = gradient / unit
    errors = []
    for j in chosen:

        def value(x: Array, j: int = j) -> float:
            moved = theta.copy()
            moved[j] = x[0]
            return at(moved)[0] / unit

        error = check_grad(value, lambda x, j=j: gradient[j : j + 1], theta[j : j + 1])
        errors.append(error / max(abs(gradient[j]), _LEAST_SHARE))
    _finite(*errors)
    return float(np.max(errors))


def _finite(*values: float) -> None:
    """Raise ValueError if a term, its gradient or a difference has overflowed."""
    if not np.isfinite(values).all():
        raise ValueError(
            "X and alpha must give a loss and a penalty that are finite where raw predictions are about 1, got an "
            "overflow; scale the columns of X, or lower alpha."
        )
