"""What `plan` says of runs beside the comparison: how many `tune` and `learning_curve` cost, and by what values are chosen."""

from __future__ import annotations

from phoropter.results.metrics.registry import get_metric
from phoropter.study.plan import Plan


def describe_side_runs(planned: Plan) -> list[str]:
    """A line for `tune` and one for `learning_curve`, where the study has them."""
    lines, study = [], planned.study
    trials = sum(run.role == "trial" for run in planned.runs)
    if trials and study.tune is not None:
        tuned = {run.candidate.name: len(run.trials) for run in planned.runs if run.trials}
        metric = get_metric(study.tune.metric or study.metrics[0])
        shown = ", ".join(f"{name} ({count} combinations)" for name, count in tuned.items())
        lines.append(
            f"tune: {trials} of the runs are trials on {study.tune.folds} inner folds of a training part, by which "
            f"{metric.title} chooses the values of {shown}; without it there would be {len(planned.runs) - trials} runs"
        )
    shares = [run for run in planned.runs if run.role == "learning-curve"]
    if shares:
        sizes = ", ".join(f"{share * 100:g} %" for share in sorted({run.share for run in shares}))
        lines.append(f"learning_curve: {len(shares)} of the runs are trained on shares of the training part ({sizes})")
    return lines
