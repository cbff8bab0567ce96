"""skl2onnx's converter of ``SoftmaxClassifier`` and ``SoftmaxClassifierCV``; importing this module registers it.

``skl2onnx.to_onnx`` then takes the estimator, alone, as a step of a pipeline, or inside a search or an ensemble. It is
converted as the ``LogisticRegression`` of ``to_sklearn``, by skl2onnx's own converter, with the same options.
"""

from __future__ import annotations

from typing import Any

from sklearn.linear_model import LogisticRegression

try:
    from skl2onnx import get_model_alias, update_registered_converter
    from skl2onnx.common.shape_calculator import calculate_linear_classifier_output_shapes
except ImportError as error:
    raise ImportError(
        "sksoftmax.onnx needs skl2onnx: pip install 'sksoftmax[onnx]', or give to_sklearn() to another tool."
    ) from error

from sksoftmax._classifier import SoftmaxClassifier
from sksoftmax._classifier_cv import SoftmaxClassifierCV

__all__ = ["register"]

#: Those of skl2onnx's converter of linear classifiers.
_OPTIONS = {
    "zipmap": [True, False, "columns"],
    "nocl": [True, False],
    "output_class_labels": [False, True],
    "raw_scores": [True, False],
}


def register() -> None:
    """Make ``skl2onnx.to_onnx`` take our classifiers; importing ``sksoftmax.onnx`` has done so.

    Options are those of ``LogisticRegression``: "zipmap", "output_class_labels", "raw_scores" and "nocl". Probabilities
    are computed in the dtype of the input. Labels are strings or integers: True and False become 1 and 0.

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
    """Add the ``LogisticRegression`` as an operator of its own, whose outputs are the estimator's."""
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
