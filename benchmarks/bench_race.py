"""Who is soonest at the same optimum? Our default fit against every rival at its best.

For each problem, dtype and number of threads: seconds until ``(F - F*) / F*`` is 1e-2, 1e-3 and 1e-4. Ours is
``SoftmaxClassifier(alpha)`` with ``tol`` the target, which stops itself; a rival gets the settings and the stop of an
oracle (``oracle.py``), and fits of as long as ``--factor`` times ours. Each runs in a process of its own
(``worker.py``); rows are kept as they come, so that a race that was interrupted goes on where it was.

``python -m benchmarks.bench_race --output benchmarks/results`` is the whole race (a day); ``--quick`` two small
problems; ``--report-only`` makes the summary and the picture of the rows that are there.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks import minima, problems, race_report, report
from benchmarks.problems import RACE, RaceProblem
from benchmarks.race_rivals import RACE_RIVALS
from benchmarks.rivals import OURS
from benchmarks.timing import machine

TARGETS = (1e-2, 1e-3, 1e-4)

#: The small embeddings are there for --quick.
_ALL = tuple(name for name in RACE if name != "small embeddings")
_QUICK_PROBLEMS = ("digits std", "small embeddings")
_QUICK_RIVALS = (OURS.name, "LogisticRegression(lbfgs)", "LogisticRegression(newton-cg)", "cyanure")

#: Seconds that a rival's fits may take at least, however quick ours are.
_LEAST_LIMIT = 2.0

#: A fit may take this many limits before it is ended, for a budget that doubles may more than double the time; and
#: this many seconds go to loading and importing.
_PATIENCE, _START = 4.0, 120.0

#: F below F* by more than this, relative, means that F* is wrong.
_BELOW = 1e-9

COLUMNS = (
    *("commit", "machine", "load", "threads", "versions", "problem", "n_samples", "dtype", "rival", "settings"),
    *("target", "seconds", "seconds_min", "seconds_max", "cpu_seconds", "repeats", "gap", "ratio", "peak_MiB"),
    *("limit", "status", "note"),
)
POINTS = ("commit", "problem", "dtype", "threads", "rival", "settings", "seconds", "cpu_seconds", "gap")


def ask(job: dict[str, Any], threads: int) -> Iterator[dict[str, Any]]:
    """What a worker says of a job; last, if it did not end well, a failure."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "SKSOFTMAX_BENCH_THREADS": str(threads)},
        cwd=Path(__file__).parent.parent,
    )
    lines: queue.Queue[str] = queue.Queue()

    def listen(stdout: Any) -> None:
        for line in stdout:
            lines.put(line)
        lines.put("")

    listener = threading.Thread(target=listen, args=(process.stdout,), daemon=True)
    listener.start()
    doing, patience = "the start", _START + _PATIENCE * job["limit"]
    try:
        with process.stdin as stdin:  # type: ignore[union-attr]
            json.dump(job, stdin)
        while line := lines.get(timeout=patience):
            said = json.loads(line)
            doing = said["settings"] if said["kind"] == "start" else doing
            patience = _PATIENCE * job["limit"] + (0 if said["kind"] == "start" else _START)
            yield said
        code = process.wait()
        if code:
            yield {"kind": "failure", "died": True, "status": f"crashed (exit code {code}) at {doing}"}
    except queue.Empty:
        yield {"kind": "failure", "died": True, "status": f"ended: {doing} took more than {patience:.0f} s"}
    finally:
        process.kill()
        process.wait()
        listener.join()
        process.stdout.close()  # type: ignore[union-attr]


def results(job: dict[str, Any], threads: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Result rows and points of a job; tried again without the settings that crash, while there are others.

    Where a worker died for good, what it had found until then counts.
    """
    n_settings = sum(len(rival.settings) for rival in RACE_RIVALS if rival.name == job["rival"])
    points: list[dict[str, Any]] = []
    notes: list[str] = []
    while True:
        heard = list(ask(job, threads))
        points += [said for said in heard if said["kind"] == "fit" and said["gap"] < float("inf")]
        found = [said for said in heard if said["kind"] == "result"]
        failures = [said for said in heard if said["kind"] == "failure"]
        started = [said["setting"] for said in heard if said["kind"] == "start"]
        if found or not failures or not started or not failures[-1].get("died"):
            break
        job = {**job, "skip": [*job["skip"], started[-1]]}
        if len(job["skip"]) >= n_settings:
            break
        notes.append(failures[-1]["status"])
    package = "".join(said["package"] for said in heard if said["kind"] == "end")
    if failures and not found:
        found = [_reached(points, target, failures[-1]["status"]) for target in job["targets"]]
    rows = [{**row, "package": package, "note": "; ".join(filter(None, [row.get("note"), *notes]))} for row in found]
    return rows, points


def _reached(points: list[dict[str, Any]], target: float, failure: str) -> dict[str, Any]:
    """The result that the soonest of the points is, or the failure."""
    arrived = [point for point in points if point["gap"] <= target]
    if not arrived:
        return {"target": target, "status": failure}
    best = min(arrived, key=lambda point: point["seconds"])
    times = dict.fromkeys(("seconds_min", "seconds_max"), best["seconds"])
    return {**best, **times, "target": target, "repeats": 1, "status": f"arrived, then {failure}"}


class Race:
    """The rows that there are, and those to come.

    Parameters
    ----------
    options : Namespace
        The command line's.
    data : Path
        Folder of the saved problems.
    """

    def __init__(self, options: argparse.Namespace, data: Path) -> None:
        self.options, self.data = options, data
        self.rows = report.read_csv(options.output / "race.csv")
        self.machine = machine()
        self.below: list[str] = []

    def is_done(self, **key: str) -> bool:
        commit = self.machine["commit"]
        return not self.options.fresh and any(
            all(row[column] == value for column, value in key.items())
            and (self.options.any_commit or row["commit"] == commit)
            for row in self.rows
        )

    def our_seconds(self, **key: str) -> dict[str, float]:
        ours = {**key, "rival": OURS.name}
        rows = [row for row in self.rows if all(row[column] == value for column, value in ours.items())]
        return {row["target"]: float(row["seconds"]) for row in rows if row["seconds"]}

    def run(self, problem: RaceProblem, dtype: str, threads: int) -> None:
        """All rivals on one problem, ours first: its times set the others' limit."""
        key = {"problem": problem.name, "dtype": dtype, "threads": str(threads)}
        names = [r.name for r in RACE_RIVALS if r.name in self.options.rivals]
        names = [name for name in names if not self.is_done(**key, rival=name)]
        if not names:
            return
        try:
            folder = problems.save(problem, dtype, self.data)
        except OSError as error:
            print(f"{problem.name}: {error}")
            return
        minimum = minima.minimum(problem, dtype, folder, self.options.output / "minima.csv")
        n_samples = len(problems.read_saved_codes(folder))
        for name in names:
            ours = {} if name == OURS.name else self.our_seconds(**key)
            limit = max([_LEAST_LIMIT, *(self.options.factor * seconds for seconds in ours.values())])
            limit = min(limit, self.options.limit) if ours else self.options.limit
            job = {
                "rival": name,
                "data": str(folder),
                "alpha": problem.alpha,
                "l1_ratio": problem.l1_ratio,
                "minimum": minimum,
                "targets": list(TARGETS),
                "limit": limit,
                "ours": ours,
                "skip": [],
            }
            start, load = time.perf_counter(), machine()["load"]
            rows, points = results(job, threads)
            about = {**self.machine, **key, "rival": name, "load": load, "n_samples": n_samples, "limit": f"{limit:g}"}
            self._keep([self._row(row, about) for row in rows], points, about)
            said = ", ".join(f"{row['seconds']:.3g} s" if row.get("seconds") else row["status"] for row in rows)
            print(
                f"{problem.name}, {dtype}, {threads}: {name}: {said} [{time.perf_counter() - start:.0f} s]", flush=True
            )

    def _row(self, row: dict[str, Any], about: dict[str, Any]) -> dict[str, str]:
        versions = about["versions"] + row.pop("package")
        row = {**about, **row, "versions": versions, "target": f"{row['target']:g}"}
        return {column: _text(row.get(column)) for column in COLUMNS}

    def _keep(self, rows: list[dict[str, str]], points: list[dict[str, Any]], about: dict[str, Any]) -> None:
        for point in points:
            if point["gap"] < -_BELOW:
                self.below.append(f"{about['problem']}, {about['dtype']}: {about['rival']} at {point['gap']:.1e}")
                print(f"F* IS WRONG: {self.below[-1]}", flush=True)
        output: Path = self.options.output
        lines = [{**about, **point} for point in points]
        report.append_csv(output / "race_points.csv", [{c: _text(line[c]) for c in POINTS} for line in lines])
        report.append_csv(output / "race.csv", rows)
        self.rows += rows


def _text(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.5g}" if isinstance(value, float) else str(value)


def main(arguments: Sequence[str] | None = None) -> None:
    names = [rival.name for rival in RACE_RIVALS]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench_race", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two small problems, a few rivals")
    parser.add_argument(
        "--output", type=Path, default=Path("benchmark_results"), help="folder of the CSV files and the picture"
    )
    parser.add_argument("--problems", nargs="+", choices=list(RACE), help="default: all")
    parser.add_argument("--rivals", nargs="+", choices=names, help="default: all")
    parser.add_argument("--dtypes", nargs="+", choices=["float32", "float64"], default=["float32", "float64"])
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--limit", type=float, default=120.0, help="most seconds of a rival's fit")
    parser.add_argument("--factor", type=float, default=30.0, help="our times that a rival's fit may take")
    parser.add_argument("--data", type=Path, help="folder to keep the problems in; default: a temporary one")
    parser.add_argument("--fresh", action="store_true", help="do again what is there; the last row counts")
    parser.add_argument("--any-commit", action="store_true", help="take rows of other commits for done")
    parser.add_argument("--report-only", action="store_true", help="no fits: the summary and picture of the rows")
    options = parser.parse_args(arguments)
    options.rivals = options.rivals or (_QUICK_RIVALS if options.quick else names)
    options.problems = options.problems or (_QUICK_PROBLEMS if options.quick else _ALL)
    if options.quick:
        options.dtypes, options.threads, options.limit = ["float32"], [1], 0.2

    below: list[str] = []
    if not options.report_only:
        with tempfile.TemporaryDirectory() as temporary:
            race = Race(options, options.data or Path(temporary))
            for name in options.problems:
                for dtype in options.dtypes:
                    for threads in options.threads:
                        race.run(RACE[name], dtype, threads)
            below = race.below
    race_report.write(options.output)
    if below:
        raise SystemExit("F* is wrong, someone is below it:\n" + "\n".join(below))


if __name__ == "__main__":
    main()
