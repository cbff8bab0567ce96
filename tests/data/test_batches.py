import numpy as np
import pytest
import scipy.sparse as sp
from numpy.testing import assert_array_equal

from sksoftmax._data.batches import epoch_batches, subset
from sksoftmax._types import Batch

CONTAINER = pytest.mark.parametrize("container", [np.asarray, sp.csr_array])


def rows(n, container=np.asarray):
    return Batch(container(np.arange(1.0, n + 1)[:, None]), np.arange(n) % 3, np.arange(1.0, n + 1))


def dense(X):
    return X.toarray() if sp.issparse(X) else X.copy()


@CONTAINER
@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("n", [7, 8, 9, 100])
def test_an_epoch_has_every_row_once_and_its_parts_together(container, shuffle, n):
    seen = []
    for batch in epoch_batches(rows(n, container), 8, np.random.RandomState(0), shuffle=shuffle):
        X = dense(batch.X)[:, 0]
        assert_array_equal(X, batch.weight)
        assert_array_equal(batch.y, (X - 1) % 3)
        seen.extend(X)
    assert sorted(seen) == list(range(1, n + 1))
    assert (seen == sorted(seen)) == (not shuffle or n <= 8)


def test_batches_are_of_one_size_up_to_a_row_and_never_larger_than_asked():
    sizes = [len(b.y) for b in epoch_batches(rows(101), 25, np.random.RandomState(0), shuffle=True)]
    assert sizes == [20, 20, 20, 20, 21]


def test_orders_depend_on_the_seed_alone_and_differ_between_epochs():
    def orders(seed):
        rng = np.random.RandomState(seed)
        return [[b.X[0, 0] for b in epoch_batches(rows(40), 1, rng, shuffle=True)] for _ in range(2)]

    assert orders(3) == orders(3)
    assert orders(3) != orders(4)
    assert orders(3)[0] != orders(3)[1]


def test_the_whole_data_are_passed_as_they_are():
    data = rows(5)
    assert next(epoch_batches(data, None, np.random.RandomState(0), shuffle=True)) is data


def test_subset_is_sorted_without_repetition():
    chosen = subset(1000, 10, np.random.RandomState(0))
    assert len(set(chosen)) == 10
    assert_array_equal(chosen, np.sort(chosen))
    assert_array_equal(subset(3, 10, np.random.RandomState(0)), [0, 1, 2])
