import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from sksoftmax._maths.curvature import (
    class_block_preconditioner,
    class_variances,
    curvature_mean,
    exact_proba,
    factorize_hessian,
    hessian_blocks,
    hessian_diagonal,
)
from sksoftmax._maths.objective import hessian_products, prior_params, probabilities
from sksoftmax._maths.preconditioner import compute_moments, gram_preconditioner
from sksoftmax._maths.row_sampling import _inclusion_probabilities, draw_rows, draw_systematically, leverage
from sksoftmax._types import Params
from tests.problems import CONTAINERS, problem, random_data, random_params, random_problem

CONTAINER = pytest.mark.parametrize("container", CONTAINERS.values(), ids=CONTAINERS)


@CONTAINER
@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("fit_intercept", [True, False])
def test_the_factor_inverts_the_hessian(container, n_classes, fit_intercept):
    case = random_problem(n_classes, container=container, alpha=0.05, fit_intercept=fit_intercept)
    params = random_params(case.n_outputs, 4)
    params = params._replace(intercept=params.intercept * fit_intercept)
    rows = draw_rows(case, params, None, case.n_samples)
    factor = factorize_hessian(case, params, rows, gram_preconditioner(case, compute_moments(case, full_gram=True)))
    grads = random_params(case.n_outputs, 4, seed=3)
    if case.n_outputs > 1:  # a gradient of F sums to 0 over the classes
        grads = Params(grads.coef - grads.coef.mean(axis=0), grads.intercept - grads.intercept.mean())
    grads = grads._replace(intercept=grads.intercept * fit_intercept)
    back = hessian_products(case, params)(factor.apply(grads))
    assert_allclose(back.coef, grads.coef, rtol=1e-6, atol=1e-8)
    assert_allclose(back.intercept, grads.intercept, rtol=1e-6, atol=1e-8)


def test_leverage_by_hand():
    X = np.array([[0.0, 1.0], [2.0, 1.0], [4.0, 1.0], [6.0, 1.0]])
    case = problem(X, [0, 1, 0, 1])
    # one column of one value, which counts for nothing; the other of mean 3 and variance 5
    assert_allclose(leverage(case, compute_moments(case, full_gram=False)), [9 / 5, 1 / 5, 1 / 5, 9 / 5])


@CONTAINER
@pytest.mark.parametrize("full_gram", [True, False])
def test_leverage_is_1_on_average(container, full_gram):
    case = random_problem(3, container=container)
    share = case.data.weight / case.data.weight.sum()
    assert share @ leverage(case, compute_moments(case, full_gram=full_gram)) == pytest.approx(1.0)


def test_rows_are_drawn_once_and_weigh_as_much_as_all():
    X, y = random_data(n_samples=3000)
    case = problem(X, y, weight=np.random.RandomState(0).uniform(0.1, 10, 3000))
    params = Params(3 * random_params(3, 4).coef, np.zeros(3))
    rows = draw_rows(case, params, leverage(case, compute_moments(case, full_gram=True)), 500)
    assert 495 <= len(rows.y) <= 500
    assert len(np.unique(rows.weight)) == len(rows.y)
    curvature = sum((p * (1 - p)).sum(axis=0) for p in [np.hstack(list(probabilities(case, params)))])
    drawn = case.kernel.proba(params, rows.X)
    share = case.data.weight / case.data.weight.sum()
    # what the chances are in proportion to is estimated without error but for rows that are sure to be drawn
    assert (drawn * (1 - drawn)).sum(axis=0) @ rows.weight == pytest.approx(curvature @ share, rel=0.1)


def test_the_row_that_holds_a_column_is_drawn():
    rng = np.random.RandomState(0)
    X = rng.standard_normal((5000, 3))
    X[:, 2] = 0
    X[17, 2] = 1.0  # one row holds the column
    y = (X[:, 0] > 0).astype(int)
    case = problem(X, y)
    rows = draw_rows(case, prior_params(case), leverage(case, compute_moments(case, full_gram=True)), 200)
    assert 1.0 in rows.X[:, 2]


def test_the_hessian_of_a_part_of_the_rows_is_near_that_of_all():
    X, y = random_data(n_samples=3000)
    case = problem(X, y)
    params = Params(3 * random_params(3, 4).coef, np.zeros(3))
    moments = compute_moments(case, full_gram=True)
    rows = draw_rows(case, params, leverage(case, moments), 500)
    basis = np.eye(15)

    def matrix(product):
        columns = [product(Params(e[:12].reshape(3, 4), e[12:])) for e in basis]
        return np.array([np.append(c.coef.ravel(), c.intercept) for c in columns])

    every = matrix(hessian_products(case, params)) + 0.01 * np.eye(15)
    part = matrix(hessian_products(case, params, rows)) + 0.01 * np.eye(15)
    spectrum = np.linalg.eigvals(np.linalg.solve(every, part)).real
    assert 0.6 < spectrum.min() <= spectrum.max() < 1.6  # 500 rows drawn by their curvature, 15 unknowns


@CONTAINER
@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("fit_intercept", [True, False])
def test_class_metric_inverts_each_class_own_curvature(container, n_classes, fit_intercept):
    case = random_problem(n_classes, container=container, alpha=0.01, fit_intercept=fit_intercept)
    dense = random_problem(n_classes).data.X
    params = random_params(case.n_outputs, 4)
    params = params._replace(intercept=params.intercept * fit_intercept)
    preconditioner = class_block_preconditioner(
        case,
        params,
        draw_rows(case, params, None, 12),
        gram_preconditioner(case, compute_moments(case, full_gram=True)),
    )
    p = np.hstack(list(probabilities(case, params)))
    ones = np.hstack([dense, np.ones((len(dense), 1))])[:, : 4 + fit_intercept]
    weight = case.data.weight / case.data.weight.sum()
    iter_blocks = [(ones.T * (weight * pc * (1 - pc))) @ ones for pc in p]
    for block in iter_blocks:
        block[:4, :4] += 0.01 * np.eye(4)
    grads = random_params(case.n_outputs, 4, seed=3)
    flat = np.hstack([grads.coef, grads.intercept[:, None]])[:, : 4 + fit_intercept]
    # the constrained solve, written as one linear system
    q, rows = 4 + fit_intercept, len(iter_blocks)
    system = np.zeros((q * (rows + 1), q * (rows + 1)))
    for c, block in enumerate(iter_blocks):
        system[c * q : (c + 1) * q, c * q : (c + 1) * q] = block
        if rows > 1:
            system[c * q : (c + 1) * q, rows * q :] = np.eye(q)
            system[rows * q :, c * q : (c + 1) * q] = np.eye(q)
    if rows == 1:
        system[q:, q:] = np.eye(q)
    want = np.linalg.solve(system, np.append(flat.ravel(), np.zeros(q)))[: rows * q].reshape(rows, q)
    got = preconditioner.apply(grads)
    got = np.hstack([got.coef, got.intercept[:, None]])[:, :q]
    assert_allclose(got, want, rtol=1e-4, atol=1e-6)


def test_the_largest_of_several_probabilities_is_what_the_others_leave():
    proba = np.array([[1.0, 0.2], [1e-9, 0.3], [3e-9, 0.5]], dtype=np.float32)  # 1 - 4e-9 is 1 in float32
    got = exact_proba(proba)
    assert got.dtype == np.float64
    assert 1 - got[0, 0] == pytest.approx(4e-9, rel=1e-7)  # of float32's rounding
    assert_allclose(got.sum(axis=0), 1, rtol=1e-15)
    assert proba[0, 0] == 1  # which is left as it was


@pytest.mark.parametrize(
    "proba", [np.full((1, 3), 0.5, np.float32), np.full((2, 3), 0.5)], ids=["two classes", "float64"]
)
def test_probabilities_that_have_their_digits_stay_as_they_are(proba):
    assert exact_proba(proba) is proba


def test_spreads_by_hand():
    assert_allclose(class_variances(np.array([[0.25, 1.0]])), [[0.1875, 0.0]])
    others = np.array([1e-20, 3e-20])
    got = class_variances(np.array([[1.0], [1e-20], [3e-20]]))  # p (1 - p) as a difference is 0
    assert_allclose(got[:, 0], [4e-20, *others], rtol=1e-15)
    proba = np.random.RandomState(0).dirichlet(np.ones(4), 50).T
    assert_allclose(class_variances(proba), proba * (1 - proba), rtol=1e-13)


def dense_of_classes(case, params):
    """Each class's own part of the Hessian, (n_outputs, q + 1, q + 1), the intercept last, without the penalty."""
    X = case.data.X.toarray() if sp.issparse(case.data.X) else case.data.X
    rows = np.column_stack([X, np.ones(len(X))])
    share = case.data.weight / case.data.weight.sum()
    proba = case.kernel.proba(params, X)
    return np.array([(rows.T * (share * p * (1 - p))) @ rows for p in proba])


@CONTAINER
@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("fit_intercept", [True, False])
def test_the_diagonal_is_that_of_the_dense_hessian_about_the_curvatures_mean(container, n_classes, fit_intercept):
    case = random_problem(n_classes, container=container, alpha=0.01, fit_intercept=fit_intercept)
    case = case._replace(l1_ratio=0.25)
    params = random_params(case.n_outputs, 4)
    params = params._replace(intercept=params.intercept * fit_intercept)
    rows = case.data._replace(weight=case.data.weight / case.data.weight.sum())
    own = dense_of_classes(case, params)
    mean = own[:, -1, :-1].sum(axis=0) / own[:, -1, -1].sum() * fit_intercept
    move = np.eye(5)
    move[-1, :-1] = -mean  # rows less the mean
    centred = np.array([move.T @ H @ move for H in own])
    got = hessian_diagonal(case, params, rows)
    assert_allclose(got.mean, mean, rtol=1e-12, atol=1e-15)
    assert_allclose(curvature_mean(case, hessian_blocks(case, params, rows)), mean, rtol=1e-12, atol=1e-15)
    assert got.unit == 1
    want = np.array([np.diag(H)[:-1] for H in centred]) + 0.01 * 0.75  # the share of L2
    assert_allclose(got.coef, want, rtol=1e-10)
    assert_allclose(got.intercept, own[:, -1, -1] * fit_intercept, rtol=1e-12)

    # the inverse in the parameters' own coordinates: move diag(1 / d) move'
    grads = random_params(case.n_outputs, 4, seed=3)
    grads = grads._replace(intercept=grads.intercept * fit_intercept)
    applied = got.apply(grads)
    for c in range(case.n_outputs):
        d = np.append(1 / got.coef[c], 1 / got.intercept[c] if fit_intercept else 0.0)
        full = move.T.copy()  # coefficients of centred rows are those of rows, and the intercept makes up for the mean
        inverse = full.T @ np.diag(d) @ full
        assert_allclose(
            np.append(applied.coef[c], applied.intercept[c]),
            inverse @ np.append(*[grads.coef[c], grads.intercept[c]]),
            rtol=1e-9,
        )


@CONTAINER
def test_the_diagonal_of_numbers_without_a_square_is_in_units_of_them(container):
    X, y = random_data()
    X *= 1e200
    case = problem(container(X), y, alpha=0.0)
    got = hessian_diagonal(case, prior_params(case), case.data._replace(weight=case.data.weight / 12))
    small = problem(container(X / np.abs(X).max()), y, alpha=0.0)
    want = hessian_diagonal(small, prior_params(small), small.data._replace(weight=small.data.weight / 12))
    assert got.unit == np.abs(X).max()
    assert_allclose(got.coef, want.coef, rtol=1e-10)


@CONTAINER
@pytest.mark.parametrize("cell", [1e4, -1e12])
def test_the_curvature_that_most_rows_share_forgets_an_outlying_cell(container, cell):
    X, y = random_data(500)
    case = problem(container(X), y)
    far = X.copy()
    far[7, 1] = cell
    outlying = problem(container(far), y)
    params = prior_params(case)

    def coef(case, **kwargs):
        return hessian_diagonal(case, params, case.data._replace(weight=case.data.weight / 500), **kwargs).coef

    assert (coef(outlying)[:, 1] > 1e3 * coef(case)[:, 1]).all()
    # one cell of 500 counts as 10 times a usual distance: some share of 1 + 100 / 500
    assert_allclose(coef(outlying, is_robust=True), coef(case), rtol=0.5)
    assert_allclose(coef(case, is_robust=True), coef(case), rtol=0.1)  # normal columns are as they are


def test_without_curvature_the_diagonals_inverse_is_0():
    case = problem(np.zeros((4, 2)), [0, 1, 0, 1], alpha=0.0)
    flat = hessian_diagonal(case, prior_params(case), case.data._replace(weight=case.data.weight / 4))
    assert_allclose(flat.apply(Params(np.ones((1, 2)), np.ones(1))).coef, 0)


@given(st.integers(1, 60), st.integers(1, 60), st.integers(0, 99))
def test_a_systematic_draw_takes_the_rows_at_one_half_three_halves_and_so_on(n_samples, n_drawn, seed):
    size = np.random.default_rng(seed).exponential(size=n_samples) ** 3
    n_drawn = min(n_drawn, n_samples)
    index, inclusion = draw_systematically(size, n_drawn)
    probability = _inclusion_probabilities(size, n_drawn)
    want, total = [], 0.0
    for i, one in enumerate(probability):
        if any(total < k + 0.5 <= total + one for k in range(n_drawn)):
            want.append(i)
        total += one
    assert index.tolist() == want
    assert_allclose(inclusion, probability[want])
    assert probability.sum() == pytest.approx(n_drawn)
    assert (probability <= 1).all()
