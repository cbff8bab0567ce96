"""``DaskSoftmaxClassifier``: a ``SoftmaxClassifier`` for rows that are distributed over a Dask cluster.

A fit only needs sums over all rows, which the workers compute; this is the interface of ``DataSource``, as for a fit to
a file. ``communication_`` reports the network traffic; see docs/scaling.md.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple, Self, TypeVar

import numpy as np
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

try:
    import dask.array as da
    import dask.dataframe as dd
    from dask import compute, delayed
    from distributed import Client, get_client
except ImportError as error:
    raise ImportError(
        "sksoftmax.dask needs dask and distributed: pip install 'dask[array,dataframe]' distributed. Or use "
        "SoftmaxClassifier, which fits files larger than memory on one machine."
    ) from error

from sksoftmax import _sklearn
from sksoftmax._classifier import SoftmaxClassifier
from sksoftmax._cluster.client import Cluster, ClusterSource, compute_partitions
from sksoftmax._cluster.partitions import (
    count_hits,
    encode_partition,
    get_summary,
    merge_summaries,
    predict_block,
    sample_partition,
    sampling_rates,
    summarize_partition,
)
from sksoftmax._data import arrays as _arrays
from sksoftmax._data import labels as _labels
from sksoftmax._data import validation as _validation
from sksoftmax._data.chunks import concatenate_rows
from sksoftmax._data.out_of_core import match_class_weights
from sksoftmax._engines.threads import one_blas_thread
from sksoftmax._training.callbacks import task_of

_Method = TypeVar("_Method", bound=Callable[..., Any])


class Communication(NamedTuple):
    """Network traffic of a fit.

    Attributes
    ----------
    rounds : int
        Number of requests to all workers whose results the client waited for.
    bytes_sent, bytes_received : int
        Bytes of arrays, by an estimate: in each round the parameters, once to each worker, and the sums, once from each
        worker; the results of the checks of the partitions; and the sample.
    n_sampled : int
        Number of rows that the client received.
    n_workers : int
        Number of workers at the start of the fit.
    """

    rounds: int
    bytes_sent: int
    bytes_received: int
    n_sampled: int
    n_workers: int


#: Sections of the docstring of every prediction method.
_PREDICTION_SECTIONS = """

Parameters
----------
X : dask array of shape (n_samples, n_features), dask dataframe, or any X that ``SoftmaxClassifier`` takes
    Finite numbers, with the columns of the fit.

Returns
-------
dask array or ndarray of shape {shape}
    As ``SoftmaxClassifier.{name}``; for a dask collection a dask array with the partitions of X.

Raises
------
NotFittedError
    If the model is not fitted.
ValueError
    As ``SoftmaxClassifier.{name}``; for a dask collection when the result is computed.
"""


def _document_prediction(shape: str) -> Callable[[_Method], _Method]:
    """Decorate a prediction method: append the common sections to its docstring; ``shape`` is that of the result."""

    def decorate(method: _Method) -> _Method:
        sections = _PREDICTION_SECTIONS.format(shape=shape, name=method.__name__)
        method.__doc__ = f"{method.__doc__}{sections}"
        return method

    return decorate


class DaskSoftmaxClassifier(SoftmaxClassifier):
    """``SoftmaxClassifier`` for rows on the workers of a Dask cluster, where they stay.

    It has the parameters, the objective and the stopping rule of ``SoftmaxClassifier``, which documents the parameters
    and all other attributes. The minimum does not depend on the partitions. Differences:

    - ``fit`` takes dask arrays of dense or CSR blocks, or dask dataframes.
    - Predictions for dask collections are lazy; for any other X they are those of ``SoftmaxClassifier``.
    - ``fit`` requires ``solver="auto"`` and ``early_stopping=False``.

    A fit has three steps; see docs/scaling.md:

    1. Each worker checks its rows, and returns their classes and the moments of their columns.
    2. The workers send a sample of their rows, together at most 128 MiB, to the client, which fits a model to it. If
       the sample has all rows, the fit ends here.
    3. Newton steps from this model lead to the minimum over all rows. They use the gradient of all rows, which takes a
       round per evaluation, and the curvature of the sample.

    Attributes
    ----------
    client : distributed.Client
        Client of the cluster; the current client if none was set.
    workers_timeout : float
        Seconds without any worker, > 0, after which a fit raises RuntimeError; 60 by default.
    communication_ : Communication
        Network traffic of the last fit.

    References
    ----------
    Zhang & Lin (2015), DiSCO: Distributed optimization for self-concordant empirical loss, ICML.

    Examples
    --------
    >>> import dask.array as da
    >>> from distributed import Client
    >>> from sklearn.datasets import load_digits
    >>> from sksoftmax.dask import DaskSoftmaxClassifier
    >>> X, y = load_digits(return_X_y=True)
    >>> with Client(processes=False, dashboard_address=":0") as client:
    ...     X_da, y_da = da.from_array(X, chunks=(500, -1)), da.from_array(y, chunks=500)
    ...     clf = DaskSoftmaxClassifier(random_state=0).fit(X_da, y_da)
    ...     score = (clf.predict(X_da) == y_da).mean().compute()
    >>> bool(score > 0.99)
    True
    """

    workers_timeout = 60.0
    _client: ClassVar[Client | None] = None

    @property
    def client(self) -> Client:
        client, got = self._client, "one that is closed"
        if client is None:
            with contextlib.suppress(ValueError):
                client = get_client()
            got = "none"
        if client is None or client.status == "closed":
            raise ValueError(
                f"{type(self).__name__} needs the client of a cluster, got {got}; make one first, such as "
                "distributed.Client() for the cores of this machine, or set the attribute client."
            )
        return client

    @client.setter
    def client(self, client: Client | None) -> None:
        self.__dict__["_client"] = client

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = super().__getstate__()
        return {name: value for name, value in state.items() if name != "_client"}

    @_sklearn.with_callbacks
    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Fit the model to distributed rows, which stay on their workers except for a sample.

        Parameters
        ----------
        X : dask array of shape (n_samples, n_features), or dask dataframe
            Finite numbers; blocks are ndarrays or CSR matrices.
        y : dask array of shape (n_samples,), or dask series
            Labels of at least two classes, with the partitions of X.
        sample_weight : dask array of shape (n_samples,), or dask series, default=None
            Weights, >= 0, with the partitions of X; None for 1.

        Returns
        -------
        self : DaskSoftmaxClassifier

        Raises
        ------
        TypeError
            If X, y or the weights are not a dask collection.
        ValueError
            As ``SoftmaxClassifier.fit``, for any partition; if y or the weights have other partitions than X; if some
            partitions are sparse and some dense, or differ in their columns; if all partitions are empty; if
            ``solver`` is not "auto", or ``early_stopping`` is True; or if there is no client.
        RuntimeError
            If the cluster has no worker for ``workers_timeout`` seconds.
        ImportError
            As ``SoftmaxClassifier.fit``.

        Warns
        -----
        ConvergenceWarning
            As ``SoftmaxClassifier.fit``.

        Notes
        -----
        After a fit, an error or an interrupt, the client has no future and the workers have no data of the fit.
        """
        self._validate_params()
        task = task_of(self)
        with _validation.restore_on_error(self), one_blas_thread():
            _validation.check_engine_available(self)
            _validation.check_hard_labels(self, "a fit on a cluster", "SoftmaxClassifier takes soft targets.")
            if self.solver != "auto" or self.early_stopping:
                raise ValueError("on a cluster solver must be 'auto', and early_stopping False.")
            cluster = Cluster(self.client, self.workers_timeout)
            with cluster.releasing():
                partitions = compute_partitions(cluster, _split_partitions(X, y, sample_weight))
                checked = [cluster.submit(summarize_partition, *parts, self.fit_intercept) for parts in partitions]
                summary = merge_summaries(cluster.gather(cluster.each(get_summary, checked)))
                classes, weights, counts, moments = summary.statistics
                factors = _labels.class_weight_factors(self.class_weight, classes, weights)
                chunks = cluster.each(encode_partition, checked, classes, factors, summary.dtype)
                rates = sampling_rates(summary)
                seed = int(check_random_state(self.random_state).randint(2**31))
                samples = [cluster.submit(sample_partition, chunk, rates, (seed, i)) for i, chunk in enumerate(chunks)]
                parts = [rows for rows in cluster.gather(samples) if rows is not None and len(rows.y)]
                class_weights = factors * weights
                sample, data_source = match_class_weights(concatenate_rows(parts), class_weights), None
                if (rates < 1).any():
                    assert moments is not None
                    n_samples = int(counts[factors > 0].sum())
                    data_source = ClusterSource(cluster, chunks, n_samples, class_weights, moments)
                self.n_features_in_ = summary.n_features
                self.__dict__.pop("feature_names_in_", None)
                if summary.names is not None:
                    self.feature_names_in_ = summary.names
                result = self._fit_coded(sample, classes, data_source, None, task)
                sizes = (cluster.rounds, cluster.bytes_sent, cluster.bytes_received, len(sample.y), cluster.n_workers)
                self.communication_ = Communication(*sizes)
        self._warn_if_above_tol(result)
        return self

    def to_local(self) -> SoftmaxClassifier:
        """Return the model as a ``SoftmaxClassifier``.

        Returns
        -------
        SoftmaxClassifier
            Has copies of the parameters and fitted attributes, except ``communication_``.
        """
        return _convert(SoftmaxClassifier, self)

    @classmethod
    def from_local(cls, model: SoftmaxClassifier) -> Self:
        """Return a model of this class with the parameters and fitted attributes of ``model``.

        Parameters
        ----------
        model : SoftmaxClassifier
            Fitted or not.

        Returns
        -------
        DaskSoftmaxClassifier
            Has copies of the parameters and fitted attributes.
        """
        return _convert(cls, model)

    @_document_prediction("(n_samples, n_classes), or (n_samples,) for two classes")
    def decision_function(self, X: Any) -> Any:
        """Return raw predictions; lazy if X is a dask collection."""
        return self._predict_lazily("decision_function", X, self.coef_.dtype)

    @_document_prediction("(n_samples,)")
    def predict(self, X: Any) -> Any:
        """Return the most probable class of each row; lazy if X is a dask collection."""
        return self._predict_lazily("predict", X, self.classes_.dtype)

    @_document_prediction("(n_samples, n_classes)")
    def predict_proba(self, X: Any) -> Any:
        """Return the probability of each class; lazy if X is a dask collection."""
        return self._predict_lazily("predict_proba", X, self.coef_.dtype)

    @_document_prediction("(n_samples, n_classes)")
    def predict_log_proba(self, X: Any) -> Any:
        """Return the natural logarithm of the probabilities; lazy if X is a dask collection."""
        return self._predict_lazily("predict_log_proba", X, self.coef_.dtype)

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return the accuracy, the weighted fraction of rows whose label is predicted; not lazy.

        Parameters
        ----------
        X : dask array of shape (n_samples, n_features), dask dataframe, or any X that ``SoftmaxClassifier`` takes
            Finite numbers, with the columns of the fit.
        y : dask array of shape (n_samples,), or dask series
            Labels, with the partitions of X. Or any y that ``SoftmaxClassifier.score`` takes.
        sample_weight : dask array of shape (n_samples,), or dask series, default=None
            Weights, as in ``fit``. Or an array, if y is not a dask collection.

        Returns
        -------
        float
            In [0, 1].

        Raises
        ------
        NotFittedError
            If the model is not fitted.
        TypeError
            If y is a dask collection, and X or the weights are not.
        ValueError
            As ``SoftmaxClassifier.score``, for any partition; if y or the weights have other partitions than X; if all
            partitions are empty; or if all weights are 0.
        """
        check_is_fitted(self)
        if not hasattr(y, "to_delayed"):
            return super().score(X.compute() if _is_dask(X) else X, y, sample_weight)
        local = self.to_local()
        parts = [delayed(count_hits)(local, *partition) for partition in _split_partitions(X, y, sample_weight)]
        hits, weights, n_samples = np.sum(compute(*parts, scheduler=self._client), axis=0)
        _validation.check_any_rows(
            int(n_samples), "X", f"{len(parts)} partitions without one", "check what selects the rows"
        )
        _arrays.check_finite_sum(np.array([weights]))
        _validation.check_any_weight(int(weights > 0))
        return float(hits) / float(weights)

    def _predict_lazily(self, method: str, X: Any, dtype: Any) -> Any:
        """Return the predictions of this method of the local model, as a dask array if X is a dask collection."""
        check_is_fitted(self)
        predict = getattr(self.to_local(), method)
        if not _is_dask(X):
            return predict(X)
        n_columns = len(self.classes_) if "proba" in method or len(self.classes_) > 2 else 1
        is_flat = method == "predict" or n_columns == 1
        meta = np.empty(0 if is_flat else (0, n_columns), dtype)
        if isinstance(X, da.Array):
            X = X.rechunk({1: -1})
            shape = {"drop_axis": 1} if is_flat else {"chunks": (X.chunks[0], (n_columns,))}
            return X.map_blocks(predict_block, predict, meta.shape[1:], meta.dtype, dtype=dtype, meta=meta, **shape)
        blocks = (delayed(predict_block)(part, predict, meta.shape[1:], meta.dtype) for part in X.to_delayed())
        parts = [da.from_delayed(block, (np.nan, *meta.shape[1:]), meta=meta) for block in blocks]
        return da.concatenate(parts, allow_unknown_chunksizes=True)


def _convert(kind: type[Any], model: SoftmaxClassifier) -> Any:
    """Return a model of class ``kind`` with copies of the parameters and fitted attributes of ``model``."""
    new = kind(**model.get_params(deep=False))
    state = {name: value for name, value in vars(model).items() if name not in ("_client", "communication_")}
    vars(new).update(copy.deepcopy(state))
    return new


def _is_dask(X: Any) -> bool:
    return isinstance(X, da.Array | dd.DataFrame)


def _split_partitions(X: Any, y: Any, sample_weight: Any) -> list[tuple[Any, ...]]:
    """Return the delayed (X, y, sample_weight) of each partition; None stands for weights of 1.

    Raises
    ------
    TypeError
        If X, y or the weights are not a dask collection.
    ValueError
        If they differ in their number of partitions.
    """
    if not _is_dask(X):
        raise TypeError(
            f"X must be a dask array or dataframe, got {type(X).__name__}: for rows in memory or in files use "
            "SoftmaxClassifier."
        )
    columns: list[list[Any] | None] = []
    for name, column in (("X", X), ("y", y), ("sample_weight", sample_weight)):
        if column is None and name == "sample_weight":
            columns.append(None)
            continue
        if isinstance(column, da.Array):
            if column.ndim == 2:
                column = column.rechunk({1: -1})
            elif isinstance(X, da.Array) and column.shape == X.shape[:1] and not np.isnan(X.shape[0]):
                column = column.rechunk((X.chunks[0],))
        elif not hasattr(column, "to_delayed"):
            raise TypeError(f"{name} must be a dask collection as X is, got {type(column).__name__}.")
        columns.append(list(np.ravel(column.to_delayed())))
        if len(columns[-1] or []) != len(columns[0] or []):
            raise ValueError(
                f"{name} must be in the partitions of X, got {len(columns[-1] or [])} of them, and X has "
                f"{len(columns[0] or [])}."
            )
    n_partitions = len(columns[0] or [])
    return list(zip(*([None] * n_partitions if column is None else column for column in columns), strict=True))
