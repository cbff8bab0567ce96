"""Steps along which rows saturate: by hand, against dense matrices and F*, and what becomes of one outlying row."""

import numpy as np
import pytest
import scipy.sparse as sp
from numpy.testing import assert_allclose

from benchmarks.stop.reference import Objective, minimum
from sksoftmax._maths import saturation as _saturation
from sksoftmax._maths.curvature import factorize_hessian
from sksoftmax._maths.newton_direction import NewtonStep, absolute_suboptimality, conjugate_gradients
from sksoftmax._maths.objective import hessian_products, prior_params, value_and_grad
from sksoftmax._maths.preconditioner import compute_moments, gram_preconditioner
from sksoftmax._maths.saturation import Saturating, check_saturation, newton_step, saturate_step
from sksoftmax._types import Params, add_scaled, dot
from tests.problems import CONTAINERS, KERNELS, problem, random_data, random_params, random_problem

CONTAINER = pytest.mark.parametrize("container", CONTAINERS.values(), ids=CONTAINERS)
N_CLASSES = pytest.mark.parametrize("n_classes", [2, 3, 4])


def saturated(proba, change):
    proba = np.array(proba, dtype=float)[:, None]
    change = np.array(change, dtype=float)[:, None]
    left = _saturation._saturate(proba, change)
    return left[:, 0], _saturation._linearize(left, change)[:, 0]


@pytest.mark.parametrize(
    ("change", "left", "reached"),
    [
        (1.0, 0.5, 0.75),  # 1/2 + 1/4 of the change
        (2.0, 0.5, 1.0),  # just as far as a probability goes
        (3.0, 1.0, 1.0),
        (-2.0, 0.5, 0.0),
        (-3.0, 0.0, 0.0),
    ],
)
def test_two_classes_by_hand(change, left, reached):
    assert [part[0] for part in saturated([0.5], [change])] == [left, reached]


@pytest.mark.parametrize(
    ("change", "left", "reached"),
    [
        ([0.4, 0.0, 0.0], [1 / 2, 1 / 4, 1 / 4], [0.6, 0.2, 0.2]),  # (1 + 0.4 - 0.2) / 2, (1 - 0.2) / 4
        ([1.0, 0.0, -3.0], [2 / 3, 1 / 3, 0], [8 / 9, 1 / 9, 0]),  # the last would be 1/4 of -1.75
        ([3.0, 0.0, -2.0], [1, 0, 0], [1, 0, 0]),  # the second once the last is 0
        ([0.0, 0.0, 8.0], [0, 0, 1], [0, 0, 1]),  # both at once
        ([5.0, 5.0, 5.0], [1 / 2, 1 / 4, 1 / 4], [1 / 2, 1 / 4, 1 / 4]),  # a common shift is no change
    ],
)
def test_three_classes_by_hand(change, left, reached):
    got_left, got_reached = saturated([1 / 2, 1 / 4, 1 / 4], change)
    assert_allclose(got_left, left, rtol=1e-15)  # thirds are rounded
    assert_allclose(got_reached, reached, rtol=1e-15)


@N_CLASSES
def test_probabilities_after_any_step_are_probabilities(n_classes):
    rng = np.random.RandomState(0)
    z = 5 * rng.standard_normal((n_classes, 2000))
    proba = np.exp(z) / np.exp(z).sum(axis=0)
    proba = proba[1:] if n_classes == 2 else proba
    change = rng.standard_normal(proba.shape) * 10.0 ** rng.uniform(-3, 6, 2000)
    left = _saturation._saturate(proba, change)
    reached = _saturation._linearize(left, change)
    assert (left >= 0).all()
    assert (left <= 1).all()
    rounding = 1e-16 * (1 + np.abs(change).max(axis=0))  # of the changes' mean, which is taken off again
    assert (reached >= -4 * rounding).all()
    assert (reached <= 1 + 4 * rounding).all()
    if n_classes > 2:
        assert (np.abs(reached.sum(axis=0) - 1) <= 8 * rounding).all()


@pytest.mark.parametrize("n_classes", [2, 3])
def test_divergence_by_hand(n_classes):
    def divergence(reached, proba):
        return _saturation._sum_divergences(np.array(reached, dtype=float)[:, None], np.array(proba)[:, None])[0]

    if n_classes == 2:
        assert divergence([1.0], [0.5]) == pytest.approx(np.log(2))
        assert divergence([0.75], [0.5]) == pytest.approx(0.75 * np.log(1.5) + 0.25 * np.log(0.5))
        # 2 d^2 + 4 / 3 d^4 + ...: no difference of logarithms would have the digits; those of d itself are 10
        assert divergence([0.5 + 1e-6], [0.5]) == pytest.approx(2e-12, rel=1e-9)
        assert divergence([0.5], [0.5]) == 0
        return
    want = 8 / 9 * np.log(16 / 9) + 1 / 9 * np.log(4 / 9)
    assert divergence([8 / 9, 1 / 9, 0], [1 / 2, 1 / 4, 1 / 4]) == pytest.approx(want)
    assert divergence([0, 0, 1], [1 / 2, 1 / 4, 1 / 4]) == pytest.approx(np.log(4))


def test_the_series_of_small_divergences_meets_the_logarithms():
    proba = np.full(2, 0.5)
    for e in (0.0099, 0.0101):  # either side of where one takes over
        want = 0.5 * ((1 + e) * np.log1p(e) - e)
        # the series lacks e^5 / 20: 5e-7 of e^2 / 2
        assert _saturation._divergence(0.5 * (1 + e) * np.ones(2), proba)[0] == pytest.approx(want, rel=1e-6)


def naive_saturated(p, change):
    """Of one row: all classes' probabilities, those that would be negative 0."""
    p = list(p)
    while True:
        mean = sum(a * b for a, b in zip(p, change, strict=True))
        spent = [k for k in range(len(p)) if p[k] > 0 and 1 + change[k] - mean < 0]
        if not spent:
            return np.array(p)
        p = [0.0 if k in spent else p[k] for k in range(len(p))]
        p = [a / sum(p) for a in p]


def dense_hessian(case, params, step):
    """The Hessian of the rows as they saturate along ``step``: (n_outputs, q, n_outputs, q), the intercept last."""
    X = case.data.X.toarray() if sp.issparse(case.data.X) else case.data.X
    K, weight = case.n_classes, case.data.weight / case.data.weight.sum()
    H = 0.0
    for i, x in enumerate(X):
        z, change = params.coef @ x + params.intercept, step.coef @ x + step.intercept
        z, change = (np.append(0, v) if K == 2 else v for v in (z, change))
        p = np.exp(z - z.max())
        p = naive_saturated(p / p.sum(), change)
        one = np.append(x, 1.0)
        own = np.diag(p) - np.outer(p, p)
        own = own[1:, 1:] if K == 2 else own
        H = H + weight[i] * np.einsum("ck,i,j->cikj", own, one, one)
    if not case.fit_intercept:
        H[:, -1] = H[:, :, :, -1] = 0
    q = case.n_features
    for c in range(case.n_outputs):
        H[c, np.arange(q), c, np.arange(q)] += case.alpha * (1 - case.l1_ratio)
    return H


@CONTAINER
@N_CLASSES
@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("engine", KERNELS)
def test_products_with_the_saturating_hessian_are_those_of_the_dense_one(container, n_classes, fit_intercept, engine):
    case = random_problem(n_classes, container=container, alpha=0.01, fit_intercept=fit_intercept)
    case = case._replace(kernel=KERNELS[engine])
    params, step = random_params(case.n_outputs, 4), random_params(case.n_outputs, 4, seed=1)
    step = Params(3 * step.coef, 3 * step.intercept)  # along which some rows saturate and others do not
    params, step = (part._replace(intercept=part.intercept * fit_intercept) for part in (params, step))
    H = dense_hessian(case, params, step)
    plain = dense_hessian(case, params, Params(0 * step.coef, 0 * step.intercept))
    assert np.abs(H - plain).max() > 1e-3
    direction = random_params(case.n_outputs, 4, seed=2)
    direction = direction._replace(intercept=direction.intercept * fit_intercept)
    own = case._replace(kernel=Saturating(case.kernel, step))
    got = hessian_products(own, params)(direction)
    want = np.einsum("cikj,kj->ci", H, np.column_stack(direction))
    assert_allclose(np.column_stack(got), want, rtol=1e-10, atol=1e-13)


def test_a_saturating_engine_has_no_losses():
    case = random_problem(3)
    own = case._replace(kernel=Saturating(case.kernel, random_params(3, 4)))
    with pytest.raises(NotImplementedError, match="no losses"):
        value_and_grad(own, prior_params(case))


def exact_step(case, params, evaluation, allowed, n_rounds=60):
    """The step at whose end nothing is missed, from dense systems; None where the rounds come to no end."""
    kernel, step = case.kernel, Params(0 * params.coef, 0 * params.intercept)
    still = step
    for _ in range(n_rounds):
        seen = check_saturation(case, params, evaluation, None, step, kernel, allowed, is_exact=True)
        left = np.column_stack(seen.missed_gradient).ravel()
        if np.abs(left).max() <= 1e-13:
            return step, seen
        kernel = seen.kernel
        # once probabilities saturate along a step of nothing, there are none: the first Hessian is F's own
        H = dense_hessian(case, params, step if step is not still else still)
        d = -np.linalg.lstsq(H.reshape(len(left), -1), left, rcond=1e-13)[0].reshape(case.n_outputs, -1)
        step = add_scaled(step, 1.0, Params(d[:, :-1], d[:, -1]))
    return None


@N_CLASSES
@pytest.mark.parametrize("fit_intercept", [True, False])
def test_the_gap_of_a_step_without_anything_missed_is_a_bound_of_the_excess(n_classes, fit_intercept):
    n_found = 0
    for seed in range(12):
        X, y = random_data(40, 4, n_classes, seed=seed)
        X[0] *= 100.0 * (seed % 2)  # an outlying row in every other problem
        alpha = 10.0 ** -(1 + seed % 4)
        weight = np.random.RandomState(seed).uniform(0.5, 2.0, 40)
        case = problem(X, y, alpha=alpha, weight=weight, fit_intercept=fit_intercept)
        F = Objective(X, y, n_classes, weight, alpha, 0.0, fit_intercept)
        least = minimum(F, [F.zeros()], 1e-10)
        params = prior_params(case)
        if seed % 3:
            params = add_scaled(params, 0.3, random_params(case.n_outputs, 4, seed=seed))
        params = params._replace(intercept=params.intercept * fit_intercept)
        evaluation = value_and_grad(case, params)
        found = exact_step(case, params, evaluation, 0.0)
        if found is None:
            continue
        n_found += 1
        assert found[1].gap >= evaluation.value - least.value - 1e-12
    assert n_found >= 6  # undamped rounds need not come to an end


@N_CLASSES
def test_the_gap_of_a_small_step_is_half_the_squared_newton_decrement(n_classes):
    case = random_problem(n_classes, alpha=0.1)
    params = prior_params(case)
    for _ in range(3):  # near the minimum, where a step is small
        evaluation = value_and_grad(case, params)
        still = Params(0 * params.coef, 0 * params.intercept)
        H, g = dense_hessian(case, params, still), np.column_stack(evaluation.grads)
        d = -np.linalg.lstsq(H.reshape(g.size, -1), g.ravel(), rcond=1e-13)[0].reshape(g.shape)
        step = Params(d[:, :-1], d[:, -1])
        params, before = add_scaled(params, 1.0, step), params
    seen = check_saturation(case, before, evaluation, None, step, case.kernel, 0.0, is_exact=True)
    # to second order in the step, which changes probabilities by some hundredths of themselves
    assert seen.gap == pytest.approx(-0.5 * dot(evaluation.grads, step), rel=0.05)
    assert np.abs(np.column_stack(seen.missed_gradient)).max() < 1e-12
    assert seen.missed_decrease <= 0.01 * seen.gap


def outlying(n_classes=2, cell=1e4, n_samples=500, seed=0):
    """Rows that two columns tell apart with some noise, one cell of one row far out."""
    rng = np.random.RandomState(seed)
    X = rng.standard_normal((n_samples, 3))
    score = 3 * X[:, 0] + rng.logistic(size=n_samples)
    y = np.searchsorted(np.quantile(score, np.arange(1, n_classes) / n_classes), score)
    X[0, 0], y[0] = cell, n_classes - 1  # with the others: F's minimum is nearly theirs
    return X, y


def plain_newton(case, params):
    evaluation = value_and_grad(case, params)
    preconditioner = gram_preconditioner(case, compute_moments(case, full_gram=True))
    newton = conjugate_gradients(hessian_products(case, params), evaluation.grads, preconditioner, 1e-6, 500)
    return evaluation, preconditioner, newton


@CONTAINER
@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("cell", [1e3, 1e5, 1e8])
@pytest.mark.parametrize("how", ["conjugate gradients", "factorised"])
def test_a_step_sees_through_one_outlying_row(container, n_classes, cell, how):
    X, y = outlying(n_classes, cell)
    case = problem(container(X), y, alpha=1e-4)
    params = prior_params(case)
    evaluation, preconditioner, newton = plain_newton(case, params)
    F = Objective(X, y, n_classes, None, 1e-4)
    rest = Objective(X[1:], y[1:], n_classes, None, 1e-4)
    best = minimum(F, [minimum(rest, [rest.zeros()], 1e-6).theta, F.zeros()], 1e-8).value
    left = evaluation.value - best
    rows = case.data._replace(weight=case.data.weight / case.data.weight.sum())

    def factorise(own):
        return factorize_hessian(own, params, rows, preconditioner)

    allowed = absolute_suboptimality(evaluation.value, 1e-3)
    by_factor = how == "factorised"
    found = saturate_step(
        *(case, params, evaluation, rows if by_factor else None, newton, preconditioner, allowed),
        factorise if by_factor else None,
    )
    fall = evaluation.value - value_and_grad(case, add_scaled(params, 1.0, newton.direction)).value
    assert fall < 0.05 * left  # one cell holds the step
    assert newton.decrease < 0.05 * left  # and the promise
    assert evaluation.value - value_and_grad(case, add_scaled(params, 1.0, found.direction)).value > 0.5 * left
    assert found.decrease + found.cg_remainder >= 0.8 * left  # an estimate: rounds end with a tenth of it overlooked


@N_CLASSES
def test_a_step_along_which_nothing_saturates_is_kept(n_classes):
    case = random_problem(n_classes, alpha=0.5)  # so strong that the minimum is near the priors
    evaluation, preconditioner, newton = plain_newton(case, prior_params(case))
    found = saturate_step(case, prior_params(case), evaluation, None, newton, preconditioner, 1e-3 * evaluation.value)
    assert found.direction is newton.direction
    assert found.n_products == newton.n_products
    assert found.decrease == pytest.approx(newton.decrease, rel=0.3)  # half a decrement is it to second order alone


def test_rounds_without_end_hand_over_the_step_of_least_f_and_no_promise(monkeypatch):
    X, y = outlying()
    case = problem(X, y, alpha=1e-4)
    evaluation, preconditioner, newton = plain_newton(case, prior_params(case))
    monkeypatch.setattr(_saturation, "MAX_ROUNDS", 1)
    found = saturate_step(case, prior_params(case), evaluation, None, newton, preconditioner, 1e-9)
    assert found.cg_remainder == np.inf
    assert found.decrease >= newton.decrease
    ends = [value_and_grad(case, add_scaled(prior_params(case), 1.0, one.direction)).value for one in (newton, found)]
    assert ends[1] <= ends[0]


def test_at_the_minimum_no_step_is_worth_anything():
    X, y = np.zeros((4, 2)), np.array([0, 1, 0, 1])
    case = problem(X, y)
    params = prior_params(case)
    evaluation = value_and_grad(case, params)
    preconditioner = gram_preconditioner(case, compute_moments(case, full_gram=True))
    found = newton_step(case, params, evaluation, preconditioner, 1e-3, 0.1, 10)
    assert isinstance(found, NewtonStep)
    assert found.decrease == found.cg_remainder == 0.0


@CONTAINER
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n_classes", [2, 3])
def test_rows_sure_of_their_class_still_promise_what_an_outlier_holds_back(container, dtype, n_classes):
    X, y = outlying(n_classes, 1e6)
    case = problem(container(X.astype(dtype)), y, alpha=1e-4)
    evaluation, preconditioner, _ = plain_newton(case, prior_params(case))
    allowed = absolute_suboptimality(evaluation.value, 1e-3)
    found = newton_step(case, prior_params(case), evaluation, preconditioner, allowed, 0.1, 100)
    F = Objective(X.astype(dtype), y, n_classes, None, 1e-4)
    rest = Objective(X[1:], y[1:], n_classes, None, 1e-4)
    best = minimum(F, [minimum(rest, [rest.zeros()], 1e-6).theta, F.zeros()], 1e-8).value
    assert found.decrease + found.cg_remainder >= 0.8 * (evaluation.value - best)  # an estimate, as above
