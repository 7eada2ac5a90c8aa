"""Simulated electrocardiograms of people at rest, under stress and amused, with known truth.

Subjects differ in heart rate, its modulation by breathing and blood pressure, and the shape of the beat; stress and amusement
shift these by amounts that differ between subjects. So the class can be learnt, but persons are easier to tell apart than
classes: splitting windows at random makes every classifier look better than holding subjects out, which the simulator shows.
Parameters are close to published norms; how frequencies and the baseline wander is our choice.

Beats come from integrating 1/RR; each beat is a sum of five Gaussians (P, Q, R, S, T), after McSharry et al., IEEE Trans. Biomed.
Eng. 50(3), 2003, without their differential equations. Values are mV, times seconds unless the name says otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt

from phoropter.core.seeds import named_generator
from phoropter.core.spec import Spec
from phoropter.signals.recording import Recording, Span

Floats = NDArray[np.float64]

CONDITIONS = ("baseline", "stress", "amusement")
CONDITION_CODES = {"baseline": 1, "stress": 2, "amusement": 3}  # as in WESAD; 0 between conditions

_GRID_S = 0.05
_AMPLITUDES = np.array([0.12, -0.10, 1.0, -0.22, 0.28])  # P Q R S T, mV
_WIDTHS = np.array([22.0, 9.0, 10.0, 10.0, 45.0]) / 1000  # standard deviations, s
_OFFSETS = np.array([-170.0, -28.0, 0.0, 30.0, 270.0]) / 1000  # from the beat, s
_SCALES_WITH_RR = np.array([True, False, False, False, True])  # P and T move with the square root of RR
_REACH_SD = 4.0  # standard deviations after which a wave is cut off

# Shift by condition, (mean, standard deviation) each: heart rate in bpm, breathing in Hz, logarithms of the others.
_CONDITION_SHIFTS: dict[str, dict[str, tuple[float, float]]] = {
    "stress": {
        "rate_bpm": (10.0, 7.0),
        "log_rsa": (-0.45, 0.30),
        "log_lf": (0.10, 0.25),
        "breath_hz": (0.03, 0.03),
        "log_t": (-0.22, 0.15),
        "log_emg": (0.35, 0.30),
        "log_motion": (0.6, 0.4),
    },
    "amusement": {
        "rate_bpm": (-1.5, 3.0),
        "log_rsa": (-0.10, 0.25),
        "log_lf": (0.05, 0.20),
        "breath_hz": (0.01, 0.02),
        "log_t": (0.03, 0.10),
        "log_emg": (0.15, 0.25),
        "log_motion": (0.4, 0.4),
    },
}


class EcgCohort(Spec):
    """Which people are simulated, for how long in each condition, and whether noise is added.

    subjects:    number of people
    seed:        of all random numbers
    rate_hz:     sampling rate in Hz
    baseline_s:  seconds of rest
    stress_s:    seconds of stress
    amusement_s: seconds of amusement
    between_s:   seconds without a label before, between and after the conditions
    noise:       adds baseline wander, muscle noise and motion
    site:        name of the site
    """

    subjects: PositiveInt = 15
    seed: int = 0
    rate_hz: PositiveFloat = 700.0
    baseline_s: PositiveFloat = 240.0
    stress_s: PositiveFloat = 136.0
    amusement_s: PositiveFloat = 78.0
    between_s: NonNegativeFloat = 20.0  # the shifts fade in and out here
    noise: bool = True
    site: str = "simulator"


def ecg_simulate(cohort: EcgCohort | None = None) -> list[Recording]:
    """One recording per subject, channel ECG. Equal cohorts give equal arrays; a subject does not depend on the others."""
    cohort = cohort or EcgCohort()
    return [ecg_simulate_subject(cohort, number) for number in range(1, cohort.subjects + 1)]


def ecg_simulate_subject(cohort: EcgCohort, number: int) -> Recording:
    """Subject `number` (from 1). `truth`: "beat_s" times of the R waves, "subject" and "conditions" parameters."""
    name = f"sim{number:02d}"
    rng = named_generator(cohort.seed, "ecg", cohort.site, name)
    person = _draw_subject(rng)
    shifts = {condition: _draw_condition_shift(rng, condition) for condition in CONDITIONS}
    spans = _draw_protocol(rng, cohort)
    length = spans[-1].stop + round(cohort.between_s * cohort.rate_hz)
    course = _interpolate_shifts(spans, shifts, length, cohort.rate_hz)
    clean, beats = _simulate_heart(rng, person, course, length, cohort.rate_hz)
    samples = clean + _simulate_noise(rng, person, course, length, cohort.rate_hz) if cohort.noise else clean
    return Recording(
        name,
        name,
        samples[None].astype(np.float32),
        ("ECG",),
        ("mV",),
        cohort.rate_hz,
        site=cohort.site,
        spans=spans,
        truth={"beat_s": beats, "subject": person, "conditions": shifts},
    )


def ecg_as_wesad(recording: Recording) -> dict[str, Any]:
    """The recording in the layout of a WESAD pickle: `signal.chest.ECG` (N, 1) float64 and `label` (N,) int32."""
    label = np.zeros(recording.length, np.int32)
    for start, stop, condition in recording.spans:
        label[start:stop] = CONDITION_CODES[condition]
    ecg = recording.channel("ECG").astype(np.float64)[:, None]
    return {"subject": recording.subject, "signal": {"chest": {"ECG": ecg}, "wrist": {}}, "label": label}


# --- who ----------------------------------------------------------------------------------------------------------------


def _draw_subject(rng: np.random.Generator) -> dict[str, Any]:
    return {
        "rate_bpm": float(np.clip(rng.normal(72, 9), 52, 100)),
        "rsa_s": float(0.032 * np.exp(rng.normal(0, 0.45))),
        "breath_hz": float(rng.normal(0.25, 0.03)),
        "lf_s": float(0.028 * np.exp(rng.normal(0, 0.4))),
        "lf_hz": float(rng.normal(0.1, 0.012)),
        "amplitude_mv": _AMPLITUDES * np.exp(rng.normal(0, 0.3, 5)),
        "width_s": _WIDTHS * np.exp(rng.normal(0, 0.12, 5)),
        "offset_s": _OFFSETS + rng.normal(0, 0.006, 5),
        "wander_mv": float(0.060 * np.exp(rng.normal(0, 0.5))),
        "emg_mv": float(0.015 * np.exp(rng.normal(0, 0.5))),
        "motion_mv": float(0.020 * np.exp(rng.normal(0, 0.5))),
    }


def _draw_condition_shift(rng: np.random.Generator, condition: str) -> dict[str, float]:
    """The shift of a condition for this subject; zeros at baseline."""
    sizes = _CONDITION_SHIFTS.get(condition, dict.fromkeys(_CONDITION_SHIFTS["stress"], (0.0, 0.0)))
    return {name: float(rng.normal(mean, sd)) for name, (mean, sd) in sizes.items()}


def _draw_protocol(rng: np.random.Generator, cohort: EcgCohort) -> tuple[Span, ...]:
    """Baseline first, stress and amusement in random order."""
    seconds = {"baseline": cohort.baseline_s, "stress": cohort.stress_s, "amusement": cohort.amusement_s}
    order = ["baseline", *(["stress", "amusement"] if rng.random() < 0.5 else ["amusement", "stress"])]
    spans, at = [], round(cohort.between_s * cohort.rate_hz)
    for condition in order:
        stop = at + round(seconds[condition] * cohort.rate_hz)
        spans.append(Span(at, stop, condition))
        at = stop + round(cohort.between_s * cohort.rate_hz)
    return tuple(spans)


def _interpolate_shifts(
    spans: tuple[Span, ...], shifts: Mapping[str, Mapping[str, float]], length: int, rate_hz: float
) -> dict[str, Floats]:
    """Every shift over time on the grid: constant within a condition, linear between."""
    time = np.arange(0, length / rate_hz + _GRID_S, _GRID_S)
    corners = np.array([[span.start, span.stop] for span in spans]).ravel() / rate_hz
    names = _CONDITION_SHIFTS["stress"]
    return {"time": time} | {
        name: np.interp(time, corners, np.repeat([shifts[span.label][name] for span in spans], 2)) for name in names
    }


# --- the heart ----------------------------------------------------------------------------------------------------------


def _simulate_heart(
    rng: np.random.Generator, person: Mapping[str, Any], course: Mapping[str, Floats], length: int, rate_hz: float
) -> tuple[Floats, Floats]:
    """The ECG without noise, and the times of its R waves."""
    time = course["time"]
    breath = _integrate_phase(rng, person["breath_hz"] + course["breath_hz"])
    pressure = _integrate_phase(rng, np.full(len(time), person["lf_hz"]))
    rate = person["rate_bpm"] + course["rate_bpm"] + ornstein_uhlenbeck(rng, len(time), _GRID_S, 60.0, 2.5)
    rsa = person["rsa_s"] * np.exp(course["log_rsa"]) * np.sin(breath)
    lf = person["lf_s"] * np.exp(course["log_lf"]) * np.sin(pressure)
    rr = np.clip(60.0 / rate + np.sqrt(2) * (rsa + lf), 0.35, 1.6)
    turned = np.concatenate([[0.0], np.cumsum(_GRID_S / rr)[:-1]])
    beat = np.interp(np.arange(1, int(turned[-1]) + 1), turned, time)  # (beats,)
    amplitude = person["amplitude_mv"] * np.exp(0.05 * np.sin(np.interp(beat, time, breath)))[:, None]  # (beats, 5)
    amplitude[:, 4] *= np.exp(np.interp(beat, time, course["log_t"]))
    stretch = np.where(_SCALES_WITH_RR, np.sqrt(np.interp(beat, time, rr))[:, None], 1.0)
    centre = beat[:, None] + person["offset_s"] * stretch
    ecg = np.zeros(length)
    for wave in range(5):
        ecg += sum_gaussians(centre[:, wave], np.full(len(beat), person["width_s"][wave]), amplitude[:, wave], length, rate_hz)
    r_wave = centre[:, 2]
    return ecg, r_wave[(r_wave >= 0) & (r_wave < length / rate_hz)]


def _simulate_noise(
    rng: np.random.Generator, person: Mapping[str, Any], course: Mapping[str, Floats], length: int, rate_hz: float
) -> Floats:
    """Baseline wander, muscle noise, and bumps of motion."""
    time, at = course["time"], np.arange(length) / rate_hz
    wander = np.interp(at, time, person["wander_mv"] * ornstein_uhlenbeck(rng, len(time), _GRID_S, 2.0, 1.0))
    emg = person["emg_mv"] * np.interp(at, time, np.exp(course["log_emg"])) * rng.standard_normal(length)
    rate = 2.0 / 60.0 * np.exp(course["log_motion"]) * _GRID_S
    bumps = time[rng.random(len(time)) < rate]
    width = rng.uniform(0.3, 2.0, len(bumps)) / 4
    motion = sum_gaussians(bumps, width, person["motion_mv"] * rng.standard_normal(len(bumps)), length, rate_hz)
    return np.asarray(wander + emg + motion)


def _integrate_phase(rng: np.random.Generator, frequency_hz: Floats) -> Floats:
    """A phase whose frequency wanders by a tenth about the given one."""
    wander = np.exp(ornstein_uhlenbeck(rng, len(frequency_hz), _GRID_S, 20.0, 0.1))
    return np.asarray(rng.uniform(0, 2 * np.pi) + 2 * np.pi * np.cumsum(frequency_hz * wander) * _GRID_S)


def ornstein_uhlenbeck(rng: np.random.Generator, count: int, step_s: float, memory_s: float, sd: float) -> Floats:
    """An Ornstein–Uhlenbeck process in its stationary state: (count,) values `step_s` apart with correlation time `memory_s`."""
    from scipy.signal import lfilter

    keep = np.exp(-step_s / memory_s)
    noise = rng.standard_normal(count + 1) * sd
    return np.asarray(lfilter([np.sqrt(1 - keep**2)], [1.0, -keep], noise[1:], zi=[keep * noise[0]])[0])


def sum_gaussians(centre_s: Floats, sd_s: Floats, height: Floats, length: int, rate_hz: float) -> Floats:
    """The sum of Gaussian bumps as (length,) samples; all bumps of a call are evaluated over the support of the widest."""
    if not len(centre_s):
        return np.zeros(length)
    reach = int(np.ceil(_REACH_SD * sd_s.max() * rate_hz))
    first = np.rint(centre_s * rate_hz).astype(np.int64) - reach
    at = first[:, None] + np.arange(2 * reach + 1)  # (bumps, 2 reach + 1)
    shape = height[:, None] * np.exp(-0.5 * ((at / rate_hz - centre_s[:, None]) / sd_s[:, None]) ** 2)
    inside = (at >= 0) & (at < length)
    return np.asarray(np.bincount(at[inside], shape[inside], minlength=length), np.float64)
