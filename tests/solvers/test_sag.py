"""SAG by scikit-learn: its bound, the intercept, when it comes and when it leaves the rest to Newton steps."""

import numpy as np
import pytest
import scipy.sparse as sp
from numpy.testing import assert_allclose
from sklearn.preprocessing import normalize

from sksoftmax import SoftmaxClassifier
from sksoftmax._maths.objective import prior_params, value_and_grad
from sksoftmax._solvers.sag import _minimize_intercept, sag
from sksoftmax._training import plan
from tests.problems import problem, random_params
from tests.solvers.test_dual import settings


def text(n_classes, n=600, p=400, seed=0, index=np.int32):
    """Rows of some entries each, of norm 1, and a class that they tell of."""
    rng = np.random.default_rng(seed)
    X = sp.random(n, p, 0.03, "csr", random_state=seed)
    X = sp.csr_array(normalize(X))
    X.indptr, X.indices = X.indptr.astype(index), X.indices.astype(index)
    y = (X @ rng.normal(scale=6, size=(p, n_classes)) + rng.gumbel(size=(n, n_classes))).argmax(axis=1)
    y[:n_classes] = np.arange(n_classes)
    return X, y, rng.uniform(0.5, 2, n)


def minimum(X, y, weight, alpha, fit_intercept=True):
    clf = SoftmaxClassifier(alpha, fit_intercept=fit_intercept, engine="vectorized", tol=1e-9)
    return clf.fit(X.toarray(), y, weight).loss_curve_[-1]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("n_classes", [2, 4])
@pytest.mark.parametrize("alpha", [1e-2, 1e-4])
def test_its_bound_is_one(alpha, n_classes, fit_intercept, dtype):
    X, y, weight = text(n_classes)
    case = problem(X.astype(dtype), y, alpha=alpha, weight=weight, fit_intercept=fit_intercept)
    least = minimum(X, y, weight, alpha, fit_intercept)
    solver = sag(lambda: 0, 1e-1, 100)
    state = solver.init(case, prior_params(case))
    for _ in range(3):
        state = solver.step(case, state, case.data)
        report = solver.evaluate(case, state)
        value, grads = value_and_grad(case, state.params)
        assert report.value == value
        assert (value - least) / value <= report.excess + 1e-6
        assert np.abs(grads.intercept).max() < 1e-5 or not fit_intercept
        assert state.params.intercept.any() == fit_intercept
    assert report.excess < 1e-2


@pytest.mark.parametrize("n_classes", [2, 5])
def test_the_intercept_is_the_best_at_its_coefficients(n_classes):
    X, y, weight = text(n_classes)
    case = problem(X, y, weight=weight)
    params = random_params(1 if n_classes == 2 else n_classes, X.shape[1])
    best = params._replace(intercept=_minimize_intercept(case, params))
    assert_allclose(value_and_grad(case, best).grads.intercept, 0, atol=1e-7)
    assert value_and_grad(case, best).value < value_and_grad(case, params).value


@pytest.mark.parametrize("index", [np.int32, np.int64])
@pytest.mark.parametrize("n_classes", [2, 4])
def test_without_kernels_wide_sparse_rows_are_fitted_by_it(n_classes, index):
    X, y, weight = text(n_classes, index=index)
    clf = SoftmaxClassifier(1e-3, engine="vectorized", random_state=0).fit(X, y, weight)
    assert (clf.solver_info_["solver"], clf.stop_reason_) == ("sag", "tol")
    least = minimum(X, y, weight, 1e-3)
    assert clf.loss_curve_[-1] <= least * (1 + clf.excess_ + 1e-9)
    assert clf.excess_ <= 1e-3
    again = SoftmaxClassifier(1e-3, engine="vectorized", random_state=0).fit(X, y, weight)
    assert (again.coef_ == clf.coef_).all()


def test_newton_steps_go_on_where_its_bound_is_loose():
    X, y, weight = text(3)
    clf = SoftmaxClassifier(1e-7, engine="vectorized", tol=1e-5, random_state=0).fit(X, y, weight)
    assert clf.solver_info_["solver"] == "sag+newton"
    assert clf.excess_ <= 1e-5
    assert clf.loss_curve_[-1] <= minimum(X, y, weight, 1e-7) * (1 + 2e-5)


@pytest.mark.parametrize(
    ("changes", "container"),
    [({"l1_ratio": 0.5}, sp.csr_array), ({"alpha": 0.0}, sp.csr_array), ({}, sp.csr_array.toarray)],
)
def test_it_does_not_come_for_other_penalties_and_dense_rows(changes, container):
    X, y, _ = text(3)
    case = problem(container(X), y)._replace(**changes)
    chosen = plan.make_plan(case, settings(engine="vectorized"), is_warm=False, rng=np.random.RandomState(0))
    assert "sag" not in [stage.solver.name for stage in chosen.stages]


def test_a_warm_start_goes_on_from_its_coefficients():
    X, y, weight = text(3)
    clf = SoftmaxClassifier(1e-3, engine="vectorized", warm_start=True, random_state=0).fit(X, y, weight)
    cold = clf.excess_
    assert clf.fit(X, y, weight).solver_info_["solver"] == "sag"
    assert clf.excess_ < cold
