"""Displays of fitted models, in the style of scikit-learn: loss curves, coefficients, calibration.

The displays need matplotlib (extra ``plot``), which is imported when something is drawn. Each has class methods such as
``from_estimator``, which compute the data and draw them, and a method ``plot``, which draws them again.
"""

from sksoftmax.plotting._calibration import CalibrationComparisonDisplay, ReliabilityCurve
from sksoftmax.plotting._coefficients import CoefficientDisplay
from sksoftmax.plotting._loss_curve import LossCurve, LossCurveDisplay

__all__ = [
    "CalibrationComparisonDisplay",
    "CoefficientDisplay",
    "LossCurve",
    "LossCurveDisplay",
    "ReliabilityCurve",
]
