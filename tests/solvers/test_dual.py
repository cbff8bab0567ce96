"""The dual solver and the engine that runs it: the answer, the stop, and what comes in."""

import threading
import warnings
from itertools import pairwise

import numpy as np
import pytest
import scipy.sparse as sp
from numpy.testing import assert_allclose, assert_array_equal
from scipy.linalg import eigh
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from benchmarks.rivals import logistic
from sksoftmax import SoftmaxClassifier
from sksoftmax._data.batches import row_order
from sksoftmax._engines import compiled, naive, registry, vectorized
from sksoftmax._engines.registry import has_compiled
from sksoftmax._maths.objective import hessian_products, prior_objective, prior_params, value_and_grad
from sksoftmax._solvers import _certificate, _dual_finish, _prox_center
from sksoftmax._solvers.dual import dual
from sksoftmax._training import plan
from sksoftmax._types import Batch, Params, Problem

needs_kernels = pytest.mark.skipif(not has_compiled(), reason="the kernels are not installed")


def sparse_data(n_classes, n=300, p=40, seed=0, dtype=np.float64):
    """Rows of a softmax model, one of them empty, with an explicit zero and a column of zeros."""
    rng = np.random.default_rng(seed)
    X = sp.random(n, p, 0.2, "csr", random_state=seed)
    X.data = rng.standard_normal(X.nnz)
    y = (X @ rng.standard_normal((p, n_classes)) + rng.gumbel(size=(n, n_classes))).argmax(axis=1)
    y[:n_classes] = np.arange(n_classes)
    X = X.tolil()
    X[5] = 0
    X[:, 7] = 0
    X = sp.csr_array(X.tocsr().astype(dtype))
    X.data[2] = 0
    return X, y, rng.uniform(0.1, 3.0, n)


def dense_of(X):
    """As an array that is not so sparse that it is visited as CSR: zeros are numbers next to 0."""
    X = X.toarray()
    return np.where(X == 0, np.finfo(X.dtype).tiny, X)


def as_problem(X, y, weight=None, alpha=1e-3, fit_intercept=True, l1_ratio=0.0):
    weight = np.ones(len(y)) if weight is None else weight
    data = Batch(X, y.astype(np.intp), weight)
    return Problem(data, int(y.max()) + 1, alpha, fit_intercept, vectorized, float(weight.mean()), l1_ratio)


def run(problem, tol, max_iter=500, seed=0):
    """The states of a fit, from the first to that within tol; what is kept of each is a copy."""
    rng = np.random.RandomState(seed)
    solver = dual(lambda: row_order(problem.n_samples, rng, shuffle=True), tol)
    state, reports, params = solver.init(problem, prior_params(problem)), [], []
    for _ in range(max_iter):
        state = solver.step(problem, state, problem.data)
        reports.append(solver.evaluate(problem, state))
        params.append(state.params)
        if reports[-1].excess <= tol or reports[-1].at_precision:
            break
    return reports, params


# --- the solver -------------------------------------------------------------------------------------------


@needs_kernels
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("n_classes", [2, 3, 9])
@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("alpha", [1e-1, 1e-3])
def test_its_minimum_is_logistic_regressions(dtype, n_classes, fit_intercept, alpha):
    X, y, weight = sparse_data(n_classes)
    best = LogisticRegression(C=1 / (alpha * weight.sum()), tol=1e-10, max_iter=5000, fit_intercept=fit_intercept)
    best.fit(X, y, weight)
    _, params = run(as_problem(X.astype(dtype), y, weight, alpha, fit_intercept), 1e-9 if dtype is np.float64 else 1e-5)
    exact = as_problem(X, y, weight, alpha, fit_intercept)
    got = value_and_grad(exact, params[-1]).value
    want = value_and_grad(exact, prior_params(exact)._replace(coef=best.coef_, intercept=best.intercept_)).value
    assert got == pytest.approx(want, rel=1e-8 if dtype is np.float64 else 1e-5)
    if dtype is np.float64:  # of F's square root
        assert_allclose(params[-1].coef, best.coef_, atol=1e-3 * np.abs(best.coef_).max())


@needs_kernels
@pytest.mark.parametrize("n_classes", [2, 4])
@pytest.mark.parametrize("l1_ratio", [0.5, 1.0])
@pytest.mark.parametrize("container", [sp.csr_array, dense_of])
def test_with_l1_its_minimum_is_that_of_sagas(n_classes, l1_ratio, container):
    X, y, weight = sparse_data(n_classes)
    alpha = 1e-2
    best = logistic("saga")(alpha, weight.sum(), l1_ratio=l1_ratio, tol=1e-9, max_iter=20000).fit(X, y, weight)
    problem = as_problem(container(X), y, weight, alpha, l1_ratio=l1_ratio)
    reports, params = run(problem, 1e-8, 2000)
    want = value_and_grad(problem, prior_params(problem)._replace(coef=best.coef_, intercept=best.intercept_)).value
    assert value_and_grad(problem, params[-1]).value == pytest.approx(want, rel=1e-6)
    assert reports[-1].value == pytest.approx(want, rel=1e-6)
    assert ((params[-1].coef == 0) == (best.coef_ == 0)).mean() > 0.98  # but for those at the threshold
    assert (params[-1].coef == 0).any()


@needs_kernels
def test_without_penalty_it_still_descends_to_the_minimum():
    X, y, weight = sparse_data(3)
    problem = as_problem(X, y, weight, alpha=0.0)
    _, params = run(problem, 1e-6)
    _, best = run(problem, 1e-9, 2000)
    assert value_and_grad(problem, params[-1]).value <= value_and_grad(problem, best[-1]).value * (1 + 1e-5)


SHAPES = {
    "easy": lambda rng, X: X,
    "scales": lambda rng, X: X @ sp.diags_array(10.0 ** rng.uniform(-2, 2, X.shape[1])),
    "heavy rows": lambda rng, X: sp.diags_array(np.where(rng.uniform(size=X.shape[0]) < 0.01, 100.0, 1.0)) @ X,
    "half empty": lambda rng, X: sp.diags_array((rng.uniform(size=X.shape[0]) < 0.5).astype(float)) @ X,
    "duplicates": lambda rng, X: X[rng.integers(0, 60, X.shape[0])],
    "correlated": lambda rng, X: X @ (sp.eye_array(X.shape[1]) + 0.2 * sp.random_array((X.shape[1],) * 2, density=0.2)),
}


@needs_kernels
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("n_classes", [2, 6])
@pytest.mark.parametrize("alpha", [1e-3, 1e-5])
@pytest.mark.parametrize("container", [sp.csr_array, dense_of])
def test_the_stop_is_honest_and_f_falls(shape, n_classes, alpha, container):
    X, y, weight = sparse_data(n_classes, n=1500, p=120)
    rng = np.random.default_rng(0)
    X = sp.csr_array(SHAPES[shape](rng, X))
    problem = as_problem(container(X), y, weight, alpha)
    best = SoftmaxClassifier(alpha, engine="vectorized", tol=1e-7, random_state=0).fit(X, y, weight)
    minimum = best.loss_curve_[-1]
    for tol in (0.3, 1e-2, 1e-3):
        reports, params = run(problem, tol, 300)
        values = [value_and_grad(problem, found).value for found in params]
        assert reports[-1].excess <= tol
        assert values[-1] / minimum - 1 <= tol
        assert reports[-1].value == pytest.approx(values[-1], rel=1e-9)  # exact where the fit ends
        assert max(after - before for before, after in pairwise(values)) <= 2 * values[0]  # not a descent method


@needs_kernels
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("n_classes", "l1_ratio"), [(2, 0.0), (4, 0.0), (2, 0.5), (4, 0.5)])
@pytest.mark.parametrize("fit_intercept", [True, False])
def test_the_bound_is_one_at_any_time(shape, n_classes, l1_ratio, fit_intercept):

    X, y, weight = sparse_data(n_classes)
    problem = as_problem(sp.csr_array(SHAPES[shape](np.random.default_rng(0), X)), y, weight, 1e-3, fit_intercept)
    problem = problem._replace(l1_ratio=l1_ratio)
    _, best = run(problem, 1e-8, 3000)
    minimum = value_and_grad(problem, best[-1]).value
    solver = dual(lambda: np.arange(300), 0.0)
    state = solver.init(problem, prior_params(problem))
    for epoch in range(12):
        state = solver.step(problem, state, problem.data)
        value = value_and_grad(problem, state.params).value
        certifier = _certificate.Certifier(problem, state.prox_weights, state.rows, state.dual_vars)
        loss, gap, _ = certifier.evaluate(state.model, np.empty(0))
        assert loss + state.penalty == pytest.approx(value, rel=1e-12)
        by_dual = certifier.bound(_dual_finish.negative_gradient(problem, state), gap, np.inf)
        by_slope = certifier.bound(certifier.gradient(state.model)[1], 0.0, np.inf)
        rounding = 1e-8 * minimum  # of the minimum, which is known to that
        # the intercept's shift is exact to second order, and large in the first epochs
        assert epoch < 4 or min(by_dual, by_slope) >= value - minimum - rounding


@needs_kernels
@pytest.mark.parametrize("n_classes", [2, 4])
def test_products_are_those_of_the_hessian(n_classes):

    X, y, weight = sparse_data(n_classes)
    problem = as_problem(X, y, weight, 1e-3)
    reports, _ = run(problem, 1e-12)
    solver = dual(lambda: np.arange(300), 0.0)
    state = solver.init(problem, prior_params(problem))
    for _ in range(len(reports)):  # until what the rows agreed to are the model's probabilities
        state = solver.step(problem, state, problem.data)
    certifier = _certificate.Certifier(problem, state.prox_weights, state.rows, state.dual_vars)
    rng = np.random.default_rng(0)
    n_lanes, root = len(state.model.intercept), state.prox_weights.root[:-1]
    scaled = np.zeros((problem.n_features, n_lanes))
    scaled[:, : problem.n_outputs] = rng.standard_normal((problem.n_features, problem.n_outputs))
    intercept = np.zeros(n_lanes)
    intercept[: problem.n_outputs] = rng.standard_normal(problem.n_outputs)
    direction = Params((scaled * root[:, None]).T[: problem.n_outputs], intercept[: problem.n_outputs])
    want = hessian_products(problem, state.params)(direction)
    got = certifier.product(Params(scaled.ravel(), intercept))
    # probabilities agree to the root of the excess, 1e-6
    assert_allclose(got.coef.reshape(-1, n_lanes)[:, : problem.n_outputs].T, want.coef * root, atol=1e-4)
    assert_allclose(got.intercept[: problem.n_outputs], want.intercept, atol=1e-4)
    shift = certifier.product(Params(np.empty(0), intercept))
    assert_allclose(shift.coef, certifier.product(Params(np.zeros(scaled.size), intercept)).coef, atol=1e-14)


@needs_kernels
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("n_classes", "l1_ratio"), [(2, 0.0), (4, 0.0), (4, 0.5)])
@pytest.mark.parametrize("container", [sp.csr_array, dense_of])
@pytest.mark.parametrize("by_penalty", [True, False])
def test_no_eigenvalue_of_a_newton_step_is_below_the_least_that_it_counts_on(
    shape, n_classes, l1_ratio, container, by_penalty, monkeypatch
):

    X, y, weight = sparse_data(n_classes, n=200, p=12)
    problem = as_problem(container(sp.csr_array(SHAPES[shape](np.random.default_rng(0), X))), y, weight, 1e-3)
    problem = problem._replace(l1_ratio=l1_ratio)
    solver = dual(lambda: np.arange(200), 0.0)
    state = solver.init(problem, prior_params(problem))
    for _ in range(3):
        state = solver.step(problem, state, problem.data)
    certifier = _certificate.Certifier(problem, state.prox_weights, state.rows, state.dual_vars)
    _, grads = certifier.gradient(state.model)
    seen = []

    def remembered(hessian, grads, preconditioner, *args, min_eigenvalue, max_remainder):
        bounds = {"min_eigenvalue": min_eigenvalue, "max_remainder": max_remainder}
        solved = conjugate_gradients(hessian, grads, preconditioner, *args, **bounds)
        seen.append((hessian, preconditioner, min_eigenvalue, solved))
        return solved

    conjugate_gradients = _certificate.conjugate_gradients
    monkeypatch.setattr(_certificate, "conjugate_gradients", remembered)
    newton = certifier.newton(state.model, grads, 1e-6, 200, by_penalty=by_penalty)
    ((hessian, preconditioner, least, solved),) = seen
    assert solved.cg_remainder <= 1e-6
    assert newton.cg_remainder >= solved.cg_remainder  # and what it cannot move, and rounding
    n_outputs, n_table = problem.n_outputs, len(state.model.table)

    def as_params(flat):
        return Params(flat[:n_table].copy(), flat[n_table:].copy())

    unit = np.eye(n_table + len(state.model.intercept))
    products = np.array([np.concatenate(hessian(as_params(column))) for column in unit])
    inverse = np.array([np.concatenate(preconditioner.apply(as_params(column))) for column in unit])
    moves = np.flatnonzero(np.diag(inverse) > 0)
    eigenvalues = eigh(products[np.ix_(moves, moves)], np.linalg.inv(inverse[np.ix_(moves, moves)]), eigvals_only=True)
    n_null = int(n_outputs > 1)  # a common shift of all intercepts
    assert eigenvalues[n_null] >= least * (1 - 1e-6)


@needs_kernels
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_without_penalty_what_is_next_to_nothing_for_the_dtype_is_not_trusted(dtype):
    rng = np.random.default_rng(0)  # rows that can be told apart: F* is 0, and the excess is by the priors' loss
    X = rng.standard_normal((99, 50))
    y = (X @ rng.standard_normal((50, 10))).argmax(axis=1)
    for tol in (1e-3, 1e-5):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            clf = SoftmaxClassifier(0.0, tol=tol, solver="dual", random_state=0, max_iter=300).fit(X.astype(dtype), y)
        case = as_problem(X.astype(dtype).astype(float), np.searchsorted(clf.classes_, y), alpha=0.0)
        reached = value_and_grad(case, Params(clf.coef_.astype(float), clf.intercept_.astype(float))).value
        excess = reached / (np.sqrt(np.finfo(dtype).eps) * prior_objective(case))
        assert excess <= 1.01 * clf.excess_


@needs_kernels
def test_a_slope_that_no_curvature_holds_has_no_bound():

    X, y, weight = sparse_data(2)
    problem = as_problem(X, y, weight, 1e-3)
    state = dual(lambda: np.arange(300), 0.0).init(problem, Params(np.zeros((1, 40)), np.array([1e3])))
    certifier = _certificate.Certifier(problem, state.prox_weights, state.rows, state.dual_vars)
    _, grads = certifier.gradient(state.model)
    assert grads.intercept.any()
    assert certifier.bound(grads, 0.0, np.inf) == np.inf
    assert certifier.rounding() == np.inf


def one_hot_digits():
    """Each pixel's value as a column: the pixels' columns sum to 1, which the intercept could say as well."""
    X, y = load_digits(return_X_y=True)
    columns = [sp.csr_array((np.ones(len(y)), (np.arange(len(y)), pixel.astype(int)))) for pixel in X.T]
    return sp.csr_array(sp.hstack(columns)), y


@needs_kernels
@pytest.mark.parametrize("alpha", [1e-2, 1e-3, 1e-5])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_directions_that_only_the_penalty_holds_do_not_hide(alpha, dtype):
    X, y = one_hot_digits()
    best = SoftmaxClassifier(alpha, engine="vectorized", tol=1e-5, random_state=0).fit(X, y)
    for tol in (1e-2, 1e-3):
        clf = SoftmaxClassifier(alpha, solver="dual", tol=tol, random_state=0).fit(X.astype(dtype), y)
        assert clf.loss_curve_[-1] <= best.loss_curve_[-1] * (1 + tol)


@needs_kernels
@pytest.mark.parametrize("n_classes", [2, 3])
def test_kappa_changes_without_a_change_of_the_coefficients(n_classes):
    from sksoftmax._solvers import dual as module

    X, y, weight = sparse_data(n_classes)
    for l1_ratio in (0.0, 0.5):
        problem = as_problem(X, y, weight, 1e-3, l1_ratio=l1_ratio)
        solver = dual(lambda: np.arange(300), 0.0)
        state = solver.init(problem, prior_params(problem))
        for _ in range(3):
            state = solver.step(problem, state, problem.data)
        state = module.move_center(state)
        before = state.params
        for factor in (0.5, 2.0):
            state = module._rescale_kappa(problem, state, factor)
            assert_allclose(state.params.coef, before.coef, rtol=1e-10, atol=1e-13)
            assert_allclose(state.params.intercept, before.intercept, rtol=1e-10)
        # and the relation that defines them still holds: kappa (V - W) - G = alpha_2 W (+ L1's share)
        after = solver.step(problem, state, problem.data)
        assert value_and_grad(problem, after.params).value <= value_and_grad(problem, before).value * 1.05


@needs_kernels
@pytest.mark.parametrize("l1_ratio", [0.0, 0.5])
@pytest.mark.parametrize("container", [sp.csr_array, dense_of])
@pytest.mark.parametrize("n_classes", [2, 3])
def test_what_rounding_has_added_to_the_coefficients_is_taken_for_the_centres(n_classes, container, l1_ratio):
    from sksoftmax._solvers import dual as module

    X, y, weight = sparse_data(n_classes)
    problem = as_problem(container(X), y, weight, 1e-5, l1_ratio=l1_ratio)
    solver = dual(lambda: np.arange(300), 0.0)
    state = solver.init(problem, prior_params(problem))
    for _ in range(3):
        state = solver.step(problem, state, problem.data)
    state = module.move_center(state)
    exact = module._recompute_dual_sums(problem, state, 1e-3)
    assert_allclose(exact.prox_center.position, state.prox_center.position, rtol=1e-9, atol=1e-12)
    assert exact.n_between == 2 * state.n_between  # it was off by nothing
    some = state.model.table.reshape(40, -1)[:, : state.n_outputs]
    some += 0.1 * np.random.default_rng(0).standard_normal(some.shape)
    before = state.params
    exact = module._recompute_dual_sums(problem, state, 1e-3)
    assert exact.n_between == state.n_between // 2
    active = exact.prox_weights.active
    assert_allclose(exact.params.coef[:, active], before.coef[:, active], rtol=1e-12)
    has_none = np.setdiff1d(np.arange(40), active)  # whose coefficients are what the rows agreed to
    table = exact.model.table.reshape(40, -1)[has_none]
    assert_allclose(table, -exact.rows.dual_gradient_sums(exact.dual_vars)[0][has_none] / 300, atol=1e-15)
    # kappa (V - W) is F's slope at what the rows agreed to, plus the penalty's at the coefficients
    slope = _dual_finish.negative_gradient(problem, exact).coef.reshape(40, -1)
    g = exact.prox_weights.prox_fraction[:-1, None] * (
        module.scaled_coef(exact.model)[active] - exact.prox_center.position[:-1]
    )
    assert_allclose(g, slope[active], rtol=1e-7, atol=1e-12)


@needs_kernels
def test_the_centre_takes_over_where_rows_are_left_alone():
    from sksoftmax._solvers import dual as module

    X, y, weight = sparse_data(3)
    problem = as_problem(X, y, weight, 1e-4)
    solver = dual(lambda: np.arange(300), 0.0)
    state = solver.init(problem, prior_params(problem))
    for _ in range(6):
        state = solver.step(problem, state, problem.data)
    state = module.move_center(state)
    gap = 0.1 * state.prox_center.remaining  # not next to nothing
    state = state._replace(n_since_change=4, gaps=(gap, gap, gap))  # and not falling
    assert module._adapt_kappa(problem, state, 0.0).factor == state.factor
    assert module._adapt_kappa(problem, state, 2 * gap).factor == state.factor / 4
    noisy = 4 * max(state.prox_center.gains)
    state = state._replace(gaps=(noisy, noisy, noisy), factor=0.5)
    assert module._adapt_kappa(problem, state, 0.0).factor == 1.0  # the rows need more of it


@needs_kernels
@pytest.mark.parametrize(("scale", "seed"), [(1, 0), (10, 0), (100, 0), (100, 1), (100, 3)])
def test_what_float32_cannot_tell_of_the_rows_is_left_to_newton(scale, seed):
    # at the minimum the residuals p - t are about as large as the rounding of p
    digits, y = load_digits(return_X_y=True)
    X = np.maximum(scale * digits[:600] @ np.random.default_rng(seed).standard_normal((64, 900)), 0).astype(np.float32)
    clf = SoftmaxClassifier(1e-3, random_state=seed).fit(X, y[:600])
    assert clf.n_iter_ < 90  # 80 of the dual at most, and few of Newton's
    assert clf.loss_curve_[-1] <= 1.01 * min(clf.loss_curve_)


@needs_kernels
def test_the_centre_estimates_what_a_slow_direction_hides():
    # one direction, of which a plain step keeps 0.9: F - F* = 1/2 g (W - V) 0.9 / (1 - 0.9)
    kept, distance, prox_center = 0.9, 1.0, _prox_center.ProxCenter(np.array([[1.0]]))
    for _ in range(5):
        prox_center = _prox_center.update_center(
            prox_center, kept * np.asarray(prox_center.position), np.array([1.0]), is_plain=True
        )
        distance = float(prox_center.position[0, 0])
        prox_center = prox_center._replace(position=prox_center.last.coef)
    true = 0.5 * (0.1 * distance) ** 2 * kept / (1 - kept)
    assert true <= prox_center.cautious_estimate <= 5 * true


@needs_kernels
def test_a_centre_that_stands_still_may_have_far_to_go():
    prox_center = _prox_center.ProxCenter(np.array([[1.0]]))
    for _ in range(3):  # the same gain again and again
        prox_center = _prox_center.update_center(
            prox_center, prox_center.position + 1.0, np.array([1.0]), is_plain=True
        )
    assert prox_center.cautious_estimate > 500 * prox_center.gains[-1]
    for k in range(12):
        prox_center = _prox_center.update_center(
            prox_center, prox_center.position + 0.5**k, np.array([1.0]), is_plain=True
        )
    assert prox_center.cautious_estimate < 100 * prox_center.gains[-1]


@needs_kernels
@pytest.mark.parametrize("n_classes", [2, 3])
def test_columns_of_one_value_are_left_to_the_intercept(n_classes):
    X, y, _ = sparse_data(n_classes)
    wide = sp.csr_array(sp.hstack([X, np.full((300, 2), 3.0)]))
    for alpha in (1e-3, 1e-5):
        _, params = run(as_problem(wide, y, alpha=alpha), 1e-6)
        _, without = run(as_problem(X, y, alpha=alpha), 1e-6)
        got, want = (
            value_and_grad(as_problem(data, y, alpha=alpha), found[-1]).value
            for data, found in ((wide, params), (X, without))
        )
        assert not params[-1].coef[:, -2:].any()
        assert got == pytest.approx(want, rel=1e-5)


@needs_kernels
@pytest.mark.parametrize("n_classes", [2, 3, 9])
def test_blocks_of_dense_rows_are_visited_as_single_rows_are(n_classes):
    X, y, weight = sparse_data(n_classes)  # 300 rows: several blocks, the last one smaller
    X = sp.csr_array(X + 0.0)
    ends = []
    for rows in (X, dense_of(X)):  # without intercept the means stay where they are
        _, params = run(as_problem(rows, y, weight, fit_intercept=False), 0.0, 3)
        ends.append(params)
    for sparse, dense in zip(*ends, strict=True):
        assert_allclose(
            dense.coef, sparse.coef, rtol=1e-9, atol=1e-12
        )  # float64, the same steps to a tenth of a Newton


@needs_kernels
@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_dense_rows_of_mostly_zeros_are_visited_as_sparse_ones(n_classes, dtype):
    X, y, _ = sparse_data(n_classes, dtype=dtype)
    clf, dense = (SoftmaxClassifier(solver="dual", random_state=0).fit(rows, y) for rows in (X, X.toarray()))
    rtol = 1e-10 if dtype == np.float64 else 1e-3  # numbers of columns of another type are another kernel
    assert_allclose(clf.coef_, dense.coef_, rtol=rtol, atol=rtol)
    assert clf.n_iter_ == dense.n_iter_


@needs_kernels
@pytest.mark.parametrize("part", ["data", "indices", "indptr"])
@pytest.mark.parametrize("step", [2, -1])
@pytest.mark.parametrize("n_classes", [2, 5])
def test_a_sparse_matrix_need_not_be_contiguous(part, step, n_classes):
    X, y, _ = sparse_data(n_classes)
    strided = X.copy()
    values = getattr(X, part)
    padded = np.repeat(values, 2)[::2] if step == 2 else values[::-1].copy()[::-1]
    assert not padded.flags.c_contiguous
    setattr(strided, part, padded)
    fits = [SoftmaxClassifier(solver="dual", random_state=0).fit(rows, y) for rows in (X, strided)]
    same_fit(*fits)


@needs_kernels
@pytest.mark.parametrize(("seed", "container"), [(34, np.asarray), (25, sp.csr_array)])
def test_a_warm_start_at_coefficients_of_0_ends_at_the_minimum_or_says_so(seed, container):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((40, 400))
    y = (X[:, :4] @ rng.standard_normal((4, 3)) * 2 + rng.gumbel(size=(40, 3))).argmax(axis=1)
    clf = SoftmaxClassifier(250.0, l1_ratio=0.5, warm_start=True, random_state=0, max_iter=1000).fit(container(X), y)
    clf.set_params(alpha=0.79).fit(container(X), y)
    case = as_problem(X, y, alpha=0.79, l1_ratio=0.5)
    exact = SoftmaxClassifier(0.79, l1_ratio=0.5, tol=1e-6, random_state=0, engine="vectorized").fit(X, y)
    least, reached = (value_and_grad(case, Params(model.coef_, model.intercept_)).value for model in (exact, clf))
    assert clf.stop_reason_ == "tol"
    assert 0 <= clf.excess_ <= clf.tol
    assert reached <= (1 + clf.tol) * least


@needs_kernels
@pytest.mark.parametrize("n_classes", [2, 5])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_dense_rows_far_from_zero_are_centred(n_classes, dtype):
    X, y, _ = sparse_data(n_classes)
    X = dense_of(X)
    far = (X + np.linspace(-50, 50, X.shape[1])).astype(dtype)  # float32 keeps five digits of what varies
    reports, params = run(as_problem(far, y), 1e-6, 100)
    near, _ = run(as_problem(X, y), 1e-6, 100)
    assert len(reports) <= len(near) + 5
    assert value_and_grad(as_problem(X + (far - X), y), params[-1]).value == pytest.approx(near[-1].value, rel=1e-4)


# --- the engine -------------------------------------------------------------------------------------------


def same_fit(left, right):
    assert_array_equal(left.coef_, right.coef_)
    assert_array_equal(left.intercept_, right.intercept_)


@needs_kernels
@pytest.mark.parametrize("n_classes", [2, 3, 9])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("index", [np.int32, np.int64])
def test_both_engines_reach_the_same_minimum(n_classes, dtype, index):
    X, y, weight = sparse_data(n_classes, n=1000, dtype=dtype)
    X.indptr, X.indices = X.indptr.astype(index), X.indices.astype(index)
    before = [part.copy() for part in (X.indptr, X.indices, X.data)]
    clf = SoftmaxClassifier(1e-3, solver="dual", tol=1e-4, random_state=0).fit(X, y, weight)
    for part, kept in zip((X.indptr, X.indices, X.data), before, strict=True):
        assert_array_equal(part, kept)
    other = SoftmaxClassifier(1e-3, engine="vectorized", tol=1e-6, random_state=0).fit(X, y, weight)
    assert clf.loss_curve_[-1] <= other.loss_curve_[-1] * (1 + 1e-4)
    assert clf.solver_info_["engine"] == "compiled"
    assert clf.solver_info_["solver"] == "dual"
    assert other.solver_info_["engine"] == "vectorized"
    assert clf.stop_reason_ == "tol"
    assert clf.coef_.dtype == dtype


@needs_kernels
def test_the_loss_curve_ends_with_f():
    X, y, _ = sparse_data(4, n=1000)
    clf = SoftmaxClassifier(1e-3, solver="dual", random_state=0).fit(X, y)
    codes = np.arange(4)
    problem = as_problem(X, y)
    start = prior_params(problem)
    assert_array_equal(clf.classes_, codes)
    value = value_and_grad(problem, start._replace(coef=clf.coef_, intercept=clf.intercept_)).value
    assert clf.loss_curve_[-1] == pytest.approx(value, rel=1e-9)


@needs_kernels
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("alpha", [1e-3, 1e-5, 1e-7])
def test_no_number_of_the_loss_curve_is_below_the_minimum(alpha, dtype, capsys):
    rng = np.random.default_rng(0)
    X = sp.random(1500, 400, 0.03, "csr", random_state=0)
    X.data = rng.exponential(size=X.nnz)
    X = sp.csr_array(sp.diags_array(1 / np.sqrt(np.asarray(X.multiply(X).sum(axis=1)).ravel())) @ X)
    y = (3 * X @ rng.standard_normal((400, 5)) + 0.3 * rng.gumbel(size=(1500, 5))).argmax(axis=1)
    clf = SoftmaxClassifier(alpha, solver="dual", random_state=0).fit(X.astype(dtype), y)
    told = SoftmaxClassifier(alpha, solver="dual", verbose=1, random_state=0).fit(X.astype(dtype), y)
    printed = [float(line.split("F ")[1].split()[0]) for line in capsys.readouterr().out.splitlines()[1:-1]]
    assert clf.stop_reason_ == "tol"
    assert_array_equal(told.coef_, clf.coef_)
    best = SoftmaxClassifier(alpha, engine="vectorized", tol=1e-9, max_iter=500).fit(X, y)
    case = as_problem(X, y, alpha=alpha)
    minimum, reached = (
        value_and_grad(case, Params(model.coef_.astype(float), model.intercept_.astype(float))).value
        for model in (best, clf)
    )
    assert min(clf.loss_curve_) >= minimum * (1 - 1e-9)  # the minimum is known to that
    assert len(printed) == clf.n_iter_
    assert min(printed) >= minimum * (1 - 1e-6)  # seven digits are printed
    assert clf.loss_curve_[-1] == pytest.approx(reached, rel=1e-12 if dtype is np.float64 else 1e-6)
    assert {type(value) for value in [*clf.loss_curve_, *clf.excess_curve_, clf.excess_]} == {float}


@needs_kernels
@pytest.mark.parametrize("shuffle", [True, False])
def test_a_seed_decides_everything(shuffle):
    X, y, _ = sparse_data(3, n=600)
    fits = [
        SoftmaxClassifier(solver="dual", shuffle=shuffle, tol=0.05, random_state=seed).fit(X, y) for seed in (0, 0, 1)
    ]
    same_fit(fits[0], fits[1])
    if shuffle:
        assert (fits[0].coef_ != fits[2].coef_).any()
    else:
        same_fit(fits[0], fits[2])


@needs_kernels
def test_threads_do_not_disturb_each_other():
    X, y, _ = sparse_data(5, n=800)
    alone = SoftmaxClassifier(solver="dual", random_state=0).fit(X, y)
    fits = [SoftmaxClassifier(solver="dual", random_state=0) for _ in range(4)]
    threads = [threading.Thread(target=clf.fit, args=(X, y)) for clf in fits]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for clf in fits:
        same_fit(clf, alone)


@needs_kernels
def test_newton_finishes_what_the_dual_does_not():
    X, y, _ = sparse_data(3, n=1000)
    clf = SoftmaxClassifier(solver="dual", tol=1e-12, random_state=0, max_iter=20).fit(X, y)
    assert clf.n_iter_ > 16  # 80 % of them
    assert clf.solver_info_["solver"] == "dual+newton"
    assert clf.excess_ <= 1e-12


@needs_kernels
@pytest.mark.parametrize(
    ("params", "want"),
    [
        ({"solver": "sgd"}, "sgd"),
        ({"batch_size": 32}, "preconditioned_sgd"),
        ({"learning_rate": 0.1, "batch_size": 32}, "preconditioned_sgd"),
        ({"learning_rate": 0.1, "batch_size": 32, "solver": "dual"}, "dual"),
    ],
    ids=["solver", "batch_size", "learning_rate", "dual"],
)
def test_settings_of_minibatches_keep_minibatches_unless_the_dual_is_named(params, want):
    X, y, _ = sparse_data(3, n=1000, p=1000)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        clf = SoftmaxClassifier(random_state=0, max_iter=20, **params).fit(X, y)
    assert clf.solver_info_["solver"].startswith(want)


@needs_kernels
@pytest.mark.parametrize("container", [sp.csr_array, dense_of])
@pytest.mark.parametrize(("n_classes", "l1_ratio"), [(2, 0.0), (4, 0.0), (2, 0.5), (4, 0.5), (4, 1.0)])
def test_a_warm_start_keeps_what_was_learned(container, n_classes, l1_ratio):
    X, y, weight = sparse_data(n_classes, n=600)
    clf = SoftmaxClassifier(1e-3, l1_ratio=l1_ratio, solver="dual", warm_start=True, random_state=0, tol=1e-6)
    cold = clf.fit(container(X), y, weight).n_iter_
    before = as_problem(container(X), y, weight, l1_ratio=l1_ratio)
    value = value_and_grad(before, Params(clf.coef_, clf.intercept_)).value
    clf.fit(container(X), y, weight)
    assert clf.solver_info_["solver"] == "dual"
    assert clf.loss_curve_[0] <= value * (1 + 1e-3)  # the mean along an epoch, whose rows do not all rest
    assert clf.n_iter_ < cold
    assert value_and_grad(before, Params(clf.coef_, clf.intercept_)).value == pytest.approx(value, rel=2e-6)


@needs_kernels
@pytest.mark.parametrize("container", [sp.csr_array, dense_of])
@pytest.mark.parametrize("l1_ratio", [0.0, 0.5])
def test_a_warm_start_from_elsewhere_reaches_the_same_minimum(container, l1_ratio):
    X, y, _ = sparse_data(3, n=600)
    params = {"l1_ratio": l1_ratio, "solver": "dual", "random_state": 0, "tol": 1e-7}
    cold = SoftmaxClassifier(1e-3, **params).fit(container(X), y)
    warm = SoftmaxClassifier(1e-1, warm_start=True, **params).fit(container(X), y)
    warm.set_params(alpha=1e-3).fit(container(X), y)
    problem = as_problem(container(X), y, l1_ratio=l1_ratio)
    want = value_and_grad(problem, Params(cold.coef_, cold.intercept_)).value
    assert value_and_grad(problem, Params(warm.coef_, warm.intercept_)).value == pytest.approx(want, rel=1e-6)


@needs_kernels
def test_early_stopping_keeps_the_best_epoch():
    X, y, _ = sparse_data(3, n=600)
    clf = SoftmaxClassifier(1e-6, solver="dual", early_stopping=True, tol=0.0, random_state=0).fit(X, y)
    assert clf.stop_reason_ == "early_stopping"
    assert len(clf.validation_scores_) == clf.n_iter_


@needs_kernels
@pytest.mark.parametrize("scale", [1e-30, 1e-8, 1e8, 1e30])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_columns_of_any_scale_give_a_finite_model(scale, dtype):
    X, y, _ = sparse_data(3, n=400)
    X = X.toarray()
    X[:, ::2] *= scale
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        clf = SoftmaxClassifier(solver="dual", random_state=0).fit(sp.csr_array(X.astype(dtype)), y)
    assert np.isfinite(clf.coef_).all()
    assert clf.loss_curve_[-1] < np.log(3)


@needs_kernels
def test_squares_beyond_float64_go_to_newton():
    X, y, _ = sparse_data(3, n=400)
    clf = SoftmaxClassifier(solver="dual", random_state=0).fit(X * 1e150, y)
    assert clf.solver_info_["solver"] == "newton"


@needs_kernels
def test_rows_without_entries_leave_the_priors():
    X, y = sp.csr_array((400, 300)), np.arange(400) % 4 // 3
    clf = SoftmaxClassifier(solver="dual", tol=1e-12, random_state=0).fit(X, y)
    assert_allclose(clf.predict_proba(X)[0], [0.75, 0.25], rtol=1e-5)
    assert not clf.coef_.any()


@needs_kernels
def test_an_interrupted_fit_leaves_nothing(monkeypatch):
    X, y, _ = sparse_data(3, n=600)
    visit, calls = compiled.kernels.sdca_epoch, []

    def interrupted(*args):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return visit(*args)

    monkeypatch.setattr(compiled.kernels, "sdca_epoch", interrupted)
    clf = SoftmaxClassifier(solver="dual", tol=1e-9)
    with pytest.raises(KeyboardInterrupt):
        clf.fit(X, y)
    assert not hasattr(clf, "coef_")


def settings(**changes):
    clf = SoftmaxClassifier(**changes)
    return clf._settings()


@needs_kernels
@pytest.mark.parametrize(
    ("n", "p", "n_classes", "want"),
    [
        (1000, 1000, 3, True),
        (1000, 20, 3, False),  # few columns
        (200, 1000, 3, True),
        (200, 200, 2, False),  # few rows, and columns: next to nothing by Newton's steps
    ],
)
def test_auto_takes_the_dual_for_wide_sparse_rows(n, p, n_classes, want):
    X, y, _ = sparse_data(n_classes, n=n, p=p)
    assert plan.use_dual(as_problem(X, y), settings()) is want
    assert plan.use_dual(as_problem(X, y), settings(solver="dual"))
    assert not plan.use_dual(as_problem(X, y), settings(engine="vectorized"))


@needs_kernels
@pytest.mark.parametrize(("p", "alpha", "n_epochs"), [(5000, 1e-9, 180), (250, 1e-9, 80), (5000, 0.0, 80)])
def test_the_dual_of_sparse_rows_goes_on_where_a_newton_step_is_dear(p, alpha, n_epochs):
    X, y, _ = sparse_data(3, n=1000, p=p)
    chosen = plan.make_plan(as_problem(X, y, alpha=alpha), settings(max_iter=200), is_warm=False, rng=None)
    assert chosen.stages[0].n_epochs == n_epochs


@needs_kernels
@pytest.mark.parametrize(
    ("n", "p", "n_classes", "changes", "want"),
    [
        (1300, 600, 60, {}, True),
        (1300, 600, 10, {}, False),  # few coefficients
        (1300, 600, 2, {}, False),
        (1300, 300, 120, {}, False),  # few columns
        (400, 300, 30, {}, True),  # but fewer rows
        (400, 300, 5, {}, False),
        (400, 300, 3, {"l1_ratio": 0.5}, True),
        (400, 100, 3, {"l1_ratio": 0.5}, False),
    ],
)
def test_auto_takes_the_dual_for_dense_rows_of_more_columns(n, p, n_classes, changes, want):
    X = np.random.default_rng(0).standard_normal((n, p))
    y = np.arange(n) % n_classes
    assert plan.use_dual(as_problem(X, y, **changes), settings()) is want
    X[:, 20:] = 0  # mostly zeros: as sparse ones
    assert plan.use_dual(as_problem(X, y, **changes), settings()) is (p >= 200)


@needs_kernels
@pytest.mark.parametrize("C", [1.0, 100.0])
def test_it_finishes_a_few_rows_of_many_dense_columns_that_tell_the_classes_apart(C):
    digits, y = load_digits(return_X_y=True)
    weights = np.random.default_rng(0).standard_normal((64, 900))
    X = np.maximum(digits[:600] / 16 @ weights / 8, 0).astype(np.float32)
    alpha = 1 / (C * 600)
    clf = SoftmaxClassifier(alpha, random_state=0).fit(X, y[:600])
    assert clf.solver_info_["solver"] == "dual"  # Newton's matrices, of 900 columns a class, would take far longer
    best = SoftmaxClassifier(alpha, engine="vectorized", tol=1e-6).fit(X.astype(float), y[:600])
    assert clf.loss_curve_[-1] / best.loss_curve_[-1] - 1 <= clf.tol


@needs_kernels
def test_auto_leaves_tables_far_larger_than_x_to_newton(monkeypatch):
    X, y, _ = sparse_data(9, n=1000, p=1000)
    monkeypatch.setattr(plan, "SMALL_TABLE", 0)
    monkeypatch.setattr(plan, "_MAX_TABLE", 0.01)
    assert not plan.use_dual(as_problem(X, y), settings())


@pytest.mark.parametrize("params", [{"engine": "compiled"}, {"solver": "dual"}])
@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_without_kernels_it_says_what_to_do(method, params, monkeypatch):
    monkeypatch.setattr(registry, "KERNELS", {"vectorized": vectorized, "naive": naive})
    monkeypatch.setattr(compiled, "missing", "No module named '_sksoftmax_kernels'")
    X, y, _ = sparse_data(3, n=400, p=300)
    kwargs = {"classes": [0, 1, 2]} if method == "partial_fit" else {}
    ((name, value),) = params.items()
    message = (
        rf"{name}='{value}' needs the compiled kernels, which this installation lacks \(No module named .*\). "
        rf"Install a C\+\+ compiler, then sksoftmax again; or use {name}='auto'."
    )
    with pytest.raises(ImportError, match=message):
        getattr(SoftmaxClassifier(**params), method)(X, y, **kwargs)


@pytest.mark.parametrize("engine", ["vectorized", "naive"])
def test_the_dual_has_one_engine(engine):
    X, y, _ = sparse_data(3, n=100)
    message = f"solver='dual' needs the compiled engine, got engine='{engine}'; use engine='auto', or solver='auto'."
    with pytest.raises(ValueError, match=message):
        SoftmaxClassifier(solver="dual", engine=engine).fit(X, y)
