"""The layout: a module imports only from floors below it, and foreign packages only where they belong."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import sksoftmax

ROOT = Path(sksoftmax.__file__).parent

#: The layers from the bottom up, and the modules of each, of which every one imports only from those before it.
LAYERS = {
    "": ["_types", "_version", "_sklearn"],
    "_engines": [
        "device",
        "threads",
        "naive",
        "vectorized",
        "array_api",
        "compiled",
        "moments",
        "registry",
    ],
    "_maths": [
        "objective",
        "interior_point",
        "quadratic_l1",
        "preconditioner",
        "reduction",
        "row_sampling",
        "curvature",
        "class_curvature",
        "newton_direction",
        "saturation",
        "proximal",
    ],
    "_solvers": [
        "schedules",
        "_first_order",
        "sgd",
        "adagrad",
        "adam",
        "preconditioned_sgd",
        "schedule_free",
        "_line_search",
        "lbfgs",
        "_hessian_sample",
        "first_steps",
        "newton",
        "proximal_newton",
        "sag",
        "_rounds",
        "_dual_data",
        "_prox_center",
        "_prox_weights",
        "_dual_state",
        "_certificate",
        "_dual_finish",
        "dual",
    ],
    "_data": [
        "batches",
        "chunks",
        "arrays",
        "labels",
        "parameter_names",
        "validation",
        "placement",
        "targets",
        "totals",
        "out_of_core",
    ],
    "_training": [
        "stopping",
        "settings",
        "newton_stage",
        "tolerance",
        "start",
        "named_solvers",
        "lazy_solver",
        "plan",
        "loop",
        "fit",
        "callbacks",
        "path",
        "stream",
    ],
    "_model": ["conversion", "predictions", "serialization"],
    "estimators": ["loss", "verify", "_classifier", "_classifier_cv", "onnx"],
    "_cluster": ["partitions", "client"],
    "cluster": ["dask"],
    "plotting": ["_parts", "_calibration", "_coefficients", "_loss_curve", "__init__"],
    "package": ["__init__", "__main__"],
}

#: Groups of modules that have no folder.
LOOSE = ("", "estimators", "cluster", "package")

#: Modules that may import scikit-learn; everything else is NumPy and SciPy.
SKLEARN_IMPORTERS = {
    "_sklearn",
    "_solvers.sag",
    "_data.arrays",
    "_data.labels",
    "_data.validation",
    "_data.targets",
    "_model.conversion",
    "_model.predictions",
    "_classifier",
    "_classifier_cv",
    "dask",
    "onnx",
    "plotting._parts",
    "plotting._calibration",
    "plotting._coefficients",
    "__main__",
}

#: Modules that may import the kernels, which an installation may lack.
KERNEL_IMPORTERS = {"_engines.compiled"}


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
        if path.name != "__init__.py" or path.parent.name in ("sksoftmax", "plotting"):
            yield name, path


def _in_order():
    """All modules by their names, from the bottom up."""
    return [name if layer in LOOSE else f"{layer}.{name}" for layer, names in LAYERS.items() for name in names]


def test_every_module_stands_in_one_layer():
    assert sorted(_in_order()) == sorted(name for name, _ in _modules())


def test_every_module_is_on_the_map():
    page = (Path(__file__).parent.parent / "ARCHITECTURE.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1] for line in page.splitlines() if line.startswith("| `")]
    named = {name for row in rows for name in re.findall(r"`([\w/]+)`", row)}
    assert named == {name.replace(".", "/") for name in _in_order()}


def test_a_module_imports_only_from_layers_below_and_from_modules_before_it():
    place = {name: i for i, name in enumerate(_in_order())}
    for name, path in _modules():
        for module, full in _imports(path):
            if not module.startswith("sksoftmax"):
                continue
            names = (full.removeprefix("sksoftmax."), module.removeprefix("sksoftmax."), f"{module}.__init__")
            target = next((t.removeprefix("sksoftmax.") for t in names if t.removeprefix("sksoftmax.") in place), None)
            target = target or "__init__"
            assert place[target] < place[name], f"{name} imports {target}"


def test_scikit_learn_is_imported_only_at_the_border():
    importers = {name for name, path in _modules() if any(m.split(".")[0] == "sklearn" for m, _ in _imports(path))}
    assert importers == SKLEARN_IMPORTERS


def test_the_kernels_are_imported_by_their_engine_only():
    importers = {name for name, path in _modules() if any(m == "_sksoftmax_kernels" for m, _ in _imports(path))}
    assert importers == KERNEL_IMPORTERS


def test_dask_is_imported_by_its_own_modules_only():
    importers = {
        foreign: {name for name, path in _modules() if any(m.split(".")[0] == foreign for m, _ in _imports(path))}
        for foreign in ("dask", "distributed")
    }
    assert importers == {"dask": {"dask"}, "distributed": {"dask", "_cluster.client"}}


def test_matplotlib_is_imported_in_one_module():
    importers = {name for name, path in _modules() if any(m.split(".")[0] == "matplotlib" for m, _ in _imports(path))}
    assert importers == {"plotting._parts"}


def test_skl2onnx_is_imported_by_its_own_module_only():
    foreign = {"skl2onnx", "onnx", "onnxruntime"}
    importers = {name for name, path in _modules() if any(m.split(".")[0] in foreign for m, _ in _imports(path))}
    assert importers == {"onnx"}


@pytest.mark.parametrize("name", ["sksoftmax", "sksoftmax.plotting"])
def test_importing_a_module_does_not_import_its_extras(name):
    extras = ("dask", "distributed", "matplotlib", "skl2onnx", "onnx", "onnxruntime")
    code = f"import sys, {name}; print([m for m in {extras} if m in sys.modules])"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"


def test_importing_the_package_imports_nothing_foreign_beyond_scikit_learns_linear_model():
    code = """
import sys, sklearn.linear_model
before = set(sys.modules)
import sksoftmax
extras = {"dask", "distributed", "matplotlib"}
print(sorted(extras & set(sys.modules)))
added = {name.split(".")[0] for name in set(sys.modules) - before}
print(sorted(added - sys.stdlib_module_names))
"""
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.splitlines() in (["[]", "['_sksoftmax_kernels', 'sksoftmax']"], ["[]", "['sksoftmax']"])


def test_random_numbers_are_drawn_in_one_module():
    drawing = (".permutation(", ".choice(", ".standard_normal(", ".uniform(", ".shuffle(", ".random(")
    users = {name for name, path in _modules() if any(d in path.read_text(encoding="utf-8") for d in drawing)}
    assert users == {"_data.batches", "_maths.class_curvature"}  # the latter with a fixed seed
