"""Every "auto" is decided here, from the shape of the problem, and nowhere else."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp

from sksoftmax._data.batches import row_order
from sksoftmax._engines.device import DeviceArray, is_in_host_memory
from sksoftmax._maths.curvature import class_block_preconditioner, factorize_subsample
from sksoftmax._maths.objective import center_columns, has_finite_squares, has_hard_labels, shift_intercept
from sksoftmax._maths.preconditioner import (
    GramPreconditioner,
    compute_moments,
    curvature_bound,
    gram_preconditioner,
    use_full_gram,
)
from sksoftmax._solvers import schedules
from sksoftmax._solvers._dual_data import DualData, is_mostly_zeros
from sksoftmax._solvers._first_order import first_order
from sksoftmax._solvers.adagrad import adagrad_rule, init_squares
from sksoftmax._solvers.adam import adam_rule, init_means
from sksoftmax._solvers.dual import dual, is_available
from sksoftmax._solvers.lbfgs import lbfgs
from sksoftmax._solvers.newton import PreconditionerCache, PreconditionerCandidate, newton
from sksoftmax._solvers.preconditioned_sgd import preconditioned_sgd
from sksoftmax._solvers.proximal_newton import proximal_newton
from sksoftmax._solvers.schedule_free import schedule_free
from sksoftmax._solvers.sgd import init_velocity, sgd_rule
from sksoftmax._types import Array, Batch, Moments, Params, Problem, Report, Solver

#: Least rows of an "auto" batch: fewer would not keep a matrix product busy.
_MIN_BATCH = 256
_MAX_BATCH = 4096
_MAX_BATCHES = 512

#: Rows that a stream may wait for, as a share of those before.
_WAIT = 0.125

#: Batches in an epoch from which minibatches come before the finish, and their epochs.
_MIN_BATCHES = 16
_SGD_STEPS = 256
_MAX_SGD_EPOCHS = 5

#: Unknowns up to which the Hessian may be factorised: a factor costs d / 4 products of conjugate gradients, by
#: faster operations, and they seldom need as many.
_MAX_FACTORISED = 1000

#: Operations of a factor that take as long as one of a pass, times the 4 of a pass; those that either takes as long as
#: on however few rows; and the most passes of a factor.
_FACTOR_PER_PASS = 16.0
_LEAST_OPERATIONS = 2**19
_MAX_FACTOR_PASSES = 12

#: The same of a product of conjugate gradients, which is faster than a pass.
_FACTOR_PER_PRODUCT = 4.0

#: Products of conjugate gradients that it takes to weigh the rows for each class, besides the operations.
_CLASS_PRODUCTS = 10

#: Rows that the curvature is first estimated from: a multiple of the unknowns of a factor; for conjugate gradients
#: a multiple of the columns, and a share of all.
_ROWS_PER_UNKNOWN = 5
_ROWS_PER_COLUMN = 5
_LEAST_WORK = 2**26  # operations, about a millisecond: less is not worth a draw
_SHARE_OF_ROWS = 0.1

#: Steps of L-BFGS before the finish; rows per class that tell a curvature, and the most, as a share; its pairs; and the
#: most columns per class for which X'X's spectrum costs a few passes.
_LBFGS_EPOCHS = 20
_ROWS_PER_CLASS = 20
_MOST_ROWS_DRAWN = 0.25
_LEAST_PAIRS, _MOST_PAIRS = 10, 20
_SPECTRUM_COLUMNS = 8

#: Epochs of the dual before the finish: a share of all, and at most; of wide sparse rows without L1 a larger share, for
#: a Newton step takes as long there as some 100 of them.
_DUAL_SHARE, _MAX_DUAL_EPOCHS, _SPARSE_SHARE = 0.8, 80, 0.9

#: Excess that the dual goes on to where it has no bound, but an estimate: greater ones were up to 20 times too small.
_SURE = 1e-3

#: Columns from which the dual comes first. Of dense rows without L1, columns and coefficients; or coefficients where
#: there are few rows a column, next to which Newton's matrices cost the more.
_MIN_DUAL_COLUMNS = 200
_MIN_DENSE_COLUMNS, _MIN_DENSE_COEFFICIENTS = 500, 30_000
_FEW_ROWS_PER_COLUMN, _MIN_COEFFICIENTS_OF_FEW = 2, 3000

#: Memory of the dual's table of n_samples x n_classes, in units of X's; and what a solver's tables may take in any
#: case, in bytes.
_MAX_TABLE, _SMALL_TABLE = 4.0, 2**26


class Settings(NamedTuple):
    """The hyperparameters that the choice depends on; see ``SoftmaxClassifier``."""

    solver: str
    batch_size: int | None
    learning_rate: float | None
    schedule: str
    power_t: float
    momentum: float
    nesterov: bool
    average: bool
    beta_1: float
    beta_2: float
    epsilon: float
    max_iter: int
    tol: float
    engine: str = "auto"
    shuffle: bool = True
    keep_rows: bool = True
    half_life: float = np.inf


class Stage(NamedTuple):
    """A solver and the epochs that it gets; None for all that are left."""

    solver: Solver
    n_epochs: int | None


class Plan(NamedTuple):
    """What a fit will do.

    Attributes
    ----------
    stages : list of Stage
        One after the other, each from where the last one stood.
    preconditioner : Preconditioner or None
        For the test whether F is near its minimum, where the solver has none; None on a stream.
    tol : float
        Excess at which the fit ends: the setting, or the limit of rounding, see ``_tolerance``.
    info : dict
        The choices, for ``solver_info_``, but for which of the solvers came to run.
    allow_estimate : bool, default=False
        Whether the last value of F may be an estimate, as in a search, which does not show it.
    """

    stages: list[Stage]
    preconditioner: GramPreconditioner | None
    tol: float
    info: dict[str, object]
    allow_estimate: bool = False


def choose_engine(engine: str, X: Any = None) -> str:
    """Name of the engine of sums over rows: the vectorized one but for "naive", and for arrays of other libraries."""
    if isinstance(X, DeviceArray):
        return "array_api"
    return "naive" if engine == "naive" else "vectorized"


def make_plan(
    problem: Problem,
    settings: Settings,
    *,
    is_warm: bool,
    rng: np.random.RandomState,
    known: Moments | None = None,
    path_cache: Any = None,
    allow_estimate: bool = False,
    is_wide: bool = False,
) -> Plan:
    """Plan of a fit; ``rng`` is for solvers that visit single rows, ``known`` are the ``plan_moments``, if at hand,
    ``path_cache`` is what a fit of another penalty has paid for, by the same solver, and ``allow_estimate`` says
    whether the dual may end by an estimate of the excess that it does not certify, ``is_wide`` whether X is in float64
    and was not.

    Many columns, with the engine compiled: the dual, which Newton-CG finishes should it not get there. With an L1
    penalty proximal Newton steps take the place of Newton-CG everywhere.

    ``solver="auto"``: minibatches in the metric of X'X, if there are at least 16 batches in an epoch or if
    their size or rate was given, then Newton-CG to the end; L-BFGS in between where the unknowns are as many as the
    rows. The metric is X'X's inverse while that costs no more than 200 passes over the data, and its diagonal's
    otherwise; none is needed where the Hessian of all rows is factorised. A warm start, which the first steps of
    minibatches would leave, goes to Newton-CG at once, unless the dual takes it.
    """
    if use_dual(problem, settings):
        return _dual_plan(problem, settings, rng, allow_estimate=allow_estimate, path_cache=path_cache)
    batch_size = settings.batch_size or _auto_batch_size(problem)
    n_batches = -(-problem.n_total_samples // batch_size)
    has_batches = _has_batches(problem, settings, is_warm=is_warm)
    moments = plan_moments(problem, settings, is_warm=is_warm) if known is None else known
    if settings.solver != "auto":
        return _plan_by_name(problem, settings, moments, is_stream=False)
    base = gram_preconditioner(problem, moments)
    stages, rate = [], None
    tol = _final_tol(problem, settings) if is_wide else _tolerance(problem, settings)
    if has_batches:
        n_epochs = min(int(np.clip(round(_SGD_STEPS / n_batches), 1, _MAX_SGD_EPOCHS)), settings.max_iter)
        solver, rate = _preconditioned_sgd(problem, settings, moments, batch_size, n_batches, n_epochs)
        stages.append(Stage(solver, n_epochs))
        if _use_lbfgs(problem, moments):
            stages.append(Stage(_lbfgs(problem, moments, tol), _LBFGS_EPOCHS))
    finish, curvature = _finish(problem, base, moments, tol, _final_tol(problem, settings), path_cache)
    stages.append(Stage(finish, None))
    info = {
        "batch_size": batch_size if rate else problem.n_total_samples,
        "learning_rate": rate or 1.0,
        "metric": "none" if _is_exact(problem, settings, is_warm=is_warm) else _preconditioner_name(moments),
        "curvature": curvature,
    }
    return Plan(stages, base, tol, info)


def plan_moments(problem: Problem, settings: Settings, *, is_warm: bool) -> Moments:
    """The columns' statistics, of the kind that a fit needs."""
    is_exact = _is_exact(problem, settings, is_warm=is_warm)
    return compute_moments(problem, full_gram=not is_exact and use_full_gram(problem))


def _has_batches(problem: Problem, settings: Settings, *, is_warm: bool) -> bool:
    """Whether minibatches come before the finish."""
    n_batches = -(-problem.n_total_samples // (settings.batch_size or _auto_batch_size(problem)))
    is_asked_for = settings.batch_size is not None or settings.learning_rate is not None
    return not is_warm and (n_batches >= _MIN_BATCHES or (is_asked_for and n_batches > 1))


def _is_exact(problem: Problem, settings: Settings, *, is_warm: bool) -> bool:
    """Whether the Hessian of all rows is factorised, and no metric needed."""
    is_auto = settings.solver == "auto" and not _has_batches(problem, settings, is_warm=is_warm)
    return is_auto and _curvature(problem).is_exact


def make_stream_plan(problem: Problem, settings: Settings, known: Moments | None) -> Plan:
    """Plan of ``partial_fit``: one pass, no horizon, nothing known but the rows at hand.

    ``known`` are the statistics of the rows before, whose kind is kept; None for the first.
    """
    if settings.solver != "auto":
        # the statistics are for an "auto" rate alone
        moments = compute_moments(problem, full_gram=use_full_gram(problem)) if settings.learning_rate is None else None
        return _plan_by_name(problem, settings, moments, is_stream=True)
    batch_size = min(settings.batch_size or _auto_batch_size(problem), problem.n_samples)
    full_gram = not problem.l1_ratio and use_full_gram(problem, is_stream=True)
    if known is not None:
        full_gram = known.second_moment.ndim == 2
    solver = schedule_free(batch_size, settings.learning_rate, full_gram=full_gram, half_life=settings.half_life)
    info: dict[str, object] = {
        "batch_size": batch_size,
        "learning_rate": settings.learning_rate or "auto",
        "metric": "gram" if full_gram else "diagonal",
    }
    return Plan([Stage(solver, 1)], None, 0.0, info)


def rows_of_a_step(problem: Problem, settings: Settings, n_before: int) -> int:
    """Rows that a stream waits for, so that a step costs little next to them: a batch, or an eighth of those before."""
    batch_size = settings.batch_size or _auto_batch_size(problem)
    return int(min(batch_size, _WAIT * n_before, _WAIT * settings.half_life))


def use_dual(problem: Problem, settings: Settings) -> bool:
    """Whether the dual comes first; it takes X as it is, whatever its columns' means.

    Asked for, always where it can: X in memory and NumPy's or SciPy's, its squares finite, a class for each row, and
    nothing asked for that is of minibatches, which an L1 penalty's other solver does not take either. By "auto" if
    there are many columns (few make Newton's matrices small, most of all of dense rows without L1), its table is small
    or at most 4 times X, and there is numba.
    """
    X = problem.data.X
    if problem.data_source is not None or isinstance(X, DeviceArray):
        return False
    if settings.engine not in ("auto", "compiled") or settings.solver != "auto":
        return False
    if not has_hard_labels(problem) or not has_finite_squares(X):
        return False
    if (settings.batch_size or settings.learning_rate) and not problem.l1_ratio:  # of minibatches
        return False
    if settings.engine == "compiled":
        return True
    table = problem.n_samples * problem.n_outputs * X.dtype.itemsize
    p = problem.n_features
    if (
        p < _MIN_DUAL_COLUMNS
        or (_is_small(problem) and not problem.l1_ratio)
        or table > max(_MAX_TABLE * _n_bytes(X), _SMALL_TABLE)
        or not is_available()
    ):
        return False
    if problem.l1_ratio or _is_sparse(X):
        return True
    if problem.n_samples <= _FEW_ROWS_PER_COLUMN * p:
        return problem.n_outputs * p >= _MIN_COEFFICIENTS_OF_FEW
    return p >= _MIN_DENSE_COLUMNS and problem.n_outputs * p >= _MIN_DENSE_COEFFICIENTS


def _is_sparse(X: Any) -> bool:
    """Whether the dual visits X as sparse rows."""
    return bool(sp.issparse(X) or is_mostly_zeros(X))


def _n_bytes(X: Any) -> int:
    return int(X.data.nbytes + X.indices.nbytes if sp.issparse(X) else X.nbytes)


def _memory_budget(X: Any) -> int:
    """Bytes of host memory that a solver's tables may take: as many as X, if X is there."""
    return max(_n_bytes(X), _SMALL_TABLE) if is_in_host_memory(X) else _SMALL_TABLE


def _dual_plan(
    problem: Problem,
    settings: Settings,
    rng: np.random.RandomState,
    *,
    allow_estimate: bool,
    path_cache: DualData | None,
) -> Plan:
    tol, final_tol = _tolerance(problem, settings), _final_tol(problem, settings)

    def finish() -> LazySolver:
        own, column_offset = center_or_widen(problem, settings)  # tol is that of X as it was
        moments = compute_moments(own, full_gram=use_full_gram(own))
        return LazySolver(
            _finish(own, gram_preconditioner(own, moments), moments, tol, final_tol)[0], own, column_offset
        )

    n_epochs = min(_MAX_DUAL_EPOCHS, max(1, int(_DUAL_SHARE * settings.max_iter)))
    if _is_sparse(problem.data.X) and problem.alpha and not problem.l1_ratio and not use_full_gram(problem):
        n_epochs = max(1, int(_SPARSE_SHARE * settings.max_iter))
    order = functools.partial(row_order, problem.n_samples, rng, shuffle=settings.shuffle)
    name = "proximal_newton" if problem.l1_ratio else "newton"
    goal = tol if problem.l1_ratio < 1 else min(tol, _SURE)
    first = dual(order, goal, allow_estimate=allow_estimate, path_cache=path_cache)
    stages = [Stage(first, n_epochs), Stage(_lazy_solver(name, finish), None)]
    info: dict[str, object] = {
        "engine": "compiled",
        "batch_size": 1,
        "learning_rate": 1.0,
        "metric": "diagonal",
    }
    return Plan(stages, None, tol, info, allow_estimate)


class LazySolver(NamedTuple):
    """A solver, the problem that it is for, and what that one's columns are less by."""

    solver: Solver
    problem: Problem
    column_offset: Array | None


class LazyState(NamedTuple):
    """The state of a late solver, and its parameters in the coordinates of the problem as it was given."""

    state: Any
    params: Params


def _lazy_solver(name: str, make: Callable[[], LazySolver]) -> Solver:
    """The solver that ``make`` makes when its first state is asked for."""
    made = functools.cache(make)

    def known(state: Any) -> LazyState:
        return LazyState(state, shift_intercept(state.params, made().column_offset, -1.0))

    def init(problem: Problem, params: Params) -> LazyState:
        solver, own, column_offset = made()
        return known(solver.init(own, shift_intercept(params, column_offset, 1.0)))

    def step(problem: Problem, late: LazyState, batch: Batch) -> LazyState:
        solver, own, _ = made()
        return known(solver.step(own, late.state, own.data))

    def evaluate(problem: Problem, late: LazyState) -> Report:
        solver, own, _ = made()
        assert solver.evaluate is not None
        return solver.evaluate(own, late.state)

    return Solver(name, init, step, evaluate, None)


def _tolerance(problem: Problem, settings: Settings) -> float:
    """The excess asked for, at least the rounding of F; on data of one float64 batch the limit of rounding.

    There it costs little, as long as the Hessian is factorised, and the answer then depends neither on the seed nor on
    the order of the rows. (The coefficients have half the digits of the excess.)
    """
    eps = float(np.finfo(problem.data.X.dtype).eps)
    if settings.solver == "auto" and _is_small(problem) and problem.data.X.dtype == np.float64:
        return float(eps**1.5)
    return _final_tol(problem, settings)


def _final_tol(problem: Problem, settings: Settings) -> float:
    """The excess that a fit which ends by it has: the one asked for, at least the rounding of F."""
    return max(settings.tol, float(np.finfo(problem.data.X.dtype).eps))


def _is_small(problem: Problem) -> bool:
    """Whether Newton's steps cost next to nothing."""
    return problem.n_samples <= _MIN_BATCH and _curvature(problem).is_exact


def center_or_widen(problem: Problem, settings: Settings) -> tuple[Problem, Array | None]:
    """The problem that loses less to float32, and what its columns are less by, if anything.

    A small one in float64, where a fit takes as long: its calls cost more than its operations. Others less a centre.
    """
    data = problem.data
    is_single = data.X.dtype == np.float32 and not isinstance(data.X, DeviceArray) and problem.data_source is None
    if is_single and settings.solver == "auto" and _is_small(problem):
        return problem._replace(data=data._replace(X=data.X.astype(np.float64))), None
    return center_columns(problem)


def _preconditioner_name(moments: Moments) -> str:
    return "gram" if moments.second_moment.ndim == 2 else "diagonal"


class _Curvature(NamedTuple):
    """From how many rows the finish has its curvature, whether factorised, and the steps of a round.

    ``is_exact``: the factor is that of F's own Hessian, and needs no metric.
    """

    n_drawn: int
    is_factorised: bool
    n_steps: int
    is_exact: bool


def _curvature(problem: Problem) -> _Curvature:
    """With d unknowns and m rows drawn, the factor takes ``m d^2 + d^3 / 3`` operations, a pass over all n rows
    ``4 n d`` slower ones. It is used while it costs a few passes, or a millisecond, and a round has as many steps.
    """
    n, p = problem.n_total_samples, problem.n_features
    d = problem.n_outputs * (p + problem.fit_intercept)
    of_pass = int(min(_FACTOR_PER_PASS / d, _MOST_ROWS_DRAWN) * n)  # the rows drawn are a copy
    n_drawn = max(_ROWS_PER_UNKNOWN * d, of_pass, _LEAST_WORK // (d * d))
    n_drawn = problem.n_samples if problem.data_source is not None else _sample_size_or_all(n_drawn, problem.n_samples)
    work = d * d * (n_drawn + d / 3)
    n_steps = round((work + _LEAST_OPERATIONS) / (_FACTOR_PER_PASS * n * d + _LEAST_OPERATIONS))
    if work <= _LEAST_WORK or (d <= _MAX_FACTORISED and n_steps <= _MAX_FACTOR_PASSES):
        return _Curvature(n_drawn, True, int(np.clip(n_steps, 1, _MAX_FACTOR_PASSES)), n_drawn == n)
    return _Curvature(_rows_for_products(problem), False, 1, False)


def _finish(
    problem: Problem,
    base: GramPreconditioner,
    moments: Moments,
    tol: float,
    final_tol: float,
    path_cache: PreconditionerCache | None = None,
) -> tuple[Solver, str]:
    """The finish, and what its curvature is."""
    n_drawn, is_factorised, n_steps, _ = _curvature(problem)
    X, p = problem.data.X, problem.n_features
    how = "factorised" if is_factorised else "conjugate gradients"
    curvature = f"{how}, {'all' if n_drawn == problem.n_total_samples else n_drawn} rows"
    if problem.l1_ratio:
        return proximal_newton(
            base, moments, tol, final_tol=final_tol, n_drawn=n_drawn, is_matrix=is_factorised
        ), curvature
    candidates = []
    if base.inverse.ndim == 2 and problem.n_outputs * p * p * X.dtype.itemsize <= _memory_budget(X):
        candidates.append(
            PreconditionerCandidate(
                class_block_preconditioner, p * (n_drawn + 2 * p) / (_FACTOR_PER_PASS * n_drawn) + _CLASS_PRODUCTS
            )
        )
    d = problem.n_outputs * (p + problem.fit_intercept)
    if 8 * d * d <= _memory_budget(X) and not is_factorised:
        n_samples = min(n_drawn, _ROWS_PER_UNKNOWN * d)
        make = functools.partial(factorize_subsample, n_samples=n_samples)
        candidates.append(
            PreconditionerCandidate(make, d * (n_samples + d / 3) / (_FACTOR_PER_PRODUCT * n_drawn) + _CLASS_PRODUCTS)
        )
    solver = newton(
        base,
        moments,
        tol,
        final_tol=final_tol,
        n_drawn=n_drawn,
        is_factorised=is_factorised,
        n_steps=n_steps,
        candidates=candidates,
        path_cache=path_cache,
    )
    return solver, curvature


def _rows_for_products(problem: Problem) -> int:
    """Rows whose Hessian conjugate gradients take."""
    p = problem.n_features
    worth_it = _LEAST_WORK // (4 * problem.n_outputs * (p + problem.fit_intercept))
    n_drawn = max(_ROWS_PER_COLUMN * p, int(_SHARE_OF_ROWS * problem.n_samples), worth_it)
    return problem.n_samples if problem.data_source is not None else _sample_size_or_all(n_drawn, problem.n_samples)


def _use_lbfgs(problem: Problem, moments: Moments) -> bool:
    """Whether the finish would draw part of the rows where the unknowns are so many that only most would do.

    And X'X's spectrum is cheap: it takes some ``30 p^3`` operations, a pass ``4 n p n_outputs``, n being at least 16 p.
    """
    n_unknowns = problem.n_outputs * problem.n_features
    is_cheap = moments.second_moment.ndim == 2 and problem.n_features <= _SPECTRUM_COLUMNS * problem.n_outputs
    is_misled = _rows_for_products(problem) < problem.n_samples == _sample_size_or_all(n_unknowns, problem.n_samples)
    return problem.l1_ratio == 0 and is_cheap and is_misled


def _lbfgs(problem: Problem, moments: Moments, tol: float) -> Solver:
    """Its rows tell a number for each class, and cost less than the pass of a step; its pairs are no larger than X."""
    n = problem.n_samples
    n_drawn = max(int(_SHARE_OF_ROWS * n), min(_ROWS_PER_CLASS * problem.n_outputs, int(_MOST_ROWS_DRAWN * n)))
    of_pair = 2 * 8 * problem.n_outputs * problem.n_features
    most = _memory_budget(problem.data.X) // of_pair
    return lbfgs(moments, n_drawn, int(np.clip(most, _LEAST_PAIRS, _MOST_PAIRS)), tol)


def _sample_size_or_all(n_drawn: int, n_samples: int) -> int:
    """The number of rows to draw; all of them instead of most, which are hardly cheaper."""
    return n_drawn if 2 * n_drawn <= n_samples else n_samples


def _auto_batch_size(problem: Problem) -> int:
    """Rows enough that the metric, n_features^2 a batch, costs little next to the batch's own products.

    Elsewhere than in host memory a step takes its time on few rows too, and there are no more than the start asks for.
    """
    n_batches = _MAX_BATCHES if is_in_host_memory(problem.data.X) else _SGD_STEPS
    return int(np.clip(max(problem.n_features, problem.n_total_samples // n_batches), _MIN_BATCH, _MAX_BATCH))


def _preconditioned_sgd(
    problem: Problem, settings: Settings, moments: Moments, batch_size: int, n_batches: int, n_epochs: int
) -> tuple[Solver, float]:
    """Minibatch steps in the metric; half the step that a batch's curvature allows on average."""
    preconditioner = gram_preconditioner(problem, moments, batch_size)
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
    return solver, rate


def _plan_by_name(problem: Problem, settings: Settings, moments: Moments | None, *, is_stream: bool) -> Plan:
    batch_size = min(settings.batch_size or _MIN_BATCH, problem.n_samples)
    rule, init_memory, auto_rate = {
        "sgd": (sgd_rule(settings.momentum, settings.nesterov), init_velocity, _gradient_rate),
        "adagrad": (adagrad_rule(settings.epsilon), init_squares, _coordinate_rate),
        "adam": (
            adam_rule(settings.beta_1, settings.beta_2, settings.epsilon),
            init_means,
            _coordinate_rate,
        ),
    }[settings.solver]
    rate = settings.learning_rate
    if rate is None:
        assert moments is not None
        rate = float(auto_rate(problem, moments, batch_size))  # NumPy's own float prints its type
    n_batches = -(-problem.n_total_samples // batch_size)
    solver = first_order(
        settings.solver,
        rule,
        init_memory,
        rate,
        schedules.schedule(settings.schedule, settings.power_t),
        batch_size,
        None if is_stream else settings.max_iter * n_batches,
        average=settings.average and settings.solver == "sgd",
    )
    info = {
        "batch_size": batch_size,
        "learning_rate": rate,
        "metric": "none",
    }
    stages = [Stage(solver, 1 if is_stream else None)]
    preconditioner = None if is_stream or moments is None else gram_preconditioner(problem, moments)
    return Plan(stages, preconditioner, _tolerance(problem, settings), info)


def _gradient_rate(problem: Problem, moments: Moments, batch_size: int) -> float:
    """1 / L of a batch of b rows: ``bound * (lambda_max(X'X / n) + (1/b - 1/n) mean ||x||^2) + alpha``.

    The curvature of a batch drawn without replacement, on average: the intrinsic-dimension bound of Tropp
    (2015), arXiv:1501.01571, 7.3. The largest eigenvalue is at most the trace, which stands for it where X'X
    is not at hand.
    """
    has_intercept = float(problem.fit_intercept)
    unit = max(float(np.max(moments.max_deviation)), float(np.max(np.abs(moments.mean))), has_intercept) or 1.0
    max_deviation, mean = moments.max_deviation / unit, np.append(moments.mean / unit, has_intercept / unit)
    second_moment = moments.second_moment
    spread = np.diagonal(second_moment) if second_moment.ndim == 2 else second_moment
    trace = float(max_deviation**2 @ spread + mean @ mean)
    largest = trace
    if second_moment.ndim == 2:
        matrix = np.outer(mean, mean)
        matrix[:-1, :-1] += second_moment * np.outer(max_deviation, max_deviation)
        largest = float(np.linalg.eigvalsh(matrix)[-1])
    spread_of_batches = trace * (1.0 / batch_size - 1.0 / problem.n_total_samples)
    curvature = curvature_bound(problem) * (largest + spread_of_batches)
    return 1.0 / (curvature * unit * unit + problem.alpha)


def _coordinate_rate(problem: Problem, moments: Moments, batch_size: int) -> float:
    """A change of every parameter by it changes a raw prediction by 1 at most, on average over the rows.

    The change is ``||x||_1`` (and 1 for the intercept), on average at most the sum of the columns' root mean
    squares (Jensen).
    """
    spread = np.diagonal(moments.second_moment) if moments.second_moment.ndim == 2 else moments.second_moment
    rms = np.hypot(moments.max_deviation * np.sqrt(np.maximum(spread, 0)), moments.mean)
    return 1.0 / (float(rms.sum()) + float(problem.fit_intercept) + np.finfo(float).tiny)
