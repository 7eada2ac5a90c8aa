"""The text of a WFDB header (header(5) of the WFDB manual), where `wfdb` reads it differently than it is meant, or says nothing.

`wfdb` drops letters beyond ASCII (µV becomes V) and what follows a number (200,5 becomes 200), and takes 250 Hz and a gain of 200
where a header has none, as the manual says.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from phoropter.core.errors import DataError

_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")
DEFAULT_RATE_NOTE = "its header has no sampling rate, so it was read at 250 Hz, as WFDB defines it"


@dataclass(frozen=True)
class WfdbText:
    """What is read of a header's text.

    names, units: of each signal, as written; None where the header leaves one out, or has segments
    notes:        what WFDB's defaults filled in
    """

    names: tuple[str | None, ...]
    units: tuple[str | None, ...]
    notes: tuple[str, ...]


def read_wfdb_text(file: Path) -> WfdbText:
    """A header file → WfdbText. Raises DataError for an empty one, and for a rate or length that is no number."""
    data = file.read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    if not lines:
        raise DataError(f"{file}: the header is empty: copy the record again")
    record = lines[0].split()
    has_segments = "/" in record[0]
    rate = _check_numbers(file, record)
    signals = [] if has_segments else [line.split(None, 8) for line in lines[1:]]
    names = tuple(tokens[8].strip() if len(tokens) > 8 else None for tokens in signals)
    units = tuple(tokens[2].partition("/")[2] or None if len(tokens) > 2 else None for tokens in signals)
    bare = [
        name or f"channel {at + 1}" for at, (name, tokens) in enumerate(zip(names, signals, strict=True)) if _lacks_gain(tokens)
    ]
    gains = [f"its header has no gain for {name}, which was read as 200 steps to the unit, as WFDB defines it" for name in bare]
    return WfdbText(names, units, (*([] if rate else [DEFAULT_RATE_NOTE]), *gains))


def _check_numbers(file: Path, record: list[str]) -> bool:
    """Whether a record line has a rate. Raises DataError where its rate or length is no number."""
    for at, what in ((2, "sampling rate"), (3, "length")):
        if len(record) > at and not _NUMBER.fullmatch(written := record[at].partition("/")[0].partition("(")[0]):
            raise DataError(f"{file}: its first line has {written!r} for the {what}: expected a number, such as 250 or 200.5")
    return len(record) > 2


def _lacks_gain(tokens: list[str]) -> bool:
    written = tokens[2].partition("/")[0].partition("(")[0] if len(tokens) > 2 else ""
    return not written or (_NUMBER.fullmatch(written) is not None and float(written) == 0)
