"""``LossCurveDisplay``: loss, gap and validation score by epoch of one or more fits.

Users call its class methods. They read the curves from the attributes of fitted models into a ``LossCurve`` for each
fit, and draw them with matplotlib.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Self

import numpy as np

from sksoftmax._training.stopping import StopReason
from sksoftmax._types import Array
from sksoftmax.plotting import _parts as parts
from sksoftmax.plotting._parts import fitted_model, name_of

#: Heights of the panels, in inches.
_HEIGHTS = {"loss": 2.6, "gap": 2.3, "validation": 1.9}

#: Width of the figure, in inches.
_WIDTH = 6.4

#: The axis of F is logarithmic if the largest value is more than this many times the smallest.
_LOG_AXIS_RATIO = 10.0

#: Maximum number of epochs of a fit for which each epoch has a marker.
_MAX_MARKERS = 30

#: Style of the marks of the fit's own estimates.
_ESTIMATE: dict[str, Any] = {"marker": "o", "markerfacecolor": "none", "markersize": 6}

#: Style of the mark of the best epoch.
_BEST: dict[str, Any] = {"marker": "*", "markersize": 11}

#: Text of the legend for each stop reason; other reasons are shown as they are.
_STOP_TEXTS: dict[str, str] = {
    StopReason.TOL: "reached tol",
    StopReason.MAX_ITER: "ended at max_iter",
    StopReason.EARLY_STOPPING: "stopped early",
    StopReason.PRECISION: "ended at the precision of X",
    StopReason.CALLBACK: "stopped by a callback",
}


class LossCurve(NamedTuple):
    """Curves of one fit.

    Attributes
    ----------
    name : str
        Name of the fit in the legend.
    loss : ndarray of shape (n_epochs,)
        F after each epoch: the ``loss_curve_`` of the model.
    gap : ndarray of shape (n_epochs,) or None
        ``(F - F*) / F*`` after each epoch, for the minimum F* as estimated at the end of the fit; None if it is not
        known.
    excess : ndarray of shape (n_epochs,) or None
        Estimates of the gap during the fit, inf if there was none; None if the model does not have them.
    validation_scores : ndarray of shape (n_epochs,) or None
        Accuracy on the validation rows; None without early stopping.
    tol : float or None
        Gap at which the fit was to end; None if the model has no such tolerance.
    stop_reason : str or None
        The ``stop_reason_`` of the model; None if it has none.
    """

    name: str
    loss: Array
    gap: Array | None = None
    excess: Array | None = None
    validation_scores: Array | None = None
    tol: float | None = None
    stop_reason: str | None = None


class LossCurveDisplay(parts.PanelsMixin):
    """Curves of F, of its gap to the minimum and of the validation score, by epoch, of one or more fits.

    It is recommended to use ``from_estimator`` or ``from_estimators`` to create a display.

    Parameters
    ----------
    curves : list of LossCurve
        One element for each fit.

    Attributes
    ----------
    ax_ : matplotlib Axes
        First panel: F, unless ``ax`` has other panels only.
    axes_ : dict of str to matplotlib Axes
        Panels drawn, among "loss", "gap" and "validation". Pass it as ``ax`` to draw another display into the same
        panels.
    figure_ : matplotlib Figure
        Figure of the panels.
    lines_ : dict of str to list of matplotlib Line2D
        Curves of each panel, in the order of ``curves``.

    Notes
    -----
    The panels are:

    - "loss": ``loss_curve_``. The axis is logarithmic if F falls by more than a factor of 10. The legend includes how
      each fit ended.
    - "gap": ``(F - F*) / F*`` on a logarithmic axis, with ``tol``. F* is the final F divided by ``1 + excess_``, for a
      fit that reached ``tol``. The estimates of other fits can be far too low, and are not used. Points are the
      estimates during the fit, if the model has them (``excess_curve_``). The legend of the panel names the fits
      without a line, whose minimum is not known. It also notes if epochs are left out because the mean of F over the
      epoch was below the final F, as it can be for fits by the dual solver.
    - "validation": ``validation_scores_``, with a star at the epoch whose coefficients early stopping kept.

    ``SoftmaxClassifier.loss_curve_`` documents F after an epoch: for minibatches it is the mean over the epoch, which
    lags behind. Other estimators with ``loss_curve_``, such as scikit-learn's ``MLPClassifier``, can be drawn too;
    their loss may differ from F.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sksoftmax import SoftmaxClassifier
    >>> from sksoftmax.plotting import LossCurveDisplay
    >>> clf = SoftmaxClassifier(random_state=0).fit(*load_digits(return_X_y=True))
    >>> display = LossCurveDisplay.from_estimator(clf)
    >>> sorted(display.axes_)
    ['gap', 'loss']
    """

    def __init__(self, curves: list[LossCurve]) -> None:
        self.curves = curves

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        *,
        name: str | None = None,
        minimum: float | None = None,
        ax: Any = None,
        line_kw: Mapping[str, Any] | None = None,
    ) -> Self:
        """Plot the curves of one fitted model.

        Parameters
        ----------
        estimator : estimator
            Model fitted by ``fit``, or a pipeline that ends with one, or a search over one.
        name : str, default=None
            Name in the legend. None takes the name of the class.
        minimum : float, default=None
            The minimum of F, > 0, if a better value is known. None takes the estimate of the model, if it reached
            ``tol``.
        ax : matplotlib Axes or dict of str to matplotlib Axes, default=None
            Axes to draw into. One Axes takes F alone. A dict has keys of ``axes_``. None makes a new figure with all
            panels that have something to show.
        line_kw : dict, default=None
            Keyword arguments for ``matplotlib.axes.Axes.plot``.

        Returns
        -------
        LossCurveDisplay
            Display with the drawn panels.

        Raises
        ------
        NotFittedError
            If the model is not fitted.
        TypeError
            If the model has no ``loss_curve_``, as after ``partial_fit``.
        ValueError
            If ``minimum`` or a key of ``ax`` is not as above.
        ImportError
            If matplotlib is not installed.
        """
        parts.import_pyplot()
        model, _ = fitted_model(estimator)
        estimators = {name_of(model) if name is None else name: estimator}
        return cls.from_estimators(estimators, minimum=minimum, ax=ax, line_kw=line_kw)

    @classmethod
    def from_estimators(
        cls,
        estimators: Mapping[str, Any],
        *,
        minimum: float | str | None = None,
        ax: Any = None,
        line_kw: Mapping[str, Any] | None = None,
    ) -> Self:
        """Plot the curves of several fitted models into the same panels.

        Parameters
        ----------
        estimators : dict of str to estimator
            Fitted models by their names in the legend, each as in ``from_estimator``.
        minimum : float or "lowest", default=None
            The minimum of F for the gaps. "lowest" takes the lowest estimate of all models, which must then have the
            same F: the same rows and penalty. None takes the estimate of each model for itself.
        ax, line_kw
            As in ``from_estimator``.

        Returns
        -------
        LossCurveDisplay
            Display with the drawn panels.

        Raises
        ------
        NotFittedError, TypeError, ValueError, ImportError
            As ``from_estimator``; ValueError also if ``minimum="lowest"`` and no model reached ``tol``.
        """
        parts.import_pyplot()
        models = {name: _with_loss_curve(estimator) for name, estimator in estimators.items()}
        minima = {name: _estimate_minimum(model) for name, model in models.items()}
        if isinstance(minimum, str):
            minimum = _lowest_minimum(minimum, models, minima)
        if minimum is not None:
            if not (np.isfinite(minimum) and minimum > 0):
                raise ValueError(f"minimum must be a finite number > 0, a value of F, got {minimum!r}.")
            minima = dict.fromkeys(models, float(minimum))
        return cls([_curve(name, model, minima[name]) for name, model in models.items()]).plot(ax, line_kw=line_kw)

    def plot(self, ax: Any = None, *, line_kw: Mapping[str, Any] | None = None) -> Self:
        """Plot the visualization.

        Parameters
        ----------
        ax, line_kw
            As in ``from_estimator``.

        Returns
        -------
        self : LossCurveDisplay
            Display with the drawn panels.
        """
        wanted = {"loss"}
        if any(curve.gap is not None or _has_finite(curve.excess) for curve in self.curves):
            wanted.add("gap")
        if any(curve.validation_scores is not None for curve in self.curves):
            wanted.add("validation")
        first = self._open_panels(ax, _HEIGHTS, wanted, _WIDTH)
        self.lines_: dict[str, list[Any]] = {name: [] for name in self.axes_}
        for i, curve in enumerate(self.curves, start=first):
            marks = {"marker": "o", "markersize": 3} if len(curve.loss) <= _MAX_MARKERS else {}
            self._draw(curve, {"label": _label(curve)} | marks | parts.line_style(i, line_kw))
        self._decorate()
        return self

    def _draw(self, curve: LossCurve, style: dict[str, Any]) -> None:
        """Draw the curves of one fit into the panels."""
        epochs = np.arange(1, len(curve.loss) + 1)
        curves = {"loss": curve.loss, "gap": _gap_to_draw(curve), "validation": curve.validation_scores}
        for panel, ax in self.axes_.items():
            values = curves[panel]
            if values is not None:
                self.lines_[panel] += ax.plot(epochs, values, **style)
            color = style["color"]
            if panel == "gap" and curve.excess is not None:
                ax.plot(epochs, _nan_unless_positive(curve.excess), ls="", color=color, label="_estimates", **_ESTIMATE)
            if panel == "gap" and (note := _gap_note(curve)):
                parts.add_note(ax, note)
            if panel == "gap" and curve.tol is not None:
                _draw_tol(ax, curve.tol)
            if panel == "validation" and values is not None and curve.stop_reason == StopReason.EARLY_STOPPING:
                best = int(np.argmax(values))
                ax.plot(epochs[best], values[best], ls="", color=color, label="_best", **_BEST)

    def _decorate(self) -> None:
        """Draw the scales, the labels and the legends."""
        labels = {"loss": "objective F", "gap": "(F - F*) / F*", "validation": "validation accuracy"}
        self._label_panels(labels, "epoch")
        if "gap" in self.axes_:
            self.axes_["gap"].set_yscale("log")
        if "loss" in self.axes_ and _needs_log_axis(self.axes_["loss"]):
            self.axes_["loss"].set_yscale("log")
        parts.integer_ticks(list(self.axes_.values())[-1].xaxis)
        if "gap" in self.axes_:
            parts.show_notes(self.axes_["gap"], "_estimates", "the fit's estimate on its way", **_ESTIMATE)
        if "validation" in self.axes_:
            parts.show_notes(self.axes_["validation"], "_best", "the epoch whose coefficients are kept", **_BEST)
        if "loss" in self.axes_ or not self.ax_.get_legend():  # otherwise it would replace the notes
            parts.show_legend(self.ax_)


def _with_loss_curve(estimator: Any) -> Any:
    """Return the fitted model; raise TypeError if it has no loss curve."""
    model, _ = fitted_model(estimator)
    if getattr(model, "loss_curve_", None) is None:
        raise TypeError(
            f"estimator must have loss_curve_, which SoftmaxClassifier.fit sets and partial_fit does not, got a "
            f"{name_of(model)} without it; call fit."
        )
    return model


def _estimate_minimum(model: Any) -> float | None:
    """Return the minimum of F by the excess of a fit that reached ``tol``; None for other fits."""
    if getattr(model, "stop_reason_", None) != StopReason.TOL:
        return None
    minimum = model.loss_curve_[-1] / (1.0 + model.excess_)
    return float(minimum) if minimum > 0 else None


def _lowest_minimum(argument: str, models: Mapping[str, Any], minima: Mapping[str, float | None]) -> float:
    """Return the lowest of the minima; raise ValueError if there is none, or the argument is not "lowest"."""
    if argument != "lowest":
        raise ValueError(f"minimum must be a number, 'lowest' or None, got {argument!r}.")
    values = [minimum for minimum in minima.values() if minimum is not None]
    if not values:
        reasons = {name: getattr(model, "stop_reason_", None) for name, model in models.items()}
        raise ValueError(
            f"minimum='lowest' needs a model that reached tol, got stop reasons {reasons}; pass a number, or None."
        )
    return min(values)


def _curve(name: str, model: Any, minimum: float | None) -> LossCurve:
    """Return the curves of a fitted model, with gaps to this minimum."""
    loss = np.asarray(model.loss_curve_, dtype=float)
    is_ours = hasattr(model, "excess_")  # the tol of other estimators is not a gap
    return LossCurve(
        name=name,
        loss=loss,
        gap=None if minimum is None else (loss - minimum) / minimum,
        excess=_array_or_none(getattr(model, "excess_curve_", None)),
        validation_scores=_array_or_none(getattr(model, "validation_scores_", None)),
        tol=float(model.tol) if is_ours else None,
        stop_reason=getattr(model, "stop_reason_", None),
    )


def _array_or_none(values: Any) -> Array | None:
    return None if values is None else np.asarray(values, dtype=float)


def _has_finite(values: Array | None) -> bool:
    return values is not None and bool(np.isfinite(values).any())


def _nan_unless_positive(values: Array | None) -> Array | None:
    """Return the values that a logarithmic axis can show, with nan in the place of the others."""
    return None if values is None else np.where(np.isfinite(values) & (values > 0), values, np.nan)


def _gap_to_draw(curve: LossCurve) -> Array | None:
    """Return the gaps that a logarithmic axis can show, with nan in the place of the others and of raised epochs.

    ``loop.raise_estimates`` raises the mean of F over an epoch to the final F if it is below it. Such an epoch has no
    estimate of the excess.
    """
    gap = _nan_unless_positive(curve.gap)
    if gap is None or curve.excess is None:
        return gap
    is_raised = (curve.loss == curve.loss[-1]) & ~np.isfinite(curve.excess)
    is_raised[-1] = False
    return np.where(is_raised, np.nan, gap)


def _gap_note(curve: LossCurve) -> str:
    """Return a note on the gaps that the panel does not show; empty if it shows all."""
    gap = _gap_to_draw(curve)
    if gap is None:
        return f"{curve.name}: no line, its minimum F* is not known"
    if not np.isnan(gap).any():
        return ""
    return "no line: epochs whose F is not above F*, or is a mean that is too low"


def _draw_tol(ax: Any, tol: float) -> None:
    """Draw a line at ``tol`` > 0, unless the axes have it already."""
    if any(line.get_label() == "_tol" and line.get_ydata()[0] == tol for line in ax.get_lines()) or not tol > 0:
        return
    ax.axhline(tol, color="0.4", linestyle=(0, (2, 2)), linewidth=0.8, zorder=1, label="_tol")
    ax.annotate(
        "tol", (1, tol), xycoords=("axes fraction", "data"), xytext=(-3, 2), textcoords="offset points", ha="right",
        fontsize=8, color="0.4",
    )  # fmt: skip


def _label(curve: LossCurve) -> str:
    """Return the entry of the legend: the name, the number of epochs, and how the fit ended."""
    n_epochs = len(curve.loss)
    end = _STOP_TEXTS.get(curve.stop_reason, curve.stop_reason) if curve.stop_reason else None
    epochs = f"{n_epochs} epoch{'s' if n_epochs != 1 else ''}"
    return f"{curve.name}: {epochs}" + (f", {end}" if end else "")


def _needs_log_axis(ax: Any) -> bool:
    """Return whether the drawn values are positive and differ by more than a factor of `_LOG_AXIS_RATIO`."""
    values = np.concatenate([np.asarray(line.get_ydata(), dtype=float) for line in ax.get_lines()])
    return bool(values.min() > 0 and values.max() > _LOG_AXIS_RATIO * values.min())
