"""What must hold for any data, by hypothesis."""

import warnings

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from sklearn.exceptions import ConvergenceWarning

from sksoftmax import SoftmaxClassifier

settings.register_profile(
    "fits", deadline=None, max_examples=40, derandomize=True, suppress_health_check=list(HealthCheck)
)
settings.load_profile("fits")


@st.composite
def datasets(draw, min_classes=2):
    """Rows of a softmax model that does not separate, every class at least three times."""
    k = draw(st.integers(min_classes, 4))
    n, p = draw(st.integers(8 * k, 60)), draw(st.integers(1, 4))
    rng = np.random.RandomState(draw(st.integers(0, 2**31)))
    X = rng.standard_normal((n, p)) * rng.choice([0.1, 1.0, 5.0], p)
    y = (X @ rng.standard_normal((p, k)) + 3 * rng.gumbel(size=(n, k))).argmax(axis=1)
    y[: 3 * k] = np.tile(np.arange(k), 3)
    return X, y, rng


def fitted(X, y, weight=None, **params):
    params = {"alpha": 1e-2, "tol": 1e-12, "random_state": 0} | params
    return SoftmaxClassifier(**params).fit(X, y, weight)


def assert_same_model(left, right, X, Z=None):
    assert_allclose(left.predict_proba(X), right.predict_proba(X if Z is None else Z), atol=1e-5)


@given(datasets(), st.sampled_from(["auto", 5]))
def test_integer_weights_are_repeated_rows(data, batch_size):
    X, y, rng = data
    weight = rng.randint(0, 4, len(y))
    weight[: 2 * (y.max() + 1)] = 1
    repeated = fitted(np.repeat(X, weight, axis=0), np.repeat(y, weight), batch_size=batch_size)
    assert_same_model(fitted(X, y, weight, batch_size=batch_size), repeated, X)


@given(datasets(), st.integers(1, 80))
def test_the_optimum_does_not_depend_on_the_batch_size(data, batch_size):
    X, y, _ = data
    assert_same_model(fitted(X, y, batch_size=batch_size), fitted(X, y), X)


@given(datasets(), st.sampled_from(["auto", 7]))
def test_the_optimum_does_not_depend_on_the_order_of_the_rows(data, batch_size):
    X, y, rng = data
    order = rng.permutation(len(y))
    assert_same_model(fitted(X[order], y[order], batch_size=batch_size), fitted(X, y), X)


@given(datasets(), st.floats(-12, 12))
def test_without_a_penalty_the_optimum_does_not_depend_on_a_columns_scale(data, exponent):
    X, y, _ = data
    scale = np.ones(X.shape[1])
    scale[0] = 10.0**exponent
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # should the few rows separate after all
        left, right = fitted(X, y, alpha=0.0, tol=1e-8), fitted(X * scale, y, alpha=0.0, tol=1e-8)
    if min(left.loss_curve_[-1], right.loss_curve_[-1]) > 1e-3:
        assert_same_model(left, right, X, X * scale)


@given(datasets(), st.floats(-1e4, 1e4))
def test_with_an_intercept_the_optimum_does_not_depend_on_a_common_shift_of_a_column(data, shift):
    X, y, _ = data
    moved = X.copy()
    moved[:, 0] += shift
    left, right = fitted(X, y), fitted(moved, y)
    assert_same_model(left, right, X, moved)
    assert_allclose(left.coef_, right.coef_, atol=1e-4)


@given(datasets())
def test_permuting_the_classes_permutes_the_rows_of_coef(data):
    X, y, rng = data
    names = rng.permutation(y.max() + 1)
    left, right = fitted(X, y), fitted(X, names[y])
    if len(names) == 2:
        sign = 1 if names[1] == 1 else -1
        assert_allclose(right.coef_, sign * left.coef_, atol=1e-5)
    else:
        assert_allclose(right.coef_[names], left.coef_, atol=1e-5)


@given(datasets(), st.booleans())
def test_with_an_intercept_the_probabilities_of_a_class_sum_to_its_weight(data, is_weighted):
    X, y, rng = data
    weight = rng.uniform(0.1, 5.0, len(y)) if is_weighted else np.ones(len(y))
    proba = fitted(X, y, weight).predict_proba(X)
    assert_allclose(weight @ proba, np.bincount(y, weight), rtol=1e-5)


@given(datasets(min_classes=3))
def test_rows_of_coef_and_intercepts_sum_to_0(data):
    clf = fitted(*data[:2])
    assert_allclose(clf.coef_.sum(axis=0), 0.0, atol=1e-12)
    assert_allclose(clf.intercept_.sum(), 0.0, atol=1e-12)


@given(datasets())
def test_sparse_and_dense_data_give_the_same_model(data):
    X, y, rng = data
    X[rng.uniform(size=X.shape) < 0.5] = 0.0
    assert_same_model(fitted(X, y), fitted(sp.csr_array(X), y), X)


@st.composite
def nasty_datasets(draw):
    """Any scale, rank and imbalance: columns of one value, copies, sums, more columns than rows."""
    n, p = draw(st.integers(3, 60)), draw(st.integers(1, 80))
    rng = np.random.RandomState(draw(st.integers(0, 2**31)))
    kind = draw(st.sampled_from(["normal", "cauchy", "one hot", "constant", "rank one", "copies", "zeros"]))
    X = {
        "normal": lambda: rng.standard_normal((n, p)),
        "cauchy": lambda: np.clip(rng.standard_cauchy((n, p)), -1e8, 1e8),
        "one hot": lambda: np.eye(p)[rng.randint(0, p, n)],
        "constant": lambda: np.ones((n, 1)) * rng.standard_normal(p),
        "rank one": lambda: np.outer(rng.standard_normal(n), rng.standard_normal(p)),
        "copies": lambda: np.repeat(rng.standard_normal((n, 1)), p, axis=1),
        "zeros": lambda: np.zeros((n, p)),
    }[kind]()
    smallest, largest = sorted(draw(st.tuples(st.floats(-30, 30), st.floats(-30, 30))))
    X = X * 10.0 ** rng.uniform(smallest, largest, p)
    k = draw(st.integers(2, min(5, n)))
    y = rng.choice(k, n, p=rng.dirichlet(np.full(k, 0.3)))
    y[:k] = np.arange(k)
    return X, y


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("solver", ["auto", "sgd", "adagrad", "adam"])
@given(data=nasty_datasets(), alpha=st.sampled_from([0.0, 1e-12, 1e-4, 1.0, 1e6]), batch_size=st.integers(1, 64))
def test_every_fit_of_finite_data_gives_a_finite_model_no_worse_than_the_priors(dtype, solver, data, alpha, batch_size):
    X, y = data
    X = np.clip(X, -1e30, 1e30).astype(dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        clf = SoftmaxClassifier(alpha, solver=solver, batch_size=batch_size, max_iter=15, random_state=0).fit(X, y)
    assert np.isfinite(clf.coef_).all()
    assert np.isfinite(clf.intercept_).all()
    assert np.isfinite(clf.predict_proba(X)).all()
    priors = np.bincount(y) / len(y)
    null = -(priors[priors > 0] * np.log(priors[priors > 0])).sum()
    factor = 1.001 if solver == "auto" else 2.0  # within tol; a named solver may be on its way still
    assert clf.loss_curve_[-1] <= factor * null
