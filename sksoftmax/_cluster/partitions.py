"""Functions of a partition's rows, which run on the workers of a cluster, and the merging of their summaries.

``sksoftmax.dask`` and `ClusterSource` submit them. They are pure, so that Dask can recompute a lost result, and this
module does not import Dask.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp

from sksoftmax import _sklearn
from sksoftmax._classifier import SoftmaxClassifier
from sksoftmax._data import arrays as _arrays
from sksoftmax._data import chunks as _chunks
from sksoftmax._data import labels as _labels
from sksoftmax._data import validation as _validation
from sksoftmax._data.batches import generator, uniform
from sksoftmax._data.chunks import (
    MIN_CLASS_ROWS,
    center_chunks,
    n_bytes,
    split_rows,
    sum_hessian_product,
    sum_loss_grad,
)
from sksoftmax._data.totals import Statistics, Totals, summarize
from sksoftmax._engines.threads import one_blas_thread
from sksoftmax._types import Array, Batch

#: Expected size of the sample, as a fraction of its maximum size: the number of rows drawn is random.
_SAMPLE_FILL = 0.9


class PartitionSummary(NamedTuple):
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


@np.errstate(all="ignore")
def summarize_partition(
    X: Any, y: Any, sample_weight: Any, fit_intercept: bool
) -> tuple[Batch | None, PartitionSummary | None]:
    """Check a partition; return its rows as `summarize`, and its summary; (None, None) if it has no row."""
    if _sklearn.count_samples(X) == 0:
        return None, None
    checker = SoftmaxClassifier()  # scikit-learn's validation sets its names and number of columns
    rows = _validation.check_rows(checker, X, y, sample_weight, reset=True, is_stream=True)
    rows, statistics = summarize(rows, fit_intercept=fit_intercept)
    names = getattr(checker, "feature_names_in_", None)
    description = (checker.n_features_in_, names, rows.X.dtype, sp.issparse(rows.X), n_bytes(rows.X))
    return rows, PartitionSummary(statistics, len(rows.y), *description)


def get_summary(checked: tuple[Batch | None, PartitionSummary | None]) -> PartitionSummary | None:
    """Return the summary of a checked partition, which the client receives without the rows."""
    return checked[1]


def merge_summaries(all_summaries: Sequence[PartitionSummary | None]) -> PartitionSummary:
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
    labels = functools.reduce(_labels.union_classes, [part.labels for part in parts])
    _labels.check_two_classes(labels)
    _arrays.check_finite_sum(np.concatenate([part.weights for part in parts]))
    totals = Totals(labels)
    for part in parts:
        totals.add(part._replace(labels=part.labels.astype(labels.dtype)), part.weights.sum())
    return PartitionSummary(
        Statistics(labels, totals.class_weights, totals.class_counts, totals.moments),
        sum(each.n_samples for each in summaries),
        summaries[0].n_features,
        summaries[0].names,
        np.result_type(*(each.dtype for each in summaries)),
        summaries[0].is_sparse,
        sum(each.n_bytes for each in summaries),
    )


def sampling_rates(summary: PartitionSummary) -> Array:
    """Return the sampling rate of each class; at least ``MIN_CLASS_ROWS`` rows of a class are expected, or all."""
    rate, counts = min(1.0, _SAMPLE_FILL * _chunks.SAMPLE_SIZE / summary.n_bytes), summary.statistics.counts
    if rate < 1:
        return np.asarray(np.minimum(1.0, np.maximum(rate, MIN_CLASS_ROWS / np.maximum(counts, 1))))
    return np.ones(len(counts))


@np.errstate(all="ignore")
def encode_partition(
    checked: tuple[Batch | None, PartitionSummary | None], classes: Array, factors: Array, dtype: Any
) -> Batch | None:
    """Return the rows of a checked partition in ``dtype``, with y as codes and class weights applied."""
    rows, summary = checked
    if rows is None or summary is None:
        return None
    labels, classes = _labels.to_common_dtype(summary.statistics.labels, classes, "y", "the classes")
    codes = np.searchsorted(classes, labels)[rows.y]
    return _arrays.drop_zero_weight(Batch(_arrays.convert_rows(rows.X, dtype), codes, rows.weight * factors[codes]))


@np.errstate(all="ignore")
def sample_partition(rows: Batch | None, rates: Array, seed: tuple[int, int]) -> Batch | None:
    """Draw rows of a partition at the sampling rate of their class; weights are divided by the rates."""
    if rows is None:
        return None
    is_kept = uniform(len(rows.y), generator(seed)) < rates[rows.y]
    X, y, weight = (column[is_kept] for column in rows)
    return Batch(X, y, weight / rates[y])


@np.errstate(all="ignore")
def partition_loss_grad(rows: Batch | None, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return (loss, gradient of coef, gradient of intercept), summed over the rows of a partition."""
    column_offset, present_classes, *rest = args
    with one_blas_thread():
        loss, grads = sum_loss_grad(_chunks_of(rows, column_offset, present_classes), *rest)
    return loss, *grads


@np.errstate(all="ignore")
def partition_hessian_product(rows: Batch | None, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the Hessian product (coef, intercept), summed over the rows of a partition."""
    column_offset, present_classes, *rest = args
    with one_blas_thread():
        return tuple(sum_hessian_product(_chunks_of(rows, column_offset, present_classes), *rest))


def _chunks_of(rows: Batch | None, column_offset: Array | None, present_classes: Array | None) -> Iterator[Batch]:
    """Return the chunks of a partition's rows as `center_chunks`; none for a partition without rows."""
    return iter(()) if rows is None else center_chunks(split_rows(rows), column_offset, present_classes)


def sum_results(results: Sequence[tuple[Any, ...]]) -> tuple[Any, ...]:
    """Add tuples of numbers and arrays elementwise, in the given order."""
    return tuple(sum(parts[1:], start=parts[0]) for parts in zip(*results, strict=True))


def identity(value: Any) -> Any:
    """Return the value."""
    return value


def predict_block(X: Any, predict: Callable[[Any], Array], shape: tuple[int, ...], dtype: Any) -> Array:
    """Return the predictions for a block, which may have no row; ``shape`` and ``dtype`` are of one prediction."""
    if _sklearn.count_samples(X) == 0:
        return np.empty((0, *shape), dtype)
    return predict(X)


def count_hits(model: SoftmaxClassifier, X: Any, y: Any, sample_weight: Any) -> tuple[float, float, int]:
    """Return the weight of the correctly predicted rows of a partition, the weight of all rows, and their number."""
    if _sklearn.count_samples(X) == 0:
        return 0.0, 0.0, 0
    rows = _validation.check_rows(model, X, y, sample_weight, reset=False, is_stream=True)
    is_right = model.predict(X) == rows.y
    return float(rows.weight[is_right].sum()), float(rows.weight.sum()), len(rows.y)
