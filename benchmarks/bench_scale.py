"""How does the time of a fit grow with rows, columns and classes?

``python -m benchmarks.bench_scale`` fits generated dense rows, standardized, float32, alpha 1e-4, to a gap of 1e-3:
ours by default, and scikit-learn's "lbfgs" with an oracle that stops it there. One size grows at a time. It writes
`scale.csv` and `scale.png`, with the slopes on logarithmic axes, and prints by how much a doubling multiplies our time
at most.

``--quick`` takes small sizes, and ``--axes`` only some; rows of the others stay as they are. The figures are those of
``--output benchmarks/results``.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.preprocessing import StandardScaler

from benchmarks import N_THREADS, report
from benchmarks.rivals import OURS, SKLEARN, objective
from benchmarks.soonest import soonest
from benchmarks.timing import machine, timed

REPEATS = 3

_ALPHA, _TOL = 1e-4, 1e-3

#: Rows, columns and classes where they do not grow.
_BASE = {"rows": 20_000, "columns": 50, "classes": 5}

#: Sizes that grow; columns with fewer rows, so that X fits.
SIZES = {
    "rows": [1000 * 2**k for k in range(11)],
    "columns": [10, 20, 40, 80, 160, 320, 640, 1280, 2560],
    "classes": [2, 4, 8, 16, 32, 64, 128, 256, 512, 1000],
}
QUICK = {"rows": [500, 1000], "columns": [5, 10], "classes": [2, 3]}

#: A rival gets this number of times our seconds.
_PATIENCE = 8


def rows_of(sizes: dict[str, int]) -> tuple[Any, Any]:
    """Return rows of a softmax model with correlated columns."""
    rng = np.random.default_rng(0)
    n, p, k = sizes["rows"], sizes["columns"], sizes["classes"]
    common = rng.standard_normal((n, max(2, p // 10))).astype(np.float32)
    X = common @ rng.standard_normal((common.shape[1], p)).astype(np.float32)
    X += rng.standard_normal((n, p), dtype=np.float32)
    X = StandardScaler().fit_transform(X)
    z = X @ rng.standard_normal((k, p)).astype(np.float32).T * (3 / np.sqrt(p))
    y = (z + rng.gumbel(size=z.shape)).argmax(axis=1)
    y[:k] = np.arange(k)
    return X, y


def time_sizes(axis: str, size: int, base: dict[str, int]) -> dict[str, Any]:
    """Return the row of the CSV file for one size."""
    X, y = rows_of({**base, axis: size})
    F = objective(X, y, _ALPHA)
    minimum = F(OURS.params(OURS.make(_ALPHA, len(y), tol=1e-5).fit(X, y)))
    estimator, timing = timed(lambda: OURS.make(_ALPHA, len(y), tol=_TOL).fit(X, y), REPEATS)
    gap = F(OURS.params(estimator)) / minimum - 1
    if not gap <= _TOL:
        raise AssertionError(f"our fit of {size} {axis} is {gap:.1e} from the minimum")
    lbfgs = next(rival for rival in SKLEARN if "(lbfgs)" in rival.name and "Logistic" in rival.name)
    limit = max(_PATIENCE * timing.median, 1.0)
    return {
        "axis": axis,
        "size": size,
        "n_samples": len(y),
        "n_features": X.shape[1],
        "n_classes": int(y.max()) + 1,
        "seconds": timing.median,
        "seconds_min": timing.least,
        "seconds_max": timing.greatest,
        "lbfgs_seconds": soonest(lbfgs, X, y, _ALPHA, F, minimum, target=_TOL, limit=limit, repeats=1),
        "gap": gap,
        "solver": estimator.solver_info_["solver"],
        **machine(),
    }


def slope(sizes: Sequence[float], seconds: Sequence[float]) -> float:
    """Return the slope of seconds over sizes on logarithmic axes, by least squares."""
    reached = np.isfinite(seconds)
    return float(np.polyfit(np.log(np.array(sizes)[reached]), np.log(np.array(seconds)[reached]), 1)[0])


def draw(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Draw seconds over sizes, a panel for each size that grows. Raises ImportError without matplotlib."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 3.8), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, len(SIZES), sharey=True)
    for ax, axis in zip(axes, SIZES, strict=True):
        here = [row for row in rows if row["axis"] == axis]
        if not here:
            continue
        sizes = [float(row["size"]) for row in here]
        for column, label, style in (("seconds", "ours", "o-"), ("lbfgs_seconds", "lbfgs, with an oracle", "s--")):
            seconds = [float(row[column]) for row in here]
            ax.plot(sizes, seconds, style, label=f"{label}: slope {slope(sizes, seconds):.2f}", markersize=4)
        ax.set(xscale="log", yscale="log", xlabel=axis)
        ax.legend(frameon=False, fontsize=9)
        ax.grid(True, which="major", color="0.9")
    axes[0].set_ylabel("seconds to a gap of 1e-3")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench_scale", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small sizes only")
    parser.add_argument("--output", type=Path, default=Path("benchmark_results"), help="folder of the results")
    parser.add_argument("--axes", nargs="+", choices=list(SIZES), default=list(SIZES), help="which sizes grow")
    options = parser.parse_args(arguments)
    sizes, base = (QUICK, {"rows": 1000, "columns": 10, "classes": 3}) if options.quick else (SIZES, _BASE)
    print(f"{N_THREADS} thread(s)")
    path = options.output / "scale.csv"
    rows: list[dict[str, Any]] = [row for row in report.read_csv(path) if row["axis"] not in options.axes]
    for axis, grown in sizes.items():
        if axis not in options.axes:
            continue
        for size in grown:
            row = time_sizes(axis, size, base)
            rows.append(row)
            print(
                f"  {row['n_samples']} x {row['n_features']}, {row['n_classes']} classes: ours {row['seconds']:.4f} s,"
                f" lbfgs {row['lbfgs_seconds']:.4f} s, {row['lbfgs_seconds'] / row['seconds']:.1f} times ours"
                f"  [{row['solver']}]",
                flush=True,
            )
        here = [row for row in rows if row["axis"] == axis]
        growth = [b["seconds"] / a["seconds"] for a, b in itertools.pairwise(here)]
        k = int(np.argmax(growth))
        print(
            f"  {axis}: slope {slope(grown, [row['seconds'] for row in here]):.2f},"
            f" lbfgs {slope(grown, [row['lbfgs_seconds'] for row in here]):.2f};"
            f" the greatest growth by a doubling is {growth[k]:.1f}, from {grown[k]} to {grown[k + 1]}"
        )
    report.write_csv(path, rows)
    print(f"wrote {path}")
    try:
        draw(options.output / "scale.png", rows)
        print(f"wrote {options.output / 'scale.png'}")
    except ImportError as error:
        print(error)


if __name__ == "__main__":
    main()
