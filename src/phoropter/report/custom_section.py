"""Sections of a user's own: functions that read the same summary as the built-in sections.

    def section(inputs: ph.ReportInput) -> ph.Section | None:
        rows = tuple(ph.TableRow((c.name, c.metric_mean("accuracy"))) for c in inputs.summary.candidates)
        table = ph.Table("mean-accuracy", "Mean accuracy", (ph.Column("Candidate"), ph.Column("Accuracy", "percent")), rows)
        return ph.Section("mean-accuracy", "Mean accuracy", ("What the table shows.",), (table,))

In Python the function is passed (`write_report(folder, sections=[section])`); on the command line it is named `module:NAME`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from phoropter.core.errors import SpecError
from phoropter.core.extensions import REFERENCE, import_reference
from phoropter.report.render.section import Section
from phoropter.report.render.svg import RenderedFigure
from phoropter.report.render.table import Table
from phoropter.report.summary.report_input import ReportInput

SectionFunction = Callable[[ReportInput], Section | None]
_FILE_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")  # ids become anchors, names of tables and figures become file names


def build_custom_sections(
    functions: Sequence[SectionFunction], inputs: ReportInput, built_in: Sequence[Section]
) -> list[Section]:
    """Calls each function. Raises SpecError where one fails, returns something else, or repeats an id or a file name."""
    sections: list[Section] = []
    for function in functions:
        section = _call_function(function, inputs)
        if section is not None:
            _check_names(section, [*built_in, *sections], _function_name(function))
            sections.append(section)
    return sections


def _check_names(section: Section, others: Sequence[Section], function: str) -> None:
    files = _file_names(section)
    used = {"conclusion", "reliability", *(s.id for s in others)}
    used_files = {name for s in others for name in _file_names(s)}
    for name in (section.id, *(file.partition("/")[2] for file in files)):
        if not _FILE_NAME.fullmatch(name):
            raise SpecError(f"section {function}: expected lower-case letters, digits and hyphens as id or name, got {name!r}")
    repeated = [section.id] if section.id in used else [f for f in files if f in used_files or files.count(f) > 1]
    if repeated:
        raise SpecError(f"section {function}: the id or name '{repeated[0]}' is already used on this page; choose another")


def _call_function(function: SectionFunction, inputs: ReportInput) -> Section | None:
    try:
        section = function(inputs)
    except Exception as error:
        message = f"section {_function_name(function)} failed: {type(error).__name__}: {error}"
        raise SpecError(message) from error
    if section is not None and not isinstance(section, Section):
        raise SpecError(f"section {_function_name(function)} returned a {type(section).__name__}, expected a Section or None")
    return section


def _file_names(section: Section) -> list[str]:
    """`tables/NAME` and `figures/NAME` of the files that the section writes."""
    blocks = (*section.iter_blocks(), *section.file_tables)
    tables = [f"tables/{b.name}" for b in blocks if isinstance(b, Table)]
    return tables + [f"figures/{b.name}" for b in blocks if isinstance(b, RenderedFigure)]


def _function_name(function: SectionFunction) -> str:
    return str(getattr(function, "__name__", type(function).__name__))


def load_section(reference: str) -> SectionFunction:
    """`module:NAME` → the function of that name, for the command line. Raises SpecError as `import_reference`."""
    if not REFERENCE.fullmatch(reference):
        raise SpecError(f"section '{reference}': expected module:NAME, such as my_sections:SECTION")
    try:
        function = import_reference(reference)
    except ValueError as error:
        raise SpecError(f"section {error}") from None
    if not callable(function):
        raise SpecError(f"section '{reference}' is a {type(function).__name__}, expected a function")
    return function  # type: ignore[no-any-return]
