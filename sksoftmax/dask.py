"""``DaskSoftmaxClassifier``: a ``SoftmaxClassifier`` for rows that are distributed over a Dask cluster.

A fit only needs sums over all rows, which the workers compute; this is the interface of ``DataSource``, as for a fit to
a file. ``communication_`` reports the network traffic; see docs/scaling.md.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar, NamedTuple, Self, TypeVar

import numpy as np
import scipy.sparse as sp
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

try:
    import dask.array as da
    import dask.dataframe as dd
    from dask import compute, delayed
    from distributed import Client, Future, get_client, wait
except ImportError as error:
    raise ImportError(
        "sksoftmax.dask needs dask and distributed: pip install 'sksoftmax[dask]', or use SoftmaxClassifier, which "
        "fits files larger than memory on one machine."
    ) from error

from sksoftmax._classifier import SoftmaxClassifier
from sksoftmax._data import chunks as _chunks
from sksoftmax._data import validation as _validation
from sksoftmax._data.batches import generator, uniform
from sksoftmax._data.chunks import (
    MIN_CLASS_ROWS,
    center_chunks,
    concatenate_rows,
    n_bytes,
    split_rows,
    sum_hessian_product,
    sum_loss_grad,
)
from sksoftmax._data.out_of_core import match_class_weights
from sksoftmax._data.totals import Statistics, Totals, summarize
from sksoftmax._engines.threads import one_blas_thread
from sksoftmax._training.callbacks import task_of
from sksoftmax._types import Array, Batch, Moments, Params, Problem

_Method = TypeVar("_Method", bound=Callable[..., Any])

#: Number of results that one task adds, in the order of the partitions: the fan-in of the reduction tree.
_FAN_IN = 8

#: Expected size of the sample, as a fraction of its maximum size: the number of rows drawn is random.
_SAMPLE_FILL = 0.9

#: Seconds between two checks of whether the cluster has a worker.
_POLL_SECONDS = 1.0


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


class _PartitionSummary(NamedTuple):
    """Statistics, size and type of the rows of a partition, or of all partitions.

    Attributes
    ----------
    statistics : Statistics
    n_samples : int
        Number of rows of positive weight.
    n_features : int
    names : ndarray of shape (n_features,) or None
        Names of the columns of a data frame.
    dtype : dtype
        Dtype of X.
    is_sparse : bool
        Whether X is sparse.
    n_bytes : int
        Size of X in bytes.
    """

    statistics: Statistics
    n_samples: int
    n_features: int
    names: Array | None
    dtype: Any
    is_sparse: bool
    n_bytes: int


# --- functions that run on the workers: they are pure, so that Dask can recompute a lost result --------------------


@np.errstate(all="ignore")
def _summarize_partition(
    X: Any, y: Any, sample_weight: Any, fit_intercept: bool
) -> tuple[Batch | None, _PartitionSummary | None]:
    """Check a partition; return its rows as `summarize`, and its summary; (None, None) if it has no row."""
    if _validation.n_samples_of(X) == 0:
        return None, None
    checker = SoftmaxClassifier()  # scikit-learn's validation sets its names and number of columns
    rows = _validation.all_rows(checker, X, y, sample_weight, reset=True, is_stream=True)
    rows, statistics = summarize(rows, fit_intercept=fit_intercept)
    names = getattr(checker, "feature_names_in_", None)
    description = (checker.n_features_in_, names, rows.X.dtype, sp.issparse(rows.X), n_bytes(rows.X))
    return rows, _PartitionSummary(statistics, len(rows.y), *description)


def _get_summary(checked: tuple[Batch | None, _PartitionSummary | None]) -> _PartitionSummary | None:
    """Return the summary of a checked partition, which the client receives without the rows."""
    return checked[1]


@np.errstate(all="ignore")
def _encode_partition(
    checked: tuple[Batch | None, _PartitionSummary | None], classes: Array, factors: Array, dtype: Any
) -> Batch | None:
    """Return the rows of a checked partition in ``dtype``, with y as codes and class weights applied."""
    rows, summary = checked
    if rows is None or summary is None:
        return None
    labels, classes = _validation.to_common_dtype(summary.statistics.labels, classes, "y", "the classes")
    codes = np.searchsorted(classes, labels)[rows.y]
    return _validation.drop_zero_weight(Batch(_validation.as_rows(rows.X, dtype), codes, rows.weight * factors[codes]))


@np.errstate(all="ignore")
def _sample_partition(rows: Batch | None, rates: Array, seed: tuple[int, int]) -> Batch | None:
    """Draw rows of a partition at the sampling rate of their class; weights are divided by the rates."""
    if rows is None:
        return None
    is_kept = uniform(len(rows.y), generator(seed)) < rates[rows.y]
    X, y, weight = (column[is_kept] for column in rows)
    return Batch(X, y, weight / rates[y])


@np.errstate(all="ignore")
def _loss_grad(rows: Batch | None, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return (loss, gradient of coef, gradient of intercept), summed over the rows of a partition."""
    column_offset, present_classes, *rest = args
    with one_blas_thread():
        loss, grads = sum_loss_grad(_chunks_of(rows, column_offset, present_classes), *rest)
    return loss, *grads


@np.errstate(all="ignore")
def _hessian_product(rows: Batch | None, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the Hessian product (coef, intercept), summed over the rows of a partition."""
    column_offset, present_classes, *rest = args
    with one_blas_thread():
        return tuple(sum_hessian_product(_chunks_of(rows, column_offset, present_classes), *rest))


def _chunks_of(rows: Batch | None, column_offset: Array | None, present_classes: Array | None) -> Iterator[Batch]:
    """Return the chunks of a partition's rows as `center_chunks`; none for a partition without rows."""
    return iter(()) if rows is None else center_chunks(split_rows(rows), column_offset, present_classes)


def _sum_results(results: Sequence[tuple[Any, ...]]) -> tuple[Any, ...]:
    """Add tuples of numbers and arrays elementwise, in the given order."""
    return tuple(sum(parts[1:], start=parts[0]) for parts in zip(*results, strict=True))


def _identity(value: Any) -> Any:
    """Return the value."""
    return value


# --- functions that run on the client -----------------------------------------------------------------------------


class _Cluster:
    """Client of a cluster that counts its traffic and releases its futures.

    Parameters
    ----------
    client : distributed.Client
    workers_timeout : float
        Seconds without any worker after which `gather` raises RuntimeError.
    """

    def __init__(self, client: Client, workers_timeout: float) -> None:
        self.client, self.workers_timeout = client, workers_timeout
        self.n_workers = self._count()
        self.rounds = self.bytes_sent = self.bytes_received = 0
        self._futures: list[Future] = []

    @contextlib.contextmanager
    def releasing(self) -> Iterator[None]:
        """Release on exit the futures made inside the context.

        Without it an error would leave the futures alive, and with them the workers' data: the client holds the error
        of a future, the error's traceback holds the frames of the fit, and the frames hold the futures.
        """
        n_before = len(self._futures)
        try:
            yield
        finally:
            while len(self._futures) > n_before:
                with contextlib.suppress(RuntimeError):  # the client's event loop is closed
                    self._futures.pop().release()

    def compute(self, lazy: Sequence[Any]) -> list[Future]:
        """Compute Dask's delayed values on the workers."""
        futures: list[Future] = self.client.compute(list(lazy))
        self._futures += futures
        return futures

    def submit(self, function: Callable[..., Any], *args: Any) -> Future:
        """Call a function on a worker."""
        future = self.client.submit(function, *args, pure=False)
        self._futures.append(future)
        return future

    def each(self, function: Callable[..., Any], chunks: Sequence[Future], *args: Any) -> list[Future]:
        """Call a function on the workers, once for each partition."""
        return [self.submit(function, chunk, *args) for chunk in chunks]

    def sum_over(self, function: Callable[..., Any], chunks: Sequence[Future], args: tuple[Any, ...]) -> Any:
        """Return the sum of the function's results over all partitions; counts as one round."""
        with self.releasing():
            shared_args = self.submit(_identity, args)  # a task, so that Dask recomputes it if its worker dies
            parts = self.each(function, chunks, shared_args)
            while len(parts) > 1:
                groups = [parts[i : i + _FAN_IN] for i in range(0, len(parts), _FAN_IN)]
                parts = [self.submit(_sum_results, group) for group in groups]
            self.bytes_sent += self.n_workers * _n_bytes_of(args)
            (result,) = self.gather(parts)
        self.bytes_received += (self.n_workers - 1) * _n_bytes_of(result)  # between workers; gather counted one result
        return result

    def gather(self, futures: Sequence[Future]) -> list[Any]:
        """Wait for the futures and return their results; counts as one round.

        Raises
        ------
        RuntimeError
            If the cluster has no worker for ``workers_timeout`` seconds.
        """
        no_worker_since = None
        while pending := [future for future in futures if not future.done()]:
            with contextlib.suppress(TimeoutError):
                wait(pending, timeout=_POLL_SECONDS)
                break
            if self._count():
                no_worker_since = None
                continue
            no_worker_since = no_worker_since or time.monotonic()
            if time.monotonic() - no_worker_since > self.workers_timeout:
                raise RuntimeError(
                    f"the cluster has had no worker for {self.workers_timeout:g} seconds, and the fit cannot go on: "
                    "start workers, and fit again."
                )
        results: list[Any] = self.client.gather(list(futures))
        self.rounds += 1
        self.bytes_received += _n_bytes_of(results)
        return results

    def _count(self) -> int:
        return len(self.client.nthreads())


def _n_bytes_of(value: Any) -> int:
    """Return the bytes of all arrays in a value or in nested tuples and lists."""
    if isinstance(value, np.ndarray):
        return value.nbytes
    if sp.issparse(value):
        return n_bytes(value)
    return sum(map(_n_bytes_of, value)) if isinstance(value, tuple | list) else 0


class _ClusterSource(NamedTuple):
    """All rows of a cluster; implements ``DataSource``, without batches.

    Attributes
    ----------
    cluster : _Cluster
    chunks : list of Future
        Rows of each partition, with y as codes and class weights applied; None for a partition without rows.
    n_samples : int
    class_weights : ndarray of shape (n_classes,)
    moments : Moments
    column_offset : ndarray of shape (n_features,) or None
        Subtracted from each row of X; None for nothing.
    present_classes : ndarray of int or None
        Sorted codes of the classes that have rows; y becomes positions in it. None if all classes have rows.
    """

    cluster: _Cluster
    chunks: list[Future]
    n_samples: int
    class_weights: Array
    moments: Moments
    column_offset: Array | None = None
    present_classes: Array | None = None

    def loss_grad(self, problem: Problem, params: Params, total: float) -> tuple[float, Params]:
        args = (self.column_offset, self.present_classes, _without_rows(problem), params, total)
        loss, *grads = self.cluster.sum_over(_loss_grad, self.chunks, args)
        return loss, Params(*grads)

    def hessian_product(self, problem: Problem, params: Params, direction: Params, total: float) -> Params:
        args = (self.column_offset, self.present_classes, _without_rows(problem), params, direction, total)
        return Params(*self.cluster.sum_over(_hessian_product, self.chunks, args))

    def batches(self, batch_size: int, rng: np.random.RandomState, *, shuffle: bool) -> Iterator[Batch]:
        raise NotImplementedError

    def center_columns(self, column_offset: Array) -> Self:
        return self._replace(
            column_offset=column_offset, moments=self.moments._replace(mean=self.moments.mean - column_offset)
        )

    def of_classes(self, present_classes: Array) -> Self:
        return self._replace(present_classes=present_classes, class_weights=self.class_weights[present_classes])


def _without_rows(problem: Problem) -> Problem:
    """Return the problem without data, so that the client sends only its constants."""
    nothing = np.zeros((0, problem.n_features), problem.data.X.dtype)
    return problem._replace(data=Batch(nothing, np.zeros(0, np.intp), np.zeros(0)), data_source=None)


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

    @_validation.with_callbacks
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
            cluster = _Cluster(self.client, self.workers_timeout)
            with cluster.releasing():
                partitions = _compute_partitions(cluster, _split_partitions(X, y, sample_weight))
                checked = [cluster.submit(_summarize_partition, *parts, self.fit_intercept) for parts in partitions]
                summary = _merge_summaries(cluster.gather(cluster.each(_get_summary, checked)))
                classes, weights, counts, moments = summary.statistics
                factors = _validation.class_factors(self.class_weight, classes, weights)
                chunks = cluster.each(_encode_partition, checked, classes, factors, summary.dtype)
                rates = _sampling_rates(summary)
                seed = int(check_random_state(self.random_state).randint(2**31))
                samples = [cluster.submit(_sample_partition, chunk, rates, (seed, i)) for i, chunk in enumerate(chunks)]
                parts = [rows for rows in cluster.gather(samples) if rows is not None and len(rows.y)]
                class_weights = factors * weights
                sample, data_source = match_class_weights(concatenate_rows(parts), class_weights), None
                if (rates < 1).any():
                    assert moments is not None
                    n_samples = int(counts[factors > 0].sum())
                    data_source = _ClusterSource(cluster, chunks, n_samples, class_weights, moments)
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
        parts = [_delayed_hits(local, *partition) for partition in _split_partitions(X, y, sample_weight)]
        hits, weights, n_samples = np.sum(compute(*parts, scheduler=self._client), axis=0)
        _validation.check_any_rows(
            int(n_samples), "X", f"{len(parts)} partitions without one", "check what selects the rows"
        )
        _validation.check_finite_sum(np.array([weights]))
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
            return X.map_blocks(_predict, predict, meta.shape[1:], dtype=dtype, meta=meta, **shape)
        parts = [
            da.from_delayed(_delayed_prediction(predict, part, meta.shape[1:]), (np.nan, *meta.shape[1:]), meta=meta)
            for part in X.to_delayed()
        ]
        return da.concatenate(parts, allow_unknown_chunksizes=True)


def _predict(X: Any, predict: Callable[[Any], Array], shape: tuple[int, ...]) -> Array:
    """Return the predictions for a block, which may have no row; ``shape`` is the shape of one prediction."""
    if _validation.n_samples_of(X) == 0:
        return np.empty((0, *shape))
    return predict(X)


@delayed
def _delayed_prediction(predict: Callable[[Any], Array], X: Any, shape: tuple[int, ...]) -> Array:
    return _predict(X, predict, shape)


@delayed
def _delayed_hits(model: SoftmaxClassifier, X: Any, y: Any, sample_weight: Any) -> tuple[float, float, int]:
    """Return the weight of the correctly predicted rows of a partition, the weight of all rows, and their number."""
    if _validation.n_samples_of(X) == 0:
        return 0.0, 0.0, 0
    rows = _validation.all_rows(model, X, y, sample_weight, reset=False, is_stream=True)
    is_right = model.predict(X) == rows.y
    return float(rows.weight[is_right].sum()), float(rows.weight.sum()), len(rows.y)


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


def _compute_partitions(cluster: _Cluster, partitions: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Compute the partitions on the workers; return them as futures."""
    columns = (
        [None] * len(column) if column[0] is None else cluster.compute(column)
        for column in zip(*partitions, strict=True)
    )
    return list(zip(*columns, strict=True))


def _merge_summaries(all_summaries: Sequence[_PartitionSummary | None]) -> _PartitionSummary:
    """Merge the summaries of all partitions, in their order; None stands for a partition without rows.

    Raises
    ------
    ValueError
        If the partitions differ in their columns, or in being sparse; if no row has a positive weight; if the weights
        overflow; or if there is only one class.
    """
    summaries = [each for each in all_summaries if each is not None]
    _validation.check_any_rows(
        len(summaries), "X", f"{len(all_summaries)} partitions without one", "check what selects the rows"
    )
    _validation.check_any_weight(sum(each.n_samples for each in summaries))
    columns = {
        (each.n_features, each.is_sparse, None if each.names is None else tuple(each.names)) for each in summaries
    }
    if len(columns) > 1:
        raise ValueError(
            f"the partitions must have the same columns, all sparse or all dense, got {sorted(map(str, columns))}."
        )
    parts = [each.statistics for each in summaries]
    labels = functools.reduce(_validation.union_classes, [part.labels for part in parts])
    _validation.check_two_classes(labels)
    _validation.check_finite_sum(np.concatenate([part.weights for part in parts]))
    totals = Totals(labels)
    for part in parts:
        totals.add(part._replace(labels=part.labels.astype(labels.dtype)), part.weights.sum())
    return _PartitionSummary(
        Statistics(labels, totals.class_weights, totals.class_counts, totals.moments),
        sum(each.n_samples for each in summaries),
        summaries[0].n_features,
        summaries[0].names,
        np.result_type(*(each.dtype for each in summaries)),
        summaries[0].is_sparse,
        sum(each.n_bytes for each in summaries),
    )


def _sampling_rates(summary: _PartitionSummary) -> Array:
    """Return the sampling rate of each class; at least ``MIN_CLASS_ROWS`` rows of a class are expected, or all."""
    rate, counts = min(1.0, _SAMPLE_FILL * _chunks.SAMPLE_SIZE / summary.n_bytes), summary.statistics.counts
    if rate < 1:
        return np.asarray(np.minimum(1.0, np.maximum(rate, MIN_CLASS_ROWS / np.maximum(counts, 1))))
    return np.ones(len(counts))
