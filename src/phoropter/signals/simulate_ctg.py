"""Simulated cardiotocograms from several hospitals with known truth: severity, every deceleration, the trace before artefacts.

A latent risk z changes the heart rate (less variability, fewer accelerations, late decelerations, a terminal bradycardia) and
the outcome. Late and early decelerations have the same shape and differ only in their timing against the contractions, so a model
must use both channels. Hospitals have two kinds of devices. In the training hospitals the device correlates with the prevalence;
in the unseen ones the correlation is reversed, so a model that recognises the device does well in cross-validation and fails
there.

The shape of a deceleration, the length of gaps and the spread of case mixes are our choice. Values are in bpm and arbitrary
units, times in seconds, unless the name says otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt

from phoropter.core.seeds import named_generator
from phoropter.core.spec import Spec
from phoropter.signals.outcomes import OUTCOME_CLASSES
from phoropter.signals.recording import Recording
from phoropter.signals.simulate_ecg import ornstein_uhlenbeck, sum_gaussians

Floats = NDArray[np.float64]

RATE_HZ = 4.0

_INTERCEPT = -2.85  # prevalence about 15 % over all hospitals


class CtgMonitor(NamedTuple):
    """How a cardiotocograph distorts the true signals."""

    step_bpm: float
    smoothing: int  # samples
    noise_bpm: float
    resting_uc: tuple[float, float]  # UC between contractions
    gain: float


_MONITORS = {"A": CtgMonitor(0.25, 1, 0.7, (4, 12), 1.15), "B": CtgMonitor(1.0, 5, 0.35, (18, 30), 0.8)}
_KIND_LOGIT = {"university": 0.7, "private": -0.9}


class CtgEvent(NamedTuple):
    """One acceleration, deceleration or contraction; depth is positive upwards."""

    kind: str
    onset_s: float
    length_s: float
    depth: float


class CtgCohort(Spec):
    """How many hospitals, births in each, and seconds of each record.

    hospitals: number of training hospitals
    swapped_hospitals: number of further hospitals, unseen-1 …, whose devices are swapped
    records: births in each hospital
    length_s: seconds of each record
    seed: of all random numbers
    deceleration_gain: multiplies the depth of decelerations
    """

    hospitals: NonNegativeInt = 6
    swapped_hospitals: NonNegativeInt = 2
    records: PositiveInt = 150
    length_s: float = Field(3600.0, ge=600)
    seed: int = 0
    deceleration_gain: NonNegativeFloat = 1.0  # real traces near delivery correspond to about 2


@dataclass(frozen=True)
class Hospital:
    """A hospital with its patients and its devices."""

    name: str
    kind: Literal["university", "private"]
    device: Literal["A", "B"]
    logit: float  # added to the logit of a bad outcome
    case_mix: float  # mean of z
    bias_bpm: float
    dropout: float  # median share of a record that is lost
    miscounts: float  # median number of stretches with half or double rate in a record's hour


def ctg_simulate(cohort: CtgCohort | None = None) -> list[Recording]:
    """All births of all hospitals, "hospital-1" … and "unseen-1" …; equal cohorts give equal arrays."""
    cohort = cohort or CtgCohort()
    return [ctg_simulate_birth(cohort, site, number) for site in ctg_hospitals(cohort) for number in range(1, cohort.records + 1)]


def ctg_hospitals(cohort: CtgCohort) -> list[Hospital]:
    """The cohort's hospitals, university and private in turn; devices are swapped in the unseen ones."""
    names = [f"hospital-{i + 1}" for i in range(cohort.hospitals)] + [f"unseen-{i + 1}" for i in range(cohort.swapped_hospitals)]
    sites = []
    for place, name in enumerate(names):
        rng = named_generator(cohort.seed, "ctg-hospital", name)
        swapped = place >= cohort.hospitals
        kind: Literal["university", "private"] = "private" if (place - swapped * cohort.hospitals) % 2 else "university"
        sites.append(
            Hospital(
                name,
                kind,
                "A" if (kind == "university") != swapped else "B",
                logit=_KIND_LOGIT[kind] + float(rng.normal(0, 0.25)),
                case_mix=float(rng.normal(0, 0.1)),
                bias_bpm=float(rng.normal(0, 2.5)),
                dropout=float(0.14 * np.exp(rng.normal(0, 0.2))),
                miscounts=float(2.0 * np.exp(rng.normal(0, 0.4))),
            )
        )
    return sites


def ctg_simulate_birth(cohort: CtgCohort, site: Hospital, number: int) -> Recording:
    """One birth: FHR and UC at 4 Hz, outcome as in CTU-UHB. `truth`: z, severity, events, device, trace (undistorted FHR)."""
    name = f"{site.name}-{number:04d}"
    rng = named_generator(cohort.seed, "ctg", site.name, number)
    z = float(rng.normal(site.case_mix, 1))
    severity = float(_sigmoid(1.4 * z - 0.4))
    n = round(cohort.length_s * RATE_HZ)
    contractions = _draw_contractions(rng, cohort.length_s)
    events = [*_draw_accelerations(rng, severity, cohort.length_s), *_draw_decelerations(rng, severity, contractions, cohort)]
    trace = _simulate_heart_rate(rng, severity, n)
    for event in events:
        add_event(trace, event)
    device = _MONITORS[site.device]
    samples = np.stack([_measure_heart_rate(rng, trace, site, device), _measure_contractions(rng, contractions, n, device)])
    outcome = _draw_outcome(rng, z, severity, site)
    return Recording(
        name,
        name,
        samples.astype(np.float32),
        ("FHR", "UC"),
        ("bpm", "nd"),
        RATE_HZ,
        site=site.name,
        label=OUTCOME_CLASSES[int(outcome["Apgar1"] <= 6)],
        outcome=outcome,
        truth={"z": z, "severity": severity, "events": tuple(contractions + events), "trace": trace, "device": site.device},
    )


# --- the child ----------------------------------------------------------------------------------------------------------


def _simulate_heart_rate(rng: np.random.Generator, severity: float, n: int) -> Floats:
    """The heart rate between events: base, drift, long-term variability (half of it a wave of 0.06 Hz)."""
    base = rng.normal(135 + 5 * severity, 9)
    amplitude = 4.6 * np.exp(-0.5 * severity + rng.normal(0, 0.35))
    wave = np.sin(2 * np.pi * 0.06 * np.arange(n) / RATE_HZ + rng.uniform(0, 2 * np.pi))
    variability = amplitude * (ornstein_uhlenbeck(rng, n, 1 / RATE_HZ, 9.0, 1.0) + wave) / np.sqrt(2)
    return np.asarray(base + ornstein_uhlenbeck(rng, n, 1 / RATE_HZ, 400.0, 2.5) + variability)


def _draw_accelerations(rng: np.random.Generator, severity: float, length_s: float) -> list[CtgEvent]:
    count = rng.poisson((3 - 2 * severity) * length_s / 1800)
    return [CtgEvent("acceleration", rng.uniform(0, length_s), rng.uniform(20, 45), rng.uniform(15, 28)) for _ in range(count)]


def _draw_decelerations(
    rng: np.random.Generator, severity: float, contractions: list[CtgEvent], cohort: CtgCohort
) -> list[CtgEvent]:
    """At most one deceleration after each contraction, and perhaps a final bradycardia."""
    events = []
    for contraction in contractions:
        peak = contraction.onset_s + contraction.length_s / 2
        length, depth = rng.uniform(50, 95), (rng.uniform(12, 30) + 8 * severity) * cohort.deceleration_gain
        onset, (late, variable, early) = rng.uniform(8, 25), rng.random(3)
        sharp = rng.uniform(-20, 15), rng.uniform(20, 55), rng.uniform(20, 45) * cohort.deceleration_gain
        if late < _sigmoid(-3 + 3.6 * severity):
            events.append(CtgEvent("late", peak + onset, length, -depth))
        elif variable < 0.12 + 0.18 * severity:
            events.append(CtgEvent("variable", peak + sharp[0], sharp[1], -sharp[2]))
        elif early < 0.22:
            events.append(CtgEvent("early", peak - length / 2, length, -depth))
    if rng.random() < _sigmoid(-4.5 + 4 * severity):
        length = rng.uniform(180, 480)
        events.append(CtgEvent("bradycardia", cohort.length_s - length, length, -rng.uniform(30, 50) * cohort.deceleration_gain))
    return events


def _draw_contractions(rng: np.random.Generator, length_s: float) -> list[CtgEvent]:
    period = rng.uniform(130, 240)
    events, at = [], rng.uniform(0, period)
    while at < length_s:
        events.append(CtgEvent("contraction", at, max(30.0, rng.normal(70, 10)), max(10.0, rng.normal(45, 12))))
        at += max(80.0, rng.normal(period, 0.18 * period))
    return events


def add_event(trace: Floats, event: CtgEvent) -> None:
    """Adds an event to a trace in place: a raised cosine; variable decelerations and bradycardias ramp at their ends only."""
    first = max(0, int(event.onset_s * RATE_HZ))
    last = min(len(trace), int((event.onset_s + event.length_s) * RATE_HZ) + 1)
    part = (np.arange(first, last) / RATE_HZ - event.onset_s) / event.length_s
    ramp = {"variable": 0.2, "bradycardia": 0.15}.get(event.kind, 0.5)
    rise = np.clip(part / ramp, 0, 1)
    fall = np.clip((1 - part) / ramp, 0, 1) if event.kind != "bradycardia" else np.ones(len(part))
    trace[first:last] += event.depth * 0.25 * (1 - np.cos(np.pi * rise)) * (1 - np.cos(np.pi * fall))


# --- the device and the hospital ----------------------------------------------------------------------------------------


def _measure_heart_rate(rng: np.random.Generator, trace: Floats, site: Hospital, device: CtgMonitor) -> Floats:
    """Bias, smoothing, noise, half and double counting, steps, and zeros where the signal was lost."""
    n = len(trace)
    padded = np.pad(trace, device.smoothing // 2, mode="edge")
    seen = np.convolve(padded, np.full(device.smoothing, 1 / device.smoothing), "valid")
    seen = seen + site.bias_bpm + device.noise_bpm * rng.standard_normal(n)
    episodes = rng.poisson(site.miscounts * np.exp(rng.normal(0, 0.6)) * n / RATE_HZ / 3600)
    for start, stop in _draw_stretches(rng, episodes, 15.0, n):
        seen[start:stop] *= 2.0 if rng.random() < 0.5 else 0.5
    seen = np.clip(np.rint(seen / device.step_bpm) * device.step_bpm, 0, 240)
    lost = min(0.8, site.dropout * np.exp(rng.normal(0, 0.6)))
    for start, stop in _draw_stretches(rng, rng.poisson(lost * n / RATE_HZ / 20.0), 20.0, n):
        seen[start:stop] = 0
    return np.asarray(seen)


def _measure_contractions(rng: np.random.Generator, contractions: list[CtgEvent], n: int, device: CtgMonitor) -> Floats:
    """Contractions above a resting level that staff reset now and then."""
    centre = np.array([event.onset_s + event.length_s / 2 for event in contractions])
    width = np.array([event.length_s / 4 for event in contractions])
    height = np.array([event.depth for event in contractions])
    uc = device.gain * sum_gaussians(centre, width, height, n, RATE_HZ) + ornstein_uhlenbeck(rng, n, 1 / RATE_HZ, 20.0, 1.2)
    changes = np.sort(rng.integers(0, n, rng.poisson(n / RATE_HZ / 2400)))
    for start, stop in zip([0, *changes], [*changes, n], strict=True):
        uc[start:stop] += rng.uniform(*device.resting_uc)
    return np.clip(np.rint(uc * 2) / 2, 0, 127.5)


def _draw_stretches(rng: np.random.Generator, count: int, mean_s: float, n: int) -> list[tuple[int, int]]:
    """`count` stretches of exponential length, twice as dense at the end as at the beginning."""
    starts = n * (np.sqrt(1 + 3 * rng.random(count)) - 1)
    lengths = np.ceil(rng.exponential(mean_s * RATE_HZ, count))
    return [(int(start), int(start + length)) for start, length in zip(starts, lengths, strict=True)]


def _draw_outcome(rng: np.random.Generator, z: float, severity: float, site: Hospital) -> dict[str, float]:
    bad = rng.random() < _sigmoid(_INTERCEPT + 2 * z + site.logit)
    apgar1 = int(rng.integers(2, 7) if bad else rng.integers(7, 11))
    apgar5 = min(10, apgar1 + int(rng.integers(0, 4)))
    ph = round(7.30 - 0.16 * severity**1.5 + float(rng.normal(0, 0.055)), 2)
    return {"pH": ph, "Apgar1": float(apgar1), "Apgar5": float(apgar5)}


def _sigmoid(x: float) -> float:
    return float(1 / (1 + np.exp(-x)))
