"""Sources of out-of-core data, an array on disk or the user's batches, and the first pass over them.

``SoftmaxClassifier.fit`` and ``fit_batches`` call `survey`, which checks all rows and draws a sample, and then
`sample_and_source`, which returns the sample and a source of all rows for the solvers. The predictions use `by_chunks`.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np
import scipy.sparse as sp

from sksoftmax import _sklearn
from sksoftmax._data import arrays as _arrays
from sksoftmax._data import chunks as _chunks
from sksoftmax._data import labels as _labels
from sksoftmax._data import validation as _validation
from sksoftmax._data.batches import chunk_order
from sksoftmax._data.chunks import ChunkedSource, StratifiedSampler, split_rows
from sksoftmax._data.placement import check_device_of_fit
from sksoftmax._data.totals import Totals, summarize
from sksoftmax._types import Array, Batch, Moments

_Predict = TypeVar("_Predict", bound=Callable[..., Array])

#: Reads all rows once and yields chunks (X, y, sample_weight), where None stands for weights of 1. The order of the
#: chunks is drawn from the random number generator, if one is given and the source supports random access.
Read = Callable[[np.random.RandomState | None], Iterator[tuple[Any, Any, Any]]]

#: Relative rounding error allowed between sums over all rows in different passes, by X's dtype. The order of the rows
#: and the sizes of the chunks may differ from pass to pass.
_ROUNDING = {"float32": 1e-5, "float64": 1e-9}

#: Golden ratio minus 1. The fractional parts of its multiples are spread evenly over [0, 1).
_GOLDEN = 0.5 * (5**0.5 - 1)


class Source(NamedTuple):
    """Rows that can be read in several passes.

    Attributes
    ----------
    read : Read
    may_change : bool
        Whether the user's code yields the rows. It may then overwrite the arrays of a chunk, or yield different rows
        in a later pass.
    """

    read: Read
    may_change: bool


class Survey(NamedTuple):
    """Result of the first pass over the rows.

    Attributes
    ----------
    data : Batch
        All rows of positive weight, or a sample of them, with y as codes; class weights are not applied yet.
    classes : ndarray of shape (n_classes,)
    class_weights : ndarray of shape (n_classes,)
        Sum of the sample weights of each class.
    class_counts : ndarray of shape (n_classes,)
        Number of rows of positive weight of each class.
    n_read : int
        Number of rows of any weight.
    moments : Moments
        Statistics of the columns, without class weights.
    is_all : bool
        Whether ``data`` are all rows.
    sums : ndarray of shape (2, n_features), or (2, 1) for sparse rows
        Weighted sums of the columns of X, and of abs(X); 0 if the rows cannot change between passes.
    """

    data: Batch
    classes: Array
    class_weights: Array
    class_counts: Array
    n_read: int
    moments: Moments
    is_all: bool
    sums: Array


def is_on_disk(X: Any) -> bool:
    """Return whether X is read from a file when it is sliced, and is larger than the sample may be."""
    is_lazy = isinstance(X, np.memmap) or (hasattr(X, "chunks") and hasattr(X, "dtype") and hasattr(X, "shape"))
    return is_lazy and len(X.shape) == 2 and int(np.prod(X.shape)) * X.dtype.itemsize > _chunks.SAMPLE_SIZE


def chunk_slices(X: Any) -> list[slice]:
    """Return the slices of consecutive chunks of about 1 MiB; multiples of the chunks that X is stored in, if any."""
    n_samples = X.shape[0]
    size = max(1, _chunks.CHUNK_SIZE // max(1, X.shape[1] * X.dtype.itemsize))
    stored_length = (getattr(X, "chunks", None) or [1])[0]
    if isinstance(stored_length, int):
        size = -(-size // stored_length) * stored_length
    return [slice(start, min(start + size, n_samples)) for start in range(0, n_samples, size)]


def by_chunks(predict: _Predict) -> _Predict:
    """Decorate a prediction method so that it reads an array on disk in chunks.

    It checks that X has the library and the device of the fit, and ignores NumPy's floating-point warnings.
    """

    @functools.wraps(predict)
    def predict_chunks(self: Any, X: Any) -> Array:
        check_device_of_fit(self, X, predict.__name__)
        with np.errstate(all="ignore"):
            if not is_on_disk(X):
                return predict(self, X)
            return np.concatenate([predict(self, np.asarray(X[rows])) for rows in chunk_slices(X)])

    return cast(_Predict, predict_chunks)


def array_source(X: Any, y: Any, sample_weight: Any) -> Source:
    """Return the source of an array on disk; y and the weights are in memory.

    Raises
    ------
    ValueError
        If X, y and the weights differ in length, or `check_labels` refuses y.
    """
    y = _labels.check_labels(y)
    weight = sample_weight if sample_weight is None or np.ndim(sample_weight) == 0 else np.asarray(sample_weight)
    _arrays.check_same_length(X, y, weight if np.ndim(weight) else None)
    slices = chunk_slices(X)

    def read(rng: np.random.RandomState | None) -> Iterator[tuple[Any, Any, Any]]:
        for i in chunk_order(len(slices), rng):
            rows = slices[i]
            yield np.asarray(X[rows]), y[rows], weight[rows] if np.ndim(weight) else weight

    return Source(read, False)


def batches_source(batches: Any) -> Source:
    """Return the source of the user's batches; those without rows are left out.

    Raises
    ------
    TypeError
        If ``batches`` can be iterated over only once, or not at all; while reading, if a batch is not a tuple or list
        of 2 or 3 parts.
    """
    if not callable(batches) and (not isinstance(batches, Iterable) or isinstance(batches, Iterator)):
        raise TypeError(
            "batches must be something to iterate over again and again, such as a list, or a function that returns a "
            f"new iterator, got {type(batches).__name__}: a fit takes several passes. For rows that come only once "
            "there is partial_fit."
        )

    def read(rng: np.random.RandomState | None) -> Iterator[tuple[Any, Any, Any]]:
        for batch in batches() if callable(batches) else batches:
            if not isinstance(batch, tuple | list) or len(batch) not in (2, 3):
                raise TypeError(f"a batch must be (X, y) or (X, y, sample_weight), got {type(batch).__name__}.")
            X, y, *weight = batch
            if _sklearn.count_samples(X):
                yield X, y, weight[0] if weight else None

    return Source(read, type(batches) not in (list, tuple))


def survey(estimator: Any, source: Source, classes: Any, rng: np.random.RandomState) -> Survey:
    """Read and check all rows in one pass, sum their statistics, and draw a sample; sets ``n_features_in_``.

    Parameters
    ----------
    classes : array-like or None
        All labels; None for the labels of the rows.

    Raises
    ------
    ValueError
        If a chunk is not what ``fit`` accepts; if it differs from the first in its number of columns, or in being
        sparse; if a label is not in ``classes``; if there is no row of positive weight, or only one class.
    """
    labels = np.empty(0) if classes is None else _labels.check_classes(classes)
    if classes is not None:
        _labels.check_two_classes(labels, "classes")
    sample, totals, n_read = StratifiedSampler(rng), Totals(labels), 0
    is_sparse: bool | None = None
    sums: Any = 0.0
    for X, y, weight in source.read(None):
        n_read += _sklearn.count_samples(X)
        _arrays.check_numpy(X)
        rows = _validation.check_rows(estimator, X, y, weight, reset=is_sparse is None, is_stream=True)
        if is_sparse not in (None, sp.issparse(rows.X)):
            raise ValueError("the batches must be all sparse or all dense, got both.")
        is_sparse = sp.issparse(rows.X)
        rows, statistics = summarize(rows, fit_intercept=estimator.fit_intercept)
        if classes is not None:
            _labels.encode_labels(statistics.labels, labels, "give them in classes as well, or leave it out.")
        elif not totals.has_labels(statistics.labels):
            labels = _labels.union_classes(labels, statistics.labels, "y", "the earlier batches")
        codes = totals.add(statistics, rows.weight.sum())
        if len(rows.y) == 0:
            continue
        rows = rows._replace(y=codes[rows.y])
        if source.may_change:
            sums = sums + np.array([_column_sums(part) for part in (rows, rows._replace(X=abs(rows.X)))])
            rows = rows._replace(weight=rows.weight.copy())
        sample.add(rows, totals.n_classes, may_change=source.may_change and _shares_memory(rows.X, X))
    _validation.check_any_rows(n_read, "batches", "none", "a function must return a new iterator in each call")
    _labels.check_two_classes(labels)
    _arrays.check_finite_sum(totals.class_weights)
    _validation.check_any_weight(int(totals.class_counts.sum()))
    assert totals.moments is not None
    ranks = totals.ranks(labels)
    order = np.argsort(ranks)
    data = sample.rows()
    data = data._replace(y=ranks[data.y])
    of_classes = labels, totals.class_weights[order], totals.class_counts[order]
    return Survey(data, *of_classes, n_read, totals.moments, sample.is_all, sums)


def _shares_memory(X: Any, given: Any) -> bool:
    """Return whether the checked X shares memory with the X that was given."""
    if isinstance(given, list | tuple):
        return False
    if sp.issparse(X):
        parts = ("data", "indices", "indptr") if given.format == "csr" else ()
        return any(np.may_share_memory(getattr(X, part), getattr(given, part)) for part in parts)
    return bool(np.may_share_memory(X, np.asarray(given)))


def _column_sums(rows: Batch) -> Array:
    """Return the weighted sums of the columns in float64; for sparse rows one sum, with a different factor per column.

    One sum per column of sparse rows would take half as long as a gradient.
    """
    X, weight = rows.X, rows.weight.astype(rows.X.dtype, copy=False)
    with np.errstate(over="ignore", invalid="ignore"):
        if sp.issparse(X):
            factors = 1 + np.arange(X.shape[1]) * _GOLDEN % 1
            return np.array([weight @ (X @ factors.astype(X.dtype))], np.float64)
        sums = np.zeros(X.shape[1])
        for chunk in split_rows(rows._replace(weight=weight)):  # products are in X's dtype: few rows, less rounding
            sums += chunk.weight @ chunk.X
    return sums


def match_class_weights(sample: Batch, class_weights: Array) -> Batch:
    """Return the sample with weights scaled so that they sum to ``class_weights``, for each class that it has."""
    sampled = np.bincount(sample.y, sample.weight, len(class_weights))
    return sample._replace(weight=sample.weight * (class_weights / np.where(sampled > 0, sampled, 1.0))[sample.y])


def sample_and_source(first_pass: Survey, source: Source, class_weight: Any) -> tuple[Batch, ChunkedSource]:
    """Return the sample and the source of all rows, both with class weights applied.

    The weights of the sample are scaled, so that each class has the same total weight in the sample as in all rows.
    Each later pass checks that the rows are those of the first:

    - the number of rows, of columns, and the labels, always;
    - the sum of the weights of each class, if the rows may change;
    - the sums of the columns, if the rows may change, in passes 2, 3, 4, 8, 16, ...
    """
    factors = _labels.class_weight_factors(class_weight, first_pass.classes, first_pass.class_weights)
    class_weights = factors * first_pass.class_weights
    sample, n_expected = first_pass.data, first_pass.n_read
    data = match_class_weights(
        _arrays.drop_zero_weight(sample._replace(weight=sample.weight * factors[sample.y])), class_weights
    )
    dtype = data.X.dtype
    passes = itertools.count(2)  # the survey was pass 1

    def read_coded(rng: np.random.RandomState | None) -> Iterator[Batch]:
        i_pass = next(passes)
        is_summed = source.may_change and (i_pass == 3 or i_pass & (i_pass - 1) == 0)  # up to a tenth of a pass
        n_read, weights, sums = 0, np.zeros(len(first_pass.classes)), np.zeros(1)
        for X, labels, sample_weight in source.read(rng):
            X, y = _arrays.convert_rows(X, dtype), _labels.check_labels(labels, warn=False)
            y, classes = _labels.to_common_dtype(y, first_pass.classes, "y", "the earlier batches")
            if X.shape[1] != data.X.shape[1]:
                _raise_for_change(f"{X.shape[1]} columns, not {data.X.shape[1]},")
            n_read += len(y)
            codes = np.minimum(np.searchsorted(classes, y), len(classes) - 1)
            if n_read > n_expected or (classes[codes] != y).any():
                _raise_for_change("other labels" if n_read <= n_expected else f"more than {n_expected} rows")
            weight = np.ones(len(y)) if sample_weight is None else np.asarray(sample_weight, float)
            rows = _arrays.drop_zero_weight(Batch(X, codes, weight))
            if source.may_change:
                weights += np.bincount(rows.y, rows.weight, len(weights))
            if is_summed:
                sums = sums + _column_sums(rows)
            yield _arrays.drop_zero_weight(rows._replace(weight=factors[rows.y] * rows.weight))
        if n_read < n_expected:
            _raise_for_change(f"{n_read} rows, not {n_expected},")
        if source.may_change:
            _check_same_weights(first_pass, weights)
        if is_summed:
            _check_same_sums(first_pass, sums)

    n_samples = int(first_pass.class_counts[factors > 0].sum())
    return data, ChunkedSource(read_coded, n_samples, class_weights, first_pass.moments, may_change=source.may_change)


def _check_same_weights(first_pass: Survey, weights: Array) -> None:
    """Raise ValueError if the sums of the weights by class differ from those of the first pass, beyond rounding."""
    if not (np.abs(weights - first_pass.class_weights) <= _ROUNDING["float64"] * first_pass.class_weights.sum()).all():
        _raise_for_change("other numbers of rows, or weights, in a class")


def _check_same_sums(first_pass: Survey, sums: Array) -> None:
    """Raise ValueError if the sums of the columns differ from those of the first pass, beyond rounding."""
    first, scale = first_pass.sums
    is_finite = np.isfinite(first)
    if not np.isfinite(sums[is_finite]).all():
        _raise_for_change("NaN or inf in X")
    if not (np.abs(sums - first) <= _ROUNDING[first_pass.data.X.dtype.name] * scale)[is_finite].all():
        _raise_for_change("other numbers in X")


def _raise_for_change(got: str) -> None:
    """Raise ValueError for rows that differ from the first pass; ``got`` names the difference."""
    raise ValueError(
        f"the rows must be the same in every pass, got {got} in a later pass; give what the first pass gave, in any "
        "order. partial_fit takes rows that are new in every pass."
    )
