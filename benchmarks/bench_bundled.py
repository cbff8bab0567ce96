"""How far from the minimum, how soon? On scikit-learn's own sets, against scikit-learn's own solvers.

``python -m benchmarks`` checks the gradient, tunes a pipeline and times the fits; ``--quick`` uses two small
sets. The README's figures are those of ``--output benchmarks/results``.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import log_loss
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks import N_THREADS, problems, report
from benchmarks.rivals import OURS, RIVALS, Rival, objective
from benchmarks.timing import machine, timed
from sksoftmax import SoftmaxClassifier, check_gradient

REPEATS = 5

#: Iterations of the picture's points; the table's fits stop by themselves.
_BUDGETS = (1, 4, 16, 64)

#: A gradient is right if check_gradient says less (see its docstring), a fit if its gap is its tol.
_GRADIENT_ERROR = 1e-4
_TOL = 1e-3


def check_gradients(names: Sequence[str]) -> None:
    """Print the gradient's relative error on each set, for both engines."""
    print("1. The gradient, by scipy.optimize.check_grad (relative error)")
    for name in names:
        X, y = problems.BUNDLED[name](return_X_y=True)
        errors = {
            "vectorized": check_gradient(X, y),
            "naive": check_gradient(X[::10], y[::10], engine="naive", max_checks=20),
        }
        print(f"   {name:14s}" + "".join(f"  {engine} {e:.1e}" for engine, e in errors.items()), flush=True)
        if max(errors.values()) > _GRADIENT_ERROR:
            raise AssertionError(f"the gradient is wrong on {name}: {errors}")


def tune_pipeline(name: str) -> None:
    """Print what GridSearchCV finds for a pipeline."""
    print(f"\n2. GridSearchCV of StandardScaler + SoftmaxClassifier on {name}")
    X, y = problems.BUNDLED[name](return_X_y=True)
    X, X_test, y, y_test = train_test_split(X, y, test_size=0.25, stratify=y, random_state=0)
    grid = {
        "softmaxclassifier__alpha": [1e-4, 1e-3, 1e-2, 1e-1],
        "softmaxclassifier__batch_size": ["auto", 64],
    }
    search = GridSearchCV(make_pipeline(StandardScaler(), SoftmaxClassifier(random_state=0)), grid)
    search, timing = timed(lambda: search.fit(X, y), 1)
    best = {key.removeprefix("softmaxclassifier__"): value for key, value in search.best_params_.items()}
    print(f"   best {best}, cross-validated {search.best_score_:.4f}, test {search.score(X_test, y_test):.4f}")
    print(f"   ({len(search.cv_results_['params']) * search.n_splits_} fits in {timing.median:.1f} s)", flush=True)


def time_case(case: problems.Case) -> tuple[list[dict[str, Any]], dict[str, list[tuple[float, float]]]]:
    """A CSV row for each solver, and its points in the picture."""
    F = objective(case.X, case.y, case.alpha)
    n = len(case.y)
    # the least F that a second-order method of ours or of scikit-learn's finds, run to rounding
    exact = [(OURS, {"tol": 0.0}), (RIVALS[2], {"tol": 1e-12, "max_iter": 1000})]
    fits = [timed(lambda r=r, k=k: r.make(case.alpha, n, **k).fit(case.X, case.y), 1)[0] for r, k in exact]
    minimum = min(F(rival.params(fit)) for (rival, _), fit in zip(exact, fits, strict=True))

    def gap(rival: Rival, estimator: Any) -> float:
        return F(rival.params(estimator)) / minimum - 1

    default = OURS.make(case.alpha, n).fit(case.X, case.y)
    if not gap(OURS, default) <= _TOL:
        raise AssertionError(f"our fit of {case.name} is {gap(OURS, default):.1e} from the minimum")
    rows, points = [], {}
    for rival in (OURS, *RIVALS):

        def fit(rival: Rival = rival, **kwargs: Any) -> Any:
            return rival.make(case.alpha, n, **kwargs).fit(case.X, case.y)

        estimator, timing = timed(fit, REPEATS)
        line = []
        for budget in _BUDGETS:
            stopped, short = timed(lambda fit=fit, budget=budget: fit(max_iter=budget), REPEATS)
            line.append((short.median, gap(rival, stopped)))
        points[rival.name] = [*line, (timing.median, gap(rival, estimator))]
        rows.append(
            {
                "problem": case.name,
                "solver": rival.name,
                "seconds": timing.median,
                "seconds_min": timing.least,
                "seconds_max": timing.greatest,
                "ratio": timing.median / (rows[0]["seconds"] if rows else timing.median),
                "gap": gap(rival, estimator),
                "test_accuracy": estimator.score(case.X_test, case.y_test),
                "test_log_loss": _test_log_loss(estimator, case),
                "iterations": int(np.max(estimator.n_iter_)),
                "alpha": case.alpha,
                "n_samples": n,
                "n_features": case.X.shape[1],
                "n_classes": int(case.y.max()) + 1,
                "dtype": str(case.X.dtype),
                "objective_minimum": minimum,
                **machine(),
            }
        )
    return rows, points


def _test_log_loss(estimator: Any, case: problems.Case) -> float:
    """NaN if a probability is no number: one-vs-rest divides by 0 where every class is sure to be wrong."""
    with np.errstate(invalid="ignore"):
        proba = estimator.predict_proba(case.X_test)
    return float(log_loss(case.y_test, proba)) if np.isfinite(proba).all() else float("nan")


def _readable(rows: Sequence[dict[str, Any]]) -> list[dict[str, str]]:
    return [
        {
            "problem": row["problem"],
            "solver": row["solver"],
            "time / ours": f"{row['ratio']:.1f}",
            "seconds": f"{row['seconds']:.4f}",
            "(min - max)": f"({row['seconds_min']:.4f} - {row['seconds_max']:.4f})",
            "gap": f"{max(row['gap'], 0.0):.1e}",
            "test accuracy": f"{row['test_accuracy']:.4f}",
            "test log loss": f"{row['test_log_loss']:.4f}",
        }
        for row in rows
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two small sets only")
    parser.add_argument(
        "--output", type=Path, default=Path("benchmark_results"), help="folder of the CSV file and the picture"
    )
    options = parser.parse_args(arguments)
    names = ("iris", "wine") if options.quick else tuple(problems.BUNDLED)

    check_gradients(names)
    tune_pipeline(names[-1] if options.quick else "digits")
    print(f"\n3. Fits: median of {REPEATS}, {N_THREADS} BLAS thread(s), F at the same alpha for all")
    rows, points = [], {}
    for case in problems.bundled(names):
        print(f"   {case.name} ...", end="", flush=True)
        case_rows, points[case.name] = time_case(case)
        rows += case_rows
        print(f" ours {case_rows[0]['seconds']:.4f} s, gap {max(case_rows[0]['gap'], 0):.1e}", flush=True)
    print("\n" + report.text_table(_readable(rows)))
    print("\n   gap: (F - F*) / F*, F* the least found; SGDClassifier is one-vs-rest, not a softmax")

    report.write_csv(options.output / "bundled.csv", rows)
    print(f"\nwrote {options.output / 'bundled.csv'}")
    try:
        report.draw_gaps(options.output / "bundled.png", points)
        print(f"wrote {options.output / 'bundled.png'}: gap against seconds at growing max_iter")
    except ImportError as error:
        print(error)


if __name__ == "__main__":
    main()
