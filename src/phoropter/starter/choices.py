"""What a first study compares, and how: a protocol that the data allow, with its reason, and candidates that fit the time.

The protocol is the first of a short list that can be drawn (`make_splits` is asked). Candidates are what clinicians measure
where rows are ECGs or cardiotocograms, probes of different families, cheapest first, and the full training of the cheapest, as
long as they fit: by the estimate of the study's own plan.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from phoropter.core.errors import PhoropterError, SplitError, WeightsError
from phoropter.core.files import cache_dir
from phoropter.data.dataset import Dataset
from phoropter.data.recordings.dataset import RenderedPictures
from phoropter.data.spec import DataSpec
from phoropter.data.splits.protocol import make_splits
from phoropter.data.splits.spec import ProtocolSpec
from phoropter.models import catalog
from phoropter.models.spec import BackboneSpec
from phoropter.models.weights import weight_files
from phoropter.models.weights.folder_files import list_weight_files, read_stated_facts
from phoropter.models.weights.weights_folder import named_folder
from phoropter.results.store import Store
from phoropter.study.cost import ResourceEstimate, estimate_resources
from phoropter.study.plan import plan_study
from phoropter.study.spec import StudySpec

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


METRICS = ("balanced_accuracy", "accuracy", "macro_f1")


@dataclass(frozen=True)
class ChosenProtocol:
    """keys: of `protocol:` · reason: a sentence for the comment above them"""

    keys: dict[str, Any]
    reason: str


@dataclass(frozen=True)
class ChosenCandidate:
    """entry: of `candidates:` · seconds: of all its runs"""

    entry: dict[str, Any]
    seconds: float

    @property
    def is_network(self) -> bool:
        return "baseline" not in self.entry

    @property
    def title(self) -> str:
        trained = "" if self.entry.get("frozen") or self.entry.get("weights") == "random" else ", fine-tuned"
        if not self.is_network:
            return f"the baseline {self.entry['baseline']}"
        return f"{self.entry.get('name') or self.entry['backbone']}{trained}"


@dataclass(frozen=True)
class ChosenCandidates:
    """What fits into the time, as the plan of the study that is written reckons.

    left_out: candidates that did not fit · missing: names of weights that are not at hand, in the order to get them
    unused: file of weights → why it is no candidate · estimate: of the study · fits: whether it fits
    settled: what the plan settles of what the study leaves open, in sentences
    """

    chosen: tuple[ChosenCandidate, ...]
    left_out: tuple[ChosenCandidate, ...]
    missing: tuple[str, ...]
    unused: dict[str, str]
    estimate: ResourceEstimate
    fits: bool
    settled: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class FirstStudy:
    """A study but for its candidates, which is planned to see what they take. baseline: that goes with its recordings, if any"""

    name: str
    data: DataSpec
    protocol: ChosenProtocol
    baseline: str | None = None

    def estimate(self, entries: Sequence[dict[str, Any]]) -> tuple[list[ChosenCandidate], ResourceEstimate, tuple[str, ...]]:
        """The entries with the time of each, the estimate of all together, and what the plan settles."""
        keys = {"name": self.name, "data": self.data, "protocol": self.protocol.keys, "metrics": METRICS}
        study = StudySpec.model_validate({**keys, "candidates": list(entries)})
        results = Path("runs") / self.name  # of `plan` and `run`, which know this machine's speed by the cache beside it
        cache = cache_dir(results)
        planned = plan_study(study, cache)
        cost = estimate_resources(planned, Store(results), cache)
        names = [candidate.name for candidate in study.parsed_candidates]
        timed = [ChosenCandidate(e, cost.by_candidate.get(n, 0.0)) for e, n in zip(entries, names, strict=True)]
        return timed, cost, planned.study.context.settled_defaults


def choose_baseline(dataset: Dataset) -> str | None:
    """What clinicians measure in such windows, for networks to be compared with; None for pictures and other channels."""
    if not isinstance(dataset.pictures, RenderedPictures):
        return None
    view = dataset.pictures.windows.view
    if view.kind == "ctg":
        return "ctg-features"
    return "hrv" if len(view.measured_channels) == 1 and "ecg" in view.measured_channels[0].casefold() else None


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
            make_splits(dataset, ProtocolSpec.model_validate(keys))
        except SplitError as error:
            refusal = refusal or error
            continue
        return ChosenProtocol(keys, reason)
    assert refusal is not None
    raise refusal


def choose_candidates(first: FirstStudy, hours: float) -> ChosenCandidates:
    """Candidates that fit into `hours` on this machine, the earlier ones first; the least of the networks where none does."""
    known = {name: _is_at_hand(name) for name in PRETRAINED}
    carried, unused = _list_carried(known)
    at_hand = [*({"backbone": name} for name in PRETRAINED if known[name]), *carried]
    missing = tuple(catalog.find_architecture(name).tagged_name for name in PRETRAINED if not known[name])
    baselines = [{"baseline": first.baseline}] if first.baseline else []
    timed, cost, settled = first.estimate([*baselines, *_list_wanted(at_hand)])
    kept: list[ChosenCandidate] = []
    for each in timed:
        if sum(k.seconds for k in kept) + each.seconds <= 3600 * hours:
            kept.append(each)
    if not any(each.is_network for each in kept):
        kept.append(min((each for each in timed if each.is_network), key=lambda each: each.seconds))
    chosen = timed
    if len(kept) < len(timed):
        chosen, cost, settled = first.estimate([each.entry for each in kept])
    while cost.seconds > 3600 * hours and len(networks := [each for each in kept if each.is_network]) > 1:
        kept.remove(max(networks, key=lambda each: each.seconds))  # frozen candidates alone run in more rounds
        chosen, cost, settled = first.estimate([each.entry for each in kept])
    left_out = tuple(each for each in timed if each not in kept)
    return ChosenCandidates(tuple(chosen), left_out, missing, unused, cost, cost.seconds <= 3600 * hours, settled)


def _list_wanted(at_hand: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Entries of candidates: a probe of each network at hand, the full training of the first; else small networks at random."""
    if not at_hand:
        scratch = {"preset": "scratch", "epochs": SCRATCH_EPOCHS, "augment": "none"}
        return [{"backbone": name, "weights": "random", "recipe": scratch} for name in SMALL]
    probes = [{**entry, "frozen": True, "recipe": "logistic"} for entry in at_hand]
    full = {key: value for key, value in at_hand[0].items() if key != "name"}
    return [*probes, {**full, "recipe": {"preset": "finetune", "epochs": FINETUNE_EPOCHS}}]


def _is_at_hand(name: str) -> bool:
    """Whether its weights are in the folder of weights or a cache."""
    remote = catalog.find_architecture(name).remote
    try:
        return remote is not None and weight_files.find_cached_weights(remote) is not None
    except WeightsError:  # PHOROPTER_WEIGHTS names no folder: _list_carried says so
        return False


def _list_carried(known: dict[str, bool]) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Candidates of the other files in the folder of weights, and those that cannot be one, each with the reason.

    known: network of PRETRAINED → whether its own weights are at hand, so that it is a candidate by its name
    """
    try:
        folder = named_folder()
    except WeightsError as error:
        return [], {"PHOROPTER_WEIGHTS": str(error)}
    found: list[dict[str, Any]] = []
    unused: dict[str, str] = {}
    by_name = {catalog.find_architecture(name).tagged_name for name in PRETRAINED if known[name]}
    for file in list_weight_files(folder) if folder else ():
        if file.stem in by_name:
            continue
        try:
            name = read_stated_facts(file).architecture
            if not catalog.list_architectures(name):
                unused[file.name] = f"neither its name nor its JSON states a network of timm ('{name}' is none)"
                continue
            catalog.check_weights(BackboneSpec(name=name, weights=str(file.absolute())))
        except PhoropterError as error:
            unused[file.name] = str(error)
            continue
        if any(each["name"] == file.stem for each in found):
            unused[file.name] = "another file has this name, with another ending"
            continue
        found.append({"name": file.stem, "backbone": name, "weights": file.absolute().as_posix()})
    return found, unused
