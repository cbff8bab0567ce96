"""scikit-learn's private names: what happens without each of them."""

import ast
import builtins
import importlib.util
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
from numpy.testing import assert_array_equal
from sklearn.base import BaseEstimator

import sksoftmax
from sksoftmax import _sklearn

ROOT = Path(sksoftmax.__file__).parent


@pytest.fixture
def without(monkeypatch):
    """``(module, *names) -> _sklearn``, made anew where these names of scikit-learn's cannot be imported."""

    def load(module, *names):
        real = builtins.__import__

        def imported(name, *args, **kwargs):
            fromlist = args[2] if len(args) > 2 else kwargs.get("fromlist") or ()
            if name == module and set(names) & set(fromlist or ()):
                raise ImportError(f"cannot import name {names[0]!r}", name=module)
            return real(name, *args, **kwargs)

        spec = importlib.util.spec_from_file_location("sksoftmax_sklearn_without", ROOT / "_sklearn.py")
        copy = importlib.util.module_from_spec(spec)
        with monkeypatch.context() as patch:
            patch.setattr(builtins, "__import__", imported)
            spec.loader.exec_module(copy)
        return copy

    return load


def test_all_of_them_are_in_one_module():
    for path in ROOT.rglob("*.py"):
        if path == ROOT / "_sklearn.py":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("sklearn"):
                parts = [*node.module.split("."), *(alias.name for alias in node.names)]
                assert not [part for part in parts if part.startswith("_")], f"{path}: {node.module}"


@pytest.mark.parametrize(
    ("module", "name"), [("sklearn.utils._param_validation", "Interval"), ("sklearn.base", "_fit_context")]
)
def test_without_checks_of_parameters_the_import_fails_and_says_what_to_install(module, name, without):
    with pytest.raises(ImportError, match=r"upgrade sksoftmax, or install scikit-learn 1\.9"):
        without(module, name)


def test_without_callbacks_methods_are_as_they_are(without):
    names = without("sklearn.callback", "CallbackSupportMixin")
    assert names.with_callbacks(len) is len
    assert not hasattr(names.CallbackSupportMixin(), "set_callbacks")


@pytest.mark.parametrize("is_ours", [False, True])
def test_coefficients_become_sparse_and_dense_again(is_ours, without):
    names = without("sklearn.linear_model._base", "SparseCoefMixin") if is_ours else _sklearn

    class Model(names.SparseCoefMixin, BaseEstimator):
        def fit(self):
            raise NotImplementedError

    model = Model()
    model.coef_ = np.array([[1.0, 0.0]])
    assert model.sparsify() is model
    assert sp.issparse(model.coef_)
    assert model.densify() is model
    assert_array_equal(model.coef_, [[1.0, 0.0]])


def test_without_namespaces_arrays_of_other_libraries_become_numpys(without):
    class Array:
        def __dlpack__(self):
            raise AssertionError

    assert without("sklearn.utils._array_api", "get_namespace").namespace_of(Array()) is None


def test_without_routing_there_is_none(without):
    names = without("sklearn.utils._metadata_requests", "_routing_enabled")
    assert not names.routing_enabled()
    names.raise_for_params({}, None, "fit")
    with pytest.raises(ValueError, match=r"fit takes no parameters for other objects, got \['groups'\]"):
        names.raise_for_params({"groups": [1]}, None, "fit")


@pytest.mark.parametrize("is_ours", [False, True])
def test_parameters_of_rows(is_ours, without):
    names = without("sklearn.utils.validation", "_check_method_params") if is_ours else _sklearn
    X, rows = np.zeros((3, 2)), np.array([0, 2])
    found = names.index_params(X, {"groups": np.array([5, 6, 7]), "other": "none"}, rows)
    assert_array_equal(found["groups"], [5, 7])
    assert found["other"] == "none"


@pytest.mark.parametrize("is_ours", [False, True])
@pytest.mark.parametrize("X", [[[1.0], [2.0]], np.zeros((2, 5)), sp.csr_array((2, 5))], ids=["list", "array", "sparse"])
def test_the_number_of_rows(X, is_ours, without):
    names = without("sklearn.utils.validation", "_num_samples") if is_ours else _sklearn
    assert names.count_samples(X) == 2
