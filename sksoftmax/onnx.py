"""Conversion of ``SoftmaxClassifier`` and ``SoftmaxClassifierCV`` to ONNX by skl2onnx.

Importing this module registers a converter with skl2onnx. ``skl2onnx.to_onnx`` then accepts the estimators: alone, as a
step of a pipeline, or inside a search or an ensemble. The converter passes the ``LogisticRegression`` from
``to_sklearn`` to skl2onnx's own converter, with the same options.
"""

from __future__ import annotations

from typing import Any

from sklearn.linear_model import LogisticRegression

try:
    from skl2onnx import get_model_alias, update_registered_converter
    from skl2onnx.common.shape_calculator import calculate_linear_classifier_output_shapes
except ImportError as error:
    raise ImportError(
        "sksoftmax.onnx needs skl2onnx: pip install skl2onnx. Or convert to_sklearn() with another tool."
    ) from error

from sksoftmax._classifier import SoftmaxClassifier
from sksoftmax._classifier_cv import SoftmaxClassifierCV

__all__ = ["register"]

#: Options and their values: those of skl2onnx's converter of linear classifiers.
_OPTIONS = {
    "zipmap": [True, False, "columns"],
    "nocl": [True, False],
    "output_class_labels": [False, True],
    "raw_scores": [True, False],
}


def register() -> None:
    """Register the converters of the classifiers with skl2onnx.

    Importing ``sksoftmax.onnx`` calls this function. The options are those of ``LogisticRegression``: "zipmap",
    "output_class_labels", "raw_scores" and "nocl". Probabilities are computed in the dtype of the input. Labels are
    strings or integers; True and False become 1 and 0.

    Examples
    --------
    >>> import skl2onnx
    >>> import sksoftmax.onnx
    >>> from sklearn.datasets import load_wine
    >>> from sksoftmax import SoftmaxClassifier
    >>> X, y = load_wine(return_X_y=True)
    >>> clf = SoftmaxClassifier(random_state=0).fit(X, y)
    >>> converted = skl2onnx.to_onnx(clf, X[:1], options={"zipmap": False})
    >>> [output.name for output in converted.graph.output]
    ['label', 'probabilities']
    """
    for kind in (SoftmaxClassifier, SoftmaxClassifierCV):
        update_registered_converter(
            kind, f"Sksoftmax{kind.__name__}", calculate_linear_classifier_output_shapes, _convert, options=_OPTIONS
        )


def _convert(scope: Any, operator: Any, container: Any) -> None:
    """Add the equivalent ``LogisticRegression`` as an operator, and connect its outputs to those of the estimator."""
    model = operator.raw_operator
    logistic = getattr(model, "best_estimator_", model).to_sklearn()
    options = scope.get_options(model)
    for holder in (scope, container):
        holder.add_options(id(logistic), options)
    inner = scope.declare_local_operator(get_model_alias(LogisticRegression), logistic)
    inner.inputs = operator.inputs
    for output in operator.outputs:
        variable = scope.declare_local_variable(output.onnx_name, type=output.type)
        inner.outputs.append(variable)
        container.add_node(
            "Identity", variable.full_name, output.full_name, name=scope.get_unique_operator_name("Identity")
        )


register()
