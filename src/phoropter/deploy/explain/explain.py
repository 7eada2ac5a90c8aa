"""A bundle and a dataset → an Explanation of each row, with the views and the probabilities of the prediction."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from phoropter.core.errors import InputProblem, SpecError, did_you_mean, join_words
from phoropter.data.dataset import Dataset
from phoropter.data.recordings.dataset import RenderedPictures
from phoropter.deploy.explain.class_maps import ClassMaps, MapMaker, MapMethod, average_members, name_branches
from phoropter.deploy.explain.explained_parts import BranchMap, ExplainedWindow
from phoropter.deploy.explain.explanation import Explanation, scale_to_one
from phoropter.deploy.explain.window_axes import find_window_axes
from phoropter.deploy.predict import Bundle, choose_views
from phoropter.deploy.predictions import decode_chunks
from phoropter.models.fusion import log_mean_probability
from phoropter.results.metrics.probabilities import to_probabilities
from phoropter.signals.recording import OnBadInput
from phoropter.training.candidates.recipe import TtaViews
from phoropter.training.loop.devices import resolve_device
from phoropter.training.predict import average_views

BATCH = 8  # pictures at once: the gradients of the last layers are kept for each


@dataclass(frozen=True)
class ExplainOptions:
    """target: index or name of the class, or one of each row (None: the likeliest) · method: class_maps.py

    layers: branch → layer, or one name for a single network · views: test-time augmentation (None: as the study evaluated it)
    """

    target: int | str | Sequence[int | str] | None = None
    method: MapMethod = "auto"
    layers: str | Mapping[str, str] | None = None
    views: TtaViews | None = None
    device: str = "auto"


@dataclass(frozen=True)
class PlacedView:
    """What the network is shown of the square: its left upper corner (left, top), a side, and whether it is mirrored."""

    left: int
    top: int
    side: int
    mirrored: bool = False

    def cut(self, pictures: Tensor) -> Tensor:
        """(B, 3, S, S) → (B, 3, side, side)."""
        part = pictures[..., self.top : self.top + self.side, self.left : self.left + self.side]
        return part.flip(-1) if self.mirrored else part

    def place(self, maps: Tensor, onto: Tensor) -> None:
        """Adds (B, side, side) maps of what was cut to (B, S, S), in place."""
        back = maps.flip(-1) if self.mirrored else maps
        onto[:, self.top : self.top + self.side, self.left : self.left + self.side] += back


def list_views(side: int, crop: int | None, views: TtaViews) -> list[PlacedView]:
    """The views that training/predict.py averages, and where each lies in a square of `side` pixels."""
    seen = min(side, crop or side)
    slack = side - seen
    if views == "ten-crop":
        corners = [(0, 0), (slack, 0), (0, slack), (slack, slack), (slack // 2, slack // 2)]
        return [PlacedView(x, y, seen, mirrored) for x, y in corners for mirrored in (False, True)]
    middle = slack // 2
    plain = PlacedView(middle, middle, seen)  # the mirrored one is mirrored before its middle is cut out
    return [plain] if views == "none" else [plain, PlacedView(slack - middle, middle, seen, mirrored=True)]


def explain_dataset(
    bundle: Bundle, dataset: Dataset, options: ExplainOptions = ExplainOptions(), on_bad_input: OnBadInput = "stop"
) -> Iterator[Explanation | InputProblem]:
    """The explanation of each row in order, or why it cannot be read.

    Raises SpecError for an unknown class, method or layer and for a network without a map; DataError under "stop".
    """
    device = resolve_device(options.device)
    maker = MapMaker(bundle.model.to(device).eval(), options.method, _name_layers(bundle, options.layers))
    views = list(zip(bundle.model.members, choose_views(bundle, options.views), strict=True))
    targets = resolve_targets(options.target, bundle.classes, len(dataset))
    yield from dataset.problems
    for chunk in decode_chunks(bundle, dataset, on_bad_input):
        yield from chunk.problems
        for at in range(0, len(chunk.rows), BATCH):
            rows = chunk.rows[at : at + BATCH]
            pictures = chunk.pixels.array[at : at + BATCH]
            wanted = None if targets is None else torch.from_numpy(targets[rows])
            shown = torch.from_numpy(np.ascontiguousarray(pictures)).to(device)
            seen = [list_views(shown.shape[-1], member.spec.center_crop, of_member) for member, of_member in views]
            found = explain_views(maker, shown, seen, wanted)
            for i, row in enumerate(rows.tolist()):
                yield _describe_row(bundle, maker, dataset, row, pictures[i], _RowMaps.of(found, seen, i))


def explain_views(maker: MapMaker, pictures: Tensor, views: Sequence[list[PlacedView]], targets: Tensor | None) -> ClassMaps:
    """As `MapMaker.make_maps` of (B, 3, S, S): maps averaged over the views that cover a place, logits as predictions are.

    views: of each member of an average; of any other classifier one list
    """
    members, several = list(zip(maker.split_members(), views, strict=True)), maker.model.spec.multi_label
    if targets is None and (len(members) > 1 or len(views[0]) > 1):
        with torch.no_grad():
            answers = [average_views([m.model(v.cut(pictures)).float() for v in seen], several) for m, seen in members]
            targets = log_mean_probability(answers, maker.model.member_weights, several).argmax(1)
    found = [_explain_member(m, pictures, seen, targets) for m, seen in members]
    return average_members(found, maker.model.member_weights, several)


def _explain_member(maker: MapMaker, pictures: Tensor, views: list[PlacedView], targets: Tensor | None) -> ClassMaps:
    parts = [maker.make_maps(view.cut(pictures), targets) for view in views]
    covered = torch.zeros(1, *pictures.shape[-2:])
    sums = [torch.zeros(len(pictures), *pictures.shape[-2:]) for _ in parts[0].maps]
    for view, part in zip(views, parts, strict=True):
        view.place(torch.ones(1, view.side, view.side).flip(-1), covered)
        for total, maps in zip(sums, part.maps, strict=True):
            view.place(maps.cpu(), total)
    shares = torch.stack([part.shares for part in parts]).mean(0)
    logits = average_views([part.logits.float() for part in parts], maker.model.spec.multi_label)
    return ClassMaps(logits, parts[0].targets, tuple(total / covered.clamp_min(1) for total in sums), shares)


@dataclass(frozen=True, eq=False)
class _RowMaps:
    """The maps of one row: of each branch and their sum by shares, divided by their maxima, which are kept beside them."""

    logits: NDArray[np.float32]
    target: int
    branches: list[tuple[NDArray[np.float32], float]]
    shares: NDArray[np.float32]
    joined: tuple[NDArray[np.float32], float]
    seen: tuple[int, int, int, int]

    @classmethod
    def of(cls, found: ClassMaps, views: Sequence[list[PlacedView]], row: int) -> _RowMaps:
        branches = [scale_to_one(maps[row].numpy()) for maps in found.maps]
        shares = found.shares[row].numpy()
        mixed = sum(share * scaled for share, (scaled, _) in zip(shares, branches, strict=True))
        joined = branches[0] if len(branches) == 1 else scale_to_one(cast(Any, mixed))
        ends = [(v.left, v.top, v.left + v.side, v.top + v.side) for seen in views for v in seen]
        seen = (min(e[0] for e in ends), min(e[1] for e in ends), max(e[2] for e in ends), max(e[3] for e in ends))
        return cls(found.logits[row].cpu().numpy(), int(found.targets[row]), branches, shares, joined, seen)


def _describe_row(
    bundle: Bundle, maker: MapMaker, dataset: Dataset, row: int, picture: NDArray[np.uint8], maps: _RowMaps
) -> Explanation:
    branches = {
        plan.name: BranchMap(scaled, highest, float(share), plan.method, plan.layer)
        for plan, (scaled, highest), share in zip(maker.plans, maps.branches, maps.shares, strict=True)
    }
    return Explanation(
        name=str(dataset.ids[row]),
        map=maps.joined[0],
        raw_max=maps.joined[1],
        target=maps.target,
        classes=bundle.classes,
        probabilities=to_probabilities(maps.logits[None], bundle.multi_label, bundle.temperature)[0],
        method=" and ".join(sorted({plan.method for plan in maker.plans})),
        shown=np.ascontiguousarray(picture.transpose(1, 2, 0)),
        seen=maps.seen,
        branches=branches,
        window=_describe_window(dataset, row, picture.shape[-1]),
    )


def _describe_window(dataset: Dataset, row: int, side: int) -> ExplainedWindow | None:
    """The samples behind a row of a dataset of recordings; None for images."""
    if not isinstance(dataset.pictures, RenderedPictures):
        return None
    pictures = dataset.pictures
    windows, at = pictures.windows, int(pictures.index[row])
    recording = windows.recordings[int(windows.table.recording[at])]
    signals = pictures.source_signals(row)
    n = len(next(iter(signals.values())))
    return ExplainedWindow(
        recording=recording.id,
        start_s=float(windows.table.start[at]) / recording.rate_hz,
        stop_s=float(windows.table.stop[at]) / recording.rate_hz,
        signals=signals,
        units=tuple(_find_unit(recording.channels, recording.units, name) for name in signals),
        axes=find_window_axes(windows.view.representation, n, recording.rate_hz, side),
    )


def _find_unit(channels: Sequence[str], units: Sequence[str], name: str) -> str:
    """The unit of a channel; the baseline of a cardiotocogram has that of its heart rate."""
    known = dict(zip(channels, units, strict=True))
    return known.get("FHR" if name == "baseline" else name, "")


def resolve_targets(
    target: int | str | Sequence[int | str] | None, classes: tuple[str, ...], count: int
) -> NDArray[np.int64] | None:
    """Names or indices of classes, one or one of each row → (N,) indices. Raises SpecError for what is no class."""
    if target is None:
        return None
    several = [target] * count if isinstance(target, (int, str, np.integer)) else list(target)
    if len(several) != count:
        raise SpecError(f"target: {len(several)} classes came for {count} inputs; give one class, or one of each input")
    indices = []
    for one in several:
        if isinstance(one, str) and one not in classes:
            raise SpecError(f"target: '{one}' is no class; there are {join_words(classes, 12)}{did_you_mean(one, classes)}")
        index = classes.index(one) if isinstance(one, str) else int(one)
        if not 0 <= index < len(classes):
            raise SpecError(f"target: {index} is no class; there are {len(classes)}, counted from 0")
        indices.append(index)
    return np.array(indices, np.int64)


def _name_layers(bundle: Bundle, layers: str | Mapping[str, str] | None) -> dict[str, str]:
    """Branch → layer. Raises SpecError for one name where there are several branches."""
    if layers is None or not isinstance(layers, str):
        return dict(layers or {})
    names = name_branches(bundle.model)
    if len(names) > 1:
        there = " and ".join(names)
        raise SpecError(f"layer: the bundle has the branches {there}; name the branch too, as in {names[0]}={layers}")
    return {names[0]: layers}
