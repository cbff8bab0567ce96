"""Results as a table to read, a CSV file and a picture."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

#: Okabe & Ito's colours, told apart by the colour-blind.
_COLOURS = ["#000000", "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9"]
_MARKERS = "osD^vPX"
_LINES = ("-", "--", ":")


def write_csv(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """One line a row; the columns are the first row's keys."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def append_csv(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """More lines to a file that has the same columns, or a new one.

    Raises
    ------
    ValueError
        If the file has other columns.
    """
    if not path.exists() and rows:
        write_csv(path, rows)
    elif rows:
        with path.open("r+", newline="", encoding="utf-8") as file:
            columns = next(csv.reader(file), [])
            if columns != list(rows[0]):
                raise ValueError(f"{path} has columns {columns}, not {list(rows[0])}; move it away.")
            file.seek(0, 2)
            csv.DictWriter(file, fieldnames=columns).writerows(rows)


def read_csv(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file with a header; none if there is no file."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def text_table(rows: Sequence[dict[str, str]]) -> str:
    """Columns padded to their widest entry."""
    lines = [list(rows[0]), *(list(row.values()) for row in rows)]
    widths = [max(len(line[j]) for line in lines) for j in range(len(lines[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(w) if j < 2 else cell.rjust(w) for j, (cell, w) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    )


def draw_gaps(
    path: Path,
    points: dict[str, dict[str, list[tuple[float, float]]]],
    limits: tuple[float, float] = (1e-10, 1e4),
) -> None:
    """Gap against seconds, a panel a problem, a line a solver.

    Parameters
    ----------
    points : dict of dict of list
        Problem to solver to (seconds, gap), by growing ``max_iter``. The first solver's line is the thick one.
    limits : pair of float
        Gaps beyond these are drawn at them: below is rounding, above is no model.

    Raises
    ------
    ImportError
        If matplotlib is missing.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
        from matplotlib.ticker import NullFormatter
    except ImportError as error:
        raise ImportError("The picture needs matplotlib: pip install matplotlib, or read the CSV file.") from error
    names = list(dict.fromkeys(solver for solvers in points.values() for solver in solvers))
    n_columns = min(4, len(points))
    n_lines = -(-len(points) // n_columns)
    figure = Figure(figsize=(3.4 * n_columns, 2.9 * n_lines + 0.9), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(n_lines, n_columns, squeeze=False, sharey=True).ravel()
    for ax in axes[len(points) :]:
        ax.set_visible(False)
    for ax, (problem, solvers) in zip(axes, points.items(), strict=False):
        for solver, line in solvers.items():
            i = names.index(solver)
            seconds, gaps = zip(*line, strict=True)
            ax.plot(
                seconds,
                [min(max(gap, limits[0]), limits[1]) for gap in gaps],
                color=_COLOURS[i % len(_COLOURS)],
                marker=_MARKERS[i % len(_MARKERS)],
                linestyle=_LINES[i // len(_COLOURS) % len(_LINES)],
                markersize=4,
                linewidth=2.2 if i == 0 else 1.2,
                label=solver,
                zorder=3 if i == 0 else 2,
            )
        ax.axhline(1e-3, color="0.6", linewidth=0.8, linestyle=":")
        ax.set(xscale="log", yscale="log", title=problem, ylim=(limits[0] / 3, 3 * limits[1]))
        ax.xaxis.set_minor_formatter(NullFormatter())
        ax.grid(True, which="major", color="0.9")
    for ax in axes[-n_columns:]:
        ax.set_xlabel("seconds")
    for ax in axes[::n_columns]:
        ax.set_ylabel("gap (F - F*) / F*")
    handles = {label: handle for ax in axes for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    figure.legend(
        [handles[name] for name in names], names, loc="outside lower center", ncols=min(3, n_columns), frameon=False
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
