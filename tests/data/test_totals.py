"""Statistics of parts, added up, are those of all rows."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from sksoftmax._data.totals import Totals, summarize
from sksoftmax._types import Batch
from tests.problems import CONTAINERS, random_data


@pytest.mark.parametrize("container", CONTAINERS)
def test_totals_of_parts_are_the_statistics_of_all_rows(container):
    X, codes = random_data(60)
    labels = np.array(["pear", "fig", "apple"])
    weight = np.where(codes == 1, 0.0, 0.5 + np.arange(60))  # no fig has weight
    data = Batch(CONTAINERS[container](X), labels[codes], weight)
    want = summarize(data, fit_intercept=True)[1]
    totals = Totals(np.empty(0))
    for start in range(0, 60, 7):
        rows, part = summarize(Batch(*(column[start : start + 7] for column in data)), fit_intercept=True)
        totals.add(part, rows.weight.sum())
    order = np.argsort(totals.ranks(want.labels))
    assert totals.n_classes == 3
    assert_array_equal(totals.class_counts[order], want.counts)
    assert_allclose(totals.class_weights[order], want.weights, rtol=1e-12)  # the same sums in another order
    assert_allclose(totals.moments.mean, want.moments.mean, rtol=1e-10, atol=1e-14)


def test_a_label_keeps_the_code_that_it_gets_first():
    totals = Totals(np.array([5, 9]))
    rows = Batch(np.ones((3, 1)), np.array([9, 7, 2]), np.ones(3))
    assert_array_equal(totals.add(summarize(rows, fit_intercept=True)[1], 3.0), [2, 3, 1])  # of 2, 7 and 9
    assert totals.has_labels(np.array([2, 5]))
    assert not totals.has_labels(np.array([2, 3]))
    assert_array_equal(totals.ranks(np.array([2, 5, 7, 9])), [1, 3, 0, 2])
