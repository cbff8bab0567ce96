import types

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.special import log_softmax

from sksoftmax._engines import device
from sksoftmax._maths import objective as _objective
from sksoftmax._types import Batch, add_scaled
from tests.problems import CONTAINERS, problem, random_data, random_params, random_problem

CONTAINER = pytest.mark.parametrize("container", CONTAINERS.values(), ids=CONTAINERS)


def test_value_is_the_statement_of_F():
    X, y = random_data()
    weight = np.arange(1.0, 13.0)
    params = random_params(3, 4)
    losses = -log_softmax(X @ params.coef.T + params.intercept, axis=1)[np.arange(12), y]
    want = np.average(losses, weights=weight) + 0.7 / 2 * np.sum(params.coef**2)
    got = _objective.value_and_grad(problem(X, y, alpha=0.7, weight=weight), params)
    assert got.value == pytest.approx(want, rel=1e-12)


@CONTAINER
@pytest.mark.parametrize("n_classes", [2, 3])
def test_blocks_change_nothing(container, n_classes, monkeypatch):
    case = random_problem(n_classes, container=container)
    params = random_params(case.n_outputs, 4)
    direction = random_params(case.n_outputs, 4, seed=5)

    def everything():
        value, grads = _objective.value_and_grad(case, params)
        n_blocks = len(list(_objective.probabilities(case, params)))
        return n_blocks, value, *grads, *_objective.hessian_products(case, params)(direction)

    one = everything()
    monkeypatch.setattr(_objective, "_MIN_BLOCK_ROWS", 5)
    monkeypatch.setattr(_objective, "_ENTRIES_PER_COLUMN", 0)
    monkeypatch.setattr(device, "_BLOCK_SIZE", 1)
    many = everything()
    assert (one[0], many[0]) == (1, 3)
    for left, right in zip(one[1:], many[1:], strict=True):
        assert_allclose(left, right, rtol=1e-12, atol=1e-14)


def test_batches_of_equal_size_average_to_the_gradient_with_skewed_weights():
    X, y = random_data()
    case = problem(X, y, weight=np.random.RandomState(0).exponential(size=12) ** 4)
    params = random_params(3, 4)
    whole = _objective.value_and_grad(case, params)
    batches = [Batch(*(part[i : i + 3] for part in case.data)) for i in range(0, 12, 3)]
    parts = [_objective.batch_value_and_grad(case, params, batch) for batch in batches]
    assert np.mean([p.value for p in parts]) == pytest.approx(whole.value, rel=1e-12)
    assert_allclose(np.mean([p.grads.coef for p in parts], axis=0), whole.grads.coef, rtol=1e-11, atol=1e-14)


@pytest.mark.parametrize("n_classes", [2, 3])
def test_gradient_by_the_intercept_is_0_without_one_and_never_penalised(n_classes):
    params = random_params(max(1, n_classes * (n_classes > 2)), 4)
    without = random_problem(n_classes, fit_intercept=False)
    assert not _objective.value_and_grad(without, params).grads.intercept.any()
    weak, strong = (random_problem(n_classes, alpha=alpha) for alpha in (0.0, 10.0))
    assert_allclose(
        _objective.value_and_grad(weak, params).grads.intercept,
        _objective.value_and_grad(strong, params).grads.intercept,
    )


def test_penalty_by_hand():
    value, grad = _objective.penalty(np.array([[3.0, -4.0]]), 0.1)
    assert value == pytest.approx(1.25)
    assert_allclose(grad, [[0.3, -0.4]])
    value, grad = _objective.penalty(np.array([[3.0, -4.0]]), 0.1, l1_ratio=0.5)
    assert value == pytest.approx(0.1 * (0.25 * 25 + 0.5 * 7))
    assert_allclose(grad, [[0.15, -0.2]])  # of the smooth part


def test_alpha_is_one_over_C_and_the_total_weight():
    assert _objective.alpha_from_C(2.0, 50.0) == 0.01


@pytest.mark.parametrize("n_classes", [2, 4])
def test_the_start_is_the_best_model_that_ignores_X(n_classes):
    case = random_problem(n_classes)
    start = _objective.prior_params(case)
    evaluation = _objective.value_and_grad(case, start)
    assert_allclose(evaluation.grads.intercept, 0, atol=1e-16)
    assert evaluation.value == pytest.approx(_objective.prior_objective(case), rel=1e-12)


def test_the_start_is_finite_for_a_class_without_rows():
    case = random_problem(3)._replace(n_classes=4)
    assert np.isfinite(_objective.prior_params(case).intercept).all()


@pytest.mark.parametrize("n_classes", [2, 3])
def test_the_start_without_intercept_is_0(n_classes):
    case = random_problem(n_classes, fit_intercept=False)
    start = _objective.prior_params(case)
    assert not start.intercept.any()
    assert _objective.value_and_grad(case, start).value == pytest.approx(_objective.prior_objective(case))


def test_centring_the_classes_changes_no_loss_and_lowers_the_penalty():
    case = random_problem(3, alpha=0.5)
    params = random_params(3, 4)
    centred = params._replace(
        coef=_objective.center_over_classes(params.coef), intercept=_objective.center_over_classes(params.intercept)
    )
    loss = [_objective.value_and_grad(case._replace(alpha=0.0), p).value for p in (params, centred)]
    assert loss[0] == pytest.approx(loss[1], rel=1e-12)
    assert _objective.value_and_grad(case, centred).value < _objective.value_and_grad(case, params).value


def test_hessian_product_is_the_slope_of_the_gradient_with_penalty():
    case = random_problem(3, alpha=0.5)
    params, direction = random_params(3, 4), random_params(3, 4, seed=5)
    product = _objective.hessian_products(case, params)(direction)
    ahead = _objective.value_and_grad(case, add_scaled(params, 1e-4, direction)).grads
    behind = _objective.value_and_grad(case, add_scaled(params, -1e-4, direction)).grads
    assert_allclose(product.coef, (ahead.coef - behind.coef) / 2e-4, rtol=1e-6, atol=1e-8)


def test_probabilities_are_computed_anew_where_their_table_would_be_larger_than_X():
    X, y = random_data(n_classes=5)
    case = problem(X, y)  # 5 classes, 4 columns
    params, direction = random_params(5, 4), random_params(5, 4, seed=5)
    calls = []
    counting = types.SimpleNamespace(
        **{**vars(case.kernel), "proba": lambda *a: calls.append(1) or case.kernel.proba(*a)}
    )
    wide = problem(np.hstack([X, 0 * X]), y, kernel=counting)  # 5 classes, 8 columns
    hessian = _objective.hessian_products(case._replace(kernel=counting), params)
    products = [hessian(direction) for _ in range(3)]
    assert len(calls) == 3
    assert_allclose(products[0].coef, products[2].coef)
    hessian = _objective.hessian_products(wide, random_params(5, 8))
    for _ in range(3):
        hessian(random_params(5, 8))
    assert len(calls) == 4


def test_the_centre_is_next_to_most_numbers_whatever_the_others_are():
    X = np.random.RandomState(0).standard_normal((1000, 2)).astype(np.float32) + np.float32(1e6)
    X[500, 0] = 1e30  # a mean of 1e27 would leave nothing of the column
    column_offset = _objective.compute_column_offset(X)
    assert column_offset.dtype == np.float32
    assert_allclose(column_offset, 1e6, atol=1)


@pytest.mark.parametrize("n_samples", [1, 2, 255, 256, 1000])
def test_the_centre_is_the_median_of_evenly_spaced_rows(n_samples):
    X = np.random.RandomState(0).standard_normal((n_samples, 3)).astype(np.float32)
    step = -(-n_samples // 255)
    assert_allclose(_objective.compute_column_offset(X), np.median(X[::step], axis=0))


def test_float32_rows_are_taken_less_their_centre_and_f_stays_what_it_is():
    X, y = random_data(dtype=np.float32)
    case = problem(X + np.float32(64), y)  # whose digits float32 has to spare
    less, column_offset = _objective.center_columns(case)
    assert_allclose(less.data.X, case.data.X - column_offset)
    assert np.abs(less.data.X).max() < np.abs(case.data.X).max()
    params = random_params(3, 4)
    moved = _objective.shift_intercept(params, column_offset, 1.0)
    got, want = _objective.value_and_grad(less, moved).value, _objective.value_and_grad(case, params).value
    assert got == pytest.approx(want, rel=1e-4)  # z of some 100 in float32


@pytest.mark.parametrize(
    ("change", "kwargs"),
    [
        (lambda X: X.astype(np.float64), {}),
        (CONTAINERS["csr"], {}),
        (lambda X: X, {"fit_intercept": False}),
    ],
    ids=["float64", "sparse", "no intercept"],
)
def test_rows_that_need_no_centre_stay_as_they_are(change, kwargs):
    X, y = random_data(dtype=np.float32)
    case = problem(change(X), y, **kwargs)
    less, column_offset = _objective.center_columns(case)
    assert less is case
    assert column_offset is None


def test_settled_parameters_sum_to_0_as_far_as_l1_allows():
    params = random_params(3, 4)
    for has_l1 in (True, False):
        got = _objective.center_params(params, has_l1=has_l1)
        assert_allclose(got.intercept.sum(), 0, atol=1e-15)
        assert (got.coef is params.coef) == has_l1
