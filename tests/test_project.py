"""What the files around the package say of it holds: versions, steps of .ci/run, pinned actions."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))

needs_repository = pytest.mark.skipif(not WORKFLOWS, reason="not in a source distribution")


def _project():
    with (ROOT / "pyproject.toml").open("rb") as file:
        return tomllib.load(file)["project"]


def test_classifiers_name_each_python_from_the_oldest():
    minors = [int(found[1]) for c in _project()["classifiers"] if (found := re.fullmatch(r".* :: 3\.(\d+)", c))]
    assert _project()["requires-python"] == f">=3.{minors[0]}"
    assert minors == list(range(minors[0], minors[0] + len(minors)))


def test_the_page_of_supported_versions_has_pyprojects_minimums():
    text = (ROOT / "docs" / "versions.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| (\S+) \| ([\d.]+) \|$", text, re.MULTILINE))
    assert rows.pop("Python") == _project()["requires-python"].removeprefix(">=")
    assert rows == dict(requirement.split(">=") for requirement in _project()["dependencies"])


def test_the_citation_is_of_this_version():
    text = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert re.search(r"^version: (\S+)$", text, re.MULTILINE)[1] == _project()["version"]


@needs_repository
@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_actions_are_pinned_by_commit(path):
    for action in re.findall(r"uses: (.*)", path.read_text(encoding="utf-8")):
        pinned, own = r"[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", r"\$/\.github/workflows/\w+\.yml"
        assert re.fullmatch(f"{pinned}|{own}", action)


@needs_repository
def test_the_workflows_run_every_step_of_ci_run():
    steps = re.search(r"^STEPS=\((.*)\)$", (ROOT / ".ci" / "run").read_text(encoding="utf-8"), re.MULTILINE)[1].split()
    text = "\n".join(path.read_text(encoding="utf-8") for path in WORKFLOWS)
    assert set(re.findall(r"(?:step: \[?|\.ci/run )(\w+)", text)) == set(steps)


@needs_repository
def test_the_workflows_run_the_oldest_and_the_newest_python():
    minors = re.findall(r"Python :: (3\.\d+)", "\n".join(_project()["classifiers"]))
    text = (ROOT / ".github" / "workflows" / "tests.yml").read_text(encoding="utf-8")
    assert f'python: ["{minors[0]}", "{minors[-1]}"]' in text
