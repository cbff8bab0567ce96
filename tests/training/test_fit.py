"""Test the minimization of F, and the rounding of its result."""

import numpy as np
import pytest
import scipy.sparse as sp
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.datasets import load_iris
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from sksoftmax import SoftmaxClassifier
from sksoftmax._engines import vectorized
from sksoftmax._maths.objective import objective_value, prior_objective, prior_params, value_and_grad
from sksoftmax._maths.reduction import reduce_columns
from sksoftmax._training.fit import NO_MONITOR, finalize, may_rotate, minimize
from sksoftmax._training.loop import Result, StoppingCriteria
from sksoftmax._training.settings import Settings
from sksoftmax._training.start import first_sample
from sksoftmax._training.stopping import StopReason
from sksoftmax._types import Batch, Params, Problem
from tests.problems import problem as problem_by_rows
from tests.problems import random_data, random_params


def with_empty_columns(X, n_features=100):
    """Return X with empty columns added, and the positions of its own columns."""
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
    """Return fewer rows than columns, class codes and weights.

    The columns are far from 0 and their scales span two decades; column 7 is constant.
    """
    rng = np.random.default_rng(0)
    X = (rng.standard_normal((n_samples, n_features)) + 3) * 10 ** rng.uniform(-1, 1, n_features)
    X[:, 7] = 2.5
    return X.astype(dtype), rng.permutation(np.arange(n_samples) % n_classes), rng.uniform(0.5, 2, n_samples)


def problem_of(X, y, weight, *, fit_intercept, alpha=1e-2):
    n_classes = int(y.max()) + 1
    return Problem(Batch(X, y.astype(np.intp), weight), n_classes, alpha, fit_intercept, vectorized, weight.mean())


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("n_classes", [2, 3])
def test_a_few_dense_rows_have_the_same_f_in_their_own_space(n_classes, fit_intercept, dtype):
    X, y, weight = few_rows(n_classes, dtype=dtype)
    problem = problem_of(X, y, weight, fit_intercept=fit_intercept)
    narrow = reduce_columns(problem, may_rotate=True)
    assert narrow.problem.data.X.shape == (40, 40)
    rng = np.random.default_rng(1)
    inside = Params(
        rng.standard_normal((problem.n_outputs, 40)) / 30, rng.standard_normal(problem.n_outputs) * fit_intercept
    )
    value = value_and_grad(narrow.problem, inside).value
    same = value_and_grad(problem._replace(data=problem.data._replace(X=X.astype(float))), narrow.back(inside)).value
    assert same == pytest.approx(value, rel=1e-10)  # a rotation, except for rounding
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
    assert_allclose(clf.coef_, peer.coef_, atol=1e-5 * np.abs(peer.coef_).max())  # the accuracy of newton-cg
    assert_allclose(clf.predict_proba(X), peer.predict_proba(X), atol=1e-5)
    if fit_intercept:
        assert_allclose(clf.coef_[:, 7], 0, atol=1e-12)  # the constant column


def test_rounding_is_no_column_where_rows_say_nothing_new():
    X, y, weight = few_rows()
    X[:, 7] = 0.1  # the computed mean differs from 0.1 by rounding
    X[30:] = X[:10]
    for fit_intercept, rank in ((True, 29), (False, 30)):
        narrow = reduce_columns(problem_of(X, y, weight, fit_intercept=fit_intercept), may_rotate=True)
        assert np.count_nonzero(np.abs(narrow.problem.data.X).max(axis=0)) == rank
    constant = np.full((60, 300), 0.1)
    classes = np.arange(60) % 3 * (np.arange(60) % 5 > 0)
    clf = SoftmaxClassifier(fit_intercept=False).fit(constant, classes)  # rank 1; all other directions are rounding
    assert_allclose(clf.predict_proba(constant)[0], np.bincount(classes) / 60, atol=1e-2)
    assert_allclose(clf.coef_, clf.coef_[:, :1] * np.ones(300), rtol=1e-9)


def test_without_penalty_unseen_rows_are_predicted_as_before():
    rng = np.random.default_rng(0)
    hidden = rng.standard_normal((400, 8))
    X = hidden @ rng.standard_normal((8, 600)) + 0.1 * rng.standard_normal((400, 600))
    y = (hidden @ rng.standard_normal((8, 3))).argmax(axis=1)
    X[100:110], y[100:110] = X[:10], y[:10]
    with pytest.warns(ConvergenceWarning, match="F has no minimum"):  # 120 rows of 600 columns are separable
        clf = SoftmaxClassifier(0.0, tol=1e-2, random_state=0).fit(X[:120], y[:120])
    assert clf.score(X[120:], y[120:]) > 0.6
    assert np.abs(clf.coef_).max() < 100


@pytest.mark.parametrize("scale", [1e37, 1e200, 1e307])
def test_a_few_dense_rows_may_have_any_scale(scale):
    X, y, _ = few_rows()
    clf = SoftmaxClassifier().fit(X / 100 * scale, y)
    assert np.isfinite(clf.coef_).all()
    assert clf.score(X / 100 * scale, y) == 1.0


def test_columns_that_rounding_would_hide_stay_as_they_are():
    X, y, weight = few_rows()
    X[:, 3] *= 1e12
    assert reduce_columns(problem_of(X, y, weight, fit_intercept=True), may_rotate=True) is None


def test_rows_of_mostly_zeros_and_fits_without_penalty_keep_their_columns():
    X, y, weight = few_rows()
    problem, settings = problem_of(X, y, weight, fit_intercept=True), SoftmaxClassifier()._settings()
    assert may_rotate(problem, settings)
    assert not may_rotate(problem._replace(alpha=0.0), settings)
    X[:, 10:] = 0
    assert not may_rotate(problem, settings)


@pytest.mark.parametrize(
    ("n_samples", "n_features", "n_classes", "want"),
    [(40, 80, 2, True), (40, 79, 2, False), (1001, 2100, 2, False), (1001, 2100, 6, True)],
)
def test_rows_have_a_space_of_their_own_if_they_are_few(n_samples, n_features, n_classes, want):
    X, y, weight = few_rows(n_classes, n_samples, n_features)
    problem = problem_of(X, y, weight, fit_intercept=True)
    assert (reduce_columns(problem, may_rotate=True) is not None) is want
    assert reduce_columns(problem, may_rotate=False) is None
    assert reduce_columns(problem._replace(l1_ratio=0.5), may_rotate=True) is None


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


AUTO = Settings("auto", None, None, "linear", 0.5, 0.9, True, False, 0.9, 0.999, 1e-8, 100, 1e-3)


def minimised(case, params, *, is_warm, max_iter=100):
    criteria = StoppingCriteria(max_iter, 1e-3, None, 5)
    return minimize(case, params, AUTO, criteria, is_warm=is_warm, rng=np.random.RandomState(0), monitor=NO_MONITOR)[0]


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("size", [1e2, 1e8])
def test_a_warm_start_above_the_priors_is_a_cold_one(n_classes, size):
    case = problem_by_rows(*random_data(300, n_classes=n_classes))
    start = random_params(case.n_outputs, 4)
    start = Params(size * start.coef, start.intercept)
    assert not value_and_grad(case, start).value <= prior_objective(case)
    cold, warm = minimised(case, prior_params(case), is_warm=False), minimised(case, start, is_warm=True)
    assert_array_equal(warm.params.coef, cold.params.coef)
    assert warm.loss_curve == cold.loss_curve


def test_a_warm_start_below_the_priors_is_gone_on_from():
    case = problem_by_rows(*random_data(300))
    cold = minimised(case, prior_params(case), is_warm=False)
    warm = minimised(case, cold.params, is_warm=True)
    assert len(warm.loss_curve) == 1
    assert warm.stop_reason is StopReason.TOL


def result_of(params, value, excess=1e-5, reason=StopReason.TOL):
    return Result(params, [value], [excess], [], reason, excess, "newton")


def minimum_of(X, y):
    case = problem_by_rows(X, y)
    wide = problem_by_rows(X.astype(np.float64), y)
    result = minimised(wide, prior_params(wide), is_warm=False)
    return case, result_of(result.params, result.loss_curve[-1])


def test_parameters_that_float32_holds_are_handed_over_in_it():
    X, y = random_data(300, dtype=np.float32)
    case, result = minimum_of(X, y)
    final = finalize(case, result, 1e-3)
    assert {part.dtype for part in final.params} == {np.dtype(np.float32)}
    assert final.excess == result.excess
    assert_allclose(final.params.coef, result.params.coef, rtol=1e-6)  # the rounding of float32
    assert_allclose(result.params.coef.sum(axis=0), 0, atol=1e-12)


def test_float64_parameters_are_handed_over_as_they_are_less_a_common_shift():
    case = problem_by_rows(*random_data(300))
    params = random_params(3, 4)
    final = finalize(case, result_of(params, 1.0), 1e-3)
    assert_allclose(final.params.coef, params.coef - params.coef.mean(axis=0), rtol=1e-15)
    assert final.params.intercept.sum() == pytest.approx(0, abs=1e-15)


@pytest.mark.parametrize(("tol", "dtype"), [(1e-6, np.float64), (1e9, np.float32)])
def test_parameters_that_float32_loses_are_handed_over_in_float64_if_tol_asks_for_it(tol, dtype):
    Z, y = random_data(300)
    X = (Z + np.array([1e6, 1e4, 0, 0])).astype(np.float32)  # a change of 1e-7 in coefficients of 1 moves z by 0.1
    case, result = minimum_of(X, y)
    assert finalize(case, result._replace(excess=1e-12), tol).params.coef.dtype == dtype


def test_a_fit_that_neither_dtype_holds_says_so():
    X, y = random_data(300, dtype=np.float32)
    case, result = minimum_of(X, y)
    far = Params(result.params.coef * 3, result.params.intercept)  # F is higher there than in the fit
    final = finalize(case, result._replace(params=far), 1e-9)
    assert final.excess > 1e-2
    assert final.stop_reason is StopReason.PRECISION
    assert finalize(case, result._replace(params=far, stop_reason=StopReason.MAX_ITER), 1e-9).stop_reason is (
        StopReason.MAX_ITER
    )


@pytest.mark.parametrize("offset", [1e6, 1e7])
def test_predictions_of_float64_coefficients_are_theirs_of_float32_rows(offset):
    rng = np.random.RandomState(0)
    Z = rng.standard_normal((500, 6)) * 10.0 ** rng.uniform(0, 1, 6)
    X = (Z + offset).astype(np.float32)
    y = ((Z / Z.std(axis=0)).sum(axis=1) + rng.logistic(size=500) > 0).astype(int)
    clf = SoftmaxClassifier(tol=1e-6, random_state=0).fit(X, y)
    assert clf.coef_.dtype == np.float64
    assert clf.stop_reason_ == "tol"
    exact = X.astype(np.float64) @ clf.coef_[0] + clf.intercept_
    assert_allclose(clf.decision_function(X), exact, rtol=1e-9, atol=1e-9)
    far = SoftmaxClassifier(tol=1e-6, random_state=0).fit(X.astype(np.float64), y)
    assert_allclose(clf.predict_proba(X), far.predict_proba(X.astype(np.float64)), atol=0.01)  # 10 tol^(1/2)


# --- small problems ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["auto", "naive"])
@pytest.mark.parametrize("unit", [1e3, 1e4])
@pytest.mark.parametrize("n_before", [15, 75])
def test_rows_in_two_units_end_within_tol(n_before, unit, engine):
    """The rows in the large unit have most of the curvature; the fit has to continue on the other rows."""
    X, y = load_iris(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(y))
    X, y = X[order].astype(np.float32), y[order]
    X[n_before:] *= unit
    model = SoftmaxClassifier(1e-2, engine=engine, random_state=0).fit(X, y)
    exact = SoftmaxClassifier(1e-2, tol=1e-9, random_state=0).fit(X.astype(np.float64), y)
    problem = problem_by_rows(X.astype(np.float64), y, alpha=1e-2)
    values = [
        value_and_grad(problem, Params(one.coef_.astype(np.float64), one.intercept_.astype(np.float64))).value
        for one in (model, exact)
    ]
    assert model.stop_reason_ == "tol"
    assert values[0] <= (1 + 1e-3) * values[1]


def test_a_small_float32_fit_is_the_float64_one_and_ends_by_its_tol():
    X, y = load_iris(return_X_y=True)
    single = SoftmaxClassifier(1e-3, random_state=0).fit(X.astype(np.float32), y)
    assert single.coef_.dtype == np.float32
    assert single.n_iter_ < SoftmaxClassifier(1e-3, random_state=0).fit(X, y).n_iter_
    assert 0 < single.excess_ <= 1e-3


# --- the start by a sample of the rows -------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n_classes", [2, 4])
def test_a_fit_that_starts_from_a_sample_ends_within_tol_of_the_minimum(n_classes, dtype):
    X, y = random_data(60_000, n_classes=n_classes)
    data = problem_by_rows(X.astype(dtype), y)
    settings = Settings(**dict.fromkeys(Settings._fields))._replace(solver="auto", max_iter=100, tol=1e-3)
    sample = first_sample(data, settings)
    assert sample is not None
    assert 16 * sample.n_samples < data.n_samples
    clf = SoftmaxClassifier(data.alpha, random_state=0).fit(X.astype(dtype), y)
    best = SoftmaxClassifier(data.alpha, tol=1e-10).fit(X, y)
    assert clf.solver_info_["solver"] == "newton"
    assert clf.n_iter_ <= 2
    value = objective_value(data, Params(clf.coef_[-data.n_outputs :].astype(float), clf.intercept_[-data.n_outputs :]))
    assert value <= best.loss_curve_[-1] * (1 + 1e-3)
    assert clf.excess_ <= 1e-3


def test_no_sample_is_fitted_that_misses_a_class_or_whose_size_the_user_decides():
    X, y = random_data(60_000, n_classes=3)
    settings = Settings(**dict.fromkeys(Settings._fields))._replace(solver="auto", max_iter=100, tol=1e-3)
    assert first_sample(problem_by_rows(X, y), settings) is not None
    for change in ({"batch_size": 500}, {"learning_rate": 0.1}, {"solver": "sgd"}):
        assert first_sample(problem_by_rows(X, y), settings._replace(**change)) is None
    y = np.where(y == 2, 0, y)
    y[1] = 2  # a row that the sample leaves out
    assert first_sample(problem_by_rows(X, y), settings) is None
    clf = SoftmaxClassifier(1e-3, random_state=0).fit(X, y)
    assert clf.excess_ <= 1e-3


def test_a_tolerance_below_the_rounding_of_float32_is_reached_in_float64():
    rng = np.random.default_rng(0)
    x = rng.standard_normal(1500)
    X = np.outer(x, 10.0 ** rng.integers(-3, 4, 21)).astype(np.float32)  # one column, in many units
    y = (x + rng.logistic(size=1500) > 0).astype(int)
    clf = SoftmaxClassifier(1e-5, tol=1e-7).fit(X, y)
    best = SoftmaxClassifier(1e-5, tol=1e-12).fit(X.astype(float), y)
    case = problem_by_rows(X.astype(float), y, alpha=1e-5)
    value = value_and_grad(case, Params(clf.coef_.astype(float), clf.intercept_.astype(float))).value
    assert value / best.loss_curve_[-1] - 1 <= max(clf.excess_, 1e-12) * 1.01 <= 1.3e-7
