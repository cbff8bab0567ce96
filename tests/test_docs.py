"""Every example of the documentation runs, and says what it prints."""

import doctest
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DISPLAYS = ["plotting._calibration", "plotting._coefficients", "plotting._loss_curve"]
FLAGS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS


@pytest.mark.parametrize("name", ["README.md", "docs/derivation.md", "docs/watching.md"])
def test_examples_of_the_pages(name):
    results = doctest.testfile(str(ROOT / name), module_relative=False, optionflags=FLAGS, encoding="utf-8")
    assert results.failed == 0
    assert results.attempted > 10


@pytest.mark.parametrize("name", ["loss", "verify", "_classifier", "dask", *DISPLAYS])
def test_examples_of_the_docstrings(name):
    results = doctest.testmod(importlib.import_module(f"sksoftmax.{name}"), optionflags=FLAGS)
    assert results.failed == 0
    assert results.attempted > 0


def test_the_readmes_tables_are_those_that_their_csv_files_give():
    from benchmarks.readme_table import filled

    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "<!-- table: benchmarks/results/bundled.csv -->" in text
    assert filled(text) == text


def test_every_public_name_has_a_docstring_with_shapes_and_errors():
    import sksoftmax

    for name in sksoftmax.__all__:
        doc = getattr(sksoftmax, name).__doc__
        assert "Examples\n" in doc, name
    for method in ("fit", "partial_fit", "predict", "predict_proba", "predict_log_proba", "decision_function"):
        doc = getattr(sksoftmax.SoftmaxClassifier, method).__doc__
        assert "Parameters\n" in doc, method
        assert "Returns\n" in doc, method
        assert "of shape" in doc, method


def test_every_parameter_and_attribute_is_documented():
    import inspect

    from sklearn.datasets import load_iris

    from sksoftmax import SoftmaxClassifier

    doc = inspect.getdoc(SoftmaxClassifier)
    for name in inspect.signature(SoftmaxClassifier).parameters:
        assert f"\n{name} : " in doc or f"{name}, " in doc or f", {name} : " in doc, name
    clf = SoftmaxClassifier(early_stopping=True).fit(*load_iris(return_X_y=True))
    for name in vars(clf):
        if name.endswith("_") and not name.startswith("_"):
            assert f"\n{name} : " in doc, name
