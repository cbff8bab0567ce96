"""The rivals' conversions of scale, and the main job."""

import csv
import importlib.metadata
import warnings

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.datasets import load_iris
from sklearn.preprocessing import StandardScaler

from benchmarks import bench_bundled, bench_epoch, bench_gpu, bench_import, bench_predict, report
from benchmarks.race.rivals import RACE_RIVALS
from benchmarks.rivals import OURS, RIVALS, linear_params, objective
from sksoftmax import SoftmaxClassifier
from tests import libraries

BY_NAME = {rival.name: rival for rival in RACE_RIVALS}

#: What each rival needs to reach its own optimum, and how near it then comes: those that take full or exact steps to
#: the rounding of F's slope, those that take random ones to a share of their last step.
AT_ITS_OPTIMUM = {
    "SoftmaxClassifier": ({"tol": 1e-12}, 1e-9),
    "LogisticRegression(lbfgs)": ({"tol": 1e-10, "max_iter": 10000}, 1e-7),
    "LogisticRegression(saga)": ({"tol": 1e-10, "max_iter": 10000}, 1e-7),
    "LogisticRegression(newton-cholesky)": ({"tol": 1e-10, "max_iter": 1000}, 1e-9),
    "SGDClassifier(log_loss)": ({"tol": None, "max_iter": 10000, "average": True}, 1e-3),
    "MLPClassifier(())": ({"tol": 0, "max_iter": 3000, "n_iter_no_change": 3000, "learning_rate_init": 0.01}, 1e-4),
    "MLPClassifier((), lbfgs)": ({"tol": 1e-10, "max_iter": 10000}, 1e-7),
    "LogisticRegression(newton-cg)": ({"tol": 1e-10, "max_iter": 1000}, 1e-9),
    "LogisticRegression(sag)": ({"tol": 1e-10, "max_iter": 10000}, 1e-7),
    "LogisticRegression(liblinear)": ({"tol": 1e-10, "max_iter": 10000}, 1e-7),
    "cyanure": ({"tol": 0.0, "max_iter": 1000}, 1e-7),
    "scikit-learn-intelex(lbfgs)": ({"tol": 1e-10, "max_iter": 10000}, 1e-7),
    "torch Adam": ({"max_iter": 30, "rate": 0.03, "is_standardised": True}, 3e-4),
    "torch SGD": ({"max_iter": 30, "rate": 0.3}, 3e-4),
    "torch L-BFGS": ({"max_iter": 1000, "is_standardised": True}, 1e-7),
    "glmnet": ({"tol": 1e-12}, 1e-7),
    "xgboost(gblinear)": ({"max_iter": 1000}, 1e-7),
    "adelie": ({"tol": 1e-14}, 1e-7),
}

ALPHA = 0.02


def data(n_classes):
    X, y = load_iris(return_X_y=True)
    X, y = X[y < n_classes], y[y < n_classes]
    y = np.where(np.random.RandomState(0).uniform(size=len(y)) < 0.15, (y + 1) % n_classes, y)  # not separable
    return StandardScaler().fit_transform(X), y


def installed(name):
    """The rival, or a skip where its package is missing: CI installs those of the extra "race"."""
    rival = BY_NAME[name]
    if rival.package:
        try:
            importlib.metadata.version(rival.package)
        except importlib.metadata.PackageNotFoundError:
            pytest.skip(f"needs {rival.package}")
    return rival


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("name", BY_NAME)
def test_at_a_rivals_optimum_F_has_its_minimum(name, n_classes):
    rival, (kwargs, near) = installed(name), AT_ITS_OPTIMUM[name]
    if rival.is_binary and n_classes > 2:
        pytest.skip("another model with more than two classes")
    X, y = data(n_classes)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # theirs: that they did not converge, or of what they import
        fit = rival.make(ALPHA, len(y), **kwargs).fit(X, y)
    F = objective(X, y, ALPHA)
    minimum = F(OURS.params(OURS.make(ALPHA, len(y), tol=1e-12).fit(X, y)))
    assert minimum <= F(rival.params(fit)) * (1 + 1e-12)
    assert F(rival.params(fit)) == pytest.approx(minimum, rel=near)


@pytest.mark.parametrize("name", BY_NAME)
def test_a_rivals_parameters_give_its_probabilities(name):
    rival = installed(name)
    X, y = data(2 if rival.is_binary else 3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit = rival.make(ALPHA, len(y), **rival.settings[0], **rival.budget(20)).fit(X, y)
    if not hasattr(fit, "predict_proba"):
        pytest.skip("a function's wrapper of ours has no probabilities but those of its coefficients")
    params = rival.params(fit)
    raw = X @ params.coef.T + params.intercept
    raw = np.hstack([0 * raw, raw]) if raw.shape[1] == 1 else raw
    proba = np.exp(raw - raw.max(axis=1, keepdims=True))
    assert_allclose(proba / proba.sum(axis=1, keepdims=True), fit.predict_proba(X), atol=1e-12)


def test_the_main_job_writes_what_it_says(tmp_path, capsys):
    bench_bundled.main(["--quick", "--output", str(tmp_path)])
    out = capsys.readouterr().out
    with (tmp_path / "bundled.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {row["problem"] for row in rows} == {"iris raw", "iris std", "wine raw", "wine std"}
    assert {row["solver"] for row in rows} == {rival.name for rival in (OURS, *RIVALS)}
    assert all(float(row["gap"]) <= 1e-3 for row in rows if row["solver"] == "SoftmaxClassifier")
    assert {"commit", "machine", "load", "threads", "versions"} <= set(rows[0])
    assert (tmp_path / "bundled.png").stat().st_size > 10_000
    for path in ("bundled.csv", "bundled.png"):
        assert f"wrote {tmp_path / path}" in out
    assert "scipy.optimize.check_grad" in out
    assert "best {'alpha':" in out


def test_the_predictions_benchmark_writes_what_it_says(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(bench_predict, "_SECONDS", 0.0)
    bench_predict.main(["--quick", "--output", str(tmp_path)])
    rows = report.read_csv(tmp_path / "predict.csv")
    assert len(rows) == 2 * 3 * 2 * 3 * 2  # methods, containers, dtypes, classes, rows
    assert all(float(row["ratio"]) > 0 for row in rows)
    assert f"of {len(rows)}; wrote" in capsys.readouterr().out


def test_extra_memory_is_beside_what_is_returned():
    assert bench_predict.extra_memory(lambda: np.zeros(10_000)) < 5_000  # but for Python's own few objects
    assert bench_predict.extra_memory(lambda: np.zeros(10_000) + np.zeros(10_000)) >= 80_000


def test_the_epoch_benchmark_writes_what_it_says(tmp_path, capsys):
    bench_epoch.main(["--quick", "--output", str(tmp_path)])
    rows = report.read_csv(tmp_path / "epoch.csv")
    assert [row["dtype"] for row in rows] == ["float32", "float64"] * len(bench_epoch.QUICK)
    assert all(row["epoch_of"] in row["solver"] and row["not_epochs"].endswith("%") for row in rows)
    assert {row["limit_is"] for row in rows} <= {"read", "products", "touch", ""}  # "": without kernels
    assert "wrote" in capsys.readouterr().out


@pytest.mark.parametrize(("taken", "verdict"), [(0.02, "below"), (0.08, "ABOVE")])
def test_the_import_benchmark_writes_what_it_says(taken, verdict, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(bench_import, "seconds", lambda n_starts: [[1.0, taken, 0.3, 0.2]] * n_starts)
    bench_import.main(["--quick", "--output", str(tmp_path)])
    rows = report.read_csv(tmp_path / "import.csv")
    assert [float(row["median_s"]) for row in rows] == [1.0, taken, 0.3, 0.2]
    assert f"sksoftmax is {verdict} 50 ms; wrote" in capsys.readouterr().out


def test_without_matplotlib_the_picture_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"pip install matplotlib"):
        report.draw_gaps(tmp_path / "x.png", {"p": {"s": [(1.0, 1.0)]}})


def test_the_torch_loop_takes_tensors_as_it_takes_numpys_arrays():
    torch = pytest.importorskip("torch")
    from benchmarks.torch_loop import TorchSoftmax

    X, y = data(3)
    loop = {"optimizer": "adam", "rate": 0.03, "is_standardised": True}
    of_numpy = TorchSoftmax(ALPHA, **loop).fit(X, y)
    of_tensors = TorchSoftmax(ALPHA, **loop).fit(torch.asarray(X), torch.asarray(y))
    assert_array_equal(of_tensors.coef_, of_numpy.coef_)
    assert_array_equal(of_tensors.intercept_, of_numpy.intercept_)


def test_F_on_a_device_is_F(monkeypatch):
    pytest.importorskip("torch")
    with libraries.dispatch(monkeypatch):
        rows = bench_gpu.rows_on("cpu", 300, 8, 3)
        clf = SoftmaxClassifier(bench_gpu.ALPHA).fit(rows.X, rows.y)
        X, y = rows.X.numpy().astype(float), rows.y.numpy()
        want = objective(X, y, bench_gpu.ALPHA)(linear_params(clf))
        assert rows.value(clf) == pytest.approx(want, rel=1e-5)  # float32's rounding
        assert sorted(set(y)) == [0, 1, 2]
