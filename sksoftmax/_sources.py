"""Where rows come from that memory does not hold: an array on disk, or batches; checked as they are first read."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np
import scipy.sparse as sp

from sksoftmax import _pieces
from sksoftmax import _validation as border
from sksoftmax._batches import piece_order
from sksoftmax._pieces import Pieces, Sample
from sksoftmax._placement import where_the_fit_was
from sksoftmax._precondition import merged, moments_of
from sksoftmax._types import Array, Batch, Moments

_Predict = TypeVar("_Predict", bound=Callable[..., Array])

#: Reads all rows once: pieces of X, y and the weights, or None for weights of 1; in an order drawn, if it can.
Read = Callable[[np.random.RandomState | None], Iterator[tuple[Any, Any, Any]]]


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
    """

    data: Batch
    classes: Array
    class_weights: Array
    class_counts: Array
    n_read: int
    moments: Moments
    is_all: bool


def is_on_disk(X: Any) -> bool:
    """Whether X is an array that is read from a file as it is sliced, and more than the sample of such."""
    is_read = isinstance(X, np.memmap) or (hasattr(X, "chunks") and hasattr(X, "dtype") and hasattr(X, "shape"))
    return is_read and len(X.shape) == 2 and int(np.prod(X.shape)) * X.dtype.itemsize > _pieces.SAMPLE_SIZE


def slices(X: Any) -> list[slice]:
    """Consecutive rows of X, a piece each, of whole chunks if it has such."""
    n_samples = X.shape[0]
    size = max(1, _pieces.PIECE_SIZE // max(1, X.shape[1] * X.dtype.itemsize))
    chunk = (getattr(X, "chunks", None) or [1])[0]
    if isinstance(chunk, int):
        size = -(-size // chunk) * chunk
    return [slice(start, min(start + size, n_samples)) for start in range(0, n_samples, size)]


def by_pieces(predict: _Predict) -> _Predict:
    """The method, of X that is where the fit's was; of an array on disk it predicts a piece at a time."""

    @functools.wraps(predict)
    def predict_pieces(self: Any, X: Any) -> Array:
        if not is_on_disk(X):
            where_the_fit_was(self, X, predict.__name__)
            return predict(self, X)
        return np.concatenate([predict(self, np.asarray(X[rows])) for rows in slices(X)])

    return cast(_Predict, predict_pieces)


def of_array(X: Any, y: Any, sample_weight: Any) -> Read:
    """Slices of an array on disk."""
    y = np.asarray(y)
    weight = sample_weight if sample_weight is None or np.ndim(sample_weight) == 0 else np.asarray(sample_weight)
    border.of_one_length(X, y, weight if np.ndim(weight) else None)
    spans = slices(X)

    def read(rng: np.random.RandomState | None) -> Iterator[tuple[Any, Any, Any]]:
        for i in piece_order(len(spans), rng):
            rows = spans[i]
            yield np.asarray(X[rows]), y[rows], weight[rows] if np.ndim(weight) else weight

    return read


def of_batches(batches: Any) -> Read:
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
            if border.n_rows_of(X):
                yield X, y, weight[0] if weight else None

    return read


def survey(estimator: Any, read: Read, classes: Any, rng: np.random.RandomState) -> Survey:
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
    known = np.empty(0) if classes is None else np.unique(np.asarray(classes))
    code_of = {label: i for i, label in enumerate(known.tolist())}
    sample, totals, n_read = Sample(rng), np.zeros((2, 0)), 0
    is_sparse: bool | None = None
    moments: Moments | None = None
    for X, y, weight in read(None):
        n_read += border.n_rows_of(X)
        border.needs_numpy(X)
        rows = border.all_rows(estimator, X, y, weight, reset=is_sparse is None, is_stream=True)
        if is_sparse not in (None, sp.issparse(rows.X)):
            raise ValueError("the batches must be all sparse or all dense, got both.")
        is_sparse = sp.issparse(rows.X)
        labels, which = np.unique(rows.y, return_inverse=True)
        if classes is not None:
            border.codes_of(labels, known, "give them in classes as well, or leave it out.")
        elif not set(labels.tolist()) <= code_of.keys():
            known = np.union1d(known, labels) if len(known) else labels
        codes = np.array([code_of.setdefault(label, len(code_of)) for label in labels.tolist()], dtype=np.intp)[which]
        totals = np.pad(totals, ((0, 0), (0, len(code_of) - totals.shape[1])))
        rows = border.used(rows._replace(y=codes))
        if len(rows.y) == 0:
            continue
        own = moments_of(rows, fit_intercept=estimator.fit_intercept)
        moments = own if moments is None else merged(moments, totals[0].sum(), own, rows.weight.sum())
        totals += [np.bincount(rows.y, weight, len(code_of)) for weight in (rows.weight, None)]
        sample.add(rows, len(code_of))
    if n_read == 0:
        raise ValueError("batches must hold at least one row, got none.")
    border.at_least_two(known)
    border.some_weight(int(totals[1].sum()))
    assert moments is not None
    rank = np.searchsorted(known, list(code_of))  # codes were given as labels came
    data = sample.rows()
    class_weights, class_counts = totals[:, np.argsort(rank)]
    return Survey(data._replace(y=rank[data.y]), known, class_weights, class_counts, n_read, moments, sample.is_all)


def stratified(sample: Batch, class_weights: Array) -> Batch:
    """The sample, with weights that sum to ``class_weights`` over each class of which it has rows."""
    sampled = np.bincount(sample.y, sample.weight, len(class_weights))
    return sample._replace(weight=sample.weight * (class_weights / np.where(sampled > 0, sampled, 1.0))[sample.y])


def with_class_weight(found: Survey, read: Read, class_weight: Any) -> tuple[Batch, Pieces]:
    """The sample and all rows, with class weights multiplied in; the sample's classes weigh what all their rows do."""
    factors = border.class_factors(class_weight, found.classes, found.class_weights)
    class_weights = factors * found.class_weights
    data = stratified(border.used(found.data._replace(weight=found.data.weight * factors[found.data.y])), class_weights)
    dtype = data.X.dtype

    def coded(rng: np.random.RandomState | None) -> Iterator[Batch]:
        n_read = 0
        for X, labels, sample_weight in read(rng):
            X, y = border.as_rows(X, dtype), np.ravel(np.asarray(labels))
            n_read += len(y)
            codes = np.minimum(np.searchsorted(found.classes, y), len(found.classes) - 1)
            if n_read > found.n_read or (found.classes[codes] != y).any():
                break
            weight = factors[codes] if sample_weight is None else factors[codes] * np.asarray(sample_weight, float)
            yield border.used(Batch(X, codes, weight))
        else:
            if n_read == found.n_read:
                return
        raise ValueError(
            f"the rows must be the same in every pass, got other labels or not {found.n_read} rows in a later pass "
            "than the first."
        )

    return data, Pieces(coded, int(found.class_counts[factors > 0].sum()), class_weights, found.moments)
