"""Recordings with a known truth, for the demo, the tests and for trying a protocol before the data are there.

`ecg_simulate` makes people at rest, under stress and amused (`simulate_ecg`); `ctg_simulate` makes births in hospitals with
two kinds of devices (`simulate_ctg`). Every draw is named by seed, site and subject, never by its place in a queue.
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
