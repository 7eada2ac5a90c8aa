"""The command line: small, quick to answer, one line for a mistake, and the same words as the documentation."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from phoropter.cli import main
from phoropter.results.preparation import PreparationNote
from phoropter.results.run_folder import RunWriter
from phoropter.study_parts import read_parts

COMMANDS = {"plan", "run", "demo", "status", "report", "compare", "folds", "serve-report", "refit", "predict", "inspect"}
COMMANDS |= {"backbones", "studies", "doctor", "serve", "explain", "export", "schema", "weights", "init", "completion", "import"}
COMMANDS |= {"retry", "submit", "verify", "gc", "merge", "cancel", "pack"}
README = Path(__file__).parents[1] / "README.md"
RUNNING = Path(__file__).parents[1] / "docs" / "running.md"

STUDY = """\
name: tiny
data: {digits: true, size: 32, max_samples: 120}
protocol: {split: stratified-k-fold, folds: 2}
recipe: {preset: probe, epochs: 2}
candidates:
  - {name: cnn, backbone: test_resnet, weights: random, frozen: true}
  - {name: vit, backbone: test_vit, weights: random, frozen: true}
"""
TWO_MORE = [STUDY.replace("tiny", name) for name in ("one", "two")]


def call(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(a) for a in arguments], catch_exceptions=False)


def test_commands_are_these_and_have_help() -> None:
    assert set(main.commands) == COMMANDS
    for name in COMMANDS:
        assert call(name, "--help").exit_code == 0 and main.commands[name].help


def test_flags_stay_few() -> None:
    """A new knob goes into the study file."""
    flags = {name: {o for p in c.params for o in p.opts if o.startswith("--")} for name, c in main.commands.items()}
    assert all({"--quiet", "--verbose"} <= options for name, options in flags.items() if name != "weights")
    flags = {name: options - {"--quiet", "--verbose"} for name, options in flags.items()}
    places = {"--device", "--jobs", "--devices", "--per-device", "--executor", "--address"}
    assert flags["run"] == {"--out", "--smoke", "--add", "--set", "--part", "--budget", "--trust-code", *places}
    assert flags["plan"] == {"--out", "--smoke", "--device", "--add", "--set", "--part", "--json", "--measure", "--trust-code"}
    assert flags["report"] == {"--out", "--section", "--maps", "--json", "--trust-code"}
    assert flags["inspect"] == {"--preview", "--part", "--json"}
    assert flags["compare"] == flags["folds"] == {"--out", "--trust-code"}
    assert flags["refit"] == {"--out", "--candidate", "--how", "--examples", "--layout", "--data", "--device", "--trust-code"}
    assert flags["predict"] == {
        "--out",
        "--on-bad-input",
        "--views",
        "--explain",
        "--device",
        "--json",
        "--engine",
        "--trust-code",
    }
    shared = {"--out", "--on-bad-input", "--views", "--device", "--trust-code"}
    assert flags["explain"] == {*shared, "--target", "--method", "--layer", "--write"}
    assert flags["serve"] == {
        *("--port", "--host", "--public-name", "--token", "--token-file", "--log-names", "--limit", "--device", "--trust-code")
    }
    assert flags["retry"] == {"--out", "--trust-code", *places} and flags["gc"] == {"--cache", "--delete"}
    assert flags["verify"] == flags["merge"] == flags["cancel"] == set()
    share = {"--executor", "--workers", "--minutes", "--cpus", "--gpus", "--partition"}
    assert flags["submit"] == {"--out", "--set", "--add", "--trust-code", *share}
    assert flags["pack"] == {"--out", "--shard-mib", "--trust-code"}
    assert flags["status"] == flags["studies"] == flags["doctor"] == {"--json"} and flags["serve-report"] == {"--port"}


@pytest.mark.parametrize("name", sorted(COMMANDS - {"backbones", "studies", "doctor"}))
def test_documentation_names_every_command_one_needs(name: str) -> None:
    assert f"phoropter {name}" in README.read_text() + RUNNING.read_text()


def test_a_study_from_file_to_report(tmp_path: Path) -> None:
    study, out = tmp_path / "tiny.yaml", tmp_path / "out"
    study.write_text(STUDY)
    planned = call("plan", study, "-o", out)
    assert planned.exit_code == 0 and "4 of 4 runs to compute" in planned.output and not out.exists()
    ran = call("run", study, "-o", out, "--device", "cpu")
    assert ran.exit_code == 0 and "[4/4]" in ran.output and "report:" in ran.output, ran.output
    done = call("plan", study, "-o", out).output
    assert "0 of 4 runs to compute: all are done" in done and "memory" not in done and "0 ms" not in done
    assert "4 of 4 runs done" in call("status", out).output
    page = out / "report" / "index.html"
    before = page.read_bytes()
    assert call("report", out).exit_code == 0 and page.read_bytes() == before
    assert "[" not in call("run", study, "-o", out, "--device", "cpu").output.replace("report:", "")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["plan", "nowhere.yaml"], "there is no such file"),
        (["plan", "digit"], "did you mean 'digits'"),
        (["folds", "digit"], "did you mean 'digits'"),
        (["report", "nowhere", "--section", "mine:SECTION"], "--trust-code"),
        (["report", "nowhere", "--section", "mine.py", "--trust-code"], "module:NAME"),
        (["status", "nowhere"], "not a results folder"),
        (["report", "nowhere"], "not a results folder"),
        (["compare", "nowhere", "elsewhere"], "not a results folder"),
        (["serve-report", "nowhere"], "neither a file nor a shipped study"),
        (["inspect", "nowhere"], "nowhere"),
        (["backbones", "resnet5x*"], "no backbone matches"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(arguments: list[str], words: str) -> None:
    result = call(*arguments)
    assert result.exit_code == 2 and words in result.output
    assert len(result.output.strip().splitlines()) == 1 and result.output.startswith("phoropter: ")


def test_a_part_whose_data_are_not_there_does_not_stop_the_others(tmp_path: Path) -> None:
    study = tmp_path / "parts.yaml"
    lost = STUDY.replace("tiny", "lost").replace("{digits: true, size: 32, max_samples: 120}", "{folder: nowhere}")
    study.write_text(f"{lost}---\n{STUDY}---\n{lost.replace('lost', 'gone')}")
    result = call("plan", study)
    assert result.exit_code == 2 and "4 of 4 runs to compute" in result.output
    assert re.search(r"phoropter: part lost: .*nowhere.*\(and 1 more of 3 parts\)", result.output)


def test_a_part_is_chosen_by_its_name_and_keeps_its_folder(tmp_path: Path) -> None:
    """Its results are those of the complete study; a part that is not asked for may lack its data."""
    study, out = tmp_path / "parts.yaml", tmp_path / "out"
    study.write_text("---\n".join([STUDY.replace("{digits: true, size: 32, max_samples: 120}", "{folder: gone}"), *TWO_MORE]))
    result = call("run", study, "-o", out, "--part", "two", "--device", "cpu")
    assert result.exit_code == 0 and [f.name for f in out.iterdir()] == ["two"]
    planned = call("plan", study, "-o", out, "--json", "--part", "two", "--part", "one")
    parts = [(part["name"], part["missing"]) for part in json.loads(planned.output)["parts"]]
    assert parts == [("one", 4), ("two", 0)]
    unknown = call("plan", study, "--part", "twos")
    assert unknown.exit_code == 2 and "--part twos: the study has no such part; did you mean 'two'?" in unknown.output
    empty = call("run", study, "-o", out, "--part", "")  # as of a variable of the shell that is not set
    assert empty.exit_code == 2 and "--part '': the study has no such part; its parts are tiny, one or two" in empty.output


def test_a_setting_is_of_the_part_that_is_chosen(tmp_path: Path) -> None:
    study, out = tmp_path / "parts.yaml", tmp_path / "out"
    short = STUDY.replace("tiny", "short").replace("  - {name: vit, backbone: test_vit, weights: random, frozen: true}\n", "")
    study.write_text(f"{short}---\n{STUDY}")
    settings = ["candidates.1.head=dense", "data.max_samples=90"]  # of a candidate that the other part does not have
    parts = read_parts(str(study), out, False, settings, only=["tiny"])
    assert [(part.name, part.data.max_samples) for part, _ in parts] == [("tiny", 90)]
    several = {part.name: part.data.max_samples for part, _ in read_parts(str(study), out, False, ["data.max_samples=90"])}
    assert several == {"short": 90, "tiny": 90}


def test_a_setting_is_of_both_protocols_of_a_part_or_of_the_part_of_a_half() -> None:
    for name, count in (("sonic-wesad-3-class", 2), ("sonic-wesad-3-class-subject-held-out", 1)):
        parts = read_parts("sonic-wesad", None, False, settings=["data.max_samples=90"], only=[name])
        assert [part.data.max_samples for part, _ in parts] == [90] * count


def test_both_protocols_of_a_part_have_its_name() -> None:
    parts = read_parts("sonic-wesad", None, False, only=["sonic-wesad-3-class"])
    assert [part.name for part, _ in parts] == ["sonic-wesad-3-class-within-subject", "sonic-wesad-3-class-subject-held-out"]
    assert parts[1][1] == Path("runs/sonic-wesad/sonic-wesad-3-class-subject-held-out")


def test_the_weights_that_all_parts_miss_are_told_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A person who carries weights on a stick would come back once for each part."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    parts = [STUDY]
    for name, network in (("one", "resnet18.a1_in1k"), ("two", "resnet34.a1_in1k")):
        parts.append(STUDY.replace("tiny", name).replace("test_vit, weights: random", network))
    study = tmp_path / "parts.yaml"
    study.write_text("---\n".join(parts))
    result = call("plan", study)
    assert result.exit_code == 2 and "4 of 4 runs to compute" in result.output
    assert re.search(r"phoropter: part one: .*\(and 1 more of 3 parts\)", result.output)
    assert "for the weights of all parts run `phoropter weights get resnet18.a1_in1k resnet34.a1_in1k --to" in result.output


def test_a_wrong_word_in_a_study_gives_one_line_with_its_place(tmp_path: Path) -> None:
    study = tmp_path / "tiny.yaml"
    study.write_text(STUDY.replace("test_vit", "test_vitt"))
    result = call("plan", study)
    assert result.exit_code == 2 and "did you mean 'test_vit'" in result.output
    assert len(result.output.strip().splitlines()) == 1


def test_the_plan_names_the_planned_questions_and_refuses_one_that_nobody_can_answer(tmp_path: Path) -> None:
    study, asked = tmp_path / "tiny.yaml", "sweep: {recipe.augment: [none, hflip]}\ncompare: {primary: {contrast: {LEVELS}}}\n"
    levels = "factor: recipe.augment, level: hflip, against: none"
    study.write_text(STUDY + asked.replace("LEVELS", levels))
    assert "primary question: augment: hflip against none, by accuracy, in 2 pairs" in call("plan", study).output
    study.write_text(STUDY + asked.replace("LEVELS", levels.replace("hflip", "hflop")))
    result = call("plan", study)
    assert result.exit_code == 2 and "compare.primary: 'hflop' is no value of the sweep over recipe.augment" in result.output


def test_pretrained_names_without_a_network_fail_at_plan_time(tmp_path: Path) -> None:
    study = tmp_path / "tiny.yaml"
    study.write_text(STUDY.replace("weights: random, ", "", 1))
    result = call("plan", study)
    assert result.exit_code == 2 and len(result.output.strip().splitlines()) == 1
    assert "candidate 'cnn'" in result.output and "phoropter weights get test_resnet.r160_in1k --to" in result.output


def test_all_missing_weights_are_told_at_once(tmp_path: Path) -> None:
    study = tmp_path / "tiny.yaml"
    lines = ["resnet18", "vit_tiny_patch16_224", "resnet18"]
    named = "".join(f"  - {{name: c{i}, backbone: {name}}}\n" for i, name in enumerate(lines))
    study.write_text(STUDY.split("  - ")[0] + named + "  - {name: own, backbone: test_vit, weights: nowhere.pth}\n")
    result = call("plan", study)
    assert result.exit_code == 2 and len(result.output.strip().splitlines()) == 1
    assert "3 weights cannot be used: candidates 'c0', 'c2': " in result.output
    assert result.output.count("phoropter weights get") == 1
    assert "get resnet18.a1_in1k vit_tiny_patch16_224.augreg_in21k_ft_in1k --to FOLDER" in result.output
    assert "candidate 'c1': " in result.output and "candidate 'own': " in result.output and "nowhere.pth" in result.output


@pytest.mark.parametrize("command", ["plan", "run"])
@pytest.mark.parametrize(
    ("device", "words"), [("gpu", "expected cpu, cuda, cuda:N, mps or auto"), ("cuda:99", "device is 'cuda:99', and")]
)
def test_a_device_that_is_not_there_is_one_line_before_anything_is_computed(
    command: str, device: str, words: str, tmp_path: Path
) -> None:
    study = tmp_path / "tiny.yaml"
    study.write_text(STUDY)
    result = call(command, study, "-o", tmp_path / "out", "--device", device)
    assert result.exit_code == 2 and words in result.output and len(result.output.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_no_room_is_exit_code_3_and_the_same_command_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = tmp_path / "tiny.yaml"
    study.write_text(STUDY)

    def find_no_room(*arguments: Any, **keywords: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "/data")

    with monkeypatch.context() as patch:
        patch.setattr(RunWriter, "write_predictions", find_no_room)
        full = call("run", study, "-o", tmp_path / "out", "--device", "cpu")
    last = full.output.strip().splitlines()[-1]
    words = "the disk is full: free some space and run the same command again; finished runs are kept"
    assert full.exit_code == 3 and last.startswith("phoropter: ") and last.endswith(words)
    again = call("run", study, "-o", tmp_path / "out", "--device", "cpu")
    assert again.exit_code == 0 and "[4/4]" in again.output


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_is_named_in_one_line_with_the_way_to_go_on(
    number: signal.Signals, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = tmp_path / "tiny.yaml"
    study.write_text(STUDY)
    monkeypatch.setattr("phoropter.study.worker.load_study", lambda *arguments: os.kill(os.getpid(), number))
    stopped = call("run", study, "-o", tmp_path / "out", "--device", "cpu")
    words = f"phoropter: stopped by {number.name}; finished runs and checkpoints are kept, and the same command goes on from here"
    assert stopped.exit_code == code and words in stopped.output and not (tmp_path / "out").exists()


def test_a_signal_while_the_report_is_written_is_told_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = tmp_path / "tiny.yaml"
    study.write_text(STUDY)
    monkeypatch.setattr("phoropter.report.page.create_report", lambda folder: os.kill(os.getpid(), signal.SIGTERM))
    stopped = call("run", study, "-o", tmp_path / "out", "--device", "cpu")
    assert stopped.exit_code == 143 and "stopped by SIGTERM; finished runs" in stopped.output and "[4/4]" in stopped.output


def test_a_command_that_begins_anew_promises_nothing_when_it_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("phoropter.refit.refit.refit_candidate", interrupt)
    stopped = call("refit", tmp_path, "-o", tmp_path / "out", "--device", "cpu")
    assert stopped.exit_code == 130 and stopped.output.endswith("phoropter: stopped\n")


def test_status_before_the_first_run_says_what_is_being_prepared(tmp_path: Path) -> None:
    note = PreparationNote(tmp_path / "out")
    note.write_progress("decoding images", 300, 5000)
    early = call("status", tmp_path / "out")
    assert early.exit_code == 0 and "out: decoding images: 300 of 5,000" in early.output
    assert "the runs are listed when the images are ready" in early.output
    note.clear()
    assert call("status", tmp_path / "out").exit_code == 2


def test_a_console_outlives_its_reader() -> None:
    code = "from phoropter.console import make_console, print_line\nfor i in range(9): print_line(make_console(), 'x' * 99999)\n"
    code += "import sys; print('went on', file=sys.stderr)"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.close()
    assert process.wait(60) == 0 and process.stderr is not None
    with process.stderr:
        assert process.stderr.read() == "went on\n"


def test_backbones_are_listed_with_their_size() -> None:
    result = call("backbones", "alexnet*")
    assert re.search(r"alexnet_2012\s+62\.4 M", result.output) and re.search(r"alexnet\s+61\.1 M", result.output)


def test_studies_are_listed_with_their_source() -> None:
    result = call("studies")
    assert "attention-or-convolution" in result.output and "source:" in result.output


def test_doctor_names_versions() -> None:
    result = call("doctor")
    assert result.exit_code == 0 and "torch" in result.output and "cache" in result.output


def test_inspect_describes_what_lies_at_a_path(tmp_path: Path) -> None:
    from PIL import Image

    for kind, grey in (("cats", 20), ("dogs", 200)):
        (tmp_path / kind).mkdir()
        for i in range(3):
            Image.new("RGB", (9 + i, 9), (grey, i, 0)).save(tmp_path / kind / f"{i}.png")
    result = call("inspect", tmp_path)
    assert result.exit_code == 0 and "cats" in result.output and "6" in result.output


def test_inspect_of_a_study_with_parts_says_which_it_describes(tmp_path: Path) -> None:
    """A study of five collections was described by its first alone, without a word."""
    study = tmp_path / "parts.yaml"
    study.write_text(STUDY + "---\n" + STUDY.replace("tiny", "other").replace("max_samples: 120", "max_samples: 60"))
    first, other = call("inspect", study), call("inspect", study, "--part", "other")
    assert "120 pictures" in first.output and "the data of tiny, the first of 2 parts; --part NAME" in first.output
    assert "60 pictures" in other.output and "parts" not in other.output
    pictures = call("inspect", tmp_path, "--part", "other")
    assert pictures.exit_code == 2 and f"--part is of a study, and {tmp_path} is none" in pictures.output
    late = call("inspect", tmp_path / "gone", "--preview", "sheet.jpg")
    assert late.exit_code == 2 and "sheet.jpg: the preview should end in" in late.output, "told before anything is read"


def test_folds_writes_the_splits_of_a_study_and_a_study_of_them_gives_the_same_runs(tmp_path: Path) -> None:
    from phoropter.study.plan import plan_study
    from phoropter.study.spec import read_study

    study, again = tmp_path / "tiny.yaml", tmp_path / "again.yaml"
    study.write_text(STUDY)
    written = call("folds", study, "-o", tmp_path / "folds.csv")
    assert written.exit_code == 0 and "(2 splits)" in written.output, written.output
    again.write_text(STUDY.replace("{split: stratified-k-fold, folds: 2}", "{split: file, folds_file: folds.csv}"))
    first, second = (plan_study(read_study(file)[0]) for file in (study, again))
    for one, other in zip(first.runs, second.runs, strict=True):
        assert one.split.train.tolist() == other.split.train.tolist() and one.split.test.tolist() == other.split.test.tolist()


@pytest.mark.parametrize("word", ["Traceback", 'File "'])
def test_no_traceback_for_a_user_s_mistake(word: str) -> None:
    assert word not in call("plan", "nowhere.yaml").output


def test_code_in_a_study_file_runs_only_when_trusted(tmp_path: Path) -> None:
    study, out = tmp_path / "tiny.yaml", tmp_path / "out"
    study.write_text(STUDY + "metrics: [accuracy, metrics_of_this_test:HITS]\n")
    (tmp_path / "metrics_of_this_test.py").write_text(
        "import phoropter as ph\n"
        "def hits(labels, probabilities):\n    return float((probabilities.argmax(axis=1) == labels).mean())\n"
        "HITS = ph.Metric('hits', compute=hits, range=(0, 1))\n"
    )
    refused = call("plan", study, "-o", out)
    assert refused.exit_code == 2 and "--trust-code" in refused.output and len(refused.output.strip().splitlines()) == 1
    assert call("plan", study, "-o", out, "--trust-code").exit_code == 0
    ran = call("run", study, "-o", out, "--device", "cpu", "--trust-code")
    assert ran.exit_code == 0 and "hits" in ran.output, ran.output


def test_a_report_finds_the_code_of_a_metric_beside_the_study_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from phoropter.results.metrics import registry

    (tmp_path / "study").mkdir()
    (tmp_path / "elsewhere").mkdir()
    study, out = tmp_path / "study" / "tiny.yaml", tmp_path / "out"
    study.write_text(STUDY + "metrics: [accuracy, metrics_beside_this_study:HITS_BESIDE]\n")
    code = study.with_name("metrics_beside_this_study.py")
    code.write_text(
        "import phoropter as ph\n"
        "def hits(labels, probabilities):\n    return float((probabilities.argmax(axis=1) == labels).mean())\n"
        "HITS_BESIDE = ph.Metric('hits-beside', compute=hits, range=(0, 1))\n"
    )
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert call("run", study, "-o", out, "--device", "cpu", "--trust-code").exit_code == 0
    assert json.loads((out / "study.json").read_text())["study_folder"] == str(study.parent)

    other = shutil.copytree(out, tmp_path / "other")

    def call_without_the_module(*arguments: Any) -> str:
        sys.modules.pop("metrics_beside_this_study", None)
        registry._REGISTERED.pop("hits-beside", None)
        result = call(*arguments)
        assert result.exit_code == 0, result.output
        return result.output

    for command in (("report", out), ("compare", out, other, "-o", tmp_path / "against")):
        refused = call_without_the_module(*command)
        assert "the code of the metric 'hits-beside' (version 1) is not at hand" in refused and "--trust-code" in refused
        assert "metrics_beside_this_study" not in sys.modules  # the recorded folder is not trusted by itself
        assert "warning" not in call_without_the_module(*command, "--trust-code")
    code.unlink()
    gone = call_without_the_module("report", out, "--trust-code")
    assert "is not at hand" in gone and "cannot be imported" in gone


def test_a_bundle_with_a_network_of_the_user_s_own_predicts_only_when_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    study, out = tmp_path / "own.yaml", tmp_path / "out"
    study.write_text(
        STUDY[: STUDY.index("candidates:")] + "candidates:\n  - {name: own, backbone: network_of_this_test:NET, size: 32}\n"
    )
    (tmp_path / "network_of_this_test.py").write_text(
        "import phoropter as ph\n"
        "def build():\n"
        "    from torch import nn\n"
        "    return nn.Sequential(nn.Conv2d(3, 8, 5, stride=4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())\n"
        "NET = ph.Backbone('tiny-net', build=build, width=8, input_size=32)\n"
    )
    assert call("run", study, "-o", out, "--device", "cpu", "--trust-code").exit_code == 0
    (bundle,) = out.glob("runs/*/bundle")
    Image.fromarray(np.zeros((40, 40, 3), np.uint8)).save(tmp_path / "new.png")
    monkeypatch.delitem(sys.modules, "network_of_this_test")
    refused = call("predict", bundle, tmp_path / "new.png")
    assert refused.exit_code == 2 and "tiny-net" in refused.output and "trust" in refused.output, refused.output
    assert call("predict", bundle, tmp_path / "new.png", "--trust-code").exit_code == 0
    monkeypatch.delitem(sys.modules, "network_of_this_test")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert call("predict", bundle, tmp_path / "new.png", "--trust-code").exit_code == 0  # found beside the study file


def test_a_part_of_a_network_s_name_finds_it() -> None:
    listed = call("backbones", "mobilenetv1").output
    assert "mobilenetv1_100 " in listed and "mobilenetv2" not in listed


def test_a_plan_shows_the_time_of_each_candidate_and_names_few_that_would_compile(capsys: pytest.CaptureFixture[str]) -> None:
    from phoropter.console import _print_estimate, make_console
    from phoropter.study.cost import ResourceEstimate

    cost = ResourceEstimate(1.0, 0, 0, True, worth_compiling=tuple(f"network {n}" for n in range(25)))
    _print_estimate(make_console(), cost, 1, 1)
    assert "network 0, network 1, network 2 and 22 more" in capsys.readouterr().out
    assert "time left" in call("plan", "digits").output
