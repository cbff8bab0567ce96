"""The two engines: ``vectorized`` and ``naive``."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn._loss import HalfBinomialLoss, HalfMultinomialLoss

from sksoftmax._data import validation as _validation
from sksoftmax._engines import naive, registry
from sksoftmax._training.plan import choose_engine
from sksoftmax._types import Params
from tests.problems import CONTAINERS, KERNELS, random_data, random_params

KERNEL = pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS)
CONTAINER = pytest.mark.parametrize("container", CONTAINERS.values(), ids=CONTAINERS)
N_CLASSES = pytest.mark.parametrize("n_classes", [2, 3, 5])


def test_every_engine_that_users_may_ask_for_is_tested():
    assert registry.KERNELS == KERNELS
    assert _validation.PARAMETER_CONSTRAINTS["engine"][0].options == {"auto", "compiled", *KERNELS}
    assert {choose_engine(name) for name in KERNELS} == set(KERNELS)


def case(n_classes, container=np.asarray, seed=0, dtype=np.float64):
    """Parameters, X, y, weight: one row of parameters for two classes."""
    X, y = random_data(n_classes=n_classes, seed=seed, dtype=dtype)
    params = random_params(1 if n_classes == 2 else n_classes, X.shape[1], seed + 1)
    return params, container(X), y, np.random.RandomState(seed + 2).uniform(0.5, 2, len(y))


@KERNEL
@CONTAINER
@N_CLASSES
@pytest.mark.parametrize(("dtype", "rtol"), [(np.float64, 1e-12), (np.float32, 1e-4)])
def test_kernels_equal_naive(kernel, container, n_classes, dtype, rtol):
    params, X, y, weight = case(n_classes, container, dtype=dtype)
    want, want_grads = naive.loss_grad(params, X, y, weight, weight.sum())
    got, grads = kernel.loss_grad(params, X, y, weight, weight.sum())
    assert got == pytest.approx(want, rel=rtol)
    p = naive.proba(params, X)
    assert_allclose(kernel.raw_prediction(params, X), naive.raw_prediction(params, X), rtol=rtol, atol=rtol)
    assert_allclose(kernel.proba(params, X), p, rtol=rtol)
    direction = random_params(*params.coef.shape, seed=9)
    product = kernel.hessian_product(kernel.proba(params, X), direction, X, weight, weight.sum())
    want_product = naive.hessian_product(p, direction, X, weight, weight.sum())
    for left, right in zip((*grads, *product), (*want_grads, *want_product), strict=True):
        assert_allclose(left, right, rtol=rtol, atol=rtol)


@KERNEL
@pytest.mark.parametrize("n_classes", [2, 4])
def test_equals_scikit_learns_loss(kernel, n_classes):
    params, X, y, weight = case(n_classes)
    theirs = HalfBinomialLoss() if n_classes == 2 else HalfMultinomialLoss(n_classes=n_classes)
    raw = X @ params.coef.T + params.intercept
    raw = raw.ravel() if n_classes == 2 else raw
    losses, gradients = theirs.loss_gradient(y.astype(float), raw, sample_weight=weight)
    loss, grads = kernel.loss_grad(params, X, y, weight, weight.sum())
    residual = gradients.reshape(len(y), -1) / weight.sum()
    assert loss == pytest.approx(losses.sum() / weight.sum(), rel=1e-12)
    assert_allclose(grads.coef, residual.T @ X, rtol=1e-11, atol=1e-14)
    assert_allclose(grads.intercept, residual.sum(axis=0), rtol=1e-11, atol=1e-14)


@KERNEL
@N_CLASSES
def test_hessian_product_is_the_slope_of_the_gradient(kernel, n_classes):
    params, X, y, weight = case(n_classes)
    direction = random_params(*params.coef.shape, seed=9)
    product = kernel.hessian_product(kernel.proba(params, X), direction, X, weight, weight.sum())
    h = 1e-3

    def grads(k):
        moved = Params(*(a + k * h * d for a, d in zip(params, direction, strict=True)))
        return np.hstack([g.ravel() for g in kernel.loss_grad(moved, X, y, weight, weight.sum())[1]])

    slope = (grads(-2) - 8 * grads(-1) + 8 * grads(1) - grads(2)) / (12 * h)
    assert_allclose(np.hstack([g.ravel() for g in product]), slope, rtol=1e-6, atol=1e-9)


@KERNEL
@CONTAINER
@N_CLASSES
def test_kernels_are_additive_over_rows_for_a_fixed_total(kernel, container, n_classes):
    params, X, y, weight = case(n_classes, container)
    whole, whole_grads = kernel.loss_grad(params, X, y, weight, 7.0)
    parts = [kernel.loss_grad(params, X[s], y[s], weight[s], 7.0) for s in (slice(0, 5), slice(5, None))]
    assert whole == pytest.approx(sum(loss for loss, _ in parts), rel=1e-12)
    assert_allclose(whole_grads.coef, sum(g.coef for _, g in parts), rtol=1e-11, atol=1e-14)


@KERNEL
@CONTAINER
@N_CLASSES
def test_kernels_write_no_input_and_remember_nothing(kernel, container, n_classes):
    params, X, y, weight = case(n_classes, container)
    entries = X if container is np.asarray else X.data
    before = [a.copy() for a in (*params, entries, y, weight)]
    first = kernel.loss_grad(params, X, y, weight, 7.0)
    other_y = (y + 1) % n_classes
    kernel.loss_grad(params, X, other_y, weight, 7.0)
    again = kernel.loss_grad(params, X, y, weight, 7.0)
    assert first[0] == again[0]
    assert_array_equal(first[1].coef, again[1].coef)
    for now, then in zip((*params, entries, y, weight), before, strict=True):
        assert_array_equal(now, then)


@KERNEL
@pytest.mark.parametrize("n_outputs", [1, 3])
def test_kernels_are_stable_for_huge_raw_predictions(kernel, n_outputs):
    params = Params(np.linspace(-1e4, 1e4, n_outputs)[:, None] + 1e4 * (n_outputs == 1), np.zeros(n_outputs))
    loss, grads = kernel.loss_grad(params, np.array([[1.0], [-1.0]]), np.array([0, 1]), np.ones(2), 2.0)
    assert np.isfinite(loss)
    assert all(np.isfinite(g).all() for g in grads)


@KERNEL
def test_loss_of_a_well_separated_row_keeps_its_digits(kernel):
    params = Params(np.array([[30.0]]), np.zeros(1))
    loss, _ = kernel.loss_grad(params, np.ones((1, 1)), np.ones(1, int), np.ones(1), 1.0)
    assert loss == pytest.approx(np.log1p(np.exp(-30.0)), rel=1e-2)  # 9.4e-14, where 30 has 4e-15 of rounding
