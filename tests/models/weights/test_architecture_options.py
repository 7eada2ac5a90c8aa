"""Options reach a network's constructor only if they are on the allow-list, from whichever file they come; no pickle runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from toy_networks import WIDTH, build_toy

from phoropter.core.errors import SpecError, UserError, WeightsError
from phoropter.core.spec import validate_as
from phoropter.core.storage.sealed_json import write_sealed_json
from phoropter.models import backbones, catalog, classifier, timm_compat
from phoropter.models.spec import Backbone, BackboneSpec, ClassifierSpec
from phoropter.models.weights.architecture_options import check_options
from phoropter.study.plan import plan_study
from phoropter.study.spec import read_study


class WritesMarker:
    """Unpickling it writes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return (Path.touch, (self.marker,))


@pytest.fixture
def evil(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A pickle that would write `marker`, and a timm that loads checkpoints as versions before 1.0.26 do."""
    torch.save(WritesMarker(tmp_path / "marker"), tmp_path / "evil.pth")

    def load_unsafely(model: Any, path: str) -> None:
        torch.load(path, weights_only=False)

    monkeypatch.setattr(timm_compat.import_timm("models._factory"), "load_checkpoint", load_unsafely)
    return tmp_path / "evil.pth"


def save_folder(folder: Path, model_args: Any) -> Path:
    """A folder of weights in the hub's layout."""
    folder.mkdir()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = timm_compat.import_timm().create_model("test_resnet", num_classes=3)
    save_file(network.state_dict(), folder / "model.safetensors")
    config = {"architecture": "test_resnet", "num_classes": 3, "model_args": model_args}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def save_bundle(folder: Path, options: dict[str, Any]) -> Path:
    """A bundle, with these options written into its first branch afterwards."""
    spec = ClassifierSpec(
        backbones=(BackboneSpec(name="test_resnet", weights="random", size=32),), classes=("a", "b"), picture=32
    )
    classifier.save_classifier(classifier.build_classifier(spec, seed=0), folder)
    content = json.loads((folder / "bundle.json").read_text())
    content["branches"][0]["options"] = options
    write_sealed_json(folder / "bundle.json", {key: value for key, value in content.items() if key != "checksum"})
    return folder


def build_from_study(folder: Path, options: dict[str, Any], weights: str = "random") -> backbones.BackboneModule:
    """Plans the study and builds the network of its candidate."""
    file = folder / "study.yaml"
    entry = {"backbone": "test_resnet", "weights": weights, "options": options}
    file.write_text(json.dumps({"name": "s", "data": {"digits": True}, "recipe": "probe", "candidates": [entry]}))
    candidate = plan_study(read_study(file)[0], folder / "cache").candidates[0]
    return backbones.build_backbone(candidate.backbones[0], seed=0, base=folder)


@pytest.mark.parametrize(
    ("route", "message"),
    [
        ("study", r"study\.yaml, line 1: .*backbone 'test_resnet': takes no such option: 'checkpoint_path'"),
        ("bundle", r"bundle\.json: options of branches\[0\]: takes no such option: 'checkpoint_path'"),
        ("bundle as weights", r"bundle\.json: options: takes no such option: 'checkpoint_path'"),
        ("sidecar", r"config\.json: model_args: takes no such option: 'checkpoint_path'"),
    ],
)
def test_a_checkpoint_named_in_a_file_is_refused_and_not_loaded(evil: Path, route: str, message: str) -> None:
    folder, options = evil.parent, {"checkpoint_path": str(evil)}
    with pytest.raises(UserError, match=message) as caught:
        if route == "study":
            build_from_study(folder, options)
        elif route == "bundle":
            classifier.load_classifier(save_bundle(folder / "bundle", options))
        elif route == "sidecar":
            build_from_study(folder, {}, str(save_folder(folder / "weights", options)))
        else:
            build_from_study(folder, {}, str(save_bundle(folder / "bundle", options)))
    assert not (folder / "marker").exists()
    assert "\n" not in str(caught.value)


def test_sound_options_come_through_from_every_file(tmp_path: Path) -> None:
    options = {"drop_path_rate": 0.1, "avg_down": True, "act_layer": "relu"}
    folder = save_folder(tmp_path / "weights", {**options, "img_size": [224, 224]})
    bundle = save_bundle(tmp_path / "bundle", options)
    built = [
        build_from_study(tmp_path, options),
        build_from_study(tmp_path, {}, str(folder)),
        build_from_study(tmp_path, {}, str(bundle)),
        classifier.load_classifier(bundle).branches[0],
    ]
    assert [b.build_record.options for b in built] == [options] * 4
    rates = [b.body.layer4[-1].drop_path.drop_prob for b in built]  # type: ignore[union-attr, index, operator]
    assert rates == pytest.approx([0.1] * 4)


def test_the_pickle_of_these_tests_runs_where_it_is_loaded(evil: Path) -> None:
    timm_compat.import_timm().create_model("test_resnet", checkpoint_path=str(evil))
    assert (evil.parent / "marker").exists()


REFUSED = (
    *("checkpoint_path", "pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "pretrained_strict", "pretrained_filter_fn"),
    *("pretrained_model_args", "cache_dir", "scriptable", "exportable", "no_jit", "features_only", "out_indices", "feature_cls"),
    *("pruned", "device", "dtype", "model_name", "model_cfg", "cfg", "use_naflex", "block_fn", "hybrid_backbone", "in_chans"),
)


@pytest.mark.parametrize("name", REFUSED)
def test_arguments_that_are_no_plain_part_of_a_constructor_are_refused(name: str) -> None:
    for value in (1, False, "x", None):
        with pytest.raises(ValueError, match=f"'{name}'"):
            check_options({name: value}, is_custom=False)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("act_layer", word) for word in ("evil.pth", "a/b", "C:\\x", "https://x.y/z", "hf-hub:x", "a b", "x" * 41, 1)),
        *(("depth", value) for value in ("2", True, float("nan"), [1, "2"], [[1]], {"a": 1})),
        *(("qkv_bias", value) for value in (1, "true", [1])),
    ],
)
def test_values_of_another_type_are_refused(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"option '{name}' is .*, expected "):
        check_options({name: value}, is_custom=False)


def test_custom_backbones_name_their_own_options_and_take_plain_values() -> None:
    toy = Backbone("toy", build=build_toy, width=WIDTH)
    assert BackboneSpec(name=toy, options={"checkpoint": "best", "img_size": 3}).options == {"checkpoint": "best", "img_size": 3}
    with pytest.raises(SpecError, match=r"backbone 'toy': option 'checkpoint' is 'evil\.pth', expected a number"):
        validate_as(BackboneSpec, {"name": toy, "options": {"checkpoint": "evil.pth"}})


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("test_vit", {"drop_path_rate": 0.1, "qkv_bias": False, "class_token": True, "weight_init": "jax", "init_values": 1e-5}),
        ("test_resnet", {"drop_rate": 0.2, "act_layer": "gelu", "avg_down": True, "stem_width": 16, "drop_path_rate": None}),
        ("resnet18", {"stem": "cifar"}),
        ("test_convnext", {"depths": [1, 1, 1, 1], "ls_init_value": 1e-4, "kernel_sizes": 3}),
        ("test_efficientnet", {"bn_eps": 1e-3, "drop_path_rate": 0.2}),
        ("alexnet", {"dropout": 0.1}),
        ("alexnet_2012", {"groups": 2}),
    ],
)
def test_plain_arguments_of_a_constructor_build_its_network(name: str, options: dict[str, Any]) -> None:
    plan = backbones.pretrained.LoadPlan(
        BackboneSpec(name=name, weights="random"),
        catalog.find_architecture(name),
        None,
        backbones.BuildRecord(catalog.find_architecture(name).preprocessing, 0, check_options(options, is_custom=False)),
    )
    with torch.device("meta"):
        body, _ = backbones.pretrained.build_body(plan)
    assert isinstance(body, torch.nn.Module)


def test_options_beside_weights_are_used_and_enter_their_identity(tmp_path: Path) -> None:
    size = {"img_size": [224, 224], "in_chans": 3, "num_classes": 3}  # they follow from other fields
    specs = [
        BackboneSpec(name="test_resnet", weights=str(save_folder(tmp_path / str(i), model_args)), size=32)
        for i, model_args in enumerate(({}, size, {"drop_path_rate": 0.5, **size}))
    ]
    plain, sized, dropped = map(catalog.identify_weights, specs)
    assert plain == sized != dropped
    assert backbones.build_backbone(specs[2], seed=0).build_record.options == {"drop_path_rate": 0.5}
    bundles = [
        BackboneSpec(name="test_resnet", weights=str(save_bundle(tmp_path / name, options)))
        for name, options in (("a", {}), ("b", {"drop_path_rate": 0.5}))
    ]
    assert catalog.identify_weights(bundles[0]) != catalog.identify_weights(bundles[1])
    assert backbones.build_backbone(bundles[1], seed=0).build_record.options == {"drop_path_rate": 0.5}


def test_model_args_that_are_no_object_are_refused(tmp_path: Path) -> None:
    spec = BackboneSpec(name="test_resnet", weights=str(save_folder(tmp_path / "w", ["depth"])))
    with pytest.raises(WeightsError, match=r"config\.json: model_args is \['depth'\], expected an object"):
        catalog.check_weights(spec)
