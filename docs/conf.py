"""The site: `make site` copies notebooks and pages to build/site/source and builds them there with
this file."""

from importlib import metadata

project = "A laboratory of stellar spectra"
author = "The authors of the stellar spectra lab"
release = metadata.version("labtools")
extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx-mathjax-offline",  # formulas without a network: MathJax lies on the site itself
]
myst_enable_extensions = ["dollarmath", "amsmath"]
myst_heading_anchors = 3
nb_execution_mode = "off"
nb_merge_streams = True
nb_mime_priority_overrides = [("html", "application/vnd.jupyter.widget-view+json", None)]
napoleon_numpy_docstring = True
napoleon_use_rtype = False
napoleon_use_ivar = True  # else an attribute that is a class is described twice
autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_typehints = "none"  # types and shapes are in the docstrings
viewcode_follow_imported_members = False  # else it links a page of Python's builtins
html_theme = "furo"
html_title = project
html_theme_options = {"navigation_with_keys": True}
html_static_path = ["static"]
html_css_files = ["lab.css"]
