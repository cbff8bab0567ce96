"""``CoefficientDisplay``: what a linear classifier looks at."""

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

#: Inches, of bars: a panel's width but for the names, a letter's, a bar's height, and a panel's but for the bars.
_BARS_WIDTH, _LETTER_WIDTH, _BAR_HEIGHT, _BARS_MARGIN = 2.2, 0.07, 0.19, 0.45

#: Inches, of images: the largest side where there are few and many, a title's height, the colour bar's width.
_IMAGE_SIDE, _SMALL_IMAGE_SIDE, _TITLE_HEIGHT, _COLORBAR_WIDTH = 2.6, 1.25, 0.3, 1.0

#: Most panels of bars side by side; columns of images for one row of them; images that are few.
_MOST_COLUMNS, _IMAGES_WIDER, _FEW_IMAGES = 4, 2.5, 3

#: Characters of a feature's name that are shown, if that tells it from the others; of longer ones the middle is not.
_NAME_LENGTH = 28


class CoefficientDisplay:
    """The strongest coefficients of each class by the features' names, or each class's coefficients as an image.

    Make it with ``from_estimator``.

    Parameters
    ----------
    coef : ndarray of shape (n_classes, n_features), or (1, n_features) for two classes
        Coefficients; of two classes those for the second.
    feature_names : sequence of str of length n_features
    classes : sequence of length n_classes
        Titles of the panels: the labels.

    Attributes
    ----------
    ax_ : matplotlib Axes
        The first panel.
    axes_ : ndarray of Axes of shape (n_panels,)
        A panel for each class; of two classes one for both.
    figure_ : matplotlib Figure
    bars_ : list of matplotlib BarContainer
        The bars of each panel; without ``image_shape``.
    images_ : list of matplotlib AxesImage
        The image of each panel; with ``image_shape``.
    colorbar_ : matplotlib Colorbar
        With ``image_shape``.

    Notes
    -----
    Bars to the right speak for the class, bars to the left against it; of two classes they speak for the second or the
    first. All panels have one scale, so that classes can be compared. Coefficients that are 0 have no bar.

    Coefficients can be compared to each other only if their columns have the same unit, or none: behind a
    ``StandardScaler`` or a ``TfidfVectorizer``. Of other columns, ``feature_scale=X.std(axis=0)`` makes of each the
    change of the raw prediction by one standard deviation.

    Names in a script that matplotlib's font does not have need one that does: ``matplotlib.rcParams["font.family"]``.

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
        """Draw the coefficients of a fitted linear classifier.

        Parameters
        ----------
        estimator : estimator
            Fitted, with ``classes_`` and with ``coef_``, dense or sparse, of shape (n_classes, n_features), or
            (1, n_features) for two classes, such as ``SoftmaxClassifier`` and most of ``sklearn.linear_model``; or a
            pipeline that ends with one, or a search for one.
        feature_names : sequence of str of length n_features, default=None
            Names of the coefficients' columns. None takes the model's ``feature_names_in_``, else what the steps before
            it in the pipeline call their output, else x0, x1, ...
        n_features : int, default=10
            Bars of a panel at most, >= 1: the coefficients of largest absolute value. The one panel of two classes has
            as many for each, the largest and the smallest.
        classes : sequence of labels, default=None
            The classes to show, in this order; None shows all. Of two classes one makes the bars to the right those for
            it.
        image_shape : tuple of two ints, default=None
            Rows and columns of the image that n_features numbers are, row after row; None draws bars.
        feature_scale : array-like of shape (n_features,), default=None
            What to multiply each column's coefficients by, >= 0, such as ``X.std(axis=0)``; None is 1.
        display_labels : sequence of str, default=None
            Titles for the classes shown, in their order; None takes the labels.
        n_cols : int, default=None
            Panels side by side in a new figure, >= 1; None chooses.
        ax : matplotlib Axes, or array-like of Axes of shape (n_panels,), default=None
            Where to draw; one Axes suffices for one panel. None makes a new figure.
        bar_kw : dict, default=None
            Keywords for ``matplotlib.axes.Axes.barh``.
        im_kw : dict, default=None
            Keywords for ``matplotlib.axes.Axes.imshow``, such as ``vmin`` and ``vmax``.

        Returns
        -------
        CoefficientDisplay

        Raises
        ------
        NotFittedError
            If the model is not fitted.
        TypeError
            If it is no linear classifier with a row of coefficients for each class.
        ValueError
            If another argument is not as above.
        ImportError
            If matplotlib is missing.
        """
        parts.pyplot()
        model, steps = fitted_model(estimator)
        coef, labels = _chosen(*_coef_of_classes(model), classes)
        if feature_scale is not None:
            coef = coef * _scale(feature_scale, coef.shape[1])
        if display_labels is not None:
            if len(display_labels) != len(labels):
                raise ValueError(
                    f"display_labels must have a title for each of the {len(labels)} classes shown, got "
                    f"{len(display_labels)}."
                )
            labels = list(display_labels)
        names = _names(feature_names, model, steps, coef.shape[1])
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
        """Draw.

        Parameters
        ----------
        ax, n_features, image_shape, n_cols, bar_kw, im_kw
            As in ``from_estimator``.
        xlabel : str, default="coefficient"
            Label of the bars' axis, or of the colour bar.

        Returns
        -------
        self : CoefficientDisplay
        """
        parts.pyplot()
        if n_features < 1:
            raise ValueError(f"n_features must be >= 1, got {n_features!r}.")
        if n_cols is not None and n_cols < 1:
            raise ValueError(f"n_cols must be >= 1, got {n_cols!r}.")
        if image_shape is None:
            self._plot_bars(ax, n_features, n_cols, xlabel, dict(bar_kw or {}))
        else:
            self._plot_images(ax, _checked(image_shape, self.coef.shape[1]), n_cols, xlabel, dict(im_kw or {}))
        self.ax_ = self.axes_[0]
        self.figure_ = self.ax_.figure
        return self

    @property
    def _is_versus(self) -> bool:
        """Whether one row tells two classes apart."""
        return len(self.coef) == 1 and len(self.classes) == 2

    def _plot_bars(self, ax: Any, n_features: int, n_cols: int | None, xlabel: str, bar_kw: dict[str, Any]) -> None:
        strongest = _both_ends if self._is_versus else _largest
        shown = [strongest(row, n_features) for row in self.coef]
        names = [_shortened([self.feature_names[j] for j in columns]) for columns in shown]
        n_panels, n_slots = len(shown), max(1, *(len(columns) for columns in shown))
        n_cols = n_cols or (n_panels if n_panels <= 3 else min(_MOST_COLUMNS, math.ceil(math.sqrt(n_panels))))
        longest = max((len(name) for panel_names in names for name in panel_names), default=0)
        width = _BARS_WIDTH * (1.4 if n_panels == 1 else 1.0) + _LETTER_WIDTH * longest
        self.axes_ = _panel_axes(ax, n_panels, n_cols, (width, _BAR_HEIGHT * n_slots + _BARS_MARGIN))
        limits = _limits(np.concatenate([row[columns] for row, columns in zip(self.coef, shown, strict=True)]))
        self.bars_ = []
        for i, panel in enumerate(self.axes_):
            self.bars_.append(_draw_bars(panel, self.coef[i][shown[i]], names[i], bar_kw))
            panel.set(xlim=limits, ylim=(n_slots - 0.4, -0.6))
            if ax is not None or n_panels == 1:
                panel.set_xlabel(xlabel)
            elif i + n_cols < n_panels:
                panel.tick_params(labelbottom=False)  # the panel below has them
            if self._is_versus:
                self._set_two_titles(panel)
            else:
                parts.plain(panel.set_title(str(self.classes[i]), fontsize=10))
        if ax is None and n_panels > 1:
            self.axes_[0].figure.supxlabel(xlabel, fontsize=10)

    def _plot_images(
        self, ax: Any, shape: tuple[int, int], n_cols: int | None, xlabel: str, im_kw: dict[str, Any]
    ) -> None:
        n_panels = len(self.coef)
        n_cols = n_cols or (n_panels if n_panels <= 4 else math.ceil(math.sqrt(_IMAGES_WIDER * n_panels)))
        side = _IMAGE_SIDE if n_panels <= _FEW_IMAGES else _SMALL_IMAGE_SIDE
        height, width = (side * length / max(shape) for length in shape)
        self.axes_ = _panel_axes(ax, n_panels, n_cols, (width, height + _TITLE_HEIGHT), more_width=_COLORBAR_WIDTH)
        largest = float(np.abs(self.coef).max()) or 1.0
        settings = {"cmap": parts.DIVERGING, "vmin": -largest, "vmax": largest, "interpolation": "nearest"} | im_kw
        self.images_ = []
        titles = [f"{self.classes[1]} against {self.classes[0]}"] if self._is_versus else self.classes
        for panel, row, title in zip(self.axes_, self.coef, titles, strict=True):
            self.images_.append(panel.imshow(row.reshape(shape), **settings))
            panel.set(xticks=[], yticks=[])
            parts.plain(panel.set_title(str(title), fontsize=10))
        self.colorbar_ = self.axes_[0].figure.colorbar(self.images_[0], ax=list(self.axes_), label=xlabel)

    def _set_two_titles(self, panel: Any) -> None:
        """The two classes, with arrows to where their bars are."""
        negative, positive = _colors()
        left, right = f"\N{LEFTWARDS ARROW} {self.classes[0]}", f"{self.classes[1]} \N{RIGHTWARDS ARROW}"
        parts.plain(panel.set_title(left, loc="left", fontsize=10, color=negative))
        parts.plain(panel.set_title(right, loc="right", fontsize=10, color=positive))


def _coef_of_classes(model: Any) -> tuple[Array, list[Any]]:
    """The coefficients, dense, and the labels of their rows, or of the two sides of the one row."""
    coef, classes = getattr(model, "coef_", None), getattr(model, "classes_", None)
    if coef is None or classes is None:
        raise TypeError(
            "estimator must be a linear classifier with coef_ and classes_, or a pipeline that ends with one, got "
            f"{name_of(model)}."
        )
    if coef.ndim == 1:  # RidgeClassifier's of two classes
        coef = coef.reshape(1, -1)
    n_outputs = 1 if len(classes) == 2 else len(classes)
    is_by_pairs = hasattr(model, "support_vectors_") and n_outputs > 1
    if coef.ndim != 2 or len(classes) < 2 or coef.shape[0] != n_outputs or is_by_pairs:
        raise TypeError(
            f"estimator must have a row of coef_ for each class, or one for two classes, got {name_of(model)} with "
            f"{len(classes)} classes and coef_ of shape {coef.shape}{', a row a pair' if is_by_pairs else ''}."
        )
    return coef.toarray() if sp.issparse(coef) else np.asarray(coef), list(classes)


def _chosen(coef: Array, labels: list[Any], classes: Sequence[Any] | None) -> tuple[Array, list[Any]]:
    """The rows of the classes asked for."""
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


def _scale(feature_scale: ArrayLike, n_features: int) -> Array:
    scale = np.asarray(feature_scale, dtype=float)
    if scale.shape != (n_features,) or not (np.isfinite(scale).all() and (scale >= 0).all()):
        raise ValueError(
            f"feature_scale must hold a finite number >= 0 for each of the {n_features} features, got shape "
            f"{scale.shape}; X.std(axis=0) is one."
        )
    return scale


def _names(given: Sequence[str] | None, model: Any, steps: Any, n_features: int) -> list[str]:
    """Names of the coefficients' columns."""
    if given is not None:
        if len(given) != n_features:
            raise ValueError(
                f"feature_names must have a name for each of the {n_features} columns of coef_, got {len(given)}; in a "
                "pipeline these are the columns that the last step sees."
            )
        return [str(name) for name in given]
    if hasattr(model, "feature_names_in_"):
        return [str(name) for name in model.feature_names_in_]
    if steps is not None:
        try:
            return [str(name) for name in steps.get_feature_names_out()]
        except (AttributeError, NotFittedError, ValueError):  # a step, such as HashingVectorizer, has no names
            pass
    return [f"x{j}" for j in range(n_features)]


def _largest(row: Array, n_features: int) -> Array:
    """Columns of the coefficients of largest absolute value but 0, from the largest down to the smallest."""
    chosen = np.argsort(-np.abs(row), kind="stable")[:n_features]
    chosen = chosen[row[chosen] != 0]
    return chosen[np.argsort(-row[chosen], kind="stable")]


def _both_ends(row: Array, n_features: int) -> Array:
    """Columns of the largest and of the smallest coefficients, from the largest down to the smallest."""
    order = np.argsort(-row, kind="stable")
    positive, negative = order[row[order] > 0], order[row[order] < 0]
    return np.concatenate([positive[:n_features], negative[max(0, len(negative) - n_features) :]])


def _limits(values: Array) -> tuple[float, float]:
    """Of the bars' axis: all of them and 0, and a little room."""
    if not len(values):
        return -1.0, 1.0
    low, high = min(0.0, float(values.min())), max(0.0, float(values.max()))
    room = 0.04 * (high - low)
    return low - room * (low < 0), high + room * (high > 0)


def _colors() -> tuple[Any, Any]:
    """Of negative and of positive bars: those of the images' map."""
    cmap = parts.pyplot().get_cmap(parts.DIVERGING)
    return cmap(parts.NEGATIVE), cmap(parts.POSITIVE)


def _draw_bars(ax: Any, values: Array, names: list[str], bar_kw: dict[str, Any]) -> Any:
    negative, positive = _colors()
    colors = [positive if value > 0 else negative for value in values]
    bars = ax.barh(np.arange(len(values)), values, **({"color": colors, "height": 0.75} | bar_kw))
    ax.set_yticks(range(len(names)), names, fontsize=8)
    for text in ax.get_yticklabels():
        parts.plain(text)
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
    """Axes of the panels: of a new figure, panels of ``size`` inches in rows of ``n_cols``; or those given."""
    if ax is None:
        n_cols = min(n_cols, n_panels)
        n_rows = math.ceil(n_panels / n_cols)
        figure, axes = parts.pyplot().subplots(
            n_rows,
            n_cols,
            squeeze=False,
            layout="compressed" if more_width else "constrained",
            figsize=(size[0] * n_cols + more_width, size[1] * n_rows),
        )
        if not more_width:
            figure.get_layout_engine().set(w_pad=0.08)  # inches: else one panel's names touch the panel before
        for unused in axes.ravel()[n_panels:]:
            figure.delaxes(unused)
        return axes.ravel()[:n_panels]
    given = np.asarray(ax, dtype=object).ravel()
    if len(given) != n_panels:
        raise ValueError(f"ax must hold {n_panels} Axes, one for each panel, got {len(given)}; None makes them.")
    return given


def _checked(image_shape: tuple[int, int], n_features: int) -> tuple[int, int]:
    shape = tuple(image_shape)
    if len(shape) != 2 or min(shape) < 1 or shape[0] * shape[1] != n_features:
        raise ValueError(
            f"image_shape must be two numbers whose product is the number of features, {n_features}, got {shape}."
        )
    return shape


def _shortened(names: list[str]) -> list[str]:
    """Names as tick labels: of long ones the ends, as much of them as tells the names apart."""
    names = [_visible(name) for name in names]
    length = _NAME_LENGTH
    while len({_ends(name, length) for name in names}) < len(set(names)):
        length *= 2
    return [_ends(name, length) for name in names]


def _visible(name: str) -> str:
    """The name, in quotes if it has blanks at an end or unprintable characters."""
    return name if name and name == name.strip() and name.isprintable() else repr(name)


def _ends(name: str, length: int) -> str:
    if len(name) <= length:
        return name
    n_left = length // 2
    return f"{name[:n_left]}\N{HORIZONTAL ELLIPSIS}{name[n_left + 1 - length :]}"
