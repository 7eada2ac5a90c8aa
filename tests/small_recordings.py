"""Small simulated recordings, as a cohort and as the beginning of a study file, which lacks its recipe and its candidates."""

from __future__ import annotations

from phoropter.signals.simulate import CtgCohort, EcgCohort

PEOPLE = EcgCohort(subjects=4, rate_hz=100, baseline_s=30, stress_s=25, amusement_s=15, between_s=5)
ECG_STUDY = """\
name: people
data:
  simulate: ecg
  cohort: {subjects: 4, rate_hz: 100, baseline_s: 30, stress_s: 25, amusement_s: 15, between_s: 5}
  window: {step_s: 5}
  size: 32
protocol: {split: stratified-group-k-fold, folds: 2}
"""
BIRTHS = CtgCohort(hospitals=2, swapped_hospitals=0, records=20, length_s=2400)
CTG_STUDY = """\
name: births
data:
  simulate: ctg
  cohort: {hospitals: 2, swapped_hospitals: 0, records: 20, length_s: 2400}
  outcome: pH<=7.2
  clean: {window: {max_missing: 1}, filter: {fhr_lowpass: 20}}
  size: 32
protocol: {split: stratified-k-fold, folds: 2}
"""
