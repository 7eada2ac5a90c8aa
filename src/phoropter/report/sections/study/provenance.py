"""Provenance: candidates, data, protocol, time, versions, failures, and the commands that reproduce the study."""

from __future__ import annotations

import itertools
import json
import shlex
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from markupsafe import Markup

from phoropter.core.durations import format_duration
from phoropter.core.language.unit_words import RUN
from phoropter.report.render.section import ContentBlock, Section, collapsible_block
from phoropter.report.render.table import (
    CellValue,
    Column,
    ColumnKind,
    Table,
    TableRow,
    one_line,
)
from phoropter.report.sections.candidate_costs import describe_shown_size, sum_study_seconds, sum_training_seconds
from phoropter.report.summary.model import (
    CandidateResults,
    StudySummary,
)
from phoropter.report.summary.report_input import ReportInput
from phoropter.results.metrics.registry import METRICS
from phoropter.results.store import Store


def candidates_table(summary: StudySummary) -> Table:
    """Each candidate with its description, number of runs and total training time."""
    columns = (
        Column("Candidate"),
        Column("Description", "words"),
        Column("Runs", "count"),
        Column("Planned", "count"),
        Column("Epochs", "count"),
        Column("Training, total", "duration"),
    )
    rows = [TableRow(_candidate_values(e), "plain" if e.is_complete else "warning") for e in summary.candidates]
    rows += [TableRow((name, "no finished run", 0, None, None, None), "warning") for name in summary.missing_candidates]
    return Table("candidates", "Candidates", columns, tuple(rows))


def _candidate_values(candidate: CandidateResults) -> tuple[CellValue, ...]:
    record = candidate.runs[0].record
    words = str(record["candidate"].get("description", ""))
    seconds = sum_training_seconds(candidate.runs)
    return candidate.name, words, len(candidate.runs), candidate.n_planned, candidate.median_cost("epochs"), seconds


def runs_table(summary: StudySummary) -> Table:
    """For the files: every finished run with its metrics and costs, unrounded in the CSV."""
    costs: tuple[tuple[str, ColumnKind], ...] = (
        ("epochs", "count"),
        ("train_seconds", "duration"),
        ("predict_seconds", "duration"),
        ("peak_memory_bytes", "bytes"),
    )
    columns = (
        *(Column(n) for n in ("Run", "Candidate")),
        *(Column(n, "count") for n in ("Seed", "Repeat", "Fold", "Training rows", "Test rows")),
        *(Column(METRICS[m].title, "percent" if METRICS[m].percent else "number", "", 3) for m in summary.metrics),
        *(Column(n, k) for n, k in costs),
    )
    rows = tuple(
        TableRow(
            (
                line.key,
                e.name,
                *line.split,
                line.n_train,
                line.n_test,
                *(line.metrics[m] for m in summary.metrics),
                *(line.cost.get(n) for n, _ in costs),
            )
        )
        for e in summary.candidates
        for line in e.runs
    )
    return Table("runs", "Every finished run", columns, rows)


def failures_table(summary: StudySummary) -> Table | None:
    """Runs that failed and have not succeeded since; None where there are none."""
    if not summary.failures:
        return None
    rows = tuple(
        TableRow((str(note.get("candidate", key)), str(note.get("split", "")), _failure_reason(note)))
        for key, note in summary.failures.items()
    )
    return Table(
        "failures", "Failed runs", (Column("Candidate"), Column("Split"), Column("Reason", "words")), rows, sortable=False
    )


def _failure_reason(note: dict[str, Any]) -> str:
    return str(note.get("error") or note.get("message") or note.get("kind") or "no reason was recorded")


def study_facts(summary: StudySummary) -> list[tuple[str, str]]:
    """Label → text, for what this study has."""
    study, dataset = summary.study, summary.study.get("dataset") or {}
    seconds = sum_study_seconds(summary)
    started, finished = _time_range(summary)
    sized = f", images of {dataset['size']} pixels" if dataset.get("size") else ""
    taken = f", {format_duration(seconds)} of training and prediction" if not study.get("given_predictions") else ""
    pairs = [
        ("Dataset", f"{dataset.get('name', '')}, {dataset.get('rows', 0):,} rows{sized}"),
        ("Size of images", describe_shown_size(summary)),
        ("Fingerprint", str(dataset.get("fingerprint", ""))),
        ("Notes", " ".join(map(str, dataset.get("notes") or ()))),
        ("Problems", " ".join(map(str, (dataset.get("problems") or ())[:20]))),
        ("Protocol", describe_protocol(summary)),
        ("Computed", f"{RUN.count(summary.n_finished)}{taken}"),
        ("When", f"{_format_minute(started)} to {_format_minute(finished)}" if started else ""),
        ("Machine", _describe_machine(study.get("machine") or {})),
        ("Versions", ", ".join(f"{k} {v}" for k, v in (study.get("versions") or {}).items())),
        ("Differing versions", _differing_versions(summary)),
        ("Not read", describe_unplanned_runs(Store(summary.folder))),
    ]
    return [(word, text) for word, text in pairs if text]


def describe_unplanned_runs(store: Store) -> str:
    """What lies under runs/ and is of no run of this study, in a sentence; empty where there is nothing."""
    found = store.find_unplanned_runs()
    if not found:
        return ""
    folders, are = (f"{len(found)} folders", "are") if len(found) > 1 else ("1 folder", "is")
    return (
        f"{folders} under runs ({', '.join(found[:3])}{' …' if len(found) > 3 else ''}) {are} of no run of this plan: of an "
        "earlier one, or copied there. A run counts by its key; phoropter import takes predictions that were made elsewhere."
    )


def describe_protocol(summary: StudySummary) -> str:
    """The protocol in one phrase, with folds, repeats and seeds."""
    protocol = summary.protocol_config
    split = str(protocol.get("split", "stratified-k-fold")).replace("-", " ").replace("k fold", "k-fold")
    plan = summary.study["plan"]
    seeds = sorted({int(p.get("seed") or 0) for p in plan})
    folds = max((int(p.get("folds") or 1) for p in plan), default=1)
    repeats = len({p.get("repeat") for p in plan})
    unseen = [str(site) for site in protocol.get("test_sites") or ()]
    words = [f"{split} (unseen: {', '.join(unseen)})" if unseen else split]
    words += [f"{folds} folds"] if folds > 1 else []
    words += [f"{repeats} repeats"] if repeats > len(seeds) else []
    words += [f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"]
    return ", ".join(words)


def _time_range(summary: StudySummary) -> tuple[str, str]:
    times = [
        (str(line.record.get("started", "")), str(line.record.get("finished", ""))) for e in summary.candidates for line in e.runs
    ]
    starts, ends = [s for s, _ in times if s], [f for _, f in times if f]
    return (min(starts), max(ends)) if starts and ends else ("", "")


def _format_minute(time: str) -> str:
    """An ISO time, to the minute."""
    try:
        when = datetime.fromisoformat(time)
    except ValueError:
        return time
    return when.strftime("%Y-%m-%d %H:%M") + (" UTC" if when.utcoffset() == timedelta(0) else "")


def _describe_machine(machine: dict[str, Any]) -> str:
    parts = [machine.get("processor"), f"{machine['cores']} cores" if machine.get("cores") else None]
    parts += [f"{machine['memory_gib']} GiB" if machine.get("memory_gib") else None, machine.get("device"), machine.get("system")]
    return ", ".join(str(p) for p in parts if p)


def _differing_versions(summary: StudySummary) -> str:
    """Packages whose version differs between runs, because such runs may not be comparable."""
    seen: dict[str, set[str]] = {}
    for candidate in summary.candidates:
        for line in candidate.runs:
            for package, version in (line.record.get("versions") or {}).items():
                seen.setdefault(str(package), set()).add(str(version))
    return "; ".join(f"{p}: {', '.join(sorted(v))}" for p, v in sorted(seen.items()) if len(v) > 1)


def study_source_text(summary: StudySummary) -> str:
    """The study file as written, or the study as JSON where it was made in Python."""
    text = summary.study.get("text")
    return str(text) if text else json.dumps(summary.study_config, indent=1, ensure_ascii=False, sort_keys=True)


def resolved_settings(summary: StudySummary, limit: int = 12) -> list[tuple[str, str]]:
    """Candidate → the candidate and recipe of its first run with every default filled in, as JSON."""
    shown = []
    for candidate in summary.candidates[:limit]:
        record = candidate.runs[0].record
        settings = {"candidate": record["candidate"], "recipe": record.get("recipe"), "choice": record.get("choice")}
        shown.append((candidate.name, json.dumps(settings, indent=1, ensure_ascii=False)))
    return shown


def reproduce_commands(summary: StudySummary) -> list[str]:
    """Lines for a shell that run the study again and report it; what must be done before is a comment."""
    version = (summary.study.get("versions") or {}).get("phoropter")
    if given := summary.study.get("given_predictions"):  # nothing was run: phoropter.compare was called
        return [one_line(f"# phoropter {version}, in Python, with the arrays that were compared"), one_line(str(given))]
    name = str(summary.study.get("name", "study"))
    words = _split_command(str(summary.study.get("command") or ""))
    before = "in the folder where the study was started"
    if not words or words[0] in ("-c", "-m") or words[0].startswith(("ipykernel", "colab", "pytest")):
        words = ["phoropter", "run", f"{name}.yaml"]
        before = f"the study file below, saved as {name}.yaml"
    elif words[0] == "__main__.py":
        words = ["phoropter", *words[1:]]
    elif words[0].endswith(".py"):
        words = ["python", *words]
    comment = f"# phoropter {version}; {before}" if version else f"# {before}"
    return [one_line(comment), shlex.join(words), f"phoropter report {shlex.quote(_results_folder(words, summary.folder))}"]


def _split_command(command: str) -> list[str]:
    """Words of a recorded command; one that no shell would read is split at spaces."""
    try:
        return shlex.split(command)
    except ValueError:
        return command.split()


def _results_folder(words: list[str], folder: Path) -> str:
    """The results folder, seen from where that command was started: what -o names or `runs` holds, or a part inside of it."""
    out = [b for a, b in itertools.pairwise(words) if a in ("-o", "--out")]
    out += [w.partition("=")[2] for w in words if w.startswith("--out=")]
    parent = folder.resolve().parent
    if out:
        is_part = Path(out[0]).name not in (folder.name, "") and parent.name == Path(out[0]).name
        return f"{out[0].rstrip('/')}/{folder.name}" if is_part else out[0]
    if parent.parent.name == "runs":
        return f"runs/{parent.name}/{folder.name}"
    in_runs = parent.name == "runs" or words[:2] in (["phoropter", "run"], ["phoropter", "demo"])
    return f"runs/{folder.name}" if in_runs else folder.name


def provenance_section(inputs: ReportInput) -> Section:
    summary = inputs.summary
    failed = failures_table(summary)
    facts = Markup("").join(Markup("<dt>{}</dt><dd>{}</dd>").format(label, text) for label, text in study_facts(summary))
    commands = "\n".join(reproduce_commands(summary))
    blocks: list[ContentBlock] = [
        candidates_table(summary),
        *([failed] if failed else []),
        Markup('<dl class="facts">{}</dl>').format(facts),
        Markup('<h3>How to reproduce it</h3>\n<pre tabindex="0">{}</pre>').format(commands),
        *([] if summary.study.get("given_predictions") else [collapsible_block("Study file", study_source_text(summary))]),
    ]
    blocks += [collapsible_block(f"All settings of {name}", settings) for name, settings in resolved_settings(summary)]
    return Section("provenance", "Provenance", (), tuple(blocks), (runs_table(summary),))
