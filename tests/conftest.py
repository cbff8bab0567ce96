from fnmatch import fnmatch

import pytest
import sklearn

from tests import libraries
from tests.libraries import LIBRARIES, dispatch

#: The expected failures are those of this version's tests.
IS_LOGISTIC_TESTED = sklearn.__version__.startswith("1.9.")

collect_ignore = [] if IS_LOGISTIC_TESTED else ["test_sklearn_logistic.py"]


@pytest.fixture
def global_random_seed():
    """The seed that scikit-learn's own tests ask for."""
    return 42


@pytest.fixture(params=LIBRARIES)
def library(request, monkeypatch):
    """A library of arrays, on which scikit-learn dispatches."""
    with dispatch(monkeypatch):
        yield libraries.library(request.param)


def pytest_collection_modifyitems(items):
    if not IS_LOGISTIC_TESTED:
        return
    from tests.test_sklearn_logistic import EXPECTED_FAILURES, MACHINE_DEPENDENT

    for item in items:
        if item.path.name != "test_sklearn_logistic.py":
            continue
        item.add_marker(pytest.mark.filterwarnings("ignore"), append=False)
        for reasons in (EXPECTED_FAILURES, MACHINE_DEPENDENT):
            for pattern, reason in reasons.items():
                if fnmatch(item.name, pattern):
                    item.add_marker(pytest.mark.xfail(reason=reason, strict=reasons is EXPECTED_FAILURES))
