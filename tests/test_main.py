"""``python -m sksoftmax`` says what a bug report needs, and fails if the package does not work."""

import importlib.metadata
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

import sksoftmax
from sksoftmax import __main__ as command
from sksoftmax._engines import compiled

ROOT = Path(__file__).parent.parent


def test_it_prints_versions_engines_threads_and_the_self_test():
    told = subprocess.run([sys.executable, "-m", "sksoftmax"], capture_output=True, text=True)
    assert told.returncode == 0, told.stderr
    assert told.stderr == ""
    lines = dict(line.split(maxsplit=1) for line in told.stdout.splitlines())
    assert lines["sksoftmax"].startswith(f"{sksoftmax.__version__} (")
    assert lines["numpy"] == np.__version__
    for name in command.REQUIRED:
        assert lines[name] == importlib.metadata.version(name)
    assert lines["engines"].startswith(", ".join(command.KERNELS))
    assert re.match(r"\d+ threads, \w+", lines["blas"])
    assert re.fullmatch(r"largest relative error \S+ by scipy.optimize.check_grad: ok", lines["gradient"])
    assert re.fullmatch(r"F = \S+, \(F - F\*\) / F\* = \S+, F\* LogisticRegression's: ok", lines["fit"])


def test_the_extras_are_those_of_pyproject():
    with (ROOT / "pyproject.toml").open("rb") as file:
        extras = tomllib.load(file)["project"]["optional-dependencies"]
    ours = {"bench", "race", "test", "docs", "dev"}  # of those who work on the package
    named = {
        extra: tuple(re.match(r"[\w-]+", requirement)[0] for requirement in requirements)
        for extra, requirements in extras.items()
        if extra not in ours
    }
    assert named == command.EXTRAS


def test_a_missing_package_is_named_with_the_command_that_installs_it(monkeypatch, capsys):
    def version(name):
        if name == "distributed":
            raise importlib.metadata.PackageNotFoundError(name)
        return importlib.metadata.version(name)

    monkeypatch.setattr(command, "version", version)
    monkeypatch.setattr(compiled, "missing", "No module named '_sksoftmax_kernels'")
    assert command.main() == 0
    out = capsys.readouterr().out
    assert re.search(r"^distributed +not installed; pip install distributed$", out, re.MULTILINE)
    advice = "install a C\\+\\+ compiler, then sksoftmax again"
    assert re.search(rf"^engines +.+; no kernels \(No module named .+\): {advice}$", out, re.MULTILINE)


class _WrongFit(sksoftmax.SoftmaxClassifier):
    def fit(self, X, y):
        super().fit(X, y)
        self.coef_ *= 1.01
        return self


@pytest.mark.parametrize(
    ("name", "wrong", "line"),
    [("check_gradient", lambda *args, **kwargs: 1e-3, "gradient"), ("SoftmaxClassifier", _WrongFit, "fit")],
)
def test_it_fails_where_the_gradient_or_the_fit_is_wrong(name, wrong, line, monkeypatch, capsys):
    monkeypatch.setattr(command, name, wrong)
    assert command.main() == 1
    assert [said.split()[0] for said in capsys.readouterr().out.splitlines() if said.endswith("FAILED")] == [line]


def test_without_any_extra_all_but_the_extras_works():
    code = f"""
import sys
for name in {[name for names in command.EXTRAS.values() for name in names]}:
    sys.modules[name] = None
sys.modules["_sksoftmax_kernels"] = None
import numpy as np, scipy.sparse as sp
from sksoftmax import SoftmaxClassifier, __main__
rng = np.random.RandomState(0)
X, y = sp.random(500, 300, 0.05, "csr", random_state=rng), rng.randint(3, size=500)
for settings in ({{}}, {{"l1_ratio": 0.5}}, {{"solver": "adam"}}, {{"engine": "naive", "max_iter": 1}}):
    SoftmaxClassifier(tol=10.0, **settings).fit(X, y).predict_proba(X)
SoftmaxClassifier().fit_batches([(X, y)]).partial_fit(X, y)
sys.exit(__main__.main())
"""
    told = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True)
    assert told.returncode == 0, told.stderr
    assert "no kernels" in told.stdout
