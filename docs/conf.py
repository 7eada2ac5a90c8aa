"""Sphinx: Markdown pages, nothing loaded from elsewhere."""

import phoropter

project = "phoropter"
author = copyright = "The phoropter authors"
release = version = phoropter.__version__
extensions = ["myst_parser"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"phoropter {version}"
