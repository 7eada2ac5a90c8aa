"""From a results folder to the evidence: what is kept, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from made_study import Made, make_study

from phoropter.core.errors import StoreError
from phoropter.core.files import digest_array
from phoropter.report import tables
from phoropter.report.evidence import Shares
from phoropter.report.names import Known
from phoropter.report.reading import calibrated, gather, roc
from phoropter.report.sweeps import sweep, values
from phoropter.results.store import Store

TWO = Made(
    accuracies={"a": 0.9, "b": 0.7}, classes=("x", "y"), rows=80, folds=2, seeds=(0, 1), pictures=0, epochs=2, validation=30
)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return make_study(tmp_path_factory.mktemp("two"), TWO)


def test_the_first_metric_of_the_study_ranks(tmp_path: Path) -> None:
    evidence = gather(make_study(tmp_path, replace(TWO, metrics=("roc_auc", "accuracy"))))
    assert evidence.metrics[:2] == ("roc_auc", "accuracy")
    assert [e.mean("roc_auc") for e in evidence.entrants] == sorted((e.mean("roc_auc") for e in evidence.entrants), reverse=True)
    assert evidence.entrants[0].replicates is not None
    assert evidence.entrants[0].replicates.estimate == pytest.approx(evidence.entrants[0].mean("roc_auc"))


def test_runs_on_the_same_rows_are_known_by_their_rows(store: Store) -> None:
    a, b = gather(store).entrants
    assert [line.rows for line in a.runs] == [line.rows for line in b.runs]
    assert len({line.rows for line in a.runs}) == 4


def test_a_roc_curve_passes_through_what_is_counted(store: Store) -> None:
    evidence = gather(store)
    curves, area = roc(store, evidence.entrants[0])
    assert area == pytest.approx(evidence.entrants[0].mean("roc_auc"))
    said = store.run(evidence.entrants[0].runs[0].key).predictions()
    assert said is not None and curves.shape == (4, 101)
    scores = said.probabilities[:, 1]
    for place in (5, 20, 70):
        alarms = place / 100
        negatives = np.sort(scores[said.labels == 0])[::-1]
        below, above = int(np.floor(alarms * len(negatives))), int(np.ceil(alarms * len(negatives)))
        least = np.mean(scores[said.labels == 1] > (negatives[below - 1] if below else 1.0))
        most = np.mean(scores[said.labels == 1] >= (negatives[above] if above < len(negatives) else 0.0))
        assert least - 1e-9 <= curves[0, place] <= most + 1e-9


def test_temperatures_come_from_rows_set_aside(store: Store) -> None:
    evidence = gather(store)
    found = calibrated(store, evidence.entrants[0])
    assert found is not None and 0.01 <= found.temperature <= 100 and 0 <= found.error < 0.5
    (store.run(evidence.entrants[1].runs[2].key).folder / "validation.npz").unlink()
    assert calibrated(store, evidence.entrants[1]) is None


def test_shares_add_up_over_runs() -> None:
    shares = Shares()
    shares.add(["g", "h"], np.array([0, 1, 0]), np.array([True, False, False]))
    shares.add(["g"], np.array([0]), np.array([True]))
    assert shares.rows == {"g": 3, "h": 1} and shares.share("g") == pytest.approx(2 / 3) and shares.share("h") == 0
    assert np.isnan(shares.share("unknown"))


def test_a_column_of_names_is_worked_out_once_and_right() -> None:
    known = Known()
    first, again = np.array(["b", "a", "b"]), np.array(["b", "a", "b"])
    assert known.units(first).tolist() == [0, 1, 0] and known.units(again) is known.units(first)
    assert known.units(np.array(["c", "a"])).tolist() == [2, 1] and known.seen == {"b": 0, "a": 1, "c": 2}
    names, member = known.parts(first)
    assert names == ["a", "b"] and member.tolist() == [1, 0, 1]
    assert known.digest(first) == digest_array(first) == known.digest(again) != known.digest(first[:2])


def test_a_spoilt_predictions_file_is_named(tmp_path: Path) -> None:
    store = make_study(tmp_path, TWO)
    folder = next(store.runs()).folder
    (folder / "predictions.npz").write_bytes(b"nothing")
    with pytest.raises(StoreError, match=folder.name):
        gather(store)


def test_a_missing_predictions_file_is_named(tmp_path: Path) -> None:
    store = make_study(tmp_path, TWO)
    folder = next(store.runs()).folder
    (folder / "predictions.npz").unlink()
    with pytest.raises(StoreError, match="is missing or has not 2 classes"):
        gather(store)


def test_a_candidate_without_runs_is_counted_not_shown(tmp_path: Path) -> None:
    made = replace(TWO, folds=1, seeds=(0,), missing=1)
    evidence = gather(make_study(tmp_path, made))
    assert [e.name for e in evidence.entrants] == ["a"] and evidence.absent == ["b"]


def test_a_metric_that_is_undefined_in_a_run_is_left_out_of_its_mean(tmp_path: Path) -> None:
    made = replace(TWO, rows=12, folds=6, seeds=(0,))
    evidence = gather(make_study(tmp_path, made))
    values = evidence.entrants[0].values("roc_auc")
    assert np.isnan(values).any(), "with two rows a fold some folds have one class"
    assert evidence.entrants[0].mean("roc_auc") == pytest.approx(np.nanmean(values)) or np.isnan(values).all()


def test_settings_of_a_sweep_become_curves(tmp_path: Path) -> None:
    names = {f"net · lowpass {k}": 0.7 + k / 100 for k in (0, 10, 20)}
    made = replace(TWO, accuracies=names, settings={n: {"data.lowpass": int(n.split()[-1])} for n in names}, validation=0)
    store = make_study(tmp_path, made)
    evidence = gather(store)
    assert {e.base for e in evidence.entrants} == {"net"}
    drawing = sweep(evidence, "data.lowpass")
    means = {e.settings["data.lowpass"]: e.mean("accuracy") for e in evidence.entrants}
    assert f"net from {means[0] * 100:.1f} % to {means[20] * 100:.1f} %" in drawing.alt
    assert "against lowpass" in drawing.caption
    table = values(evidence, "data.lowpass")
    assert [row.values[1] for row in table.rows] == ["0", "10", "20"]
    assert [row.values[2].mean for row in table.rows] == pytest.approx(list(dict(sorted(means.items())).values()))


def test_the_leaderboard_has_a_line_for_the_commonest_class(tmp_path: Path) -> None:
    evidence = gather(make_study(tmp_path, replace(TWO, rows=81, folds=1, seeds=(0,), classes=("x", "y", "z"))))
    board = tables.leaderboard(evidence)
    assert board.rows[-1].role == "baseline" and board.rows[-1].values[1] == pytest.approx(27 / 81)
