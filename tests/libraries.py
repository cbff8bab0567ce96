"""Arrays of other libraries, for the tests."""

from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import scipy
import sklearn

#: Namespace and device; "device1" is a device of array-api-strict's that NumPy cannot read.
LIBRARIES = {
    "strict": ("array_api_strict", "CPU_DEVICE"),
    "strict device1": ("array_api_strict", "device1"),
    "torch": ("torch", "cpu"),
    **({"torch cuda": ("torch", "cuda:0")} if Path("/dev/nvidia0").exists() else {}),
}


class Library(NamedTuple):
    """A namespace, as it is imported, and a device."""

    xp: Any
    device: Any

    def array(self, values):
        return self.xp.asarray(np.array(values), device=self.device)

    def numpy(self, array):
        assert type(array) is type(self.xp.asarray(0.0)), type(array)
        assert str(array.device) == str(self.device)
        return array.cpu().numpy() if hasattr(array, "cpu") else np.from_dlpack(array)


def library(name):
    """The library; the test is skipped where it is not installed."""
    namespace, device = LIBRARIES[name]
    xp = pytest.importorskip(namespace)
    return Library(xp, xp.Device(device) if namespace == "array_api_strict" else device)


@contextmanager
def dispatch(monkeypatch):
    """scikit-learn dispatching on arrays; the test is skipped where it cannot."""
    if tuple(map(int, scipy.__version__.split(".")[:2])) < (1, 14):
        pytest.skip("scikit-learn dispatches on arrays with SciPy 1.14 and later")
    if sklearn.__version__ < "1.8" and not find_spec("array_api_compat"):
        pytest.skip("scikit-learn before 1.8 dispatches on arrays with array-api-compat")
    monkeypatch.setenv("SCIPY_ARRAY_API", "1")
    with sklearn.config_context(array_api_dispatch=True):
        yield


def wrapped(array):
    """As a fit sees it."""
    return import_module("sksoftmax._data.arrays").wrap_array(array)
