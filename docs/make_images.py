"""Make the pictures of the documentation, from data that come with scikit-learn.

``python docs/make_images.py`` writes them to ``docs/images``; another folder can be given.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

from matplotlib import pyplot
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sksoftmax import SoftmaxClassifier
from sksoftmax.plotting import CalibrationComparisonDisplay, CoefficientDisplay, LossCurveDisplay

ALPHA = 1e-2


def loss_curves() -> LossCurveDisplay:
    """Digits as they come: the default solver, and those to tune."""
    X, y = load_digits(return_X_y=True)
    models = {name: SoftmaxClassifier(ALPHA, solver=name, random_state=0) for name in ("auto", "sgd", "adam")}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the picture shows it
        for model in models.values():
            model.fit(X, y)
    return LossCurveDisplay.from_estimators(models, minimum="lowest")


def digit_templates() -> CoefficientDisplay:
    """What speaks for each digit, and what against it."""
    X, y = load_digits(return_X_y=True)
    return CoefficientDisplay.from_estimator(SoftmaxClassifier(ALPHA).fit(X / 16, y), image_shape=(8, 8))


def calibration() -> CalibrationComparisonDisplay:
    """Digits of which only two principal components are seen, so that the classes overlap; rows not fitted to."""
    X, y = load_digits(return_X_y=True)
    softmax, logistic = SoftmaxClassifier(), LogisticRegression(C=1 / (1e-4 * len(y)))
    models = {"softmax": softmax, "one-vs-rest, normalised": OneVsRestClassifier(logistic)}
    probas = {
        name: cross_val_predict(make_pipeline(PCA(2), StandardScaler(), model), X, y, method="predict_proba")
        for name, model in models.items()
    }
    return CalibrationComparisonDisplay.from_predictions(y, probas)


PICTURES = {"loss_curves": loss_curves, "digit_templates": digit_templates, "calibration": calibration}


def main(folder: Path) -> None:
    """Write every picture to the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, draw in PICTURES.items():
        figure = draw().figure_
        figure.savefig(folder / f"{name}.png", dpi=100, metadata={"Software": None})  # else matplotlib's version
        pyplot.close(figure)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "images")
