"""The site: `make site` copies notebooks and pages to build/site/source and builds them there with this file."""

import re
from importlib import metadata

project = "A laboratory of stellar spectra"
author = "The authors of the stellar spectra lab"
release = metadata.version("labtools")
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
myst_enable_extensions = ["dollarmath", "amsmath"]
myst_heading_anchors = 3
nb_execution_mode = "off"
nb_merge_streams = True
nb_mime_priority_overrides = [("html", "application/vnd.jupyter.widget-view+json", None)]
napoleon_numpy_docstring = True
autodoc_default_options = {"members": True, "member-order": "bysource"}
viewcode_follow_imported_members = (
    False  # else it links a page of Python's builtins, which it does not make
)
html_theme = "furo"
html_title = project
html_theme_options = {"navigation_with_keys": True}

ENTRY = re.compile(r"(\w[\w, ]*) : (.*)")


def as_list(app, what, name, obj, options, lines):
    """Lines of a docstring such as `seed : of the split` become a list; indented lines belong to the one above."""
    made, inside = [], False
    for line in lines:
        entry, goes_on = ENTRY.fullmatch(line), inside and line.startswith("    ")
        if entry:
            made += [*([] if inside else [""]), f"* **{entry[1]}**: {entry[2]}"]
        elif goes_on:
            made.append(f"  {line.strip()}")
        else:
            made += [*([""] if inside and line else []), line]
        inside = bool(entry or goes_on)
    lines[:] = made


def setup(app):
    app.connect("autodoc-process-docstring", as_list)
