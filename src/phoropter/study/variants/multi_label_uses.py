"""Studies whose rows may have several labels: the metrics they show by default, and what needs one class a row and is refused."""

from __future__ import annotations

from collections.abc import Iterator

from phoropter.core.errors import SpecError
from phoropter.data.dataset import Dataset
from phoropter.results.metrics.registry import check_label_kind
from phoropter.study.spec import StudySpec
from phoropter.training.candidates.candidate import Candidate
from phoropter.training.candidates.custom_loss import Loss
from phoropter.training.candidates.recipe import ImbalanceSpec

DEFAULT_METRICS = ("roc_auc", "average_precision", "macro_f1")
# Keys of a study, and what they would need.
_ONE_CLASS_KEYS = {
    "clinical": "thresholds of one positive class",
    "aggregate": "one class of a recording or a person",
    "learning_curve": "training rows drawn class by class",
    "tune": "a choice by one class a row",
    "controls": "labels exchanged between rows of one class each",
    "shift": "answers of one class a row",
}


def settle_label_metrics(study: StudySpec, dataset: Dataset) -> StudySpec:
    """The study with the metrics it shows, where its rows may have several labels and it names none."""
    if not dataset.is_multi_label or "metrics" in study.model_fields_set:
        return study
    notes = (*study.context.settled_defaults, f"metrics {', '.join(DEFAULT_METRICS)}, since a row may have several labels")
    return study.model_copy(update={"metrics": DEFAULT_METRICS}).with_context(settled_defaults=notes)


def check_label_uses(study: StudySpec, dataset: Dataset, candidates: list[Candidate]) -> None:
    """Raises SpecError for a metric of another kind of rows and, where rows may have several labels, for what needs one."""
    source = study.source
    chosen_by = (study.tune.metric,) if study.tune and study.tune.metric else ()
    for at, metrics in ((("metrics",), study.metrics), (("tune", "metric"), chosen_by)):
        try:
            check_label_kind(metrics, dataset.is_multi_label)
        except SpecError as error:
            raise SpecError(f"{source.describe_location(at)}: {error}") from None
    if not dataset.is_multi_label:
        return
    for key, need in _ONE_CLASS_KEYS.items():
        field = StudySpec.model_fields[key]
        if getattr(study, key) != field.get_default(call_default_factory=True):
            where = source.describe_location((key,))
            raise SpecError(f"{where}: {key} needs {need}, and rows of {dataset.name} may have several; leave it out")
    if study.data.subgroups:
        where = source.describe_location(("data", "subgroups"))
        raise SpecError(
            f"{where}: subgroups are shown for one class a row, and rows of {dataset.name} may have several; leave them out"
        )
    for candidate in candidates:
        for what, way_out in _list_one_class_parts(candidate):
            raise SpecError(
                f"{source.name}: candidate '{candidate.name}': {what} needs one class a row, and rows of {dataset.name} may "
                f"have several labels; {way_out}"
            )


def _list_one_class_parts(candidate: Candidate) -> Iterator[tuple[str, str]]:
    """What of a candidate needs one class a row, and what to write instead."""
    recipe, table, distillation = candidate.recipe, candidate.table, candidate.distillation
    if table is not None:
        needs_one = {"a file of predictions": table.predictions, "gradient-boosting": table.classifier == "gradient-boosting"}
        for part, is_there in (needs_one | {"signal-1d": table.is_signal_network}).items():
            if is_there:
                yield part, "choose features under classifier: logistic, or a network of pictures"
        return
    if candidate.head.kind == "pretrained":
        yield "head: pretrained", "choose linear or dense"
    if candidate.selects:
        yield "mode: select", "choose ensemble, which averages the probabilities of each label"
    if isinstance(recipe.loss.kind, Loss):
        yield f"the loss '{recipe.loss.kind.name}'", "choose cross-entropy or focal, which are taken label by label"
    if recipe.imbalance != ImbalanceSpec():
        yield "imbalance", "use loss: {class_weights: auto}, which weighs both answers of each label alike"
    if distillation is not None and distillation.alpha > 0 and distillation.loss != "soft":
        yield f"distillation by loss: {distillation.loss}", "choose loss: soft, which teaches the probability of each label"
