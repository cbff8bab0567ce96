import numpy as np
import pytest
import scipy.sparse as sp
from numpy.testing import assert_allclose

from sksoftmax._maths import class_curvature
from sksoftmax._maths.class_curvature import (
    DiagonalPreconditioner,
    class_preconditioner,
    column_units,
    gram_of_units,
    mean_curvature,
    shared_preconditioner,
)
from sksoftmax._maths.objective import hessian_products
from sksoftmax._maths.preconditioner import compute_moments
from sksoftmax._types import Params, dot, normalize_weights
from tests.problems import problem, random_data, random_params, random_problem

ALPHA = 0.05


def in_units(case):
    """The case's columns in the coordinates of the preconditioners, with a column of ones, and the weights."""
    units = column_units(compute_moments(case, full_gram=False))
    X = case.data.X.toarray() if sp.issparse(case.data.X) else case.data.X
    u = (X - units.mean) / units.scale
    weight = case.data.weight / case.data.weight.sum()
    return units, np.column_stack([u, np.full(len(u), float(case.fit_intercept))]), weight


def ridge(case, units):
    return np.diag(np.append(case.alpha / units.scale**2, 0))


@pytest.mark.parametrize("fit_intercept", [True, False])
def test_coordinates_change_neither_predictions_nor_slopes(fit_intercept):
    case = random_problem(3, alpha=ALPHA)._replace(fit_intercept=fit_intercept)
    units, u, _ = in_units(case)
    grads, step = random_params(3, 4, seed=1), random_params(3, 4, seed=2)
    if not fit_intercept:
        grads, step = grads._replace(intercept=np.zeros(3)), step._replace(intercept=np.zeros(3))
    flat = units.flatten_step(step)
    assert_allclose(u @ flat.T, case.data.X @ step.coef.T + step.intercept)
    assert np.vdot(flat, units.flatten_gradient(grads)) == pytest.approx(dot(grads, step))
    back = units.to_step(flat)
    assert_allclose(back.coef, step.coef)
    assert_allclose(back.intercept, step.intercept, atol=1e-12)


def test_constant_columns_do_not_move():
    X, y = random_data()
    X[:, 1] = 7.0
    case = problem(X, y)
    units = column_units(compute_moments(case, full_gram=False))
    assert np.isinf(units.scale[1])
    assert (units.to_step(np.ones((3, 5))).coef[:, 1] == 0).all()


@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("n_classes", [2, 3])
def test_each_preconditioner_is_the_inverse_of_its_curvature(n_classes, fit_intercept):
    case = random_problem(n_classes, alpha=ALPHA)._replace(fit_intercept=fit_intercept)
    units, u, weight = in_units(case)
    params = random_params(case.n_outputs, 4, seed=3)
    gradient = np.random.default_rng(0).standard_normal((case.n_outputs, 5))
    gradient[:, -1] *= fit_intercept
    v = mean_curvature(case, params, normalize_weights(case.data))
    proba = case.kernel.proba(params, case.data.X)
    assert v == pytest.approx((proba * (1 - proba) @ weight).mean())

    def assert_inverse(preconditioner, matrices):
        got = preconditioner.apply(gradient)
        for row, g, matrix in zip(got, gradient, matrices, strict=True):
            want = np.linalg.lstsq(matrix, g, rcond=None)[0]
            assert_allclose(row, want, rtol=1e-6, atol=1e-9)

    gram = (u.T * weight) @ u
    assert_inverse(
        DiagonalPreconditioner(case, units, v), [np.diag(np.diag(v * gram + ridge(case, units)))] * case.n_outputs
    )
    of_units = gram_of_units(compute_moments(case, full_gram=True), units)
    assert_allclose(of_units, gram[:-1, :-1], atol=1e-12)
    centred = v * gram  # the columns have mean 0 with an intercept
    assert_inverse(shared_preconditioner(case, units, of_units, v), [centred + ridge(case, units)] * case.n_outputs)
    built = class_preconditioner(case, params, units, of_units, None, None)
    own = [(u.T * (weight * p * (1 - p))) @ u + ridge(case, units) for p in proba]
    assert_inverse(built.preconditioner, own)
    assert_allclose(built.certainty, (proba * (1 - proba)).sum(axis=0))


def test_the_curvature_of_each_class_is_computed_anew_only_if_it_has_changed():
    case = random_problem(3, alpha=ALPHA)
    units, _, _ = in_units(case)
    gram = gram_of_units(compute_moments(case, full_gram=True), units)
    here = random_params(3, 4, seed=3)
    near, far = (Params(here.coef * factor, here.intercept) for factor in (1.001, 20))
    first = class_preconditioner(case, here, units, gram, None, None)
    again = class_preconditioner(case, near, units, gram, first.certainty, first.leverage)
    assert again.preconditioner is None
    assert again.certainty is first.certainty
    assert class_preconditioner(case, far, units, gram, first.certainty, first.leverage).preconditioner is not None


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("container", [np.asarray, sp.csr_array])
def test_rows_that_are_drawn_describe_the_curvature_of_all(container, dtype):
    X, y = random_data(n_samples=20_000, n_features=6, n_classes=3, seed=0)
    X[::1000] *= 30  # few rows hold most of X'X
    case = problem(container(X.astype(dtype)), y, alpha=1e-6)
    units, u, weight = in_units(case)
    params = random_params(3, 6, seed=1)
    proba = case.kernel.proba(Params(*(part.astype(dtype) for part in params)), case.data.X).astype(float)
    gram = gram_of_units(compute_moments(case, full_gram=True), units)
    assert class_curvature._n_class_rows(case) < 100
    built = class_preconditioner(case, params, units, gram, None, None)
    inverse = np.stack([built.preconditioner.apply(np.tile(e, (3, 1))) for e in np.eye(7)], axis=2)
    for c in range(3):
        exact = (u.T * (weight * proba[c] * (1 - proba[c]))) @ u + ridge(case, units)
        eigenvalues = np.linalg.eigvals(inverse[c] @ exact).real
        assert 0.2 < eigenvalues.min() <= eigenvalues.max() < 5


def test_the_leverage_is_that_of_the_gram_matrix_on_average():
    X, y = random_data(n_samples=2000, n_features=8, n_classes=3, seed=0)
    case = problem(X, y)
    units, u, weight = in_units(case)
    gram = gram_of_units(compute_moments(case, full_gram=True), units)
    exact = np.einsum("ij,jk,ik->i", u[:, :-1], np.linalg.inv(gram), u[:, :-1])
    got = class_curvature._leverage(case, units, gram)
    assert weight @ got == pytest.approx(8, rel=0.3)  # the number of columns
    assert np.corrcoef(np.log(got), np.log(exact))[0, 1] > 0.7


def test_the_inverses_times_the_hessian_have_eigenvalues_up_to_2():
    case = random_problem(3, alpha=ALPHA)  # a Hessian is at most twice its diagonal blocks
    units, _, _ = in_units(case)
    params = random_params(3, 4, seed=3)
    gram = gram_of_units(compute_moments(case, full_gram=True), units)
    built = class_preconditioner(case, params, units, gram, None, None)
    hessian, products = hessian_products(case, params), []
    for e in np.eye(15):
        product = hessian(units.to_step(e.reshape(3, 5)))
        products.append(built.preconditioner.apply(units.flatten_gradient(product)).ravel())
    eigenvalues = np.linalg.eigvals(np.array(products).T).real
    assert -1e-9 < eigenvalues.min() <= eigenvalues.max() < 2
