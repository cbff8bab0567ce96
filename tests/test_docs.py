"""Every example of the documentation runs, and says what it prints."""

import ast
import doctest
import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

import sksoftmax
from sksoftmax._data.validation import PARAMETER_CONSTRAINTS
from tests import libraries

ROOT = Path(__file__).parent.parent
DISPLAYS = ["plotting._calibration", "plotting._coefficients", "plotting._loss_curve"]
FLAGS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS


PAGES_THAT_RUN = [
    "README.md",
    "docs/choosing_alpha.md",
    "docs/deployment.md",
    "docs/derivation.md",
    "docs/from_logistic_regression.md",
    "docs/from_sgd_classifier.md",
    "docs/index.md",
    "docs/larger_than_memory.md",
    "docs/streams.md",
    "docs/watching.md",
    "docs/which_solver.md",
]


@pytest.mark.parametrize("name", PAGES_THAT_RUN)
def test_examples_of_the_pages(name):
    results = doctest.testfile(str(ROOT / name), module_relative=False, optionflags=FLAGS, encoding="utf-8")
    assert results.failed == 0
    assert results.attempted >= 5


def test_examples_of_the_page_on_arrays(monkeypatch):
    pytest.importorskip("torch")
    with libraries.dispatch(monkeypatch):  # sets SCIPY_ARRAY_API=1, as the page says, for a new process
        told = subprocess.run(
            [sys.executable, "-m", "doctest", "-o", "NORMALIZE_WHITESPACE", str(ROOT / "docs/arrays.md"), "-v"],
            capture_output=True,
            text=True,
        )
    assert told.returncode == 0, told.stdout
    assert int(re.search(r"(\d+) passed", told.stdout)[1]) > 10


def test_every_page_with_examples_runs():
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    assert sorted([*PAGES_THAT_RUN, "docs/arrays.md"]) == sorted(
        str(page.relative_to(ROOT)) for page in pages if "\n>>> " in page.read_text(encoding="utf-8")
    )


def _sides(page):
    """Of each diff of the page the code before and after."""
    for diff in re.findall(r"```diff\n(.*?)```", (ROOT / "docs" / page).read_text(encoding="utf-8"), re.DOTALL):
        lines = diff.splitlines()
        yield tuple("\n".join(line[2:] for line in lines if line[:1] in ("", " ", sign)) for sign in "-+")


#: How many times the mean loss of the code before is at least that of the code after, over the same rows.
DIFFS = {"from_logistic_regression.md": [0.5], "from_sgd_classifier.md": [10.0, 10.0], "from_pytorch.md": [1.3]}


@pytest.mark.parametrize(("page", "i"), [(page, i) for page, ratios in DIFFS.items() for i in range(len(ratios))])
def test_both_sides_of_a_pages_diff_run(page, i):
    before, after = list(_sides(page))[i]
    losses = []
    for code in (before, after):
        if "torch" in code:
            pytest.importorskip("torch")
        found = {}
        exec(code, found)  # the pages are ours
        proba, y = found["proba"], found["y"]
        assert np.mean(proba.argmax(axis=1) == y) > 0.7
        losses.append(-np.log(np.maximum(proba[np.arange(len(y)), y], 1e-300)).mean())
    assert losses[0] > DIFFS[page][i] * losses[1]


def test_every_diff_of_the_pages_is_tested():
    pages = {page.name: len(list(_sides(page.name))) for page in (ROOT / "docs").glob("*.md")}
    assert {page: n for page, n in pages.items() if n} == {page: len(ratios) for page, ratios in DIFFS.items()}


def test_a_data_loader_of_the_pytorch_page_can_be_read_again_and_again():
    torch = pytest.importorskip("torch")
    from sklearn.datasets import load_digits
    from torch.utils.data import DataLoader, TensorDataset

    X, y = load_digits(return_X_y=True)
    data = TensorDataset(torch.from_numpy(X), torch.from_numpy(y))
    clf = sksoftmax.SoftmaxClassifier(1e-2, random_state=0).fit_batches(DataLoader(data, batch_size=1000))
    want = sksoftmax.SoftmaxClassifier(1e-2, random_state=0).fit(X, y)
    assert clf.stop_reason_ == "tol"
    np.testing.assert_allclose(clf.predict_proba(X), want.predict_proba(X), atol=0.02)  # each within tol of F's minimum


def test_the_files_that_the_pages_link_to_are_there():
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]:
        for link in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8")):
            if "://" not in link:
                path = (page.parent / link).resolve()
                if path.is_relative_to(ROOT / "sksoftmax"):  # where it is installed
                    path = Path(sksoftmax.__file__).parent / path.relative_to(ROOT / "sksoftmax")
                assert path.exists(), f"{page.name}: {link}"


@pytest.mark.parametrize("name", ["loss", "verify", "_classifier", "_classifier_cv", "dask", "onnx", *DISPLAYS])
def test_examples_of_the_docstrings(name):
    results = doctest.testmod(importlib.import_module(f"sksoftmax.{name}"), optionflags=FLAGS)
    assert results.failed == 0
    assert results.attempted > 0


def test_the_tables_of_the_page_on_benchmarks_are_those_that_their_csv_files_give():
    from benchmarks.race.page_tables import PAGE, TABLES, filled

    text = PAGE.read_text(encoding="utf-8")
    assert all(f"<!-- table: benchmarks/results/{name} -->" in text for name in TABLES)
    assert filled(text) == text


def test_the_readmes_figures_are_those_of_the_races():
    from benchmarks.race.page_tables import groups
    from benchmarks.race.report import geometric_mean

    means, behind = [], []
    race, _, dense, few, _ = groups().values()
    for here in (race, dense, few):
        means.append(geometric_mean((s.sklearn, s.ours) for s in here)[0])
        ratios = [s.sklearn.seconds / s.ours.seconds for s in here]
        behind.append((sum(ratio < 1 for ratio in ratios), len(ratios), 1 / min(ratios)))
    text = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    assert f"**{means[1]:.1f} times sooner** than scikit-learn's best solver on dense" in text
    assert f"and {means[0]:.0f} times sooner on text" in text
    assert means[1] < means[0]  # the first number is the lower one
    assert f"best solver takes {means[2]:.1f} times our time on average" in text
    for number, n, by in behind[1:]:
        assert f"ahead on {number} of {n}" in text
        assert f"by up to {by:.1f} times" in text
    assert behind[0][0] == 0


# --- the reference: every public name, parameter, attribute and error --------------------------------------------


def _public():
    """Names and objects: those of the package, and those that its public modules define."""
    for name in sksoftmax.__all__:
        yield name, getattr(sksoftmax, name)
    for module in pkgutil.iter_modules(sksoftmax.__path__):
        if module.name.startswith("_"):
            continue
        found = importlib.import_module(f"sksoftmax.{module.name}")
        for name, value in vars(found).items():
            is_its_own = getattr(value, "__module__", None) == found.__name__ and name not in sksoftmax.__all__
            if is_its_own and callable(value) and not name.startswith("_"):
                yield f"{module.name}.{name}", value


def _methods():
    for name, value in _public():
        if inspect.isclass(value):
            for key, member in vars(value).items():
                member = getattr(member, "__func__", member)
                if inspect.isfunction(member) and not key.startswith("_"):
                    yield f"{name}.{key}", member


PUBLIC = dict(_public())
FUNCTIONS = {name: value for name, value in PUBLIC.items() if inspect.isfunction(value)} | dict(_methods())
CLASSES = {name: value for name, value in PUBLIC.items() if inspect.isclass(value)}


def _sections(value):
    """The docstring's sections by their headings."""
    parts = re.split(r"^(\w[\w ]*)\n-{3,}\n", inspect.cleandoc(value.__doc__), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def _entries(section):
    """Names to types and descriptions of a section of parameters or attributes."""
    found = {}
    for names, kind, text in re.findall(r"^(\S[^:\n]*)(?: : (.*))?\n((?:[ \n].*\n?)*)", section + "\n", re.MULTILINE):
        found |= {name.strip(): (kind, text.strip()) for name in names.split(",")}
    return found


def _parameters(value):
    return [name for name in inspect.signature(value).parameters if name not in ("self", "cls")]


def test_the_reference_has_every_public_name():
    pages = [ROOT / "docs" / "api.rst", *(ROOT / "docs" / "api").glob("*.rst")]  # an estimator has a page of its own
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages)
    assert {"SoftmaxClassifier", "check_gradient", "dask.DaskSoftmaxClassifier"} <= set(PUBLIC)
    for name in PUBLIC:
        assert re.search(rf"auto(class|function):: {name.split('.')[-1]}$", text, re.MULTILINE), name
    for name in dict(_methods()):
        assert re.search(rf"\b{name.split('.')[-1]}\b", text), name


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_functions_docstring_has_its_parameters_returns_and_errors(name):
    function = FUNCTIONS[name]
    sections = _sections(function)
    entries = {name.lstrip("*"): entry for name, entry in _entries(sections.get("Parameters", "")).items()}
    assert list(entries) == _parameters(function)
    for parameter, (kind, text) in entries.items():
        assert kind, parameter
        if "array" in kind:
            assert "of shape" in kind, parameter
        default = inspect.signature(function).parameters[parameter].default
        assert (default is inspect.Parameter.empty) == ("default=" not in kind), parameter
        assert text or "of shape" in kind, parameter
    assert ("Returns" in sections) == (inspect.signature(function).return_annotation not in (None, "None"))
    source = ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(function))))
    if "X" in entries or any(isinstance(node, ast.Raise) for node in ast.walk(source)):  # any X can be wrong
        assert "Raises" in sections


@pytest.mark.parametrize("name", CLASSES)
def test_a_classs_docstring_has_its_parameters(name):
    kind = CLASSES[name]
    sections = _sections(kind)
    if issubclass(kind, tuple):
        assert list(_entries(sections["Attributes"])) == list(kind._fields)
    elif "__init__" in vars(kind):
        entries = _entries(sections["Parameters"])
        assert list(entries) == _parameters(kind)
        for parameter, (described, text) in entries.items():
            assert "default=" in described, parameter
            assert text, parameter
    else:  # its parameters are those of the class that it says
        base = kind.__mro__[1]
        assert base in CLASSES.values()
        assert f"``{base.__name__}``" in kind.__doc__


@pytest.mark.parametrize("name", ["solver", "engine", "schedule"])
def test_every_choice_of_a_parameter_is_documented(name):
    kind, text = _entries(_sections(sksoftmax.SoftmaxClassifier)["Parameters"])[name]
    for choice in PARAMETER_CONSTRAINTS[name][0].options:
        assert f'"{choice}"' in kind
        assert f'"{choice}"' in text or name == "schedule"


@pytest.mark.parametrize("name", sksoftmax.__all__)
def test_every_name_of_the_package_has_an_example(name):
    assert ">>> " in _sections(getattr(sksoftmax, name))["Examples"]


def test_every_fitted_attribute_is_documented():
    from sklearn.datasets import load_iris

    X, y = load_iris(return_X_y=True)
    clf = sksoftmax.SoftmaxClassifier(early_stopping=True).fit(X, y)
    entries = _entries(_sections(sksoftmax.SoftmaxClassifier)["Attributes"])
    fitted = {name for name in vars(clf) if name.endswith("_") and not name.startswith("_")}
    assert fitted | {"feature_names_in_"} == set(entries)
    for name, (kind, text) in entries.items():
        assert kind, name
        assert text, name
        assert ("of shape" in kind) == isinstance(getattr(clf, name, np.zeros(4)), np.ndarray), name
