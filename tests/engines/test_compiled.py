"""The kernels in C++: against naive sums, the equations they solve, and other variants; their errors and interrupts."""

import os
import signal
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import entr, expit, logsumexp
from scipy.special import softmax as scipy_softmax

from sksoftmax import SoftmaxClassifier
from sksoftmax._engines import compiled, moments, vectorized
from sksoftmax._maths.curvature import proba_and_variances
from sksoftmax._maths.saturation import _LinearizedSums
from sksoftmax._types import Params

kernels = pytest.importorskip("_sksoftmax_kernels")

DTYPE = pytest.mark.parametrize("dtype", [np.float32, np.float64])
INDEX = pytest.mark.parametrize("index", [np.int32, np.int64])
N_CLASSES = pytest.mark.parametrize("n_classes", [2, 3, 9, 43])


@pytest.fixture(params=kernels.variants())
def variant(request):
    """Each variant that this processor can run."""
    kernels.use_variant(request.param)
    yield request.param
    kernels.use_variant(kernels.variants()[-1])


def test_there_is_always_a_baseline_and_no_unknown_variant():
    assert kernels.variants()[0] == "baseline"
    with pytest.raises(ValueError, match="no variant pdp11 on this processor"):
        kernels.use_variant("pdp11")


def test_kernels_of_another_version_are_not_used(monkeypatch):
    monkeypatch.setattr(kernels, "VERSION", -1)
    module, reason = compiled._import_kernels()
    assert module is None
    assert reason == f"the installed kernels have version -1, this package needs {compiled._VERSION}"


# --- softmax of tables -------------------------------------------------------------------------------------


def exact_softmax(z, y):
    """Losses and residuals of raw predictions (n_classes, n) in extended precision."""
    exps = np.exp(z.astype(np.longdouble) - z.max(axis=0))
    rows = np.arange(len(y))
    others = exps.copy()
    others[y, rows] = 0
    others = others.sum(axis=0)
    residual = exps / exps.sum(axis=0)
    residual[y, rows] = -others / exps.sum(axis=0)
    losses = np.log1p(others + (exps[y, rows] - 1)) + z.max(axis=0) - z[y, rows].astype(np.longdouble)
    return losses.astype(float), residual.astype(float)


@DTYPE
@pytest.mark.parametrize("n_rows", [1, 63, 64, 200])
@pytest.mark.parametrize("sure", [-8.0, 0.0, 8.0, 25.0])  # of class 1, more or less
@N_CLASSES
def test_losses_and_residuals_keep_their_digits_however_sure_a_row_is(n_classes, sure, n_rows, dtype, variant):
    rng = np.random.default_rng(0)
    n_outputs = 1 if n_classes == 2 else n_classes
    z = (3 * rng.standard_normal((n_outputs, n_rows))).astype(dtype)
    z[-1 if n_classes == 2 else 1] += sure
    y, weight = rng.integers(n_classes, size=n_rows), rng.uniform(0.5, 2, n_rows)
    table = z if n_outputs > 1 else np.vstack([np.zeros_like(z), z])
    losses, residual = exact_softmax(table, y)
    sums = np.ones(n_outputs)
    loss = kernels.loss_and_residual(z, y, weight, sums)
    rtol = 100 * float(np.finfo(dtype).eps)  # of exp's argument
    assert loss == pytest.approx(weight @ losses, rel=rtol)
    residual = (weight * residual)[-n_outputs:]
    assert_allclose(z, residual, rtol=rtol)
    assert_allclose(sums - 1, residual.sum(axis=1), rtol=1e-6, atol=10 * rtol)


@DTYPE
def test_a_far_smaller_raw_prediction_has_probability_0_or_a_normal_number(dtype, variant):
    smallest = np.log(np.finfo(dtype).tiny)
    z = np.zeros((2, 4), dtype)
    z[1] = [-1e9, 1.1 * smallest, 0.9 * smallest, -1]
    p = np.vstack([z, np.full(4, -5, dtype)])  # a third class: two have one row of raw predictions
    kernels.softmax_in_place(p)
    assert_array_equal(p[1, :2], 0)
    assert (p[1, 2:] > np.finfo(dtype).tiny).all()


@DTYPE
@pytest.mark.parametrize("n_rows", [1, 8, 13])
def test_the_probability_of_the_second_class_is_that_of_scipy(n_rows, dtype, variant):
    z = np.concatenate([[0.0, 40, -40, 700, -700, 1e30, -1e30], np.linspace(-9, 9, n_rows)]).astype(dtype)
    p = np.empty(len(z))
    kernels.expit(z, p)
    assert_allclose(p, expit(z.astype(np.float64)), rtol=1e-14, atol=1e-300)


@DTYPE
@pytest.mark.parametrize("n_rows", [1, 16, 100])
def test_probabilities_and_their_variances_are_those_of_numpy(n_rows, dtype, variant):
    z = np.random.default_rng(0).normal(0, 9, (5, n_rows)).astype(dtype)
    z[:, 0] = 0  # all classes tie
    proba = np.exp(z - z.max(axis=0))
    proba /= proba.sum(axis=0)
    for got, want in zip(compiled.proba_and_variances(proba), proba_and_variances(proba), strict=True):
        assert_allclose(got, want, rtol=1e-14, atol=0)


def test_a_pass_leaves_subnormal_numbers_to_others_as_they_are():
    X, columns = np.ones((4, 3), np.float32), np.ones((3, 5), np.float32)
    kernels.raw_predictions_dense(X, columns, np.zeros(5, np.float32), np.empty((5, 4), np.float32))
    tiny = np.array([1e-30], np.float32)
    assert (tiny * np.float32(1e-10))[0] > 0


@DTYPE
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    n_rows=st.integers(1, 200), n_features=st.integers(0, 1200), n_outputs=st.integers(1, 90), seed=st.integers(0, 99)
)
@example(n_rows=13, n_features=1100, n_outputs=72, seed=0)  # the sums have parts, and all kinds of panels and tiles
def test_products_of_any_shape_are_those_of_numpy(n_rows, n_features, n_outputs, seed, dtype, variant):
    rng = np.random.default_rng(seed)
    X, columns = (rng.standard_normal(shape).astype(dtype) for shape in ((n_rows, n_features), (n_features, n_outputs)))
    intercept, y = rng.standard_normal(n_outputs).astype(dtype), rng.integers(max(2, n_outputs), size=n_rows)
    z = np.empty((n_outputs, n_rows), dtype)
    kernels.raw_predictions_dense(X, columns, intercept, z)
    exact = X.astype(float) @ columns.astype(float) + intercept
    eps = np.finfo(dtype).eps
    sizes = np.abs(X).astype(float) @ np.abs(columns) + np.abs(intercept)
    assert (np.abs(z.T - exact) <= eps * (2 + n_features) * sizes).all()
    weight, gradient, sums = rng.uniform(0.5, 2, n_rows), np.ones((n_outputs, n_features)), np.zeros(n_outputs)
    kernels.add_loss_gradient(X, columns, intercept, y, weight, gradient, sums)
    residual = z.copy()
    kernels.loss_and_residual(residual, y, weight, np.zeros(n_outputs))
    want = 1 + residual.astype(float) @ X.astype(float)
    sizes = 1 + np.abs(residual).astype(float) @ np.abs(X)
    assert (np.abs(gradient - want) <= eps * (2 + n_rows) * sizes).all()


@DTYPE
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(n_rows=st.integers(1, 300), n_features=st.integers(1, 900), n_left=st.integers(1, 40), seed=st.integers(0, 99))
def test_an_exact_product_is_that_of_float64(n_rows, n_features, n_left, seed, dtype, variant):
    rng = np.random.default_rng(seed)
    left, X = rng.standard_normal((n_left, n_rows)), rng.standard_normal((n_rows, n_features)).astype(dtype)
    sums = np.ones((n_left, n_features))
    kernels.add_exact_product(left, X, sums)
    assert_allclose(sums - 1, left @ X.astype(float), rtol=0, atol=1e-14 * (2 + n_rows))


@DTYPE
@pytest.mark.parametrize("size", [0.0, 0.01, 1.5, 40.0])  # of the step: none, some and most rows saturate
@pytest.mark.parametrize("n_classes", [1, 3, 11])
def test_linearised_probabilities_are_those_of_numpy(n_classes, size, dtype, variant):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((200, 7)).astype(dtype)
    params = Params(3 * rng.standard_normal((n_classes, 7)), rng.standard_normal(n_classes))
    step = Params(size * rng.standard_normal((n_classes, 7)), size * rng.standard_normal(n_classes))
    weight = rng.uniform(0.5, 2, 200)
    coef = np.concatenate([params.coef, step.coef]).astype(dtype)
    both = Params(coef, np.concatenate([params.intercept, step.intercept, np.zeros(n_classes)]).astype(dtype))
    by_numpy = SimpleNamespace(proba=compiled.proba, raw_prediction=compiled.raw_prediction)  # not the engine itself
    want = _LinearizedSums(by_numpy, by_numpy).loss_grad(both, X, None, weight, weight.sum())
    got = _LinearizedSums(compiled, compiled).loss_grad(both, X, None, weight, weight.sum())
    rtol = 1e-5 if dtype == np.float32 else 1e-11
    assert got[0] == pytest.approx(want[0], rel=rtol, abs=rtol * size)
    for part, wanted in zip(got[1], want[1], strict=True):
        assert_allclose(part, wanted, rtol=0, atol=rtol * max(1.0, size))
    n_saturated = np.count_nonzero(np.abs(want[1].coef[n_classes:]).sum(axis=1))
    assert (n_saturated > 0) == (size > 1)


@DTYPE
@pytest.mark.parametrize("n_rows", [1, 64, 100])
def test_probabilities_and_hessian_products_are_those_of_numpy(n_rows, dtype, variant):
    rng = np.random.default_rng(0)
    z, dz = (3 * rng.standard_normal((2, 5, n_rows))).astype(dtype)
    weight, sums = rng.uniform(0.5, 2, n_rows), np.ones(5)
    p = z.copy()
    kernels.softmax_in_place(p)
    assert_allclose(p, scipy_softmax(z.astype(float), axis=0), rtol=100 * np.finfo(dtype).eps)
    want = vectorized.multiply_hessian(p.astype(float), dz.astype(float), weight)
    kernels.multiply_hessian(p, dz, weight, sums)
    assert_allclose(dz, want, rtol=0, atol=40 * np.finfo(dtype).eps)
    assert_allclose(sums - 1, want.sum(axis=1), rtol=0, atol=400 * np.finfo(dtype).eps)


@DTYPE
@INDEX
@N_CLASSES
def test_sparse_products_are_those_of_scipy(n_classes, index, dtype, variant):
    rng = np.random.default_rng(0)
    X = sp.csr_array(sp.random(50, 30, 0.2, "csr", random_state=0, dtype=dtype))
    X.indptr, X.indices = X.indptr.astype(index), X.indices.astype(index)
    n_outputs = 1 if n_classes == 2 else n_classes
    params = Params(rng.standard_normal((n_outputs, 30)), rng.standard_normal(n_outputs))
    z, want = compiled.raw_prediction(params, X), vectorized.raw_prediction(params, X)
    assert z.flags.c_contiguous
    assert_allclose(z, want, rtol=0, atol=40 * np.finfo(dtype).eps)
    residual = rng.standard_normal((n_outputs, 50)).astype(dtype)
    assert_allclose(compiled._accumulate_coef(residual, X), residual @ X, rtol=0, atol=100 * np.finfo(dtype).eps)


@DTYPE
@pytest.mark.parametrize(("p", "n_classes"), [(5, 12), (40, 1), (70, 3), (530, 2)])  # by tiles; by the BLAS
def test_moments_and_hessians_are_those_of_numpy_in_each_variant(p, n_classes, dtype, variant):
    rng = np.random.default_rng(0)
    X, weight = rng.standard_normal((2 * p, 300)).T.astype(dtype)[:, :p], rng.uniform(size=300)  # not contiguous
    mean, factor, proba = rng.standard_normal(p), rng.uniform(size=p), rng.dirichlet(np.ones(n_classes + 1), 300).T[:-1]
    tolerance = {"rtol": 0, "atol": 1e5 * np.finfo(dtype).eps}
    for sums in (
        lambda engine: moments.summarize_columns(engine, X, weight),
        lambda engine: moments.column_squares(engine, X, mean, factor, weight),
        lambda engine: moments.row_squares(engine, X, mean, factor),
        lambda engine: np.tril(moments.gram(engine, X, mean, factor, weight, p + 1)),
        lambda engine: np.tril(moments.loss_hessian(engine, X, mean, factor, weight, proba, proba**2, p + 1)),
    ):
        assert_allclose(sums(compiled), sums(vectorized), **tolerance)


@DTYPE
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize(
    ("n", "p", "n_classes"),
    [
        (200, 30, 2),
        (4000, 100, 2),
        (200, 30, 5),
        (3000, 200, 7),
        (40, 700, 30),
        (5, 1, 3),
        (300, 0, 3),
        (0, 4, 3),
        (700, 30, 130),
        (5, 0, 200),
    ],  # one span, and many; the last two by the BLAS
)
def test_sums_over_dense_rows_are_those_of_numpy(n, p, n_classes, order, dtype, variant):
    rng = np.random.default_rng(0)
    n_outputs = 1 if n_classes == 2 else n_classes
    X = np.asarray(rng.standard_normal((n, p)), dtype, order=order)
    y, weight = rng.integers(n_classes, size=n), rng.uniform(0.5, 2, n)
    params, direction = (
        Params(rng.standard_normal((n_outputs, p)) / (p + 1) ** 0.5, rng.standard_normal(n_outputs)) for _ in range(2)
    )
    tolerance = {"rtol": 0, "atol": 100 * np.finfo(dtype).eps}
    exact = X.astype(np.float64)
    assert_allclose(compiled.raw_prediction(params, X), vectorized.raw_prediction(params, exact), **tolerance)
    loss, grads = compiled.loss_grad(params, X, y, weight, n + 1.0)
    want, want_grads = vectorized.loss_grad(params, exact, y, weight, n + 1.0) if n else (0.0, Params(0.0, 0.0))
    assert loss == pytest.approx(want, rel=100 * float(np.finfo(dtype).eps))
    proba = compiled.proba(params, X)
    product = compiled.hessian_product(proba, direction, X, weight, n + 1.0)
    want_product = vectorized.hessian_product(proba.astype(np.float64), direction, exact, weight, n + 1.0)
    for got, wanted in zip((*grads, *product), (*want_grads, *want_product), strict=True):
        assert_allclose(got, np.broadcast_to(wanted, got.shape), **tolerance)
    assert {part.dtype for part in grads} == {np.dtype(np.float64)}  # spans of rows are added in float64


@DTYPE
@INDEX
@pytest.mark.parametrize("is_sorted", [True, False])
@pytest.mark.parametrize(("n", "p"), [(1, 1), (60, 1), (3000, 40), (50, 5000)])
@N_CLASSES
def test_losses_and_gradients_of_sparse_rows_are_those_of_numpy(
    n_classes, n, p, is_sorted, index, dtype, variant, monkeypatch
):
    rng = np.random.default_rng(0)
    X = sp.csr_array(sp.random(n, p, 0.2, "csr", random_state=0, dtype=dtype))
    X.indptr, X.indices = X.indptr.astype(index), X.indices.astype(index)
    if not is_sorted:
        for i in range(n):
            row = slice(X.indptr[i], X.indptr[i + 1])
            X.indices[row], X.data[row] = X.indices[row][::-1].copy(), X.data[row][::-1].copy()
        X.has_sorted_indices = False
    y, weight = rng.integers(n_classes, size=n), rng.uniform(0.5, 2, n)
    n_outputs = 1 if n_classes == 2 else n_classes
    params = Params(rng.standard_normal((n_outputs, p)), rng.standard_normal(n_outputs))
    want, want_grads = vectorized.loss_grad(params, X.astype(np.float64), y, weight, n + 1.0)
    results = []
    for n_threads in (1, 2, 3, 8):
        monkeypatch.setattr(compiled, "count_threads", lambda work, n_threads=n_threads: n_threads)
        loss, grads = compiled.loss_grad(params, X, y, weight, n + 1.0)
        assert loss == pytest.approx(want, rel=100 * float(np.finfo(dtype).eps))
        for got, wanted in zip(grads, want_grads, strict=True):
            assert_allclose(got, wanted, rtol=0, atol=100 * np.finfo(dtype).eps)
        results.append((loss, *grads))
    for other in results[1:]:  # the same bits
        assert all(np.array_equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_gradients_of_sparse_rows_near_the_largest_number_are_finite():
    X = sp.csr_array(np.linspace(1, 100, 150)[:, None] * 1e306)
    params, y, weight = Params(np.zeros((3, 1)), np.zeros(3)), np.arange(150) % 3, np.ones(150)
    _, grads = compiled.loss_grad(params, X, y, weight, 150.0)
    _, want = vectorized.loss_grad(params, X, y, weight, 150.0)
    assert_allclose(grads.coef, want.coef, rtol=1e-6, atol=1e295)


def misaligned(array):
    memory = np.zeros(array.nbytes + 1, np.uint8)
    shifted = memory[1:].view(array.dtype).reshape(array.shape)
    shifted[...] = array
    assert not shifted.flags.aligned
    return shifted


@DTYPE
@pytest.mark.parametrize("n_classes", [2, 5])
@pytest.mark.parametrize("is_sparse", [False, True])
def test_entries_may_lie_at_any_address(is_sparse, n_classes, dtype):  # as they do after a network or in a file
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((300, 20)).astype(dtype), rng.integers(n_classes, size=300)
    moved = misaligned(X)
    if is_sparse:
        X = sp.csr_array(X)
        moved = sp.csr_array(X.shape, dtype=dtype)
        moved.data, moved.indices, moved.indptr = map(misaligned, (X.data, X.indices, X.indptr))
    n_outputs = 1 if n_classes == 2 else n_classes
    params = Params(rng.standard_normal((n_outputs, 20)), np.zeros(n_outputs))
    got = compiled.loss_grad(params, moved, misaligned(y), misaligned(np.ones(300)), 300.0)
    want = compiled.loss_grad(params, X, y, np.ones(300), 300.0)
    assert got[0] == want[0]
    assert_array_equal(got[1].coef, want[1].coef)
    for estimator in (SoftmaxClassifier(random_state=0), SoftmaxClassifier(solver="dual", random_state=0)):
        assert_array_equal(estimator.fit(moved, y).coef_, estimator.fit(X, y).coef_)


# --- dual steps --------------------------------------------------------------------------------------------


def single_step(z, y, old, q, dtype=np.float64, n_lanes=8):
    """Take the dual step of a row with raw predictions ``z`` and old residual; return the new residual and entropy."""
    residual, entropy = old[None].astype(dtype), np.full(1, -1e9, dtype)  # a gap that no row skips
    dual_vars = compiled.DualVariables(residual, entropy, np.full(1, q, dtype))
    block = z[None].astype(dtype)
    kernels.sdca_block(
        np.zeros(1, np.intp), block, np.ones((1, 1), dtype), np.array([y]), np.ones(1, dtype), dual_vars, 1.0, 0.0
    )
    assert_allclose(block[0], old - residual[0], rtol=1e-6, atol=1e-7)  # the change of the model
    return residual[0], entropy[0]


@pytest.mark.parametrize("q", [1e-30, 1e-3, 1.0, 8.0, 50.0, 1e4])
@pytest.mark.parametrize("n_classes", [3, 8])
def test_a_step_solves_the_rows_equation(q, n_classes, variant):
    rng = np.random.default_rng(0)
    for _ in range(20):
        z = 5 * rng.standard_normal(8)
        z[n_classes:] = -1e9
        old = np.zeros(8)
        old[rng.integers(n_classes)] = 1.0
        y = int(rng.integers(n_classes))
        truth = np.arange(8) == y
        before = np.abs(scipy_softmax(z) - old).max()
        residual, entropy = single_step(z, y, old - truth, q)
        p = residual + truth
        assert p.sum() == pytest.approx(1.0, abs=1e-12)
        assert entropy == pytest.approx(entr(p[:n_classes]).sum(), abs=1e-9)
        left = p - scipy_softmax(z - q * (p - old))
        moved = np.log(p[:n_classes]) + entropy  # p is softmax(x), x to a constant log p
        aim = (z - q * (p - old))[:n_classes]
        off = (moved - moved.mean()) - (aim - aim.mean())
        # a tenth or so of the way in p, and half a logit or so in x, which twice its mean may be
        assert np.abs(left).max() <= 0.3 * before + 1e-12
        assert np.abs(off[p[:n_classes] > 1e-6]).max() <= 1.0 + 1e-9


@pytest.mark.parametrize("q", [1e-30, 1e-6, 1e-3, 1.0, 50.0, 1e6])
def test_a_step_of_two_classes_solves_the_rows_equation(q, variant):
    rng = np.random.default_rng(0)
    for _ in range(50):
        z, old, y = 5 * rng.standard_normal(), rng.uniform(), int(rng.integers(2))
        residual, entropy = single_step(np.array([z]), y, np.array([old - y]), q)
        p = residual[0] + y  # of the second class
        start = abs(scipy_softmax([0, z])[1] - old)
        left = p - scipy_softmax([0, z - q * (p - old)])[1]
        assert abs(left) <= 2e-3 * start * max(1.0, q) + 1e-15  # the slope is 1 + q p (1 - p)
        assert entropy == pytest.approx(entr(p) + entr(1 - p), abs=1e-9)


def case(n_classes, dtype, index, n=40, p=12, seed=0):
    """Rows, a model and agreed probabilities as random numbers; one row is empty, one entry 0."""
    rng = np.random.default_rng(seed)
    X = sp.random(n, p, 0.3, "csr", random_state=seed, dtype=dtype)
    X.data[:] = rng.standard_normal(X.nnz)
    X.data[3] = 0
    X = sp.csr_array(sp.vstack([X, sp.csr_matrix((1, p), dtype=dtype)]).astype(dtype))
    y = rng.integers(0, n_classes, n + 1)
    n_lanes = compiled.count_lanes(n_classes)
    rows = compiled.CsrRows(
        X.indptr.astype(index), X.indices.astype(index), X.data, y, rng.uniform(0.5, 1.5, n + 1).astype(dtype)
    )
    table = np.zeros((p, n_lanes), dtype)
    intercept = np.full(n_lanes, -1e9, dtype)
    n_outputs = 1 if n_classes == 2 else n_classes
    table[:, :n_outputs] = rng.standard_normal((p, n_outputs))
    intercept[:n_outputs] = rng.standard_normal(n_outputs)
    model = compiled.FlatModel(table.ravel(), np.empty(0, dtype), intercept)
    residual = np.zeros(n + 1 if n_classes == 2 else (n + 1, n_lanes), dtype)
    dual_vars = compiled.DualVariables(residual, np.zeros(n + 1, dtype), rng.uniform(0.5, 9.0, n + 1).astype(dtype))
    return X, rows, model, dual_vars


def visit(rows, model, dual_vars, gap_tol=0.0, order=None, round_size=1, n_threads=1):
    order = np.random.default_rng(1).permutation(len(rows.y)) if order is None else order
    return kernels.sdca_epoch(rows, model, dual_vars, order, 0.3, 1 / len(rows.y), gap_tol, round_size, n_threads)


def copies(arrays):
    return type(arrays)(*(array.copy() for array in arrays))


def with_ranges(rows, bounds):
    """The rows with ranges of columns that begin at ``bounds``."""
    splits = np.empty((len(rows.indptr) - 1) * len(bounds) + 1, rows.indptr.dtype)
    kernels.split_rows(rows.indptr, rows.indices, np.array(bounds, np.intp), splits)
    return rows._replace(indptr=splits)


@DTYPE
@INDEX
@N_CLASSES
def test_an_epoch_of_sparse_rows_is_that_of_a_block_of_the_same_rows(n_classes, index, dtype, variant):
    X, rows, model, dual_vars = case(n_classes, dtype, index)
    X, order = X.toarray(), np.random.default_rng(1).permutation(len(rows.y))
    n_lanes = len(model.intercept)
    others = compiled.DualVariables(*(array.copy() for array in dual_vars))
    block, table = X[order], model.table.reshape(-1, n_lanes).copy()
    z = block @ table + model.intercept
    coupling = block @ block.T + dtype(0.3)
    loss, gap, n_changed = kernels.sdca_block(order, z, coupling, rows.y, rows.weight, others, 1 / len(order), 0.0)
    sums = visit(rows, model, dual_vars, order=order)
    assert n_changed == len(order)
    # sums reordered over a chain of 41 visits; a row's equation is solved to a tenth by the same steps
    tolerance = {"rtol": 1e-3 if dtype is np.float32 else 1e-8, "atol": 200 * np.finfo(dtype).eps}
    assert_allclose((loss, gap), sums, **tolerance)
    assert_allclose(model.table, (table + block.T @ z).ravel(), **tolerance)
    for got, want in zip(dual_vars, others, strict=True):
        assert_allclose(got, want, **tolerance)


def visit_dense(X, rows, model, dual_vars, order, block_size, n_threads=1, gap_tol=0.0):
    """Dense rows of columns (x - 0.5) * 2, as `_dual_data.DenseRows` calls them."""
    dtype = rows.values.dtype
    mean, root = np.full(X.shape[1], 0.5, dtype), np.full(X.shape[1], 2, dtype)
    arrays = X.toarray() / dtype.type(2) + dtype.type(0.5), rows.y, rows.weight, mean, root
    return kernels.sdca_epoch_dense(
        *arrays, model, dual_vars, order, 0.3, 1 / len(rows.y), gap_tol, block_size, n_threads
    )


@DTYPE
@N_CLASSES
@pytest.mark.parametrize("has_l1", [False, True])
@pytest.mark.parametrize(("n", "p", "block_size"), [(40, 12, 1), (40, 12, 7), (130, 70, 100), (40, 12, 500)])
def test_an_epoch_of_dense_rows_in_blocks_is_that_of_sparse_rows(n, p, block_size, has_l1, n_classes, dtype, variant):
    X, rows, model, dual_vars = case(n_classes, dtype, np.int32, n=n, p=p)
    if has_l1:
        model, block_size = model._replace(l1_thresholds=np.full(p, 0.3, dtype)), 1  # in a block it is a bound
    order = np.random.default_rng(1).permutation(len(rows.y))[: n - 3]
    dense, others = copies(model), copies(dual_vars)
    sums = visit_dense(X, rows, dense, others, order, block_size)
    tolerance = {"rtol": 1e-3 if dtype is np.float32 else 1e-8, "atol": 2000 * np.finfo(dtype).eps}
    assert_allclose(sums, visit(rows, model, dual_vars, order=order), **tolerance)
    for got, want in zip((*dense, *others), (*model, *dual_vars), strict=True):
        assert_allclose(got, want, **tolerance)


@N_CLASSES
@pytest.mark.parametrize("has_l1", [False, True])
@pytest.mark.parametrize("n_threads", [2, 3, 4, 8])
def test_an_epoch_of_dense_rows_has_the_same_bits_on_any_number_of_threads(n_threads, has_l1, n_classes):
    X, rows, model, dual_vars = case(n_classes, np.float32, np.int32, n=500, p=150)
    if has_l1:
        model = model._replace(l1_thresholds=np.full(150, 0.3, np.float32))
    order = np.random.default_rng(1).permutation(len(rows.y))
    model_1, dual_1 = copies(model), copies(dual_vars)
    want = visit_dense(X, rows, model_1, dual_1, order, 128)
    for _ in range(5):
        many, dual_many = copies(model), copies(dual_vars)
        assert visit_dense(X, rows, many, dual_many, order, 128, n_threads) == want
        for got, wanted in zip((*many, *dual_many), (*model_1, *dual_1), strict=True):
            assert_array_equal(got, wanted)


def test_a_block_without_changes_leaves_the_model():
    X, rows, model, dual_vars = case(3, np.float64, np.int32)
    order = np.arange(len(rows.y))
    before, dual_before = copies(model), copies(dual_vars)
    loss, gap = visit_dense(X, rows, model, dual_vars, order, 10, n_threads=2, gap_tol=1e9)
    assert min(loss, gap) > 0
    for got, want in zip((*model, *dual_vars), (*before, *dual_before), strict=True):
        assert_array_equal(got, want)
    assert visit_dense(X, rows, model, dual_vars, order[:0], 10) == (0, 0)


@DTYPE
@N_CLASSES
def test_losses_and_gaps_are_their_definitions_before_anything_moves(n_classes, dtype, variant):
    X, rows, model, dual_vars = case(n_classes, dtype, np.int32)
    n_outputs, n_lanes = (1 if n_classes == 2 else n_classes), len(model.intercept)
    rtol = 50 * float(np.finfo(dtype).eps)
    z = X @ model.table.reshape(X.shape[1], -1)[:, :n_outputs] + model.intercept[:n_outputs]
    z = (np.hstack([0 * z, z]) if n_outputs == 1 else z).astype(float)
    want = rows.weight @ (logsumexp(z, axis=1) - z[np.arange(len(z)), rows.y])
    before = model.table.copy()
    slope = compiled.GradientSums(np.zeros_like(model.table), np.zeros(n_lanes))
    no_slope = compiled.GradientSums(np.empty(0, dtype), np.zeros(n_lanes))
    exact = kernels.evaluate(rows, model, dual_vars, no_slope, 1)
    others = dual_vars._replace(residual=dual_vars.residual.copy(), entropy=dual_vars.entropy.copy())
    assert exact == kernels.evaluate(rows, model, others, slope, 1)
    residual = scipy_softmax(z, axis=1)
    assert_allclose(others.entropy, entr(residual).sum(axis=1), rtol=100 * rtol, atol=rtol)
    residual[np.arange(len(z)), rows.y] -= 1
    assert_allclose(others.residual.reshape(len(z), -1)[:, :n_outputs], residual[:, -n_outputs:], atol=rtol)
    assert (others.residual.reshape(len(z), -1)[:, n_outputs:] == 0).all()
    residual *= rows.weight[:, None]
    assert_allclose(slope.table.reshape(X.shape[1], -1)[:, :n_outputs], X.T @ residual[:, -n_outputs:], atol=20 * rtol)
    assert_allclose(slope.intercept[:n_outputs], residual[:, -n_outputs:].sum(axis=0), atol=20 * rtol)
    dense = (X @ model.table.reshape(X.shape[1], -1) + model.intercept).astype(dtype)
    in_block = kernels.evaluate_block(0, dense, rows.y, rows.weight, dual_vars, False)
    loss, gaps = visit(rows, model, dual_vars, gap_tol=np.inf)  # all are left alone
    for value in (loss, gaps, *exact, *in_block):  # rows that agree to the truth: the gap is the loss
        assert value == pytest.approx(want, rel=rtol)
    assert_array_equal(model.table, before)


@pytest.mark.parametrize("n_classes", [2, 5])
def test_a_step_moves_the_model_by_the_change_of_probabilities(n_classes, variant):
    X, rows, model, dual_vars = case(n_classes, np.float64, np.int32)
    table, intercept, residual = model.table.copy(), model.intercept.copy(), dual_vars.residual.copy()
    visit(rows, model, dual_vars)
    change = ((residual - dual_vars.residual).T * rows.weight / len(rows.y)).T
    change = change[:, None] if change.ndim == 1 else change
    assert_allclose(model.table - table, (X.T @ change).ravel(), atol=1e-12)
    assert_allclose((model.intercept - intercept)[:n_classes], 0.3 * change.sum(axis=0)[:n_classes], atol=1e-12)


@DTYPE
@N_CLASSES
def test_coefficients_within_their_thresholds_count_as_0(n_classes, dtype, variant):
    X, rows, model, _ = case(n_classes, dtype, np.int32)
    thresholds = np.linspace(0, 1, X.shape[1]).astype(dtype)
    table = model.table.reshape(X.shape[1], -1)
    soft = np.sign(table) * np.maximum(np.abs(table) - thresholds[:, None], 0)
    z = np.empty((X.shape[0], table.shape[1]), dtype)
    kernels.raw_predictions(rows[:3], model._replace(l1_thresholds=thresholds), z)
    assert_allclose(z, X @ soft + model.intercept, rtol=0, atol=100 * np.finfo(dtype).eps)


@N_CLASSES
def test_a_hessian_product_is_that_of_its_definition(n_classes, variant):
    X, rows, model, dual_vars = case(n_classes, np.float64, np.int32)
    n_outputs, n_lanes = (1 if n_classes == 2 else n_classes), len(model.intercept)
    kernels.evaluate(rows, model, dual_vars, compiled.GradientSums(np.zeros_like(model.table), np.zeros(n_lanes)), 1)
    p = dual_vars.residual.reshape(len(rows.y), -1)[:, :n_outputs].copy()
    p[np.arange(len(p)), 0 if n_outputs == 1 else rows.y] += rows.y if n_outputs == 1 else 1
    direction = compiled.FlatModel(model.table, np.empty(0), np.where(np.arange(n_lanes) < n_outputs, 0.7, 0.0))
    product = compiled.GradientSums(np.zeros_like(model.table), np.zeros(n_lanes))
    kernels.add_hessian_product(rows, dual_vars, direction, product, 1)
    dz = (X @ model.table.reshape(X.shape[1], -1)[:, :n_outputs] + 0.7).T
    want = vectorized.multiply_hessian(p.T.copy(), dz, rows.weight)
    assert_allclose(product.table.reshape(X.shape[1], -1)[:, :n_outputs], X.T @ want.T, atol=1e-10)
    assert_allclose(product.intercept[:n_outputs], want.sum(axis=1), atol=1e-10)


# --- rounds of rows, and threads ---------------------------------------------------------------------------


@INDEX
def test_ranges_of_columns_begin_where_their_bounds_say(index, variant):
    _, rows, _, _ = case(3, np.float64, index)
    bounds = np.array([0, 4, 4, 11])  # the second is empty
    splits = with_ranges(rows, bounds).indptr
    want = [
        rows.indptr[i] + np.searchsorted(rows.indices[rows.indptr[i] : rows.indptr[i + 1]], bound)
        for i in range(len(rows.y))
        for bound in bounds
    ]
    assert_array_equal(splits, [*want, rows.indptr[-1]])
    assert splits.dtype == index


@DTYPE
@N_CLASSES
@pytest.mark.parametrize("round_size", [1, 7, 100])
@pytest.mark.parametrize("bounds", [[0], [0, 3, 3, 8]])
def test_the_steps_of_a_round_start_from_the_same_model(bounds, round_size, n_classes, dtype, variant):
    X, rows, model, dual_vars = case(n_classes, dtype, np.int32)
    X, order = X.toarray(), np.random.default_rng(1).permutation(len(rows.y))
    others, table, intercept = copies(dual_vars), model.table.reshape(X.shape[1], -1).copy(), model.intercept.copy()
    loss = gap = 0.0
    for start in range(0, len(order), round_size):
        members = order[start : start + round_size]
        z = X[members] @ table + intercept
        alone = np.zeros((len(members), len(members)), dtype)  # no step changes the raw predictions of another row
        sums = kernels.sdca_block(members, z, alone, rows.y, rows.weight, others, 1 / len(order), 0.0)
        loss, gap = loss + sums[0], gap + sums[1]
        table += X[members].T @ z
        intercept += dtype(0.3) * z.sum(axis=0)
    sums = visit(with_ranges(rows, bounds), model, dual_vars, order=order, round_size=round_size)
    tolerance = {"rtol": 1e-3 if dtype is np.float32 else 1e-8, "atol": 200 * np.finfo(dtype).eps}
    assert_allclose(sums, (loss, gap), **tolerance)
    assert_allclose(model.table, table.ravel(), **tolerance)
    assert_allclose(model.intercept, intercept, **tolerance)
    for got, want in zip(dual_vars, others, strict=True):
        assert_allclose(got, want, **tolerance)


@N_CLASSES
@pytest.mark.parametrize("n_threads", [2, 3, 4, 8])
@pytest.mark.parametrize("round_size", [1, 10, 300])
def test_kernels_give_the_same_bits_on_any_number_of_threads(round_size, n_threads, n_classes):
    _, rows, model, dual_vars = case(n_classes, np.float32, np.int32, n=300, p=40)
    rows = with_ranges(rows, [0, 5, 20, 21])
    n_lanes = len(model.intercept)

    def results(n_threads):
        at, dual = copies(model), copies(dual_vars)
        sums = [visit(rows, at, dual, gap_tol=1e-3, round_size=round_size, n_threads=n_threads)]
        gradient, product = (compiled.GradientSums(np.zeros_like(at.table), np.zeros(n_lanes)) for _ in range(2))
        sums.append(kernels.evaluate(rows, at, dual, gradient, n_threads))
        kernels.add_hessian_product(rows, dual, copies(model), product, n_threads)
        dual_gradient = compiled.GradientSums(np.zeros_like(at.table), np.zeros(n_lanes))
        kernels.add_dual_gradient(rows, dual, dual_gradient, n_threads)
        return [np.array(sums), *at, *dual, *gradient, *product, *dual_gradient]

    for got, want in zip(results(n_threads), results(1), strict=True):
        assert_array_equal(got, want)


# --- columns and rows of X ---------------------------------------------------------------------------------


@INDEX
def test_columns_and_rows_are_measured_in_float64(index, variant):
    X = sp.csr_array(np.array([[1e25, 0.0], [0.0, 2.0]], dtype=np.float32))  # whose square float32 has not
    squares = np.zeros(2)
    indptr, indices = X.indptr.astype(index), X.indices.astype(index)
    kernels.add_mean_squares(indptr, indices, X.data, np.array([0.5, 0.5]), squares)
    assert_allclose(squares, [0.5e50, 2.0], rtol=1e-6)
    norms = np.empty(2)
    kernels.squared_norms(indptr, indices, X.data, np.array([2e-50, 0.5]), norms)
    assert_allclose(norms, [2.0, 2.0], rtol=1e-6)
    out = np.empty_like(X.data)
    kernels.scale_values(indices, X.data, np.array([1e-25, 3.0]), out)
    assert_allclose(out, [1.0, 6.0], rtol=1e-6)


# --- tables of coefficients between epochs -----------------------------------------------------------------

LANES = pytest.mark.parametrize("n_lanes", [1, 8, 24])


@DTYPE
@LANES
def test_thresholds_and_penalties_of_tables_are_those_of_numpy(n_lanes, dtype, variant):
    rng = np.random.default_rng(0)
    table, thresholds = rng.standard_normal((20, n_lanes)).astype(dtype), rng.uniform(0, 2, 20).astype(dtype)
    scale, root = rng.uniform(size=(2, 20))
    out = np.empty_like(table)
    kernels.threshold_rows(table, thresholds, out)
    soft = np.sign(table) * np.maximum(np.abs(table) - thresholds[:, None], 0)
    assert_allclose(out, soft, rtol=1e-6, atol=1e-6)
    assert (out == 0).any()
    for limits, w in ((thresholds, soft), (np.empty(0, dtype), table)):
        sums = np.ones(2)
        kernels.penalty_sums(table, limits, scale, root, sums)
        assert_allclose(sums - 1, [scale @ (w**2).sum(axis=1), root @ np.abs(w).sum(axis=1)], rtol=1e-5)


@DTYPE
@LANES
@pytest.mark.parametrize("n_pairs", [0, 1, 2])
def test_moves_of_the_center_are_their_definitions(n_pairs, n_lanes, dtype, variant):
    rng = np.random.default_rng(0)
    coef, center, last_coef, last_g, older_g, older_coef = rng.standard_normal((6, 20, n_lanes)).astype(dtype)
    fraction, nothing = rng.uniform(size=20).astype(dtype), np.empty((0, 0), dtype)
    g, target, sums = np.empty_like(coef), np.empty_like(coef), np.ones(6)
    move = coef - center
    want_g = fraction[:, None] * move
    d_coef, d = coef - last_coef, want_g - last_g
    last = (last_coef.copy(), last_g.copy()) if n_pairs else (nothing, nothing)
    kernels.center_moves(coef, center, fraction, g, *last, older_g if n_pairs == 2 else nothing, sums)
    products = [(want_g, move), (d, d), (d, want_g), (d, older_g), (older_g, want_g), (older_g, older_g)]
    tolerance = {"rtol": 1e-4, "atol": 1e-4} if dtype is np.float32 else {"rtol": 1e-12, "atol": 1e-12}
    n_sums = (1, 3, 6)[n_pairs]
    assert_allclose(sums - 1, [np.vdot(*p) if k < n_sums else 0 for k, p in enumerate(products)], **tolerance)
    assert_allclose(g, want_g, **tolerance)
    if n_pairs:
        assert_allclose(last[0], d_coef, **tolerance)
        assert_allclose(last[1], d, **tolerance)
        older, want = (
            (older_coef, coef - 0.5 * d_coef - 2 * older_coef) if n_pairs == 2 else (nothing, coef - 0.5 * d_coef)
        )
        slope = kernels.extrapolate_rows(coef, center, g, d_coef, 0.5, older, 2.0, target)
        assert_allclose(target, want, **tolerance)
        assert slope == pytest.approx(np.vdot(want_g, want - center), rel=1e-4)


@DTYPE
@LANES
def test_moves_are_added_to_their_columns(n_lanes, dtype, variant):
    rng = np.random.default_rng(0)
    table, (target, center) = rng.standard_normal((9, n_lanes)).astype(dtype), rng.standard_normal((2, 3, n_lanes))
    target, center, fraction = target.astype(dtype), center.astype(dtype), np.array([0.5, 1, 2], dtype)
    want, columns = table.copy(), np.array([7, 0, 3])
    want[columns] += fraction[:, None] * (target - center)
    kernels.add_moves(columns, fraction, target, center, table)
    assert_allclose(table, want, rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="order must hold row numbers"):
        kernels.add_moves(np.array([7, 0, 9]), fraction, target, center, table)


@N_CLASSES
def test_the_gradient_at_the_dual_variables_is_a_product(n_classes, variant):
    X, rows, model, dual_vars = case(n_classes, np.float64, np.int32)
    visit(rows, model, dual_vars)
    n_lanes = len(model.intercept)
    residual = dual_vars.residual.reshape(len(rows.y), n_lanes) * rows.weight[:, None]
    sums = compiled.GradientSums(np.ones((X.shape[1], n_lanes)), np.ones(n_lanes))
    kernels.add_dual_gradient(rows, dual_vars, sums, 1)
    assert_allclose(sums.table - 1, X.T @ residual, atol=1e-12)
    assert_allclose(sums.intercept - 1, residual.sum(axis=0), atol=1e-12)


# --- their border ------------------------------------------------------------------------------------------


def short(array):
    return array[:-1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r, m, d: (r._replace(y=short(r.y)), m, d), "y must have as many entries as weight"),
        (lambda r, m, d: (r._replace(indptr=short(r.indptr)), m, d), "indptr a multiple of that and one more"),
        (lambda r, m, d: (r._replace(values=short(r.values)), m, d), "indices and values must have the same length"),
        (lambda r, m, d: (r, m._replace(table=short(m.table)), d), "table must have a multiple of the entries"),
        (lambda r, m, d: (r, m._replace(intercept=short(m.intercept)), d), "must have 1 entry or a multiple of 8"),
        (lambda r, m, d: (r, m._replace(l1_thresholds=np.zeros(3)), d), "one entry for each feature, or none"),
        (lambda r, m, d: (r, m, d._replace(q=short(d.q))), "the dual variables must have n_samples"),
        (lambda r, m, d: (r, m, d._replace(residual=d.residual[:-1])), "the dual variables must have n_samples"),
    ],
)
def test_arrays_of_other_sizes_are_refused(change, message):
    _, rows, model, dual_vars = case(3, np.float64, np.int32)
    with pytest.raises(ValueError, match=message):
        visit(*change(rows, model, dual_vars))
    _, rows, model, dual_vars = case(3, np.float64, np.int32)
    with pytest.raises(ValueError, match="order must hold row numbers"):
        visit(rows, model, dual_vars, order=np.array([41]))
    for numbers in ({"round_size": 0}, {"n_threads": 0}):
        with pytest.raises(ValueError, match="rounds and threads must be positive numbers"):
            visit(rows, model, dual_vars, **numbers)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("columns", np.ones((4, 3)), r"coef' must be \(n_features, n_outputs\)"),
        ("intercept", np.ones(2), r"intercept must be \(n_outputs,\)"),
        ("y", np.zeros(9, np.intp), "y and weight must have an entry for each row"),
        ("weight", np.ones(9), "y and weight must have an entry for each row"),
        ("gradient", np.zeros((3, 4)), "the gradient must have the shapes of coef and intercept"),
        ("sums", np.zeros(2), "the gradient must have the shapes of coef and intercept"),
    ],
)
def test_dense_arrays_of_other_sizes_are_refused(name, value, message):
    arguments = {
        "X": np.ones((10, 5)),
        "columns": np.ones((5, 3)),
        "intercept": np.ones(3),
        "y": np.zeros(10, np.intp),
        "weight": np.ones(10),
        "gradient": np.zeros((3, 5)),
        "sums": np.zeros(3),
    }
    kernels.add_loss_gradient(*arguments.values())
    with pytest.raises(ValueError, match=message):
        kernels.add_loss_gradient(*(arguments | {name: value}).values())


@pytest.mark.parametrize(
    ("name", "shapes", "message"),
    [
        ("summarize_columns", [(9, 5), 8, 5, 5, 5], "weight must have an entry for each row of X"),
        ("summarize_columns", [(9, 5), 9, 5, 4, 5], "low, high and sums for each column"),
        ("add_column_squares", [(9, 5), 5, 5, 8, 5], "weight must have an entry for each row of X"),
        ("add_column_squares", [(9, 5), 4, 5, 9, 5], "mean, factor and sums for each column"),
        ("row_squares", [(9, 5), 5, 5, 8], "squares must have an entry for each row of X"),
        ("row_squares", [(9, 5), 5, 4, 9], "mean and factor for each column"),
        ("add_gram", [(9, 5), 5, 4, 9, (5, 5)], "mean and factor must have an entry for each column of X"),
        ("add_gram", [(9, 5), 5, 5, 8, (5, 5)], "root must have an entry for each row of X"),
        ("add_gram", [(9, 5), 5, 5, 9, (5, 6)], "gram must be square"),
        ("add_gram", [(9, 5), 5, 5, 9, (7, 7)], "there is at most one column of ones"),
        ("add_hessian", [(9, 5), 5, 5, 9, (3, 9), (3, 9), (17, 17)], "hessian must be square, with n_classes blocks"),
        ("add_hessian", [(9, 5), 5, 5, 9, (3, 9), (3, 9), (18, 15)], "hessian must be square, with n_classes blocks"),
        ("add_hessian", [(9, 5), 5, 5, 9, (3, 9), (3, 9), (12, 12)], "there is at most one column of ones"),
        ("add_hessian", [(9, 5), 4, 5, 9, (3, 9), (3, 9), (18, 18)], "mean and factor must have an entry for each"),
        ("add_hessian", [(9, 5), 5, 5, 9, (3, 9), (3, 8), (18, 18)], "proba and variances must be"),
        ("add_hessian", [(9, 5), 5, 5, 8, (3, 9), (3, 9), (18, 18)], "weight must have an entry for each row of X"),
        ("add_exact_product", [(2, 8), (9, 5), (2, 5)], "left must have a column for each row of X"),
        ("add_exact_product", [(2, 9), (9, 5), (2, 4)], "the tables must have the same shape"),
        ("proba_and_variances", [(3, 9), (3, 9), (3, 8)], "the tables must have the same shape"),
        ("expit", [9, 8], "proba must have an entry for each one of z"),
        ("linearize_binary", [9, 8, 9, (2, 9), 3], "change and weight must have an entry for each one of proba"),
        ("linearize_binary", [9, 9, 9, (2, 9), 2], r"differences must be \(2, n_samples\), and sums \(3,\)"),
    ],
)
def test_moments_of_other_sizes_are_refused(name, shapes, message):
    with pytest.raises(ValueError, match=message):
        getattr(kernels, name)(*map(np.ones, shapes))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda X, r, m, d: (X[:-1], r, m, d), "y and weight must have an entry for each row of X"),
        (lambda X, r, m, d: (X[:, :-1], r, m, d), "mean, root and the model must have an entry for each column"),
        (lambda X, r, m, d: (X, r, m, d._replace(q=short(d.q))), "the dual variables must have n_samples"),
    ],
)
def test_dense_rows_of_other_sizes_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        visit_dense(*change(*case(3, np.float64, np.int32)), np.arange(5), 2)
    arguments = case(3, np.float64, np.int32)
    with pytest.raises(ValueError, match="order must hold row numbers"):
        visit_dense(*arguments, np.array([41]), 2)
    for numbers in ({"block_size": 0}, {"block_size": 2, "n_threads": 0}):
        with pytest.raises(ValueError, match="rounds and threads must be positive numbers"):
            visit_dense(*arguments, np.arange(5), **numbers)


def test_no_array_is_converted():  # a copy would take the results
    _, rows, model, dual_vars = case(3, np.float64, np.int32)
    for other in (
        model._replace(table=model.table.astype(np.float32)),
        model._replace(table=np.repeat(model.table, 2)[::2]),
    ):
        with pytest.raises(TypeError, match="incompatible function arguments"):
            visit(rows, other, dual_vars)
    model.table.flags.writeable = False
    with pytest.raises(TypeError, match="incompatible function arguments"):
        visit(rows, model, dual_vars)


# --- interrupts --------------------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="needs signals between threads")
@pytest.mark.parametrize("n_classes", [2, 20])
def test_ctrl_c_ends_a_kernel_soon(n_classes):
    rng = np.random.default_rng(0)
    n, p, n_lanes = 20_000, 1000, compiled.count_lanes(n_classes)
    X = sp.random(n, p, 0.1, "csr", random_state=0)
    rows = compiled.CsrRows(X.indptr, X.indices, X.data, rng.integers(n_classes, size=n), np.ones(n))
    model = compiled.FlatModel(np.zeros(p * n_lanes), np.empty(0), np.full(n_lanes, -1e9))
    model.intercept[: 1 if n_classes == 2 else n_classes] = 0
    dual_vars = compiled.DualVariables(np.zeros(n * n_lanes), np.zeros(n), np.ones(n))
    order = rng.integers(n, size=50_000_000 // n_lanes)  # some ten seconds
    sent, handler = [], signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in the background

    def interrupt():
        time.sleep(rng.uniform(0.2, 0.5))
        sent.append(time.perf_counter())
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        visit(rows, model, dual_vars, order=order)
    assert time.perf_counter() - sent[0] < 1.0  # .2 s on a quiet machine
    thread.join()
    signal.signal(signal.SIGINT, handler)
