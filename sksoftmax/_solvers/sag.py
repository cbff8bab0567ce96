"""Stochastic average gradient by scikit-learn, for wide sparse X if the kernels of the dual solver are missing.

scikit-learn's loops are compiled, so that this is the fastest way to the neighbourhood of the minimum without kernels
of our own. Its stopping rule, on the change of the coefficients, does not say how far F is from its minimum. This
solver adds that. Its step is:

1. Run ``LogisticRegression(solver="sag")`` from the coefficients at hand until they change by less than a tolerance.
2. Minimise F over the intercept alone, by Newton steps on the raw predictions.
3. Bound F - F*. Let ``phi(coef) = min F(coef, intercept)`` over the intercept. phi is alpha-strongly convex and its
   gradient is that of F at the minimising intercept, so that ``F - F* <= ||grad||^2 / (2 alpha)`` (Nesterov, 2018,
   Lectures on Convex Optimization, eq. 2.1.24).
4. If the bound is too large, lower the tolerance of the next step. If it hardly fell, leave the rest to the next
   solver.

Schmidt, Le Roux & Bach (2017), Math. Program. 162, 83-112: the stochastic average gradient.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from sksoftmax._engines import vectorized
from sksoftmax._maths.newton_direction import relative_excess
from sksoftmax._maths.objective import alpha_from_C, iter_blocks, total_weight, value_and_grad
from sksoftmax._types import Array, Batch, Params, Problem, Report, Solver

#: First tolerance of scikit-learn's stopping rule, in units of the square root of the excess that is allowed: F rises
#: with the square of an error of the coefficients.
_FIRST_TOL = 0.15

#: Largest and smallest factor on the tolerance from one step to the next.
_TOL_FACTORS = 0.1, 0.5

#: If a step leaves more than this fraction of the bound, the next solver goes on.
_MIN_PROGRESS = 0.5

#: Maximum number of Newton steps for the intercept, and the squared decrement at which they end, in units of F.
_MAX_NEWTON, _MIN_DECREMENT = 8, 1e-12


class SagState(NamedTuple):
    """State of the solver; ``bound`` is that of (F - F*) / F*, and ``next_tol`` scikit-learn's next tolerance."""

    params: Params
    value: float
    bound: float
    next_tol: float
    is_done: bool


def sag(next_seed: Callable[[], int], tol: float, max_epochs: int) -> Solver:
    """Return the solver.

    Parameters
    ----------
    next_seed : callable
        ``() -> int``, the seed of the next step.
    tol : float
        Excess at which the fit ends, > 0.
    max_epochs : int
        Maximum number of epochs of a step.
    """

    def init(problem: Problem, params: Params) -> SagState:
        return SagState(params, np.inf, np.inf, _FIRST_TOL * float(np.sqrt(tol)), False)

    def step(problem: Problem, state: SagState, batch: Batch) -> SagState:
        # 1.
        params = _run(problem, state.params, state.next_tol, max_epochs, next_seed())
        # 2.
        params = params._replace(intercept=_minimize_intercept(problem, params))
        # 3.
        value, grads = value_and_grad(problem, params)
        bound = relative_excess(value, 0.5 * float(np.vdot(grads.coef, grads.coef)) / problem.alpha)
        # 4.
        low, high = _TOL_FACTORS
        factor = float(np.clip(np.sqrt(tol / bound), low, high)) if 0 < bound < np.inf else low
        is_done = bool(bound > _MIN_PROGRESS * state.bound)
        return SagState(params, float(value), bound, factor * state.next_tol, is_done)

    def evaluate(problem: Problem, state: SagState) -> Report:
        return Report(state.value, state.bound, state.is_done)

    return Solver("sag", init, step, evaluate, None)


def _run(problem: Problem, params: Params, tol: float, max_epochs: int, seed: int) -> Params:
    """Return the parameters of scikit-learn's SAG from ``params``."""
    X, y, weight = problem.data
    model = LogisticRegression(
        C=alpha_from_C(problem.alpha, problem.n_samples),  # the formula is its own inverse
        solver="sag",
        tol=tol,
        max_iter=max_epochs,
        fit_intercept=problem.fit_intercept,
        warm_start=True,
        random_state=seed,
    )
    model.coef_, model.intercept_ = params.coef, params.intercept
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the bound tells
        model.fit(_with_short_indices(X), y, weight / problem.mean_weight)
    intercept = np.zeros(problem.n_outputs) if not problem.fit_intercept else model.intercept_
    return Params(model.coef_.astype(np.float64), np.asarray(intercept, dtype=np.float64))


def _with_short_indices(X: Any) -> Any:
    """Return CSR rows with the int32 indices that scikit-learn's SAG requires; the values are not copied."""
    return sp.csr_array((X.data, X.indices.astype(np.int32), X.indptr.astype(np.int32)), X.shape)


def _minimize_intercept(problem: Problem, params: Params) -> Array:
    """Return the intercept that minimises F at these coefficients."""
    intercept = params.intercept
    if not problem.fit_intercept:
        return intercept
    blocks = list(iter_blocks(problem))
    tables = [vectorized.raw_prediction(Params(params.coef, 0 * intercept), block.X) for block in blocks]
    total = total_weight(problem)
    for _ in range(_MAX_NEWTON):
        loss, gradient = 0.0, np.zeros(len(intercept))
        hessian = np.zeros((len(intercept), len(intercept)))
        for block, table in zip(blocks, tables, strict=True):
            z = table + intercept[:, None].astype(table.dtype)
            losses, residual = vectorized.loss_and_residual(z, block.y)
            weight = block.weight / total
            loss += float(weight @ losses)
            gradient += residual @ weight
            p = residual
            if len(p) > 1:
                p[block.y, np.arange(len(block.y))] += 1
            else:
                p += block.y
            hessian -= (p * weight) @ p.T
            np.einsum("kk->k", hessian)[:] += p @ weight
        # a shift common to all classes has no curvature
        step = np.linalg.pinv(hessian, hermitian=True) @ gradient
        intercept = intercept - step
        if not gradient @ step > _MIN_DECREMENT * loss:
            break
    return intercept
