"""The stop's benchmark: F* is right and enclosed, problems are reproducible, verdicts and the exit follow from them."""

import contextlib
import time
import warnings

import numpy as np
import pytest
import scipy.sparse as sp
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.metrics import log_loss

from benchmarks import bench_stop, report
from benchmarks.bench_stop import Verdict, judge
from benchmarks.rivals import logistic
from benchmarks.stop import fits as stop_fits
from benchmarks.stop import kinds as stop_kinds
from benchmarks.stop.kinds import KINDS
from benchmarks.stop.problems import WAYS, problem
from benchmarks.stop.reference import NOTHING, Minimum, Objective, _softmax, minimum
from sksoftmax import SoftmaxClassifier

#: Accuracy that is asked of F* below.
NEAR = 1e-9


def data(n_classes, n_samples=200, n_features=4, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n_samples, n_features))
    raw = X @ rng.standard_normal((n_features, n_classes))
    return X, (raw + rng.gumbel(size=raw.shape)).argmax(axis=1), rng.uniform(0.1, 3, n_samples)


def of_sklearn(solver, X, y, weight, alpha, **kwargs):
    """Coefficients and intercepts at the same objective."""
    clf = logistic(solver)(alpha, weight.sum(), **kwargs)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of tol: rounding may end it first
        clf.fit(X, y, weight)
    return clf.coef_, clf.intercept_


@pytest.mark.parametrize("has_intercept", [True, False])
@pytest.mark.parametrize("container", [np.asarray, sp.csr_array])
@pytest.mark.parametrize("n_classes", [2, 4])
def test_the_reference_is_newton_choleskys_minimum(n_classes, container, has_intercept):
    X, y, weight = data(n_classes)
    F = Objective(container(X), y, n_classes, weight, 1e-2, has_intercept=has_intercept)
    found = minimum(F, [F.zeros()], NEAR)
    settings = {"tol": 1e-10, "max_iter": 100, "fit_intercept": has_intercept}
    theirs = F.value(F.theta(*of_sklearn("newton-cholesky", X, y, weight, 1e-2, **settings)))
    assert found.gap <= NEAR * found.value
    assert found.value - found.gap <= theirs * (1 + 1e-14)  # a lower bound, up to rounding
    assert found.value == pytest.approx(theirs, rel=NEAR)


@pytest.mark.parametrize("l1_ratio", [0.5, 1.0])
@pytest.mark.parametrize("n_classes", [2, 3])
def test_the_reference_is_sagas_minimum(n_classes, l1_ratio):
    X, y, weight = data(n_classes)
    F = Objective(X, y, n_classes, weight, 2e-2, l1_ratio)
    found = minimum(F, [F.zeros()], NEAR)
    settings = {"tol": 1e-9, "max_iter": 5000, "l1_ratio": l1_ratio}
    theirs = F.value(F.theta(*of_sklearn("saga", X, y, weight, 2e-2, **settings)))
    assert found.gap <= NEAR * found.value
    assert found.value - found.gap <= theirs * (1 + 1e-14)
    assert found.value == pytest.approx(theirs, rel=1e-7)  # saga's steps end at 1e-9 of the coefficients


def test_F_is_log_loss_and_penalty():
    X, y, weight = data(3)
    X += 1e6  # the intercept cancels it
    clf = SoftmaxClassifier(1e-3, l1_ratio=0.5, random_state=0).fit(X, y, weight)
    F = Objective(X, y, 3, weight, 1e-3, 0.5)
    loss = log_loss(y, clf.predict_proba(X), sample_weight=weight)
    penalty = 1e-3 * (0.25 * (clf.coef_**2).sum() + 0.5 * np.abs(clf.coef_).sum())
    assert F.value(F.theta(clf.coef_, clf.intercept_)) == pytest.approx(loss + penalty, rel=1e-8)  # X's rounding


def test_targets_count_as_rows_of_every_class():
    X, _, weight = data(3)
    table = np.random.default_rng(1).dirichlet(np.ones(3), len(X))
    F = Objective(X, table, 3, weight, 1e-3)
    codes, rows = np.tile(np.arange(3), len(X)), np.repeat(X, 3, axis=0)
    as_rows = Objective(rows, codes, 3, (weight[:, None] * table).ravel(), 1e-3)
    theta = np.random.default_rng(2).standard_normal((3, 5))
    assert F.value(theta) == pytest.approx(as_rows.value(theta), rel=1e-13)
    found, want = (minimum(of, [of.zeros()], NEAR) for of in (F, as_rows))
    assert found.value == pytest.approx(want.value, rel=2 * NEAR)


@pytest.mark.parametrize("l1_ratio", [0.0, 1.0])
@pytest.mark.parametrize("size", [1e3, 1e6, 1e12])
@pytest.mark.parametrize("agrees", [True, False])
def test_an_outlying_row_is_fitted(agrees, size, l1_ratio):
    """Its loss ends at 0; if it opposes its column, that column is lost to the other rows."""
    X, y, _ = data(2, n_samples=300, n_features=3)
    others, alpha = np.arange(1, 300), 1e-3
    rest = Objective(X[1:], y[1:], 2, None, alpha * 300 / 299, l1_ratio)
    effect = minimum(rest, [rest.zeros()], NEAR).theta[0, 0]
    X[0, 0], y[0] = size, int(effect > 0) if agrees else int(effect < 0)
    kept = X[others] if agrees else X[others][:, 1:]
    rest = Objective(kept, y[others], 2, None, alpha * 300 / 299, l1_ratio)
    want = 299 / 300 * minimum(rest, [rest.zeros()], NEAR).value
    F = Objective(X, y, 2, None, alpha, l1_ratio)
    found = minimum(F, [F.zeros()], NEAR)
    assert found.gap <= NEAR * found.value
    if agrees or size == 1e12:  # else the coefficient is some 20 / size, not 0
        assert found.value == pytest.approx(want, rel=1e-8)


def test_nothing_is_enclosed_where_the_outlying_row_is_not_fitted():
    X, y, _ = data(2, n_samples=300, n_features=3)
    X[0, 0], y[0] = 1e9, 1
    F = Objective(X, y, 2, None, 1e-6)
    without = Objective(np.delete(X, 0, axis=1), y, 2, None, 1e-6)
    part = minimum(without, [without.zeros()], NEAR).theta
    stuck = np.insert(part, 0, 1e-13, axis=1)
    found = minimum(F, [F.zeros()], NEAR)
    assert F.value(stuck) > 1.1 * found.value
    assert F.lower(_softmax(F.raw(stuck)), stuck) <= found.value


def test_the_reference_leaves_coefficients_that_are_far_off():
    X, y, weight = data(3)
    F = Objective(X, y, 3, weight, 1e-4)
    garbage = 1e6 * np.random.default_rng(0).standard_normal((3, 5))
    found, want = minimum(F, [garbage, F.zeros()], NEAR), minimum(F, [F.zeros()], NEAR)
    assert found.gap <= NEAR * found.value
    assert found.value == pytest.approx(want.value, rel=NEAR)


def test_conjugate_gradients_lead_to_the_same_minimum(monkeypatch):
    X, y, weight = data(4)
    F = Objective(X, y, 4, weight, 1e-4)
    want = minimum(F, [F.zeros()], NEAR).value
    monkeypatch.setattr("benchmarks.stop.reference._FACTOR_WORK", 0)
    assert minimum(F, [F.zeros()], NEAR).value == pytest.approx(want, rel=NEAR)
    monkeypatch.setattr("benchmarks.stop.reference._BLOCK_WORK", 0)
    assert minimum(F, [F.zeros()], NEAR).value == pytest.approx(want, rel=NEAR)


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_and_a_seed_are_one_problem(kind):
    one, same, other = problem(kind, 0), problem(kind, 0), problem(kind, 1)
    dense = [p.X.toarray() if sp.issparse(p.X) else p.X for p in (one, same, other)]
    assert_array_equal(dense[0], dense[1])
    assert_array_equal(one.y, same.y)
    assert one.settings == same.settings
    assert (one.way, one.way_seed, one.X.dtype) == (same.way, same.way_seed, same.X.dtype)
    assert dense[0].shape != dense[2].shape or (dense[0] != dense[2]).any()


@pytest.mark.parametrize("kind", KINDS)
def test_problems_are_finite_and_of_two_classes(kind):
    for seed in range(3):
        p = problem(kind, seed)
        values = p.X.data if sp.issparse(p.X) else p.X
        assert np.isfinite(values).all()
        assert p.n_classes >= 2
        if p.y.ndim == 1:
            assert_array_equal(np.unique(p.y), np.arange(p.n_classes))
        assert len(p.y) == p.X.shape[0] == len(p.outlying)
        assert p.weight is None or (p.weight > 0).all()


def test_all_ways_and_settings_are_drawn():
    drawn = [problem(kind, seed) for kind in ("gauss", "tiny", "one_outlier") for seed in range(60)]
    assert {p.way for p in drawn} == set(WAYS)
    assert {p.settings["tol"] for p in drawn} == {1e-2, 1e-3, 1e-5, 1e-7}
    assert {p.settings["l1_ratio"] for p in drawn} == {0.0, 0.5, 1.0}
    assert {p.X.dtype.name for p in drawn} == {"float32", "float64"}
    assert {"auto", "vectorized", "naive"} <= {p.settings["engine"] for p in drawn}


@pytest.mark.parametrize("way", WAYS)
def test_a_verdict_is_of_the_coefficients_handed_over(way, monkeypatch):
    settings = {"alpha": 1e-2, "l1_ratio": 0.0, "fit_intercept": True, "tol": 1e-3, "engine": "auto", "random_state": 0}
    p = problem("gauss", 3)._replace(way=way, weight=None, settings=settings)
    monkeypatch.setattr(bench_stop, "problem", lambda kind, seed: p)
    v = judge("gauss", 3)
    assert not v.error
    assert v.is_known
    fit = stop_fits.fitted(p)
    F = Objective(p.X, p.y, p.n_classes, None, fit.alpha)
    found = minimum(F, [F.zeros()], NEAR)
    want = F.value(F.theta(fit.coef, fit.intercept)) / found.value
    assert 1 + v.excess == pytest.approx(want, rel=v.tol / 20)  # to which F* is asked for
    assert v.tol == (bench_stop.STREAM_TOL if way == "stream" else 1e-3)


def test_batches_are_more_than_their_sample():
    p = problem("gauss", 3)._replace(way="batches", weight=None)
    settings = {"alpha": 1e-2, "random_state": 0}
    p = p._replace(settings=settings, X=np.tile(p.X, (10, 1)), y=np.tile(p.y, 10))
    model = stop_fits._fit(p, SoftmaxClassifier(**settings), np.random.default_rng(0))
    assert "sample" in model.solver_info_  # which a fit that holds all rows has not


def test_class_weights_and_label_smoothing_are_in_F():
    p = problem("gauss", 3)
    rows = p._replace(weight=None, settings=p.settings | {"class_weight": "balanced", "fit_intercept": True})
    F = bench_stop.objective(rows, 1e-3, 0.0)
    shares = np.bincount(p.y, weights=F.weight)
    assert_allclose(shares, 1 / p.n_classes, rtol=1e-12)
    rows = p._replace(settings=p.settings | {"label_smoothing": 0.2})
    targets = bench_stop.objective(rows, 1e-3, 0.0).targets
    assert_allclose(targets.sum(axis=1), 1, rtol=1e-12)
    assert_allclose(targets[np.arange(len(p.y)), p.y], 0.8 + 0.2 / p.n_classes, rtol=1e-12)


@pytest.mark.parametrize(
    ("value", "least", "has_penalty", "want"),
    [
        (1.0005, (1.0, 1e-9), True, (5e-4, True)),
        (1.0005, (1.0, 1e-2), True, (5e-4, False)),  # F* may be 1 % lower
        (1.1, (1.0, 1e-2), True, (0.1, True)),  # above tol, whatever F* is
        (1e-12, (1e-13, np.inf), False, (np.inf, True)),  # no minimum
        (1.0, (1.0, -1e-3), True, (0.0, False)),  # a bound that is none
    ],
)
def test_the_excess_and_how_well_it_is_known(value, least, has_penalty, want):
    excess, is_known = bench_stop._excess(value, Minimum(*least, np.zeros((1, 1)), 1), 1e-3, has_penalty)
    assert (excess, is_known) == (pytest.approx(want[0]), want[1])


def test_separable_rows_without_a_penalty_have_no_minimum():
    X = np.linspace(-1, 1, 20)[:, None]
    F = Objective(X, (X[:, 0] > 0).astype(int), 2, None, 0.0)
    assert minimum(F, [F.zeros()], NEAR).value < NOTHING


VERDICT = Verdict(
    *("gauss", 0, "l2", "auto", "float64", 1e-3, "", "20 x 2 x 2", 1e-5, True),
    *(1.0, 1.0, 0.0, 1e-5, "tol", "", "", "newton", 0.1, 0.1),
)


@pytest.mark.parametrize(
    ("other", "is_kept"),
    [
        ({}, True),
        ({"excess": 2.1e-3}, False),
        ({"excess": 1.1e-3}, True),  # one in 600
        ({"excess": 1.0, "warned": "above tol"}, True),
        ({"excess": 1.0, "stop_reason": "max_iter"}, True),
        ({"error": "ValueError: no"}, False),
        ({"excess": 0.02, "tol": 0.03, "way": "stream"}, True),
        ({"excess": 0.07, "tol": 0.03, "way": "stream"}, False),
    ],
)
def test_the_benchmark_fails_if_the_promise_is_not_kept(other, is_kept, tmp_path, capsys, monkeypatch):
    found = [VERDICT._replace(**other), *(VERDICT._replace(seed=seed) for seed in range(1, 600))]
    monkeypatch.setattr(bench_stop, "verdicts", lambda *arguments: iter(found))
    run = ["--output", str(tmp_path)]
    if is_kept:
        bench_stop.main(run)
    else:
        with pytest.raises(SystemExit, match="1"):
            bench_stop.main(run)
    assert ("NOT kept" in capsys.readouterr().out) is not is_kept


def test_the_benchmark_writes_what_it_says(tmp_path, capsys):
    kinds = ["tiny", "gauss"]
    with contextlib.suppress(SystemExit):  # what the fits do is not asked here
        bench_stop.main(["--kinds", *kinds, "--seeds", "0:3", "--output", str(tmp_path)])
    rows, worst = (report.read_csv(tmp_path / name) for name in ("stop.csv", "stop_worst.csv"))
    assert {row["kind"] for row in rows} == set(kinds)
    assert sum(int(row["fits"]) for row in rows) == 6
    for about in (rows[0], worst[0]):
        assert {"commit", "machine", "load", "threads", "versions"} <= set(about)
    assert "The slowest fits:" in capsys.readouterr().out
    bench_stop.main(["--only", "tiny:0"])
    assert "tiny:0" in capsys.readouterr().out


def test_a_fit_that_runs_long_is_named(monkeypatch, capsys):
    monkeypatch.setattr(bench_stop, "_MINUTE", 0.0)
    monkeypatch.setattr(bench_stop, "judge", lambda kind, seed: time.sleep(0.2))
    bench_stop._judge(("tiny", 0))
    assert "tiny:0 has run for 0 s" in capsys.readouterr().out


def test_an_error_of_a_fit_is_a_verdict(monkeypatch):
    def fail(*arguments, **kwargs):
        raise ValueError("no")

    monkeypatch.setattr(stop_fits, "_fit", fail)
    v = judge("tiny", 0)
    assert v.error == "ValueError: no"
    assert v.is_broken
    assert not v.is_silent


def test_the_kinds_are_many_and_outliers_are_in_them():
    assert len(KINDS) >= 30
    assert len(KINDS) * (bench_stop.SEEDS[1] - bench_stop.SEEDS[0]) >= 2000
    p = problem("one_outlier", 0)
    X = p.X.toarray() if sp.issparse(p.X) else p.X
    assert p.outlying.sum() == 1
    outlying = np.abs(X[p.outlying].astype(float)).max()
    assert outlying > 30 * np.abs(X[~p.outlying]).max()  # 100 standard deviations; the others are within some 3
    assert stop_kinds.KINDS["one_outlier"] is stop_kinds.one_outlier


@pytest.mark.parametrize(
    ("kind", "seed"),
    [
        ("collinear", 45),  # L1: the model's products ran out
        ("many_sparse_columns", 20),  # dual: outliers that a Newton step does not see
        ("mixed", 45),  # float32 coefficients, judged with float32 raw predictions
        ("outlying_columns", 24),
        ("mixed", 30),  # batches: an outlying row in the sample, small float32 data
        ("offsets", 12),  # L1, float32 columns far from 0 without intercept
        ("offsets", 18),
        ("one_outlier", 22),  # dual, in float32
        ("one_row_classes", 52),  # dual: a Newton step that brought more than a logistic loss can
        ("one_outlier_classes", 18),  # float32 loses the outlier under a shift that all classes share
        ("one_outlier_classes", 26),  # dual, the L1 penalty alone
        ("outliers_many_columns", 16),
        ("outliers_many_columns", 28),  # batches: the outliers are not in the sample
        ("pixels", 9),  # L1: the model's products ran out
        ("polynomial", 10),
    ],
)
def test_a_problem_that_once_ended_above_its_tol_says_so_or_does_not(kind, seed):
    v = judge(kind, seed)
    assert v.is_known
    assert not v.is_broken
