"""L1 and the elastic net, through the estimator."""

import numpy as np
import pytest
import scipy.sparse as sp
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.linear_model import LogisticRegression

from sksoftmax import SoftmaxClassifier
from sksoftmax._objective import alpha_from_C, value_and_grad
from sksoftmax._solvers.dual import is_available
from sksoftmax._types import Params
from tests.problems import problem, random_data

needs_numba = pytest.mark.skipif(not is_available(), reason="numba is not installed")


def objective_of(clf, X, y, alpha, l1_ratio, weight=None):
    """F at a fitted model's coefficients, in float64."""
    data = problem(np.asarray(X, dtype=float), y, alpha=alpha, weight=weight)._replace(l1_ratio=l1_ratio)
    return value_and_grad(data, Params(clf.coef_.astype(float), clf.intercept_.astype(float))).value


@needs_numba
@pytest.mark.parametrize("l1_ratio", [0.3, 1.0])
@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("container", [np.asarray, sp.csr_array])
def test_the_optimum_is_sagas(l1_ratio, n_classes, fit_intercept, container):
    X, y = random_data(400, 10, n_classes, seed=1)
    X[:, -1] = 0
    weight = np.random.RandomState(0).uniform(0.1, 2.0, len(y))
    alpha = 0.02
    saga = LogisticRegression(
        C=alpha_from_C(alpha, weight.sum()),
        l1_ratio=l1_ratio,
        solver="saga",
        fit_intercept=fit_intercept,
        tol=1e-10,
        max_iter=10000,
        random_state=0,
    ).fit(X, y, weight)
    ours = SoftmaxClassifier(alpha, l1_ratio=l1_ratio, fit_intercept=fit_intercept, tol=1e-7, random_state=0)
    ours.fit(container(X), y, weight)
    want = objective_of(saga, X, y, alpha, l1_ratio, weight)
    assert objective_of(ours, X, y, alpha, l1_ratio, weight) <= want * (1 + 1e-6)
    assert_allclose(ours.coef_, saga.coef_, atol=5e-3)  # the root of F's excess
    assert ((ours.coef_ == 0) == (saga.coef_ == 0)).mean() > 0.95
    assert_array_equal(ours.coef_[:, -1], 0)


@needs_numba
def test_zeros_survive_the_hand_over():
    X, y = random_data(400, 10, 3, seed=1)
    clf = SoftmaxClassifier(0.05, l1_ratio=1.0, random_state=0).fit(X, y)
    n_zeros = (clf.coef_ == 0).sum()
    assert n_zeros > 5
    want = clf.decision_function(X)
    clf.sparsify()
    assert clf.coef_.nnz == clf.coef_.shape[0] * clf.coef_.shape[1] - n_zeros
    assert_allclose(clf.decision_function(X), want, atol=1e-12)  # sums of ten terms of size 1


@pytest.mark.parametrize(
    "change", [{"solver": "sgd"}, {"engine": "vectorized"}, {"engine": "naive"}, {"warm_start": True}]
)
def test_what_has_no_l1_says_so(change):
    X, y = random_data(50)
    clf = SoftmaxClassifier().fit(X, y).set_params(l1_ratio=0.5, **change)
    with pytest.raises(ValueError, match=r"l1_ratio=0\.5 is for fit with solver='auto'"):
        clf.fit(X, y)


def test_a_stream_has_no_l1_and_says_so():
    X, y = random_data(50)
    with pytest.raises(ValueError, match="not for partial_fit"):
        SoftmaxClassifier(l1_ratio=0.5).partial_fit(X, y, classes=np.arange(3))
