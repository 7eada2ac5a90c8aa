"""How fast this machine is, as earlier runs measured it: the basis of every estimate of time. No torch here.

CACHE/speed.json    work per second of each kind of device and of each network on it, and how far off estimates were
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from phoropter.core.cpu_count import count_default_threads, count_usable_cores, read_processor_name
from phoropter.core.storage.sealed_json import CacheShape, read_cache_json, write_cache_json
from phoropter.models import catalog
from phoropter.models.spec import BackboneSpec
from phoropter.training.candidates.candidate import Candidate

RunKind = Literal["trained", "heads", "solved", "table", "average"]
NetworkUse = Literal["shown", "trained", "onnxruntime"]  # shown images by torch · trained · shown images by ONNX Runtime

# Work per second, for the first plan on a machine: two laptop cores, a laptop's GPU, a GPU of a server.
_GUESSED_WORK_PER_S = {"cpu": 3e10, "mps": 3e11, "cuda": 2e12}
_GPU_FOLDER = Path("/proc/driver/nvidia/gpus")
_REFERENCE_MACS, _EXPONENT = 1e9, 0.8
_KEPT = 0.8  # share of what was known that a new measurement leaves
_MOST = 20.0  # times that one study may be off: a machine that slept meanwhile

Positive = Annotated[float, Field(gt=0)]


class MeasuredSpeeds(CacheShape):
    """speed.json.

    devices: cpu, cuda or mps → work per second of the last networks
    networks: device and network → its work per second where it is shown images; with another use behind it, in that
    corrections: device and kind of run → seconds that runs took, divided by those they were expected to take
    """

    devices: dict[str, Positive] = {}
    networks: dict[str, Positive] = {}
    corrections: dict[str, Positive] = {}

    def image_seconds(self, backbone: BackboneSpec, side: int, device: str, use: NetworkUse = "shown") -> float:
        """Seconds of a forward pass of one image: by this network's own speed, else by the device's, else by a guess.

        use: where it is trained, the pass is part of a step, which counts for as many passes as its phase says
        """
        kind = device.partition(":")[0]
        names = [_network_key(kind, backbone, of) for of in dict.fromkeys((use, "shown", "trained"))]
        known = [speed for name in names if (speed := self.networks.get(name))]
        return estimate_work(backbone, side) / (known[0] if known else self.device_speed(kind))

    def knows_network(self, backbone: BackboneSpec, device: str, use: NetworkUse) -> bool:
        """Whether its speed in just this use was measured."""
        return _network_key(device, backbone, use) in self.networks

    def device_speed(self, device: str) -> float:
        """Work per second of a device, measured or guessed."""
        kind = device.partition(":")[0]
        return self.devices.get(kind) or _GUESSED_WORK_PER_S.get(kind, _GUESSED_WORK_PER_S["cpu"])

    def find_correction(self, device: str, kind: RunKind) -> float:
        """By what to multiply the estimate of a run; 1 where no run of its kind was computed here."""
        return self.corrections.get(f"{device} {kind}", 1.0)


def find_network_use(candidate: Candidate) -> NetworkUse:
    """How a candidate with backbones uses them."""
    if not candidate.stores_features:
        return "trained"
    return "onnxruntime" if candidate.uses_onnxruntime else "shown"


def estimate_work(backbone: BackboneSpec, side: int) -> float:
    """Work of one image of `side` pixels: its multiply-adds, which are worth more in a small network than in a large one.

    Seconds grow with about the 0.8th power of a network's multiply-adds: on one core of an AMD EPYC (benchmarks/README.md),
    eight networks of 0.06 to 4.6 G lay within 0.67 and 1.4 times that, and multiply-adds alone were off by up to 2.8. At another
    size the same network grows with the area. 1e9 where the catalogue has no multiply-adds.
    """
    known = catalog.describe_backbone(backbone)
    if not known.macs:
        return _REFERENCE_MACS
    return _REFERENCE_MACS * float((known.macs / _REFERENCE_MACS) ** _EXPONENT) * (side / known.macs_side) ** 2


def load_measured_speeds(cache: Path) -> MeasuredSpeeds:
    """What earlier runs measured; empty where none did."""
    return read_cache_json(cache / "speed.json", MeasuredSpeeds) or MeasuredSpeeds()


def update_measured_speed(
    cache: Path,
    device: str,
    work_per_s: float,
    network: BackboneSpec | None = None,
    *,
    use: NetworkUse = "shown",
    kept: float = _KEPT,
) -> None:
    """Updates the running means of a device's and a network's speed.

    work_per_s: in multiply-adds of `estimate_work` · kept: share of what was known of the network that is left
    """
    known = load_measured_speeds(cache)
    devices, networks = _update_mean(known.devices, device, work_per_s), known.networks
    if network is not None:
        networks = _update_mean(networks, _network_key(device, network, use), work_per_s, kept)
    write_cache_json(cache / "speed.json", known.model_copy(update={"devices": devices, "networks": networks}))


def update_corrections(cache: Path, device: str, ratios: Mapping[str, float]) -> None:
    """Moves the corrections towards what was measured. ratios: kind of run → seconds taken by seconds estimated with them"""
    if ratios:
        known = load_measured_speeds(cache)
        moved = {f"{device} {kind}": min(max(ratio, 1 / _MOST), _MOST) ** (1 - _KEPT) for kind, ratio in ratios.items()}
        corrections = {**known.corrections, **{name: known.corrections.get(name, 1.0) * by for name, by in moved.items()}}
        write_cache_json(cache / "speed.json", known.model_copy(update={"corrections": corrections}))


def _update_mean(known: dict[str, float], name: str, value: float, kept: float = _KEPT) -> dict[str, float]:
    return {**known, name: kept * known[name] + (1 - kept) * value if name in known else value}


def _network_key(device: str, backbone: BackboneSpec, use: NetworkUse) -> str:
    return f"{device} {backbone.name.partition('.')[0]}{'' if use == 'shown' else f' {use}'}"


def find_machine_share(device: str, threads: int) -> float:
    """By how much all processes of this machine are faster than one with so many threads, where several share its cores.

    1 on any other device than the processor.
    """
    if device != "cpu":
        return 1.0
    return max(1.0, count_default_threads() / threads)


def settle_device(device: str) -> str:
    """The kind of device that `auto` will most likely be: cuda where there is a GPU and torch is built for it."""
    if device != "auto":
        return device.partition(":")[0]
    try:
        for_processors = version("torch").endswith("+cpu")
    except PackageNotFoundError:
        for_processors = True
    return "cuda" if _GPU_FOLDER.is_dir() and not for_processors else "cpu"


def describe_hardware(device: str) -> str:
    """What a plan's times are of, in words: the model of the processor and its cores, or of the first GPU."""
    if settle_device(device) == "cpu":
        cores = count_usable_cores()
        return f"{read_processor_name()}, {cores} core{'s' if cores > 1 else ''}"
    if device.startswith("mps"):
        return "the GPU of this Mac"
    for file in sorted(_GPU_FOLDER.glob("*/information")):
        if found := re.search(r"^Model:\s*(.+)$", file.read_text(encoding="utf-8", errors="replace"), re.M):
            return found[1].strip()
    return f"the device {device}"
