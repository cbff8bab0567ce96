"""Sums over pieces are those over all rows; the sample stands for them."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from sksoftmax._data import chunks as _chunks
from sksoftmax._data.batches import epoch_batches
from sksoftmax._data.chunks import ChunkedSource, StratifiedSampler, concatenate_rows, n_bytes
from sksoftmax._maths.objective import center_columns, hessian_products, prior_objective, value_and_grad
from sksoftmax._maths.preconditioner import diagonal_moments
from sksoftmax._types import Batch
from tests.problems import CONTAINERS, random_params, random_problem


def in_pieces(problem, size=5):
    """The problem, of a sample that is the first half of the rows."""
    data = problem.data
    starts = range(0, problem.n_samples, size)

    def read(rng):
        return (Batch(*(column[start : start + size] for column in data)) for start in starts)

    class_weights = np.bincount(data.y, data.weight, problem.n_classes)
    half = Batch(*(column[: problem.n_samples // 2] for column in data))
    moments = diagonal_moments(data, fit_intercept=problem.fit_intercept)
    return problem._replace(data=half, data_source=ChunkedSource(read, problem.n_samples, class_weights, moments))


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("fit_intercept", [True, False])
def test_f_its_gradient_and_its_hessian_are_those_of_all_rows(fit_intercept, n_classes, container):
    problem = random_problem(n_classes, container=CONTAINERS[container], fit_intercept=fit_intercept)
    whole = in_pieces(problem)
    params, direction = (random_params(problem.n_outputs, problem.n_features, seed) for seed in (1, 2))
    got, want = value_and_grad(whole, params), value_and_grad(problem, params)
    assert got.value == pytest.approx(want.value, rel=1e-13)  # the same sums in another order
    assert_allclose(got.grads.coef, want.grads.coef, rtol=1e-10, atol=1e-14)
    assert_allclose(got.grads.intercept, want.grads.intercept, rtol=1e-10, atol=1e-14)
    product, expected = (hessian_products(p, params)(direction) for p in (whole, problem))
    assert_allclose(product.coef, expected.coef, rtol=1e-10, atol=1e-14)
    assert_allclose(product.intercept, expected.intercept, rtol=1e-10, atol=1e-14)
    assert prior_objective(whole) == pytest.approx(prior_objective(problem), rel=1e-13)


def test_what_x_is_less_by_is_taken_off_all_rows():
    problem = random_problem(dtype=np.float32)
    problem = problem._replace(data=problem.data._replace(X=problem.data.X + np.float32(100)))
    whole, column_offset = center_columns(in_pieces(problem))
    params = random_params(problem.n_outputs, problem.n_features)
    moved = problem._replace(data=problem.data._replace(X=problem.data.X - column_offset))
    assert value_and_grad(whole, params).value == pytest.approx(value_and_grad(moved, params).value, rel=1e-6)
    assert_allclose(
        whole.data_source.moments.mean,
        diagonal_moments(problem.data, fit_intercept=True).mean - column_offset,
        atol=1e-6,
    )


@pytest.mark.parametrize("window", [1, 200, 10**6])
@pytest.mark.parametrize("shuffle", [True, False])
def test_an_epoch_of_batches_has_every_row_once(shuffle, window, monkeypatch):
    monkeypatch.setattr(_chunks, "_WINDOW_SIZE", window)
    problem = random_problem()
    whole = in_pieces(problem).data_source
    batches = whole.batches(3, np.random.RandomState(0), shuffle=shuffle)
    rows = np.concatenate([np.column_stack([batch.X, batch.weight]) for batch in batches])
    want = np.column_stack([problem.data.X, problem.data.weight])
    if shuffle:
        rows, want = (part[np.lexsort(part.T)] for part in (rows, want))
    assert_array_equal(rows, want)


@pytest.mark.parametrize("container", CONTAINERS)
def test_pieces_join_to_the_rows(container):
    data = random_problem(container=CONTAINERS[container]).data
    parts = list(epoch_batches(data, 5, np.random.RandomState(0), shuffle=False))
    whole = concatenate_rows(parts)
    assert_array_equal(np.asarray((whole.X - data.X).sum()), 0)
    assert_array_equal(whole.y, data.y)


def sampled(counts, size, monkeypatch, n_features=16, seed=0):
    """A sample of rows sorted by class, with weights of 1."""
    monkeypatch.setattr(_chunks, "SAMPLE_SIZE", size)
    sample = StratifiedSampler(np.random.RandomState(seed))
    y = np.repeat(np.arange(len(counts)), counts)
    for start in range(0, len(y), 100):
        codes = y[start : start + 100]
        sample.add(Batch(np.ones((len(codes), n_features)), codes, np.ones(len(codes))), int(codes.max()) + 1)
    return sample


@pytest.mark.parametrize("counts", [[5000], [4000, 30, 3000], [40] * 100])
@pytest.mark.parametrize("size", [2**14, 2**16])
def test_the_sample_keeps_to_its_size_and_to_the_weights(size, counts, monkeypatch):
    rows = sampled(counts, size, monkeypatch).rows()
    assert size / 2 < n_bytes(rows.X) <= size
    kept = np.bincount(rows.y, minlength=len(counts))
    stands_for = np.bincount(rows.y, rows.weight, len(counts))
    rate = kept / np.maximum(stands_for, 1)
    spread = np.sqrt(np.array(counts) * (1 - rate) / np.maximum(rate, 1e-9))  # of a binomial, at the class's rate
    assert (np.abs(stands_for - counts) <= 5 * spread + 1e-9).all()


def test_rare_classes_are_not_thinned(monkeypatch):
    rows = sampled([4000, 30, 3000], 2**15, monkeypatch).rows()
    assert np.count_nonzero(rows.y == 1) == 30
    assert (rows.weight[rows.y == 1] == 1).all()


@pytest.mark.parametrize("counts", [[3000] * 10, [8000, 1500, 4000, 2000]])
def test_classes_are_thinned_alike_though_they_come_one_after_the_other(counts, monkeypatch):
    rows = sampled(counts, 2**17, monkeypatch).rows()
    weight_of = [np.unique(rows.weight[rows.y == label]) for label in range(len(counts))]
    assert all(len(weights) == 1 for weights in weight_of)
    assert max(weight_of) <= 3 * min(weight_of)  # the last fill what a thinning has left


def test_a_sample_that_holds_all_rows_draws_no_random_number(monkeypatch):
    sample = sampled([100, 50], 2**20, monkeypatch)
    assert sample.is_all
    assert_array_equal(sample._rng.uniform(), np.random.RandomState(0).uniform())
    assert (sample.rows().weight == 1).all()
