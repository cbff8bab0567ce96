"""The minimum of a quadratic plus an L1 term."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from sklearn.linear_model import Lasso

from sksoftmax._maths.interior_point import interior_point


def value(H, c, t, z):
    return 0.5 * z @ H @ z + c @ z + t @ np.abs(z)


def violation(H, c, t, z, is_zero):
    """How far 0 is from the subdifferential of each coordinate."""
    slope = H @ z + c
    return np.where(is_zero, np.maximum(np.abs(slope) - t, 0), np.abs(slope + t * np.sign(z)))


@pytest.mark.parametrize(
    ("c", "t", "want"),
    [(-3.0, 1.0, 1.0), (3.0, 1.0, -1.0), (0.5, 1.0, 0.0), (3.0, 0.0, -1.5), (0.0, 1.0, 0.0), (0.0, 0.0, 0.0)],
)
def test_one_coefficient_is_the_soft_threshold_over_the_curvature(c, t, want):
    z, is_zero, gap = interior_point(np.array([[2.0]]), np.array([c]), np.array([t]), 1e-12)
    assert z[0] == pytest.approx(want, abs=1e-5)  # P is 1e-12 above its minimum, z its root
    assert gap <= 1e-12
    assert is_zero[0] == (want == 0 and t > 0)


def test_without_l1_it_is_the_solution_of_the_equations():
    rng = np.random.default_rng(0)
    A = rng.normal(size=(9, 6))
    H, c = A.T @ A, rng.normal(size=6)
    z, is_zero, _ = interior_point(H, c, np.zeros(6), 0.0)
    assert_allclose(z, -np.linalg.solve(H, c), rtol=1e-9)
    assert not is_zero.any()


def test_it_is_the_lasso():
    rng = np.random.default_rng(1)
    X, y = rng.normal(size=(40, 15)), rng.normal(size=40)
    lasso = Lasso(alpha=0.1, fit_intercept=False, tol=1e-14, max_iter=100_000).fit(X, y)
    z, is_zero, _ = interior_point(X.T @ X / 40, -X.T @ y / 40, np.full(15, 0.1), 1e-16)
    assert_allclose(z, lasso.coef_, atol=1e-7)
    assert_allclose(is_zero, lasso.coef_ == 0)


@settings(max_examples=200, deadline=None)
@example(seed=0, d=4, rank=12, decades=6.0, strength=1.0, offset=0.0)  # all is 0, next to thresholds over 4 decades
@given(
    seed=st.integers(0, 2**32 - 1),
    d=st.integers(1, 30),
    rank=st.integers(1, 40),
    decades=st.floats(0, 8),
    strength=st.floats(-6, 1),
    offset=st.floats(0, 100),
)
def test_the_gap_bounds_what_the_value_is_above_its_minimum(seed, d, rank, decades, strength, offset):
    """Of any rank, scales, offsets that make columns alike, and strengths; some coefficients are not penalised."""
    rng = np.random.default_rng(seed)
    A = (rng.normal(size=(rank, d)) + offset) * 10.0 ** rng.uniform(-decades / 2, decades / 2, size=d)
    H, c = A.T @ A / rank, A.T @ rng.normal(size=rank) / rank
    t = 10.0**strength * np.abs(c).max() * rng.uniform(size=d)
    t[: rng.integers(d + 1)] = 0
    fall = 1.0  # P at 0 is 0; its least is at least that of the loss, -1/2 |right|^2, about 1
    z, is_zero, gap = interior_point(H, c, t, 1e-6 * fall)
    assert np.isfinite(z).all()
    assert not is_zero[t == 0].any()
    other, _, _ = interior_point(H, c, t, 1e-9 * fall)
    rounding = 1e-7 * (1 + np.abs(c) @ np.abs(z))  # of columns over 8 decades, whose squares are over 16
    assert value(H, c, t, z) - value(H, c, t, other) <= gap + rounding
    assert value(H, c, t, z) <= rounding + gap


def test_a_coefficient_that_is_said_to_be_zero_need_not_move():
    rng = np.random.default_rng(2)
    A = rng.normal(size=(50, 20)) * 10.0 ** rng.uniform(-3, 3, size=20)
    H, c = A.T @ A / 50, A.T @ rng.normal(size=50) / 50
    t = 0.1 * np.sqrt(np.diagonal(H))
    z, is_zero, _ = interior_point(H, c, t, 1e-14)
    assert 0 < is_zero.sum() < 20
    free = np.flatnonzero(~is_zero)
    sparse = np.zeros(20)
    sparse[free] = np.linalg.solve(H[np.ix_(free, free)], -(c + t * np.sign(z))[free])
    assert (violation(H, c, t, sparse, is_zero) <= 1e-9 * np.sqrt(np.diagonal(H))).all()
