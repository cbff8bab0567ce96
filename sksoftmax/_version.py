"""The version that runs, which is written into saved models, and the addresses of the project."""

from importlib.metadata import metadata, version

__version__ = version("sksoftmax")


def address(name: str) -> str:
    """Return the address of this name in ``[project.urls]`` of pyproject.toml, or "" if it has none."""
    labels_and_urls = (entry.split(", ", 1) for entry in metadata("sksoftmax").get_all("Project-URL") or [])
    return dict(labels_and_urls).get(name, "")
