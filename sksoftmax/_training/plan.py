"""Choose the engine and the solvers of a fit or a stream from the shape of the problem.

The choices of "auto" are made here, except the curvature of Newton steps (`newton_stage`), the learning rates of
named solvers (`named_solvers`) and the start of a fit whose Hessian is factorized (`start`). `fit`, `path`
and `stream` call `make_plan`, `use_dual` and `make_stream_plan`. To read the choices, start at the table `RULES`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp

from sksoftmax._data.batches import draw_seed, row_order
from sksoftmax._engines.device import DeviceArray
from sksoftmax._engines.registry import KERNELS
from sksoftmax._maths.class_curvature import (
    HESSIAN_ROWS_PER_UNKNOWN,
    STEP_OVERHEAD,
    hessian_time,
    pass_time,
    preconditioner_costs,
)
from sksoftmax._maths.objective import has_finite_squares, has_hard_labels
from sksoftmax._maths.preconditioner import compute_moments, gram_preconditioner, use_full_gram
from sksoftmax._solvers import schedules
from sksoftmax._solvers._dual_data import is_mostly_zeros
from sksoftmax._solvers.dual import dual
from sksoftmax._solvers.first_steps import first_steps, has_first_steps
from sksoftmax._solvers.lbfgs import lbfgs
from sksoftmax._solvers.preconditioned_sgd import preconditioned_sgd
from sksoftmax._solvers.sag import sag
from sksoftmax._solvers.schedule_free import schedule_free
from sksoftmax._training.lazy_solver import LazySolver, lazy_solver
from sksoftmax._training.named_solvers import plan_by_name
from sksoftmax._training.newton_stage import (
    MAX_SAMPLE_FRACTION,
    SMALL_TABLE,
    choose_curvature,
    data_bytes,
    memory_budget,
    newton_stage_solver,
    sample_size_or_all,
)
from sksoftmax._training.settings import Plan, Settings, Stage
from sksoftmax._training.start import MAX_SGD_EPOCHS, Start, auto_batch_size, choose_start, count_epochs
from sksoftmax._training.tolerance import center_or_widen, final_tol, is_small, stop_tol
from sksoftmax._types import Moments, Problem, Solver


class Case(NamedTuple):
    """A fit to plan: the arguments of the rules.

    Attributes
    ----------
    problem : Problem
    settings : Settings
    is_warm : bool
        Whether the fit starts from the result of an earlier fit.
    rng : RandomState
        For solvers that visit single rows.
    get_moments : callable
        ``() -> Moments``: the statistics of the columns, computed at most once.
    known_moments : Moments or None
        These statistics, if they have been computed for other fits.
    path_cache : object
        Reusable state of a fit with another penalty and the same solver, or None.
    allow_estimate : bool
        Whether the dual solver may stop at an uncertified estimate of the excess.
    is_widened : bool
        Whether X was converted to float64.
    is_watched : bool
        Whether a callback or early stopping looks at each epoch.
    """

    problem: Problem
    settings: Settings
    is_warm: bool
    rng: np.random.RandomState
    get_moments: Callable[[], Moments]
    known_moments: Moments | None
    path_cache: Any
    allow_estimate: bool
    is_widened: bool
    is_watched: bool


def choose_engine(engine: str, X: Any = None) -> str:
    """Return the name of the engine of the sums over rows.

    It is "array_api" for arrays of other libraries. "auto" is "compiled", or "vectorized" if there are no kernels.
    """
    if isinstance(X, DeviceArray):
        return "array_api"
    return next(iter(KERNELS)) if engine == "auto" else engine


# --- rule 1: a named solver ---------------------------------------------------------------------------------


def has_named_solver(case: Case) -> bool:
    """Return whether the user named a solver: then it runs to the end."""
    return case.settings.solver != "auto"


def plan_named_solver(case: Case) -> Plan:
    """Plan the named solver alone, with the moments for an "auto" rate and for the check of the excess."""
    return plan_by_name(case.problem, case.settings, case.get_moments(), is_stream=False)


# --- rule 2: the dual solver --------------------------------------------------------------------------------

#: Minimum number of columns for the dual solver: the matrices of Newton's method are small for fewer columns.
_MIN_DUAL_COLUMNS = 200

#: Minimum number of columns for the dual solver on dense rows without L1, unless the rows are few.
_MIN_DENSE_COLUMNS = 500

#: Minimum number of coefficients on dense rows without L1, unless the rows are few.
_MIN_DENSE_COEFFICIENTS = 30_000

#: Rows per column up to which dense rows are few: the fewer rows, the more the matrices of Newton's method cost
#: compared with passes.
_FEW_ROWS_PER_COLUMN = 2

#: Minimum number of coefficients on few dense rows without L1.
_MIN_COEFFICIENTS_OF_FEW = 3000

#: Largest table of n_samples x n_classes, in units of the memory of X.
_MAX_TABLE = 4.0

#: Fraction of the epochs for the dual solver, before Newton steps finish the fit.
_DUAL_FRACTION = 0.8

#: Maximum number of epochs for the dual solver.
_MAX_DUAL_EPOCHS = 80

#: The same on dense rows without L1, where an epoch takes as long as some steps of L-BFGS.
_MAX_DENSE_EPOCHS = 30

#: The same fraction, without a maximum number, for wide sparse rows without L1: a Newton step takes as long there as
#: some 100 epochs of the dual solver.
_SPARSE_DUAL_FRACTION = 0.9

#: Largest tolerance of the dual solver with a pure L1 penalty. It then has an estimate of the excess and no bound, and
#: larger estimates were up to 20 times too small.
_MAX_ESTIMATE_TOL = 1e-3


def is_dual_first(case: Case) -> bool:
    """Return whether the dual solver comes first: see `use_dual`."""
    return use_dual(case.problem, case.settings)


def use_dual(problem: Problem, settings: Settings) -> bool:
    """Return whether the dual solver comes first.

    It does if it can solve the problem, and if either the user named it or it is faster than Newton's method. It takes
    X as it is, whatever the means of its columns.
    """
    return _can_use_dual(problem, settings) and bool(settings.use_dual or _is_dual_faster(problem))


def _can_use_dual(problem: Problem, settings: Settings) -> bool:
    """Return whether the dual solver can solve the problem with these settings.

    - All rows are in memory, as an array of NumPy or SciPy, and their squares are finite.
    - Each row has one class.
    - Its engine is the compiled one, and the settings do not exclude it.
    - No setting is specific to minibatches, unless the user named the dual solver, or the penalty is L1, whose other
      solver does not use these either.
    """
    return choose_engine(settings.engine) == "compiled" and _is_solvable_by_dual(problem, settings)


def _is_solvable_by_dual(problem: Problem, settings: Settings) -> bool:
    """Return the same but for the engine."""
    X = problem.data.X
    if problem.data_source is not None or isinstance(X, DeviceArray):
        return False
    if settings.solver != "auto" or settings.use_dual is False:
        return False
    if not has_hard_labels(problem) or not has_finite_squares(X):
        return False
    return bool(settings.use_dual or problem.l1_ratio or not (settings.batch_size or settings.learning_rate))


def _is_dual_faster(problem: Problem) -> bool:
    """Return whether the dual solver is faster than Newton's method, and its table fits.

    With few columns the matrices of Newton's method are small and its steps cheap, in particular on dense rows without
    L1. The thresholds are measured, see docs/solvers.md. The dual solver needs

    - with L2 alone, more than 256 rows or a Hessian that is too large to factorize;
    - 200 columns on sparse rows or with an L1 penalty;
    - 200 columns and 3000 coefficients on dense rows that are at most 2 per column;
    - 500 columns and 30 000 coefficients on other dense rows.

    Its table of n_samples x n_classes may take 4 times the memory of X, or 64 MiB.
    """
    X, p = problem.data.X, problem.n_features
    table = problem.n_samples * problem.n_outputs * X.dtype.itemsize
    if (
        p < _MIN_DUAL_COLUMNS
        or (is_small(problem) and not problem.l1_ratio)
        or table > max(_MAX_TABLE * data_bytes(X), SMALL_TABLE)
    ):
        return False
    if problem.l1_ratio or _is_sparse(X):
        return True
    if problem.n_samples <= _FEW_ROWS_PER_COLUMN * p:
        return problem.n_outputs * p >= _MIN_COEFFICIENTS_OF_FEW
    return p >= _MIN_DENSE_COLUMNS and problem.n_outputs * p >= _MIN_DENSE_COEFFICIENTS


def _is_sparse(X: Any) -> bool:
    """Return whether the dual solver visits X as sparse rows."""
    return bool(sp.issparse(X) or is_mostly_zeros(X))


def plan_dual(case: Case) -> Plan:
    """Plan the dual solver for most of the epochs, then Newton steps if it has not reached the tolerance.

    With an L1 penalty the Newton steps are proximal.
    """
    problem, settings = case.problem, case.settings
    tol, least_tol = stop_tol(problem, settings), final_tol(problem, settings)

    def make_newton() -> LazySolver:
        # The dual solver leaves what float32 cannot resolve, such as an F of 1e-7. tol is that of the given X.
        own_problem, column_offset = center_or_widen(problem, settings, max_bytes=SMALL_TABLE)
        if _is_for_lbfgs(own_problem):
            moments = compute_moments(own_problem, full_gram=False)
            return LazySolver(_lbfgs_solver(own_problem, moments, tol, least_tol), own_problem, column_offset)
        moments = compute_moments(own_problem, full_gram=use_full_gram(own_problem))
        solver, _ = newton_stage_solver(own_problem, gram_preconditioner(own_problem, moments), moments, tol, least_tol)
        return LazySolver(solver, own_problem, column_offset)

    max_epochs = _MAX_DENSE_EPOCHS if _is_for_lbfgs(problem) and not _is_sparse(problem.data.X) else _MAX_DUAL_EPOCHS
    n_epochs = min(max_epochs, max(1, int(_DUAL_FRACTION * settings.max_iter)))
    if _is_sparse(problem.data.X) and problem.alpha and not problem.l1_ratio and not use_full_gram(problem):
        n_epochs = max(1, int(_SPARSE_DUAL_FRACTION * settings.max_iter))
    order = functools.partial(row_order, problem.n_samples, case.rng, shuffle=settings.shuffle)
    dual_tol = tol if problem.l1_ratio < 1 else min(tol, _MAX_ESTIMATE_TOL)
    dual_solver = dual(order, dual_tol, allow_estimate=case.allow_estimate, path_cache=case.path_cache)
    newton_name = "proximal_newton" if problem.l1_ratio else "lbfgs" if _is_for_lbfgs(problem) else "newton"
    stages = [Stage(dual_solver, n_epochs), Stage(lazy_solver(newton_name, make_newton), None)]
    info: dict[str, object] = {
        "batch_size": 1,
        "learning_rate": 1.0,
        "metric": "diagonal",
    }
    return Plan(stages, None, tol, info, case.allow_estimate)


# --- rule 3: without kernels --------------------------------------------------------------------------------

#: Maximum number of steps of SAG, each a run of scikit-learn's with a smaller tolerance.
_MAX_SAG_STEPS = 5


def is_sag_first(case: Case) -> bool:
    """Return whether SAG comes first: for sparse X with an L2 penalty that the dual solver would take with kernels.

    Products with blocks of sparse rows are slow in NumPy, so that Newton steps take many times longer.
    """
    problem, settings = case.problem, case.settings
    return (
        choose_engine(settings.engine) == "vectorized"
        and _is_solvable_by_dual(problem, settings)
        and sp.issparse(problem.data.X)
        and problem.data.X.nnz <= np.iinfo(np.int32).max
        and problem.alpha > 0
        and not problem.l1_ratio
        and _is_dual_faster(problem)
    )


def plan_sag(case: Case) -> Plan:
    """Plan SAG, then Newton steps if its bound does not reach the tolerance."""
    seeds = functools.partial(draw_seed, case.rng)
    solver = sag(seeds, stop_tol(case.problem, case.settings), case.settings.max_iter)
    return _plan_with_newton(case, [Stage(solver, _MAX_SAG_STEPS)], None, case.problem.n_total_samples)


# --- rules 4 and 5: minibatches first -----------------------------------------------------------------------

#: Rows per class from which L-BFGS estimates the mean curvature, at least, and as a fraction of all rows.
_ROWS_PER_CLASS = 20
_DRAWN_FRACTION = 0.03

#: Passes that L-BFGS takes, and Hessians of a sample that Newton steps take instead, about.
_LBFGS_PASSES = 40
_N_HESSIANS = 2

#: Minimum number of L-BFGS pairs.
_MIN_PAIRS = 10

#: Maximum number of L-BFGS pairs; their memory limits them in between.
_MAX_PAIRS = 50


def has_minibatches_first(case: Case) -> bool:
    """Return whether minibatches come first: see `start`.

    An epoch of minibatch steps covers most of the distance to the minimum; the Newton steps are for the rest.
    """
    return choose_start(case.problem, case.settings, is_warm=case.is_warm) is Start.MINIBATCHES


def is_hessian_too_large(case: Case) -> bool:
    """Return whether L-BFGS comes first: see `_is_for_lbfgs`."""
    return _is_for_lbfgs(case.problem)


def _is_for_lbfgs(problem: Problem) -> bool:
    """Return whether L-BFGS is faster than Newton's method: without L1, if the Hessian of a sample is expensive.

    It is not, if two Hessians cost less than the steps of L-BFGS and the sample is not all rows, or if a pass takes
    less than the overhead of a step. L-BFGS takes dense rows, and sparse ones of few columns.
    """
    curvature = choose_curvature(problem)
    if problem.l1_ratio or problem.data_source is not None or curvature.is_exact:
        return False
    if pass_time(problem) <= STEP_OVERHEAD:
        return False
    if curvature.is_factorized:
        hessian = hessian_time(problem, curvature.n_drawn) / (pass_time(problem) + STEP_OVERHEAD)
        return not sp.issparse(problem.data.X) and _N_HESSIANS * hessian > _LBFGS_PASSES
    is_suitable = not sp.issparse(problem.data.X) or problem.n_features < _MIN_DUAL_COLUMNS
    n_unknowns = problem.n_outputs * (problem.n_features + problem.fit_intercept)
    needs_all_rows = sample_size_or_all(HESSIAN_ROWS_PER_UNKNOWN * n_unknowns, problem.n_samples) == problem.n_samples
    return is_suitable and (needs_all_rows or preconditioner_costs(problem).hessian > _LBFGS_PASSES)


def plan_sgd_newton(case: Case) -> Plan:
    """Plan minibatch steps, then Newton steps to the end."""
    sgd, rate, batch_size = _sgd_stage(case)
    return _plan_with_newton(case, [sgd], rate, batch_size)


def plan_lbfgs(case: Case) -> Plan:
    """Plan L-BFGS, then Newton steps if it cannot go on.

    Minibatch steps come first if the user set their size or rate. An epoch of them does, if the batches are many and
    X'X costs less than the epoch.
    """
    problem, settings, stages, rate, batch_size = case.problem, case.settings, [], None, case.problem.n_total_samples
    is_requested = settings.batch_size is not None or settings.learning_rate is not None
    if has_minibatches_first(case) and (is_requested or preconditioner_costs(problem).gram <= 1):
        sgd, rate, batch_size = _sgd_stage(case, max_epochs=MAX_SGD_EPOCHS if is_requested else 1)
        stages, moments = [sgd], case.get_moments()
    else:
        moments = case.known_moments or compute_moments(problem, full_gram=False)
    tol, least_tol = _newton_tol(case), final_tol(problem, settings)

    def make_newton() -> LazySolver:
        moments = case.get_moments()
        solver, _ = newton_stage_solver(problem, gram_preconditioner(problem, moments), moments, tol, least_tol)
        return LazySolver(solver, problem, None)

    lbfgs_stage = Stage(_lbfgs_solver(problem, moments, tol, least_tol), None)
    stages += [lbfgs_stage, Stage(lazy_solver("newton", make_newton), None)]
    info: dict[str, object] = {
        "batch_size": batch_size,
        "learning_rate": rate or 1.0,
        "metric": "gram" if rate else "none",
        "curvature": "L-BFGS",
    }
    return Plan(stages, gram_preconditioner(problem, moments), tol, info)


def _sgd_stage(case: Case, max_epochs: int = MAX_SGD_EPOCHS) -> tuple[Stage, float, int]:
    """Return the stage of minibatch steps with a preconditioner, its rate and its batch size.

    The rate is half the step that the curvature of a batch allows on average.
    """
    problem, settings = case.problem, case.settings
    batch_size = settings.batch_size or auto_batch_size(problem)
    n_batches = -(-problem.n_total_samples // batch_size)
    n_epochs = min(count_epochs(problem, batch_size, max_epochs), settings.max_iter)
    preconditioner = gram_preconditioner(problem, case.get_moments(), batch_size)
    rate = settings.learning_rate or 0.5 / (1.0 + preconditioner.dimension / batch_size)
    solver = preconditioned_sgd(
        preconditioner,
        rate,
        schedules.linear(),
        batch_size,
        n_batches,
        n_epochs,
        settings.momentum,
        settings.nesterov,
    )
    return Stage(solver, n_epochs), rate, batch_size


def _lbfgs_solver(problem: Problem, moments: Moments, tol: float, least_tol: float) -> Solver:
    """Return L-BFGS.

    The sampled rows estimate one number and cost less than the pass of a step. The pairs take no more memory than X.
    """
    n = problem.n_samples
    n_drawn = max(int(_DRAWN_FRACTION * n), min(_ROWS_PER_CLASS * problem.n_outputs, int(MAX_SAMPLE_FRACTION * n)), 1)
    pair_bytes = 2 * problem.data.X.dtype.itemsize * problem.n_outputs * (problem.n_features + 1)
    n_pairs = int(np.clip(memory_budget(problem.data.X) // pair_bytes, _MIN_PAIRS, _MAX_PAIRS))
    return lbfgs(moments, n_drawn, n_pairs, tol, least_tol)


# --- rule 6: Newton steps alone -----------------------------------------------------------------------------


def always(case: Case) -> bool:
    """Return True."""
    return True


def plan_newton(case: Case) -> Plan:
    """Plan Newton steps from the start: for a warm start, such as that by a sample, and where they are cheap.

    Kernels take the first ones if that is faster.
    """
    problem, max_steps, stages = case.problem, case.settings.max_iter - 1, []
    if max_steps > 0 and choose_curvature(problem).is_exact and not problem.l1_ratio and has_first_steps(problem):
        base = gram_preconditioner(problem, case.get_moments())
        stages = [Stage(first_steps(base, _newton_tol(case), max_steps, is_watched=case.is_watched), None)]
    return _plan_with_newton(case, stages, None, problem.n_total_samples)


def _plan_with_newton(case: Case, stages: list[Stage], rate: float | None, batch_size: int) -> Plan:
    """Return the plan of ``stages`` followed by Newton steps, see `newton_stage_solver`; ``rate`` is None without
    minibatches.
    """
    problem, settings, moments = case.problem, case.settings, case.get_moments()
    base, tol = gram_preconditioner(problem, moments), _newton_tol(case)
    solver, curvature = newton_stage_solver(problem, base, moments, tol, final_tol(problem, settings), case.path_cache)
    preconditioner = "gram" if moments.second_moment.ndim == 2 else "diagonal"
    info = {
        "batch_size": batch_size,
        "learning_rate": rate or 1.0,
        "metric": "none" if _needs_no_preconditioner(problem, settings, is_warm=case.is_warm) else preconditioner,
        "curvature": curvature,
    }
    return Plan([*stages, Stage(solver, None)], base, tol, info)


def _newton_tol(case: Case) -> float:
    """Return the tolerance of the fit; data that were converted to float64 have that of float32."""
    problem, settings = case.problem, case.settings
    if case.is_widened:
        return final_tol(problem, settings)
    return stop_tol(problem, settings)


def _needs_no_preconditioner(problem: Problem, settings: Settings, *, is_warm: bool) -> bool:
    """Return whether the plan consists of Newton steps with the factorized Hessian of all rows."""
    start = choose_start(problem, settings, is_warm=is_warm)
    is_newton_alone = settings.solver == "auto" and start is not Start.MINIBATCHES
    return is_newton_alone and choose_curvature(problem).is_exact


# --- the table ----------------------------------------------------------------------------------------------

#: The rules of a fit: pairs of a condition and a plan. The first rule whose condition holds is used.
RULES: tuple[tuple[Callable[[Case], bool], Callable[[Case], Plan]], ...] = (
    (has_named_solver, plan_named_solver),  # the user named it: that solver alone
    (is_dual_first, plan_dual),  # many columns: the dual solver, then Newton steps
    (is_sag_first, plan_sag),  # sparse rows of many columns, without kernels: scikit-learn's SAG, then Newton steps
    (is_hessian_too_large, plan_lbfgs),  # dense rows, a Hessian too large for each step: minibatches, L-BFGS
    (has_minibatches_first, plan_sgd_newton),  # where that is faster: minibatches, then Newton steps
    (always, plan_newton),  # a warm start, or cheap Newton steps: Newton steps alone
)


def make_plan(
    problem: Problem,
    settings: Settings,
    *,
    is_warm: bool,
    rng: np.random.RandomState,
    moments: Moments | None = None,
    path_cache: Any = None,
    allow_estimate: bool = False,
    is_widened: bool = False,
    is_watched: bool = True,
) -> Plan:
    """Return the plan of a fit, by the first of `RULES` that applies.

    Parameters are those of `Case`; ``moments`` are the result of `plan_moments`, if available.
    """

    @functools.cache
    def get_moments() -> Moments:
        return plan_moments(problem, settings, is_warm=is_warm) if moments is None else moments

    case = Case(
        problem, settings, is_warm, rng, get_moments, moments, path_cache, allow_estimate, is_widened, is_watched
    )
    return next(plan(case) for applies, plan in RULES if applies(case))


def plan_moments(problem: Problem, settings: Settings, *, is_warm: bool) -> Moments:
    """Return the statistics of the columns, with all of X'X only if a solver of the plan uses it and it is cheap."""
    is_exact = _needs_no_preconditioner(problem, settings, is_warm=is_warm)
    return compute_moments(problem, full_gram=not is_exact and use_full_gram(problem))


# --- streams ------------------------------------------------------------------------------------------------

#: Rows that a stream collects before a step, as a fraction of the rows before.
_WAIT_FRACTION = 0.125


def make_stream_plan(problem: Problem, settings: Settings, moments: Moments | None) -> Plan:
    """Return the plan of ``partial_fit`` on rows that are not buffered: one pass, with no known end.

    - A named solver: see `plan_by_name`. Its moments are computed only for an "auto" rate.
    - "auto": schedule-free steps. ``moments`` are the statistics of the earlier rows, or None for the first rows;
      later calls keep their kind (all of X'X, or its diagonal).
    """
    if settings.solver != "auto":
        moments = compute_moments(problem, full_gram=use_full_gram(problem)) if settings.learning_rate is None else None
        return plan_by_name(problem, settings, moments, is_stream=True)
    batch_size = min(settings.batch_size or auto_batch_size(problem), problem.n_samples)
    full_gram = not problem.l1_ratio and use_full_gram(problem, is_stream=True)
    if moments is not None:
        full_gram = moments.second_moment.ndim == 2
    solver = schedule_free(batch_size, settings.learning_rate, full_gram=full_gram, half_life=settings.half_life)
    info: dict[str, object] = {
        "batch_size": batch_size,
        "learning_rate": settings.learning_rate or "auto",
        "metric": "gram" if full_gram else "diagonal",
    }
    return Plan([Stage(solver, 1)], None, 0.0, info)


def rows_of_a_step(problem: Problem, settings: Settings, n_before: int) -> int:
    """Return the number of rows that a stream collects before a step: a batch, or an eighth of the rows before.

    The cost of a step is then small compared with that of its rows.
    """
    batch_size = settings.batch_size or auto_batch_size(problem)
    return int(min(batch_size, _WAIT_FRACTION * n_before, _WAIT_FRACTION * settings.half_life))
