"""The same problem of fewer columns or classes, where it has more than its minimum needs."""

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

#: Columns a row from which the rows' own space is taken; and the most rows, for which it costs some 15 epochs of the
#: dual: at least, and for each class.
_COLUMNS_PER_ROW = 2
_MOST_ROWS, _MOST_ROWS_PER_CLASS = 1000, 200

#: Ratio of the columns' scales up to which orthogonal transformations keep half of the digits of the smallest.
_MOST_SCALES = 1e8

#: Numbers that LAPACK's ormqr wants to work in: its largest triangle, and a block of columns.
_WORK, _BLOCK = 64 * 65, 64


class ReducedProblem(NamedTuple):
    """A smaller problem in the place of another: ``to`` takes that one's parameters to it, ``back`` back."""

    problem: Problem
    to: Callable[[Params], Params]
    back: Callable[[Params], Params]


def identity_reduction(problem: Problem) -> ReducedProblem:
    """The problem itself."""
    return ReducedProblem(problem, _same, _same)


def _same(params: Params) -> Params:
    return params


def reduce_columns(problem: Problem, *, may_rotate: bool) -> ReducedProblem | None:
    """Of sparse rows those columns that have entries, if they are less than half; of a few dense rows their own space.

    ``may_rotate`` says of NumPy's X whether the solver is at home in any coordinates, and F is least at no other than
    the shortest coefficients. The rows are in memory.
    """
    if sp.issparse(problem.data.X):
        return _drop_empty_columns(problem)
    if may_rotate and problem.l1_ratio == 0 and _has_few_rows(problem):
        return _rotate_to_row_space(problem)
    return None


def classes_with_rows(problem: Problem) -> Array | None:
    """Return the codes of the classes that have rows of positive weight, sorted; None if all have.

    Returns None, too, for rows of one class and no intercept: the coefficients alone then tell it from the others.
    """
    seen = np.flatnonzero(class_weights(problem))
    is_left_whole = len(seen) == problem.n_classes or (len(seen) == 1 and not problem.fit_intercept)
    return None if is_left_whole else seen


def restrict_classes(problem: Problem, seen: Array) -> ReducedProblem:
    """Return the problem of the classes ``seen`` (sorted codes), which all rows are of; `add_classes` leads back.

    Two classes have one row of coefficients, w, in place of -w / 2 and w / 2: half the squared norm, and the same sum.
    One class leaves nothing to fit: `back` then gives the log priors.
    """
    y = problem.data.y
    data = problem.data._replace(y=np.searchsorted(seen, y) if y.ndim == 1 else y[:, seen])
    data_source = None if problem.data_source is None else problem.data_source.of_classes(seen)
    alpha, l1_ratio = problem.alpha, problem.l1_ratio
    if len(seen) == 2:
        alpha, l1_ratio = 0.5 * (1 + l1_ratio) * alpha, 2 * l1_ratio / (1 + l1_ratio)
    few = problem._replace(data=data, n_classes=len(seen), alpha=alpha, l1_ratio=l1_ratio, data_source=data_source)

    def to(params: Params) -> Params:
        if len(seen) == 1:
            return Params(np.zeros((1, problem.n_features)), np.zeros(1))
        coef, intercept = params.coef[seen], params.intercept[seen]
        if len(seen) == 2:
            return Params(coef[1:] - coef[:1], intercept[1:] - intercept[:1])
        return Params(center_over_classes(coef), center_over_classes(intercept))

    def back(params: Params) -> Params:
        if len(seen) == 1:
            return prior_params(problem)
        flags = {"has_l1": problem.l1_ratio > 0, "has_intercept": problem.fit_intercept}
        return add_classes(params, seen, problem.n_classes, problem.n_total_samples, **flags)

    return ReducedProblem(few, to, back)


def add_classes(
    params: Params, places: Array, n_classes: int, n_samples: int, *, has_l1: bool, has_intercept: bool
) -> Params:
    """The parameters with rows for more classes, which predict no row yet: old predictions hardly move.

    By Jensen's inequality ``logsumexp(z) >= mean(z) + log K``: with the mean of the others' coefficients, and an
    intercept of ``mean(b) + log K - log(2 n)``, the new classes have 1 / 2n of the probability each, or less. (Under L1
    their coefficients are 0, and without intercept they have a share like the others'.)

    Parameters
    ----------
    params : Params
        Of K classes.
    places : ndarray of int of shape (K,)
        Their codes among all.
    n_classes : int
        All classes.
    n_samples : int
        Rows seen, n.
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
    """The others' coefficients are 0."""
    X, p = problem.data.X, problem.n_features
    used = np.flatnonzero(np.bincount(X.indices, minlength=p))
    if not 0 < 2 * len(used) < p:
        return None
    place = np.zeros(p, X.indices.dtype)
    place[used] = np.arange(len(used))
    reduced = sp.csr_array((X.data, place[X.indices], X.indptr), shape=(X.shape[0], len(used)))

    return ReducedProblem(_with(problem, reduced), partial(_take, used), partial(_scatter, used, p))


def _take(used: Array, params: Params) -> Params:
    return params._replace(coef=params.coef[:, used])


def _scatter(used: Array, n_features: int, params: Params) -> Params:
    coef = np.zeros((len(params.coef), n_features))
    coef[:, used] = params.coef
    return params._replace(coef=coef)


def _has_few_rows(problem: Problem) -> bool:
    n = problem.n_samples
    return _COLUMNS_PER_ROW * n <= problem.n_features and n <= max(_MOST_ROWS, _MOST_ROWS_PER_CLASS * problem.n_outputs)


def _rotate_to_row_space(problem: Problem) -> ReducedProblem | None:
    """The rows' coordinates in a basis of the space that they span: n_samples columns, in float64.

    With ``X - mean = L Q'``, Q of orthonormal columns, coefficients ``W = V Q'`` predict ``L V'`` and have V's norm;
    what W has beside the rows' space predicts nothing, so at the minimum there is nothing (the representer theorem:
    Kimeldorf & Wahba, 1971, J. Math. Anal. Appl. 33, 82-95). Householder's QR of ``(X - mean)'`` (Golub & Van Loan,
    2013, Matrix Computations, 5.2) errs by the rounding of the largest column: None where that could hide others.
    What is left of L where rows say nothing new is rounding, of which solvers that scale columns would make directions:
    it is set to 0.
    """
    X = problem.data.X
    if not has_finite_squares(X):
        return None
    mean = X.mean(axis=0, dtype=np.float64) if problem.fit_intercept else np.zeros(X.shape[1])
    columns = (X - mean).T
    max_deviation = np.maximum(columns.max(axis=1), -columns.min(axis=1))
    rounding = max(columns.shape) * np.finfo(np.float64).eps * np.abs(mean)
    columns[max_deviation <= rounding] = max_deviation[max_deviation <= rounding] = 0  # of one value
    if not max_deviation.max() <= _MOST_SCALES * max_deviation.min(where=max_deviation > 0, initial=np.inf):
        return None
    (reflectors, factors), triangle = scipy.linalg.qr(columns, overwrite_a=True, mode="raw", check_finite=False)
    p, size = len(reflectors), np.abs(triangle).max(axis=1)
    triangle[size <= max(p * np.finfo(np.float64).eps * size.max(), rounding.max())] = 0  # less than n rows tell

    rotation = reflectors, factors, mean
    reduced = _with(problem, np.ascontiguousarray(triangle.T))
    return ReducedProblem(reduced, partial(_into, *rotation), partial(_out_of, *rotation))


def _rotate(reflectors: Array, factors: Array, coef: Array, trans: str) -> Any:
    (multiply,) = scipy.linalg.get_lapack_funcs(("ormqr",), (reflectors,))  # here: it cannot be pickled
    product, _, _ = multiply("L", trans, reflectors, factors, coef.T, _WORK + _BLOCK * len(coef))
    return product.T


def _into(reflectors: Array, factors: Array, mean: Array, params: Params) -> Params:
    params = shift_intercept(params, mean, 1.0)
    coef = _rotate(reflectors, factors, params.coef, "T")[:, : reflectors.shape[1]]
    return params._replace(coef=np.ascontiguousarray(coef))


def _out_of(reflectors: Array, factors: Array, mean: Array, params: Params) -> Params:
    padded = np.zeros((len(params.coef), len(reflectors)))
    padded[:, : reflectors.shape[1]] = params.coef
    coef = _rotate(reflectors, factors, padded, "N")
    return shift_intercept(params._replace(coef=np.ascontiguousarray(coef)), mean, -1.0)


def _with(problem: Problem, X: Any) -> Problem:
    return problem._replace(data=problem.data._replace(X=X))
