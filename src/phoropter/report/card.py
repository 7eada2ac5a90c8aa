"""A model card (Mitchell et al. 2019) of the first candidate of a study, as Markdown: what it is, on whom it was judged and how.

It says nothing that the page does not say, and what it cannot know (who should use it, and for what) it leaves to be filled in.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

from phoropter.report import conclusion, leaks, provenance, tables
from phoropter.report.evidence import Entrant, Evidence
from phoropter.report.figures import Scale
from phoropter.report.reading import calibrated
from phoropter.report.section import Findings
from phoropter.report.table import Column, Row, Table, duration_text, markdown_text, si_text, text_of
from phoropter.results.metrics import METRICS

FEW_UNITS = 20  # below, an interval over groups is itself uncertain, and the card says so


def card(findings: Findings) -> str:
    """The whole text."""
    evidence, first = findings.evidence, findings.evidence.entrants[0]
    said, beside = conclusion.conclusion(evidence, findings.comparisons)
    parts: list[tuple[str, list[str]]] = [
        ("What it is", _what(first, evidence)),
        ("What the study concludes", [_text(s) for s in (*said, *beside)]),
        ("Data", _data(evidence)),
        ("How it was judged", _protocol(evidence)),
        ("Figures", _figures(findings)),
        ("Whom it serves worst", _worst(evidence)),
        ("How sure it is of itself", _calibration(findings)),
        ("Cost", _cost(first)),
        ("Limits", _bulleted(limits(findings))),
        ("How to load it", _loading(findings)),
        ("Versions", [_text(", ".join(f"{k} {v}" for k, v in (evidence.study.get("versions") or {}).items()))]),
    ]
    name = str(evidence.study.get("name", evidence.folder.name))
    head = f"# Model card: {_text(first.name)}\n\nThe first candidate of the study {_text(name)}.\n"
    return head + "".join(f"\n## {title}\n\n" + "\n\n".join(p for p in body if p) + "\n" for title, body in parts if any(body))


def _text(words: str) -> str:
    return markdown_text(words)


def _bulleted(lines: Sequence[str]) -> list[str]:
    return ["\n".join(f"- {_text(line)}" for line in lines)]


def _what(first: Entrant, evidence: Evidence) -> list[str]:
    record = first.runs[0].record
    words = str(record["candidate"].get("description", first.name))
    classes = ", ".join(evidence.classes[:20]) + (f" and {len(evidence.classes) - 20} more" if len(evidence.classes) > 20 else "")
    return [_text(f"{words}."), _text(f"It answers with one of {len(evidence.classes)} classes: {classes}.")]


def _data(evidence: Evidence) -> list[str]:
    dataset = evidence.study.get("dataset") or {}
    words = [f"{dataset.get('name') or 'The dataset'}: {dataset.get('rows', 0):,} labelled rows"]
    words += [f"{dataset['groups']:,} groups"] if dataset.get("groups") else []
    words += [f"sites {', '.join(map(str, dataset['sites']))}"] if dataset.get("sites") else []
    size = f"shown as pictures of {dataset['size']} pixels" if dataset.get("size") else ""
    sentence = f"{', '.join(words)}{'; ' + size if size else ''}. Fingerprint {dataset.get('fingerprint', 'unknown')}."
    notes = " ".join(map(str, dataset.get("notes") or ()))
    counts = dataset.get("counts") or []
    each = ", ".join(f"{c} {n:,}" for c, n in list(zip(evidence.classes, counts, strict=False))[:20])
    return [_text(sentence), _text(f"Rows by class: {each}.") if each else "", _text(notes)]


def _protocol(evidence: Evidence) -> list[str]:
    words = provenance.protocol_words(evidence)
    runs = len(evidence.entrants[0].runs)
    return [_text(f"{words[:1].upper()}{words[1:]}; {runs} runs of this candidate, judged {conclusion.where(evidence)}.")]


def _figures(findings: Findings) -> list[str]:
    """A row a metric; the interval where there is one, which is that of the metric candidates are ranked by."""
    evidence, first = findings.evidence, findings.evidence.entrants[0]
    base = tables.baseline(evidence)
    rows = []
    for name in evidence.metrics:
        column = tables.column_of(METRICS[name])
        head = f"{column.name}, {column.of}" if column.of else column.name
        bounds = text_of(tables.interval(first), column) if name == evidence.metrics[0] else ""
        always = text_of(base.get(name), column) if name in base else ""
        rows.append(Row((head, text_of(tables.spread(first, name), column), bounds, always)))
    unit = "groups" if evidence.grouped else "rows"
    columns = (Column("Metric"), Column("On held-out data"), Column("95 % interval"), Column("Always the commonest class"))
    said = f"Mean ± standard deviation over runs; the interval by bootstrap over {evidence.units:,} {unit}"
    body = [Table("figures", said, columns, tuple(rows)).markdown().strip()]
    if first.unseen is not None:
        scale, found = Scale.of(evidence.metric), first.unseen.interval
        there = f"On {first.unseen.rows:,} rows of sites never trained on, {first.unseen.models} models averaged have "
        there += f"{scale.text(found.estimate)} {scale.in_text}"
        bounds = f" (95 % interval {scale.text(found.low)} to {scale.text(found.high)})" if np.isfinite(found.low) else ""
        body.append(_text(f"{there}{bounds}."))
    return body


def _worst(evidence: Evidence) -> list[str]:
    first = evidence.entrants[0]
    body = []
    if len(first.groups.rows) > 1:
        found = tables.worst_groups(first)
        hardest = found.groups[0]
        body.append(
            _text(
                f"Over the hardest fifth of {len(found.groups)} groups ({found.share_groups}) its accuracy is "
                f"{found.share_mean * 100:.1f} %; the hardest is {hardest.group}, with {hardest.value * 100:.1f} % of "
                f"{hardest.rows:,} answers right."
            )
        )
    if len(first.sites.rows) > 1:
        shares = "; ".join(f"{s} {first.sites.share(s) * 100:.1f} %" for s in tables.hardest(evidence, "site"))
        body.append(_text(f"Accuracy by site, hardest first: {shares}."))
    each = tables.class_shares(first.confusion)
    worst = int(np.argmin(np.where(each.answers > 0, each.recall, np.inf)))
    found_of = f"{each.recall[worst] * 100:.1f} % of the time"
    body.append(_text(f"The class it finds least often is {evidence.classes[worst]}, {found_of}."))
    return body


def _calibration(findings: Findings) -> list[str]:
    first = findings.evidence.entrants[0]
    counts, confidence, right = first.bins.sum(axis=0)
    over = (confidence - right) / counts * 100
    said = f"On average it is {abs(over):.1f} points {'more' if over > 0 else 'less'} confident than it is right; "
    said += f"its calibration error is {first.mean('ece'):.3f}."
    mended = calibrated(findings.store, first)
    if mended:
        said += f" Dividing its logits by a temperature of {mended.temperature:.2f} (fitted on inner validation rows) leaves "
        said += f"{mended.error:.3f}."
    return [_text(said)]


def _cost(first: Entrant) -> list[str]:
    known = [
        ("{} parameters", first.cost("parameters"), si_text),
        ("{} multiply-adds for one picture", first.cost("macs"), si_text),
        ("{} to train once", first.cost("train_seconds"), duration_text),
        ("{} pictures a second when predicting", first.cost("predict_images_per_s"), lambda v: f"{v:,.0f}"),
    ]
    said = ", ".join(words.format(text(value)) for words, value, text in known if np.isfinite(value))
    return [_text(f"{said}, on the machine of the study.")] if said else []


def limits(findings: Findings) -> list[str]:
    """What keeps the figures from being believed too far, in plain words."""
    evidence, found = findings.evidence, findings.comparisons
    first = evidence.entrants[0]
    lines = [f"Changed for a quick version of the study: {line}." for line in evidence.study.get("scale") or ()]
    if evidence.finished < evidence.planned:
        lines.append(f"Only {evidence.finished:,} of {evidence.planned:,} runs of the study are finished.")
    open_ = [c.b for c in found.of_leader if c.verdict != "ahead"]
    if open_:
        lines.append(f"It comes first, but it is not shown to be better than {_some(open_)}.")
    lines += _of_protocol(evidence)
    audit = leaks.audit_of(evidence)
    lines += ["No leakage audit is recorded."] if audit is None else leaks.grave(evidence)
    if not np.isfinite(tables.interval(first).low):
        lines.append("There are too few independent units for an interval.")
    elif evidence.units < FEW_UNITS:
        lines.append(f"The interval stands on {evidence.units} {'groups' if evidence.grouped else 'rows'}, which are few.")
    if evidence.study.get("dataset", {}).get("problems"):
        lines.append(f"{len(evidence.study['dataset']['problems'])} bad inputs were left out of the data.")
    lines.append("Other pictures, devices, places and people than these were not tried.")
    return lines


def _of_protocol(evidence: Evidence) -> list[str]:
    if evidence.grouped and evidence.protocol.get("allow_group_overlap"):
        return ["Rows of one group were trained on and tested: on people or places never met it will likely do worse."]
    if not evidence.grouped:
        return ["Rows have no groups, so nothing is known of how it does on a new person, place or device."]
    return []


def _some(names: list[str], limit: int = 4) -> str:
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")


def _loading(findings: Findings) -> list[str]:
    first = findings.evidence.entrants[0]
    kept = [(line, bundle) for line in first.runs if (bundle := findings.store.run(line.key).bundle) is not None]
    if not kept:
        return ["No bundle of it was kept: run the study with `keep: first` (one model) or `keep: all`."]
    line, folder = kept[0]
    where = os.path.relpath(folder, findings.store.folder).replace(os.sep, "/")
    code = (
        "```python\n"
        "from pathlib import Path\n\n"
        "from phoropter.models.classifier import load\n\n"
        f'classifier = load(Path("{where}"))   # from the results folder; pictures (B, 3, S, S) uint8 → logits (B, C)\n'
        "```"
    )
    said = (
        f"The bundle is the model of one run: trained on {line.n_train:,} rows of the data, tested on {line.n_test:,}. "
        "The figures above are those of all runs, not of this model alone."
    )
    return [code, _text(said)]
