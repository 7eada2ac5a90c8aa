"""Every value that the five papers state is in the resolved study, and every value that none states carries [D].

`paper_values.csv` was made once from the texts: part of the study, candidates (a pattern; empty: of the study itself), key, value
as JSON, and `paper:line` of the text that states it; papers are counted from 000: SONIC, attention or convolution, AlexNet
and after, a ViT teaches a CNN, risk at birth.
"""

from __future__ import annotations

import csv
import json
import re
from collections import defaultdict
from collections.abc import Iterator
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from phoropter.models import catalog
from phoropter.signals.ctg import CtgRules
from phoropter.study.spec import StudySpec, list_shipped_studies, read_study
from phoropter.training.augmentation.spec import parse_steps
from phoropter.training.candidates.candidate import Candidate
from phoropter.training.candidates.recipe import Recipe

PAPERS = ("sonic-wesad", "attention-or-convolution", "alexnet-and-after", "vit-teaches-cnn", "ctg-high-risk")
# Parts that ask what a paper leaves open: nothing in them is the paper's
OPEN = ("every-fusion", "data-size", "grid", "teachers", "picture-size", "optimizer", "by-hospital")
with (Path(__file__).parent / "paper_values.csv").open(encoding="utf-8", newline="") as file:
    ROWS = list(csv.DictReader(file))


@cache
def parts_of_papers() -> dict[str, StudySpec]:
    return {part.name: part for name in PAPERS for part in read_study(name)}


def flatten(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every leaf and every list with its dotted path."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from flatten(inner, f"{path}{key}.")
        return
    plain = list(value) if isinstance(value, tuple) else value
    yield path[:-1], plain
    if isinstance(plain, list):
        for number, inner in enumerate(plain):
            yield from flatten(inner, f"{path}{number}.")


@cache
def study_values(name: str) -> dict[str, Any]:
    part = parts_of_papers()[name]
    data = part.data.model_dump(mode="json")
    if data.get("representation") and data["representation"]["kind"] == "ctg" and data["clean"] is None:
        data["clean"] = CtgRules().model_dump()
    about = part.about.model_dump(exclude_unset=True) if part.about else {}
    sweep = {key: [v for v in values if not isinstance(v, dict)] for key, values in part.sweep.items()}
    plain: dict[str, Any] = {
        "data": data,
        "protocol": part.protocol.model_dump(mode="json"),
        "sweep": sweep,
        "metrics": part.metric_names,
    }
    plain |= {key: about.get(key, {}) for key in ("published", "published_sample")}
    plain |= {"n_seeds": len(part.protocol.seeds), "first_metric": part.metric_names[0]}
    for name in ("cutout", "slit-cutmix"):
        plain |= {name: Recipe(augment=parse_steps(name)).model_dump()["augment"][0]}  # type: ignore[arg-type]
    return dict(flatten(plain))


@cache
def candidate_values(name: str) -> dict[str, dict[str, Any]]:
    return {c.name: resolve_candidate(c) for c in parts_of_papers()[name].parsed_candidates}


def resolve_candidate(candidate: Candidate) -> dict[str, Any]:
    plain = candidate.model_dump(mode="json")
    for backbone in plain["backbones"]:
        backbone["architecture"], _, backbone["tag"] = backbone["name"].partition(".")
    found = dict(flatten(plain)) | {"total_epochs": candidate.recipe.total_epochs}
    found["side"] = catalog.resolve_side(candidate.backbones[0])
    return found


def test_the_table_names_parts_candidates_and_lines() -> None:
    assert len(ROWS) > 700 and len({(r["part"], r["of"], r["key"]) for r in ROWS}) == len(ROWS), "one value a key"
    for row in ROWS:
        assert re.fullmatch(r"00[0-4]:[1-9][0-9]*", row["source"]) and row["part"] in parts_of_papers(), row
        assert not row["of"] or any(fnmatchcase(name, row["of"]) for name in candidate_values(row["part"])), row
    about_papers = {name for name in parts_of_papers() if not name.endswith(OPEN)}
    assert {r["part"] for r in ROWS} == about_papers


@pytest.mark.parametrize("part", sorted({r["part"] for r in ROWS}))
def test_every_value_of_a_paper_is_in_the_resolved_study(part: str) -> None:
    wrong = []
    for row in (r for r in ROWS if r["part"] == part):
        expected = json.loads(row["value"])
        every = candidate_values(part)
        held = [v for n, v in every.items() if fnmatchcase(n, row["of"])] if row["of"] else [study_values(part)]
        for values in held:
            found = values.get(row["key"], "no such key")
            same = found == pytest.approx(expected) if isinstance(expected, float) else found == expected
            wrong += [] if same else [f"{row['of']} {row['key']}: {expected!r} ({row['source']}), here {found!r}"]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(("name", "width"), [("ResNet50", 2048), ("EfficientNet-B0", 1280)])
def test_the_branches_that_end_in_a_pool_of_their_own_average_the_last_map(name: str, width: int) -> None:
    """As in Keras without the top, where EfficientNet keeps its last convolution, which `pooling: average` would leave out."""
    import torch

    from phoropter.models.backbones import build_backbone

    (candidate,) = (c for c in parts_of_papers()["sonic-wesad-2-class-within-subject"].parsed_candidates if c.name == name)
    built = build_backbone(candidate.backbones[0].with_changes(weights="random", size=64), seed=0)
    picture = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = built.body.forward_features(picture).mean((2, 3))
        torch.testing.assert_close(built(picture), expected, rtol=1e-4, atol=1e-4)
    assert built.num_features == expected.shape[1] == width


# ---- what no paper states

MARK = re.compile(r"\[D\] ([A-Za-z0-9_., -]+?):")
_UNMARKED = {"name", "about", "metrics", "compare", "second_protocol", "download_hint"}  # words, and what is asked of the results
_SOURCES = {"wesad", "cifar10", "cifar100", "folder", "imagenet", "simulate", "ctu", "recordings"}  # where the rows come from
_NEUTRAL = Recipe().model_dump(mode="json")


def list_marks() -> dict[str, set[str]]:
    """Part → the keys that its own comments and those of the file's head mark as defaults of ours."""
    found: dict[str, set[str]] = {}
    for name in PAPERS:
        text = list_shipped_studies()[name].read_text(encoding="utf-8")
        documents = re.split(r"^---\n", text, flags=re.MULTILINE)
        head = join_comments(documents[0].partition("\nname:")[0])
        for document in documents:
            own = {key.strip() for names in MARK.findall(head + " " + join_comments(document)) for key in names.split(",")}
            stated = yaml.safe_load(document)["name"]
            halves = [f"{stated}-{half}" for half in ("within-subject", "subject-held-out")]
            found |= {part: own for part in (stated, *halves) if part in parts_of_papers()}
    return found


def join_comments(text: str) -> str:
    return " ".join(m[1] for line in text.splitlines() if (m := re.search(r"(?:^|\s)# ?(.*)$", line)))


def raw_documents() -> Iterator[tuple[str, dict[str, Any]]]:
    for name in PAPERS:
        for document in yaml.safe_load_all(list_shipped_studies()[name].read_text(encoding="utf-8")):
            yield document["name"], document


def written_keys(document: dict[str, Any]) -> Iterator[str]:
    """Dotted keys of data, protocol and sweep that the file writes."""
    for section in ("data", "protocol", "sweep"):
        given = document.get(section) or {}
        for path, _ in flatten({"split": given} if isinstance(given, str) else given):
            if not re.search(r"\.[0-9]+$", path) and path.partition(".")[0] not in _UNMARKED | _SOURCES:
                yield f"{section}.{path}"


def chosen_keys(candidate: Candidate) -> Iterator[str]:
    """Keys of a candidate that were chosen: of its network, head and fusion, and of its recipe what is not neutral."""
    recipe = candidate.recipe.model_dump(mode="json")
    always = {"optimizer.kind", "optimizer.weight_decay", "schedule.kind", "batch_size"} if recipe["phases"] else set()
    phases = flatten({"phases": recipe["phases"]})
    yield from (f"recipe.{path}" for path, value in phases if value not in (None, {}) and not isinstance(value, list))
    for path, value in flatten({k: v for k, v in recipe.items() if k not in ("phases", "preset")}):
        last = path.rpartition(".")[2]
        if path in always or (dict(flatten(_NEUTRAL)).get(path) != value and not last.isdigit() and path != "augment"):
            yield f"recipe.{path}"
    yield from ("backbones.architecture", "side")
    yield from (
        f"backbones.{key}" for b in candidate.backbones for key in ("tag",) if b.weights == "pretrained" and "." in b.name
    )
    yield from (f"backbones.{key}" for b in candidate.backbones for key in ("mean", "std", "options.stem") if is_given(b, key))
    yield from (f"head.{key}" for key, value in candidate.head if value != type(candidate.head).model_fields[key].default)
    yield from (f"fusion.{key}" for key in ("mode", "start", "hidden", "dropout") if candidate.fusion)


def is_given(backbone: Any, key: str) -> bool:
    return bool(backbone.options) if key == "options.stem" else getattr(backbone, key) is not None


def is_covered(key: str, known: set[str]) -> bool:
    """Whether a key, without numbers, ends in one of the known ones, or lies below one of them."""
    words = [w for w in key.split(".") if not w.isdigit()]
    tails = {".".join(words[first:last]) for first in range(len(words)) for last in range(first + 1, len(words) + 1)}
    return bool(tails & known)


def without_numbers(key: str) -> str:
    return ".".join(word for word in key.split(".") if not word.isdigit())


def test_every_key_without_a_paper_s_value_carries_its_mark() -> None:
    marks, stated = list_marks(), defaultdict(set)
    for row in ROWS:
        stated[row["part"]].add((row["of"], without_numbers(row["key"])))
    unmarked = set()
    for name, document in raw_documents():
        for part in (p for p in parts_of_papers() if p == name or (p.startswith(name) and document.get("second_protocol"))):
            if part.endswith(OPEN):
                continue
            of_study = {key for of, key in stated[part] if not of}
            for key in written_keys(document):
                if key.startswith("protocol.") and part.endswith("held-out"):  # the twin's protocol is ours
                    continue
                keys = of_study | {k for of, k in stated[part] if of == "*"}
                if without_numbers(key) not in keys and not is_covered(key, marks[part]):
                    unmarked.add(f"{part}: {key}")
            for candidate in parts_of_papers()[part].parsed_candidates:
                own = {k for of, k in stated[part] if of and fnmatchcase(candidate.name, of)}
                for key in chosen_keys(candidate):
                    if without_numbers(key) not in own and not is_covered(key, marks[part]):
                        unmarked.add(f"{part}: {candidate.name}: {key}")
    assert not unmarked, "\n".join(sorted(unmarked))


def test_parts_beyond_the_papers_say_so() -> None:
    for name, part in parts_of_papers().items():
        if name.endswith(OPEN):
            assert part.about is not None and not part.about.published
            assert "not published" in part.about.expect or name.endswith("by-hospital"), name


def test_a_key_that_loses_its_mark_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(__name__ + ".MARK", re.compile(r"\[D\] (seeds, [A-Za-z0-9_., -]+?):"))
    with pytest.raises(AssertionError, match=r"sonic-wesad-2-class-within-subject: data\.window\.step_s"):
        test_every_key_without_a_paper_s_value_carries_its_mark()
