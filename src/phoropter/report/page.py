"""A results folder → one self-contained page, and its conclusion, tables and figures as files beside it.

The page needs nothing but itself: its style, script and pictures are inside, its content policy forbids every request, and it
allows only this style and this script, by their digests. Everything that came from a study is escaped on its way in.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from markupsafe import Markup

import phoropter
from phoropter.core.files import write_text, writing
from phoropter.report import comparisons, conclusion, provenance
from phoropter.report.drawing import Drawing
from phoropter.report.evidence import Evidence
from phoropter.report.reading import gather
from phoropter.report.sections import Findings, Section, sections
from phoropter.report.table import Table, one_line
from phoropter.results.store import Store


@dataclass(frozen=True)
class Notice:
    """What a reader must know before the first number."""

    title: str
    lines: tuple[str, ...]


def write_report(folder: Path | str, out: Path | None = None, progress: Callable[[int, int], None] | None = None) -> Path:
    """Reports the study in `folder`; the path of the page.

    out: a folder (default: `report` in the study's), or a file ending in .html, whose tables and figures then lie in a folder of
    the same name without the ending · progress: called with (runs read, runs to read)

    Raises StoreError when the folder holds no finished run, DiskError when the report cannot be written.
    """
    store = Store(folder)
    evidence = gather(store, progress)
    findings = Findings(store, evidence, comparisons.compare(store, evidence))
    shown = sections(findings)
    page, beside = _places(store.folder, out)
    for section in shown:
        _write_files(section, beside)
    said = conclusion.conclusion(evidence, findings.comparisons)
    write_text(beside / "conclusion.txt", "\n".join(one_line(s) for part in said for s in part) + "\n")
    write_text(page, _page(findings, shown, said, "" if beside == page.parent else f"{beside.name}/"))
    return page


def _places(folder: Path, out: Path | None) -> tuple[Path, Path]:
    """The page, and the folder its tables and figures lie in."""
    out = folder / "report" if out is None else Path(out)
    if out.suffix.lower() in (".html", ".htm"):
        return out, out.with_suffix("")
    return out / "index.html", out


def _write_files(section: Section, folder: Path) -> None:
    for block in (*section.blocks, *section.files):
        if isinstance(block, Table):
            for ending, text in (("csv", block.csv()), ("md", block.markdown()), ("tex", block.latex())):
                write_text(folder / "tables" / f"{block.name}.{ending}", text)
        elif isinstance(block, Drawing):
            for ending, data in (("svg", block.svg), ("pdf", block.pdf)):
                with writing(folder / "figures" / f"{block.name}.{ending}") as aside:
                    aside.write_bytes(data)


def _page(findings: Findings, shown: list[Section], said: tuple[list[str], list[str]], prefix: str) -> str:
    import jinja2

    evidence = findings.evidence
    css, script = _part("page.css"), _part("page.js")
    template = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True).from_string(
        _part("page.html")
    )
    sentences, beside = said
    return template.render(
        policy=_policy(css, script),
        css=Markup(css),
        script=Markup(script),
        version=phoropter.__version__,
        title=one_line(str(evidence.study.get("name", evidence.folder.name))),
        facts=facts(evidence),
        notices=notices(evidence),
        conclusion=[one_line(s) for s in sentences],
        beside=[one_line(s) for s in beside],
        sections=[
            {"id": s.id, "title": s.title, "text": [one_line(t) for t in s.text], "html": list(s.html(prefix))} for s in shown
        ],
        closing=_closing(evidence),
    )


def _part(name: str) -> str:
    return resources.files("phoropter.report").joinpath(name).read_text(encoding="utf-8")


def _policy(css: str, script: str) -> str:
    """No request to anywhere, no style and no script but these two."""

    def digest(text: str) -> str:
        return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"

    ours = f"style-src {digest(css)}; script-src {digest(script)}"
    return f"default-src 'none'; img-src data:; {ours}; base-uri 'none'; form-action 'none'"


def facts(evidence: Evidence) -> str:
    """One line under the title: what on, how, how much."""
    dataset = evidence.study.get("dataset") or {}
    name = str(dataset.get("name") or "")
    words = [f"{dataset.get('rows', 0):,} rows in {len(evidence.classes)} classes"]
    if name and name != evidence.study.get("name"):
        words[0] = f"{name}: {words[0]}"
    if dataset.get("groups"):
        words[0] += f", {dataset['groups']:,} groups"
    if dataset.get("sites"):
        words[0] += f", {len(dataset['sites']):,} sites"
    words += [
        provenance.protocol_words(evidence),
        f"{_count(len(evidence.entrants), 'candidate')}",
        _count(evidence.finished, "run"),
    ]
    return one_line(" · ".join(words))


def notices(evidence: Evidence) -> list[Notice]:
    """What was scaled down, what is missing, and what the protocol let through."""
    found = []
    if evidence.study.get("scale"):
        lines = [f"{line[:1].upper()}{line[1:]}." for line in map(str, evidence.study["scale"])]
        found.append(Notice("This is a small stand-in for the study. What was changed:", tuple(map(one_line, lines))))
    missing = evidence.planned - evidence.finished
    if missing:
        found.append(_partial(evidence, missing))
    if evidence.grouped and evidence.protocol.get("allow_group_overlap"):
        line = "Rows of one group may stand on both sides of a split, as the study asked: new groups will likely fare worse."
        found.append(Notice("Groups overlap.", (line,)))
    return found


def _partial(evidence: Evidence, missing: int) -> Notice:
    failed = len(evidence.failures)
    lines = [f"{evidence.finished:,} of {_count(evidence.planned, 'run')} {'is' if evidence.finished == 1 else 'are'} finished."]
    lines += [f"{_count(failed, 'run')} failed; the reasons stand at the end of this page."] if failed else []
    lines += [f"{_count(missing - failed, 'run')} not computed yet: run the study again to go on."] if missing > failed else []
    incomplete = [e.name for e in evidence.entrants if not e.complete]
    placed = " and they are placed last" if any(e.complete for e in evidence.entrants) else ""
    lines += [f"Incomplete: {_some(incomplete)}. Their figures stand on fewer splits{placed}."] if incomplete else []
    lines += [f"Without any finished run, and so not on this page: {_some(evidence.absent)}."] if evidence.absent else []
    return Notice("This study is not complete.", tuple(map(one_line, lines)))


def _some(names: list[str], limit: int = 6) -> str:
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")


def _count(number: int, word: str) -> str:
    return f"{number:,} {word}{'' if number == 1 else 's'}"


def _closing(evidence: Evidence) -> str:
    made = f"Made by phoropter {phoropter.__version__} from the predictions of {_count(evidence.finished, 'run')}."
    return f"{made} Files that are linked lie beside this page in tables and figures."
