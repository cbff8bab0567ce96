"""What the displays share: colours, axes, the model inside a pipeline."""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import Any

from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

#: Lines: of Okabe & Ito's eight colours, which people of any colour vision tell apart, those that show on white.
_PALETTE = ["#0072B2", "#D55E00", "#CC79A7", "#009E73", "#E69F00", "#56B4E9"]

#: As many as colours and one more, so that they pair in all ways before a pair comes again; for print in grey.
_LINE_STYLES = ["-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (8, 2)), (0, (1, 3))]
_MARKERS = ["o", "s", "^", "D", "v", "P", "X"]

#: Signed values: ColorBrewer's red to blue, which has no green for red to be mistaken for.
DIVERGING = "RdBu_r"

#: Label of an empty line that holds a line of text for the legend; matplotlib's own legends skip it.
_NOTE = "_note: "

#: Where in the map a bar's colour is: of the negative and of the positive ones.
NEGATIVE, POSITIVE = 0.15, 0.85


def pyplot() -> Any:
    """matplotlib.pyplot, or ImportError that says what to install."""
    try:
        from matplotlib import pyplot
    except ImportError as error:
        raise ImportError("sksoftmax.plotting needs matplotlib: pip install 'sksoftmax[plot]'.") from error
    return pyplot


def fitted_model(estimator: Any) -> tuple[Any, Pipeline | None]:
    """The fitted classifier, and the steps before it: of a pipeline the last step, of a search the best model.

    Raises
    ------
    NotFittedError
        If it is not fitted.
    """
    check_is_fitted(estimator)
    estimator = getattr(estimator, "best_estimator_", estimator)
    if not isinstance(estimator, Pipeline):
        return estimator, None
    model, _ = fitted_model(estimator.steps[-1][1])
    return model, estimator[:-1] if len(estimator) > 1 else None


def name_of(model: Any) -> str:
    return type(model).__name__


def named_axes(ax: Any, possible: Mapping[str, float], wanted: Container[str], width: float) -> dict[str, Any]:
    """Axes by name: those of a new figure, one below the other; or those that ``ax`` has for the names wanted.

    Parameters
    ----------
    ax : matplotlib Axes, dict of them or None
        One Axes is the first of those wanted.
    possible : dict of str to float
        Heights of all axes that there may be, in inches.
    wanted : container of str
        Those of them that there is something for.
    width : float
        Inches, of a new figure.

    Raises
    ------
    ValueError
        If ``ax`` has other names, or none that is wanted.
    """
    heights = {name: height for name, height in possible.items() if name in wanted}
    if ax is None:
        _, axes = pyplot().subplots(
            len(heights),
            sharex=True,
            squeeze=False,
            layout="constrained",
            figsize=(width, sum(heights.values())),
            height_ratios=list(heights.values()),
        )
        return dict(zip(heights, axes[:, 0], strict=True))
    if not isinstance(ax, Mapping):
        return {next(iter(heights)): ax}
    chosen = {name: ax[name] for name in heights if name in ax}
    if not chosen or not set(ax) <= set(possible):
        raise ValueError(
            f"ax must have keys among {list(possible)}, and one of {list(heights)}, for which there is something to "
            f"draw, got {list(ax)}."
        )
    return chosen


def plain(text: Any) -> None:
    """Show a matplotlib text as it is: a dollar sign is one, and not the start of a formula."""
    text.set_parse_math(False)


def line_style(i: int, line_kw: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Colour and dashes of the i-th curve, and what the caller's keywords say instead."""
    from matplotlib.cbook import normalize_kwargs
    from matplotlib.lines import Line2D

    style = {"color": _PALETTE[i % len(_PALETTE)], "linestyle": _LINE_STYLES[i % len(_LINE_STYLES)]}
    return style | normalize_kwargs(dict(line_kw or {}), Line2D)


def marker(i: int) -> str:
    return _MARKERS[i % len(_MARKERS)]


def n_labelled(ax: Any) -> int:
    """Curves that the axes have already: the next one's colour is the next."""
    return len(ax.get_legend_handles_labels()[0])


def show_legend(ax: Any, **settings: Any) -> None:
    if not n_labelled(ax):
        return
    for text in ax.legend(**settings).get_texts():
        plain(text)


def add_note(ax: Any, text: str) -> None:
    """Keep a line of text for ``explain``; a display that is drawn into the same axes later keeps it too."""
    if _NOTE + text not in [line.get_label() for line in ax.get_lines()]:
        ax.plot([], [], linestyle="", label=_NOTE + text)


def explain(ax: Any, label: str, text: str, **style: Any) -> None:
    """Draw a legend that says what the marks with this label mean, if there are any, and that shows the notes."""
    from matplotlib.lines import Line2D

    labels = [str(line.get_label()) for line in ax.get_lines()]
    handles = [Line2D([], [], linestyle="", color="0.4", label=text, **style)] if label in labels else []
    notes = [name.removeprefix(_NOTE) for name in labels if name.startswith(_NOTE)]
    handles += [Line2D([], [], linestyle="", label=note) for note in notes]
    if handles:
        for shown in ax.legend(handles=handles, fontsize=8).get_texts():
            plain(shown)


def whole_ticks(axis: Any) -> None:
    """Ticks at whole numbers."""
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
