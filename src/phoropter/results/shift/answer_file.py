"""shift/KEY.npz of a results folder: what the classifier of a run answers on corrupted versions of its test rows.

The rows and their order are those of the run's predictions, of which a digest is kept: answers of a run that was made again are
not taken for its own. The file is beside the run, not in it, so that a finished run can be evaluated later.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phoropter.core.files import atomic_write, digest_array, make_folder
from phoropter.core.storage.npz_files import read_own_npz

Logits = NDArray[np.float32]
_DIGEST = "digest of the run's own logits"


def write_shift_answers(folder: Path, key: str, clean: Logits, answers: Mapping[str, Logits]) -> None:
    """folder: the results folder · key: of the run · clean: (n, C) its logits of the rows as they are · answers: key of a
    corruption → (n, C) logits, beside which those that are there already stay"""
    path = _answer_path(folder, key)
    kept = {name: logits for name, logits in load_shift_answers(folder, key, clean).items() if name not in answers}
    make_folder(path.parent)
    with atomic_write(path) as aside, aside.open("wb") as file:
        arrays: dict[str, Any] = {_DIGEST: np.array(digest_array(clean)), **kept, **answers}
        np.savez(file, **arrays)


def load_shift_answers(folder: Path, key: str, clean: Logits) -> dict[str, Logits]:
    """Key of a corruption → (n, C) logits; none where the file is missing, damaged, or of another computation of the run."""
    try:
        stored = read_own_npz(_answer_path(folder, key))
        if str(stored.pop(_DIGEST)) != digest_array(clean):
            return {}
    except (OSError, ValueError, KeyError):
        return {}
    return {name: logits for name, logits in stored.items() if logits.shape == clean.shape}


def take_shift_answers(source: Path, target: Path, key: str, clean: Logits) -> None:
    """Adds the answers of a run in one results folder to those in another. clean: as the run has them in both"""
    if answers := load_shift_answers(source, key, clean):
        write_shift_answers(target, key, clean, answers)


def find_missing_answers(folder: Path, key: str, clean: Logits, wanted: Collection[str]) -> list[str]:
    """Those of the wanted corruptions, by key, for which there is no answer."""
    known = load_shift_answers(folder, key, clean) if wanted else {}
    return [name for name in wanted if name not in known]


def _answer_path(folder: Path, key: str) -> Path:
    return folder / "shift" / f"{key}.npz"
