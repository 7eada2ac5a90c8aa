"""Classifier: images → normalisation → backbones → fusion → head → logits.

Size, mean and deviation live here, one set per branch, so that training, prediction and deployment cannot disagree.

A bundle is a folder with `bundle.json` (the spec, each branch's build, notes of the trainer, and checksums of all files) and
`model.safetensors` (every parameter and buffer).
Nothing in it is unpickled, and nothing else is needed, except the code of custom backbones.

Letters: B images, S side of an image, C classes, D_i width of branch i.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from phoropter.core.errors import StoreError, WeightsError
from phoropter.core.extensions import Extension
from phoropter.core.files import atomic_write_folder
from phoropter.core.seeds import seed_of
from phoropter.core.storage.sealed_json import write_sealed_json
from phoropter.models import backbones as builder
from phoropter.models import catalog
from phoropter.models.backbones import BackboneModule
from phoropter.models.bundle_description import describe_bundle, find_bundle_code, read_bundle_description
from phoropter.models.catalog import BuildRecord
from phoropter.models.distilled_vit import DistilledVitHead
from phoropter.models.fine_tuning.last_blocks import freeze_first_blocks
from phoropter.models.fine_tuning.lora import list_adapter_parameters
from phoropter.models.fusion import FUSION_MODES, AverageFusion, MemberAverage
from phoropter.models.heads import BranchAblation, Features, MlpHead, Outputs, PretrainedHead, SingleHead, create_head
from phoropter.models.spec import BackboneSpec, ClassifierSpec, FusionSpec
from phoropter.models.weights import weight_files
from phoropter.models.weights.bundle_files import describe_bundle_files
from phoropter.models.weights.state_dicts import load_state_dict_strictly, read_state_dict, save_state_dict

TrainablePart = str  # head, all, or last-N, as a phase of a recipe has it

# Position tables and tokens, which the authors of the networks train without weight decay.
_POSITION_PARAMETERS = ("pos_embed", "cls_token", "dist_token", "reg_token", "relative_position_bias_table", "rel_pos_bias")


class Classifier(nn.Module):
    """(B, 3, S, S) uint8, or float in 0..255 → (B, C) float32 logits.

    spec: its specification · backbones: one per branch, `branches[i].num_features` is D_i · head: the module on their features
    base: the folder that relative weights paths in its spec start from
    member_specs: of an average of classifiers (`average_classifiers`), the spec of each; else empty
    member_weights: of such an average, the weight of each member's probabilities; empty where all are equal
    """

    def __init__(self, spec: ClassifierSpec, backbones: list[BackboneModule], head: nn.Module) -> None:
        super().__init__()
        self.spec = spec
        self.backbones = nn.ModuleList(backbones)
        self.head = head
        self.base: Path | None = None
        self.member_specs: tuple[ClassifierSpec, ...] = ()
        self.member_weights: tuple[float, ...] = ()
        self._kept_in_eval: list[nn.Module] = []

    @property
    def branches(self) -> list[BackboneModule]:
        return [b for b in self.backbones if isinstance(b, BackboneModule)]

    @property
    def members(self) -> list[Classifier]:
        """The classifiers of an average, each with its own backbones and head, which are shared with it; else itself alone."""
        if not isinstance(self.head, MemberAverage):
            return [self]
        branches, heads = iter(self.branches), self.head.members
        made = [Classifier(s, [next(branches) for _ in s.backbones], h) for s, h in zip(self.member_specs, heads, strict=True)]
        return [member.eval() for member in made]

    def forward(self, pictures: Tensor) -> Tensor:
        return self.forward_outputs(pictures).logits

    def forward_outputs(self, pictures: Tensor) -> Outputs:
        """(B, 3, S, S) → logits, features and the logits of each branch."""
        return self.forward_head(self.forward_features(pictures))

    def forward_features(self, pictures: Tensor, only: int | None = None) -> Features:
        """(B, 3, S, S) → pooled features (B, D_i) of each branch, or of branch `only`."""
        chosen = range(len(self.backbones)) if only is None else (only,)
        return tuple(self.branches[i](self.preprocess_pictures(pictures, i)) for i in chosen)

    def preprocess_pictures(self, pictures: Tensor, branch: int) -> Tensor:
        """(B, 3, S, S) → (B, 3, s, s), as a branch is given them.

        If the spec has a crop and the images are larger, their centre is cropped, in training and evaluation alike.
        """
        crops = [member.center_crop for member in self.member_specs or [self.spec] for _ in member.backbones]
        return self.branches[branch].preprocess(crop_centre(pictures, crops[branch]))

    def forward_head(self, features: Features, without: BranchAblation | None = None) -> Outputs:
        """Applies everything after the backbones, which is what is trained while they are frozen. `without` ablates a branch."""
        outputs: Outputs = self.head(features, without)
        return outputs

    def head_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Named parameters of everything after the backbones."""
        return self.head.named_parameters(prefix="head")

    def backbone_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Named parameters of the backbones; branch i's names begin with `backbones.i.`."""
        return self.backbones.named_parameters(prefix="backbones")

    def uses_weight_decay(self, name: str, parameter: nn.Parameter) -> bool:
        """Whether weight decay applies: not to biases, norms, scales, position tables, and what a network's authors exempt."""
        if parameter.ndim <= 1 or name.rpartition(".")[2] in _POSITION_PARAMETERS:
            return False
        if not name.startswith("backbones."):
            return True
        branch, inside = int(name.split(".")[1]), name.partition(".body.")[2]
        exempt = self.branches[branch].no_decay_names
        return not any(inside == e or inside.endswith(f".{e}") for e in exempt)

    def freeze(self, part: TrainablePart) -> None:
        """Sets what is trained from now on: `head`, `all`, or `last-N`, the last N blocks of each backbone and all behind them.

        What is not trained gets no gradient and stays in eval mode even under `.train()`, so that no running statistic changes
        and features remain those in the cache. Of a backbone with adapters (fine_tuning/lora.py) these are trained alone.
        Raises SpecError for a network whose blocks are not known, or fewer.
        """
        self._kept_in_eval = [self.backbones] if part == "head" else []
        self.backbones.requires_grad_(part != "head")
        self.head.requires_grad_(True)
        if part.startswith("last-"):
            count = int(part.removeprefix("last-"))
            self._kept_in_eval = [m for branch in self.branches for m in freeze_first_blocks(branch, count)]
        elif part == "all" and (adapters := list_adapter_parameters(self.backbones)):
            self.backbones.requires_grad_(False)
            for parameter in adapters:
                parameter.requires_grad_(True)
            self._kept_in_eval = [m for m in self.backbones.modules() if isinstance(m, _BatchNorm)]
        self.train(self.training)

    def train(self, mode: bool = True) -> Classifier:
        super().train(mode)
        for module in self._kept_in_eval:
            module.eval()
        return self


def crop_centre(pictures: Tensor, crop: int | None) -> Tensor:
    """(B, 3, S, S) → (B, 3, crop, crop), or as it is where there is no crop or the images are no larger."""
    side = pictures.shape[-1]
    if crop is None or side <= crop:
        return pictures
    start = (side - crop) // 2
    return pictures[..., start : start + crop, start : start + crop]


def build_classifier(spec: ClassifierSpec, *, seed: int, base: Path | None = None) -> Classifier:
    """Builds a classifier with its backbones' weights and a new head, on the CPU; random parts depend on the seed alone.

    base: the folder relative weights paths start from. A branch of a fusion whose weights are a bundle with the same classes also
    starts from that bundle's head. Raises SpecError and WeightsError.
    """
    keep_heads, tokens = spec.head.kind == "pretrained", spec.reads_tokens
    branches = []
    for i, backbone in enumerate(spec.backbones):
        twins = spec.backbones[:i].count(backbone)  # one random network twice must start from two different seeds
        branch_seed = _backbone_seed(backbone, seed)
        branch_seed = seed_of(branch_seed, "twin", twins) if twins else branch_seed
        branches.append(builder.build_backbone(backbone, seed=branch_seed, base=base, keep_heads=keep_heads, tokens=tokens))
    if keep_heads and branches[0].build_record.num_classes != len(spec.classes):
        raise WeightsError(
            f"head 'pretrained' of '{spec.backbones[0].name}' has {branches[0].build_record.num_classes} classes and the dataset "
            f"has {len(spec.classes)}; choose head linear or dense"
        )
    return _assemble_classifier(spec, branches, seed, base)


def _backbone_seed(backbone: BackboneSpec, seed: int) -> int:
    """The seed of a backbone's random parts: the study's, or one derived from it and from the backbone's own."""
    return seed_of(seed, "own", backbone.seed) if backbone.seed else seed


def with_new_head(classifier: Classifier, *, seed: int) -> Classifier:
    """The same backbones, shared, with a new head from the seed, as `build_classifier` gives without building them again.

    Only for frozen backbones. Raises ValueError for a head of kind `pretrained`, which cannot be initialised anew.
    """
    if classifier.spec.head.kind == "pretrained":
        raise ValueError("head 'pretrained' belongs to its network; build the classifier again")
    sibling = _assemble_classifier(classifier.spec, classifier.branches, seed, classifier.base)
    sibling.head.to(next(classifier.head.parameters()).device)  # initialised on the CPU, as in `build_classifier`
    return sibling


def build_ensemble(members: Sequence[Classifier]) -> Classifier:
    """Combines trained classifiers with one backbone each into one that averages their probabilities, one branch per member."""
    first = members[0]
    backbones = [member.spec.backbones[0].model_dump() for member in members]
    spec = first.spec.with_changes(backbones=backbones, fusion={"mode": "ensemble"})
    head = AverageFusion([], len(spec.classes), spec.head, FusionSpec(mode="ensemble"))
    head.branches.extend(member.head.get_submodule("head") for member in members)
    ensemble = Classifier(spec, [member.branches[0] for member in members], head)
    ensemble.base = first.base
    return ensemble.eval()


def average_classifiers(members: Sequence[Classifier], weights: Sequence[float] = ()) -> Classifier:
    """Trained classifiers of any kind on the same classes and images → one whose probabilities are the mean of theirs.

    Its branches are those of all members, one after another; its spec names them, and `member_specs` says what each member is.
    weights: above 0, of each member; empty: all are equal
    Raises ValueError for fewer than two members, and for members of other classes or another image size.
    """
    specs = tuple(member.spec for member in members)
    if len(members) < 2 or len({(spec.classes, spec.picture, spec.multi_label) for spec in specs}) > 1:
        raise ValueError(f"expected two or more classifiers of the same classes and image size, came {len(members)}")
    average = Classifier(
        _describe_average(specs),
        [branch for member in members for branch in member.branches],
        MemberAverage(
            [member.head for member in members], [len(spec.backbones) for spec in specs], weights, specs[0].multi_label
        ),
    )
    average.member_specs, average.member_weights, average.base = specs, tuple(weights), members[0].base
    return average.eval()


def _describe_average(specs: Sequence[ClassifierSpec]) -> ClassifierSpec:
    backbones = [backbone.model_dump() for spec in specs for backbone in spec.backbones]
    crops = {spec.center_crop for spec in specs}
    crop = crops.pop() if len(crops) == 1 else None
    plain = {"backbones": backbones, "fusion": {"mode": "ensemble"}, "head": {}, "center_crop": crop, "student": "plain"}
    return specs[0].with_changes(**plain)


def save_classifier(
    classifier: Classifier,
    folder: Path,
    *,
    training: dict[str, Any] | None = None,
    add_files: Callable[[Path], None] = lambda folder: None,
) -> None:
    """Writes a bundle, complete or not at all, with checksums of its files.

    training: plain data on how the classifier was trained, stored in bundle.json · add_files: writes further files into it
    Raises StoreError if the folder exists, DiskError if there is no space.
    """
    if folder.exists():
        raise StoreError(f"{folder} exists already; give the bundle a new name")
    with atomic_write_folder(folder) as aside:
        save_state_dict(classifier, aside / "model.safetensors")
        add_files(aside)
        description = describe_bundle(
            classifier.spec, classifier.branches, training, classifier.member_specs, classifier.member_weights
        )
        write_sealed_json(aside / "bundle.json", {**description, "files": describe_bundle_files(aside)})
        shutil.copymode(aside / "bundle.json", aside / "model.safetensors")  # safetensors makes files for their owner alone


def load_classifier(folder: Path, extensions: Sequence[Extension] = ()) -> Classifier:
    """Loads the classifier of a bundle, in eval mode on the CPU.

    extensions: the custom Backbones it needs; without them, the recorded `module:NAME` is imported if code is trusted
    Raises WeightsError for an incomplete bundle, and for missing or changed code.
    """
    described = read_bundle_description(folder, find_bundle_code(folder, extensions))
    tensors = folder / "model.safetensors"
    if not tensors.is_file():
        raise WeightsError(f"bundle {folder} has no model.safetensors; copy the complete folder")
    state = read_state_dict(tensors)
    stored = sum(tensor.numel() for tensor in state.values())
    records = iter(described.build_records)
    specs = described.members or [described.spec]
    members = [_build_empty(spec, [next(records) for _ in spec.backbones], stored) for spec in specs]
    classifier = average_classifiers(members, described.weights) if described.members else members[0]
    load_state_dict_strictly(classifier, state, tensors, "its own bundle.json")
    return classifier.eval()


def _build_empty(spec: ClassifierSpec, records: Sequence[BuildRecord], stored: int) -> Classifier:
    """A classifier of a bundle before its weights are loaded. records: how each branch was built · stored: numbers in its file"""
    branches = []
    for backbone, record in zip(spec.backbones, records, strict=True):
        bare = backbone.with_changes(weights="random")
        keep_heads = spec.head.kind == "pretrained"
        branches.append(
            builder.build_backbone(bare, seed=0, keep_heads=keep_heads, tokens=spec.reads_tokens, again=record, stored=stored)
        )
    return Classifier(spec, branches, _build_head_module(spec, branches, 0))


def _build_head_module(spec: ClassifierSpec, branches: list[BackboneModule], seed: int) -> nn.Module:
    """The module on the branches' features; new layers are initialised from the seed."""
    classes = len(spec.classes)
    widths = [b.num_features for b in branches]
    tokens = branches[0].pooling == "tokens"
    with builder.seeded_rng(seed_of(seed if spec.fusion else _backbone_seed(spec.backbones[0], seed), "head")):
        if spec.head.kind == "pretrained":
            kept = [PretrainedHead(h) for h in branches[0].pretrained_heads]
            branches[0].pretrained_heads = ()
            return DistilledVitHead(kept[0], kept[1]) if tokens else SingleHead(kept[0])
        if tokens:
            pair: list[MlpHead] = [create_head(spec.head, widths[0] // 2, classes) for _ in range(2)]
            return DistilledVitHead(pair[0], pair[1])
        if spec.fusion is None:
            return SingleHead(create_head(spec.head, widths[0], classes))
        fused = FUSION_MODES[spec.fusion.mode](widths, classes, spec.head, spec.fusion)
        if isinstance(fused, AverageFusion):
            fused.multi_label = spec.multi_label
        return fused


def _assemble_classifier(spec: ClassifierSpec, branches: list[BackboneModule], seed: int, base: Path | None) -> Classifier:
    head = _build_head_module(spec, branches, seed)
    _warm_start_heads(spec, head, base)
    classifier = Classifier(spec, branches, head)
    classifier.base = base
    return classifier.eval()


def _warm_start_heads(spec: ClassifierSpec, head: Any, base: Path | None) -> None:
    """Loads the trained heads of those branches of a fusion whose weights are bundles with the same classes.

    Raises WeightsError for an ensemble, in which an untrained head would go unnoticed.
    """
    if spec.fusion is None or not head.branches:
        return
    for backbone, branch in zip(spec.backbones, head.branches, strict=True):
        if backbone.weights_path is None:
            continue
        found = weight_files.find_weight_file(backbone.weights_path, base, catalog.describe_backbone(backbone).name)
        if found.layout != "bundle":
            continue
        state = {k.removeprefix("head.head."): v for k, v in read_state_dict(found.path).items() if k.startswith("head.head.")}
        shapes = {k: v.shape for k, v in branch.state_dict().items()}
        same_classes = read_bundle_description(found.path.parent).spec.classes == spec.classes
        if same_classes and {k: v.shape for k, v in state.items()} == shapes:
            branch.load_state_dict(state)
        elif spec.fusion.mode == "ensemble":
            raise WeightsError(
                f"bundle {found.path.parent} has another head or other classes than the ensemble it is to join; "
                "train it with the same head on the same classes"
            )
