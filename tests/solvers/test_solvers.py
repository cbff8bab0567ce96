"""The rules of the first-order solvers, by hand; what they reach is in ``test_classifier.py``."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from sksoftmax import SoftmaxClassifier
from sksoftmax._data.validation import PARAMETER_CONSTRAINTS
from sksoftmax._engines.registry import has_compiled
from sksoftmax._maths.objective import batch_value_and_grad, prior_params, value_and_grad
from sksoftmax._solvers import schedules
from sksoftmax._solvers._first_order import first_order
from sksoftmax._solvers.adagrad import adagrad_rule, init_squares
from sksoftmax._solvers.adam import adam_rule, init_means
from sksoftmax._solvers.schedule_free import schedule_free
from sksoftmax._solvers.sgd import init_velocity, sgd_rule
from sksoftmax._types import Batch, Params
from tests import test_classifier, test_sklearn_checks
from tests.problems import problem, random_data, random_problem

#: Gradients of two steps on one parameter (and an intercept, the same).
GRADS = [Params(np.array([[g]]), np.array([g])) for g in (2.0, -1.0)]


def test_every_solver_that_users_may_ask_for_is_tested():
    names = PARAMETER_CONSTRAINTS["solver"][0].options
    names = names if has_compiled() else names - {"dual"}
    assert names == set(test_classifier.SOLVERS)
    assert names == {getattr(estimator, "solver", "auto") for estimator in test_sklearn_checks.ESTIMATORS}


@pytest.mark.parametrize("name", test_classifier.SOLVERS)
def test_what_is_told_of_a_fit_is_plain_python(name):
    X, y = random_data()
    clf = SoftmaxClassifier(solver=name, max_iter=30, tol=100.0).fit(X, y)  # F is 17 times its minimum
    assert {type(value) for value in clf.solver_info_.values()} <= {str, int, float}


def directions(rule, memory):
    out = []
    for step, grads in enumerate(GRADS):
        direction, memory, _ = rule(grads, memory, step)
        assert direction.coef[0, 0] == direction.intercept[0]
        out.append(direction.coef[0, 0])
    return out


@pytest.mark.parametrize(
    ("rule", "init", "want"),
    [
        (sgd_rule(0.0, False), init_velocity, [-2.0, 1.0]),
        (sgd_rule(0.0, True), init_velocity, [-2.0, 1.0]),  # without momentum there is nothing to look ahead
        (sgd_rule(0.5, False), init_velocity, [-2.0, 0.5 * -2.0 + 1.0]),
        (sgd_rule(0.5, True), init_velocity, [0.5 * -2.0 - 2.0, 0.5 * 0.0 + 1.0]),
        (adagrad_rule(1e-30), init_squares, [-1.0, 1.0 / np.sqrt(5.0)]),
        # m = 0.1 * 2, v = 0.01 * 4, unbiased 2 and 4; then m = 0.18 - 0.1, v = 0.0396 + 0.01
        (
            adam_rule(0.9, 0.99, 1e-30),
            init_means,
            [-1.0, -(0.08 / 0.19) / np.sqrt(0.0496 / (1 - 0.99**2))],
        ),
    ],
    ids=["plain", "plain-nesterov", "momentum", "nesterov", "adagrad", "adam"],
)
def test_two_steps_by_hand(rule, init, want):
    assert directions(rule, init(GRADS[0])) == pytest.approx(want, rel=1e-12)


def test_nesterov_in_look_ahead_variables_is_nesterov():
    # v' = m v - r g(w + m v), w' = w + v' : the solver's iterate is w + m v (Sutskever et al., 2013, eqs. 3-4)
    case = random_problem(3, alpha=0.1)
    rate, momentum = 0.3, 0.9
    rule = sgd_rule(momentum, True)
    solver = first_order("sgd", rule, init_velocity, rate, schedules.constant(), 12, None)
    state = solver.init(case, prior_params(case))
    w, v = prior_params(case).coef, np.zeros((3, 4))
    b, u = prior_params(case).intercept, np.zeros(3)
    for _ in range(10):
        state = solver.step(case, state, case.data)
        ahead = batch_value_and_grad(case, Params(w + momentum * v, b + momentum * u), case.data).grads
        v, u = momentum * v - rate * ahead.coef, momentum * u - rate * ahead.intercept
        w, b = w + v, b + u
    assert_allclose(state.params.coef, w + momentum * v, rtol=1e-12)
    assert_allclose(state.params.intercept, b + momentum * u, rtol=1e-12)


def test_the_schedule_multiplies_the_rate():
    case = random_problem(3)
    solver = first_order("sgd", sgd_rule(0.0, False), init_velocity, 0.5, schedules.linear(), batch_size=12, horizon=4)
    state = solver.init(case, prior_params(case))
    lengths = []
    for _ in range(5):
        grads = batch_value_and_grad(case, state.params, case.data).grads
        new = solver.step(case, state, case.data)
        lengths.append(np.linalg.norm(new.params.coef - state.params.coef) / np.linalg.norm(grads.coef))
        state = new
    assert lengths == pytest.approx([0.5, 0.375, 0.25, 0.125, 0.0])


def test_the_average_weighs_iterate_t_by_its_third_power():
    case = random_problem(3)
    solver = first_order("sgd", sgd_rule(0.0, False), init_velocity, 0.5, schedules.constant(), 12, None, average=True)
    state, iterates = solver.init(case, prior_params(case)), []
    for _ in range(6):
        state = solver.step(case, state, case.data)
        iterates.append(state.iterate.coef)
    # the recursion's closed form: weight of iterate t is t (t + 1) (t + 2), t from 1
    weights = [t * (t + 1) * (t + 2) for t in range(1, 7)]
    assert_allclose(state.params.coef, np.average(iterates, axis=0, weights=weights), rtol=1e-12)


def stream_state(X, y, batch_size, passes=1, alpha=1e-3):
    case = problem(X, y, alpha=alpha)
    solver = schedule_free(batch_size, None, full_gram=True)
    state = solver.init(case, prior_params(case))
    for _ in range(passes):
        for start in range(0, len(y), batch_size):
            rows = slice(start, start + batch_size)
            state = solver.step(case, state, Batch(*(part[rows] for part in case.data)))
    return case, state


def test_the_streams_answer_is_the_mean_of_its_iterates():
    X, y = random_data(n_samples=60)
    case = problem(X, y)
    solver = schedule_free(20, None, full_gram=True)
    state, iterates = solver.init(case, prior_params(case)), []
    for start in (0, 20, 40):
        rows = slice(start, start + 20)
        state = solver.step(case, state, Batch(*(part[rows] for part in case.data)))
        iterates.append(state.iterate.coef)
    assert_allclose(state.params.coef, np.mean(iterates, axis=0), rtol=1e-12)


def test_the_stream_learns_unscaled_columns_in_one_pass():
    X, y = random_data(n_samples=20000)
    scale, shift = 10.0 ** np.array([-4.0, 0.0, 3.0, 6.0]), np.array([0.0, 5.0, 1e4, 0.0])
    plain, state = stream_state(X, y, 100)
    changed, other = stream_state(X * scale + shift, y, 100, alpha=0.0)
    for case, found in ((plain, state), (changed, other)):
        start = value_and_grad(case, prior_params(case)).value
        _, best = stream_state(X, y, 100, passes=20)
        minimum = value_and_grad(plain, best.params).value
        reached = value_and_grad(case, found.params).value
        assert reached - minimum < 0.02 * (start - minimum)


def test_the_stream_survives_values_far_beyond_those_it_began_with():
    X, y = random_data(n_samples=400)
    X[:50, 0] = 0.0  # a column of one value at first,
    X[300, 1] = 1e6  # and one whose values outgrow all before
    _, state = stream_state(X, y, 50)
    _, before = stream_state(X[:300], y[:300], 50)
    assert np.isfinite(state.params.intercept).all()
    assert np.abs(state.params.coef).max() < 2 * np.abs(before.params.coef).max()
