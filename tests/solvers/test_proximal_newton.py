"""L1 and the elastic net: the answer, its zeros, what certifies it."""

import warnings

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.datasets import load_breast_cancer, load_iris, load_wine
from sklearn.exceptions import ConvergenceWarning

from benchmarks.rivals import logistic
from sksoftmax import SoftmaxClassifier
from sksoftmax._engines.registry import has_compiled
from sksoftmax._maths.objective import penalty, prior_params, value_and_grad
from sksoftmax._maths.preconditioner import compute_moments, gram_preconditioner
from sksoftmax._maths.proximal import remove_class_shift, to_params, to_theta
from sksoftmax._solvers import proximal_newton
from sksoftmax._training import newton_stage
from sksoftmax._types import Params
from tests.problems import problem, random_data, random_params

ENGINES = ["vectorized", *(["compiled"] if has_compiled() else [])]
CONTAINERS = {"dense": np.asarray, "csr": sp.csr_array}


def l1_problem(X, y, alpha, l1_ratio, **kwargs):
    return problem(X, y, alpha=alpha, **kwargs)._replace(l1_ratio=l1_ratio)


def params_of(clf):
    return Params(clf.coef_.astype(float), clf.intercept_.astype(float))


def objective_of(clf, X, y, alpha, l1_ratio, weight=None):
    """F at a fitted model's coefficients, in float64."""
    return value_and_grad(l1_problem(np.asarray(X, float), y, alpha, l1_ratio, weight=weight), params_of(clf)).value


def violation(case, params):
    """Largest distance of a subgradient of F from 0: its optimality condition."""
    grads = value_and_grad(case, params).grads
    t = case.alpha * case.l1_ratio
    at_zero = np.maximum(np.abs(grads.coef) - t, 0)
    off = np.where(params.coef == 0, at_zero, np.abs(grads.coef + t * np.sign(params.coef)))
    return max(off.max(), np.abs(grads.intercept).max() if case.fit_intercept else 0.0)


# --- closed forms -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("container", CONTAINERS)
def test_one_hot_columns_have_a_closed_form(engine, container):
    # by column: n_j / n (sigma(w) - share) + alpha sign(w) = 0
    n_ones, n_rows = np.array([1, 9, 20, 30, 13]), np.array([20, 20, 40, 40, 30])
    X = np.repeat(np.eye(5), n_rows, axis=0)
    y = np.concatenate([np.arange(n) < ones for n, ones in zip(n_rows, n_ones, strict=True)]).astype(int)
    alpha, n = 0.02, len(y)
    share, reach = n_ones / n_rows, alpha * n / n_rows
    moved = share - np.clip(share - 0.5, -reach, reach)
    want = np.log(moved / (1 - moved))
    clf = SoftmaxClassifier(alpha, l1_ratio=1.0, fit_intercept=False, engine=engine, tol=1e-10, max_iter=1000)
    clf.fit(CONTAINERS[container](X), y)
    assert_allclose(clf.coef_[0], want, atol=1e-4)  # the root of F's excess
    assert_array_equal(clf.coef_[0] == 0, want == 0)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("n_classes", [2, 3])
def test_all_is_zero_from_the_largest_slope_on(engine, n_classes):
    X, y = random_data(300, 6, n_classes, seed=2)
    case = problem(X, y)
    slopes = value_and_grad(case._replace(alpha=0.0), prior_params(case)).grads.coef
    least = np.abs(slopes).max()
    clf = SoftmaxClassifier(1.001 * least, l1_ratio=1.0, engine=engine, tol=1e-7).fit(X, y)
    assert_array_equal(clf.coef_, 0)
    assert_allclose(clf.intercept_, prior_params(case).intercept, atol=1e-3)  # F is flat there: its root
    clf = SoftmaxClassifier(0.95 * least, l1_ratio=1.0, engine=engine, tol=1e-7).fit(X, y)
    assert 1 <= np.count_nonzero(clf.coef_) <= 3


@pytest.mark.parametrize("l1_ratio", [0.3, 0.9, 1.0])
@pytest.mark.parametrize("n_classes", [3, 4])
def test_a_common_shift_is_taken_to_the_least_penalty(l1_ratio, n_classes):
    X, y = random_data(50, 5, n_classes)
    case = l1_problem(X, y, 0.1, l1_ratio)
    preconditioner = gram_preconditioner(case, compute_moments(case, full_gram=False))
    params = random_params(n_classes, 5)
    moved = to_params(
        case, preconditioner, remove_class_shift(case, preconditioner, to_theta(case, preconditioner, params))
    )
    assert_allclose(moved.coef - moved.coef[0], params.coef - params.coef[0], atol=1e-12)  # rounding
    least = penalty(moved.coef, 0.1, l1_ratio)[0]
    for j in range(5):
        shifts = np.linspace(-3, 3, 601)[:, None]
        tried = [penalty(np.where(np.arange(5) == j, moved.coef + s, moved.coef), 0.1, l1_ratio)[0] for s in shifts]
        assert least <= min(tried) + 1e-12


# --- the optimum ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("l1_ratio", [0.3, 1.0])
@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("container", CONTAINERS)
def test_the_optimum_is_sagas(engine, l1_ratio, n_classes, fit_intercept, container):
    X, y = random_data(400, 10, n_classes, seed=1)
    X[:, -1] = 0
    weight = np.random.RandomState(0).uniform(0.1, 2.0, len(y))
    alpha = 0.02
    saga = logistic("saga")(
        alpha, weight.sum(), l1_ratio=l1_ratio, fit_intercept=fit_intercept, tol=1e-10, max_iter=10000
    ).fit(X, y, weight)
    params = {"l1_ratio": l1_ratio, "fit_intercept": fit_intercept, "engine": engine, "random_state": 0}
    ours = SoftmaxClassifier(alpha, tol=1e-7, **params).fit(CONTAINERS[container](X), y, weight)
    want = objective_of(saga, X, y, alpha, l1_ratio, weight)
    assert objective_of(ours, X, y, alpha, l1_ratio, weight) <= want * (1 + 1e-6)
    assert_allclose(ours.coef_, saga.coef_, atol=5e-3)  # the root of F's excess
    assert ((ours.coef_ == 0) == (saga.coef_ == 0)).mean() > 0.95  # but for those at the threshold
    assert_array_equal(ours.coef_[:, -1], 0)


def test_class_weights_are_sagas():
    X, y = random_data(300, 6, 3, seed=3)
    weights = {0: 1.0, 1: 3.0, 2: 0.5}
    total = sum(weights[label] for label in y)
    alpha = 0.02
    saga = logistic("saga")(alpha, total, l1_ratio=0.5, class_weight=weights, tol=1e-10, max_iter=10000).fit(X, y)
    ours = SoftmaxClassifier(alpha, l1_ratio=0.5, class_weight=weights, engine="vectorized", tol=1e-10).fit(X, y)
    assert_allclose(ours.coef_, saga.coef_, atol=1e-4)  # the root of F's excess


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**16),
    n=st.integers(12, 400),
    p=st.integers(1, 30),
    n_classes=st.integers(2, 5),
    log_alpha=st.floats(-5, 0),
    l1_ratio=st.sampled_from([1e-3, 0.5, 1.0]),
    decades=st.floats(0, 4),
    n_twins=st.integers(0, 2),
    offset=st.sampled_from([0.0, 10.0]),
    fit_intercept=st.booleans(),
    is_sparse=st.booleans(),
)
@example(0, 49, 24, 3, -1.0, 0.5, 3.0, 2, 10.0, False, False)  # ill-conditioned, many signs change
@example(0, 71, 22, 4, -3.0, 1.0, 4.0, 0, 10.0, False, False)  # ends by rounding at 9e-4
def test_the_subgradient_vanishes_at_the_end_or_the_fit_warns(
    seed, n, p, n_classes, log_alpha, l1_ratio, decades, n_twins, offset, fit_intercept, is_sparse
):
    X, y = random_data(n, p, n_classes, seed=seed)
    scale = 10.0 ** np.random.RandomState(seed).uniform(-decades / 2, decades / 2, p)
    X = np.hstack([(X + offset) * scale, (X[:, :1] + offset) * scale[0] * np.ones(n_twins)])
    alpha = 10.0**log_alpha
    clf = SoftmaxClassifier(
        alpha, l1_ratio=l1_ratio, fit_intercept=fit_intercept, engine="vectorized", tol=1e-12, random_state=0
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")  # rounding may end it
        clf.fit(sp.csr_array(X) if is_sparse else X, y)
    if clf.excess_ > 1e-6:  # far from the minimum, which the fit has to say
        assert [warning.category for warning in caught] == [ConvergenceWarning]
        return
    case = l1_problem(X, y, alpha, l1_ratio, fit_intercept=fit_intercept)
    size = np.append(np.sqrt((X**2).mean(axis=0)), 1.0).max()
    assert violation(case, params_of(clf)) <= 1e-4 * size  # a residual's root mean square is at most 1


@pytest.mark.parametrize("load", [load_iris, load_wine, load_breast_cancer])
@pytest.mark.parametrize("alpha", [1e-4, 1e-2])
@pytest.mark.parametrize("l1_ratio", [0.5, 1.0])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("is_matrix", [True, False])
def test_defaults_end_within_tol_of_the_minimum(load, alpha, l1_ratio, dtype, is_matrix, monkeypatch):
    if not is_matrix:
        choice = newton_stage.choose_curvature
        monkeypatch.setattr(
            newton_stage, "choose_curvature", lambda problem: choice(problem)._replace(is_factorized=False)
        )
    X, y = load(return_X_y=True)
    X = X.astype(dtype)
    clf = SoftmaxClassifier(alpha, l1_ratio=l1_ratio, random_state=0).fit(X, y)  # a ConvergenceWarning is an error
    best = SoftmaxClassifier(alpha, l1_ratio=l1_ratio, tol=1e-12, random_state=0).fit(X.astype(float), y)
    minimum = objective_of(best, X, y, alpha, l1_ratio)
    assert objective_of(clf, X, y, alpha, l1_ratio) <= minimum * (1 + 1e-3)
    assert clf.stop_reason_ == "tol"
    assert (clf.coef_ == 0).any()
    assert clf.coef_.dtype == dtype


def test_a_vanishing_share_of_l1_is_l2():
    X, y = random_data(300, 6, 3, seed=4)
    none = SoftmaxClassifier(1e-2, tol=1e-12).fit(X, y)
    little = SoftmaxClassifier(1e-2, l1_ratio=1e-12, tol=1e-12).fit(X, y)
    assert_allclose(little.coef_, none.coef_, atol=1e-6)  # the root of F's excess


def test_without_penalty_its_shares_do_not_matter():
    X, y = random_data(300, 6, 3, seed=4)
    none = SoftmaxClassifier(0.0, random_state=0).fit(X, y)
    assert_array_equal(SoftmaxClassifier(0.0, l1_ratio=1.0, random_state=0).fit(X, y).coef_, none.coef_)


# --- the estimator ----------------------------------------------------------------------------------------


def test_a_model_that_promises_a_rise_certifies_nothing(monkeypatch):
    X, y = random_data(60, n_features=5, n_classes=3)
    case = problem(X, y, alpha=1e-2)._replace(l1_ratio=0.5)
    moments = compute_moments(case, full_gram=True)
    solver = proximal_newton.proximal_newton(
        gram_preconditioner(case, moments), moments, 1e-3, n_drawn=60, is_matrix=True
    )
    # where rounding broke it down
    monkeypatch.setattr(proximal_newton, "estimate_suboptimality", lambda *arguments: (-1.0, 0.0))
    state = solver.init(case, prior_params(case))
    assert solver.evaluate(case, state).excess == np.inf


def test_zeros_survive_the_hand_over():
    X, y = random_data(400, 10, 3, seed=1)
    clf = SoftmaxClassifier(0.05, l1_ratio=1.0, random_state=0).fit(X, y)
    n_zeros = (clf.coef_ == 0).sum()
    assert n_zeros > 5
    want = clf.decision_function(X)
    clf.sparsify()
    assert clf.coef_.nnz == clf.coef_.shape[0] * clf.coef_.shape[1] - n_zeros
    assert_allclose(clf.decision_function(X), want, atol=1e-12)  # sums of ten terms of size 1


@pytest.mark.parametrize("sparsified", [False, True])
def test_a_warm_start_goes_on_from_the_last_coefficients(sparsified):
    X, y = random_data(400, 10, 3, seed=1)
    clf = SoftmaxClassifier(0.05, l1_ratio=1.0, warm_start=True, tol=1e-10, random_state=0).fit(X, y)
    n_iter, coef = clf.n_iter_, clf.coef_
    if sparsified:
        clf.sparsify()
    clf.fit(X, y)
    assert clf.n_iter_ < n_iter
    assert_allclose(clf.coef_, coef, atol=1e-4)  # the root of F's excess
    assert_array_equal(clf.coef_ == 0, coef == 0)


def test_early_stopping_keeps_zeros():
    X, y = random_data(400, 10, 3, seed=1)
    clf = SoftmaxClassifier(0.05, l1_ratio=1.0, early_stopping=True, random_state=0).fit(X, y)
    assert (clf.coef_ == 0).any()
    assert len(clf.validation_scores_) == clf.n_iter_


@pytest.mark.parametrize(
    "params",
    [
        {"solver": "sgd", "momentum": 0.0},
        {"solver": "sgd"},
        {"solver": "sgd", "nesterov": False},
        {"solver": "adagrad", "learning_rate": 0.1},
        {"solver": "adam"},
    ],
)
def test_the_named_solvers_go_to_the_same_minimum_with_zeros(params):
    X, y = random_data(400, 6, 3, seed=1)
    alpha = 0.05
    best = SoftmaxClassifier(alpha, l1_ratio=0.8, tol=1e-10).fit(X, y)
    clf = SoftmaxClassifier(alpha, l1_ratio=0.8, batch_size=50, max_iter=300, random_state=0, **params).fit(X, y)
    minimum = objective_of(best, X, y, alpha, 0.8)
    assert clf.stop_reason_ == "tol"
    assert objective_of(clf, X, y, alpha, 0.8) <= minimum * (1 + 2e-3)  # tol, and what the estimate may miss
    assert (clf.coef_ == 0).any()


@pytest.mark.parametrize("solver", ["auto", "sgd", "adagrad"])
def test_a_stream_nears_the_minimum(solver):
    X, y = random_data(20000, 6, 3, seed=1)
    alpha = 0.05
    best = SoftmaxClassifier(alpha, l1_ratio=0.8, tol=1e-8).fit(X, y)
    stream = SoftmaxClassifier(alpha, l1_ratio=0.8, solver=solver, random_state=0)
    for rows in np.array_split(np.arange(len(y)), 20):
        stream.partial_fit(X[rows], y[rows], classes=np.arange(3))
    minimum = objective_of(best, X, y, alpha, 0.8)
    start = np.log(3)
    assert objective_of(stream, X, y, alpha, 0.8) - minimum < 0.1 * (start - minimum)


def test_a_stream_may_be_given_an_l1_penalty_later():
    X, y = random_data(200, 6, 3, seed=1)
    stream = SoftmaxClassifier(random_state=0).partial_fit(X[:100], y[:100], classes=np.arange(3))
    stream.set_params(l1_ratio=0.5).partial_fit(X[100:], y[100:])
    assert stream.score(X, y) > 0.5
