"""scikit-learn's own judgement of an estimator; none of its checks is expected to fail."""

import warnings

import pytest
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.estimator_checks import parametrize_with_checks

from sksoftmax import SoftmaxClassifier

ESTIMATORS = [
    SoftmaxClassifier(),
    SoftmaxClassifier(solver="sgd"),
    SoftmaxClassifier(solver="adagrad"),
    SoftmaxClassifier(solver="adam"),
    SoftmaxClassifier(engine="vectorized"),
    SoftmaxClassifier(engine="naive"),
    # the checks' data fit in one batch of 32, which hides what goes wrong with weights over batches
    SoftmaxClassifier(batch_size=4),
    SoftmaxClassifier(batch_size=4, engine="naive"),
    SoftmaxClassifier(solver="sgd", average=True, schedule="constant"),
    SoftmaxClassifier(warm_start=True),
]


@parametrize_with_checks(ESTIMATORS)
def test_sklearn_checks(estimator, check):
    with warnings.catch_warnings():
        # the named solvers end at max_iter on some of the checks' unscaled data, and say so
        warnings.simplefilter("ignore", ConvergenceWarning)
        check(estimator)


def test_the_checks_are_all_there():
    # as many for every estimator: none has been switched off by a tag or a name
    counts = {}
    for mark in test_sklearn_checks.pytestmark:
        for param in mark.args[1]:
            estimator = param.values[0] if hasattr(param, "values") else param[0]
            counts[repr(estimator)] = counts.get(repr(estimator), 0) + 1
    assert len(counts) == len(ESTIMATORS)
    assert min(counts.values()) > 50


@pytest.mark.parametrize("mark", ["xfail", "skip"])
def test_no_check_is_marked(mark):
    params = [p for m in test_sklearn_checks.pytestmark for p in m.args[1] if hasattr(p, "marks")]
    assert not [p for p in params for m in p.marks if m.name == mark]
