"""Peak resident memory over a set of 200,000 pictures at 224 pixels, 28 GiB, many times what may stay in memory.

    python benchmarks/memory.py [PICTURES SHOWN, default 200000: all]

The file is sparse, made on the fly: it takes no disk, and every page of it that is read is a page of memory all the same. Shown
are random batches in the order of a training epoch, mirrored, through the tap that training uses; then 512 pictures are
predicted. The system's own count of the process's peak (code, torch, mapped pages of the file and all) is what is held to 2 GiB.
"""

from __future__ import annotations

import resource
import sys
import tempfile
from itertools import islice
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from _sides import figure, one_thread, write

COUNT, SIDE, BATCH = 200_000, 224, 64
GIB = 1024**3
GOAL_GIB = 2.0


def main() -> None:
    one_thread(__file__)
    shown = int(sys.argv[1]) if len(sys.argv) > 1 else COUNT
    import numpy as np
    import torch

    from phoropter.data.images.pixels import Pixels
    from phoropter.data.sources.arrays import from_arrays
    from phoropter.models import classifier
    from phoropter.models.spec import BackboneSpec, ClassifierSpec
    from phoropter.training.augmentation.pipeline import Augmentation
    from phoropter.training.batches.loading import BatchSampler, PixelLoader
    from phoropter.training.candidates.presets import PRESETS
    from phoropter.training.candidates.recipe import ImbalanceSpec
    from phoropter.training.predict import predict_from_pixels

    with tempfile.TemporaryDirectory() as at:
        file = Path(at) / "pixels.u8"
        with file.open("wb") as sparse:
            sparse.truncate(COUNT * 3 * SIDE * SIDE)
        size = file.stat().st_size
        pixels = Pixels(file, (COUNT, 3, SIDE, SIDE), "sparse")
        labels = np.arange(COUNT) % 10
        dataset = from_arrays(np.broadcast_to(np.zeros((1, 1, 1, 3), np.uint8), (COUNT, 1, 1, 3)), labels)
        cpu = torch.device("cpu")
        tap = PixelLoader(dataset, pixels, Augmentation(PRESETS["finetune"].augment, seed=0), cpu)
        order = BatchSampler(dataset, np.arange(COUNT, dtype=np.int64), BATCH, 0, ImbalanceSpec(), "all")
        for index, rows in enumerate(islice(order.epoch_batches(0), -(-shown // BATCH))):
            batch = tap.batch(rows, 0, index)
            assert batch.inputs.shape == (len(rows), 3, SIDE, SIDE)  # type: ignore[union-attr]
        epoch = _peak()
        network = BackboneSpec(name="mobilenetv3_small_100", weights="random")
        model = classifier.build_classifier(ClassifierSpec(backbones=(network,), classes=dataset.classes, picture=SIDE), seed=0)
        predict_from_pixels(model, pixels, order.rows[-512:], cpu)
        peak = _peak()
    print(f"{size / GIB:.1f} GiB of pictures; after {shown} of them {epoch / GIB:.2f} GiB, after predicting {peak / GIB:.2f} GiB")
    claim = f"peak resident memory, {COUNT:,} pictures at {SIDE} px, in units of 2 GiB (at most 1)"
    share = peak / GIB / GOAL_GIB
    sides = f"{peak / GIB:.2f} GiB", f"{GOAL_GIB:g} GiB"
    write("memory", [figure(claim, [share], 1.0, *sides, shown=shown)])


def _peak() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


if __name__ == "__main__":
    main()
