"""The pictures show the model: lines, bars, images and texts are its numbers and names."""

import runpy
import struct
import sys
from pathlib import Path
from types import SimpleNamespace

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from matplotlib import pyplot as plt
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.datasets import load_breast_cancer, load_digits, load_iris, load_wine, make_blobs
from sklearn.exceptions import NotFittedError
from sklearn.feature_extraction.text import HashingVectorizer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression, RidgeClassifier, SGDClassifier
from sklearn.metrics import log_loss
from sklearn.model_selection import GridSearchCV
from sklearn.multiclass import OneVsRestClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.svm import SVC, LinearSVC

from sksoftmax import SoftmaxClassifier
from sksoftmax.plotting import CalibrationComparisonDisplay, CoefficientDisplay, LossCurve, LossCurveDisplay

mpl.use("Agg")

ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def wine():
    return load_wine(return_X_y=True, as_frame=True)


@pytest.fixture(scope="module")
def wine_model(wine):
    return SoftmaxClassifier(1e-2, random_state=0).fit(*wine)


@pytest.fixture(scope="module")
def digits_models():
    X, y = load_digits(return_X_y=True)
    return {
        "auto": SoftmaxClassifier(1e-2, random_state=0).fit(X, y),
        "early": SoftmaxClassifier(1e-2, solver="sgd", early_stopping=True, random_state=0).fit(X, y),
    }


def widths(container):
    return [bar.get_width() for bar in container]


def tick_names(ax):
    return [text.get_text() for text in ax.get_yticklabels()]


def legend_texts(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def assert_nothing_is_cut(figure):
    """Every text lies in the figure, and no two panels' texts lie on each other."""
    figure.canvas.draw()
    whole = figure.bbox.padded(1)  # a pixel: boxes are rounded up
    boxes = [ax.get_tightbbox() for ax in figure.axes]
    for box in boxes:
        assert whole.x0 <= box.x0 < box.x1 <= whole.x1
        assert whole.y0 <= box.y0 < box.y1 <= whole.y1
    for i, box in enumerate(boxes):
        assert not any(box.padded(-1).overlaps(other.padded(-1)) for other in boxes[:i])


# --- loss curves ------------------------------------------------------------------------------------------


def test_the_loss_line_is_the_loss_curve(digits_models):
    model = digits_models["auto"]
    display = LossCurveDisplay.from_estimator(model)
    (line,) = display.lines_["loss"]
    assert_array_equal(line.get_ydata(), model.loss_curve_)
    assert_array_equal(line.get_xdata(), np.arange(1, model.n_iter_ + 1))
    assert display.ax_ is display.axes_["loss"]
    assert display.figure_ is display.ax_.figure
    assert_nothing_is_cut(display.figure_)


def test_the_gap_ends_at_the_models_own_excess_below_tol(digits_models):
    model = digits_models["auto"]
    display = LossCurveDisplay.from_estimator(model)
    (line,) = display.lines_["gap"]
    assert line.get_ydata()[-1] == pytest.approx(model.excess_, rel=1e-9)  # a difference of numbers 1e3 as large
    assert display.axes_["gap"].get_yscale() == "log"
    tol = next(line for line in display.axes_["gap"].get_lines() if line.get_label() == "_tol")
    assert_array_equal(tol.get_ydata(), [model.tol, model.tol])


def test_validation_scores_are_drawn_and_the_epoch_that_is_kept_is_marked(digits_models):
    model = digits_models["early"]
    display = LossCurveDisplay.from_estimator(model)
    assert list(display.axes_) == ["loss", "validation"]  # no minimum is known
    (line,) = display.lines_["validation"]
    assert_array_equal(line.get_ydata(), model.validation_scores_)
    star = next(line for line in display.axes_["validation"].get_lines() if line.get_label() == "_best")
    assert_array_equal(star.get_xdata(), [np.argmax(model.validation_scores_) + 1])
    assert legend_texts(display.axes_["validation"]) == ["the epoch whose coefficients are kept"]
    assert_nothing_is_cut(display.figure_)


def test_the_legend_says_who_and_how_it_ended(digits_models):
    display = LossCurveDisplay.from_estimators(digits_models)
    auto, early = digits_models.values()
    assert legend_texts(display.ax_) == [
        f"auto: {auto.n_iter_} epochs, reached tol",
        f"early: {early.n_iter_} epochs, stopped early",
    ]
    assert len(display.lines_["loss"]) == 2
    assert len(display.lines_["gap"]) == len(display.lines_["validation"]) == 1


def test_the_legend_says_that_a_callback_stopped_a_fit(digits_models):
    model = SoftmaxClassifier()
    model.__dict__ |= vars(digits_models["auto"]) | {"stop_reason_": "callback"}
    (text,) = legend_texts(LossCurveDisplay.from_estimator(model).ax_)
    assert text.endswith(" epochs, stopped by a callback")


def test_gaps_to_the_lowest_minimum_are_of_all_models(digits_models):
    display = LossCurveDisplay.from_estimators(digits_models, minimum="lowest")
    auto, early = digits_models.values()
    minimum = auto.loss_curve_[-1] / (1 + auto.excess_)
    want = np.asarray(early.loss_curve_) / minimum - 1
    assert_allclose(display.curves[1].gap, want, rtol=1e-12)
    assert_allclose(display.lines_["gap"][1].get_ydata(), want, rtol=1e-12)
    assert_allclose(LossCurveDisplay.from_estimator(early, minimum=minimum).curves[0].gap, want, rtol=1e-12)


def test_estimates_on_the_way_are_drawn_where_they_are_known(digits_models):
    model = SoftmaxClassifier()
    model.__dict__ |= vars(digits_models["early"])
    model.excess_curve_ = [np.inf, 0.5] + [np.inf] * (model.n_iter_ - 2)
    display = LossCurveDisplay.from_estimator(model)
    assert list(display.axes_) == ["loss", "gap", "validation"]
    marks = next(line for line in display.axes_["gap"].get_lines() if line.get_label() == "_estimates")
    assert marks.get_ydata()[1] == 0.5
    assert np.isnan(np.delete(marks.get_ydata(), 1)).all()
    note = "SoftmaxClassifier: no line, its minimum F* is not known"
    assert legend_texts(display.axes_["gap"]) == ["the fit's estimate on its way", note]
    model.excess_curve_ = [np.inf] * model.n_iter_
    assert list(LossCurveDisplay.from_estimator(model).axes_) == ["loss", "validation"]


def test_epochs_whose_mean_was_raised_are_left_out_of_the_gap_in_words():
    loss, gap = np.array([3.0, 1.1, 1.1, 1.1]), np.array([2.0, 0.1, 0.1, 0.1])
    curve = LossCurve("a", loss, gap, np.array([np.inf, np.inf, 0.1, 0.1]))
    display = LossCurveDisplay([curve]).plot()
    assert_array_equal(display.lines_["gap"][0].get_ydata(), [2.0, np.nan, 0.1, 0.1])
    assert "no line: epochs whose F is not above F*, or is a mean that is too low" in legend_texts(display.axes_["gap"])
    assert_nothing_is_cut(display.figure_)
    without = LossCurveDisplay([LossCurve("b", loss, excess=np.array([np.inf, 0.3, 0.2, 0.1]))])
    for names in (["loss", "gap"], ["gap"]):
        _, axes = plt.subplots(len(names), squeeze=False)
        shown = without.plot(dict(zip(names, axes[:, 0], strict=True)))
        assert "b: no line, its minimum F* is not known" in legend_texts(shown.axes_["gap"])


def test_a_second_model_goes_to_the_same_panels_in_another_colour(digits_models):
    first = LossCurveDisplay.from_estimator(digits_models["early"], name="first")
    second = LossCurveDisplay.from_estimator(digits_models["early"], name="second", ax=first.axes_)
    assert second.axes_ == first.axes_
    for panel in first.axes_:
        (a,), (b,) = first.lines_[panel], second.lines_[panel]
        assert a.axes is b.axes
        assert a.get_color() != b.get_color()
        assert a.get_linestyle() != b.get_linestyle()
    assert len(legend_texts(second.ax_)) == 2


def test_one_axes_takes_the_loss_and_a_dict_what_it_names(digits_models):
    _, (left, right) = plt.subplots(1, 2)
    assert list(LossCurveDisplay.from_estimator(digits_models["auto"], ax=left).axes_) == ["loss"]
    display = LossCurveDisplay.from_estimator(digits_models["auto"], ax={"gap": right})
    assert display.ax_ is right
    assert display.lines_["gap"][0].axes is right


def test_the_axis_of_f_is_logarithmic_only_where_it_falls_far():
    assert LossCurveDisplay([LossCurve("near", np.array([3.0, 1.0]))]).plot().ax_.get_yscale() == "linear"
    assert LossCurveDisplay([LossCurve("far", np.array([30.0, 1.0]))]).plot().ax_.get_yscale() == "log"
    assert LossCurveDisplay([LossCurve("zero", np.array([30.0, 0.0]))]).plot().ax_.get_yscale() == "linear"


def test_keywords_of_lines_win_by_either_of_their_names(digits_models):
    display = LossCurveDisplay.from_estimator(digits_models["auto"], line_kw={"c": "black", "ls": ":", "label": "ours"})
    assert legend_texts(display.ax_) == ["ours"]
    assert {line.get_color() for lines in display.lines_.values() for line in lines} == {"black"}
    assert display.lines_["loss"][0].get_linestyle() == ":"


def test_the_model_in_a_pipeline_and_of_a_search_is_found(wine):
    pipeline = make_pipeline(StandardScaler(), SoftmaxClassifier(random_state=0))
    search = GridSearchCV(pipeline, {"softmaxclassifier__alpha": [1e-2, 1e-1]}, cv=2).fit(*wine)
    best = search.best_estimator_[-1]
    assert_array_equal(LossCurveDisplay.from_estimator(search).curves[0].loss, best.loss_curve_)
    assert_array_equal(CoefficientDisplay.from_estimator(search).coef, best.coef_)


def test_loss_curves_of_scikit_learns_network_are_drawn():
    X, y = load_iris(return_X_y=True)
    model = MLPClassifier((2,), max_iter=500, tol=0.1, random_state=0).fit(X, y)
    display = LossCurveDisplay.from_estimator(model)
    assert list(display.axes_) == ["loss"]
    assert legend_texts(display.ax_) == [f"MLPClassifier: {model.n_iter_} epochs"]


def test_loss_curves_of_wrong_models_and_arguments(digits_models, wine):
    with pytest.raises(NotFittedError):
        LossCurveDisplay.from_estimator(SoftmaxClassifier())
    X, y = wine
    stream = SoftmaxClassifier().partial_fit(X, y, classes=[0, 1, 2])
    with pytest.raises(TypeError, match="partial_fit does not, got a SoftmaxClassifier without it; call fit"):
        LossCurveDisplay.from_estimator(stream)
    with pytest.raises(ValueError, match=r"needs a model that reached tol, got stop reasons .*early_stopping"):
        LossCurveDisplay.from_estimators({"early": digits_models["early"]}, minimum="lowest")
    with pytest.raises(ValueError, match="must be a number, 'lowest' or None, got 'highest'"):
        LossCurveDisplay.from_estimators(digits_models, minimum="highest")
    with pytest.raises(ValueError, match=r"minimum must be a finite number > 0, a value of F, got 0"):
        LossCurveDisplay.from_estimator(digits_models["auto"], minimum=0)
    for ax in ({"lost": None}, {"validation": None}):
        with pytest.raises(ValueError, match=r"ax must have keys among \['loss', 'gap', 'validation'\]"):
            LossCurveDisplay.from_estimator(digits_models["auto"], ax=ax)


# --- coefficients -----------------------------------------------------------------------------------------


def test_bars_are_the_strongest_coefficients_of_each_class_by_name(wine, wine_model):
    X, _ = wine
    display = CoefficientDisplay.from_estimator(wine_model, n_features=4)
    assert len(display.axes_) == len(display.bars_) == 3
    for label, ax, bars, row in zip([0, 1, 2], display.axes_, display.bars_, wine_model.coef_, strict=True):
        strongest = np.argsort(-np.abs(row))[:4]
        order = strongest[np.argsort(-row[strongest])]
        assert_allclose(widths(bars), row[order], rtol=1e-12)
        assert tick_names(ax) == list(X.columns[order])
        assert ax.get_title() == str(label)
    assert len({ax.get_xlim() for ax in display.axes_}) == 1
    assert display.ax_ is display.axes_[0]
    assert display.figure_ is display.ax_.figure
    assert_nothing_is_cut(display.figure_)


def test_bars_go_down_from_the_top(wine_model):
    display = CoefficientDisplay.from_estimator(wine_model, n_features=4)
    bottom, top = display.ax_.get_ylim()
    assert bottom > top  # the first bar, at 0, is at the top


def test_two_classes_have_one_panel_with_both_ends():
    X, y = load_breast_cancer(return_X_y=True, as_frame=True)
    model = make_pipeline(StandardScaler(), SoftmaxClassifier(1e-2)).fit(X, y)
    display = CoefficientDisplay.from_estimator(model, n_features=3, display_labels=["malignant", "benign"])
    row = model[-1].coef_[0]
    order = np.argsort(-row)
    shown = np.r_[order[:3], order[-3:]]
    assert_allclose(widths(display.bars_[0]), row[shown], rtol=1e-12)
    assert tick_names(display.ax_) == list(X.columns[shown])
    assert display.ax_.get_title(loc="left") == "\N{LEFTWARDS ARROW} malignant"
    assert display.ax_.get_title(loc="right") == "benign \N{RIGHTWARDS ARROW}"
    assert_nothing_is_cut(display.figure_)


@pytest.mark.parametrize(("label", "sign"), [(0, -1), (1, 1)])
def test_one_of_two_classes_has_what_speaks_for_it_to_the_right(label, sign):
    X, y = load_breast_cancer(return_X_y=True)
    model = SoftmaxClassifier(1e-2).fit(StandardScaler().fit_transform(X), y)
    display = CoefficientDisplay.from_estimator(model, n_features=5, classes=[label])
    assert_array_equal(display.coef, sign * model.coef_)
    assert display.ax_.get_title() == str(label)
    assert len(display.bars_[0]) == 5


def test_the_order_of_two_classes_turns_the_bars():
    X, y = load_breast_cancer(return_X_y=True)
    model = SoftmaxClassifier(1e-2).fit(StandardScaler().fit_transform(X), y)
    assert_array_equal(CoefficientDisplay.from_estimator(model, classes=[0, 1]).coef, model.coef_)
    turned = CoefficientDisplay.from_estimator(model, classes=[1, 0])
    assert_array_equal(turned.coef, -model.coef_)
    assert turned.ax_.get_title(loc="right") == "0 \N{RIGHTWARDS ARROW}"


def test_classes_are_shown_in_the_order_asked_for(wine_model):
    display = CoefficientDisplay.from_estimator(wine_model, classes=[2, 0])
    assert_array_equal(display.coef, wine_model.coef_[[2, 0]])
    assert [ax.get_title() for ax in display.axes_] == ["2", "0"]


@pytest.mark.parametrize(
    "model",
    [
        LogisticRegression(max_iter=1000),
        RidgeClassifier(),
        SGDClassifier(random_state=0),
        LinearSVC(random_state=0),
        SVC(kernel="linear"),
    ],
    ids=lambda model: type(model).__name__,
)
@pytest.mark.parametrize("n_classes", [2, 3])
def test_other_linear_classifiers_are_drawn_if_they_have_a_row_a_class(model, n_classes):
    X, y = load_iris(return_X_y=True)
    X, y = X[y < n_classes], y[y < n_classes]
    model.fit(X, y)
    if isinstance(model, SVC) and n_classes == 3:
        with pytest.raises(TypeError, match=r"got SVC with 3 classes and coef_ of shape \(3, 4\), one row per pair"):
            CoefficientDisplay.from_estimator(model)
    else:
        assert_array_equal(CoefficientDisplay.from_estimator(model).coef, np.atleast_2d(model.coef_))


def test_sparse_coefficients_are_drawn_and_zeros_have_no_bar(wine):
    X, y = wine
    model = SoftmaxClassifier(0.03, l1_ratio=1).fit(StandardScaler().fit_transform(X), y)
    dense = CoefficientDisplay.from_estimator(model, n_features=13)
    n_nonzero = np.count_nonzero(model.coef_, axis=1)
    assert (n_nonzero < 13).all()
    assert [len(bars) for bars in dense.bars_] == list(n_nonzero)
    want = [widths(bars) for bars in dense.bars_]
    model.sparsify()
    assert sp.issparse(model.coef_)
    assert [widths(bars) for bars in CoefficientDisplay.from_estimator(model, n_features=13).bars_] == want


def test_a_class_without_coefficients_says_so():
    display = CoefficientDisplay(np.zeros((3, 2)), feature_names=["a", "b"], classes=[0, 1, 2]).plot()
    assert [ax.texts[0].get_text() for ax in display.axes_] == ["all coefficients are 0"] * 3


def test_names_come_from_the_pipelines_vectorizer_or_are_given_or_numbers():
    texts, y = ["ham and eggs", "spam with spam", "eggs with ham", "spam spam"], ["ham", "spam", "ham", "spam"]
    words = make_pipeline(TfidfVectorizer(), SoftmaxClassifier(1e-2)).fit(texts, y)
    display = CoefficientDisplay.from_estimator(words, n_features=2)
    assert tick_names(display.ax_)[0] == "spam"
    assert set(tick_names(display.ax_)[-2:]) == {"ham", "eggs"}
    given = CoefficientDisplay.from_estimator(words, n_features=1, feature_names=list("abcde"))
    assert tick_names(given.ax_)[0] == "d"  # and, eggs, ham, spam, with
    hashed = make_pipeline(HashingVectorizer(n_features=8), SoftmaxClassifier(1e-2)).fit(texts, y)
    assert set(tick_names(CoefficientDisplay.from_estimator(hashed).ax_)) <= {f"x{j}" for j in range(8)}


def test_names_come_from_a_data_frame_before_a_scaler_or_a_function(wine):
    X, y = wine
    for step in (StandardScaler(), FunctionTransformer()):
        model = make_pipeline(step, SoftmaxClassifier(1e-2)).fit(X, y)
        assert set(tick_names(CoefficientDisplay.from_estimator(model).ax_)) <= set(X.columns)
    alone = make_pipeline(SoftmaxClassifier(1e-2)).fit(X, y)
    assert set(tick_names(CoefficientDisplay.from_estimator(alone).ax_)) <= set(X.columns)
    unnamed = make_pipeline(FunctionTransformer(), SoftmaxClassifier(1e-2)).fit(X.to_numpy(), y)
    assert tick_names(CoefficientDisplay.from_estimator(unnamed).ax_)[0].startswith("x")


def test_feature_scale_multiplies_the_columns(wine, wine_model):
    X, _ = wine
    display = CoefficientDisplay.from_estimator(wine_model, feature_scale=X.std())
    assert_allclose(display.coef, wine_model.coef_ * X.std().to_numpy(), rtol=1e-12)
    assert display.figure_.get_supxlabel() == "coefficient x feature_scale"


def test_texts_are_shown_as_they_are():
    names = ["$a$", "$", " x", "x", "a\tb", "", r"\alpha_1"]
    coef = np.arange(7.0, 0.0, -1.0)[None].repeat(3, axis=0)
    display = CoefficientDisplay(coef, feature_names=names, classes=["$x^$", "b", "c"]).plot()
    assert tick_names(display.ax_) == ["$a$", "$", "' x'", "x", r"'a\tb'", "''", r"\alpha_1"]
    texts = [*display.ax_.get_yticklabels(), display.ax_.title]
    assert not any(text.get_parse_math() for text in texts)
    display.figure_.canvas.draw()  # "$x^$" would be an error


def test_long_names_are_shortened_as_long_as_they_differ():
    names = ["a" * 40 + "z", "b" * 40 + "z"]
    display = CoefficientDisplay(np.ones((3, 2)), feature_names=names, classes=[0, 1, 2]).plot()
    assert tick_names(display.ax_) == [f"{c * 14}\N{HORIZONTAL ELLIPSIS}{c * 12}z" for c in "ab"]
    alike = ["a" * 20 + "1" + "a" * 20, "a" * 20 + "2" + "a" * 20]
    display = CoefficientDisplay(np.ones((3, 2)), feature_names=alike, classes=[0, 1, 2]).plot()
    assert tick_names(display.ax_) == alike
    assert_nothing_is_cut(display.figure_)


@pytest.mark.parametrize("n_classes", [1, 3, 4, 10, 20])
def test_nothing_is_cut_of_many_panels(n_classes):
    rng = np.random.RandomState(0)
    names = [f"{'long ' * (j % 5)}name {j}" for j in range(30)]
    classes = [f"comp.sys.class{k}.hardware" for k in range(n_classes)]
    display = CoefficientDisplay(rng.standard_normal((n_classes, 30)), feature_names=names, classes=classes).plot()
    assert len(display.figure_.axes) == n_classes
    assert_nothing_is_cut(display.figure_)
    bottom = [ax for ax in display.axes_ if ax.xaxis.get_major_ticks()[0].label1.get_visible()]
    assert len(bottom) == min(n_classes, 4, len({ax.get_position().x0 for ax in display.axes_}))


def test_images_are_the_coefficients_on_one_scale_symmetric_about_0(digits_models):
    model = digits_models["auto"]
    display = CoefficientDisplay.from_estimator(model, image_shape=(8, 8))
    largest = np.abs(model.coef_).max()
    for label, ax, image, row in zip(model.classes_, display.axes_, display.images_, model.coef_, strict=True):
        assert_array_equal(image.get_array(), row.reshape(8, 8))
        assert image.get_clim() == (-largest, largest)
        assert ax.get_title() == str(label)
    assert display.colorbar_.ax.get_ylabel() == "coefficient"
    assert_nothing_is_cut(display.figure_)


def test_two_classes_have_one_image():
    X, y = load_digits(n_class=2, return_X_y=True)
    display = CoefficientDisplay.from_estimator(SoftmaxClassifier(1e-1).fit(X, y), image_shape=[8, 8])
    assert len(display.images_) == 1
    assert display.ax_.get_title() == "1 against 0"
    assert_nothing_is_cut(display.figure_)


def test_images_that_are_not_square_lie_row_after_row():
    coef = np.arange(18.0).reshape(3, 6)
    display = CoefficientDisplay(coef, feature_names=list("abcdef"), classes=[0, 1, 2]).plot(image_shape=(2, 3))
    assert_array_equal(display.images_[0].get_array(), [[0, 1, 2], [3, 4, 5]])
    assert_nothing_is_cut(display.figure_)


def test_panels_go_to_the_axes_given(wine_model):
    _, axes = plt.subplots(1, 3)
    display = CoefficientDisplay.from_estimator(wine_model, ax=axes)
    assert list(display.axes_) == list(axes)
    assert [ax.get_xlabel() for ax in axes] == ["coefficient"] * 3
    _, ax = plt.subplots()
    assert CoefficientDisplay.from_estimator(wine_model, classes=[1], ax=ax).ax_ is ax


def test_coefficients_keywords_reach_matplotlib(wine_model):
    display = CoefficientDisplay.from_estimator(wine_model, bar_kw={"color": "black"}, n_cols=1)
    assert display.bars_[0][0].get_facecolor() == (0, 0, 0, 1)
    assert len({ax.get_position().x0 for ax in display.axes_}) == 1
    image = CoefficientDisplay.from_estimator(wine_model, image_shape=(13, 1), im_kw={"cmap": "PuOr", "vmax": 3})
    assert image.images_[0].get_cmap().name == "PuOr"
    assert image.images_[0].get_clim()[1] == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"image_shape": (3, 4)}, r"whose product is the number of features, 13, got \(3, 4\)"),
        ({"image_shape": (13,)}, r"image_shape must be two numbers .*got \(13,\)"),
        ({"feature_names": ["a", "b"]}, "a name for each of the 13 columns of coef_, got 2"),
        ({"classes": [0, 7]}, r"among estimator.classes_, \[0, 1, 2\], got \[0, 7\]"),
        ({"classes": [0, 0]}, r"different labels among .*got \[0, 0\]"),
        ({"classes": []}, r"got \[\]"),
        ({"n_features": 0}, "n_features must be >= 1, got 0"),
        ({"n_cols": 0}, "n_cols must be >= 1, got 0"),
        ({"display_labels": ["a"]}, "a title for each of the 3 classes shown, got 1"),
        ({"feature_scale": [1.0, 2.0]}, r"for each of the 13 features, got shape \(2,\)"),
        ({"feature_scale": [-1.0] * 13}, "feature_scale must hold a finite number >= 0"),
        ({"ax": np.array([None, None])}, "ax must hold 3 Axes, one for each panel, got 2"),
    ],
)
def test_coefficients_with_wrong_arguments(wine_model, arguments, message):
    with pytest.raises(ValueError, match=message):
        CoefficientDisplay.from_estimator(wine_model, **arguments)


def test_coefficients_of_wrong_models(wine):
    X, y = wine
    with pytest.raises(NotFittedError):
        CoefficientDisplay.from_estimator(SoftmaxClassifier())
    with pytest.raises(NotFittedError):
        CoefficientDisplay.from_estimator(make_pipeline(StandardScaler(), SoftmaxClassifier()))
    one_vs_rest = OneVsRestClassifier(LinearSVC(random_state=0)).fit(StandardScaler().fit_transform(X), y)
    with pytest.raises(TypeError, match=r"linear classifier with coef_ and classes_.* got OneVsRestClassifier"):
        CoefficientDisplay.from_estimator(one_vs_rest)


# --- calibration ------------------------------------------------------------------------------------------

#: Two bins: of confidences .6, .7, .8 (one of three right), and 1 (right).
Y_TINY = [0, 1, 1, 0]
PROBA_TINY = np.array([[0.6, 0.4], [0.7, 0.3], [0.8, 0.2], [1.0, 0.0]])


def tiny(**arguments):
    return CalibrationComparisonDisplay.from_predictions(Y_TINY, {"tiny": PROBA_TINY}, **arguments).curves[0]


def test_calibration_error_by_hand():
    curve = tiny(n_bins=5)
    assert_allclose(curve.share, [0, 0, 0.25, 0.5, 0.25])  # a bin has its right border: .6 is in (.4, .6]
    assert_allclose(curve.confidence, [np.nan, np.nan, 0.6, 0.75, 1.0])
    assert_allclose(curve.accuracy, [np.nan, np.nan, 1.0, 0.0, 1.0])
    assert curve.calibration_error == pytest.approx(0.25 * 0.4 + 0.5 * 0.75)
    assert tiny(n_bins=1).calibration_error == pytest.approx(abs(3.1 / 4 - 0.5))


def test_weights_are_rows():
    curve = tiny(n_bins=5, sample_weight=[1, 2, 0, 3])
    rows = [0, 1, 1, 3, 3, 3]
    repeated = CalibrationComparisonDisplay.from_predictions(
        np.take(Y_TINY, rows), {"tiny": PROBA_TINY[rows]}, n_bins=5
    ).curves[0]
    for got, want in zip(curve[1:5] + curve[6:], repeated[1:5] + repeated[6:], strict=True):  # but for the intervals
        assert_allclose(got, want, rtol=1e-12)


def test_log_loss_is_scikit_learns():
    rng = np.random.RandomState(0)
    proba = rng.dirichlet(np.ones(3), 50)
    y, weight = rng.randint(3, size=50), rng.uniform(size=50)
    proba[0] = np.eye(3)[1 - y[0]]  # a true class of probability 0
    curve = CalibrationComparisonDisplay.from_predictions(y, {"p": proba}, sample_weight=weight).curves[0]
    assert curve.log_loss == pytest.approx(log_loss(y, proba, sample_weight=weight), rel=1e-12)


def test_intervals_are_wilsons():
    n, k = 40, 10
    y, proba = np.r_[np.zeros(k), np.ones(n - k)].astype(int), np.tile([0.9, 0.1], (n, 1))
    curve = CalibrationComparisonDisplay.from_predictions(y, {"p": proba}, n_bins=1).curves[0]
    for bound in curve.interval[:, 0]:  # where the share found is 1.96 of its own standard deviations away
        assert abs(bound - k / n) == pytest.approx(1.96 * np.sqrt(bound * (1 - bound) / n), rel=1e-9)


def test_calibration_lines_are_the_curves_and_the_legend_has_the_numbers():
    display = CalibrationComparisonDisplay.from_predictions(Y_TINY, {"$a": PROBA_TINY, "b": 1 - PROBA_TINY}, n_bins=5)
    for line, curve in zip(display.lines_, display.curves, strict=True):
        assert_array_equal(line.get_xdata(), curve.confidence)
        assert_array_equal(line.get_ydata(), curve.accuracy)
    assert len({line.get_color() for line in display.lines_}) == 2
    a, b = display.curves
    assert legend_texts(display.ax_) == [
        f"$a: ECE {a.calibration_error:.3f}, log loss {a.log_loss:.3f}",
        f"b: ECE {b.calibration_error:.3f}, log loss {b.log_loss:.3f}",
    ]
    steps = [patch.get_data() for patch in display.axes_["histogram"].patches]
    assert_array_equal(steps[0].values, a.share)
    assert_nothing_is_cut(display.figure_)


def test_a_softmax_is_calibrated_where_one_vs_rest_is_not():
    X, y = make_blobs(4000, centers=[[-2, 0], [0, 0], [2, 0]], random_state=0)
    X = pd.DataFrame(X, columns=["a", "b"])
    y = np.array(["left", "middle", "right"])[y]
    models = {
        "softmax": SoftmaxClassifier(random_state=0),
        "one-vs-rest": OneVsRestClassifier(LogisticRegression()),
        "sgd": make_pipeline(StandardScaler(), SGDClassifier(loss="log_loss", random_state=0)),
    }
    for model in models.values():
        model.fit(X[:2000], y[:2000])
    display = CalibrationComparisonDisplay.from_estimators(models, X[2000:], y[2000:])
    softmax, *rest = display.curves
    assert [curve.name for curve in display.curves] == list(models)
    assert softmax.calibration_error < 0.03
    assert min(curve.calibration_error for curve in rest) > 0.06
    assert softmax.log_loss < min(curve.log_loss for curve in rest) - 0.05


def test_classes_are_the_columns_in_the_order_given():
    labels = np.array(["b", "a"])[Y_TINY]
    curve = CalibrationComparisonDisplay.from_predictions(labels, {"tiny": PROBA_TINY}, classes=["b", "a"], n_bins=5)
    assert curve.curves[0].calibration_error == tiny(n_bins=5).calibration_error


def test_a_second_classifier_goes_to_the_same_panels_and_one_axes_takes_the_diagram():
    first = CalibrationComparisonDisplay.from_predictions(Y_TINY, {"first": PROBA_TINY})
    second = CalibrationComparisonDisplay.from_predictions(Y_TINY, {"second": PROBA_TINY}, ax=first.axes_)
    assert first.lines_[0].get_color() != second.lines_[0].get_color()
    assert len(legend_texts(first.ax_)) == 2
    assert sum(line.get_label() == "_calibrated" for line in first.ax_.get_lines()) == 1
    _, ax = plt.subplots()
    ax.plot([0.5], [0.5], label="the caller's own")
    alone = CalibrationComparisonDisplay.from_predictions(Y_TINY, {"alone": PROBA_TINY}, ax=ax, line_kw={"lw": 3})
    assert list(alone.axes_) == ["reliability"]
    assert any(line.get_label() == "_calibrated" for line in ax.get_lines())
    assert alone.lines_[0].get_linewidth() == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_bins": 0}, "n_bins must be >= 1, got 0"),
        ({"classes": [0, 1, 2]}, "a column for each of the 3 classes, got 2 for 'tiny'"),
        ({"classes": [0, 2]}, r"labels of the classes \[0, 2\] only, got \[1\] as well; leave these rows out"),
        ({"sample_weight": [1, 1, 1, -1]}, "sample_weight must not be negative"),
        ({"sample_weight": [0, 0, 0, 0]}, "sample_weight must be positive|at least one non-zero"),
        ({"sample_weight": [1, 1]}, "sample_weight"),
        ({"ax": {"diagram": None}}, "ax must have keys among .*'reliability', 'histogram'"),
    ],
)
def test_calibration_with_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        tiny(**arguments)


@pytest.mark.parametrize(
    ("proba", "message"),
    [
        (2 * PROBA_TINY, "must be >= 0 and sum to 1 in each row, got a minimum of 0, and sums from 2 to 2, for 'p'"),
        (np.add(PROBA_TINY, [0.5, -0.5]), "got a minimum of -0.5"),
        (np.full((4, 2), np.nan), "probabilities of 'p' contains NaN"),
        (PROBA_TINY[:3], "inconsistent numbers of samples"),
        (PROBA_TINY[:, 1], "Expected 2D array"),
    ],
)
def test_calibration_of_what_are_no_probabilities(proba, message):
    with pytest.raises(ValueError, match=message):
        CalibrationComparisonDisplay.from_predictions(Y_TINY, {"p": proba})


def test_calibration_of_wrong_models(wine):
    X, y = wine
    with pytest.raises(NotFittedError):
        CalibrationComparisonDisplay.from_estimators({"a": SoftmaxClassifier()}, X, y)
    with pytest.raises(TypeError, match="must have predict_proba, got RidgeClassifier for 'ridge'"):
        CalibrationComparisonDisplay.from_estimators({"ridge": RidgeClassifier().fit(X, y)}, X, y)


# --- all --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "draw",
    [
        lambda: LossCurveDisplay.from_estimator(SoftmaxClassifier()),
        lambda: LossCurveDisplay([LossCurve("a", np.ones(2))]).plot(),
        lambda: CoefficientDisplay.from_estimator(SoftmaxClassifier()),
        lambda: CoefficientDisplay(np.ones((3, 1)), feature_names=["a"], classes=[0, 1, 2]).plot(),
        lambda: CalibrationComparisonDisplay.from_estimators({}, None, None),
        lambda: CalibrationComparisonDisplay.from_predictions(Y_TINY, {"tiny": PROBA_TINY}),
    ],
)
def test_without_matplotlib_the_error_says_what_to_install(draw, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"pip install matplotlib"):
        draw()


def test_the_pictures_of_the_documentation_are_made(tmp_path):
    made = SimpleNamespace(**runpy.run_path(str(ROOT / "docs" / "make_images.py")))
    made.main(tmp_path)
    assert sorted(path.stem for path in tmp_path.glob("*.png")) == sorted(made.PICTURES)
    for path in tmp_path.glob("*.png"):
        kept = ROOT / "docs" / "images" / path.name
        assert kept.stat().st_size < 60_000
        assert png_size(kept) == png_size(path)


def png_size(path):
    """Width and height in pixels; PNG specification, 11.2.2."""
    return struct.unpack(">II", path.read_bytes()[16:24])
