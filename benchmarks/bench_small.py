"""Few rows or few columns: are our default fits as fast as those of scikit-learn?

``python -m benchmarks.bench_small`` times

- default fits of up to 1000 rows against ``LogisticRegression()``, each with its own default penalty and stop;
- many rows of few columns against "newton-cholesky" that an oracle stops at our tolerance, at the same penalty;
- ``SoftmaxClassifierCV`` against ``LogisticRegressionCV``, and two grid searches of 100 fits, with the same scorer.

``--quick`` takes small sizes. The figures are those of ``--output benchmarks/results``.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.datasets import load_breast_cancer, load_digits, load_iris, load_wine, make_classification
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks import N_THREADS, report
from benchmarks.rivals import OURS, SKLEARN, objective
from benchmarks.soonest import soonest
from benchmarks.timing import machine, timed
from sksoftmax import SoftmaxClassifier, SoftmaxClassifierCV

REPEATS = 9

#: Rows, columns and classes of generated sets.
SMALL = [(990, 10, 11), (150, 2, 3), (1000, 20, 2), (1000, 50, 5), (500, 5, 7), (200, 100, 2), (400, 30, 10)]

#: The same with few columns.
NARROW = [(n, p, k) for n in (10**4, 10**5, 10**6) for p in (2, 6, 20) for k in (2, 3, 7)]

_ALPHA, _TOL = 1e-3, 1e-3

_BUNDLED = {"iris": load_iris, "wine": load_wine, "breast_cancer": load_breast_cancer, "digits": load_digits}


def small_sets() -> Iterator[tuple[str, Any, Any]]:
    """Yield the names and rows of sets of up to 1000 rows, with raw and with standardized columns."""
    sets = {name: load(return_X_y=True) for name, load in _BUNDLED.items()}
    for n, p, k in SMALL:
        sets[f"{n} x {p}, {k} classes"] = make_classification(
            *(n, p),
            n_informative=p if k > 3 else max(2, p // 2),
            n_redundant=0,
            n_classes=k,
            n_clusters_per_class=1,
            random_state=0,
        )
    for name, (X, y) in sets.items():
        yield f"{name}, raw", X[:1000], y[:1000]
        yield f"{name}, standardized", StandardScaler().fit_transform(X[:1000]), y[:1000]


def narrow_set(n: int, p: int, n_classes: int) -> tuple[Any, Any]:
    """Return rows of a softmax model in float32; half of the columns are log-normal."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n, p))
    X[:, p // 2 :] = np.exp(0.5 * X[:, p // 2 :])
    z = X @ rng.standard_normal((n_classes, p)).T
    y = (z - z.mean(axis=0) + rng.gumbel(size=z.shape)).argmax(axis=1)
    return X.astype(np.float32), y


def compare(kind: str, name: str, ours: Callable[[], Any], theirs: Callable[[], Any], repeats: int) -> dict[str, Any]:
    """Time both fits in turns of ``repeats``."""
    _, our_time = timed(ours, repeats)
    _, their_time = timed(theirs, repeats)
    return row(kind, name, our_time.median, their_time.median, our_time.least, our_time.greatest)


def row(kind: str, name: str, ours: float, theirs: float, least: float, greatest: float) -> dict[str, Any]:
    """Return a row of the CSV file."""
    return {
        "kind": kind,
        "problem": name,
        "ratio": theirs / ours,
        "seconds": ours,
        "seconds_min": least,
        "seconds_max": greatest,
        "rival_seconds": theirs,
        **machine(),
    }


def fits_of_small_sets(is_quick: bool) -> Iterator[dict[str, Any]]:
    """Yield the default fits of small sets."""
    for name, X, y in small_sets():
        if not is_quick or name.startswith("iris"):
            yield compare(
                "LogisticRegression()",
                name,
                lambda X=X, y=y: SoftmaxClassifier().fit(X, y),
                lambda X=X, y=y: LogisticRegression().fit(X, y),
                REPEATS,
            )


def fits_of_few_columns(is_quick: bool) -> Iterator[dict[str, Any]]:
    """Yield the fits of many rows of few columns."""
    rival = next(rival for rival in SKLEARN if "newton-cholesky" in rival.name)
    for n, p, k in [(2000, 2, 2), (2000, 6, 3)] if is_quick else NARROW:
        X, y = narrow_set(n, p, k)
        F = objective(X, y, _ALPHA)
        minimum = F(OURS.params(OURS.make(_ALPHA, n, tol=1e-9).fit(X.astype(np.float64), y)))
        estimator, timing = timed(lambda X=X, y=y: OURS.make(_ALPHA, len(y), tol=_TOL).fit(X, y), REPEATS)
        if not F(OURS.params(estimator)) / minimum - 1 <= _TOL:
            raise AssertionError(f"our fit of {n} x {p} is not within its tolerance")
        theirs = soonest(
            rival, X, y, _ALPHA, F, minimum, target=_TOL, limit=100 * timing.median, repeats=min(5, REPEATS)
        )
        name = f"{n} x {p}, {k} classes"
        yield row("newton-cholesky, stopped by an oracle", name, timing.median, theirs, timing.least, timing.greatest)


def searches(is_quick: bool) -> Iterator[dict[str, Any]]:
    """Yield cross-validated searches."""
    for name, load in list(_BUNDLED.items())[: 1 if is_quick else None]:
        X, y = load(return_X_y=True)
        Z, alphas = StandardScaler().fit_transform(X), np.logspace(-6, -1, 20)
        for scoring in ("accuracy", "neg_log_loss"):
            yield compare(
                f"LogisticRegressionCV, {scoring}",
                name,
                lambda Z=Z, y=y, scoring=scoring: SoftmaxClassifierCV(scoring=scoring).fit(Z, y),
                lambda Z=Z, y=y, scoring=scoring: LogisticRegressionCV(
                    l1_ratios=(0.0,), scoring=scoring, use_legacy_attributes=False
                ).fit(Z, y),
                3,
            )
        if name == "digits":
            continue
        yield compare(
            "GridSearchCV, 100 fits",
            name,
            lambda X=X, y=y, a=alphas: search(SoftmaxClassifier(), {"alpha": a}, X, y),
            lambda X=X, y=y, a=alphas: search(LogisticRegression(), {"C": 1 / (a * len(y))}, X, y),
            3,
        )


def search(estimator: Any, grid: dict[str, Any], X: Any, y: Any) -> Any:
    """Return a fitted grid search of a pipeline with a scaler."""
    pipeline = make_pipeline(StandardScaler(), estimator)
    name = pipeline.steps[-1][0]
    return GridSearchCV(pipeline, {f"{name}__{key}": values for key, values in grid.items()}).fit(X, y)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench_small", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small sizes only")
    parser.add_argument("--output", type=Path, default=Path("benchmark_results"), help="folder of the CSV file")
    options = parser.parse_args(arguments)
    print(f"{N_THREADS} thread(s); ratio: seconds of the rival / ours")
    rows = []
    for part in (fits_of_small_sets, fits_of_few_columns, searches):
        for each in part(options.quick):
            rows.append(each)
            print(
                f"  {each['ratio']:6.2f}  ours {1e3 * each['seconds']:8.2f} ms"
                f" ({1e3 * each['seconds_min']:.2f} - {1e3 * each['seconds_max']:.2f})"
                f"  rival {1e3 * each['rival_seconds']:9.2f} ms  {each['problem']}  [{each['kind']}]",
                flush=True,
            )
    report.write_csv(options.output / "small.csv", rows)
    print(f"wrote {options.output / 'small.csv'}")


if __name__ == "__main__":
    main()
