import pickle
import re
import warnings

import numpy as np
import pandas as pd
import polars as pl
import pytest
import scipy.sparse as sp
import sklearn
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_digits, load_iris, load_wine, make_classification
from sklearn.ensemble import AdaBoostClassifier, BaggingClassifier
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from sklearn.utils._param_validation import InvalidParameterError
from threadpoolctl import threadpool_limits

from sksoftmax import SoftmaxClassifier, SoftmaxClassifierCV
from sksoftmax._engines.registry import KERNELS, get_kernel, has_compiled
from sksoftmax._maths.objective import alpha_from_C, value_and_grad
from sksoftmax._training.loop import Result
from sksoftmax._training.plan import choose_engine
from sksoftmax._training.stopping import StopReason
from sksoftmax._types import Params
from tests.problems import problem, random_data

sklearn_version = tuple(int(part) for part in sklearn.__version__.split(".")[:2])

BUNDLED = {f.__name__: f for f in (load_iris, load_wine, load_digits, load_breast_cancer)}
SOLVERS = ["auto", "sgd", "adagrad", "adam", *(["dual"] if has_compiled() else [])]


def bundled(name, scaling):
    X, y = BUNDLED[name](return_X_y=True)
    return (StandardScaler().fit_transform(X) if scaling == "standardised" else X), y


def objective_of(clf, X, y, alpha, weight=None):
    """F at a fitted model's coefficients, in float64."""
    params = Params(np.asarray(clf.coef_, dtype=float), np.asarray(clf.intercept_, dtype=float))
    codes = np.unique(y, return_inverse=True)[1]
    return value_and_grad(problem(np.asarray(X, dtype=float), codes, alpha=alpha, weight=weight), params).value


def on_bundled(test):
    test = pytest.mark.parametrize("scaling", ["raw", "standardised"])(test)
    return pytest.mark.parametrize("name", BUNDLED)(test)


# --- the answer -------------------------------------------------------------------------------------------


@on_bundled
@pytest.mark.parametrize("container", [np.asarray, sp.csr_array])
@pytest.mark.parametrize("alpha", [1e-4, 1e-2])
def test_defaults_end_within_tol_of_the_minimum(name, scaling, container, alpha):
    X, y = bundled(name, scaling)
    clf = SoftmaxClassifier(alpha, random_state=0).fit(container(X), y)  # a ConvergenceWarning is an error
    best = SoftmaxClassifier(alpha, tol=1e-12, random_state=0).fit(X, y)
    minimum = objective_of(best, X, y, alpha)
    assert objective_of(clf, X, y, alpha) <= minimum * (1 + 1e-3)
    assert clf.stop_reason_ == "tol"
    assert clf.excess_ <= 1e-3


@on_bundled
@pytest.mark.parametrize("batch_size", [8, 64])
def test_explicit_minibatches_end_within_tol_of_the_minimum_too(name, scaling, batch_size):
    X, y = bundled(name, scaling)
    clf = SoftmaxClassifier(batch_size=batch_size, random_state=0).fit(X, y)
    assert clf.solver_info_["solver"].startswith("preconditioned_sgd+")
    best = SoftmaxClassifier(tol=1e-12).fit(X, y)
    assert objective_of(clf, X, y, 1e-4) <= objective_of(best, X, y, 1e-4) * (1 + 1e-3)


@on_bundled
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("fit_intercept", [True, False])
def test_probabilities_are_logistic_regressions(name, scaling, weighted, fit_intercept):
    X, y = bundled(name, scaling)
    weight = np.random.RandomState(0).randint(0, 4, len(y)).astype(float) if weighted else None
    total = len(y) if weight is None else weight.sum()
    alpha = 1e-3
    # newton-cholesky: the one of scikit-learn's solvers that reaches tol=1e-10 on unscaled data
    theirs = LogisticRegression(
        C=1 / (alpha * total), tol=1e-10, max_iter=10000, fit_intercept=fit_intercept, solver="newton-cholesky"
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # its line search at the limit of rounding
        theirs.fit(X, y, weight)
    for container in (np.asarray, sp.csr_array):
        clf = SoftmaxClassifier(alpha, tol=1e-10, fit_intercept=fit_intercept, random_state=0)
        clf.fit(container(X), y, weight)
        assert_allclose(clf.predict_proba(X), theirs.predict_proba(X), atol=1e-4, rtol=0)
        assert_allclose(clf.coef_ @ X.std(axis=0), theirs.coef_ @ X.std(axis=0), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("n_classes", range(2, 11))
def test_probabilities_are_logistic_regressions_for_2_to_10_classes(n_classes):
    X, y = bundled("load_digits", "standardised")
    X, y = X[y < n_classes], y[y < n_classes]
    clf = SoftmaxClassifier(1e-2, tol=1e-8).fit(X, y)
    theirs = LogisticRegression(C=1 / (1e-2 * len(y)), tol=1e-10, max_iter=10000).fit(X, y)
    assert_allclose(clf.predict_proba(X), theirs.predict_proba(X), atol=1e-4, rtol=0)
    assert clf.coef_.shape == theirs.coef_.shape


@pytest.mark.parametrize("class_weight", ["balanced", {0: 1.0, 1: 10.0, 2: 0.5}])
@pytest.mark.parametrize("weighted", [False, True])
def test_class_weights_are_logistic_regressions(class_weight, weighted):
    X, y = bundled("load_wine", "standardised")
    weight = np.random.RandomState(0).randint(1, 4, len(y)).astype(float)
    weight = weight if weighted else np.ones(len(y))
    clf = SoftmaxClassifier(1e-2, tol=1e-10, class_weight=class_weight).fit(X, y, weight)
    if class_weight == "balanced":
        factors = weight.sum() / (3 * np.bincount(y, weight))
        if sklearn_version < (1, 7):  # which did not weigh the rows
            class_weight = dict(enumerate(factors))
    else:
        factors = np.array([1.0, 10.0, 0.5])
    C = 1 / (1e-2 * (weight * factors[y]).sum())
    theirs = LogisticRegression(C=C, tol=1e-10, class_weight=class_weight).fit(X, y, weight)
    assert_allclose(clf.predict_proba(X), theirs.predict_proba(X), atol=1e-5, rtol=0)


def test_C_and_alpha_are_the_same_strength():
    X, y = bundled("load_iris", "raw")
    clf = SoftmaxClassifier(alpha_from_C(0.5, len(y)), tol=1e-10).fit(X, y)
    theirs = LogisticRegression(C=0.5, tol=1e-10, max_iter=1000, solver="newton-cholesky").fit(X, y)
    assert_allclose(clf.coef_, theirs.coef_, atol=1e-5)
    assert_allclose(clf.intercept_, theirs.intercept_, atol=1e-5)


@pytest.mark.parametrize("solver", ["sgd", "adagrad", "adam"])
def test_the_named_solvers_go_to_the_same_minimum(solver):
    X, y = bundled("load_iris", "standardised")
    rate = {"sgd": "auto", "adagrad": 1.0, "adam": 0.05}[solver]
    clf = SoftmaxClassifier(0.01, solver=solver, learning_rate=rate, max_iter=2000, tol=1e-5, random_state=0)
    clf.fit(X, y)
    minimum = objective_of(SoftmaxClassifier(0.01, tol=1e-12).fit(X, y), X, y, 0.01)
    assert clf.stop_reason_ == "tol"
    assert objective_of(clf, X, y, 0.01) <= minimum * (1 + 2e-5)


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine", "inverse_scaling"])
@pytest.mark.parametrize("params", [{"momentum": 0.0}, {"nesterov": False}, {"nesterov": True}, {"average": True}])
def test_sgd_variants_and_schedules_learn(schedule, params):
    X, y = bundled("load_iris", "standardised")
    rate = 1.0 if params.get("momentum") == 0.0 else 0.1  # momentum 0.9 lengthens steps tenfold
    clf = SoftmaxClassifier(
        0.01, solver="sgd", learning_rate=rate, batch_size=10, schedule=schedule, tol=0.05, random_state=0
    )
    clf.set_params(**params).fit(X, y)
    minimum = objective_of(SoftmaxClassifier(0.01, tol=1e-12).fit(X, y), X, y, 0.01)
    assert objective_of(clf, X, y, 0.01) <= minimum * 1.06


@pytest.mark.parametrize("solver", ["auto", "sgd", "adagrad", "adam"])
@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("container", [np.asarray, sp.csr_array])
def test_all_engines_give_the_same_coefficients(solver, n_classes, container):
    X, y = bundled("load_iris", "raw")
    X, y = X[y < n_classes][::3], y[y < n_classes][::3]
    fits = []
    for engine in KERNELS:
        clf = SoftmaxClassifier(1e-2, solver=solver, engine=engine, batch_size=8, max_iter=7, tol=1e-2, random_state=0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # 7 epochs suffice to compare
            fits.append(clf.fit(container(X), y))
        assert fits[-1].solver_info_["engine"] == engine
    naive, *others = fits[::-1]
    for other in others:
        assert naive.n_iter_ == other.n_iter_
        assert_allclose(naive.coef_, other.coef_, rtol=1e-9, atol=1e-11)
        assert_allclose(naive.loss_curve_, other.loss_curve_, rtol=1e-10)


# --- stopping ---------------------------------------------------------------------------------------------


@on_bundled
@pytest.mark.parametrize("tol", [1e-1, 1e-3, 1e-6, 1e-9])
def test_tol_is_the_relative_excess_of_F(name, scaling, tol):
    X, y = bundled(name, scaling)
    clf = SoftmaxClassifier(tol=tol, random_state=0).fit(X, y)
    best = SoftmaxClassifier(tol=0, random_state=0).fit(X, y)
    minimum = objective_of(best, X, y, 1e-4)
    assert objective_of(clf, X, y, 1e-4) <= minimum * (1 + max(tol, 1e-12))
    if len(y) > 256:  # smaller data are always fitted to rounding
        assert clf.loss_curve_[-1] >= best.loss_curve_[-1] * (1 - 1e-12)


def warning_of(clf, X, y):
    """The text of the one warning of a fit."""
    with pytest.warns(ConvergenceWarning) as caught:
        clf.fit(X, y)
    (warning,) = caught
    assert warning.filename == __file__  # whoever called fit
    return str(warning.message)


@pytest.mark.parametrize("solver", ["auto", "sgd", "adam"])
def test_max_iter_above_tol_warns_with_the_figure_and_what_to_do(solver):
    X, y = bundled("load_wine", "raw")
    clf = SoftmaxClassifier(solver=solver, max_iter=2)
    said = warning_of(clf, X, y)
    assert clf.stop_reason_ == "max_iter"
    assert clf.n_iter_ == 2
    assert clf.excess_ > 1e-3
    figure = f"about {clf.excess_:.1e}, above" if np.isfinite(clf.excess_) else "not known to be below"
    advice = {
        "auto": "Raise max_iter or tol.",
        "sgd": "Scale the columns, change learning_rate, raise max_iter, or use solver='auto', "
        "which needs none of this.",
    }
    assert said == (
        f"SoftmaxClassifier did not converge: after 2 epochs (max_iter=2) (F - F*) / F* is {figure} tol=0.001. "
        f"{advice.get(solver, advice['sgd'])}"
    )


@pytest.mark.parametrize(
    ("excess", "figure"),
    [(0.0123, "is about 1.2e-02, above tol=1e-05."), (np.inf, "is not known to be below tol=1e-05.")],
)
@pytest.mark.parametrize(
    ("dtype", "advice"),
    [
        (np.float32, "Pass X as float64, centre or scale the columns, or raise tol."),
        (np.float64, "Remove outlying values, centre or scale the columns, or raise tol."),
    ],
)
def test_the_warning_of_rounding_depends_on_the_dtype(excess, figure, dtype, advice):
    X, y = bundled("load_iris", "raw")
    clf = SoftmaxClassifier(tol=1e-5).fit(X.astype(dtype), y)
    result = Result(None, [0.5] * 7, [], [], StopReason.PRECISION, excess, "newton")
    with pytest.warns(ConvergenceWarning) as caught:
        clf._warn_if_above_tol(result)
    assert str(caught[0].message) == (
        f"SoftmaxClassifier did not converge: after 7 epochs (max_iter=100) (F - F*) / F* {figure} "
        f"No step changes F by more than rounding. {advice}"
    )


def test_a_fit_that_rounding_ends_warns():
    X, y = bundled("load_digits", "raw")
    far = (X + 1e7).astype(np.float32)  # 8 digits, of which 7 are the offset
    clf = SoftmaxClassifier(fit_intercept=False, tol=1e-5, random_state=0)
    said = warning_of(clf, far, y)
    assert clf.stop_reason_ == "precision"
    assert "Pass X as float64, centre or scale the columns, or raise tol." in said


@pytest.mark.parametrize("reason", [StopReason.TOL, StopReason.CALLBACK, StopReason.EARLY_STOPPING])
def test_a_fit_that_ended_as_asked_does_not_warn(reason):
    clf = SoftmaxClassifier()
    clf._warn_if_above_tol(Result(None, [0.5], [], [], reason, np.inf, "newton"))
    clf._warn_if_above_tol(Result(None, [0.5], [], [], StopReason.MAX_ITER, 1e-3, "newton"))  # within tol all the same


def test_classes_without_a_minimum_are_warned_of():
    X = np.linspace(-1, 1, 40)[:, None]
    clf = SoftmaxClassifier(alpha=0.0)
    said = warning_of(clf, X, X[:, 0] > 0)
    assert clf.stop_reason_ == "separable"
    assert clf.excess_ == clf.excess_curve_[-1] == np.inf
    assert said == (
        "SoftmaxClassifier did not converge: the classes can be separated without error and alpha=0, so F has no "
        f"minimum and the coefficients grow without bound; the fit ended after {clf.n_iter_} epochs. Set alpha > 0."
    )


def test_a_solver_that_is_near_the_minimum_is_not_told_apart_by_the_bound_alone():
    # digits nearly separate: 1/2 g'Pg understates the excess tenfold; the certificate must not
    X, y = bundled("load_digits", "standardised")
    clf = SoftmaxClassifier(solver="sgd", tol=0.1, max_iter=400, random_state=0).fit(X, y)
    minimum = objective_of(SoftmaxClassifier(tol=1e-10).fit(X, y), X, y, 1e-4)
    assert clf.stop_reason_ == "tol"
    assert objective_of(clf, X, y, 1e-4) <= minimum * 1.13  # half a decrement: 0.1 of the model, 10 % short


def test_the_limit_of_rounding_ends_a_fit():
    X, y = bundled("load_digits", "raw")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # 1e-7 is left, unless rounding hides it
        clf = SoftmaxClassifier(tol=0).fit(X.astype(np.float32), y)
    assert clf.stop_reason_ in ("tol", "precision")
    assert clf.excess_ < 1e-6
    assert clf.n_iter_ < 100


def test_loss_curve_is_F_after_each_epoch():
    X, y = bundled("load_digits", "raw")
    clf = SoftmaxClassifier(batch_size=100, random_state=0).fit(X, y)
    assert len(clf.loss_curve_) == clf.n_iter_
    assert clf.loss_curve_[-1] == pytest.approx(objective_of(clf, X, y, 1e-4), rel=1e-9)


@pytest.mark.parametrize("solver", ["auto", "sgd"])
def test_early_stopping_keeps_the_best_epoch(solver):
    X, y = bundled("load_digits", "standardised")
    clf = SoftmaxClassifier(
        1e-7, solver=solver, early_stopping=True, n_iter_no_change=3, tol=0, batch_size=32, random_state=0
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        clf.fit(X, y)
    assert clf.stop_reason_ == "early_stopping"
    assert len(clf.validation_scores_) == clf.n_iter_ == len(clf.loss_curve_)
    best = int(np.argmax(clf.validation_scores_))
    assert best == clf.n_iter_ - 4  # 3 epochs without a better one
    assert clf.excess_ == np.inf
    shorter = clone(clf).set_params(max_iter=best + 1)
    if solver == "sgd":
        shorter.set_params(schedule="constant")
        clf = clone(clf).set_params(schedule="constant")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        clf.fit(X, y)
        best = int(np.argmax(clf.validation_scores_))
        shorter.set_params(max_iter=best + 1, early_stopping=True).fit(X, y)
    if solver == "sgd":
        assert_array_equal(clf.coef_, shorter.coef_)
    assert not hasattr(SoftmaxClassifier().fit(X[:50], y[:50]), "validation_scores_")


@pytest.mark.parametrize("rate", [1e3, 1e6])
def test_a_rate_that_diverges_is_made_smaller_until_it_learns(rate):
    X, y = bundled("load_iris", "standardised")
    clf = SoftmaxClassifier(1e-2, solver="sgd", learning_rate=rate, max_iter=300, tol=1e-2, random_state=0)
    clf.fit(X, y)
    minimum = objective_of(SoftmaxClassifier(1e-2, tol=1e-12).fit(X, y), X, y, 1e-2)
    assert clf.stop_reason_ == "tol"
    assert objective_of(clf, X, y, 1e-2) <= minimum * 1.02


def test_early_stopping_that_reaches_tol_first_keeps_the_minimum():
    X, y = bundled("load_breast_cancer", "raw")
    clf = SoftmaxClassifier(early_stopping=True, n_iter_no_change=50, random_state=0).fit(X, y)
    assert clf.stop_reason_ == "tol"
    assert clf.excess_ <= 1e-3
    assert objective_of(clf, X, y, 1e-4) < 1.3 * clf.loss_curve_[-1]  # a tenth of the rows are new to it


@pytest.mark.parametrize("solver", ["sgd", "adagrad", "adam"])
@pytest.mark.parametrize("rate", [1e3, 1e30, 1e300])
def test_a_rate_that_diverges_is_recovered_from_or_warned_of(solver, rate):
    X, y = bundled("load_iris", "raw")
    clf = SoftmaxClassifier(solver=solver, learning_rate=rate, batch_size=20, random_state=0)
    with pytest.warns(ConvergenceWarning):
        clf.fit(X, y)
    assert np.isfinite(clf.coef_).all()
    assert np.isfinite(clf.loss_curve_).all()
    assert clf.loss_curve_[-1] <= 2 * np.log(3)


# --- what a fit depends on --------------------------------------------------------------------------------


@pytest.mark.parametrize("solver", SOLVERS)
def test_the_same_seed_gives_the_same_coefficients_bit_for_bit(solver):
    X, y = bundled("load_digits", "standardised")
    fits = [
        SoftmaxClassifier(1e-2, solver=solver, batch_size=50, tol=0.5, random_state=seed).fit(X, y)
        for seed in (0, 0, 1)
    ]
    assert_array_equal(fits[0].coef_, fits[1].coef_)
    assert (fits[0].coef_ != fits[2].coef_).any()


@pytest.mark.parametrize("weights", [[3.0] * 150, np.arange(150) % 3])
def test_a_common_factor_of_the_weights_changes_nothing(weights):
    X, y = bundled("load_iris", "raw")
    weights = np.asarray(weights, dtype=float)
    fits = [SoftmaxClassifier(random_state=0).fit(X, y, w) for w in (weights, 1e-100 * weights)]
    assert_allclose(fits[0].coef_, fits[1].coef_, rtol=1e-6)


@pytest.mark.parametrize("container", [np.asarray, sp.csr_array])
@pytest.mark.parametrize("batch_size", ["auto", 16])
def test_float32_stays_float32_and_gives_float64s_answer(container, batch_size):
    X, y = bundled("load_digits", "raw")
    single = SoftmaxClassifier(1e-2, batch_size=batch_size, random_state=0)
    single.fit(container(X.astype(np.float32)), y)
    double = SoftmaxClassifier(1e-2, batch_size=batch_size, random_state=0).fit(container(X), y)
    assert single.coef_.dtype == single.intercept_.dtype == np.float32
    assert single.predict_proba(X.astype(np.float32)).dtype == np.float32
    assert double.coef_.dtype == np.float64
    assert_allclose(single.predict_proba(X), double.predict_proba(X), atol=0.01)  # tol=1e-3 each


@pytest.mark.parametrize("container", [np.asarray, sp.csr_array])
def test_float32_is_within_tol_with_sums_and_copies_of_columns_and_one_value(container):
    rng = np.random.RandomState(0)
    base = rng.randint(0, 256, (2000, 3)) + 0.0
    X = np.column_stack([base, base.mean(axis=1), 2 * base - base.mean(axis=1)[:, None], base[:, 0], np.full(2000, 9)])
    y = (base @ rng.standard_normal((3, 4)) / 20 + rng.gumbel(size=(2000, 4))).argmax(axis=1)
    single = SoftmaxClassifier(random_state=0).fit(container(X.astype(np.float32)), y)
    best = SoftmaxClassifier(tol=1e-10).fit(X, y)
    near = objective_of(single, X.astype(np.float32), y, 1e-4) / objective_of(best, X, y, 1e-4)
    assert near <= 1 + 1e-3


def test_warm_start_of_float32_and_of_a_column_that_no_longer_varies():
    X, y = bundled("load_wine", "raw")
    clf = SoftmaxClassifier(warm_start=True, random_state=0).fit(X.astype(np.float32), y)
    start = clf.loss_curve_[-1]
    assert clf.fit(X.astype(np.float32), y).loss_curve_[0] <= start * (1 + 1e-4)
    X[:, 3] = 5.0
    clf.fit(X, y)
    cold = SoftmaxClassifier(random_state=0).fit(X, y)
    assert not clf.coef_[:, 3].any()
    assert clf.loss_curve_[-1] == pytest.approx(cold.loss_curve_[-1], rel=1e-6)


@pytest.mark.parametrize("container", [np.asarray, sp.csr_array])
@pytest.mark.parametrize(("dtype", "offset"), [(np.float32, 1e3), (np.float64, 1e5), (np.float64, 1e8)])
def test_columns_far_from_0(container, dtype, offset):
    X, y = bundled("load_digits", "raw")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # sparse float32 columns are not centred
        clf = SoftmaxClassifier(1e-2, random_state=0).fit(container((X + offset).astype(dtype)), y)
    minimum = objective_of(SoftmaxClassifier(1e-2, tol=1e-10).fit(X, y), X, y, 1e-2)
    if container is np.asarray:
        assert clf.loss_curve_[-1] <= minimum * (1 + 2e-3)
    elif offset < 1e8:  # sparse rows are not centred: beyond it their digits are lost, but no fit breaks down
        assert clf.loss_curve_[-1] <= minimum * 1.05
    assert np.isfinite(clf.coef_).all()


def as_int64(X):
    X = sp.csr_array(X)
    return sp.csr_array((X.data, X.indices.astype(np.int64), X.indptr.astype(np.int64)), shape=X.shape)


def with_duplicates(X):
    X = sp.coo_array(X)
    again = (np.append(X.data / 2, X.data / 2), (np.tile(X.row, 2), np.tile(X.col, 2)))
    order = np.argsort(again[1][0], kind="stable")
    indptr = np.append(0, np.cumsum(np.bincount(again[1][0], minlength=X.shape[0])))
    doubled = sp.csr_array((again[0][order], again[1][1][order], indptr), shape=X.shape)
    assert not doubled.has_canonical_format
    return doubled


CONTAINERS = {
    "fortran": np.asfortranarray,
    "list": lambda X: X.tolist(),
    "strided": lambda X: np.repeat(X, 2, axis=1)[:, ::2],
    "pandas": pd.DataFrame,
    "polars": lambda X: pl.DataFrame(X, schema=[f"c{j}" for j in range(X.shape[1])]),
    "int64 indices": as_int64,
    "duplicates": with_duplicates,
    **{f.__name__: f for f in (sp.csr_array, sp.csc_array, sp.coo_array, sp.lil_array, sp.csr_matrix)},
}


@pytest.mark.parametrize("container", CONTAINERS.values(), ids=CONTAINERS)
@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_containers_give_the_same_answer(container, method):
    X, y = bundled("load_iris", "raw")
    kwargs = {"classes": [0, 1, 2]} if method == "partial_fit" else {}
    want = getattr(SoftmaxClassifier(random_state=0), method)(X, y, **kwargs)
    Z = container(X)
    got = getattr(SoftmaxClassifier(random_state=0), method)(Z, y, **kwargs)
    assert_allclose(got.coef_, want.coef_, rtol=1e-6, atol=1e-8)
    assert_allclose(got.predict_proba(Z), want.predict_proba(X), rtol=1e-6)


@pytest.mark.parametrize("frame", [pd.DataFrame, pl.DataFrame])
def test_names_of_columns_are_kept_and_checked(frame):
    X, y = bundled("load_iris", "raw")
    names = ["a", "b", "c", "d"]
    clf = SoftmaxClassifier().fit(frame({n: X[:, j] for j, n in enumerate(names)}), y)
    assert_array_equal(clf.feature_names_in_, names)
    with pytest.raises(ValueError, match="feature names"):
        clf.predict(frame(dict.fromkeys("bacd", X[:, 0])))


@pytest.mark.parametrize(
    "labels",
    [
        np.array(["setosa", "versicolor", "virginica"]),
        np.array(["x", "yy", "x"], dtype=object),
        np.array([-5, 7, 1000]),
        np.array([0.0, 1.0, 2.0]),
        np.array([True, False, True]),
    ],
    ids=["str", "object", "int", "float", "bool"],
)
def test_labels_of_any_type(labels):
    X, y = bundled("load_iris", "raw")
    target = labels[y]
    clf = SoftmaxClassifier().fit(X, target)
    assert_array_equal(clf.classes_, np.unique(labels))
    assert clf.score(X, target) > 0.7
    assert set(clf.predict(X)) <= set(labels)


# --- predictions ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["load_iris", "load_breast_cancer"])
def test_predictions_fit_together(name):
    X, y = bundled(name, "raw")
    clf = SoftmaxClassifier().fit(X, y)
    raw, proba = clf.decision_function(X), clf.predict_proba(X)
    assert_allclose(proba.sum(axis=1), 1.0, rtol=1e-12)
    assert_allclose(np.exp(clf.predict_log_proba(X)), proba, rtol=1e-10, atol=1e-300)
    assert_array_equal(clf.predict(X), clf.classes_[proba.argmax(axis=1)])
    if len(clf.classes_) == 2:
        assert raw.shape == (len(y),)
        assert_allclose(raw, np.log(proba[:, 1] / proba[:, 0]), rtol=1e-6, atol=1e-6)
    else:
        assert raw.shape == proba.shape


@pytest.mark.parametrize("n_classes", [2, 3])
def test_log_probabilities_are_finite_where_probabilities_underflow(n_classes):
    X, y = bundled("load_iris", "raw")
    clf = SoftmaxClassifier().fit(X[y < n_classes], y[y < n_classes])
    far = clf.predict_log_proba(1e6 * X)
    assert np.isfinite(far).all()
    assert far.min() < -745


@pytest.mark.parametrize("fitted_in", [np.float64, np.float32])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_predicting_does_not_copy_X(fitted_in, dtype):
    import tracemalloc

    X = np.random.RandomState(0).standard_normal((20000, 100)).astype(dtype)
    y = np.arange(20000) % 2
    clf = SoftmaxClassifier().fit(X[:500].astype(fitted_in), y[:500])
    tracemalloc.start()
    clf.predict_proba(X)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < X.nbytes / 4  # (n, 2) results and scikit-learn's finiteness check


@pytest.mark.parametrize("container", [np.asfortranarray, lambda X: pd.DataFrame(np.asfortranarray(X)).add_prefix("c")])
@pytest.mark.parametrize("settings", [{}, {"soft_targets": True}])
def test_float32_rows_in_fortran_order_are_copied_once(settings, container):
    import tracemalloc

    X = np.random.RandomState(0).standard_normal((20000, 100)).astype(np.float32)
    y = (X[:, 0] > 0).astype(np.intp)
    y = np.eye(2)[y] if settings else y
    peaks, coefs = [], []
    for rows in (X, container(X)):
        clf = SoftmaxClassifier(random_state=0, max_iter=1, tol=1e3, **settings).fit(rows[:100], y[:100])  # imports
        tracemalloc.start()
        coefs.append(clf.fit(rows, y).coef_)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 1.05 * X.nbytes  # names of columns, and buffers of NumPy's
    assert_array_equal(*coefs)


@pytest.mark.parametrize("engine", ["compiled", "naive"])
def test_every_engine_takes_float32_rows_in_fortran_order(engine):
    if engine == "compiled":
        pytest.importorskip("_sksoftmax_kernels")
    X, y = bundled("load_iris", "raw")
    X = X.astype(np.float32)
    first, second = (
        SoftmaxClassifier(engine=engine, random_state=0).fit(rows, y) for rows in (X, np.asfortranarray(X))
    )
    assert_array_equal(first.coef_, second.coef_)


@pytest.mark.parametrize(("n_classes", "n_tables"), [(2, 1), (16, 1), (40, 0)])
def test_an_epoch_allocates_no_table_beyond_the_one_stated(n_classes, n_tables):
    # Newton keeps one (n_outputs, n_samples) table while n_outputs <= n_features; all else is blocks
    import tracemalloc

    n_samples, n_features = 100000, 20
    X = np.random.RandomState(0).standard_normal((n_samples, n_features))
    y = np.arange(n_samples) % n_classes
    table = n_samples * 8 * (1 if n_classes == 2 else n_classes)
    unknowns = (n_features + 1) * (1 if n_classes == 2 else n_classes)
    factor = 5 * 8 * unknowns**2  # a Hessian, its factor, a block of rows and of what is summed
    few_a_row = 6 * 8 * n_samples + 2**21  # y and its codes, weights, permutation, their checks; blocks of 1 MiB
    if n_classes > 2:
        assert few_a_row < 0.6 * table
    for params in ({"solver": "sgd", "max_iter": 1, "tol": 1e3}, {}):  # sgd is certified by a Newton direction
        clf = SoftmaxClassifier(random_state=0, **params)
        for n_threads in (1, 2):
            tracemalloc.start()
            with threadpool_limits(n_threads):
                clf.fit(X, y)
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            in_the_pool = (n_threads - 1) * (4 * 8 * unknowns**2 + 2**21)  # results that wait, blocks
            assert peak < n_tables * table + few_a_row + factor + in_the_pool


# --- going on ---------------------------------------------------------------------------------------------


def test_warm_start_goes_on_from_the_last_coefficients():
    X, y = bundled("load_digits", "raw")
    clf = SoftmaxClassifier(warm_start=True).fit(X, y)
    cold = clf.n_iter_
    clf.fit(X, y)
    assert clf.n_iter_ < cold / 3
    clf.set_params(alpha=2e-4).fit(X, y)
    assert clf.n_iter_ < cold
    best = SoftmaxClassifier(2e-4, tol=1e-10).fit(X, y)
    assert objective_of(clf, X, y, 2e-4) <= objective_of(best, X, y, 2e-4) * (1 + 1e-3)


@pytest.mark.parametrize(("batch_size", "solver"), [(100, "preconditioned_sgd+newton"), ("auto", "newton")])
def test_warm_start_keeps_what_a_cold_start_would_leave(batch_size, solver):
    X, y = random_data(n_samples=20_000)
    clf = SoftmaxClassifier(warm_start=True, tol=1e-10, batch_size=batch_size, random_state=0).fit(X, y)
    assert clf.solver_info_["solver"] == solver
    best = clf.loss_curve_[-1]
    clf.set_params(tol=1e-3).fit(X, y)
    assert clf.n_iter_ == 1
    assert clf.loss_curve_[-1] <= best * (1 + 1e-12)


def test_warm_start_after_sparsify():
    X, y = bundled("load_iris", "raw")
    clf = SoftmaxClassifier(warm_start=True).fit(X, y).sparsify()
    assert clf.fit(X, y).n_iter_ <= 3  # rounding decides on the last


@pytest.mark.parametrize(("keep_rows", "solver"), [(True, "newton"), (False, "schedule_free")])
def test_partial_fit_learns_unscaled_data_in_one_pass(keep_rows, solver):
    X, y = bundled("load_digits", "raw")
    order = np.random.RandomState(0).permutation(len(y))
    clf = SoftmaxClassifier(engine="vectorized", keep_rows=keep_rows, random_state=0)
    for part in np.array_split(order, 10):
        clf.partial_fit(X[part], y[part], classes=np.arange(10))
    assert clf.score(X, y) > 0.93
    assert clf.solver_info_["solver"] == solver


@pytest.mark.parametrize("solver", SOLVERS)
def test_partial_fit_in_pieces_keeps_the_state_also_through_a_pickle(solver):
    X, y = bundled("load_iris", "raw")
    order = np.arange(150).reshape(3, 50).T.ravel()  # class after class after class: any piece has the priors
    X, y = X[order], y[order]
    pieces = (slice(0, 60), slice(60, 120), slice(120, 150))
    params = {"solver": solver, "batch_size": 10, "shuffle": False, "keep_rows": False, "random_state": 0}
    if solver != "auto":
        params["learning_rate"] = 0.01
    kept, pickled = SoftmaxClassifier(**params), SoftmaxClassifier(**params)
    for rows in pieces:
        kept.partial_fit(X[rows], y[rows], classes=[0, 1, 2])
        pickled = pickle.loads(pickle.dumps(pickled)).partial_fit(X[rows], y[rows], classes=[0, 1, 2])
    assert_array_equal(kept.coef_, pickled.coef_)
    whole = SoftmaxClassifier(**params).partial_fit(X, y, classes=[0, 1, 2])
    assert_allclose(kept.coef_, whole.coef_, rtol=1e-9)


def test_partial_fit_after_fit_stays_near_the_minimum():
    X, y = bundled("load_digits", "raw")
    clf = SoftmaxClassifier(1e-2, random_state=0).fit(X, y)
    before = objective_of(clf, X, y, 1e-2)
    clf.partial_fit(X[:200], y[:200])
    assert objective_of(clf, X, y, 1e-2) < 1.2 * before


def test_fit_forgets_what_partial_fit_learned():
    X, y = bundled("load_iris", "raw")
    clf = SoftmaxClassifier(random_state=0).partial_fit(X[:, :2], y, classes=[0, 1, 2, 3])
    clf.fit(X, y)
    assert_array_equal(clf.coef_, SoftmaxClassifier(random_state=0).fit(X, y).coef_)


@pytest.mark.parametrize("first", SOLVERS)
@pytest.mark.parametrize("second", SOLVERS)
def test_the_solver_may_change_between_calls_of_partial_fit(first, second):
    X, y = bundled("load_iris", "standardised")
    clf = SoftmaxClassifier(solver=first, random_state=0).partial_fit(X, y, classes=[0, 1, 2])
    clf.set_params(solver=second)
    for _ in range(5):
        clf.partial_fit(X, y)
    assert clf.score(X, y) > 0.75
    if second in ("auto", "dual"):  # rows that came before are not known to it, unless such a solver saw them
        wanted = {"newton", "dual", "dual+newton"} if first in ("auto", "dual") else {"schedule_free"}
        assert clf.solver_info_["solver"] in wanted
    else:
        assert clf.solver_info_["solver"] == second


def test_the_learning_rate_of_a_stream_is_the_one_reported():
    X, y = bundled("load_iris", "standardised")
    params = {"solver": "sgd", "momentum": 0.0, "batch_size": 150, "schedule": "constant"}
    clf = SoftmaxClassifier(**params).partial_fit(X, y, classes=[0, 1, 2])
    auto = clf.solver_info_["learning_rate"]
    clf.partial_fit(X[:10], y[:10])
    assert clf.solver_info_["learning_rate"] == auto  # of the first rows
    clf.set_params(learning_rate=1e-30)
    before = clf.coef_.copy()
    clf.partial_fit(X, y)
    assert clf.solver_info_["learning_rate"] == 1e-30
    assert_allclose(clf.coef_, before, rtol=1e-12)


def test_a_named_solvers_stream_takes_statistics_for_its_first_rate_alone(monkeypatch):
    from sksoftmax._training import plan

    taken, compute_moments = [], plan.compute_moments
    monkeypatch.setattr(plan, "compute_moments", lambda *a, **k: taken.append(1) or compute_moments(*a, **k))
    X, y = bundled("load_iris", "standardised")
    clf = SoftmaxClassifier(solver="sgd")
    for _ in range(3):
        clf.partial_fit(X, y, classes=[0, 1, 2])
    assert len(taken) == 1


def test_adam_after_fit_takes_a_first_step_of_its_rate():
    X, y = bundled("load_iris", "standardised")
    clf = SoftmaxClassifier(1e-2, solver="adam", schedule="constant", tol=1.0, random_state=0).fit(X, y)
    clf.set_params(learning_rate=0.01, batch_size=150)
    before = clf.coef_.copy()
    clf.partial_fit(X, y)
    assert np.abs(clf.coef_ - before).max() <= 0.01 * (1 + 1e-6) * 2  # and what centring the rows adds


def test_the_kind_of_a_streams_metric_is_that_of_its_first_piece():
    rng = np.random.RandomState(0)
    clf, kinds = SoftmaxClassifier(keep_rows=False, random_state=0), []
    for n_samples in (5, 4500, 5):  # a stream that began with the second would choose otherwise
        X = rng.standard_normal((n_samples, 450))
        clf.partial_fit(X, np.arange(n_samples) % 2, classes=[0, 1])
        kinds.append(clf.solver_info_["metric"])
    other = SoftmaxClassifier(keep_rows=False)
    other.partial_fit(rng.standard_normal((4500, 450)), np.arange(4500) % 2, [0, 1])
    assert kinds == ["diagonal"] * 3
    assert other.solver_info_["metric"] == "gram"


def test_a_stream_counts_the_rows_that_the_fit_was_made_of():
    X, y = bundled("load_iris", "raw")
    clf = SoftmaxClassifier(early_stopping=True, random_state=0).fit(X, y, np.full(150, 2.0))
    assert clf._stream.weight == 2.0 * clf._stream.n_samples == 270.0


def test_attributes_of_an_earlier_fit_do_not_outlive_it():
    X, y = bundled("load_iris", "raw")
    clf = SoftmaxClassifier(early_stopping=True, random_state=0).fit(X, y)
    clf.set_params(early_stopping=False).fit(X, y)
    assert not hasattr(clf, "validation_scores_")
    clf.partial_fit(X, y)
    assert not any(hasattr(clf, name) for name in ("loss_curve_", "excess_curve_", "stop_reason_", "excess_"))


@pytest.mark.parametrize("offset", [0.0, 1e2, 1e4])
@pytest.mark.parametrize("first", [1, 2, 100])
@pytest.mark.parametrize("keep_rows", [True, False])
def test_a_stream_learns_whatever_the_size_of_its_first_piece(first, offset, keep_rows):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((2000, 5))
    y = (X[:, 0] + X[:, 1] > 0).astype(int)
    X += offset
    clf = SoftmaxClassifier(keep_rows=keep_rows, random_state=0).partial_fit(X[:first], y[:first], classes=[0, 1])
    for start in range(first, 2000, 100):
        clf.partial_fit(X[start : start + 100], y[start : start + 100])
    assert clf.score(X, y) > 0.95


def test_float32_columns_that_vary_in_their_last_digits_are_not_taken_for_constant():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2000, 1))
    y = (x[:, 0] + 0.5 * rng.standard_normal(2000) > 0).astype(int)
    X = (x + 5e6).astype(np.float32)  # two digits after the point are left
    clf = SoftmaxClassifier().fit(X, y)
    best = SoftmaxClassifier(tol=1e-10).fit(X.astype(np.float64), y)
    assert clf.loss_curve_[-1] <= best.loss_curve_[-1] * (1 + 1e-3)


def test_a_fit_that_conjugate_gradients_cannot_finish_still_ends_at_tol():
    rng = np.random.default_rng(0)
    X = np.exp(rng.standard_normal((300, 300)) + 1.5 * rng.standard_normal(300))
    y = rng.integers(0, 3, 300)
    clf = SoftmaxClassifier(random_state=0).fit(X, y)
    assert clf.stop_reason_ == "tol"
    best = SoftmaxClassifier(tol=1e-5, max_iter=1000, random_state=0).fit(X, y)
    assert clf.loss_curve_[-1] <= best.loss_curve_[-1] * (1 + 2e-3)


def test_small_pieces_of_many_classes_are_taken_without_a_warning():
    clf = SoftmaxClassifier()
    clf.partial_fit(np.random.RandomState(0).standard_normal((25, 3)), np.arange(25), classes=np.arange(30))


def test_partial_fit_takes_weights():
    X, y = bundled("load_iris", "raw")
    weight = np.arange(150) % 3
    params = {"batch_size": 1000, "keep_rows": False, "random_state": 0}
    left = SoftmaxClassifier(**params).partial_fit(X, y, [0, 1, 2], weight)
    right = SoftmaxClassifier(**params).partial_fit(np.repeat(X, weight, axis=0), np.repeat(y, weight), [0, 1, 2])
    factors = SoftmaxClassifier(**params, class_weight={0: 1.0, 1: 3.0}).partial_fit(X, y, [0, 1, 2])
    as_weights = SoftmaxClassifier(**params).partial_fit(X, y, [0, 1, 2], np.where(y == 1, 3.0, 1.0))
    assert_allclose(factors.coef_, as_weights.coef_, rtol=1e-10)
    assert_allclose(left.coef_, right.coef_, rtol=0.5, atol=0.05)  # the metric's damping counts rows


# --- bad input --------------------------------------------------------------------------------------------


def bad(X=None, y=None, weight=None):
    good_X, good_y = bundled("load_iris", "raw")
    return (good_X if X is None else X(good_X.copy())), (good_y if y is None else y(good_y)), weight


def put(value):
    def change(X):
        X = X.astype(float)
        X.flat[3] = value
        return X

    return change


BAD = {
    "NaN in X": (bad(X=put(np.nan)), "Input X contains NaN"),
    "inf in X": (bad(X=put(np.inf)), "Input X contains infinity"),
    "NaN in y": (bad(y=put(np.nan)), "Input y contains NaN"),
    "NaN in weights": (bad(weight=np.full(150, np.nan)), "Input sample_weight contains NaN"),
    "negative weights": (bad(weight=np.linspace(-1, 1, 150)), "sample_weight must not be negative, got -1"),
    "zero weights": (bad(weight=np.zeros(150)), "(?i)sample.weight"),
    "few weights": (bad(weight=np.ones(149)), r"one per row, of shape \(150,\), got shape \(149,\)"),
    "weights whose sum overflows": (bad(weight=np.full(150, 1e307)), r"sample_weight must sum to 1e\+200 at most, got"),
    "few labels": (bad(y=lambda y: y[1:]), "inconsistent numbers of samples"),
    "text in X": (bad(X=lambda X: np.full(X.shape, "a")), "could not convert string"),
    "continuous y": (bad(y=lambda y: y + 0.5 * np.arange(150) / 150), "Unknown label type"),
    "one class": (bad(y=lambda y: np.full(150, "only")), "at least two classes, got only one class, .*'only'"),
    "1-d X": (bad(X=lambda X: X[:, 0]), "Expected 2D array"),
    "2-d y": (bad(y=lambda y: np.eye(3)[y]), "should be a 1d array"),
}


@pytest.mark.parametrize(("data", "message"), BAD.values(), ids=BAD)
@pytest.mark.parametrize("method", ["fit", "partial_fit"])
@pytest.mark.parametrize("is_fitted", [False, True])
def test_bad_data_raise_and_change_nothing(data, message, method, is_fitted):
    X, y, weight = data
    clf = SoftmaxClassifier(random_state=0)
    if is_fitted:
        clf.partial_fit(*bundled("load_iris", "raw"), classes=[0, 1, 2])
    before = pickle.dumps(vars(clf))
    if method == "partial_fit" and "only one class" in message:
        pytest.skip("rows of one class are no error in a stream")
    if method == "partial_fit" and data is BAD["zero weights"][0]:
        pytest.skip("rows of weight 0 change nothing in a stream")
    kwargs = {"classes": [0, 1, 2]} if method == "partial_fit" else {}
    with pytest.raises(ValueError, match=message):
        getattr(clf, method)(X, y, sample_weight=weight, **kwargs)
    assert pickle.dumps(vars(clf)) == before


@pytest.mark.parametrize("method", ["fit", "partial_fit"])
@pytest.mark.parametrize("weight", [-1.0, np.nan, np.inf])
def test_class_weights_that_are_none_raise(method, weight):
    kwargs = {"classes": [0, 1, 2]} if method == "partial_fit" else {}
    clf = SoftmaxClassifier(class_weight={0: weight})
    with pytest.raises(ValueError, match="class_weight must hold finite weights >= 0"):
        getattr(clf, method)(*bundled("load_iris", "raw"), **kwargs)
    clf.set_params(class_weight={0: 0.0, 1: 0.0, 2: 0.0})
    with pytest.raises(ValueError, match="class_weight must be positive for at least one class of the rows"):
        getattr(clf, method)(*bundled("load_iris", "raw"), **kwargs)


def _without_weight(way, X, y, weight, **settings):
    """A model of these rows, some of weight 0, fitted in one of several ways."""
    settings = {"alpha": 1e-3, "tol": 1e-10, "max_iter": 500, "random_state": 0, **settings}
    if way == "partial_fit":
        return SoftmaxClassifier(**settings).partial_fit(X, y, np.unique(y), weight)
    if way == "fit_batches":
        pieces = [(X[i::3], y[i::3], weight[i::3]) for i in range(3)]
        return SoftmaxClassifier(**settings).fit_batches(pieces)
    if way == "class_weight":
        return SoftmaxClassifier(class_weight=dict(enumerate(np.bincount(y, weight) > 0)), **settings).fit(X, y)
    if way == "soft_targets":
        return SoftmaxClassifier(soft_targets=True, **settings).fit(X, np.eye(y.max() + 1)[y], weight)
    if way == "warm_start":
        return SoftmaxClassifier(warm_start=True, **settings).fit(X, y).fit(X, y, weight)
    return SoftmaxClassifier(**settings).fit(X, y, weight)


WAYS = ["fit", "fit_batches", "class_weight", "soft_targets", "warm_start", "partial_fit"]


@pytest.mark.parametrize("settings", [{}, {"l1_ratio": 0.3}, {"engine": "naive"}])
@pytest.mark.parametrize("way", WAYS)
def test_a_class_whose_rows_weigh_nothing_changes_no_other(way, settings):
    X, y = random_data(150, 3, 4)
    is_kept = y != 2
    clf = _without_weight(way, X, y, is_kept * 1.0, **settings)
    y_kept = np.unique(y[is_kept], return_inverse=True)[1]
    want = _without_weight(way, X[is_kept], y_kept, np.ones(len(y_kept)), **settings)
    assert_array_equal(clf.classes_, range(4))
    intercept = clf.intercept_[[0, 1, 3]]
    # both fits end within 1e-10 of the same minimum; those of a stream take the same steps
    assert_allclose(intercept - intercept.mean(), want.intercept_ - want.intercept_.mean(), atol=1e-4)
    assert_allclose(clf.coef_[[0, 1, 3]], want.coef_, atol=1e-4)
    if settings.get("l1_ratio"):
        assert not clf.coef_[2].any()
    else:
        assert clf.predict_proba(X)[:, 2].max() <= 0.5 / is_kept.sum()  # by Jensen's inequality: see `widened`


@pytest.mark.parametrize("way", WAYS)
def test_two_classes_of_weight_are_those_of_more(way):
    X, y = random_data(150, 3, 3)
    is_kept = y != 1
    clf = _without_weight(way, X, y, is_kept * 1.0)
    model = LogisticRegression(C=1 / (1e-3 * is_kept.sum()), tol=1e-10, max_iter=1000)
    model.fit(X, y, sample_weight=np.maximum(is_kept, 1e-9))  # a softmax of three classes, one of next to no weight
    tol = 0.3 if way == "partial_fit" else 1e-4  # fits of a stream end at 1e-2
    assert_allclose((clf.coef_[2] - clf.coef_[0]), model.coef_[2] - model.coef_[0], rtol=tol, atol=tol)


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("way", WAYS)
def test_one_class_of_weight_is_predicted(way, fit_intercept, n_classes):
    X, y = random_data(60, 3, n_classes)
    X = X + 3  # without intercept only the columns can tell the class
    clf = _without_weight(way, X, y, (y == 1) * 1.0, fit_intercept=fit_intercept, tol=1e-3)
    assert_array_equal(clf.classes_, range(n_classes))
    assert_array_equal(clf.predict(X), 1)
    if fit_intercept:
        assert not clf.coef_.any()
        assert clf.predict_proba(X)[:, 1].min() > 1 - n_classes / (2 * (y == 1).sum())


def test_bootstraps_by_weight_may_lack_a_class():
    X, y = make_classification(200, 10, weights=[0.95], random_state=0)
    bagged = BaggingClassifier(SoftmaxClassifier(), n_estimators=20, max_samples=0.1, random_state=0).fit(X, y)
    assert_array_equal(bagged.predict_proba(X).shape, (200, 2))
    boosted = AdaBoostClassifier(SoftmaxClassifier(), n_estimators=5, random_state=0)
    boosted.fit(X, y, sample_weight=(y == 0) * 1.0)
    assert_array_equal(boosted.classes_, [0, 1])


def test_early_stopping_scores_models_that_lack_a_class():
    X, y = random_data(300, 3, 4)
    clf = SoftmaxClassifier(early_stopping=True, class_weight={2: 0.0}, random_state=0)
    clf.fit(X, y, X_val=X, y_val=y)
    assert clf.score(X, y) in clf.validation_scores_


def test_a_class_of_weight_0_is_never_likely():
    X, y = bundled("load_iris", "raw")
    clf = SoftmaxClassifier(class_weight={1: 0.0}).fit(X, y)
    assert_array_equal(clf.classes_, [0, 1, 2])
    assert clf.predict_proba(X)[:, 1].max() < 0.01


@pytest.mark.parametrize(
    "params",
    [
        {"alpha": -1},
        {"alpha": np.nan},
        {"alpha": np.inf},
        {"alpha": "1"},
        {"l1_ratio": -0.1},
        {"l1_ratio": 1.1},
        {"l1_ratio": None},
        {"solver": "lbfgs"},
        {"engine": "gpu"},
        {"batch_size": 0},
        {"batch_size": 1.5},
        {"learning_rate": 0.0},
        {"learning_rate": "constant"},
        {"schedule": "step"},
        {"power_t": -1},
        {"momentum": 1.0},
        {"beta_1": 1.0},
        {"epsilon": 0.0},
        {"max_iter": 0},
        {"tol": -1e-3},
        {"tol": None},
        {"validation_fraction": 1.0},
        {"n_iter_no_change": 0},
        {"class_weight": "equal"},
        {"random_state": "seed"},
    ],
)
@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_parameters_out_of_range_raise_before_any_work(params, method):
    X, y = bundled("load_iris", "raw")
    clf = SoftmaxClassifier(**params)
    kwargs = {"classes": [0, 1, 2]} if method == "partial_fit" else {}
    with pytest.raises(InvalidParameterError, match=next(iter(params))):
        getattr(clf, method)(X, y, **kwargs)
    assert not hasattr(clf, "n_features_in_")


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"X": lambda X: X[:, :3]}, "X has 3 features, but SoftmaxClassifier is expecting 4"),
        ({"y": lambda y: y + 1}, r"classes \[0, 1, 2\] only, got \[3\] as well; give all classes"),
        ({"classes": [0, 1]}, r"classes=\[0, 1\] is not the same as on the last call"),
    ],
)
def test_partial_fit_that_does_not_fit_the_first_call_raises_and_changes_nothing(kwargs, message):
    X, y = bundled("load_iris", "raw")
    clf = SoftmaxClassifier(random_state=0).partial_fit(X, y, classes=[0, 1, 2])
    before = pickle.dumps(vars(clf))
    X, y = kwargs.get("X", np.asarray)(X), kwargs.get("y", np.asarray)(y)
    with pytest.raises(ValueError, match=message):
        clf.partial_fit(X, y, classes=kwargs.get("classes"))
    assert pickle.dumps(vars(clf)) == before


def test_the_first_partial_fit_needs_the_classes():
    clf = SoftmaxClassifier()
    with pytest.raises(ValueError, match="classes must be passed on the first call to partial_fit"):
        clf.partial_fit(*bundled("load_iris", "raw"))
    assert not hasattr(clf, "n_features_in_")


def test_partial_fit_refuses_balanced_class_weights_with_what_to_do():
    clf = SoftmaxClassifier(class_weight="balanced")
    with pytest.raises(ValueError, match="pass the weights as a dict"):
        clf.partial_fit(*bundled("load_iris", "raw"), classes=[0, 1, 2])


def test_a_partial_fit_that_overflows_raises_and_changes_nothing():
    X, y = bundled("load_iris", "raw")
    clf = SoftmaxClassifier(solver="sgd", learning_rate=1e300, batch_size=5, random_state=0)
    with pytest.raises(FloatingPointError, match="Lower learning_rate"):
        clf.partial_fit(1e30 * X, y, classes=[0, 1, 2])
    assert not hasattr(clf, "coef_")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda X, y: (X, y + 1), r"classes of the last fit, \[0, 1, 2\], got \[1, 2, 3\]"),
        (lambda X, y: (X[:, :2], y), "the 4 features of the last fit, got 2"),
    ],
)
def test_warm_start_from_another_problem_raises_and_changes_nothing(change, message):
    X, y = bundled("load_iris", "raw")
    clf = SoftmaxClassifier(warm_start=True).fit(X, y)
    before = pickle.dumps(vars(clf))
    with pytest.raises(ValueError, match=message):
        clf.fit(*change(X, y))
    assert pickle.dumps(vars(clf)) == before


@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_an_interrupted_fit_passes_the_interrupt_on_and_keeps_the_last_state(method, monkeypatch):
    X, y = bundled("load_iris", "raw")
    clf = SoftmaxClassifier(warm_start=True, random_state=0).partial_fit(X, y, classes=[0, 1, 2])
    before = pickle.dumps(vars(clf))

    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(get_kernel(choose_engine("auto")), "loss_grad", interrupt)
    with pytest.raises(KeyboardInterrupt):
        getattr(clf, method)(X, y)
    assert pickle.dumps(vars(clf)) == before


@pytest.mark.parametrize("method", ["predict", "predict_proba", "predict_log_proba", "decision_function"])
def test_predicting_before_a_fit_raises(method):
    with pytest.raises(NotFittedError):
        getattr(SoftmaxClassifier(), method)(np.eye(3))


LINE = re.compile(
    r"epoch +(?P<number>\d+)  F  (?P<value>\d\.\d{6}e[-+]\d\d)  excess +(?P<excess>-|\d\.\de[-+]\d\d)"
    r"(  validation (?P<score>\d\.\d{4}))?  (?P<seconds>\d+\.\d\d) s  (?P<rate>\d\.\de[-+]\d\d) rows/s"
)


@pytest.mark.parametrize("early_stopping", [False, True])
def test_verbose_prints_a_line_an_epoch(early_stopping, capsys):
    X, y = bundled("load_digits", "raw")
    clf = SoftmaxClassifier(verbose=1, batch_size=64, early_stopping=early_stopping, random_state=0).fit(X, y)
    header, *lines, end = capsys.readouterr().out.splitlines()
    assert (
        header
        == "F after each epoch, excess (F - F*) / F* (-: not known yet), seconds since the start, rows per second:"
    )
    reason = re.fullmatch(r"ended by '(\w+)' after (\d+) epochs and \S+ s: F \S+, excess (\S+|not known)", end)
    assert (reason[1], int(reason[2])) == (clf.stop_reason_, clf.n_iter_)
    assert reason[3] == ("not known" if early_stopping else f"{clf.excess_:.1e}")
    lines = [LINE.fullmatch(line) for line in lines]
    assert [int(line["number"]) for line in lines] == list(range(1, clf.n_iter_ + 1))
    assert_allclose([float(line["value"]) for line in lines], clf.loss_curve_, rtol=1e-6)
    known = [np.inf if line["excess"] == "-" else float(line["excess"]) for line in lines]
    assert_allclose(known, clf.excess_curve_, rtol=0.06)
    if early_stopping:
        assert_allclose([float(line["score"]) for line in lines], clf.validation_scores_, atol=1e-4)
    else:
        assert lines[0]["score"] is None
    seconds = [float(line["seconds"]) for line in lines]
    assert seconds == sorted(seconds)
    assert all(float(line["rate"]) > 0 for line in lines)
    SoftmaxClassifier().fit(X, y)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "settings",
    [
        {"solver": "dual"},
        {"solver": "dual", "l1_ratio": 0.5},
        {"solver": "dual", "early_stopping": True},
        {"batch_size": 16},
        {"solver": "sgd", "max_iter": 5},
    ],
)
@pytest.mark.parametrize("load", ["load_digits", "load_wine"])
def test_verbose_prints_no_value_below_the_minimum_and_changes_nothing(load, settings, capsys):
    if settings.get("solver") == "dual":
        pytest.importorskip("_sksoftmax_kernels")
    X, y = bundled(load, "raw")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        quiet = SoftmaxClassifier(1e-3, random_state=0, **settings).fit(X, y)
        told = SoftmaxClassifier(1e-3, random_state=0, verbose=1, **settings).fit(X, y)
    printed = [float(line.split("F ")[1].split()[0]) for line in capsys.readouterr().out.splitlines()[1:-1]]
    assert_array_equal(told.coef_, quiet.coef_)
    assert_allclose(printed, told.loss_curve_, rtol=1e-6)
    if not settings.get("early_stopping"):  # of other rows
        l1_ratio = settings.get("l1_ratio", 0)
        best = SoftmaxClassifier(1e-3, l1_ratio=l1_ratio, tol=1e-8, max_iter=500, engine="vectorized").fit(X, y)
        assert min(printed) >= best.loss_curve_[-1] * (1 - 1e-6)  # seven digits are printed


@pytest.mark.parametrize("solver", ["auto", "sgd"])
def test_the_excess_curve_is_an_estimate_an_epoch_as_far_as_it_is_known(solver):
    X, y = bundled("load_digits", "standardised")
    clf = SoftmaxClassifier(1e-2, solver=solver, batch_size=64, tol=0.05, max_iter=300, random_state=0).fit(X, y)
    minimum = objective_of(SoftmaxClassifier(1e-2, tol=1e-10).fit(X, y), X, y, 1e-2)
    curve, values = np.array(clf.excess_curve_), np.array(clf.loss_curve_)
    assert len(curve) == clf.n_iter_
    assert curve[0] == np.inf
    assert curve[-1] == clf.excess_ <= 0.05
    is_known = np.isfinite(curve)
    gap = (values - minimum) / minimum
    assert (gap[is_known] <= 1.3 * curve[is_known] + 1e-9).all()


def test_the_excess_of_a_fit_that_ends_at_max_iter_is_that_of_its_last_epoch():
    X, y = bundled("load_digits", "standardised")
    clf = SoftmaxClassifier(1e-2, solver="sgd", max_iter=4, random_state=0)
    with pytest.warns(ConvergenceWarning):
        clf.fit(X, y)
    assert clf.excess_curve_ == [np.inf, np.inf, np.inf, clf.excess_]
    assert np.isfinite(clf.excess_)


def test_hyperparameters_are_kept_as_given():
    clf = SoftmaxClassifier(0.5, class_weight={0: 2.0}, random_state=3)
    assert clone(clf).get_params() == clf.get_params()
    with pytest.raises(TypeError):
        SoftmaxClassifier(0.5, True)
    assert SoftmaxClassifier().get_params()["alpha"] == 1e-4


@pytest.mark.parametrize(("solver", "limit"), [("sgd", 1e-2), ("adam", 2e-2), ("adagrad", 1e-1)])
@pytest.mark.parametrize("name", ["load_iris", "load_wine", "load_breast_cancer", "load_digits"])
def test_a_named_solver_comes_near_the_minimum_untuned_in_100_epochs(solver, limit, name):
    X, y = bundled(name, "standardised")
    clf = SoftmaxClassifier(1e-3, solver=solver, tol=0.0, random_state=0)
    with pytest.warns(ConvergenceWarning):
        clf.fit(X, y)
    best = SoftmaxClassifier(1e-3, tol=1e-9).fit(X, y)
    assert objective_of(clf, X, y, 1e-3) <= best.loss_curve_[-1] * (1 + limit)


@pytest.mark.parametrize(
    ("n_samples", "n_features", "sgd", "adam"),
    [(5, 2, 5, 5), (99, 2, 99, 99), (150, 4, 16, 16), (1000, 200, 125, 16), (5000, 20, 78, 78), (99999, 9, 256, 256)],
)
def test_an_auto_batch_is_a_64th_of_the_rows_within_limits(n_samples, n_features, sgd, adam):
    X, y = np.random.default_rng(0).standard_normal((n_samples, n_features)), np.arange(n_samples) % 2
    for solver, size in (("sgd", sgd), ("adam", adam), ("adagrad", adam)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            clf = SoftmaxClassifier(solver=solver, max_iter=1, random_state=0).fit(X, y)
        assert clf.solver_info_["batch_size"] == size


@pytest.mark.parametrize(
    ("cls", "name", "hint"),
    [
        (SoftmaxClassifier, "C", r"use alpha = 1 / \(C \* n_samples\)"),
        (SoftmaxClassifier, "penalty", "use l1_ratio"),
        (SoftmaxClassifier, "n_jobs", "the threads of the BLAS"),
        (SoftmaxClassifierCV, "Cs", "use alphas"),
        (SoftmaxClassifierCV, "alpha", "use alphas"),
    ],
)
def test_a_parameter_of_another_estimator_is_answered_by_ours(cls, name, hint):
    for error, call in ((TypeError, lambda: cls(**{name: 1})), (ValueError, lambda: cls().set_params(**{name: 1}))):
        with pytest.raises(error, match=f"{cls.__name__} has no parameter '{name}': .*{hint}"):
            call()
    with pytest.raises(TypeError, match="unexpected keyword argument 'no_such'"):
        cls(no_such=1)


def test_a_solver_of_logistic_regression_and_a_negative_alpha_are_answered_in_plain_words():
    X, y = load_iris(return_X_y=True)
    with pytest.raises(ValueError, match=r"'auto' replaces the solvers of LogisticRegression\). Got 'lbfgs'"):
        SoftmaxClassifier(solver="lbfgs").fit(X, y)
    with pytest.raises(ValueError, match=r"a float in the range \[0.0, inf\). Got -1"):
        SoftmaxClassifier(alpha=-1).fit(X, y)
