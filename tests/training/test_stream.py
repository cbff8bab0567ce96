"""Test ``partial_fit``: buffered rows, refits, new classes, drift."""

import pickle
from itertools import pairwise
from unittest import mock

import numpy as np
import pytest
import scipy.sparse as sp
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.datasets import load_digits, load_iris, load_wine
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import SGDClassifier
from sklearn.preprocessing import StandardScaler

from benchmarks.rivals import OURS, linear_params, objective
from sksoftmax import SoftmaxClassifier
from sksoftmax._data.batches import generator
from sksoftmax._engines import vectorized
from sksoftmax._maths.objective import loss, loss_grad, value_and_grad
from sksoftmax._solvers import schedule_free as steps
from sksoftmax._training import stream
from sksoftmax._types import Batch, Params, Problem

LOADERS = {"iris": load_iris, "wine": load_wine, "digits": load_digits}


def shuffled(name, seed=0):
    X, y = LOADERS[name](return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(y))
    return X[order], y[order]


def streamed(clf, X, y, size, n_passes=1, classes=None):
    for _ in range(n_passes):
        for start in range(0, len(y), size):
            clf.partial_fit(X[start : start + size], y[start : start + size], classes=classes)
    return clf


def random_rows(n, p=6, n_classes=3, seed=0, coef=None):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, p))
    coef = np.random.default_rng(99).standard_normal((n_classes, p)) if coef is None else coef
    return X, (X @ coef.T + rng.gumbel(size=(n, len(coef)))).argmax(axis=1)


def as_problem(X, y, n_classes=3, alpha=1e-3, fit_intercept=True):
    return Problem(Batch(X, y, np.ones(len(y))), n_classes, alpha, fit_intercept, vectorized, 1.0)


# --- buffered rows ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "size"),
    [*((name, 1000) for name in LOADERS), *((name, size) for name in ("iris", "wine") for size in (1, 50))],
)
@pytest.mark.parametrize(("n_passes", "goal"), [(1, 0.05), (5, 0.01)])
def test_passes_over_unscaled_rows_end_near_the_minimum(name, size, n_passes, goal):
    X, y = shuffled(name)
    F = objective(X, y, 1e-3)
    best = F(OURS.params(SoftmaxClassifier(1e-3, tol=1e-9, random_state=0).fit(X, y)))
    clf = streamed(SoftmaxClassifier(1e-3, random_state=0), X, y, size, n_passes, np.unique(y))
    assert F(OURS.params(clf)) <= (1 + goal) * best


@pytest.mark.parametrize("name", LOADERS)
@pytest.mark.parametrize("n_passes", [1, 5])
def test_it_is_nearer_than_sgd_of_standardised_rows(name, n_passes):
    X, y = shuffled(name)
    F = objective(X, y, 1e-3)
    clf = SoftmaxClassifier(1e-3, random_state=0)
    streamed(clf, X, y, 100, n_passes, np.unique(y))
    scaler = StandardScaler().fit(X)
    sgd = SGDClassifier(loss="log_loss", alpha=1e-3, random_state=0)
    streamed(sgd, scaler.transform(X), y, 100, n_passes, np.unique(y))
    coef, intercept = linear_params(sgd)
    coef = coef / scaler.scale_
    assert F(OURS.params(clf)) < F(Params(coef, intercept - coef @ scaler.mean_))


@pytest.mark.parametrize("container", [np.asarray, sp.csr_array])
@pytest.mark.parametrize("keep_rows", [True, False])
def test_what_was_kept_does_not_change_with_the_callers_arrays(container, keep_rows):
    X, y = random_rows(400)
    clf, same = (SoftmaxClassifier(keep_rows=keep_rows, random_state=0) for _ in range(2))
    for start in range(0, 400, 100):
        rows, labels, weight = X[start : start + 100].copy(), y[start : start + 100].copy(), np.ones(100)
        held = container(rows)
        clf.partial_fit(held, labels, [0, 1, 2], weight)
        same.partial_fit(container(X[start : start + 100]), y[start : start + 100], [0, 1, 2])
        (held.data if sp.issparse(held) else held)[:] = 1e3
        labels[:], weight[:] = 0, 7.0
    assert_array_equal(clf.coef_, same.coef_)


@pytest.mark.parametrize("n_kept", [0, 350, 10000])
@pytest.mark.parametrize("params", [{}, {"half_life": 200.0}, {"allow_new_classes": True}])
def test_a_pickle_in_between_changes_no_bit(n_kept, params):
    X, y = random_rows(1000)
    kept, pickled = (SoftmaxClassifier(random_state=0, **params) for _ in range(2))
    with mock.patch.object(stream, "MAX_BUFFER_BYTES", n_kept * X.shape[1] * 8):
        for start in range(0, 1000, 100):
            rows = slice(start, start + 100)
            kept.partial_fit(X[rows], y[rows], classes=[0, 1, 2])
            pickled = pickle.loads(pickle.dumps(pickled)).partial_fit(X[rows], y[rows], classes=[0, 1, 2])
    assert_array_equal(kept.coef_, pickled.coef_)
    assert_array_equal(kept.intercept_, pickled.intercept_)
    assert kept.solver_info_ == pickled.solver_info_
    warm = [clf.set_params(warm_start=True).fit(X, y) for clf in (kept, pickled)]
    assert_array_equal(warm[0].coef_, warm[1].coef_)


@pytest.mark.parametrize("container", [np.asarray, sp.csr_array])
def test_a_stream_that_outgrows_what_is_kept_goes_on_from_there(container):
    X, y = random_rows(20000, p=10)
    F = objective(X, y, 1e-3)
    best = F(OURS.params(SoftmaxClassifier(1e-3, tol=1e-8).fit(X, y)))
    with mock.patch.object(stream, "MAX_BUFFER_BYTES", 5000 * 10 * 12):
        clf = streamed(SoftmaxClassifier(1e-3, random_state=0), container(X), y, 500, classes=[0, 1, 2])
    assert clf.solver_info_["solver"] == "schedule_free"
    assert clf._stream.row_buffer is None
    assert clf._stream.solver_state.step > 5000 / 256  # the buffered rows count in the average
    assert F(OURS.params(clf)) <= 1.003 * best  # a single pass costs 22 unknowns / 40000 rows / F


def test_a_stream_asks_for_another_fit_when_the_rows_surprise_it():
    rows = as_problem(*random_rows(100)).data
    params = Params(np.zeros((100, 100)), np.zeros(100))  # many: a fit costs more than its calls
    buffer = stream.RowBuffer(chunks=(rows,), n_learned=70, value=1.0, loss=0.9, surplus=1.9, params=params)
    assert not stream._is_due(buffer, 1.0)  # a surplus of 1.9 in 100
    assert stream._is_due(buffer._replace(surplus=2.1), 1.0)
    assert not stream._is_due(buffer._replace(surplus=2.1), 2.0)  # weights twice as large
    assert not stream._is_due(buffer._replace(surplus=2.1, n_learned=85), 1.0)  # too soon
    assert stream._is_due(buffer._replace(surplus=-9.0, n_learned=50), 1.0)  # twice as many
    few = Params(np.zeros((3, 6)), np.zeros(3))
    assert stream._is_due(buffer._replace(surplus=2.1, n_learned=99, params=few), 1.0)  # never too soon


def test_few_heavy_rows_and_rows_that_the_model_is_lost_on_ask_sooner():
    rows = as_problem(*random_rows(100)).data
    params = Params(np.zeros((3, 10000)), np.zeros(3))  # many: a fit costs more than its calls
    buffer = stream.RowBuffer((rows,), n_learned=90, value=0.5, loss=0.4, surplus=2.0, params=params, weight=90.0)
    assert not stream._is_due(buffer, 1.0)
    assert stream._is_due(buffer._replace(weight=78.0), 1.0)  # growth: 10 of 90 rows, 22 of 78 in weight
    assert stream._is_due(buffer._replace(squares=41.0), 1.0)  # one row has a weight of 6.4 of 10
    assert not stream._is_due(buffer._replace(squares=41.0, surplus=0.9), 1.0)  # not stale
    assert stream._is_due(buffer._replace(surplus=7.0), 1.0)  # the mean loss of the new rows is log(3)
    assert not stream._is_due(buffer._replace(surplus=7.0, n_learned=96, weight=96.0), 1.0)  # too soon
    assert stream._is_due(buffer._replace(surplus=60.0, n_learned=99, weight=99.0), 1.0)  # F is 1.1 over all rows
    assert stream._is_due(buffer._replace(surplus=np.nan), 1.0)


def refitted_to(clf):
    """Return the number of rows of the last fit, and of all buffered rows."""
    buffer = clf._stream.row_buffer
    return buffer.n_learned, buffer.n_samples


@pytest.mark.parametrize("size", [150, 428])
@pytest.mark.parametrize("kind", ["rows", "rising", "falling"])
@pytest.mark.parametrize("p", [6, 60])
def test_weights_over_six_decades_leave_no_row_unlearned(p, kind, size):
    X, y = random_rows(3000, p=p)
    progress = (np.arange(3000) // size) / (2999 // size)
    exponent = {"rows": np.random.default_rng(1).uniform(-3, 3, 3000), "rising": 6 * progress - 3}
    weight = 10.0 ** exponent.get(kind, 3 - 6 * progress)
    clf = SoftmaxClassifier(1e-3, random_state=0)
    for start in range(0, 3000, size):
        rows = slice(start, start + size)
        clf.partial_fit(X[rows], y[rows], [0, 1, 2], weight[rows])
    best = SoftmaxClassifier(1e-3, tol=1e-8, max_iter=500).fit(X, y, weight)
    problem = as_problem(X, y)._replace(data=Batch(X, y, weight), mean_weight=weight.mean())
    values = [value_and_grad(problem, OURS.params(model)).value for model in (clf, best)]
    assert values[0] <= 1.05 * values[1]  # fitted to an excess of 0.01, out of date from 0.02


@pytest.mark.filterwarnings("ignore:SoftmaxClassifier did not converge")  # at 1e6 and 1e200, rightly
@pytest.mark.parametrize("unit", [1e-6, 1e3, 1e6, 1e200])
@pytest.mark.parametrize("n_new", [100, 1000])
def test_rows_in_other_units_are_learned(n_new, unit):
    X, y = random_rows(2000, p=40)
    X[-n_new:] *= unit
    clf = SoftmaxClassifier(1e-2, random_state=0).partial_fit(X[:-n_new], y[:-n_new], [0, 1, 2])
    clf.partial_fit(X[-n_new:], y[-n_new:])
    if n_new == 1000 or unit > 1:  # 100 more rows close to 0 add too little
        assert refitted_to(clf) == (2000, 2000)


def test_a_fit_to_the_rows_kept_that_does_not_converge_says_so():
    X, y = random_rows(2000, p=40)
    clf = SoftmaxClassifier(1e-9, max_iter=1, random_state=0)
    words = r"F\* is .* 0\.01, the tolerance of partial_fit\. Raise max_iter\.$"
    with pytest.warns(ConvergenceWarning, match=words) as record:
        clf.partial_fit(np.hstack([X, X**2, X**3]), y, [0, 1, 2])
    assert record[0].filename == __file__


OTHER_OBJECTIVES = {
    "alpha": {"alpha": 1.0},
    "l1_ratio": {"l1_ratio": 0.5},
    "no intercept": {"fit_intercept": False},
    "smoothing": {"label_smoothing": 0.3},
}


@pytest.mark.parametrize("change", OTHER_OBJECTIVES.values(), ids=OTHER_OBJECTIVES)
def test_another_objective_is_fitted_at_once(change):
    X, y = random_rows(400)
    clf = SoftmaxClassifier(1e-2, random_state=0).partial_fit(X[:399] + 1, y[:399], [0, 1, 2])
    clf.set_params(**change).partial_fit(X[399:] + 1, y[399:])
    assert refitted_to(clf) == (400, 400)
    cold = SoftmaxClassifier(**clf.get_params()).set_params(tol=1e-8).fit(X + 1, y)
    assert_allclose(clf.predict_proba(X + 1), cold.predict_proba(X + 1), atol=0.05)  # fitted to an excess of 0.01
    assert clf.fit_intercept or not clf.intercept_.any()


@pytest.mark.parametrize("solver", ["auto", "sgd", "adagrad", "adam"])
@pytest.mark.parametrize("change", [{"alpha": 1e3}, {"fit_intercept": False}])
def test_steps_go_on_under_another_objective(change, solver):
    X, y = random_rows(2000)
    clf = SoftmaxClassifier(1e-3, keep_rows=False, solver=solver, random_state=0)
    clf.partial_fit(X[:1000] + 1, y[:1000], [0, 1, 2]).set_params(**change).partial_fit(X[1000:] + 1, y[1000:])
    assert np.isfinite(clf.coef_).all()
    if "alpha" in change:
        assert np.abs(clf.coef_).max() < 3  # the rates follow the new curvature, so no step diverges
    else:
        assert not clf.intercept_.any()
        assert clf.score(X[1000:] + 1, y[1000:]) > 0.4


# --- rows of weight 0 -------------------------------------------------------------------------------------


NO_WEIGHT = {
    "kept": {},
    "not kept": {"keep_rows": False},
    "sgd": {"solver": "sgd"},
    "soft": {"soft_targets": True},
    "class weight": {"class_weight": {0: 0.0, 1: 1.0, 2: 1.0}},
}


@pytest.mark.parametrize("name", NO_WEIGHT)
@pytest.mark.parametrize("when", ["first", "later"])
def test_rows_of_weight_zero_change_nothing(when, name):
    X, y = random_rows(300)
    none = None if name == "class weight" else np.zeros(50)
    of_none = np.zeros(50, int) if name == "class weight" else y[:50]

    def targets(codes):
        return np.eye(3)[codes] if name == "soft" else codes

    clf, same = (SoftmaxClassifier(random_state=0, **NO_WEIGHT[name]) for _ in range(2))
    if when == "later":
        for model in (clf, same):
            model.partial_fit(X[:150], targets(y[:150]), [0, 1, 2])
    before = dict(vars(clf))
    clf.partial_fit(1e3 * X[:50], targets(of_none), [0, 1, 2], none)
    if when == "later":
        assert {key: id(value) for key, value in vars(clf).items()} == {key: id(value) for key, value in before.items()}
    else:
        assert_array_equal(clf.predict_proba(X[:5]), np.full((5, 3), 1 / 3))
    for model in (clf, same):
        model.partial_fit(X[150:], targets(y[150:]), [0, 1, 2])
    assert_array_equal(clf.coef_, same.coef_)
    assert_array_equal(clf.intercept_, same.intercept_)


def test_rows_of_weight_zero_are_checked():
    X, y = random_rows(50)
    clf = SoftmaxClassifier().partial_fit(X, y, [0, 1, 2])
    with pytest.raises(ValueError, match="NaN"):
        clf.partial_fit(X * np.nan, y, sample_weight=np.zeros(50))
    with pytest.raises(ValueError, match=r"got \[7\] as well"):
        clf.partial_fit(X, y * 0 + 7, sample_weight=np.zeros(50))


def test_a_stream_does_not_stop_early():
    X, y = random_rows(50)
    with pytest.raises(ValueError, match=r"early_stopping must be False for partial_fit, .* got True; set it to False"):
        SoftmaxClassifier(early_stopping=True).partial_fit(X, y, [0, 1, 2])


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("only", [0, 1])
@pytest.mark.parametrize("keep_rows", [True, False])
def test_the_only_class_so_far_is_predicted_without_intercept_too(keep_rows, only, n_classes):
    X = random_rows(50)[0] + 2
    clf = SoftmaxClassifier(fit_intercept=False, keep_rows=keep_rows, random_state=0)
    streamed(clf, X, np.full(50, only), 10, classes=np.arange(n_classes))
    assert clf.score(X, np.full(50, only)) > 0.9
    assert not clf.intercept_.any()


def test_the_surplus_is_what_new_rows_lose_more_than_the_old():
    X, y = random_rows(2000)
    clf = SoftmaxClassifier(1e-3, random_state=0).partial_fit(X[:1900], y[:1900], classes=[0, 1, 2])
    losses = -clf.predict_log_proba(X)[np.arange(2000), y]
    clf.partial_fit(X[1900:], y[1900:])
    buffer = clf._stream.row_buffer
    assert buffer.n_learned == 1900
    assert buffer.loss == pytest.approx(losses[:1900].mean(), rel=1e-9)
    assert buffer.surplus == pytest.approx(losses[1900:].sum() - 100 * losses[:1900].mean(), rel=1e-9)
    assert clf.solver_info_["kept"] == "2000 rows, 1900 of them in the last fit"


def test_kept_rows_lie_in_few_pieces_in_order():
    chunks = ()
    for i in range(1000):
        chunks = stream._append_rows(chunks, Batch(np.full((1, 1), i), np.zeros(1, int), np.ones(1)))
    sizes = [len(piece.y) for piece in chunks]
    assert len(sizes) <= 10
    assert all(2 * after <= before for before, after in pairwise(sizes))
    assert_array_equal(np.concatenate([piece.X.ravel() for piece in chunks]), np.arange(1000))


def test_dense_and_sparse_pieces_may_come_together():
    X, y = random_rows(300)
    mixed = SoftmaxClassifier(random_state=0).partial_fit(X[:100], y[:100], classes=[0, 1, 2])
    mixed.partial_fit(sp.csr_array(X[100:200]), y[100:200]).partial_fit(X[200:], y[200:])
    assert mixed.score(X, y) > 0.6


@pytest.mark.parametrize("class_weight", [None, {0: 1.0, 1: 2.0, 2: 3.0}])
def test_weights_count_rows(class_weight):
    X, y = random_rows(300)
    weight = np.arange(300) % 3
    params = {"class_weight": class_weight, "random_state": 0}
    weighted = SoftmaxClassifier(**params).partial_fit(X, y, [0, 1, 2], weight)
    repeated = SoftmaxClassifier(**params).partial_fit(np.repeat(X, weight, axis=0), np.repeat(y, weight), [0, 1, 2])
    weights = np.where(class_weight is None, 1.0, 1.0 + y) * weight
    problem = as_problem(X, y, alpha=1e-4)
    problem = problem._replace(data=problem.data._replace(weight=weights), mean_weight=weights.mean())
    best = SoftmaxClassifier(tol=1e-9).fit(X, y, weights)
    values = [value_and_grad(problem, OURS.params(clf)).value for clf in (best, weighted, repeated)]
    assert max(values) <= 1.01 * values[0]


def test_with_l1_coefficients_are_exactly_zero():
    X, y = random_rows(2000, p=30)
    clf = streamed(SoftmaxClassifier(3e-2, l1_ratio=1.0, random_state=0), X, y, 500, classes=[0, 1, 2])
    assert 0 < np.count_nonzero(clf.coef_) < clf.coef_.size


def test_keep_rows_off_keeps_none_and_nor_does_a_fit():
    X, y = random_rows(300)
    for clf in (SoftmaxClassifier(keep_rows=False), SoftmaxClassifier().fit(X, y), SoftmaxClassifier(half_life=100)):
        clf.partial_fit(X, y, classes=[0, 1, 2])
        assert clf._stream.row_buffer is None
        assert len(pickle.dumps(clf)) < X.nbytes


# --- classes ----------------------------------------------------------------------------------------------


def test_a_class_without_rows_is_as_if_it_had_half_a_row():
    X, y = random_rows(500, n_classes=2)
    clf = SoftmaxClassifier(2e-2, tol=1e-9, random_state=0).partial_fit(X, y, classes=[0, 1, 2])
    two = SoftmaxClassifier(1e-2, tol=1e-9, random_state=0).fit(X, y)  # -w/2 and w/2 have half the squared norm
    assert clf.coef_.shape == (3, 6)
    assert_allclose(clf.coef_[1] - clf.coef_[0], two.coef_[0], rtol=0.02, atol=0.02)  # fitted to an excess of 1e-2
    assert 1e-5 < clf.predict_proba(X)[:, 2].max() <= 1 / 1000
    with_l1 = SoftmaxClassifier(2e-2, l1_ratio=0.5, random_state=0).partial_fit(X, y, classes=[0, 1, 2])
    assert not with_l1.coef_[2].any()


def test_a_first_piece_of_one_class_predicts_it():
    X, y = random_rows(50)
    clf = SoftmaxClassifier().partial_fit(X, np.ones(50, int), classes=[0, 1, 2])
    assert_allclose(clf.predict_proba(X), np.tile([0.5, 50, 0.5], (50, 1)) / 51)
    X, y = random_rows(1000, seed=1)
    clf.partial_fit(X, y)
    assert clf.score(X, y) > 0.6


@pytest.mark.parametrize("n_classes", [2, 4])
@pytest.mark.parametrize("has_l1", [False, True])
def test_new_classes_hardly_move_old_predictions(n_classes, has_l1):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((200, 5))
    rows = 1 if n_classes == 2 else n_classes
    params = Params(2 * rng.standard_normal((rows, 5)), rng.standard_normal(rows))
    places = np.arange(n_classes) + np.arange(n_classes) // 2
    total = places[-1] + 2
    wide = stream.add_classes(params, places, total, 500, has_l1=has_l1, has_intercept=True)
    before, after = vectorized.proba(params, X), vectorized.proba(wide, X)
    before = np.vstack([1 - before, before]) if rows == 1 else before
    n_new = total - n_classes
    assert np.abs(after[places] - before).max() <= n_new / 1000 * (8.0 if has_l1 else 1.0)
    assert_allclose(after.sum(axis=0), 1.0)


NEW_CLASSES = {
    "kept": {},
    "not kept": {"keep_rows": False},
    "l1": {"l1_ratio": 0.5},
    "no intercept": {"fit_intercept": False},
    **{
        name: {"solver": name, "learning_rate": rate}
        for name, rate in (("sgd", 0.05), ("adagrad", 0.5), ("adam", 0.05))
    },
}


@pytest.mark.parametrize("params", NEW_CLASSES.values(), ids=NEW_CLASSES)
@pytest.mark.parametrize("is_fitted", [False, True])
def test_classes_may_come_later(params, is_fitted):
    X, y = random_rows(3000, n_classes=5)
    labels = np.array(["b", "d", "a", "e", "cc"])[y]
    clf = SoftmaxClassifier(1e-3, allow_new_classes=True, random_state=0, **params)
    first = np.isin(labels, ["b", "d"])
    if is_fitted:
        clf.set_params(tol=1.0).fit(X[first], labels[first])
    else:
        clf.partial_fit(X[first], labels[first])
    assert clf.coef_.shape == (1, 6)
    second = np.isin(labels, ["b", "e", "d"])
    clf.partial_fit(X[second], labels[second])
    assert_array_equal(clf.classes_, ["b", "d", "e"])
    streamed(clf, X, labels, 300, 1 if "solver" not in params else 5)
    assert_array_equal(clf.classes_, ["a", "b", "cc", "d", "e"])
    best = SoftmaxClassifier(1e-3, random_state=0, fit_intercept=clf.fit_intercept).fit(X, labels)
    assert clf.score(X, labels) > best.score(X, labels) - 0.05


def test_classes_that_come_later_end_at_the_same_minimum():
    X, y = random_rows(2000, n_classes=4)
    order = np.argsort(y, kind="stable")
    X, y = X[order], y[order]
    clf = SoftmaxClassifier(1e-3, allow_new_classes=True, random_state=0)
    for start in range(0, 2000, 1000):
        clf.partial_fit(X[start : start + 1000], y[start : start + 1000])
    F = objective(X, y, 1e-3)
    best = F(OURS.params(SoftmaxClassifier(1e-3, tol=1e-9).fit(X, y)))
    assert F(OURS.params(clf)) <= 1.01 * best


def test_new_classes_are_an_error_by_default_and_say_what_to_do():
    X, y = random_rows(100)
    clf = SoftmaxClassifier().partial_fit(X[y < 2], y[y < 2], classes=[0, 1])
    before = clf.coef_.copy()
    with pytest.raises(ValueError, match=r"got \[2\] as well.*allow_new_classes=True"):
        clf.partial_fit(X, y)
    assert_array_equal(clf.coef_, before)


def test_a_first_call_of_one_class_says_what_to_do():
    X, y = random_rows(100)
    clf = SoftmaxClassifier(allow_new_classes=True)
    with pytest.raises(ValueError, match="at least two classes, got only 0; pass classes="):
        clf.partial_fit(X[y == 0], y[y == 0])
    assert not hasattr(clf, "classes_")
    clf.partial_fit(X[y == 0], y[y == 0], classes=[0, 7])
    assert_array_equal(clf.partial_fit(X, y).classes_, [0, 1, 2, 7])


def test_labels_of_another_kind_are_refused():
    X, y = random_rows(100)
    clf = SoftmaxClassifier(allow_new_classes=True).partial_fit(X, y)
    with pytest.raises(ValueError, match="y must hold numbers, as the known classes do"):
        clf.partial_fit(X, y.astype(str))


# --- drift ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("container", [np.asarray, sp.csr_array])
def test_with_a_half_life_a_stream_follows_labels_that_change_their_meaning(container):
    X, y = random_rows(8000)
    y[4000:] = (y[4000:] + 1) % 3
    adapting, rigid = (SoftmaxClassifier(random_state=0, half_life=h) for h in (300.0, None))
    for start in range(0, 8000, 50):
        rows = slice(start, start + 50)
        for clf in (adapting, rigid):
            clf.partial_fit(container(X[rows]), y[rows], classes=[0, 1, 2])
    best = SoftmaxClassifier().fit(X[4000:], y[4000:]).score(X[4000:], y[4000:])
    assert adapting.score(X[4000:], y[4000:]) > best - 0.03
    assert rigid.score(X[4000:], y[4000:]) < best - 0.2


def test_the_half_life_is_the_weight_of_an_update():
    X, y = random_rows(64)
    problem = as_problem(X, y)
    solver = steps.schedule_free(64, 0.1, full_gram=True, half_life=64.0)
    state = solver.init(problem, Params(np.zeros((3, 6)), np.zeros(3)))
    for _ in range(3):
        before, state = state, solver.step(problem, state, problem.data)
    assert_allclose(state.params.coef, 0.5 * before.params.coef + 0.5 * state.iterate.coef)
    assert state.weight == 64 * (1 + 0.5 + 0.25)


def test_a_half_life_follows_columns_whose_scale_changes():
    X, y = random_rows(6000)
    X[3000:] *= 100.0
    clf = SoftmaxClassifier(random_state=0, half_life=500.0)
    streamed(clf, X, y, 100, classes=[0, 1, 2])
    best = SoftmaxClassifier().fit(X[3000:], y[3000:]).score(X[3000:], y[3000:])
    assert clf.score(X[5000:], y[5000:]) > best - 0.05


def test_products_of_columns_are_summed_until_they_are_known(monkeypatch):
    full_gram, compute_moments = [], steps.compute_moments
    monkeypatch.setattr(
        steps, "compute_moments", lambda *a, **k: full_gram.append(k["full_gram"]) or compute_moments(*a, **k)
    )
    X, y = random_rows(4000, p=10)
    streamed(SoftmaxClassifier(keep_rows=False, random_state=0), X, y, 100, classes=[0, 1, 2])
    assert full_gram == [True] * 2  # two batches: 20 rows per column


# --- sums -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("container", [np.asarray, sp.csr_array])
def test_the_loss_alone_is_that_of_the_kernel(n_classes, container):
    X, y = random_rows(3000, n_classes=n_classes)
    problem = as_problem(container(X), y, n_classes)
    params = Params(*(generator([0]).standard_normal(s) for s in ((problem.n_outputs, 6), problem.n_outputs)))
    assert loss(problem, params) == pytest.approx(loss_grad(problem, params, 1.0)[0], rel=1e-12)
    far = Params(1e4 * params.coef, params.intercept)
    assert np.isfinite(loss(problem, far))
    assert np.isfinite(value_and_grad(problem, far).value)


# --- steps wait for rows ----------------------------------------------------------------------------------


@pytest.mark.parametrize("container", [np.asarray, sp.csr_array])
def test_steps_wait_for_an_eighth_of_the_rows_before(container):
    X, y = random_rows(900)
    clf = SoftmaxClassifier(keep_rows=False, random_state=0).partial_fit(container(X[:800]), y[:800], [0, 1, 2])
    before = clf.coef_.copy()
    clf.partial_fit(container(X[800:899]), y[800:899])
    assert_array_equal(clf.coef_, before)
    assert clf.solver_info_["waiting"] == "99 rows, too few for a step"
    clf.partial_fit(container(X[899:]), y[899:])
    at_once = SoftmaxClassifier(keep_rows=False, random_state=0).partial_fit(container(X[:800]), y[:800], [0, 1, 2])
    assert_array_equal(clf.coef_, at_once.partial_fit(container(X[800:]), y[800:]).coef_)
    assert "waiting" not in clf.solver_info_


def test_steps_wait_no_longer_than_an_eighth_of_the_half_life_or_a_batch():
    X, y = random_rows(5000)
    for settings, n_waiting in (({"half_life": 160.0}, 20), ({"batch_size": 40, "keep_rows": False}, 40)):
        clf = SoftmaxClassifier(random_state=0, **settings).partial_fit(X[:4000], y[:4000], [0, 1, 2])
        before = clf.coef_.copy()
        clf.partial_fit(X[4000 : 4000 + n_waiting - 1], y[4000 : 4000 + n_waiting - 1])
        assert_array_equal(clf.coef_, before)
        clf.partial_fit(X[-1:], y[-1:])
        assert (clf.coef_ != before).any()


@pytest.mark.parametrize("change", [{"solver": "sgd", "learning_rate": 0.1}, {"l1_ratio": 0.5}])
def test_rows_that_wait_are_learned_when_the_solver_changes(change):
    X, y = random_rows(1000)
    coefs = []
    for has_waiting in (True, False):
        clf = SoftmaxClassifier(keep_rows=False, random_state=0).partial_fit(X[:800], y[:800], [0, 1, 2])
        if has_waiting:
            clf.partial_fit(X[800:850], y[800:850])
            assert "waiting" in clf.solver_info_
        clf.set_params(**change).partial_fit(X[850:] if has_waiting else X[800:], y[850:] if has_waiting else y[800:])
        assert clf._stream.waiting == ()
        coefs.append(clf.coef_)
    assert_array_equal(*coefs)  # as in a single call
