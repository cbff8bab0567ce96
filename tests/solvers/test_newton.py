from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pytest
from numpy.testing import assert_allclose

from sksoftmax import SoftmaxClassifier
from sksoftmax._data.chunks import ChunkedSource, split_rows
from sksoftmax._maths.curvature import (
    CholeskyPreconditioner,
    class_block_preconditioner,
    factorize_hessian,
    factorize_subsample,
)
from sksoftmax._maths.newton_direction import (
    NewtonStep,
    Pair,
    SampledHessianPreconditioner,
    absolute_suboptimality,
    conjugate_gradients,
    lbfgs_correct,
    relative_excess,
)
from sksoftmax._maths.objective import class_weights, hessian_products, prior_params, value_and_grad
from sksoftmax._maths.preconditioner import PreconditionerCandidate, compute_moments, gram_preconditioner
from sksoftmax._solvers.newton import newton
from sksoftmax._types import Batch, Params, add_scaled, dot, scale_params
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
@pytest.mark.parametrize("full_gram", [True, False])
def test_direction_and_decrease_solve_newtons_system(n_classes, full_gram):
    case = random_problem(n_classes, alpha=0.05)
    start = prior_params(case)
    evaluation = value_and_grad(case, start)
    preconditioner = gram_preconditioner(case, compute_moments(case, full_gram=full_gram))
    aim = conjugate_gradients(
        hessian_products(case, start), evaluation.grads, preconditioner, accuracy=1e-12, max_products=200
    )
    flat = np.append(evaluation.grads.coef.ravel(), evaluation.grads.intercept)
    want = -np.linalg.lstsq(hessian(case, start), flat, rcond=1e-7)[0]  # singular along a common shift
    got = np.append(aim.direction.coef.ravel(), aim.direction.intercept)
    assert aim.cg_remainder <= 1e-12 * aim.decrease
    assert_allclose(got, want, rtol=1e-4, atol=1e-5)
    assert aim.decrease == pytest.approx(-0.5 * flat @ want, rel=1e-6)


def test_a_truncated_direction_descends_and_says_so():
    case = random_problem(3, alpha=1e-4)
    start = prior_params(case)
    evaluation = value_and_grad(case, start)
    preconditioner = gram_preconditioner(case, compute_moments(case, full_gram=False))
    aim = conjugate_gradients(
        hessian_products(case, start), evaluation.grads, preconditioner, accuracy=1e-12, max_products=2
    )
    assert aim.cg_remainder > 1e-12 * aim.decrease
    assert aim.n_products == 2
    assert dot(aim.direction, evaluation.grads) < 0
    assert value_and_grad(case, add_scaled(start, 1e-3, aim.direction)).value < evaluation.value


def test_at_the_minimum_nothing_is_left():
    X, y = np.zeros((4, 2)), np.array([0, 1, 0, 1])
    case = problem(X, y)
    start = prior_params(case)
    preconditioner = gram_preconditioner(case, compute_moments(case, full_gram=True))
    aim = conjugate_gradients(hessian_products(case, start), value_and_grad(case, start).grads, preconditioner, 0.1, 10)
    assert aim.cg_remainder == 0.0
    assert aim.decrease == 0.0


def test_relative_excess_by_hand():
    assert relative_excess(value=1.1, decrease=0.1) == pytest.approx(0.1)
    assert relative_excess(value=1.1e-9, decrease=1e-10) == pytest.approx(0.1)  # however small F is
    assert relative_excess(value=1.0, decrease=2.0) == np.inf
    assert relative_excess(value=1e-12, decrease=1e-12) == np.inf  # F* may be 0
    assert relative_excess(value=0.0, decrease=1e-300) == 0.0


@pytest.mark.parametrize("value", [1.3, 1e-9])  # and next to 0
def test_the_decrease_of_an_excess_has_that_excess(value):
    decrease = absolute_suboptimality(value, 1e-3)
    assert relative_excess(value, decrease) == pytest.approx(1e-3)


def quadratic(eigenvalues):
    """The product with a Hessian of these eigenvalues by the identity, and a gradient."""
    rng = np.random.RandomState(0)
    d = len(eigenvalues)
    vectors = np.linalg.qr(rng.standard_normal((d, d)))[0]
    hessian = vectors @ (eigenvalues[:, None] * vectors.T)
    grads = Params(rng.standard_normal((1, d - 1)), rng.standard_normal(1))

    def product(direction):
        flat = hessian @ np.append(direction.coef, direction.intercept)
        return Params(flat[None, :-1], flat[-1:])

    flat = np.append(grads.coef, grads.intercept)
    return product, grads, 0.5 * float(flat @ np.linalg.solve(hessian, flat))


class Identity(NamedTuple):
    def apply(self, grads):
        return grads


@pytest.mark.parametrize("n_products", [1, 2, 5, 10, 20, 30])
@pytest.mark.parametrize("share", [1.0, 0.5, 1e-2])
def test_what_conjugate_gradients_leave_is_bounded_by_the_least_eigenvalue(n_products, share):
    product, grads, decrease = quadratic(np.logspace(0, 2, 40))
    aim = conjugate_gradients(product, grads, Identity(), 0.0, n_products, min_eigenvalue=share)
    assert aim.n_products == n_products
    assert decrease - aim.decrease <= aim.cg_remainder * (1 + 1e-6)
    if share == 1.0 and n_products >= 5:  # and closely, where it is the least eigenvalue indeed
        assert aim.cg_remainder <= 3 * (decrease - aim.decrease)


@pytest.mark.parametrize("signs", [[-1.0, -1.0, -1.0], [1.0, -3.0, 1.0]])
def test_nothing_is_promised_by_a_metric_that_is_not_definite(signs):
    class Indefinite(NamedTuple):
        def apply(self, grads):
            return Params(grads.coef * signs, grads.intercept)

    grads = Params(np.array([[1.0, 0.5, -2.0]]), np.zeros(1))
    matrix = np.array([[2.0, 0.3, 0.1], [0.3, 1.0, 0.2], [0.1, 0.2, 3.0]])
    aim = conjugate_gradients(
        lambda d: Params(d.coef @ matrix, d.intercept), grads, Indefinite(), 0.0, 20, min_eigenvalue=0.1
    )
    assert aim.cg_remainder == np.inf


def test_conjugate_gradients_end_where_what_they_leave_is_bounded_by_what_may_be_left():
    product, grads, decrease = quadratic(np.logspace(0, 2, 40))
    aim = conjugate_gradients(product, grads, Identity(), 0.0, 200, min_eigenvalue=1.0, max_remainder=0.01 * decrease)
    assert aim.n_products < 40
    assert 0 < aim.cg_remainder <= 0.01 * decrease
    assert aim.decrease >= 0.99 * decrease


def test_conjugate_gradients_end_where_their_decrease_exceeds_the_largest():
    product, grads, decrease = quadratic(np.logspace(0, 2, 40))
    free = [conjugate_gradients(product, grads, Identity(), 0.0, k).decrease for k in (1, 2, 3, 4)]
    step = conjugate_gradients(product, grads, Identity(), 0.0, 200, max_decrease=0.5 * (free[2] + free[3]))
    assert (step.n_products, step.cg_remainder) == (4, np.inf)
    assert step.decrease == free[3] < decrease


@pytest.mark.parametrize("max_remainder", [1e-2, 1e-4, 1e-6])
def test_after_few_products_conjugate_gradients_may_leave_less(max_remainder):
    product, grads, decrease = quadratic(np.logspace(0, 1, 40))
    limit = max_remainder * decrease
    ends = [
        conjugate_gradients(product, grads, Identity(), 0.0, 200, max_remainder=limit, min_products=n)
        for n in (1, 10, 20)
    ]
    n_products = [step.n_products for step in ends]
    assert n_products == sorted(n_products)
    for step, n in zip(ends, (1, 10, 20), strict=True):
        assert step.cg_remainder <= limit * min(1, step.n_products / n) ** 4
        assert decrease - step.decrease <= limit


def test_eigenvalues_below_the_least_are_found_out():
    product, grads, _ = quadratic(np.logspace(0, 2, 20))
    aim = conjugate_gradients(product, grads, Identity(), 0.0, 19, min_eigenvalue=2.0)
    assert aim.cg_remainder == np.inf


def test_pairs_of_a_quadratic_correct_any_inverse_to_the_true_one():
    rng = np.random.RandomState(0)
    half = rng.standard_normal((6, 6))
    hessian = half @ half.T + np.eye(6)

    def as_params(flat):
        return Params(flat[None, :5], flat[5:])

    def as_flat(params):
        return np.append(params.coef.ravel(), params.intercept)

    # steps that are conjugate, as those of exact line searches are, and all six of them: nothing is left to correct
    conjugate = np.linalg.eigh(hessian)[1]
    pairs = [Pair(as_params(step), as_params(hessian @ step)) for step in conjugate.T]
    gradient = rng.standard_normal(6)
    got = lbfgs_correct(pairs, as_params(gradient), lambda g: NewtonStep(scale_params(-1.0, g), 0.0, 0.0, 0))
    want = -np.linalg.solve(hessian, gradient)
    assert_allclose(as_flat(got.direction), want, rtol=1e-9)
    assert got.decrease == pytest.approx(-0.5 * gradient @ want)


HOW = {"factorised": True, "conjugate gradients": False}


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("n_drawn", [60, 400])
@pytest.mark.parametrize("n_classes", [2, 4])
def test_the_estimated_excess_is_the_true_one_or_somewhat_more(n_classes, n_drawn, how):
    X, y = random_data(n_samples=400, n_classes=n_classes)
    case = problem(X, y, alpha=1e-2)
    moments = compute_moments(case, full_gram=True)
    base = gram_preconditioner(case, moments)
    solver = newton(
        base,
        moments,
        0.0,
        n_drawn=n_drawn,
        is_factorized=HOW[how],
        n_steps=2,
        candidates=[PreconditionerCandidate(class_block_preconditioner, 10)],
    )
    states = [solver.init(case, prior_params(case))]
    for _ in range(25):
        states.append(solver.step(case, states[-1], case.data))
    best = min(state.evaluation.value for state in states)
    checked = 0
    for state in states:
        true = state.evaluation.value / best - 1
        if 1e-9 < true < 1e-2:  # below it rounding, above it the model is not yet quadratic
            # conjugate gradients end 30 % short; a ratio is at most 0.9, and doubt 4
            assert 0.6 * true <= state.excess <= 40 * true
            checked += 1
    assert checked >= 1
    assert all(after.evaluation.value <= before.evaluation.value * (1 + 1e-12) for before, after in pairwise(states))


def test_rows_that_see_too_little_are_doubled_and_a_factor_that_misleads_is_given_up():
    rng = np.random.RandomState(0)
    X = np.zeros((3000, 30))
    X[np.arange(3000), rng.randint(0, 30, 3000)] = rng.exponential(size=3000) ** 3  # few rows hold a column
    y = (X @ rng.standard_normal((30, 3)) + rng.gumbel(size=(3000, 3))).argmax(axis=1)
    case = problem(X, y, alpha=1e-6)
    moments = compute_moments(case, full_gram=True)
    base = gram_preconditioner(case, moments)
    solver = newton(base, moments, 0.0, n_drawn=40, is_factorized=True, n_steps=1, candidates=[])
    state = solver.init(case, prior_params(case))
    for _ in range(60):  # before all rows are drawn, each round leaves a fraction of the excess
        state = solver.step(case, state, case.data)
    assert state.n_drawn > 40 or not state.is_factorized
    exact = newton(base, moments, 0.0, n_drawn=3000, is_factorized=True, n_steps=1, candidates=[])
    best = exact.init(case, prior_params(case))
    for _ in range(30):
        best = exact.step(case, best, case.data)
    assert state.evaluation.value == pytest.approx(best.evaluation.value, rel=1e-6)


def test_along_an_exponential_a_step_is_taken_twice():
    X, y = np.array([[-1.0], [1.0]]), np.array([0, 1])  # F = log(1 + exp(-w)), but for alpha
    case = problem(X, y, alpha=0.0, fit_intercept=False)
    moments = compute_moments(case, full_gram=True)
    base = gram_preconditioner(case, moments)
    solver = newton(base, moments, 0.0, n_drawn=2, is_factorized=True, n_steps=1, candidates=[])
    states = [solver.init(case, prior_params(case))]
    for _ in range(2):
        states.append(solver.step(case, states[-1], case.data))
    # w + 1 + exp(-w): at the end of the first the slope is 0.24 of what it was, of the second 0.35
    first = 2.0
    second = first + 2 * (1 + np.exp(-first))
    assert_allclose(
        [state.params.coef[0, 0] for state in states], [0, first, second], rtol=1e-9
    )  # a diagonal of 1 + eps


def test_a_factor_that_tells_the_end_is_the_last(monkeypatch):
    factors = []

    def counted(*arguments):
        factors.append(factorize_hessian(*arguments))
        return factors[-1]

    monkeypatch.setattr("sksoftmax._solvers.newton.factorize_hessian", counted)
    X, y = random_data(n_samples=8000, n_classes=3)
    case = problem(X, y, alpha=1e-2)
    moments = compute_moments(case, full_gram=False)
    solver = newton(
        gram_preconditioner(case, moments), moments, 1e-3, n_drawn=8000, is_factorized=True, n_steps=1, candidates=[]
    )
    states = [solver.init(case, prior_params(case))]
    while states[-1].excess > 1e-3:
        states.append(solver.step(case, states[-1], case.data))
    assert len(factors) == len(states) - 1  # none at the end
    end, before = states[-1].evaluation.value, states[-1].excess
    for _ in range(5):
        states.append(solver.step(case, states[-1], case.data))
    true = end / states[-1].evaluation.value - 1
    assert 0.6 * true <= before <= 1e-3


def test_a_metric_that_a_stronger_penalty_paid_for_is_gone_on_from():
    X, y = random_data(n_samples=2000, n_features=30, n_classes=4)
    strong = problem(X, y, alpha=1e-4)
    moments = compute_moments(strong, full_gram=True)
    made = []

    def make(*arguments):
        made.append(class_block_preconditioner(*arguments))
        return made[-1]

    def end_of(case, bought):
        base = gram_preconditioner(case, moments)
        candidates = [PreconditionerCandidate(make, 10)]
        solver = newton(
            base, moments, 1e-8, n_drawn=2000, is_factorized=False, n_steps=1, candidates=candidates, path_cache=bought
        )
        states = [solver.init(case, prior_params(case))]
        while states[-1].excess > 1e-8:
            states.append(solver.step(case, states[-1], case.data))
        return states

    before = end_of(strong, None)[-1]
    assert made
    bought = before.path_cache
    weak = strong._replace(alpha=3e-5)
    states = end_of(weak, bought)
    assert states[0].preconditioner is before.preconditioner
    alone = end_of(weak, None)
    assert states[-1].evaluation.value == pytest.approx(alone[-1].evaluation.value, rel=1e-7)


def test_no_direction_is_sought_twice_but_more_accurately(monkeypatch):
    calls = []

    def heard(hessian, grads, preconditioner, accuracy, max_products):
        calls.append((grads, accuracy))
        return conjugate_gradients(hessian, grads, preconditioner, accuracy, max_products)

    monkeypatch.setattr("sksoftmax._solvers.newton.conjugate_gradients", heard)
    X, y = random_data(n_samples=400, n_classes=3)
    case = problem(X, y, alpha=1e-2)
    moments = compute_moments(case, full_gram=True)
    solver = newton(
        gram_preconditioner(case, moments), moments, 1e-3, n_drawn=400, is_factorized=False, n_steps=1, candidates=[]
    )
    state = solver.init(case, prior_params(case))
    while state.excess > 1e-3:
        state = solver.step(case, state, case.data)
    for (grads, accuracy), (next_grads, next_accuracy) in pairwise(calls):
        assert next_grads is not grads or next_accuracy < accuracy


def test_a_candidate_with_which_conjugate_gradients_break_down_is_given_up():
    class Negative(NamedTuple):
        def apply(self, grads):
            return scale_params(-1.0, grads)

    X, y = random_data(n_samples=400, n_classes=3)
    case = problem(X, y, alpha=1e-2)
    moments = compute_moments(case, full_gram=True)
    base = gram_preconditioner(case, moments)
    candidates = [PreconditionerCandidate(lambda *arguments: Negative(), 0)]
    solver = newton(base, moments, 1e-6, n_drawn=400, is_factorized=False, n_steps=1, candidates=candidates)
    state = solver.init(case, prior_params(case))
    for _ in range(10):
        state = solver.step(case, state, case.data)
    assert state.excess <= 1e-6
    assert state.preconditioner is base
    assert state.products_since_build == (-np.inf,)


def test_a_dearer_metric_is_bought_once_products_have_cost_as_much():
    bought = []

    def offer(name, make, products):
        def noted(*arguments):
            bought.append(name)
            return make(*arguments)

        return PreconditionerCandidate(noted, products)

    X, y = random_data(n_samples=400, n_features=6, n_classes=4)
    case = problem(X * 10.0 ** np.arange(-3, 3), y, alpha=1e-6)
    moments = compute_moments(case, full_gram=False)
    base = gram_preconditioner(case, moments)
    candidates = [
        offer("classes", class_block_preconditioner, 5),
        offer("factor", lambda *a: factorize_subsample(*a, n_samples=400), 12),
    ]
    solver = newton(base, moments, 0.0, n_drawn=400, is_factorized=False, n_steps=1, candidates=candidates)
    state = solver.init(case, prior_params(case))
    while state.excess > 1e-9:
        n_factors = bought.count("factor")
        state = solver.step(case, state, case.data)
        if bought.count("factor") > n_factors:
            assert state.newton.n_products <= 2  # the Hessian itself leaves nothing to conjugate gradients
    assert bought[:2] == ["classes", "factor"]
    assert set(bought[2:]) <= {"factor"}  # nothing cheaper after it


def test_a_factor_of_an_even_part_of_the_rows_is_near_that_of_all():
    X, y = random_data(n_samples=4000, n_classes=3)
    case = problem(X, y, alpha=1e-2)
    base = gram_preconditioner(case, compute_moments(case, full_gram=False))
    params = prior_params(case)
    rows = case.data._replace(weight=case.data.weight / 4000)
    grads = value_and_grad(case, params).grads
    want = factorize_hessian(case, params, rows, base).apply(grads)
    assert_allclose(
        factorize_subsample(case, params, rows, base, n_samples=2000).apply(grads).coef, want.coef, atol=0.05
    )
    same = factorize_subsample(case, params, rows, base, n_samples=5000).apply(grads)
    assert_allclose(same.coef, want.coef, rtol=1e-12)


def test_rows_in_memory_are_factorized_once_the_inner_products_have_cost_as_much():
    made = []

    def make(*arguments):
        made.append(arguments)
        return factorize_hessian(*arguments)

    X, y = random_data(n_samples=400, n_classes=3)
    whole = problem(X, y, alpha=1e-2)
    moments = compute_moments(whole, full_gram=True)
    source = ChunkedSource(lambda order: split_rows(whole.data), 400, class_weights(whole), moments)
    case = whole._replace(data=Batch(X[:100], y[:100], np.ones(100)), data_source=source)
    base, candidates = gram_preconditioner(case, moments), [PreconditionerCandidate(make, 110, is_factor=True)]
    solver = newton(base, moments, 1e-7, n_drawn=100, is_factorized=False, n_steps=1, candidates=candidates)
    state = solver.init(case, prior_params(case))
    state = solver.step(case, state._replace(n_drawn=200, sample_is_stale=True), case.data)  # more than memory holds
    assert isinstance(state.preconditioner, SampledHessianPreconditioner)
    assert not made
    for _ in range(6):
        state = solver.step(case, state, case.data)
    assert isinstance(state.preconditioner, CholeskyPreconditioner)
    assert state.excess <= 1e-7
    best = SoftmaxClassifier(1e-2, tol=1e-10).fit(X, y)
    assert_allclose(state.params.coef, best.coef_, atol=1e-3)  # the root of the excess
