"""The font of figures: DejaVu Sans, which comes with matplotlib, and a subset of it that makes PDF files fast to write.

For each PDF file matplotlib extracts the glyphs it needs from the font. From the full font of 6,000 glyphs that takes 0.1 s per
file, and a report takes 1.5 to 1.8 times the CPU time. The subset has the same outlines, widths and kerning, so text does not
move; glyphs that it lacks come from the full font.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from functools import lru_cache
from pathlib import Path

FULL_FONT = "DejaVu Sans"
SUBSET_FONT = "DejaVu Sans figures"  # a changed font needs a name of its own
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
    """Fonts in the order in which matplotlib looks up glyphs; the subset is made once per process and deleted at its end."""
    from matplotlib import font_manager

    folder = Path(tempfile.mkdtemp(prefix="phoropter-"))
    atexit.register(_remove_folder, folder, os.getpid())
    path = folder / "figures.ttf"
    _write_font_subset(Path(font_manager.findfont(FULL_FONT, fallback_to_default=False)), path)
    font_manager.fontManager.addfont(path)
    return SUBSET_FONT, FULL_FONT


def _write_font_subset(full: Path, path: Path) -> None:
    from fontTools import subset

    # Hinting tables are left out; the layout rules of these glyphs stay.
    options = subset.Options(glyph_names=True, hinting=False, recalc_timestamp=False)
    options.drop_tables += ["FFTM", "gasp"]
    font = subset.load_font(str(full), options)
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
    """Only at the end of the process that made it, not of its forks."""
    if os.getpid() == owner:
        shutil.rmtree(folder, ignore_errors=True)
