"""A cluster's rows give the minimum of one machine's, whatever the partitions and whatever becomes of the workers."""

import os
import pickle
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, nullcontext, suppress
from unittest.mock import Mock

import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from distributed import Client, LocalCluster
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone

import sksoftmax.dask
from sksoftmax import SoftmaxClassifier
from sksoftmax._cluster.client import Cluster
from sksoftmax._data import chunks as _chunks
from sksoftmax.dask import DaskSoftmaxClassifier
from tests.data.test_out_of_core import ALPHA, excess, sorted_data
from tests.training.test_callbacks import Recorder, needs_callbacks

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning", "ignore:.*heartbeat")


@contextmanager
def cluster_of(n_workers):
    """Processes; that one was killed before the cluster had heard of it is an error as it closes, and none of ours."""
    cluster = LocalCluster(n_workers=n_workers, threads_per_worker=1, processes=True, dashboard_address=":0")
    try:
        yield cluster
    finally:
        with suppress(KeyError):
            cluster.close()


@pytest.fixture(scope="module")
def client():
    with cluster_of(2) as cluster, Client(cluster) as client:
        yield client


@pytest.fixture(autouse=True)
def small_sample(monkeypatch):
    monkeypatch.setattr(_chunks, "SAMPLE_SIZE", 2**15)


def chunked(X, y, chunks=500):
    return da.from_array(X, chunks=(chunks, -1)), da.from_array(y, chunks=(chunks,))


def fitted(X, y, chunks=500, weight=None, **settings):
    clf = DaskSoftmaxClassifier(ALPHA, random_state=0, **settings)
    weight = None if weight is None else da.from_array(weight, chunks=(chunks,))
    return clf.fit(*chunked(X, y, chunks), weight)


# --- the answer -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n_classes", [2, 4])
def test_a_cluster_gives_the_minimum_of_all_rows(n_classes, dtype, client):
    X, y = sorted_data(n_classes=n_classes, dtype=dtype)
    clf = fitted(X, y)
    assert "sample" in clf.solver_info_
    assert clf.coef_.dtype == dtype
    assert -1e-9 < excess(clf, X, y) < 1e-3


@pytest.mark.parametrize(
    "chunks",
    [
        4000,  # one
        37,  # many
        (1, 3000, 10, 989),  # very unequal
        (0, 2000, 0, 2000, 0),  # some without a row
    ],
    ids=str,
)
def test_the_minimum_does_not_depend_on_the_partitions(chunks, client):
    X, y = sorted_data()
    clf = fitted(X, y, chunks)
    assert excess(clf, X, y) < 1e-3


def test_a_partition_may_be_of_one_class(client):
    X, y = sorted_data()
    clf = fitted(X, y, tuple(np.bincount(y).tolist()))
    assert excess(clf, X, y) < 1e-3


def test_csr_blocks_give_the_same_minimum(client):
    X, y = sorted_data(scales=(0, 0))
    blocks = da.from_array(X, chunks=(500, -1)).map_blocks(sp.csr_matrix)
    clf = DaskSoftmaxClassifier(ALPHA, random_state=0).fit(blocks, da.from_array(y, chunks=500))
    assert "sample" in clf.solver_info_
    assert excess(clf, X, y) < 1e-3


def test_data_frames_give_the_same_minimum_and_their_names(client):
    X, y = sorted_data()
    names = [f"x{i}" for i in range(X.shape[1])]
    frame = dd.from_pandas(pd.DataFrame(X, columns=names).assign(y=y), npartitions=5)
    clf = DaskSoftmaxClassifier(ALPHA, random_state=0).fit(frame[names], frame["y"])
    assert excess(clf, X, y) < 1e-3
    assert_array_equal(clf.feature_names_in_, names)
    assert_array_equal(clf.predict(frame[names]).compute(), clf.predict(pd.DataFrame(X, columns=names)))
    proba = clf.predict_proba(frame[names])
    assert proba.shape[1] == 4
    assert_allclose(proba.sum(axis=1).compute(), 1)


def test_class_weights_are_looked_up_by_the_labels(client):
    X, y = sorted_data(n_classes=3)
    names, factors = np.array(["01", "1", "a"]), np.array([1.0, 5.0, 0.2])
    named = fitted(X, names[y], class_weight=dict(zip(names.tolist(), factors, strict=True)))
    coded = fitted(X, y, class_weight=dict(enumerate(factors)))
    assert_array_equal(named.coef_, coded.coef_)
    with pytest.raises(ValueError, match=r"class_weight must name classes of y, which are \[0, 1, 2\], got \['1'\]"):
        fitted(X, y, class_weight={"1": 5.0})


@pytest.mark.parametrize("n_kept", [1, 2, 3])
def test_a_class_whose_rows_weigh_nothing_changes_no_other(n_kept, client):
    X, y = sorted_data(n_classes=4)
    weight = (y >= 4 - n_kept) * 1.0  # whole partitions weigh nothing
    clf = fitted(X, y, weight=weight, tol=1e-8, max_iter=500)
    want = SoftmaxClassifier(ALPHA, tol=1e-8, max_iter=500, random_state=0).fit(X, y, weight)
    assert_array_equal(clf.classes_, range(4))
    assert_allclose(clf.predict_proba(X), want.predict_proba(X), atol=1e-3)  # F within 1e-8 of the same minimum


def test_weights_and_class_weights_count(client):
    X, y = sorted_data()
    weight = np.random.RandomState(0).uniform(0, 3, len(y))
    weight[:600] = 0  # a whole partition
    clf = fitted(X, y, weight=weight, class_weight={0: 3.0, 1: 1.0, 2: 0.5, 3: 1.0})
    assert excess(clf, X, y, weight * np.array([3.0, 1.0, 0.5, 1.0])[y]) < 1e-3


def test_an_l1_penalty_has_the_same_minimum(client):
    X, y = sorted_data(scales=(0, 0))
    assert excess(fitted(X, y, l1_ratio=0.5), X, y) < 1e-3


def test_rows_that_the_sample_holds_are_fitted_as_by_fit(client, monkeypatch):
    monkeypatch.setattr(_chunks, "SAMPLE_SIZE", 2**27)
    X, y = sorted_data(n_samples=600)
    clf = fitted(X, y, tol=1e-12)
    assert_allclose(clf.coef_, SoftmaxClassifier(ALPHA, tol=1e-12).fit(X, y).coef_, rtol=1e-4, atol=1e-7)


def test_labels_may_be_words(client):
    X, codes = sorted_data()
    y = np.array(["pear", "fig", "apple", "quince"])[codes]
    clf = fitted(X, y)
    assert_array_equal(clf.classes_, ["apple", "fig", "pear", "quince"])
    assert_array_equal(clf.predict(chunked(X, y)[0]).compute(), clf.predict(X))
    assert excess(clf, X, y) < 1e-3


# --- workers ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_workers", [1, 2, 4])
def test_the_coefficients_are_the_same_bit_for_bit_on_any_number_of_workers(n_workers, client):
    X, y = sorted_data(n_samples=2000)
    want = fitted(X, y).coef_
    client.cluster.scale(n_workers)
    client.wait_for_workers(n_workers, timeout=60)
    try:
        assert_array_equal(fitted(X, y).coef_, want)
    finally:
        client.cluster.scale(2)
        client.wait_for_workers(2, timeout=60)


def before_the_second_round(monkeypatch, action):
    """Do something when the rows have been summed over once."""
    calls = []
    summed = Cluster.sum_over

    def counting(self, *args):
        calls.append(1)
        if len(calls) == 2:
            action()
        return summed(self, *args)

    monkeypatch.setattr(Cluster, "sum_over", counting)
    return calls


def test_a_worker_that_dies_changes_nothing(client, monkeypatch):
    X, y = sorted_data()
    want = fitted(X, y, tol=1e-8).coef_
    victim = next(iter(client.run(os.getpid).values()))
    calls = before_the_second_round(monkeypatch, lambda: os.kill(victim, signal.SIGKILL))
    got = fitted(X, y, tol=1e-8).coef_
    assert len(calls) > 2
    assert_array_equal(got, want)
    client.wait_for_workers(2, timeout=60)
    assert victim not in client.run(os.getpid).values()


def test_a_cluster_without_workers_is_an_error_within_a_bounded_time(monkeypatch):
    X, y = sorted_data()
    with cluster_of(1) as cluster, Client(cluster) as client:
        clf = DaskSoftmaxClassifier(ALPHA, tol=1e-8)
        clf.client, clf.workers_timeout = client, 2.0
        before_the_second_round(monkeypatch, lambda: cluster.scale(0))
        with pytest.raises(RuntimeError, match="no worker for 2 seconds"):
            clf.fit(*chunked(X, y))
    assert not hasattr(clf, "coef_")


# --- what travels -----------------------------------------------------------------------------------------


def test_the_model_says_what_travelled(client):
    X, y = sorted_data()
    clf = fitted(X, y)
    told = clf.communication_
    assert told.n_workers == 2
    assert told.n_sampled * X.shape[1] * 8 <= 2**15
    assert told.rounds <= 8
    parameters = 8 * (clf.coef_.size + clf.intercept_.size)
    n_sums = told.rounds - 2  # the columns and classes, the sample
    # to each worker; the last time with a step, along which no row may saturate, and room for the intercepts' curvature
    assert told.bytes_sent == 2 * (parameters * (n_sums + 1) + 8 * clf.intercept_.size)
    assert told.bytes_received < told.n_sampled * (X.shape[1] + 2) * 8 + 3 * parameters * n_sums + 4000


# --- a model that goes elsewhere --------------------------------------------------------------------------


def test_to_local_and_back(client):
    X, y = sorted_data()
    clf = fitted(X, y)
    local = clf.to_local()
    assert type(local) is SoftmaxClassifier
    assert local.get_params() == clf.get_params()
    assert_array_equal(local.predict_proba(X), clf.predict_proba(X))
    back = DaskSoftmaxClassifier.from_local(local)
    assert_array_equal(back.predict(chunked(X, y)[0]).compute(), local.predict(X))
    local.coef_[:] = 0
    assert clf.coef_.any()


@pytest.mark.parametrize("n_classes", [2, 4])
@pytest.mark.parametrize("method", ["predict", "predict_proba", "predict_log_proba", "decision_function"])
def test_predictions_are_lazy_and_those_of_the_local_model(method, n_classes, client):
    X, y = sorted_data(n_classes=n_classes)
    clf = fitted(X, y)
    lazy = getattr(clf, method)(da.from_array(X, chunks=(700, 3)))
    assert isinstance(lazy, da.Array)
    want = getattr(clf.to_local(), method)(X)
    assert lazy.shape == want.shape
    assert lazy.dtype == want.dtype
    assert_array_equal(lazy.compute(), want)


@pytest.mark.parametrize("method", ["predict", "predict_proba"])
def test_a_partition_without_rows_leaves_the_predictions_their_dtype(method, client):
    X, y = sorted_data()
    clf = fitted(X, y)
    frame = dd.from_pandas(pd.DataFrame(X, columns=list("abcdefgh")), npartitions=4)
    few = frame[frame["a"] > frame["a"].max().compute() - 0.1]  # most partitions have none
    found = getattr(clf, method)(few)
    assert found.compute().dtype == found.dtype == getattr(clf.to_local(), method)(X).dtype


def as_frames(X, y, weight):
    frame = dd.from_pandas(pd.DataFrame(X, columns=list("abcdefgh")).assign(y=y, weight=weight), npartitions=5)
    return frame[list("abcdefgh")], frame["y"], frame["weight"]


def as_arrays_of_unknown_chunks(X, y, weight):
    return tuple(part.to_dask_array() for part in as_frames(X, y, weight))


def as_arrays(X, y, weight):
    return *chunked(X, y), da.from_array(weight, chunks=500)


@pytest.mark.parametrize("given", [as_frames, as_arrays_of_unknown_chunks, as_arrays])
def test_score_takes_what_fit_takes_and_is_that_of_the_local_model(given, client):
    X, y = sorted_data()
    weight = np.where(np.arange(len(y)) < 1000, 0.0, np.random.RandomState(0).uniform(0, 3, len(y)))
    X_lazy, y_lazy, weight_lazy = given(X, y, weight)
    clf = DaskSoftmaxClassifier(ALPHA, random_state=0).fit(X_lazy, y_lazy, weight_lazy)
    local = clf.to_local()
    X_local = X_lazy.compute()  # with the names of a data frame's columns
    assert clf.score(X_lazy, y_lazy) == local.score(X_local, y)
    assert clf.score(X_lazy, y_lazy, weight_lazy) == pytest.approx(local.score(X_local, y, weight), rel=1e-12)
    assert clf.score(X_lazy, y, weight) == clf.score(X_local, y, weight) == local.score(X_local, y, weight)


def test_score_says_what_is_wrong(client):
    X, y = sorted_data(n_samples=1000)
    clf = DaskSoftmaxClassifier(0.1, random_state=0).fit(*chunked(X, y))
    X_lazy, y_lazy = chunked(X, y)
    with pytest.raises(TypeError, match="ndarray"):
        clf.score(X, y_lazy)
    with pytest.raises(ValueError, match="partitions of X"):
        clf.score(X_lazy, y_lazy[:500])
    with pytest.raises(ValueError, match="only zeros"):
        clf.score(X_lazy, y_lazy, y_lazy * 0)
    with pytest.raises(ValueError, match="sample_weight must not be negative, got -1"):
        clf.score(X_lazy, y_lazy, y_lazy * 0 - 1)
    with pytest.raises(ValueError, match=r"sample_weight must sum to 1e\+200 at most, got 1.8e\+200"):
        clf.score(X_lazy, y_lazy, y_lazy * 0 + 1.8e197)  # together; each partition's sum is below it
    with pytest.raises(ValueError, match="X must hold at least one row, got 2 partitions without one; check"):
        clf.score(X_lazy[y_lazy > 9], y_lazy[y_lazy > 9])


def test_it_is_cloned_and_pickled_without_its_client(client):
    X, y = sorted_data()
    clf = DaskSoftmaxClassifier(ALPHA, random_state=0)
    clf.client = client
    clf.fit(*chunked(X, y))
    assert clone(clf).client is client  # the current one
    assert_array_equal(pickle.loads(pickle.dumps(clf)).predict(X), clf.predict(X))


def test_it_becomes_a_logistic_regression_of_all_the_rows_on_the_cluster(client):
    X, y = sorted_data()
    clf = fitted(X, y)
    model = clf.to_sklearn()
    assert pytest.approx(1 / (ALPHA * len(y))) == model.C
    assert_array_equal(model.predict(X), clf.predict(X))
    back = DaskSoftmaxClassifier.from_sklearn(model, total_weight=len(y))
    assert_array_equal(back.predict(chunked(X, y)[0]).compute(), clf.predict(X))


# --- what is left ---------------------------------------------------------------------------------------


def n_left(client):
    """Futures of the client and tasks of the cluster, after at most 10 seconds: releasing takes some messages."""
    for _ in range(200):
        n = len(client.futures) + client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.tasks))
        if n == 0:
            break
        time.sleep(0.05)
    return n


@pytest.mark.parametrize("end", ["nan", "keyboard", "success"])
def test_no_future_and_no_data_are_left_behind(end, client, monkeypatch):
    X, y = sorted_data()
    if end == "nan":
        X[3000, 1] = np.nan
        expected = pytest.raises(ValueError, match="NaN")
    elif end == "keyboard":
        before_the_second_round(monkeypatch, Mock(side_effect=KeyboardInterrupt))
        expected = pytest.raises(KeyboardInterrupt)
    else:
        expected = nullcontext()
    with expected as error:
        fitted(X, y, tol=1e-8)
    assert n_left(client) == 0
    del error  # whose traceback was alive


# --- what comes in ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        (lambda X, y: (X.compute(), y), TypeError, "ndarray.*SoftmaxClassifier"),
        (lambda X, y: (X, y.compute()), TypeError, "y must be a dask collection"),
        (lambda X, y: (X, y[:1000]), ValueError, "partitions of X"),
        (lambda X, y: (X * np.nan, y), ValueError, "NaN"),
        (lambda X, y: (X, y * 0), ValueError, "one class"),
        (lambda X, y: (X, da.where(y == 0, np.nan, y)), ValueError, "Input y contains NaN, in row"),
        (
            lambda X, y: (X, da.concatenate([y[:500], y[500:].astype(str).astype(object)])),
            ValueError,
            "y must hold numbers, as the earlier labels do, such as 0, got strings",
        ),
        (lambda X, y: (X, y + 0.5), ValueError, "Unknown label type"),
        (lambda X, y: (X, y, y * 0), ValueError, "only zeros"),
        (lambda X, y: (X, y, y - 1), ValueError, "must not be negative"),
        (lambda X, y: (X[y > 9], y[y > 9]), ValueError, "X must hold at least one row, got 8 partitions without one"),
        (lambda X, y: (X[y > 9], y[y > 9], y[y > 9]), ValueError, "X must hold at least one row"),
    ],
)
def test_bad_rows_say_what_is_wrong_and_leave_nothing_behind(change, error, match, client):
    clf = DaskSoftmaxClassifier(ALPHA)
    with pytest.raises(error, match=match):
        clf.fit(*change(*chunked(*sorted_data())))
    assert not hasattr(clf, "coef_")


def test_smoothed_labels_have_the_minimum_of_one_machine(client):
    X, y = sorted_data()
    clf = fitted(X, y, label_smoothing=0.1, tol=1e-6)
    assert "sample" in clf.solver_info_
    best = SoftmaxClassifier(ALPHA, label_smoothing=0.1, tol=1e-12).fit(X, y)
    assert clf.loss_curve_[-1] == pytest.approx(best.loss_curve_[-1], rel=2e-6)


def test_soft_targets_raise(client):
    X, y = sorted_data()
    with pytest.raises(ValueError, match="a fit on a cluster takes labels, got soft_targets=True"):
        fitted(X, y, soft_targets=True)


@needs_callbacks
def test_a_callback_ends_a_fit_on_a_cluster(client):
    X, y = sorted_data()
    recorder = Recorder(last=1)
    clf = DaskSoftmaxClassifier(ALPHA, tol=1e-9, random_state=0).set_callbacks(recorder).fit(*chunked(X, y))
    assert clf.stop_reason_ == "callback"
    assert recorder.told == ["setup", "begin fit 0", "begin epoch 0", "end epoch 0", "end fit 0", "teardown"]
    assert_array_equal(recorder.models[0].coef_, clf.coef_)


@pytest.mark.parametrize("settings", [{"solver": "sgd"}, {"early_stopping": True}])
def test_only_the_default_solver_fits_a_cluster(settings, client):
    with pytest.raises(ValueError, match="solver must be 'auto'"):
        fitted(*sorted_data(), **settings)


@pytest.mark.parametrize("missing", ["dask", "distributed"])
def test_without_dask_the_error_says_what_to_install(missing):
    code = f"import sys; sys.modules[{missing!r}] = None; import sksoftmax; import sksoftmax.dask"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "pip install 'dask[array,dataframe]' distributed" in told.stderr


def test_without_a_client_the_error_says_what_to_do(monkeypatch):
    X, y = chunked(*sorted_data(n_samples=1000))
    clf = DaskSoftmaxClassifier(ALPHA)
    monkeypatch.setattr(sksoftmax.dask, "get_client", Mock(side_effect=ValueError("No global client found")))
    with pytest.raises(ValueError, match=r"client of a cluster, got none; make one"):
        clf.fit(X, y)
    clf.client = Mock(status="closed")
    with pytest.raises(ValueError, match=r"client of a cluster, got one that is closed; make one"):
        clf.fit(X, y)
