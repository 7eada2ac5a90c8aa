"""The sections of the page, in the order a reader needs them.

A section is a function of `ReportInput` that returns a `Section`, or None where the study has nothing for it to show.
"""

from __future__ import annotations

from collections.abc import Callable

from phoropter.report.render.section import Section
from phoropter.report.sections.candidates.comparisons import comparison_section
from phoropter.report.sections.candidates.contrasts import contrasts_section
from phoropter.report.sections.candidates.cost import cost_section
from phoropter.report.sections.candidates.leaderboard import leaderboard_section
from phoropter.report.sections.candidates.networks import networks_section
from phoropter.report.sections.candidates.screening import screening_section
from phoropter.report.sections.candidates.sweeps import sweep_section
from phoropter.report.sections.clinical.operating_points import operating_points_section
from phoropter.report.sections.clinical.subgroup_tables import subgroup_section
from phoropter.report.sections.clinical.unseen_sites import unseen_sites_section
from phoropter.report.sections.predictions.calibration import calibration_section
from phoropter.report.sections.predictions.classes import class_section
from phoropter.report.sections.predictions.confusion import confusion_section
from phoropter.report.sections.predictions.embedding import embedding_section
from phoropter.report.sections.predictions.external_test import external_test_section
from phoropter.report.sections.predictions.groups import group_section
from phoropter.report.sections.predictions.label_review import label_review_section
from phoropter.report.sections.predictions.label_table import label_section
from phoropter.report.sections.predictions.leader_maps import leader_maps_section
from phoropter.report.sections.predictions.mistakes import mistakes_section
from phoropter.report.sections.predictions.under_shift import shift_section
from phoropter.report.sections.study.controls import controls_section
from phoropter.report.sections.study.exclusions import exclusions_section
from phoropter.report.sections.study.leakage import leakage_section
from phoropter.report.sections.study.provenance import provenance_section
from phoropter.report.sections.study.statement import statement_section
from phoropter.report.sections.study.treatments import treatments_section
from phoropter.report.sections.training.data_size import data_size_section
from phoropter.report.sections.training.distillation import distillation_section
from phoropter.report.sections.training.fusion import fusion_section
from phoropter.report.sections.training.learning_curves import learning_curve_section
from phoropter.report.sections.training.tuned_values import tuned_values_section
from phoropter.report.summary.report_input import ReportInput

SECTION_ORDER: tuple[Callable[[ReportInput], Section | None], ...] = (
    leaderboard_section,
    operating_points_section,
    contrasts_section,
    comparison_section,
    sweep_section,
    screening_section,
    tuned_values_section,
    data_size_section,
    cost_section,
    networks_section,
    treatments_section,
    group_section,
    external_test_section,
    unseen_sites_section,
    subgroup_section,
    shift_section,
    label_section,
    class_section,
    confusion_section,
    mistakes_section,
    label_review_section,
    leader_maps_section,
    calibration_section,
    fusion_section,
    distillation_section,
    learning_curve_section,
    embedding_section,
    controls_section,
    exclusions_section,
    leakage_section,
    statement_section,
    provenance_section,
)


# Left out where rows may have several labels: they are about one class a row.
ONE_CLASS_SECTIONS = frozenset(
    {
        operating_points_section,
        class_section,
        confusion_section,
        mistakes_section,
        label_review_section,
        leader_maps_section,
        embedding_section,
    }
)


def select_builders(inputs: ReportInput) -> list[Callable[[ReportInput], Section | None]]:
    """The functions that build the sections of this study's page, in order: those of one class a row where rows have one."""
    left_out = ONE_CLASS_SECTIONS if inputs.summary.is_multi_label else frozenset()
    return [build for build in SECTION_ORDER if build not in left_out]
