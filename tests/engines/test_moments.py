"""Statistics of columns, Gram matrices and Hessians of the loss: by hand, by sums over the rows, engine by engine."""

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import logsumexp

from sksoftmax._engines.moments import column_squares, exact_loss, gram, loss_hessian, row_squares, summarize_columns
from sksoftmax._engines.registry import KERNELS
from sksoftmax._maths.curvature import proba_and_variances
from sksoftmax._types import Params

ENGINE = pytest.mark.parametrize("engine", KERNELS)
DTYPE = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def rows(n, p, dtype, *, is_sparse=False, seed=0):
    """X, weights, and the means and factors of the columns."""
    rng = np.random.default_rng(seed)
    X = (rng.standard_normal((n, p)) * (rng.uniform(size=(n, p)) < 0.7)).astype(dtype)
    mean, factor = rng.standard_normal(p), rng.uniform(0.5, 2, p)
    return sp.csr_array(X) if is_sparse else X, rng.uniform(0.5, 2, n), mean, factor


def probabilities(n_classes, n, seed=0):
    z = 3 * np.random.default_rng(seed).standard_normal((n_classes, n))
    return proba_and_variances(np.exp(z) / np.exp(z).sum(axis=0) if n_classes > 1 else 1 / (1 + np.exp(z)))


@ENGINE
def test_two_rows_by_hand(engine):
    kernel, X = KERNELS[engine], np.array([[1.0, 4.0], [3.0, -2.0]])
    low, high, sums = summarize_columns(kernel, X, np.array([0.25, 0.75]))
    assert_array_equal([low, high, sums], [[1, -2], [3, 4], [2.5, -0.5]])
    mean, factor = np.array([2.0, 1.0]), np.array([1.0, 0.5])  # rows (-1, 1.5) and (1, -1.5)
    assert_array_equal(column_squares(kernel, X, mean, factor, np.array([1.0, 4.0])), [5, 11.25])
    assert_array_equal(np.tril(gram(kernel, X, mean, factor, np.array([2.0, 1.0]), 2)), [[5, 0], [-7.5, 11.25]])
    # with a column of roots: rows (-2, 3, 2) and (1, -1.5, 1)
    want = [[5, 0, 0], [-7.5, 11.25, 0], [-3, 4.5, 5]]
    assert_array_equal(np.tril(gram(kernel, X, mean, factor, np.array([2.0, 1.0]), 3)), want)


@ENGINE
@DTYPE
@pytest.mark.parametrize("is_sparse", [False, True])
@pytest.mark.parametrize(("n", "p"), [(1, 1), (50, 3), (700, 40), (40, 300)])
def test_sums_over_rows_are_those_of_numpy(n, p, is_sparse, dtype, engine):
    X, weight, mean, factor = rows(n, p, dtype, is_sparse=is_sparse)
    dense = X.toarray() if is_sparse else X
    low, high, sums = summarize_columns(KERNELS[engine], X, weight)
    assert_array_equal(low, dense.min(axis=0))
    assert_array_equal(high, dense.max(axis=0))
    eps = float(np.finfo(dtype).eps)
    tolerance = {"rtol": 100 * eps, "atol": 100 * eps * n}
    assert_allclose(sums, weight @ dense, **tolerance)
    u = (dense - (0 if is_sparse else mean)) * factor
    assert_allclose(column_squares(KERNELS[engine], X, mean, factor, weight), weight @ u**2, **tolerance)
    if not is_sparse:
        assert_allclose(row_squares(KERNELS[engine], X, mean, factor), (u**2).sum(axis=1), **tolerance)
    sums = gram(KERNELS[engine], X, mean, factor, np.sqrt(weight), p)
    assert sums.dtype == dtype
    assert_allclose(np.tril(sums), np.tril((u.T * weight) @ u), **tolerance)


@ENGINE
@DTYPE
@pytest.mark.parametrize("is_sparse", [False, True])
@pytest.mark.parametrize("with_ones", [False, True])
@pytest.mark.parametrize(
    ("n", "p", "n_classes"),
    [(1, 1, 1), (30, 2, 3), (300, 6, 12), (700, 40, 1), (300, 90, 3), (5000, 4, 4), (1100, 520, 1), (30, 515, 2)],
)  # in one span and in many, by tiles and by the BLAS
def test_the_hessian_is_the_sum_over_the_rows(n, p, n_classes, with_ones, is_sparse, dtype, engine):
    X, weight, mean, factor = rows(n, p, dtype, is_sparse=is_sparse)
    proba, variances = probabilities(n_classes, n)
    u = ((X.toarray() if is_sparse else X) - mean) * factor
    u = np.hstack([u, np.ones((n, 1))]) if with_ones else u
    hessian = loss_hessian(KERNELS[engine], X, mean, factor, weight, proba, variances, u.shape[1])
    covariance = np.einsum("ci,cd->icd", proba, np.eye(n_classes)) - np.einsum("ci,di->icd", proba, proba)
    want = np.einsum("i,icd,ij,ik->cjdk", weight, covariance, u, u, optimize=True).reshape(hessian.shape)
    assert_allclose(np.tril(hessian), np.tril(want), rtol=1e-9, atol=1e-11 * n)


@ENGINE
@DTYPE
@pytest.mark.parametrize("is_sparse", [False, True])
@pytest.mark.parametrize(("n", "p", "n_classes"), [(1, 1, 2), (900, 50, 2), (900, 50, 7), (30, 300, 20)])
def test_the_exact_loss_is_that_of_float64(n, p, n_classes, is_sparse, dtype, engine):
    X, weight, mean, _ = rows(n, p, dtype, is_sparse=is_sparse)
    rng, offset = np.random.default_rng(0), np.zeros(p) if is_sparse else mean
    y, n_outputs = rng.integers(n_classes, size=n), 1 if n_classes == 2 else n_classes
    params = Params(rng.standard_normal((n_outputs, p)), rng.standard_normal(n_outputs))
    z = params.coef @ ((X.toarray() if is_sparse else X).astype(np.float64) - offset).T + params.intercept[:, None]
    z = np.vstack([np.zeros(n), z]) if n_classes == 2 else z
    losses = logsumexp(z, axis=0) - z[y, np.arange(n)]
    assert exact_loss(KERNELS[engine], params, X, offset, y, weight) == pytest.approx(weight @ losses, rel=1e-12)
    table = rng.dirichlet(np.ones(n_classes), n)
    soft = logsumexp(z, axis=0) - (z * table.T).sum(axis=0)
    if engine != "naive":  # its targets are classes
        assert exact_loss(KERNELS[engine], params, X, offset, table, weight) == pytest.approx(weight @ soft, rel=1e-12)


@ENGINE
def test_the_hessian_of_a_sure_row_keeps_its_digits(engine):
    proba, variances = proba_and_variances(np.array([[1 - 3e-20], [1e-20], [2e-20]]))
    one = np.ones(1)
    hessian = loss_hessian(KERNELS[engine], np.ones((1, 1)), 0 * one, one, one, proba, variances, 1)
    assert_allclose(hessian[np.tril_indices(3)], [3e-20, -1e-20, 1e-20, -2e-20, -2e-40, 2e-20], rtol=1e-6)


@ENGINE
@given(
    st.integers(1, 30), st.integers(1, 8), st.sampled_from([1, 3, 4, 9]), st.sampled_from([np.float32, np.float64]),
    st.integers(0, 99),
)  # fmt: skip
def test_a_hessian_is_positive_semi_definite_and_flat_along_a_shift_of_all_classes(engine, n, p, K, dtype, seed):
    X, weight, mean, factor = rows(n, p, dtype, seed=seed)
    lower = np.tril(loss_hessian(KERNELS[engine], X, mean, factor, weight, *probabilities(K, n, seed), p + 1))
    matrix = lower + np.tril(lower, -1).T
    size = np.abs(matrix).max()
    if K > 1:
        assert_allclose(matrix.reshape(K, p + 1, -1).sum(axis=0), 0, atol=1e-12 * size)
    assert np.linalg.eigvalsh(matrix).min() > -1e-12 * size
