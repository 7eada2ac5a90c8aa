"""A bundle as an MLflow model of the flavour `python_function`: a file `MLmodel` beside it, plain YAML, no pickle.

`mlflow.pyfunc.load_model(BUNDLE)` and `mlflow models serve -m BUNDLE` read it and call `_load_pyfunc`. One row of a table in, one
row of probabilities out; of recordings one answer from their windows by the rule of the bundle, as in `phoropter predict`. Inputs
come as their contents, never as paths, so that whoever asks a server cannot name files of its disk.

MLflow itself is not imported here.
"""

from __future__ import annotations

import base64
import json
import platform
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

import phoropter
from phoropter.core.errors import DataError
from phoropter.core.files import temporary_folder, write_text
from phoropter.deploy.bundle import Predictor, load_bundle
from phoropter.deploy.predict import Bundle
from phoropter.deploy.tables import name_probabilities
from phoropter.signals.readers.tables import is_manifest

MLMODEL_FILE = "MLmodel"
PICTURE_COLUMN = "image"  # the bytes of an image file
RECORDING_COLUMN = "csv"  # the text of a table with a column per channel


def write_mlmodel(folder: Path, bundle: Bundle) -> None:
    """Writes `MLmodel` into a bundle's folder."""
    pictures = bundle.recording_view is None
    inputs = {"type": "binary" if pictures else "string", "name": PICTURE_COLUMN if pictures else RECORDING_COLUMN}
    outputs = [{"type": "string", "name": "class"}, *({"type": "double", "name": f"p_{name}"} for name in bundle.classes)]
    columns = {"inputs": [inputs], "outputs": outputs}
    content = {
        "flavors": {
            "python_function": {"loader_module": "phoropter.deploy.mlflow_model", "python_version": platform.python_version()}
        },
        "metadata": {"phoropter_version": phoropter.__version__},
        "signature": {name: json.dumps([{**c, "required": True} for c in some]) for name, some in columns.items()}
        | {"params": None},
    }
    write_text(folder / MLMODEL_FILE, yaml.safe_dump(content, sort_keys=False))


class PyfuncModel:
    """What MLflow calls: `predict(table)` → one row of class and probabilities for each row of the table."""

    def __init__(self, model: Predictor) -> None:
        self.model = model

    def predict(self, model_input: Any, params: dict[str, Any] | None = None) -> Any:
        """A DataFrame with the column `image` (bytes of image files), or of a bundle of recordings `csv` (text of tables).

        Returns a DataFrame with the columns class and p_CLASS. Raises DataError for a missing column or an input that cannot be
        read.
        """
        import pandas as pd

        column = PICTURE_COLUMN if self.model.recording_view is None else RECORDING_COLUMN
        if column not in getattr(model_input, "columns", ()):
            raise DataError(f"the table has no column '{column}', in which this bundle expects its inputs")
        with temporary_folder("mlflow") as folder:
            files = [self._write_input(folder, row, value) for row, value in enumerate(model_input[column])]
            probabilities = self._predict_files(files) if files else np.empty((0, len(self.model.classes)))
        names = ["class", *(f"p_{name}" for name in self.model.classes)]
        rows = [name_probabilities(p, self.model.classes, self.model.multi_label) for p in probabilities]
        return pd.DataFrame(rows, columns=names, index=model_input.index)

    def _predict_files(self, files: list[Path]) -> NDArray[np.float64]:
        """(n, C) probabilities of the files, in their order; of a recording by the bundle's rule over its windows."""
        found = self.model.predict(files)
        answers = found.average_by_recording()
        return found.probabilities if answers is None else answers.probabilities

    def _write_input(self, folder: Path, row: int, value: bytes | str) -> Path:
        """One input as a file, through which it goes as it would in `phoropter predict`. The name keeps the order of rows."""
        if self.model.recording_view is None:
            file = folder / f"row-{row:09d}"
            file.write_bytes(base64.b64decode(value) if isinstance(value, str) else bytes(value))
        else:
            file = folder / f"row-{row:09d}.csv"
            file.write_text(str(value), encoding="utf-8")
            if is_manifest(file):
                raise DataError(f"row {row} is a manifest, which names files of this machine; send the recording itself")
        return file


def _load_pyfunc(path: str, model_config: dict[str, Any] | None = None) -> PyfuncModel:
    """MLflow's entry point. path: the bundle's folder, or the `MLmodel` in it"""
    folder = Path(path)
    return PyfuncModel(load_bundle(folder.parent if folder.name == MLMODEL_FILE else folder))
