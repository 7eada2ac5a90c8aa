"""A results folder of given answers: for tests of what the page says of answers that are known."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from made_study import MACHINE, VERSIONS

from phoropter.results.store import Predictions, Store


def split_answers(answers: Predictions, fold: np.ndarray) -> list[Predictions]:
    """The same answers, as the folds (n,) leave them."""
    parts = [np.flatnonzero(fold == k) for k in np.unique(fold)]
    return [
        Predictions(
            answers.ids[i],
            answers.labels[i],
            answers.logits[i],
            None if answers.groups is None else answers.groups[i],
            None if answers.sites is None else answers.sites[i],
        )
        for i in parts
    ]


def store_answers(
    folder: Path,
    candidates: Mapping[str, Sequence[Predictions]],
    *,
    metrics: Sequence[str] = ("accuracy",),
    classes: Sequence[str] = ("rest", "acidosis"),
    overlap: bool = False,
    group_word: str = "",
) -> Store:
    """One round: each candidate's predictions are its splits, in the same order for all."""
    store, n = Store(folder), len(next(iter(candidates.values())))
    rows = sum(len(p.labels) for p in next(iter(candidates.values())))
    plan = [
        {
            "key": hashlib.blake2b(repr((name, fold, folder.name)).encode(), digest_size=16).hexdigest(),
            **{"candidate": name, "seed": 0, "repeat": 0, "fold": fold, "folds": n, "split": f"fold {fold + 1} of {n}"},
            **{"n_train": rows - len(each[fold].labels), "n_test": len(each[fold].labels), "settings": {}},
        }
        for fold in range(n)
        for name, each in candidates.items()
    ]
    protocol = {"split": "group-k-fold", "folds": n, "allow_group_overlap": overlap}
    dataset = {"name": "given", "rows": rows, "classes": list(classes), "notes": [], "problems": []}
    store.write_study(
        {
            "name": folder.name,
            "study": {"name": folder.name, "protocol": protocol, "candidates": list(candidates), "metrics": list(metrics)},
            "dataset": dataset | ({"group_word": group_word} if group_word else {}),
            "plan": plan,
            **{"versions": VERSIONS, "machine": MACHINE, "command": "phoropter run given.yaml", "text": ""},
        }
    )
    for item in plan:
        with store.hold_lease(str(item["key"])), store.create_run(str(item["key"])) as run:
            run.write_predictions(candidates[str(item["candidate"])][int(str(item["fold"]))])
            run.write_history([])
            split = {k: item[k] for k in ("repeat", "fold", "folds", "n_train", "n_test")}
            run.write_record(
                {
                    "key": item["key"],
                    "candidate": {"name": item["candidate"], "description": str(item["candidate"]), "backbones": []},
                    **{"seed": 0, "split": split | {"name": item["split"], "key": f"{item['fold']}"}, "classes": list(classes)},
                    **{"metrics": {}, "settings": {}, "cost": {}, "choice": {"epoch": 1, "by": "last"}, "recipe": {}},
                    **{"digests": {}, "versions": VERSIONS, "machine": MACHINE},
                }
            )
    return store
