"""Runs, candidates and tables of a study as pandas DataFrames."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from phoropter.data.dataset import name_label_set
from phoropter.report.render.table import IntervalBounds, MeanStd, Table
from phoropter.report.sections.candidate_values import primary_metric_interval
from phoropter.report.summary.model import CandidateResults, StudySummary
from phoropter.results.stats.pairs.answers import Answer, Comparison
from phoropter.results.store import Predictions, Run

if TYPE_CHECKING:
    import pandas as pd

PARTS = {"test": "predictions", "validation": "validation", "external": "external"}
_MIRRORED = {"ahead": "behind", "behind": "ahead"}


def tabulate_runs(runs: Iterable[Run]) -> pd.DataFrame:
    """One row per run: candidate, seed, repeat, fold, and its metrics."""
    import pandas as pd

    return pd.DataFrame([{**_describe_run(run), **run.record["metrics"]} for run in runs])


def tabulate_predictions(runs: Iterable[Run], part: str) -> pd.DataFrame:
    """One row per prediction. part: `test`, `validation` or `external`"""
    import pandas as pd

    frames = list(iter_prediction_frames(runs, (part,)))
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def iter_prediction_frames(runs: Iterable[Run], parts: Iterable[str]) -> Iterator[pd.DataFrame]:
    """A frame for each run and each of the parts that it has; all have the same columns."""
    for run in runs:
        for part in parts:
            predictions = run.load_predictions(PARTS[part])
            if predictions is not None:
                yield _frame_predictions(run, part, predictions)


def _frame_predictions(run: Run, part: str, predictions: Predictions) -> pd.DataFrame:
    import numpy as np
    import pandas as pd

    classes = np.array(list(map(str, run.record["classes"])), dtype=object)
    p, spans = predictions.probabilities, predictions.spans
    columns: dict[str, Any] = {**_describe_run(run), "part": part, "id": predictions.ids.astype(object)}
    if predictions.is_multi_label:
        sets = {"label": predictions.labels, "class": p > 0.5}
        columns |= {key: [name_label_set(row, classes.tolist()) for row in flags] for key, flags in sets.items()}
    else:
        columns |= {"label": classes[predictions.labels], "class": classes[p.argmax(1)]}
    columns |= {f"p_{name}": p[:, number] for number, name in enumerate(classes)}
    for name in ("group", "site", "recording"):
        known = getattr(predictions, f"{name}s")
        columns[name] = None if known is None else known.astype(object)
    columns |= {"start_s": np.nan if spans is None else spans[:, 0], "stop_s": np.nan if spans is None else spans[:, 1]}
    return pd.DataFrame(columns, index=range(len(predictions.ids)))


def _describe_run(run: Run) -> dict[str, Any]:
    split = run.record["split"]
    return {"candidate": run.candidate_name, "seed": run.record["seed"], "repeat": split["repeat"], "fold": split["fold"]}


def tabulate_leaderboard(summary: StudySummary) -> pd.DataFrame:
    """One row per candidate, best first, unrounded; `low` and `high` bound the first metric, NAME_std is over splits."""
    import pandas as pd

    rows = []
    for candidate in summary.candidates:
        low, high = primary_metric_interval(candidate)
        row: dict[str, Any] = {"candidate": candidate.name}
        for number, metric in enumerate(summary.metrics):
            row[metric] = candidate.metric_mean(metric)
            row |= {"low": low, "high": high} if number == 0 else {}
            row[f"{metric}_std"] = candidate.spreads.get(metric, float("nan"))
        rows.append({**row, **_describe_progress(candidate)})
    return pd.DataFrame(rows)


def _describe_progress(candidate: CandidateResults) -> dict[str, Any]:
    return {
        "runs": len(candidate.runs),
        "planned": candidate.n_planned,
        "parameters": candidate.median_cost("parameters"),
        "train_seconds": candidate.median_cost("train_seconds"),
    }


def tabulate_page_table(table: Table) -> pd.DataFrame:
    """A table of the page, unrounded. A mean with its spread takes two columns, NAME and `NAME std`; bounds `low` and `high`."""
    import pandas as pd

    columns: dict[str, list[Any]] = {}
    for number, column in enumerate(table.columns):
        cells = [row.values[number] for row in table.rows]
        kinds = {type(cell) for cell in cells}
        if IntervalBounds in kinds:
            bounds = [cell if isinstance(cell, IntervalBounds) else (None, None) for cell in cells]
            columns |= {f"{column.name} {end}": [b[place] for b in bounds] for place, end in enumerate(("low", "high"))}
        elif MeanStd in kinds:
            columns[column.name] = [cell.mean if isinstance(cell, MeanStd) else cell for cell in cells]
            columns[f"{column.name} std"] = [cell.std if isinstance(cell, MeanStd) else None for cell in cells]
        else:
            columns[column.name] = cells
    return pd.DataFrame({name.replace("\u00a0", " "): cells for name, cells in columns.items()})


def tabulate_comparison(comparison: Comparison, mirrored: bool = False) -> pd.DataFrame:
    """A row for each of the two questions, `rows` and `training`. mirrored: as b against a"""
    import pandas as pd

    answers = [_describe_answer(answer, mirrored) for answer in (comparison.rows, comparison.training)]
    a, b = (comparison.b, comparison.a) if mirrored else (comparison.a, comparison.b)
    frame = pd.DataFrame(answers, index=pd.Index(["rows", "training"], name="question"))
    frame.insert(0, "metric", comparison.metric)
    frame.insert(0, "b", b)
    frame.insert(0, "a", a)
    if comparison.identical:
        frame["verdict"] = "identical"
    return frame


def _describe_answer(answer: Answer, mirrored: bool) -> dict[str, Any]:
    result = answer.result
    sign, low, high = (-1, result.high, result.low) if mirrored else (1, result.low, result.high)
    return {
        "difference": sign * result.difference,
        "low": sign * low,
        "high": sign * high,
        "p": result.p,
        "p_adjusted": answer.p_adjusted,
        "verdict": _MIRRORED.get(answer.verdict, answer.verdict) if mirrored else answer.verdict,
        "test": result.test,
        "units": result.n_units,
        "note": result.note,
    }
