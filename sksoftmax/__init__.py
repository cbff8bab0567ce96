"""Softmax (multinomial logistic) regression for scikit-learn, trained by minibatches."""

from importlib.metadata import version

from sksoftmax._classifier import SoftmaxClassifier
from sksoftmax._classifier_cv import SoftmaxClassifierCV
from sksoftmax.loss import softmax_loss_naive, softmax_loss_vectorized
from sksoftmax.verify import check_gradient

__all__ = [
    "SoftmaxClassifier",
    "SoftmaxClassifierCV",
    "check_gradient",
    "softmax_loss_naive",
    "softmax_loss_vectorized",
]
__version__ = version("sksoftmax")
