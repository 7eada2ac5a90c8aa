"""How tables, figures and sections become HTML, Markdown, LaTeX, CSV, SVG and PDF."""
