"""What `plan` says of sizes and memory before anything is computed. No torch here.

A guess from sizes: what Python and its libraries hold, weights (with gradients and two moments where they are trained), and
activations as a multiple of the pixels in a batch. The multiples are those of MobileNets, whose layers are wide for their size:
other networks need less.
"""

from __future__ import annotations

from dataclasses import replace

from phoropter.core.files import format_bytes
from phoropter.models import catalog
from phoropter.study.plan import Plan, PlannedRun
from phoropter.training.costs.inference_batch import choose_inference_batch

PROCESS_BYTES = 620 * 2**20  # Python with torch, timm, SciPy and decoded images, as measured in studies of MobileNets
SHOWN_FLOATS = 100  # activations in memory at once, per pixel of a batch, where nothing is trained
TRAINED_FLOATS = 640  # activations kept for the backward pass, per pixel
CHECKPOINTED_FLOATS = 220  # the same where those within blocks are computed again
WORTH_SAVING_BYTES = 2 * 2**30  # below which a plan does not say how less would do
TRAINED_COPIES = 4  # weights, gradients, two moments


def estimate_peak_memory(planned: Plan, device_type: str = "cpu") -> int:
    """Bytes of one process that computes the runs of a plan one after another: of the candidate that needs most.

    Ensembles and candidates without a network (baselines, features, predictions) need no more than what the process holds.
    """
    return max((_estimate_run_memory(planned, run, device_type) for run in _list_first_runs(planned)), default=PROCESS_BYTES)


def describe_memory_saving(planned: Plan, device_type: str = "cpu") -> str | None:
    """What the candidate that needs most would need with `grad_checkpointing: true`; None where that is little or no less."""
    first = _list_first_runs(planned)
    largest = max(first, key=lambda run: _estimate_run_memory(planned, run, device_type), default=None)
    if largest is None or largest.candidate.frozen:
        return None
    candidate = largest.candidate
    saving = candidate.model_copy(update={"recipe": candidate.recipe.model_copy(update={"grad_checkpointing": True})})
    needed = _estimate_run_memory(planned, largest, device_type)
    left = _estimate_run_memory(planned, replace(largest, candidate=saving), device_type)
    if needed < WORTH_SAVING_BYTES or left > 0.75 * needed:
        return None
    return (
        f"'{candidate.name}' needs most, and about {format_bytes(left)} with grad_checkpointing: true in its recipe, which most "
        "of timm's networks know: the same predictions in a third more time"
    )


def _list_first_runs(planned: Plan) -> list[PlannedRun]:
    """A run of each candidate with a network of its own."""
    runs = (run for run in planned.runs if run.candidate.backbones and not run.candidate.is_ensemble)
    return list({run.candidate.name: run for run in runs}.values())


def _estimate_run_memory(planned: Plan, run: PlannedRun, device_type: str) -> int:
    candidate, floats, pixels = run.candidate, 0.0, []
    is_trained = bool(candidate.recipe.phases) and not (candidate.frozen or candidate.recipe.trains_head_alone)
    kept_floats = CHECKPOINTED_FLOATS if candidate.recipe.grad_checkpointing else TRAINED_FLOATS
    for backbone in candidate.backbones:
        side = catalog.resolve_side(backbone, planned.study.base)
        floats += (catalog.describe_backbone(backbone).parameters or 0) * (TRAINED_COPIES if is_trained else 1)
        shown = choose_inference_batch(side, device_type) * SHOWN_FLOATS
        # A frozen backbone that sees new views in every epoch is shown batches of the recipe's size
        live = 0 if candidate.stores_features else candidate.recipe.batch_size * (kept_floats if is_trained else SHOWN_FLOATS)
        pixels.append(side**2 * max(shown, live))
    # Branches that are trained keep their activations together; those that are only shown images follow one another
    floats += sum(pixels) if is_trained else max(pixels)
    return PROCESS_BYTES + int(4 * floats)


def describe_shown_sizes(planned: Plan) -> list[str]:
    """A line for each pair of sizes that differ: at which images are stored, and at which they are shown, and to whom."""
    sizes: dict[tuple[int, int], dict[str, None]] = {}
    for run in planned.runs:
        for backbone in run.candidate.backbones:
            side = catalog.resolve_side(backbone, planned.study.base)
            if side != run.image_set.image_size and not run.candidate.recipe.center_crop:
                sizes.setdefault((run.image_set.image_size, side), {})[run.candidate.name] = None
    return [f"images are stored at {stored}, shown at {shown}: {', '.join(names)}" for (stored, shown), names in sizes.items()]
