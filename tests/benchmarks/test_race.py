"""The race: its oracle, its exact minima, its summary, and that it goes on where it was interrupted."""

import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.datasets import load_breast_cancer, load_digits, load_iris
from sklearn.preprocessing import StandardScaler

from benchmarks import bench_race, dense_problems, minima, problems, report
from benchmarks.dense_problems import ALPHAS
from benchmarks.newton_l1 import Smooth, newton
from benchmarks.problem_sets import SETS
from benchmarks.race import final as race_final
from benchmarks.race import jobs as race_jobs
from benchmarks.race import page_tables
from benchmarks.race import report as race_report
from benchmarks.race.oracle import Fit, search
from benchmarks.race.stages import STAGES, described, pass_equivalents
from benchmarks.race.worker import Job, excuse
from benchmarks.rivals import OURS, RIVALS, objective
from sksoftmax import SoftmaxClassifier
from sksoftmax._engines.registry import KERNELS
from sksoftmax._maths.objective import value_and_grad
from sksoftmax._solvers import lbfgs
from sksoftmax._types import Batch, Params, Problem

TARGETS = (1e-2, 1e-3, 1e-4)


def within(seconds):
    return dict.fromkeys(TARGETS, seconds)


def steady(rates, seconds=1.0, floor=0.0):
    """A rival whose gap is ``rate ** -budget`` (of its setting), at ``seconds`` an iteration; and its fits."""
    fits = []

    def run(setting, budget):
        fit = Fit(setting, budget, seconds * budget, max(rates[setting] ** -float(budget), floor))
        fits.append(fit)
        return fit

    return run, fits


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("rate", [1.01, 1.1, 3.0, 1e9])
def test_the_oracle_finds_the_least_budget_to_a_tenth(rate, target):
    run, fits = steady([rate])
    best = search(run, [0], within(1e6)).best[target]
    least = math.ceil(math.log(1 / target) / math.log(rate))
    assert least <= best.budget <= max(least, 1.1 * least)
    assert best.gap <= target
    assert len(fits) < 60


def test_the_oracle_takes_the_setting_that_is_soonest():
    run, _ = steady([1.001, 1.01, 1.05, 1.02, 1.001, 1.002, 1.003])
    found = search(run, range(7), within(1e6))
    assert {fit.setting for fit in found.best.values()} == {2}


def test_the_oracle_keeps_a_setting_that_is_behind_early():
    def run(setting, budget):  # 0 is ahead until budget 30, and then stands still
        gap = max(0.5**budget, 5e-4) if setting == 0 else 0.8**budget
        return Fit(setting, budget, float(budget), gap)

    best = search(run, [0, 1], within(1e6)).best
    assert best[1e-2].setting == 0
    assert best[1e-4].setting == 1


def test_the_oracle_says_why_a_target_was_missed():
    run, fits = steady([1.01])
    found = search(run, [0], within(500.0))
    assert set(found.best) == {1e-2}
    assert found.ending == "time is up at gap 6.9e-03"
    assert max(fit.seconds for fit in fits) == 500  # the budget that the time affords
    run, fits = steady([2.0], floor=0.3)
    assert search(run, [0], within(1e9)).ending == "stands still at gap 3.0e-01"
    assert len(fits) < 10
    found = search(lambda setting, budget: Fit(setting, budget, math.inf, math.inf), [0, 1], within(1.0))
    assert found.ending == "failed at gap inf"
    assert not found.best


def clouds(n_classes, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.integers(n_classes, size=200)
    return rng.normal(size=(200, 6)) * [1, 2, 3, 1, 1, 10] + y[:, None], y


@pytest.mark.parametrize("n_classes", [2, 4])
@pytest.mark.parametrize("container", [np.asarray, sp.csr_matrix])
def test_the_benchmarks_objective_is_the_packages(n_classes, container):
    X, y = clouds(n_classes)
    n_outputs = 1 if n_classes == 2 else n_classes
    params = Params(np.linspace(-1, 1, n_outputs * 6).reshape(n_outputs, 6), np.linspace(0, 1, n_outputs))
    problem = Problem(Batch(X, y, np.ones(200)), n_classes, 0.1, True, KERNELS["vectorized"], 1.0)
    ours = value_and_grad(problem, params)
    assert objective(container(X), y, 0.1)(params) == pytest.approx(ours.value, rel=1e-13)
    grads = Smooth(container(X), y, 0.1).grads(params)
    assert_allclose(grads.coef, ours.grads.coef, rtol=1e-11, atol=1e-13)
    assert_allclose(grads.intercept, ours.grads.intercept, rtol=1e-11, atol=1e-13)


def test_the_elastic_net_objective_by_hand():
    X, y = np.array([[1.0], [0.0]]), np.array([1, 0])
    F = objective(X, y, 0.5, 0.2)
    loss = (np.log1p(np.exp(-3.0)) + np.log(2)) / 2
    assert F(Params(np.array([[3.0]]), np.zeros(1))) == pytest.approx(loss + 0.5 * (0.8 * 4.5 + 0.2 * 3))


@pytest.mark.parametrize("l1_ratio", [0.5, 1.0])
def test_a_minimum_with_l1_is_that_of_the_exact_method(l1_ratio):
    X, y = load_digits(return_X_y=True)
    X = sp.csr_array(X[:400] / 16)
    problem = problems.RaceProblem("digits", lambda: (X, y[:400]), 1e-2, l1_ratio)
    row = minima.compute(problem, "float64", X, y[:400])
    exact, _ = newton(X, y[:400], 1e-2, l1_ratio)
    assert float(row["bound"]) <= 1e-8
    assert float(row["minimum"]) == pytest.approx(objective(X, y[:400], 1e-2, l1_ratio)(exact), rel=1e-9)
    assert row["nonzero"] == np.count_nonzero(exact.coef)


@pytest.mark.parametrize("n_classes", [2, 4])
@pytest.mark.parametrize("l1_ratio", [0.5, 1.0])
def test_the_exact_method_with_l1_is_bounded_by_its_dual(n_classes, l1_ratio):
    X, y = clouds(n_classes)
    params, _ = newton(X, y, 0.01, l1_ratio)
    value = objective(X, y, 0.01, l1_ratio)(params)
    bound, *_ = minima.certificate(X, y, params, 0.01, l1_ratio)
    assert -1e-12 <= bound <= 1e-8 * value  # sums of 200 terms round; the race asks for 1e-8
    worse = Params(params.coef + 0.01, params.intercept)
    far, *_ = minima.certificate(X, y, worse, 0.01, l1_ratio)
    assert objective(X, y, 0.01, l1_ratio)(worse) - value <= far


@pytest.mark.parametrize("load", [load_iris, load_breast_cancer])
def test_the_kept_minimum_is_that_of_all_exact_methods(load, tmp_path):
    alpha = 2e-3  # no problem of the race's, whose minima are known
    X, y = load(return_X_y=True)
    X = StandardScaler().fit_transform(X)
    problem = problems.RaceProblem("here", lambda: (X, y), alpha)
    folder = problems.save(problem, "float64", tmp_path)
    value = minima.minimum(problem, "float64", folder, tmp_path / "minima.csv")
    X, y = problems.read_saved(folder)
    for rival in (OURS, minima.CHOLESKY):
        fit = rival.make(alpha, len(y), tol=1e-11, max_iter=1000).fit(X, y)
        assert objective(X, y, alpha)(rival.params(fit)) == pytest.approx(value, rel=1e-9)
    assert minima.CHOLESKY.name == "LogisticRegression(newton-cholesky)"
    rows = report.read_csv(tmp_path / "minima.csv")
    assert [row["problem"] for row in rows] == ["here"]
    report.write_csv(tmp_path / "minima.csv", [{**rows[0], "minimum": "0.125"}])  # it is read, not computed again
    assert minima.minimum(problem, "float64", folder, tmp_path / "minima.csv") == 0.125
    report.write_csv(tmp_path / "minima.csv", [{**rows[0], "bound": "1e-3"}])
    with pytest.raises(ArithmeticError, match="sure to 1e-3 only"):
        minima.minimum(problem, "float64", folder, tmp_path / "minima.csv")


def test_problems_come_back_as_they_were_saved(tmp_path):
    dense = problems.RACE["wine raw"]
    X, y = problems.read_saved(problems.save(dense, "float32", tmp_path))
    want_X, want_y = dense.load("float32")
    assert X.dtype == np.float32
    assert_allclose(X, want_X, rtol=0)
    assert list(y) == list(want_y)
    assert len(set(y[:20])) > 1  # shuffled: the set comes sorted
    rows = sp.csr_matrix(np.eye(3))
    sparse = problems.RaceProblem("a/b", lambda: (rows, np.array(["c", "a", "b"])), 1.0)
    X, y = problems.read_saved(problems.save(sparse, "float64", tmp_path))
    assert sp.issparse(X)
    assert_allclose(X.toarray()[:, [1, 2, 0]][np.argsort(y)], np.eye(3))


def row(problem, rival, target, seconds, **other):
    base = {"phase": "final", "commit": "c", "problem": problem, "dtype": "float32", "threads": "1", "rival": rival}
    arrived = {
        "seconds": seconds,
        "limit": "60",
        "status": "arrived" if seconds else "time is up",
        "n_samples": "20000",
    }
    return {**base, "target": target, **arrived, **other}


LBFGS, SAGA = "LogisticRegression(lbfgs)", "LogisticRegression(saga)"
ROWS = [
    row("a", OURS.name, "0.001", "9"),
    row("a", OURS.name, "0.001", "2"),  # the last row counts
    row("a", LBFGS, "0.001", ""),
    row("a", LBFGS, "0", "50", status="never arrives"),  # so it counts with its time for 1000 iterations
    row("a", SAGA, "0.001", "16"),
    row("a", "cyanure", "0.001", "1"),
    row("b", OURS.name, "0.001", "3"),
    row("b", LBFGS, "0.001", "12"),
    row("b", LBFGS, "0", "500", status="never arrives"),  # there is a time: this is not asked for
    row("b", SAGA, "0.001", ""),
    row("b", "cyanure", "0.001", "12.5"),
    row("small", OURS.name, "0.001", "1", n_samples="10000"),
    row("small", LBFGS, "0.001", "0.1", n_samples="10000"),
    row("mnist l1", OURS.name, "0.001", "2"),
    row("mnist l1", SAGA, "0.001", "6"),
]


def test_the_summary_by_hand():
    a, b, small, l1 = race_report.standings(ROWS, "float32", "1", "0.001")
    assert (a.ours.seconds, a.sklearn.seconds, a.lbfgs.seconds, a.best.seconds) == (2, 16, 50, 1)
    assert (a.sklearn.rival, a.best.rival) == (SAGA, "cyanure")
    assert (b.ours.seconds, b.sklearn.seconds, b.lbfgs.seconds, b.best.seconds) == (3, 12, 12, 12)
    assert small.sklearn.seconds == 0.1
    assert [s.group for s in (a, b, small, l1)] == ["large", "large", "small", "L1"]
    large, of_l1, small = race_report.summary(ROWS, "float32", "1", "0.001").split("\n\n")
    # sqrt(16/2 * 12/3), sqrt(50/2 * 12/3), sqrt(1/2 * 12/3)
    assert large.splitlines()[-1] == ("| **geometric mean**; ahead of all on 1 of 2 | | **5.7** | **10.0** | **1.4** |")
    assert of_l1.splitlines()[2:] == [
        "| mnist l1 | 2 s | 3.0 (saga) |  | 3.0 (saga) |",
        "| **geometric mean**; ahead of all on 1 of 1 | | **3.0** | none | **3.0** |",
    ]
    assert small.splitlines()[2] == "| small | 1 s | 0.1 (lbfgs) | 0.1 | 0.1 (lbfgs) |"
    assert race_report.means(ROWS, "0.001").splitlines()[2:] == [
        "| float32, 1 thread | 1 of 2 | **5.7** | **10.0** | **1.4** |",
    ]


def test_nobody_arrived_is_a_bound():
    rows = [row("a", OURS.name, "0.01", "2"), row("a", SAGA, "0.01", ""), row("a", LBFGS, "0.01", "", limit="80")]
    rows.append(row("a", "glmnet", "0.01", "", limit="", status="failed: no memory"))  # which is no bound
    (a,) = race_report.standings(rows, "float32", "1", "0.01")
    assert a.sklearn == race_report.Time(60.0, True, SAGA)
    assert a.lbfgs == race_report.Time(80.0, True, LBFGS)
    text = race_report.summary(rows, "float32", "1", "0.01").splitlines()
    assert text[-2] == "| a | 2 s | > 30.0 | > 40.0 | > 30.0 |"
    assert "| **> 30.0** |" in text[-1]


def test_who_arrived_is_not_the_best_if_another_had_less_time():
    rows = [row("a", OURS.name, "0.01", "2"), row("a", SAGA, "0.01", "16"), row("a", "cyanure", "0.01", "", limit="8")]
    (a,) = race_report.standings(rows, "float32", "1", "0.01")
    assert a.best == race_report.Time(8.0, True, "cyanure")


@pytest.mark.parametrize(
    ("status", "target", "seconds", "is_bound"),
    [
        ("never arrives", "0.01", 100.0, False),
        ("arrived at 0.01", "0.01", 60.0, True),  # some time between the limit and the 1000th iteration
        ("arrived at 0.01 (in the search, float32, 1 thread)", "0.001", 100.0, False),
        ("extrapolated from 90 iterations", "0.01", 60.0, True),  # nobody knows whether it arrives
    ],
)
def test_lbfgs_counts_with_1000_iterations_where_they_do_not_arrive(status, target, seconds, is_bound):
    rows = [row("a", OURS.name, target, "2"), row("a", LBFGS, target, ""), row("a", LBFGS, "0", "100", status=status)]
    (a,) = race_report.standings(rows, "float32", "1", target)
    assert a.lbfgs == race_report.Time(seconds, is_bound, LBFGS)


def test_a_miss_of_ours_is_no_time_of_ours():
    rows = [row("a", OURS.name, "0.01", "2", status="missed its tol"), row("a", SAGA, "0.01", "8", status="arrived")]
    (a,) = race_report.standings(rows, "float32", "1", "0.01")
    assert a.ours is None
    assert race_report.summary(rows, "float32", "1", "0.01").splitlines()[2].startswith("| a | missed | 8 s (saga) |")


def test_the_summary_is_of_the_last_final():
    search = [row("a", OURS.name, "0.01", "9", phase="search"), row("b", OURS.name, "0.01", "9", phase="search")]
    old = [row("a", OURS.name, "0.01", "8", commit="old"), row("a", SAGA, "0.01", "1", commit="old")]
    a, b = race_report.standings([*search, *old, row("a", OURS.name, "0.01", "2")], "float32", "1", "0.01")
    assert (a.ours.seconds, a.best, b.ours.seconds) == (2, None, 9)


def found(rival, seconds, target="0.001", **other):
    return row("a", rival, target, seconds, phase="search", setting="0", budget="8", **other)


def test_contenders_are_the_best_of_each_kind_and_whoever_is_near():
    cg = "LogisticRegression(newton-cg)"
    rows = [found(OURS.name, "1"), found(LBFGS, "9"), found(SAGA, "5"), found(cg, "4"), found("glmnet", "")]
    rows += [
        found("cyanure", "2"),
        found("torch Adam", "2.9"),
        found("torch SGD", "3.1"),
        found("adelie", "0.5", "0.01"),
    ]
    chosen, bounds = race_final.contenders(rows, "0.001")
    assert [r["rival"] for r in chosen] == ["cyanure", "torch Adam", cg, LBFGS]
    assert bounds == []
    rows = [found(OURS.name, "1"), found(LBFGS, "", limit="25"), found(SAGA, ""), found("glmnet", "", limit="")]
    chosen, bounds = race_final.contenders([*rows, found("adelie", "0.1", "0.01")], "0.001")
    assert chosen == []
    assert [r["rival"] for r in bounds] == [LBFGS, SAGA]


@pytest.mark.parametrize(
    ("known", "least", "want"), [(20, 20, 20), (20, 15, 15), (20, 23, 24), (20, 100, 35), (1, 1, 1), (20, 17, 18)]
)
def test_a_budget_from_elsewhere_is_settled_by_tenths(known, least, want):
    def fit(budget):
        return {"gap": 1e-3 if budget >= least else 1.0, "budget": budget}

    budget, done = race_final._settled(fit, known, 1e-3, False)
    assert (budget, done["budget"]) == (want, want)
    assert race_final._settled(fit, known, 1e-3, True)[0] == (known if known >= least else want)


def test_a_task_that_fails_does_not_end_the_race(capsys):
    done = []
    bench_race.in_lanes([lambda core: 1 / 0, done.append], 1)
    assert done == [None]
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_tasks_are_begun_in_their_order_a_core_for_each_lane():
    begun = []
    bench_race.in_lanes([lambda core, i=i: begun.append((i, core)) for i in range(5)], 1)
    assert begun == [(i, None) for i in range(5)]
    bench_race.in_lanes([lambda core, i=i: begun.append((i, core)) for i in range(5)], 2)
    assert sorted(i for i, _ in begun[5:]) == list(range(5))
    assert {core for _, core in begun[5:]} <= set(bench_race.available_cores())


def test_rows_of_other_columns_are_not_mixed(tmp_path):
    report.append_csv(tmp_path / "x.csv", [{"a": 1, "b": 2}])
    report.append_csv(tmp_path / "x.csv", [{"a": 3, "b": "4,5"}])
    assert report.read_csv(tmp_path / "x.csv") == [{"a": "1", "b": "2"}, {"a": "3", "b": "4,5"}]
    with pytest.raises(ValueError, match="has columns"):
        report.append_csv(tmp_path / "x.csv", [{"a": 3}])


def test_ratios_are_to_our_row_of_the_same_target():
    ratios = [r["ratio"] for r in race_report.with_ratios([*ROWS, row("a", "cyanure", "0.01", "1")])]
    assert ratios[:6] == ["4.5", "1", "", "", "8", "0.5"]
    assert ratios[-1] == ""


@pytest.fixture
def options(tmp_path):
    names = ["--problems", "iris std", "--rivals", OURS.name, LBFGS, "--dtypes", "float64", "--threads", "1"]
    return [*names, "--limit", "0.5", "--output", str(tmp_path / "out"), "--data", str(tmp_path / "data")]


def test_a_race_goes_on_where_it_was(options, tmp_path, capsys, monkeypatch):
    asked = []
    ask = race_jobs.ask
    monkeypatch.setattr(race_jobs, "ask", lambda job, threads: asked.append(job["rival"]) or ask(job, threads))
    bench_race.main(options)
    assert asked == [OURS.name, LBFGS]
    rows = report.read_csv(tmp_path / "out" / "race.csv")
    ours = [r for r in rows if r["rival"] == OURS.name]
    assert [r["target"] for r in ours] == ["0.01", "0.001", "0.0001"]
    assert all(float(r["gap"]) <= float(r["target"]) and r["repeats"] == "3" and r["ratio"] == "1" for r in ours)
    assert all(r["peak_MiB"] and "numpy" in r["versions"] for r in rows)  # no commit outside a clone
    assert len(report.read_csv(tmp_path / "out" / "race_points.csv")) > 15
    assert (tmp_path / "out" / "race.png").stat().st_size > 10_000
    bench_race.main(options)
    assert len(asked) == 2
    bench_race.main([*options, "--rivals", "LogisticRegression(newton-cg)", LBFGS])
    assert asked[2:] == ["LogisticRegression(newton-cg)"]
    bench_race.main([*options, "--fresh", "--rivals", LBFGS])
    assert asked[3:] == [OURS.name, LBFGS]  # whose limits are multiples of our time
    assert "; times of the search" in (tmp_path / "out" / "race.md").read_text(encoding="utf-8")
    bench_race.main([*options, "--final"])
    final = [r for r in report.read_csv(tmp_path / "out" / "race.csv") if r["phase"] == "final"]
    assert {r["target"] for r in final if r["rival"] == OURS.name} == {"0.01", "0.001", "0.0001"}
    assert all(int(r["repeats"]) >= 5 for r in final if r["rival"] == OURS.name)
    assert {"iris std"} == {r["problem"] for r in final}
    text = (tmp_path / "out" / "race.md").read_text(encoding="utf-8")
    assert "| iris std |" in text
    assert "of the search" not in text
    bench_race.main([*options, "--final"])
    assert len(report.read_csv(tmp_path / "out" / "race.csv")) == len(rows) + 3 + 6 + len(final)
    capsys.readouterr()


def job(limit=5.0, **other):
    base = {"rival": LBFGS, "alpha": 1e-3, "l1_ratio": 0.0, "minimum": 1.0, "data": "nowhere", "skip": []}
    return {**base, "limits": {"0.01": limit, "0.001": limit}, **other}


def test_a_missing_rival_is_a_row_that_says_how_to_install_it(monkeypatch, tmp_path):
    problem = problems.RACE["iris raw"]
    folder = str(problems.save(problem, "float64", tmp_path))
    rows, points = race_jobs.results(job(data=folder, rival="no such"), 1)
    assert [r["target"] for r in rows] == [1e-2, 1e-3]
    assert rows[0]["status"].startswith("crashed")
    assert rows[0]["limit"] is None  # it says nothing of how long it would take
    assert not points
    rows, _ = race_jobs.results(job(data=folder, l1_ratio=0.5), 1)
    assert rows[0]["status"] == "cannot: has no L1 penalty"
    rows, _ = race_jobs.results(job(data=folder, rival="SGDClassifier(log_loss)"), 1)
    assert rows[0]["status"] == "cannot: one-vs-rest, which is another model"
    missing = RIVALS[0]._replace(package="no-such-package-at-all")
    asked = Job(**job(data=folder))
    assert excuse(missing, asked) == "not installed: pip install no-such-package-at-all"
    assert excuse(RIVALS[0], asked) == ""


def said(*lines):
    return lambda job, threads: iter([json.loads(json.dumps(line)) for line in lines])


def test_what_a_rival_reached_before_it_crashed_counts(monkeypatch):
    fits = [
        {"kind": "fit", "settings": f"max_iter={i}", "setting": 0, "budget": i, "seconds": s, "cpu": s, "gap": g}
        for i, s, g in ((1, 1.0, 0.5), (2, 2.0, 0.009), (4, 4.0, 0.002), (8, 8.0, math.inf))
    ]
    monkeypatch.setattr(race_jobs, "ask", said(*fits, {"kind": "failure", "status": "crashed (exit code -11)"}))
    rows, points = race_jobs.results(job(), 1)
    assert (rows[0]["seconds"], rows[0]["settings"], rows[0]["repeats"]) == (2.0, "max_iter=2", 1)
    assert rows[0]["status"] == "arrived, then crashed (exit code -11)"
    assert rows[1]["status"] == "crashed (exit code -11)"
    assert "seconds" not in rows[1]
    assert len(points) == 4


def test_settings_that_crash_are_left_out_of_another_try(monkeypatch):
    tries = []

    def ask(job, threads):
        tries.append((job["skip"], len(job.get("known", []))))
        for setting in (0, 1, 2):
            if setting not in job["skip"]:
                yield {"kind": "start", "setting": setting, "settings": f"solver={setting}, max_iter=1"}
                if setting < 2:
                    yield {"kind": "failure", "status": f"crashed at {setting}", "died": True}
                    return
        yield {"kind": "result", "target": 1e-2, "seconds": 1.0, "status": "arrived", "note": ""}

    monkeypatch.setattr(race_jobs, "ask", ask)
    rows, _ = race_jobs.results(job(rival="cyanure"), 1)
    assert tries == [([], 0), ([0], 0), ([0, 1], 0)]
    assert rows[0]["note"] == "crashed at 0; crashed at 1"
    tries.clear()
    rows, _ = race_jobs.results(job(rival=LBFGS), 1)  # it has one setting
    assert tries == [([], 0)]
    assert [r["status"] for r in rows] == ["crashed at 0", "crashed at 0"]


def test_below_the_minimum_is_an_error_said_loudly(options, monkeypatch, capsys):
    fit = {"kind": "fit", "settings": "max_iter=1", "seconds": 1.0, "cpu": 1.0, "gap": -2e-9}
    monkeypatch.setattr(race_jobs, "ask", said(fit, {"kind": "failure", "status": "x"}))
    with pytest.raises(SystemExit, match=r"F\* is wrong.*\niris std, float64: SoftmaxClassifier at -2.0e-09"):
        bench_race.main(options)
    assert "F* IS WRONG" in capsys.readouterr().out


def test_a_fit_that_does_not_end_is_ended(monkeypatch, tmp_path):
    folder = str(problems.save(problems.RACE["digits std"], "float64", tmp_path))
    monkeypatch.setattr(race_jobs, "_START", 0.01)
    monkeypatch.setattr(race_jobs, "_SCORE", 0.01)
    rows, _ = race_jobs.results(job(data=folder, limit=0.01), 1)
    assert rows[0]["status"] == "ended: the start took more than 0 s"
    assert rows[0]["limit"] == 0.01


def test_the_readmes_tables_are_filled_between_their_own_markers(monkeypatch):
    monkeypatch.setattr(page_tables, "TABLES", {"bundled.csv": lambda: "A", "race.csv": lambda: "B"})
    end = "<!-- end of table -->"
    first, second = (f"<!-- table: benchmarks/results/{name} -->" for name in ("bundled.csv", "race.csv"))
    text = f"0\n{first}\nold\n{end}\n1\n{second}\n{end}\n2"
    full = page_tables.filled(text)
    assert full.split() == f"0 {first} A {end} 1 {second} B {end} 2".split()
    assert page_tables.filled(full) == full
    assert page_tables.between_markers(full, "race.csv") == "B"


def test_the_race_runs_in_benchopt(tmp_path):
    pytest.importorskip("benchopt")
    root = Path(problems.__file__).parent.parent
    folder = shutil.copytree(root / "benchmarks" / "benchopt", tmp_path / "benchopt")
    command = [sys.executable, "-m", "benchopt", "run", str(folder), "--no-display", "--no-plot", "-n", "2"]
    chosen = ["-d", "race[problem=iris_std]", "-s", f"race[rival={OURS.name}]"]
    environment = {**os.environ, "PYTHONPATH": str(root), "XDG_CONFIG_HOME": str(tmp_path)}
    ran = subprocess.run([*command, *chosen], env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "done" in ran.stdout
    assert list(tmp_path.rglob("*.parquet"))


def test_the_dense_problems_have_names_tables_and_two_strengths_each():
    dense = SETS["dense"]
    assert len(dense) >= 2 * 24
    assert set(dense).isdisjoint(SETS["race"])
    tables = {problem.table for problem in dense.values()}
    assert {f"{table} {alpha:g}" for table in tables for alpha in ALPHAS} == set(dense)


@pytest.mark.parametrize("name", ["digits degree 2 0.001", "breast_cancer degree 2 1e-05"])
def test_an_expanded_table_is_standardised_and_has_all_products(name, tmp_path):
    X, y = problems.read_saved(problems.save(SETS["dense"][name], "float64", tmp_path))
    n_features = 64 if name.startswith("digits") else 30
    assert X.shape == (len(y), n_features + n_features * (n_features + 1) // 2)
    varies = X.std(axis=0) > 0
    assert_allclose(X.mean(axis=0), 0, atol=1e-9)
    assert_allclose(X.std(axis=0)[varies], 1)


def test_a_table_of_two_classes_has_the_rows_of_the_largest():
    X = np.arange(12.0)[:, None]
    y = np.array(list("aaabbccccccd"))
    X2, y2 = dense_problems.two_classes(lambda: (X, y))
    assert sorted(y2) == list("aaacccccc")
    assert_array_equal(X2[:, 0], [0, 1, 2, 5, 6, 7, 8, 9, 10])


@pytest.mark.parametrize(
    ("make", "stage"),
    [
        (lambda: (StandardScaler().fit_transform(load_digits().data), load_digits().target, {}), "line searches"),
        (lambda: (load_digits().data, load_digits().target, {"solver": "dual"}), "dual"),
        (lambda: (load_iris().data, load_iris().target, {}), "factors"),
    ],
)
def test_the_cost_of_a_fit_is_told_by_stage(make, stage):
    X, y, kwargs = make()
    estimator, before = SoftmaxClassifier(random_state=0, **kwargs), lbfgs._with_bound
    passes = pass_equivalents(lambda: estimator.fit(X, y), X, y, estimator.alpha)
    assert passes[stage] > 0
    assert set(passes) <= {*STAGES, "other"}
    assert lbfgs._with_bound is before  # the clock is gone
    assert described({stage: 2.0, "other": 0.01}) == f"2.0: {stage} 2.0"
