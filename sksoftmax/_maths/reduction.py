"""Reduction of a problem to an equivalent problem with fewer columns or classes.

``_training.fit`` and ``SoftmaxClassifierCV`` reduce a problem before they solve it, and map the solution back.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import scipy.linalg
import scipy.sparse as sp

from sksoftmax._maths.objective import (
    center_over_classes,
    class_weights,
    has_finite_squares,
    prior_params,
    shift_intercept,
)
from sksoftmax._types import Array, Params, Problem

#: Minimum columns per row for a rotation to the row space.
_COLUMNS_PER_ROW = 2

#: Maximum rows for a rotation, which then costs about 15 epochs of the dual solver.
_MAX_ROWS = 1000

#: Maximum rows per output for a rotation; allows more rows than ``_MAX_ROWS`` if there are many classes.
_MAX_ROWS_PER_OUTPUT = 200

#: Maximum ratio of the columns' scales. Orthogonal transformations then keep half of the digits of the smallest column.
_MAX_SCALE_RATIO = 1e8

#: Workspace of LAPACK's ormqr for its largest triangle, in entries.
_ORMQR_TRIANGLE = 64 * 65

#: Workspace of LAPACK's ormqr for a block of columns, in entries per row of the coefficients.
_ORMQR_BLOCK = 64


class ReducedProblem(NamedTuple):
    """Smaller problem that is equivalent to an original problem.

    Attributes
    ----------
    problem : Problem
        The smaller problem.
    to : callable
        Maps parameters of the original problem to parameters of the smaller problem.
    back : callable
        Maps parameters of the smaller problem to parameters of the original problem.
    """

    problem: Problem
    to: Callable[[Params], Params]
    back: Callable[[Params], Params]


def identity_reduction(problem: Problem) -> ReducedProblem:
    """Return the problem itself, with maps that return their argument."""
    return ReducedProblem(problem, _identity, _identity)


def _identity(params: Params) -> Params:
    return params


def reduce_columns(problem: Problem, *, may_rotate: bool) -> ReducedProblem | None:
    """Return an equivalent problem with fewer columns, or None if there is none. The rows are in memory.

    - For sparse X, drops the columns without stored entries if these are more than half.
    - For dense X with few rows, rotates the columns to the row space.

    Parameters
    ----------
    problem : Problem
    may_rotate : bool
        Whether a rotation is allowed: the solver is rotation invariant, and the minimiser has the least norm among
        coefficients with equal predictions.
    """
    if sp.issparse(problem.data.X):
        return _drop_empty_columns(problem)
    if may_rotate and problem.l1_ratio == 0 and _has_few_rows(problem):
        return _rotate_to_row_space(problem)
    return None


def classes_with_rows(problem: Problem) -> Array | None:
    """Return the codes of the classes that have rows of positive weight, sorted; None if all have.

    Also returns None if all rows are of one class and there is no intercept: the coefficients alone then separate this
    class from the others.
    """
    codes = np.flatnonzero(class_weights(problem))
    is_complete = len(codes) == problem.n_classes or (len(codes) == 1 and not problem.fit_intercept)
    return None if is_complete else codes


def restrict_classes(problem: Problem, codes: Array) -> ReducedProblem:
    """Return the problem with only the classes of the sorted ``codes``, to which all rows belong.

    `back` adds the other classes with `add_classes`. Two classes have one row of coefficients w instead of -w / 2 and
    w / 2. These two rows have half the squared norm of w and the same L1 norm, so ``alpha`` and ``l1_ratio`` change.
    With one class there is nothing to fit, and `back` returns the log priors.
    """
    y = problem.data.y
    data = problem.data._replace(y=np.searchsorted(codes, y) if y.ndim == 1 else y[:, codes])
    data_source = None if problem.data_source is None else problem.data_source.restrict_classes(codes)
    alpha, l1_ratio = problem.alpha, problem.l1_ratio
    if len(codes) == 2:
        alpha, l1_ratio = 0.5 * (1 + l1_ratio) * alpha, 2 * l1_ratio / (1 + l1_ratio)
    reduced = problem._replace(data=data, n_classes=len(codes), alpha=alpha, l1_ratio=l1_ratio, data_source=data_source)

    def to(params: Params) -> Params:
        if len(codes) == 1:
            return Params(np.zeros((1, problem.n_features)), np.zeros(1))
        coef, intercept = params.coef[codes], params.intercept[codes]
        if len(codes) == 2:
            return Params(coef[1:] - coef[:1], intercept[1:] - intercept[:1])
        return Params(center_over_classes(coef), center_over_classes(intercept))

    def back(params: Params) -> Params:
        if len(codes) == 1:
            return prior_params(problem)
        flags = {"has_l1": problem.l1_ratio > 0, "has_intercept": problem.fit_intercept}
        return add_classes(params, codes, problem.n_classes, problem.n_total_samples, **flags)

    return ReducedProblem(reduced, to, back)


def add_classes(
    params: Params, places: Array, n_classes: int, n_samples: int, *, has_l1: bool, has_intercept: bool
) -> Params:
    """Return the parameters with rows for new classes, of small probability, so that predictions hardly change.

    New classes get the mean of the coefficients and the intercept ``mean(b) + log K - log(2 n)``. By Jensen's
    inequality, ``logsumexp(z) >= mean(z) + log K``, so each new class has a probability of at most 1 / (2 n). With L1
    the new coefficients are 0 instead. Without intercept the new classes have probabilities like those of the others.

    Parameters
    ----------
    params : Params
        Parameters of K classes.
    places : ndarray of int of shape (K,)
        Codes of these K classes among all classes.
    n_classes : int
        Number of all classes.
    n_samples : int
        Number of rows so far, n.
    has_l1, has_intercept : bool
    """
    if len(places) == n_classes:
        return params
    coef, intercept = params
    if len(places) == 2:
        coef, intercept = np.concatenate([-0.5 * coef, 0.5 * coef]), np.concatenate([-0.5 * intercept, 0.5 * intercept])
    wide = Params(np.zeros((n_classes, coef.shape[1])), np.zeros(n_classes))
    if not has_l1:
        wide.coef[:] = coef.mean(axis=0)
    if has_intercept:
        wide.intercept[:] = intercept.mean() + np.log(len(places)) - np.log(2 * n_samples)
    wide.coef[places], wide.intercept[places] = coef, intercept
    return wide


def _drop_empty_columns(problem: Problem) -> ReducedProblem | None:
    """Return the problem without columns that have no stored entries: their coefficients are 0 at the minimum.

    Returns None if half of the columns or more have entries, or none has.
    """
    X, p = problem.data.X, problem.n_features
    used = np.flatnonzero(np.bincount(X.indices, minlength=p))
    if not 0 < 2 * len(used) < p:
        return None
    new_index = np.zeros(p, X.indices.dtype)
    new_index[used] = np.arange(len(used))
    reduced = sp.csr_array((X.data, new_index[X.indices], X.indptr), shape=(X.shape[0], len(used)))

    return ReducedProblem(
        _replace_X(problem, reduced), partial(_take_columns, used), partial(_scatter_columns, used, p)
    )


def _take_columns(used: Array, params: Params) -> Params:
    """Return the parameters with the coefficients of the columns ``used`` only."""
    return params._replace(coef=params.coef[:, used])


def _scatter_columns(used: Array, n_features: int, params: Params) -> Params:
    """Return the parameters of all columns; the coefficients of columns other than ``used`` are 0."""
    coef = np.zeros((len(params.coef), n_features))
    coef[:, used] = params.coef
    return params._replace(coef=coef)


def _has_few_rows(problem: Problem) -> bool:
    """Return whether there are few enough rows for a rotation to the row space to be cheap and useful."""
    n = problem.n_samples
    return _COLUMNS_PER_ROW * n <= problem.n_features and n <= max(_MAX_ROWS, _MAX_ROWS_PER_OUTPUT * problem.n_outputs)


def _rotate_to_row_space(problem: Problem) -> ReducedProblem | None:
    """Return the problem in coordinates of the row space: n_samples columns, in float64.

    With ``X - mean = L Q'``, Q with orthonormal columns, coefficients ``W = V Q'`` predict ``L V'`` and have V's norm.
    A component of W orthogonal to the row space changes no prediction, so it is 0 at the minimum (representer
    theorem: Kimeldorf & Wahba, 1971, J. Math. Anal. Appl. 33, 82-95).

    1. Centre the columns, and set constant columns to 0.
    2. Compute Householder's QR of ``(X - mean)'`` (Golub & Van Loan, 2013, Matrix Computations, 5.2). Its error is of
       the size of the rounding of the largest column: returns None if the column scales differ too much, or if squares
       of X may overflow.
    3. Set columns of L that are within rounding to 0. They come from rows that depend linearly on other rows, and
       solvers that scale columns would amplify them.
    """
    X = problem.data.X
    if not has_finite_squares(X):
        return None
    # 1.
    mean = X.mean(axis=0, dtype=np.float64) if problem.fit_intercept else np.zeros(X.shape[1])
    columns = (X - mean).T
    max_deviation = np.maximum(columns.max(axis=1), -columns.min(axis=1))
    rounding = max(columns.shape) * np.finfo(np.float64).eps * np.abs(mean)
    columns[max_deviation <= rounding] = max_deviation[max_deviation <= rounding] = 0
    # 2.
    if not max_deviation.max() <= _MAX_SCALE_RATIO * max_deviation.min(where=max_deviation > 0, initial=np.inf):
        return None
    (reflectors, factors), triangle = scipy.linalg.qr(columns, overwrite_a=True, mode="raw", check_finite=False)
    # 3.
    p, size = len(reflectors), np.abs(triangle).max(axis=1)
    triangle[size <= max(p * np.finfo(np.float64).eps * size.max(), rounding.max())] = 0

    rotation = reflectors, factors, mean
    reduced = _replace_X(problem, np.ascontiguousarray(triangle.T))
    return ReducedProblem(reduced, partial(_rotate_params, *rotation), partial(_rotate_back, *rotation))


def _multiply_by_q(reflectors: Array, factors: Array, coef: Array, trans: str) -> Any:
    """Return ``coef`` times Q ("T") or Q' ("N"), with Q as LAPACK's reflectors and their factors."""
    (multiply,) = scipy.linalg.get_lapack_funcs(("ormqr",), (reflectors,))  # looked up here: it cannot be pickled
    product, _, _ = multiply("L", trans, reflectors, factors, coef.T, _ORMQR_TRIANGLE + _ORMQR_BLOCK * len(coef))
    return product.T


def _rotate_params(reflectors: Array, factors: Array, mean: Array, params: Params) -> Params:
    """Return the parameters in the coordinates of the row space."""
    params = shift_intercept(params, mean, 1.0)
    coef = _multiply_by_q(reflectors, factors, params.coef, "T")[:, : reflectors.shape[1]]
    return params._replace(coef=np.ascontiguousarray(coef))


def _rotate_back(reflectors: Array, factors: Array, mean: Array, params: Params) -> Params:
    """Return parameters of the row space in the coordinates of X."""
    padded = np.zeros((len(params.coef), len(reflectors)))
    padded[:, : reflectors.shape[1]] = params.coef
    coef = _multiply_by_q(reflectors, factors, padded, "N")
    return shift_intercept(params._replace(coef=np.ascontiguousarray(coef)), mean, -1.0)


def _replace_X(problem: Problem, X: Any) -> Problem:
    """Return the problem with another X."""
    return problem._replace(data=problem.data._replace(X=X))
