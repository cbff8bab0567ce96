"""Sphinx's settings: ``python -m sphinx -W --keep-going -b html docs docs/_build/html``."""

import re
import sys
from pathlib import Path

import sksoftmax
from sksoftmax._version import address

sys.path.insert(0, str(Path(__file__).parent))  # sphinx_gallery looks for conf.place_in_gallery

project = "sksoftmax"
author = "the sksoftmax developers"
copyright = author
version = release = sksoftmax.__version__

extensions = ["myst_parser", "numpydoc", "sphinx.ext.autodoc", "sphinx_gallery.gen_gallery"]
exclude_patterns = ["_build"]
nitpicky = False  # scikit-learn's names are not resolved: that would need the network

html_theme = "pydata_sphinx_theme"
html_title = f"sksoftmax {release}"
html_show_sourcelink = False
html_baseurl = address("Documentation")
html_theme_options = {"secondary_sidebar_items": ["page-toc"], "show_prev_next": False}
if address("Repository"):
    html_theme_options["icon_links"] = [
        {"name": "Repository", "url": address("Repository"), "icon": "fa-solid fa-code-branch"}
    ]

autodoc_typehints = "none"  # the docstrings say more
autodoc_member_order = "bysource"
numpydoc_show_class_members = False  # autodoc shows them

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3

EXAMPLES = [
    "plot_first_steps.py",
    "plot_digits_templates.py",
    "plot_text_words.py",
    "plot_linear_probe.py",
    "plot_sweep.py",
    "plot_one_vs_rest.py",
    "plot_gradient_check.py",
    "npz_files.py",
    "parquet.py",
    "text_files.py",
]


def place_in_gallery(name: str) -> int:
    """Where an example stands; one that is not listed is an error."""
    return EXAMPLES.index(name)


sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "auto_examples",
    "filename_pattern": r"\.py$",  # all of them run
    "within_subsection_order": "conf.place_in_gallery",
    "download_all_examples": False,
    "write_computation_times": False,
    "show_signature": False,
    "reset_modules": ("matplotlib",),
    "capture_repr": ("_repr_html_", "__repr__"),
}

#: Links of the pages, which are right in the repository: to an example, whose page is in the gallery; and to a page
#: that is no part of the documentation, where MyST would look for it.
_EXAMPLE = re.compile(r"\]\(\.\./examples/(\w+)\.py\)")
_PAGE_ELSEWHERE = re.compile(r"\]\((\.\./[^)#]+\.md)\)")

#: A page of the repository's root, such as CONTRIBUTING.md, and its links to others and to pages of the documentation.
_ROOT_PAGE = re.compile(r"```\{include\} \.\./(\w+\.md)\n```")
_LINK_AT_ROOT = re.compile(r"\]\((?:docs/)?(\w+\.md)\)")


def setup(app):
    def root_page(match):
        text = (Path(__file__).parent.parent / match[1]).read_text(encoding="utf-8")
        return _LINK_AT_ROOT.sub(lambda link: f"]({link[1].lower()})", text)

    def relink(app, docname, source):
        source[0] = _ROOT_PAGE.sub(root_page, source[0])
        source[0] = _EXAMPLE.sub(r"](auto_examples/\1.rst)", _PAGE_ELSEWHERE.sub(r"](path:\1)", source[0]))

    app.connect("source-read", relink)
