"""Phoropter: which pretrained vision backbone sees your pictures best, under a protocol that would survive review.

Public names are imported when first used, so that `import phoropter` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "Study": "phoropter.api",
    "Results": "phoropter.interface.results_view",
    "open": "phoropter.interface.results_view",
    "compare": "phoropter.interface.bare_predictions",
    "Callback": "phoropter.study.loggers",
    "ProgressEvent": "phoropter.study.progress",
    "load": "phoropter.deploy.bundle",
    "VisionClassifier": "phoropter.training.estimator",
    "Recipe": "phoropter.training.candidates.recipe",
    "Phase": "phoropter.training.candidates.recipe",
    "Backbone": "phoropter.models.spec",
    "AugmentationStep": "phoropter.training.augmentation.custom_step",
    "Loss": "phoropter.training.candidates.custom_loss",
    "Optimizer": "phoropter.training.candidates.custom_optimizer",
    "Schedule": "phoropter.training.candidates.custom_optimizer",
    "finetune": "phoropter.training.candidates.candidate_entry",
    "probe": "phoropter.training.candidates.candidate_entry",
    "baseline": "phoropter.training.candidates.candidate_entry",
    "fuse": "phoropter.training.candidates.candidate_entry",
    "distil": "phoropter.training.candidates.candidate_entry",
    "KFold": "phoropter.data.splits.spec",
    "GroupKFold": "phoropter.data.splits.spec",
    "BlockKFold": "phoropter.data.splits.spec",
    "LeaveOneGroupOut": "phoropter.data.splits.spec",
    "HoldOut": "phoropter.data.splits.spec",
    "FoldsFile": "phoropter.data.splits.spec",
    "Predefined": "phoropter.data.splits.spec",
    "HeldOutSites": "phoropter.data.splits.spec",
    "TestOnly": "phoropter.data.splits.spec",
    "Protocol": "phoropter.data.splits.spec",
    "DataSpec": "phoropter.data.spec",
    "open_dataset": "phoropter.data.spec",
    "as_dataset": "phoropter.data.in_memory",
    "in_memory": "phoropter.data.spec",
    "from_arrays": "phoropter.data.sources.arrays",
    "from_dataframe": "phoropter.data.sources.manifest",
    "from_torch": "phoropter.data.sources.items",
    "from_huggingface": "phoropter.data.sources.items",
    "folder": "phoropter.data.spec",
    "manifest": "phoropter.data.spec",
    "imagenet": "phoropter.data.spec",
    "cifar10": "phoropter.data.spec",
    "cifar100": "phoropter.data.spec",
    "npz": "phoropter.data.spec",
    "parquet": "phoropter.data.spec",
    "hdf5": "phoropter.data.spec",
    "shards": "phoropter.data.spec",
    "saved_dataset": "phoropter.data.spec",
    "digits": "phoropter.data.spec",
    "recordings": "phoropter.data.spec",
    "Database": "phoropter.data.recordings.database",
    "Recording": "phoropter.signals.recording",
    "from_recordings": "phoropter.data.recordings.in_memory",
    "simulate": "phoropter.data.spec",
    "Dataset": "phoropter.data.dataset",
    "Metric": "phoropter.results.metrics.custom",
    "Section": "phoropter.report.render.section",
    "Table": "phoropter.report.render.table",
    "TableRow": "phoropter.report.render.table",
    "Column": "phoropter.report.render.table",
    "MeanStd": "phoropter.report.render.table",
    "IntervalBounds": "phoropter.report.render.table",
    "draw_figure": "phoropter.report.render.svg",
    "ReportInput": "phoropter.report.summary.report_input",
    "Store": "phoropter.results.store",
    "PhoropterError": "phoropter.core.errors",
}

__all__ = ["__version__", *(name for name in _HOMES if name != "open")]  # a star import leaves the built-in open alone


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'phoropter' has no attribute '{name}'")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "open"])
