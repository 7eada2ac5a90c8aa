"""The second line of a table of samples where it holds the units of the columns, as PhysioNet's `rdsamp -c -H` writes it.

'Elapsed time','MLII'        Time;FHR;UC
'mm:ss.mmm','mV'             (s);(bpm);(mmHg)
'0:00.000',-0.145            0,00;142;11
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from phoropter.signals.readers.time_column import TIME_UNITS

_UNITS = frozenset(
    unit.casefold()  # of which both letters µ become one
    for unit in (
        *TIME_UNITS,
        *("v", "mv", "uv", "µv", "nv", "millivolt", "millivolts", "microvolt", "microvolts", "volt", "volts"),
        *("bpm", "beats/min", "1/min", "/min", "min-1", "rpm", "hz", "mmhg", "kpa", "cmh2o", "%", "percent", "°c", "degc", "nu"),
        *("nd", "ohm", "kohm", "l/min", "ml", "g", "m/s2", "m/s^2", "ma", "µa", "ua", "deg", "samples", "datetime"),
        *("adu", "a.u.", "au"),
    )
)
_CLOCK_FORM = re.compile(r"h{0,2}:?m{1,2}:s{1,2}(?:[.,]m{1,3}|[.,]s{1,3})?(?:\s+d{1,2}/m{1,2}/y{2,4})?", re.IGNORECASE)
_BRACKETS = re.compile(r"\[(.*)\]|\((.*)\)")


def strip_cell_quotes(cells: Sequence[str]) -> tuple[str, ...]:
    """Cells without the single quotes that PhysioNet's exports put around each text of a line; unchanged where one has none."""
    filled = [cell for cell in cells if cell]
    if filled and all(len(cell) > 1 and cell[0] == cell[-1] == "'" for cell in filled):
        return tuple(cell[1:-1].strip() for cell in cells)
    return tuple(cells)


def parse_unit_line(cells: Sequence[str]) -> tuple[str, ...] | None:
    """The units in the line below the header, "" for an empty cell; None where it is a line of samples.

    It is one where every filled cell is a unit, in brackets or known, and at least one is known.
    """
    texts = [cell.strip() for cell in strip_cell_quotes([cell.strip() for cell in cells])]
    units = [next(filter(None, match.groups()), "") if (match := _BRACKETS.fullmatch(text)) else text for text in texts]
    bracketed = [unit != text for unit, text in zip(units, texts, strict=True)]
    known = [unit.strip().casefold() in _UNITS or _CLOCK_FORM.fullmatch(unit.strip()) is not None for unit in units]
    filled = [in_brackets or is_known for in_brackets, is_known, text in zip(bracketed, known, texts, strict=True) if text]
    return tuple(unit.strip() for unit in units) if any(known) and all(filled) else None
