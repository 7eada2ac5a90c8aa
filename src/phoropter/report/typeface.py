"""The typeface of figures: DejaVu Sans, which comes with matplotlib, and a copy of its common letters for quick PDF files.

For each PDF file matplotlib cuts the letters it needs out of the whole typeface, 6,000 glyphs with the rules of a dozen scripts:
0.1 s each time, a tenth of a large report. The copy has the same outlines, widths and kerning, so no letter moves; letters
it lacks come from the whole one.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from functools import lru_cache
from pathlib import Path

WHOLE = "DejaVu Sans"
COPY = "DejaVu Sans figures"  # a changed font needs a name of its own, so that nobody takes it for the whole one
LETTERS = (*range(0x20, 0x7F), *range(0xA0, 0x100), *range(0x391, 0x3CA), *range(0x2010, 0x2028), 0x2030, 0x2212, 0x2264, 0x2265)
_FAMILY, _FULL, _POSTSCRIPT = (1, 16), (3, 4), 6  # entries of a font's table of names


@lru_cache(maxsize=1)
def families() -> tuple[str, ...]:
    """What matplotlib should look letters up in, in this order; the copy is made once a process and goes with it."""
    from matplotlib import font_manager

    folder = Path(tempfile.mkdtemp(prefix="phoropter-"))
    atexit.register(_remove, folder, os.getpid())
    path = folder / "figures.ttf"
    _write_copy(Path(font_manager.findfont(WHOLE, fallback_to_default=False)), path)
    font_manager.fontManager.addfont(path)
    return COPY, WHOLE


def _write_copy(whole: Path, path: Path) -> None:
    from fontTools import subset

    # Tables of outlines for screens of few dots are left out; the layout rules of these letters stay.
    options = subset.Options(glyph_names=True, hinting=False, recalc_timestamp=False)
    options.drop_tables += ["FFTM", "gasp"]
    font = subset.load_font(str(whole), options)
    cut = subset.Subsetter(options)
    cut.populate(unicodes=LETTERS)
    cut.subset(font)
    for entry in font["name"].names:
        if entry.nameID in (*_FAMILY, *_FULL):
            entry.string = COPY
        elif entry.nameID == _POSTSCRIPT:
            entry.string = COPY.replace(" ", "")
    font.save(path)
    font.close()


def _remove(folder: Path, owner: int) -> None:
    """At the end of the process that made it, not of one that it forked."""
    if os.getpid() == owner:
        shutil.rmtree(folder, ignore_errors=True)
