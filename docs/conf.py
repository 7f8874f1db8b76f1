"""How Sphinx builds the site: `nox -s docs`, or `sphinx-build -W --keep-going -b html docs build/docs`."""

from __future__ import annotations

import importlib

import llmbuffer
from llmbuffer.request import Request
from llmbuffer.session import Session

project = "llmbuffer"
author = "the llmbuffer authors"
project_copyright = author
release = llmbuffer.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.autosummary"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"llmbuffer {release}"
html_show_sphinx = False

myst_heading_anchors = 4  # `page.md#a-heading`, as on any host that shows Markdown
myst_enable_extensions = ["html_image"]
default_role = "literal"
autosummary_generate = False
autodoc_member_order = "bysource"
autodoc_typehints = "signature"

# Annotations that only a type checker reads, so as not to import in a circle; signatures are made from them here.
for room, names in {
    "fanout.result": {"Session": Session},
    "observing": {"Session": Session, "Request": Request},
}.items():
    vars(importlib.import_module(f"llmbuffer.{room}")).update(names)
