"""Streams: how near one pass and five of ``partial_fit`` end, how many rows a second it takes, how it follows drift.

``python -m benchmarks.bench_stream`` writes

- ``stream_gap.csv``: the gap after 1 and 5 passes over the race's problems, shuffled, unscaled, in pieces of 1000 rows;
  beside it ``SGDClassifier`` (its default settings, same alpha) over standardised columns, scaled back for F. Its model
  is one-vs-rest, so its own probabilities' log loss, without a penalty, stands beside F's gap.
- ``stream_rows.csv``: rows a second in pieces of 1, 100 and 10000 rows, ratio first. All take the same rows in one run;
  our rate includes the fits to the rows kept.
- ``stream_drift.csv`` and ``stream_drift.png``: accuracy on the rows to come, before they are learned, of labels that
  change their meaning half way.

river learns row by row, so its rate has no pieces. ``--quick`` takes small sets. The data are the race's, see
``problems.py``.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
from sklearn.linear_model import SGDClassifier
from sklearn.metrics import log_loss
from sklearn.preprocessing import StandardScaler

from benchmarks import minima, problems, report
from benchmarks.problems import RACE, RaceProblem
from benchmarks.rivals import OURS, linear_params, objective
from benchmarks.timing import machine
from sksoftmax import SoftmaxClassifier
from sksoftmax._types import Array, Params

GAP_PROBLEMS = [
    *("digits raw", "segment", "letter", "newsgroups20", "mnist", "word_langid", "embeddings", "flights", "covertype")
]
ROWS_PROBLEMS = ["letter", "mnist", "covertype", "newsgroups20", "word_langid"]
QUICK = ["digits raw"]

PASSES = (1, 5)
PIECE = 1000

#: Rows of a piece, and most rows that are taken in such pieces: single rows cost a call each.
PIECES = {1: 2_000, 100: 100_000, 10_000: 200_000}

RIVER_ROWS = 500
REPEATS = 5

#: The stream that drifts.
DRIFT_ROWS, DRIFT_PIECE, DRIFT_WINDOW, HALF_LIVES = 60_000, 100, 1000, (300.0, 1000.0)


def pieces(X: Any, y: Array, size: int) -> Iterator[tuple[Any, Array]]:
    for start in range(0, len(y), size):
        yield X[start : start + size], y[start : start + size]


def ours(alpha: float, **settings: Any) -> SoftmaxClassifier:
    return SoftmaxClassifier(alpha, random_state=0, **settings)


def sgd(alpha: float, **settings: Any) -> SGDClassifier:
    return SGDClassifier(loss="log_loss", alpha=alpha, random_state=0, **settings)


def learned(model: Any, X: Any, y: Array, size: int, classes: Array) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for rows, labels in pieces(X, y, size):
            model.partial_fit(rows, labels, classes=classes)
    return model


# --- how near ---------------------------------------------------------------------------------------------


def gaps(name: str, folder: Path, kept: Path) -> Iterator[dict[str, str]]:
    """Rows of one problem."""
    problem = RACE[name]
    saved = problems.save(problem, "float32", folder)
    X, y = problems.read_saved(saved)
    minimum = minima.minimum(problem, "float32", saved, kept)
    F = objective(X, y, problem.alpha)
    scaler = StandardScaler(with_mean=not sp.issparse(X)).fit(X)

    def back(model: SGDClassifier) -> Params:
        coef, intercept = linear_params(model)
        coef = coef / scaler.scale_
        return Params(coef, intercept if sp.issparse(X) else intercept - coef @ scaler.mean_)

    entrants: list[tuple[str, Any, Any, Callable[[Any], Params]]] = [
        ("SoftmaxClassifier", ours(problem.alpha), X, OURS.params),
        ("SoftmaxClassifier(keep_rows=False)", ours(problem.alpha, keep_rows=False), X, OURS.params),
        ("SGDClassifier, standardised", sgd(problem.alpha), scaler.transform(X), back),
    ]
    if sp.issparse(X):  # rows of norm 1 are scaled already
        entrants.append(("SGDClassifier", sgd(problem.alpha), X, linear_params))
    classes = np.unique(y)
    for entrant, model, rows, params in entrants:
        seconds = 0.0
        for i in range(max(PASSES)):
            order = np.random.default_rng(i).permutation(len(y))
            part, labels = rows[order], y[order]
            start = time.perf_counter()
            learned(model, part, labels, PIECE, classes)
            seconds += time.perf_counter() - start
            if i + 1 in PASSES:
                yield {
                    **{"problem": name, "n_samples": str(len(y)), "passes": str(i + 1), "model": entrant},
                    "gap": f"{F(params(model)) / minimum - 1:.2g}",
                    "log_loss": f"{_log_loss(model, rows, y, classes):.4f}",
                    "seconds": f"{seconds:.2f}",
                }


def _log_loss(model: Any, X: Any, y: Array, classes: Array) -> float:
    """Of the model's own probabilities, a piece at a time."""
    losses = [
        log_loss(labels, model.predict_proba(rows), labels=classes) * len(labels)
        for rows, labels in pieces(X, y, 10_000)
    ]
    return float(sum(losses)) / len(y)


# --- how fast ---------------------------------------------------------------------------------------------


def rates(problem: RaceProblem, folder: Path, sizes: dict[int, int], repeats: int) -> Iterator[dict[str, str]]:
    """Rows of one problem: each model's median rate, side by side."""
    X, y = problems.read_saved(problems.save(problem, "float32", folder))
    classes = np.unique(y)
    makers: dict[str, Callable[[], Any]] = {
        "SoftmaxClassifier": lambda: ours(problem.alpha),
        "SoftmaxClassifier(keep_rows=False)": lambda: ours(problem.alpha, keep_rows=False),
        "SGDClassifier": lambda: sgd(problem.alpha),
    }
    scaled = X if sp.issparse(X) else StandardScaler().fit_transform(X)  # so that its steps are not endless
    learned(ours(problem.alpha), X[:600], y[:600], 600, classes)  # what is compiled late
    river = _river_rate(scaled[:RIVER_ROWS], y[:RIVER_ROWS])
    for size, most in sizes.items():
        n = min(most, len(y))
        if n <= size:
            continue
        seconds: dict[str, list[float]] = {name: [] for name in makers}
        for _ in range(repeats):
            for name, make in makers.items():
                rows = scaled if name == "SGDClassifier" else X
                start = time.perf_counter()
                learned(make(), rows[:n], y[:n], size, classes)
                seconds[name].append(time.perf_counter() - start)
        rate = {name: n / float(np.median(times)) for name, times in seconds.items()}
        for name, times in seconds.items():
            yield {
                **{"problem": problem.name, "piece": str(size), "n_samples": str(n), "model": name},
                "ours_to_sgd": f"{rate[name] / rate['SGDClassifier']:.2f}",
                "ours_to_river": f"{rate[name] / river:.1f}" if river else "",
                **{"rows_a_second": f"{rate[name]:.0f}", "slowest": f"{n / max(times):.0f}"},
                **{"fastest": f"{n / min(times):.0f}", "river_rows_a_second": f"{river:.0f}" if river else ""},
            }


def _river_model() -> Any:
    """River's model, or None where it is not installed."""
    try:
        from river import linear_model, optim
    except ImportError:
        return None
    return linear_model.SoftmaxRegression(optimizer=optim.SGD(0.01))


def _as_dicts(X: Any) -> list[dict[int, float]]:
    if not sp.issparse(X):
        return [dict(enumerate(row)) for row in X.tolist()]
    X = sp.csr_array(X)
    spans = zip(X.indptr, X.indptr[1:], strict=False)
    return [dict(zip(X.indices[a:b].tolist(), X.data[a:b].tolist(), strict=True)) for a, b in spans]


def _river_rate(X: Any, y: Array) -> float | None:
    model = _river_model()
    if model is None:
        return None
    rows, labels = _as_dicts(X), y.tolist()
    start = time.perf_counter()
    for row, label in zip(rows, labels, strict=True):
        model.learn_one(row, label)
    return len(labels) / (time.perf_counter() - start)


# --- drift ------------------------------------------------------------------------------------------------


def drifting(n_samples: int) -> tuple[Array, Array]:
    """Rows of a softmax model of 5 classes and 20 columns over two decades; half way each label means the next one."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n_samples, 20))
    y = (X @ rng.standard_normal((20, 5)) + rng.gumbel(size=(n_samples, 5))).argmax(axis=1)
    y[n_samples // 2 :] = (y[n_samples // 2 :] + 1) % 5
    return X * 10.0 ** rng.uniform(-1, 1, 20), y


class _Scaled:
    """SGDClassifier of columns standardised as they come."""

    def __init__(self, **settings: Any) -> None:
        self.scaler, self.model = StandardScaler(), sgd(1e-4, **settings)

    def partial_fit(self, X: Any, y: Array, classes: Array) -> None:
        self.model.partial_fit(self.scaler.partial_fit(X).transform(X), y, classes)

    def predict(self, X: Any) -> Array:
        return np.asarray(self.model.predict(self.scaler.transform(X)))


class _River:
    """river's model of columns standardised as they come, by pieces."""

    def __init__(self) -> None:
        from river import preprocessing

        self.model = preprocessing.StandardScaler() | _river_model()

    def partial_fit(self, X: Any, y: Array, classes: Array) -> None:
        for row, label in zip(_as_dicts(X), y.tolist(), strict=True):
            self.model.learn_one(row, label)

    def predict(self, X: Any) -> Array:
        return np.array([self.model.predict_one(row) for row in _as_dicts(X)])


def drift(n_samples: int) -> list[dict[str, str]]:
    """Accuracy of each model in each window."""
    X, y = drifting(n_samples)
    entrants: dict[str, Any] = {
        **{f"SoftmaxClassifier(half_life={rows:g})": ours(1e-4, half_life=rows) for rows in HALF_LIVES},
        "SoftmaxClassifier": ours(1e-4),
        "SGDClassifier": _Scaled(),
        "SGDClassifier(constant, eta0=0.01)": _Scaled(learning_rate="constant", eta0=0.01),
    }
    if _river_model() is not None:
        entrants["river SoftmaxRegression"] = _River()
    classes, rows = np.arange(5), []
    for name, model in entrants.items():
        hits: list[Array] = []
        for i, (part, labels) in enumerate(pieces(X, y, DRIFT_PIECE)):
            if i:
                hits.append(model.predict(part) == labels)
            model.partial_fit(part, labels, classes=classes)
        right = np.concatenate(hits)
        for start in range(0, len(right), DRIFT_WINDOW):
            window = right[start : start + DRIFT_WINDOW]
            rows.append(
                {"model": name, "rows": str(DRIFT_PIECE + start + len(window)), "accuracy": f"{window.mean():.4f}"}
            )
    return rows


def picture(rows: Sequence[dict[str, str]], path: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    for name in dict.fromkeys(row["model"] for row in rows):
        own = [row for row in rows if row["model"] == name]
        axes.plot([int(row["rows"]) for row in own], [float(row["accuracy"]) for row in own], label=name)
    axes.set(xlabel="rows", ylabel=f"accuracy before learning, of {DRIFT_WINDOW} rows")
    axes.legend(fontsize="small")
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench_stream", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small sets")
    parser.add_argument("--parts", nargs="+", choices=["gap", "rows", "drift"], default=["gap", "rows", "drift"])
    parser.add_argument("--problems", nargs="+", choices=list(RACE), help="of the gaps and rates")
    parser.add_argument("--data", type=Path, help="folder to keep the problems in; default: a temporary one")
    parser.add_argument("--output", type=Path, default=Path("benchmark_results"), help="folder of the CSV files")
    options = parser.parse_args(arguments)
    kept = options.output / "minima.csv" if options.quick else minima.KEPT
    about = machine()

    def told(name: str, rows: Iterator[dict[str, str]] | list[dict[str, str]]) -> list[dict[str, str]]:
        found = []
        for row in rows:
            found.append(row)
            print(name, *row.values(), sep="  ", flush=True)
        return found

    with tempfile.TemporaryDirectory() as temporary:
        folder = options.data or Path(temporary)
        found: dict[str, list[dict[str, str]]] = {"gap": [], "rows": [], "drift": []}
        if "drift" in options.parts:
            found["drift"] = told("drift", drift(4000 if options.quick else DRIFT_ROWS))
        if "rows" in options.parts:
            sizes, repeats = ({1: 100, 100: 1000}, 1) if options.quick else (PIECES, REPEATS)
            for name in options.problems or (QUICK if options.quick else ROWS_PROBLEMS):
                found["rows"] += told("rows", rates(RACE[name], folder, sizes, repeats))
        if "gap" in options.parts:
            for name in options.problems or (QUICK if options.quick else GAP_PROBLEMS):
                found["gap"] += told("gap", gaps(name, folder, kept))
    for part, rows in found.items():
        if rows:
            report.write_csv(options.output / f"stream_{part}.csv", [{**about, **row} for row in rows])
            print(f"wrote {options.output / f'stream_{part}.csv'}")
    if found["drift"]:
        picture(found["drift"], options.output / "stream_drift.png")


if __name__ == "__main__":
    main()
