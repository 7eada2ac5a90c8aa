"""Small networks in the place of large ones, for a smoke version: weights that lie at hand, else a sibling with random weights.

Weights at hand are the files in the folder that `PHOROPTER_WEIGHTS` names. Each network of a study is given one of its own family
(convolution, attention, both), one file after another while there are enough: what differs in a study then differs still.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from phoropter.core.errors import PhoropterError
from phoropter.models import catalog
from phoropter.models.spec import BackboneSpec
from phoropter.models.weights.folder_files import list_weight_files, read_stated_facts
from phoropter.models.weights.weight_files import read_sidecar
from phoropter.models.weights.weights_folder import named_folder
from phoropter.training.candidates.family import backbone_family

IMAGE_SIZE = 64  # of networks with random weights

# Prefix of a family's names → its small sibling, and the side in pixels of its input.
SIBLINGS: tuple[tuple[str, str, int], ...] = (
    ("alexnet_2012", "alexnet_2012", IMAGE_SIZE),
    ("alexnet", "alexnet", IMAGE_SIZE),
    ("vgg", "vgg11", 32),
    ("resnet", "test_resnet", IMAGE_SIZE),
    ("regnet", "regnetx_002", IMAGE_SIZE),
    ("efficientnet", "test_efficientnet", IMAGE_SIZE),
    ("convnext", "test_convnext", IMAGE_SIZE),
    ("coatnet", "coatnet_pico_rw_224", IMAGE_SIZE),
    ("poolformer", "poolformerv2_s12", IMAGE_SIZE),
    ("swin", "swin_tiny_patch4_window7_224", IMAGE_SIZE),
    ("deit_base_distilled", "deit_tiny_distilled_patch16_224", IMAGE_SIZE),
    ("deit", "deit_tiny_patch16_224", IMAGE_SIZE),
    ("vit", "test_vit", IMAGE_SIZE),
    ("mobilenet", "mobilenetv3_small_050", IMAGE_SIZE),
)


@dataclass(frozen=True)
class CarriedWeights:
    """A file in the folder of weights: its network, the family of that, and whether it keeps a layer of classes."""

    file: Path
    architecture: str
    family: str
    has_classes: bool


def list_carried_weights() -> tuple[CarriedWeights, ...]:
    """The files in the folder of weights that fit the network that their name or JSON states, by name; others are passed over."""
    folder = named_folder()
    found = []
    for file in list_weight_files(folder) if folder else ():
        try:
            name = read_stated_facts(file).architecture
            backbone = BackboneSpec(name=name, weights=str(file.absolute()))
            catalog.check_weights(backbone)
            classes = read_sidecar(file.with_suffix(".json")).get("num_classes", 0)
        except PhoropterError:
            continue
        found.append(CarriedWeights(file.absolute(), name, backbone_family(backbone), bool(classes)))
    return tuple(found)


@dataclass
class StandIns:
    """Stand-ins for the networks of one study.

    carried: weights at hand · side: the most pixels that these are shown
    notes: what was changed, in sentences; none begins with a name, because the page gives each a capital
    base: the folder that relative paths of the study start from
    """

    carried: tuple[CarriedWeights, ...]
    side: int
    notes: dict[str, None]
    base: Path | None = None
    _given: dict[tuple[str, bool], CarriedWeights] = field(default_factory=dict)

    def replace_backbone(self, backbone: BackboneSpec, *, carry: bool = False, with_classes: bool = False) -> BackboneSpec:
        """The small network for one of the study. carry: weights at hand may take its place; with_classes: those with a head"""
        stem = backbone.name.split(".")[0].removeprefix("tf_")
        if backbone.custom is not None:  # nothing smaller can stand in for a network of the user's own
            return backbone
        if backbone.weights_path is not None:
            return self._shrink_own(backbone, stem)
        if stem.startswith("test_"):  # timm's own small test networks stay as they are
            return backbone.with_changes(size=min(backbone.size or IMAGE_SIZE, IMAGE_SIZE))
        weights = self._find_carried(backbone, with_classes) if carry and backbone.weights == "pretrained" else None
        if weights is not None:
            return self._carry(backbone, weights)
        return self._take_sibling(backbone, stem)

    def _shrink_own(self, backbone: BackboneSpec, stem: str) -> BackboneSpec:
        side, shown = catalog.resolve_side(backbone, self.base), catalog.find_small_side(backbone, IMAGE_SIZE, self.base)
        if shown < side:
            self.notes[f"images were shown at {shown} pixels instead of {side} to {stem}, which kept its own weights"] = None
        return backbone.with_changes(size=shown)

    def _find_carried(self, backbone: BackboneSpec, with_classes: bool) -> CarriedWeights | None:
        """The next weights of its family, for every network another as long as there are enough."""
        key = (backbone.name, with_classes)
        if key not in self._given:
            family = backbone_family(backbone)
            fitting = [w for w in self.carried if w.family == family and (w.has_classes or not with_classes)]
            if not fitting:
                return None
            taken = list(self._given.values())
            self._given[key] = min(fitting, key=taken.count)  # of those taken least often the first
        return self._given[key]

    def _carry(self, backbone: BackboneSpec, weights: CarriedWeights) -> BackboneSpec:
        bare = BackboneSpec(name=weights.architecture, weights=str(weights.file))
        side = catalog.find_small_side(bare, self.side)
        self.notes[f"in place of {backbone.name}: {weights.file.stem} at {side} pixels, with its own weights"] = None
        return bare.with_changes(size=side, seed=backbone.seed)

    def _take_sibling(self, backbone: BackboneSpec, stem: str) -> BackboneSpec:
        sibling = next(((name, side) for start, name, side in SIBLINGS if stem.startswith(start)), ("test_resnet", IMAGE_SIZE))
        options = {"stem": backbone.options["stem"]} if "stem" in backbone.options else {}
        if options:  # the only small ResNet whose first layer can be exchanged
            sibling = ("resnet18", 32)
        size = min(sibling[1], backbone.size or sibling[1])
        pooling = (
            "average" if sibling[0] == "vgg11" else backbone.pooling
        )  # without its dense layers, nine tenths of its parameters
        if backbone.weights == "pretrained":
            self.notes["backbones began from random weights instead of pretrained ones"] = None
        self.notes[f"in place of {backbone.name}: {sibling[0]} at {size} pixels"] = None
        return BackboneSpec(name=sibling[0], weights="random", size=size, pooling=pooling, options=options, seed=backbone.seed)
