"""Matplotlib figures as inline SVG for the page, and as SVG, PDF and PNG files.

The inline form takes its colours from the page (`var(--ink)`), so that one drawing serves the light and dark themes. It has no
style attributes (the content security policy forbids them), no unused ids, and a title and description for screen readers.
The bytes depend only on what is drawn: no date, no random ids. Without this rewriting the page would be 1.5 times as large.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from markupsafe import Markup

from phoropter.core.errors import SpecError
from phoropter.core.files import atomic_write
from phoropter.report.render.font_subset import SUBSET_FONT, font_families

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# The colours of figures; page.css gives each name its value in the light and dark themes.
INK, MUTED, RULE, ACCENT, ON_ACCENT, PAPER = "#1d2126", "#5b636c", "#d9dcd6", "#1f627d", "#fefefe", "#fdfdfa"
SERIES_COLORS = ("#20708c", "#bd561c", "#5d5ba8", "#407a3c", "#a63d5e", "#876b1f", "#6a727d", "#14857b")
_COLOR_NAMES = {INK: "ink", MUTED: "muted", RULE: "rule", ACCENT: "accent", ON_ACCENT: "on-accent", PAPER: "paper"}
CSS_VARIABLES = _COLOR_NAMES | {colour: f"s{i + 1}" for i, colour in enumerate(SERIES_COLORS)}

PNG_DPI = 300  # what journals ask for

_SVG_NAMESPACE = "{http://www.w3.org/2000/svg}"
_XLINK_HREF = "{http://www.w3.org/1999/xlink}href"
_RC_PARAMS: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text: it takes the page's font, can be searched and read aloud
    "pdf.fonttype": 42,
    "text.parse_math": False,  # class names may hold dollar signs
    "font.size": 8.5,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.titlepad": 8,
    "axes.labelsize": 8.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": MUTED,
    "axes.titlecolor": INK,
    "axes.linewidth": 0.6,
    "axes.facecolor": "none",
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "figure.facecolor": "none",
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "lines.linewidth": 1.5,
    "lines.solid_capstyle": "round",
    "savefig.transparent": True,
}


@dataclass(frozen=True)
class RenderedFigure:
    """A figure in three formats; made by `draw_figure` and `draw_wide_figure`. A notebook shows it.

    name: of its files · alt_text: description for screen readers · wide: as wide as the column of the page; inline_svg then also
    holds a form for narrow screens, and the page shows one of the two · draw_png: draws it once more, as PNG
    """

    name: str
    caption: str
    alt_text: str
    inline_svg: Markup = field(repr=False)
    svg: bytes = field(repr=False)
    pdf: bytes = field(repr=False)
    wide: bool
    draw_png: Callable[[], bytes] = field(repr=False, compare=False)

    def save(self, path: Path | str) -> Path:
        """Writes the figure; the ending says as what: .svg, .pdf, or .png at 300 dpi on white.

        Raises SpecError for another ending, and DiskError.
        """
        path = Path(path)
        formats = {".svg": lambda: self.svg, ".pdf": lambda: self.pdf, ".png": self.draw_png}
        if (make := formats.get(path.suffix.lower())) is None:
            raise SpecError(
                f"{path}: a figure is saved as .svg, .pdf or .png, and the ending is '{path.suffix}'; give one of them"
            )
        with atomic_write(path) as aside:
            aside.write_bytes(make())
        return path

    def _repr_svg_(self) -> str:
        return self.svg.decode("utf-8")

    def __getstate__(self) -> dict[str, Any]:
        """For another process, to which a painter cannot be sent: all but PNG, which a page does not show."""
        return vars(self) | {"draw_png": _refuse_png}


def _refuse_png() -> bytes:
    raise SpecError("a figure that was drawn by another process has no PNG; save it as .svg or .pdf")


FigureSize = tuple[float, float]
FigurePainter = Callable[["Figure"], None]


def draw_figure(name: str, caption: str, alt: str, size: FigureSize, paint: FigurePainter) -> RenderedFigure:
    """Draws a figure of `size` inches, narrow enough for a phone (at most 3.6 wide).

    name:  of its files, in lower-case letters, digits and hyphens · alt: description for screen readers
    paint: called with an empty matplotlib Figure; colours INK, MUTED, ACCENT and SERIES_COLORS follow the theme of the page
    """
    svg, pdf = _render_files(name, size, paint)
    return RenderedFigure(
        name, caption, alt, _to_inline_svg(svg, name, caption, alt), svg, pdf, False, partial(_render_png, name, size, paint)
    )


def draw_wide_figure(
    name: str, caption: str, alt: str, size: FigureSize, paint: FigurePainter, narrow: tuple[FigureSize, FigurePainter]
) -> RenderedFigure:
    """As draw_figure, for a figure as wide as the column. narrow: size and painter of its form for small screens."""
    svg, pdf = _render_files(name, size, paint)
    small, _ = _render_files(f"{name}-narrow", *narrow, pdf=False)
    both = Markup('<div class="at-wide">{}</div><div class="at-narrow">{}</div>').format(
        _to_inline_svg(svg, name, caption, alt), _to_inline_svg(small, f"{name}-narrow", caption, alt)
    )
    return RenderedFigure(name, caption, alt, both, svg, pdf, True, partial(_render_png, name, size, paint))


def load_drawing() -> None:
    """Imports what all figures need, so that a process forked afterwards has it."""
    import matplotlib.backends.backend_pdf
    import matplotlib.backends.backend_svg
    import matplotlib.figure  # noqa: F401

    font_families()


def _render_files(name: str, size: FigureSize, paint: FigurePainter, pdf: bool = True) -> tuple[bytes, bytes]:
    with _figure_style(name):
        from matplotlib.backends.backend_svg import FigureCanvasSVG

        figure = _paint_figure(size, paint, FigureCanvasSVG)
        svg_file, pdf_file = io.BytesIO(), io.BytesIO()
        figure.savefig(svg_file, format="svg", metadata={"Date": None, "Creator": None})
        if pdf:
            figure.savefig(pdf_file, format="pdf", metadata={"CreationDate": None, "Creator": None, "Producer": None})
    return svg_file.getvalue().replace(f"'{SUBSET_FONT}', ".encode(), b""), pdf_file.getvalue()


def _render_png(name: str, size: FigureSize, paint: FigurePainter) -> bytes:
    """For slides and word processors. The page has no use for it, so it is drawn when it is asked for."""
    with _figure_style(name):
        from matplotlib.backends.backend_agg import FigureCanvasAgg

        figure, file = _paint_figure(size, paint, FigureCanvasAgg), io.BytesIO()
        figure.savefig(file, format="png", dpi=PNG_DPI, facecolor="white", transparent=False, metadata={"Software": None})
    return file.getvalue()


def _paint_figure(size: FigureSize, paint: FigurePainter, canvas: Callable[[Figure], object]) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, dpi=72)  # what SVG and PDF are measured in
    canvas(figure)
    paint(figure)
    _lay_out(figure)
    return figure


def _lay_out(figure: Figure) -> None:
    """Lays out once for both files: a layout engine set on the figure would measure all text again for each file."""
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    ConstrainedLayoutEngine().execute(figure)


@contextmanager
def _figure_style(salt: str) -> Iterator[None]:
    import matplotlib

    style = _RC_PARAMS | {"font.family": list(font_families()), "svg.hashsalt": f"phoropter {salt}"}
    with matplotlib.rc_context(style), warnings.catch_warnings():
        # A class name may be in a script that DejaVu lacks; the page shows it in the reader's font.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield


def _to_inline_svg(svg: bytes, name: str, caption: str, alt: str) -> Markup:
    """Matplotlib's SVG file → an element of an HTML page."""
    root = ElementTree.fromstring(svg)
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag == f"{_SVG_NAMESPACE}metadata" or (
                child.tag == f"{_SVG_NAMESPACE}defs" and child.find(f"{_SVG_NAMESPACE}style") is not None
            ):
                parent.remove(child)
    used = set(re.findall(rb"#([\w-]+)[\")]", svg))
    for element in root.iter():
        _clean_element(element, used)
    for element in root.iter(f"{_SVG_NAMESPACE}g"):
        _hoist_attributes(element)
    return Markup(_serialize_svg(root, name, caption, alt))


def _clean_element(element: ElementTree.Element, used: set[bytes]) -> None:
    for declaration in element.attrib.pop("style", "").split(";"):
        key, _, value = (part.strip() for part in declaration.partition(":"))
        if key and key not in ("font-family", "font"):
            element.set(key, value)
    if element.get("id", "").encode() not in used:
        element.attrib.pop("id", None)
    if _XLINK_HREF in element.attrib:
        element.set("href", element.attrib.pop(_XLINK_HREF))
    for key in ("fill", "stroke"):
        if element.get(key) in CSS_VARIABLES:
            element.set(key, f"var(--{CSS_VARIABLES[element.attrib[key]]})")
    for key in ("d", "x", "y", "points", "transform"):
        if key in element.attrib:
            element.set(key, _shorten_coordinates(element.attrib[key]))
    if element.get("transform", "").startswith(("rotate(-0 ", "rotate(0 ")):
        del element.attrib["transform"]


def _hoist_attributes(group: ElementTree.Element) -> None:
    """Moves attributes that all marks of a group share to the group."""
    marks = group.findall(f"{_SVG_NAMESPACE}use")
    if len(marks) < 3 or len(marks) != len([c for c in group if c.tag != f"{_SVG_NAMESPACE}defs"]):
        return
    for key in ("fill", "stroke", "stroke-width", "fill-opacity", "stroke-opacity"):
        values = {m.get(key) for m in marks}
        if len(values) == 1 and None not in values:
            group.set(key, values.pop() or "")
            for mark in marks:
                del mark.attrib[key]


def _shorten_coordinates(numbers: str) -> str:
    """Rounds coordinates to a hundredth of a point and removes line breaks."""
    text = re.sub(r"-?\d+\.\d+", lambda m: f"{float(m.group()):.2f}".rstrip("0").rstrip("."), numbers)
    return re.sub(r"\s+", " ", text).strip().replace("-0 ", "0 ")


def _serialize_svg(root: ElementTree.Element, name: str, caption: str, alt: str) -> str:
    _, _, width, height = map(float, root.attrib["viewBox"].split())
    for element in root.iter():
        element.tag = element.tag.removeprefix(_SVG_NAMESPACE)
    inner = "".join(ElementTree.tostring(child, encoding="unicode") for child in root)
    head = Markup(
        '<svg viewBox="0 0 {0} {1}" width="{2}" height="{3}" role="img" aria-labelledby="{4}-title {4}-desc">'
        '<title id="{4}-title">{5}</title><desc id="{4}-desc">{6}</desc>'
    ).format(f"{width:g}", f"{height:g}", round(width * 4 / 3), round(height * 4 / 3), f"figure-{name}", caption, alt)
    return re.sub(r">\s+<", "><", f"{head}{inner}</svg>")
