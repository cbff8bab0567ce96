"""Softmax (multinomial logistic) regression for scikit-learn, trained by minibatches.

The names in ``__all__`` need no optional dependency. ``sksoftmax.plotting``, ``sksoftmax.dask`` and ``sksoftmax.onnx``
need the extras ``plot``, ``dask`` and ``onnx``, and are imported separately.
"""

from sksoftmax._classifier import SoftmaxClassifier
from sksoftmax._classifier_cv import SoftmaxClassifierCV
from sksoftmax._version import __version__ as __version__
from sksoftmax.loss import softmax_loss_naive, softmax_loss_vectorized
from sksoftmax.verify import check_gradient

__all__ = [
    "SoftmaxClassifier",
    "SoftmaxClassifierCV",
    "check_gradient",
    "softmax_loss_naive",
    "softmax_loss_vectorized",
]
