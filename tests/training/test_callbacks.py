"""Test scikit-learn's callbacks on a fit."""

import pickle

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import sklearn
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_digits, load_iris
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sksoftmax import SoftmaxClassifier
from sksoftmax._data import chunks
from sksoftmax._engines.registry import has_compiled
from sksoftmax._maths.objective import value_and_grad
from sksoftmax._types import Params
from tests.problems import problem
from tests.training.test_fit import with_empty_columns

HAS_CALLBACKS = tuple(int(part) for part in sklearn.__version__.split(".")[:2]) >= (1, 9)
needs_callbacks = pytest.mark.skipif(not HAS_CALLBACKS, reason="scikit-learn before 1.9 has no callbacks")
if HAS_CALLBACKS:
    from sklearn.callback import ProgressBar, ScoringMonitor

X_DIGITS, Y_DIGITS = load_digits(return_X_y=True)
X_IRIS, Y_IRIS = load_iris(return_X_y=True)


class Recorder:
    """A callback that records its calls and the models, and ends the fit after ``last`` epochs."""

    def __init__(self, last=None, fails_at=None):
        self.last = last
        self.fails_at = fails_at
        self.told = []
        self.models = []
        self.starts = []

    def setup(self, estimator, context):
        self.told.append("setup")

    def on_fit_task_begin(self, estimator, context, *, fitted_estimator=None):
        self.told.append(f"begin {context.task_name} {context.task_id}")
        self.starts.append(fitted_estimator)

    def on_fit_task_end(self, estimator, context, *, X=None, y=None, metadata=None, fitted_estimator=None):
        self.told.append(f"end {context.task_name} {context.task_id}")
        self.given = X, y, metadata
        self.models.append(fitted_estimator)
        if self.told[-1] == self.fails_at:
            raise RuntimeError("a callback's own error")
        return context.task_name == "epoch" and context.task_id + 1 == self.last

    def teardown(self, estimator, context):
        self.told.append("teardown")


class Propagated(Recorder):
    """A callback that meta-estimators propagate."""

    max_propagation_depth = None


class Incurious:
    """A callback that requests no model and ends the fit after two epochs."""

    def setup(self, estimator, context):
        pass

    def on_fit_task_begin(self, estimator, context):
        pass

    def on_fit_task_end(self, estimator, context):
        return context.task_name == "epoch" and context.task_id == 1

    def teardown(self, estimator, context):
        pass


def objective_of(model, X, y, alpha):
    params = Params(model.coef_.astype(float), model.intercept_.astype(float))
    return value_and_grad(problem(np.asarray(X, dtype=float), y, alpha=alpha), params).value


# --- a single estimator -----------------------------------------------------------------------------------


@needs_callbacks
def test_a_fit_is_a_task_and_its_epochs_are_its_subtasks():
    recorder = Recorder()
    clf = SoftmaxClassifier(random_state=0).set_callbacks(recorder).fit(X_DIGITS, Y_DIGITS)
    epochs = [f"{when} epoch {i}" for i in range(clf.n_iter_) for when in ("begin", "end")]
    assert recorder.told == ["setup", "begin fit 0", *epochs, "end fit 0", "teardown"]


KINDS = {
    "newton": {"engine": "vectorized"},
    "minibatches": {"batch_size": 64, "engine": "vectorized"},
    "l1": {"l1_ratio": 0.5, "engine": "vectorized"},
    "sgd": {"solver": "sgd", "tol": 2.0, "average": True},
    "adam": {"solver": "adam", "tol": 0.5},
    **({"dual": {"solver": "dual"}} if has_compiled() else {}),
}


@needs_callbacks
@pytest.mark.parametrize("params", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("container", [np.asarray, np.float32, sp.csr_array], ids=["dense", "float32", "csr"])
def test_the_model_of_an_epoch_is_that_which_the_fit_would_leave(params, container):
    recorder = Recorder()
    clf = SoftmaxClassifier(1e-2, random_state=0, **params).set_callbacks(recorder)
    X = container(X_DIGITS + 3.0 if container is np.float32 else X_DIGITS)
    clf.fit(X, Y_DIGITS)
    *epochs, fitted = recorder.models
    assert len(epochs) == clf.n_iter_
    assert recorder.starts[:2] == [None, None]  # begin of the fit, and of its first epoch
    for start, model in zip(recorder.starts[2:], epochs, strict=False):
        assert_array_equal(start.coef_, model.coef_)
    for i, model in enumerate(epochs, start=1):
        assert model.n_iter_ == i
        assert model.loss_curve_ == clf.loss_curve_[:i]
        assert model.stop_reason_ == "callback"
        assert model.coef_.dtype == clf.coef_.dtype
        assert_allclose(model.predict_proba(X).sum(axis=1), 1, rtol=1e-5)
        assert {type(value) for value in [*model.loss_curve_, *model.excess_curve_]} == {float}
    for last in (epochs[-1], fitted):
        assert_array_equal(last.coef_, clf.coef_)
        assert_array_equal(last.intercept_, clf.intercept_)
    dense = X.toarray() if sp.issparse(X) else X
    if "l1_ratio" not in params:  # ``objective_of`` has no L1 penalty
        values = [objective_of(model, dense, Y_DIGITS, 1e-2) for model in epochs]
        exact = container is not np.float32 and params.get("solver") != "dual"
        assert_allclose(values, clf.loss_curve_, rtol=1e-9 if exact else 1e-4)  # rounding of their sums: 7e-6


@needs_callbacks
def test_models_of_sparse_rows_whose_empty_columns_are_left_out_have_all_columns():
    recorder = Recorder()
    wide, where = with_empty_columns(X_IRIS)
    clf = SoftmaxClassifier(random_state=0).set_callbacks(recorder).fit(wide, Y_IRIS)
    assert recorder.models[0].coef_.shape == (3, 100)
    assert recorder.models[0].coef_[:, where].any()
    assert_array_equal(recorder.models[-2].coef_, clf.coef_)


@needs_callbacks
@pytest.mark.parametrize("params", KINDS.values(), ids=KINDS)
def test_a_callback_that_returns_true_ends_the_fit_with_what_is_reached(params):
    recorder = Recorder(last=2)
    clf = SoftmaxClassifier(1e-2, random_state=0, **params | {"tol": 1e-9}).set_callbacks(recorder)
    clf.fit(X_DIGITS, Y_DIGITS)  # a ConvergenceWarning is an error
    assert clf.stop_reason_ == "callback"
    assert clf.n_iter_ == len(clf.loss_curve_) == len(clf.excess_curve_) == 2
    assert_array_equal(clf.coef_, recorder.models[1].coef_)
    assert recorder.told[-2:] == ["end fit 0", "teardown"]
    if params == KINDS["newton"]:  # its steps do not depend on max_iter
        with pytest.warns(ConvergenceWarning):
            short = SoftmaxClassifier(1e-2, random_state=0, max_iter=2, tol=1e-9, **params).fit(X_DIGITS, Y_DIGITS)
        assert_array_equal(clf.coef_, short.coef_)


@needs_callbacks
def test_no_model_is_made_for_a_callback_that_asks_for_none(monkeypatch):
    calls, outcome = [], SoftmaxClassifier._fit_attributes
    monkeypatch.setattr(SoftmaxClassifier, "_fit_attributes", lambda *args: calls.append(1) or outcome(*args))
    clf = SoftmaxClassifier(tol=1e-9).set_callbacks(Incurious()).fit(X_DIGITS, Y_DIGITS)
    assert clf.stop_reason_ == "callback"
    assert len(calls) == 1  # by the fit itself


@needs_callbacks
def test_callbacks_change_no_coefficient():
    watched = SoftmaxClassifier(random_state=0).set_callbacks(Recorder()).fit(X_DIGITS, Y_DIGITS)
    assert_array_equal(watched.coef_, SoftmaxClassifier(random_state=0).fit(X_DIGITS, Y_DIGITS).coef_)


@needs_callbacks
def test_callbacks_are_given_what_fit_is_given():
    frame, weight = pd.DataFrame(X_IRIS, columns=list("abcd")), np.ones(150)
    recorder = Recorder()
    clf = SoftmaxClassifier().set_callbacks(recorder).fit(frame, Y_IRIS, weight)
    X, y, metadata = recorder.given
    assert X is frame
    assert y is Y_IRIS
    assert metadata["sample_weight"] is weight
    recorder.models[0].predict(frame)  # with the column names
    clf.fit(frame, Y_IRIS)
    assert recorder.given[2] is None


@needs_callbacks
def test_models_of_a_fit_know_nothing_of_the_fit_before():
    recorder = Recorder()
    clf = SoftmaxClassifier(early_stopping=True).fit(X_DIGITS, Y_DIGITS)
    clf.set_params(early_stopping=False).set_callbacks(recorder).fit(X_IRIS, Y_IRIS)
    assert_array_equal(recorder.models[0].classes_, [0, 1, 2])
    assert not hasattr(recorder.models[0], "validation_scores_")
    assert not hasattr(recorder.models[0], "solver_info_")


@needs_callbacks
def test_early_stopping_tells_the_scores_and_a_callback_may_come_before_it():
    recorder = Recorder(last=3)
    clf = SoftmaxClassifier(early_stopping=True, tol=0, random_state=0).set_callbacks(recorder).fit(X_DIGITS, Y_DIGITS)
    assert clf.stop_reason_ == "callback"
    assert clf.validation_scores_ == recorder.models[2].validation_scores_
    assert len(recorder.models[0].validation_scores_) == 1
    assert_array_equal(clf.coef_, recorder.models[2].coef_)  # the last epoch, not the best one


@needs_callbacks
def test_a_fit_that_reaches_tol_says_so_though_a_callback_would_stop_there_too():
    clf = SoftmaxClassifier(random_state=0).fit(X_DIGITS, Y_DIGITS)
    clf.set_callbacks(Recorder(last=clf.n_iter_)).fit(X_DIGITS, Y_DIGITS)
    assert clf.stop_reason_ == "tol"


@needs_callbacks
@pytest.mark.parametrize("fails_at", ["end epoch 0", "end fit 0"])
def test_a_callbacks_error_passes_leaves_the_model_as_it_was_and_tears_down(fails_at):
    clf = SoftmaxClassifier(random_state=0).fit(X_IRIS, Y_IRIS)
    before = pickle.dumps(vars(clf))
    recorder = Recorder(fails_at=fails_at)
    clf.set_callbacks(recorder)
    with pytest.raises(RuntimeError, match="a callback's own error"):
        clf.fit(X_DIGITS, Y_DIGITS)
    assert recorder.told[-1] == "teardown"
    clf.set_callbacks()
    assert pickle.dumps(vars(clf)) == before


@needs_callbacks
def test_bad_data_tear_down_too():
    recorder = Recorder()
    clf = SoftmaxClassifier().set_callbacks(recorder)
    with pytest.raises(ValueError, match="one class"):
        clf.fit(X_IRIS, np.zeros(150))
    assert recorder.told == ["setup", "begin fit 0", "teardown"]
    assert not hasattr(clf, "_callback_fit_ctx")


@needs_callbacks
def test_a_fit_in_passes_is_told_without_rows_and_a_stream_not_at_all(monkeypatch):
    monkeypatch.setattr(chunks, "SAMPLE_SIZE", 2**18)
    recorder = Recorder(last=2)
    clf = SoftmaxClassifier(tol=1e-9, random_state=0).set_callbacks(recorder)
    clf.fit_batches([(X_DIGITS[k::3], Y_DIGITS[k::3]) for k in range(3)])
    assert "sample" in clf.solver_info_
    assert clf.stop_reason_ == "callback"
    assert recorder.given == (None, None, None)
    assert_array_equal(recorder.models[1].coef_, clf.coef_)
    recorder.told.clear()
    clf.partial_fit(X_DIGITS, Y_DIGITS)
    assert recorder.told == []


@needs_callbacks
def test_a_fit_without_callbacks_makes_no_task(monkeypatch):
    def never(*args, **kwargs):
        raise AssertionError

    monkeypatch.setattr(SoftmaxClassifier, "_init_callback_context", never)
    SoftmaxClassifier().set_callbacks(Recorder()).set_callbacks().fit(X_IRIS, Y_IRIS)


@needs_callbacks
def test_soft_targets_are_watched_too():
    recorder, monitor = Recorder(), ScoringMonitor(scoring={"share": lambda model, X, y: model.score(X, y)})
    clf = SoftmaxClassifier(soft_targets=True).set_callbacks(recorder, monitor).fit(X_IRIS, np.eye(3)[Y_IRIS])
    assert recorder.models[-1].score(X_IRIS, Y_IRIS) == clf.score(X_IRIS, Y_IRIS)
    assert monitor.get_logs().data[0]["share"] == clf.score(X_IRIS, Y_IRIS)


# --- scikit-learn's own -----------------------------------------------------------------------------------


@needs_callbacks
@pytest.mark.parametrize("weighted", [False, True])
def test_scoring_monitor_scores_each_epoch_and_the_end(weighted):
    monitor, recorder = ScoringMonitor(scoring=["accuracy", "neg_log_loss"]), Recorder()
    weight = np.linspace(0.5, 2, len(Y_DIGITS)) if weighted else None
    clf = SoftmaxClassifier(random_state=0).set_callbacks(monitor, recorder).fit(X_DIGITS, Y_DIGITS, weight)
    end, *epochs = monitor.get_logs().data
    assert end["task_name"] == "fit"
    assert [row["task_name"] for row in epochs] == ["epoch"] * clf.n_iter_
    want = [model.score(X_DIGITS, Y_DIGITS, weight) for model in recorder.models]
    assert_allclose([row["accuracy"] for row in [*epochs, end]], want, rtol=1e-12)


@needs_callbacks
def test_progress_bar_shows_the_epochs(capsys):
    pytest.importorskip("rich")
    SoftmaxClassifier().set_callbacks(ProgressBar()).fit(X_IRIS, Y_IRIS)
    out = capsys.readouterr().out
    assert "SoftmaxClassifier - fit" in out
    assert "100%" in out


# --- in meta-estimators -----------------------------------------------------------------------------------


@needs_callbacks
def test_a_pipeline_passes_on_what_is_set_on_it_to_be_passed_on():
    own, propagated = Recorder(), Propagated()
    pipeline = make_pipeline(StandardScaler(), SoftmaxClassifier()).set_callbacks(own, propagated)
    pipeline.fit(X_IRIS, Y_IRIS)
    n_epochs = pipeline[-1].n_iter_
    assert sum(call.startswith("end epoch") for call in propagated.told) == n_epochs
    assert not any("epoch" in call for call in own.told)
    assert propagated.told.count("setup") == propagated.told.count("teardown") == 1
    model = next(model for model in propagated.models if isinstance(model, SoftmaxClassifier))
    assert model.n_iter_ == 1


@needs_callbacks
def test_a_callback_set_on_the_last_step_of_a_pipeline_stops_it():
    clf = SoftmaxClassifier(tol=1e-9).set_callbacks(Recorder(last=2))
    pipeline = make_pipeline(StandardScaler(), clf).fit(X_DIGITS, Y_DIGITS)
    assert pipeline[-1].stop_reason_ == "callback"
    assert pipeline.score(X_DIGITS, Y_DIGITS) > 0.9


@needs_callbacks
def test_a_callback_set_on_the_estimator_of_a_search_stops_every_fit():
    recorder = Recorder(last=2)
    clf = SoftmaxClassifier(tol=1e-9).set_callbacks(recorder)
    search = GridSearchCV(clf, {"alpha": [1e-3, 1e-2]}, cv=3, error_score="raise").fit(X_DIGITS, Y_DIGITS)
    assert search.best_estimator_.stop_reason_ == "callback"
    assert recorder.told.count("setup") == 2 * 3 + 1
    assert recorder.told.count("end epoch 1") == 2 * 3 + 1
    assert "end epoch 2" not in recorder.told


@needs_callbacks
def test_a_search_passes_on_what_is_set_on_it_to_be_passed_on():
    propagated = Propagated(last=2)
    pipeline = make_pipeline(StandardScaler(), SoftmaxClassifier(tol=1e-9))
    grid = {"softmaxclassifier__alpha": [1e-3, 1e-2]}
    search = GridSearchCV(pipeline, grid, cv=3, error_score="raise").set_callbacks(propagated).fit(X_DIGITS, Y_DIGITS)
    assert propagated.told.count("end epoch 1") == 2 * 3 + 1
    assert propagated.told.count("setup") == 1
    assert search.best_estimator_[-1].stop_reason_ == "callback"


@needs_callbacks
def test_scoring_monitor_in_a_search():
    monitor = ScoringMonitor(scoring="accuracy")
    clf = SoftmaxClassifier().set_callbacks(monitor)
    search = GridSearchCV(clf, {"alpha": [1e-3, 1e-1]}, cv=2, error_score="raise").fit(X_IRIS, Y_IRIS)
    (log,) = monitor.get_logs(select="all")
    assert log.estimator_name == "GridSearchCV"
    last = max(row["task_id"] for row in log.data if row["task_name"] == "epoch" and len(row["task_id_path"]) == 3)
    assert last + 1 == search.best_estimator_.n_iter_


@needs_callbacks
def test_progress_bar_of_a_search_shows_its_fits(capsys):
    pytest.importorskip("rich")
    search = GridSearchCV(SoftmaxClassifier(), {"alpha": [1e-3, 1e-1]}, cv=2)
    search.set_callbacks(ProgressBar(max_propagation_depth=None)).fit(X_IRIS, Y_IRIS)
    out = capsys.readouterr().out
    assert "GridSearchCV - fit" in out
    assert "SoftmaxClassifier - fit" in out


@needs_callbacks
def test_a_clone_has_the_same_callbacks_and_a_pickle_copies_of_them():
    recorder = Recorder()
    clf = SoftmaxClassifier().set_callbacks(recorder)
    clone(clf).fit(X_IRIS, Y_IRIS)
    assert recorder.told[0] == "setup"
    again = pickle.loads(pickle.dumps(clf.fit(X_IRIS, Y_IRIS)))
    assert again.fit(X_IRIS, Y_IRIS).n_iter_ == clf.n_iter_


# --- without callbacks ------------------------------------------------------------------------------------


@pytest.mark.skipif(HAS_CALLBACKS, reason="scikit-learn 1.9 has callbacks")
def test_older_versions_of_scikit_learn_have_no_callbacks():
    assert not hasattr(SoftmaxClassifier(), "set_callbacks")


def test_what_callbacks_are_told_is_not_kept():
    X, y = load_breast_cancer(return_X_y=True)
    clf = SoftmaxClassifier()
    if HAS_CALLBACKS:
        clf.set_callbacks(Incurious())
    clf.fit(X, y)
    assert [name for name in vars(clf) if "callback" in name] == ["_skl_callbacks"] * HAS_CALLBACKS
