"""Reads state dicts from files and loads them strictly. Only tensors are unpickled; a mismatch is reported in one sentence."""

from __future__ import annotations

import pickle
import re
import warnings
import zipfile
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from phoropter.core.errors import WeightsError, cut_message, join_words
from phoropter.models.weights import weight_files
from phoropter.models.weights.bundle_files import raise_on_bundle_damage

StateDict = dict[str, Tensor]

# Keys under which training scripts store the tensors.
_STATE_DICT_KEYS = ("state_dict_ema", "model_ema", "state_dict", "model", "model_state_dict")
_WRAPPER_PREFIXES = ("_orig_mod.", "module.")  # added to names by torch.compile and DataParallel
MAX_UNPACKED_RATIO = 4  # torch stores checkpoints uncompressed; an archive that unpacks to more is a decompression bomb


def read_state_dict(path: Path) -> StateDict:
    """Reads a safetensors file, or a torch checkpoint of tensors alone, into a dict of CPU tensors.

    Raises WeightsError, also where a bundle that holds the file is damaged.
    """
    if path.suffix == ".safetensors":
        weight_files.read_tensor_shapes(path)
        raise_on_bundle_damage(path.parent)
        try:
            return safetensors.torch.load_file(path, device="cpu")
        except safetensors.SafetensorError as error:
            raise WeightsError(f"weights {path} cannot be read ({error}); copy or convert them again") from None
    return unwrap_state_dict(_load_checkpoint(path), path)


def save_state_dict(module: nn.Module, path: Path) -> None:
    """Writes every parameter and buffer as safetensors. Raises OSError."""
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in module.state_dict().items()}
    try:
        safetensors.torch.save_file(state, path)
    except safetensors.SafetensorError as error:
        number = re.search(r"os error (\d+)", str(error))
        raise OSError(int(number.group(1)) if number else 0, str(error)) from None


def unwrap_state_dict(value: object, path: Path) -> StateDict:
    """Extracts the tensors of a checkpoint from the dictionaries and name prefixes that training scripts add."""
    for key in _STATE_DICT_KEYS:
        if isinstance(value, dict) and isinstance(value.get(key), dict):
            value = value[key]
            break
    if not isinstance(value, dict) or not value or not all(isinstance(v, Tensor) for v in value.values()):
        raise WeightsError(f"weights {path} hold no dictionary of tensors; save the network's state_dict() alone")
    state = {str(k): v for k, v in value.items()}
    for prefix in _WRAPPER_PREFIXES:
        if all(name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): v for name, v in state.items()}
    return state


def load_state_dict_strictly(module: nn.Module, state: StateDict, path: Path, name: str) -> None:
    """Loads a state dict whose names and shapes must all match. Raises WeightsError."""
    try:
        module.load_state_dict(state, strict=True)
    except RuntimeError as error:
        raise mismatch_error(path, name, error) from None


def mismatch_error(path: Path | str, name: str, error: Exception) -> WeightsError:
    """Turns torch's multi-line error about a state dict into one sentence."""
    text = str(error)
    problems = []
    for words, kind in (("Missing key", "missing"), ("Unexpected key", "unexpected")):
        block = re.search(words + r"\(s\) in state_dict: (.*?)\.\s*(?:\n|$)", text, re.DOTALL)
        keys = re.findall(r'"([^"]+)"', block.group(1)) if block else []
        if keys:
            problems.append(f"{len(keys)} {'tensor is' if len(keys) == 1 else 'tensors are'} {kind} ({join_words(keys, 3)})")
    shapes = re.findall(r"size mismatch for (\S+): .*?torch\.Size\((\[.*?\])\).*?torch\.Size\((\[.*?\])\)", text)
    if shapes:
        key, came, expected = shapes[0]
        more = f", and {len(shapes) - 1} more" if len(shapes) > 1 else ""
        problems.append(f"{key} has the shape {came} and {expected} was expected{more}")
    what = "; ".join(problems) or cut_message(error, 200)
    return WeightsError(f"weights {path} do not fit {name}: {what}")


def _load_checkpoint(path: Path) -> object:
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                if sum(entry.file_size for entry in archive.infolist()) > MAX_UNPACKED_RATIO * path.stat().st_size:
                    raise WeightsError(f"weights {path} would unpack to many times their size and were not loaded")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickle protocols; an unreadable file is refused below
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        forbidden = re.search(r"GLOBAL ([\w.]+)", str(error))
        what = f" ({forbidden.group(1)})" if forbidden else ""
        raise WeightsError(
            f"weights {path} hold more than tensors{what} and were not loaded; convert them to safetensors"
        ) from None
    except (OSError, RuntimeError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        first = cut_message(error, 160)
        raise WeightsError(f"weights {path} cannot be read: {first}") from None
