"""Words in the recipe of a study that no candidate reads: told in the plan, as it may be for candidates to come."""

from __future__ import annotations

from phoropter.study.spec import StudySpec
from phoropter.training.candidates.candidate import Candidate
from phoropter.training.candidates.candidate_entry import find_idle_words
from phoropter.training.candidates.recipe import FEATURE_FIELDS


def note_idle_words(study: StudySpec) -> StudySpec:
    """The study with a sentence about words in its recipe without which all candidates would be the same.

    Of a screening the final recipe is made of them, and candidates that are complete already ask for none.
    """
    written = study.recipe if isinstance(study.recipe, dict) else {}
    words = [word for word in written if word != "preset" and word not in FEATURE_FIELDS]  # those are refused (study/spec)
    if not words or study.screening is not None or any(isinstance(entry, Candidate) for entry in study.candidates):
        return study
    shared, trained = study.parsed_recipe, [c for c in study.parsed_candidates if c.table is None and not c.is_ensemble]
    if any(candidate.recipe == shared for candidate in trained):
        return study
    if not (idle := find_idle_words(study.candidates, study.recipe, words)):
        return study
    what = f"{' and '.join(idle)} in the study's recipe change{'s' if len(idle) == 1 else ''} no candidate"
    note = f"{what}: all have recipes of their own (frozen ones `probe`), or none"
    return study.with_context(settled_defaults=(*study.context.settled_defaults, note))
