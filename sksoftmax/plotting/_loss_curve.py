"""``LossCurveDisplay``: how a fit came to its end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Self

import numpy as np

from sksoftmax._training.stopping import StopReason
from sksoftmax._types import Array
from sksoftmax.plotting import _parts as parts
from sksoftmax.plotting._parts import fitted_model, name_of

#: Inches.
_HEIGHTS = {"loss": 2.6, "gap": 2.3, "validation": 1.9}
_WIDTH = 6.4

#: F is drawn on a logarithmic axis where its largest value is more than this many times its least.
_WIDE = 10.0

#: Epochs up to which each is marked.
_FEW = 30

#: Marks of the fit's own estimates, and of the best epoch.
_ESTIMATE: dict[str, Any] = {"marker": "o", "markerfacecolor": "none", "markersize": 6}
_BEST: dict[str, Any] = {"marker": "*", "markersize": 11}

_ENDS: dict[str, str] = {
    StopReason.TOL: "reached tol",
    StopReason.MAX_ITER: "ended at max_iter",
    StopReason.EARLY_STOPPING: "stopped early",
    StopReason.PRECISION: "ended at the precision of X",
    StopReason.CALLBACK: "stopped by a callback",
}


class LossCurve(NamedTuple):
    """What is drawn of one fit.

    Attributes
    ----------
    name : str
    loss : ndarray of shape (n_epochs,)
        F after each epoch, as the model's ``loss_curve_``.
    gap : ndarray of shape (n_epochs,) or None
        ``(F - F*) / F*``, F* the minimum as it was known in the end; None if it was not.
    excess : ndarray of shape (n_epochs,) or None
        The fit's own estimates of that while it ran, inf where it had none; None if the model has not kept them.
    validation_scores : ndarray of shape (n_epochs,) or None
        Accuracy on the rows set aside; None without early stopping.
    tol : float or None
        Gap at which the fit was to end.
    stop_reason : str or None
        The model's ``stop_reason_``.
    """

    name: str
    loss: Array
    gap: Array | None = None
    excess: Array | None = None
    validation_scores: Array | None = None
    tol: float | None = None
    stop_reason: str | None = None


class LossCurveDisplay:
    """F, its distance from the minimum and the validation score after each epoch of one or more fits.

    Make it with ``from_estimator`` or ``from_estimators``.

    Parameters
    ----------
    curves : list of LossCurve
        One for each fit.

    Attributes
    ----------
    ax_ : matplotlib Axes
        The first panel: F, unless ``ax`` asked for others.
    axes_ : dict of str to matplotlib Axes
        The panels drawn, among "loss", "gap" and "validation". Given as ``ax`` to another display, that one draws its
        curves into the same panels.
    figure_ : matplotlib Figure
    lines_ : dict of str to list of matplotlib Line2D
        For each panel the curves, in the order of ``curves``.

    Notes
    -----
    The panels are

    - "loss": ``loss_curve_``, on a logarithmic axis where it falls by more than a factor of 10. The legend says how
      each fit ended.
    - "gap": ``(F - F*) / F*`` on a logarithmic axis, with ``tol``. F* is F at the end divided by ``1 + excess_``, of a
      fit that reached ``tol``; the estimates of one that did not can be far too low. Points are the fit's own
      estimates on its way, if the model has them (``excess_curve_``). The panel's legend says so if a fit has no
      line, because its minimum is not known, or if epochs are left out of it, because the mean of F over the epoch,
      which compiled fits have, was below F at the end.
    - "validation": ``validation_scores_``, and a star where the epoch is whose coefficients early stopping kept.

    What F after an epoch means is said by ``SoftmaxClassifier.loss_curve_``: of minibatches it is the mean over the
    epoch, which lags behind. Other estimators with ``loss_curve_`` can be drawn too, such as scikit-learn's
    ``MLPClassifier``; their loss need not be F.

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
        """Draw the curves of one fitted model.

        Parameters
        ----------
        estimator : estimator
            Fitted by ``fit``; or a pipeline that ends with one, or a search for one.
        name : str, default=None
            In the legend; None for the class's name.
        minimum : float, default=None
            The minimum of F, > 0, if it is known better; None for the model's own, if it reached ``tol``.
        ax : matplotlib Axes or dict of them, default=None
            Where to draw: one Axes takes F alone, a dict has the keys of ``axes_``. None makes a new figure with all
            panels that the model has something for.
        line_kw : dict, default=None
            Keywords for ``matplotlib.axes.Axes.plot``.

        Returns
        -------
        LossCurveDisplay

        Raises
        ------
        NotFittedError
            If the model is not fitted.
        TypeError
            If it has no ``loss_curve_``: after ``partial_fit`` there is none.
        ValueError
            If ``minimum`` or a key of ``ax`` is not as above.
        ImportError
            If matplotlib is missing.
        """
        parts.pyplot()
        model, _ = fitted_model(estimator)
        named = {name_of(model) if name is None else name: estimator}
        return cls.from_estimators(named, minimum=minimum, ax=ax, line_kw=line_kw)

    @classmethod
    def from_estimators(
        cls,
        estimators: Mapping[str, Any],
        *,
        minimum: float | str | None = None,
        ax: Any = None,
        line_kw: Mapping[str, Any] | None = None,
    ) -> Self:
        """Draw the curves of several fitted models into the same panels.

        Parameters
        ----------
        estimators : dict of str to estimator
            By the names in the legend; each as in ``from_estimator``.
        minimum : float or "lowest", default=None
            The minimum of F to which the gaps are. "lowest" is the lowest that is known of these models, which must
            then have the same F: the same rows and penalty. None is for each its own.
        ax, line_kw
            As in ``from_estimator``.

        Returns
        -------
        LossCurveDisplay

        Raises
        ------
        NotFittedError, TypeError, ValueError, ImportError
            As ``from_estimator``; ValueError also if no model has reached ``tol`` and ``minimum="lowest"``.
        """
        parts.pyplot()
        models = {name: _with_loss_curve(estimator) for name, estimator in estimators.items()}
        known = {name: _own_minimum(model) for name, model in models.items()}
        if isinstance(minimum, str):
            minimum = _lowest(minimum, models, known)
        if minimum is not None:
            if not (np.isfinite(minimum) and minimum > 0):
                raise ValueError(f"minimum must be a finite number > 0, a value of F, got {minimum!r}.")
            known = dict.fromkeys(models, float(minimum))
        return cls([_curve(name, model, known[name]) for name, model in models.items()]).plot(ax, line_kw=line_kw)

    def plot(self, ax: Any = None, *, line_kw: Mapping[str, Any] | None = None) -> Self:
        """Draw.

        Parameters
        ----------
        ax, line_kw
            As in ``from_estimator``.

        Returns
        -------
        self : LossCurveDisplay
        """
        parts.pyplot()
        has = {"loss"}
        if any(curve.gap is not None or _has_finite(curve.excess) for curve in self.curves):
            has.add("gap")
        if any(curve.validation_scores is not None for curve in self.curves):
            has.add("validation")
        self.axes_ = parts.named_axes(ax, _HEIGHTS, has, _WIDTH)
        self.ax_ = next(iter(self.axes_.values()))
        self.figure_ = self.ax_.figure
        self.lines_: dict[str, list[Any]] = {name: [] for name in self.axes_}
        first = parts.n_labelled(self.ax_)
        for i, curve in enumerate(self.curves, start=first):
            marks = {"marker": "o", "markersize": 3} if len(curve.loss) <= _FEW else {}
            self._draw(curve, {"label": _label(curve)} | marks | parts.line_style(i, line_kw))
        self._finish()
        return self

    def _draw(self, curve: LossCurve, style: dict[str, Any]) -> None:
        """One fit into each panel."""
        epochs = np.arange(1, len(curve.loss) + 1)
        drawn = {"loss": curve.loss, "gap": _shown_gap(curve), "validation": curve.validation_scores}
        for panel, ax in self.axes_.items():
            values = drawn[panel]
            if values is not None:
                self.lines_[panel] += ax.plot(epochs, values, **style)
            color = style["color"]
            if panel == "gap" and curve.excess is not None:
                ax.plot(epochs, _positive(curve.excess), ls="", color=color, label="_estimates", **_ESTIMATE)
            if panel == "gap" and (note := _missing(curve)):
                parts.add_note(ax, note)
            if panel == "gap" and curve.tol is not None:
                _draw_tol(ax, curve.tol)
            if panel == "validation" and values is not None and curve.stop_reason == StopReason.EARLY_STOPPING:
                best = int(np.argmax(values))
                ax.plot(epochs[best], values[best], ls="", color=color, label="_best", **_BEST)

    def _finish(self) -> None:
        """Scales, labels and the legend."""
        labels = {"loss": "objective F", "gap": "(F - F*) / F*", "validation": "validation accuracy"}
        for panel, ax in self.axes_.items():
            ax.set_ylabel(labels[panel])
            ax.grid(alpha=0.3, linewidth=0.6)
        if "gap" in self.axes_:
            self.axes_["gap"].set_yscale("log")
        if "loss" in self.axes_ and _is_wide(self.axes_["loss"]):
            self.axes_["loss"].set_yscale("log")
        last = list(self.axes_.values())[-1]
        last.set_xlabel("epoch")
        parts.whole_ticks(last.xaxis)
        if "gap" in self.axes_:
            parts.explain(self.axes_["gap"], "_estimates", "the fit's estimate on its way", **_ESTIMATE)
        if "validation" in self.axes_:
            parts.explain(self.axes_["validation"], "_best", "the epoch whose coefficients are kept", **_BEST)
        if "loss" in self.axes_ or not self.ax_.get_legend():  # notes stay
            parts.show_legend(self.ax_)


def _with_loss_curve(estimator: Any) -> Any:
    """The fitted model, which has a loss curve."""
    model, _ = fitted_model(estimator)
    if getattr(model, "loss_curve_", None) is None:
        raise TypeError(
            f"estimator must have loss_curve_, which SoftmaxClassifier.fit leaves and partial_fit does not, got a "
            f"{name_of(model)} without; call fit."
        )
    return model


def _own_minimum(model: Any) -> float | None:
    """The minimum of F as a fit that reached ``tol`` knows it."""
    if getattr(model, "stop_reason_", None) != StopReason.TOL:
        return None
    minimum = model.loss_curve_[-1] / (1.0 + model.excess_)
    return float(minimum) if minimum > 0 else None


def _lowest(asked: str, models: Mapping[str, Any], known: Mapping[str, float | None]) -> float:
    if asked != "lowest":
        raise ValueError(f"minimum must be a number, 'lowest' or None, got {asked!r}.")
    minima = [minimum for minimum in known.values() if minimum is not None]
    if not minima:
        reasons = {name: getattr(model, "stop_reason_", None) for name, model in models.items()}
        raise ValueError(
            f"minimum='lowest' needs a model that reached tol, got stop reasons {reasons}; pass a number, or None."
        )
    return min(minima)


def _curve(name: str, model: Any, minimum: float | None) -> LossCurve:
    loss = np.asarray(model.loss_curve_, dtype=float)
    is_ours = hasattr(model, "excess_")  # what others call tol is no gap
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


def _positive(values: Array | None) -> Array | None:
    """What a logarithmic axis can show; nan elsewhere."""
    return None if values is None else np.where(np.isfinite(values) & (values > 0), values, np.nan)


def _shown_gap(curve: LossCurve) -> Array | None:
    """Return the gaps that a logarithmic axis can show; nan elsewhere, and where F was raised to F at the end.

    (See ``loop.raise_estimates``: such an epoch has a mean of F only, no estimate, and the last epoch's F.)
    """
    shown = _positive(curve.gap)
    if shown is None or curve.excess is None:
        return shown
    is_raised = (curve.loss == curve.loss[-1]) & ~np.isfinite(curve.excess)
    is_raised[-1] = False
    return np.where(is_raised, np.nan, shown)


def _missing(curve: LossCurve) -> str:
    """Say which gaps the panel does not show; empty if it shows all."""
    shown = _shown_gap(curve)
    if shown is None:
        return f"{curve.name}: no line, its minimum F* is not known"
    if not np.isnan(shown).any():
        return ""
    return "no line: epochs whose F is not above F*, or is a mean that is too low"


def _draw_tol(ax: Any, tol: float) -> None:
    """A line at ``tol``, if there is none."""
    if any(line.get_label() == "_tol" and line.get_ydata()[0] == tol for line in ax.get_lines()) or not tol > 0:
        return
    ax.axhline(tol, color="0.4", linestyle=(0, (2, 2)), linewidth=0.8, zorder=1, label="_tol")
    ax.annotate(
        "tol", (1, tol), xycoords=("axes fraction", "data"), xytext=(-3, 2), textcoords="offset points", ha="right",
        fontsize=8, color="0.4",
    )  # fmt: skip


def _label(curve: LossCurve) -> str:
    n_epochs = len(curve.loss)
    end = _ENDS.get(curve.stop_reason, curve.stop_reason) if curve.stop_reason else None
    epochs = f"{n_epochs} epoch{'s' if n_epochs != 1 else ''}"
    return f"{curve.name}: {epochs}" + (f", {end}" if end else "")


def _is_wide(ax: Any) -> bool:
    values = np.concatenate([np.asarray(line.get_ydata(), dtype=float) for line in ax.get_lines()])
    return bool(values.min() > 0 and values.max() > _WIDE * values.min())
