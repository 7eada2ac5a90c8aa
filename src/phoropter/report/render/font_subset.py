"""The font of figures: DejaVu Sans, which comes with matplotlib, and a subset of it that makes PDF files fast to write.

For each PDF file matplotlib extracts the glyphs it needs from the font. From the full font of 6,000 glyphs that takes 0.1 s per
file, and a report takes 1.5 to 1.8 times the CPU time. The subset has the same outlines, widths and kerning, so text does not
move; glyphs that it lacks come from the full font.

Cutting the subset takes 0.4 s, so it is kept: CACHE/fonts/DIGEST.json, by the font, the code points and the version of fontTools.
"""

from __future__ import annotations

import atexit
import base64
import io
import os
import shutil
from contextlib import suppress
from functools import lru_cache
from importlib import metadata
from pathlib import Path

from phoropter.core.errors import DiskError
from phoropter.core.files import cache_dir, digest, digest_file, make_temporary_folder
from phoropter.core.storage.sealed_json import CacheShape, read_cache_json, write_cache_json

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
    """Fonts in the order in which matplotlib looks up glyphs. It reads the subset from a file, which ends with the process."""
    from matplotlib import font_manager

    folder = make_temporary_folder("font")
    atexit.register(_remove_folder, folder, os.getpid())
    path = folder / "figures.ttf"
    path.write_bytes(_load_or_make_subset(Path(font_manager.findfont(FULL_FONT, fallback_to_default=False)), cache_dir()))
    font_manager.fontManager.addfont(path)
    return SUBSET_FONT, FULL_FONT


class _KeptFont(CacheShape):
    ttf: str  # its bytes, in base 64


def _load_or_make_subset(full: Path, cache: Path) -> bytes:
    parts = [digest_file(full), SUBSET_CODEPOINTS, SUBSET_FONT, metadata.version("fonttools")]
    path = cache / "fonts" / f"{digest(parts)}.json"
    if (kept := read_cache_json(path, _KeptFont)) is not None:
        return base64.b64decode(kept.ttf)
    made = _make_font_subset(full)
    with suppress(DiskError):  # it serves this process also where it cannot be kept
        write_cache_json(path, _KeptFont(ttf=base64.b64encode(made).decode()))
    return made


def _make_font_subset(full: Path) -> bytes:
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
    made = io.BytesIO()
    font.save(made)
    font.close()
    return made.getvalue()


def _remove_folder(folder: Path, owner: int) -> None:
    """Only at the end of the process that made it, not of its forks."""
    if os.getpid() == owner:
        shutil.rmtree(folder, ignore_errors=True)
