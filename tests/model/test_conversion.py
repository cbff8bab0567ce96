"""``to_sklearn`` and ``from_sklearn``: one model under two names."""

import m2cgen
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_wine
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV, SGDClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks.rivals import linear_params, objective
from sksoftmax import SoftmaxClassifier
from sksoftmax._model.conversion import _penalty_strength

X_WINE, Y_WINE = load_wine(return_X_y=True)


def problem(n_classes=3, seed=0):
    """Rows whose classes overlap, so that there is a minimum without a penalty, and columns of one scale."""
    rng = np.random.RandomState(seed)
    X = rng.standard_normal((300, 5))
    z = X @ rng.standard_normal((5, n_classes)) + rng.gumbel(size=(300, n_classes))
    return X, z.argmax(axis=1)


def assert_predicts_the_same(ours, theirs, X, rtol):
    assert_array_equal(ours.classes_, theirs.classes_)
    assert_array_equal(ours.predict(X), theirs.predict(X))
    for method in ("predict_proba", "decision_function"):
        assert_allclose(getattr(ours, method)(X), getattr(theirs, method)(X), rtol=rtol, atol=rtol, err_msg=method)


# --- to_sklearn -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_classes", [2, 3, 7])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("container", [np.asarray, sp.csr_array])
@pytest.mark.parametrize("fit_intercept", [True, False])
def test_predictions_are_the_models(n_classes, dtype, container, fit_intercept):
    X, y = problem(n_classes)
    X = container(X.astype(dtype))
    clf = SoftmaxClassifier(fit_intercept=fit_intercept, random_state=0).fit(X, y)
    model = clf.to_sklearn()
    assert type(model) is LogisticRegression
    assert model.coef_.dtype == dtype
    assert model.coef_.shape == (1 if n_classes == 2 else n_classes, 5)
    assert_predicts_the_same(clf, model, X, rtol=100 * np.finfo(dtype).eps)  # sums of 6 terms below 10


@pytest.mark.parametrize("labels", [["a", "bb", "c"], [-3, 0, 12], [1.0, 2.0, 5.0]])
def test_labels_are_the_models(labels):
    X, y = problem()
    clf = SoftmaxClassifier().fit(X, np.array(labels)[y])
    assert_predicts_the_same(clf, clf.to_sklearn(), X, rtol=1e-12)


def test_a_sparse_coef_becomes_dense():
    X, y = problem()
    clf = SoftmaxClassifier(0.05, l1_ratio=1.0).fit(X, y)
    clf.sparsify()
    model = clf.to_sklearn()
    assert isinstance(model.coef_, np.ndarray)
    assert_predicts_the_same(clf, model, X, rtol=1e-12)


def test_names_of_columns_are_kept():
    X, y = problem()
    frame = pd.DataFrame(X, columns=list("abcde"))
    clf = SoftmaxClassifier().fit(frame, y)
    assert_predicts_the_same(clf, clf.to_sklearn(), frame, rtol=1e-12)  # names that differ are a warning
    with pytest.raises(ValueError, match="feature names"):
        clf.to_sklearn().predict(frame.rename(columns={"a": "z"}))
    assert not hasattr(SoftmaxClassifier().fit(X, y).to_sklearn(), "feature_names_in_")


@pytest.mark.parametrize("class_weight", [None, {0: 1.0, 1: 4.0, 2: 0.5}, "balanced"])
def test_c_counts_against_the_sum_of_the_weights(class_weight):
    X, y = problem()
    weight = np.random.RandomState(0).uniform(0, 3, 300)
    clf = SoftmaxClassifier(1e-2, class_weight=class_weight).fit(X, y, weight)
    factors = np.array([1.0, 4.0, 0.5])[y] if isinstance(class_weight, dict) else 1.0  # "balanced" keeps the sum
    assert_allclose(clf.to_sklearn().C, 1 / (1e-2 * (weight * factors).sum()), rtol=1e-12)
    streamed = SoftmaxClassifier(1e-2)
    for rows in (slice(0, 200), slice(200, 300)):
        streamed.partial_fit(X[rows], y[rows], classes=[0, 1, 2], sample_weight=weight[rows])
    assert_allclose(streamed.to_sklearn().C, 1 / (1e-2 * weight.sum()), rtol=1e-12)


OBJECTIVES = {
    "l2": {},
    "none": {"alpha": 0.0},
    "none of l1": {"alpha": 0.0, "l1_ratio": 0.5},
    "l1": {"l1_ratio": 1.0},
    "elastic net": {"l1_ratio": 0.3},
    "no intercept": {"fit_intercept": False},
    "class weights": {"class_weight": {0: 1.0, 1: 3.0}},
    "balanced": {"class_weight": "balanced"},
}


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("params", OBJECTIVES.values(), ids=OBJECTIVES)
def test_its_clone_fitted_to_the_same_rows_has_the_same_minimum(n_classes, params):
    X, y = problem(n_classes)
    # scikit-learn before 1.7 balances numbers of rows, not weights
    weight = None if params.get("class_weight") == "balanced" else np.random.RandomState(0).uniform(0, 2, 300)
    clf = SoftmaxClassifier(**{"alpha": 1e-2, "tol": 1e-12, "max_iter": 10000, "random_state": 0, **params})
    model = clf.fit(X, y, weight).to_sklearn()
    again = clone(model).fit(X, y, weight)
    # gradients below 1e-6 where the curvature is at least some 1e-2; without a penalty rows of coef_ may be shifted
    assert_allclose(again.predict_proba(X), clf.predict_proba(X), atol=1e-4)
    if clf.alpha:
        assert_allclose(again.coef_, clf.coef_, atol=1e-4)


def test_it_says_how_it_is_to_be_fitted():
    X, y = problem()
    clf = SoftmaxClassifier(0.0, tol=1e-12, max_iter=77, warm_start=True, class_weight={0: 2.0}, random_state=5)
    model = clf.fit(X, y).to_sklearn()
    assert (model.C, model.solver, model.tol) == (np.inf, "lbfgs", 1e-6)
    assert (model.max_iter, model.warm_start, model.class_weight, model.random_state) == (77, True, {0: 2.0}, 5)
    assert_array_equal(model.n_iter_, [clf.n_iter_])
    defaults = SoftmaxClassifier(1e-2, l1_ratio=0.5).fit(X, y).to_sklearn()
    assert (defaults.solver, defaults.tol, defaults.l1_ratio) == ("saga", 1e-4, 0.5)


def test_it_shares_no_array_with_the_model():
    X, y = problem()
    clf = SoftmaxClassifier(class_weight={0: 2.0}).fit(X, y)
    want = clf.predict_proba(X)
    model = clf.to_sklearn()
    for array in (model.coef_, model.intercept_, model.classes_):
        array[:] = 7
    model.class_weight[0] = 7.0
    assert_array_equal(clf.predict_proba(X), want)
    assert clf.class_weight == {0: 2.0}


def test_before_a_fit_there_is_none():
    with pytest.raises(NotFittedError):
        SoftmaxClassifier().to_sklearn()


@pytest.mark.parametrize("n_classes", [2, 3])
def test_m2cgen_takes_it(n_classes):
    X, y = problem(n_classes)
    clf = SoftmaxClassifier().fit(X, y)
    generated = {}
    exec(m2cgen.export_to_python(clf.to_sklearn()), generated)
    assert_allclose([generated["score"](row) for row in X], clf.decision_function(X), rtol=1e-12, atol=1e-12)


# --- from_sklearn -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("solver", ["lbfgs", "newton-cholesky", "saga"])
@pytest.mark.parametrize("fit_intercept", [True, False])
def test_a_logistic_regression_comes_as_it_is(n_classes, dtype, solver, fit_intercept):
    X, y = problem(n_classes)
    X = X.astype(dtype)
    model = LogisticRegression(C=0.3, solver=solver, fit_intercept=fit_intercept, tol=1e-3).fit(X, y)
    clf = SoftmaxClassifier.from_sklearn(model, total_weight=300)
    assert type(clf) is SoftmaxClassifier
    assert clf.coef_.dtype == model.coef_.dtype
    assert clf.alpha == pytest.approx(1 / (0.3 * 300))
    assert clf.n_features_in_ == 5
    assert clf.n_iter_ == model.n_iter_[0]
    assert clf.solver_info_["solver"] == solver
    assert_predicts_the_same(clf, model, X, rtol=100 * np.finfo(dtype).eps)


def test_liblinear_and_a_sparse_coef_come_too():
    X, y = problem(2)
    model = LogisticRegression(solver="liblinear", fit_intercept=False).fit(X, y)
    model.sparsify()
    clf = SoftmaxClassifier.from_sklearn(model, total_weight=300)
    assert clf.intercept_.shape == (1,)
    assert_predicts_the_same(clf, model, X, rtol=1e-12)


@pytest.mark.parametrize(
    ("params", "want"),
    [
        ({"C": 0.5}, (0.5, 0.0)),
        ({"C": np.inf}, (np.inf, 0.0)),
        ({"C": 0.5, "penalty": "l2", "l1_ratio": None}, (0.5, 0.0)),
        ({"C": 0.5, "penalty": "l1"}, (0.5, 1.0)),
        ({"C": 0.5, "penalty": "elasticnet", "l1_ratio": 0.2}, (0.5, 0.2)),
        ({"penalty": None}, (np.inf, 0.0)),
        ({"C": 0.5, "penalty": "deprecated", "l1_ratio": 0.2}, (0.5, 0.2)),
        ({"C": 0.5, "penalty": "deprecated", "l1_ratio": None}, (0.5, 0.0)),
    ],
)
def test_the_penalty_is_read_in_any_versions_terms(params, want):
    model = LogisticRegression()
    vars(model).update(params)  # the constructor of later versions may not take them
    assert _penalty_strength(model) == want


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("params", [{}, {"class_weight": {0: 3.0}}, {"fit_intercept": False}, {"C": np.inf}])
def test_a_warm_fit_starts_at_its_minimum(n_classes, params):
    X, y = problem(n_classes)
    model = LogisticRegression(**{"C": 0.3, "tol": 1e-8, "warm_start": True, **params}).fit(X, y)
    total_weight = np.where(y == 0, 3.0, 1.0).sum() if "class_weight" in params else 300
    clf = SoftmaxClassifier.from_sklearn(model, total_weight=total_weight)
    assert clf.warm_start
    clf.set_params(tol=1e-3, batch_size=32).fit(X, y)
    assert clf.n_iter_ <= 1
    assert_allclose(clf.predict_proba(X), model.predict_proba(X), atol=1e-4)  # LogisticRegression's own distance


def test_partial_fit_goes_on_from_it():
    X, y = problem()
    rng = np.random.RandomState(1)
    more = np.repeat(X, 2, axis=0) + 0.01 * rng.standard_normal((600, 5))
    model = LogisticRegression(C=0.3, tol=1e-8).fit(X, y)
    clf = SoftmaxClassifier.from_sklearn(model, total_weight=300)
    F = objective(X, y, clf.alpha)
    best = F(linear_params(model))
    for start in range(0, 600, 100):
        rows = slice(start, start + 100)
        clf.partial_fit(more[rows], np.repeat(y, 2)[rows])
    assert not np.array_equal(clf.coef_, model.coef_)
    assert best < F(linear_params(clf)) < 1.01 * best  # it has not begun anew
    assert_allclose(clf.to_sklearn().C, 1 / (clf.alpha * 900), rtol=1e-12)


def test_there_and_back_nothing_changes():
    X, y = problem()
    frame = pd.DataFrame(X, columns=list("abcde"))
    labels = np.array(["a", "b", "c"])[y]
    clf = SoftmaxClassifier(0.02, l1_ratio=0.5, class_weight={"a": 2.0}, random_state=3, max_iter=50, warm_start=True)
    clf.fit(frame, labels)
    back = SoftmaxClassifier.from_sklearn(clf.to_sklearn(), total_weight=300 + (y == 0).sum())
    assert_array_equal(back.decision_function(frame), clf.decision_function(frame))
    assert_array_equal(back.feature_names_in_, clf.feature_names_in_)
    want = {**clf.get_params(), "alpha": pytest.approx(0.02, rel=1e-12)}
    assert back.get_params() == want
    assert back.n_iter_ == clf.n_iter_


def fitted_logistic(n_classes=3, **attributes):
    model = LogisticRegression().fit(*problem(n_classes))
    vars(model).update(attributes)  # of versions before 1.8, or of solvers that these no longer have
    return model


@pytest.mark.parametrize(
    ("model", "error", "match"),
    [
        (SGDClassifier(loss="log_loss"), TypeError, "takes a fitted sklearn.*LogisticRegression, got SGDClassifier"),
        (SoftmaxClassifier(), TypeError, "got SoftmaxClassifier"),
        (LogisticRegressionCV(), TypeError, "a LogisticRegression with its C_"),
        (make_pipeline(StandardScaler(), LogisticRegression()), TypeError, "of a pipeline give the last step"),
        (LogisticRegression(), NotFittedError, "not fitted"),
        (fitted_logistic(multi_class="ovr"), ValueError, "must be multinomial, got one-vs-rest"),
        (fitted_logistic(solver="liblinear"), ValueError, "must be multinomial, got one-vs-rest"),
        (fitted_logistic(2, multi_class="multinomial"), ValueError, "must be binomial"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_no_softmax_is_refused(model, error, match):
    with pytest.raises(error, match=match):
        SoftmaxClassifier.from_sklearn(model, total_weight=300)


@pytest.mark.parametrize("attributes", [{"multi_class": "multinomial"}, {"multi_class": "auto"}])
def test_what_older_versions_call_multinomial_is_taken(attributes):
    model = fitted_logistic(3, **attributes)
    X, _ = problem()
    assert_array_equal(SoftmaxClassifier.from_sklearn(model, total_weight=300).predict(X), model.predict(X))


@pytest.mark.parametrize("total_weight", [0, -1.0, np.nan, np.inf])
def test_the_weight_of_the_rows_must_be_a_positive_number(total_weight):
    with pytest.raises(ValueError, match=r"total_weight must be a number > 0.*or their number"):
        SoftmaxClassifier.from_sklearn(fitted_logistic(), total_weight=total_weight)


@pytest.mark.parametrize("data", [load_wine, load_breast_cancer])
def test_unscaled_columns_too(data):
    X, y = data(return_X_y=True)
    clf = SoftmaxClassifier(random_state=0).fit(X, y)
    assert_predicts_the_same(clf, clf.to_sklearn(), X, rtol=1e-9)  # raw predictions are sums of terms of 1e3
