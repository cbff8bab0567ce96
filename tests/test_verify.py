import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.datasets import load_breast_cancer, load_digits, load_iris, load_wine

from sksoftmax import check_gradient, verify
from sksoftmax._engines import vectorized
from sksoftmax._maths import objective
from sksoftmax._types import Evaluation, Params

BUNDLED = [load_iris, load_wine, load_digits, load_breast_cancer]


@pytest.mark.parametrize("load", BUNDLED, ids=lambda f: f.__name__)
@pytest.mark.parametrize("container", [np.asarray, sp.csr_array])
def test_the_gradient_is_right_on_the_bundled_sets_as_they_are(load, container):
    X, y = load(return_X_y=True)
    assert check_gradient(container(X), y) < 1e-4


@pytest.mark.parametrize("engine", ["auto", "vectorized", "naive"])
@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("alpha", [0.0, 1e-6, 10.0])
def test_the_gradient_is_right_for_every_engine_and_objective(engine, n_classes, fit_intercept, alpha):
    X, y = load_iris(return_X_y=True)
    X, y = X[::7][y[::7] < n_classes], y[::7][y[::7] < n_classes]
    weight = np.random.RandomState(0).uniform(0, 2, len(y))
    error = check_gradient(X, y, alpha=alpha, sample_weight=weight, fit_intercept=fit_intercept, engine=engine)
    assert error < 1e-4


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_the_gradient_is_right_at_any_scale(scale):
    X, y = load_iris(return_X_y=True)
    assert check_gradient(X * [scale, 1.0, 1.0, 1 / scale], y) < 1e-4


@pytest.mark.parametrize("scale", [1e-160, 1e-100, 1e100, 1e160, 1e300])
def test_the_gradient_is_right_where_squares_of_the_columns_overflow(scale):
    X, y = load_iris(return_X_y=True)
    with np.errstate(all="raise"):
        assert check_gradient(X * scale, y, alpha=0) < 1e-4
        assert scale < 1e-150 or check_gradient(X * scale, y) < 1e-4
        assert scale < 1e-150 or check_gradient(X * scale, y, alpha=1.0) < 1e-4


@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("alpha", [0.0, 1e-320, 1e-160, 1e100, 1e200, 1e300])
def test_the_gradient_is_right_for_any_alpha_and_columns_of_0(alpha, fit_intercept):
    X, y = load_iris(return_X_y=True)
    assert check_gradient(X, y, alpha=alpha, fit_intercept=fit_intercept) < 1e-4
    assert check_gradient(0 * X, y, alpha=alpha, fit_intercept=fit_intercept) < 1e-4


@pytest.mark.parametrize("scale", [1e-320, 1e-200, 1e197])
def test_the_scale_of_the_weights_does_not_matter(scale):
    X, y = load_iris(return_X_y=True)
    assert check_gradient(X, y, sample_weight=np.full(150, scale)) < 1e-4


@pytest.mark.parametrize("change", [{"X": 1e-310}, {"X": 1e-160}, {"X": 1e-100, "alpha": 1e300}])
def test_a_penalty_that_overflows_raises(change):
    X, y = load_iris(return_X_y=True)
    with pytest.raises(ValueError, match=r"X and alpha must give a loss and a penalty that are finite .* scale"):
        check_gradient(**{**change, "X": X * change["X"], "y": y})


def off_by_a_thousandth(term):
    """The vectorized engine with one term of its gradient 0.1 % too large."""

    def loss_grad(params, X, y, weight, total):
        loss, grads = vectorized.loss_grad(params, X, y, weight, total)
        coef, intercept = grads.coef.copy(), grads.intercept.copy()
        if term == "loss":
            loss *= 1.001
        elif term == "coef":
            coef *= 1.001
        elif term == "a class":
            coef[1] *= 1.001
        elif term == "a feature":
            coef[:, 2] *= 1.001
        elif term == "an entry":
            coef[0, 3] *= 1.001
        elif term == "intercept":
            intercept *= 1.001
        elif term == "an intercept":
            intercept[2] *= 1.001
        elif term == "probabilities":  # p - t with p off
            p = 0.001 * vectorized.proba(params, X) * weight / total
            coef, intercept = coef + p @ X, intercept + p.sum(axis=1)
        elif term == "divisor":
            coef, intercept = coef * total / (1.001 * total), intercept * total / (1.001 * total)
        return loss, Params(coef, intercept)

    return type("Kernel", (), {"is_compiled": False, "loss_grad": staticmethod(loss_grad)})


TERMS = [
    "loss",
    "coef",
    "a class",
    "a feature",
    "an entry",
    "intercept",
    "an intercept",
    "probabilities",
    "divisor",
]


@pytest.mark.parametrize("term", TERMS)
def test_an_error_of_a_thousandth_in_any_one_term_is_caught(term, monkeypatch):
    monkeypatch.setitem(verify.KERNELS, "vectorized", off_by_a_thousandth(term))
    assert check_gradient(*load_iris(return_X_y=True), engine="vectorized") > 2e-4


@pytest.mark.parametrize("part", ["value", "gradient"])
def test_an_error_of_a_thousandth_in_the_penalty_is_caught_however_weak_it_is(part, monkeypatch):
    right = verify.penalty

    def wrong(coef, alpha):
        value, grad = right(coef, alpha)
        return (1.001 * value, grad) if part == "value" else (value, 1.001 * grad)

    monkeypatch.setattr(verify, "penalty", wrong)
    assert check_gradient(*load_iris(return_X_y=True), alpha=1e-10) > 5e-4


@pytest.mark.parametrize("part", ["coef", "intercept"])
@pytest.mark.parametrize("n_classes", [2, 3])
def test_an_error_in_the_gradient_that_is_descended_is_caught(part, n_classes, monkeypatch):
    right = objective._add_penalty

    def wrong(*args):
        value, grads = right(*args)
        return Evaluation(value, grads._replace(**{part: 1.001 * getattr(grads, part)}))

    monkeypatch.setattr(objective, "_add_penalty", wrong)
    X, y = load_iris(return_X_y=True)
    assert check_gradient(X[y < n_classes], y[y < n_classes], sample_weight=np.arange(50 * n_classes)) > 5e-4


def test_a_subset_is_checked_when_there_are_many_and_depends_on_the_seed_alone():
    X, y = load_digits(return_X_y=True)
    errors = [check_gradient(X, y, max_checks=5, random_state=seed) for seed in (0, 0, 1)]
    assert errors[0] == errors[1] != errors[2]


def test_scipy_check_grad_does_the_checking(monkeypatch):
    calls = []
    monkeypatch.setattr(verify, "check_grad", lambda *a: calls.append(a) or 0.0)
    check_gradient(*load_iris(return_X_y=True), max_checks=7)
    assert len(calls) >= 7  # the loss's derivatives, and the penalty's


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"engine": "fast"}, r"engine must be one of \['auto', .*'naive', 'vectorized'\], got 'fast'"),
        ({"y": np.zeros(150)}, "at least two classes"),
        ({"y": np.zeros(149)}, "y must have one label per row of X, 150 labels, got 149"),
        ({"y": np.arange(150) % 3 + 1j}, "y must hold labels that are all strings or all numbers, got 1j in row 0"),
        ({"alpha": -1.0}, "alpha must be a finite number >= 0, got -1"),
        ({"alpha": np.array([1.0])}, r"alpha must be a finite number >= 0, got array\(\[1\.\]\)"),
        ({"alpha": "1"}, "alpha must be a finite number >= 0, got '1'"),
        ({"max_checks": 2.5}, "max_checks must be an integer >= 1, got 2.5"),
        ({"random_state": "a"}, "random_state must be an integer >= 0 and <= 4294967295, got 'a'"),
        ({"random_state": -1}, "random_state must be an integer >= 0 and <= 4294967295, got -1"),
        ({"random_state": 2**40}, "random_state must be an integer >= 0 and <= 4294967295, got 1099511627776"),
        ({"fit_intercept": np.ones(2)}, "fit_intercept must be True or False, got array"),
        ({"X": np.full((150, 4), np.nan)}, "Input X contains NaN"),
        ({"X": np.full((150, 4), 1j)}, "X must hold real numbers, got ndarray of dtype complex128"),
        ({"X": np.full((150, 4), "a")}, "X must hold real numbers, got ndarray of dtype <U1"),
        ({"X": np.ones(150)}, r"X must be of shape \(n_samples, n_features\), at least one each, got shape \(150,\)"),
        ({"max_checks": 0}, "max_checks must be an integer >= 1, got 0"),
    ],
)
def test_errors_say_what_must_hold(change, message):
    X, y = load_iris(return_X_y=True)
    with pytest.raises(ValueError, match=message):
        check_gradient(**({"X": X, "y": y} | change))
