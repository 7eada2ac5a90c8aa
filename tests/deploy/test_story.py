"""The story on the README's first page, from a study to a served bundle, runs as it is written."""

from __future__ import annotations

import json
import re
import shlex
import signal
from pathlib import Path
from urllib.request import urlopen

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from phoropter.cli import main
from served_process import serve_in_process

README = Path(__file__).parents[2] / "README.md"
STUDY = """\
name: intel
data: {folder: pictures, size: 32}
protocol: {split: stratified-k-fold, folds: 2}
recipe: {preset: scratch, epochs: 1}
candidates:
  - {name: cnn, backbone: test_resnet, weights: random}
"""


def read_story() -> list[list[str]]:
    """The commands of the README's section, without their comments."""
    section = README.read_text(encoding="utf-8").partition("## From a folder to a served model")[2]
    lines = re.search(r"```sh\n(.*?)```", section, re.S)
    assert lines is not None
    return [shlex.split(line, comments=True) for line in lines[1].splitlines()]


def draw_pictures(folder: Path, count: int) -> None:
    draw = np.random.default_rng(count)
    folder.mkdir(parents=True)
    for i in range(count):
        Image.fromarray(draw.integers(0, 255, (40, 50, 3), dtype=np.uint8)).save(folder / f"{i}.png")


def test_the_story_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for extra in ("fastapi", "onnxruntime", "onnxscript"):
        pytest.importorskip(extra, reason=f"{extra} is not installed (the extra deploy)")
    story = read_story()
    assert [words[1] for words in story] == ["init", "run", "refit", "predict", "explain", "export", "serve"]
    monkeypatch.chdir(tmp_path)
    for kind, count in (("forest", 9), ("street", 8), ("sea", 7)):
        draw_pictures(tmp_path / "pictures" / kind, count)
    draw_pictures(tmp_path / "new", 3)
    (tmp_path / "intel.yaml").write_text(STUDY)  # smaller than what `init` writes
    for words in story[1:-1]:
        arguments = [str(tmp_path / "new") if word == "~/new" else word for word in words[1:]]
        done = CliRunner().invoke(main, arguments)
        assert done.exit_code == 0, (words, done.output, done.exception)
    assert len((tmp_path / "predictions.csv").read_text().splitlines()) == 1 + 3
    assert len(list((tmp_path / "intel-bundle" / "examples").glob("*.png"))) == 4
    assert list((tmp_path / "maps").rglob("*.png")) and (tmp_path / "intel.onnx").stat().st_size > 1000
    serve_and_stop(story[-1])


def serve_and_stop(words: list[str]) -> None:
    """Its command in another process, on a port that is free: it says that it is ready, and ends at a signal."""
    assert words[:2] == ["phoropter", "serve"]
    with serve_in_process(words[2:]) as served:
        with urlopen(served.address + "version", timeout=60) as answer:
            assert "intel-bundle" in json.dumps(json.load(answer))
        served.process.send_signal(signal.SIGTERM)
        assert served.process.wait(60) == 0
