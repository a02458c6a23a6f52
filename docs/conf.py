"""Configuration of the site: `make docs` builds it, without a network, into docs/build."""

import os
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE / "extensions"), str(HERE.parent)]

from executed import on_model  # noqa: E402

import labkit  # noqa: E402

project = "Labkit"
author = "The Labkit developers"
release = version = labkit.__version__
extensions = [
    "myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_design",
    "checked_site", "docstrings", "mathml", "rooms", "methods_pages", "command_pages", "gallery",
    "figure_of",
]  # fmt: skip
exclude_patterns = ["build", "extensions", "**/.ipynb_checkpoints"]
nitpicky = True
# What other projects document: no link leaves the site.
nitpick_ignore = [("py:class", "labkit.results.result.R")]  # a type variable
nitpick_ignore_regex = [("py:.*", r"(?!labkit|editing|probes).*")]
suppress_warnings = ["mystnb.unknown_mime_type"]

# Docstrings
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autoclass_content = "class"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False
napoleon_custom_sections = [
    ("Inherited fields", "params_style"), ("Differs", "notes_style"),
    ("Shows", "notes_style"), ("Does not show", "notes_style"),
]  # fmt: skip
python_display_short_literal_types = True
python_maximum_signature_line_length = 88
toc_object_entries = False
add_module_names = False

# Notebooks are executed before the build (`gallery`), never by it.
nb_execution_mode = "off"
nb_merge_streams = True
myst_enable_extensions = ["dollarmath", "colon_fence", "deflist", "substitution"]
myst_substitutions = {
    "on_model": on_model(os.environ.get("LABKIT_SITE_MODEL", "pocket")),
    "version": version,
}
myst_heading_anchors = 3

# HTML
html_theme = "furo"
html_title = "Labkit"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_js_files = ["figures.js"]
html_copy_source = False
html_show_sourcelink = False
html_show_copyright = False
html_theme_options = {"navigation_with_keys": True}
html_math_renderer = "mathml"
