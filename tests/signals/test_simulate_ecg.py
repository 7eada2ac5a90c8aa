"""The ECG simulator: classes are learnable, less well across subjects than within; the truth is right; seeds reproduce arrays."""

from __future__ import annotations

import numpy as np
import pytest

from phoropter.core.errors import SpecError
from phoropter.core.spec import validate_as
from phoropter.signals.ecg import ecg_qrs_band, ecg_r_peaks
from phoropter.signals.recording import Recording
from phoropter.signals.simulate import EcgCohort, ecg_as_wesad, ecg_simulate, ecg_simulate_subject
from phoropter.signals.simulate_ecg import ornstein_uhlenbeck, sum_gaussians
from phoropter.signals.windows import WindowRule, WindowTable, sliding_windows

SHORT = EcgCohort(subjects=3, baseline_s=20, stress_s=10, amusement_s=5, between_s=2)


def test_the_same_seed_gives_the_same_arrays() -> None:
    for one, other in zip(ecg_simulate(SHORT), ecg_simulate(SHORT), strict=True):
        assert (one.samples == other.samples).all()
        assert one.spans == other.spans


def test_another_seed_site_or_subject_gives_others() -> None:
    arrays = [
        ecg_simulate_subject(SHORT, 1).samples,
        ecg_simulate_subject(SHORT, 2).samples,
        ecg_simulate_subject(SHORT.with_changes(seed=1), 1).samples,
        ecg_simulate_subject(SHORT.with_changes(site="other"), 1).samples,
    ]
    assert len({array.tobytes() for array in arrays}) == 4


def test_a_subject_does_not_depend_on_how_many_there_are() -> None:
    assert (ecg_simulate(SHORT)[1].samples == ecg_simulate_subject(SHORT, 2).samples).all()


def test_conditions_last_as_configured_with_baseline_first() -> None:
    recording = ecg_simulate_subject(SHORT, 1)
    assert recording.spans[0].label == "baseline"
    assert {s.label: (s.stop - s.start) / 700 for s in recording.spans} == {"baseline": 20, "stress": 10, "amusement": 5}
    assert recording.spans[0].start == 1400
    assert recording.length == (2 + 20 + 2 + 10 + 2 + 5 + 2) * 700


def test_stress_and_amusement_come_in_either_order() -> None:
    assert {ecg_simulate_subject(SHORT, number).spans[1].label for number in range(1, 12)} == {"stress", "amusement"}


def test_the_wesad_layout_holds_the_same_recording() -> None:
    recording = ecg_simulate_subject(SHORT, 1)
    held = ecg_as_wesad(recording)
    assert held["signal"]["chest"]["ECG"].shape == (recording.length, 1)
    assert held["signal"]["chest"]["ECG"].dtype == np.float64
    assert held["label"].dtype == np.int32
    assert np.bincount(held["label"], minlength=4).tolist() == [8 * 700, 20 * 700, 10 * 700, 5 * 700]


def test_detected_beats_are_the_true_ones() -> None:
    quiet = EcgCohort(subjects=3, baseline_s=60, stress_s=30, amusement_s=20, noise=False)
    for recording in ecg_simulate(quiet):
        found, true = ecg_r_peaks(ecg_qrs_band(recording.channel("ECG"), 700.0), 700.0) / 700, recording.truth["beat_s"]
        distance = np.abs(found[:, None] - true).min(axis=0)
        assert (distance <= 0.05).mean() >= 0.99
        assert abs(len(found) - len(true)) <= 2


def test_stress_raises_the_heart_rate_of_a_group() -> None:
    rises = []
    for recording in ecg_simulate(EcgCohort(subjects=12, baseline_s=60, stress_s=60, amusement_s=10)):
        beats = recording.truth["beat_s"]
        rate = {s.label: 60 / np.diff(beats[(beats > s.start / 700) & (beats < s.stop / 700)]).mean() for s in recording.spans}
        rises.append(rate["stress"] - rate["baseline"])
    assert 4 < np.mean(rises) < 16


def test_an_ornstein_uhlenbeck_process_has_its_standard_deviation_and_correlation_time() -> None:
    x = ornstein_uhlenbeck(np.random.default_rng(0), 200_000, 0.05, 2.0, 3.0)
    assert x.std() == pytest.approx(3.0, rel=0.1)
    assert np.corrcoef(x[:-40], x[40:])[0, 1] == pytest.approx(np.exp(-1), abs=0.06)


def test_gaussians_equal_their_formula() -> None:
    centre, sd, height = np.array([0.1, 0.5, 0.99]), np.array([0.02, 0.05, 0.03]), np.array([1.0, -2.0, 0.5])
    at = np.arange(100) / 100
    expected = sum(h * np.exp(-0.5 * ((at - c) / s) ** 2) for c, s, h in zip(centre, sd, height, strict=True))
    np.testing.assert_allclose(sum_gaussians(centre, sd, height, 100, 100.0), expected, atol=1e-3)


@pytest.mark.parametrize("cohort", [{"subjects": 0}, {"stress_s": 0}, {"rate_hz": -1}])
def test_impossible_cohorts_are_refused(cohort: dict[str, float]) -> None:
    with pytest.raises(SpecError):
        validate_as(EcgCohort, cohort)


def hand_made(recordings: list[Recording], table: WindowTable) -> np.ndarray:
    """Eight features of each window: heart rate and its variability, R and T height, muscle noise, spread, level."""
    rows = []
    peaks = [ecg_r_peaks(ecg_qrs_band(r.channel("ECG"), r.rate_hz), r.rate_hz) for r in recordings]
    for index, start, stop in zip(table.recording, table.start, table.stop, strict=True):
        ecg = recordings[index].channel("ECG")
        at = peaks[index][(peaks[index] >= start) & (peaks[index] < stop - 260)]
        rr, window = np.diff(at) / 700, ecg[start:stop]
        level = np.median(window)
        t_wave = np.median([ecg[i + 120 : i + 260].max() for i in at]) - level
        noise = np.median(np.abs(np.diff(window)))
        swing = np.sqrt(np.mean(np.diff(rr) ** 2))
        rows.append([60 / rr.mean(), rr.std(), swing, np.median(ecg[at]) - level, t_wave, noise, window.std(), level])
    return np.array(rows)


@pytest.mark.slow
def test_splitting_windows_at_random_overestimates_accuracy() -> None:
    """Mean of three seeds: LOSO AUC of a logistic regression in 0.70..0.92, a forest's gap in accuracy 0.10 or more."""
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import accuracy_score, roc_auc_score
    from sklearn.model_selection import GroupKFold, StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    aucs, gaps = [], []
    for seed in range(3):
        recordings = ecg_simulate(EcgCohort(seed=seed))
        task = {"baseline": "calm", "stress": "stress", "amusement": "calm"}
        table = sliding_windows(recordings, WindowRule(length_s=5, step_s=4), task)
        features, stress = hand_made(recordings, table), table.label == "stress"
        subjects = list(GroupKFold(15).split(features, stress, table.recording))
        shuffled = list(StratifiedKFold(5, shuffle=True, random_state=seed).split(features, stress))
        logistic, forest = make_pipeline(StandardScaler(), LogisticRegression()), RandomForestClassifier(30, random_state=0)
        aucs.append(
            roc_auc_score(stress, cross_val_predict(logistic, features, stress, cv=subjects, method="predict_proba")[:, 1])
        )
        within, across = (
            accuracy_score(stress, cross_val_predict(forest, features, stress, cv=cv)) for cv in (shuffled, subjects)
        )
        gaps.append(within - across)
    assert 0.70 <= np.mean(aucs) <= 0.92
    assert np.mean(gaps) >= 0.10
