"""How many seeds a study has that does not say so: five where all networks are frozen and folds cost next to nothing.

With stored features a fold is the fit of one head, and of a baseline that of one classifier. Five rounds of folds in place of
one tell how much training varies from 20 differences of folds and not from 4, which about doubles the chance to find that a lead
would be repeated (docs/statistics.md).
"""

from __future__ import annotations

from phoropter.study.spec import StudySpec
from phoropter.training.candidates.candidate import Candidate

FREE_SEEDS = (0, 1, 2, 3, 4)
MAX_FREE_ROWS = 20_000  # above, heads are no longer fitted in seconds, and folds vary little
_FOLDS = ("k-fold", "stratified-k-fold", "group-k-fold", "stratified-group-k-fold")


def settle_seeds(study: StudySpec, n_rows: int) -> StudySpec:
    """The study with the seeds it runs. What the study says about `seeds`, `repeats` or `reshuffle` always wins.

    n_rows: of its dataset. A screening keeps one seed: its full candidates are not frozen.
    """
    protocol = study.protocol
    said = {"seeds", "repeats", "reshuffle"} & protocol.model_fields_set
    if said or protocol.split not in _FOLDS or study.screening is not None or n_rows > MAX_FREE_ROWS:
        return study
    candidates = study.parsed_candidates
    frozen = [c for c in candidates if c.table is None and c.recipe.phases]
    if not frozen or not all(c.is_ensemble or _has_free_folds(c) for c in candidates):
        return study
    beside = "" if all(c.table is None for c in candidates) else " or baselines"
    note = (
        f"{len(FREE_SEEDS)} seeds × {protocol.folds} folds, since all candidates are frozen{beside} and folds cheap; "
        "for one round of folds say `seeds: [0]` under protocol, or --set 'protocol.seeds=[0]'"
    )
    settled = study.model_copy(update={"protocol": protocol.model_copy(update={"seeds": FREE_SEEDS})})
    return settled.with_context(settled_defaults=(note,))


def _has_free_folds(candidate: Candidate) -> bool:
    """Whether its folds and seeds share one pass of its backbones, or one table of features."""
    if candidate.table is not None:
        return candidate.table.predictions is None and not candidate.table.is_signal_network
    return candidate.stores_features and not any(b.depends_on_seed for b in candidate.backbones)
