"""Head training with crops and flips, 10 folds × 3 seeds, 20 epochs: a pool of 8 views of each picture, against fresh ones.

    python benchmarks/fixed_views.py [DIGITS, default 300, at least 110]

As features_once.py, with pictures padded by 8 pixels, cropped and mirrored. Ours is `cached_views: 8`: the backbone sees the
unaugmented picture once and 8 views of it for each seed, and epoch e shows view e mod 8. The other side augments every
picture anew and runs the frozen backbone forward on it, in every epoch of every run; it is measured over one epoch of one run and
counted 20 × 30 times.

The two do not train on the same draws: a run of ours meets 8 versions of a picture, each two or three times, and all folds of a
seed the same 8; a run of theirs meets 20 versions, once each. What that does to the accuracy is not measured here.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from features_once import BATCH, SIDE, compared, digits_shown, one_thread, ours, tasks, theirs, write

VIEWS, PADDING = 8, 8
RECIPE = {"augment": [{"random-crop": {"padding": PADDING}}, "hflip"], "cached_views": VIEWS}


def fresh(pictures: Any, labels: Any) -> Any:
    """Pictures augmented one by one as they are asked for and normalised a batch at a time, which is the quicker way."""
    import torch
    from torch.utils.data import DataLoader, default_collate

    from phoropter.models import timm_compat

    v2 = timm_compat.import_torchvision("transforms.v2")
    augment = v2.Compose([v2.RandomCrop(SIDE, padding=PADDING), v2.RandomHorizontalFlip()])

    class Augmented(torch.utils.data.Dataset):  # type: ignore[type-arg]
        def __len__(self) -> int:
            return len(labels)

        def __getitem__(self, i: int) -> tuple[Any, Any]:
            return augment(pictures[i]), labels[i]

    def normalised(samples: list[Any]) -> tuple[Any, Any]:
        shown, said = default_collate(samples)
        return shown.float().div_(127.5).sub_(1), said

    return DataLoader(Augmented(), batch_size=BATCH, shuffle=True, collate_fn=normalised)


def measured(count: int, folder: Path) -> dict[str, Any]:
    epoch = theirs(tasks(count, folder, folder)[0], fresh)
    claim = f"10 folds x 3 seeds of head training with crop + flip, 20 epochs, {VIEWS} fixed views"
    return compared(claim, None, lambda: ours(count, folder, **RECIPE), epoch)


if __name__ == "__main__":
    one_thread(__file__)
    with tempfile.TemporaryDirectory() as folder:
        write("fixed_views", [measured(digits_shown(), Path(folder))])
