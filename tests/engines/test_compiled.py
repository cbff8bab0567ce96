"""The compiled kernels: against their plain Python, the equations they solve, and naive sums."""

import os
import subprocess
import sys

import numpy as np
import pytest
import scipy.sparse as sp
from numpy.testing import assert_allclose
from scipy.special import entr, logsumexp
from scipy.special import softmax as scipy_softmax

pytest.importorskip("numba")

from sksoftmax._engines import compiled as _compiled
from sksoftmax._engines import compiled_data as _compiled_data
from sksoftmax._engines import compiled_row as _compiled_row
from sksoftmax._engines import simd
from sksoftmax._engines.compiled_row import make_workspace

DTYPE = pytest.mark.parametrize("dtype", [np.float32, np.float64])
INDEX = pytest.mark.parametrize("index", [np.int32, np.int64])


@simd.compiled(simd.FAST)
def call_accumulate(table, at, z, first, value):
    simd.accumulate(table, at, z, first, value)


@simd.compiled(simd.FAST)
def call_accumulate_row(table, n_lanes, indices, values, start, end, z, first):
    simd.accumulate_row(table, n_lanes, indices, values, start, end, z, first)


@simd.compiled(simd.FAST)
def call_accumulate_soft_row(table, n_lanes, indices, values, start, end, z, first, l1_thresholds):
    simd.accumulate_soft_row(table, n_lanes, indices, values, start, end, z, first, l1_thresholds)


@simd.compiled(simd.FAST)
def call_add_to_row(table, n_lanes, indices, values, start, end, z, first):
    simd.add_to_row(table, n_lanes, indices, values, start, end, z, first)


@simd.compiled(simd.FAST)
def call_prefetch(array, start, end):
    simd.prefetch(array, start, end)


@DTYPE
def test_vector_instructions_do_what_their_plain_function_says(dtype):
    rng = np.random.default_rng(0)
    table, z = rng.standard_normal(40).astype(dtype), rng.standard_normal(24).astype(dtype)
    for at, first in ((0, 0), (8, 16), (27, 3)):  # of any alignment
        want_z = z.copy()
        simd.accumulate(table, at, want_z, first, dtype(0.7))
        call_accumulate(table, at, z, first, dtype(0.7))
        assert_allclose(z, want_z, rtol=4 * np.finfo(dtype).eps, atol=4 * np.finfo(dtype).eps)  # fused or not


@DTYPE
@INDEX
@pytest.mark.parametrize("function", ["accumulate_row", "accumulate_soft_row", "add_to_row"])
@pytest.mark.parametrize(("start", "end"), [(0, 0), (2, 3), (1, 7), (0, 8)])
def test_vector_instructions_for_a_row_do_what_their_plain_functions_say(function, start, end, index, dtype):
    rng = np.random.default_rng(0)
    table, z = rng.standard_normal(16 * 5).astype(dtype), rng.standard_normal(16).astype(dtype)
    indices, values = np.array([0, 4, 2, 1, 1, 3, 0, 2], index), rng.standard_normal(8).astype(dtype)
    l1_thresholds = (np.linspace(0, 1, 5).astype(dtype),) if function == "accumulate_soft_row" else ()
    for first in (0, 8):
        want_table, want_z = table.copy(), z.copy()
        getattr(simd, function)(want_table, 16, indices, values, start, end, want_z, first, *l1_thresholds)
        globals()[f"call_{function}"](table, 16, indices, values, start, end, z, first, *l1_thresholds)
        for got, want in ((table, want_table), (z, want_z)):
            assert_allclose(got, want, rtol=0, atol=40 * np.finfo(dtype).eps)


@pytest.mark.parametrize("shape", [(0,), (5,), (40, 24)])
def test_memory_may_be_asked_for_any_of_an_arrays_numbers(shape):
    array = np.ones(shape, np.float32)
    for start in (0, array.size // 3):
        call_prefetch(array, start, array.size)
        call_prefetch(array, start, start)
    assert_allclose(array, 1)


@pytest.mark.parametrize(("dtype", "most"), [(np.float32, 1.3e-7), (np.float64, 4e-16)])  # an ulp or two
def test_exp_to_rounding(dtype, most):
    t = make_workspace(dtype, 8000)
    x = np.linspace(-35, 0, 8000).astype(dtype)
    z = x.copy()
    _compiled_row.exp_shifted(z, dtype(0), t)
    assert np.abs(z / np.exp(x.astype(np.longdouble)) - 1).max() < most


@DTYPE
def test_exp_far_below_the_floor_is_0_and_above_it_a_normal_number(dtype):
    floor = make_workspace(dtype, 8).floor
    z = np.array([-1e9, -1e30, 1.01 * floor, 0.99 * floor, floor, 0, 0, 0], dtype=dtype)
    _compiled_row.exp_shifted(z, dtype(0), make_workspace(dtype, 8))
    assert (z[:3] == 0).all()
    assert (z[3:] > 1e10 * np.finfo(dtype).tiny).all()


@DTYPE
@pytest.mark.parametrize("y", [0, 3, 15])
@pytest.mark.parametrize("sure", [-8.0, 0.0, 8.0, 25.0])  # of class 3, more or less
def test_residuals_and_loss_keep_their_digits_however_sure_a_row_is(sure, y, dtype):
    z = (3 * np.random.default_rng(0).standard_normal(16)).astype(dtype)
    z[3] = sure
    r = np.empty(16, dtype)
    loss = _compiled_row.softmax(z, y, r, make_workspace(dtype, 16))
    exact = np.exp(z.astype(np.longdouble) - z.max())
    others = exact.sum() - exact[y] if y != 3 else np.delete(exact, 3).sum()
    want = exact / exact.sum()
    want[y] = -others / exact.sum()
    assert_allclose(r, want.astype(float), rtol=100 * np.finfo(dtype).eps)  # of exp's argument
    assert loss == pytest.approx(float(np.log1p(others / exact[y])), rel=100 * float(np.finfo(dtype).eps))


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("q", [1e-3, 1.0, 8.0, 50.0, 1e4])
@pytest.mark.parametrize("n_classes", [3, 8])
def test_a_visit_solves_the_rows_equation(q, n_classes, compiled):
    rng = np.random.default_rng(0)
    t = make_workspace(np.float64, 8)
    solve = _compiled_row.row_prox if compiled else getattr(_compiled_row.row_prox, "py_func", _compiled_row.row_prox)
    for _ in range(20 if compiled else 3):
        z = 5 * rng.standard_normal(8)
        z[n_classes:] = -1e9
        old = np.zeros(8)
        old[rng.integers(n_classes)] = 1.0
        y = rng.integers(n_classes)
        truth = np.arange(8) == y
        r = np.empty(8)
        _compiled_row.softmax(z, y, r, t)
        before = np.abs(r + truth - old).max()
        entropy = solve(z, y, old - truth, q, r, t)
        p = r + truth
        assert p.sum() == pytest.approx(1.0, abs=1e-12)
        assert entropy == pytest.approx(entr(p[:n_classes]).sum(), abs=1e-9)
        left = p - scipy_softmax(z - q * (p - old))
        moved = np.log(p[:n_classes]) + entropy  # p is softmax(x), x to a constant log p
        aim = (z - q * (p - old))[:n_classes]
        off = (moved - moved.mean()) - (aim - aim.mean())
        # a tenth or so of the way in p, and half a logit or so in x, which twice its mean may be
        assert np.abs(left).max() <= 0.3 * before + 1e-12
        assert np.abs(off[p[:n_classes] > 1e-6]).max() <= 1.0 + 1e-9


@pytest.mark.parametrize("q", [1e-6, 1e-3, 1.0, 50.0, 1e6])
def test_a_visit_of_two_classes_solves_the_rows_equation(q):
    rng = np.random.default_rng(0)
    for _ in range(50):
        z, old = 5 * rng.standard_normal(), rng.uniform()
        p, entropy = _compiled_row.row_prox_binary(z, old, q)
        start = abs(_compiled_row.logistic(z) - old)
        assert abs(p - _compiled_row.logistic(z - q * (p - old))) <= 2e-3 * start * max(
            1.0, q
        )  # the slope is 1 + q p (1 - p)
        assert entropy == pytest.approx(entr(p) + entr(1 - p), abs=1e-9)


def case(n_classes, dtype, index, n=40, p=12, seed=0):
    """Rows, a model and agreed probabilities as random numbers; one row is empty, one entry 0."""
    rng = np.random.default_rng(seed)
    X = sp.random(n, p, 0.3, "csr", random_state=seed, dtype=dtype)
    X.data[:] = rng.standard_normal(X.nnz)
    X.data[3] = 0
    X = sp.csr_array(sp.vstack([X, sp.csr_matrix((1, p), dtype=dtype)]).astype(dtype))
    y = rng.integers(0, n_classes, n + 1)
    n_lanes = 1 if n_classes == 2 else -(-n_classes // 8) * 8
    rows = _compiled.CsrRows(
        X.indptr.astype(index), X.indices.astype(index), X.data, y, rng.uniform(0.5, 1.5, n + 1).astype(dtype)
    )
    table = np.zeros((p, n_lanes), dtype)
    intercept = np.full(n_lanes, -1e9, dtype)
    n_outputs = 1 if n_classes == 2 else n_classes
    table[:, :n_outputs] = rng.standard_normal((p, n_outputs))
    intercept[:n_outputs] = rng.standard_normal(n_outputs)
    model = _compiled.FlatModel(table.ravel(), np.empty(0, dtype), intercept)
    residual = np.zeros(n + 1 if n_classes == 2 else (n + 1, n_lanes), dtype)
    dual_vars = _compiled.DualVariables(residual, np.zeros(n + 1, dtype), rng.uniform(0.5, 9.0, n + 1).astype(dtype))
    return X, rows, model, dual_vars, make_workspace(dtype, n_lanes)


def visit(n_classes, rows, model, dual_vars, t, plain=False, gap_tol=0.0):
    order = np.random.default_rng(1).permutation(len(rows.y))
    scales = np.array([0.3, 1 / len(rows.y)], rows.values.dtype)
    kernel = _compiled.sdca_epoch_binary if n_classes == 2 else _compiled.sdca_epoch_softmax
    kernel = getattr(kernel, "py_func", kernel) if plain else kernel
    more = () if n_classes == 2 else (t,)
    return kernel(rows, model, dual_vars, order, scales, gap_tol, *more)


@DTYPE
@INDEX
@pytest.mark.parametrize("l1_thresholds", [False, True])
@pytest.mark.parametrize("n_classes", [2, 3, 9])
def test_visits_are_those_of_the_plain_functions(n_classes, l1_thresholds, index, dtype):
    ends = []
    for plain in (True, False):
        X, rows, model, dual_vars, t = case(n_classes, dtype, index)
        model = model._replace(l1_thresholds=np.full(X.shape[1], 0.2, dtype)) if l1_thresholds else model
        sums = visit(n_classes, rows, model, dual_vars, t, plain)
        ends.append([*sums, model.table, model.intercept[:n_classes], dual_vars.residual, dual_vars.entropy])
    for got, want in zip(*ends, strict=True):
        # sums reordered over a chain of 41 visits; a row's equation is solved to a tenth by the same steps
        assert_allclose(got, want, rtol=1e-3 if dtype is np.float32 else 1e-8, atol=100 * np.finfo(dtype).eps)


@pytest.mark.parametrize("n_classes", [2, 5])
def test_losses_and_gaps_are_their_definitions_before_anything_moves(n_classes):
    X, rows, model, dual_vars, t = case(n_classes, np.float64, np.int32)
    n_outputs = 1 if n_classes == 2 else n_classes
    z = X @ model.table.reshape(X.shape[1], -1)[:, :n_outputs] + model.intercept[:n_outputs]
    z = np.hstack([0 * z, z]) if n_outputs == 1 else z
    want = rows.weight @ (logsumexp(z, axis=1) - z[np.arange(len(z)), rows.y])
    before = model.table.copy()
    slope = _compiled.GradientSums(np.zeros_like(model.table), np.zeros_like(model.intercept))
    measure, more = (_compiled.evaluate_binary, ()) if n_outputs == 1 else (_compiled.evaluate_softmax, (t,))
    exact = measure(rows, model, dual_vars, _compiled.GradientSums(np.empty(0), np.empty(0)), *more)
    others = dual_vars._replace(residual=dual_vars.residual.copy(), entropy=dual_vars.entropy.copy())
    assert exact == measure(rows, model, others, slope, *more)
    residual = scipy_softmax(z, axis=1)
    assert_allclose(others.entropy, entr(residual).sum(axis=1), rtol=1e-9)
    residual[np.arange(len(z)), rows.y] -= 1
    assert_allclose(others.residual.reshape(len(z), -1)[:, :n_outputs], residual[:, -n_outputs:], atol=1e-12)
    assert (others.residual.reshape(len(z), -1)[:, n_outputs:] == 0).all()
    residual *= rows.weight[:, None]
    assert_allclose(slope.table.reshape(X.shape[1], -1)[:, :n_outputs], X.T @ residual[:, -n_outputs:], atol=1e-12)
    assert_allclose(slope.intercept[:n_outputs], residual[:, -n_outputs:].sum(axis=0), atol=1e-12)
    loss, gaps = visit(n_classes, rows, model, dual_vars, t, gap_tol=np.inf)  # all are left alone
    assert loss == pytest.approx(want, rel=1e-12)
    assert exact == pytest.approx((want, want), rel=1e-12)
    assert gaps == pytest.approx(want, rel=1e-12)  # rows that agree to the truth: the gap is the loss
    assert (model.table == before).all()


@pytest.mark.parametrize("n_classes", [2, 5])
def test_a_visit_moves_the_model_by_the_change_of_probabilities(n_classes):
    X, rows, model, dual_vars, t = case(n_classes, np.float64, np.int32)
    table, intercept, residual = model.table.copy(), model.intercept.copy(), dual_vars.residual.copy()
    visit(n_classes, rows, model, dual_vars, t)
    change = ((residual - dual_vars.residual).T * rows.weight / len(rows.y)).T
    change = change[:, None] if change.ndim == 1 else change
    assert_allclose(model.table - table, (X.T @ change).ravel(), atol=1e-12)
    assert_allclose((model.intercept - intercept)[:n_classes], 0.3 * change.sum(axis=0)[:n_classes], atol=1e-12)


@INDEX
def test_columns_and_rows_are_measured_in_float64(index):
    X = sp.csr_array(np.array([[1e25, 0.0], [0.0, 2.0]], dtype=np.float32))  # whose square float32 has not
    squares = np.zeros(2)
    indptr, indices = X.indptr.astype(index), X.indices.astype(index)
    _compiled_data.mean_squares(indptr, indices, X.data, np.array([0.5, 0.5]), squares)
    assert_allclose(squares, [0.5e50, 2.0], rtol=1e-6)
    q = np.empty(2)
    mean = _compiled_data.row_curvatures(indptr, indices, X.data, np.array([0.5, 0.5]), np.array([2e-50, 0.5]), 2.0, q)
    assert_allclose(q, [1.0 + 1.0, 1.0 + 1.0], rtol=1e-6)
    assert mean == pytest.approx(0.5, rel=1e-6)  # q / (1 + q), without the intercept's 1
    out = np.empty_like(X.data)
    _compiled_data.scale_values(indices, X.data, np.array([1e-25, 3.0]), out)
    assert_allclose(out, [1.0, 6.0], rtol=1e-6)


def test_without_compilation_the_same_fit_results():
    code = """
import numpy as np, scipy.sparse as sp
from sksoftmax import SoftmaxClassifier
rng = np.random.default_rng(0)
X = sp.random(60, 12, 0.4, "csr", random_state=0)
y = rng.integers(0, 3, 60)
clf = SoftmaxClassifier(1e-2, engine="compiled", random_state=0, max_iter=8).fit(X, y)
print(clf.solver_info_["engine"], *clf.coef_.ravel().tolist())
"""
    coefs = []
    for disabled in ("0", "1"):
        told = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "NUMBA_DISABLE_JIT": disabled},
        )
        engine, *coef = told.stdout.split()
        assert engine == "compiled"
        coefs.append(np.array(coef, dtype=float))
    assert_allclose(*coefs, rtol=1e-6, atol=1e-9)
