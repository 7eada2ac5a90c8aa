"""Classifier: pictures → normalise → backbones → fusion → head → logits; saved and loaded as a bundle.

Size, mean and deviation live here, each branch with its own, so that training, prediction, export and serving cannot disagree.

A bundle is a folder with `bundle.json` (the spec, each branch's preparation, what the trainer wants remembered) and
`model.safetensors` (every parameter and buffer). Nothing in it is unpickled, and it is enough: no hub, no weights elsewhere.

Letters: B pictures, S side of a picture, C classes, D_i width of branch i.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

import phoropter
from phoropter.core.errors import StoreError, WeightsError
from phoropter.core.files import atomic_write_folder, write_json
from phoropter.core.seeds import seed_of
from phoropter.core.spec import SourceMap, validate_as
from phoropter.models import backbones as builder
from phoropter.models import catalog
from phoropter.models.backbones import Backbone
from phoropter.models.catalog import Preprocessing
from phoropter.models.distilled_vit import DistilledVitHead
from phoropter.models.fusion import FUSION_MODES, AverageFusion
from phoropter.models.heads import BranchAblation, Features, MlpHead, Outputs, PretrainedHead, SingleHead, create_head
from phoropter.models.pretrained import BuildRecord
from phoropter.models.spec import BackboneSpec, ClassifierSpec, FusionSpec
from phoropter.models.weights import weight_files
from phoropter.models.weights.state_dicts import load_state_dict_strictly, read_state_dict
from phoropter.models.weights.weight_files import read_sidecar_json

BUNDLE_FORMAT = 1
TrainablePart = Literal["head", "all"]

# Position tables and tokens: they place things rather than weigh them, and their makers train them without decay.
_POSITION_PARAMETERS = ("pos_embed", "cls_token", "dist_token", "reg_token", "relative_position_bias_table", "rel_pos_bias")


class Classifier(nn.Module):
    """(B, 3, S, S) uint8, or float in 0..255 → (B, C) float32 logits.

    spec: what it was made of · backbones: one for each branch, `backbones[i].width` is D_i · head: what stands on their features
    base: the folder that relative weights paths in its spec start from
    """

    def __init__(self, spec: ClassifierSpec, backbones: list[Backbone], head: nn.Module) -> None:
        super().__init__()
        self.spec = spec
        self.backbones = nn.ModuleList(backbones)
        self.head = head
        self.base: Path | None = None
        self._frozen = False

    @property
    def branches(self) -> list[Backbone]:
        return [b for b in self.backbones if isinstance(b, Backbone)]

    def forward(self, pictures: Tensor) -> Tensor:
        return self.forward_outputs(pictures).logits

    def forward_outputs(self, pictures: Tensor) -> Outputs:
        """(B, 3, S, S) → everything the classifier says of them."""
        return self.forward_head(self.forward_features(pictures))

    def forward_features(self, pictures: Tensor, only: int | None = None) -> Features:
        """(B, 3, S, S) → each branch's pooled features (B, D_i); of branch `only` alone where given.

        The centre is cut out where the spec has a crop and the pictures are larger than it, in every mode.
        """
        crop, side = self.spec.crop, pictures.shape[-1]
        if crop is not None and side > crop:
            start = (side - crop) // 2
            pictures = pictures[..., start : start + crop, start : start + crop]
        asked = self.branches if only is None else [self.branches[only]]
        return tuple(backbone(backbone.preprocess(pictures)) for backbone in asked)

    def forward_head(self, features: Features, without: BranchAblation | None = None) -> Outputs:
        """What follows the backbones: all that is trained while these are frozen. `without` leaves a branch of a fusion out."""
        outputs: Outputs = self.head(features, without)
        return outputs

    def head_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Named parameters of everything behind the backbones."""
        return self.head.named_parameters(prefix="head")

    def backbone_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Named parameters of the backbones; branch i's names begin with `backbones.i.`."""
        return self.backbones.named_parameters(prefix="backbones")

    def uses_weight_decay(self, name: str, parameter: nn.Parameter) -> bool:
        """Whether weight decay is for it: not on biases, norms and scales, nor on what places things or its makers exempt."""
        if parameter.ndim <= 1 or name.rpartition(".")[2] in _POSITION_PARAMETERS:
            return False
        if not name.startswith("backbones."):
            return True
        branch, inside = int(name.split(".")[1]), name.partition(".body.")[2]
        exempt = self.branches[branch].no_decay_names
        return not any(inside == e or inside.endswith(f".{e}") for e in exempt)

    def freeze(self, part: TrainablePart) -> None:
        """What is trained from now on. `head`: the backbones get no gradient and stay in eval mode even under `.train()`, so that
        no running statistic moves and their features are those the cache holds. `all`: everything."""
        self._frozen = part == "head"
        self.backbones.requires_grad_(not self._frozen)
        self.head.requires_grad_(True)
        self.train(self.training)

    def train(self, mode: bool = True) -> Classifier:
        super().train(mode)
        if self._frozen:
            self.backbones.eval()
        return self


def build_classifier(spec: ClassifierSpec, *, seed: int, base: Path | None = None) -> Classifier:
    """A classifier with its backbones' weights and a new head, on the CPU; random parts are functions of the seed alone.

    base: the folder relative weights paths start from. A branch of a fusion whose weights are a finished bundle of the same
    classes begins with that bundle's head as well. Raises SpecError and WeightsError.
    """
    own, tokens = spec.head.kind == "pretrained", spec.reads_tokens
    branches = []
    for i, backbone in enumerate(spec.backbones):
        twins = spec.backbones[:i].count(backbone)  # the same network twice, from random weights, begins at two places
        begins = _backbone_seed(backbone, seed)
        begins = seed_of(begins, "twin", twins) if twins else begins
        branches.append(builder.build_backbone(backbone, seed=begins, base=base, keep_heads=own, tokens=tokens))
    if own and branches[0].build_record.num_classes != len(spec.classes):
        raise WeightsError(
            f"head 'pretrained' of '{spec.backbones[0].name}' tells {branches[0].build_record.num_classes} classes apart and the dataset has "
            f"{len(spec.classes)}; choose head linear or dense"
        )
    return _assemble_classifier(spec, branches, seed, base)


def _backbone_seed(backbone: BackboneSpec, seed: int) -> int:
    """Where a backbone's random parts begin: at the study's seed, or at the one of its own that it was given beside it."""
    return seed_of(seed, "own", backbone.seed) if backbone.seed else seed


def with_new_head(classifier: Classifier, *, seed: int) -> Classifier:
    """The same backbones, shared, under a new head drawn from the seed: what `build` would give, without building them again.

    For frozen backbones alone. A head of kind `pretrained` cannot be drawn and is refused.
    """
    if classifier.spec.head.kind == "pretrained":
        raise ValueError("head 'pretrained' belongs to its network; build the classifier again")
    made = _assemble_classifier(classifier.spec, classifier.branches, seed, classifier.base)
    made.head.to(next(classifier.head.parameters()).device)  # drawn on the processor, as `build` draws it
    return made


def build_ensemble(members: Sequence[Classifier]) -> Classifier:
    """Finished classifiers of one kind, each of one network → the one that averages their probabilities, a branch a member."""
    first = members[0]
    backbones = [member.spec.backbones[0].model_dump() for member in members]
    spec = first.spec.with_changes(backbones=backbones, fusion={"mode": "ensemble"})
    head = AverageFusion([], len(spec.classes), spec.head, FusionSpec(mode="ensemble"))
    head.branches.extend(member.head.get_submodule("head") for member in members)
    made = Classifier(spec, [member.branches[0] for member in members], head)
    made.base = first.base
    return made.eval()


def save_classifier(classifier: Classifier, folder: Path, *, training: dict[str, Any] | None = None) -> None:
    """Writes a bundle, whole or not at all. Raises StoreError when the folder is there already, DiskError when there is no room.

    training: plain data to be remembered: how it came to be
    """
    if folder.exists():
        raise StoreError(f"{folder} is there already; give the bundle a new name")
    with atomic_write_folder(folder) as aside:
        state = {k: v.detach().cpu().contiguous() for k, v in classifier.state_dict().items()}
        safetensors.torch.save_file(state, aside / "model.safetensors")
        write_json(
            aside / "bundle.json",
            {
                "format": BUNDLE_FORMAT,
                "phoropter": phoropter.__version__,
                "spec": classifier.spec.plain(),
                "branches": [_describe_branch(b) for b in classifier.branches],
                "training": training,
            },
        )


def load_classifier(folder: Path) -> Classifier:
    """A bundle → the classifier that was saved, in eval mode on the CPU. Raises WeightsError when it is not whole."""
    spec, branches = _read_bundle_description(folder)
    state = read_state_dict(folder / "model.safetensors") if (folder / "model.safetensors").is_file() else None
    if state is None:
        raise WeightsError(f"bundle {folder} has no model.safetensors; copy the folder whole")
    built = []
    for backbone, made in zip(spec.backbones, branches, strict=True):
        bare = backbone.with_changes(weights="random")
        built.append(
            builder.build_backbone(bare, seed=0, keep_heads=spec.head.kind == "pretrained", tokens=spec.reads_tokens, again=made)
        )
    classifier = Classifier(spec, built, _build_head_module(spec, built, 0))
    load_state_dict_strictly(classifier, state, folder / "model.safetensors", "its own bundle.json")
    return classifier.eval()


@dataclass(frozen=True)
class ClassifierCost:
    """Of a classifier: parameters, those that are trained, and multiply-adds of one picture (None: they cannot be counted)."""

    parameters: int
    trainable: int
    macs: int | None


def measure_cost(classifier: Classifier, side: int) -> ClassifierCost:
    """What one picture of `side` pixels costs: a pass over tensors that have a shape and no numbers."""
    count = sum(p.numel() for p in classifier.parameters())
    trainable = sum(p.numel() for p in classifier.parameters() if p.requires_grad)
    named = (*classifier.named_parameters(), *classifier.named_buffers())
    was = classifier.training
    classifier.eval()
    try:
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            tensors = {n: t.detach().to("meta") for n, t in named}
            functional_call(classifier, tensors, (torch.empty(2, 3, side, side, device="meta"),))
        macs = counter.get_total_flops() // 2 // 2  # two pictures; a multiply-add is two operations
    except Exception:
        macs = None  # a network that looks at its numbers; the cost is for a table and stops nobody
    finally:
        classifier.train(was)
    return ClassifierCost(count, trainable, macs or None)


def _build_head_module(spec: ClassifierSpec, branches: list[Backbone], seed: int) -> nn.Module:
    """What stands on the branches' features; new layers are drawn from the seed."""
    classes = len(spec.classes)
    widths = [b.num_features for b in branches]
    tokens = branches[0].pooling == "tokens"
    with builder.seeded_rng(seed_of(seed if spec.fusion else _backbone_seed(spec.backbones[0], seed), "head")):
        if spec.head.kind == "pretrained":
            own = [PretrainedHead(h) for h in branches[0].pretrained_heads]
            branches[0].pretrained_heads = ()
            return DistilledVitHead(own[0], own[1]) if tokens else SingleHead(own[0])
        if tokens:
            pair: list[MlpHead] = [create_head(spec.head, widths[0] // 2, classes) for _ in range(2)]
            return DistilledVitHead(pair[0], pair[1])
        if spec.fusion is None:
            return SingleHead(create_head(spec.head, widths[0], classes))
        return FUSION_MODES[spec.fusion.mode](widths, classes, spec.head, spec.fusion)


def _assemble_classifier(spec: ClassifierSpec, branches: list[Backbone], seed: int, base: Path | None) -> Classifier:
    head = _build_head_module(spec, branches, seed)
    _warm_start_heads(spec, head, base)
    classifier = Classifier(spec, branches, head)
    classifier.base = base
    return classifier.eval()


def _warm_start_heads(spec: ClassifierSpec, head: Any, base: Path | None) -> None:
    """Branches of a fusion whose weights are bundles of the same classes begin with their own finished heads, too.

    Raises WeightsError for an average, in which a head that was never trained would go unnoticed.
    """
    if spec.fusion is None or not head.branches:
        return
    for backbone, branch in zip(spec.backbones, head.branches, strict=True):
        if backbone.weights in ("pretrained", "random"):
            continue
        found = weight_files.find_weight_file(backbone.weights, base, catalog.find_architecture(backbone.name).name)
        if found.layout != "bundle":
            continue
        finished, _ = _read_bundle_description(found.path.parent)
        state = {k.removeprefix("head.head."): v for k, v in read_state_dict(found.path).items() if k.startswith("head.head.")}
        shapes = {k: v.shape for k, v in branch.state_dict().items()}
        if finished.classes == spec.classes and {k: v.shape for k, v in state.items()} == shapes:
            branch.load_state_dict(state)
        elif spec.fusion.mode == "ensemble":
            raise WeightsError(
                f"bundle {found.path.parent} has another head or other classes than the ensemble it is to join; "
                "finish it with the same head on the same classes"
            )


def _describe_branch(backbone: Backbone) -> dict[str, Any]:
    """A branch in the hub's words, so that its weights can be found again by sources.py."""
    p = backbone.build_record.preprocessing
    return {
        "architecture": backbone.architecture,
        "input_size": [3, backbone.side, backbone.side],
        "mean": list(p.mean),
        "std": list(p.std),
        "interpolation": p.interpolation,
        "crop_pct": p.crop_pct,
        "num_classes": backbone.build_record.num_classes,
        "options": backbone.build_record.options,
    }


def _parse_build_record(said: dict[str, Any]) -> BuildRecord:
    mean, std = (tuple(float(v) for v in said[k]) for k in ("mean", "std"))
    (r, g, b), (sr, sg, sb) = mean, std
    side, crop_pct = int(said["input_size"][-1]), float(said["crop_pct"])
    return BuildRecord(
        Preprocessing(side, (r, g, b), (sr, sg, sb), str(said["interpolation"]), crop_pct),
        int(said["num_classes"]),
        dict(said["options"]),
    )


def _read_bundle_description(folder: Path) -> tuple[ClassifierSpec, list[BuildRecord]]:
    described = read_sidecar_json(folder / "bundle.json")
    try:
        if described["format"] != BUNDLE_FORMAT:
            raise WeightsError(
                f"bundle {folder} has format {described['format']!r} and this phoropter reads {BUNDLE_FORMAT}; use the one it names"
            )
        spec = validate_as(ClassifierSpec, described["spec"], SourceMap(str(folder / "bundle.json")))
        branches = [_parse_build_record(said) for said in described["branches"]]
    except (KeyError, TypeError, ValueError, IndexError):
        raise WeightsError(f"{folder / 'bundle.json'} is not a bundle's description; save the classifier again") from None
    if len(branches) != len(spec.backbones):
        raise WeightsError(f"{folder / 'bundle.json'} describes {len(branches)} branches of {len(spec.backbones)} backbones")
    return spec, branches
