"""Classifier: normalisation, cropping, freezing, weight decay, averages, and bundles that are restored bit for bit or refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import safetensors
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from phoropter.core.errors import DiskError, SpecError, StoreError, WeightsError
from phoropter.core.storage.sealed_json import write_sealed_json
from phoropter.models import backbones, catalog
from phoropter.models import classifier as classifiers
from phoropter.models.classifier import Classifier
from phoropter.models.heads import BranchAblation
from phoropter.models.spec import BackboneSpec, ClassifierSpec, FusionSpec, HeadSpec

RESNET = BackboneSpec(name="test_resnet", weights="random", size=64)
VIT = BackboneSpec(name="test_vit", weights="random", size=32)
DISTILLED = BackboneSpec(name="deit_tiny_distilled_patch16_224", weights="random", size=64, options={"depth": 2})
POOLED = BackboneSpec(name="mobilenetv3_small_050", weights="random", size=64, pooling="average")

KINDS: dict[str, dict[str, Any]] = {
    "linear": {"backbones": (RESNET,)},
    "dense": {"backbones": (VIT,), "head": HeadSpec(kind="dense", dropout=0.3)},
    "pretrained": {"backbones": (RESNET,), "head": HeadSpec(kind="pretrained"), "classes": tuple(map(str, range(1000)))},
    "token": {"backbones": (DISTILLED,), "student": "token"},
    "tokens": {
        "backbones": (DISTILLED,),
        "head": HeadSpec(kind="pretrained"),
        "classes": tuple(map(str, range(1000))),
    },
    "average pool": {"backbones": (POOLED,)},
    "logits": {"backbones": (RESNET, VIT), "fusion": FusionSpec()},
    "concat": {"backbones": (RESNET, VIT), "fusion": FusionSpec(mode="concat", aux_loss_weight=0.1)},
    "ensemble": {"backbones": (RESNET, VIT), "fusion": FusionSpec(mode="ensemble")},
}


def made(kind: str = "linear", seed: int = 0, **fields: Any) -> Classifier:
    spec = ClassifierSpec(**{"classes": ("a", "b", "c"), "picture": 64, **KINDS[kind], **fields})
    return classifiers.build_classifier(spec, seed=seed)


def pictures(side: int = 64, count: int = 4) -> Tensor:
    return torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("kind", KINDS)
def test_forward_is_the_head_on_the_features(kind: str) -> None:
    ours = made(kind)
    with torch.no_grad():
        assert torch.equal(ours(pictures()), ours.forward_head(ours.forward_features(pictures())).logits)
    assert ours(pictures()).dtype == torch.float32


def test_features_of_a_single_branch() -> None:
    ours = made("logits")
    assert torch.equal(ours.forward_features(pictures(), only=1)[0], ours.forward_features(pictures())[1])


def test_uint8_and_float_up_to_255_are_the_same_images() -> None:
    ours = made()
    assert torch.equal(ours(pictures()), ours(pictures().float()))


@pytest.mark.parametrize("training", [False, True])
def test_larger_images_are_centre_cropped_in_training_and_evaluation(training: bool) -> None:
    ours = made("dense", picture=64, center_crop=32, head=HeadSpec()).train(training)
    large = pictures(64)
    assert torch.equal(ours(large), ours(large[..., 16:48, 16:48]))
    assert not torch.equal(made("dense", head=HeadSpec())(large), ours(large))


def test_penultimate_features_are_the_input_of_the_last_layer() -> None:
    kinds = {"linear": made("linear"), "dense": made("dense"), "logits": made("logits", fusion=FusionSpec(start="random"))}
    for ours in kinds.values():
        out = ours.forward_outputs(pictures())
        last = [m for m in ours.head.modules() if isinstance(m, nn.Linear)][-1]
        torch.testing.assert_close(out.logits, last(out.features))


def test_a_fusion_of_logits_adds_its_last_layer_to_the_average_of_its_branches() -> None:
    ours = made("logits")
    out = ours.forward_outputs(pictures())
    torch.testing.assert_close(out.logits, (out.branch_logits[0] + out.branch_logits[1]) / 2)
    last = [m for m in ours.head.modules() if isinstance(m, nn.Linear)][-1]
    nn.init.normal_(last.weight)
    out = ours.forward_outputs(pictures())
    torch.testing.assert_close(out.logits, (out.branch_logits[0] + out.branch_logits[1]) / 2 + last(out.features))


def test_frozen_backbones_keep_their_weights_and_statistics() -> None:
    ours = made("logits")
    ours.freeze("head")
    ours.train()
    before = {k: v.clone() for k, v in ours.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in ours.parameters() if p.requires_grad], lr=0.1)
    for _ in range(2):
        F.cross_entropy(ours(pictures()), torch.tensor([0, 1, 2, 0])).backward()
        optimizer.step()
    moved = {k.partition(".")[0] for k, v in ours.state_dict().items() if not torch.equal(v, before[k])}
    assert moved == {"head"}


def test_unfrozen_backbones_train_and_update_their_statistics() -> None:
    ours = made()
    ours.freeze("head")
    ours.freeze("all")
    ours.train()
    before = {k: v.clone() for k, v in ours.state_dict().items()}
    ours(pictures()).sum().backward()
    assert all(p.grad is not None for p in ours.parameters())
    assert any("running_mean" in k and not torch.equal(v, before[k]) for k, v in ours.state_dict().items())


def test_head_and_backbone_parameters_are_all_parameters() -> None:
    ours = made("concat")
    named = dict([*ours.head_parameters(), *ours.backbone_parameters()])
    assert named.keys() == dict(ours.named_parameters()).keys()
    assert all(n.startswith("head.") for n, _ in ours.head_parameters())
    assert all(n.startswith(("backbones.0.", "backbones.1.")) for n, _ in ours.backbone_parameters())


def test_weight_decay_applies_to_matrices_and_kernels_only() -> None:
    ours = made("logits")
    kinds = {n: type(m) for n, m in ours.named_modules()}
    for name, parameter in ours.named_parameters():
        owner, _, last = name.rpartition(".")
        weighs = kinds[owner] in (nn.Linear, nn.Conv2d) and last == "weight"
        assert ours.uses_weight_decay(name, parameter) is weighs, name
    tokens = dict(made("token").named_parameters())
    for last in ("cls_token", "dist_token", "pos_embed"):
        name = f"backbones.0.body.{last}"
        assert not ours.uses_weight_decay(name, tokens[name])


def test_position_tables_of_swin_are_not_decayed() -> None:
    spec = BackboneSpec(name="swin_tiny_patch4_window7_224", weights="random", size=64, options={"embed_dim": 24})
    ours = made(backbones=(spec,))
    tables = [(n, p) for n, p in ours.named_parameters() if n.endswith("relative_position_bias_table")]
    assert tables and not any(ours.uses_weight_decay(n, p) for n, p in tables)


def test_equal_seeds_give_equal_classifiers_and_leave_the_global_generator_unchanged() -> None:
    before = torch.get_rng_state()
    one, same, other = made("logits"), made("logits"), made("logits", seed=1)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(one(pictures()), same(pictures())) and not torch.equal(one(pictures()), other(pictures()))


@pytest.mark.parametrize("kind", KINDS)
def test_a_loaded_bundle_gives_bit_identical_logits(kind: str, tmp_path: Path) -> None:
    ours = made(kind)
    with torch.no_grad():
        for p in ours.parameters():
            p.add_(torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel())) * 0.01)
    ours = ours.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    classifiers.save_classifier(ours, tmp_path / "bundle", training={"why": "a test"})
    back = classifiers.load_classifier(tmp_path / "bundle").to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    assert back.spec == ours.spec and [b.identity for b in back.branches] == [b.identity for b in ours.branches]
    with torch.no_grad():
        assert torch.equal(back(pictures()), ours(pictures()))
    assert json.loads((tmp_path / "bundle" / "bundle.json").read_text())["training"] == {"why": "a test"}
    assert sorted(p.name for p in (tmp_path / "bundle").iterdir()) == ["bundle.json", "model.safetensors"]


def test_a_bundle_keeps_the_mean_of_its_weights_and_needs_no_other_file(tmp_path: Path) -> None:
    source = made()
    state = {k.removeprefix("backbones.0.body."): v for k, v in source.state_dict().items() if k.startswith("backbones")}
    save_file(state, tmp_path / "net.safetensors")
    (tmp_path / "net.json").write_text('{"mean": [0.1, 0.2, 0.3], "num_classes": 0}')
    spec = source.spec.with_changes(backbones=(RESNET.with_changes(weights="net.safetensors"),))
    ours = classifiers.build_classifier(spec, seed=0, base=tmp_path)
    classifiers.save_classifier(ours, tmp_path / "bundle")
    (tmp_path / "net.safetensors").unlink()
    back = classifiers.load_classifier(tmp_path / "bundle")
    assert back.branches[0].mean == (0.1, 0.2, 0.3)
    assert torch.equal(back(pictures()), ours(pictures()))


def test_a_bundle_keeps_the_normalisation_of_its_spec(tmp_path: Path) -> None:
    asked = RESNET.with_changes(mean=(0.3, 0.4, 0.5), std=(0.1, 0.2, 0.3))
    ours = made(backbones=(asked,))
    assert not torch.equal(ours(pictures()), made()(pictures()))
    classifiers.save_classifier(ours, tmp_path / "bundle")
    assert torch.equal(classifiers.load_classifier(tmp_path / "bundle")(pictures()), ours(pictures()))


def test_a_backbone_can_be_loaded_from_a_bundle(tmp_path: Path) -> None:
    ours = made("logits", seed=5)
    classifiers.save_classifier(ours, tmp_path / "bundle")
    spec = VIT.with_changes(weights="bundle")
    taken = backbones.build_backbone(spec, seed=0, base=tmp_path)
    assert taken.identity == ours.branches[1].identity
    catalog.check_weights(spec, tmp_path)
    with pytest.raises(WeightsError, match="holds test_resnet and test_vit, not resnet50"):
        catalog.check_weights(BackboneSpec(name="resnet50", weights="bundle"), tmp_path)


def test_a_bundle_is_not_overwritten(tmp_path: Path) -> None:
    classifiers.save_classifier(made(), tmp_path / "bundle")
    with pytest.raises(StoreError, match="exists already"):
        classifiers.save_classifier(made(), tmp_path / "bundle")


def test_a_bundle_is_complete_or_absent(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        classifiers.save_classifier(made(), tmp_path / "bundle", training={"loss": float("nan")})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("spoil", "error", "words"),
    [
        (lambda d: d.update(format=9), WeightsError, "has format 9"),
        (lambda d: d.pop("branches"), WeightsError, "does not describe a bundle"),
        (lambda d: d["branches"].clear(), WeightsError, "describes 0 branches for 1"),
        (lambda d: d["branches"][0].update(mean=[1]), WeightsError, "does not describe a bundle"),
        (lambda d: d["spec"].update(classes=["a", "b"]), WeightsError, r"do not fit its own bundle\.json"),
        (lambda d: d["spec"].update(clases=[]), SpecError, "unknown key 'clases'.*did you mean 'classes'"),
        (lambda d: d["spec"]["backbones"][0].update(name="test_vit"), WeightsError, r"do not fit its own bundle\.json"),
    ],
)
def test_a_bundle_that_contradicts_itself_is_refused(tmp_path: Path, spoil: Any, error: type[Exception], words: str) -> None:
    classifiers.save_classifier(made(), tmp_path / "bundle")
    described = json.loads((tmp_path / "bundle" / "bundle.json").read_text())
    spoil(described)
    write_sealed_json(tmp_path / "bundle" / "bundle.json", {k: v for k, v in described.items() if k != "checksum"})
    with pytest.raises(error, match=words):
        classifiers.load_classifier(tmp_path / "bundle")


@pytest.mark.parametrize("name", ["model.safetensors", "bundle.json"])
def test_a_flipped_byte_anywhere_in_a_bundle_is_refused(tmp_path: Path, name: str) -> None:
    classifiers.save_classifier(made(), tmp_path / "bundle", training={"why": "a test"})
    file = tmp_path / "bundle" / name
    sound = file.read_bytes()
    for at in range(len(sound) // 2, len(sound), len(sound) // 20):
        file.write_bytes(sound[:at] + bytes([sound[at] ^ 1]) + sound[at + 1 :])
        with pytest.raises((WeightsError, SpecError)):
            classifiers.load_classifier(tmp_path / "bundle")
    file.unlink()
    with pytest.raises(WeightsError):
        classifiers.load_classifier(tmp_path / "bundle")


def test_a_bundle_of_an_earlier_version_is_read_without_checksums(tmp_path: Path) -> None:
    classifiers.save_classifier(made(), tmp_path / "bundle")
    file = tmp_path / "bundle" / "bundle.json"
    described = json.loads(file.read_text())
    del described["checksum"], described["files"]
    file.write_text(json.dumps(described))
    with pytest.raises(WeightsError, match=r"is damaged: bundle\.json has no checksum"):
        classifiers.load_classifier(tmp_path / "bundle")
    file.write_text(json.dumps({**described, "format": 1}))
    classifiers.load_classifier(tmp_path / "bundle")


def test_all_files_of_a_bundle_have_the_mode_of_the_umask(tmp_path: Path) -> None:
    classifiers.save_classifier(made(), tmp_path / "bundle")
    (tmp_path / "plain").write_text("")
    modes = {p.stat().st_mode for p in [tmp_path / "plain", *(tmp_path / "bundle").iterdir()]}
    assert len(modes) == 1


def test_a_full_disk_while_weights_are_written_is_a_disk_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fill_disk(state: Any, path: Path) -> None:
        raise safetensors.SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("safetensors.torch.save_file", fill_disk)
    with pytest.raises(DiskError, match="disk is full"):
        classifiers.save_classifier(made(), tmp_path / "bundle")
    assert not list(tmp_path.iterdir())


def test_a_bundle_with_missing_or_truncated_tensors_is_refused(tmp_path: Path) -> None:
    classifiers.save_classifier(made(), tmp_path / "bundle")
    tensors = tmp_path / "bundle" / "model.safetensors"
    tensors.write_bytes(tensors.read_bytes()[:-10])
    with pytest.raises(WeightsError, match="not a complete safetensors file"):
        classifiers.load_classifier(tmp_path / "bundle")
    tensors.unlink()
    with pytest.raises(WeightsError, match=r"has no model\.safetensors"):
        classifiers.load_classifier(tmp_path / "bundle")


def test_a_bundle_holds_every_parameter_and_buffer_under_plain_names(tmp_path: Path) -> None:
    classifiers.save_classifier(made("logits"), tmp_path / "bundle")
    held = load_file(tmp_path / "bundle" / "model.safetensors")
    assert held.keys() == made("logits").state_dict().keys()
    assert "head.fusing.last.weight" in held and "backbones.1.body.blocks.0.attn.qkv.weight" in held


@pytest.mark.parametrize("kinds", [("linear", "dense", "logits"), ("token", "concat", "average pool")])
def test_an_average_gives_the_mean_of_its_members_probabilities(kinds: tuple[str, ...], tmp_path: Path) -> None:
    """Of members of every kind, before and after it was saved; a crop is each member's own."""
    members = [made(kind, center_crop=48 if number else None) for number, kind in enumerate(kinds)]
    average = classifiers.average_classifiers(members)
    x = pictures()
    with torch.no_grad():
        expected = torch.stack([member(x).softmax(1) for member in members]).mean(0)
        torch.testing.assert_close(average(x).softmax(1), expected, rtol=1e-5, atol=1e-7)
        classifiers.save_classifier(average, tmp_path / "bundle")
        again = classifiers.load_classifier(tmp_path / "bundle")
        assert torch.equal(again(x), average(x)) and len(again.branches) == sum(len(m.branches) for m in members)
        for member, kept in zip(members, again.members, strict=True):
            assert kept.spec == member.spec and torch.equal(kept(x), member(x))
        without = again.forward_head(again.forward_features(x), BranchAblation(0)).logits.softmax(1)
        torch.testing.assert_close(without, torch.stack([m(x).softmax(1) for m in members[1:]]).mean(0), rtol=1e-5, atol=1e-7)


def test_what_cannot_be_averaged_is_refused() -> None:
    with pytest.raises(ValueError, match="came 1"):
        classifiers.average_classifiers([made("linear")])
    with pytest.raises(ValueError, match="of the same classes and image size"):
        classifiers.average_classifiers([made("linear"), made("linear", classes=("x", "y"))])


def test_an_average_has_a_format_that_readers_of_single_classifiers_refuse(tmp_path: Path) -> None:
    classifiers.save_classifier(classifiers.average_classifiers([made("linear"), made("dense")]), tmp_path / "bundle")
    content = json.loads((tmp_path / "bundle" / "bundle.json").read_text())
    assert content["format"] == 3 and len(content["members"]) == 2
    for change in ({"members": content["members"][:1]}, {"format": 2}, {"members": []}):
        write_sealed_json(tmp_path / "bundle" / "bundle.json", {k: v for k, v in (content | change).items() if k != "checksum"})
        with pytest.raises(WeightsError, match=r"does not describe a bundle"):
            classifiers.load_classifier(tmp_path / "bundle")


def test_autocast_gives_float32_logits() -> None:
    ours = made("logits")
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        out = ours.forward_outputs(pictures())
    assert out.logits.dtype == torch.float32 and all(o.dtype == torch.float32 for o in out.branch_logits)
    torch.testing.assert_close(out.logits, ours(pictures()), rtol=0.1, atol=0.1)


@pytest.mark.parametrize("kind", ["linear", "token", "logits"])
def test_with_new_head_shares_the_backbones_and_draws_the_head_of_its_seed(kind: str) -> None:
    ours = made(kind)
    sibling = classifiers.with_new_head(ours, seed=1)
    assert all(a is b for a, b in zip(ours.branches, sibling.branches, strict=True))
    expected = dict(made(kind, seed=1).head_parameters())
    assert all(torch.equal(p, expected[n]) for n, p in sibling.head_parameters())
    assert not torch.equal(sibling(pictures()), ours(pictures()))


@pytest.mark.parametrize("kind", ["linear", "token", "logits"])
def test_with_new_head_puts_the_head_on_the_device_of_the_backbones(kind: str) -> None:
    ours = made(kind).to("meta")
    assert {p.device.type for p in classifiers.with_new_head(ours, seed=1).parameters()} == {"meta"}
