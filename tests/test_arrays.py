"""Arrays of other libraries in, arrays of theirs out, and NumPy's result."""

import pickle
import re
import subprocess
import sys
import warnings

import numpy as np
import pytest
import scipy.sparse as sp
import sklearn
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.datasets import load_digits, load_wine
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import estimator_checks_generator

from sksoftmax import SoftmaxClassifier, check_gradient
from sksoftmax._engines import array_api
from sksoftmax._engines import device as _device
from sksoftmax._training.start import auto_batch_size
from sksoftmax._types import Batch, Problem
from tests import libraries

WINE = load_wine(return_X_y=True)
NAMES = np.array(["barolo", "grignolino", "barbera"])[WINE[1]]

#: Of the same steps with sums in another order, in units of the largest coefficient: conjugate gradients amplify them.
RTOL = {np.float64: 1e-7, np.float32: 1e-4}


def rows_of(n_samples, n_features, n_classes, seed=0):
    rng = np.random.RandomState(seed)
    centres = rng.standard_normal((n_classes, n_features))
    y = rng.randint(0, n_classes, n_samples)
    return 0.25 * centres[y] + rng.standard_normal((n_samples, n_features)), y


#: name -> (rows, columns, classes), parameters, what runs.
FITS = {
    "factorised": ((3000, 5, 3), {}, "newton"),
    "two classes": ((20000, 12, 2), {"tol": 1e-6}, "newton"),
    "minibatches": ((6000, 40, 4), {"batch_size": 100}, "preconditioned_sgd+newton"),
    "each class's curvature": ((6000, 60, 20), {"tol": 1e-8}, "preconditioned_sgd+lbfgs"),
    "L-BFGS": ((4200, 80, 100), {"tol": 1e-2}, "preconditioned_sgd+lbfgs"),
    "many columns": ((400, 600, 3), {}, "newton"),
    "no intercept": ((6000, 10, 3), {"fit_intercept": False}, "newton"),
    "class weights": ((6000, 10, 3), {"class_weight": {0: 1.0, 1: 3.0, 2: 0.5}}, "newton"),
    "L1": ((6000, 10, 3), {"l1_ratio": 1.0, "alpha": 0.02}, "proximal_newton"),
    "elastic net by products": ((3000, 60, 20), {"l1_ratio": 0.5, "alpha": 1e-3}, "proximal_newton"),
    "early stopping": ((6000, 20, 3), {"early_stopping": True, "tol": 0.0, "n_iter_no_change": 2}, None),
    "sgd": ((1000, 8, 3), {"solver": "sgd", "max_iter": 3}, "sgd"),
    "averaged sgd, two classes": ((1000, 8, 2), {"solver": "sgd", "average": True, "max_iter": 3}, "sgd"),
    "adagrad": ((1000, 8, 3), {"solver": "adagrad", "max_iter": 3}, "adagrad"),
    "adam with L1": ((1000, 8, 3), {"solver": "adam", "l1_ratio": 1.0, "max_iter": 3}, "adam"),
}


def fitted(X, y, parameters, **rest):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # of the solvers by name, after three epochs
        return SoftmaxClassifier(random_state=0, **parameters).fit(X, y, **rest)


def assert_equal_fits(clf, library, of_numpy, rtol):
    size = np.abs(of_numpy.coef_).max()
    assert_allclose(library.numpy(clf.coef_), of_numpy.coef_, rtol=0, atol=rtol * size)
    intercept = library.numpy(clf.intercept_)
    assert_allclose(intercept, of_numpy.intercept_, rtol=0, atol=rtol * max(size, np.abs(of_numpy.intercept_).max()))


@pytest.mark.parametrize(
    ("name", "dtype"),
    [(name, np.float64) for name in FITS]
    + [(name, np.float32) for name in ("factorised", "two classes", "minibatches", "L-BFGS", "L1", "sgd")],
)
def test_a_fit_takes_the_same_steps_as_of_numpys_arrays(library, name, dtype):
    shape, parameters, solver = FITS[name]
    X, y = rows_of(*shape)
    X = X.astype(dtype)
    of_numpy = fitted(X, y, {"engine": "vectorized", **parameters})
    there = library.array(X)
    clf = fitted(there, library.array(y), parameters)
    assert_equal_fits(clf, library, of_numpy, RTOL[dtype])
    assert clf.solver_info_["solver"] == of_numpy.solver_info_["solver"]
    assert clf.solver_info_["engine"] == "array_api"
    assert solver in (None, clf.solver_info_["solver"])
    assert (clf.stop_reason_, clf.n_iter_) == (of_numpy.stop_reason_, of_numpy.n_iter_)
    assert_array_equal(library.numpy(there), X)  # as it was


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_what_a_fit_gives_is_of_the_library_and_device_of_X_and_of_its_dtype(library, dtype):
    X, y = WINE
    there = library.array(X.astype(dtype))
    clf = SoftmaxClassifier().fit(there, library.array(y))
    of_numpy = SoftmaxClassifier().fit(X.astype(dtype), y)
    assert_array_equal(library.numpy(clf.classes_), [0, 1, 2])
    assert library.numpy(clf.coef_).dtype == library.numpy(clf.intercept_).dtype == dtype
    assert_array_equal(library.numpy(clf.predict(there)), of_numpy.predict(X.astype(dtype)))
    for method in ("decision_function", "predict_proba", "predict_log_proba"):
        got, want = (library.numpy(getattr(clf, method)(there)), getattr(of_numpy, method)(X.astype(dtype)))
        assert got.dtype == dtype
        rtol, atol = (1e-3, 1e-4) if dtype == np.float32 else (1e-9, 1e-15)
        assert_allclose(got, want, rtol=rtol, atol=atol)
    assert clf.score(there, library.array(y)) == 1.0
    other = library.array(X.astype(np.float32 if dtype == np.float64 else np.float64))
    assert library.numpy(clf.predict_proba(other)).dtype == library.numpy(other).dtype


def test_two_classes_have_one_row_and_one_column(library):
    X, y = rows_of(500, 5, 2)
    there = library.array(X)
    clf, of_numpy = SoftmaxClassifier().fit(there, library.array(y)), SoftmaxClassifier().fit(X, y)
    assert library.numpy(clf.coef_).shape == (1, 5)
    assert_allclose(library.numpy(clf.decision_function(there)), of_numpy.decision_function(X), rtol=1e-6)
    assert_allclose(library.numpy(clf.predict_log_proba(there)), of_numpy.predict_log_proba(X), rtol=1e-6)
    assert_array_equal(library.numpy(clf.predict(there)), of_numpy.predict(X))


def test_labels_may_be_strings_and_weights_of_either_kind(library):
    X, _ = WINE
    there = library.array(X)
    weight = np.random.RandomState(0).uniform(0, 2, len(X)) * (np.arange(len(X)) % 5 > 0)
    of_numpy = SoftmaxClassifier().fit(X, NAMES, weight)
    for given in (weight, library.array(weight)):
        clf = SoftmaxClassifier().fit(there, NAMES, given)
        assert_equal_fits(clf, library, of_numpy, 1e-9)
        assert_array_equal(clf.classes_, sorted(set(NAMES)))
        assert_array_equal(clf.predict(there), of_numpy.predict(X))
        assert clf.score(there, NAMES) == of_numpy.score(X, NAMES)


def test_labels_of_numpys_are_predicted_where_X_is(library):
    X, y = WINE
    clf = SoftmaxClassifier().fit(library.array(X), y + 7)
    assert isinstance(clf.classes_, np.ndarray)
    assert_array_equal(library.numpy(clf.predict(library.array(X))), SoftmaxClassifier().fit(X, y + 7).predict(X))


def test_nothing_of_the_size_of_X_moves_to_host_memory(library, monkeypatch):
    X, y = rows_of(20000, 40, 5)
    there, codes = library.array(X.astype(np.float32)), library.array(y)
    sizes = []

    def recorded(array, to_numpy=_device.to_numpy):
        values = to_numpy(array)
        sizes.append(np.size(values))
        return values

    monkeypatch.setattr(_device, "to_numpy", recorded)
    clf = SoftmaxClassifier(random_state=0, tol=1e-6).fit(there, codes)
    clf.predict_proba(there)
    assert clf.solver_info_["curvature"] != "factorised, all rows"  # rows were drawn
    assert 0 < max(sizes) <= X.size / 10  # matrices of the parameters, and a few numbers a row


@pytest.mark.parametrize("name", ["two classes", "each class's curvature", "L1"])
def test_blocks_of_rows_may_be_small(library, monkeypatch, name):
    shape, parameters, _ = FITS[name]
    X, y = rows_of(*shape)
    of_numpy = fitted(X, y, {"engine": "vectorized", **parameters})
    monkeypatch.setattr(_device, "_BLOCK_SIZE", 2**16)
    monkeypatch.setattr(_device, "_DEVICE_FACTOR", 1)
    assert_equal_fits(fitted(library.array(X), y, parameters), library, of_numpy, RTOL[np.float64])


def test_an_epoch_elsewhere_has_half_as_many_batches(library):
    X, y = library.array(np.zeros((140_000, 2), np.float32)), np.zeros(140_000, int)
    problem = Problem(Batch(libraries.wrapped(X), y, np.ones(len(y))), 3, 1e-4, True, array_api, 1.0)
    is_here = "cpu" in str(library.device).lower()
    assert auto_batch_size(problem) == (140_000 // 512 if is_here else 140_000 // 256)


def test_a_device_without_float64_is_fitted_in_float32(monkeypatch):
    X, y = rows_of(6000, 20, 3)
    with libraries.dispatch(monkeypatch):
        strict = pytest.importorskip("array_api_strict")
        library = libraries.Library(strict, strict.Device("no_float64"))
        clf = SoftmaxClassifier(random_state=0).fit(library.array(X.astype(np.float32)), y)
    assert_equal_fits(clf, library, fitted(X.astype(np.float32), y, {"engine": "vectorized"}), RTOL[np.float32])


def test_integers_become_float64(library):
    X, y = WINE
    clf = SoftmaxClassifier().fit(library.array(np.rint(X).astype(np.int64)), y)
    assert_equal_fits(clf, library, SoftmaxClassifier().fit(np.rint(X), y), 1e-9)


def test_a_warm_start_goes_on_from_numpys_coefficients_and_the_other_way_round(library):
    X, y = rows_of(2000, 10, 3)
    there = library.array(X)
    for first, second in ((X, there), (there, X)):
        clf = SoftmaxClassifier(warm_start=True, tol=1e-8).fit(first, y).fit(second, y)
        assert clf.n_iter_ == 1
    with pytest.raises(ValueError, match="warm_start needs the classes"):
        clf.fit(there, library.array(y + 1))


# --- streams ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("parameters", [{}, {"keep_rows": False}, {"half_life": 500.0}, {"solver": "sgd"}])
@pytest.mark.parametrize("n_classes", [2, 4])
def test_a_stream_is_learned_as_of_numpys_arrays(library, parameters, n_classes):
    X, y = rows_of(3000, 10, n_classes)
    streams = [
        SoftmaxClassifier(random_state=0, **{"engine": engine, **parameters}) for engine in ("vectorized", "auto")
    ]
    for start in range(0, len(X), 500):
        rows = slice(start, start + 500)
        streams[0].partial_fit(X[rows], y[rows], classes=range(n_classes))
        streams[1].partial_fit(library.array(X[rows]), library.array(y[rows]), classes=range(n_classes))
    assert_equal_fits(streams[1], library, streams[0], 1e-9)
    of_numpy, info = (stream.solver_info_ for stream in streams)
    assert info["engine"] == "array_api"
    assert [info.get(key) for key in ("solver", "kept", "batch_size", "metric")] == [
        of_numpy.get(key) for key in ("solver", "kept", "batch_size", "metric")
    ]


def test_a_stream_meets_new_classes_and_survives_a_pickle(library):
    X, y = rows_of(900, 6, 3)
    order = np.argsort(y, kind="stable")
    clf = SoftmaxClassifier(allow_new_classes=True)
    for rows in np.split(order, [500]):
        clf = pickle.loads(pickle.dumps(clf)).partial_fit(library.array(X[rows]), library.array(y[rows]))
    assert_array_equal(library.numpy(clf.classes_), [0, 1, 2])
    of_numpy = SoftmaxClassifier(allow_new_classes=True)
    for rows in np.split(order, [500]):
        of_numpy.partial_fit(X[rows], y[rows])
    assert_equal_fits(clf, library, of_numpy, 1e-9)


def test_the_rows_of_a_stream_are_its_own(library):
    X, y = rows_of(400, 6, 3)
    there, clf = library.array(X), SoftmaxClassifier()
    clf.partial_fit(there, y, classes=range(3))
    there[:, :] = 0.0
    clf.partial_fit(library.array(X), y)
    assert_equal_fits(clf, library, SoftmaxClassifier().fit(np.tile(X, (2, 1)), np.tile(y, 2)), 0.1)  # both to 1e-2


# --- what bad input gets ------------------------------------------------------------------------------------


def test_predictions_ask_for_the_library_and_device_of_the_fit(library):
    X, y = WINE
    there = library.array(X)
    of_numpy, clf = SoftmaxClassifier().fit(X, y), SoftmaxClassifier().fit(there, y)
    for method in ("predict", "predict_proba", "predict_log_proba", "decision_function", "partial_fit"):
        rest = (y,) if method == "partial_fit" else ()
        for model, rows in ((clf, X), (clf, sp.csr_array(X)), (clf, X.tolist()), (of_numpy, there)):
            with pytest.raises(
                ValueError, match=re.escape(f".{method}() must use the same namespace and the same dev")
            ):
                getattr(model, method)(rows, *rest)
    clf.coef_, clf.intercept_ = library.numpy(clf.coef_), library.numpy(clf.intercept_)
    assert_array_equal(clf.predict(X), of_numpy.predict(X))


def test_predictions_after_such_a_fit_ask_for_dispatch(library):
    X, y = WINE
    clf = SoftmaxClassifier().fit(library.array(X), y)
    with sklearn.config_context(array_api_dispatch=False):
        with pytest.raises(ValueError, match=r"predict_proba needs sklearn.config_context\(array_api_dispatch=True\)"):
            clf.predict_proba(X)
        assert SoftmaxClassifier(warm_start=True).fit(X, y).set_params(alpha=1e-3).fit(X, y).n_iter_ > 0


@pytest.mark.parametrize("engine", ["compiled", "naive"])
def test_engines_that_are_numpys_say_so(library, engine):
    if engine == "compiled":
        pytest.importorskip("_sksoftmax_kernels")
    X, y = WINE
    with pytest.raises(ValueError, match=f"engine='{engine}' takes NumPy arrays .* use engine='auto'"):
        SoftmaxClassifier(engine=engine).fit(library.array(X), y)


def test_it_becomes_a_logistic_regression_of_numpys_arrays(library):
    X, y = WINE
    clf = SoftmaxClassifier(random_state=0).fit(library.array(X), y)
    model = clf.to_sklearn()
    assert type(model.coef_) is np.ndarray
    assert_array_equal(model.coef_, library.numpy(clf.coef_))
    assert model.score(X, y) == 1.0


def test_fit_batches_says_that_it_takes_numpys(library):
    X, y = WINE
    with pytest.raises(ValueError, match="fit_batches takes NumPy arrays and SciPy's sparse matrices, got"):
        SoftmaxClassifier().fit_batches([(library.array(X), library.array(y))])


def test_rows_kept_of_one_library_are_not_mixed_with_others(library):
    X, y = WINE
    clf = SoftmaxClassifier().partial_fit(library.array(X), y, classes=range(3))
    clf.coef_, clf.intercept_ = library.numpy(clf.coef_), library.numpy(clf.intercept_)
    before = dict(vars(clf))
    with pytest.raises(ValueError, match="of one library in all calls of partial_fit"):
        clf.partial_fit(X, y)
    assert vars(clf) == before


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda X, y, w: (X * np.nan, y, w), "Input X contains NaN"),
        (lambda X, y, w: (X[:, 0], y, w), "Expected 2D array"),
        (lambda X, y, w: (X, y[:10], w), "inconsistent numbers of samples"),
        (lambda X, y, w: (X, X[:, 0], w), "Unknown label type"),
        (lambda X, y, w: (X, 0 * y, w), "only one class, 0"),
        (lambda X, y, w: (X, y, -w), "sample_weight must not be negative"),
        (lambda X, y, w: (X, y, w[:10]), "sample_weight must be one number, or one per row"),
        (lambda X, y, w: (X, y, 0 * w), "at least one"),
    ],
)
def test_bad_rows_get_the_errors_that_numpys_get(library, change, error):
    X, y, weight = (library.array(part) for part in change(*WINE, np.ones(len(WINE[1]))))
    with pytest.raises(ValueError, match=error):
        SoftmaxClassifier().fit(X, y, weight)


@pytest.mark.parametrize("is_dispatched", [True, False])
@pytest.mark.parametrize("layout", ["to_sparse_coo", "to_sparse_csr"])
@pytest.mark.filterwarnings("ignore:Sparse .* tensor support is in beta")
def test_sparse_tensors_are_named(monkeypatch, layout, is_dispatched):
    torch = pytest.importorskip("torch")
    X = getattr(torch.eye(3), layout)()
    error = r"must be a dense tensor, got one of layout torch.sparse_.* X.to_dense"
    with libraries.dispatch(monkeypatch), sklearn.config_context(array_api_dispatch=is_dispatched):
        clf = SoftmaxClassifier().fit(torch.eye(3), [0, 1, 2])
        for method in (clf.predict, lambda X: clf.fit(X, [0, 1, 2])):
            with pytest.raises(ValueError, match=error):
                method(X)


# --- scikit-learn, and PyTorch's own ways -------------------------------------------------------------------


def test_without_dispatch_a_tensor_is_made_numpys():
    torch = pytest.importorskip("torch")
    X, y = WINE
    clf = SoftmaxClassifier().fit(torch.asarray(X), torch.asarray(y))
    assert_array_equal(clf.coef_, SoftmaxClassifier().fit(X, y).coef_)
    assert isinstance(clf.predict(torch.asarray(X)), np.ndarray)


def test_no_graph_is_built_of_tensors_that_ask_for_gradients(monkeypatch):
    torch = pytest.importorskip("torch")
    X = torch.asarray(WINE[0]).requires_grad_(True)
    with libraries.dispatch(monkeypatch):
        clf = SoftmaxClassifier().fit(X, WINE[1])
        assert not clf.coef_.requires_grad
        assert not clf.predict_proba(X).requires_grad


def test_half_precision_tensors_are_taken(monkeypatch):
    torch = pytest.importorskip("torch")
    X, y = WINE
    with libraries.dispatch(monkeypatch):
        assert SoftmaxClassifier().fit(torch.asarray(X).half(), y).coef_.dtype == torch.float64


def test_a_pipeline_and_a_cross_validation_take_tensors(monkeypatch):
    torch = pytest.importorskip("torch")
    X, y = torch.asarray(WINE[0]), torch.asarray(WINE[1])
    with libraries.dispatch(monkeypatch):
        pipe = make_pipeline(StandardScaler(), SoftmaxClassifier())
        assert pipe.fit(X, y).score(X, y) == 1.0
        got = cross_val_score(clone(pipe), X, y, cv=3)
    assert_allclose(got, cross_val_score(clone(pipe), *WINE, cv=3), rtol=1e-6)  # some versions' in float32


def test_numpys_arrays_are_numpys_under_dispatch(monkeypatch):
    X, y = load_digits(return_X_y=True)
    want = SoftmaxClassifier(random_state=0, early_stopping=True).fit(X, y)
    with libraries.dispatch(monkeypatch):
        clf = SoftmaxClassifier(random_state=0, early_stopping=True).fit(X, y)
        assert_array_equal(clf.coef_, want.coef_)
        assert_array_equal(clf.predict_proba(X), want.predict_proba(X))
        SoftmaxClassifier().fit(sp.csr_array(X), y).predict(sp.csr_array(X))


def test_check_gradient_takes_arrays_of_other_libraries(library):
    X, y = WINE
    assert check_gradient(library.array(X), library.array(y)) == check_gradient(X, y)


def array_api_checks():
    """scikit-learn's, but for the libraries and devices that are not here."""
    for estimator in (SoftmaxClassifier(), SoftmaxClassifier(solver="sgd"), SoftmaxClassifier(batch_size=4)):
        for _, check in estimator_checks_generator(estimator):
            told = f"{check.func.__name__} {check.keywords}"
            if "check_array_api" in told and not re.search("cuda|mps|xpu|cupy|dpnp|gpu", told):
                yield pytest.param(estimator, check, id=f"{estimator} {told}")


@pytest.mark.parametrize(("estimator", "check"), list(array_api_checks()))
def test_scikit_learns_checks(monkeypatch, estimator, check):
    with libraries.dispatch(monkeypatch), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # of "sgd", on unscaled columns
        check(clone(estimator))


def test_scipys_own_support_may_be_on():
    """As scikit-learn asks for it: before SciPy is imported."""
    with pytest.MonkeyPatch.context() as monkeypatch, libraries.dispatch(monkeypatch):
        pytest.importorskip("array_api_strict")
        code = (
            "import array_api_strict as xp, sklearn, numpy as np; from sksoftmax import SoftmaxClassifier;"
            "X, y = np.random.RandomState(0).randn(600, 5), np.arange(600) % 3;"
            "sklearn.set_config(array_api_dispatch=True);"
            "clf = SoftmaxClassifier().fit(xp.asarray(X), xp.asarray(y)); print(type(clf.coef_).__module__);"
            "SoftmaxClassifier().fit(X, y).predict_proba(X)"
        )
        told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.startswith("array_api_strict")
