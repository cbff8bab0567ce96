"""Parts that the displays share: colours, axes, legends, and the model inside a pipeline.

The modules of the displays call these functions. This is the only module that imports matplotlib, inside the functions
that need it.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import Any

from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

#: Colours of lines: Okabe & Ito's palette, which is safe for colour-blind readers, without the colours that are too
#: light on white.
_PALETTE = ["#0072B2", "#D55E00", "#CC79A7", "#009E73", "#E69F00", "#56B4E9"]

#: Dashes of lines, for print in grey. There is one more than colours, so that all pairs come before one repeats.
_LINE_STYLES = ["-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (8, 2)), (0, (1, 3))]

#: Markers of points, one for each entry of `_LINE_STYLES`.
_MARKERS = ["o", "s", "^", "D", "v", "P", "X"]

#: Colour map of signed values: ColorBrewer's red to blue, without green, which can be mistaken for red.
DIVERGING = "RdBu_r"

#: Position of the colour of negative bars in the map, in [0, 1].
NEGATIVE = 0.15

#: Position of the colour of positive bars.
POSITIVE = 0.85

#: Start of the label of an empty line that stores a note for the legend. The legends of matplotlib skip labels that
#: start with an underscore.
_NOTE = "_note: "


def import_pyplot() -> Any:
    """Return matplotlib.pyplot; raise ImportError with the command that installs it if it is missing."""
    try:
        from matplotlib import pyplot
    except ImportError as error:
        raise ImportError("sksoftmax.plotting needs matplotlib: pip install matplotlib.") from error
    return pyplot


def fitted_model(estimator: Any) -> tuple[Any, Pipeline | None]:
    """Return the fitted classifier and the pipeline steps before it, or None without such steps.

    The classifier is the last step of a pipeline, and the best estimator of a search.

    Raises
    ------
    NotFittedError
        If the estimator is not fitted.
    """
    check_is_fitted(estimator)
    estimator = getattr(estimator, "best_estimator_", estimator)
    if not isinstance(estimator, Pipeline):
        return estimator, None
    model, _ = fitted_model(estimator.steps[-1][1])
    return model, estimator[:-1] if len(estimator) > 1 else None


def name_of(model: Any) -> str:
    """Return the name of the class of the model."""
    return type(model).__name__


def named_axes(ax: Any, possible: Mapping[str, float], wanted: Container[str], width: float) -> dict[str, Any]:
    """Return the axes of the panels by name, from ``ax`` or in a new figure, one below the other.

    Parameters
    ----------
    ax : matplotlib Axes, dict of str to matplotlib Axes, or None
        One Axes is used for the first of the wanted panels. None makes a new figure.
    possible : dict of str to float
        Heights of all possible panels, in inches.
    wanted : container of str
        Names of the panels that have something to show.
    width : float
        Width of a new figure, in inches.

    Raises
    ------
    ValueError
        If ``ax`` has a name that is not possible, or no name that is wanted.
    """
    heights = {name: height for name, height in possible.items() if name in wanted}
    if ax is None:
        _, axes = import_pyplot().subplots(
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
    selected = {name: ax[name] for name in heights if name in ax}
    if not selected or not set(ax) <= set(possible):
        raise ValueError(
            f"ax must have keys among {list(possible)}, and at least one of {list(heights)}, which have something to "
            f"show, got {list(ax)}."
        )
    return selected


class PanelsMixin:
    """Panels of a display that draws each of its curves into several axes.

    Attributes
    ----------
    axes_ : dict of str to matplotlib Axes
    ax_ : matplotlib Axes
        The first panel.
    figure_ : matplotlib Figure
    """

    axes_: dict[str, Any]
    ax_: Any
    figure_: Any

    def _open_panels(self, ax: Any, possible: Mapping[str, float], wanted: Container[str], width: float) -> int:
        """Set the attributes, see `named_axes`; return the number of the first new curve, which sets its colour."""
        import_pyplot()
        self.axes_ = named_axes(ax, possible, wanted, width)
        self.ax_ = next(iter(self.axes_.values()))
        self.figure_ = self.ax_.figure
        return count_curves(self.ax_)

    def _label_panels(self, ylabels: Mapping[str, str], xlabel: str) -> None:
        """Draw the grids, the label of each vertical axis, and the label of the lowest horizontal axis."""
        for panel, ax in self.axes_.items():
            ax.set_ylabel(ylabels[panel])
            ax.grid(alpha=0.3, linewidth=0.6)
        list(self.axes_.values())[-1].set_xlabel(xlabel)


def disable_math(text: Any) -> None:
    """Show a matplotlib text literally: a dollar sign does not start a formula."""
    text.set_parse_math(False)


def line_style(i: int, line_kw: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the colour and dashes of the i-th curve, updated with the keywords of the caller."""
    from matplotlib.cbook import normalize_kwargs
    from matplotlib.lines import Line2D

    style = {"color": _PALETTE[i % len(_PALETTE)], "linestyle": _LINE_STYLES[i % len(_LINE_STYLES)]}
    return style | normalize_kwargs(dict(line_kw or {}), Line2D)


def marker(i: int) -> str:
    """Return the marker of the i-th curve."""
    return _MARKERS[i % len(_MARKERS)]


def count_curves(ax: Any) -> int:
    """Return the number of labelled curves in the axes."""
    return len(ax.get_legend_handles_labels()[0])


def show_legend(ax: Any, **settings: Any) -> None:
    """Draw a legend of the labelled curves, if there are any."""
    if not count_curves(ax):
        return
    for text in ax.legend(**settings).get_texts():
        disable_math(text)


def add_note(ax: Any, text: str) -> None:
    """Store a note in the axes for `show_notes`, also if another display draws into the axes later."""
    if _NOTE + text not in [line.get_label() for line in ax.get_lines()]:
        ax.plot([], [], linestyle="", label=_NOTE + text)


def show_notes(ax: Any, label: str, text: str, **style: Any) -> None:
    """Draw a legend with ``text`` for the marks that have this label, if there are any, and with the stored notes."""
    from matplotlib.lines import Line2D

    labels = [str(line.get_label()) for line in ax.get_lines()]
    handles = [Line2D([], [], linestyle="", color="0.4", label=text, **style)] if label in labels else []
    notes = [name.removeprefix(_NOTE) for name in labels if name.startswith(_NOTE)]
    handles += [Line2D([], [], linestyle="", label=note) for note in notes]
    if handles:
        for entry in ax.legend(handles=handles, fontsize=8).get_texts():
            disable_math(entry)


def integer_ticks(axis: Any) -> None:
    """Place ticks at integers."""
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
