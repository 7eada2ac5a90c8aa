"""What was said of a results folder when its page was last written, told again while neither has changed.

    DIR/report.json    digests of what the page was made from and of the files beside it; the leaderboard and the conclusion

Files count as unchanged by their names, sizes and times, as in `make`. `phoropter report` always writes the page anew.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import phoropter
from phoropter.core.files import digest
from phoropter.core.storage.sealed_json import CacheShape, read_cache_json, write_cache_json
from phoropter.report.render.document import resolve_output_paths
from phoropter.report.render.table import CellValue, Column, IntervalBounds, MeanStd, Table, TableRow

REPORT_FILE = "report.json"
_NOT_READ = ("report", "work", "locks", REPORT_FILE, "complete.json", "cancel.json", "remote.json", "jobs")
_LIBRARIES = ("matplotlib", "numpy", "scipy", "scikit-learn", "pandas", "jinja2", "fonttools", "pillow")


@dataclass(frozen=True)
class WrittenReport:
    """page: its path · leaderboard: the first table of it · conclusion: its sentences, the small print after them"""

    page: Path
    leaderboard: Table
    conclusion: tuple[str, ...]


class _Column(CacheShape):
    name: str
    kind: str
    description: str
    digits: int
    unit: str | None


class _Row(CacheShape):
    values: list[Any]
    role: str


class _KeptReport(CacheShape):
    """made_from, files: digests · conclusion: its sentences · columns, rows: of the leaderboard"""

    made_from: str
    files: str
    conclusion: list[str]
    caption: str
    columns: list[_Column]
    rows: list[_Row]


def keep_report(folder: Path, written: WrittenReport) -> None:
    """Notes what was said in the report of a results folder, which lies in the folder itself."""
    board = written.leaderboard
    kept = _KeptReport(
        made_from=_digest_sources(folder),
        files=_digest_listing(written.page.parent),
        conclusion=list(written.conclusion),
        caption=board.caption,
        columns=[_Column(**asdict(column)) for column in board.columns],
        rows=[_Row(values=[_value_to_plain(v) for v in row.values], role=row.role) for row in board.rows],
    )
    write_cache_json(folder / REPORT_FILE, kept)


def read_kept_report(folder: Path) -> WrittenReport | None:
    """What `keep_report` noted; None where the results, the report, phoropter or a library has changed since."""
    kept = read_cache_json(folder / REPORT_FILE, _KeptReport)
    page = resolve_output_paths(folder / "report", None)[0]
    if kept is None or not page.is_file():
        return None
    if kept.made_from != _digest_sources(folder) or kept.files != _digest_listing(page.parent):
        return None
    columns = tuple(Column(**column.model_dump()) for column in kept.columns)
    rows = tuple(TableRow(tuple(map(_value_from_plain, row.values)), row.role) for row in kept.rows)  # type: ignore[arg-type]
    return WrittenReport(page, Table("leaderboard", kept.caption, columns, rows), tuple(kept.conclusion))


def _digest_sources(folder: Path) -> str:
    """Of the results, and of the code that makes a page of them."""
    own = Path(phoropter.__file__).parent
    code = [entry for entry in _list_files(own) if entry[0].endswith((".py", ".css", ".html", ".js"))]
    return digest([list(_list_files(folder, _NOT_READ)), code, [metadata.version(name) for name in _LIBRARIES]])


def _digest_listing(folder: Path) -> str:
    return digest(list(_list_files(folder)))


def _list_files(folder: Path, left_out: tuple[str, ...] = ()) -> Iterator[tuple[str, int, int]]:
    """(path within the folder, bytes, time in ns) of every file, in order. left_out: entries of the folder itself"""
    places = [folder]
    while places:
        place = places.pop()
        with os.scandir(place) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
        for entry in found:
            if entry.name.startswith(".") or (place == folder and entry.name in left_out):
                continue
            if entry.is_dir(follow_symlinks=False):
                places.append(Path(entry.path))
            else:
                state = entry.stat()
                yield Path(entry.path).relative_to(folder).as_posix(), state.st_size, state.st_mtime_ns


def _value_to_plain(value: CellValue) -> Any:
    """As JSON has it: numbers as text, because it has neither NaN nor infinity."""
    if isinstance(value, MeanStd):
        return {"mean_std": [repr(float(v)) for v in value]}
    if isinstance(value, IntervalBounds):
        return {"interval": [repr(float(v)) for v in value]}
    if isinstance(value, float):
        return value if math.isfinite(value) else {"number": repr(float(value))}
    return value


def _value_from_plain(plain: Any) -> CellValue:
    if not isinstance(plain, dict):
        value: CellValue = plain
        return value
    ((kind, content),) = plain.items()
    if kind == "number":
        return float(content)
    return (MeanStd if kind == "mean_std" else IntervalBounds)(*map(float, content))
