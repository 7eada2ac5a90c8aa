"""The example notebook runs from its first cell to its last, and shows what it promises."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
import pandas as pd
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[1] / "examples" / "notebook.ipynb"


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Id of each cell → its outputs, and the folder it ran in."""
    folder = tmp_path_factory.mktemp("notebook")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IPYTHONDIR", str(folder / "ipython"))
        patch.setenv("OMP_NUM_THREADS", "1")
        NotebookClient(notebook, timeout=240, resources={"metadata": {"path": str(folder)}}).execute()
    return {cell["id"]: cell.get("outputs", []) for cell in notebook.cells}, folder


def read_output(outputs: Any, kind: str) -> str:
    (data,) = (output["data"] for output in outputs if "data" in output)
    return str(data[kind])


def test_objects_show_themselves(shown: Any) -> None:
    cells, _ = shown
    assert "Study digits-in-a-notebook" in read_output(cells["study"], "text/html")
    assert "6 runs · 3 splits · 200 rows in 10 classes" in read_output(cells["plan"], "text/html")
    assert "6 of 6 runs" in read_output(cells["run"], "text/html")
    assert read_output(cells["figure"], "image/svg+xml").lstrip().startswith("<?xml")
    assert "verdict" in read_output(cells["pair"], "text/html")


def test_progress_is_shown_while_runs_are_computed(shown: Any) -> None:
    progress = "".join(output.get("text", "") for output in shown[0]["run"])
    assert progress.count("convolution · ") == progress.count("attention · ") == 3
    assert 'install "ipywidgets"' not in progress  # rich's word for bars that it cannot draw


def test_bare_predictions_have_the_numbers_of_the_study(shown: Any) -> None:
    cells, folder = shown
    study, bare = (read_output(cells[name], "text/plain") for name in ("open", "bare"))
    assert study == bare and all(name in study for name in ("convolution", "attention", "accuracy", "low", "high"))
    assert len(pd.read_parquet(folder / "predictions.parquet")) == 2 * 200
