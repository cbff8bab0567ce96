import pickle

import numpy as np
import pytest
import scipy.sparse as sp
from numpy.testing import assert_allclose, assert_array_equal

from sksoftmax._engines.device import DeviceArray, sum_of_squares, to_device_of, to_host, to_numpy, zeros_on_device
from tests.libraries import wrapped

RNG = np.random.RandomState(0)
TABLE = RNG.standard_normal((5, 3)).astype(np.float32)
ROW, COLUMN = RNG.standard_normal(3), RNG.standard_normal(5)
ROWS = np.array([4, 0, 0])

OPERATIONS = {
    "row": lambda x: x - ROW,
    "row from the left": lambda x: ROW / x,
    "column": lambda x: COLUMN[:, None] * x,
    "number": lambda x: 2.0 * x + 1 - np.float64(0.5),
    "negative and absolute": lambda x: abs(-x),
    "itself": lambda x: x / x * x - x,
    "product": lambda x: x @ ROW,
    "product from the left": lambda x: COLUMN @ x,
    "product with a table": lambda x: x.T @ x,
    "product of three dimensions": lambda x: (x.T * np.ones((2, 1, 5), np.float32)) @ x,
    "functions": lambda x: np.log(np.maximum(np.sqrt(np.exp(x)), 1.5)) * np.sign(x),
    "where": lambda x: np.where(x > 0, x, 2 * x),
    "outer": lambda x: np.outer(x[0], x[1]),
    "inner": lambda x: np.vdot(x, x),
    "concatenated": lambda x: np.concatenate([x, np.ones((5, 1), np.float32)], axis=1),
    "rows by number": lambda x: x[ROWS],
    "rows by a mask": lambda x: x[COLUMN > 0],
    "entries by number": lambda x: x[ROWS, np.array([0, 1, 2])],
    "slice beyond the end": lambda x: x[3:100],
    "every other": lambda x: x[::2],
    "a row": lambda x: x[1],
    "new axes": lambda x: x[:, None, :] * x[:, :, None],
    "sum": lambda x: x.sum(axis=0) + x.sum(),
    "extremes": lambda x: x.max(axis=1) - x.min(axis=1),
    "mean": lambda x: x.mean(axis=0, dtype=np.float64),
    "codes": lambda x: x.argmax(axis=1),
    "reshaped": lambda x: x.reshape(3, 5),
    "converted": lambda x: x.astype(np.float64, copy=False) / 3,
    "squares": lambda x: sum_of_squares(x, axis=0) + sum_of_squares(x.T, axis=1),
}


@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)
def test_numpys_words_mean_what_they_mean_of_numpys_arrays(library, operation):
    want, got = operation(TABLE), operation(wrapped(library.array(TABLE)))
    assert isinstance(got, DeviceArray)
    assert got.shape == np.shape(want)
    assert_allclose(library.numpy(got.array), want, rtol=1e-6, atol=1e-6)  # float32's rounding


def test_what_is_added_in_place_to_numpys_arrays_goes_there(library):
    total = np.ones(3)
    kept = total
    total += wrapped(library.array(TABLE)).sum(axis=0)
    assert total is kept
    assert_allclose(total, 1 + TABLE.sum(axis=0), rtol=1e-6)


def test_sizes_and_dtypes_are_numpys(library):
    table = wrapped(library.array(TABLE))
    assert (table.shape, table.ndim, len(table), table.dtype, table.nbytes) == ((5, 3), 2, 5, np.float32, 60)
    assert wrapped(library.array(ROWS)).dtype == np.int64
    assert float(np.vdot(table, table)) == pytest.approx(np.vdot(TABLE, TABLE), rel=1e-6)


def test_nothing_moves_to_host_memory_by_accident(library):
    table = wrapped(library.array(TABLE))
    for accident in (np.asarray, np.ascontiguousarray, lambda x: np.einsum("ij->j", x), np.median, np.add.reduce):
        with pytest.raises(TypeError):
            accident(table)
    assert_array_equal(to_host(table), TABLE)


def test_values_are_put_beside_an_array_in_its_dtype(library):
    table = wrapped(library.array(TABLE))
    assert_allclose(library.numpy(to_device_of(ROW, table).array), ROW.astype(np.float32), rtol=0)
    assert to_device_of(table[0], table) is not None
    assert zeros_on_device((2, 2), table).dtype == np.float64
    assert to_device_of(ROW[::-1], table, np.float64).dtype == np.float64  # PyTorch takes no negative strides
    assert to_device_of(ROW, TABLE).dtype == np.float32


def test_a_pickle_holds_the_array_and_the_name_of_its_library(library):
    back = pickle.loads(pickle.dumps(wrapped(library.array(TABLE))))
    assert_array_equal(library.numpy(back.array), TABLE)
    assert_allclose(library.numpy((back + 1).array), TABLE + 1)


def test_a_copy_is_one(library):
    table = wrapped(library.array(TABLE))
    copy = table.copy()
    table.array[0, 0] = 9.0
    assert_array_equal(to_host(copy), TABLE)


def test_arrays_of_numpys_and_sparse_ones_are_in_numpy_as_they_are(library):
    sparse = sp.csr_array(TABLE)
    assert to_numpy(TABLE) is TABLE
    assert to_numpy(sparse) is sparse
    moved = to_numpy(library.array(TABLE))
    moved += 1  # it may be written to
    assert_allclose(moved, TABLE + 1)
