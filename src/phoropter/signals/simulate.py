"""Simulated recordings with a known truth, for the demo, for tests, and to try a protocol before there are data.

`ecg_simulate` simulates people at rest, under stress and amused (simulate_ecg.py); `ctg_simulate` simulates births in hospitals
with two kinds of devices (simulate_ctg.py). Random numbers are seeded by cohort, site and subject, never by order of simulation.
"""

from __future__ import annotations

from phoropter.signals.simulate_ctg import CtgCohort, ctg_hospitals, ctg_simulate, ctg_simulate_birth
from phoropter.signals.simulate_ecg import EcgCohort, ecg_as_wesad, ecg_simulate, ecg_simulate_subject

__all__ = [
    "CtgCohort",
    "EcgCohort",
    "ctg_hospitals",
    "ctg_simulate",
    "ctg_simulate_birth",
    "ecg_as_wesad",
    "ecg_simulate",
    "ecg_simulate_subject",
]
