"""Sources of recordings: databases, manifests and simulations become datasets; each is recognised by its files."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from phoropter.core.errors import DataError, SpecError
from phoropter.core.spec import validate_as
from phoropter.data.dataset import Dataset
from phoropter.data.inspect import detect_data_spec
from phoropter.data.recordings.dataset import render_recordings
from phoropter.data.recordings.in_memory import from_recordings
from phoropter.data.recordings.views import CtgView
from phoropter.data.spec import DataSpec, open_dataset
from phoropter.signals.recording import Recording
from phoropter.signals.render import CtgPlot
from phoropter.signals.simulate import EcgCohort, ecg_as_wesad, ecg_simulate


def test_a_task_gives_its_classes_in_their_order(people_cohort: EcgCohort) -> None:
    dataset = open_dataset(
        validate_as(DataSpec, {"simulate": "ecg", "cohort": people_cohort.plain(), "task": "2-class", "size": 32})
    )
    assert dataset.classes == ("non-stress", "stress") and dataset.class_counts.tolist() == [51, 27]


def test_a_dataset_travels_to_another_process(people_cohort: EcgCohort) -> None:
    for spec in ({"cohort": people_cohort.plain()}, {"cohort": people_cohort.plain(), "grey_scale": "per-subject"}):
        dataset = open_dataset(validate_as(DataSpec, {"simulate": "ecg", "size": 32, **spec}))
        sent = pickle.dumps(dataset)
        assert len(sent) < 100_000  # the way to the samples, not the samples
        came: Dataset = pickle.loads(sent)  # noqa: S301  our own
        assert came.fingerprint == dataset.fingerprint
        np.testing.assert_array_equal(came.read(9), dataset.read(9))


def test_wesad_becomes_a_dataset(tmp_path: Path, people_cohort: EcgCohort) -> None:
    cohort = people_cohort.with_changes(rate_hz=700.0)
    for number, recording in enumerate(ecg_simulate(cohort), start=2):
        session = ecg_as_wesad(recording) | {"subject": f"S{number}"}
        (tmp_path / f"S{number}").mkdir()
        (tmp_path / f"S{number}" / f"S{number}.pkl").write_bytes(pickle.dumps(session, protocol=2))
    spec = detect_data_spec(tmp_path)
    assert spec.source == "wesad"
    dataset = open_dataset(spec.with_changes(size=32))
    assert dataset.classes == ("baseline", "stress", "amusement") and dataset.class_counts.tolist() == [39, 27, 12]
    assert set(dataset.groups) == {"S2", "S3", "S4"}  # type: ignore[arg-type]


def listed(folder: Path, recordings: list[Recording], ending: str = "csv") -> Path:
    """A manifest and a file for each recording."""
    lines = ["path,rate_hz,subject,site,label,outcome.pH"]
    for r in recordings:
        rows = "\n".join(",".join(f"{v:.9g}" for v in moment) for moment in r.samples.T)
        (folder / f"{r.id}.{ending}").write_text(f"{','.join(r.channels)}\n{rows}\n")
        lines.append(f"{r.id}.{ending},{r.rate_hz:g},{r.subject},{r.site},{r.label or ''},{r.outcome.get('pH', '')}")
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n")
    return folder / "manifest.csv"


def test_a_manifest_becomes_a_dataset_and_equals_the_recordings_themselves(tmp_path: Path, births: list[Recording]) -> None:
    spec = detect_data_spec(listed(tmp_path, births))
    assert spec.source == "recordings"
    dataset = open_dataset(spec.with_changes(outcome="pH<=7.25", size=32))
    direct = render_recordings(births, CtgView(outcome="pH<=7.25", representation=CtgPlot(size=32)))
    assert dataset.ids.tolist() == direct.ids.tolist() and dataset.labels.tolist() == direct.labels.tolist()
    assert dataset.content_digest == direct.content_digest


def test_a_file_that_changes_is_read_again(tmp_path: Path, births: list[Recording]) -> None:
    spec = detect_data_spec(listed(tmp_path, births)).with_changes(outcome="pH<=7.25", size=32)
    before = open_dataset(spec).content_digest
    assert open_dataset(spec).content_digest == before
    listed(tmp_path, [replace(births[0], samples=births[0].samples + 1), *births[1:]])
    assert open_dataset(spec).content_digest != before


def test_several_channels_require_a_choice(tmp_path: Path, people: list[Recording]) -> None:
    two = [replace(r, samples=np.repeat(r.samples, 2, axis=0), channels=("I", "II"), units=("", "")) for r in people]
    manifest = listed(tmp_path, [replace(r, spans=(), label="ab"[i % 2]) for i, r in enumerate(two)])
    with pytest.raises(DataError, match="the channels I or II: choose one with channel: I, or write I into a column channels"):
        open_dataset(validate_as(DataSpec, {"recordings": manifest}))
    assert len(open_dataset(validate_as(DataSpec, {"recordings": manifest, "channel": "II", "window": {"step_s": 5}}))) > 3


def test_labels_in_some_rows_only_are_refused_where_they_make_the_classes(tmp_path: Path, births: list[Recording]) -> None:
    halves = [replace(r, label="ab"[i % 2] if i > 2 else None) for i, r in enumerate(births)]
    data = {"recordings": listed(tmp_path, halves), "size": 32}
    sentence = rf"manifest\.csv line 2: the label is empty here and given elsewhere \(3 of {len(births)} recordings have none\)"
    with pytest.raises(DataError, match=f"{sentence}; give every recording a label or spans, or set on_bad_input: skip"):
        open_dataset(validate_as(DataSpec, data))
    kept = open_dataset(validate_as(DataSpec, {**data, "on_bad_input": "skip"}))
    assert kept.recordings is not None and set(kept.recordings) <= {r.id for r in births[3:]}
    assert f"3 of {len(births)} recordings have no label" in kept.notes
    by_outcome = open_dataset(validate_as(DataSpec, {**data, "outcome": "pH<=7.25"}))  # which reads no label
    assert by_outcome.recordings is not None and {r.id for r in births[:3]} & set(by_outcome.recordings)


def test_labels_of_some_exports_only_are_refused(tmp_path: Path) -> None:
    for n in range(3):
        rows = "\n".join(f"{i * 40},{i % 7}" for i in range(300))
        (tmp_path / f"bed{n}.csv").write_text(f"time [ms],II [mV]\n{rows}\n")
    (tmp_path / "manifest.csv").write_text("path,label,subject\nbed0.csv,stable,p\nbed1.csv,worse,q\nbed2.csv,,r\n")
    with pytest.raises(DataError, match=r"line 4: the label is empty here and given elsewhere \(1 of 3 recordings have none\)"):
        open_dataset(validate_as(DataSpec, {"monitor_csv": tmp_path, "size": 32}))


def test_a_folder_of_an_unknown_database_needs_a_manifest(tmp_path: Path) -> None:
    (tmp_path / "rec01.edf").touch()
    with pytest.raises(DataError, match="recordings of no known database; list them in a manifest"):
        detect_data_spec(tmp_path)


def test_ptbxl_becomes_a_dataset_with_the_official_parts(tmp_path: Path, write_ptbxl: Callable[..., Path]) -> None:
    codes = ("NORM", "IMI", "NDT", "CLBBB", "LVH")
    rows = {n: (str(100 + n // 2), "0.0", f"{{'{codes[n % 5]}': 100.0}}", (3, 9, 10)[n % 3]) for n in range(10)}
    spec = detect_data_spec(write_ptbxl(tmp_path, {**rows, 10: ("1", "0.0", "{'SR': 0.0}", 1)}))
    assert spec.source == "ptbxl"
    dataset = open_dataset(spec.with_changes(size=32))
    assert dataset.classes == ("NORM", "MI", "STTC", "CD", "HYP") and dataset.labels.tolist() == [0, 1, 2, 3, 4] * 2
    assert dataset.parts is not None and dataset.parts.tolist() == [("train", "val", "test")[n % 3] for n in range(10)]
    assert dataset.groups is not None and set(dataset.groups) == {"100", "101", "102", "103", "104"}
    assert "left out: 1 of 11 records (no diagnostic statement)" in dataset.notes
    assert any("10 recordings of 5 patients" in note for note in dataset.notes)
    finer = open_dataset(validate_as(DataSpec, {"ptbxl_500hz": tmp_path, "size": 32}))
    assert finer.ids.tolist() == dataset.ids.tolist() and finer.content_digest != dataset.content_digest


def test_ptbxl_gives_a_record_all_its_superclasses_where_the_key_says_so(
    tmp_path: Path, write_ptbxl: Callable[..., Path]
) -> None:
    codes = ("{'NORM': 100.0, 'SR': 0.0}", "{'IMI': 100.0, 'NDT': 15.0}", "{'CLBBB': 100.0, 'LVH': 100.0, 'IMI': 0.0}")
    rows = {n: (str(100 + n), "0.0", codes[n % 3], 1) for n in range(9)} | {9: ("1", "0.0", "{'SR': 0.0}", 1)}
    root = write_ptbxl(tmp_path, rows)
    dataset = open_dataset(validate_as(DataSpec, {"ptbxl": root, "multi_label": True, "size": 32}))
    assert dataset.classes == ("NORM", "MI", "STTC", "CD", "HYP")
    assert dataset.labels.tolist() == [[1, 0, 0, 0, 0], [0, 1, 1, 0, 0], [0, 1, 0, 1, 1]] * 3
    assert "left out: 1 of 10 records (no diagnostic statement)" in dataset.notes
    for keys, message in (
        ({"task": "superclass"}, "'task' makes one class of each"),
        ({"multi_label": {"none": "x"}}, "has keys"),
    ):
        with pytest.raises(SpecError, match=message):
            validate_as(DataSpec, {"ptbxl": root, "multi_label": True, **keys})
    with pytest.raises(SpecError, match=r"'multi_label' belongs to .* does nothing for 'mitdb'"):
        validate_as(DataSpec, {"mitdb": root, "multi_label": True})


def test_recordings_of_a_manifest_may_have_several_labels() -> None:
    noise = np.random.default_rng(0).normal(size=(4, 1, 500)).astype("f4")
    made = [Recording(f"r{n}", f"p{n}", noise[n], ("II",), ("mV",), 100.0) for n in range(4)]
    labels = ["AF|PVC", "none", "PVC", "AF"]
    dataset = from_recordings(made, labels=labels, multi_label=True, window={"length_s": 2.5, "step_s": 2.5}, size=32)
    assert dataset.classes == ("AF", "PVC")
    assert dataset.labels.tolist() == [labels for labels in ([1, 1], [0, 0], [0, 1], [1, 0]) for _ in range(2)]
    with pytest.raises(DataError, match=r"r1: the labels are 'none\|AF'"):
        from_recordings(made, labels=["AF", "none|AF", "PVC", "AF"], multi_label=True, size=32)
    with pytest.raises(ValueError, match=r"write `a\|b` in the label of a recording"):
        from_recordings(made, labels=labels, multi_label={"columns": ["AF", "PVC"]}, size=32)


def test_exports_of_a_monitor_become_a_dataset(tmp_path: Path) -> None:
    lines = ["path,label,subject,site"]
    for n in range(4):
        values = np.random.default_rng(n).normal(size=(300, 2))
        rows = "\n".join(f"{i * 40},{a:.4f},{b:.4f}" for i, (a, b) in enumerate(values))
        (tmp_path / f"bed{n}.csv").write_text(f"time [ms],II [mV],Pleth [nu]\n{rows}\n")
        lines.append(f"bed{n}.csv,{('stable', 'deteriorating')[n % 2]},p{n // 2},ICU-{n % 2}")
    (tmp_path / "manifest.csv").write_text("\n".join(lines) + "\n")
    spec = detect_data_spec(tmp_path)
    assert spec.source == "monitor_csv"
    dataset = open_dataset(spec.with_changes(channel="Pleth", size=32, representation={"kind": "trace", "size": 32}))
    assert dataset.classes == ("deteriorating", "stable") and dataset.class_counts.tolist() == [8, 8]  # 12 s: 4 windows each
    assert set(dataset.groups) == {"p0", "p1"} and set(dataset.sites) == {"ICU-0", "ICU-1"}  # type: ignore[arg-type]
    with pytest.raises(DataError, match="have the channels II or Pleth: choose one with channel"):
        open_dataset(spec)
    named = {"channel": "Pleth", "size": 32, "representation": {"kind": "trace", "size": 32}}
    by_file = {"monitor_csv": (tmp_path / "manifest.csv").rename(tmp_path / "ward.csv"), **named}
    rows = np.arange(16)
    assert open_dataset(validate_as(DataSpec, by_file)).pictures.identity(rows) == dataset.pictures.identity(rows)
    with pytest.raises(DataError, match=r"there is no folder .*nowhere: check the path"):
        open_dataset(validate_as(DataSpec, {"monitor_csv": tmp_path / "nowhere", **named}))


def test_a_missing_database_says_where_it_can_be_had(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"there is no folder .*; mitdb is MIT-BIH arrhythmia from physionet\.org"):
        open_dataset(validate_as(DataSpec, {"mitdb": tmp_path / "nowhere"}))
