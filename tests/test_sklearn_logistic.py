"""scikit-learn's own tests of ``LogisticRegression``, from the installed package, on ``SoftmaxClassifier``.

All of them whose code names ``LogisticRegression`` run, those of the array API with the libraries that are here.
``EXPECTED_FAILURES`` is strict (``conftest.py`` applies it): a test that begins to pass has to leave it.
"""

import inspect
from types import FunctionType
from unittest import mock

import pytest

from tests import libraries
from tests.logistic_adapter import SoftmaxAsLogistic

with mock.patch("sklearn.linear_model.LogisticRegression", SoftmaxAsLogistic):
    from sklearn.linear_model.tests import test_logistic as theirs

_CALLBACKS = "counts lbfgs's iterations, the last of them empty, and warns of the other solvers"
_DEPRECATED = "a deprecated parameter's warning"
_REFUSAL = "asserts that a solver refuses what ours takes (int64 indices, large values, any solver name)"

#: Pattern of the test's name (fnmatch): why it fails.
EXPECTED_FAILURES = {
    "test_l1_ratio_non_elasticnet": _DEPRECATED,
    "test_logistic_regression_callback_support*": _CALLBACKS,
    "test_l1_ratio_None_deprecated": _DEPRECATED,
    "test_logisticregression_warns_with_n_jobs": _DEPRECATED,
    "test_lr_penalty_l1ratio_incompatible*": _DEPRECATED,
    "test_penalty_none*": _DEPRECATED,
    "test_dtype_match*csr*liblinear]": _REFUSAL,
    "test_large_sparse_matrix*liblinear]": _REFUSAL,
    "test_large_sparse_matrix*sag*": _REFUSAL,
    "test_liblinear_with_large_values": _REFUSAL,
    "test_check_solver_option[[]Softmax*": _REFUSAL,
    "test_liblinear_dual_random_state": "liblinear's dual solver, which depends on its seed",
    "test_logistic_cv[[]*": "LogisticRegressionCV's liblinear, 2e-5 from the minimum at its default tol",
    "test_logistic_cv_multinomial_score*neg_log_loss*": "LogisticRegressionCV's lbfgs, 3e-4 from it",
    "test_max_iter[[]*": "the wording of the solvers' own warnings",
    "test_newton_cholesky_fallback_to_lbfgs": "newton-cholesky's own fallback",
    "test_zero_max_iter*": "max_iter=0, and a start at equal probabilities: ours is at the class priors",
}

#: Pattern of the test's name: why it fails on some machines.
MACHINE_DEPENDENT = {
    "test_logreg_l1[[]csr*": "asks of a coefficient of 1e-3 for 1e-7 of itself, more than F's rounding leaves",
}


def _builds_ours(test):
    return isinstance(test, FunctionType) and "LogisticRegression(" in inspect.getsource(test)


for _name, _test in vars(theirs).items():
    if _name.startswith("test_") and "array_api" not in _name and _builds_ours(_test):
        globals()[_name] = _test


def test_the_adapter_takes_the_place_of_logistic_regression():
    assert theirs.LogisticRegression is SoftmaxAsLogistic


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("use_str_y", [False, True])
@pytest.mark.parametrize("use_sample_weight", [False, True])
@pytest.mark.parametrize("class_weight", [None, "balanced", "dict"])
@pytest.mark.parametrize(
    ("namespace", "device", "dtype"),
    [
        ("array_api_strict", "CPU_DEVICE", "float64"),
        ("array_api_strict", "device1", "float32"),
        ("torch", "cpu", "float64"),
        ("torch", "cpu", "float32"),
    ],
)
def test_array_api_compliance(
    monkeypatch, binary, use_str_y, use_sample_weight, class_weight, namespace, device, dtype
):
    pytest.importorskip(namespace)
    with libraries.dispatch(monkeypatch):
        theirs.test_logistic_regression_array_api_compliance(
            binary, use_str_y, use_sample_weight, class_weight, namespace, device, dtype
        )
