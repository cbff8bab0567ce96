"""scikit-learn's private names, all of them here, and what happens without them.

They may change from release to release. The tests run with scikit-learn's newest pre-release too (`.ci/run
prerelease`).

====================================== ===================================================================
name                                   without it
====================================== ===================================================================
``callback.*`` (from 1.9 on)           no callbacks: ``set_callbacks`` is not there
``SparseCoefMixin``                    ``sparsify`` and ``densify`` of our own
``_array_api.get_namespace``           arrays of other libraries become NumPy's
``_metadata_requests.*``               no metadata routing: the parameters of ``fit`` are as without it
``_check_method_params``               parameters with an entry for each row are told by their length
``_num_samples``                       the length of X
``_skl_callbacks``, ``_doc_link_*``    callbacks are not told; no link in the HTML representation
``scorer._score_func`` and the like    scorers get the labels of the rows held out, and all weights
``Interval``, ``StrOptions``,          an ImportError that names the versions which have them: no parameter could
``_fit_context``                       be checked
====================================== ===================================================================

sklearn-compat has two of these, ``_fit_context`` and ``_raise_for_params``, and for scikit-learn from 1.6 on takes both
from where we do. It is not used: it imports some sixty private names at once, and without any of them could not be
imported itself.
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
        f"sksoftmax {__version__} checks parameters by scikit-learn's {error.name}, which scikit-learn "
        f"{sklearn.__version__} does not have as from 1.6 on to 1.9; upgrade sksoftmax, or install scikit-learn 1.9."
    ) from error

try:
    from sklearn.callback import CallbackSupportMixin, with_callbacks
except ImportError:

    class CallbackSupportMixin:  # type: ignore[no-redef]
        """No callbacks."""

    def with_callbacks(method: Any) -> Any:
        """Return the method as it is."""
        return method


try:
    from sklearn.linear_model._base import SparseCoefMixin
except ImportError:

    class SparseCoefMixin:  # type: ignore[no-redef]
        """Coefficients as a sparse matrix, and back."""

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
        """Return the parameters, those as long as X for these rows."""
        n = n_samples_of(X)
        return {
            name: np.asarray(value)[indices] if isinstance(value, list | np.ndarray) and len(value) == n else value
            for name, value in params.items()
        }


try:
    from sklearn.utils.validation import _num_samples
except ImportError:

    def _num_samples(X: Any) -> int:
        """Return the length of X."""
        return int(X.shape[0]) if hasattr(X, "shape") else len(X)


__all__ = ["CallbackSupportMixin", "Interval", "SparseCoefMixin", "StrOptions", "with_callbacks"]

_Method = TypeVar("_Method", bound=Callable[..., Any])


class DocumentationLinkMixin:
    """Links an estimator's HTML representation to the page of its class, if the documentation has an address."""

    _doc_link_module = "sksoftmax"

    @property
    def _doc_link_template(self) -> str:
        documentation = address("Documentation").rstrip("/")
        return documentation and documentation + "/api/{estimator_module}.{estimator_name}.html"


class OtherVersionWarning(InconsistentVersionWarning):  # type: ignore[misc]
    """The warning of scikit-learn about models of other versions, for versions of sksoftmax."""

    def __str__(self) -> str:
        return (
            f"a {self.estimator_name} that sksoftmax {self.original_sklearn_version} wrote is read by sksoftmax "
            f"{self.current_sklearn_version}. The format of its state is the same, so it should predict and go on as "
            "it did; fit it again, or install the other version, to be sure."
        )


def validate_parameters(method: _Method) -> _Method:
    """Return the method with a check of the estimator's parameters before any work: InvalidParameterError."""
    checked: _Method = _fit_context(prefer_skip_nested_validation=True)(method)
    return checked


def callback_context(estimator: Any, max_subtasks: int) -> Any:
    """Return the context by which callbacks follow a fit; None if the estimator has no callbacks.

    The callbacks are those set on the estimator, or passed on by a meta-estimator. To be called once, in a method with
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


def params_of_rows(X: Any, params: dict[str, Any], rows: Array) -> dict[str, Any]:
    """Return the parameters, those with an entry for each row of X for these rows only."""
    return dict(_check_method_params(X, params=params, indices=rows))


def n_samples_of(X: Any) -> int:
    """Return the number of rows."""
    return int(_num_samples(X))


def namespace_of(X: Any) -> Any:
    """Return the array API namespace of X if scikit-learn dispatches on it; None for NumPy and what becomes NumPy's."""
    if get_namespace is None or isinstance(X, np.ndarray) or not hasattr(X, "__dlpack__"):
        return None
    xp, is_dispatched = get_namespace(X)
    return xp if is_dispatched and not _is_numpy_namespace(xp) else None


def accepts_weights(scorer: Any) -> bool:
    """Return whether a scorer, or the metric of one of scikit-learn's scorers, takes ``sample_weight``."""
    try:
        parameters = signature(getattr(scorer, "_score_func", scorer)).parameters.values()
    except (TypeError, ValueError):  # compiled
        return True
    return any(each.name == "sample_weight" or each.kind is each.VAR_KEYWORD for each in parameters)


def scorer_of_classes(scorer: Any, classes: Array) -> Any:
    """Return the scorer; one of scikit-learn's scorers of probabilities gets the labels of all classes.

    Without them its metric would take the labels of the rows that it scores, which may lack some.
    """
    metric = getattr(scorer, "_score_func", None)
    names = {} if metric is None else signature(metric).parameters
    if "labels" not in names or getattr(scorer, "_response_method", "predict") == "predict":
        return scorer
    known: dict[str, Any] = {"labels": classes}
    if len(classes) == 2 and "pos_label" in names and names["pos_label"].default is None:
        known["pos_label"] = classes[1]
    scorer = copy.copy(scorer)
    scorer._kwargs = {**known, **getattr(scorer, "_kwargs", {})}
    return scorer
