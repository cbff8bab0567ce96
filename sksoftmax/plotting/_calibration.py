"""``CalibrationComparisonDisplay``: reliability diagrams of several classifiers.

Users call its class methods. They check the probabilities, bin the rows by confidence into a ``ReliabilityCurve`` for
each classifier, and draw the curves with matplotlib.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils import check_array, check_consistent_length, column_or_1d
from sklearn.utils.validation import check_is_fitted

from sksoftmax._data import labels as _labels
from sksoftmax._data import validation as _validation
from sksoftmax._types import Array
from sksoftmax.plotting import _parts as parts
from sksoftmax.plotting._parts import name_of

#: Heights of the panels, in inches.
_HEIGHTS = {"reliability": 4.2, "histogram": 1.6}

#: Width of the figure, in inches.
_WIDTH = 5.6

#: Limits of both axes of the reliability diagram. They exceed [0, 1], so that points at an end are not cut.
_RANGE = (-0.02, 1.02)

#: Area of the point of an empty bin, in points squared.
_MIN_AREA = 6.0

#: Additional area of the point of a bin with all rows, in points squared.
_AREA_OF_ALL_ROWS = 180.0

#: Quantile of the normal distribution for 95 % intervals.
_Z = 1.96

#: Largest distance from 1 of the sum of a row of probabilities: the rounding of float16 for some hundred classes.
_SUM_TOLERANCE = 1e-2


class ReliabilityCurve(NamedTuple):
    """Reliability curve of one classifier.

    Rows are binned by confidence, the probability of the predicted class.

    Attributes
    ----------
    name : str
        Name of the classifier in the legend.
    edges : ndarray of shape (n_bins + 1,)
        Edges of the bins, from 0 to 1. A bin includes its right edge, but not its left edge.
    share : ndarray of shape (n_bins,)
        Fraction of the rows in each bin, by weight; the sum is 1.
    confidence, accuracy : ndarray of shape (n_bins,)
        Weighted means over each bin of the confidence, and of the accuracy; nan for an empty bin.
    interval : ndarray of shape (2, n_bins)
        Bounds of the 95 % interval of the accuracy of each bin.
    calibration_error : float
        Expected calibration error: the mean of ``|accuracy - confidence|`` over the bins, weighted by ``share``; in
        [0, 1].
    log_loss : float
        Weighted mean of the negative logarithm of the probability of the true class, as ``sklearn.metrics.log_loss``.
    """

    name: str
    edges: Array
    share: Array
    confidence: Array
    accuracy: Array
    interval: Array
    calibration_error: float
    log_loss: float


class CalibrationComparisonDisplay(parts.PanelsMixin):
    """Reliability diagrams of several classifiers.

    The diagram shows the accuracy for each bin of the confidence, which is the probability of the predicted class. For
    a calibrated classifier they are equal: 80 % of the rows with a confidence of 0.8 are predicted correctly. Points
    below the diagonal are overconfident, points above it underconfident.

    It is recommended to use ``from_estimators`` or ``from_predictions`` to create a display.

    Parameters
    ----------
    curves : list of ReliabilityCurve
        One curve for each classifier.

    Attributes
    ----------
    ax_ : matplotlib Axes
        First panel: the reliability diagram, unless ``ax`` has the histogram only.
    axes_ : dict of str to matplotlib Axes
        Panels drawn, among "reliability" and "histogram". Pass it as ``ax`` to draw another display into the same
        panels.
    figure_ : matplotlib Figure
        Figure of the panels.
    lines_ : list of matplotlib Line2D
        Reliability curves, in the order of ``curves``.

    Notes
    -----
    The expected calibration error is eq. 3 of Guo et al. (2017) with bins of equal width: the mean distance between
    accuracy and confidence over the bins, weighted by the fraction of rows. It depends on the bins, and for finitely
    many rows it is above 0 even for a calibrated classifier. It can be 0 for a useless classifier that always predicts
    the class frequencies. Therefore the legend also shows the log loss, which is a proper score.

    The vertical bars are the 95 % intervals of Wilson (1927) for the accuracy. With weights, they use the effective
    number of rows: the number of rows of equal weights that has the same variance.

    Use rows that the classifiers were not fitted to. On their training rows, classifiers look less overconfident than
    they are on new rows.

    References
    ----------
    Guo, Pleiss, Sun & Weinberger (2017), On calibration of modern neural networks, ICML; arXiv:1706.04599.

    Wilson (1927), Probable inference, the law of succession, and statistical inference, J. Am. Stat. Assoc. 22,
    209-212.

    Examples
    --------
    >>> from sklearn.datasets import make_blobs
    >>> from sklearn.linear_model import SGDClassifier
    >>> from sksoftmax import SoftmaxClassifier
    >>> from sksoftmax.plotting import CalibrationComparisonDisplay
    >>> X, y = make_blobs(4000, centers=[[-2, 0], [0, 0], [2, 0]], random_state=0)  # three classes in a row
    >>> models = {
    ...     "softmax": SoftmaxClassifier(random_state=0).fit(X[:2000], y[:2000]),
    ...     "one-vs-rest": SGDClassifier(loss="log_loss", random_state=0).fit(X[:2000], y[:2000]),
    ... }
    >>> display = CalibrationComparisonDisplay.from_estimators(models, X[2000:], y[2000:])
    >>> softmax, one_vs_rest = display.curves
    >>> softmax.calibration_error < 0.03, one_vs_rest.calibration_error > 0.06
    (True, True)
    """

    def __init__(self, curves: list[ReliabilityCurve]) -> None:
        self.curves = curves

    @classmethod
    def from_estimators(
        cls,
        estimators: Mapping[str, Any],
        X: Any,
        y: ArrayLike,
        *,
        sample_weight: ArrayLike | None = None,
        n_bins: int = 10,
        ax: Any = None,
        line_kw: Mapping[str, Any] | None = None,
    ) -> Self:
        """Plot reliability diagrams of fitted classifiers on test data.

        Parameters
        ----------
        estimators : dict of str to estimator
            Fitted classifiers with ``predict_proba``, or pipelines of them, by their names in the legend.
        X : array-like or sparse matrix of shape (n_samples, n_features)
            Rows that the estimators were not fitted to.
        y : array-like of shape (n_samples,)
            True labels, among the ``classes_`` of each estimator.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights, >= 0.
        n_bins : int, default=10
            Number of bins of the confidence, of equal width, >= 1.
        ax : matplotlib Axes or dict of str to matplotlib Axes, default=None
            Axes to draw into. One Axes takes the reliability diagram alone. A dict has keys of ``axes_``. None makes a
            new figure.
        line_kw : dict, default=None
            Keyword arguments for ``matplotlib.axes.Axes.plot`` of the reliability curves. The histogram takes its
            colour and dashes from them too.

        Returns
        -------
        CalibrationComparisonDisplay
            Display with the drawn panels.

        Raises
        ------
        NotFittedError
            If an estimator is not fitted.
        TypeError
            If an estimator has no ``predict_proba``.
        ValueError
            If another argument is not as above.
        ImportError
            If matplotlib is not installed.
        """
        parts.import_pyplot()
        curves = []
        for name, estimator in estimators.items():
            check_is_fitted(estimator)
            if not hasattr(estimator, "predict_proba"):
                raise TypeError(
                    f"estimators must have predict_proba, got {name_of(estimator)} for {name!r}; wrap it in "
                    "sklearn.calibration.CalibratedClassifierCV."
                )
            proba = estimator.predict_proba(X)
            curves.append(_reliability(name, y, proba, estimator.classes_, sample_weight, n_bins))
        return cls(curves).plot(ax, line_kw=line_kw)

    @classmethod
    def from_predictions(
        cls,
        y_true: ArrayLike,
        probas: Mapping[str, ArrayLike],
        *,
        classes: Sequence[Any] | None = None,
        sample_weight: ArrayLike | None = None,
        n_bins: int = 10,
        ax: Any = None,
        line_kw: Mapping[str, Any] | None = None,
    ) -> Self:
        """Plot reliability diagrams of predicted probabilities.

        Parameters
        ----------
        y_true : array-like of shape (n_samples,)
            True labels, among ``classes``.
        probas : dict of str to array-like of shape (n_samples, n_classes)
            Predicted probabilities of each class, >= 0, in rows that sum to 1, by their names in the legend.
        classes : sequence of length n_classes, default=None
            Labels in the order of the columns. None takes the sorted labels of ``y_true``.
        sample_weight, n_bins, ax, line_kw
            As in ``from_estimators``.

        Returns
        -------
        CalibrationComparisonDisplay
            Display with the drawn panels.

        Raises
        ------
        ValueError
            If an argument is not as above.
        ImportError
            If matplotlib is not installed.
        """
        parts.import_pyplot()
        labels = np.unique(np.asarray(y_true)) if classes is None else np.asarray(classes)
        curves = [_reliability(name, y_true, p, labels, sample_weight, n_bins) for name, p in probas.items()]
        return cls(curves).plot(ax, line_kw=line_kw)

    def plot(self, ax: Any = None, *, line_kw: Mapping[str, Any] | None = None) -> Self:
        """Plot the visualization.

        Parameters
        ----------
        ax, line_kw
            As in ``from_estimators``.

        Returns
        -------
        self : CalibrationComparisonDisplay
            Display with the drawn panels.
        """
        first = self._open_panels(ax, _HEIGHTS, _HEIGHTS, _WIDTH)
        self.lines_: list[Any] = []
        for i, curve in enumerate(self.curves, start=first):
            self._draw(curve, i, line_kw)
        self._decorate(is_new_figure=ax is None)
        return self

    def _draw(self, curve: ReliabilityCurve, i: int, line_kw: Mapping[str, Any] | None) -> None:
        """Draw the i-th curve into each panel."""
        label = f"{curve.name}: ECE {curve.calibration_error:.3f}, log loss {curve.log_loss:.3f}"
        style = {"label": label} | parts.line_style(i, line_kw)
        color = style["color"]
        if "reliability" in self.axes_:
            ax = self.axes_["reliability"]
            (line,) = ax.plot(curve.confidence, curve.accuracy, **style)
            areas = _MIN_AREA + _AREA_OF_ALL_ROWS * curve.share
            ax.scatter(curve.confidence, curve.accuracy, s=areas, color=color, marker=parts.marker(i), zorder=3)
            ax.vlines(curve.confidence, *curve.interval, color=color, linewidth=1.0, alpha=0.6)
            self.lines_.append(line)
        if "histogram" in self.axes_:
            histogram_style = {name: style[name] for name in ("label", "color", "linestyle")}
            self.axes_["histogram"].stairs(curve.share, curve.edges, linewidth=1.5, **histogram_style)

    def _decorate(self, *, is_new_figure: bool) -> None:
        """Draw the diagonal, the limits, the labels and the legend."""
        labels = {"reliability": "accuracy", "histogram": "share of rows"}
        self._label_panels(labels, "confidence: the predicted class's probability")
        for ax in self.axes_.values():
            ax.set_xlim(_RANGE)
        if "reliability" in self.axes_:
            ax = self.axes_["reliability"]
            ax.set_ylim(_RANGE)
            _draw_diagonal(ax)
        above = {"loc": "lower left", "bbox_to_anchor": (0, 1), "borderaxespad": 0.3, "frameon": False}
        old_legend = self.ax_.get_legend()
        is_above = is_new_figure or (old_legend is not None and not old_legend.get_frame_on())
        settings = {"title": "ECE: expected calibration error", "alignment": "left", "framealpha": 1.0}
        parts.show_legend(self.ax_, **(settings | above if is_above else settings))


def _draw_diagonal(ax: Any) -> None:
    """Draw the diagonal of calibrated probabilities and name its two sides, unless the axes have it already."""
    if any(line.get_label() == "_calibrated" for line in ax.get_lines()):
        return
    ax.plot([0, 1], [0, 1], color="0.5", linewidth=0.8, zorder=1, label="_calibrated")
    style = {"transform": ax.transAxes, "fontsize": 9, "color": "0.45"}
    ax.text(0.02, 0.97, "underconfident", ha="left", va="top", **style)
    ax.text(0.98, 0.03, "overconfident", ha="right", va="bottom", **style)


def _reliability(name: str, y: Any, proba: Any, classes: Any, sample_weight: Any, n_bins: int) -> ReliabilityCurve:
    """Return the curve of one classifier; raise ValueError if an argument is not as in `from_predictions`."""
    if n_bins < 1:
        raise ValueError(f"n_bins must be >= 1, got {n_bins!r}.")
    codes, proba, weight = _check_predictions(name, y, proba, np.asarray(classes), sample_weight)
    confidence = proba.max(axis=1)
    is_correct = proba.argmax(axis=1) == codes
    edges = np.linspace(0.0, 1.0, n_bins + 1)
    bins = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, n_bins - 1)

    def sum_by_bin(values: Array) -> Array:
        return np.bincount(bins, values, n_bins)

    totals = sum_by_bin(weight)
    with np.errstate(invalid="ignore", divide="ignore"):  # empty bins
        mean_confidence = sum_by_bin(weight * confidence) / totals
        accuracy = sum_by_bin(weight * is_correct) / totals
        n_effective = totals**2 / sum_by_bin(weight**2)
    share = totals / totals.sum()
    distance = np.abs(accuracy - mean_confidence)
    true_proba = np.maximum(proba[np.arange(len(codes)), codes], np.finfo(proba.dtype).eps)
    return ReliabilityCurve(
        name=name,
        edges=edges,
        share=share,
        confidence=mean_confidence,
        accuracy=accuracy,
        interval=_wilson(accuracy, n_effective),
        calibration_error=float(share[totals > 0] @ distance[totals > 0]),
        log_loss=float(np.average(-np.log(true_proba), weights=weight)),
    )


def _check_predictions(name: str, y: Any, proba: Any, classes: Array, sample_weight: Any) -> tuple[Array, Array, Array]:
    """Return the codes of the labels, the probabilities and the weights of the rows of positive weight."""
    proba = check_array(proba, dtype=[np.float64, np.float32], input_name=f"probabilities of {name!r}")
    y = column_or_1d(y)
    check_consistent_length(y, proba)
    if proba.shape[1] != len(classes):
        raise ValueError(
            f"probabilities must have a column for each of the {len(classes)} classes, got {proba.shape[1]} for "
            f"{name!r}; pass all labels as classes."
        )
    sums = proba.sum(axis=1)
    if proba.min() < 0 or np.abs(sums - 1).max() > _SUM_TOLERANCE:
        raise ValueError(
            f"probabilities must be >= 0 and sum to 1 in each row, got a minimum of {proba.min():g}, and sums from "
            f"{sums.min():g} to {sums.max():g}, for {name!r}; pass the output of predict_proba."
        )
    order = np.argsort(classes)
    codes = order[_labels.encode_labels(y, classes[order], "leave these rows out.")]
    weight = _validation.check_sample_weight(sample_weight, proba)
    _validation.check_any_weight(int(np.count_nonzero(weight)))
    is_used = weight > 0
    return codes[is_used], proba[is_used], weight[is_used]


def _wilson(frequency: Array, n: Array) -> Array:
    """Return the bounds of the 95 % interval of a probability, given its frequency in n trials: Wilson (1927)."""
    center = (frequency + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
    half = _Z / (1 + _Z**2 / n) * np.sqrt(frequency * (1 - frequency) / n + _Z**2 / (4 * n**2))
    return np.stack([center - half, center + half])
