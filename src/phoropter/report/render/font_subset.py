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

FULL_FONT = "DejaVu Sans"
SUBSET_FONT = "DejaVu Sans figures"  # a changed font needs a name of its own, so that nobody takes it for the whole one
SUBSET_CODEPOINTS = (
    *range(0x20, 0x7F),
    *range(0xA0, 0x100),
    *range(0x391, 0x3CA),
    *range(0x2010, 0x2028),
    0x2030,
    0x2212,
    0x2264,
    0x2265,
)
_FAMILY_NAME_IDS, _FULL_NAME_IDS, _POSTSCRIPT_NAME_ID = (1, 16), (3, 4), 6  # entries of a font's table of names


@lru_cache(maxsize=1)
def font_families() -> tuple[str, ...]:
    """What matplotlib should look letters up in, in this order; the copy is made once a process and goes with it."""
    from matplotlib import font_manager

    folder = Path(tempfile.mkdtemp(prefix="phoropter-"))
    atexit.register(_remove_folder, folder, os.getpid())
    path = folder / "figures.ttf"
    _write_font_subset(Path(font_manager.findfont(FULL_FONT, fallback_to_default=False)), path)
    font_manager.fontManager.addfont(path)
    return SUBSET_FONT, FULL_FONT


def _write_font_subset(whole: Path, path: Path) -> None:
    from fontTools import subset

    # Tables of outlines for screens of few dots are left out; the layout rules of these letters stay.
    options = subset.Options(glyph_names=True, hinting=False, recalc_timestamp=False)
    options.drop_tables += ["FFTM", "gasp"]
    font = subset.load_font(str(whole), options)
    cut = subset.Subsetter(options)
    cut.populate(unicodes=SUBSET_CODEPOINTS)
    cut.subset(font)
    for entry in font["name"].names:
        if entry.nameID in (*_FAMILY_NAME_IDS, *_FULL_NAME_IDS):
            entry.string = SUBSET_FONT
        elif entry.nameID == _POSTSCRIPT_NAME_ID:
            entry.string = SUBSET_FONT.replace(" ", "")
    font.save(path)
    font.close()


def _remove_folder(folder: Path, owner: int) -> None:
    """At the end of the process that made it, not of one that it forked."""
    if os.getpid() == owner:
        shutil.rmtree(folder, ignore_errors=True)
