import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.special import log_softmax, softmax

from sksoftmax._engines import array_api, naive
from sksoftmax._engines.device import to_host
from sksoftmax._types import Params
from tests.libraries import wrapped
from tests.problems import random_data, random_params

#: Sums of some 50 terms.
RTOL = {np.float64: 1e-11, np.float32: 1e-4}


def data(library, n_classes, dtype):
    X, y = random_data(n_classes=n_classes, dtype=dtype)
    weight = np.random.RandomState(0).uniform(0.5, 2.0, len(y))
    params = random_params(1 if n_classes == 2 else n_classes, X.shape[1])
    return params, X, wrapped(library.array(X)), y, weight


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("n_classes", [2, 3, 5])
def test_the_loss_and_its_gradient_equal_the_naive_ones(library, n_classes, dtype):
    params, X, there, y, weight = data(library, n_classes, dtype)
    want, want_grads = naive.loss_grad(params, X, y, weight, weight.sum())
    got, grads = array_api.loss_grad(params, there, y, weight, weight.sum())
    assert float(got) == pytest.approx(want, rel=RTOL[dtype])
    for part, of_naive in zip(grads, want_grads, strict=True):
        assert part.dtype == dtype
        assert_allclose(library.numpy(part.array), of_naive, rtol=RTOL[dtype], atol=RTOL[dtype] * 1e-2)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("n_classes", [2, 3])
def test_probabilities_and_hessian_products_equal_the_naive_ones(library, n_classes, dtype):
    params, X, there, _, weight = data(library, n_classes, dtype)
    direction = random_params(*params.coef.shape, seed=1)
    proba = array_api.proba(params, there)
    want = naive.proba(params, X)
    assert_allclose(library.numpy(proba.array), want, rtol=RTOL[dtype])
    got = array_api.hessian_product(proba, direction, there, weight, weight.sum())
    of_naive = naive.hessian_product(want, direction, X, weight, weight.sum())
    for part, of_loops in zip(got, of_naive, strict=True):
        assert_allclose(library.numpy(part.array), of_loops, rtol=RTOL[dtype], atol=RTOL[dtype] * 1e-2)


@pytest.mark.parametrize("n_classes", [2, 3])
def test_raw_predictions_of_any_size_give_finite_losses_and_gradients(library, n_classes):
    n_outputs = 1 if n_classes == 2 else 3
    coef = 1e4 * np.array([[1.0, -1.0], [0.0, 0.0], [-1.0, 1.0]])[:n_outputs]
    X, y, weight = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]), np.array([0, 1, n_classes - 1]), np.ones(3)
    params = Params(coef, np.zeros(n_outputs))
    want, want_grads = naive.loss_grad(params, X, y, weight, 3.0)
    got, grads = array_api.loss_grad(params, wrapped(library.array(X)), y, weight, 3.0)
    assert float(got) == pytest.approx(want, rel=1e-12)
    assert_allclose(to_host(grads.coef), want_grads.coef, rtol=1e-12)


def test_a_small_loss_keeps_its_digits(library):
    X, weight = np.array([[1.0], [2.0]]), np.ones(2)
    for coef, y in (([[-40.0]], [0, 0]), ([[40.0], [0.0], [0.0]], [0, 0])):
        params = Params(np.array(coef), np.zeros(len(coef)))
        got, _ = array_api.loss_grad(params, wrapped(library.array(X)), np.array(y), weight, 1.0)
        others = 1 if len(coef) == 1 else 2
        assert float(got) == pytest.approx(others * (np.exp(-40) + np.exp(-80)), rel=1e-12)


@pytest.mark.parametrize("n_classes", [2, 3])
def test_predictions_are_those_of_scipy(library, n_classes):
    raw = np.array([[0.0, 1.0, -1.0], [300.0, -500.0, 800.0], [1e-9, 0.0, 40.0]])[:, :n_classes]
    given = raw[:, 1] - raw[:, 0] if n_classes == 2 else raw
    there = wrapped(library.array(given))
    assert_allclose(library.numpy(array_api.predicted_proba(there).array), softmax(raw, axis=1), rtol=1e-14)
    logs = library.numpy(array_api.predicted_log_proba(there).array)
    assert_allclose(logs, log_softmax(raw, axis=1), rtol=1e-14, atol=1e-16)
