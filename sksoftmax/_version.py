"""The version that runs, and the addresses of the project.

Saved models hold the version; the HTML representation of estimators links to the documentation.
"""

from importlib.metadata import metadata, version

__version__ = version("sksoftmax")


def address(name: str) -> str:
    """Return the address of this name in ``[project.urls]`` of pyproject.toml, or "" if it has none."""
    labels_and_urls = (entry.split(", ", 1) for entry in metadata("sksoftmax").get_all("Project-URL") or [])
    return dict(labels_and_urls).get(name, "")
