"""The border: every call refuses the same bad rows, labels and weights, and says what is wrong with them."""

import subprocess
import sys
import warnings
from fractions import Fraction

import numpy as np
import pandas as pd
import polars as pl
import pytest
import scipy.sparse as sp
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.datasets import load_iris
from sklearn.exceptions import ConvergenceWarning, DataConversionWarning
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from sksoftmax import (
    SoftmaxClassifier,
    SoftmaxClassifierCV,
    check_gradient,
    softmax_loss_naive,
    softmax_loss_vectorized,
)
from sksoftmax._data import arrays as _arrays
from sksoftmax._data import chunks
from sksoftmax._data import validation as _validation
from sksoftmax._engines import threads

X, Y = load_iris(return_X_y=True)
FITTED = SoftmaxClassifier(random_state=0).fit(X, Y)
HUGE = 10**400  # float() raises OverflowError
FITTED_CV = SoftmaxClassifierCV(alphas=[1e-3], cv=3, scoring="neg_log_loss", random_state=0).fit(X, Y)
FITTED_SOFT = SoftmaxClassifier(soft_targets=True, random_state=0).fit(X, np.eye(3)[Y])


def with_row_of(y, row, value):
    """The labels with another one in a row, in an array that takes both."""
    changed = list(y)
    changed[row] = value
    return np.array(changed, dtype=object)


def masked(values):
    """The values with the last one masked."""
    mask = np.zeros(values.shape, bool)
    mask.flat[-1] = True
    return np.ma.array(values, mask=mask)


#: Every call that takes y, and a model to call it on.
CALLS = {
    "fit": lambda X, y, **given: SoftmaxClassifier(**given).fit(X, y),
    "partial_fit": lambda X, y, **given: SoftmaxClassifier(allow_new_classes=True, **given).partial_fit(X, y),
    "fit_batches": lambda X, y, **given: SoftmaxClassifier(**given).fit_batches([(X, y)]),
    "cv": lambda X, y, **given: SoftmaxClassifierCV(alphas=[1e-3], cv=3, **given).fit(X, y),
    "X_val": lambda X, y: SoftmaxClassifier(early_stopping=True).fit(X, Y, X_val=X, y_val=y),
    "score": lambda X, y: FITTED.score(X, y),
    "cv score": lambda X, y: SoftmaxClassifierCV(alphas=[1e-3], cv=3).fit(X, Y).score(X, y),
    "check_gradient": lambda X, y: check_gradient(X, y),
}
EACH = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
FITS = pytest.mark.parametrize("call", list(CALLS.values())[:4], ids=list(CALLS)[:4])


# --- labels -----------------------------------------------------------------------------------------------

MISSING = {
    "None among strings": (with_row_of(Y.astype(str), 7, None), "None, in row 7"),
    "None in a list": ([None, *Y[1:].tolist()], "None, in row 0"),
    "NaN": (np.where(np.arange(150) == 7, np.nan, Y), "NaN, in row 7"),
    "infinity": (np.where(np.arange(150) == 7, np.inf, Y), "infinity, in row 7"),
    "NaN among objects": (with_row_of(Y, 7, np.nan), "NaN, in row 7"),
    "NA": (pd.Series(with_row_of(Y, 7, pd.NA), dtype="Int64"), "NA, in row 7"),
    "NA among booleans": (pd.Series(with_row_of(Y > 0, 7, pd.NA), dtype="boolean"), "NA, in row 7"),
    "NaN among categories": (pd.Series(with_row_of(Y.astype(str), 7, None), dtype="category"), "NaN, in row 7"),
    "null of polars": (pl.Series([*Y[:7].tolist(), None, *Y[8:].tolist()]), "NaN, in row 7"),
    "a masked integer": (np.ma.array(Y, mask=np.arange(150) == 7), "a masked value, in row 7"),
    "a masked string": (np.ma.array(Y.astype(str), mask=np.arange(150) == 7), "a masked value, in row 7"),
    "a masked value in a list": ([*Y[:7].tolist(), np.ma.masked, *Y[8:].tolist()], "a masked value, in row 7"),
    "NaT": (np.where(np.arange(150) == 7, np.datetime64("NaT"), np.datetime64("2020-01-01")), "NaT, in row 7"),
}


@EACH
@pytest.mark.parametrize(("y", "message"), MISSING.values(), ids=MISSING)
def test_missing_labels_raise_and_name_the_row(call, y, message):
    with pytest.raises(ValueError, match=f"Input y(_val)? contains {message}"):
        call(X, y)


@EACH
@pytest.mark.parametrize("y", [[*Y[:-1].tolist(), "a"], with_row_of(Y.astype(str), 149, 2)], ids=["list", "array"])
def test_mixed_labels_raise_and_name_a_row_of_each_kind(call, y):
    with pytest.raises(ValueError, match=r"all strings or all numbers, got .* in row 0 and .* in row 149"):
        call(X, y)


@EACH
@pytest.mark.parametrize("kind", [np.array, list, lambda y: np.array(y, dtype=object), pd.Series])
def test_labels_of_bytes_raise_and_say_how_to_decode_them(call, kind):
    with pytest.raises(
        ValueError, match=r"y(_val)? must hold labels .*, got b'0' in row 0; decode them, \[label.decode"
    ):
        call(X, kind([str(code).encode() for code in Y]))


@EACH
@pytest.mark.parametrize("y", [Y + 1j, np.zeros(150, [("code", int)])], ids=["complex", "records"])
def test_labels_of_other_dtypes_raise(call, y):
    with pytest.raises(
        ValueError, match=r"y(_val)? must hold labels that are all strings or all numbers, got .* in row"
    ):
        call(X, y)


@EACH
def test_a_mask_that_masks_nothing_is_taken(call):
    call(X, np.ma.array(Y))


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: SoftmaxClassifier().fit(masked(X), Y), "X"),
        (lambda: SoftmaxClassifier().partial_fit(masked(X), Y, [0, 1, 2]), "X"),
        (lambda: FITTED.predict(masked(X)), "X"),
        (lambda: check_gradient(masked(X), Y), "X"),
        (lambda: softmax_loss_vectorized(masked(np.ones((4, 3))), X, Y, 0.0), "W"),
        (lambda: SoftmaxClassifier().fit(X, Y, masked(np.ones(150))), "sample_weight"),
        (lambda: FITTED.score(X, Y, masked(np.ones(150))), "sample_weight"),
        (lambda: SoftmaxClassifier(soft_targets=True).fit(X, masked(np.eye(3)[Y])), "y"),
    ],
)
def test_masked_numbers_raise_and_are_named(call, name):
    with pytest.raises(ValueError, match=f"Input {name} contains a masked value, at "):
        call()


@EACH
@pytest.mark.parametrize("y", [[[0], [0, 1]] * 75, [3.5j] * 150, [{}] * 150])
def test_labels_that_are_neither_strings_nor_numbers_raise(call, y):
    with pytest.raises(ValueError, match=r"y(_val)? must hold labels that are all strings or all numbers, got"):
        call(X, list(y) if isinstance(y[0], list) else np.array(y, dtype=object))


@pytest.mark.parametrize(
    "call",
    [
        lambda: SoftmaxClassifier(allow_new_classes=True).partial_fit(X, Y).partial_fit(X, Y.astype(str)),
        lambda: SoftmaxClassifier().partial_fit(X, Y, classes=[0, 1, 2]).partial_fit(X, Y.astype(str)),
        lambda: SoftmaxClassifier().partial_fit(X, Y.astype(str), classes=[0, 1, 2]),
        lambda: SoftmaxClassifier().fit_batches([(X, Y), (X, Y.astype(str))]),
        lambda: SoftmaxClassifier().fit_batches([(X, Y.astype(str))], classes=[0, 1, 2]),
        lambda: SoftmaxClassifier(early_stopping=True).fit(X, Y, X_val=X, y_val=Y.astype(str)),
        lambda: FITTED.score(X, Y.astype(str)),
    ],
    ids=["new classes", "known classes", "classes", "batches", "classes of batches", "validation", "score"],
)
def test_strings_after_numbers_raise(call):
    with pytest.raises(ValueError, match=r"must hold numbers, as the .*, got strings, such as '0' in row 0; convert"):
        call()


@FITS
@pytest.mark.parametrize("dtype", ["Int64", "object"])
def test_nullable_integers_keep_all_digits(call, dtype):
    y = pd.Series(2**53 + Y, dtype=dtype)  # a float has no 2**53 + 1
    clf = call(X, y)
    assert_array_equal(clf.classes_, 2**53 + np.arange(3))
    assert clf.predict(X).dtype == np.int64
    assert clf.score(X, y) == clf.score(X, 2**53 + Y) > 0.9


BIG = np.array([2**53, 2**53 + 1, 2**53 + 2])
LABELS = BIG.tolist()


@pytest.mark.parametrize("first", [np.uint64, np.int64])
@pytest.mark.parametrize(
    "call",
    [
        lambda a, b: SoftmaxClassifier(allow_new_classes=True).partial_fit(X, a).partial_fit(X, b),
        lambda a, b: SoftmaxClassifier(allow_new_classes=True, keep_rows=False).partial_fit(X, a).partial_fit(X, b),
        lambda a, b: SoftmaxClassifier().partial_fit(X, a, classes=[*range(3), *LABELS]).partial_fit(X, b),
        lambda a, b: SoftmaxClassifier().fit_batches([(X, a), (X, b)]),
        lambda a, b: SoftmaxClassifier().fit_batches([(X, a), (X, b)], classes=np.array([*range(3), *LABELS])),
        lambda a, b: SoftmaxClassifier().fit(np.r_[X, X], np.array([*a, *b], dtype=object)),
        lambda a, b: SoftmaxClassifier().fit(np.r_[X, X], [*a, *b]),
    ],
)
def test_signed_and_unsigned_labels_keep_all_digits_together(call, first):
    other = np.int64 if first is np.uint64 else np.uint64
    clf = call(BIG[Y].astype(first), Y.astype(other))
    assert clf.classes_.dtype.kind in "iu"
    assert clf.classes_.tolist() == [0, 1, 2, *LABELS]
    assert set(clf.predict(X).tolist()) <= {0, 1, 2, *LABELS}


@pytest.mark.parametrize(
    "call",
    [
        lambda: SoftmaxClassifier().partial_fit(X, BIG[Y], classes=[2.0**53, 2.0**53 + 2]),
        lambda: SoftmaxClassifier().partial_fit(X, Y * 1.0, classes=[0, 1, 2, 2**53 + 1]),
        lambda: SoftmaxClassifier(allow_new_classes=True).partial_fit(X, Y * 1.0).partial_fit(X, BIG[Y]),
        lambda: SoftmaxClassifier().fit_batches([(X, BIG[Y]), (X, Y * 1.0)]),
        lambda: SoftmaxClassifier().fit(X, [2**53 + 1, 0.0, 1.0] * 50),
        lambda: (
            SoftmaxClassifier(allow_new_classes=True)
            .partial_fit(X, np.uint64(2**63) + Y.astype(np.uint64))
            .partial_fit(X, -Y)
        ),
        lambda: SoftmaxClassifier().fit(X, np.array([2**63, -1], dtype=object)[np.minimum(Y, 1)]),
        lambda: SoftmaxClassifier().fit(X, [2**70, 0, 1] * 50),
        lambda: SoftmaxClassifier().partial_fit(X, Y, classes=[0, 1, HUGE]),
        lambda: SoftmaxClassifier().fit(X, BIG[Y]).score(X, BIG[Y] * 1.0),
    ],
)
def test_labels_that_no_dtype_holds_exactly_raise(call):
    with pytest.raises(ValueError, match=r"(y|classes) must hold (labels|integers) that one dtype .*holds exactly"):
        call()


def test_integers_and_floats_that_are_the_same_labels_are_taken():
    clf = SoftmaxClassifier(allow_new_classes=True).partial_fit(X, Y).partial_fit(X, Y * 1.0)
    assert clf.classes_.tolist() == [0, 1, 2]
    assert clf.score(X, Y * 1.0) == clf.score(X, Y)


@FITS
def test_a_column_of_labels_is_ravelled_with_a_warning(call):
    with pytest.warns(DataConversionWarning, match="A column-vector y was passed when a 1d array was expected"):
        clf = call(X, Y[:, None], random_state=0)
    assert_array_equal(clf.coef_, call(X, Y, random_state=0).coef_)
    assert clf.score(X, Y[:, None]) == clf.score(X, Y)  # without a warning, as scikit-learn's


BAD_CLASSES = {
    "NaN": ([0, 1, np.nan], "Input classes contains NaN, in position 2"),
    "None": ([0, None, 2], "Input classes contains None, in position 1"),
    "NA": (pd.array([0, 1, None], dtype="Int64"), "Input classes contains NA, in position 2"),
    "empty": ([], "classes must hold all labels that will ever come, got none"),
    "a set": ({0, 1, 2}, "classes must be a list or an array of labels in one dimension, got set"),
    "a number": (3, "classes must be a list or an array of labels in one dimension, got int"),
    "a string": ("012", "classes must be a list or an array of labels in one dimension, got str"),
    "a table": (np.eye(3), "classes must be a list or an array of labels in one dimension, got ndarray"),
    "mixed": ([0, "1", 2], "classes must hold labels that are all strings or all numbers, got 0 in position 0 and '1'"),
}


@pytest.mark.parametrize(("classes", "message"), BAD_CLASSES.values(), ids=BAD_CLASSES)
@pytest.mark.parametrize(
    "call",
    [
        lambda classes: SoftmaxClassifier().partial_fit(X, Y, classes=classes),
        lambda classes: SoftmaxClassifier(allow_new_classes=True).partial_fit(X, Y, classes=classes),
        lambda classes: SoftmaxClassifier().fit_batches([(X, Y)], classes=classes),
    ],
)
def test_bad_classes_raise_errors_that_speak_of_classes(call, classes, message):
    with pytest.raises(ValueError, match=message):
        call(classes)


def test_classes_of_one_label_raise():
    for call in (SoftmaxClassifier().partial_fit, SoftmaxClassifier().fit_batches):
        with pytest.raises(ValueError, match="classes must hold at least two classes, got only one class, 0"):
            call(X, Y, classes=[0]) if call.__name__ == "partial_fit" else call([(X, Y)], classes=[0])


# --- class weights ----------------------------------------------------------------------------------------


@FITS
@pytest.mark.parametrize("names", [["1", "2", "3"], ["01", "1", "2"], ["1", "a", "b"], [True, 3, 7], [0.5, 1.0, 2.0]])
def test_class_weights_are_looked_up_by_the_labels(call, names):
    # numbers that are no integers are read as a regression's targets, but for their strings
    names = list(map(str, names)) if 0.5 in names else names
    factors = [1.0, 5.0, 0.2]
    named = call(
        X, np.array(names, dtype=object)[Y], class_weight=dict(zip(names, factors, strict=True)), random_state=0
    )
    coded = call(X, Y, class_weight=dict(enumerate(factors)), random_state=0)
    assert_array_equal(named.coef_, coded.coef_)


@FITS
def test_a_class_weight_of_no_class_raises(call):
    if call is not CALLS["partial_fit"]:
        with pytest.raises(
            ValueError, match=r"class_weight must name classes of y, which are \[0, 1, 2\], got \['0'\]"
        ):
            call(X, Y, class_weight={"0": 2.0})
    else:  # the class may still come
        assert_array_equal(call(X, Y, class_weight={9: 2.0}).classes_, [0, 1, 2])


@pytest.mark.parametrize("key", [None, np.nan, np.inf, ("a",), b"a", 1j, "a", HUGE])
def test_a_class_weight_of_what_can_be_no_label_raises(key):
    clf = SoftmaxClassifier(allow_new_classes=True, class_weight={key: 1.0})
    with pytest.raises(
        ValueError, match=r"class_weight must have labels as keys, numbers as the classes \[0, 1, 2\] are"
    ):
        clf.partial_fit(X, Y)


def test_class_weights_may_name_classes_to_come():
    clf = SoftmaxClassifier(1e-3, allow_new_classes=True, class_weight={0: 1.0, 2: 3.0}, random_state=0)
    first, order = Y < 2, np.argsort(Y, kind="stable")
    clf.partial_fit(X[first], Y[first]).partial_fit(X[~first], Y[~first])
    plain = SoftmaxClassifier(1e-3, allow_new_classes=True, random_state=0)
    plain.partial_fit(X[first], Y[first]).partial_fit(X[~first], Y[~first], sample_weight=np.full((~first).sum(), 3.0))
    assert_array_equal(clf.coef_, plain.coef_)
    assert_array_equal(order, np.arange(150))


@FITS
@pytest.mark.parametrize("weight", ["a", None, 1j, np.array([1.0]), np.nan, -1.0, 10**400])
def test_class_weights_that_are_no_numbers_raise(call, weight):
    with pytest.raises(ValueError, match="class_weight must hold finite weights >= 0"):
        call(X, Y, class_weight={0: weight})


# --- weights ----------------------------------------------------------------------------------------------

WEIGHTED = {
    "fit": lambda weight: SoftmaxClassifier().fit(X, Y, weight),
    "partial_fit": lambda weight: SoftmaxClassifier().partial_fit(X, Y, [0, 1, 2], weight),
    "fit_batches": lambda weight: SoftmaxClassifier().fit_batches([(X, Y, weight)]),
    "cv": lambda weight: SoftmaxClassifierCV(alphas=[1e-3], cv=3).fit(X, Y, weight),
    "soft targets": lambda weight: SoftmaxClassifier(soft_targets=True).fit(X, np.eye(3)[Y], weight),
    "check_gradient": lambda weight: check_gradient(X, Y, sample_weight=weight),
    "score": lambda weight: FITTED.score(X, Y, weight),
    "cv score": lambda weight: FITTED_CV.score(X, Y, weight),
    "soft score": lambda weight: FITTED_SOFT.score(X, np.eye(3)[Y], weight),
}
BAD_WEIGHTS = {
    "negative": (np.linspace(-0.5, 1, 150), "sample_weight must not be negative, got -0.5; use 0 to leave a row out"),
    "a sum that overflows": (np.full(150, 1e307), r"sample_weight must sum to 1e\+200 at most, got inf"),
    "NaN": (np.full(150, np.nan), "Input sample_weight contains NaN"),
    "huge integers": ([10**309] * 150, "Input sample_weight contains infinity or a value too large for float64"),
    "a huge integer": (10**400, "Input sample_weight contains infinity or a value too large for float64"),
    "objects": (np.full(150, 10**400), "Input sample_weight contains infinity or a value too large for float64"),
    "complex": (np.full(150, 1j), "sample_weight must hold real numbers, got ndarray of dtype complex128"),
    "strings": (["1"] * 150, "sample_weight must hold real numbers, got list of dtype <U1"),
    "a column": (np.ones((150, 1)), r"sample_weight must be one number, or one per row, of shape \(150,\), got shape"),
}


@pytest.mark.parametrize(("weight", "message"), BAD_WEIGHTS.values(), ids=BAD_WEIGHTS)
@pytest.mark.parametrize("call", WEIGHTED.values(), ids=WEIGHTED)
def test_bad_weights_raise_and_are_named(call, weight, message):
    with np.errstate(all="raise"), pytest.raises(ValueError, match=message):
        call(weight)


SCORES = pytest.mark.parametrize("call", list(WEIGHTED.values())[-3:], ids=list(WEIGHTED)[-3:])


@SCORES
def test_weights_of_a_score_that_are_all_0_raise(call):
    with pytest.raises(ValueError, match="sample_weight must be positive for at least one row, got only zeros"):
        call(np.zeros(150))


@SCORES
@pytest.mark.parametrize("scale", [1e-320, 1e-200, 1e197])
def test_the_scale_of_the_weights_of_a_score_does_not_matter(call, scale):
    weight = np.arange(150) % 3 * 1.0
    with np.errstate(all="raise"):
        # 1e-320 is a subnormal number of four digits
        assert call(weight * scale) == pytest.approx(call(weight), rel=1e-3)


@pytest.mark.parametrize("class_weight", [{0: 1e300}, {0: 1e308, 1: 1e308}])
@FITS
def test_class_weights_whose_sum_overflows_raise(call, class_weight):
    with pytest.raises(ValueError, match=r"class_weight times sample_weight must sum to 1e\+200 at most"):
        call(X, Y, class_weight=class_weight)


def test_weights_of_batches_or_calls_that_overflow_together_raise():
    weight = np.full(150, 5e197)
    with pytest.raises(ValueError, match=r"sample_weight must sum to 1e\+200 at most, got 1.5e\+200"):
        SoftmaxClassifier().fit_batches([(X, Y, weight)] * 2)
    clf = SoftmaxClassifier().partial_fit(X, Y, [0, 1, 2], weight)
    before = clf.coef_.copy()
    with pytest.raises(ValueError, match=r"sample_weight must sum to 1e\+200 at most, got 1.5e\+200"):
        clf.partial_fit(X, Y, sample_weight=weight)
    assert_array_equal(clf.coef_, before)


# --- sparse rows ------------------------------------------------------------------------------------------


def broken(how, kind=sp.csr_array):
    """The rows as a sparse matrix whose arrays do not fit."""
    E = kind(X)
    if E.format == "coo":
        E.col[5] = {"large": 2**30, "negative": -1}[how]
        return E
    E.indices, E.indptr = E.indices.copy(), E.indptr.copy()
    if how in ("large", "negative"):
        E.indices[5] = 2**30 if how == "large" else -1
    elif how == "falling":
        E.indptr[2:4] = [8, 0]
    elif how == "far":
        E.indptr[-1] = 10**9
    elif how == "late":
        E.indptr[0] = 1
    elif how == "few rows":
        E.indptr = E.indptr[:-1]
    elif how == "few data":
        E.data = E.data[:-1]
    return E


BROKEN = {
    "large": r"X\.indices must lie from 0 to 3, got 0 to 1073741824",
    "negative": r"X\.indices must lie from 0 to 3, got -1 to 3",
    "falling": r"X\.indptr must rise from 0 to at most 600",
    "far": r"X\.indptr must rise from 0 to at most 600",
    "late": r"X\.indptr must rise from 0 to at most 600",
    "few rows": "X must have an indptr of length 151 and as many indices as data, got lengths 150, 600 and 600",
    "few data": "X must have an indptr of length 151 and as many indices as data, got lengths 151, 600 and 599",
}
TAKERS = {
    "fit": lambda E: SoftmaxClassifier(engine="vectorized").fit(E, Y),
    "auto": lambda E: SoftmaxClassifier().fit(E, Y),
    "partial_fit": lambda E: SoftmaxClassifier().partial_fit(E, Y, [0, 1, 2]),
    "fit_batches": lambda E: SoftmaxClassifier().fit_batches([(E, Y)]),
    "X_val": lambda E: SoftmaxClassifier(early_stopping=True).fit(X, Y, X_val=E, y_val=Y),
    "cv": lambda E: SoftmaxClassifierCV(alphas=[1e-3], cv=3).fit(E, Y),
    "predict": FITTED.predict,
    "predict_proba": FITTED.predict_proba,
    "predict_log_proba": FITTED.predict_log_proba,
    "decision_function": FITTED.decision_function,
    "score": lambda E: FITTED.score(E, Y),
    "naive loss": lambda E: softmax_loss_naive(np.zeros((4, 3)), E, Y, 0.0),
    "loss": lambda E: softmax_loss_vectorized(np.zeros((4, 3)), E, Y, 0.0),
    "check_gradient": lambda E: check_gradient(E, Y),
}


@pytest.mark.parametrize(("how", "message"), BROKEN.items(), ids=BROKEN)
@pytest.mark.parametrize("take", TAKERS.values(), ids=TAKERS)
def test_sparse_rows_whose_arrays_do_not_fit_raise(take, how, message):
    with pytest.raises(ValueError, match=message):
        take(broken(how))


@pytest.mark.parametrize("how", ["large", "negative"])
@pytest.mark.parametrize("kind", [sp.csc_array, sp.bsr_array, sp.coo_array, sp.csr_matrix, sp.csc_matrix])
def test_indices_are_checked_before_they_are_converted(kind, how):
    with pytest.raises(ValueError, match=r"X\.(indices|col) must lie from 0 to \d+, got"):
        SoftmaxClassifier().fit(broken(how, kind), Y)


def test_a_batch_that_breaks_between_passes_raises(monkeypatch):
    monkeypatch.setattr("sksoftmax._data.chunks.SAMPLE_SIZE", 2000)
    passes = [sp.csr_array(X), broken("large")]
    with pytest.raises(ValueError, match=r"X\.indices must lie from 0 to 3"):
        SoftmaxClassifier().fit_batches(lambda: iter([(passes.pop(0), Y)]))


def test_an_index_out_of_range_ends_no_process():
    code = (
        "import scipy.sparse as sp; from sklearn.datasets import load_iris; from sksoftmax import SoftmaxClassifier\n"
        "X, y = load_iris(return_X_y=True); E = sp.csr_array(X); E.indices = E.indices.copy(); E.indices[5] = 2**30\n"
        "SoftmaxClassifier(engine='vectorized').fit(E, y)"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (ended.returncode, "ValueError: X.indices must lie" in ended.stderr) == (1, True)


@pytest.mark.parametrize("kind", [sp.csr_array, sp.csc_array, sp.bsr_array, sp.coo_array, sp.lil_array, sp.dok_array])
def test_sound_rows_of_any_kind_give_the_same_model(kind):
    assert_allclose(SoftmaxClassifier(random_state=0).fit(kind(X), Y).score(kind(X), Y), 0.98)
    empty = kind((150, 4))  # no entry, and none is out of range
    assert _arrays.check_sparse_structure(empty).shape == (150, 4)


# --- numbers that overflow --------------------------------------------------------------------------------

HUGE_X = [[HUGE, 0, 0, 0], *X[1:].tolist()]
LOGISTIC = LogisticRegression(max_iter=1000).fit(X, Y)
TAKE_HUGE = {
    **{f"X of {name}": (lambda call=call: call(HUGE_X, Y), "Input X contains") for name, call in CALLS.items()},
    "X of predict": (lambda: FITTED.predict(HUGE_X), "Input X contains"),
    "targets": (
        lambda: SoftmaxClassifier(soft_targets=True).fit(X, [[HUGE, 0, 0], *np.eye(3)[Y][1:].tolist()]),
        "Input y contains",
    ),
    "alphas": (lambda: SoftmaxClassifierCV(alphas=[HUGE]).fit(X, Y), "alphas must hold finite numbers"),
    "l1_ratios": (lambda: SoftmaxClassifierCV(l1_ratios=[HUGE]).fit(X, Y), "l1_ratios must hold finite numbers"),
    "total_weight": (
        lambda: SoftmaxClassifier.from_sklearn(LOGISTIC, total_weight=HUGE),
        "total_weight must be a number > 0",
    ),
    "alpha of check_gradient": (lambda: check_gradient(X, Y, alpha=HUGE), "alpha must be a finite number >= 0, got"),
    "random_state": (lambda: check_gradient(X, Y, random_state=HUGE), "random_state must be an integer >= 0 and <= 42"),
}


@pytest.mark.parametrize(("call", "message"), TAKE_HUGE.values(), ids=TAKE_HUGE)
def test_integers_that_float64_does_not_hold_raise_and_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_more_checks_than_parameters_may_be_asked_for():
    assert check_gradient(X, Y, max_checks=HUGE) < 1e-4


REALS = ["alpha", "l1_ratio", "tol", "learning_rate", "power_t", "momentum", "beta_1", "beta_2", "epsilon"]
REALS += ["validation_fraction", "label_smoothing", "half_life"]


@pytest.mark.parametrize("value", [HUGE, -HUGE, Fraction(1, 2)], ids=["huge", "negative", "a fraction"])
@pytest.mark.parametrize("name", REALS)
@pytest.mark.parametrize("call", [*CALLS.values()][:3], ids=list(CALLS)[:3])
def test_parameters_are_integers_or_floats_that_float64_holds(call, name, value):
    with pytest.raises(ValueError, match=f"The '{name}' parameter of SoftmaxClassifier must be .*float in the range"):
        call(X, Y, **{name: value})


@pytest.mark.parametrize("scale", [1e-300, 1.0, 1e300])
@pytest.mark.parametrize("call", [*CALLS.values()][:4], ids=list(CALLS)[:4])
def test_numpys_error_state_changes_nothing(call, scale):
    rows = X * scale
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # of columns of 1e300 F* need not be found
        quiet = call(rows, Y, random_state=0)
    with np.errstate(all="raise"), warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", ConvergenceWarning)
        strict = call(rows, Y, random_state=0)
        proba = strict.predict_proba(rows), strict.predict_log_proba(rows), strict.predict(rows)
    assert_array_equal(strict.coef_, quiet.coef_)
    assert all(np.isfinite(values).all() for values in proba)


@pytest.mark.parametrize(
    "rows",
    [
        np.full((2, 4), 1e308),
        np.array([[1e308, -1e308, 1e308, -1e308]]),
        np.full((2, 4), 3e38, np.float32),
        np.array([[3e38, -3e38, 3e38, -3e38]], np.float32),
        sp.csr_array(np.full((2, 4), 1e308)),
    ],
)
@pytest.mark.parametrize("method", ["decision_function", "predict", "predict_proba", "predict_log_proba"])
def test_predictions_that_overflow_raise(method, rows):
    with np.errstate(all="raise"), pytest.raises(ValueError, match=r"that are finite in float.*, got an overflow"):
        getattr(FITTED, method)(rows)


@pytest.mark.parametrize("method", ["decision_function", "predict_proba"])
def test_predictions_of_a_file_that_overflow_raise(method, tmp_path, monkeypatch):
    monkeypatch.setattr(chunks, "SAMPLE_SIZE", 8)  # what is larger is read in chunks
    rows = np.memmap(tmp_path / "X", np.float64, "w+", shape=(2, 4))
    rows[:] = 1e308
    with np.errstate(all="raise"), pytest.raises(ValueError, match=r"that are finite in float.*, got an overflow"):
        getattr(FITTED, method)(rows)


def test_logarithms_of_probabilities_stay_finite():
    clf = SoftmaxClassifier().fit(X, Y)
    clf.coef_, clf.intercept_ = np.outer([1, 0, -1], np.ones(4)), np.zeros(3)
    rows = np.full((1, 4), 4e307)  # raw predictions of 1.6e308 and its negative, whose difference overflows
    assert_array_equal(clf.predict_proba(rows), [[1, 0, 0]])
    assert np.isfinite(clf.predict_log_proba(rows)).all()


def in_two(clf, X, classes=(0, 1, 2)):
    """The model after two calls of partial_fit."""
    return clf.partial_fit(X[::2], Y[::2], classes).partial_fit(X[1::2], Y[1::2])


EXTREME = {
    "float64 of 1e-323": X * 1e-323,
    "float64 of 1e-310": X * 1e-310,
    "float64 of 1e307": X * 2e307,
    "float32 of 1e-40": (X * 1e-40).astype(np.float32),
    "float32 of 2e-38": (X * 2e-38).astype(np.float32),
    "float32 of 1e37": (X * 1e37).astype(np.float32),
    "columns of all sizes": X * [1e-310, 1.0, 1e150, 1e-160],
    "float32 columns of all sizes": (X * [1e-40, 1.0, 1e37, 1e5]).astype(np.float32),
}
FINITE = {
    **{
        f"{name}, alpha={alpha}": lambda X, name=name, alpha=alpha: SoftmaxClassifier(
            alpha, solver=name, max_iter=20, random_state=0
        ).fit(X, Y)
        for name in ("auto", "sgd", "adagrad", "adam")
        for alpha in (1e-4, 0)
    },
    "l1": lambda X: SoftmaxClassifier(l1_ratio=1, solver="dual").fit(X, Y),
    "rows kept": lambda X: in_two(SoftmaxClassifier(), X),
    "sgd's stream": lambda X: in_two(SoftmaxClassifier(solver="sgd"), X),
    "no rows kept": lambda X: in_two(SoftmaxClassifier(keep_rows=False), X),
    "no penalty": lambda X: in_two(SoftmaxClassifier(0, keep_rows=False), X),
    "no intercept": lambda X: in_two(SoftmaxClassifier(keep_rows=False, fit_intercept=False), X),
    "l1 of a stream": lambda X: in_two(SoftmaxClassifier(keep_rows=False, l1_ratio=0.5), X),
    "half_life": lambda X: in_two(SoftmaxClassifier(half_life=50), X),
    "from_sklearn": lambda X: in_two(SoftmaxClassifier.from_sklearn(LOGISTIC, total_weight=150), X, None),
    "after a fit": lambda Z: in_two(SoftmaxClassifier(random_state=0).fit(X, Y), Z, None),
}


@pytest.mark.parametrize("container", [np.asarray, sp.csr_array])
@pytest.mark.parametrize("rows", EXTREME.values(), ids=EXTREME)
@pytest.mark.parametrize("fit", FINITE.values(), ids=FINITE)
def test_finite_rows_give_finite_coefficients(fit, rows, container):
    if fit is FINITE["l1"]:
        pytest.importorskip("_sksoftmax_kernels")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        clf = fit(container(rows))
    assert np.isfinite(clf.coef_).all()
    assert np.isfinite(clf.intercept_).all()


# --- warm starts ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("name", ["coef_", "intercept_"])
@pytest.mark.parametrize(
    "go_on",
    [
        lambda clf: clf.fit(X, Y),
        lambda clf: clf.fit_batches([(X, Y)]),
        lambda clf: clf.partial_fit(X, Y),
    ],
)
def test_coefficients_that_are_not_finite_raise_and_are_named(go_on, name, value):
    clf = SoftmaxClassifier(warm_start=True, random_state=0).fit(X, Y)
    getattr(clf, name).flat[0] = value
    with pytest.raises(ValueError, match=f"{name} must be finite to continue the fit, got NaN or infinity"):
        go_on(clf)


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("settings", [{}, {"l1_ratio": 0.5}, {"keep_rows": False}, {"solver": "sgd"}])
@pytest.mark.parametrize("is_stream", [True, False])
def test_fits_go_on_after_sparsify(is_stream, settings, n_classes):
    y = np.minimum(Y, n_classes - 1)

    def gone_on(sparsify):
        clf = SoftmaxClassifier(1e-2, warm_start=True, random_state=0, max_iter=1000, tol=1e-2, **settings)
        clf = clf.partial_fit(X, y, np.unique(y)) if is_stream else clf.fit(X, y)
        clf = clf.sparsify() if sparsify else clf
        return clf.partial_fit(X, y), clf.fit(X, y)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # sgd on columns as they come ends above tol
        for sparse, dense in zip(gone_on(True), gone_on(False), strict=True):
            assert_array_equal(sparse.coef_, dense.coef_)


# --- early stopping ---------------------------------------------------------------------------------------

SPLITS = {
    "a class of one row": (
        {},
        np.arange(150),
        with_row_of(Y, 0, 5),
        "at least 2 rows of positive weight of each, got 1 of 5",
    ),
    "strings": ({}, np.arange(150), with_row_of(Y.astype(str), 0, "z"), "each, got 1 of 'z'; give fit X_val and y_val"),
    "few rows": (
        {},
        np.arange(0, 150, 15),
        Y,
        "3 rows, to .*, got 9 and 1 by validation_fraction=0.1 of 10 rows",
    ),
    "nearly all": ({"validation_fraction": 0.999}, np.arange(150), Y, "got 0 and 150 by validation_fraction=0.999"),
    "next to none": ({"validation_fraction": 0.001}, np.arange(150), Y, "got 149 and 1 by validation_fraction=0.001"),
}


@pytest.mark.parametrize(("settings", "rows", "y", "message"), SPLITS.values(), ids=SPLITS)
def test_errors_of_the_split_speak_of_early_stopping(settings, rows, y, message):
    y = np.array(y.tolist())  # of one kind
    with pytest.raises(ValueError, match=f"early_stopping=True .*{message}.*set early_stopping=False") as error:
        SoftmaxClassifier(early_stopping=True, **settings).fit(X[rows], y[rows])
    assert "test_size" not in str(error.value)


def test_the_split_of_targets_speaks_of_early_stopping():
    clf = SoftmaxClassifier(early_stopping=True, soft_targets=True, validation_fraction=0.9)
    with pytest.raises(ValueError, match=r"early_stopping=True .*got 0 and 2 by validation_fraction=0.9 of 2 rows"):
        clf.fit(X[:2], np.eye(3)[:2])


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", [0, 99, 100, 12_345, 19_999])
def test_one_entry_that_is_not_finite_is_found_wherever_it_is(where, value, order, monkeypatch):
    monkeypatch.setattr(_validation, "_SUMMED_ENTRIES", 100)
    monkeypatch.setattr(threads, "_MIN_WORK", 0)
    X = np.asarray(np.random.default_rng(0).standard_normal((2000, 10)), np.float32, order=order)
    X[where // 10, where % 10] = value
    name = "NaN" if np.isnan(value) else "infinity"
    with threadpool_limits(2), pytest.raises(ValueError, match=f"Input X contains {name}"):
        SoftmaxClassifier().fit(X, np.arange(2000) % 3)


def test_entries_whose_sum_overflows_are_finite():
    X = np.full((200, 3), np.finfo(np.float64).max) * np.random.default_rng(0).choice([-1, 1], (200, 3))
    assert not _validation._has_finite_sums(np.abs(X))  # scikit-learn then looks at the entries
    assert _validation._validate(SoftmaxClassifier(), np.abs(X), reset=True).shape == (200, 3)
