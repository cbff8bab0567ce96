"""Where rows come from that memory does not hold: an array on disk, or batches; checked as they are first read."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np
import scipy.sparse as sp

from sksoftmax._data import chunks as _chunks
from sksoftmax._data import validation as _validation
from sksoftmax._data.batches import chunk_order
from sksoftmax._data.chunks import ChunkedSource, StratifiedSampler, split_rows
from sksoftmax._data.placement import device_of_fit
from sksoftmax._maths.preconditioner import merge_moments, moments_of
from sksoftmax._types import Array, Batch, Moments

_Predict = TypeVar("_Predict", bound=Callable[..., Array])

#: Reads all rows once: pieces of X, y and the weights, or None for weights of 1; in an order drawn, if it can.
Read = Callable[[np.random.RandomState | None], Iterator[tuple[Any, Any, Any]]]


#: Relative difference of sums over all rows that their order and the sizes of the pieces may make, by X's dtype.
_ROUNDING = {"float32": 1e-5, "float64": 1e-9}


#: Its multiples, less their integer parts, are spread evenly.
_GOLDEN = 0.5 * (5**0.5 - 1)


class Source(NamedTuple):
    """Rows that can be read again and again.

    Attributes
    ----------
    read : Read
    may_change : bool
        Whether code of the user's gives the rows: it may fill the same arrays anew, or give other rows in another pass.
    """

    read: Read
    may_change: bool


class Survey(NamedTuple):
    """What one pass over the rows tells.

    Attributes
    ----------
    data : Batch
        The rows, coded, if memory holds them, else a sample of them; class weights are not in yet.
    classes : ndarray of shape (n_classes,)
    class_weights : ndarray of shape (n_classes,)
        Sum of the weights of each class's rows.
    class_counts : ndarray of shape (n_classes,)
        Rows of positive weight of each class.
    n_read : int
        Rows of any weight.
    moments : Moments
        Of the columns, without class weights.
    is_all : bool
        Whether ``data`` are all rows.
    sums : ndarray of shape (2, n_features), or (2, 1) for sparse rows
        Weighted sums of the columns and of their absolute values; 0 unless the rows may change.
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
    """Whether X is an array that is read from a file as it is sliced, and more than the sample of such."""
    is_read = isinstance(X, np.memmap) or (hasattr(X, "chunks") and hasattr(X, "dtype") and hasattr(X, "shape"))
    return is_read and len(X.shape) == 2 and int(np.prod(X.shape)) * X.dtype.itemsize > _chunks.SAMPLE_SIZE


def slices(X: Any) -> list[slice]:
    """Consecutive rows of X, a piece each, of whole chunks if it has such."""
    n_samples = X.shape[0]
    size = max(1, _chunks.CHUNK_SIZE // max(1, X.shape[1] * X.dtype.itemsize))
    stored = (getattr(X, "chunks", None) or [1])[0]
    if isinstance(stored, int):
        size = -(-size // stored) * stored
    return [slice(start, min(start + size, n_samples)) for start in range(0, n_samples, size)]


def by_chunks(predict: _Predict) -> _Predict:
    """The method, of X that is where the fit's was; of an array on disk it predicts a piece at a time."""

    @functools.wraps(predict)
    def predict_chunks(self: Any, X: Any) -> Array:
        if not is_on_disk(X):
            device_of_fit(self, X, predict.__name__)
            with np.errstate(all="ignore"):
                return predict(self, X)
        return np.concatenate([predict(self, np.asarray(X[rows])) for rows in slices(X)])

    return cast(_Predict, predict_chunks)


def of_array(X: Any, y: Any, sample_weight: Any) -> Source:
    """Slices of an array on disk."""
    y = _validation.check_labels(y)
    weight = sample_weight if sample_weight is None or np.ndim(sample_weight) == 0 else np.asarray(sample_weight)
    _validation.check_same_length(X, y, weight if np.ndim(weight) else None)
    spans = slices(X)

    def read(rng: np.random.RandomState | None) -> Iterator[tuple[Any, Any, Any]]:
        for i in chunk_order(len(spans), rng):
            rows = spans[i]
            yield np.asarray(X[rows]), y[rows], weight[rows] if np.ndim(weight) else weight

    return Source(read, False)


def of_batches(batches: Any) -> Source:
    """What a user gives.

    Raises
    ------
    TypeError
        If it can be iterated over once only, or not at all.
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
            if _validation.n_samples_of(X):
                yield X, y, weight[0] if weight else None

    return Source(read, type(batches) not in (list, tuple))


def survey(estimator: Any, source: Source, classes: Any, rng: np.random.RandomState) -> Survey:
    """Read all rows, check them, and keep a sample; the estimator's ``n_features_in_`` are then known.

    Parameters
    ----------
    classes : array-like or None
        All labels; None for those that are there.

    Raises
    ------
    ValueError
        If a piece does not hold what ``fit`` takes, has another width or kind than the first, or a label that is not
        among the classes; if there is no row, or one class only.
    """
    known = np.empty(0) if classes is None else _validation.given_classes(classes)
    if classes is not None:
        _validation.check_two_classes(known, "classes")
    code_of = {label: i for i, label in enumerate(known.tolist())}
    sample, totals, n_read = StratifiedSampler(rng), np.zeros((2, 0)), 0
    is_sparse: bool | None = None
    moments: Moments | None = None
    sums: Any = 0.0
    for X, y, weight in source.read(None):
        n_read += _validation.n_samples_of(X)
        _validation.check_numpy(X)
        rows = _validation.all_rows(estimator, X, y, weight, reset=is_sparse is None, is_stream=True)
        if is_sparse not in (None, sp.issparse(rows.X)):
            raise ValueError("the batches must be all sparse or all dense, got both.")
        is_sparse = sp.issparse(rows.X)
        labels, which = np.unique(rows.y, return_inverse=True)
        if classes is not None:
            _validation.codes_of(labels, known, "give them in classes as well, or leave it out.")
        elif not set(labels.tolist()) <= code_of.keys():
            known = _validation.union_classes(known, labels, "y", "the batches before")
        codes = np.array([code_of.setdefault(label, len(code_of)) for label in labels.tolist()], dtype=np.intp)[which]
        totals = np.pad(totals, ((0, 0), (0, len(code_of) - totals.shape[1])))
        rows = _validation.drop_zero_weight(rows._replace(y=codes))
        if len(rows.y) == 0:
            continue
        own = moments_of(rows, fit_intercept=estimator.fit_intercept)
        moments = own if moments is None else merge_moments(moments, totals[0].sum(), own, rows.weight.sum())
        totals += [np.bincount(rows.y, weight, len(code_of)) for weight in (rows.weight, None)]
        if source.may_change:
            sums = sums + np.array([_column_sums(part) for part in (rows, rows._replace(X=abs(rows.X)))])
            rows = rows._replace(weight=rows.weight.copy())
        sample.add(rows, len(code_of), may_change=source.may_change and _shares_memory(rows.X, X))
    _validation.check_any_rows(n_read, "batches", "none", "a function must return a new iterator in each call")
    _validation.check_two_classes(known)
    _validation.check_finite_sum(totals[0])
    _validation.check_any_weight(int(totals[1].sum()))
    assert moments is not None
    rank = np.searchsorted(known, np.array(list(code_of), dtype=known.dtype))  # codes were given as labels came
    data = sample.rows()
    class_weights, class_counts = totals[:, np.argsort(rank)]
    data = data._replace(y=rank[data.y])
    return Survey(data, known, class_weights, class_counts, n_read, moments, sample.is_all, sums)


def _shares_memory(X: Any, given: Any) -> bool:
    """Return whether X, which was made of what was given, is a view of it."""
    if isinstance(given, list | tuple):
        return False
    if sp.issparse(X):
        parts = ("data", "indices", "indptr") if given.format == "csr" else ()
        return any(np.may_share_memory(getattr(X, part), getattr(given, part)) for part in parts)
    return bool(np.may_share_memory(X, np.asarray(given)))


def _column_sums(rows: Batch) -> Array:
    """Return the weighted sums of the columns, in float64; for sparse rows one sum, to which each column adds its own.

    A sum for each of their columns would take half as long as a gradient.
    """
    X, weight = rows.X, rows.weight.astype(rows.X.dtype, copy=False)
    with np.errstate(over="ignore", invalid="ignore"):
        if sp.issparse(X):
            factors = 1 + np.arange(X.shape[1]) * _GOLDEN % 1
            return np.array([weight @ (X @ factors.astype(X.dtype))], np.float64)
        sums = np.zeros(X.shape[1])
        for chunk in split_rows(rows._replace(weight=weight)):  # in X's dtype: not too many rows a sum
            sums += chunk.weight @ chunk.X
    return sums


def stratified(sample: Batch, class_weights: Array) -> Batch:
    """The sample, with weights that sum to ``class_weights`` over each class of which it has rows."""
    sampled = np.bincount(sample.y, sample.weight, len(class_weights))
    return sample._replace(weight=sample.weight * (class_weights / np.where(sampled > 0, sampled, 1.0))[sample.y])


def with_class_weight(found: Survey, source: Source, class_weight: Any) -> tuple[Batch, ChunkedSource]:
    """The sample and all rows, with class weights multiplied in; the sample's classes weigh what all their rows do."""
    factors = _validation.class_factors(class_weight, found.classes, found.class_weights)
    class_weights = factors * found.class_weights
    data = stratified(
        _validation.drop_zero_weight(found.data._replace(weight=found.data.weight * factors[found.data.y])),
        class_weights,
    )
    dtype = data.X.dtype
    passes = itertools.count(2)  # sums of X take up to a tenth of a pass: not in each

    def coded(rng: np.random.RandomState | None) -> Iterator[Batch]:
        number = next(passes)
        is_summed = source.may_change and (number == 3 or number & (number - 1) == 0)
        n_read, weights, sums = 0, np.zeros(len(found.classes)), np.zeros(1)
        for X, labels, sample_weight in source.read(rng):
            X, y = _validation.as_rows(X, dtype), _validation.check_labels(labels, warn=False)
            y, classes = _validation.to_common_dtype(y, found.classes, "y", "the batches before")
            if X.shape[1] != data.X.shape[1]:
                _raise_for_change(f"{X.shape[1]} columns, not {data.X.shape[1]},")
            n_read += len(y)
            codes = np.minimum(np.searchsorted(classes, y), len(classes) - 1)
            if n_read > found.n_read or (classes[codes] != y).any():
                _raise_for_change("other labels" if n_read <= found.n_read else f"more than {found.n_read} rows")
            weight = np.ones(len(y)) if sample_weight is None else np.asarray(sample_weight, float)
            rows = _validation.drop_zero_weight(Batch(X, codes, weight))
            if source.may_change:
                weights += np.bincount(rows.y, rows.weight, len(weights))
            if is_summed:
                sums = sums + _column_sums(rows)
            yield _validation.drop_zero_weight(rows._replace(weight=factors[rows.y] * rows.weight))
        if n_read < found.n_read:
            _raise_for_change(f"{n_read} rows, not {found.n_read},")
        if source.may_change:
            _check_same_weights(found, weights)
        if is_summed:
            _check_same_sums(found, sums)

    n_samples = int(found.class_counts[factors > 0].sum())
    return data, ChunkedSource(coded, n_samples, class_weights, found.moments, may_change=source.may_change)


def _check_same_weights(found: Survey, weights: Array) -> None:
    """Raise ValueError if the classes' weights in a pass are not those of the first."""
    if not (np.abs(weights - found.class_weights) <= _ROUNDING["float64"] * found.class_weights.sum()).all():
        _raise_for_change("other numbers of rows, or weights, in a class")


def _check_same_sums(found: Survey, sums: Array) -> None:
    """Raise ValueError if the sums of the columns in a pass are not those of the first."""
    first, scale = found.sums
    is_known = np.isfinite(first)
    if not np.isfinite(sums[is_known]).all():
        _raise_for_change("NaN or inf in X")
    if not (np.abs(sums - first) <= _ROUNDING[found.data.X.dtype.name] * scale)[is_known].all():
        _raise_for_change("other numbers in X")


def _raise_for_change(got: str) -> None:
    raise ValueError(
        f"the rows must be the same in every pass, got {got} in a later pass; give what the first pass gave, in any "
        "order. partial_fit takes rows that are new in every pass."
    )
