"""Pipelines with our classifier, converted to ONNX and run by onnxruntime."""

import subprocess
import sys

import numpy as np
import onnxruntime
import pytest
import skl2onnx
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_breast_cancer, load_digits, load_wine
from sklearn.ensemble import StackingClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.model_selection import GridSearchCV
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MaxAbsScaler, StandardScaler

import sksoftmax.onnx
from sksoftmax import SoftmaxClassifier, SoftmaxClassifierCV

PLAIN = {"zipmap": False}


def run(model, X, options=None):
    """The outputs of the converted model by name."""
    converted = skl2onnx.to_onnx(model, X[:1], options=options)
    session = onnxruntime.InferenceSession(converted.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, {"X": X}), strict=True))


def scaled(load, dtype):
    X, y = load(return_X_y=True)
    return StandardScaler().fit_transform(X).astype(dtype), y


def assert_same(outputs, model, X, atol=1e-5):
    assert_array_equal(outputs["label"], model.predict(X))
    assert_allclose(outputs["probabilities"], model.predict_proba(X), atol=atol, rtol=0)


@pytest.mark.parametrize("load", [load_breast_cancer, load_wine, load_digits])  # 2, 3 and 10 classes
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("labels", [np.asarray, lambda y: y * 3 - 4, lambda y: np.char.add("class ", y.astype(str))])
def test_it_says_what_the_model_says(load, dtype, fit_intercept, labels):
    X, y = scaled(load, dtype)
    clf = SoftmaxClassifier(fit_intercept=fit_intercept, random_state=0).fit(X, labels(y))
    outputs = run(clf, X, PLAIN)
    assert_same(outputs, clf, X, atol=1e-5 if dtype == np.float32 else 1e-12)
    assert outputs["probabilities"].dtype == dtype


def test_a_sweep_is_converted_as_the_model_it_chose():
    X, y = scaled(load_wine, np.float32)
    sweep = SoftmaxClassifierCV(3, cv=3, random_state=0).fit(X, y)
    assert_same(run(sweep, X, PLAIN), sweep, X)


@pytest.mark.parametrize("load", [load_breast_cancer, load_wine])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_pipeline_of_unscaled_columns(load, dtype):
    X, y = load(return_X_y=True)
    X = X.astype(dtype)
    pipeline = make_pipeline(StandardScaler(), SoftmaxClassifier(random_state=0)).fit(X, y)
    assert_same(run(pipeline, X, PLAIN), pipeline, X)
    by_class = {SoftmaxClassifier: PLAIN}
    by_id = {id(pipeline[-1]): PLAIN}
    assert set(run(pipeline, X, by_class)) == set(run(pipeline, X, by_id)) == {"label", "probabilities"}


def test_unscaled_columns_alone_in_double():
    X, y = load_wine(return_X_y=True)
    clf = SoftmaxClassifier(random_state=0).fit(X, y)
    assert_same(run(clf, X, PLAIN), clf, X)


WORDS = ["apple", "pear", "fig", "plum", "saw", "drill", "file", "plane"]


@pytest.mark.parametrize("params", [{}, {"lowercase": False, "ngram_range": (1, 2)}, {"norm": "l1", "min_df": 2}])
def test_a_text_pipeline(params):
    rng = np.random.RandomState(0)
    texts = [" ".join(rng.choice(words, 6)) for words in (WORDS[:4], WORDS[4:], WORDS) for _ in range(40)]
    texts += ["Apple, PEAR; fig_plum 2 saws!", "none of these", "a b c"]
    y = np.array(["fruit", "tool", "both"])[np.r_[np.repeat([0, 1, 2], 40), 0, 1, 2]]
    vectorizer = TfidfVectorizer(token_pattern=r"[a-zA-Z0-9_]+", **params)  # of a syntax that ONNX's tokenizer knows
    pipeline = make_pipeline(vectorizer, SoftmaxClassifier(1e-3, random_state=0)).fit(texts, y)
    X = np.array(texts)[:, None]
    # lower case is made in a locale, of which every machine has "C"
    outputs = run(pipeline, X, {SoftmaxClassifier: PLAIN, TfidfVectorizer: {"locale": "C"}})
    assert_array_equal(outputs["label"], pipeline.predict(texts))
    assert_allclose(outputs["probabilities"], pipeline.predict_proba(texts), atol=1e-5)


AROUND = {
    "search": lambda clf: GridSearchCV(clf, {"alpha": [1e-3, 1e-2]}, cv=2),
    "calibration": lambda clf: CalibratedClassifierCV(clf, cv=2),
    "stacking": lambda clf: StackingClassifier([("inner", clf)], final_estimator=clf, cv=2),
    "one-vs-rest": OneVsRestClassifier,
    "pipeline in a pipeline": lambda clf: make_pipeline(MaxAbsScaler(), make_pipeline(StandardScaler(), clf)),
}


@pytest.mark.parametrize("around", AROUND.values(), ids=AROUND)
@pytest.mark.parametrize("load", [load_breast_cancer, load_wine])
def test_what_is_around_it_converts_too(around, load):
    X, y = scaled(load, np.float32)
    model = around(SoftmaxClassifier(1e-2, random_state=0)).fit(X, y)
    assert_same(run(model, X, PLAIN), model, X)


def test_after_partial_fit_and_with_a_sparse_coef():
    X, y = scaled(load_wine, np.float32)
    clf = SoftmaxClassifier(0.05, l1_ratio=1.0, random_state=0).partial_fit(X, y, classes=[0, 1, 2])
    assert_same(run(clf, X, PLAIN), clf, X)
    clf.fit(X, y).sparsify()
    assert_same(run(clf, X, PLAIN), clf, X)


# --- options ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("load", [load_breast_cancer, load_wine])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    "options",
    [
        PLAIN,
        {**PLAIN, "raw_scores": True},
        {**PLAIN, "output_class_labels": True},
        {**PLAIN, "nocl": True},
        {"zipmap": "columns"},
        {"zipmap": "columns", "raw_scores": True},
    ],
    ids=str,
)
def test_options_do_what_they_do_for_logistic_regression(load, dtype, options):
    X, y = scaled(load, dtype)
    clf = SoftmaxClassifier(random_state=0).fit(X, np.char.add("class ", y.astype(str)))
    model = clf.to_sklearn()
    outputs, want = run(clf, X, {id(clf): options}), run(model, X, {id(model): options})
    assert list(outputs) == list(want)
    for name in want:
        assert_array_equal(outputs[name], want[name])
    if options.get("raw_scores") and "probabilities" in outputs and len(clf.classes_) > 2:
        assert_allclose(outputs["probabilities"], clf.decision_function(X), rtol=1e-4, atol=1e-4)  # float32, sums to 20


def test_by_default_probabilities_are_dicts():
    X, y = scaled(load_wine, np.float32)  # skl2onnx's dicts hold no doubles
    clf = SoftmaxClassifier(random_state=0).fit(X, y)
    outputs = run(clf, X)
    assert_allclose([list(row.values()) for row in outputs["output_probability"]], clf.predict_proba(X), atol=1e-5)


def test_an_unknown_option_is_an_error():
    X, y = scaled(load_wine, np.float32)
    clf = SoftmaxClassifier(random_state=0).fit(X, y)
    with pytest.raises(NameError, match="Option 'raw'"):
        skl2onnx.to_onnx(clf, X[:1], options={id(clf): {"raw": True}})


# --- labels and registration ------------------------------------------------------------------------------


def test_labels_that_are_whole_numbers_or_bools_become_integers():
    X, y = scaled(load_breast_cancer, np.float32)
    for labels in (y.astype(float), y.astype(bool)):
        clf = SoftmaxClassifier(random_state=0).fit(X, labels)
        assert_array_equal(run(clf, X, PLAIN)["label"], clf.predict(X).astype(int))


def test_registering_twice_changes_nothing():
    X, y = scaled(load_wine, np.float32)
    clf = SoftmaxClassifier(random_state=0).fit(X, y)
    before = run(clf, X, PLAIN)
    sksoftmax.onnx.register()
    assert_array_equal(run(clf, X, PLAIN)["probabilities"], before["probabilities"])


def test_without_skl2onnx_the_error_says_what_to_install():
    code = "import sys; sys.modules['skl2onnx'] = None; import sksoftmax; import sksoftmax.onnx"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "pip install skl2onnx" in told.stderr
