"""Write the addresses of pyproject.toml to the files that repeat them: ``python docs/addresses.py``.

The addresses are those of ``[project.urls]``; README.md and CITATION.cff repeat them.

With ``--for-release``, make README.md's relative links absolute instead: a release's page has no other files of the
repository. That change is built into the release and not committed.
"""

import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent

#: The lines of README.md between which the badges stand.
_START, _END = "<!-- addresses: docs/addresses.py -->", "<!-- end of addresses -->"

#: A Markdown link, or an image, to a file: not to an address, nor within the page.
_RELATIVE_LINK = re.compile(r"\]\((?![a-z]+:|#)([^)]+)\)")


def badges(urls: dict[str, str]) -> str:
    """Return the badges and links of the addresses that there are, as Markdown."""
    found = []
    if repository := urls.get("Repository"):
        workflow = f"{repository}/actions/workflows/tests.yml"
        found.append(f"[![tests]({workflow}/badge.svg)]({workflow})")
    if documentation := urls.get("Documentation"):
        found.append(f"[documentation]({documentation})")
    return "\n".join(found)


def with_badges(readme: str, urls: dict[str, str]) -> str:
    """Return README.md with the badges of these addresses between its two markers."""
    head, rest = readme.split(_START)
    lines = [_START, *filter(None, [badges(urls)]), _END]
    return head + "\n".join(lines) + rest.split(_END)[1]


def with_citation(citation: str, urls: dict[str, str]) -> str:
    """Return CITATION.cff with these addresses as its last lines."""
    lines = [line for line in citation.splitlines() if not line.startswith(("repository-code:", "url:"))]
    for key, name in (("repository-code", "Repository"), ("url", "Documentation")):
        if name in urls:
            lines.append(f'{key}: "{urls[name]}"')
    return "\n".join(lines) + "\n"


def with_absolute_links(readme: str, urls: dict[str, str], version: str) -> str:
    """Return README.md with links to the files of this version in the repository, if that has an address."""
    if "Repository" not in urls:
        return readme

    def absolute(link: re.Match[str]) -> str:
        kind = "raw" if link[1].endswith(".png") else "blob"
        return f"]({urls['Repository']}/{kind}/v{version}/{link[1]})"

    return _RELATIVE_LINK.sub(absolute, readme)


def main(arguments: list[str]) -> None:
    """Rewrite the files."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        project = tomllib.load(file)["project"]
    readme, citation = ROOT / "README.md", ROOT / "CITATION.cff"
    text, urls = readme.read_text(encoding="utf-8"), project.get("urls", {})
    if arguments == ["--for-release"]:
        readme.write_text(with_absolute_links(text, urls, project["version"]), encoding="utf-8")
    else:
        readme.write_text(with_badges(text, urls), encoding="utf-8")
        citation.write_text(with_citation(citation.read_text(encoding="utf-8"), urls), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
