"""The first Newton steps by kernels: against the steps of NumPy, and watched or not."""

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from sksoftmax import SoftmaxClassifier
from sksoftmax._engines import compiled, vectorized
from sksoftmax._maths.curvature import factorize_hessian
from sksoftmax._maths.objective import prior_params, value_and_grad
from sksoftmax._maths.preconditioner import compute_moments, gram_preconditioner
from sksoftmax._solvers.first_steps import has_first_steps
from sksoftmax._types import Batch, add_scaled, dot, normalize_weights
from tests.problems import problem, random_data, random_params, random_problem

kernels = pytest.importorskip("_sksoftmax_kernels")


def steps_of(case, params, n_steps, tol=1e-14):
    base = gram_preconditioner(case, compute_moments(case, full_gram=False))
    return compiled.newton_steps(case, params, base.scale, tol, n_steps)


@given(
    st.integers(2, 60), st.integers(1, 7), st.sampled_from([2, 3, 5]), st.booleans(),
    st.sampled_from([np.float32, np.float64]), st.floats(1e-4, 1.0), st.integers(0, 99),
)  # fmt: skip
def test_a_step_is_along_the_direction_of_numpy(n, p, n_classes, fit_intercept, dtype, alpha, seed):
    X, y = random_data(max(n, n_classes), p, n_classes, seed, dtype)
    weight = np.random.default_rng(seed).uniform(0.5, 2, len(y))
    case = problem(X, y, alpha=alpha, weight=weight, fit_intercept=fit_intercept, kernel=compiled)
    params = random_params(case.n_outputs, p)
    params = params._replace(intercept=params.intercept * fit_intercept)
    evaluation = value_and_grad(case, params)
    base = gram_preconditioner(case, compute_moments(case, full_gram=False))
    factor = factorize_hessian(case, params, normalize_weights(case.data), base)
    direction = factor.apply(evaluation.grads)
    end, values = steps_of(case, params, 1)
    step = add_scaled(end, -1.0, params)
    if not dot(direction, direction):  # all columns are constant
        assert (dot(step, step), values) == (0, [])
        return
    cosine = -dot(step, direction) / np.sqrt(dot(step, step) * dot(direction, direction))
    assert cosine == pytest.approx(1, abs=1e-4 if dtype == np.float32 else 1e-9)
    length = np.log2(np.sqrt(dot(step, step) / dot(direction, direction)))
    assert length == pytest.approx(np.rint(length), abs=1e-3)  # halved or doubled
    rtol = 1e-5 if dtype == np.float32 else 1e-12
    assert values == [pytest.approx(value_and_grad(case, end).value, rel=rtol)]
    assert values[0] < evaluation.value


@pytest.mark.parametrize("n_classes", [2, 4])
@pytest.mark.parametrize("fit_intercept", [True, False])
def test_many_steps_lead_to_the_minimum_and_then_end(n_classes, fit_intercept):
    case = random_problem(n_classes, alpha=0.01, kernel=compiled, fit_intercept=fit_intercept)
    end, values = steps_of(case, prior_params(case), 30)
    assert len(values) < 30
    assert (np.diff(values) < 0).all()
    grads = value_and_grad(case, end).grads
    assert dot(grads, grads) < 1e-12
    assert steps_of(case, end, 30)[1] == []


def test_a_constant_column_gets_no_coefficient():
    X, y = random_data(50)
    X = np.hstack([X, np.full((50, 1), 7.0)])
    case = problem(X, y, kernel=compiled)
    end, _ = steps_of(case, prior_params(case), 30)
    assert_array_equal(end.coef[:, -1], 0)


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("n_samples", [60, 600])
def test_a_callback_changes_nothing(n_samples, n_classes, capsys):
    X, y = random_data(n_samples, n_classes=n_classes)
    clf = SoftmaxClassifier(1e-4, tol=1e-8).fit(X, y)
    watched = SoftmaxClassifier(1e-4, tol=1e-8, verbose=1).fit(X, y)
    assert_array_equal(watched.coef_, clf.coef_)
    assert watched.loss_curve_ == clf.loss_curve_
    assert watched.n_iter_ == clf.n_iter_ == len(clf.loss_curve_) > 2
    assert watched.solver_info_["solver"] == "newton"


@pytest.mark.parametrize("max_iter", [1, 2, 3, 4])
def test_an_epoch_is_a_step(max_iter):
    X, y = random_data(300)
    with pytest.warns(match="max_iter"):
        clf = SoftmaxClassifier(1e-6, tol=1e-9, max_iter=max_iter).fit(X, y)
    assert clf.n_iter_ == len(clf.loss_curve_) == max_iter
    assert clf.stop_reason_ == "max_iter"


def test_only_small_dense_rows_with_classes_have_first_steps():
    case = random_problem(kernel=compiled)
    assert has_first_steps(case)
    assert not has_first_steps(case._replace(kernel=vectorized))
    assert not has_first_steps(case._replace(label_smoothing=0.1))
    X, y, weight = case.data
    assert not has_first_steps(case._replace(data=Batch(sp.csr_array(X), y, weight)))
    many = Batch(np.zeros((200_000, 20)), np.zeros(200_000, np.intp), np.ones(200_000))
    assert not has_first_steps(case._replace(data=many))


def test_the_minimum_is_that_of_the_other_engine():
    X, y = random_data(400, n_classes=5)
    clf, of_numpy = (SoftmaxClassifier(1e-3, tol=1e-12, engine=engine).fit(X, y) for engine in ("auto", "vectorized"))
    assert_allclose(clf.coef_, of_numpy.coef_, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"y": np.zeros(8, np.intp)}, "y and weight must have an entry for each row of X"),
        ({"weight": np.zeros(8)}, "y and weight must have an entry for each row of X"),
        ({"scale": np.ones(4)}, "scale and coef must have an entry for each column of X"),
        ({"coef": np.ones((3, 4))}, "scale and coef must have an entry for each column of X"),
        ({"intercept": np.ones(2)}, r"intercept must be \(n_outputs,\)"),
    ],
)
def test_arrays_of_other_sizes_are_refused(change, message):
    arguments = {
        "X": np.ones((9, 5)), "y": np.zeros(9, np.intp), "weight": np.ones(9), "scale": np.ones(5), "alpha": 0.1,
        "fit_intercept": True, "tol": 0.1, "coef": np.ones((3, 5)), "intercept": np.ones(3), "values": np.ones(2),
    }  # fmt: skip
    with pytest.raises(ValueError, match=message):
        kernels.newton_steps(*(arguments | change).values())
