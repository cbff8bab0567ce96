"""Client's side of a cluster: counted requests to the workers, and the source of all rows for the solvers.

``sksoftmax.dask`` makes a `Cluster` for each fit, and gives the solvers a `ClusterSource`.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Self

import numpy as np
import scipy.sparse as sp
from distributed import Client, Future, wait

from sksoftmax._cluster.partitions import identity, partition_hessian_product, partition_loss_grad, sum_results
from sksoftmax._data.chunks import n_bytes
from sksoftmax._types import Array, Batch, Moments, Params, Problem

#: Number of results that one task adds, in the order of the partitions: the fan-in of the reduction tree.
_FAN_IN = 8

#: Seconds between two checks of whether the cluster has a worker.
_POLL_SECONDS = 1.0


class Cluster:
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
            shared_args = self.submit(identity, args)  # a task, so that Dask recomputes it if its worker dies
            parts = self.each(function, chunks, shared_args)
            while len(parts) > 1:
                groups = [parts[i : i + _FAN_IN] for i in range(0, len(parts), _FAN_IN)]
                parts = [self.submit(sum_results, group) for group in groups]
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


class ClusterSource(NamedTuple):
    """All rows of a cluster; implements ``DataSource``, without batches.

    Attributes
    ----------
    cluster : Cluster
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

    cluster: Cluster
    chunks: list[Future]
    n_samples: int
    class_weights: Array
    moments: Moments
    column_offset: Array | None = None
    present_classes: Array | None = None

    def loss_grad(self, problem: Problem, params: Params, total: float) -> tuple[float, Params]:
        args = (self.column_offset, self.present_classes, _without_rows(problem), params, total)
        loss, *grads = self.cluster.sum_over(partition_loss_grad, self.chunks, args)
        return loss, Params(*grads)

    def hessian_product(self, problem: Problem, params: Params, direction: Params, total: float) -> Params:
        args = (self.column_offset, self.present_classes, _without_rows(problem), params, direction, total)
        return Params(*self.cluster.sum_over(partition_hessian_product, self.chunks, args))

    def batches(self, batch_size: int, rng: np.random.RandomState, *, shuffle: bool) -> Iterator[Batch]:
        raise NotImplementedError

    def center_columns(self, column_offset: Array) -> Self:
        return self._replace(
            column_offset=column_offset, moments=self.moments._replace(mean=self.moments.mean - column_offset)
        )

    def restrict_classes(self, present_classes: Array) -> Self:
        return self._replace(present_classes=present_classes, class_weights=self.class_weights[present_classes])


def _without_rows(problem: Problem) -> Problem:
    """Return the problem without data, so that the client sends only its constants."""
    nothing = np.zeros((0, problem.n_features), problem.data.X.dtype)
    return problem._replace(data=Batch(nothing, np.zeros(0, np.intp), np.zeros(0)), data_source=None)


def compute_partitions(cluster: Cluster, partitions: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Compute the partitions on the workers; return them as futures."""
    columns = (
        [None] * len(column) if column[0] is None else cluster.compute(column)
        for column in zip(*partitions, strict=True)
    )
    return list(zip(*columns, strict=True))
