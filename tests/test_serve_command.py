"""`phoropter serve`: what it refuses before anything is loaded, and that a signal ends it in order."""

from __future__ import annotations

import signal
from pathlib import Path
from urllib.request import urlopen

import pytest
from click.testing import CliRunner, Result

from phoropter.cli import main
from phoropter.models.classifier import build_classifier, save_classifier
from phoropter.models.spec import BackboneSpec, ClassifierSpec
from phoropter.training.candidates.candidate_entry import parse_candidates
from phoropter.training.candidates.recipe import Recipe
from served_process import serve_in_process

pytest.importorskip("fastapi", reason="fastapi is not installed (the extra deploy)")


def call(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["serve", *map(str, arguments)], catch_exceptions=False)


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--host", "0.0.0.0"], "--host 0.0.0.0 lets other machines ask, which needs a token"),
        (["--token", "short"], "the token should have at least 16"),
        (["--token", "a" * 20, "--token-file", "x"], "--token and --token-file are two tokens; give one"),
        (["--token-file", "there-is-none"], "--token-file there-is-none cannot be read (No such file or directory)"),
        (["--limit", "megapixel=3"], "limit 'megapixel' is unknown"),
        (["--device", "tpu"], "device is 'tpu'"),
        ([], "is no bundle: expected a folder with bundle.json"),
    ],
)
def test_mistakes_are_one_line(tmp_path: Path, flags: list[str], told: str) -> None:
    came = call(tmp_path, *flags)
    assert came.exit_code == 2 and told in came.output and came.output.count("\n") == 1


def test_a_token_file_may_end_in_a_line_break(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("a-token-of-many-letters\n")
    assert "is no bundle" in call(tmp_path, "--host", "0.0.0.0", "--token-file", tmp_path / "token").output


def make_bundle(folder: Path) -> Path:
    """Untrained: only that it is served is looked at."""
    spec = ClassifierSpec(
        backbones=(BackboneSpec(name="test_resnet", weights="random", size=32),), classes=("a", "b"), picture=32
    )
    (candidate,) = parse_candidates([{"name": "net", "backbone": "test_resnet", "weights": "random"}], Recipe())
    training = {"candidate": candidate.plain(), "data": {"folder": "x", "size": 32}}
    save_classifier(build_classifier(spec, seed=0), folder, training=training)
    return folder


def test_it_says_where_it_serves_and_a_signal_ends_it(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "net")
    with serve_in_process([str(bundle), "--device", "cpu"]) as served:
        assert served.line == f"serving net: {served.address} (Ctrl-C stops it)\n"
        with urlopen(served.address + "ready", timeout=60) as answer:
            assert answer.status == 200
        served.process.send_signal(signal.SIGTERM)
        assert served.process.stderr is not None
        rest = served.process.stderr.read()
        assert served.process.wait(60) == 0 and rest.endswith("stopped serving\n") and "Traceback" not in rest
