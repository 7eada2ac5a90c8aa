"""Simulated people and births, shared by the tests of recordings."""

from __future__ import annotations

import pytest

from phoropter.signals.recording import Recording
from phoropter.signals.simulate import CtgCohort, EcgCohort, ctg_simulate, ecg_simulate


@pytest.fixture(scope="session")
def people_cohort() -> EcgCohort:
    """Three people at 100 Hz: 30 s of baseline, 21 s of stress, 12 s of amusement each."""
    return EcgCohort(subjects=3, rate_hz=100.0, baseline_s=30, stress_s=21, amusement_s=12, between_s=5)


@pytest.fixture(scope="session")
def people(people_cohort: EcgCohort) -> list[Recording]:
    return ecg_simulate(people_cohort)


@pytest.fixture(scope="session")
def births() -> list[Recording]:
    """Four births in each of three hospitals, 40 minutes long."""
    return ctg_simulate(CtgCohort(hospitals=2, swapped_hospitals=1, records=4, length_s=2400))
