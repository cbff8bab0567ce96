"""Does a fit stop where it says? Thousands of small generated problems, each fitted once and judged by F*.

The promise: a fit whose ``stop_reason_`` is "tol" and that gave no warning has ``(F - F*) / F* <= tol``, F in float64 of
the coefficients that it hands over. ``stop_problems.py`` draws the problems, ``stop_reference.py`` encloses F*.

``python -m benchmarks.bench_stop`` writes ``stop.csv``, how many fits of each kind and group of settings ended where, and
``stop_worst.csv``, the fits that did not keep the promise. It fails if one is above 2 tol, more than 1 in 500 are above
tol, or a fit raised an error. ``--only KIND:SEED`` says all about one problem; ``--quick`` takes a few small ones.
"""

from __future__ import annotations

import argparse
import collections
import multiprocessing
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from benchmarks import report
from benchmarks.stop_problems import KINDS, STREAM_TOL, Rng, StopProblem, problem
from benchmarks.stop_reference import Minimum, Objective, minimum
from benchmarks.timing import machine
from sksoftmax import SoftmaxClassifier, SoftmaxClassifierCV

#: Seeds of each kind in a full run, and in a quick one.
SEEDS, QUICK_SEEDS = (0, 46), (0, 3)

#: Numbers of X in a quick run.
_QUICK_SIZE = 4000

#: How well F* must be known, as a share of tol.
_SHARE = 1 / 20

#: Of the silent fits, how many may be above tol.
_ALLOWED = 1 / 500

#: F below this without a penalty: rows that can be told apart, whose F has no minimum.
_NOTHING = 1e-10

#: Slowest fits that are told.
_N_SLOWEST = 10


class Fit(NamedTuple):
    """What a fit handed over and said."""

    coef: Any
    intercept: Any
    alpha: float
    l1_ratio: float
    stop_reason: str
    said: float
    warned: str
    error: str
    solver: str
    seconds: float


class Verdict(NamedTuple):
    """A fit as it is judged; numbers and strings alone."""

    kind: str
    seed: int
    group: tuple[str, str, str, float]
    settings: str
    shape: str
    tol: float
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


# --- the fit --------------------------------------------------------------------------------------------------


def _pieces(p: StopProblem, rng: Rng) -> list[tuple[Any, ...]]:
    """The rows in order, in pieces of one size."""
    X = sp.csr_array(p.X) if sp.issparse(p.X) else p.X
    size = int(rng.integers(max(2, len(p.y) // 10), max(4, len(p.y) // 2)))
    cuts = [slice(start, start + size) for start in range(0, len(p.y), size)]
    return [(X[cut], p.y[cut]) if p.weight is None else (X[cut], p.y[cut], p.weight[cut]) for cut in cuts]


def _fit_batches(p: StopProblem, model: Any, rng: Rng) -> Any:
    """With so little memory for the sample that there are several passes."""
    pieces = _pieces(p, rng)
    n_bytes = p.X.data.nbytes if sp.issparse(p.X) else p.X.nbytes
    places = [m for name, m in sys.modules.items() if name.startswith("sksoftmax.") and hasattr(m, "SAMPLE_SIZE")]
    before = [place.SAMPLE_SIZE for place in places]
    for place in places:
        place.SAMPLE_SIZE = max(500, int(n_bytes / rng.uniform(1.5, 12)))
    try:
        return model.fit_batches(pieces)
    finally:
        for place, size in zip(places, before, strict=True):
            place.SAMPLE_SIZE = size


def _warm(p: StopProblem, rng: Rng) -> SoftmaxClassifier:
    """A model that has been fitted to something else."""
    model = SoftmaxClassifier(**p.settings)
    fit = {"y": p.y, "sample_weight": p.weight}
    alpha = p.settings["alpha"]
    if p.way == "warm, other alpha":
        model.set_params(alpha=(alpha or 1e-4) * 10 ** rng.uniform(-4, 4)).fit(p.X, **fit)
    elif p.way == "warm, other units":
        model.set_params(alpha=(alpha or 1e-4) * 1e-4).fit(p.X * p.X.dtype.type(10 ** rng.uniform(-6, 6)), **fit)
    elif p.way == "warm, from_sklearn":
        given = LogisticRegression(C=10 ** rng.uniform(-3, 3), max_iter=int(rng.integers(1, 100)))
        given.fit(p.X, **fit)
        model = SoftmaxClassifier.from_sklearn(given, total_weight=float(len(p.y)))
    else:
        model.set_params(max_iter=1).fit(p.X, **fit)
        unit = (
            np.sqrt(
                np.mean(
                    np.asarray(
                        (sp.csr_array(p.X) if sp.issparse(p.X) else p.X).astype(float).power(2).mean(axis=0)
                        if sp.issparse(p.X)
                        else (p.X.astype(float) ** 2).mean(axis=0)
                    )
                )
            )
            or 1.0
        )
        size = 10 ** rng.uniform(-2, 6)
        model.coef_ = (rng.standard_normal(model.coef_.shape) * size / unit).astype(model.coef_.dtype)
        model.intercept_ = (rng.standard_normal(model.intercept_.shape) * size).astype(model.intercept_.dtype)
        if not p.settings["fit_intercept"]:
            model.intercept_[:] = 0
    return model.set_params(**p.settings, warm_start=True, max_iter=100)


def fitted(p: StopProblem) -> Fit:
    """The fit of a problem, and all that it said."""
    rng = np.random.default_rng(p.way_seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = _warm(p, rng) if p.way.startswith("warm") else SoftmaxClassifier(**p.settings)
    error = ""
    start = time.process_time()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            if p.way == "batches":
                model = _fit_batches(p, model, rng)
            elif p.way == "stream":
                classes = None if p.settings.get("soft_targets") else np.arange(p.n_classes)
                for piece in _pieces(p, rng):
                    model.partial_fit(*piece[:2], classes, *piece[2:])
            elif p.way == "CV":
                keys = ("fit_intercept", "engine", "tol", "random_state", "class_weight")
                settings = {key: p.settings[key] for key in keys if key in p.settings}
                alphas = [max(p.settings["alpha"], 1e-8) * 10.0**power for power in range(2)]
                cv = SoftmaxClassifierCV(alphas, l1_ratios=(p.settings["l1_ratio"],), cv=2, **settings)
                model = cv.fit(p.X, p.y, sample_weight=p.weight).best_estimator_
            else:
                model.fit(p.X, p.y, sample_weight=p.weight)
        except Exception as raised:  # whatever it is, it is what is asked
            error = f"{type(raised).__name__}: {raised}"
    seconds = time.process_time() - start
    warned = [str(w.message) for w in caught if issubclass(w.category, ConvergenceWarning)]
    slips = [f"{w.category.__name__}: {w.message}" for w in caught if issubclass(w.category, RuntimeWarning)]
    error = error or "; ".join(slips)
    coef, intercept = getattr(model, "coef_", None), getattr(model, "intercept_", None)
    if not error and not (np.isfinite(coef).all() and np.isfinite(intercept).all()):
        error = "coefficients that are not finite"
    is_stream = p.way == "stream"
    return Fit(
        *(coef, intercept, float(model.alpha), float(model.l1_ratio) if model.alpha else 0.0),
        "tol" if is_stream else getattr(model, "stop_reason_", ""),
        float(getattr(model, "excess_", np.nan)),
        "; ".join(warned),
        error,
        str(getattr(model, "solver_info_", {}).get("solver", "")),
        seconds,
    )


# --- the judgement --------------------------------------------------------------------------------------------


def objective(p: StopProblem, alpha: float, l1_ratio: float, rows: Any = slice(None)) -> Objective:
    y, weight = p.y, np.ones(len(p.y)) if p.weight is None else p.weight.astype(float)
    if p.settings.get("class_weight") == "balanced":
        weight = weight * (len(y) / (p.n_classes * np.bincount(y)))[y]
    if share := p.settings.get("label_smoothing", 0.0):
        y = (1 - share) * np.eye(p.n_classes)[y] + share / p.n_classes
    X = sp.csr_array(p.X) if sp.issparse(p.X) else p.X
    return Objective(X[rows], y[rows], p.n_classes, weight[rows], alpha, l1_ratio, p.settings["fit_intercept"])


def _starts(p: StopProblem, F: Objective, fit: Fit) -> Iterator[Any]:
    """The coefficients to be judged; zeros; the minimum without the outlying rows."""
    if not fit.error and np.isfinite(fit.coef).all():
        yield F.theta(fit.coef, fit.intercept)
    yield F.zeros()
    if p.outlying.any() and not p.outlying.all():
        part = objective(p, fit.alpha or 1e-6, fit.l1_ratio, ~p.outlying)
        found = minimum(part, [part.zeros()], 1e-3).theta
        coef = found[:, : p.X.shape[1]]
        yield F.theta(coef, found[:, -1] - coef @ part.centre if part.has_intercept else np.zeros(len(coef)))


def tolerance(p: StopProblem) -> float:
    """What the fit promises: ``tol``, no less than the rounding of X's dtype."""
    return STREAM_TOL if p.way == "stream" else max(p.settings["tol"], float(np.finfo(p.X.dtype).eps))


def judged(kind: str, seed: int) -> Verdict:
    p = problem(kind, seed)
    fit = fitted(p)
    tol = tolerance(p)
    start = time.process_time()
    with np.errstate(all="ignore"):
        F = objective(p, fit.alpha, fit.l1_ratio)
        value = np.inf if fit.error else F.value(F.theta(fit.coef, fit.intercept))
        least = minimum(F, _starts(p, F, fit), tol * _SHARE)
        excess, is_known = _excess(value, least, tol, bool(fit.alpha))
    way = p.settings["engine"] if p.way == "cold" else p.way
    settings = {key: f"{v:.3g}" if isinstance(v, float) else v for key, v in p.settings.items()}
    container = f"{type(p.X).__name__} {p.X.dtype}" + ("" if p.weight is None else ", weights")
    return Verdict(
        *(kind, seed, ("l1" if fit.l1_ratio else "l2", way, str(p.X.dtype), tol)),
        f"{p.way}, {container}, {settings}",
        f"{p.X.shape[0]} x {p.X.shape[1]} x {p.n_classes}",
        *(tol, excess, is_known, value, least.value, least.gap, fit.said),
        *(fit.stop_reason, fit.warned, fit.error, fit.solver, fit.seconds, time.process_time() - start),
    )


def _excess(value: float, least: Minimum, tol: float, has_penalty: bool) -> tuple[float, bool]:
    """The relative excess of F, and whether F* is known well enough to tell on which side of tol it is."""
    if not has_penalty and least.value < _NOTHING:
        return np.inf, True
    excess = max(value / least.value - 1, 0.0)
    largest = value / max(least.value - least.gap, 1e-300) - 1
    return excess, excess > tol or largest <= tol or least.gap <= _SHARE * tol * least.value


# --- the report -----------------------------------------------------------------------------------------------


def summary(verdicts: Sequence[Verdict]) -> list[dict[str, Any]]:
    """The rows of ``stop.csv``: one for each kind and group of settings, then one for each group."""
    groups: dict[tuple[Any, ...], list[Verdict]] = collections.defaultdict(list)
    for v in verdicts:
        groups[v.kind, *v.group].append(v)
    about = machine()
    return [dict(zip(("kind", "penalty", "way", "dtype", "tol"), key, strict=True)) | counts(rows) | about
            for key, rows in sorted(groups.items())]  # fmt: skip


def counts(rows: Sequence[Verdict]) -> dict[str, Any]:
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
        "worst_seed": worst.seed if worst else "",
        "warned": len(warned),
        "false_alarms": sum(v.ratio <= 1 and v.is_known for v in warned),
        "raised": sum(bool(v.error) for v in rows),
        "unknown": sum(not v.is_known for v in rows if not v.error),
        "cpu_seconds": f"{np.median([v.seconds for v in rows]):.3f}",
    }


def told(v: Verdict) -> str:
    said = v.error or f"{v.stop_reason}{', warned' if v.warned else ''}, said {v.said:.1e}"
    true = f"true {v.excess:.1e}" + ("" if v.is_known else " or more (F* unknown)")
    return f"{v.kind}:{v.seed} {v.shape} tol {v.tol:.0e}: {true}, {said}, {v.solver}, {v.seconds:.2f} s [{v.settings}]"


def _judged(task: tuple[str, int]) -> Verdict:
    return judged(*task)


def _verdicts(tasks: Sequence[tuple[str, int]], jobs: int) -> Iterator[Verdict]:
    if jobs == 1:
        yield from map(_judged, tasks)
    else:
        with multiprocessing.get_context("spawn").Pool(jobs) as pool:
            yield from pool.imap_unordered(_judged, tasks)


def _is_small(task: tuple[str, int]) -> bool:
    p = problem(*task)
    return p.X.shape[0] * p.X.shape[1] * p.n_classes <= _QUICK_SIZE


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench_stop", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few small problems of each kind")
    parser.add_argument("--only", metavar="KIND:SEED", nargs="+", help="these problems alone, with all that is known")
    parser.add_argument("--kinds", nargs="+", choices=list(KINDS), default=list(KINDS), metavar="KIND")
    parser.add_argument("--seeds", metavar="A:B", help="seeds from A to B - 1 of each kind")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--output", type=Path, default=Path("benchmark_results"), help="folder of the CSV files")
    options = parser.parse_args(arguments)
    if options.only:
        for name in options.only:
            kind, seed = name.split(":")
            v = judged(kind, int(seed))
            print(told(v))
            print(f"    F {v.F!r}, F* {v.minimum!r} - {v.gap:.1e}, reference {v.reference_seconds:.2f} s; {v.warned}")
        return
    first, last = map(int, options.seeds.split(":")) if options.seeds else QUICK_SEEDS if options.quick else SEEDS
    tasks = [(kind, seed) for seed in range(first, last) for kind in options.kinds]
    if options.quick:
        tasks = [task for task in tasks if _is_small(task)]
    verdicts = []
    for i, v in enumerate(_verdicts(tasks, options.jobs), 1):
        verdicts.append(v)
        if v.error or (v.is_silent and v.is_known and v.ratio > 1):
            print(f"{i}/{len(tasks)} {told(v)}", flush=True)
        elif i % 100 == 0:
            print(f"{i}/{len(tasks)}", flush=True)
    if not finish(sorted(verdicts, key=lambda v: (v.kind, v.seed)), options.output):
        raise SystemExit(1)


def finish(verdicts: Sequence[Verdict], output: Path) -> bool:
    """Write the files, print the tables; whether the promise was kept."""
    report.write_csv(output / "stop.csv", summary(verdicts))
    bad = [v for v in verdicts if v.error or (v.is_silent and v.is_known and v.ratio > 1)]
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
    report.write_csv(
        output / "stop_worst.csv",
        [{key: getattr(v, key) for key in columns} | about for v in sorted(bad, key=lambda v: -v.ratio)]
        or [dict.fromkeys(columns, "") | about],
    )
    tables: list[tuple[str, Any]] = [("kind", lambda v: v.kind), ("way", lambda v: v.group[1]),
        ("penalty", lambda v: v.group[0]), ("dtype", lambda v: v.group[2]), ("tol", lambda v: f"{v.tol:.0e}")]  # fmt: skip
    for name, key in tables:
        values = sorted({key(v) for v in verdicts})
        rows = [{name: value, **counts([v for v in verdicts if key(v) == value])} for value in values]
        if name == "kind":
            rows.append({name: "all", **counts(verdicts)})
        print(
            "\n"
            + report.text_table([{k: k for k in rows[0]}, *({k: str(x) for k, x in row.items()} for row in rows)][1:])
        )
    print("\nthe slowest fits:")
    for v in sorted(verdicts, key=lambda v: -v.seconds)[:_N_SLOWEST]:
        print(f"{v.seconds:6.2f} s  {v.kind}:{v.seed} {v.shape} {v.stop_reason} [{v.settings}]")
    seconds, reference = (sum(getattr(v, key) for v in verdicts) for key in ("seconds", "reference_seconds"))
    c = counts(verdicts)
    is_kept = not c["above_2_tol"] and not c["raised"] and c["above_tol"] <= _ALLOWED * max(c["silent"], 1)
    print(
        f"\nof {c['silent']} silent fits {c['above_tol']} ended above tol, {c['above_2_tol']} above twice that; "
        f"{c['raised']} raised, {c['unknown']} unknown; {seconds:.0f} s of fits, {reference:.0f} s of references; "
        f"wrote {output / 'stop.csv'}, {output / 'stop_worst.csv'}: {'kept' if is_kept else 'NOT kept'}"
    )
    return is_kept


if __name__ == "__main__":
    main()
