"""The layout: a module imports only from floors below it, and foreign packages only where they belong."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import sksoftmax

ROOT = Path(sksoftmax.__file__).parent

FLOORS = [
    ["_types", "_version"],
    ["_device"],
    ["_vectorized", "_array_api", "_loops", "_batches", "_schedules", "_stopping", "_threads", "_lanes"],
    ["_objective", "_compiled_row"],
    ["_precondition", "_compiled", "_narrow", "_interior_point"],
    ["_pieces"],
    ["_solvers._rows"],
    ["_curvature", "_newton", "_solvers._first_order", "_solvers._centre", "_solvers._metric"],
    ["_solvers._certificate", "_saturation"],
    ["_proximal"],
    [
        "_solvers.sgd",
        "_solvers.adagrad",
        "_solvers.adam",
        "_solvers.dual",
        "_solvers.lbfgs",
        "_solvers.newton",
        "_solvers.preconditioned_sgd",
        "_solvers.proximal_newton",
        "_solvers.schedule_free",
    ],
    ["_plan", "_validation"],
    ["_placement"],
    ["_train", "loss", "verify", "_sources", "_targets"],
    ["_fit"],
    ["_stream", "_sweep", "_watching", "_predictions"],
    ["_sklearn_model", "_state"],
    ["_classifier"],
    ["_classifier_cv"],
    ["dask", "onnx", "plotting._parts"],
    ["plotting._calibration", "plotting._coefficients", "plotting._loss_curve"],
    ["plotting.__init__"],
    ["__init__"],
    ["__main__"],
]

#: Modules that may import scikit-learn; everything else is NumPy and SciPy.
SKLEARN_IMPORTERS = {
    "_validation",
    "_sklearn_model",
    "_targets",
    "_predictions",
    "_classifier",
    "_classifier_cv",
    "dask",
    "onnx",
    "plotting._parts",
    "plotting._calibration",
    "plotting._coefficients",
    "__main__",
}

#: Modules that may import numba; those that import them are imported only inside the functions that need them.
NUMBA_IMPORTERS = {"_lanes"}


def _imports(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield node.module, f"{node.module}.{alias.name}"
        elif isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, alias.name


def _modules():
    for path in sorted(ROOT.rglob("*.py")):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        if name != "_solvers.__init__":
            yield name, path


def test_every_module_stands_on_one_floor():
    named = [name for floor in FLOORS for name in floor]
    assert sorted(named) == sorted(name for name, _ in _modules())


def test_every_module_is_on_the_map_of_those_who_contribute():
    page = (Path(__file__).parent.parent / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row.split("|")[1])}
    assert named == {name for name, _ in _modules() if "." not in name}  # folders have a row each
    folders = {name for row in rows for name in re.findall(r"`(\w+)/`", row.split("|")[1])}
    assert folders == {path.parent.name for _, path in _modules() if path.parent != ROOT}


def test_a_module_imports_only_from_floors_below():
    floor_of = {name: i for i, floor in enumerate(FLOORS) for name in floor}
    for name, path in _modules():
        for module, full in _imports(path):
            if not module.startswith("sksoftmax"):
                continue
            names = (full.removeprefix("sksoftmax."), module.removeprefix("sksoftmax."), "__init__")
            target = next(t for t in names if t in floor_of)
            assert floor_of[target] < floor_of[name], f"{name} imports {target}"


def test_scikit_learn_is_imported_only_at_the_border():
    importers = {name for name, path in _modules() if any(m.split(".")[0] == "sklearn" for m, _ in _imports(path))}
    assert importers == SKLEARN_IMPORTERS


def test_numba_is_imported_only_where_kernels_are_made():
    foreign = {"numba", "llvmlite"}
    importers = {name for name, path in _modules() if any(m.split(".")[0] in foreign for m, _ in _imports(path))}
    assert importers == NUMBA_IMPORTERS


def test_dask_is_imported_by_its_own_module_only():
    foreign = {"dask", "distributed"}
    importers = {name for name, path in _modules() if any(m.split(".")[0] in foreign for m, _ in _imports(path))}
    assert importers == {"dask"}


def test_matplotlib_is_imported_in_one_module():
    importers = {name for name, path in _modules() if any(m.split(".")[0] == "matplotlib" for m, _ in _imports(path))}
    assert importers == {"plotting._parts"}


def test_skl2onnx_is_imported_by_its_own_module_only():
    foreign = {"skl2onnx", "onnx", "onnxruntime"}
    importers = {name for name, path in _modules() if any(m.split(".")[0] in foreign for m, _ in _imports(path))}
    assert importers == {"onnx"}


@pytest.mark.parametrize("name", ["sksoftmax", "sksoftmax.plotting"])
def test_importing_a_module_does_not_import_its_extras(name):
    extras = ("numba", "llvmlite", "dask", "distributed", "matplotlib", "skl2onnx", "onnx", "onnxruntime")
    code = f"import sys, {name}; print([m for m in {extras} if m in sys.modules])"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"


def test_importing_the_package_imports_nothing_foreign_beyond_scikit_learns_linear_model():
    code = """
import sys, sklearn.linear_model
before = set(sys.modules)
import sksoftmax
extras = {"numba", "llvmlite", "dask", "distributed", "matplotlib"}
print(sorted(extras & set(sys.modules)))
added = {name.split(".")[0] for name in set(sys.modules) - before}
print(sorted(added - sys.stdlib_module_names))
"""
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.splitlines() == ["[]", "['sksoftmax']"]


def test_random_numbers_are_drawn_in_one_module():
    drawing = (".permutation(", ".choice(", ".standard_normal(", ".uniform(", ".shuffle(", ".random(")
    users = {name for name, path in _modules() if any(d in path.read_text(encoding="utf-8") for d in drawing)}
    assert users == {"_batches"}
