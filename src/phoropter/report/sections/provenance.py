"""What was run, on what, how long, with which versions, what failed, and how to repeat it."""

from __future__ import annotations

import json
import re
from datetime import datetime, timedelta
from typing import Any

from phoropter.report.render.table import CellValue, Column, ColumnKind, Table, TableRow, duration_text
from phoropter.report.summary.model import CandidateResults, StudySummary
from phoropter.results.metrics.registry import METRICS


def candidates_table(evidence: StudySummary) -> Table:
    """Each candidate in words, with how many runs it has and how long they took together."""
    columns = (
        Column("Candidate"),
        Column("What it is", "words"),
        Column("Runs", "count"),
        Column("Planned", "count"),
        Column("Epochs", "count"),
        Column("Training, all runs", "duration"),
    )
    rows = [TableRow(_candidate_values(e), "plain" if e.is_complete else "warning") for e in evidence.candidates]
    rows += [TableRow((name, "no run is finished", 0, None, None, None), "warning") for name in evidence.missing_candidates]
    return Table("candidates", "What was compared", columns, tuple(rows))


def _candidate_values(entrant: CandidateResults) -> tuple[CellValue, ...]:
    record = entrant.runs[0].record
    words = str(record["candidate"].get("description", ""))
    seconds = sum(line.cost.get("train_seconds", 0.0) for line in entrant.runs)
    return entrant.name, words, len(entrant.runs), entrant.n_planned, entrant.median_cost("epochs"), seconds


def runs_table(evidence: StudySummary) -> Table:
    """For the files: every finished run with its numbers, unrounded in the CSV."""
    costs: tuple[tuple[str, ColumnKind], ...] = (
        ("epochs", "count"),
        ("train_seconds", "duration"),
        ("predict_seconds", "duration"),
        ("peak_memory_bytes", "bytes"),
    )
    columns = (
        *(Column(n) for n in ("Run", "Candidate")),
        *(Column(n, "count") for n in ("Seed", "Repeat", "Fold", "Trained on", "Tested on")),
        *(Column(METRICS[m].title, "percent" if METRICS[m].percent else "number", "", 3) for m in evidence.metrics),
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
                *(line.metrics[m] for m in evidence.metrics),
                *(line.cost.get(n) for n, _ in costs),
            )
        )
        for e in evidence.candidates
        for line in e.runs
    )
    return Table("runs", "Every finished run", columns, rows)


def failures_table(evidence: StudySummary) -> Table | None:
    """Runs that failed and have not succeeded since."""
    if not evidence.failures:
        return None
    planned = {str(p["key"]): p for p in evidence.study["plan"]}
    rows = tuple(
        TableRow((str(planned[key].get("candidate", key)), str(planned[key].get("split", "")), _failure_reason(note)))
        for key, note in evidence.failures.items()
    )
    return Table(
        "failures", "Runs that failed", (Column("Candidate"), Column("Split"), Column("Why", "words")), rows, sortable=False
    )


def _failure_reason(note: dict[str, Any]) -> str:
    return str(note.get("error") or note.get("message") or note.get("kind") or "no reason was left")


def study_facts(evidence: StudySummary) -> list[tuple[str, str]]:
    """Pairs of a word and what it is for this study, for the last section."""
    study, dataset = evidence.study, evidence.study.get("dataset") or {}
    seconds = sum(
        line.cost.get("train_seconds", 0.0) + line.cost.get("predict_seconds", 0.0)
        for e in evidence.candidates
        for line in e.runs
    )
    started, finished = _time_range(evidence)
    pairs = [
        ("Dataset", f"{dataset.get('name', '')}, {dataset.get('rows', 0):,} rows, pictures of {dataset.get('size', '?')} pixels"),
        ("Fingerprint", str(dataset.get("fingerprint", ""))),
        ("Notes", " ".join(map(str, dataset.get("notes") or ()))),
        ("Problems", " ".join(map(str, (dataset.get("problems") or ())[:20]))),
        ("Protocol", describe_protocol(evidence)),
        ("Computed", f"{evidence.n_finished:,} runs, {duration_text(seconds)} of training and predicting"),
        ("When", f"{_format_minute(started)} to {_format_minute(finished)}" if started else ""),
        ("Machine", _describe_machine(study.get("machine") or {})),
        ("Versions", ", ".join(f"{k} {v}" for k, v in (study.get("versions") or {}).items())),
        ("Versions differ", _differing_versions(evidence)),
    ]
    return [(word, text) for word, text in pairs if text]


def describe_protocol(evidence: StudySummary) -> str:
    """The split in words, with folds, repeats and seeds."""
    protocol = evidence.protocol_config
    split = str(protocol.get("split", "stratified-k-fold")).replace("-", " ").replace("k fold", "k-fold")
    plan = evidence.study["plan"]
    seeds = sorted({int(p.get("seed") or 0) for p in plan})
    folds = max((int(p.get("folds") or 1) for p in plan), default=1)
    repeats = len({p.get("repeat") for p in plan})
    unseen = [str(site) for site in protocol.get("test_sites") or ()]
    words = [f"{split} (unseen: {', '.join(unseen)})" if unseen else split]
    words += [f"{folds} folds"] if folds > 1 else []
    words += [f"{repeats} repeats"] if repeats > len(seeds) else []
    words += [f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"]
    return ", ".join(words)


def _time_range(evidence: StudySummary) -> tuple[str, str]:
    times = [
        (str(line.record.get("started", "")), str(line.record.get("finished", "")))
        for e in evidence.candidates
        for line in e.runs
    ]
    starts, ends = [s for s, _ in times if s], [f for _, f in times if f]
    return (min(starts), max(ends)) if starts and ends else ("", "")


def _format_minute(time: str) -> str:
    """An ISO time to the minute, as people write it."""
    try:
        when = datetime.fromisoformat(time)
    except ValueError:
        return time
    return when.strftime("%Y-%m-%d %H:%M") + (" UTC" if when.utcoffset() == timedelta(0) else "")


def _describe_machine(machine: dict[str, Any]) -> str:
    parts = [machine.get("processor"), f"{machine['cores']} cores" if machine.get("cores") else None]
    parts += [f"{machine['memory_gib']} GiB" if machine.get("memory_gib") else None, machine.get("device"), machine.get("system")]
    return ", ".join(str(p) for p in parts if p)


def _differing_versions(evidence: StudySummary) -> str:
    """Packages whose version is not the same in all runs: numbers from unlike software should not stand side by side unsaid."""
    seen: dict[str, set[str]] = {}
    for entrant in evidence.candidates:
        for line in entrant.runs:
            for package, version in (line.record.get("versions") or {}).items():
                seen.setdefault(str(package), set()).add(str(version))
    return "; ".join(f"{p}: {', '.join(sorted(v))}" for p, v in sorted(seen.items()) if len(v) > 1)


def study_source_text(evidence: StudySummary) -> str:
    """The study as its author wrote it, else as plain data."""
    text = evidence.study.get("text")
    return str(text) if text else json.dumps(evidence.study_config, indent=1, ensure_ascii=False, sort_keys=True)


def resolved_settings(evidence: StudySummary, limit: int = 12) -> list[tuple[str, str]]:
    """Candidate → its first run's candidate and recipe with nothing left open, as JSON."""
    shown = []
    for entrant in evidence.candidates[:limit]:
        record = entrant.runs[0].record
        whole = {"candidate": record["candidate"], "recipe": record.get("recipe"), "choice": record.get("choice")}
        shown.append((entrant.name, json.dumps(whole, indent=1, ensure_ascii=False)))
    return shown


def reproduce_commands(evidence: StudySummary) -> list[str]:
    """Command lines that compute the study again."""
    versions = evidence.study.get("versions") or {}
    version = versions.get("phoropter")
    install = f"pip install phoropter=={version}" if version else "pip install phoropter"
    name = str(evidence.study.get("name", "study"))
    command = str(evidence.study.get("command") or f"phoropter run {name}.yaml")
    command = f"phoropter{command.removeprefix('__main__.py')}" if command.startswith("__main__.py ") else command
    return [install, command, f"phoropter report {_results_folder(command, evidence.folder.name)}"]


def _results_folder(command: str, name: str) -> str:
    """Where that command leaves its results, as it is typed."""
    found = re.search(r"(?:^|\s)(?:-o|--out)[ =]('[^']*'|\S+)", command)
    if found:
        return found.group(1)
    return f"runs/{name}" if command.startswith(("phoropter run ", "phoropter demo")) else name
