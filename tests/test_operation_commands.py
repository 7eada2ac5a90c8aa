"""retry computes what failed and nothing else; cancel stops a command that another process started; both refuse in a sentence."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from phoropter.cli import main
from phoropter.data.spec import DataSpec, open_dataset
from phoropter.results.running_commands import list_running_commands
from phoropter.results.store import Store
from warm_python import WarmCommand, WarmPython

STUDY = """\
name: small
data: {digits: true, size: 32, max_samples: 80}
protocol: {split: stratified-k-fold, folds: 3, seeds: [0]}
recipe: {preset: scratch, epochs: 1}
candidates: [{name: cnn, backbone: test_resnet, weights: random}]
"""


def call(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(a) for a in arguments], catch_exceptions=False)


def read_predictions(folder: Path) -> dict[str, bytes]:
    return {f.parent.name: f.read_bytes() for f in (folder / "runs").glob("[0-9a-f]*/predictions.npz")}


def wait_for(condition: object) -> None:
    deadline = time.monotonic() + 120
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_retry_computes_failed_and_damaged_runs_and_leaves_missing_ones(tmp_path: Path) -> None:
    study, out = tmp_path / "small.yaml", tmp_path / "out"
    study.write_text(STUDY)
    assert call("run", study, "-o", out, "--device", "cpu").exit_code == 0
    whole, store = read_predictions(out), Store(out)
    refused = call("retry", study, "-o", out)
    assert refused.exit_code == 2 and f"no run in {out} has failed" in refused.output
    failed, missing, damaged = whole
    for key in (failed, missing):
        shutil.rmtree(store.run(key).folder)
    store.record_failure(failed, {"error": "diverged", "candidate": "cnn", "split": "s", "seed": 0})
    (store.run(damaged).folder / "history.csv").write_text("epoch\n")
    assert call("retry", study, "-o", out, "--device", "cpu").exit_code == 0
    assert read_predictions(out) == {key: whole[key] for key in (failed, damaged)} and Store(out).read_failures() == {}


def test_retry_passes_over_parts_that_were_never_begun(tmp_path: Path) -> None:
    study, out = tmp_path / "parts.yaml", tmp_path / "out"
    study.write_text(STUDY.replace("small", "later") + "---\n" + STUDY)
    Store(out / "small").write_study({"name": "small", "plan": [{"key": "0" * 32, "candidate": "cnn"}]})
    refused = call("retry", study, "-o", out)
    assert refused.exit_code == 2 and f"no run in {out / 'small'} has failed" in refused.output
    Store(out / "later").write_study({"name": "later", "plan": [{"key": "1" * 32, "candidate": "cnn"}]})
    assert f"no run in {out / 'later'} or {out / 'small'} has failed" in call("retry", study, "-o", out).output
    shutil.rmtree(out)
    assert "is not a results folder" in call("retry", study, "-o", out).output


def test_retry_of_a_screened_study_is_refused(tmp_path: Path) -> None:
    study = tmp_path / "small.yaml"
    study.write_text(STUDY + "screening: {keep: 1}\n")
    store = Store(tmp_path / "out")
    store.write_study({"name": "small", "plan": [{"key": "0" * 32, "candidate": "cnn"}]})
    store.record_failure("0" * 32, {"error": "diverged"})
    refused = call("retry", study, "-o", tmp_path / "out")
    assert refused.exit_code == 2 and "use phoropter run, which retries them too" in refused.output


@pytest.mark.parametrize("jobs", [1, 2])
def test_cancel_stops_a_running_command_with_a_checkpoint(tmp_path: Path, warm: WarmPython, jobs: int) -> None:
    (tmp_path / "long.yaml").write_text(STUDY.replace("epochs: 1", "epochs: 2000"))
    out = tmp_path / "out"
    arguments = ["run", "long.yaml", "-o", "out", "--device", "cpu", "-j", str(jobs)]
    command: WarmCommand = warm.run_command_line(arguments, tmp_path)
    wait_for(lambda: list(out.glob("work/*/now.json")))
    assert len(list_running_commands(out)) == 1
    stopped = call("cancel", out)
    assert stopped.exit_code == 0 and "stopped" in stopped.output and list_running_commands(out) == []
    assert command.wait(60) == 143 and "stopped by SIGTERM" in command.read_log()
    assert list(out.glob("work/*/checkpoint.pt"))
    again = call("cancel", out)
    assert again.exit_code == 2 and f"nothing computes in {out}" in again.output


def test_devices_that_are_not_there_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(STUDY)
    refused = call("run", tmp_path / "small.yaml", "-o", tmp_path / "out", "--devices", "0-99")
    assert refused.exit_code == 2 and "--devices 0-99" in refused.output and not (tmp_path / "out").exists()


def test_pack_writes_what_a_study_can_read(tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(STUDY)
    packed = call("pack", tmp_path / "small.yaml", "-o", tmp_path / "packed")
    assert packed.exit_code == 0 and "80 pictures in 1 file); read it by data: {parquet:" in packed.output
    assert len(open_dataset(DataSpec(parquet=tmp_path / "packed"))) == 80
    again = call("pack", tmp_path / "small.yaml", "-o", tmp_path / "packed")
    assert again.exit_code == 2 and "exists already" in again.output


def test_pack_of_a_negative_control_is_refused(tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(STUDY.replace("digits: true", "digits: true, control: labels-permuted"))
    refused = call("pack", tmp_path / "small.yaml", "-o", tmp_path / "packed")
    assert refused.exit_code == 2 and "data.control: labels-permuted makes other data" in " ".join(refused.output.split())
    assert not (tmp_path / "packed").exists()


@pytest.mark.parametrize("words", ["verify S", "gc S", "merge S here", "merge here S", "cancel S", "pack small.yaml -o S"])
def test_an_address_in_a_store_is_no_folder_of_this_machine(words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.yaml").write_text(STUDY)
    refused = call(*words.replace("S", "s3://bucket/x").split())
    assert refused.exit_code == 2 and "s3://bucket/x is an address in a store" in " ".join(refused.output.split())
    assert [file.name for file in tmp_path.iterdir()] == ["small.yaml"], "no folder called s3: is made"
