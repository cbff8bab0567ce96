import math
from fractions import Fraction

import numpy as np
import pytest
import scipy.sparse as sp
from numpy.testing import assert_allclose

from sksoftmax import softmax_loss_naive, softmax_loss_vectorized
from tests.problems import random_data

BOTH = pytest.mark.parametrize("loss_function", [softmax_loss_naive, softmax_loss_vectorized])


def layer(n_samples=12, seed=0):
    X, y = random_data(n_samples=n_samples, seed=seed)
    return np.random.RandomState(seed + 1).standard_normal((4, 3)), X, y


def softmax(row):
    e = [math.exp(z) for z in row]
    return [value / sum(e) for value in e]


@BOTH
def test_loss_and_gradient_by_hand(loss_function):
    # logits log(1), log(3): p = (1/4, 3/4); the label is class 0
    W = np.array([[0.0, math.log(3.0)]])
    loss, dW = loss_function(W, np.array([[1.0]]), np.array([0]), 0.1)
    assert loss == pytest.approx(math.log(4.0) + 0.05 * math.log(3.0) ** 2)
    assert_allclose(dW, [[-0.75, 0.75 + 0.1 * math.log(3.0)]])


@BOTH
def test_claim_1_the_derivative_has_the_shape_of_W(loss_function):
    W, X, y = layer()
    assert loss_function(W, X, y, 0.1)[1].shape == W.shape


@BOTH
def test_claim_2_one_input_updates_a_neuron_by_itself_times_one_number(loss_function):
    W, X, y = layer(n_samples=5)
    x = X[4]
    _, dW = loss_function(W, x[None], y[4:], 0.0)
    p = softmax(x @ W)
    for j in range(3):
        d_out = p[j] - (y[4] == j)
        assert_allclose(dW[:, j], x * d_out, rtol=1e-12, atol=1e-15)


@BOTH
def test_claim_3_updates_of_several_inputs_superpose(loss_function):
    W, X, y = layer()
    _, dW = loss_function(W, X, y, 0.0)
    each = [loss_function(W, X[i : i + 1], y[i : i + 1], 0.0)[1] for i in range(len(y))]
    assert_allclose(len(y) * dW, np.sum(each, axis=0), rtol=1e-12, atol=1e-14)


@BOTH
def test_claim_4_softmax_with_cross_entropy_sends_back_p_minus_t(loss_function):
    W, _, _ = layer()
    _, d_out = loss_function(W, np.eye(4)[:1], np.array([2]), 0.0)  # input e_0: dW's first row is dOut
    assert_allclose(d_out[0], np.array(softmax(W[0])) - [0, 0, 1], rtol=1e-12)


@BOTH
def test_claim_5_the_gradient_is_X_T_residual_over_n_plus_reg_W(loss_function):
    W, X, y = layer()
    residual = np.array([softmax(row) for row in X @ W])
    residual[np.arange(len(y)), y] -= 1
    _, dW = loss_function(W, X, y, 0.3)
    assert_allclose(dW, X.T @ residual / len(y) + 0.3 * W, rtol=1e-12, atol=1e-14)


@BOTH
def test_gradient_is_the_slope_of_the_loss(loss_function):
    W, X, y = layer()
    _, dW = loss_function(W, X, y, 0.3)
    rng = np.random.RandomState(2)
    for _ in range(5):
        direction = rng.standard_normal(W.shape)
        h = 1e-3
        at = [loss_function(W + k * h * direction, X, y, 0.3)[0] for k in (-2, -1, 1, 2)]
        slope = (at[0] - 8 * at[1] + 8 * at[2] - at[3]) / (12 * h)  # five-point: error O(h^4) = 1e-12
        assert slope == pytest.approx(np.vdot(dW, direction), rel=1e-8)


@pytest.mark.parametrize("container", [np.asarray, sp.csr_array, sp.csr_matrix, sp.coo_array])
@pytest.mark.parametrize("n_classes", [2, 3, 5])
def test_vectorized_equals_naive(container, n_classes):
    X, y = random_data(n_classes=n_classes, seed=3)
    W = np.random.RandomState(4).standard_normal((4, n_classes))
    want, want_dW = softmax_loss_naive(W, container(X), y, 0.1)
    got, dW = softmax_loss_vectorized(W, container(X), y, 0.1)
    assert got == pytest.approx(want, rel=1e-13)  # the same sum of ~50 terms, reordered
    assert_allclose(dW, want_dW, rtol=1e-12, atol=1e-15)


@BOTH
@pytest.mark.parametrize("size", [1e4, 1e8, 1e300])
def test_logits_of_any_finite_size_give_finite_values(loss_function, size):
    X, y = np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([0, 0])
    loss, dW = loss_function(np.array([[size, -size], [-size, size]]) / 2, X, y, 0.0)
    assert loss == pytest.approx(size / 2)  # row 0 is right (loss 0), row 1 wrong by size
    assert_allclose(dW, [[0, 0], [-0.5, 0.5]])


@BOTH
@pytest.mark.parametrize("number", [Fraction(1, 2), np.float32(0.5), np.array(0.5)[()]])
def test_numbers_of_any_type_are_taken(loss_function, number):
    W, X, y = layer()
    loss, dW = loss_function(W, X, y, number)
    want, want_dW = loss_function(W, X, y, 0.5)
    assert (type(loss), loss, dW.dtype) == (float, want, np.float64)
    np.testing.assert_array_equal(dW, want_dW)
    W = np.array(W, dtype=object) * 0 + number
    assert loss_function(W, X, y, 1)[0] == loss_function(W.astype(float), X, y, 1.0)[0]


@BOTH
def test_inputs_are_not_written(loss_function):
    W, X, y = layer()
    copies = W.copy(), X.copy(), y.copy()
    loss_function(W, X, y, 0.1)
    for array, copy in zip((W, X, y), copies, strict=True):
        np.testing.assert_array_equal(array, copy)


@BOTH
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"W": np.zeros((4, 1))}, r"n_classes >= 2, got shape \(4, 1\)"),
        ({"W": np.zeros((5, 3))}, r"X must be \(n_samples, 5\)"),
        ({"y": np.zeros(11, int)}, "12 integer class codes"),
        ({"y": np.zeros(12)}, r"dtype float64; encode labels with numpy\.unique"),
        ({"y": np.full(12, 3)}, "codes from 0 to 2, since W has 3 columns, got 3 to 3"),
        ({"reg": -1.0}, "reg must be a finite number >= 0, got -1"),
        ({"reg": np.nan}, "reg must be a finite number >= 0, got nan"),
        ({"reg": np.inf}, "reg must be a finite number >= 0, got inf"),
        ({"reg": np.array([1.0])}, r"reg must be a finite number >= 0, got array\(\[1\.\]\)"),
        ({"reg": [1.0]}, r"reg must be a finite number >= 0, got \[1\.0\]"),
        ({"reg": 1j}, "reg must be a finite number >= 0, got 1j"),
        ({"reg": "1"}, "reg must be a finite number >= 0, got '1'"),
        ({"reg": 10**400}, "reg must be a finite number >= 0, got one too large for float64"),
        ({"reg": -(10**400)}, "reg must be a finite number >= 0, got one too large for float64"),
        ({"reg": Fraction(10**400)}, "reg must be a finite number >= 0, got one too large for float64"),
        ({"W": [[10**400] * 3] * 4}, "Input W contains infinity or a value too large for float64"),
        ({"X": [[10**400] * 4] * 12}, "Input X contains infinity or a value too large for float64"),
        ({"y": [10**400] * 12}, "12 integer class codes, one per row of X, got shape .* and dtype object"),
        ({"reg": None}, "reg must be a finite number >= 0, got None"),
        ({"W": np.full((4, 3), np.nan)}, "Input W contains NaN"),
        ({"W": np.full((4, 3), 1j)}, "W must hold real numbers, got ndarray of dtype complex128"),
        ({"W": [[1.0, 2.0], [3.0]]}, "W must hold real numbers, got list of dtype object"),
        ({"X": np.full((12, 4), -np.inf)}, "Input X contains infinity"),
        ({"X": np.full((12, 4), "1")}, "X must hold real numbers, got ndarray of dtype <U1"),
        ({"X": sp.csr_array(np.full((12, 4), np.nan))}, r"Input X\.data contains NaN"),
        ({"X": sp.csr_array(np.full((12, 4), 1j))}, r"X\.data must hold real numbers, got ndarray of dtype complex128"),
        ({"y": np.full(12, "1")}, "12 integer class codes, one per row of X, got shape .* and dtype <U1"),
        ({"y": np.full(12, 1j)}, "12 integer class codes, one per row of X, got shape .* and dtype complex128"),
        ({"y": [[0], [0, 1]]}, "12 integer class codes, one per row of X, got shape .* and dtype object"),
        (
            {"W": np.full((4, 3), 1e200), "reg": 1.0},
            "small enough for a finite loss and gradient, got an overflow",
        ),
    ],
)
def test_errors_say_what_must_hold_and_what_came(loss_function, change, message):
    W, X, y = layer()
    with pytest.raises(ValueError, match=message):
        loss_function(**({"W": W, "X": X, "y": y, "reg": 0.0} | change))
