"""What a saved model holds, and what another version makes of it."""

import copy
import io
import pickle
import pickletools
from unittest import mock

import joblib
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import skops.io
from numpy.testing import assert_array_equal
from sklearn.base import clone
from sklearn.exceptions import InconsistentVersionWarning
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sksoftmax import SoftmaxClassifier, __version__
from sksoftmax._model import serialization
from sksoftmax._training import stream

TRUSTED = ["sksoftmax._classifier.SoftmaxClassifier"]


def with_joblib(model):
    file = io.BytesIO()
    joblib.dump(model, file)
    file.seek(0)
    return joblib.load(file)


WAYS = {
    "pickle": lambda model: pickle.loads(pickle.dumps(model)),
    "old pickle": lambda model: pickle.loads(pickle.dumps(model, protocol=2)),
    "joblib": with_joblib,
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "skops": lambda model: skops.io.loads(skops.io.dumps(model), trusted=TRUSTED),
}


def data(container=np.asarray):
    rng = np.random.RandomState(0)
    X = rng.standard_normal((200, 4))
    return container(X), (X[:, :3] + rng.standard_normal((200, 3))).argmax(axis=1)


def fitted(**params):
    return SoftmaxClassifier(random_state=0, **params).fit(*data())


def of_a_frame():
    X, y = data()
    return SoftmaxClassifier().fit(pd.DataFrame(X, columns=list("abcd")), np.array(["u", "v", "w"], dtype=object)[y])


def sparsified():
    clf = fitted()
    clf.sparsify()
    return clf


def streamed(container=np.asarray, kept_size=2**28, **params):
    X, y = data(container)
    clf = SoftmaxClassifier(random_state=0, **params)
    with mock.patch.object(stream, "MAX_BUFFER_BYTES", kept_size):
        for start in range(0, 160, 40):
            clf.partial_fit(X[start : start + 40], y[start : start + 40], classes=[0, 1, 2])
    return clf


MODELS = {
    "not fitted": lambda: SoftmaxClassifier(0.5),
    "fitted": fitted,
    "stopped early": lambda: fitted(early_stopping=True, class_weight={0: 2.0}),
    "of a frame": of_a_frame,
    "sparsified": sparsified,
    "kept rows": streamed,
    "kept sparse rows": lambda: streamed(sp.csr_array),
    "outgrown": lambda: streamed(kept_size=80 * 4 * 8),
    "waiting rows": lambda: streamed(keep_rows=False),
    "waiting sparse rows": lambda: streamed(sp.csr_array, keep_rows=False),
    "half-life": lambda: streamed(half_life=50.0),
    "new classes": lambda: streamed(allow_new_classes=True),
    "sgd": lambda: streamed(solver="sgd"),
    "adagrad": lambda: streamed(solver="adagrad"),
    "adam": lambda: streamed(solver="adam"),
}


def plain(value):
    """Something that compares as the value should."""
    if sp.issparse(value):
        return type(value), plain(value.data), plain(value.indices), plain(value.indptr), value.shape
    if isinstance(value, np.ndarray):
        return value.dtype, value.shape, value.tolist()
    if isinstance(value, tuple | list):
        return type(value), list(map(plain, value))
    return {key: plain(part) for key, part in value.items()} if isinstance(value, dict) else value


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_what_comes_back_is_the_same_and_goes_on_the_same(make, way):
    model = make()
    before = plain(vars(model))
    back = way(model)
    assert plain(vars(back)) == plain(vars(model)) == before
    assert clone(back).get_params() == clone(model).get_params()
    if hasattr(model, "feature_names_in_"):
        return
    X, y = data()
    for clf in (model, back):
        clf.set_params(early_stopping=False).partial_fit(X[160:], y[160:], classes=[0, 1, 2])
    assert plain(vars(back)) == plain(vars(model))


def test_a_random_state_goes_on_where_it_was():
    model = SoftmaxClassifier(solver="sgd", random_state=np.random.RandomState(7))
    backs = [way(model) for name, way in WAYS.items() if name != "copy"]  # which shares it
    X, y = data()
    want = model.set_params(tol=1.0).fit(X, y).coef_
    for back in backs:
        assert_array_equal(back.set_params(tol=1.0).fit(X, y).coef_, want)


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_no_private_class_is_in_a_file(make):
    strings = {arg for _, arg, _ in pickletools.genops(pickle.dumps(make())) if isinstance(arg, str)}
    assert {string for string in strings if string.startswith("sksoftmax")} == {"sksoftmax._classifier"}
    assert skops.io.get_untrusted_types(data=skops.io.dumps(make())) == TRUSTED


def test_a_pipeline_saves_it_too():
    X, y = data()
    pipeline = make_pipeline(StandardScaler(), SoftmaxClassifier(random_state=0)).fit(X, y)
    for way in WAYS.values():
        assert_array_equal(way(pipeline).predict_proba(X), pipeline.predict_proba(X))


# --- versions ---------------------------------------------------------------------------------------------


def in_a_pickle(model):
    return pickle.dumps(model), pickle.loads


def in_skops(model):
    return skops.io.dumps(model), lambda file: skops.io.loads(file, trusted=TRUSTED)


@pytest.mark.parametrize("saved", [in_a_pickle, in_skops])
@pytest.mark.parametrize("make", [fitted, streamed])
def test_another_version_warns_and_reads_the_same_format(make, saved):
    model = make()
    with mock.patch.object(serialization, "__version__", "9.9"):
        file, load = saved(model)
    with pytest.warns(InconsistentVersionWarning, match=rf"SoftmaxClassifier that sksoftmax 9\.9 wrote.*{__version__}"):
        back = load(file)
    assert plain(vars(back)) == plain(vars(model))


@pytest.mark.parametrize("saved", [in_a_pickle, in_skops])
@pytest.mark.parametrize("make", [fitted, streamed])
def test_another_format_is_refused_with_the_version_that_reads_it(make, saved):
    with mock.patch.multiple(serialization, __version__="9.9", STATE_FORMAT=99):
        file, load = saved(make())
    with pytest.raises(ValueError, match=r"has format 1; this one was written by sksoftmax 9\.9 in format 99"):
        load(file)
    with pytest.raises(ValueError, match=r"Fit the model again, or load it with sksoftmax 9\.9"):
        load(file)


@pytest.mark.parametrize("saved", [in_a_pickle, in_skops])
def test_that_is_said_also_where_the_parts_have_changed(saved):
    with mock.patch.multiple(serialization, __version__="9.9", STATE_FORMAT=99):
        file, load = saved(streamed())
    kinds = {name: kind for name, kind in serialization._KINDS.items() if name != "Stream"}
    with mock.patch.object(serialization, "_KINDS", kinds), pytest.raises(ValueError, match="in format 99"):
        load(file)


def test_a_state_without_a_format_is_refused():
    clf = SoftmaxClassifier()
    with pytest.raises(ValueError, match=r"this one has no format.*Fit the model again"):
        clf.__setstate__(vars(fitted()))


def test_a_parameter_that_the_state_does_not_know_has_its_default():
    model = fitted()
    del model.half_life, model.keep_rows
    back = pickle.loads(pickle.dumps(model))
    assert back.half_life is None
    assert back.keep_rows is True
    assert_array_equal(back.partial_fit(*data()).classes_, [0, 1, 2])


#: Of the format's number: the fields without a default come first, those with one behind the bar. Where this differs
#: from the code in more than new fields behind the bar, `STATE_FORMAT` must be raised, and this be changed with it.
FORMAT = 1
FIELDS = {
    "AdamMemory": "first second |",
    "Batch": "X y weight |",
    "FirstOrderState": "params iterate memory step rate |",
    "RowBuffer": "| chunks seen n_learned value loss surplus params info n_epochs weight squares objective",
    "Moments": "mean max_deviation second_moment |",
    "Params": "coef intercept |",
    "GramPreconditioner": "mean scale inverse intercept_rate dimension |",
    "ScheduleFreeState": (
        "params iterate step moments weight preconditioner preconditioner_weight preconditioner_max_deviation |"
    ),
    "Stream": "solver has_l1 learning_rate solver_state n_samples weight n_fitted row_buffer | waiting info objective",
}
ATTRIBUTES = (
    "_stream classes_ coef_ excess_ excess_curve_ feature_names_in_ intercept_ loss_curve_ n_features_in_ n_iter_ "
    "solver_info_ stop_reason_ validation_scores_"
)


def test_the_format_has_these_fields():
    assert serialization.STATE_FORMAT == FORMAT
    found = {}
    for name, kind in serialization._KINDS.items():
        needed = [field for field in kind._fields if field not in kind._field_defaults]
        found[name] = " ".join([*needed, "|", *kind._field_defaults])
    assert found == FIELDS
    names = {name for make in MODELS.values() for name in vars(make()) if name not in SoftmaxClassifier().get_params()}
    assert names == set(ATTRIBUTES.split())
