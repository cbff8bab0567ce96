from itertools import pairwise

import numpy as np
import pytest
from numpy.testing import assert_allclose

from sksoftmax._newton import newton_direction, relative_excess
from sksoftmax._objective import null_value, prior_params, value_and_grad
from sksoftmax._precondition import moments, preconditioner
from sksoftmax._solvers.newton_cg import newton_cg
from sksoftmax._types import Params, dot, plus
from tests.problems import problem, random_data, random_problem


def hessian(case, params, h=1e-5):
    """F's Hessian by central differences of its gradient."""
    flat = np.append(params.coef.ravel(), params.intercept)
    n_coef = params.coef.size

    def grads(theta):
        moved = Params(theta[:n_coef].reshape(params.coef.shape), theta[n_coef:])
        g = value_and_grad(case, moved).grads
        return np.append(g.coef.ravel(), g.intercept)

    return np.array([(grads(flat + h * e) - grads(flat - h * e)) / (2 * h) for e in np.eye(len(flat))])


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("whole", [True, False])
def test_direction_and_decrease_solve_newtons_system(n_classes, whole):
    case = random_problem(n_classes, alpha=0.05)
    start = prior_params(case)
    evaluation = value_and_grad(case, start)
    metric = preconditioner(case, moments(case, whole=whole))
    newton = newton_direction(case, start, evaluation, metric, accuracy=1e-12, max_products=200)
    flat = np.append(evaluation.grads.coef.ravel(), evaluation.grads.intercept)
    want = -np.linalg.lstsq(hessian(case, start), flat, rcond=1e-7)[0]  # singular along a common shift
    got = np.append(newton.direction.coef.ravel(), newton.direction.intercept)
    assert newton.remaining <= 1e-12 * newton.decrease
    assert_allclose(got, want, rtol=1e-4, atol=1e-5)
    assert newton.decrease == pytest.approx(-0.5 * flat @ want, rel=1e-6)


def test_a_truncated_direction_descends_and_says_so():
    case = random_problem(3, alpha=1e-4)
    start = prior_params(case)
    evaluation = value_and_grad(case, start)
    metric = preconditioner(case, moments(case, whole=False))
    newton = newton_direction(case, start, evaluation, metric, accuracy=1e-12, max_products=2)
    assert newton.remaining > 1e-12 * newton.decrease
    assert newton.n_products == 2
    assert dot(newton.direction, evaluation.grads) < 0
    assert value_and_grad(case, plus(start, 1e-3, newton.direction)).value < evaluation.value


def test_at_the_minimum_nothing_is_left():
    X, y = np.zeros((4, 2)), np.array([0, 1, 0, 1])
    case = problem(X, y)
    start = prior_params(case)
    metric = preconditioner(case, moments(case, whole=True))
    newton = newton_direction(case, start, value_and_grad(case, start), metric, 0.1, 10)
    assert newton.remaining == 0.0
    assert newton.decrease == 0.0


def test_relative_excess_by_hand():
    case = random_problem(3)
    assert relative_excess(case, value=1.1, decrease=0.1) == pytest.approx(0.1)
    assert relative_excess(case, value=1.0, decrease=2.0) == np.inf
    tiny = relative_excess(case, value=1e-12, decrease=1e-12)  # F* = 0: in units of the priors' loss
    assert tiny == pytest.approx(1e-12 / (np.sqrt(np.finfo(float).eps) * null_value(case)))


@pytest.mark.parametrize("n_classes", [2, 4])
def test_the_estimated_excess_is_the_true_one_near_the_minimum(n_classes):
    X, y = random_data(n_samples=200, n_classes=n_classes)
    case = problem(X, y, alpha=1e-2)
    solver = newton_cg(preconditioner(case, moments(case, whole=True)), 200)
    states = [solver.init(case, prior_params(case))]
    for _ in range(8):
        states.append(solver.step(case, states[-1], case.data))
    best = states[-1].evaluation.value
    checked = 0
    for before, after in pairwise(states):
        true = before.evaluation.value / best - 1
        if 1e-9 < true < 1e-2:  # below it rounding, above it the model is not yet quadratic
            assert after.excess == pytest.approx(true, rel=0.35)  # conjugate gradients end 30 % short
            checked += 1
    assert checked >= 1
