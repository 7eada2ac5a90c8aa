"""Studies to be reported: one of everything, and one of everything hostile and half done."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from made_study import Made, make_study

HOSTILE_CLASSES = ("<script>alert(1)</script>", "a\"b'c & $x_1$ \\input{x} 100%", "=HYPERLINK(1)|{{7*7}}`", "猫\u202e\u0000\n<b>")
HOSTILE_NAME = "<img src=x onerror=alert(2)> ${x} \\write18{ls} ^~#&%_"


def finding(kind: str, severity: str, examples: list[list[str]], words: str = "") -> dict[str, object]:
    """As study/audit.py leaves them."""
    said = words or f"{kind.replace('_', ' ')} lie on both sides: in 2 of 5 splits, at worst 3 of 84 tested rows (3.6 %)"
    counts = {"count": 3, "of": 84, "splits": [2, 5], "share": 3 / 84}
    return {"kind": kind, "severity": severity, **counts, "words": said, "examples": examples}


ROUNDS = (
    {"rung": 1, "title": "all, briefly", "tried": ["a", "b", "c"], "kept": ["b", "a"], "metric": "accuracy"}
    | {"scores": {"a": 0.71, "b": 0.815, "c": 0.4}, "note": "a tenth of the rows"},
    {
        "rung": 2,
        "title": "the best, in full",
        "tried": ["a", "b"],
        "kept": ["b"],
        "metric": "accuracy",
        "scores": {"a": 0.8, "b": 0.9},
    }
    | {"note": ""},
)
WHOLE = Made(
    accuracies={"resnet50": 0.8, "resnet50 + efficientnet_b0": 0.93, "efficientnet_b0": 0.82},
    classes=("calm", "stress", "fun"),
    rows=420,
    groups=14,
    sites=("north", "south"),
    spans=True,
    features=8,
    external=60,
    validation=45,
    pictures=3,
    epochs=6,
    audit=[finding("label_conflicts", "note", [["internal/00001.png", "internal/00002.png", "calm and fun"]])],
    audit_pictures=("internal/00001.png", "internal/00002.png"),
    branches=True,
    taught={"efficientnet_b0": "resnet50"},
    screening=ROUNDS,
    name="whole",
)
HOSTILE = Made(
    accuracies={HOSTILE_NAME: 0.9, "plain": 0.7},
    classes=HOSTILE_CLASSES,
    rows=120,
    folds=4,
    seeds=(0,),
    missing=1,
    failed=1,
    epochs=2,
    audit=[
        finding("near_duplicates", "warn", [["<b>x</b>", "y&z", "mirrored"]]),
        finding("groups", "note", [["<i>g</i>"]]),
    ],
    audit_pictures=("<b>x</b>",),
    name="half <i>done</i>",
    scale=["at most 120 rows <u>of</u> the dataset were used"],
    published={"plain": {"accuracy": 71.0}},
)


@dataclass(frozen=True)
class Reported:
    """A results folder and its page."""

    folder: Path
    page: Path
    made: Made

    @property
    def text(self) -> str:
        return self.page.read_text(encoding="utf-8")


def report(folder: Path, made: Made, out: Path | None = None) -> Reported:
    from phoropter.report.page import write_report

    make_study(folder, made)
    return Reported(folder, write_report(folder, out), made)
