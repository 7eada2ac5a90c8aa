"""The model card of a bundle, README.md: metadata as the hub reads them, what the study measured, of what, and how to use it.

It repeats what bundle.json says. The metadata (`library_name`, `license`, `model-index` …) are written by huggingface_hub.
"""

from __future__ import annotations

import re
from typing import Any

from phoropter.models import timm_compat
from phoropter.models.catalog import describe_backbone
from phoropter.models.spec import BackboneSpec
from phoropter.refit.evidence import describe_evidence
from phoropter.refit.made_classifier import MadeClassifier
from phoropter.report.model_card import describe_data, list_protocol_limits
from phoropter.report.render.metric_format import MetricFormat
from phoropter.report.render.table import escape_markdown
from phoropter.report.summary.model import StudySummary
from phoropter.results.metrics.registry import METRICS
from phoropter.training.candidates.refit_record import RefitRecord

_HUB_METRICS = {"macro_f1": "f1", "balanced_accuracy": "accuracy", "log_loss": "log_loss"}  # ours → the hub's word for the family


def write_bundle_card(summary: StudySummary, made: MadeClassifier, record: RefitRecord, *, has_timm: bool) -> str:
    """The complete text of README.md. has_timm: whether timm's layout lies beside"""
    candidate, recordings = made.run.candidate, made.run.image_set.data.source_record.holds_recordings
    parts: list[tuple[str, list[str]]] = [
        (
            "What it is",
            [
                escape_markdown(f"{candidate.description}."),
                f"It predicts {_describe_answer(summary)}: {_name_classes(summary)}.",
            ],
        ),
        ("What is known of it", [*map(escape_markdown, describe_evidence(record)), _table_of_metrics(record)]),
        ("Data", describe_data(summary)),
        ("Limits", [f"- {escape_markdown(line)}" for line in _list_limits(summary, record)]),
        ("Use", _describe_use(recordings, has_timm)),
    ]
    study, data = record.evidence.study, _card_data(summary, made, record, has_timm)
    title = f"# {escape_markdown(candidate.name)}\n\nA classifier made after the study {escape_markdown(study)}.\n"
    return f"---\n{data}\n---\n\n{title}" + "".join(f"\n## {name}\n\n" + _join_body(name, body) + "\n" for name, body in parts)


def _join_body(title: str, body: list[str]) -> str:
    return ("\n" if title == "Limits" else "\n\n").join(part for part in body if part)


def _describe_answer(summary: StudySummary) -> str:
    count = len(summary.classes)
    return f"a probability for each of {count} labels" if summary.is_multi_label else f"one of {count} classes"


def _name_classes(summary: StudySummary) -> str:
    more = f" and {len(summary.classes) - 20} more" if len(summary.classes) > 20 else ""
    return escape_markdown(", ".join(summary.classes[:20]) + more)


def _table_of_metrics(record: RefitRecord) -> str:
    figure, lines = record.evidence.figure, ["| Metric | On held-out data | 95 % interval |", "|---|---|---|"]
    for name, value in record.evidence.metrics.items():
        scale, bounds = MetricFormat.from_metric(METRICS[name]), ""
        if name == figure.metric and figure.low is not None and figure.high is not None:
            bounds = f"{scale.format_value(figure.low)} to {scale.format_value(figure.high)}"
        lines.append(f"| {escape_markdown(scale.title)} | {scale.format_value(value)} | {bounds} |")
    return "\n".join(lines)


def _list_limits(summary: StudySummary, record: RefitRecord) -> list[str]:
    lines = [f"Changed for a smoke version of the study: {line}." for line in summary.study.get("scale") or ()]
    lines += list_protocol_limits(summary)
    if record.evidence.figure.low is None:
        lines.append("There are too few independent units for an interval.")
    lines.append("It says nothing of data unlike those above: other devices, places and people were not tested.")
    return lines


def _describe_use(recordings: bool, has_timm: bool) -> list[str]:
    what = "recordings" if recordings else "images"
    python = (
        '```python\nimport phoropter as ph\n\nmodel = ph.load("path/to/this/folder")\n'
        'model.predict("new/files").probabilities\n```'
    )
    body = [f"```\nphoropter predict path/to/this/folder new/{what} -o predictions.csv\n```", python]
    if has_timm:
        body.append(
            "`timm/` holds it in timm's layout: `timm.create_model('local-dir:path/to/this/folder/timm', pretrained=True)`."
        )
    return body


def _card_data(summary: StudySummary, made: MadeClassifier, record: RefitRecord, has_timm: bool) -> str:
    """The metadata as YAML."""
    from huggingface_hub import EvalResult, ModelCardData

    evidence, figure = record.evidence, record.evidence.figure
    pictures = not made.run.image_set.data.source_record.holds_recordings
    task = "image-classification" if pictures else "other"  # the hub has no task for recordings
    dataset = str((summary.study.get("dataset") or {}).get("name") or evidence.study)
    results = [
        EvalResult(
            task_type=task,
            dataset_type=re.sub(r"[^a-z0-9]+", "-", dataset.lower()).strip("-") or "data",
            dataset_name=dataset,
            dataset_split="held-out",
            metric_type=_HUB_METRICS.get(name, name),
            metric_name=METRICS[name].title,
            metric_value=value,
            metric_args={"low": figure.low, "high": figure.high, "level": 0.95}
            if name == figure.metric and figure.low is not None
            else None,
        )
        for name, value in evidence.metrics.items()
    ]
    backbones = [b for candidate in made.candidates for b in candidate.backbones]
    tags = ["image-classification" if pictures else "recordings", "phoropter", *(["timm"] if has_timm else [])]
    card = ModelCardData(
        library_name="phoropter",
        pipeline_tag=task,
        tags=[*tags, *dict.fromkeys(b.name.partition(".")[0] for b in backbones)],
        model_name=f"{evidence.study}-{evidence.candidate}",
        eval_results=results or None,
        **_describe_license(backbones),
    )
    return str(card.to_yaml())


def _describe_license(backbones: list[BackboneSpec]) -> dict[str, Any]:
    """That of the pretrained weights, where all have the same and timm knows it; else `other`."""
    found = {_license_of(backbone) for backbone in backbones}
    known = found.pop() if len(found) == 1 else None
    return {"license": known} if known else {"license": "other", "license_name": "not-stated"}


def _license_of(backbone: BackboneSpec) -> str | None:
    if backbone.weights != "pretrained" or describe_backbone(backbone).family in ("alexnet", "custom"):
        return None
    stated = timm_compat.import_timm().get_pretrained_cfg(backbone.name)
    return str(stated.license) if stated is not None and stated.license else None
