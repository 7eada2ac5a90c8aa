"""Segmentation masks among pictures: in folders of their own (`COVID/masks`) or beside their picture (`a.png`, `a_mask.png`).

A mask that counts as a picture of its class doubles the class and gives its outline away; a thumbnail or an overlay of a picture
is the picture again. Only files that belong to a picture are taken for such: a class may be called `mask`.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable

from phoropter.core.errors import join_words
from phoropter.core.language.unit_words import PICTURE
from phoropter.data.folders.layout import IMAGE_WORDS, find_split_word, split_name_words
from phoropter.data.folders.scan import PathParts

MASKS_NOTE = "that look"  # like masks: in every note on them
_MASK_WORDS = frozenset({"mask", "masks"})
_OTHER_MASK_NAMES = frozenset(
    [
        "annotation",
        "annotations",
        "annot",
        "label",
        "labels",
        "segmentation",
        "segmentations",
        "segmentationclass",
        "segmentationobject",
        "groundtruth",
        "groundtruths",
        "gt",
        "seg",
        "segs",
        "contour",
        "contours",
        "manual",
    ]
)
_ANNOTATOR = r"(?:1st|2nd|3rd)[ _-]?(?:manual|ho)|manual[ _-]?[1-3]"  # retinal vessels by several people: DRIVE, HRF, CHASE_DB1
_GROUND_TRUTH = "groundtruth"  # also among other words: ISIC2018_Task1_Training_GroundTruth
_PREVIEW_NAMES = frozenset({"thumbnail", "thumbnails", "thumb", "thumbs", "preview", "previews", "overlay", "overlays"})
_PREVIEW_HINT = re.compile(r"thumb|preview|overlay", re.IGNORECASE)
_MASK_HINT = re.compile(
    rf"mask|seg|truth|gt|label|annot|superpix|contour|attribute|1st|2nd|3rd|manual|{_PREVIEW_HINT.pattern}", re.IGNORECASE
)
_MASK_SUFFIX = re.compile(
    r"(.+?)[ _.-]*[_ .-](?:masks?|seg|segmentation|ground_?truth|gt|labels?|annotations?|superpixels|contours?"
    rf"|attribute(?:_[a-z]+)+|{_ANNOTATOR}|thumb(?:nail)?s?|previews?|overlays?)(?:[ _.-]?\d+)?",
    re.IGNORECASE,
)
_SINGLE = {"masks": "a mask", "masks or previews": "a mask or preview"}


def separate_masks(paths: list[PathParts]) -> tuple[list[PathParts], tuple[str, ...]]:
    """Paths of pictures → (those that are no masks, in order; a note with counts, or none)."""
    folders = _find_mask_folders(paths)
    in_folders = [path for path in paths if any(path[:end] in folders for end in range(1, len(path)))] if folders else []
    masks = {*in_folders, *(beside_pictures := _find_masks_beside_pictures(paths))}
    if not masks:
        return paths, ()
    counts = []
    if in_folders:
        counts.append(f"{len(in_folders)} in folders called {join_words(sorted({folder[-1] for folder in folders}), 3)}")
    if beside := len(masks) - len(in_folders):
        counts.append(f"{beside} named after a picture beside them")
    example = "/".join(min(masks))
    names = (named[-1] for named in (*folders, *beside_pictures))
    what = "masks or previews" if any(map(_PREVIEW_HINT.search, names)) else "masks"
    like = f"{MASKS_NOTE} like {what} were" if len(masks) > 1 else f"{MASKS_NOTE}s like {_SINGLE[what]} was"
    note = (
        f"{PICTURE.count(len(masks))} {like} left out ({', '.join(counts)}; the first: {example}); list them in a "
        "manifest if they are to be classified"
    )
    return [path for path in paths if path not in masks], (note,)


def _find_masks_beside_pictures(paths: list[PathParts]) -> list[PathParts]:
    hinted = [path for path in paths if _MASK_HINT.search(path[-1])]  # the other expression is slow for millions of names
    named = {path: match.group(1) for path in hinted if (match := _MASK_SUFFIX.fullmatch(_strip_suffix(path[-1])))}
    parents = {path[:-1] for path in named}
    beside = {(path[:-1], _strip_suffix(path[-1])) for path in paths if path[:-1] in parents}
    return [path for path, picture in named.items() if (path[:-1], picture) in beside]


def _find_mask_folders(paths: list[PathParts]) -> set[PathParts]:
    """Folders of masks: each stands beside a folder of images, or beside the pictures that its files are named after."""
    parents = {path[:-1] for path in paths}
    folders = {parent[:end] for parent in parents for end in range(1, len(parent) + 1)}
    children: dict[PathParts, list[PathParts]] = defaultdict(list)
    for folder in folders:
        children[folder[:-1]].append(folder)
    candidates = {folder for folder in folders if _is_mask_name(folder[-1])}
    if not candidates:
        return set()
    wanted = {folder[:-1] for folder in candidates}
    stems: dict[PathParts, set[str]] = defaultdict(set)
    for path in paths:
        if path[:-1] in wanted:
            stems[path[:-1]].add(_strip_suffix(path[-1]))
        for end in range(1, len(path)):
            if path[: end - 1] in wanted:
                stems[path[:end]].add(_strip_suffix(path[-1]))
    return {f for f in candidates if _belongs_to_images(f, [c for c in children[f[:-1]] if c not in candidates], stems)}


def _belongs_to_images(folder: PathParts, siblings: Iterable[PathParts], stems: dict[PathParts, set[str]]) -> bool:
    words = set(split_name_words(folder[-1]))
    rest = words - _MASK_WORDS
    certain = bool(words & _MASK_WORDS) or _is_annotator_name(folder[-1])
    for sibling in siblings:
        named = sibling[-1].lower() in IMAGE_WORDS or (
            rest and rest == set(split_name_words(sibling[-1])) and bool(find_split_word(sibling[-1]) or rest & IMAGE_WORDS)
        )
        own, pictures = stems[folder], stems[sibling]
        if named and (certain or _share_names(own, pictures)):
            return True
        if _is_ground_truth_name(folder[-1]) and _share_names(own - pictures, pictures):  # equal names may be two classes
            return True
    return bool(stems[folder[:-1]]) and _share_names(stems[folder], stems[folder[:-1]])


def _share_names(masks: set[str], pictures: set[str]) -> bool:
    """Whether at least half of the masks are named after one of the pictures."""
    own = [m.group(1) if (m := _MASK_SUFFIX.fullmatch(stem)) and stem not in pictures else stem for stem in masks]
    return 2 * sum(stem in pictures for stem in own) >= len(own) > 0


def _is_mask_name(name: str) -> bool:
    words = split_name_words(name)
    known = bool(_MASK_WORDS & set(words)) or "".join(words) in _OTHER_MASK_NAMES | _PREVIEW_NAMES
    return known or _is_ground_truth_name(name) or _is_annotator_name(name)


def _is_ground_truth_name(name: str) -> bool:
    return _GROUND_TRUTH in "".join(split_name_words(name))


def _is_annotator_name(name: str) -> bool:
    return re.fullmatch(_ANNOTATOR, name, re.IGNORECASE) is not None


def _strip_suffix(name: str) -> str:
    return name.rpartition(".")[0] or name
