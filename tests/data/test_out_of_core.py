"""Rows that memory does not hold: the same minimum as in memory, whatever file or batches they come from."""

import pickle
import tracemalloc
import warnings

import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import zarr
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from sksoftmax import SoftmaxClassifier
from sksoftmax._data import chunks as _chunks
from sksoftmax._maths.objective import value_and_grad
from sksoftmax._types import Params
from tests.problems import CONTAINERS, problem, random_data

ALPHA = 1e-3


@pytest.fixture
def small_sample(monkeypatch):
    """A sample of 32 KiB, so that small data are too many for it."""
    monkeypatch.setattr(_chunks, "SAMPLE_SIZE", 2**15)


def sorted_data(n_samples=4000, n_features=8, n_classes=4, dtype=np.float64, scales=(-2, 2)):
    """Sorted by class, the hard case; columns over four decades."""
    X, y = random_data(n_samples, n_features, n_classes, dtype=dtype)
    order = np.argsort(y, kind="stable")
    return (X[order] * np.logspace(*scales, n_features)).astype(dtype), y[order]


class Batches:
    """Rows in pieces; counts the passes."""

    def __init__(self, X, y, *weight, size=300):
        self.columns, self.size, self.n_passes = (X, y, *weight), size, 0

    def __iter__(self):
        self.n_passes += 1
        for start in range(0, len(self.columns[1]), self.size):
            yield tuple(column[start : start + self.size] for column in self.columns)


def excess(clf, X, y, weight=None, alpha=ALPHA):
    """Of F in float64, in units of its minimum."""
    codes = np.unique(y, return_inverse=True)[1]
    X64 = X.astype(np.float64)
    penalty = {"alpha": alpha, "weight": weight}

    def value(model):
        params = Params(np.asarray(model.coef_, float), np.asarray(model.intercept_, float))
        F = problem(X64, codes, **penalty)._replace(l1_ratio=clf.l1_ratio)
        return value_and_grad(F, params).value

    settings = {"l1_ratio": clf.l1_ratio, "tol": 1e-10, "max_iter": 500}
    best = value(SoftmaxClassifier(alpha, **settings).fit(X64, y, weight))
    return value(clf) / best - 1


def as_memmap(X, folder):
    path = folder / "X.npy"
    np.save(path, X)
    return np.load(path, mmap_mode="r")


def as_hdf5(X, folder):
    return h5py.File(folder / "X.h5", "w").create_dataset("X", data=X, chunks=(100, X.shape[1]))


def as_zarr(X, folder):
    array = zarr.create_array(str(folder / "X.zarr"), shape=X.shape, dtype=X.dtype, chunks=(100, X.shape[1]))
    array[:] = X
    return array


ON_DISK = [as_memmap, as_hdf5, as_zarr]


# --- the answer -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_classes", [2, 4])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("on_disk", ON_DISK)
def test_a_sorted_file_gives_the_minimum_of_all_rows(on_disk, dtype, n_classes, tmp_path, small_sample):
    X, y = sorted_data(n_classes=n_classes, dtype=dtype)
    clf = SoftmaxClassifier(ALPHA, random_state=0).fit(on_disk(X, tmp_path), y)  # a ConvergenceWarning is an error
    assert "sample" in clf.solver_info_
    assert clf.coef_.dtype == dtype
    assert clf.stop_reason_ == "tol"
    assert -1e-9 < excess(clf, X, y) < 1e-3


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("l1_ratio", [0, 0.5])
def test_batches_give_the_minimum_of_all_rows(container, l1_ratio, small_sample):
    X, y = sorted_data(scales=(0, 0))
    batches = Batches(CONTAINERS[container](X), y)
    clf = SoftmaxClassifier(ALPHA, l1_ratio=l1_ratio, random_state=0).fit_batches(batches)
    assert -1e-9 < excess(clf, X, y) < 1e-3
    assert "sample" in clf.solver_info_
    assert batches.n_passes <= 12


def test_a_tighter_tolerance_is_kept(small_sample):
    X, y = sorted_data()
    clf = SoftmaxClassifier(ALPHA, tol=1e-8, random_state=0).fit_batches(Batches(X, y))
    assert -1e-9 < excess(clf, X, y) < 1e-8


def test_it_is_the_minimum_of_logistic_regression(small_sample):
    X, y = sorted_data(scales=(0, 0))
    clf = SoftmaxClassifier(ALPHA, tol=1e-10, random_state=0).fit_batches(Batches(X, y))
    peer = LogisticRegression(C=1 / (ALPHA * len(y)), solver="newton-cg", tol=1e-10, max_iter=1000).fit(X, y)
    assert_allclose(clf.coef_, peer.coef_, atol=1e-4)  # both within 1e-10 of F*: coefficients within its root
    assert_allclose(clf.predict_proba(X), peer.predict_proba(X), atol=1e-4)


@pytest.mark.parametrize("size", [1, 7, 4000])
def test_the_minimum_does_not_depend_on_the_sizes_of_the_batches(size, small_sample):
    X, y = sorted_data(n_samples=1500)
    clf = SoftmaxClassifier(ALPHA, random_state=0).fit_batches(Batches(X, y, size=size))
    assert "sample" in clf.solver_info_
    assert excess(clf, X, y) < 1e-3


def test_a_sample_that_misses_columns_of_the_rest_still_ends_at_the_minimum(small_sample):
    X, y = sorted_data(n_features=6, scales=(0, 0))
    rare = np.zeros((len(y), 40))
    rare[np.arange(40), np.arange(40)] = 5.0  # each in one row: of most the sample has none
    X = np.hstack([X, rare])
    clf = SoftmaxClassifier(1e-4, random_state=0).fit_batches(Batches(X, y))
    assert excess(clf, X, y, alpha=1e-4) < 1e-3


@pytest.mark.parametrize(("n_features", "n_classes"), [(150, 2), (300, 5)])  # factorised, and conjugate gradients
def test_a_sample_of_fewer_rows_than_columns_still_leads_to_the_minimum(
    n_features, n_classes, small_sample, monkeypatch
):
    products = []
    one = _chunks.hessian_product
    monkeypatch.setattr(_chunks, "hessian_product", lambda *args: products.append(1) or one(*args))
    X, y = sorted_data(n_samples=3000, n_features=n_features, n_classes=n_classes, scales=(0, 0))
    clf = SoftmaxClassifier(1e-3, random_state=0).fit_batches(Batches(X, y))
    assert int(clf.solver_info_["sample"].split()[0]) < n_features
    assert products  # the sample alone would get nowhere: Hessian products of all rows take over
    assert excess(clf, X, y) < 1e-3


def test_a_rare_class_is_not_lost(small_sample):
    X, y = sorted_data(n_classes=3)
    y = y.copy()
    y[np.flatnonzero(y == 2)[5:]] = 1
    clf = SoftmaxClassifier(ALPHA, random_state=0).fit_batches(Batches(X, y))
    assert_array_equal(clf.classes_, [0, 1, 2])
    assert excess(clf, X, y) < 1e-3


def test_weights_and_class_weights_count(small_sample):
    X, y = sorted_data()
    weight = np.random.RandomState(0).uniform(0, 3, len(y))
    weight[::5] = 0
    clf = SoftmaxClassifier(ALPHA, class_weight={0: 3.0, 1: 1.0, 2: 0.5, 3: 1.0}, random_state=0)
    clf.fit_batches(Batches(X, y, weight))
    assert excess(clf, X, y, weight * np.array([3.0, 1.0, 0.5, 1.0])[y]) < 1e-3
    balanced = SoftmaxClassifier(ALPHA, class_weight="balanced", random_state=0).fit_batches(Batches(X, y, weight))
    totals = np.bincount(y, weight)
    assert excess(balanced, X, y, weight * (weight.sum() / (4 * totals))[y]) < 1e-3


@pytest.mark.parametrize("on_disk", ON_DISK)
def test_weights_of_a_file_count(on_disk, tmp_path, small_sample):
    X, y = sorted_data()
    weight = np.random.RandomState(0).uniform(0, 3, len(y))
    clf = SoftmaxClassifier(ALPHA, random_state=0).fit(on_disk(X, tmp_path), y, weight)
    assert excess(clf, X, y, weight) < 1e-3


@pytest.mark.parametrize("solver", ["sgd", "adam", "adagrad"])
def test_the_solvers_by_name_take_their_epochs_over_all_rows(solver, small_sample):
    X, y = sorted_data(scales=(0, 0))
    batches = Batches(X, y)
    clf = SoftmaxClassifier(0.1, solver=solver, max_iter=30, tol=1e-2, random_state=0).fit_batches(batches)
    assert "sample" not in clf.solver_info_
    assert batches.n_passes >= 1 + 2 * clf.n_iter_  # the check; an epoch and F each
    assert excess(clf, X, y, alpha=0.1) < 1e-2


def test_rows_that_the_sample_holds_are_fitted_as_by_fit():
    X, y = random_data(200)
    batches = Batches(X, y, size=30)
    clf = SoftmaxClassifier(random_state=0).fit_batches(batches)
    same = SoftmaxClassifier(random_state=0).fit(X, y)
    assert batches.n_passes == 1
    assert_array_equal(clf.coef_, same.coef_)
    assert_array_equal(clf.intercept_, same.intercept_)


def test_a_small_memmap_is_fitted_as_an_array(tmp_path):
    X, y = random_data(200)
    clf = SoftmaxClassifier(random_state=0).fit(as_memmap(X, tmp_path), y)
    assert_array_equal(clf.coef_, SoftmaxClassifier(random_state=0).fit(X, y).coef_)


def test_the_same_seed_gives_the_same_coefficients(small_sample):
    X, y = sorted_data()
    one, two = (SoftmaxClassifier(ALPHA, random_state=0).fit_batches(Batches(X, y)) for _ in range(2))
    assert_array_equal(one.coef_, two.coef_)


def test_a_warm_start_needs_fewer_passes(small_sample):
    X, y = sorted_data()
    clf = SoftmaxClassifier(ALPHA, tol=1e-6, warm_start=True, random_state=0).fit_batches(Batches(X, y))
    again = Batches(X, y)
    clf.fit_batches(again)
    assert again.n_passes == 4  # the check, F with its gradient, one step, and whether rows saturate along another


# --- memory -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("solver", ["auto", "sgd"])
def test_memory_does_not_grow_with_the_file(solver, tmp_path, monkeypatch):
    monkeypatch.setattr(_chunks, "SAMPLE_SIZE", 2**18)
    monkeypatch.setattr(_chunks, "_WINDOW_SIZE", 2**18)
    monkeypatch.setattr(_chunks, "CHUNK_SIZE", 2**16)
    peaks = []
    for n_samples in (20_000, 80_000):  # 1.6 and 6.4 MB of X
        X, y = random_data(n_samples, 10, 3)
        path = tmp_path / "X.npy"
        np.save(path, X)
        del X
        file, y = np.load(path, mmap_mode="r"), y.astype(np.uint8)
        clf = SoftmaxClassifier(0.1, solver=solver, tol=0.1, engine="vectorized", random_state=0)
        clf.fit(file, y)  # what is imported and cached on the way is not counted
        tracemalloc.start()
        clf.fit(file, y)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.25 * peaks[0]
    assert peaks[1] < 6.4e6


@pytest.mark.parametrize("on_disk", ON_DISK)
@pytest.mark.parametrize("method", ["predict", "predict_proba", "predict_log_proba", "decision_function"])
def test_predictions_of_a_file_are_those_of_its_rows(method, on_disk, tmp_path, small_sample):
    X, y = sorted_data()
    clf = SoftmaxClassifier(ALPHA, random_state=0).fit(X, y)
    assert_allclose(getattr(clf, method)(on_disk(X, tmp_path)), getattr(clf, method)(X), rtol=1e-12)


# --- what comes in ----------------------------------------------------------------------------------------


def test_a_function_that_returns_an_iterator_will_do(small_sample):
    X, y = sorted_data()
    clf = SoftmaxClassifier(ALPHA, random_state=0).fit_batches(lambda: iter(Batches(X, y)))
    assert excess(clf, X, y) < 1e-3


@pytest.mark.parametrize("is_small", [True, False])
def test_labels_may_be_words_that_turn_up_one_by_one(is_small, monkeypatch):
    if not is_small:
        monkeypatch.setattr(_chunks, "SAMPLE_SIZE", 2**15)
    X, codes = sorted_data()
    y = np.array(["pear", "fig", "apple", "quince"])[codes]
    clf = SoftmaxClassifier(ALPHA, random_state=0).fit_batches(Batches(X, y))
    assert_array_equal(clf.classes_, ["apple", "fig", "pear", "quince"])
    assert excess(clf, X, y) < 1e-3


def test_data_frames_give_their_names(small_sample):
    X, y = sorted_data()
    frame = pd.DataFrame(X, columns=[f"x{i}" for i in range(X.shape[1])])
    chunks = [(frame[i : i + 500], pd.Series(y[i : i + 500])) for i in range(0, len(y), 500)]
    clf = SoftmaxClassifier(ALPHA, random_state=0).fit_batches(chunks)
    assert_array_equal(clf.feature_names_in_, frame.columns)
    assert excess(clf, X, y) < 1e-3


def test_classes_that_do_not_come_have_a_probability_near_0(small_sample):
    X, y = sorted_data()
    clf = SoftmaxClassifier(ALPHA, random_state=0).fit_batches(Batches(X, y), classes=[0, 1, 2, 3, 9])
    assert_array_equal(clf.classes_, [0, 1, 2, 3, 9])
    assert clf.predict_proba(X)[:, 4].max() < 1e-2


def test_batches_without_rows_or_of_no_weight_are_left_out():
    X, y = random_data(60)
    other = (X[:5] + 100, y[:5], np.zeros(5))
    chunks = [(X[:0], y[:0]), other, (X[:30], y[:30]), (X[:0], y[:0]), (X[30:], y[30:]), other]
    clf = SoftmaxClassifier(random_state=0).fit_batches(chunks)
    assert_array_equal(clf.coef_, SoftmaxClassifier(random_state=0).fit(X, y).coef_)


@pytest.mark.parametrize("n_kept", [1, 2, 3])
def test_a_class_whose_rows_weigh_nothing_changes_no_other(n_kept, small_sample):
    X, y = sorted_data(n_classes=4)
    weight = (y >= 4 - n_kept) * 1.0  # whole batches weigh nothing
    settings = {"alpha": ALPHA, "tol": 1e-8, "max_iter": 500, "random_state": 0}
    clf = SoftmaxClassifier(**settings).fit_batches(Batches(X, y, weight))
    want = SoftmaxClassifier(**settings).fit(X, y, weight)
    assert "sample" in clf.solver_info_ or n_kept == 1
    assert_array_equal(clf.classes_, range(4))
    assert_allclose(clf.predict_proba(X), want.predict_proba(X), atol=1e-3)  # F within 1e-8 of the same minimum


def test_classes_may_be_named_that_have_no_rows(small_sample):
    X, y = sorted_data(n_classes=3)
    settings = {"alpha": ALPHA, "tol": 1e-8, "max_iter": 500, "random_state": 0}
    clf = SoftmaxClassifier(**settings).fit_batches(Batches(X, y), classes=[0, 1, 2, 3])
    want = SoftmaxClassifier(**settings).fit(X, y)
    assert_allclose(clf.predict_proba(X)[:, :3], want.predict_proba(X), atol=1e-3)  # F within 1e-8, and 1 / 2n
    assert clf.predict_proba(X)[:, 3].max() <= 0.5 / len(y)


def test_a_generator_is_refused():
    X, y = random_data()
    with pytest.raises(TypeError, match=r"again and again.*generator.*partial_fit"):
        SoftmaxClassifier().fit_batches((X, y) for _ in range(2))


@pytest.mark.parametrize(
    ("chunks", "classes", "error", "match"),
    [
        ([], None, ValueError, "at least one row"),
        ([np.zeros((3, 2))], None, TypeError, r"\(X, y\) or \(X, y, sample_weight\)"),
        ([(np.eye(3), [0, 1, 2]), (np.eye(2), [0, 1])], None, ValueError, "2 features.*expecting 3"),
        ([(np.eye(3), [0, 1, 2]), (sp.csr_array(np.eye(3)), [0, 1, 2])], None, ValueError, "all sparse or all dense"),
        ([(np.eye(3), [0, 1, 2]), (np.full((3, 3), np.nan), [0, 1, 2])], None, ValueError, "NaN"),
        ([(np.eye(3), [0, 1, 5])], [0, 1], ValueError, r"got \[5\]"),
        ([(np.eye(3), [1, 1, 1])], None, ValueError, "one class, 1"),
        ([(np.eye(3), [0, 1, 2], [0, 0, 0])], None, ValueError, "only zeros"),
        ([(np.eye(3), [0, 1, 2], [1, -1, 0])], None, ValueError, "must not be negative"),
        ([(np.eye(3), [0.5, 1.5, 2.5])], None, ValueError, "Unknown label type"),
        ([(np.eye(3), [0, 1])], None, ValueError, "inconsistent"),
    ],
)
def test_bad_batches_say_what_is_wrong_and_leave_nothing_behind(chunks, classes, error, match):
    clf = SoftmaxClassifier()
    with pytest.raises(error, match=match):
        clf.fit_batches(chunks, classes)
    assert not hasattr(clf, "coef_")
    assert not hasattr(clf, "n_features_in_")


def test_nan_at_the_end_of_a_file_is_found_in_the_first_pass(tmp_path, small_sample):
    X, y = sorted_data()
    X[-1, -1] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        SoftmaxClassifier().fit(as_memmap(X, tmp_path), y)


CHANGES = {
    "fewer": (lambda chunks, X, y: chunks[:-1], "3900 rows, not 4000,"),
    "more": (lambda chunks, X, y: [*chunks, chunks[0]], "more than 4000 rows"),
    "labels": (lambda chunks, X, y: [(X, y + 7)], "other labels"),
    "counts": (lambda chunks, X, y: [(X, y[np.r_[:3999, 0]])], "other numbers of rows, or weights, in a class"),
    "weights": (lambda chunks, X, y: [(X, y, np.full(len(y), 1.001))], "other numbers of rows, or weights, in a class"),
    "columns": (lambda chunks, X, y: [(X[:, 1:], y)], "7 columns, not 8,"),
    "units": (lambda chunks, X, y: [(100 * X, y)], "other numbers in X"),
    "noise": (lambda chunks, X, y: [(X * np.random.RandomState(0).normal(1, 0.1, X.shape), y)], "other numbers in X"),
    "a row": (lambda chunks, X, y: [*chunks[:-1], (2 * chunks[-1][0], chunks[-1][1])], "other numbers in X"),
    "nan": (lambda chunks, X, y: [(np.where(np.arange(8) == 7, np.nan, X), y)], "NaN or inf in X"),
}


@pytest.mark.parametrize("n_same", [1, 2])
@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize(("change", "got"), CHANGES.values(), ids=CHANGES)
def test_rows_that_change_from_pass_to_pass_are_an_error(change, got, container, n_same, small_sample):
    X, y = sorted_data(scales=(0, 0))

    class Changing(Batches):
        def __iter__(self):
            chunks = list(super().__iter__())
            if self.n_passes > n_same:
                chunks = change(chunks, X, y)
            return ((CONTAINERS[container](X), *rest) for X, *rest in chunks)

    with pytest.raises(ValueError, match=f"same in every pass, got {got} in a later pass"):
        SoftmaxClassifier(ALPHA, tol=1e-9).fit_batches(Changing(X, y))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("scales", [(-30, 30), (0, 0)])
def test_the_order_of_the_rows_and_the_sizes_of_the_batches_may_change(scales, dtype, small_sample):
    X, y = sorted_data(dtype=dtype, scales=scales)
    rng = np.random.RandomState(0)

    def batches():
        order = rng.permutation(len(y))
        yield from Batches(X[order], y[order], size=rng.randint(50, 2000))

    assert excess(SoftmaxClassifier(ALPHA).fit_batches(batches), X, y) < 1e-3


# --- arrays that are filled anew --------------------------------------------------------------------------


def in_one_buffer(X, y, size=100):
    """A generator function whose batches all lie in the same arrays."""
    buffer, labels, weight = X[:size].copy(), y[:size].copy(), np.ones(size)

    def batches():
        for start in range(0, len(y), size):
            rows = slice(start, start + size)
            if sp.issparse(X):  # of as many entries a row in all
                buffer.data[:], buffer.indices[:] = X[rows].data, X[rows].indices
            else:
                buffer[:] = X[rows]
            labels[:], weight[:] = y[rows], 1.0 + y[rows]
            yield buffer, labels, weight
            weight[:] = -1.0

    return batches


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64])
@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("sample_size", [2**15, 2**27])
@pytest.mark.parametrize("solver", ["auto", "sgd"])
def test_batches_may_lie_in_one_buffer(solver, sample_size, container, dtype, monkeypatch):
    monkeypatch.setattr(_chunks, "SAMPLE_SIZE", sample_size)
    X, y = random_data(2000, 5, 3)
    X = CONTAINERS[container](np.where(np.abs(X) < 0.1, 1, 10 * X).astype(dtype))  # no zeros
    settings = {"solver": solver, "random_state": 0, "max_iter": 5, "tol": 0.1}
    settings |= {"learning_rate": 1e-3} if solver == "sgd" else {}
    coefs = []
    for batches in (in_one_buffer(X, y), list(Batches(X, y, 1.0 + y, size=100))):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # after 5 epochs
            coefs.append(SoftmaxClassifier(1e-2, **settings).fit_batches(batches).coef_)
    assert_array_equal(*coefs)


@pytest.mark.parametrize(("dtype", "n_copied"), [(np.float64, 7), (np.int64, 0)])
def test_rows_that_were_copied_already_are_not_copied_again(dtype, n_copied, monkeypatch):
    X, y = random_data(200)
    copies, copied = [], _chunks.copy_rows
    monkeypatch.setattr(_chunks, "copy_rows", lambda rows: copies.append(1) or copied(rows))
    SoftmaxClassifier().fit_batches(Batches((10 * X).astype(dtype), y, size=30))
    assert len(copies) == n_copied
    SoftmaxClassifier().fit_batches(list(Batches(X, y, size=30)))  # a list's arrays are not filled anew
    assert len(copies) == n_copied


def test_early_stopping_needs_the_rows_in_memory(small_sample):
    X, y = sorted_data()
    with pytest.raises(ValueError, match="early_stopping"):
        SoftmaxClassifier(early_stopping=True).fit_batches(Batches(X, y))


def test_a_model_of_a_file_pickles(tmp_path, small_sample):
    X, y = sorted_data()
    clf = SoftmaxClassifier(ALPHA, random_state=0).fit(as_memmap(X, tmp_path), y)
    assert_array_equal(pickle.loads(pickle.dumps(clf)).predict(X), clf.predict(X))


@pytest.mark.parametrize("verbose", [0, 1])
def test_verbose_tells_of_every_pass(verbose, small_sample, capsys):
    X, y = sorted_data()
    clf = SoftmaxClassifier(ALPHA, verbose=verbose, random_state=0).fit_batches(Batches(X, y))
    assert len(capsys.readouterr().out.splitlines()) == verbose * (clf.n_iter_ + 2)  # and the first and last line
