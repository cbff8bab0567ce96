"""The addresses of the project stand once, in pyproject.toml; what repeats them is made from there."""

import importlib.metadata
import importlib.util
import tomllib
from email.message import Message
from pathlib import Path

import pytest

import sksoftmax
from sksoftmax import SoftmaxClassifier, SoftmaxClassifierCV, _version
from sksoftmax.dask import DaskSoftmaxClassifier

ROOT = Path(__file__).parent.parent
URLS = {"Repository": "https://code.example/sksoftmax", "Documentation": "https://docs.example/sksoftmax"}


def _script():
    spec = importlib.util.spec_from_file_location("addresses", ROOT / "docs" / "addresses.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _project():
    with (ROOT / "pyproject.toml").open("rb") as file:
        return tomllib.load(file)["project"]


@pytest.fixture(params=[{}, URLS], ids=["no addresses", "addresses"])
def urls(request, monkeypatch):
    """Addresses with which the package is installed."""
    message = Message()
    for name, url in request.param.items():
        message["Project-URL"] = f"{name}, {url}"
    monkeypatch.setattr(_version, "metadata", lambda name: message)
    return request.param


def test_an_address_is_that_of_the_installed_package(urls):
    for name in URLS:
        assert _version.address(name) == urls.get(name, "")


@pytest.mark.parametrize("estimator", [SoftmaxClassifier(), SoftmaxClassifierCV(), DaskSoftmaxClassifier()])
def test_the_html_representation_links_to_the_classs_page(estimator, urls):
    name = type(estimator).__name__
    page = f"sksoftmax.dask.{name}" if name.startswith("Dask") else f"sksoftmax.{name}"
    assert (ROOT / "docs" / "api" / f"{page}.rst").exists()
    html = estimator._repr_html_()
    if urls:
        assert f'href="{URLS["Documentation"]}/api/{page}.html"' in html
    else:
        assert estimator._get_doc_link() == ""
        assert "href=" not in html


def test_readme_and_citation_have_the_addresses_of_pyproject():
    script, urls = _script(), _project().get("urls", {})
    for name, write in (("README.md", script.with_badges), ("CITATION.cff", script.with_citation)):
        text = (ROOT / name).read_text(encoding="utf-8")
        assert write(text, urls) == text


def test_addresses_come_into_readme_and_citation_and_go_again():
    script, urls = _script(), _project().get("urls", {})
    readme, citation = ((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "CITATION.cff"))
    longer = script.with_badges(readme, URLS)
    assert "[documentation](https://docs.example/sksoftmax)" in longer
    assert "(https://code.example/sksoftmax/actions/workflows/tests.yml/badge.svg)" in longer
    assert script.with_badges(longer, urls) == readme
    longer = script.with_citation(citation, URLS)
    assert 'repository-code: "https://code.example/sksoftmax"\nurl: "https://docs.example/sksoftmax"\n' in longer
    assert script.with_citation(longer, urls) == citation


def test_a_releases_readme_links_to_the_files_of_its_version():
    script = _script()
    text = "[a](docs/a.md#b) ![c](docs/c.png) [d](https://other.example/d.md) [e](#e)"
    assert script.with_absolute_links(text, {}, "1.0") == text
    assert script.with_absolute_links(text, URLS, "1.0") == (
        "[a](https://code.example/sksoftmax/blob/v1.0/docs/a.md#b) "
        "![c](https://code.example/sksoftmax/raw/v1.0/docs/c.png) [d](https://other.example/d.md) [e](#e)"
    )


def test_the_installed_package_has_the_addresses_of_pyproject():
    if importlib.metadata.version("sksoftmax") != _project()["version"]:
        pytest.skip("another version is installed")
    for name, url in _project().get("urls", {}).items():
        assert sksoftmax._version.address(name) == url
