"""Predictions from coefficients: the methods that all classifiers share.

`PredictionsMixin` is a base class of ``SoftmaxClassifier`` and ``SoftmaxClassifierCV``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse
from scipy.special import expit, log_expit, log_softmax
from sklearn.utils.extmath import safe_sparse_dot, softmax
from sklearn.utils.validation import check_is_fitted

from sksoftmax._data import arrays as _arrays
from sksoftmax._data import out_of_core
from sksoftmax._data import validation as _validation
from sksoftmax._data.placement import labels_of
from sksoftmax._engines import array_api, compiled, registry
from sksoftmax._engines.device import DeviceArray, to_device_of
from sksoftmax._engines.threads import one_blas_thread
from sksoftmax._types import Array, Params


class PredictionsMixin:
    """Prediction methods of a classifier that has ``coef_``, ``intercept_`` and ``classes_``."""

    coef_: Any
    intercept_: Any
    classes_: Any

    #: Whether a fit to float32 rows kept float64 coefficients, because float32 would have changed the predictions.
    _has_more_digits: bool = False

    @out_of_core.by_chunks
    def decision_function(self, X: Any) -> Array:
        """Return raw predictions ``X @ coef_.T + intercept_``.

        For this and all other predictions, X must have the array library and the device of the X of the fit; so has
        the result.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
            Finite numbers, with the columns of the fit. An array on disk is read in chunks.

        Returns
        -------
        ndarray of shape (n_samples, n_classes), or (n_samples,) for two classes
            For two classes, the log odds of ``classes_[1]``.

        Raises
        ------
        NotFittedError
            Before the first fit.
        ValueError
            If X has NaN or infinite values, or differs from the X of the fit in its number of columns, array library or
            device; or if a raw prediction overflows X's dtype.
        """
        check_is_fitted(self)
        X = _validation.check_prediction_data(self, X)
        if isinstance(X, DeviceArray):
            coef, intercept = (to_device_of(DeviceArray(part, X.xp), X) for part in (self.coef_, self.intercept_))
            raw = X @ coef.T + intercept
            _arrays.check_finite_predictions(raw)
            return (raw[:, 0] if raw.shape[1] == 1 else raw).array
        return raw_predictions(self, X)

    @out_of_core.by_chunks
    def predict(self, X: Any) -> Array:
        """Return the most probable class of each row.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
            Finite numbers, with the columns of the fit. An array on disk is read in chunks.

        Returns
        -------
        ndarray of shape (n_samples,)
            Labels from ``classes_``; string labels are in a NumPy array for any X.

        Raises
        ------
        NotFittedError
            Before the first fit.
        ValueError
            If X has NaN or infinite values, or differs from the X of the fit in its number of columns, array library or
            device; or if a raw prediction overflows X's dtype.
        """
        return labels_of(most_probable(_arrays.wrap_array(self.decision_function(X))), self.classes_)

    @out_of_core.by_chunks
    def predict_proba(self, X: Any) -> Array:
        """Return the probability of each class: the softmax of the raw predictions.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
            Finite numbers, with the columns of the fit. An array on disk is read in chunks.

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
            Values in [0, 1]; rows sum to 1; columns in the order of ``classes_``.

        Raises
        ------
        NotFittedError
            Before the first fit.
        ValueError
            As ``decision_function``.
        """
        raw = _arrays.wrap_array(self.decision_function(X))
        if isinstance(raw, DeviceArray):
            return array_api.predicted_proba(raw).array
        return to_proba(raw)

    @out_of_core.by_chunks
    def predict_log_proba(self, X: Any) -> Array:
        """Return the natural logarithm of the probabilities, accurate also where these underflow.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
            Finite numbers, with the columns of the fit. An array on disk is read in chunks.

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
            Values <= 0; columns in the order of ``classes_``.

        Raises
        ------
        NotFittedError
            Before the first fit.
        ValueError
            As ``decision_function``.
        """
        raw = _arrays.wrap_array(self.decision_function(X))
        if isinstance(raw, DeviceArray):
            return array_api.predicted_log_proba(raw).array
        if raw.ndim == 1:
            proba, logs = np.column_stack([expit(-raw), expit(raw)]), np.column_stack([log_expit(-raw), log_expit(raw)])
        else:
            proba, logs = softmax(raw), np.maximum(log_softmax(raw, axis=1), np.finfo(raw.dtype).min)
        return np.log(proba, where=proba > 0.5, out=logs)  # above 0.5, the logarithm of predict_proba's value


def raw_predictions(model: PredictionsMixin, X: Any) -> Array:
    """Return the ``decision_function`` of rows of NumPy or SciPy that have been checked."""
    if model._has_more_digits and X.dtype == np.float32:
        parts = [
            _raw_prediction(X[rows].astype(model.coef_.dtype), model.coef_, model.intercept_)
            for rows in out_of_core.chunk_slices(X)
        ]
        raw = np.concatenate(parts)
    else:
        coef, intercept = (part.astype(X.dtype, copy=False) for part in (model.coef_, model.intercept_))
        raw = _raw_prediction(X, coef, intercept)
    _arrays.check_finite_predictions(raw)
    return np.asarray(raw[:, 0] if raw.shape[1] == 1 else raw)


def most_probable(raw: Any) -> Any:
    """Return the position of the most probable class of each row, from the ``decision_function``."""
    return (raw > 0).astype(np.intp) if raw.ndim == 1 else raw.argmax(axis=1)


def to_proba(raw: Array) -> Array:
    """Return the probabilities of the classes, from the ``decision_function``, which may be overwritten."""
    return np.column_stack([expit(-raw), expit(raw)]) if raw.ndim == 1 else np.asarray(softmax(raw, copy=False))


def _raw_prediction(X: Any, coef: Any, intercept: Array) -> Array:
    """Return ``X @ coef.T + intercept`` as a dense array."""
    if scipy.sparse.issparse(X) and isinstance(coef, np.ndarray) and registry.has_compiled():
        with one_blas_thread():
            return np.ascontiguousarray(compiled.sparse_predictions(Params(coef, intercept), X))
    raw: Array = safe_sparse_dot(X, coef.T, dense_output=True)
    raw += intercept
    return raw
