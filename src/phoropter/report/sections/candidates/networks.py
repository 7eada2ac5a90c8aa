"""Networks: which ones the candidates are made of and what they were pretrained on, so that a comparison of architectures that is
also one of pretrainings says so.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from phoropter.models.catalog import find_architecture, list_architectures
from phoropter.models.weights.pretraining_words import describe_pretraining
from phoropter.report.render.section import Section
from phoropter.report.render.table import CellValue, Column, Table, TableRow
from phoropter.report.render.wording import count_with_noun, list_names
from phoropter.report.summary.model import StudySummary
from phoropter.report.summary.report_input import ReportInput

NOTHING = describe_pretraining("untrained")


def networks_section(inputs: ReportInput) -> Section | None:
    """None where no network was pretrained."""
    rows = _list_networks(inputs.summary)
    sets = list(dict.fromkeys(words for _, _, _, words in rows if words != NOTHING))
    if not sets:
        return None
    from_nothing = any(words == NOTHING for _, _, _, words in rows)
    if len(sets) == 1 and not from_nothing:
        text = f"All networks were pretrained on the same data: {sets[0]}."
    else:
        kinds = [*sets, *(["nothing"] if from_nothing else [])]
        text = (
            f"The networks differ in what they were pretrained on ({list_names(kinds)}), so a difference between two of them may "
            "come from that and not from their architecture."
        )
    return Section("networks", "Networks and their pretraining", (text,), (_networks_table(rows),))


def _networks_table(rows: list[tuple[str, str, str, str]]) -> Table:
    columns = (Column("Candidates", "words"), Column("Network"), Column("Weights"), Column("Pretrained on", "words"))
    by_network: dict[tuple[str, str, str], list[str]] = {}
    for candidate, network, weights, words in rows:
        by_network.setdefault((network, weights, words), []).append(candidate)
    cells: list[tuple[CellValue, ...]] = [
        (list_names(list(dict.fromkeys(names)), 4), *described) for described, names in by_network.items()
    ]
    note = f"{count_with_noun(len(by_network), 'network')}. What weights were pretrained on is read from their name."
    return Table(
        "networks", "Networks, their weights and what these were pretrained on", columns, tuple(map(TableRow, cells)), note
    )


def _list_networks(summary: StudySummary) -> list[tuple[str, str, str, str]]:
    """(candidate without the settings of sweeps, network, weights, pretrained on), in the order of the leaderboard."""
    return [
        (candidate.base_name, *_describe_network(backbone))
        for candidate in summary.candidates
        for backbone in _read_backbones(candidate.runs[0].record if candidate.runs else {})
    ]


def _read_backbones(record: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield from (record.get("candidate") or {}).get("backbones") or ()


def _describe_network(backbone: dict[str, Any]) -> tuple[str, str, str]:
    """A tag of the name, else of the file, else the default of timm for the name."""
    name, _, tag = str(backbone.get("name", "")).partition(".")
    weights = str(backbone.get("weights", "pretrained"))
    if weights == "random":
        return name, "random", NOTHING
    if weights != "pretrained":
        return name, Path(weights).name, describe_pretraining(Path(weights).stem.partition(".")[2])
    if not tag and name in list_architectures(name):  # else it is one of the user's own
        tag = find_architecture(name).tag or ""
    return name, tag or "its own", describe_pretraining(tag)
