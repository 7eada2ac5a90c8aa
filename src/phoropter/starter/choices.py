"""What a first study compares, and how: a protocol that the data allow, with its reason, and candidates that fit the time.

The protocol is the first of a short list that can be drawn (`make_splits` is asked). Candidates are probes of different families,
cheapest first, and the full training of the cheapest, as long as their estimate fits: one pass of every network over all
pictures, and three for each epoch of training, at the speed that was measured here or a guess.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from phoropter.core.errors import PhoropterError, SplitError, WeightsError
from phoropter.data.dataset import Dataset
from phoropter.data.splits.protocol import make_splits
from phoropter.data.splits.spec import ProtocolSpec
from phoropter.models import catalog
from phoropter.models.spec import BackboneSpec
from phoropter.models.weights import weight_files
from phoropter.models.weights.weights_folder import named_folder
from phoropter.study.forecasts.measured_speeds import MeasuredSpeeds, load_measured_speeds

# Pretrained, of different families: CNNs, transformers, with and without labels.
PRETRAINED = (
    "mobilenetv3_large_100",
    "efficientnet_b0",
    "resnet50",
    "vit_small_patch16_224",
    "convnext_tiny",
    "vit_small_patch14_dinov2",
)
SMALL = ("test_resnet", "test_vit")  # that start from random weights, where no pretrained ones are at hand
FINETUNE_EPOCHS = 10
SCRATCH_EPOCHS = 20
MANY_ROWS = 20_000


@dataclass(frozen=True)
class ChosenProtocol:
    """keys: of `protocol:` · reason: a sentence for the comment above them · trained_rows: training rows of all its splits"""

    keys: dict[str, Any]
    reason: str
    trained_rows: int


@dataclass(frozen=True)
class ChosenCandidate:
    """entry: of `candidates:` · hours: estimate for all its runs"""

    entry: dict[str, Any]
    hours: float


@dataclass(frozen=True)
class ChosenCandidates:
    """left_out: names that did not fit the time · missing: names of weights that are not at hand, in the order to get them"""

    chosen: tuple[ChosenCandidate, ...]
    left_out: tuple[str, ...]
    missing: tuple[str, ...]


def choose_protocol(dataset: Dataset) -> ChosenProtocol:
    """The first protocol that the data allow. Raises SplitError where they allow none."""
    labelled = dataset.labelled
    least = min(count for count in dataset.class_counts.tolist() if count)
    options: list[tuple[dict[str, Any], str]] = []
    parts = set() if dataset.parts is None else set(dataset.parts[labelled].tolist())
    if {"train", "test"} <= parts or {"train", "val"} <= parts:
        options.append(({"split": "predefined"}, "the data come with their own parts for training and test"))
    if dataset.groups is not None:
        count = len(set(dataset.groups[labelled].tolist()))
        reason = f"{count} groups: rows of one group are trained on or tested, never both"
        for folds in (n for n in (5, 4, 3, 2) if n <= count):
            options.append(({"split": "stratified-group-k-fold", "folds": folds}, reason))
    elif len(dataset) >= MANY_ROWS:
        reason = f"{len(dataset):,} rows: a fifth of them is enough to test on, and one training is enough"
        options.append(({"split": "hold-out", "test_size": 0.2}, reason))
    else:
        reason = "no groups are known: every picture is tested once, classes in proportion"
        for folds in (n for n in (5, 4, 3, 2) if n <= least):
            options.append(({"split": "stratified-k-fold", "folds": folds}, reason))
    options.append(({"split": "hold-out", "test_size": 0.5}, "too few rows of some class for folds"))
    refusal: SplitError | None = None
    for keys, reason in options:
        try:
            splits = make_splits(dataset, ProtocolSpec.model_validate(keys))
        except SplitError as error:
            refusal = refusal or error
            continue
        return ChosenProtocol(keys, reason, sum(len(split.train) for split in splits))
    assert refusal is not None
    raise refusal


def choose_candidates(dataset: Dataset, protocol: ChosenProtocol, hours: float, cache: Path) -> ChosenCandidates:
    """Candidates whose estimates fit into `hours` on the processor; at least two. missing: pretrained weights not at hand."""
    speeds = load_measured_speeds(cache)
    known = {name: _is_at_hand(name) for name in PRETRAINED}
    at_hand = [*({"backbone": name} for name in PRETRAINED if known[name]), *_list_carried()]
    missing = tuple(catalog.find_architecture(name).tagged_name for name in PRETRAINED if not known[name])
    wanted: list[ChosenCandidate] = []
    if at_hand:
        for entry in at_hand:
            wanted.append(_estimate({**entry, "frozen": True, "recipe": "logistic"}, len(dataset), speeds))
        full = {
            "backbone": at_hand[0]["backbone"],
            **({"weights": w} if (w := at_hand[0].get("weights")) else {}),
            "recipe": {"preset": "finetune", "epochs": FINETUNE_EPOCHS},
        }
        wanted.append(_estimate(full, 3 * FINETUNE_EPOCHS * protocol.trained_rows, speeds))
    else:
        for name in SMALL:
            scratch = {"preset": "scratch", "epochs": SCRATCH_EPOCHS, "augment": "none"}
            entry = {"backbone": name, "weights": "random", "recipe": scratch}
            wanted.append(_estimate(entry, 3 * SCRATCH_EPOCHS * protocol.trained_rows, speeds))
    kept: list[ChosenCandidate] = []
    for each in wanted:
        if len(kept) < 2 or sum(k.hours for k in kept) + each.hours <= hours:
            kept.append(each)
    left_out = tuple(str(each.entry["backbone"]) for each in wanted if each not in kept)
    return ChosenCandidates(tuple(kept), left_out, missing)


def _is_at_hand(name: str) -> bool:
    """Whether its weights are in the folder of weights or a cache."""
    remote = catalog.find_architecture(name).remote
    try:
        return remote is not None and weight_files.find_cached_weights(remote) is not None
    except WeightsError:  # PHOROPTER_WEIGHTS names no folder: `plan` says so
        return False


def _list_carried() -> list[dict[str, Any]]:
    """Candidates of the other files in the folder of weights whose names begin with a network's, and which fit it."""
    try:
        folder = named_folder()
    except WeightsError:
        return []
    found = []
    for file in sorted(folder.glob("*.safetensors")) if folder else ():
        name = file.name.partition(".")[0]
        if name in PRETRAINED or not catalog.list_architectures(name):
            continue
        try:
            catalog.check_weights(BackboneSpec(name=name, weights=str(file.absolute())))
        except PhoropterError:
            continue
        found.append({"name": file.stem, "backbone": name, "weights": file.absolute().as_posix()})
    return found


def _estimate(entry: dict[str, Any], passes: int, speeds: MeasuredSpeeds) -> ChosenCandidate:
    backbone = BackboneSpec(name=str(entry["backbone"]))
    return ChosenCandidate(entry, passes * speeds.image_seconds(backbone, catalog.resolve_side(backbone), "cpu") / 3600)
