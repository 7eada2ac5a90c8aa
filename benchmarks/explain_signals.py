"""Do maps along time lie where the event is? Simulated recordings whose truth is known, small networks trained to find the event.

`ecg`: windows of four seconds of the simulator's hearts at rest, half of them with one premature wide beat put in, as a trace.
`ctg`: births of the simulator with decelerations, and the same hospital with none; three channels in one plot, half an hour.

Of held-out windows that have the event and are classified rightly: the share of the map along time that lies in the event, beside
the share of time that the event takes (what a map of nothing would have), and the same with the map of another window. By the
layer that is chosen by itself, whose columns are coarse (a 32nd of the picture's side in pixels), and by earlier, finer ones.
Intervals are 95 % by the t distribution over windows; those of one person are counted as independent.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.explain import RESULTS, interval

import phoropter as ph
from phoropter.signals.recording import Recording
from phoropter.signals.simulate import CtgCohort, EcgCohort, ctg_simulate, ecg_simulate

SIDE = 128
WINDOW_S = 4.0
EVENT_S = (-0.12, 0.30)  # from the peak of the wide beat
LAYERS = (None, "layer3", "layer2")
Spans = dict[str, list[tuple[float, float]]]


def simulate_beats() -> tuple[list[Recording], Spans]:
    """Windows as recordings, labelled plain or wide, and where the wide beat is."""
    draw = np.random.default_rng(0)
    cohort = EcgCohort(subjects=12, rate_hz=100, baseline_s=100, stress_s=5, amusement_s=5, between_s=2)
    made, where = [], {}
    for person in ecg_simulate(cohort):
        beats = np.asarray(person.truth["beat_s"])
        for number, start in enumerate(np.arange(2.0, 98.0, WINDOW_S)):
            first = round(start * 100)
            samples = person.samples[:, first : first + round(WINDOW_S * 100)].copy()
            seconds, name = start + np.arange(samples.shape[1]) / 100, f"{person.id}-{number:02d}"
            inside = beats[(beats > start + 0.8) & (beats < start + WINDOW_S - 0.5)]
            if number % 2 and len(inside):
                peak = float(draw.choice(inside)) - 0.3
                samples[0] += 1.2 * np.exp(-(((seconds - peak) / 0.045) ** 2) / 2)
                samples[0] -= 0.5 * np.exp(-(((seconds - peak - 0.17) / 0.06) ** 2) / 2)
                where[name] = [(peak - start + EVENT_S[0], peak - start + EVENT_S[1])]
            label = "wide" if name in where else "plain"
            made.append(Recording(name, person.id, samples.astype(np.float32), ("ECG",), ("mV",), 100.0, label=label))
    return made, where


def simulate_births() -> tuple[list[Recording], Spans]:
    """Births labelled plain or decelerations, and where these are."""
    made, where = [], {}
    for gain, label in ((2.0, "decelerations"), (0.0, "plain")):
        cohort = CtgCohort(hospitals=1, swapped_hospitals=0, records=70, length_s=2400, deceleration_gain=gain)
        for birth in ctg_simulate(cohort):
            name = f"{label}-{birth.id}"
            spans = [(e.onset_s, e.onset_s + e.length_s) for e in birth.truth["events"] if e.depth < 0]
            if gain and sum(min(stop, 2400) - max(start, 600) for start, stop in spans if stop > 600) < 60:
                continue  # hardly any in the half hour that is shown
            where[name] = spans if gain else []
            made.append(replace(birth, id=name, subject=name, label=label))
    return made, where


def train_network(name: str, recordings: list[Recording], folder: Path) -> tuple[Any, list[Recording]]:
    """A network trained on two thirds of the people, and the recordings of the others."""
    options: dict[str, Any] = {"channel": "ECG", "representation": {"kind": "trace", "size": SIDE}}
    options["window"] = {"length_s": WINDOW_S, "step_s": WINDOW_S}
    if name == "ctg":
        options = {"clean": {"window": {"max_missing": 1.0}}, "representation": {"kind": "ctg", "size": SIDE}}
    study = ph.Study(
        name=name,
        data=ph.from_recordings(recordings, size=SIDE, **options),
        protocol={"split": "hold-out", "test_size": 0.33},
        candidates=[{"name": "net", "backbone": "test_resnet", "weights": "random", "size": SIDE}],
        recipe={"preset": "scratch", "epochs": 15, "batch_size": 16},
        metrics=["accuracy"],
        save_models="first",
    )
    run = study.run(folder / name, device="cpu", quiet=True).runs[0]
    held_out = run.load_predictions()
    print(name, len(recordings), "windows, accuracy", round(run.record["metrics"]["accuracy"], 3), flush=True)
    people = set(held_out.groups.tolist())
    return ph.load(run.bundle_folder), [r for r in recordings if r.subject in people]


def measure_shares(name: str, folder: Path) -> Iterator[dict[str, Any]]:
    recordings, where = simulate_beats() if name == "ecg" else simulate_births()
    event = "wide" if name == "ecg" else "decelerations"
    model, held_out = train_network(name, recordings, folder)
    with_event = [r for r in held_out if r.label == event]
    for layer in LAYERS:
        found = model.explain([replace(r, label=None) for r in with_event], target=event, layer=layer, device="cpu")
        right = [e for e in found if e.predicted == e.target and e.map.any()]
        masks = [mark_event(e, where[e.window.recording]) for e in right]
        chance = [float(m.mean()) for m in masks]
        share = [share_inside(e.time_map, m) for e, m in zip(right, masks, strict=True)]
        other = [share_inside(right[i - 1].time_map, m) for i, m in enumerate(masks)]
        yield {
            "recordings": name,
            "layer": layer or "by itself",
            "windows": len(right),
            "without evidence": sum(e.predicted == e.target and not e.map.any() for e in found),
            "share in the event": interval(share),
            "share of time": interval(chance),
            "difference": interval(np.subtract(share, chance)),
            "another window's map": interval(other),
        }


def mark_event(explanation: Any, spans: list[tuple[float, float]]) -> Any:
    """(n,) whether a sample of the window lies in one of the spans."""
    seconds = explanation.time_s
    return np.any([(seconds >= start) & (seconds < stop) for start, stop in spans], axis=0)


def share_inside(along: Any, mask: Any) -> float:
    return float(along[mask].sum() / along.sum())


def main(names: list[str]) -> None:
    for name in names or ["ecg", "ctg"]:
        with tempfile.TemporaryDirectory() as folder:
            rows = []
            for row in measure_shares(name, Path(folder)):
                rows.append(row)
                print(json.dumps(row), flush=True)
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"explain_{name}.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
