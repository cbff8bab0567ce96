"""From a problem to its minimum."""

import numpy as np
import pytest
import scipy.sparse as sp
from numpy.testing import assert_array_equal

from sksoftmax import SoftmaxClassifier
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
