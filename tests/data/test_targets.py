"""Soft targets and label smoothing, from the kernels to the estimator."""

import pickle
import warnings

import numpy as np
import pandas as pd
import polars as pl
import pytest
import scipy.sparse as sp
from numpy.testing import assert_allclose, assert_array_equal
from scipy.optimize import check_grad
from scipy.special import log_softmax, softmax
from sklearn.datasets import load_digits, load_iris, load_wine
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV

from sksoftmax import SoftmaxClassifier
from sksoftmax._data import chunks
from sksoftmax._engines import naive, vectorized
from sksoftmax._engines.registry import has_compiled
from sksoftmax._maths import objective as _objective
from sksoftmax._types import Params
from tests.problems import CONTAINERS, KERNELS, problem, random_data, random_params

KERNEL = pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS)
CONTAINER = pytest.mark.parametrize("container", CONTAINERS.values(), ids=CONTAINERS)
N_CLASSES = pytest.mark.parametrize("n_classes", [2, 3, 5])


def random_targets(n_samples, n_classes, seed=3):
    """Rows that sum to 1, some of their entries 0."""
    rng = np.random.RandomState(seed)
    table = rng.exponential(size=(n_samples, n_classes)) * (rng.uniform(size=(n_samples, n_classes)) < 0.7)
    table[np.arange(n_samples), rng.randint(0, n_classes, n_samples)] += 0.1
    return table / table.sum(axis=1, keepdims=True)


def soft_case(n_classes, container=np.asarray, dtype=np.float64):
    """Parameters, X, targets, weight."""
    X, _ = random_data(n_classes=n_classes, dtype=dtype)
    params = random_params(1 if n_classes == 2 else n_classes, X.shape[1], 1)
    weight = np.random.RandomState(2).uniform(0.5, 2, len(X))
    return params, container(X), random_targets(len(X), n_classes).astype(dtype), weight


def soft_problem(X, table, weight=None, **kwargs):
    case = problem(X, np.arange(len(table)) % table.shape[1], weight=weight, **kwargs)
    return case._replace(data=case.data._replace(y=table), n_classes=table.shape[1])


def repeated(X, table, weight=None):
    """A row of each class for each row of soft targets, weighing its share: the same F."""
    n_samples, n_classes = table.shape
    weight = np.ones(n_samples) if weight is None else weight
    rows = np.repeat(np.arange(n_samples), n_classes)
    return X[rows], np.tile(np.arange(n_classes), n_samples), (weight[:, None] * table).ravel()


# --- the kernels ------------------------------------------------------------------------------------------


@CONTAINER
@N_CLASSES
@pytest.mark.parametrize(("dtype", "rtol"), [(np.float64, 1e-12), (np.float32, 1e-4)])
def test_vectorized_kernel_equals_naive(container, n_classes, dtype, rtol):
    params, X, table, weight = soft_case(n_classes, container, dtype)
    want, want_grads = naive.loss_grad(params, X, table, weight, weight.sum())
    got, grads = vectorized.loss_grad(params, X, table, weight, weight.sum())
    assert got == pytest.approx(want, rel=rtol)
    assert grads.coef.dtype == dtype
    for left, right in zip(grads, want_grads, strict=True):
        assert_allclose(left, right, rtol=rtol, atol=rtol)


@KERNEL
@N_CLASSES
def test_loss_is_the_cross_entropy_and_its_gradient_p_less_t(kernel, n_classes):
    params, X, table, weight = soft_case(n_classes)
    raw = X @ params.coef.T + params.intercept
    raw = np.hstack([np.zeros((len(X), 1)), raw]) if n_classes == 2 else raw
    loss, grads = kernel.loss_grad(params, X, table, weight, weight.sum())
    losses = -np.sum(table * log_softmax(raw, axis=1), axis=1)
    assert loss == pytest.approx(np.average(losses, weights=weight), rel=1e-12)
    residual = (weight / weight.sum())[:, None] * (softmax(raw, axis=1) - table)
    residual = residual[:, 1:] if n_classes == 2 else residual
    assert_allclose(grads.coef, residual.T @ X, rtol=1e-11, atol=1e-14)
    assert_allclose(grads.intercept, residual.sum(axis=0), rtol=1e-11, atol=1e-14)


@KERNEL
@N_CLASSES
def test_one_hot_targets_are_codes(kernel, n_classes):
    params, X, _, weight = soft_case(n_classes)
    y = np.arange(len(X)) % n_classes
    want, want_grads = kernel.loss_grad(params, X, y, weight, weight.sum())
    got, grads = kernel.loss_grad(params, X, np.eye(n_classes)[y], weight, weight.sum())
    assert got == pytest.approx(want, rel=1e-12)
    assert_allclose(grads.coef, want_grads.coef, rtol=1e-11, atol=1e-14)


@KERNEL
@CONTAINER
@N_CLASSES
def test_a_soft_row_is_a_weighted_row_of_each_class(kernel, container, n_classes):
    params, X, table, weight = soft_case(n_classes, container)
    want, want_grads = kernel.loss_grad(params, *repeated(X, table, weight), weight.sum())
    got, grads = kernel.loss_grad(params, X, table, weight, weight.sum())
    assert got == pytest.approx(want, rel=1e-12)
    assert_allclose(grads.coef, want_grads.coef, rtol=1e-11, atol=1e-14)


@KERNEL
@N_CLASSES
@pytest.mark.parametrize("label_smoothing", [0.0, 0.3])
def test_gradient_is_the_slope_of_F(kernel, n_classes, label_smoothing):
    params, X, table, weight = soft_case(n_classes)
    case = soft_problem(X, table, weight, kernel=kernel)._replace(label_smoothing=label_smoothing)
    shape = params.coef.shape

    def at(theta):
        return _objective.value_and_grad(case, Params(theta[: -shape[0]].reshape(shape), theta[-shape[0] :]))

    def grad(theta):
        return np.append(at(theta).grads.coef.ravel(), at(theta).grads.intercept)

    theta = np.append(params.coef.ravel(), params.intercept)
    error = check_grad(lambda theta: at(theta).value, grad, theta)
    assert error < 1e-6 * np.linalg.norm(grad(theta)) + 1e-7


@KERNEL
@pytest.mark.parametrize("n_classes", [2, 3])
def test_kernels_are_stable_for_huge_raw_predictions(kernel, n_classes):
    params = Params(np.linspace(-1e4, 1e4, n_classes)[n_classes == 2 :, None], np.zeros(max(n_classes - 1, 1)))
    params = params._replace(intercept=np.zeros(len(params.coef)))
    table = np.eye(n_classes)[[0, -1]] * 0.5 + 0.5 / n_classes
    loss, grads = kernel.loss_grad(params, np.array([[1.0], [-1.0]]), table, np.ones(2), 2.0)
    assert np.isfinite(loss)
    assert all(np.isfinite(g).all() for g in grads)


@KERNEL
def test_kernels_write_no_targets(kernel):
    params, X, table, weight = soft_case(3)
    before = table.copy()
    kernel.loss_grad(params, X, table, weight, 7.0)
    assert_array_equal(table, before)


# --- the objective ----------------------------------------------------------------------------------------


@N_CLASSES
def test_smoothed_codes_are_the_smoothed_table(n_classes):
    params, X, _, weight = soft_case(n_classes)
    y = np.arange(len(X)) % n_classes
    smoothed = problem(X, y, weight=weight)._replace(label_smoothing=0.2)
    table = soft_problem(X, 0.8 * np.eye(n_classes)[y] + 0.2 / n_classes, weight)
    evaluations = [_objective.value_and_grad(case, params) for case in (smoothed, table)]
    assert evaluations[0].value == pytest.approx(evaluations[1].value, rel=1e-13)
    assert_allclose(evaluations[0].grads.coef, evaluations[1].grads.coef, rtol=1e-12, atol=1e-15)
    assert_allclose(_objective.class_weights(smoothed), _objective.class_weights(table), rtol=1e-13)
    assert _objective.loss(smoothed, params) == pytest.approx(_objective.loss(table, params), rel=1e-12)


@pytest.mark.parametrize("n_classes", [2, 4])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.3])
def test_the_start_is_the_best_model_that_ignores_x(n_classes, label_smoothing):
    _, X, table, weight = soft_case(n_classes)
    case = soft_problem(X, table, weight)._replace(label_smoothing=label_smoothing)
    evaluation = _objective.value_and_grad(case, _objective.prior_params(case))
    assert_allclose(evaluation.grads.intercept, 0, atol=1e-15)
    assert evaluation.value == pytest.approx(_objective.prior_objective(case), rel=1e-12)


@N_CLASSES
def test_the_loss_of_targets_is_that_of_F(n_classes):
    params, X, table, weight = soft_case(n_classes)
    case = soft_problem(X, table, weight, alpha=0.0)
    want = _objective.value_and_grad(case, params).value * weight.sum()
    assert _objective.loss(case, params) == pytest.approx(want, rel=1e-12)


# --- fits -------------------------------------------------------------------------------------------------


def teachers(name="load_digits", sharpness=2.0):
    """X and what a model of it says, rounded to nothing."""
    X, y = {"load_digits": load_digits, "load_iris": load_iris, "load_wine": load_wine}[name](return_X_y=True)
    rng = np.random.RandomState(0)
    raw = sharpness * np.eye(y.max() + 1)[y] + rng.gumbel(size=(len(y), y.max() + 1))
    return X, softmax(raw, axis=1), y


@pytest.mark.parametrize("params", [{}, {"batch_size": 64}, {"l1_ratio": 0.5}, {"fit_intercept": False}], ids=str)
@CONTAINER
@pytest.mark.parametrize("weighted", [False, True])
def test_the_minimum_is_that_of_a_weighted_row_of_each_class(container, params, weighted):
    X, table, _ = teachers()
    weight = np.random.RandomState(1).randint(0, 3, len(X)) * 1.0 if weighted else None
    settings = {"alpha": 1e-3, "tol": 1e-10, "random_state": 0, "engine": "vectorized", **params}
    soft = SoftmaxClassifier(soft_targets=True, **settings).fit(container(X), table, weight)
    hard = SoftmaxClassifier(**settings).fit(*repeated(X, table, weight))
    assert_allclose(soft.predict_proba(X), hard.predict_proba(X), atol=1e-4, rtol=0)
    assert soft.loss_curve_[-1] == pytest.approx(hard.loss_curve_[-1], rel=1e-9)
    assert_array_equal(soft.classes_, np.arange(10))


@pytest.mark.parametrize("solver", ["sgd", "adagrad", "adam"])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_the_named_solvers_go_to_the_same_minimum(solver, label_smoothing):
    X, table, _ = teachers("load_iris")
    X = (X - X.mean(axis=0)) / X.std(axis=0)
    params = {"alpha": 0.01, "soft_targets": True, "label_smoothing": label_smoothing, "random_state": 0}
    rate = {"sgd": "auto", "adagrad": 1.0, "adam": 0.05}[solver]
    clf = SoftmaxClassifier(**params, solver=solver, learning_rate=rate, max_iter=2000, tol=1e-5).fit(X, table)
    best = SoftmaxClassifier(**params, tol=1e-12).fit(X, table)
    assert clf.stop_reason_ == "tol"
    assert clf.loss_curve_[-1] <= best.loss_curve_[-1] * (1 + 2e-5)


@pytest.mark.parametrize("name", ["load_iris", "load_digits"])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_one_hot_targets_are_the_labels(name, dtype):
    X, _, y = teachers(name)
    X = X.astype(dtype)
    settings = {"alpha": 1e-3, "random_state": 0, "engine": "vectorized"}
    hard = SoftmaxClassifier(**settings).fit(X, y)
    soft = SoftmaxClassifier(soft_targets=True, **settings).fit(X, np.eye(y.max() + 1)[y])
    assert soft.n_iter_ == pytest.approx(hard.n_iter_, abs=2)  # rounding decides on the last ones
    # the same steps but for rounding, which 10 steps multiply
    assert_allclose(soft.coef_, hard.coef_, rtol=0, atol=1e6 * np.finfo(dtype).eps * np.abs(hard.coef_).max())


def test_targets_of_two_classes_have_one_row_of_coefficients():
    X, _, y = teachers("load_iris")
    X, y = X[y > 0], y[y > 0] - 1
    table = 0.7 * np.eye(2)[y] + 0.15
    soft = SoftmaxClassifier(1e-3, soft_targets=True, tol=1e-12).fit(X, table)
    hard = SoftmaxClassifier(1e-3, tol=1e-12).fit(*repeated(X, table))
    assert soft.coef_.shape == (1, 4)
    assert_allclose(soft.predict_proba(X), hard.predict_proba(X), atol=1e-6)
    assert_allclose(soft.predict_proba(X).mean(axis=0), table.mean(axis=0), atol=1e-6)


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("container", [np.asarray, sp.csr_array])
@pytest.mark.parametrize("params", [{}, {"batch_size": 16}, {"l1_ratio": 0.5}], ids=str)
def test_label_smoothing_is_the_smoothed_table(n_classes, container, params):
    X, _, y = teachers("load_wine")
    X, y = X[y < n_classes], y[y < n_classes]
    settings = {"alpha": 1e-3, "tol": 1e-12, "random_state": 0, **params}
    smoothed = SoftmaxClassifier(label_smoothing=0.1, **settings).fit(container(X), y)
    table = 0.9 * np.eye(n_classes)[y] + 0.1 / n_classes
    soft = SoftmaxClassifier(soft_targets=True, **settings).fit(container(X), table)
    assert_allclose(smoothed.predict_proba(X), soft.predict_proba(X), atol=1e-6)
    assert smoothed.loss_curve_[-1] == pytest.approx(soft.loss_curve_[-1], rel=1e-9)


def test_label_smoothing_of_soft_targets_is_of_each_row():
    X, table, _ = teachers("load_iris")
    settings = {"alpha": 1e-3, "tol": 1e-12, "soft_targets": True}
    smoothed = SoftmaxClassifier(label_smoothing=0.4, **settings).fit(X, table)
    by_hand = SoftmaxClassifier(**settings).fit(X, 0.6 * table + 0.4 / 3)
    assert_allclose(smoothed.coef_, by_hand.coef_, rtol=1e-5, atol=1e-7)


def test_label_smoothing_makes_no_table_of_all_rows():
    import tracemalloc

    n_samples, n_classes = 60000, 30
    X = np.random.RandomState(0).standard_normal((n_samples, 4))
    y = np.arange(n_samples) % n_classes
    clf = SoftmaxClassifier(label_smoothing=0.1, solver="sgd", max_iter=1, tol=1e3)
    tracemalloc.start()
    clf.fit(X, y)
    max_deviation = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert max_deviation < n_samples * n_classes * 8  # one of probabilities, at most, and none of targets


def test_smoothed_labels_ask_for_less_certain_probabilities():
    y = np.arange(30) % 3
    X = np.eye(3)[y]  # which a model can tell apart as surely as it is asked to
    for n_classes, share in ((3, 0.7 + 0.3 / 3), (2, 0.7 + 0.3 / 2)):
        rows = y < n_classes
        proba = SoftmaxClassifier(1e-9, label_smoothing=0.3).fit(X[rows], y[rows]).predict_proba(X[rows])
        assert_allclose(proba.max(axis=1), share, atol=1e-6)


def test_the_minimum_holds_the_entropy_of_the_targets():
    X, table, _ = teachers()
    clf = SoftmaxClassifier(1e-8, soft_targets=True).fit(X, table)
    entropy = -np.mean(np.sum(table * np.log(table), axis=1))
    assert clf.loss_curve_[-1] > entropy
    kl = clf.loss_curve_[-1] - entropy
    assert clf.excess_ * clf.loss_curve_[-1] < kl  # tol is of F, not of what is above the entropy


@pytest.mark.parametrize("class_weight", ["balanced", {0: 2.0, 2: 0.5}, {1: 0.0}])
def test_class_weights_are_of_the_shares(class_weight):
    X, table, _ = teachers("load_iris", sharpness=1.0)
    table = table * [1.0, 0.5, 0.1]
    table[:5] = [0, 1, 0]
    table /= table.sum(axis=1, keepdims=True)
    settings = {"alpha": 1e-3, "tol": 1e-12, "class_weight": class_weight}
    soft = SoftmaxClassifier(soft_targets=True, **settings).fit(X, table)
    hard = SoftmaxClassifier(**settings).fit(*repeated(X, table))
    seen = [k for k in range(3) if class_weight == "balanced" or class_weight.get(k, 1.0)]
    got, want = (clf.predict_proba(X)[:, seen] for clf in (soft, hard))  # of a class without weight 1 / 2n is left
    got, want = (proba / proba.sum(axis=1, keepdims=True) for proba in (got, want))
    assert_allclose(got, want, atol=2e-6)


def test_smoothing_comes_after_class_weights():
    X, _, y = teachers("load_wine")
    factors = np.array([1.0, 3.0, 0.5])
    clf = SoftmaxClassifier(1e-3, tol=1e-12, label_smoothing=0.1, class_weight=dict(enumerate(factors))).fit(X, y)
    by_hand = SoftmaxClassifier(1e-3, tol=1e-12, label_smoothing=0.1).fit(X, y, factors[y])
    assert_allclose(clf.coef_, by_hand.coef_, rtol=1e-6, atol=1e-9)


def test_a_warm_start_goes_on_from_labels_to_targets():
    X, table, y = teachers()
    clf = SoftmaxClassifier(1e-3, warm_start=True, soft_targets=True, tol=1e-6).fit(X, table)
    cold = clf.n_iter_
    assert clf.fit(X, table).n_iter_ <= cold
    clf.set_params(soft_targets=False).fit(X, y)
    assert_allclose(clf.coef_, SoftmaxClassifier(1e-3, tol=1e-6).fit(X, y).coef_, atol=1e-2)


# --- scores and early stopping ----------------------------------------------------------------------------


def test_the_score_of_targets_is_the_share_that_they_give_to_the_class_predicted():
    X, table, y = teachers("load_iris")
    weight = np.random.RandomState(0).uniform(size=len(y))
    clf = SoftmaxClassifier(soft_targets=True).fit(X, table)
    rows, labels, share = repeated(X, table, weight)
    assert clf.score(X, table, weight) == pytest.approx(clf.score(rows, labels, share), rel=1e-12)
    assert clf.score(X, table) == pytest.approx(table[np.arange(150), clf.predict(X)].mean(), rel=1e-12)
    assert clf.score(X, y) == np.mean(clf.predict(X) == y)
    with pytest.raises(ValueError, match=r"column for each of the classes \[0, 1, 2\], got \[0, 1\]"):
        clf.score(X, table[:, :2] / table[:, :2].sum(axis=1, keepdims=True))
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        clf.score(X, table[1:])


@pytest.mark.parametrize("n_classes", [2, 10])
@pytest.mark.parametrize("is_given", [False, True])
def test_early_stopping_scores_targets(n_classes, is_given):
    X, _, y = teachers()
    X, y = X[y < n_classes], y[y < n_classes]
    table = softmax(3 * np.eye(n_classes)[y] + np.random.RandomState(0).gumbel(size=(len(y), n_classes)), axis=1)
    clf = SoftmaxClassifier(
        1e-7, soft_targets=True, early_stopping=True, n_iter_no_change=3, tol=0, batch_size=32, random_state=0
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # two classes may reach the limit of rounding
        clf.fit(X[:-50], table[:-50], **({"X_val": X[-50:], "y_val": table[-50:]} if is_given else {}))
    assert 0.4 < max(clf.validation_scores_) < 1  # the targets' own highest shares are 0.8 on average
    if is_given and clf.stop_reason_ == "early_stopping":
        assert clf.score(X[-50:], table[-50:]) == pytest.approx(max(clf.validation_scores_))


def test_a_grid_search_over_soft_targets():
    X, table, _ = teachers("load_iris")
    search = GridSearchCV(SoftmaxClassifier(soft_targets=True), {"alpha": [1e-4, 1e2]}, error_score="raise")
    search.fit(X, table)
    assert search.best_params_ == {"alpha": 1e-4}
    assert 0.4 < search.best_score_ < table.max(axis=1).mean()


# --- streams ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keep_rows", [True, False])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.2])
def test_partial_fit_learns_targets(keep_rows, label_smoothing):
    X, table, _ = teachers(sharpness=4.0)
    params = {"soft_targets": True, "keep_rows": keep_rows, "label_smoothing": label_smoothing, "random_state": 0}
    clf, one = SoftmaxClassifier(1e-2, **params), SoftmaxClassifier(1e-2, **params)
    for part in np.array_split(np.random.RandomState(0).permutation(len(X)), 8):
        clf.partial_fit(X[part], table[part])
    best = SoftmaxClassifier(1e-2, soft_targets=True, label_smoothing=label_smoothing, tol=1e-10).fit(X, table)
    case = soft_problem(X, table, alpha=1e-2)._replace(label_smoothing=label_smoothing)
    value = _objective.value_and_grad(case, Params(clf.coef_, clf.intercept_)).value
    assert value <= best.loss_curve_[-1] * (1.05 if keep_rows else 1.3)
    assert_array_equal(clf.classes_, np.arange(10))
    one.partial_fit(X, table, classes=np.arange(10))
    assert_array_equal(one.classes_, clf.classes_)


def test_partial_fit_of_targets_that_leave_classes_out():
    X, table, _ = teachers("load_iris")
    clf = SoftmaxClassifier(1e-3, soft_targets=True, random_state=0)
    early = np.column_stack([table[:, 0], 1 - table[:, 0], np.zeros(150)])
    clf.partial_fit(X, early)
    assert clf.predict_proba(X)[:, 2].max() < 0.02
    clf.partial_fit(X, table)
    assert clf.predict_proba(X)[:, 2].mean() > 0.05


def test_smoothed_labels_of_a_stream_are_those_of_a_fit():
    X, _, y = teachers("load_wine")
    clf = SoftmaxClassifier(1e-3, label_smoothing=0.2, random_state=0).partial_fit(X, y, classes=[0, 1, 2])
    best = SoftmaxClassifier(1e-3, label_smoothing=0.2).fit(X, y)
    assert_allclose(clf.predict_proba(X), best.predict_proba(X), atol=0.15)  # fitted to 1e-2 of F


def test_a_new_class_of_smoothed_labels():
    X, _, y = teachers("load_wine")
    clf = SoftmaxClassifier(1e-3, label_smoothing=0.2, allow_new_classes=True, random_state=0)
    for classes in ([0, 1], [2]):
        clf.partial_fit(X[np.isin(y, classes)], y[np.isin(y, classes)])
    assert clf.score(X, y) > 0.9


def test_labels_after_targets_raise_and_change_nothing():
    X, table, y = teachers("load_iris")
    clf = SoftmaxClassifier(soft_targets=True).partial_fit(X, table).set_params(soft_targets=False)
    before = pickle.dumps(vars(clf))
    with pytest.raises(ValueError, match="soft_targets must be the same for all rows that partial_fit keeps"):
        clf.partial_fit(X, y)
    assert pickle.dumps(vars(clf)) == before


# --- rows that memory does not hold -----------------------------------------------------------------------


def test_smoothed_labels_of_rows_that_memory_does_not_hold(monkeypatch):
    monkeypatch.setattr(chunks, "SAMPLE_SIZE", 2**18)
    X, _, y = teachers()
    settings = {"alpha": 1e-3, "label_smoothing": 0.1, "tol": 1e-6, "random_state": 0}
    clf = SoftmaxClassifier(**settings).fit_batches([(X[k::3], y[k::3]) for k in range(3)])
    assert "sample" in clf.solver_info_
    best = SoftmaxClassifier(**settings | {"tol": 1e-12}).fit(X, y)
    assert clf.loss_curve_[-1] <= best.loss_curve_[-1] * (1 + 2e-6)


def test_soft_targets_of_rows_that_memory_does_not_hold_raise(tmp_path, monkeypatch):
    X, table, _ = teachers("load_iris")
    clf = SoftmaxClassifier(soft_targets=True)
    with pytest.raises(ValueError, match="fit_batches takes labels, got soft_targets=True; use fit with X in memory"):
        clf.fit_batches([(X, table)])
    monkeypatch.setattr(chunks, "SAMPLE_SIZE", 1000)
    np.save(tmp_path / "X.npy", X)
    with pytest.raises(ValueError, match="fit of an array on disk takes labels, got soft_targets=True; pass X in"):
        clf.fit(np.load(tmp_path / "X.npy", mmap_mode="r"), table)


# --- what y may be ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("frame", [pd.DataFrame, pl.DataFrame])
def test_a_frames_columns_are_the_classes_in_sorted_order(frame):
    X, table, _ = teachers("load_iris")
    names = ["virginica", "setosa", "versicolor"]
    clf = SoftmaxClassifier(soft_targets=True).fit(X, frame(dict(zip(names, table.T, strict=True))))
    plain = SoftmaxClassifier(soft_targets=True).fit(X, table)
    assert_array_equal(clf.classes_, sorted(names))
    assert_allclose(clf.predict_proba(X)[:, [2, 0, 1]], plain.predict_proba(X), atol=1e-7)
    assert_array_equal(clf.predict(X), np.array(names)[plain.predict(X)])
    assert clf.score(X, frame(dict(zip(names, table.T, strict=True)))) == pytest.approx(plain.score(X, table))


@pytest.mark.parametrize(
    "container",
    [list, np.asfortranarray, lambda t: t.astype(np.float32), np.float16],
    ids=["list", "columns", "float32", "float16"],
)
def test_targets_of_any_container_and_rounding(container):
    X, table, _ = teachers("load_iris")
    want = SoftmaxClassifier(1e-3, soft_targets=True).fit(X, table)
    got = SoftmaxClassifier(1e-3, soft_targets=True).fit(X, container(table))
    assert got.coef_.dtype == np.float64
    assert got.stop_reason_ == "tol"  # rows that summed to 1 but for their rounding would have no minimum
    assert_allclose(got.predict_proba(X), want.predict_proba(X), atol=1e-3)


def test_integers_are_targets_too():
    X, _, y = teachers("load_iris")
    clf = SoftmaxClassifier(1e-3, soft_targets=True).fit(X, np.eye(3, dtype=int)[y])
    assert_allclose(clf.coef_, SoftmaxClassifier(1e-3).fit(X, y).coef_, rtol=1e-6, atol=1e-8)


X_IRIS, TABLE, Y_IRIS = teachers("load_iris")
BAD = {
    "labels": (Y_IRIS, r"y must have the shape \(n_samples, n_classes\) .*, got 1 dimensions; set soft_targets=False"),
    "None": (None, r"y must have the shape .*, got 0 dimensions"),
    "one column": (np.ones((150, 1)), "y must have a column for each of at least two classes, got 1"),
    "negative": (TABLE - [0.5, -0.25, -0.25], r"y must hold shares >= 0 of each class, got -0\."),
    "sums": (TABLE * np.linspace(1, 1.1, 150)[:, None], r"rows of y must sum to 1, got 1\.1 in row 149; divide each"),
    "a row of 0": (TABLE * (np.arange(150) != 7)[:, None], "rows of y must sum to 1, got 0 in row 7"),
    "NaN": (np.where(TABLE.max() == TABLE, np.nan, TABLE), "Input y contains NaN"),
    "lengths": (TABLE[1:], "inconsistent numbers of samples"),
    "one name twice": (pd.DataFrame(TABLE, columns=["a", "b", "a"]), r"names of their own.*'a', 'b', 'a'"),
    "names and numbers": (pd.DataFrame(TABLE, columns=["a", 1, "b"]), "all strings or all numbers"),
}


@pytest.mark.parametrize(("y", "message"), BAD.values(), ids=BAD)
@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_bad_targets_raise_and_change_nothing(y, message, method):
    clf = SoftmaxClassifier(soft_targets=True).fit(X_IRIS, TABLE)
    before = pickle.dumps(vars(clf))
    with pytest.raises(ValueError, match=message):
        getattr(clf, method)(X_IRIS, y)
    assert pickle.dumps(vars(clf)) == before


def test_targets_of_one_class_alone_raise():
    with pytest.raises(ValueError, match="at least two classes, got only one class, 1; add another class"):
        SoftmaxClassifier(soft_targets=True).fit(X_IRIS, np.eye(3)[np.full(150, 1)])


def test_sparse_targets_raise():
    with pytest.raises(TypeError, match=r"Sparse data was passed for y, but dense data is required"):
        SoftmaxClassifier(soft_targets=True).fit(X_IRIS, sp.csr_array(TABLE))


@pytest.mark.parametrize(
    ("params", "kwargs", "message"),
    [
        (
            {"allow_new_classes": True},
            {},
            "allow_new_classes=True takes labels, got soft_targets=True; give y a column",
        ),
        ({}, {"classes": [0, 1]}, r"column for each of the classes \[0, 1\], got \[0, 1, 2\]"),
        ({"class_weight": "balanced"}, {}, "pass the weights as a dict"),
    ],
)
def test_a_stream_of_targets_that_cannot_be_raises(params, kwargs, message):
    clf = SoftmaxClassifier(soft_targets=True, **params)
    with pytest.raises(ValueError, match=message):
        clf.partial_fit(X_IRIS, TABLE, **kwargs)
    assert not hasattr(clf, "n_features_in_")


def test_a_later_piece_of_other_classes_raises():
    clf = SoftmaxClassifier(soft_targets=True).partial_fit(X_IRIS, TABLE)
    with pytest.raises(ValueError, match=r"column for each of the classes \[0, 1, 2\], got \[0, 1\]"):
        clf.partial_fit(X_IRIS, np.full((150, 2), 0.5))


def test_validation_targets_of_other_classes_raise():
    clf = SoftmaxClassifier(soft_targets=True, early_stopping=True)
    with pytest.raises(ValueError, match=r"y_val must have a column for each of the classes \[0, 1, 2\], got \[0, 1\]"):
        clf.fit(X_IRIS, TABLE, X_val=X_IRIS, y_val=np.full((150, 2), 0.5))
    with pytest.raises(ValueError, match="rows of y_val must sum to 1, got 2 in row 0"):
        clf.fit(X_IRIS, TABLE, X_val=X_IRIS, y_val=np.full((150, 2), 1.0))


@pytest.mark.skipif(not has_compiled(), reason="needs the kernels")
@pytest.mark.parametrize("params", [{"soft_targets": True}, {"label_smoothing": 0.1}])
def test_the_dual_takes_neither(params):
    clf = SoftmaxClassifier(solver="dual", **params)
    y = TABLE if "soft_targets" in params else Y_IRIS
    for method in ("fit", "partial_fit"):
        with pytest.raises(ValueError, match=r"solver='dual' takes one class per row, got .*; use solver='auto'"):
            getattr(clf, method)(X_IRIS, y)


@pytest.mark.skipif(not has_compiled(), reason="needs the kernels")
def test_auto_takes_another_solver_where_labels_would_have_the_dual():
    X, y = random_data(600, 200)
    fits = [SoftmaxClassifier(l1_ratio=0.5, label_smoothing=s).fit(sp.csr_array(X), y) for s in (0.0, 0.1)]
    assert [fit.solver_info_["solver"] for fit in fits] == ["dual", "proximal_newton"]


def test_without_the_switch_a_table_is_no_y():
    with pytest.raises(ValueError, match="should be a 1d array"):
        SoftmaxClassifier().fit(X_IRIS, TABLE)
