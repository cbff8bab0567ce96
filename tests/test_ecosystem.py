"""Where users of scikit-learn will put it."""

import pickle
import warnings

import joblib
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import sklearn
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_breast_cancer, load_digits, load_iris, load_wine
from sklearn.ensemble import BaggingClassifier, StackingClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.feature_selection import RFE, SelectFromModel
from sklearn.inspection import permutation_importance
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import (
    GridSearchCV,
    HalvingGridSearchCV,
    cross_val_score,
    cross_validate,
    learning_curve,
)
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from threadpoolctl import threadpool_info, threadpool_limits

from sksoftmax import SoftmaxClassifier

X_WINE, Y_WINE = load_wine(return_X_y=True)
X_IRIS, Y_IRIS = load_iris(return_X_y=True)


def test_pipeline_with_a_scaler_changes_nothing_but_the_penalty():
    plain = SoftmaxClassifier(0.0, max_iter=20, tol=1.0).fit(X_IRIS[50:], Y_IRIS[50:])
    scaled = make_pipeline(StandardScaler(), clone(plain)).fit(X_IRIS[50:], Y_IRIS[50:])
    assert_allclose(scaled.predict_proba(X_IRIS), plain.predict_proba(X_IRIS), atol=1e-6)


def test_column_transformer_of_numbers_and_categories():
    frame = pd.DataFrame(X_WINE, columns=[f"x{j}" for j in range(13)])
    frame["kind"] = np.where(frame["x0"] > 13, "strong", "light")
    columns = ColumnTransformer([("one hot", OneHotEncoder(), ["kind"])], remainder="passthrough")
    assert make_pipeline(columns, SoftmaxClassifier()).fit(frame, Y_WINE).score(frame, Y_WINE) == 1.0


def test_text_pipeline_agrees_with_logistic_regression():
    fruits, tools = ["apple", "pear", "fig", "plum"], ["saw", "drill", "file", "plane"]
    rng = np.random.RandomState(0)
    texts = [" ".join(rng.choice(words, 4)) for words in (fruits, tools, fruits + tools) for _ in range(40)]
    labels = np.repeat(["fruit", "tool", "both"], 40)
    ours = make_pipeline(TfidfVectorizer(), SoftmaxClassifier(1e-2, tol=1e-10)).fit(texts, labels)
    theirs = make_pipeline(TfidfVectorizer(), LogisticRegression(C=1 / 1.2, tol=1e-10)).fit(texts, labels)
    assert sp.issparse(ours[0].transform(texts))
    assert_allclose(ours.predict_proba(texts), theirs.predict_proba(texts), atol=1e-5)


GRID = {
    "softmaxclassifier__alpha": [1e-4, 1e-1],
    "softmaxclassifier__batch_size": ["auto", 32],
    "softmaxclassifier__learning_rate": ["auto", 0.05],
    "softmaxclassifier__solver": ["auto", "sgd", "adam"],
}


@pytest.mark.parametrize("search_class", [GridSearchCV, HalvingGridSearchCV])
def test_searches_over_alpha_batch_size_learning_rate_and_solver(search_class):
    pipeline = make_pipeline(StandardScaler(), SoftmaxClassifier(random_state=0))
    kwargs = {"min_resources": 90, "random_state": 0} if search_class is HalvingGridSearchCV else {}
    search = search_class(pipeline, GRID, cv=3, error_score="raise", **kwargs)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # sgd and adam at 100 epochs
        search.fit(X_WINE, Y_WINE)
    assert search.best_score_ > 0.95
    assert set(search.best_params_) == set(GRID)


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_cross_val_score_does_not_depend_on_the_number_of_jobs(n_jobs):
    scores = cross_val_score(SoftmaxClassifier(random_state=0), X_WINE, Y_WINE, n_jobs=n_jobs, scoring="neg_log_loss")
    assert_allclose(scores, cross_val_score(SoftmaxClassifier(), X_WINE, Y_WINE, scoring="neg_log_loss"), rtol=1e-6)


class _Spy(dict):
    """A class weight that notes the BLAS threads when the fit looks a class up in it."""

    def __init__(self):
        super().__init__({0: 1.0, 1: 1.0, 2: 1.0})
        self.seen = []

    def get(self, key, default=None):
        self.seen += [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]
        return super().get(key, default)


class ThreadReport(SoftmaxClassifier):
    """Its score is the largest number of BLAS threads seen inside its fit."""

    def fit(self, X, y):
        self.class_weight = _Spy()
        with threadpool_limits(2, user_api="blas"):  # as a worker has that joblib does not limit
            return super().fit(X, y)

    def score(self, X, y):
        return max(self.class_weight.seen)


def test_a_search_with_two_jobs_does_not_oversubscribe():
    search = GridSearchCV(ThreadReport(), {"alpha": [1e-4, 1e-2]}, n_jobs=2, cv=2, refit=False)
    search.fit(X_IRIS, Y_IRIS)
    assert set(search.cv_results_["mean_test_score"]) == {1.0}


def test_calibration():
    clf = CalibratedClassifierCV(SoftmaxClassifier(), cv=3).fit(X_WINE, Y_WINE)
    assert_allclose(clf.predict_proba(X_WINE).sum(axis=1), 1.0)


def test_stacking_under_and_on_top():
    stack = StackingClassifier([("soft", SoftmaxClassifier()), ("ovr", OneVsRestClassifier(SoftmaxClassifier()))])
    stack.set_params(final_estimator=SoftmaxClassifier(1e-2)).fit(X_WINE, Y_WINE)
    assert stack.score(X_WINE, Y_WINE) > 0.95


def test_bagging_uses_sample_weights_or_rows():
    bag = BaggingClassifier(SoftmaxClassifier(1e-2), n_estimators=3, random_state=0).fit(X_WINE, Y_WINE)
    assert bag.score(X_WINE, Y_WINE) > 0.9


@pytest.mark.parametrize("data", [load_wine, load_breast_cancer])
def test_feature_selection(data):
    X, y = data(return_X_y=True)
    X = StandardScaler().fit_transform(X)
    selected = SelectFromModel(SoftmaxClassifier(1e-2), max_features=3).fit(X, y).transform(X)
    assert selected.shape == (len(y), 3)
    rfe = RFE(SoftmaxClassifier(1e-2), n_features_to_select=4).fit(X, y)
    assert rfe.support_.sum() == 4
    assert rfe.score(X, y) > 0.9


def test_learning_curve_with_partial_fit():
    X, y = load_digits(return_X_y=True)
    for incremental in (False, True):
        _, _, test = learning_curve(
            SoftmaxClassifier(1e-2, random_state=0),
            X,
            y,
            train_sizes=[0.2, 1.0],
            cv=3,
            exploit_incremental_learning=incremental,
            shuffle=True,
            random_state=0,
        )
        assert test[-1].mean() > 0.88


def test_permutation_importance_finds_the_column_that_matters():
    rng = np.random.RandomState(0)
    X = rng.standard_normal((200, 3))
    clf = SoftmaxClassifier(1e-2).fit(X, X[:, 1] > 0)
    importance = permutation_importance(clf, X, X[:, 1] > 0, random_state=0).importances_mean
    assert importance.argmax() == 1
    assert importance[1] > 0.3


@pytest.mark.parametrize("dump", ["pickle", "joblib"])
def test_serialised_models_predict_the_same(dump, tmp_path):
    clf = SoftmaxClassifier(random_state=0).fit(X_WINE, Y_WINE)
    if dump == "pickle":
        back = pickle.loads(pickle.dumps(clf))
    else:
        joblib.dump(clf, tmp_path / "model.joblib")
        back = joblib.load(tmp_path / "model.joblib")
    assert_array_equal(back.predict_proba(X_WINE), clf.predict_proba(X_WINE))
    assert back.get_params() == clf.get_params()


def test_metadata_routing_of_sample_weight():
    weight = np.random.RandomState(0).randint(0, 3, len(Y_IRIS)).astype(float)
    with sklearn.config_context(enable_metadata_routing=True):
        clf = SoftmaxClassifier().set_fit_request(sample_weight=True).set_score_request(sample_weight=True)
        scaler = StandardScaler().set_fit_request(sample_weight=False)
        routed = make_pipeline(scaler, clf).fit(X_IRIS, Y_IRIS, sample_weight=weight)
        scores = cross_validate(clf, X_IRIS, Y_IRIS, params={"sample_weight": weight})["test_score"]
    scaled = StandardScaler().fit_transform(X_IRIS)
    direct = SoftmaxClassifier().fit(scaled, Y_IRIS, weight)
    assert_allclose(routed.predict_proba(X_IRIS), direct.predict_proba(scaled), rtol=1e-6)
    assert np.isfinite(scores).all()


def test_sparsify_and_densify():
    clf = SoftmaxClassifier().fit(X_WINE, Y_WINE)
    want = clf.predict_proba(X_WINE)
    clf.sparsify()
    assert sp.issparse(clf.coef_)
    assert_allclose(clf.predict_proba(X_WINE), want, rtol=1e-10)
    assert_allclose(clf.predict_proba(sp.csr_array(X_WINE)), want, rtol=1e-8)
    assert_allclose(pickle.loads(pickle.dumps(clf)).predict_proba(X_WINE), want, rtol=1e-10)
    clf.densify()
    assert isinstance(clf.coef_, np.ndarray)
    assert_allclose(clf.predict_proba(X_WINE), want, rtol=1e-10)


def test_html_and_repr_show_what_was_set():
    clf = SoftmaxClassifier(0.5, solver="adam")
    assert repr(clf) == "SoftmaxClassifier(alpha=0.5, solver='adam')"
    assert "SoftmaxClassifier" in clf._repr_html_()


def test_set_output_of_a_pipeline_with_frames():
    frame = pd.DataFrame(X_WINE, columns=[f"x{j}" for j in range(13)])
    pipeline = make_pipeline(StandardScaler().set_output(transform="pandas"), SoftmaxClassifier()).fit(frame, Y_WINE)
    assert_array_equal(pipeline[-1].feature_names_in_, frame.columns)
