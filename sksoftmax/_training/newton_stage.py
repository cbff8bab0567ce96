"""Choose and build the last stage of a fit: Newton steps, proximal ones with an L1 penalty.

The choice is the source of their curvature: how many rows, and whether the Hessian of these rows is factorized or
multiplied by conjugate gradients (CG). `plan` and `tolerance` call this module.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp

from sksoftmax._engines.device import is_in_host_memory
from sksoftmax._maths.class_curvature import DRAW_TIME, HESSIAN_ROWS_PER_UNKNOWN, hessian_time, pass_time
from sksoftmax._maths.curvature import class_block_preconditioner, factorize_subsample
from sksoftmax._maths.preconditioner import GramPreconditioner, PreconditionerCandidate
from sksoftmax._solvers.newton import PreconditionerCache, newton
from sksoftmax._solvers.proximal_newton import proximal_newton
from sksoftmax._types import Moments, Problem, Solver

#: Largest number of unknowns d for a Cholesky factorization. It costs about as much as d / 4 CG products, in faster
#: operations, and CG rarely needs that many.
_MAX_UNKNOWNS = 1000

#: Cost model of a pass. One flop of a pass takes as long as 4 flops of a factorization, and a pass has 4 flops for each
#: entry of X and output: hence 16.
_FACTOR_PER_PASS = 16.0

#: Flops below which the overhead of calls dominates the cost of a factorization or a pass.
_OVERHEAD = 2**19

#: Largest cost of a factorization, in passes, and the largest number of steps with the same factor.
_MAX_FACTOR_PASSES = 12

#: Cost model of a CG product, which is faster than a pass: its 4 flops for each entry and output take as long as 4
#: flops of a factorization.
_FACTOR_PER_PRODUCT = 4.0

#: Cost of the curvature weights of the rows of each class, in CG products: added to the flops of a preconditioner.
_CLASS_PRODUCTS = 10

#: First sample size for CG products, per column.
_ROWS_PER_COLUMN = 5

#: Smallest sample size for CG products, as a fraction of all rows.
SAMPLE_FRACTION = 0.1

#: Largest sample size for a number of rows that is not required, as a fraction of all rows: the sample is a copy.
MAX_SAMPLE_FRACTION = 0.25

#: Flops that take about a millisecond: fewer are not worth drawing a sample.
_MIN_WORK = 2**26

#: Bytes that the tables of a solver may take in any case.
SMALL_TABLE = 2**26


class Curvature(NamedTuple):
    """Source of the curvature of the Newton steps.

    Attributes
    ----------
    n_drawn : int
        Number of rows whose Hessian is used.
    is_factorized : bool
        Whether their Hessian is factorized; otherwise it is multiplied by CG.
    n_steps : int
        Number of steps with the same factor.
    is_exact : bool
        Whether the factor is that of the Hessian of all rows; then no preconditioner is needed.
    """

    n_drawn: int
    is_factorized: bool
    n_steps: int
    is_exact: bool


def choose_curvature(problem: Problem) -> Curvature:
    """Return the number of rows to draw, and whether their Hessian is factorized.

    With d unknowns and m drawn rows, a factorization takes ``m d^2 + d^3 / 3`` flops, and a pass over all n rows takes
    ``4 n d`` slower flops. The Hessian is factorized

    - if that takes about a millisecond at most, or
    - if d is at most 1000 and the cost is at most 12 passes.

    The number of steps with the same factor is its cost in passes. Without L1 the Hessian is that of all rows if it
    takes less time than a pass and the draw of a sample; proximal steps need more of the rows than their Hessian.
    """
    n, p = problem.n_total_samples, problem.n_features
    d = problem.n_outputs * (p + problem.fit_intercept)
    rows_of_a_pass = int(min(_FACTOR_PER_PASS / d, MAX_SAMPLE_FRACTION) * n)  # their factorization costs a pass
    if not problem.l1_ratio and hessian_time(problem, n) <= pass_time(problem) + DRAW_TIME * n:
        rows_of_a_pass = n
    n_drawn = max(HESSIAN_ROWS_PER_UNKNOWN * d, rows_of_a_pass, _MIN_WORK // (d * d))
    n_drawn = problem.n_samples if problem.data_source is not None else sample_size_or_all(n_drawn, problem.n_samples)
    work = d * d * (n_drawn + d / 3)
    n_steps = round((work + _OVERHEAD) / (_FACTOR_PER_PASS * n * d + _OVERHEAD))
    if work <= _MIN_WORK or (d <= _MAX_UNKNOWNS and n_steps <= _MAX_FACTOR_PASSES):
        return Curvature(n_drawn, True, int(np.clip(n_steps, 1, _MAX_FACTOR_PASSES)), n_drawn == n)
    return Curvature(sample_size_for_products(problem), False, 1, False)


def sample_size_for_products(problem: Problem) -> int:
    """Return the number of rows whose Hessian CG multiplies; all rows in memory for out-of-core data."""
    p = problem.n_features
    rows_of_min_work = _MIN_WORK // (4 * problem.n_outputs * (p + problem.fit_intercept))
    n_drawn = max(_ROWS_PER_COLUMN * p, int(SAMPLE_FRACTION * problem.n_samples), rows_of_min_work)
    return problem.n_samples if problem.data_source is not None else sample_size_or_all(n_drawn, problem.n_samples)


def sample_size_or_all(n_drawn: int, n_samples: int) -> int:
    """Return ``n_drawn``, or ``n_samples`` if that is less than twice as large: the sample would save little."""
    return n_drawn if 2 * n_drawn <= n_samples else n_samples


def newton_stage_solver(
    problem: Problem,
    base: GramPreconditioner,
    moments: Moments,
    tol: float,
    final_tol: float,
    path_cache: PreconditionerCache | None = None,
) -> tuple[Solver, str]:
    """Return the solver of the last stage, and a description of its curvature for ``solver_info_``.

    Parameters
    ----------
    problem : Problem
    base : GramPreconditioner
        Preconditioner of the first CG products, and scale of the columns.
    moments : Moments
        Statistics of the columns.
    tol : float
        Relative excess at which the solver stops.
    final_tol : float
        Relative excess that the result has to reach; see `tolerance.final_tol`.
    path_cache : PreconditionerCache or None
        Preconditioner of a fit with another penalty.
    """
    n_drawn, is_factorized, n_steps, _ = choose_curvature(problem)
    method = "factorised" if is_factorized else "conjugate gradients"
    description = f"{method}, {'all' if n_drawn == problem.n_total_samples else n_drawn} rows"
    if problem.l1_ratio:
        solver = proximal_newton(base, moments, tol, final_tol=final_tol, n_drawn=n_drawn, is_matrix=is_factorized)
        return solver, description
    solver = newton(
        base,
        moments,
        tol,
        final_tol=final_tol,
        n_drawn=n_drawn,
        is_factorized=is_factorized,
        n_steps=n_steps,
        candidates=_candidates(problem, base, n_drawn, is_factorized=is_factorized),
        path_cache=path_cache,
    )
    return solver, description


def _candidates(
    problem: Problem, base: GramPreconditioner, n_drawn: int, *, is_factorized: bool
) -> list[PreconditionerCandidate]:
    """Return the CG preconditioners that fit into memory, the cheapest first, with their costs in CG products.

    - One block per class, if ``base`` is a full matrix: p^2 (m + 2 p) flops per class, m the number of drawn rows.
    - The Cholesky factor of a subsample of s rows, if the Hessian is not factorized anyway: d^2 (s + d / 3) flops.
    """
    X, p = problem.data.X, problem.n_features
    d = problem.n_outputs * (p + problem.fit_intercept)
    candidates = []
    if base.inverse.ndim == 2 and problem.n_outputs * p * p * X.dtype.itemsize <= memory_budget(X):
        n_products = p * (n_drawn + 2 * p) / (_FACTOR_PER_PASS * n_drawn) + _CLASS_PRODUCTS
        candidates.append(PreconditionerCandidate(class_block_preconditioner, n_products))
    if 8 * d * d <= memory_budget(X) and not is_factorized:
        n_samples = min(n_drawn, HESSIAN_ROWS_PER_UNKNOWN * d)
        n_products = d * (n_samples + d / 3) / (_FACTOR_PER_PRODUCT * n_drawn) + _CLASS_PRODUCTS
        make = functools.partial(factorize_subsample, n_samples=n_samples)
        candidates.append(PreconditionerCandidate(make, n_products, is_factor=True))
    return candidates


def data_bytes(X: Any) -> int:
    """Return the memory of the entries of X, in bytes."""
    return int(X.data.nbytes + X.indices.nbytes if sp.issparse(X) else X.nbytes)


def memory_budget(X: Any) -> int:
    """Return the bytes of host memory that the tables of a solver may take: those of X, if X is in host memory."""
    return max(data_bytes(X), SMALL_TABLE) if is_in_host_memory(X) else SMALL_TABLE
