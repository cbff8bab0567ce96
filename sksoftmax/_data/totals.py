"""Statistics of parts of the rows, and their totals over all parts.

``out_of_core.survey`` adds up the chunks of a file or of the user's batches; ``sksoftmax.dask`` adds up the partitions
of a cluster.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from sksoftmax._data.arrays import drop_zero_weight
from sksoftmax._data.labels import classes_and_codes
from sksoftmax._maths.preconditioner import diagonal_moments, merge_moments
from sksoftmax._types import Array, Batch, Moments


class Statistics(NamedTuple):
    """Classes, weights and column moments of some rows.

    Attributes
    ----------
    labels : ndarray of shape (n_labels,)
        Sorted labels of the rows, including those of weight 0.
    weights : ndarray of shape (n_labels,)
        Sum of the sample weights of each label.
    counts : ndarray of shape (n_labels,)
        Number of rows of positive weight of each label.
    moments : Moments or None
        Statistics of the columns; None if no row has a positive weight.
    """

    labels: Array
    weights: Array
    counts: Array
    moments: Moments | None


def summarize(rows: Batch, *, fit_intercept: bool) -> tuple[Batch, Statistics]:
    """Return the rows of positive weight, with y as positions in ``labels``, and the statistics of all rows."""
    labels, codes = classes_and_codes(rows.y)
    rows = drop_zero_weight(rows._replace(y=codes))
    weights, counts = (np.bincount(rows.y, weight, len(labels)) for weight in (rows.weight, None))
    moments = diagonal_moments(rows, fit_intercept=fit_intercept) if len(rows.y) else None
    return rows, Statistics(labels, weights, counts, moments)


class Totals:
    """Statistics of all parts of the rows, added one after the other.

    A label keeps the code that it gets when it first comes, so that rows can be coded before all labels are known.

    Parameters
    ----------
    labels : ndarray of shape (n_labels,)
        Labels with the codes 0 to n_labels - 1; empty if none is known yet.

    Attributes
    ----------
    moments : Moments or None
        Statistics of the columns; None before a row of positive weight comes.
    """

    def __init__(self, labels: Array) -> None:
        self._code_of = {label: i for i, label in enumerate(labels.tolist())}
        self._sums = np.zeros((2, len(self._code_of)))
        self.moments: Moments | None = None

    @property
    def n_classes(self) -> int:
        """Number of labels so far."""
        return len(self._code_of)

    @property
    def class_weights(self) -> Array:
        """Sum of the sample weights of each label, in the order of the codes."""
        return self._sums[0]

    @property
    def class_counts(self) -> Array:
        """Number of rows of positive weight of each label, in the order of the codes."""
        return self._sums[1]

    def has_labels(self, labels: Array) -> bool:
        """Return whether each of these labels has a code."""
        return set(labels.tolist()) <= self._code_of.keys()

    def add(self, part: Statistics, weight: float) -> Array:
        """Add a part, whose rows have this sum of weights; return the codes of its labels, old and new."""
        labels = part.labels.tolist()
        codes = np.array([self._code_of.setdefault(label, len(self._code_of)) for label in labels], dtype=np.intp)
        self._sums = np.pad(self._sums, ((0, 0), (0, self.n_classes - self._sums.shape[1])))
        if self.moments is None:
            self.moments = part.moments
        elif part.moments is not None:
            self.moments = merge_moments(self.moments, self.class_weights.sum(), part.moments, weight)
        self._sums[:, codes] += [part.weights, part.counts]
        return codes

    def ranks(self, classes: Array) -> Array:
        """Return the position in ``classes``, which are all labels sorted, of the label of each code."""
        return np.searchsorted(classes, np.array(list(self._code_of), dtype=classes.dtype))
