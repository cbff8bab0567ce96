"""scikit-learn's own judgement of an estimator; none of its checks is expected to fail."""

import warnings

import pytest
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.estimator_checks import estimator_checks_generator

from sksoftmax import SoftmaxClassifier, SoftmaxClassifierCV
from sksoftmax._engines.registry import has_compiled

ESTIMATORS = [
    SoftmaxClassifier(),
    SoftmaxClassifier(solver="sgd"),
    SoftmaxClassifier(solver="adagrad"),
    SoftmaxClassifier(solver="adam"),
    SoftmaxClassifier(engine="vectorized"),
    SoftmaxClassifier(engine="naive"),
    *([SoftmaxClassifier(solver="dual")] if has_compiled() else []),
    # the checks' data fit in one batch of 32, which hides what goes wrong with weights over batches
    SoftmaxClassifier(batch_size=4),
    SoftmaxClassifier(batch_size=4, engine="naive"),
    SoftmaxClassifier(solver="sgd", average=True, schedule="constant"),
    SoftmaxClassifier(warm_start=True),
    SoftmaxClassifier(l1_ratio=0.5),
    SoftmaxClassifierCV(alphas=3, cv=2),
]


def checks():
    """All of the estimators but those of arrays, which are in ``test_arrays``."""
    for estimator in ESTIMATORS:
        for _, check in estimator_checks_generator(estimator):
            if not check.func.__name__.startswith("check_array_api"):
                yield pytest.param(estimator, check, id=f"{estimator}-{check.func.__name__}-{check.keywords}")


@pytest.mark.parametrize(("estimator", "check"), list(checks()))
def test_sklearn_checks(estimator, check):
    with warnings.catch_warnings():
        # the named solvers end at max_iter on some of the checks' unscaled data, and say so
        warnings.simplefilter("ignore", ConvergenceWarning)
        check(estimator)
