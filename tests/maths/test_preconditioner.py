import numpy as np
import pytest
import scipy.linalg
import scipy.sparse as sp
from numpy.testing import assert_allclose

from sksoftmax._maths.curvature import class_block_preconditioner
from sksoftmax._maths.objective import hessian_products, prior_params, value_and_grad
from sksoftmax._maths.preconditioner import (
    absorb_constant_columns,
    compute_moments,
    curvature_bound,
    gram_preconditioner,
    merge_moments,
    use_full_gram,
)
from sksoftmax._maths.row_sampling import draw_rows, leverage
from sksoftmax._types import Params, dot
from tests.problems import CONTAINERS, problem, random_data, random_params, random_problem

CONTAINER = pytest.mark.parametrize("container", CONTAINERS.values(), ids=CONTAINERS)


def weighted_case(container=np.asarray, **kwargs):
    X, y = random_data(n_samples=40)
    X = X * [1.0, 100.0, 1e-3, 5.0] + [0.0, 1e3, 0.0, -2.0]
    weight = np.random.RandomState(1).uniform(0.5, 2.0, 40)
    return X, weight, problem(container(X), y, weight=weight, **kwargs)


@CONTAINER
@pytest.mark.parametrize("fit_intercept", [True, False])
def test_moments_are_the_weighted_mean_and_covariance(container, fit_intercept):
    X, weight, case = weighted_case(container, fit_intercept=fit_intercept)
    moments = compute_moments(case, full_gram=True)
    mean = np.average(X, axis=0, weights=weight) * fit_intercept
    covariance = (X - mean).T * weight @ (X - mean) / weight.sum()
    assert_allclose(moments.mean, mean, rtol=1e-12)
    assert_allclose(moments.max_deviation, np.abs(X - mean).max(axis=0), rtol=1e-12)
    assert_allclose(
        moments.second_moment * np.outer(moments.max_deviation, moments.max_deviation), covariance, rtol=1e-7, atol=1e-9
    )
    diagonal = compute_moments(case, full_gram=False)
    assert_allclose(diagonal.second_moment, np.diagonal(moments.second_moment), rtol=1e-7)


@CONTAINER
@pytest.mark.parametrize("n_classes", [2, 3])
def test_the_metric_inverts_the_bound_in_the_parameters_own_coordinates(container, n_classes):
    case = random_problem(n_classes, container=container, alpha=0.01)
    X, weight = random_problem(n_classes).data.X, case.data.weight
    preconditioner = gram_preconditioner(case, compute_moments(case, full_gram=True))
    ones = np.hstack([X, np.ones((len(X), 1))])
    bound = curvature_bound(case) * (ones.T * weight) @ ones / weight.sum()
    bound[:4, :4] += 0.01 * np.eye(4)
    grads = random_params(case.n_outputs, 4)
    want = np.hstack([grads.coef, grads.intercept[:, None]]) @ np.linalg.inv(bound)
    got = preconditioner.apply(grads)
    assert_allclose(
        np.hstack([got.coef, got.intercept[:, None]]), want, rtol=1e-5
    )  # jitter: sqrt(eps) times the condition


@pytest.mark.parametrize("n_classes", [2, 3])
def test_the_bound_is_above_the_curvature_everywhere(n_classes):
    # Boehning: d' H d <= d' P^-1 d, so that 1/2 g' P g is a decrease that one step is sure of
    case = random_problem(n_classes, alpha=1e-3)
    preconditioner = gram_preconditioner(case, compute_moments(case, full_gram=True))
    for seed in range(10):
        params = random_params(case.n_outputs, 4, seed)
        value, grads = value_and_grad(case, params)
        step = preconditioner.apply(grads)
        new = value_and_grad(case, Params(params.coef - step.coef, params.intercept - step.intercept)).value
        assert new <= value - 0.5 * dot(grads, step) * (1 - 1e-6)


@pytest.mark.parametrize("full_gram", [True, False])
def test_steps_do_not_depend_on_the_columns_scale_and_shift(full_gram):
    X, y = random_data(n_samples=40)
    scale, shift = 10.0 ** np.array([-8.0, 0.0, 3.0, 30.0]), np.array([0.0, 5.0, 1e4, 0.0])
    plain, changed = problem(X, y, alpha=0.0), problem(X * scale + shift, y, alpha=0.0)
    steps = []
    for case in (plain, changed):
        grads = value_and_grad(case, prior_params(case)).grads
        steps.append(gram_preconditioner(case, compute_moments(case, full_gram=full_gram)).apply(grads))
    assert_allclose(steps[1].coef * scale, steps[0].coef, rtol=1e-6, atol=1e-9)


def test_a_batch_with_all_the_largest_values_is_below_the_metric_for_batches():
    X = np.zeros((1000, 2))
    X[:3, 0] = 1.0  # a rare feature: 3 rows of 1000
    X[:, 1] = np.random.RandomState(0).standard_normal(1000)
    case = problem(X, np.arange(1000) % 2, alpha=0.0)
    size = 10
    preconditioner = gram_preconditioner(case, compute_moments(case, full_gram=True), batch_size=size)
    along = Params(np.array([[1.0, 0.0]]), np.zeros(1))
    allowed = 1.0 / preconditioner.apply(along).coef[0, 0]
    assert allowed >= curvature_bound(case) * 1.0 / size  # one such row in the batch


@pytest.mark.parametrize("full_gram", [True, False])
def test_statistics_of_two_parts_merge_to_those_of_all(full_gram):
    _, weight, case = weighted_case()
    halves = [case._replace(data=type(case.data)(*(a[s] for a in case.data))) for s in (slice(15), slice(15, None))]
    got = merge_moments(
        compute_moments(halves[0], full_gram=full_gram),
        weight[:15].sum(),
        compute_moments(halves[1], full_gram=full_gram),
        weight[15:].sum(),
    )
    want = compute_moments(case, full_gram=full_gram)
    assert_allclose(got.mean, want.mean, rtol=1e-12)
    assert (got.max_deviation >= want.max_deviation * (1 - 1e-12)).all()
    assert (got.max_deviation <= 3 * want.max_deviation).all()
    scales = [np.outer(s.max_deviation, s.max_deviation) if full_gram else s.max_deviation**2 for s in (got, want)]
    assert_allclose(got.second_moment * scales[0], want.second_moment * scales[1], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("value", [0.0, 1.0, 0.1, 1e30, 1e-30])
@pytest.mark.parametrize("alpha", [0.0, 1e-4])
@pytest.mark.parametrize("full_gram", [True, False])
def test_a_column_of_one_value_does_not_move(dtype, value, alpha, full_gram):
    X, y = random_data(n_samples=300)
    X[:, 2] = value
    case = problem(X.astype(dtype), y, alpha=alpha)
    preconditioner = gram_preconditioner(case, compute_moments(case, full_gram=full_gram))
    start = prior_params(case)
    grads = value_and_grad(case, start).grads
    for each in (
        (
            preconditioner,
            class_block_preconditioner(case, start, draw_rows(case, start, None, case.n_samples), preconditioner),
        )
        if full_gram
        else (preconditioner,)
    ):
        step = each.apply(grads)
        assert (step.coef[:, 2] == 0).all()
        assert (step.coef[:, 0] != 0).all()


def test_without_an_intercept_a_column_of_one_value_is_a_column():
    X, y = random_data(n_samples=300)
    X[:, 2] = 7.0
    case = problem(X, y, fit_intercept=False)
    step = gram_preconditioner(case, compute_moments(case, full_gram=True)).apply(
        value_and_grad(case, prior_params(case)).grads
    )
    assert (step.coef[:, 2] != 0).all()


def test_columns_of_one_value_can_be_left_to_the_intercept():
    X, y = random_data(n_samples=30)
    X[:, 2] = 7.0
    case = problem(X, y)
    preconditioner = gram_preconditioner(case, compute_moments(case, full_gram=True))
    params = random_params(3, 4)
    moved = absorb_constant_columns(preconditioner, params)
    assert not moved.coef[:, 2].any()
    assert_allclose(X @ moved.coef.T + moved.intercept, X @ params.coef.T + params.intercept, rtol=1e-12)


def test_the_gram_matrix_is_used_while_it_costs_little():
    def pays(n, p, n_classes, stored=None, is_stream=False):
        X = np.broadcast_to(0.0, (n, p))
        if stored is not None:
            X = sp.csr_array(sp.random(n, p, stored / p, "csr", random_state=0))
        return use_full_gram(problem(X, np.arange(n) % n_classes), is_stream=is_stream)

    assert pays(1000, 50, 2)
    assert pays(60000, 784, 10)
    assert not pays(50, 2000, 3)  # its factor costs more than all the passes over so few rows
    assert not pays(60000, 2000, 2)
    assert not pays(100000, 5000, 1000)  # too large, whatever a pass costs
    assert pays(2000, 30, 3, stored=5)
    assert not pays(3000, 3000, 3, stored=40)  # passes over sparse rows are cheap
    assert not pays(100, 5000, 10, stored=5, is_stream=True)
    assert pays(1, 50, 2, is_stream=True)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("offset", [1e2, 1e5, 1e8])
def test_sparse_columns_far_from_0_have_a_metric(dtype, offset):
    X, y = random_data(n_samples=300)
    case = problem(sp.csr_array((X + offset).astype(dtype)), y)
    preconditioner = gram_preconditioner(case, compute_moments(case, full_gram=True))
    assert np.isfinite(preconditioner.inverse).all()
    assert np.isfinite(
        class_block_preconditioner(
            case, prior_params(case), draw_rows(case, prior_params(case), None, 300), preconditioner
        ).inverse
    ).all()
    assert np.isfinite(leverage(case, compute_moments(case, full_gram=True))).all()


def test_hessian_is_at_most_the_bound_along_random_directions():
    case = random_problem(3, alpha=0.0)
    hessian = hessian_products(case, random_params(3, 4))
    direction = random_params(3, 4, seed=2)
    X = np.hstack([case.data.X, np.ones((12, 1))])
    raw = X @ np.hstack([direction.coef, direction.intercept[:, None]]).T
    weight = case.data.weight / case.data.weight.sum()
    assert dot(direction, hessian(direction)) <= 0.5 * np.sum(weight[:, None] * raw**2)


def test_part_of_the_rows_tells_the_gram_matrix_but_for_columns_that_it_misses():
    rng = np.random.RandomState(0)
    n, p = 6000, 80
    X = rng.standard_normal((n, p)) @ (rng.standard_normal((p, p)) / (1 + np.arange(p)))
    X[:, 0] = np.arange(n) % 4  # a period
    X[:, 1:3] = 0  # two columns of a single row each
    X[7, 1] = X[9, 2] = 1
    X[:, 3] = X[:, 4] + X[:, 5] + 1e-5 * X[:, 3]
    case = problem(X, rng.randint(0, 2, n))  # 2 classes: 20 rows a column
    moments = compute_moments(case, full_gram=True)
    u = (X - X.mean(axis=0)) / moments.max_deviation
    exact = u.T @ u / n
    assert not np.allclose(moments.second_moment, exact, rtol=1e-3)
    assert_allclose(moments.second_moment[1:3, 1:3], np.diag(np.diagonal(exact)[1:3]), rtol=1e-10)
    kept = np.ix_(np.arange(p) != 1, np.arange(p) != 1)
    values = scipy.linalg.eigvalsh(moments.second_moment[kept], exact[kept])
    # (1 -+ (80 / 1600)^(1/2))^2 is .60 and 1.50 (Marchenko & Pastur), also along what all but vanishes
    assert 0.5 < values.min() < values.max() < 1.7
