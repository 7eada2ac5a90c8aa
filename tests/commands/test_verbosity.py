"""-q prints what was asked for, warnings and errors alone, -v also the traceback of a mistake; each command begins anew."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner, Result

from phoropter.cli import main

STUDY = """\
name: tiny
data: {digits: true, size: 32, max_samples: 60}
protocol: {split: stratified-k-fold, folds: 2}
candidates: [{backbone: test_resnet, weights: random}]
"""


def call(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(a) for a in arguments], catch_exceptions=False)


def test_quiet_and_loud(tmp_path: Path) -> None:
    study = tmp_path / "tiny.yaml"
    study.write_text(STUDY)
    assert call("plan", study, "-q").stdout == call("plan", study).stdout, "a plan is what was asked for"
    folds = ("folds", study, "-o", tmp_path / "folds.csv")
    quiet = call(*folds, "-q")
    assert quiet.exit_code == 0 and quiet.output == "" and (tmp_path / "folds.csv").exists()
    assert call(*folds).stdout.startswith("written: "), "the next command is not quiet"
    assert call("schema", "-q").stdout.startswith("{") and call("schema", "-q", "-o", tmp_path / "s.json").output == ""
    assert "digits" in call("studies", "-q").stdout


def test_an_error_is_told_however_quiet(tmp_path: Path) -> None:
    for option, lines in (("-q", 1), ("-v", 5)):
        result = call("plan", tmp_path / "lost.yaml", option)
        told = result.stderr.strip().splitlines()
        assert result.exit_code == 2 and "there is no such file" in told[-1] and told[-1].startswith("phoropter: ")
        assert len(told) == 1 if lines == 1 else len(told) >= lines and "Traceback" in told[0]


def test_both_contradict_each_other() -> None:
    result = call("studies", "-q", "-v")
    assert result.exit_code == 2 and "-q and -v contradict each other" in result.output
    assert "test_resnet" in call("weights", "list", "-q", "test_resnet").stdout
