"""``CalibrationComparisonDisplay``: whose probabilities mean what they say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils import check_array, check_consistent_length, column_or_1d
from sklearn.utils.validation import check_is_fitted

from sksoftmax._data import validation as _validation
from sksoftmax._types import Array
from sksoftmax.plotting import _parts as parts
from sksoftmax.plotting._parts import name_of

#: Inches.
_HEIGHTS = {"reliability": 4.2, "histogram": 1.6}
_WIDTH = 5.6

#: Of both axes, so that points at an end are whole.
_RANGE = (-0.02, 1.02)

#: Points squared: of a bin's point, and what all rows would add to it.
_LEAST_AREA, _MORE_AREA = 6.0, 180.0

#: Quantile of the normal distribution for intervals of 95 %.
_Z = 1.96

#: How far from 1 a row of probabilities may sum to: float16's rounding of some hundred classes.
_SUM_TOLERANCE = 1e-2


class ReliabilityCurve(NamedTuple):
    """What is drawn of one classifier. A bin is an interval of the confidence, the predicted class's probability.

    Attributes
    ----------
    name : str
    edges : ndarray of shape (n_bins + 1,)
        Borders of the bins, from 0 to 1; the right one belongs to a bin, the left one does not.
    share : ndarray of shape (n_bins,)
        Of all rows, by weight, those in the bin; they sum to 1.
    confidence, accuracy : ndarray of shape (n_bins,)
        Means over the bin's rows, by weight, of the confidence and of whether the prediction is right; nan of an empty
        bin.
    interval : ndarray of shape (2, n_bins)
        Bounds of the bin's accuracy at 95 %.
    calibration_error : float
        Expected calibration error: the mean of ``|accuracy - confidence|`` over the bins, by share; in [0, 1].
    log_loss : float
        Mean of the negative logarithm of the true class's probability, by weight, as ``sklearn.metrics.log_loss``.
    """

    name: str
    edges: Array
    share: Array
    confidence: Array
    accuracy: Array
    interval: Array
    calibration_error: float
    log_loss: float


class CalibrationComparisonDisplay:
    """How often classifiers are right, against how sure they say they are.

    For each bin of the confidence, which is the predicted class's probability, the accuracy. Of a calibrated classifier
    they are equal: of the rows that it is 80 % sure of, 80 % are right. Below the diagonal it is too sure, above it not
    sure enough. Make it with ``from_estimators`` or ``from_predictions``.

    Parameters
    ----------
    curves : list of ReliabilityCurve
        One for each classifier.

    Attributes
    ----------
    ax_ : matplotlib Axes
        The first panel: the reliability diagram, unless ``ax`` asked for the other.
    axes_ : dict of str to matplotlib Axes
        The panels drawn, among "reliability" and "histogram". Given as ``ax`` to another display, that one draws its
        curves into the same panels.
    figure_ : matplotlib Figure
    lines_ : list of matplotlib Line2D
        The reliability curves, in the order of ``curves``.

    Notes
    -----
    The expected calibration error is that of Guo et al. (2017), eq. 3, of bins of equal width: the mean over the bins,
    by their share of the rows, of the distance of accuracy and confidence. It depends on the bins; is above 0 for a
    calibrated classifier too, by the chance of finitely many rows; and can be 0 for a useless one that always gives the
    classes' shares, which is why the log loss, a proper score, stands beside it. The vertical bars are Wilson's (1927)
    95 % intervals of the accuracy; with weights, of as many rows as have the same variance.

    Use rows that the classifiers were not fitted to: on those that they were, all look too sure of themselves on
    others.

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
        """Draw the calibration of fitted classifiers on rows that they have not seen.

        Parameters
        ----------
        estimators : dict of str to estimator
            By the names in the legend: fitted classifiers with ``predict_proba``, or pipelines of them.
        X : array-like or sparse matrix of shape (n_samples, n_features)
        y : array-like of shape (n_samples,)
            Labels among each estimator's ``classes_``.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights, >= 0.
        n_bins : int, default=10
            Bins of equal width of the confidence, >= 1.
        ax : matplotlib Axes or dict of them, default=None
            Where to draw: one Axes takes the reliability diagram alone, a dict has the keys of ``axes_``. None makes a
            new figure.
        line_kw : dict, default=None
            Keywords for ``matplotlib.axes.Axes.plot``, of the reliability curves; colour and dashes are the histogram's
            too.

        Returns
        -------
        CalibrationComparisonDisplay

        Raises
        ------
        NotFittedError
            If an estimator is not fitted.
        TypeError
            If it has no ``predict_proba``.
        ValueError
            If another argument is not as above.
        ImportError
            If matplotlib is missing.
        """
        parts.pyplot()
        curves = []
        for name, estimator in estimators.items():
            check_is_fitted(estimator)
            if not hasattr(estimator, "predict_proba"):
                raise TypeError(
                    f"estimators must have predict_proba, got {name_of(estimator)} for {name!r}; "
                    "sklearn.calibration.CalibratedClassifierCV gives it one."
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
        """Draw the calibration of given probabilities.

        Parameters
        ----------
        y_true : array-like of shape (n_samples,)
            Labels among ``classes``.
        probas : dict of str to array-like of shape (n_samples, n_classes)
            By the names in the legend: the probability of each class, >= 0, in rows that sum to 1.
        classes : sequence of length n_classes, default=None
            The labels, in the order of the columns; None for those of ``y_true``, sorted.
        sample_weight, n_bins, ax, line_kw
            As in ``from_estimators``.

        Returns
        -------
        CalibrationComparisonDisplay

        Raises
        ------
        ValueError
            If an argument is not as above.
        ImportError
            If matplotlib is missing.
        """
        parts.pyplot()
        labels = np.unique(np.asarray(y_true)) if classes is None else np.asarray(classes)
        curves = [_reliability(name, y_true, p, labels, sample_weight, n_bins) for name, p in probas.items()]
        return cls(curves).plot(ax, line_kw=line_kw)

    def plot(self, ax: Any = None, *, line_kw: Mapping[str, Any] | None = None) -> Self:
        """Draw.

        Parameters
        ----------
        ax, line_kw
            As in ``from_estimators``.

        Returns
        -------
        self : CalibrationComparisonDisplay
        """
        parts.pyplot()
        self.axes_ = parts.named_axes(ax, _HEIGHTS, _HEIGHTS, _WIDTH)
        self.ax_ = next(iter(self.axes_.values()))
        self.figure_ = self.ax_.figure
        self.lines_: list[Any] = []
        first = parts.n_labelled(self.ax_)
        for i, curve in enumerate(self.curves, start=first):
            self._draw(curve, i, line_kw)
        self._finish(is_own=ax is None)
        return self

    def _draw(self, curve: ReliabilityCurve, i: int, line_kw: Mapping[str, Any] | None) -> None:
        """The i-th curve into each panel."""
        label = f"{curve.name}: ECE {curve.calibration_error:.3f}, log loss {curve.log_loss:.3f}"
        style = {"label": label} | parts.line_style(i, line_kw)
        color = style["color"]
        if "reliability" in self.axes_:
            ax = self.axes_["reliability"]
            (line,) = ax.plot(curve.confidence, curve.accuracy, **style)
            areas = _LEAST_AREA + _MORE_AREA * curve.share
            ax.scatter(curve.confidence, curve.accuracy, s=areas, color=color, marker=parts.marker(i), zorder=3)
            ax.vlines(curve.confidence, *curve.interval, color=color, linewidth=1.0, alpha=0.6)
            self.lines_.append(line)
        if "histogram" in self.axes_:
            kept = {name: style[name] for name in ("label", "color", "linestyle")}
            self.axes_["histogram"].stairs(curve.share, curve.edges, linewidth=1.5, **kept)

    def _finish(self, *, is_own: bool) -> None:
        """The diagonal, limits, labels and the legend."""
        labels = {"reliability": "accuracy", "histogram": "share of rows"}
        for panel, ax in self.axes_.items():
            ax.set(xlim=_RANGE, ylabel=labels[panel])
            ax.grid(alpha=0.3, linewidth=0.6)
        if "reliability" in self.axes_:
            ax = self.axes_["reliability"]
            ax.set_ylim(_RANGE)
            _draw_diagonal(ax)
        list(self.axes_.values())[-1].set_xlabel("confidence: the predicted class's probability")
        above = {"loc": "lower left", "bbox_to_anchor": (0, 1), "borderaxespad": 0.3, "frameon": False}
        before = self.ax_.get_legend()
        is_above = is_own or (before is not None and not before.get_frame_on())
        settings = {"title": "ECE: expected calibration error", "alignment": "left", "framealpha": 1.0}
        parts.show_legend(self.ax_, **(settings | above if is_above else settings))


def _draw_diagonal(ax: Any) -> None:
    """Where calibrated probabilities are, and what the two sides of it mean; if it is not there."""
    if any(line.get_label() == "_calibrated" for line in ax.get_lines()):
        return
    ax.plot([0, 1], [0, 1], color="0.5", linewidth=0.8, zorder=1, label="_calibrated")
    style = {"transform": ax.transAxes, "fontsize": 9, "color": "0.45"}
    ax.text(0.02, 0.97, "underconfident", ha="left", va="top", **style)
    ax.text(0.98, 0.03, "overconfident", ha="right", va="bottom", **style)


def _reliability(name: str, y: Any, proba: Any, classes: Any, sample_weight: Any, n_bins: int) -> ReliabilityCurve:
    """The curve of one classifier; ValueError where its arguments are not as `from_predictions` says."""
    if n_bins < 1:
        raise ValueError(f"n_bins must be >= 1, got {n_bins!r}.")
    codes, proba, weight = _checked(name, y, proba, np.asarray(classes), sample_weight)
    confidence = proba.max(axis=1)
    is_right = proba.argmax(axis=1) == codes
    edges = np.linspace(0.0, 1.0, n_bins + 1)
    bins = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, n_bins - 1)

    def summed(values: Array) -> Array:
        return np.bincount(bins, values, n_bins)

    totals = summed(weight)
    with np.errstate(invalid="ignore", divide="ignore"):  # empty bins
        mean_confidence = summed(weight * confidence) / totals
        accuracy = summed(weight * is_right) / totals
        n_effective = totals**2 / summed(weight**2)
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


def _checked(name: str, y: Any, proba: Any, classes: Array, sample_weight: Any) -> tuple[Array, Array, Array]:
    """Codes of the labels, probabilities and weights, of the rows of positive weight."""
    proba = check_array(proba, dtype=[np.float64, np.float32], input_name=f"probabilities of {name!r}")
    y = column_or_1d(y)
    check_consistent_length(y, proba)
    if proba.shape[1] != len(classes):
        raise ValueError(
            f"probabilities must have a column for each of the {len(classes)} classes, got {proba.shape[1]} for "
            f"{name!r}; give all labels as classes."
        )
    sums = proba.sum(axis=1)
    if proba.min() < 0 or np.abs(sums - 1).max() > _SUM_TOLERANCE:
        raise ValueError(
            f"probabilities must be >= 0 and sum to 1 in each row, got {proba.min():g} as the least, and sums from "
            f"{sums.min():g} to {sums.max():g}, for {name!r}; give those of predict_proba."
        )
    order = np.argsort(classes)
    codes = order[_validation.codes_of(y, classes[order], "leave these rows out.")]
    weight = _validation.check_sample_weight(sample_weight, proba)
    _validation.check_any_weight(int(np.count_nonzero(weight)))
    is_used = weight > 0
    return codes[is_used], proba[is_used], weight[is_used]


def _wilson(share: Array, n: Array) -> Array:
    """Bounds of a probability at 95 % that was found to be ``share`` in n trials; Wilson (1927)."""
    center = (share + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
    half = _Z / (1 + _Z**2 / n) * np.sqrt(share * (1 - share) / n + _Z**2 / (4 * n**2))
    return np.stack([center - half, center + half])
