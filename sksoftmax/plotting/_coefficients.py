"""``CoefficientDisplay``: coefficients of a linear classifier, as bars or as images.

Users call ``from_estimator``. It reads the coefficients and the names of the features from a fitted model, checks the
arguments, and draws a panel for each class with matplotlib.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike
from sklearn.exceptions import NotFittedError

from sksoftmax._types import Array
from sksoftmax.plotting import _parts as parts
from sksoftmax.plotting._parts import fitted_model, name_of

#: Width of a panel of bars without the names, in inches.
_BARS_WIDTH = 2.2

#: Width of a letter of a name, in inches.
_LETTER_WIDTH = 0.07

#: Height of a bar, in inches.
_BAR_HEIGHT = 0.19

#: Height of a panel of bars without the bars, in inches.
_BARS_MARGIN = 0.45

#: Largest side of an image, in inches, for at most `_MAX_LARGE_IMAGES` images.
_IMAGE_SIDE = 2.6

#: Largest side of an image, in inches, for more images.
_SMALL_IMAGE_SIDE = 1.25

#: Maximum number of images of the larger size.
_MAX_LARGE_IMAGES = 3

#: Height of the title of an image, in inches.
_TITLE_HEIGHT = 0.3

#: Width of the colour bar, in inches.
_COLORBAR_WIDTH = 1.0

#: Maximum number of panels of bars side by side.
_MAX_COLUMNS = 4

#: Ratio of columns to rows of images, if there are more than 4.
_IMAGE_COLUMNS_PER_ROW = 2.5

#: Maximum number of characters of a name. Longer names lose their middle, unless two names would then be equal.
_NAME_LENGTH = 28


class CoefficientDisplay:
    """Coefficients of a linear classifier: the largest as bars with feature names, or all as images.

    It is recommended to use ``from_estimator`` to create a display.

    Parameters
    ----------
    coef : ndarray of shape (n_classes, n_features), or (1, n_features) for two classes
        Coefficients. For two classes, positive ones favour the second class.
    feature_names : sequence of str of length n_features
        Names of the columns.
    classes : sequence of length n_classes
        Class labels, which are the titles of the panels.

    Attributes
    ----------
    ax_ : matplotlib Axes
        First panel.
    axes_ : ndarray of Axes of shape (n_panels,)
        Panels, one for each class; for two classes one in total.
    figure_ : matplotlib Figure
        Figure of the panels.
    bars_ : list of matplotlib BarContainer
        Bars of each panel. Only without ``image_shape``.
    images_ : list of matplotlib AxesImage
        Image of each panel. Only with ``image_shape``.
    colorbar_ : matplotlib Colorbar
        Colour bar of the images. Only with ``image_shape``.

    Notes
    -----
    Bars to the right favour the class of the panel, bars to the left count against it. For two classes, bars to the
    right favour the second class and bars to the left the first. All panels have the same scale, so that classes can be
    compared. Coefficients that are 0 have no bar.

    Coefficients of different columns can be compared only if the columns have the same unit, or none, as after a
    ``StandardScaler`` or a ``TfidfVectorizer``. For other columns, pass ``feature_scale=X.std(axis=0)``. The bars then
    show the change of the raw prediction per standard deviation of the column.

    If matplotlib's font lacks the script of the names, set ``matplotlib.rcParams["font.family"]`` to one that has it.

    Examples
    --------
    >>> from sklearn.datasets import load_wine
    >>> from sksoftmax import SoftmaxClassifier
    >>> from sksoftmax.plotting import CoefficientDisplay
    >>> X, y = load_wine(return_X_y=True, as_frame=True)
    >>> clf = SoftmaxClassifier(random_state=0).fit(X, y)
    >>> display = CoefficientDisplay.from_estimator(clf, n_features=3, feature_scale=X.std())
    >>> [text.get_text() for text in display.ax_.get_yticklabels()]
    ['proline', 'flavanoids', 'alcalinity_of_ash']
    """

    def __init__(self, coef: Array, *, feature_names: Sequence[str], classes: Sequence[Any]) -> None:
        self.coef = coef
        self.feature_names = feature_names
        self.classes = classes

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        *,
        feature_names: Sequence[str] | None = None,
        n_features: int = 10,
        classes: Sequence[Any] | None = None,
        image_shape: tuple[int, int] | None = None,
        feature_scale: ArrayLike | None = None,
        display_labels: Sequence[str] | None = None,
        n_cols: int | None = None,
        ax: Any = None,
        bar_kw: Mapping[str, Any] | None = None,
        im_kw: Mapping[str, Any] | None = None,
    ) -> Self:
        """Plot the coefficients of a fitted linear classifier.

        Parameters
        ----------
        estimator : estimator
            Fitted linear classifier, a pipeline that ends with one, or a search over one. It has ``classes_``, and
            ``coef_``, dense or sparse, of shape (n_classes, n_features), or (1, n_features) for two classes, as
            ``SoftmaxClassifier`` and most classifiers of ``sklearn.linear_model`` do.
        feature_names : sequence of str of length n_features, default=None
            Names of the columns of the coefficients. None takes the model's ``feature_names_in_``, otherwise the output
            names of the pipeline steps before it, otherwise x0, x1, ...
        n_features : int, default=10
            Maximum number of bars of a panel, >= 1: the coefficients of largest absolute value. The single panel of two
            classes has up to this number of bars for each class.
        classes : sequence of labels, default=None
            Classes to show, in this order. None shows all. For one of two classes, bars to the right favour that class.
        image_shape : tuple of two ints, default=None
            Number of rows and columns of the image whose n_features pixels are the columns, row by row. None draws
            bars.
        feature_scale : array-like of shape (n_features,), default=None
            Factor, >= 0, on the coefficients of each column, such as ``X.std(axis=0)``. None means 1.
        display_labels : sequence of str, default=None
            Titles for the classes shown, in their order. None takes the labels.
        n_cols : int, default=None
            Number of panels side by side in a new figure, >= 1. None chooses it by the number of panels.
        ax : matplotlib Axes, or array-like of Axes of shape (n_panels,), default=None
            Axes to draw into; a single Axes for a single panel. None makes a new figure.
        bar_kw : dict, default=None
            Keyword arguments for ``matplotlib.axes.Axes.barh``.
        im_kw : dict, default=None
            Keyword arguments for ``matplotlib.axes.Axes.imshow``, such as ``vmin`` and ``vmax``.

        Returns
        -------
        CoefficientDisplay
            Display with the drawn panels.

        Raises
        ------
        NotFittedError
            If the model is not fitted.
        TypeError
            If the model is not a linear classifier with a row of coefficients for each class.
        ValueError
            If another argument is not as above.
        ImportError
            If matplotlib is not installed.
        """
        parts.import_pyplot()
        model, steps = fitted_model(estimator)
        coef, labels = _select_classes(*_coef_of_classes(model), classes)
        if feature_scale is not None:
            coef = coef * _check_feature_scale(feature_scale, coef.shape[1])
        labels = _panel_titles(display_labels, labels)
        names = _feature_names(feature_names, model, steps, coef.shape[1])
        return cls(coef, feature_names=names, classes=labels).plot(
            ax,
            n_features=n_features,
            image_shape=image_shape,
            n_cols=n_cols,
            xlabel="coefficient" if feature_scale is None else "coefficient x feature_scale",
            bar_kw=bar_kw,
            im_kw=im_kw,
        )

    def plot(
        self,
        ax: Any = None,
        *,
        n_features: int = 10,
        image_shape: tuple[int, int] | None = None,
        n_cols: int | None = None,
        xlabel: str = "coefficient",
        bar_kw: Mapping[str, Any] | None = None,
        im_kw: Mapping[str, Any] | None = None,
    ) -> Self:
        """Plot the visualization.

        Parameters
        ----------
        ax, n_features, image_shape, n_cols, bar_kw, im_kw
            As in ``from_estimator``.
        xlabel : str, default="coefficient"
            Label of the horizontal axis of the bars, or of the colour bar.

        Returns
        -------
        self : CoefficientDisplay
            Display with the drawn panels.
        """
        parts.import_pyplot()
        if n_features < 1:
            raise ValueError(f"n_features must be >= 1, got {n_features!r}.")
        if n_cols is not None and n_cols < 1:
            raise ValueError(f"n_cols must be >= 1, got {n_cols!r}.")
        if image_shape is None:
            self._plot_bars(ax, n_features, n_cols, xlabel, dict(bar_kw or {}))
        else:
            shape = _check_image_shape(image_shape, self.coef.shape[1])
            self._plot_images(ax, shape, n_cols, xlabel, dict(im_kw or {}))
        self.ax_ = self.axes_[0]
        self.figure_ = self.ax_.figure
        return self

    @property
    def _is_binary(self) -> bool:
        """Return whether one row of coefficients stands for two classes."""
        return len(self.coef) == 1 and len(self.classes) == 2

    def _plot_bars(self, ax: Any, n_features: int, n_cols: int | None, xlabel: str, bar_kw: dict[str, Any]) -> None:
        """Draw a panel of bars for each row of coefficients."""
        select = _largest_and_smallest if self._is_binary else _largest_absolute
        columns = [select(row, n_features) for row in self.coef]
        names = [_shorten_names([self.feature_names[j] for j in panel_columns]) for panel_columns in columns]
        n_panels, n_slots = len(columns), max(1, *(len(panel_columns) for panel_columns in columns))
        n_cols = n_cols or (n_panels if n_panels <= 3 else min(_MAX_COLUMNS, math.ceil(math.sqrt(n_panels))))
        longest = max((len(name) for panel_names in names for name in panel_names), default=0)
        width = _BARS_WIDTH * (1.4 if n_panels == 1 else 1.0) + _LETTER_WIDTH * longest
        self.axes_ = _panel_axes(ax, n_panels, n_cols, (width, _BAR_HEIGHT * n_slots + _BARS_MARGIN))
        values = [row[panel_columns] for row, panel_columns in zip(self.coef, columns, strict=True)]
        limits = _axis_limits(np.concatenate(values))
        self.bars_ = []
        for i, panel in enumerate(self.axes_):
            self.bars_.append(_draw_bars(panel, values[i], names[i], bar_kw))
            panel.set(xlim=limits, ylim=(n_slots - 0.4, -0.6))
            if ax is not None or n_panels == 1:
                panel.set_xlabel(xlabel)
            elif i + n_cols < n_panels:
                panel.tick_params(labelbottom=False)  # the panel below has the labels
            if self._is_binary:
                self._set_two_titles(panel)
            else:
                parts.disable_math(panel.set_title(str(self.classes[i]), fontsize=10))
        if ax is None and n_panels > 1:
            self.axes_[0].figure.supxlabel(xlabel, fontsize=10)

    def _plot_images(
        self, ax: Any, shape: tuple[int, int], n_cols: int | None, xlabel: str, im_kw: dict[str, Any]
    ) -> None:
        """Draw an image for each row of coefficients, and a colour bar."""
        n_panels = len(self.coef)
        n_cols = n_cols or (n_panels if n_panels <= 4 else math.ceil(math.sqrt(_IMAGE_COLUMNS_PER_ROW * n_panels)))
        side = _IMAGE_SIDE if n_panels <= _MAX_LARGE_IMAGES else _SMALL_IMAGE_SIDE
        height, width = (side * length / max(shape) for length in shape)
        self.axes_ = _panel_axes(ax, n_panels, n_cols, (width, height + _TITLE_HEIGHT), more_width=_COLORBAR_WIDTH)
        largest = float(np.abs(self.coef).max()) or 1.0
        settings = {"cmap": parts.DIVERGING, "vmin": -largest, "vmax": largest, "interpolation": "nearest"} | im_kw
        self.images_ = []
        titles = [f"{self.classes[1]} against {self.classes[0]}"] if self._is_binary else self.classes
        for panel, row, title in zip(self.axes_, self.coef, titles, strict=True):
            self.images_.append(panel.imshow(row.reshape(shape), **settings))
            panel.set(xticks=[], yticks=[])
            parts.disable_math(panel.set_title(str(title), fontsize=10))
        self.colorbar_ = self.axes_[0].figure.colorbar(self.images_[0], ax=list(self.axes_), label=xlabel)

    def _set_two_titles(self, panel: Any) -> None:
        """Set the two classes as titles, with arrows to the side of their bars."""
        negative, positive = _colors()
        left, right = f"\N{LEFTWARDS ARROW} {self.classes[0]}", f"{self.classes[1]} \N{RIGHTWARDS ARROW}"
        parts.disable_math(panel.set_title(left, loc="left", fontsize=10, color=negative))
        parts.disable_math(panel.set_title(right, loc="right", fontsize=10, color=positive))


def _coef_of_classes(model: Any) -> tuple[Array, list[Any]]:
    """Return the dense coefficients and the class labels; raise TypeError if the model has not a row for each class."""
    coef, classes = getattr(model, "coef_", None), getattr(model, "classes_", None)
    if coef is None or classes is None:
        raise TypeError(
            "estimator must be a linear classifier with coef_ and classes_, or a pipeline that ends with one, got "
            f"{name_of(model)}."
        )
    if coef.ndim == 1:  # RidgeClassifier for two classes
        coef = coef.reshape(1, -1)
    n_outputs = 1 if len(classes) == 2 else len(classes)
    is_by_pairs = hasattr(model, "support_vectors_") and n_outputs > 1
    if coef.ndim != 2 or len(classes) < 2 or coef.shape[0] != n_outputs or is_by_pairs:
        raise TypeError(
            f"estimator must have a row of coef_ for each class, or one for two classes, got {name_of(model)} with "
            f"{len(classes)} classes and coef_ of shape {coef.shape}{', one row per pair' if is_by_pairs else ''}."
        )
    return coef.toarray() if sp.issparse(coef) else np.asarray(coef), list(classes)


def _select_classes(coef: Array, labels: list[Any], classes: Sequence[Any] | None) -> tuple[Array, list[Any]]:
    """Return the coefficients and the labels of the classes to show; raise ValueError if they are not among labels."""
    if classes is None:
        return coef, labels
    unknown = [label for label in classes if label not in labels]
    if unknown or len(classes) == 0 or len(set(classes)) < len(classes):
        raise ValueError(
            f"classes must be different labels among estimator.classes_, {np.asarray(labels).tolist()}, got "
            f"{np.asarray(classes).tolist()}."
        )
    rows = [labels.index(label) for label in classes]
    if len(coef) > 1:
        return coef[rows], list(classes)
    return (coef if rows[-1] == 1 else -coef), list(classes)


def _check_feature_scale(feature_scale: ArrayLike, n_features: int) -> Array:
    """Return the factors as an array; raise ValueError if they are not finite numbers >= 0, one per feature."""
    scale = np.asarray(feature_scale, dtype=float)
    if scale.shape != (n_features,) or not (np.isfinite(scale).all() and (scale >= 0).all()):
        raise ValueError(
            f"feature_scale must hold a finite number >= 0 for each of the {n_features} features, got shape "
            f"{scale.shape}; pass X.std(axis=0), for example."
        )
    return scale


def _panel_titles(display_labels: Sequence[str] | None, labels: list[Any]) -> list[Any]:
    """Return the titles of the classes shown, by default their labels."""
    if display_labels is None:
        return labels
    if len(display_labels) != len(labels):
        raise ValueError(
            f"display_labels must have a title for each of the {len(labels)} classes shown, got {len(display_labels)}."
        )
    return list(display_labels)


def _feature_names(feature_names: Sequence[str] | None, model: Any, steps: Any, n_features: int) -> list[str]:
    """Return the names of the columns of the coefficients, see ``from_estimator``."""
    if feature_names is not None:
        if len(feature_names) != n_features:
            raise ValueError(
                f"feature_names must have a name for each of the {n_features} columns of coef_, got "
                f"{len(feature_names)}; in a pipeline these are the input columns of the last step."
            )
        return [str(name) for name in feature_names]
    if hasattr(model, "feature_names_in_"):
        return [str(name) for name in model.feature_names_in_]
    if steps is not None:
        try:
            return [str(name) for name in steps.get_feature_names_out()]
        except (AttributeError, NotFittedError, ValueError):  # a step without names, such as HashingVectorizer
            pass
    return [f"x{j}" for j in range(n_features)]


def _largest_absolute(row: Array, n_features: int) -> Array:
    """Return the columns of the nonzero coefficients of largest absolute value, in descending order."""
    columns = np.argsort(-np.abs(row), kind="stable")[:n_features]
    columns = columns[row[columns] != 0]
    return columns[np.argsort(-row[columns], kind="stable")]


def _largest_and_smallest(row: Array, n_features: int) -> Array:
    """Return the columns of the largest positive and smallest negative coefficients, in descending order."""
    order = np.argsort(-row, kind="stable")
    positive, negative = order[row[order] > 0], order[row[order] < 0]
    return np.concatenate([positive[:n_features], negative[max(0, len(negative) - n_features) :]])


def _axis_limits(values: Array) -> tuple[float, float]:
    """Return limits that include all values and 0, with a margin of 4 %."""
    if not len(values):
        return -1.0, 1.0
    low, high = min(0.0, float(values.min())), max(0.0, float(values.max()))
    margin = 0.04 * (high - low)
    return low - margin * (low < 0), high + margin * (high > 0)


def _colors() -> tuple[Any, Any]:
    """Return the colours of negative and positive bars, from the colour map of the images."""
    cmap = parts.import_pyplot().get_cmap(parts.DIVERGING)
    return cmap(parts.NEGATIVE), cmap(parts.POSITIVE)


def _draw_bars(ax: Any, values: Array, names: list[str], bar_kw: dict[str, Any]) -> Any:
    """Draw the bars of a panel, from the top down, and return them."""
    negative, positive = _colors()
    colors = [positive if value > 0 else negative for value in values]
    bars = ax.barh(np.arange(len(values)), values, **({"color": colors, "height": 0.75} | bar_kw))
    ax.set_yticks(range(len(names)), names, fontsize=8)
    for text in ax.get_yticklabels():
        parts.disable_math(text)
    ax.axvline(0.0, color="0.3", linewidth=0.8)
    ax.grid(axis="x", alpha=0.3, linewidth=0.6)
    ax.set_axisbelow(True)
    ax.tick_params(axis="y", length=0)
    ax.tick_params(axis="x", labelsize=8)
    for side in ("top", "right", "left"):
        ax.spines[side].set_visible(False)
    if not len(values):
        ax.text(0.5, 0.5, "all coefficients are 0", transform=ax.transAxes, ha="center", va="center", fontsize=8)
    return bars


def _panel_axes(ax: Any, n_panels: int, n_cols: int, size: tuple[float, float], more_width: float = 0.0) -> Array:
    """Return the given axes of the panels, or those of a new figure, in rows of ``n_cols`` panels.

    ``size`` is the width and height of a panel, and ``more_width`` the width of a colour bar, in inches.
    """
    if ax is None:
        n_cols = min(n_cols, n_panels)
        n_rows = math.ceil(n_panels / n_cols)
        figure, axes = parts.import_pyplot().subplots(
            n_rows,
            n_cols,
            squeeze=False,
            layout="compressed" if more_width else "constrained",
            figsize=(size[0] * n_cols + more_width, size[1] * n_rows),
        )
        if not more_width:
            figure.get_layout_engine().set(w_pad=0.08)  # inches; keeps the names of a panel off the panel before
        for unused in axes.ravel()[n_panels:]:
            figure.delaxes(unused)
        return axes.ravel()[:n_panels]
    panels = np.asarray(ax, dtype=object).ravel()
    if len(panels) != n_panels:
        raise ValueError(
            f"ax must hold {n_panels} Axes, one for each panel, got {len(panels)}; pass None for a new figure."
        )
    return panels


def _check_image_shape(image_shape: tuple[int, int], n_features: int) -> tuple[int, int]:
    """Return the shape as a tuple; raise ValueError if its product is not the number of features."""
    shape = tuple(image_shape)
    if len(shape) != 2 or min(shape) < 1 or shape[0] * shape[1] != n_features:
        raise ValueError(
            f"image_shape must be two numbers whose product is the number of features, {n_features}, got {shape}."
        )
    return shape


def _shorten_names(names: list[str]) -> list[str]:
    """Return names for the ticks: long names without their middle, but long enough to remain different."""
    names = [_quote_if_needed(name) for name in names]
    length = _NAME_LENGTH
    while len({_shorten(name, length) for name in names}) < len(set(names)):
        length *= 2
    return [_shorten(name, length) for name in names]


def _quote_if_needed(name: str) -> str:
    """Return the name, in quotes if it is empty, starts or ends with a blank, or has unprintable characters."""
    return name if name and name == name.strip() and name.isprintable() else repr(name)


def _shorten(name: str, length: int) -> str:
    """Return the name with an ellipsis in the place of its middle if it is longer than ``length``."""
    if len(name) <= length:
        return name
    n_start = length // 2
    return f"{name[:n_start]}\N{HORIZONTAL ELLIPSIS}{name[n_start + 1 - length :]}"
