"""The text of a first study file: plain YAML with a comment for every choice, which reads back to what was chosen."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from phoropter.core.durations import format_duration
from phoropter.starter.choices import METRICS, ChosenCandidates, ChosenProtocol
from phoropter.starter.first_look import FirstLook, relate_path

_PLAIN = re.compile(r"[A-Za-z/~._][\w./ ~+-]*\w|[A-Za-z]")
_RESERVED = {"true", "false", "null", "yes", "no", "on", "off"}
MAX_CLASSES = 12
SCHEMA_FILE = "phoropter.schema.json"  # beside the study file


def write_study_text(look: FirstLook, protocol: ChosenProtocol, candidates: ChosenCandidates, out: Path, hours: float) -> str:
    """The text of a study file that will lie at `out`."""
    lines = [
        f"# yaml-language-server: $schema={SCHEMA_FILE}",
        f"# Written by phoropter init. Next: phoropter plan {out.name}; phoropter run {out.name} --smoke; then without --smoke",
        f"name: {make_study_name(look.dataset.name)}",
        "",
        *_describe_data(look),
        *_data_lines(look, out),
        "",
        f"# {_capitalize(protocol.reason)}.",
        *(f"# {each}." for each in candidates.settled),
        f"protocol: {_flow(protocol.keys)}",
        "",
        *_candidate_lines(candidates, hours),
        "",
        "# The first metric decides the order.",
        f"metrics: {_flow(METRICS)}",
    ]
    return "\n".join(lines) + "\n"


def make_study_name(name: str) -> str:
    """A name that a study may have, as near to this one as possible."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-._")[:80] or "study"


def _describe_data(look: FirstLook) -> list[str]:
    dataset = look.dataset
    counts = sorted(zip(dataset.classes, dataset.class_counts.tolist(), strict=True), key=lambda pair: -pair[1])
    shown = ", ".join(f"{_one_line(name)} {count}" for name, count in counts[:MAX_CLASSES])
    more = f" and {len(counts) - MAX_CLASSES} more" if len(counts) > MAX_CLASSES else ""
    lines = [f"# {len(dataset):,} rows of {len(counts)} classes: {shown}{more}."]
    if unlabelled := int((~dataset.labelled).sum()):
        lines.append(f"# {unlabelled} rows have no label and are in no fold.")
    if dataset.groups is None:
        lines.append("# No groups are known. If several rows show one person, say so by group_from or columns: {group: …}.")
    else:
        examples = ", ".join(_one_line(name) for name in list(dict.fromkeys(dataset.groups.tolist()))[:3])
        lines.append(f"# {len(set(dataset.groups.tolist()))} groups that folds keep together, such as {examples}.")
    if dataset.sites is not None and (sites := len(set(dataset.sites.tolist()))) > 1:
        lines.append(f"# {sites} sites: `protocol: leave-one-site-out` tests each by a model that never saw it.")
    if look.problems:
        lines.append(f"# {len(look.problems)} inputs cannot be used and are left out; `phoropter inspect` lists them.")
    return lines


def _data_lines(look: FirstLook, out: Path) -> list[str]:
    source = look.spec.source
    value = getattr(look.spec, source)
    place = value if not isinstance(value, Path) else relate_path(value, out.absolute().parent)
    lines = ["data:", f"  {source}: {_flow(place)}"]
    lines += [f"  {key}: {_flow(value)}" for key, value in look.keys.items()]
    return [*lines, "  on_bad_input: skip"] if look.problems else lines


def describe_estimate(candidates: ChosenCandidates, hours: float) -> str:
    """What the study takes, in the words of its plan, and whether that is within the hours given."""
    cost = candidates.estimate
    basis = "at the speed of earlier runs here" if cost.measured else "a guess; the first run measures it"
    taken = f"about {format_duration(cost.seconds)} on {cost.hardware} ({basis})"
    if candidates.fits:
        return f"{taken}; {hours:g} h were given"
    least = math.ceil(cost.seconds / 36) / 100  # in hundredths of an hour
    return f"nothing fits into {hours:g} h: this is the least, {taken}; it would fit into --hours {least:g}"


def _candidate_lines(candidates: ChosenCandidates, hours: float) -> list[str]:
    lines = [f"# {_capitalize(describe_estimate(candidates, hours))}.", "candidates:"]
    for each in candidates.chosen:
        lines.append(f"  - {_flow(each.entry)}   # about {format_duration(each.seconds)}")
    if candidates.left_out:
        named = (f"{each.title} ({format_duration(each.seconds)})" for each in candidates.left_out)
        lines.append(f"  # left out, for they take longer: {', '.join(named)}")
    lines += [f"  # not used: {_one_line(name)}: {' '.join(why.split())}" for name, why in candidates.unused.items()]
    if candidates.missing:
        at_random = all(each.entry.get("weights") == "random" for each in candidates.chosen if each.is_network)
        if at_random:
            lines.append("  # These start at random: no pretrained weights were found on this machine.")
            lines.append("  # If you have files of weights, set PHOROPTER_WEIGHTS to their folder and call init again.")
        lines.append(f"  # To compare pretrained networks: phoropter weights get {' '.join(candidates.missing)} --to weights")
        lines.append("  # then set PHOROPTER_WEIGHTS=weights and take the comment marks off:")
        for name in candidates.missing:
            lines.append(f"  # - {_flow({'backbone': name.partition('.')[0], 'frozen': True, 'recipe': 'logistic'})}")
    return lines


def _capitalize(sentence: str) -> str:
    return sentence[0].upper() + sentence[1:]


def _one_line(text: object) -> str:
    return " ".join(str(text).split())[:60]


def _flow(value: Any) -> str:
    """A value as YAML on one line, in quotes where a plain word would read as something else."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_flow(key)}: {_flow(each)}" for key, each in value.items()) + "}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "[" + ", ".join(map(_flow, value)) + "]"
    if isinstance(value, str):
        return value if _PLAIN.fullmatch(value) and value.lower() not in _RESERVED else json.dumps(value, ensure_ascii=False)
    return json.dumps(value)
