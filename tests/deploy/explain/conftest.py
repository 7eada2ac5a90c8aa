"""Makes explained_networks.py importable for the tests beside it, and finished studies to explain."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from small_pictures import draw_dark_and_light, run_small_study
from small_recordings import CTG_STUDY, ECG_STUDY

NET = "{backbone: test_resnet, weights: random}"
PICTURES = f"""\
name: shapes
data: {{folder: pictures, size: 64}}
protocol: {{split: hold-out, test_size: 0.5}}
recipe: {{preset: scratch, epochs: 1}}
candidates:
  - {{name: net, backbone: test_resnet, weights: random}}
  - {{name: fusion, fuse: [{NET}, {{backbone: test_vit, weights: random}}]}}
"""
SIGNALS = f"recipe: {{preset: scratch, epochs: 1}}\ncandidates: [{NET.replace('{', '{name: cnn, ', 1)}]\n"


@pytest.fixture(scope="session")
def explained_studies(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """shapes, people, births → the folder that holds study.yaml and its results in `out`; beside that of shapes, `pictures`."""

    folders = {}
    for name, text in (("shapes", PICTURES), ("people", ECG_STUDY + SIGNALS), ("births", CTG_STUDY + SIGNALS)):
        folder = folders[name] = tmp_path_factory.mktemp(name)
        if name == "shapes":
            draw_dark_and_light(folder / "pictures", 6, size=(70, 90))
        run_small_study(folder, text)
    return folders


@pytest.fixture(scope="session")
def explained_bundles(explained_studies: dict[str, Path]) -> dict[str, Path]:
    """net, fusion, people, births → the bundle of the candidate's first run."""
    from phoropter.results.store import Store

    found = {}
    for name, folder in explained_studies.items():
        for run in Store(folder / "out").runs():
            if run.bundle_folder is not None:
                found[name if run.candidate_name == "cnn" else run.candidate_name] = run.bundle_folder
    return found
