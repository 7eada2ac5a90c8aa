"""benchmarks/: what of them can be tested without measuring anything."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
NAMES = tuple(path.stem for path in BENCHMARKS.glob("*.py"))
# Stands for timm's train.py: notes what it was asked, and how many pictures of how many classes it was given.
STAND_IN = """
import json, sys
from pathlib import Path
asked = sys.argv[1:]  # --device
root = Path(asked[asked.index("--data-dir") + 1])
count = {part: [len(list((root / part).rglob("*.jpg"))), len(list((root / part).iterdir()))] for part in ("train", "validation")}
with (Path(__file__).parent / "asked").open("a") as notes:
    notes.write(json.dumps([asked, count]) + "\\n")
"""


@pytest.fixture(autouse=True)
def benchmarks(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield
    for name in NAMES:
        sys.modules.pop(name, None)


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """A benchmark's other side over 64 pictures, which starts a stand-in for timm's script without timm."""
    import _timm_script
    from _pictures import CLASSES, folder_of

    monkeypatch.setattr(_timm_script, "START", _timm_script.START.replace(_timm_script.LOADABLE, ""))
    monkeypatch.delenv("PHOROPTER_TEST_DATA", raising=False)
    (tmp_path / "train.py").write_text(STAND_IN)
    folder = folder_of("none.tar", 64, (8, 8), tmp_path / "pictures")
    file = _timm_script.script_in(tmp_path)
    return _timm_script.Script(file, "vit_tiny_patch16_224", 96, 32, CLASSES, folder, tmp_path / "timm")


def test_timms_script_is_shown_one_batch_and_then_that_batch_and_the_pictures(script: Any) -> None:
    script.epoch()
    (long, more), (short, one) = (json.loads(line) for line in (script.file.parent / "asked").read_text().splitlines())
    assert (more["train"], one["train"]) == ([64 + 32, 10], [32, 10])
    assert more["validation"] == one["validation"] == [1, 1]
    assert [a for a, b in zip(long, short, strict=True) if a != b] == [str(script.at / "long")]
    assert {"--model-kwargs", "img_size=96", "adamw", "cpu"} <= set(long)


def test_timms_script_that_stops_is_told_in_one_sentence(script: Any) -> None:
    script.file.write_text("import sys  # --device\nprint('first', file=sys.stderr)\nsys.exit('no such network')\n")
    with pytest.raises(SystemExit, match=r"expected to train vit_tiny_patch16_224 and stopped with 'no such network'; check out"):
        script.epoch()


def test_what_is_no_checkout_is_refused_in_one_sentence(tmp_path: Path) -> None:
    from _timm_script import script_in

    with pytest.raises(SystemExit, match=r"--timm .*: expected a checkout .* there is no .*train\.py; give the folder"):
        script_in(tmp_path)
    (tmp_path / "train.py").write_text("an old one")
    with pytest.raises(SystemExit, match="takes --device, and this one is older; check out"):
        script_in(tmp_path)


def test_rows_are_told_as_they_come_and_kept_when_all_are_there(monkeypatch: Any, tmp_path: Path, capsys: Any) -> None:
    import _sides

    monkeypatch.setattr(_sides, "RESULTS", tmp_path)

    def rows() -> Any:
        yield _sides.row("one", _sides.Turns((1.0, 2.0, 4.0), (2.0, 6.0, 4.0)), 1.5, 10, "pictures")
        assert "one" in capsys.readouterr().out and not list(tmp_path.iterdir())
        yield _sides.figure("two", [0.5], None, "1 GiB", "2 GiB", shown=3)

    _sides.write("some", rows())
    one, two = json.loads((tmp_path / "some.json").read_text())
    assert (one["ratio"], one["spread"], one["ours"], one["theirs"]) == (2.0, [1.0, 3.0], "5.0 pictures/s", "2.5 pictures/s")
    assert (two["ratio"], two["goal"], two["shown"]) == (0.5, None, 3)


def test_fixed_views_are_what_is_measured(tmp_path: Path) -> None:
    """Not the preset a frozen candidate has where its entry names none."""
    import torch

    import features_once
    import fixed_views

    (task, *others) = features_once.tasks(110, tmp_path, tmp_path, **fixed_views.RECIPE)
    assert len(others) == 29 and task.candidate.stores_features
    assert (task.candidate.recipe.n_cached_views, task.candidate.recipe.total_epochs, task.candidate.recipe.batch_size) == (
        8,
        20,
        64,
    )
    pictures = torch.from_numpy(task.pixels.batch(task.split.train[:6]))
    shown, labels = next(iter(fixed_views.fresh(pictures, torch.arange(6))))
    assert shown.shape == (6, 3, 96, 96) and sorted(labels.tolist()) == list(range(6))
    assert -1 <= shown.min() < 0 < shown.max() <= 1


def test_how_many_times_longer_a_cached_epoch_takes_is_said_the_right_way_round() -> None:
    import distil

    turns = [{"plain": 1.0, "cached": 1.1}, {"plain": 2.0, "cached": 2.0, "live": 40.0}, {"plain": 1.0, "cached": 1.2}]
    cached, live = (distil.ratio("a claim", 1.05, turns, name, "plain") for name in ("cached", "live"))
    assert (cached["ratio"], cached["spread"], live["ratio"]) == (1.1, [1.0, 1.2], 20.0)
    assert (live["ours"], live["theirs"]) == ("40.000 s an epoch", "2.000 s an epoch")


def test_coverage_is_measured_and_written_as_json_and_as_a_table(tmp_path: Path, capsys: Any) -> None:
    import interval_coverage

    interval_coverage.main(["--quick", "--output", str(tmp_path)])
    cells = json.loads((tmp_path / "interval_coverage_quick.json").read_text())
    assert len(capsys.readouterr().out.splitlines()) == len(cells) == 40
    exact = {(c["truth"], c["size"]): c for c in cells if c["kind"] == "rows"}
    # 20 rows at 0.9: Wilson's interval holds 0.9 for 16 to 19 right answers, and 20 of 20 has Clopper and Pearson's
    assert exact[0.9, 20]["coverage"] == pytest.approx(0.9568, abs=1e-4)
    assert all(0.8 <= c["coverage"] <= 1 and 0 < c["width"] < 2 for c in cells)
    table = (tmp_path / "interval_coverage_quick.md").read_text()
    assert "| independent rows | 20 | 60 |" in table and "| groups of 20 rows | 3 | 10 |" in table


def test_the_bias_of_small_parts_is_measured_and_shown() -> None:
    import estimand_bias

    small, large = (estimand_bias.measure_bias("macro_f1", 0.5, m, 60) for m in (1, 50))
    assert small.averaged < -0.02 and abs(large.averaged) < 0.02 and abs(large.pooled) < 0.02
    assert "| macro_f1, rarer class 50% |" in estimand_bias.bias_table([small, large])
    plain, debiased = map(float, estimand_bias.measure_calibration(0.0, 120, 0, 40).partition(" (")[0].split(" / "))
    assert 0.05 < plain < 0.12 and debiased < plain


def test_the_exponent_of_growth_is_found_beside_a_fixed_cost() -> None:
    from growth import LIMIT, Cost, find_last_exponent, find_quickest, fit_growth

    sizes = (100.0, 1_000.0, 10_000.0, 100_000.0)
    for exponent in (0.5, 1.0, 1.5, 2.0):
        found = fit_growth(sizes, [2 + 20 * (n / sizes[-1]) ** exponent for n in sizes])
        assert found.exponent == pytest.approx(exponent, abs=0.02) and found.fixed == pytest.approx(2, rel=0.05)
    assert fit_growth(sizes, [3.0, 3.1, 2.9, 3.05]).exponent == 0 == fit_growth(sizes, [0.41, 0.42, 0.36, 0.33]).exponent
    assert find_quickest([Cost(2, 1.5, 7), Cost(3, 1, 9)]) == Cost(2, 1, 9)
    assert find_last_exponent([10, 100, 10_000], [1.0, 5.0, 500.0]).exponent == pytest.approx(1)
    for factor in (1e-6, 1e-5, 1e-3):
        assert 1.05 < fit_growth(sizes, [1 + factor * n * np.log(n) for n in sizes]).exponent <= LIMIT


def test_each_side_is_given_the_same_pictures_to_train_on_and_to_judge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from _pictures import folder_of
    from end_to_end import lay_out_parts

    monkeypatch.delenv("PHOROPTER_TEST_DATA", raising=False)
    lay_out_parts(folder_of("none.tar", 100, (8, 8), tmp_path / "pictures"), tmp_path)

    def names(part: str) -> set[str]:
        return {f"{file.parent.name}/{file.name}" for file in (tmp_path / part).rglob("*.jpg")}

    assert names("ours/train") == names("theirs/train") and names("ours/test") == names("theirs/validation")
    assert (len(names("ours/train")), len(names("ours/test"))) == (80, 20)
    assert len({name.partition("/")[0] for name in names("ours/test")}) == 10


def test_a_counted_command_tells_its_own_processor_seconds(tmp_path: Path) -> None:
    from _sides import run_counted

    work = "import os, sys, time\nwhile time.process_time() < 0.5: pass\nprint(os.getcwd()); sys.exit(3)"
    done, seconds = run_counted([sys.executable, "-c", work], cwd=tmp_path)
    assert done.returncode == 3 and Path(done.stdout.strip()) == tmp_path.resolve() and seconds >= 0.5


def test_one_thread_is_what_the_libraries_read(monkeypatch: pytest.MonkeyPatch) -> None:
    import _sides

    started: list[dict[str, str]] = []
    monkeypatch.setattr(_sides.os, "execve", lambda program, arguments, environment: started.append(dict(environment)))
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    for name in names:
        monkeypatch.setenv(name, "2")
    _sides.one_thread("benchmark.py")
    assert [[environment[name] for name in names] for environment in started] == [["1", "1", "1"]]
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert ", 1 of " in _sides.machine()
