"""From a problem to its minimum."""

import numpy as np
import pytest
import scipy.sparse as sp
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.linear_model import LogisticRegression

from sksoftmax import SoftmaxClassifier, _vectorized
from sksoftmax._narrow import narrowed
from sksoftmax._objective import value_and_grad
from sksoftmax._types import Batch, Params, Problem
from tests.problems import random_data


def with_empty_columns(X, n_features=100):
    """The columns of X among many that have no entry, and where they are."""
    where = np.sort(np.random.RandomState(1).permutation(n_features)[: X.shape[1]])
    wide = np.zeros((len(X), n_features))
    wide[:, where] = X
    return sp.csr_array(wide), where


@pytest.mark.parametrize("l1_ratio", [0, 0.5])
@pytest.mark.parametrize("n_samples", [60, 600])
@pytest.mark.parametrize("early_stopping", [False, True])
def test_empty_columns_of_a_sparse_x_cost_nothing_and_have_no_coefficients(early_stopping, n_samples, l1_ratio):
    X, y = random_data(n_samples)
    wide, where = with_empty_columns(X)
    settings = {"l1_ratio": l1_ratio, "early_stopping": early_stopping, "random_state": 0}
    clf = SoftmaxClassifier(1e-3, **settings).fit(wide, y)
    narrow = SoftmaxClassifier(1e-3, **settings).fit(sp.csr_array(X), y)
    assert_array_equal(clf.coef_[:, where], narrow.coef_)
    assert_array_equal(np.delete(clf.coef_, where, axis=1), 0)
    assert clf.n_features_in_ == 100
    assert_array_equal(clf.predict(wide), narrow.predict(X))


def test_a_warm_start_forgets_what_empty_columns_said():
    X, y = random_data(200)
    wide, where = with_empty_columns(X)
    clf = SoftmaxClassifier(1e-3, warm_start=True, random_state=0).fit(wide, y)
    clf.coef_ = clf.coef_ + 1.0
    clf.fit(wide, y)
    assert_array_equal(np.delete(clf.coef_, where, axis=1), 0)


def test_an_empty_x_gives_the_priors():
    y = np.array([0, 0, 1])
    clf = SoftmaxClassifier().fit(sp.csr_array((3, 5)), y)
    np.testing.assert_allclose(clf.predict_proba(sp.csr_array((1, 5))), [[2 / 3, 1 / 3]], atol=1e-6)


def few_rows(n_classes=3, n_samples=40, n_features=100, dtype=np.float64):
    """Rows that do not span the columns' space, of columns far from 0, over two decades; one of one value."""
    rng = np.random.default_rng(0)
    X = (rng.standard_normal((n_samples, n_features)) + 3) * 10 ** rng.uniform(-1, 1, n_features)
    X[:, 7] = 2.5
    return X.astype(dtype), rng.permutation(np.arange(n_samples) % n_classes), rng.uniform(0.5, 2, n_samples)


def problem_of(X, y, weight, *, fit_intercept, alpha=1e-2):
    n_classes = int(y.max()) + 1
    return Problem(Batch(X, y.astype(np.intp), weight), n_classes, alpha, fit_intercept, _vectorized, weight.mean())


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("n_classes", [2, 3])
def test_a_few_dense_rows_have_the_same_f_in_their_own_space(n_classes, fit_intercept, dtype):
    X, y, weight = few_rows(n_classes, dtype=dtype)
    problem = problem_of(X, y, weight, fit_intercept=fit_intercept)
    narrow = narrowed(problem, may_rotate=True)
    assert narrow.problem.data.X.shape == (40, 40)
    rng = np.random.default_rng(1)
    inside = Params(rng.standard_normal((problem.n_rows, 40)) / 30, rng.standard_normal(problem.n_rows) * fit_intercept)
    value = value_and_grad(narrow.problem, inside).value
    same = value_and_grad(problem._replace(data=problem.data._replace(X=X.astype(float))), narrow.back(inside)).value
    assert same == pytest.approx(value, rel=1e-10)  # a rotation, but for rounding
    again = narrow.to(narrow.back(inside))
    assert_allclose(again.coef, inside.coef, atol=1e-12)
    assert_allclose(again.intercept, inside.intercept, atol=1e-10)


@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("n_classes", [2, 3])
def test_a_few_dense_rows_have_logistic_regressions_coefficients(n_classes, fit_intercept):
    X, y, weight = few_rows(n_classes)
    C = 0.1
    alpha = 1 / (C * weight.sum())
    clf = SoftmaxClassifier(alpha, fit_intercept=fit_intercept, tol=1e-12).fit(X, y, weight)
    peer = LogisticRegression(C=C, fit_intercept=fit_intercept, solver="newton-cg", tol=1e-10, max_iter=1000)
    peer.fit(X, y, weight)
    assert_allclose(clf.coef_, peer.coef_, atol=1e-5 * np.abs(peer.coef_).max())  # as far as newton-cg gets
    assert_allclose(clf.predict_proba(X), peer.predict_proba(X), atol=1e-5)
    if fit_intercept:
        assert_allclose(clf.coef_[:, 7], 0, atol=1e-12)  # the column of one value


def test_columns_that_rounding_would_hide_stay_as_they_are():
    X, y, weight = few_rows()
    X[:, 3] *= 1e12
    assert narrowed(problem_of(X, y, weight, fit_intercept=True), may_rotate=True) is None


@pytest.mark.parametrize(
    ("n_samples", "n_features", "n_classes", "want"),
    [(40, 80, 2, True), (40, 79, 2, False), (1001, 2100, 2, False), (1001, 2100, 6, True)],
)
def test_rows_have_a_space_of_their_own_if_they_are_few(n_samples, n_features, n_classes, want):
    X, y, weight = few_rows(n_classes, n_samples, n_features)
    problem = problem_of(X, y, weight, fit_intercept=True)
    assert (narrowed(problem, may_rotate=True) is not None) is want
    assert narrowed(problem, may_rotate=False) is None
    assert narrowed(problem._replace(l1_ratio=0.5), may_rotate=True) is None


def test_a_warm_start_keeps_what_a_few_rows_taught_and_forgets_the_rest():
    X, y, _ = few_rows()
    clf = SoftmaxClassifier(1e-2, warm_start=True, tol=1e-6, random_state=0).fit(X, y)
    coef, n_iter = clf.coef_, clf.n_iter_
    outside = np.linalg.svd(X - X.mean(axis=0))[2][-1]  # predicts nothing
    clf.coef_ = coef + outside
    clf.fit(X, y)
    assert clf.n_iter_ < n_iter
    assert_allclose(clf.coef_, coef, atol=1e-4 * np.abs(coef).max())


@pytest.mark.parametrize(
    "params", [{"engine": "naive", "tol": 1e-3}, {"solver": "sgd", "tol": 0.1}, {"early_stopping": True}]
)
def test_a_few_dense_rows_are_fitted_by_every_way(params):
    X, y, _ = few_rows(2, 24, 60)
    clf = SoftmaxClassifier(1.0, max_iter=300, random_state=0, **params).fit(X, y)
    assert clf.coef_.shape == (1, 60)
    assert np.isfinite(clf.coef_).all()
    assert clf.score(X, y) > 0.9
