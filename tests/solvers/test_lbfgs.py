from itertools import pairwise

import numpy as np
import pytest
import scipy.sparse as sp
from numpy.testing import assert_allclose

from sksoftmax import SoftmaxClassifier
from sksoftmax._maths.newton_direction import NewtonStep, lbfgs_correct
from sksoftmax._maths.objective import hessian_products, prior_params, value_and_grad
from sksoftmax._maths.preconditioner import compute_moments, spectrum
from sksoftmax._solvers.lbfgs import lbfgs
from sksoftmax._types import add_scaled, dot, scale_params
from tests.problems import problem, random_data


@pytest.fixture(scope="module")
def case():
    X, y = random_data(n_samples=400, n_features=5, n_classes=60, seed=0)
    return problem(X, y, alpha=1e-3)


def next_step(case, state):
    """By the solver's rule: the classes' mean curvatures, the pairs, the length that is exact for the curvature."""
    proba = case.kernel.proba(state.params, case.data.X)
    curvatures = (proba * (1 - proba)).mean(axis=1)
    preconditioner = spectrum(case, compute_moments(case, full_gram=True), 0.3).preconditioner(
        curvatures
    )  # the same whatever it is about
    grads = value_and_grad(case, state.params).grads
    aim = lbfgs_correct(
        state.pairs, grads, lambda g: NewtonStep(scale_params(-1.0, preconditioner.apply(g)), 0.0, 0.0, 0)
    )
    product = hessian_products(case, state.params)(aim.direction)
    return scale_params(-dot(grads, aim.direction) / dot(aim.direction, product), aim.direction)


def test_two_steps_by_hand(case):
    solver = lbfgs(compute_moments(case, full_gram=True), case.n_samples, 20)
    state = solver.init(case, prior_params(case))
    for n_pairs in (0, 1):
        assert len(state.pairs) == n_pairs
        want = next_step(case, state)
        # the spectrum has sqrt(eps) on its diagonal
        assert_allclose(state.step.coef, want.coef, rtol=1e-5, atol=1e-6)
        assert_allclose(state.step.intercept, want.intercept, rtol=1e-5, atol=1e-6)
        moved = solver.step(case, state, case.data)
        assert_allclose(moved.params.coef, add_scaled(state.params, 1.0, state.step).coef)
        state = moved


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_it_ends_at_the_minimum_and_its_estimate_is_the_excess_or_more(case, dtype):
    data = case.data._replace(X=case.data.X.astype(dtype))
    case = case._replace(data=data)
    solver = lbfgs(compute_moments(case, full_gram=True), case.n_samples, 20)
    state = solver.init(case, prior_params(case))
    reports = []
    for _ in range(80):
        state = solver.step(case, state, case.data)
        reports.append(solver.evaluate(case, state))
    minimum = reports[-1].value
    assert np.abs(state.evaluation.grads.coef).max() < 30 * np.finfo(dtype).eps ** 0.5  # F's digits: half for W
    for report in reports:
        excess = report.value / minimum - 1
        if 1e-4 < excess < 1e-2:
            assert excess <= 2 * report.excess  # an estimate


def test_at_the_minimum_it_is_stuck_and_leaves_that_to_the_next_solver():
    case = problem(np.zeros((4, 2)), np.array([0, 1, 2, 0]))
    solver = lbfgs(compute_moments(case, full_gram=True), 4, 20)
    state = solver.init(case, prior_params(case))
    assert solver.step(case, state, case.data).params is state.params
    assert not solver.evaluate(case, state).at_precision


@pytest.mark.parametrize("container", [np.asarray, sp.csr_array])
def test_auto_takes_it_for_as_many_unknowns_as_rows(container):
    X, y = random_data(n_samples=6000, n_features=20, n_classes=300, seed=1)
    fit = SoftmaxClassifier(random_state=0, max_iter=8, tol=0.2).fit(container(X), y)  # 5 epochs of minibatches first
    assert fit.solver_info_["solver"] == "preconditioned_sgd+lbfgs"
    assert fit.n_iter_ > 5
    assert all(after < before for before, after in pairwise(fit.loss_curve_))
    assert fit.excess_ <= 0.2
    few = SoftmaxClassifier(random_state=0, tol=0.2).fit(container(X), y % 10)
    assert "lbfgs" not in few.solver_info_["solver"]
