"""Locates pretrained weights and their metadata (no torch): files, folders, bundles, the folder to carry, the hub and its cache.

The preprocessing of a file (side, mean, deviation) is read from the JSON beside it: `NAME.json` next to `NAME.safetensors`,
`config.json` in a folder of the hub's layout, `bundle.json` in a bundle. No pickle is opened; a `.pth` file must only exist.

Left out: loading tensors (state_dicts.py), and any list of what the hub has.
"""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from phoropter.core.errors import WeightsError, cut_message
from phoropter.core.files import read_json
from phoropter.models.weights.architecture_options import DERIVED_OPTIONS, check_options
from phoropter.models.weights.weights_folder import VARIABLE, digest_weights, find_in_folder

MAX_HEADER_BYTES = 64 << 20  # of a safetensors header; those of the largest networks are under one million bytes
MAX_SIDECAR_BYTES = 16 << 20
HUB_TIMEOUT_S = 3.0
PICKLE_SUFFIXES = (".pth", ".pt", ".bin")


class MissingWeightsError(WeightsError):
    """Pretrained weights are nowhere on this machine and cannot be had from it. name: of the weights · why: in words"""

    def __init__(self, name: str, why: str) -> None:
        super().__init__(f"the pretrained weights {name} are not on this machine and {why}; {explain_fetching([name])}")
        self.name, self.why = name, why


def explain_fetching(names: Iterable[str]) -> str:
    """The one command that gets weights, and what makes them found."""
    command = f"phoropter weights get {' '.join(names)} --to FOLDER"
    return f"run `{command}` where there is a network, bring the folder here and set {VARIABLE}=FOLDER"


WeightLayout = Literal["file", "folder", "bundle"]


@dataclass(frozen=True)
class WeightFile:
    """A local file of weights.

    path: the file with the tensors · metadata: the JSON beside it, under the hub's keys (architecture, num_classes, mean, std,
    input_size, interpolation, crop_pct, model_args) · branch: index of the backbone in a bundle
    """

    path: Path
    layout: WeightLayout
    metadata: dict[str, Any]
    branch: int = 0


def find_weight_file(weights: str, base: Path | None, architecture: str) -> WeightFile:
    """Finds the file that `weights` of a spec names; in a bundle, the first backbone of this architecture.

    base: the folder relative paths start from
    Raises WeightsError when it is missing, not readable, or of another architecture.
    """
    path = Path(weights).expanduser()
    if base is not None and not path.is_absolute():
        path = base / path
    if path.is_dir():
        found = _find_in_bundle(path, architecture) if (path / "bundle.json").exists() else _find_in_folder(path)
    elif path.is_file():
        found = WeightFile(path, "file", read_sidecar(path.with_suffix(".json")))
    else:
        raise WeightsError(f"weights {path}: there is no such file or folder; give a path, or write pretrained or random")
    if found.path.suffix == ".safetensors":
        read_tensor_shapes(found.path)
    elif found.path.suffix not in PICKLE_SUFFIXES or not found.path.stat().st_size:
        raise WeightsError(
            f"weights {found.path}: expected a .safetensors file (or .pth, .pt, .bin of tensors alone) that is not empty"
        )
    stated = str(found.metadata.get("architecture") or architecture).partition(".")[0]
    if stated != architecture:
        raise WeightsError(
            f"weights {found.path} are of {stated}, but the backbone is {architecture}; name {stated}, or give other weights"
        )
    return found


def read_stored_options(weights: WeightFile, is_custom: bool) -> dict[str, Any]:
    """The constructor's options in the JSON beside the weights, without those that follow from the spec's own fields.

    is_custom: of a custom Backbone. Raises WeightsError that names the file and the option for one that may not be given.
    """
    key = "model_args" if weights.metadata.get("model_args") else "options"
    stored = weights.metadata.get(key) or {}
    names = {"bundle": "bundle.json", "folder": "config.json", "file": f"{weights.path.stem}.json"}
    file = weights.path.with_name(names[weights.layout])
    if not isinstance(stored, dict):
        raise WeightsError(f"{file}: {key} is {repr(stored)[:60]}, expected an object of options and their values")
    try:
        return check_options({name: value for name, value in stored.items() if name not in DERIVED_OPTIONS}, is_custom)
    except ValueError as error:
        raise WeightsError(f"{file}: {key}: {error}") from None


def read_tensor_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """The shape of each tensor of a safetensors file. Raises WeightsError when the file is truncated or of another format."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= min(size - 8, MAX_HEADER_BYTES):
                raise ValueError("its header has an impossible length")
            tensors = json.loads(file.read(length))
        tensors.pop("__metadata__", None)
        position = 0
        for start, end in sorted(tuple(t["data_offsets"]) for t in tensors.values()):
            if start != position or end < start:
                raise ValueError("its tensors overlap or leave gaps")
            position = end
        if position != size - 8 - length:
            raise ValueError("its size does not match its tensors")
        return {name: tuple(t["shape"]) for name, t in tensors.items()}
    except OSError as error:
        raise WeightsError(f"weights {path} cannot be read: {error.strerror or error}") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise WeightsError(
            f"weights {path} are not a complete safetensors file ({cut_message(error, 160)}); copy or convert them again"
        ) from None


def read_sidecar_json(path: Path) -> Any:
    """A small JSON file. Raises WeightsError when it is missing, oversized or malformed."""
    return read_json(path, MAX_SIDECAR_BYTES, WeightsError)


def read_sidecar(sidecar: Path) -> dict[str, Any]:
    """The JSON file beside the weights, with the hub's `pretrained_cfg` flattened and `timm_architecture` renamed."""
    if not sidecar.exists():
        return {}
    value = read_sidecar_json(sidecar)
    if not isinstance(value, dict):
        raise WeightsError(f"{sidecar} is a JSON {type(value).__name__}, expected an object that describes the weights")
    inner = value.pop("pretrained_cfg", None)
    metadata = {**(inner if isinstance(inner, dict) else {}), **value}
    if "timm_architecture" in metadata:
        metadata["architecture"] = metadata["timm_architecture"]
    return metadata


def _find_in_folder(path: Path) -> WeightFile:
    for name in ("model.safetensors", "pytorch_model.bin"):
        if (path / name).is_file():
            return WeightFile(path / name, "folder", read_sidecar(path / "config.json"))
    raise WeightsError(
        f"weights {path}: the folder holds neither model.safetensors nor bundle.json; download the complete folder from the hub"
    )


def _find_in_bundle(path: Path, architecture: str) -> WeightFile:
    content = read_sidecar_json(path / "bundle.json")
    try:
        branches = content["branches"]
        names = [str(b["architecture"]).partition(".")[0] for b in branches]
    except (KeyError, TypeError):
        raise WeightsError(f"{path / 'bundle.json'} does not describe a bundle; save the classifier again") from None
    if architecture not in names:
        raise WeightsError(f"bundle {path} holds {' and '.join(names)}, not {architecture}")
    branch = names.index(architecture)
    return WeightFile(path / "model.safetensors", "bundle", branches[branch], branch)


# ------------------------------------------------------------------------------------------------------------------ the hub


@dataclass(frozen=True)
class RemoteWeights:
    """Weights to download: a repository of the hub and a file in it, or a URL."""

    repo: str | None
    file: str | None
    url: str | None

    @property
    def display_name(self) -> str:
        """What messages call it."""
        return self.repo or str(self.url).rpartition("/")[2]

    @property
    def candidate_files(self) -> list[str]:
        """File names the weights may have in the repository, those without pickles first."""
        name = self.file or "pytorch_model.bin"
        safe = {"pytorch_model.bin": "model.safetensors", "open_clip_pytorch_model.bin": "open_clip_model.safetensors"}.get(name)
        return [safe, name] if safe else [name]


def find_cached_weights(remote: RemoteWeights) -> Path | None:
    """The file in the folder that PHOROPTER_WEIGHTS names, or in the cache of the hub or of torch.hub, if it is there."""
    if (carried := find_in_folder(remote.repo, remote.url)) is not None:
        return carried
    if remote.repo is None:
        path = _torch_hub_folder() / "checkpoints" / str(remote.url).rpartition("/")[2]
        return path if path.is_file() else None
    import huggingface_hub

    for name in remote.candidate_files:
        path_text = huggingface_hub.try_to_load_from_cache(remote.repo, name)
        if isinstance(path_text, str):
            return Path(path_text)
    return None


def fetch_weights(remote: RemoteWeights) -> Path:
    """The file in the hub's local cache, downloaded first if it is not there. Raises WeightsError."""
    cached = find_cached_weights(remote)
    if cached is not None:
        return cached
    import huggingface_hub
    from huggingface_hub import errors

    assert remote.repo is not None
    try:
        for name in remote.candidate_files:
            try:
                return Path(huggingface_hub.hf_hub_download(remote.repo, name))
            except errors.EntryNotFoundError:
                continue
    except Exception as error:
        raise _explain_download(remote, f"could not be downloaded: {cut_message(error, 160)}") from None
    raise WeightsError(
        f"the hub has no weights {remote.repo} ({' or '.join(remote.candidate_files)}); choose another tag, or a path"
    )


def resolve_etag(remote: RemoteWeights) -> str:
    """The hub's digest of the weights, from the local cache or else from the hub; the same before and after a download.

    Raises WeightsError with instructions when the weights are neither cached nor available.
    """
    cached = find_cached_weights(remote)
    if cached is None:
        return _query_remote_etag(remote)
    if remote.repo is None:
        return str(remote.url).rpartition("/")[2]  # torch.hub puts the digest into the file name
    blob = cached.resolve().name
    return blob if re.fullmatch(r"[0-9a-f]{40,64}", blob) else digest_weights(cached)  # the folder, or a cache without links


@cache
def _query_remote_etag(remote: RemoteWeights) -> str:
    request: Callable[[], str] = (lambda: _request_hub_etag(remote)) if remote.repo else (lambda: _probe_url(str(remote.url)))
    if is_offline():
        raise _explain_download(remote, "HF_HUB_OFFLINE is set")
    if _host_name(remote) in _unreachable_hosts:
        raise _explain_download(remote, "the network does not reach their host")
    try:
        return _call_with_timeout(HUB_TIMEOUT_S, request)
    except WeightsError:
        raise
    except Exception as error:
        _unreachable_hosts.add(_host_name(remote))
        raise _explain_download(remote, f"their host cannot be reached: {cut_message(error, 160)}") from None


_unreachable_hosts: set[str] = set()  # hosts that did not answer are not tried again in this process


def is_offline() -> bool:
    """Whether the user has disabled the network (HF_HUB_OFFLINE, read as huggingface_hub does)."""
    return any(
        os.environ.get(name, "").upper() in ("1", "ON", "YES", "TRUE") for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
    )


def _request_hub_etag(remote: RemoteWeights) -> str:
    import huggingface_hub
    from huggingface_hub import errors

    assert remote.repo is not None
    for name in remote.candidate_files:
        try:
            url = huggingface_hub.hf_hub_url(remote.repo, name)
            return str(huggingface_hub.get_hf_file_metadata(url, timeout=HUB_TIMEOUT_S).etag)
        except errors.GatedRepoError:
            raise WeightsError(
                f"weights {remote.repo} are gated: request access to them on the hub and run `hf auth login`"
            ) from None
        except errors.RepositoryNotFoundError:
            break
        except errors.EntryNotFoundError:
            continue
    raise WeightsError(
        f"the hub has no weights {remote.repo} ({' or '.join(remote.candidate_files)}); choose another tag, or a path"
    ) from None


def _probe_url(url: str) -> str:
    import urllib.request

    with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=HUB_TIMEOUT_S):
        return url.rpartition("/")[2]


def _call_with_timeout(seconds: float, request: Callable[[], str]) -> str:
    """`request()`, or TimeoutError: a DNS lookup may hang for longer than any timeout of the request itself."""
    box: list[str | Exception] = []

    def run_and_collect() -> None:
        try:
            box.append(request())
        except Exception as error:
            box.append(error)

    thread = threading.Thread(target=run_and_collect, daemon=True)
    thread.start()
    thread.join(seconds)
    if not box:
        raise TimeoutError(f"no answer in {seconds:g} s")
    if isinstance(box[0], Exception):
        raise box[0]
    return box[0]


def _explain_download(remote: RemoteWeights, why: str) -> MissingWeightsError:
    return MissingWeightsError(remote.display_name.removeprefix("timm/"), why)


def _host_name(remote: RemoteWeights) -> str:
    return "hub" if remote.repo else str(remote.url).split("/")[2]


def _torch_hub_folder() -> Path:
    """The folder of torch.hub's downloads (torch.hub.get_dir, without torch)."""
    home = os.environ.get("TORCH_HOME") or Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")) / "torch"
    return Path(home).expanduser() / "hub"
