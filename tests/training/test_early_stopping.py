"""Test early stopping on validation rows passed to ``fit``."""

import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import sklearn
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sksoftmax import SoftmaxClassifier
from sksoftmax._data import chunks

DIGITS = train_test_split(*load_digits(return_X_y=True), test_size=0.2, random_state=0)
SETTINGS = {
    "alpha": 1e-7,
    "early_stopping": True,
    "n_iter_no_change": 3,
    "tol": 0,
    "batch_size": 32,
    "random_state": 0,
    "engine": "vectorized",
}


def fitted(solver="auto", **rest):
    X, X_val, y, y_val = DIGITS
    clf = SoftmaxClassifier(**SETTINGS, solver=solver)
    return clf.fit(X, y, **{"X_val": X_val, "y_val": y_val} | rest)


@pytest.mark.parametrize("solver", ["auto", "sgd"])
def test_the_best_epochs_coefficients_are_kept_and_their_score_is_that_of_the_rows_given(solver):
    _, X_val, _, y_val = DIGITS
    clf = fitted(solver)
    assert clf.stop_reason_ == "early_stopping"
    assert clf.n_iter_ == int(np.argmax(clf.validation_scores_)) + 4  # 3 epochs without a better one
    assert clf.score(X_val, y_val) == pytest.approx(max(clf.validation_scores_))


def test_all_rows_of_x_are_trained_on_and_no_random_number_is_drawn_for_a_split():
    X, X_val, y, y_val = DIGITS
    clf = SoftmaxClassifier(1e-2, early_stopping=True, n_iter_no_change=50, random_state=0)
    clf.fit(X, y, X_val=X_val, y_val=y_val)
    plain = SoftmaxClassifier(1e-2, random_state=0).fit(X, y)
    assert clf.stop_reason_ == "tol"
    assert_array_equal(clf.coef_, plain.coef_)


def test_the_same_split_gives_the_same_fit():
    X, y = load_digits(return_X_y=True)
    rng = np.random.RandomState(0)
    rows, held = train_test_split(np.arange(len(y)), test_size=0.1, stratify=y, random_state=rng)
    inside = SoftmaxClassifier(**SETTINGS | {"shuffle": False}).fit(X, y)
    given = SoftmaxClassifier(**SETTINGS | {"shuffle": False}).fit(X[rows], y[rows], X_val=X[held], y_val=y[held])
    assert_array_equal(inside.validation_scores_, given.validation_scores_)
    assert_allclose(inside.coef_, given.coef_, rtol=1e-9)


def test_weights_of_validation_rows_are_as_many_rows():
    _, X_val, _, y_val = DIGITS
    weight = np.arange(len(y_val)) % 3
    weighted = fitted(sample_weight_val=weight)
    repeated = fitted(X_val=np.repeat(X_val, weight, axis=0), y_val=np.repeat(y_val, weight))
    assert_allclose(weighted.validation_scores_, repeated.validation_scores_, rtol=1e-12)
    assert weighted.validation_scores_ != fitted().validation_scores_


def test_class_weights_are_not_of_the_validation_score():
    X, X_val, y, y_val = DIGITS
    clf = SoftmaxClassifier(**SETTINGS, class_weight={3: 50.0}).fit(X, y, X_val=X_val, y_val=y_val)
    assert clf.score(X_val, y_val) == pytest.approx(max(clf.validation_scores_))


@pytest.mark.parametrize("container", [np.float32, sp.csr_array, lambda X: X.tolist(), sp.csc_matrix])
def test_validation_rows_of_any_container(container):
    got = fitted(X_val=container(DIGITS[1]))
    assert_allclose(got.validation_scores_, fitted().validation_scores_, atol=1 / 360)  # one row with a tie


def test_rows_whose_empty_columns_are_left_out_are_scored_in_all_columns():
    X, X_val, y, y_val = DIGITS

    def wide(X):
        return sp.csr_array(np.hstack([X, np.zeros((len(X), 200))]))

    clf = SoftmaxClassifier(**SETTINGS).fit(wide(X), y, X_val=wide(X_val), y_val=y_val)
    assert clf.score(wide(X_val), y_val) == pytest.approx(max(clf.validation_scores_))


def test_an_array_on_disk_stops_early_on_rows_given(tmp_path, monkeypatch):
    X, X_val, y, y_val = DIGITS
    monkeypatch.setattr(chunks, "SAMPLE_SIZE", 2**18)
    path = tmp_path / "X.npy"
    np.save(path, X)
    clf = SoftmaxClassifier(early_stopping=True, n_iter_no_change=1, tol=1e-6, random_state=0)
    with pytest.raises(ValueError, match="Pass X_val and y_val to fit"):
        clf.fit(np.load(path, mmap_mode="r"), y)
    clf.fit(np.load(path, mmap_mode="r"), y, X_val=X_val, y_val=y_val)
    assert "sample" in clf.solver_info_
    assert clf.stop_reason_ == "early_stopping"
    assert clf.score(X_val, y_val) == pytest.approx(max(clf.validation_scores_))


X_BAD, Y_BAD = DIGITS[1], DIGITS[3]
BAD = {
    "no labels": ({"y_val": None}, r"X_val must come with y_val, got y_val=None; pass both"),
    "no rows": ({"X_val": None}, r"y_val must come with X_val, got X_val=None; pass both"),
    "weights alone": (
        {"X_val": None, "y_val": None, "sample_weight_val": np.ones(360)},
        "sample_weight_val must come with X_val and y_val",
    ),
    "columns": ({"X_val": X_BAD[:, :3]}, "X has 3 features, but SoftmaxClassifier is expecting 64"),
    "lengths": ({"y_val": Y_BAD[1:]}, "inconsistent numbers of samples"),
    "NaN": ({"X_val": np.where(X_BAD == 16, np.nan, X_BAD)}, "Input X contains NaN"),
    "a new label": ({"y_val": Y_BAD + 1}, r"y_val must hold labels of the classes .* got \[10\] as well"),
    "continuous": ({"y_val": Y_BAD + 0.5}, "Unknown label type"),
    "negative weights": ({"sample_weight_val": -np.ones(360)}, "sample_weight_val must not be negative"),
    "zero weights": ({"sample_weight_val": np.zeros(360)}, "sample_weight_val must be positive for at least one row"),
    "few weights": ({"sample_weight_val": np.ones(3)}, "sample_weight"),
}


@pytest.mark.parametrize(("validation", "message"), BAD.values(), ids=BAD)
@pytest.mark.parametrize("is_fitted", [False, True])
def test_bad_validation_rows_raise_and_change_nothing(validation, message, is_fitted):
    X, X_val, y, y_val = DIGITS
    clf = SoftmaxClassifier(early_stopping=True, random_state=0)
    if is_fitted:
        clf.fit(X[:300], y[:300])
    before = pickle.dumps(vars(clf))
    with pytest.raises(ValueError, match=message):
        clf.fit(X, y, **{"X_val": X_val, "y_val": y_val} | validation)
    assert pickle.dumps(vars(clf)) == before


def test_validation_rows_without_early_stopping_raise():
    X, X_val, y, y_val = DIGITS
    with pytest.raises(ValueError, match="X_val and y_val are for early stopping, got early_stopping=False"):
        SoftmaxClassifier().fit(X, y, X_val=X_val, y_val=y_val)


def test_names_of_the_validation_rows_columns_are_checked():
    X, X_val, y, y_val = DIGITS
    names = [f"pixel {j}" for j in range(64)]
    clf = SoftmaxClassifier(**SETTINGS)
    clf.fit(pd.DataFrame(X, columns=names), y, X_val=pd.DataFrame(X_val, columns=names), y_val=y_val)
    assert clf.validation_scores_ == fitted().validation_scores_
    with pytest.raises(ValueError, match="feature names"):
        clf.fit(pd.DataFrame(X, columns=names), y, X_val=pd.DataFrame(X_val, columns=names[::-1]), y_val=y_val)


def test_labels_that_are_strings():
    X, X_val, y, y_val = DIGITS
    clf = SoftmaxClassifier(**SETTINGS).fit(X, y.astype(str), X_val=X_val, y_val=y_val.astype(str))
    assert clf.validation_scores_ == fitted().validation_scores_


def test_metadata_routing_takes_validation_rows_through_a_pipelines_transformers():
    X, X_val, y, y_val = DIGITS
    with sklearn.config_context(enable_metadata_routing=True), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        clf = SoftmaxClassifier(**SETTINGS).set_fit_request(X_val=True, y_val=True, sample_weight_val=True)
        pipeline = make_pipeline(StandardScaler(), clf, transform_input=["X_val"])
        pipeline.fit(X, y, X_val=X_val, y_val=y_val, sample_weight_val=np.ones(len(y_val)))
    assert pipeline.score(X_val, y_val) == pytest.approx(max(pipeline[-1].validation_scores_))
