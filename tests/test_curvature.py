import numpy as np
import pytest
from numpy.testing import assert_allclose

from sksoftmax._curvature import by_class, draw, factorised, leverage
from sksoftmax._objective import hessian_products, prior_params, probabilities
from sksoftmax._precondition import moments, preconditioner
from sksoftmax._types import Params
from tests.problems import CONTAINERS, problem, random_data, random_params, random_problem

CONTAINER = pytest.mark.parametrize("container", CONTAINERS.values(), ids=CONTAINERS)


@CONTAINER
@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("fit_intercept", [True, False])
def test_the_factor_inverts_the_hessian(container, n_classes, fit_intercept):
    case = random_problem(n_classes, container=container, alpha=0.05, fit_intercept=fit_intercept)
    params = random_params(case.n_rows, 4)
    params = params._replace(intercept=params.intercept * fit_intercept)
    rows = draw(case, params, None, case.n_samples)
    factor = factorised(case, params, rows, preconditioner(case, moments(case, whole=True)))
    grads = random_params(case.n_rows, 4, seed=3)
    if case.n_rows > 1:  # a gradient of F sums to 0 over the classes
        grads = Params(grads.coef - grads.coef.mean(axis=0), grads.intercept - grads.intercept.mean())
    grads = grads._replace(intercept=grads.intercept * fit_intercept)
    back = hessian_products(case, params)(factor.apply(grads))
    assert_allclose(back.coef, grads.coef, rtol=1e-6, atol=1e-8)
    assert_allclose(back.intercept, grads.intercept, rtol=1e-6, atol=1e-8)


def test_leverage_by_hand():
    X = np.array([[0.0, 1.0], [2.0, 1.0], [4.0, 1.0], [6.0, 1.0]])
    case = problem(X, [0, 1, 0, 1])
    # one column of one value, which counts for nothing; the other of mean 3 and variance 5
    assert_allclose(leverage(case, moments(case, whole=False)), [9 / 5, 1 / 5, 1 / 5, 9 / 5])


@CONTAINER
@pytest.mark.parametrize("whole", [True, False])
def test_leverage_is_1_on_average(container, whole):
    case = random_problem(3, container=container)
    share = case.data.weight / case.data.weight.sum()
    assert share @ leverage(case, moments(case, whole=whole)) == pytest.approx(1.0)


def test_rows_are_drawn_once_and_weigh_as_much_as_all():
    X, y = random_data(n_samples=3000)
    case = problem(X, y, weight=np.random.RandomState(0).uniform(0.1, 10, 3000))
    params = Params(3 * random_params(3, 4).coef, np.zeros(3))
    rows = draw(case, params, leverage(case, moments(case, whole=True)), 500)
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
    rows = draw(case, prior_params(case), leverage(case, moments(case, whole=True)), 200)
    assert 1.0 in rows.X[:, 2]


def test_the_hessian_of_a_part_of_the_rows_is_near_that_of_all():
    X, y = random_data(n_samples=3000)
    case = problem(X, y)
    params = Params(3 * random_params(3, 4).coef, np.zeros(3))
    stats = moments(case, whole=True)
    rows = draw(case, params, leverage(case, stats), 500)
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
    params = random_params(case.n_rows, 4)
    params = params._replace(intercept=params.intercept * fit_intercept)
    metric = by_class(case, params, draw(case, params, None, 12), preconditioner(case, moments(case, whole=True)))
    p = np.hstack(list(probabilities(case, params)))
    ones = np.hstack([dense, np.ones((len(dense), 1))])[:, : 4 + fit_intercept]
    weight = case.data.weight / case.data.weight.sum()
    blocks = [(ones.T * (weight * pc * (1 - pc))) @ ones for pc in p]
    for block in blocks:
        block[:4, :4] += 0.01 * np.eye(4)
    grads = random_params(case.n_rows, 4, seed=3)
    flat = np.hstack([grads.coef, grads.intercept[:, None]])[:, : 4 + fit_intercept]
    # the constrained solve, written as one linear system
    q, rows = 4 + fit_intercept, len(blocks)
    system = np.zeros((q * (rows + 1), q * (rows + 1)))
    for c, block in enumerate(blocks):
        system[c * q : (c + 1) * q, c * q : (c + 1) * q] = block
        if rows > 1:
            system[c * q : (c + 1) * q, rows * q :] = np.eye(q)
            system[rows * q :, c * q : (c + 1) * q] = np.eye(q)
    if rows == 1:
        system[q:, q:] = np.eye(q)
    want = np.linalg.solve(system, np.append(flat.ravel(), np.zeros(q)))[: rows * q].reshape(rows, q)
    got = metric.apply(grads)
    got = np.hstack([got.coef, got.intercept[:, None]])[:, :q]
    assert_allclose(got, want, rtol=1e-4, atol=1e-6)
