"""All imports of private names of scikit-learn, with a fallback for each.

The estimators, ``_data`` and ``_training`` import them from here. Private names may change from release to release, so
the tests also run with the newest pre-release of scikit-learn (`.ci/run prerelease`).

====================================== ===================================================================
name                                   fallback
====================================== ===================================================================
``callback.*`` (from 1.9 on)           no callbacks: estimators have no ``set_callbacks``
``SparseCoefMixin``                    ``sparsify`` and ``densify`` as defined here
``_array_api.get_namespace``           arrays of other libraries are converted to NumPy arrays
``_metadata_requests.*``               no metadata routing: ``fit`` works as if it were disabled
``_check_method_params``               parameters with an entry per row are recognized by their length
``_num_samples``                       ``X.shape[0]`` or ``len(X)``
``_skl_callbacks``, ``_doc_link_*``    callbacks are not called; no link in the HTML representation
``scorer._score_func`` and the like    scorers get the labels of the held-out rows, and always the weights
``Interval``, ``StrOptions``,          an ImportError that names the versions which have them, because
``_fit_context``                       parameters could not be checked
====================================== ===================================================================

The package sklearn-compat provides two of these names, ``_fit_context`` and ``_raise_for_params``. For scikit-learn
from 1.6 on it imports both from the same places as this module. It is not used: it imports some sixty private names at
once, and fails to import if any of them is missing.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from inspect import signature
from typing import Any, TypeVar

import numpy as np
import scipy.sparse as sp
import sklearn
from sklearn.exceptions import InconsistentVersionWarning
from sklearn.utils.validation import check_is_fitted

from sksoftmax._types import Array
from sksoftmax._version import __version__, address

try:
    from sklearn.base import _fit_context
    from sklearn.utils._param_validation import Interval, StrOptions
except ImportError as error:
    raise ImportError(
        f"sksoftmax {__version__} needs {error.name} as in scikit-learn 1.6 to 1.9, got scikit-learn "
        f"{sklearn.__version__}; upgrade sksoftmax, or install scikit-learn 1.9."
    ) from error

try:
    from sklearn.callback import CallbackSupportMixin, with_callbacks
except ImportError:

    class CallbackSupportMixin:  # type: ignore[no-redef]
        """Empty mixin: estimators have no callbacks."""

    def with_callbacks(method: Any) -> Any:
        """Return the method unchanged."""
        return method


try:
    from sklearn.linear_model._base import SparseCoefMixin
except ImportError:

    class SparseCoefMixin:  # type: ignore[no-redef]
        """Mixin that converts ``coef_`` to a sparse matrix and back."""

        coef_: Any

        def densify(self) -> Any:
            """Convert ``coef_`` to a dense array; return the estimator."""
            check_is_fitted(self)
            self.coef_ = self.coef_.toarray() if sp.issparse(self.coef_) else self.coef_
            return self

        def sparsify(self) -> Any:
            """Convert ``coef_`` to a sparse matrix; return the estimator."""
            check_is_fitted(self)
            self.coef_ = sp.csr_matrix(self.coef_)
            return self


try:
    from sklearn.utils._array_api import _is_numpy_namespace, get_namespace
except ImportError:
    get_namespace = None

try:
    from sklearn.utils._metadata_requests import _raise_for_params, _routing_enabled
except ImportError:
    _raise_for_params = _routing_enabled = None

try:
    from sklearn.utils.validation import _check_method_params
except ImportError:

    def _check_method_params(X: Any, params: dict[str, Any], indices: Array) -> dict[str, Any]:
        """Return the parameters; those as long as X are indexed by ``indices``."""
        n = count_samples(X)
        return {
            name: np.asarray(value)[indices] if isinstance(value, list | np.ndarray) and len(value) == n else value
            for name, value in params.items()
        }


try:
    from sklearn.utils.validation import _num_samples
except ImportError:

    def _num_samples(X: Any) -> int:
        """Return the number of rows of X."""
        return int(X.shape[0]) if hasattr(X, "shape") else len(X)


__all__ = ["CallbackSupportMixin", "Interval", "SparseCoefMixin", "StrOptions", "with_callbacks"]

_Method = TypeVar("_Method", bound=Callable[..., Any])


class DocumentationLinkMixin:
    """Mixin that links the HTML representation of an estimator to its documentation, if that has an address."""

    _doc_link_module = "sksoftmax"

    @property
    def _doc_link_template(self) -> str:
        documentation = address("Documentation").rstrip("/")
        return documentation and documentation + "/api/{estimator_module}.{estimator_name}.html"


class OtherVersionWarning(InconsistentVersionWarning):  # type: ignore[misc]
    """Warning about a model that another version of sksoftmax saved, as scikit-learn has it for its versions."""

    def __str__(self) -> str:
        return (
            f"A {self.estimator_name} that sksoftmax {self.original_sklearn_version} wrote is read by sksoftmax "
            f"{self.current_sklearn_version}. The format of its state is the same, so predictions and partial_fit "
            "should work as before. To be sure, fit it again, or install the other version."
        )


def validate_parameters(method: _Method) -> _Method:
    """Decorate a method to check the parameters of the estimator first, which raises InvalidParameterError."""
    decorated: _Method = _fit_context(prefer_skip_nested_validation=True)(method)
    return decorated


def callback_context(estimator: Any, max_subtasks: int) -> Any:
    """Return the context of scikit-learn that calls callbacks during a fit; None if the estimator has no callbacks.

    The callbacks are set on the estimator, or propagated by a meta-estimator. Call it once, in a method decorated with
    `validate_parameters` or ``with_callbacks``.
    """
    if not getattr(estimator, "_skl_callbacks", None):
        return None
    return estimator._init_callback_context(max_subtasks=max_subtasks)


def raise_for_params(params: dict[str, Any], owner: Any, method: str) -> None:
    """Raise ValueError if there are parameters for other objects, and metadata routing is not enabled."""
    if _raise_for_params is not None:
        _raise_for_params(params, owner, method)
    elif params:
        raise ValueError(f"{method} takes no parameters for other objects, got {sorted(params)}; leave them out.")


def routing_enabled() -> bool:
    """Return whether scikit-learn's metadata routing is enabled."""
    return _routing_enabled is not None and bool(_routing_enabled())


def index_params(X: Any, params: dict[str, Any], rows: Array) -> dict[str, Any]:
    """Return the parameters; those with an entry for each row of X are reduced to ``rows``."""
    return dict(_check_method_params(X, params=params, indices=rows))


def count_samples(X: Any) -> int:
    """Return the number of rows of X, as scikit-learn counts them."""
    return int(_num_samples(X))


def namespace_of(X: Any) -> Any:
    """Return the array API namespace of X if scikit-learn dispatches on it.

    Returns None for NumPy arrays and for arrays that scikit-learn converts to NumPy.
    """
    if get_namespace is None or isinstance(X, np.ndarray) or not hasattr(X, "__dlpack__"):
        return None
    xp, is_dispatched = get_namespace(X)
    return xp if is_dispatched and not _is_numpy_namespace(xp) else None


def accepts_weights(scorer: Any) -> bool:
    """Return whether a scorer takes ``sample_weight``; for a scikit-learn scorer, whether its metric does."""
    try:
        parameters = signature(getattr(scorer, "_score_func", scorer)).parameters.values()
    except (TypeError, ValueError):  # compiled functions may have no signature
        return True
    return any(each.name == "sample_weight" or each.kind is each.VAR_KEYWORD for each in parameters)


def with_class_labels(scorer: Any, classes: Array) -> Any:
    """Return the scorer, with the labels of all classes set if it is a scikit-learn scorer of probabilities.

    Otherwise its metric would use the labels of the scored rows, in which a class may be missing.
    """
    metric = getattr(scorer, "_score_func", None)
    names = {} if metric is None else signature(metric).parameters
    if "labels" not in names or getattr(scorer, "_response_method", "predict") == "predict":
        return scorer
    metric_kwargs: dict[str, Any] = {"labels": classes}
    if len(classes) == 2 and "pos_label" in names and names["pos_label"].default is None:
        metric_kwargs["pos_label"] = classes[1]
    scorer = copy.copy(scorer)
    scorer._kwargs = {**metric_kwargs, **getattr(scorer, "_kwargs", {})}
    return scorer
