import numpy as np
import pytest
import scipy.sparse as sp
from numpy.testing import assert_allclose

from sksoftmax import SoftmaxClassifier
from sksoftmax._maths import class_curvature
from sksoftmax._maths.class_curvature import ColumnUnits, DiagonalPreconditioner
from sksoftmax._maths.objective import prior_params
from sksoftmax._maths.preconditioner import compute_moments
from sksoftmax._solvers import lbfgs as lbfgs_module
from sksoftmax._solvers.lbfgs import FlatPairs, LbfgsMatrix, lbfgs
from sksoftmax._types import Params
from tests.problems import problem, random_data


@pytest.fixture(scope="module")
def case():
    X, y = random_data(n_samples=400, n_features=5, n_classes=60, seed=0)
    return problem(X, y, alpha=1e-3)


def solve(case, tol, max_steps=60, **kwargs):
    solver = lbfgs(compute_moments(case, full_gram=False), case.n_samples, 20, tol, **kwargs)
    state = solver.init(case, prior_params(case))
    for _ in range(max_steps):
        state = solver.step(case, state, case.data)
        report = solver.evaluate(case, state)
        if report.excess <= tol or report.at_precision:
            break
    return state, report


def test_the_matrix_is_that_of_the_bfgs_formula():
    rng = np.random.default_rng(0)
    K, q = 2, 4
    root = rng.standard_normal((K * q, K * q))
    hessian = root @ root.T
    pairs = FlatPairs()
    for _ in range(5):
        step = rng.standard_normal(K * q)
        pairs = pairs.add(step, hessian @ step, n_pairs=3)
    assert len(pairs.steps) == 3
    diagonal = rng.uniform(0.5, 2, q)
    preconditioner = DiagonalPreconditioner.__new__(DiagonalPreconditioner)
    preconditioner.inverse = diagonal
    want = 0.7 * np.diag(np.tile(diagonal, K))
    for s, y in zip(pairs.steps, pairs.changes, strict=True):  # Nocedal & Wright (2006), eq. 6.17
        left = np.eye(K * q) - np.outer(s, y) / (s @ y)
        want = left @ want @ left.T + np.outer(s, s) / (s @ y)
    units = ColumnUnits(np.zeros(q - 1), np.ones(q - 1))
    matrix = LbfgsMatrix(units, preconditioner, pairs, 0.7)
    gradient = rng.standard_normal((K, q))
    assert_allclose(matrix.multiply(gradient).ravel(), want @ gradient.ravel())
    product = matrix.apply(Params(gradient[:, :-1], gradient[:, -1]))
    assert_allclose(np.column_stack(product), matrix.multiply(gradient))


def test_a_pair_without_curvature_is_left_out():
    pairs = FlatPairs().add(np.array([1.0, 0.0]), np.array([2.0, 1.0]), 5)
    assert pairs.add(np.array([1.0, 0.0]), np.array([-1.0, 0.0]), 5) is pairs
    assert pairs.add(np.array([1.0, 0.0]), np.array([0.0, 1.0]), 5) is pairs
    assert pairs.scales == (0.5,)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("tol", [1e-1, 1e-2, 1e-3, 1e-4])
def test_it_ends_within_its_tolerance_and_says_how_far_from_the_minimum(case, tol, dtype):
    case = case._replace(data=case.data._replace(X=case.data.X.astype(dtype)))
    best, _ = solve(case._replace(data=case.data._replace(X=case.data.X.astype(float))), 1e-9)
    _, report = solve(case, tol)
    excess = report.value / best.evaluation.value - 1
    assert excess <= report.excess + 1e-6 <= tol + 1e-6


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("alpha", [1e-1, 1e-3, 1e-5])
def test_the_excess_is_no_less_than_half_of_the_true_one(seed, alpha):
    rng = np.random.default_rng(seed)
    n, p, K = rng.integers(100, 600), rng.integers(5, 60), rng.integers(3, 12)
    X = rng.standard_normal((n, p)) @ (rng.standard_normal((p, p)) * rng.lognormal(size=p)) / p
    X *= np.exp(rng.standard_normal((n, 1)))  # rows of any length
    y = np.append((X @ rng.standard_normal((p, K)) + rng.gumbel(size=(n, K))).argmax(axis=1)[K:], np.arange(K))
    case = problem(X, y, alpha=alpha)
    best, _ = solve(case, 1e-8, max_steps=1000)
    for tol in (1e-1, 1e-2, 1e-3):
        _, report = solve(case, tol, max_steps=1000)
        assert report.excess <= tol
        assert report.value / best.evaluation.value - 1 <= 2 * tol


def test_where_no_column_varies_it_is_at_the_minimum_at_once():
    case = problem(np.zeros((4, 2)), np.array([0, 1, 2, 0]))
    state, report = solve(case, 1e-3)
    assert_allclose(state.params.coef, 0)
    assert report.at_precision or report.excess <= 1e-3


def test_the_preconditioners_are_bought_in_their_order(monkeypatch):
    X, y = random_data(n_samples=3000, n_features=30, n_classes=5, seed=3)
    case = problem(X * np.geomspace(0.1, 10, 30) @ np.linalg.qr(np.random.default_rng(0).normal(size=(30, 30)))[0], y)
    seen, offered = [], []
    make = lbfgs_module.class_preconditioner
    monkeypatch.setattr(lbfgs_module, "class_preconditioner", lambda *args: offered.append(len(seen)) or make(*args))
    monkeypatch.setattr(lbfgs_module, "_STEPS", 1)
    solver = lbfgs(compute_moments(case, full_gram=False), case.n_samples, 20, 1e-9)
    state = solver.init(case, prior_params(case))
    for _ in range(60):
        seen.append(type(state.preconditioner).__name__)
        state = solver.step(case, state, case.data)
        if solver.evaluate(case, state).excess <= 1e-9:
            break
    order = ["DiagonalPreconditioner", "SharedPreconditioner", "ClassPreconditioner"]
    ranks = [order.index(name) for name in seen]
    assert ranks == sorted(ranks)
    assert ranks[0] == 0 < ranks[-1]
    assert offered[0] > ranks.index(1)


@pytest.mark.parametrize("ratio", [0.3, 0.8, 0.9])
@pytest.mark.parametrize("wanted", [1e-3, 1e-2, 10.0])
def test_the_steps_left_are_those_of_a_geometric_series(ratio, wanted):
    values = tuple(7 + 5 * ratio**k for k in range(19))
    left = max(0.0, float(np.log(5 * ratio**18 / wanted) / -np.log(ratio)))
    assert_allclose(lbfgs_module._steps_left(values, wanted), left, rtol=1e-6, atol=1e-6)


def test_the_steps_left_are_unknown_after_few_and_none_where_the_function_no_longer_falls():
    assert lbfgs_module._steps_left((3.0, 2.0), 1e-3) == (np.inf, np.inf)
    assert lbfgs_module._steps_left((3.0, *[2.0] * 20), 1e-3) == (0, 0)


@pytest.mark.parametrize(("tol", "is_bought"), [(1e-3, False), (1e-9, True)])
def test_no_preconditioner_is_bought_for_the_last_steps(tol, is_bought, monkeypatch):
    X, y = random_data(n_samples=2000, n_features=30, n_classes=5, seed=3)
    X = X * np.geomspace(1, 10, 30) @ np.linalg.qr(np.random.default_rng(0).normal(size=(30, 30)))[0]
    case, cost = problem(X, y, alpha=1e-3), 22.0
    costs = class_curvature.Costs(cost, 1.0, 1000.0, 1000.0, 0.0, 0.0)
    monkeypatch.setattr(lbfgs_module, "preconditioner_costs", lambda problem: costs)
    bought = []
    monkeypatch.setattr(
        lbfgs_module,
        "compute_moments",
        lambda *args, **kwargs: bought.append(1) or compute_moments(*args, **kwargs),
    )
    state, report = solve(case, tol)
    assert report.excess <= tol
    assert state.n_total > cost  # passes, which would have paid for it
    assert bool(bought) == is_bought


def test_a_worse_preconditioner_is_not_kept():
    rng = np.random.default_rng(0)
    hessian = np.diag(np.geomspace(1, 1000, 6))
    pairs = FlatPairs()
    for _ in range(10):
        step = rng.standard_normal(6)
        pairs = pairs.add(step, hessian @ step, 20)

    class Exact:
        def apply(self, gradient):
            return (np.linalg.inv(hessian) @ gradient.ravel()).reshape(gradient.shape)

    class Identity:
        def apply(self, gradient):
            return gradient

    case = problem(*random_data(n_features=1, n_classes=3))
    state = lbfgs(compute_moments(case, full_gram=False), 10, 20, 1e-3).init(case, prior_params(case))
    state = state._replace(pairs=pairs)  # of (3, 2) parameters
    assert state.units.shape(state.params) == (3, 2)
    kept = lbfgs_module._with_better(state._replace(preconditioner=Exact()), Identity())
    assert isinstance(kept.preconditioner, Exact)
    kept = lbfgs_module._with_better(state._replace(preconditioner=Identity()), Exact())
    assert isinstance(kept.preconditioner, Exact)


def test_the_costs_of_preconditioners_grow_with_the_columns_and_fall_with_the_rows():
    def costs(n, p, K):
        return class_curvature.preconditioner_costs(problem(np.zeros((n, p)), np.arange(n) % K))

    few, many = costs(1000, 20, 3), costs(1000, 200, 3)
    assert few.factor < few.gram < few.classes
    assert few.hessian < many.hessian
    assert all(a < b for a, b in zip(few, many, strict=True))
    assert costs(100_000, 200, 3).gram < many.gram


@pytest.mark.parametrize("container", [np.asarray, sp.csr_array])
def test_auto_takes_it_for_a_hessian_that_is_too_large(container):
    X, y = random_data(n_samples=6000, n_features=20, n_classes=300, seed=1)
    fit = SoftmaxClassifier(random_state=0, tol=0.2).fit(container(X), y)
    assert "lbfgs" in fit.solver_info_["solver"]
    assert fit.excess_ <= 0.2
    few = SoftmaxClassifier(random_state=0, tol=0.2).fit(container(X), y % 10)
    assert "lbfgs" not in few.solver_info_["solver"]
