"""Thirty linear heads on cached features, solved as convex problems: against one by one with a DataLoader and AdamW.

10 folds × 3 seeds of scikit-learn's digits, as in heads.py. The features are 512 projections of what a pretrained MobileNetV2
says of them at 96 pixels (`PHOROPTER_TEST_DATA` holds its weights; without it, class centres with noise of a falling spectrum
stand in). First at one penalty; then with the penalty chosen among three on three inner folds (270 heads for the choice, 30 in
the end), against as many heads trained one by one (computed from the first figure; a head on two thirds of the rows counts two
thirds). Both sides begin from the features in memory. scikit-learn's own time for the thirty, one after another, is given as
well: `slope` 1e-4 is its `tol`. The other sides do 6 of the 30 heads in each turn and are counted five times.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

from _sides import Turns, one_thread, row, timed, write
from heads import PART, Case, theirs

GOAL = 40.0
LINEAR = Case("512", (512,), "linear", "")
PENALTY = 0.01
PENALTIES = (0.1, 0.01, 0.001)


def features(dataset: Any, folder: Path) -> Any:
    """(N, 512) float32."""
    import numpy as np
    import torch

    random = np.random.default_rng(0)
    weights = Path(os.environ.get("PHOROPTER_TEST_DATA", "")) / "weights" / "mobilenetv2_100.tf_in1k.safetensors"
    if not weights.is_file():
        print("no weights: made features")
        centres = random.normal(size=(10, 512))
        made = (centres[dataset.labels] + 2 * random.normal(size=(len(dataset), 512))) * np.geomspace(1, 0.01, 512)
        return made.astype(np.float32)
    from phoropter.data.images.cache import prepare_pixels
    from phoropter.models import classifier
    from phoropter.models.spec import BackboneSpec, ClassifierSpec
    from phoropter.training.feature_cache import extract_features

    dataset, pixels = prepare_pixels(dataset, 96, cache=folder)
    backbone = BackboneSpec(name="mobilenetv2_100", weights=str(weights), size=96)
    model = classifier.build_classifier(ClassifierSpec(backbones=(backbone,), classes=dataset.classes, picture=96), seed=0)
    wide = np.array(extract_features(model, pixels, folder, torch.device("cpu"))[0])
    turn = np.linalg.qr(random.normal(size=(wide.shape[1], 512)))[0]
    return np.ascontiguousarray((wide @ turn).astype(np.float32))


def accuracy(found: list[Any], tasks: list[Any], stored: Any) -> float:
    import numpy as np

    right = [stored[t.split.test] @ one.weight.numpy().T + one.bias.numpy() for one, t in zip(found, tasks, strict=True)]
    return float(np.mean([(z.argmax(1) == t.dataset.labels[t.split.test]).mean() for z, t in zip(right, tasks, strict=True)]))


def sklearns(tasks: list[Any], stored: Any) -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    for task in tasks:
        rows = task.split.train
        x = StandardScaler().fit_transform(stored[rows])
        LogisticRegression(C=1 / (PENALTY * len(rows)), max_iter=2000).fit(x, task.dataset.labels[rows])


def measured(folder: Path, turns: int = 5) -> list[dict[str, Any]]:
    from types import SimpleNamespace

    import torch

    from phoropter.data.spec import digits, open_dataset
    from phoropter.data.splits.protocol import make_splits
    from phoropter.data.splits.spec import KFold
    from phoropter.training.solved_heads.logistic_regression import fit_logistic
    from phoropter.training.solved_heads.problem import LogisticProblem

    dataset = open_dataset(digits())
    stored = features(dataset, folder)
    tasks = [SimpleNamespace(dataset=dataset, split=s) for s in make_splits(dataset, KFold(10, seeds=[0, 1, 2]))]
    problems = [LogisticProblem(t.dataset, t.split) for t in tasks]

    def ours(penalties: tuple[float, ...]) -> list[Any]:
        return fit_logistic(stored, problems, penalties, 3, torch.device("cpu"))

    found = ours((PENALTY,))
    trained = theirs(tasks[::PART], LINEAR, [stored])
    print(f"held-out accuracy {accuracy(found, tasks, stored):.3f} (30 solved) and {trained:.3f} (6 trained)")
    mine, others, whole = [], [], []
    for _ in range(turns):
        mine.append(timed(lambda: ours((PENALTY,))))
        others.append(PART * timed(lambda: theirs(tasks[::PART], LINEAR, [stored])))
        whole.append(PART * timed(lambda: sklearns(tasks[::PART], stored)))
    path = [timed(lambda: ours(PENALTIES)) for _ in range(2)]
    nine = 3 * len(PENALTIES) * 2 / 3 + 1  # heads trained for each of the thirty, in whole training parts
    chosen = [nine * o for o in others[:2]]
    return [
        row("30 linear heads on 512 cached features, convex", Turns(tuple(mine), tuple(others)), GOAL),
        row("the same with the penalty chosen on inner folds", Turns(tuple(path), tuple(chosen)), None),
        row("30 linear heads, against scikit-learn's LogisticRegression", Turns(tuple(mine), tuple(whole)), None),
    ]


if __name__ == "__main__":
    one_thread(__file__)
    with tempfile.TemporaryDirectory() as folder:
        write("convex", measured(Path(folder)))
