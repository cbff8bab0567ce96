"""Pictures of a fitted model, after scikit-learn's displays: loss curves, coefficients, calibration.

They need matplotlib (extra ``plot``), which is imported when something is drawn.
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
