"""Does a fit stop where it says? Some 3000 small generated problems, each fitted once and compared with F*.

The promise: a fit whose ``stop_reason_`` is "tol" and that gives no warning (a silent fit) hands over coefficients with
``(F - F*) / F* <= tol``, F in float64. Below the rounding of X's dtype ``tol`` counts as that. Streams, which have no
``tol``, promise 3 %. ``stop/problems.py`` draws the problems, ``stop/fits.py`` fits them, ``stop/reference.py``
encloses F*.

``python -m benchmarks.bench_stop`` writes

- ``stop.csv``: for each kind of problem and group of settings, how many fits ended where;
- ``stop_worst.csv``: the silent fits above tol, and the fits that raised an error.

It fails if a silent fit is above 2 tol, more than 1 in 500 are above tol, or a fit raised an error. A fit is unknown if
F* is not known to tol / 20 and the fit may be on either side of tol.

``--seeds A:B`` and ``--kinds`` take other problems, ``--only KIND:SEED`` prints all about single ones, ``--quick``
takes small ones for a minute.
"""

from __future__ import annotations

import argparse
import collections
import multiprocessing
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp

from benchmarks import report
from benchmarks.stop.fits import Fit, fitted
from benchmarks.stop.kinds import KINDS
from benchmarks.stop.problems import STREAM_TOL, StopProblem, problem
from benchmarks.stop.reference import NOTHING, Minimum, Objective, minimum
from benchmarks.timing import machine
from sksoftmax._types import Array

#: Seeds of each kind in a full and in a quick run.
SEEDS, QUICK_SEEDS = (0, 64), (0, 8)

#: Max n_samples * n_features * n_classes in a quick run.
_QUICK_SIZE = 20_000

#: Accuracy of F*, as a share of tol.
_SHARE = 1 / 20

#: Share of the silent fits that may be above tol.
_ALLOWED = 1 / 500

#: CPU seconds of a fit that is printed at once.
_SLOW = 10.0

#: Seconds after which a fit is named while it runs.
_MINUTE = 60.0

#: Number of slow fits that are printed.
_N_SLOWEST = 15

Task = tuple[str, int]


class Verdict(NamedTuple):
    """A fit and its true excess.

    Attributes
    ----------
    kind, seed
        Of the problem.
    penalty, way, dtype, tol
        The group of settings; ``way`` is the engine of a cold fit.
    settings, shape : str
        The settings in full, and the sizes.
    excess : float
        ``(F - F*) / F*``, a lower bound of it if F* is not known; inf after an error, or if there is no minimum.
    is_known : bool
        Whether it is known on which side of tol the excess is.
    F, minimum, gap : float
        F* is in ``[minimum - gap, minimum]``.
    said, stop_reason, warned, error, solver, seconds
        As in ``Fit``.
    reference_seconds : float
        CPU seconds that F* took.
    """

    kind: str
    seed: int
    penalty: str
    way: str
    dtype: str
    tol: float
    settings: str
    shape: str
    excess: float
    is_known: bool
    F: float
    minimum: float
    gap: float
    said: float
    stop_reason: str
    warned: str
    error: str
    solver: str
    seconds: float
    reference_seconds: float

    @property
    def is_silent(self) -> bool:
        return self.stop_reason == "tol" and not self.warned and not self.error

    @property
    def ratio(self) -> float:
        return self.excess / self.tol

    @property
    def is_broken(self) -> bool:
        """The promise was not kept, or the fit raised an error."""
        return bool(self.error) or (self.is_silent and self.is_known and self.ratio > 1)


# --- one fit --------------------------------------------------------------------------------------------------


def objective(p: StopProblem, alpha: float, l1_ratio: float, rows: Any = slice(None)) -> Objective:
    """State F of a problem, or of some of its rows."""
    y, weight = p.y, np.ones(len(p.y)) if p.weight is None else p.weight.astype(float)
    if p.settings.get("class_weight") == "balanced":
        weight = weight * (len(y) / (p.n_classes * np.bincount(y)))[y]
    if share := p.settings.get("label_smoothing", 0.0):
        y = (1 - share) * np.eye(p.n_classes)[y] + share / p.n_classes
    X = p.X.tocsr() if sp.issparse(p.X) else p.X
    return Objective(X[rows], y[rows], p.n_classes, weight[rows], alpha, l1_ratio, p.settings["fit_intercept"])


def tolerance(p: StopProblem) -> float:
    """Return the excess that the fit promises."""
    return STREAM_TOL if p.way == "stream" else max(p.settings["tol"], float(np.finfo(p.X.dtype).eps))


def _starts(p: StopProblem, F: Objective, fit: Fit) -> Iterator[Array]:
    """Yield the coefficients of the fit, zeros, and the minimum without the outlying rows."""
    yield F.theta(fit.coef, fit.intercept)
    yield F.zeros()
    if p.outlying.any() and not p.outlying.all():
        part = objective(p, fit.alpha or 1e-6, fit.l1_ratio, ~p.outlying)
        theta = minimum(part, [part.zeros()], 1e-3).theta
        coef = theta[:, : p.X.shape[1]]
        yield F.theta(coef, theta[:, -1] - coef @ part.centre if part.has_intercept else 0.0)


def _excess(value: float, least: Minimum, tol: float, has_penalty: bool) -> tuple[float, bool]:
    """Compute the relative excess, and tell whether it is known on which side of tol it is."""
    if not has_penalty and least.value < NOTHING:
        return np.inf, True
    excess = max(value / least.value - 1, 0.0)
    largest = value / max(least.value - least.gap, 1e-300) - 1
    is_enclosed = -1e-12 * least.value <= least.gap <= _SHARE * tol * least.value
    return excess, is_enclosed or excess > tol or excess <= largest <= tol


def judge(kind: str, seed: int) -> Verdict:
    """Fit a problem, and compare with F*."""
    p = problem(kind, seed)
    fit = fitted(p)
    tol = tolerance(p)
    start = time.process_time()
    value, least, excess, is_known = np.inf, Minimum(np.nan, np.nan, np.zeros((1, 0)), 0), np.inf, True
    if not fit.error:
        F = objective(p, fit.alpha, fit.l1_ratio)
        value = F.value(F.theta(fit.coef, fit.intercept))
        least = minimum(F, _starts(p, F, fit), _SHARE * tol)
        excess, is_known = _excess(value, least, tol, fit.alpha > 0)
    settings = {key: f"{of:.3g}" if isinstance(of, float) else of for key, of in p.settings.items()}
    container = f"{type(p.X).__name__} {p.X.dtype}" + (", weights" if p.weight is not None else "")
    return Verdict(
        kind=kind,
        seed=seed,
        penalty="l1" if fit.l1_ratio else "l2" if fit.alpha else "none",
        way=p.settings["engine"] if p.way == "cold" else p.way,
        dtype=str(p.X.dtype),
        tol=tol,
        settings=f"{p.way}, {container}, " + ", ".join(f"{key}={of}" for key, of in settings.items()),
        shape=f"{p.X.shape[0]} x {p.X.shape[1]} x {p.n_classes}",
        excess=excess,
        is_known=is_known,
        F=value,
        minimum=least.value,
        gap=least.gap,
        said=fit.said,
        stop_reason=fit.stop_reason,
        warned=fit.warned,
        error=fit.error,
        solver=fit.solver,
        seconds=fit.seconds,
        reference_seconds=time.process_time() - start,
    )


def _judge(task: Task) -> Verdict:
    """Judge a fit, and name it while it runs if it takes a minute, so that a fit without an end can be found."""
    timer = threading.Timer(_MINUTE, print, [f"{task[0]}:{task[1]} has run for {_MINUTE:.0f} s"], {"flush": True})
    timer.daemon = True
    timer.start()
    try:
        return judge(*task)
    finally:
        timer.cancel()


def verdicts(tasks: Sequence[Task], jobs: int) -> Iterator[Verdict]:
    """Judge the fits, in any order if there are several processes; each verdict is the same however many there are."""
    if jobs == 1:
        yield from map(_judge, tasks)
        return
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        yield from pool.imap_unordered(_judge, tasks)


def is_quick(task: Task) -> bool:
    """Tell whether a problem is small: all of them take a minute or so."""
    p = problem(*task)
    return p.X.shape[0] * p.X.shape[1] * p.n_classes <= _QUICK_SIZE


# --- the report -----------------------------------------------------------------------------------------------


def count(rows: Sequence[Verdict]) -> dict[str, Any]:
    """Count how the fits ended."""
    silent = [v for v in rows if v.is_silent]
    known = [v for v in silent if v.is_known]
    worst = max(known, key=lambda v: v.ratio, default=None)
    warned = [v for v in rows if v.warned and not v.error]
    return {
        "fits": len(rows),
        "silent": len(silent),
        "above_tol": sum(v.ratio > 1 for v in known),
        "above_2_tol": sum(v.ratio > 2 for v in known),
        "above_10_tol": sum(v.ratio > 10 for v in known),
        "worst_ratio": f"{worst.ratio:.2g}" if worst else "",
        "worst": f"{worst.kind}:{worst.seed}" if worst else "",
        "warned": len(warned),
        "false_alarms": sum(v.ratio <= 1 and v.is_known for v in warned),
        "raised": sum(bool(v.error) for v in rows),
        "unknown": sum(not v.is_known for v in rows),
        "cpu_seconds": f"{np.median([v.seconds for v in rows]):.3f}" if rows else "",
    }


def summarise(rows: Sequence[Verdict]) -> list[dict[str, Any]]:
    """Make the rows of ``stop.csv``."""
    groups: dict[tuple[Any, ...], list[Verdict]] = collections.defaultdict(list)
    for v in rows:
        groups[v.kind, v.penalty, v.way, v.dtype, v.tol].append(v)
    about = machine()
    return [
        dict(zip(("kind", "penalty", "way", "dtype", "tol"), key, strict=True)) | count(group) | about
        for key, group in sorted(groups.items())
    ]


def worst_rows(rows: Sequence[Verdict]) -> list[dict[str, Any]]:
    """Make the rows of ``stop_worst.csv``; one without a kind if there is nothing to tell."""
    columns = (
        "kind",
        "seed",
        "shape",
        "tol",
        "excess",
        "said",
        "stop_reason",
        "error",
        "solver",
        "seconds",
        "settings",
    )
    about = machine()
    broken = sorted((v for v in rows if v.is_broken), key=lambda v: -v.ratio)
    return [{key: getattr(v, key) for key in columns} | about for v in broken] or [dict.fromkeys(columns, "") | about]


def describe(v: Verdict) -> str:
    said = v.error or f"{v.stop_reason}{', warned' if v.warned else ''}, said {v.said:.1e}"
    true = f"true {v.excess:.1e}" + ("" if v.is_known else " or more (F* unknown)")
    return f"{v.kind}:{v.seed} {v.shape} tol {v.tol:.0e}: {true}, {said}, {v.solver}, {v.seconds:.2f} s [{v.settings}]"


def is_kept(rows: Sequence[Verdict]) -> bool:
    c = count(rows)
    return not c["above_2_tol"] and not c["raised"] and c["above_tol"] <= _ALLOWED * c["silent"]


def print_report(rows: Sequence[Verdict]) -> None:
    """Print a table for each setting, the slowest fits, and the sums."""
    keys: list[tuple[str, Callable[[Verdict], Any]]] = [
        ("tol", lambda v: "stream" if v.way == "stream" else f"{v.tol:.0e}"),
        ("dtype", lambda v: v.dtype),
        ("penalty", lambda v: v.penalty),
        ("way", lambda v: v.way),
        ("kind", lambda v: v.kind),
    ]
    for name, key in keys:
        values = sorted({key(v) for v in rows})
        lines = [{name: value} | count([v for v in rows if key(v) == value]) for value in values]
        lines.append({name: "all"} | count(rows))
        print("\n" + report.text_table([{column: str(cell) for column, cell in line.items()} for line in lines]))
    print("\nThe slowest fits:")
    for v in sorted(rows, key=lambda v: -v.seconds)[:_N_SLOWEST]:
        print(f"{v.seconds:6.2f} s  {v.kind}:{v.seed} {v.shape} tol {v.tol:.0e} {v.stop_reason} [{v.settings}]")
    seconds, reference = (sum(getattr(v, name) for v in rows) for name in ("seconds", "reference_seconds"))
    print(f"\n{len(rows)} fits in {seconds:.0f} CPU seconds, F* in {reference:.0f}.")
    for name, part in (
        ("fits", [v for v in rows if v.way != "stream"]),
        ("streams", [v for v in rows if v.way == "stream"]),
    ):
        c = count(part) if part else collections.Counter()
        print(
            f"{name}: of {c['silent']} silent ones {c['above_tol']} ended above tol, {c['above_2_tol']} above 2 tol; "
            f"{c['raised']} of {c['fits']} raised an error, {c['unknown']} are unknown: "
            f"the promise is {'kept' if not part or is_kept(part) else 'NOT kept'}."
        )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench_stop", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small problems, few of each kind")
    parser.add_argument("--only", metavar="KIND:SEED", nargs="+", help="print all about these problems")
    parser.add_argument("--kinds", nargs="+", choices=list(KINDS), default=list(KINDS), metavar="KIND")
    parser.add_argument("--seeds", metavar="A:B", help="seeds A to B - 1 of each kind")
    parser.add_argument("--jobs", type=int, default=1, help="number of processes")
    parser.add_argument("--output", type=Path, default=Path("benchmark_results"), help="folder of the CSV files")
    options = parser.parse_args(arguments)
    if options.only:
        for kind, seed in (name.split(":") for name in options.only):
            v = judge(kind, int(seed))
            print(describe(v))
            print(f"    F {v.F!r}, F* {v.minimum!r} - {v.gap:.1e} in {v.reference_seconds:.2f} s. {v.warned}")
        return
    first, last = map(int, options.seeds.split(":")) if options.seeds else QUICK_SEEDS if options.quick else SEEDS
    tasks = [(kind, seed) for seed in range(first, last) for kind in options.kinds]
    if options.quick:
        tasks = [task for task in tasks if is_quick(task)]
    rows = []
    for i, v in enumerate(verdicts(tasks, options.jobs), 1):
        rows.append(v)
        is_told = v.is_broken or not v.is_known or v.seconds > _SLOW
        if is_told or i % 100 == 0:
            print(f"{i}/{len(tasks)} " + describe(v) * is_told, flush=True)
    rows.sort(key=lambda v: (v.kind, v.seed))
    report.write_csv(options.output / "stop.csv", summarise(rows))
    report.write_csv(options.output / "stop_worst.csv", worst_rows(rows))
    print_report(rows)
    print(f"wrote {options.output / 'stop.csv'} and {options.output / 'stop_worst.csv'}")
    if not all(is_kept([v for v in rows if (v.way == "stream") == is_stream]) for is_stream in (False, True)):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
