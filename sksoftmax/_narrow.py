"""The same problem of fewer columns, where it has more than its minimum needs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import scipy.linalg
import scipy.sparse as sp

from sksoftmax._objective import has_finite_squares, shifted
from sksoftmax._types import Array, Params, Problem

#: Columns a row from which the rows' own space is taken; and the most rows, for which it costs some 15 epochs of the
#: dual: at least, and for each class.
_COLUMNS_PER_ROW = 2
_MOST_ROWS, _MOST_ROWS_PER_CLASS = 1000, 200

#: Ratio of the columns' scales up to which orthogonal transformations keep half of the digits of the smallest.
_MOST_SCALES = 1e8

#: Numbers that LAPACK's ormqr wants to work in: its largest triangle, and a block of columns.
_WORK, _BLOCK = 64 * 65, 64


class Narrow(NamedTuple):
    """A problem of fewer columns in the place of another: ``to`` takes that one's parameters to it, ``back`` back."""

    problem: Problem
    to: Callable[[Params], Params]
    back: Callable[[Params], Params]


def as_it_is(problem: Problem) -> Narrow:
    """The problem itself."""
    return Narrow(problem, _same, _same)


def _same(params: Params) -> Params:
    return params


def narrowed(problem: Problem, *, may_rotate: bool) -> Narrow | None:
    """Of sparse rows those columns that have entries, if they are less than half; of a few dense rows their own space.

    ``may_rotate`` says of NumPy's X whether the solver is at home in any coordinates, and F is least at no other than
    the shortest coefficients. The rows are in memory.
    """
    if sp.issparse(problem.data.X):
        return _of_used_columns(problem)
    if may_rotate and problem.l1_ratio == 0 and _are_few(problem):
        return _of_row_space(problem)
    return None


def _of_used_columns(problem: Problem) -> Narrow | None:
    """The others' coefficients are 0."""
    X, p = problem.data.X, problem.n_features
    used = np.flatnonzero(np.bincount(X.indices, minlength=p))
    if not 0 < 2 * len(used) < p:
        return None
    place = np.zeros(p, X.indices.dtype)
    place[used] = np.arange(len(used))
    narrow = sp.csr_array((X.data, place[X.indices], X.indptr), shape=(X.shape[0], len(used)))

    def to(params: Params) -> Params:
        return params._replace(coef=params.coef[:, used])

    def back(params: Params) -> Params:
        coef = np.zeros((len(params.coef), p))
        coef[:, used] = params.coef
        return params._replace(coef=coef)

    return Narrow(_with(problem, narrow), to, back)


def _are_few(problem: Problem) -> bool:
    n = problem.n_samples
    return _COLUMNS_PER_ROW * n <= problem.n_features and n <= max(_MOST_ROWS, _MOST_ROWS_PER_CLASS * problem.n_rows)


def _of_row_space(problem: Problem) -> Narrow | None:
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
    peak = np.maximum(columns.max(axis=1), -columns.min(axis=1))
    rounding = max(columns.shape) * np.finfo(np.float64).eps * np.abs(mean)
    columns[peak <= rounding] = peak[peak <= rounding] = 0  # of one value
    if not peak.max() <= _MOST_SCALES * peak.min(where=peak > 0, initial=np.inf):
        return None
    (reflectors, factors), triangle = scipy.linalg.qr(columns, overwrite_a=True, mode="raw", check_finite=False)
    (p, n), size = reflectors.shape, np.abs(triangle).max(axis=1)
    triangle[size <= max(p * np.finfo(np.float64).eps * size.max(), rounding.max())] = 0  # less than n rows tell

    def rotated(coef: Array, trans: str) -> Any:
        (multiply,) = scipy.linalg.get_lapack_funcs(("ormqr",), (reflectors,))  # here: it cannot be pickled
        product, _, _ = multiply("L", trans, reflectors, factors, coef.T, _WORK + _BLOCK * len(coef))
        return product.T

    def to(params: Params) -> Params:
        params = shifted(params, mean, 1.0)
        return params._replace(coef=np.ascontiguousarray(rotated(params.coef, "T")[:, :n]))

    def back(params: Params) -> Params:
        padded = np.zeros((len(params.coef), p))
        padded[:, :n] = params.coef
        return shifted(params._replace(coef=np.ascontiguousarray(rotated(padded, "N"))), mean, -1.0)

    return Narrow(_with(problem, np.ascontiguousarray(triangle.T)), to, back)


def _with(problem: Problem, X: Any) -> Problem:
    return problem._replace(data=problem.data._replace(X=X))
