"""Backbones give the pooled features of timm's networks, with their own input size, weights and identity."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from toy_networks import WIDTH, build_toy

from phoropter.core.errors import SpecError, WeightsError
from phoropter.core.spec import validate_as
from phoropter.models import backbones, catalog, pretrained, timm_compat
from phoropter.models.backbones import BackboneModule
from phoropter.models.spec import Backbone, BackboneSpec
from phoropter.models.weights import weight_files

NAMES = ["alexnet_2012", "alexnet", "vgg19", "resnet50", "resnet152", "efficientnet_b0", "convnext_tiny", "vit_small_patch16_224"]
NAMES += ["vit_base_patch16_224", "vit_base_patch32_224", "coatnet_1_224", "coatnet_1_rw_224", "swin_tiny_patch4_window7_224"]
NAMES += ["swin_base_patch4_window7_224", "poolformerv2_s24", "poolformerv2_m48", "regnety_160", "deit_base_patch16_224"]
NAMES += ["deit_base_distilled_patch16_224"]
SMALL = {"test_resnet": 64, "test_vit": 64, "test_convnext": 64, "test_efficientnet": 64, "test_byobnet": 64}


def random(name: str, size: int | None = None, seed: int = 0, **fields: Any) -> BackboneModule:
    return backbones.build_backbone(BackboneSpec(name=name, weights="random", size=size, **fields), seed=seed)


def noise(side: int, count: int = 2) -> Tensor:
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(0))


def theirs(name: str, **options: Any) -> Any:
    """timm's own network."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        return timm_compat.import_timm().create_model(name, **options).eval()


@pytest.mark.parametrize("name", NAMES)
def test_networks_have_the_parameters_and_width_of_the_catalogue(name: str) -> None:
    known = catalog.find_architecture(name)
    with torch.device("meta"):
        body, classes = pretrained.build_body(pretrained.resolve_load_plan(BackboneSpec(name=name, weights="random"), None, None))
    assert classes == 1000
    assert sum(p.numel() for p in body.parameters()) == known.parameters
    last = [m for m in body.modules() if isinstance(m, nn.Linear) and m.out_features == 1000]
    assert {m.in_features for m in last} == {known.num_features}
    assert sum(p.numel() for m in last for p in m.parameters()) == known.parameters - known.body_parameters


@pytest.mark.parametrize(("name", "side"), SMALL.items())
def test_features_equal_the_pooled_features_of_timm(name: str, side: int) -> None:
    ours = random(name, side)
    other = theirs(name, **({"img_size": side} if catalog.find_architecture(name).fixed_input_size else {}))
    other.reset_classifier(0)
    other.load_state_dict(ours.body.state_dict())
    x = noise(side)
    with torch.no_grad():
        assert torch.equal(ours(x), other(x))
    assert ours(x).shape == (2, ours.num_features) == (2, catalog.find_architecture(name).num_features)


@pytest.mark.parametrize("name", [*SMALL, "alexnet", "mobilenetv3_small_050"])
def test_a_network_has_the_width_that_a_pass_measures(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is looked up without a pass where it can be no other, and measured where the pooling may make it another."""
    spec, measured = BackboneSpec(name=name, weights="random", size=64), list[int]()
    measure = backbones._infer_num_features

    def measure_and_note(backbone: BackboneModule) -> int:
        measured.append(measure(backbone))
        return measured[-1]

    monkeypatch.setattr(backbones, "_infer_num_features", measure_and_note)
    first = backbones.build_backbone(spec, seed=0)
    again = backbones.build_backbone(spec, seed=0, again=first.build_record)
    assert not measured and again.num_features == first.num_features == measure(again)
    averaged = backbones.build_backbone(spec.with_changes(pooling="average"), seed=0)
    assert measured == [averaged.num_features]


def test_a_width_that_timm_denies_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a timm whose network of this name is another than the one that was catalogued."""
    entry = replace(catalog.find_architecture("test_resnet"), num_features=7)
    ours = random("test_resnet", 64)
    assert backbones._look_up_num_features(ours, catalog.find_architecture("test_resnet")) == ours.num_features
    assert backbones._look_up_num_features(ours, entry) is None


def test_what_is_built_again_at_a_side_that_does_not_work_is_refused() -> None:
    record = random("alexnet", 64).build_record
    tiny = replace(record, preprocessing=replace(record.preprocessing, side=1))
    with pytest.raises(SpecError, match="does not accept images of 1 pixels"):
        backbones.build_backbone(BackboneSpec(name="alexnet", weights="random", size=64), seed=0, again=tiny)


def test_features_of_alexnet_are_the_4096_of_its_second_hidden_layer() -> None:
    ours = random("alexnet", 64)
    x = noise(64)
    with torch.no_grad():
        maps = torch.flatten(ours.body.avgpool(ours.body.features(x)), 1)  # type: ignore[operator]
        dense = [m for m in ours.body.classifier if isinstance(m, nn.Linear)]  # type: ignore[union-attr]
        expected = torch.relu(dense[1](torch.relu(dense[0](maps))))
    assert ours.num_features == 4096 and len(dense) == 2
    torch.testing.assert_close(ours(x), expected)


@pytest.mark.parametrize(("name", "width"), [("vgg11", 512), ("alexnet", 256), ("alexnet_2012", 256), ("test_convnext", 64)])
def test_pool_average_is_the_mean_of_the_last_map_and_leaves_no_unused_parameter(name: str, width: int) -> None:
    ours = random(name, 64, pooling="average")
    seen: list[Tensor] = []
    x = noise(64)
    maps = ours.body.forward_features(x) if hasattr(ours.body, "forward_features") else ours.body.features(x)  # type: ignore[operator]
    seen.append(maps.flatten(2).mean(2))
    features = ours(x)
    torch.testing.assert_close(features, seen[0])
    assert features.shape == (2, width) and ours.num_features == width
    features.sum().backward()
    assert all(p.grad is not None for p in ours.parameters())


@pytest.mark.parametrize("name", ["test_vit", "swin_tiny_patch4_window7_224"])
def test_pool_average_of_tokens_and_of_maps_with_channels_last(name: str) -> None:
    ours = random(name, 64, pooling="average")
    x = noise(64)
    with torch.no_grad():
        out = ours.body.forward_features(x)  # type: ignore[operator]
        expected = out[:, 1:].mean(1) if name == "test_vit" else out.flatten(1, 2).mean(1)
        torch.testing.assert_close(ours(x), expected)


def test_images_are_resized_and_normalised() -> None:
    ours = random("test_resnet", 32)
    pictures = torch.randint(0, 256, (2, 3, 32, 32), generator=torch.Generator().manual_seed(0)).float()
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (ours.mean, ours.std))
    torch.testing.assert_close(ours.preprocess(pictures), (pictures / 255 - mean) / std)
    large = pictures.repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert ours.preprocess(large).shape == (2, 3, 32, 32)
    resize = timm_compat.import_torchvision("transforms.v2.functional").resize
    expected = (resize(large, [32, 32], antialias=True) / 255 - mean) / std
    torch.testing.assert_close(ours.preprocess(large), expected)


def test_equal_seeds_give_equal_weights_and_leave_the_global_generator_unchanged() -> None:
    before = torch.get_rng_state()
    one, same, other = random("test_resnet"), random("test_resnet"), random("test_resnet", seed=1)
    assert torch.equal(torch.get_rng_state(), before)
    assert one.identity == same.identity != other.identity


def test_identity_depends_on_weights_side_and_normalisation_only() -> None:
    one = random("test_resnet", 64)
    first = one.identity
    one.train()
    assert one.to(memory_format=torch.channels_last).identity == first  # type: ignore[call-overload]
    assert random("test_resnet", 96).identity != first
    with torch.no_grad():
        next(one.parameters())[0] += 1
    assert one.identity != first


def test_a_file_is_loaded_strictly_with_its_number_of_classes(tmp_path: Path) -> None:
    other = theirs("test_resnet", num_classes=7)
    save_file(other.state_dict(), tmp_path / "net.safetensors")
    ours = backbones.build_backbone(
        BackboneSpec(name="test_resnet", weights="net.safetensors"), seed=0, base=tmp_path, keep_heads=True
    )
    assert ours.build_record.num_classes == 7 and len(ours.pretrained_heads) == 1
    x = noise(160, 1)
    with torch.no_grad():
        torch.testing.assert_close(ours.pretrained_heads[0](ours(x)), other(x))


def test_a_file_without_a_last_layer_is_loaded(tmp_path: Path) -> None:
    other = theirs("test_resnet", num_classes=0)
    torch.save({"state_dict": other.state_dict()}, tmp_path / "net.pth")
    ours = backbones.build_backbone(BackboneSpec(name="test_resnet", weights=str(tmp_path / "net.pth")), seed=0)
    assert ours.build_record.num_classes == 0
    x = noise(64)
    with torch.no_grad():
        assert torch.equal(ours(x), other(x))
    with pytest.raises(WeightsError, match="have no last layer of their own"):
        backbones.build_backbone(BackboneSpec(name="test_resnet", weights=str(tmp_path / "net.pth")), seed=0, keep_heads=True)


def test_a_folder_in_the_hubs_layout_sets_options_and_mean(tmp_path: Path) -> None:
    other = theirs("test_vit", num_classes=3, depth=2)
    save_file(other.state_dict(), tmp_path / "model.safetensors")
    config = {"architecture": "test_vit", "num_classes": 3, "model_args": {"depth": 2}, "pretrained_cfg": {"mean": [0.1] * 3}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    ours = backbones.build_backbone(BackboneSpec(name="test_vit", weights=str(tmp_path)), seed=0)
    assert ours.mean == (0.1, 0.1, 0.1) and ours.build_record.options == {"depth": 2}
    assert len(ours.body.blocks) == 2  # type: ignore[arg-type]


def test_position_tables_are_resampled_for_another_side(tmp_path: Path) -> None:
    other = theirs("test_vit")
    save_file(other.state_dict(), tmp_path / "net.safetensors")
    ours = backbones.build_backbone(BackboneSpec(name="test_vit", weights=str(tmp_path / "net.safetensors"), size=64), seed=0)
    table = timm_compat.import_timm("layers").resample_abs_pos_embed(other.pos_embed.detach(), (4, 4))
    torch.testing.assert_close(ours.body.pos_embed.detach(), table)  # type: ignore[operator, union-attr]
    assert ours(noise(64)).shape == (2, 64)


def test_weights_that_do_not_fit_are_reported_in_one_sentence(tmp_path: Path) -> None:
    state = theirs("test_resnet").state_dict()
    state.pop("conv1.0.weight")
    save_file({**state, "other": torch.zeros(1)}, tmp_path / "net.safetensors")
    with pytest.raises(
        WeightsError, match=r"1 tensor is missing \(conv1\.0\.weight\); 1 tensor is unexpected \(other\)"
    ) as caught:
        backbones.build_backbone(BackboneSpec(name="test_resnet", weights=str(tmp_path / "net.safetensors")), seed=0)
    assert "\n" not in str(caught.value)


def test_pretrained_weights_come_from_the_local_cache_without_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    other = theirs("test_resnet")
    snapshot = tmp_path / "models--timm--test_resnet.r160_in1k" / "snapshots" / "0123abc"
    snapshot.mkdir(parents=True)
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text("0123abc")
    save_file(other.state_dict(), snapshot / "model.safetensors")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(weight_files, "_query_remote_etag", lambda remote: pytest.fail("the network was asked"))
    ours = backbones.build_backbone(BackboneSpec(name="test_resnet"), seed=0, keep_heads=True)
    x = noise(160, 1)
    assert len(ours.pretrained_heads) == 1
    with torch.no_grad():
        torch.testing.assert_close(ours.pretrained_heads[0](ours(x)), other(x))
    digest = hashlib.sha256((snapshot / "model.safetensors").read_bytes()).hexdigest()
    assert catalog.identify_weights(BackboneSpec(name="test_resnet")).endswith(digest)


def test_unavailable_pretrained_weights_fail_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    for name in ("test_resnet", "alexnet"):
        with pytest.raises(WeightsError, match="are not on this machine and HF_HUB_OFFLINE is set"):
            backbones.build_backbone(BackboneSpec(name=name), seed=0)


def test_torchvisions_alexnet_loads_from_a_checkpoint_of_tensors(tmp_path: Path) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        other = timm_compat.import_torchvision("models").alexnet(weights=None).eval()
    torch.save(other.state_dict(), tmp_path / "alexnet.pth")
    spec = BackboneSpec(name="alexnet", weights="alexnet.pth", size=64)
    ours = backbones.build_backbone(spec, seed=0, base=tmp_path, keep_heads=True)
    x = noise(64, 1)
    assert len(ours.pretrained_heads) == 1
    with torch.no_grad():
        torch.testing.assert_close(ours.pretrained_heads[0](ours(x)), other(x))


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"name": "test_resnet", "options": {"fo": 1}}, "takes no such option"),
        ({"name": "test_resnet", "options": {"depth": 1}}, "takes no such option"),
        ({"name": "test_resnet", "options": {"num_classes": 5}}, "option 'num_classes' is set by phoropter"),
        ({"name": "alexnet_2012", "options": {"groups": 3}}, "groups is 3"),
        ({"name": "test_resnet", "options": {"global_pool": ""}}, "does not return one feature vector"),
        ({"name": "test_vit", "size": 63}, "size 48 or 64 would work"),
        ({"name": "resnet5"}, "did you mean 'resnet50'"),
    ],
)
def test_a_network_that_cannot_be_built_is_refused_in_one_sentence(spec: dict[str, Any], words: str) -> None:
    with pytest.raises(SpecError, match=words) as caught:
        backbones.build_backbone(validate_as(BackboneSpec, {"weights": "random", **spec}), seed=0)
    assert "\n" not in str(caught.value)


def test_pretrained_heads_that_cannot_be_separated_are_refused() -> None:
    with pytest.raises(WeightsError, match="the pretrained head of 'levit_128s' cannot be separated"):
        backbones.build_backbone(BackboneSpec(name="levit_128s", weights="random"), seed=0, keep_heads=True)


@pytest.mark.parametrize("piece", [2**18, 2 * 3 * 32 * 32, 1])  # all five pictures at once, two by two, one by one
def test_normalising_in_place_is_bit_identical_and_does_not_change_a_float_input(
    monkeypatch: pytest.MonkeyPatch, piece: int
) -> None:
    monkeypatch.setattr(backbones, "CHUNK_ELEMENTS", piece)
    ours = random("test_resnet", 32)
    pictures = torch.randint(0, 256, (5, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    expected = pictures.float() * ours.scale - ours.shift
    interleaved = pictures.contiguous(memory_format=torch.channels_last)
    assert torch.equal(ours.preprocess(pictures), expected)
    assert torch.equal(ours.preprocess(interleaved), expected)
    assert ours.preprocess(interleaved).is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(ours.preprocess(interleaved[:, :, 4:, 4:]), ours.preprocess(pictures[:, :, 4:, 4:]))  # resized first
    given = pictures.float()
    assert torch.equal(ours.preprocess(given), expected) and torch.equal(given, pictures.float())
    larger = torch.rand(1, 3, 48, 48, requires_grad=True)
    ours.preprocess(larger).sum().backward()
    assert larger.grad is not None


# ------------------------------------------------------------------------------------------------- networks of a user's own


def toy(**fields: Any) -> Backbone:
    return Backbone("toy", **{"build": build_toy, "width": WIDTH, "input_size": 32, **fields})


def test_a_custom_network_is_normalised_by_its_own_values_and_its_map_is_averaged() -> None:
    spec = BackboneSpec(name=toy(mean=(0.2, 0.3, 0.4), std=(0.1, 0.2, 0.3)))
    ours = backbones.build_backbone(spec, seed=4)
    images = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in ((0.2, 0.3, 0.4), (0.1, 0.2, 0.3)))
    with torch.no_grad():
        expected = ours.body((images / 255 - mean) / std).mean((2, 3))
        torch.testing.assert_close(ours(ours.preprocess(images)), expected, rtol=1e-4, atol=1e-5)
        flat = backbones.build_backbone(spec.with_changes(options={"flat": True}), seed=4)
        torch.testing.assert_close(flat(flat.preprocess(images)), expected, rtol=1e-4, atol=1e-5)
    assert ours.num_features == WIDTH and ours.side == 32


def test_a_custom_network_depends_on_the_seed_alone_and_its_identity_on_its_code() -> None:
    build = lambda custom, seed: backbones.build_backbone(BackboneSpec(name=custom), seed=seed)  # noqa: E731
    before = torch.random.get_rng_state()
    one, same, other = build(toy(), 1), build(toy(), 1), build(toy(), 2)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert one.identity == same.identity != other.identity
    assert one.identity != build(toy(version="2"), 1).identity
    assert one.identity != build(toy(build=lambda: build_toy()), 1).identity


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"width": 7},
            r"returns shape \(2, 16, 4, 4\) and type torch.float32 .*, expected float features of shape \(2, 7\)",
        ),
        ({"build": lambda: nn.Flatten(0)}, r"returns shape \(6144,\) .* expected float features"),
        ({"build": lambda: nn.Linear(3, 4)}, r"fails on a batch of shape \(2, 3, 32, 32\): mat1 and mat2"),
        ({"build": lambda: 3}, "build returned a int, expected a torch.nn.Module"),
        ({"build": lambda: build_toy("a", "b")}, "its build function failed with TypeError"),  # type: ignore[call-arg, arg-type]
    ],
)
def test_a_custom_network_that_gives_no_features_is_refused_in_one_sentence(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message) as caught:
        backbones.build_backbone(BackboneSpec(name=toy(**fields)), seed=0)
    assert "\n" not in str(caught.value) and "'toy'" in str(caught.value)


def test_a_custom_network_has_no_pretrained_head() -> None:
    with pytest.raises(WeightsError, match="'toy' have no last layer of their own; choose head linear or dense"):
        backbones.build_backbone(BackboneSpec(name=toy()), seed=0, keep_heads=True)


@pytest.mark.parametrize("ending", ["safetensors", "pth"])
def test_custom_weights_are_loaded_strictly(ending: str, tmp_path: Path) -> None:
    trained = build_toy()
    path = tmp_path / f"toy.{ending}"
    if ending == "pth":
        torch.save(trained.state_dict(), path)
    else:
        save_file(trained.state_dict(), path)
    spec = BackboneSpec(name=toy(weights=path))
    catalog.check_weights(spec)
    ours = backbones.build_backbone(spec, seed=0)
    assert all(torch.equal(v, trained.state_dict()[k]) for k, v in ours.body.state_dict().items())
    drawn = backbones.build_backbone(spec.with_changes(weights="random"), seed=0)
    assert not torch.equal(drawn.body.conv.weight, trained.conv.weight)
    relative = BackboneSpec(name=toy(weights=path.name))
    assert backbones.build_backbone(relative, seed=0, base=tmp_path).identity == ours.identity
    with pytest.raises(WeightsError, match=r"do not fit toy: .*conv.weight"):
        backbones.build_backbone(BackboneSpec(name=toy(weights=path, build=lambda: nn.Conv2d(3, WIDTH, 5))), seed=0)
