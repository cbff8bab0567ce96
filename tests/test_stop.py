"""The promise of ``tol``: a fit that ends by it, and does not warn, is within it."""

import warnings

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import PolynomialFeatures

from benchmarks.stop.reference import Objective, minimum
from sksoftmax import SoftmaxClassifier

settings.register_profile("stop", deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
SEEDS = st.integers(0, 2**31)


def stops(n):
    """The settings of a property of so many examples, drawn from a fixed seed."""
    return settings(settings.get_profile("stop"), max_examples=n)


def fitted(X, y, clf=None, weight=None, **params):
    """The model, and the convergence warnings of its fit; any other warning is an error."""
    clf = SoftmaxClassifier(random_state=0) if clf is None else clf
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("error")
        warnings.simplefilter("always", ConvergenceWarning)
        clf.set_params(**params).fit(X, y, weight)
    return clf, [str(w.message) for w in caught]


def true_excess(clf, X, y, rest=None, weight=None):
    """``(F - F*) / F*`` in float64; ``rest`` are the rows whose minimum is the first start."""
    n_classes = len(clf.classes_)
    y = np.searchsorted(clf.classes_, y)

    def objective(rows):
        own = None if weight is None else weight[rows]
        return Objective(X[rows], y[rows], n_classes, own, clf.alpha, clf.l1_ratio, clf.fit_intercept)

    F = objective(slice(None))
    theta = F.theta(clf.coef_, clf.intercept_)

    def starts():
        if rest is not None and len(np.unique(y[rest])) == n_classes:
            part = objective(rest)
            near = minimum(part, [part.zeros()], 1e-3).theta
            offset = part.centre - F.centre
            if clf.fit_intercept:
                near[:, -1] -= near[:, :-1] @ offset
            yield near
        yield F.zeros()
        yield theta

    share = 0.02 * max(clf.tol, 1e-9)
    least = minimum(F, starts(), share)
    assert least.gap <= 10 * share * least.value, f"no F* for the test: {least}"
    return F.value(theta) / least.value - 1


def is_kept(clf, said, excess):
    """Whether the fit warned, or is within twice its tol (estimates), and the warning is no rule."""
    eps = float(np.finfo(np.float32 if clf.coef_.dtype == np.float32 else np.float64).eps)
    if clf.stop_reason_ == "tol":
        return not said and excess <= 2 * max(clf.tol, eps)
    return bool(said) or excess <= 2 * max(clf.tol, eps)


def normal_rows(rng, n_classes, n, p):
    """Rows of a softmax model of normal columns, and labels with noise; each class twice at least."""
    X = rng.standard_normal((n, p))
    raw = 2 * X @ rng.standard_normal((p, n_classes)) + rng.gumbel(size=(n, n_classes))
    y = raw.argmax(axis=1)
    y[: 2 * n_classes] = np.tile(np.arange(n_classes), 2)
    return X, y


@stops(40)
@given(
    SEEDS,
    st.integers(2, 4),
    st.floats(2, 12),
    st.booleans(),
    st.booleans(),
    st.sampled_from([np.float32, np.float64]),
    st.sampled_from([1e-1, 1e-3, 1e-5]),
)
@example(3, 3, 12.0, False, False, np.float32, 1e-3)  # probabilities of 1e-28 count
@example(35, 4, 12.0, False, True, np.float32, 1e-5)
def test_outlying_cells(seed, n_classes, exponent, agrees, fit_intercept, dtype, alpha):
    rng = np.random.RandomState(seed)
    X, y = normal_rows(rng, n_classes, rng.randint(60, 600), rng.randint(1, 6))
    column, row = rng.randint(X.shape[1]), rng.randint(len(X))
    sign = rng.choice([-1, 1])
    X[row, column] = sign * 10.0**exponent
    pull = np.array([(X[y == k, column] * (np.arange(len(X)) != row)[y == k]).mean() for k in range(n_classes)])
    y[row] = (sign * pull).argmax() if agrees else (sign * pull).argmin()
    X = X.astype(dtype)
    clf, said = fitted(X, y, alpha=alpha, fit_intercept=fit_intercept)
    excess = true_excess(clf, X, y, np.arange(len(X)) != row)
    assert is_kept(clf, said, excess), (clf.stop_reason_, clf.excess_, excess, said)


@stops(20)
@given(
    SEEDS,
    st.integers(2, 4),
    st.sampled_from([-99, -999, -9999, -999999, 1e9, -1e12]),
    st.integers(1, 100),
    st.integers(1, 3),
    st.sampled_from([np.float32, np.float64]),
    st.sampled_from([1e-2, 1e-4]),
)
def test_codes_for_missing_values(seed, n_classes, code, n_missing, n_columns, dtype, alpha):
    rng = np.random.RandomState(seed)
    X, y = normal_rows(rng, n_classes, rng.randint(200, 1000), rng.randint(n_columns, 8))
    is_missing = np.zeros(X.shape, dtype=bool)
    for column in range(n_columns):
        is_missing[rng.choice(len(X), n_missing, replace=False), column] = True
    X[is_missing] = code
    X = X.astype(dtype)
    clf, said = fitted(X, y, alpha=alpha)
    excess = true_excess(clf, X, y, ~is_missing.any(axis=1))
    assert is_kept(clf, said, excess), (clf.stop_reason_, clf.excess_, excess, said)


@stops(20)
@given(SEEDS, st.integers(2, 4), st.integers(2, 5), st.booleans(), st.sampled_from([np.float32, np.float64]))
def test_several_outlying_columns(seed, n_classes, n_columns, is_sparse, dtype):
    rng = np.random.RandomState(seed)
    X, y = normal_rows(rng, n_classes, rng.randint(60, 600), 6)
    rows = rng.choice(len(X), n_columns, replace=False)
    X[rows, np.arange(n_columns)] = rng.choice([-1, 1], n_columns) * 10.0 ** rng.uniform(2, 10, n_columns)
    X = X.astype(dtype)
    clf, said = fitted(sp.csr_array(X) if is_sparse else X, y, alpha=10.0 ** rng.uniform(-5, -1))
    excess = true_excess(clf, X, y, ~np.isin(np.arange(len(X)), rows))
    assert is_kept(clf, said, excess), (clf.stop_reason_, clf.excess_, excess, said)


@stops(20)
@given(SEEDS, st.integers(2, 4), st.floats(-6, 6), st.sampled_from([np.float32, np.float64]), st.sampled_from([0, 0.5]))
def test_warm_starts_of_any_size(seed, n_classes, exponent, dtype, l1_ratio):
    rng = np.random.RandomState(seed)
    X, y = normal_rows(rng, n_classes, rng.randint(60, 600), rng.randint(1, 6))
    X = X.astype(dtype)
    clf, _ = fitted(X, y, alpha=1e-3, l1_ratio=l1_ratio)
    clf.coef_ = clf.coef_ * dtype(10.0**exponent)
    clf, said = fitted(X, y, clf, warm_start=True)
    excess = true_excess(clf, X, y)
    assert not said
    assert is_kept(clf, said, excess), (clf.stop_reason_, clf.excess_, excess, said)


@pytest.mark.parametrize("unit", [1e-6, 1e-3, 1e-1, 1e3])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_warm_start_from_other_units(unit, dtype):
    X, y = load_breast_cancer(return_X_y=True)
    X = X.astype(dtype)
    clf, _ = fitted(X * dtype(unit), y, alpha=0.1 * unit**2)
    clf, said = fitted(X, y, clf, alpha=0.1, warm_start=True)
    assert (said, clf.stop_reason_) == ([], "tol")
    assert true_excess(clf, X, y) <= 2e-3


@pytest.mark.parametrize("unit", [1e-4, 1.0, 1e4])
def test_a_warm_start_from_logistic_regression(unit):
    X, y = normal_rows(np.random.RandomState(0), 3, 400, 4)
    theirs = LogisticRegression(C=2.5).fit(X, y)
    theirs.coef_ = theirs.coef_ * unit
    clf = SoftmaxClassifier.from_sklearn(theirs, total_weight=400)
    clf, said = fitted(X, y, clf, alpha=1e-3, warm_start=True)
    assert (said, clf.stop_reason_) == ([], "tol")
    assert true_excess(clf, X, y) <= 2e-3


@stops(24)
@given(SEEDS, st.sampled_from([2, 5]), st.floats(-10, -6), st.sampled_from([np.float32, np.float64]), st.floats(4, 10))
def test_a_loss_next_to_0_is_reached(seed, n_classes, exponent, dtype, distance):
    rng = np.random.RandomState(seed)
    y = np.arange(600) % n_classes
    X = (distance * rng.standard_normal((n_classes, 12))[y] + rng.standard_normal((600, 12))).astype(dtype)
    clf, said = fitted(X, y, alpha=10.0**exponent)
    assert (said, clf.stop_reason_) == ([], "tol")
    excess = true_excess(clf, X, y)
    assert excess <= 2 * clf.tol, (clf.excess_, excess)


@stops(24)
@given(SEEDS, st.integers(2, 4), st.floats(0, 7), st.sampled_from([1e-3, 1e-5]))
def test_float32_columns_with_an_offset(seed, n_classes, exponent, tol):
    rng = np.random.RandomState(seed)
    Z, y = normal_rows(rng, n_classes, rng.randint(100, 600), rng.randint(2, 8))
    scales = 10.0 ** rng.uniform(0, 2, Z.shape[1])
    X = (Z * scales + 10.0**exponent).astype(np.float32)
    clf, said = fitted(X, y, alpha=1e-4, tol=tol)
    excess = true_excess(clf, X, y)
    assert is_kept(clf, said, excess), (clf.stop_reason_, clf.excess_, excess, said)
    # the probabilities are those of the parameters handed over, to float32: its products are not to lose the offset
    exact = fitted(X.astype(np.float64), y, alpha=1e-4, tol=1e-9)[0].predict_proba(X.astype(np.float64))
    assert np.abs(clf.predict_proba(X) - exact).mean() <= max(3 * np.sqrt(tol), 1e-2)
    assert clf.score(X, y) >= (exact.argmax(axis=1) == y).mean() - 0.02


@stops(16)
@given(SEEDS, st.integers(2, 3), st.sampled_from([0.1, 0.5, 1.0]), st.booleans(), st.floats(-5, -2))
def test_l1_on_polynomial_features_and_outliers(seed, n_classes, l1_ratio, is_polynomial, exponent):
    rng = np.random.RandomState(seed)
    X, y = normal_rows(rng, n_classes, rng.randint(60, 300), 4)
    rest = None
    if is_polynomial:
        X = PolynomialFeatures(3, include_bias=False).fit_transform(X)
    else:
        row = rng.randint(len(X))
        X[row, 0], rest = 10.0 ** rng.uniform(2, 10), np.arange(len(X)) != row
    clf, said = fitted(X, y, alpha=10.0**exponent, l1_ratio=l1_ratio)
    excess = true_excess(clf, X, y, rest)
    assert is_kept(clf, said, excess), (clf.stop_reason_, clf.excess_, excess, said)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("l1_ratio", [0, 0.5])
def test_a_small_set_of_large_numbers_ends_soon(seed, l1_ratio):
    rng = np.random.default_rng(seed)
    X, y = rng.normal(size=(100, 200)) * 1e4, rng.integers(0, 2, 100)
    clf, said = fitted(X, y, l1_ratio=l1_ratio, max_iter=300, engine="vectorized")
    assert (said, clf.stop_reason_) == ([], "tol")
    assert clf.n_iter_ < 30
    assert true_excess(clf, X, y) <= 2e-3


@pytest.mark.parametrize("solver", ["auto", "dual"])
@pytest.mark.parametrize("n_classes", [2, 4])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_classes_that_can_be_separated_have_no_minimum_without_a_penalty(solver, n_classes, dtype):
    if solver == "dual":
        pytest.importorskip("_sksoftmax_kernels")
    rng = np.random.RandomState(0)
    y = np.arange(400) % n_classes
    X = (10 * rng.standard_normal((n_classes, 8))[y] + rng.standard_normal((400, 8))).astype(dtype)
    clf, said = fitted(X, y, alpha=0.0, solver=solver)
    assert clf.stop_reason_ == "separable"
    assert clf.excess_ == np.inf
    assert clf.score(X, y) == 1
    (message,) = said
    assert "F has no minimum" in message
    assert "Set alpha > 0" in message


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("solver", ["auto", "dual"])
def test_without_a_penalty_classes_that_overlap_have_a_minimum(n_classes, solver):
    if solver == "dual":
        pytest.importorskip("_sksoftmax_kernels")
    X, y = normal_rows(np.random.RandomState(0), n_classes, 800, 5)
    y[::3] = np.arange(len(y[::3])) % n_classes
    clf, said = fitted(X, y, alpha=0.0, solver=solver)
    assert (said, clf.stop_reason_) == ([], "tol")
    assert true_excess(clf, X, y) <= 2e-3


@pytest.mark.parametrize("seed", range(5))
def test_nearly_separable_rows_raise_nothing_from_within(seed):
    rng = np.random.RandomState(seed)
    X, y = rng.standard_normal((9, 115)), np.arange(9) % 2
    X[8] = X[7] + 1e-3 * rng.standard_normal(115)  # of the other class
    clf, said = fitted(X, y, alpha=1e-12, l1_ratio=0.5, tol=1e-7, max_iter=1000)
    assert np.isfinite(clf.coef_).all()
    assert said or clf.stop_reason_ == "tol"


@pytest.mark.parametrize("solver", ["sgd", "adam", "adagrad"])
@stops(6)
@given(seed=SEEDS, n_classes=st.integers(2, 3), exponent=st.floats(2, 8))
def test_named_solvers_do_not_claim_tol_on_outliers(solver, seed, n_classes, exponent):
    rng = np.random.RandomState(seed)
    X, y = normal_rows(rng, n_classes, 200, 3)
    X[0, 0] = 10.0**exponent
    clf, said = fitted(X, y, solver=solver, alpha=1e-3, tol=1e-2)
    excess = true_excess(clf, X, y, np.arange(len(X)) != 0)
    assert is_kept(clf, said, excess), (clf.stop_reason_, clf.excess_, excess, said)


def test_two_outlying_columns_of_one_class():
    X, y = normal_rows(np.random.RandomState(3), 3, 400, 2)
    X[0, 0], X[1, 1] = -4.9e8, -9.2e7
    y[:2] = 2
    clf, said = fitted(X, y, alpha=1e-3)
    excess = true_excess(clf, X, y, np.arange(400) > 1)
    assert is_kept(clf, said, excess), (clf.stop_reason_, clf.excess_, excess, said)


def test_one_outlying_cell_at_the_end_of_float32():
    rng = np.random.RandomState(7)
    X = rng.standard_normal((40, 2))
    y = (2 * X[:, 0] + rng.logistic(size=40) > 0).astype(int)
    X[0, 0], y[0] = 10 ** rng.uniform(10, 11), 1
    X = X.astype(np.float32)
    clf, said = fitted(X, y, alpha=0.1)
    excess = true_excess(clf, X, y, np.arange(40) > 0)
    assert is_kept(clf, said, excess), (clf.stop_reason_, clf.excess_, excess, said)


def test_ordinary_rows_at_the_minimum_are_not_warned_of():
    X, y = np.random.RandomState(0).standard_normal((6, 1)), np.arange(6) % 3
    clf, said = fitted(X, y)
    assert (said, clf.stop_reason_) == ([], "tol")


def test_tol_below_rounding_counts_as_rounding():
    X, y = load_digits(return_X_y=True)
    clf, said = fitted(X.astype(np.float32), y, tol=0)
    assert clf.excess_ <= 2 * np.finfo(np.float32).eps  # a tenth of such fits ends between eps and twice eps
    assert len(said) == (clf.stop_reason_ == "precision")
