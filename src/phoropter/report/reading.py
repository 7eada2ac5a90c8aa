"""From a results folder to the evidence: each predictions file is read once, a candidate at a time.

The few candidates whose curves are drawn are looked at a second time (`roc`, `calibrated`), which is cheaper than sorting the
scores of all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phoropter.core.errors import StoreError
from phoropter.core.files import digest, digest_array
from phoropter.report.evidence import Entrant, Evidence, Floats, Ints, Mended, Mistake, RunLine, Unseen, std
from phoropter.report.names import Known
from phoropter.results import statistics
from phoropter.results.bootstrap import RESAMPLES, Bootstrap
from phoropter.results.groups import by_group
from phoropter.results.metrics import METRICS, score_all, softmax
from phoropter.results.rankings import Ranking, area, rankings
from phoropter.results.store import Predictions, Run, Store
from phoropter.results.sums import BINS, Answers, bin_of

ALWAYS = ("accuracy", "macro_f1", "log_loss", "ece")
RANKED_CLASSES, RANKED_SCORES = 20, 15_000_000  # areas under ROC curves cost a sort per class and run: past these only on request
FALSE_ALARMS = np.linspace(0, 1, 101)  # where ROC curves of different runs are averaged
MISTAKES = 12
MANY_UNITS, FEWER = 5000, 800  # resamples of so many units: the bounds then move by a twentieth of the width, for half the time

Progress = Callable[[int, int], None]


def gather(store: Store, progress: Progress | None = None) -> Evidence:
    """Reads a results folder. Raises StoreError when it holds no finished run, or one that is not what it should be."""
    study = store.study
    planned: dict[str, list[Mapping[str, Any]]] = {}
    for item in study["plan"]:
        planned.setdefault(str(item["candidate"]), []).append(item)
    runs = [(name, store.run(str(i["key"]))) for name, items in planned.items() for i in items if str(i["key"]) in store]
    if not runs:
        raise StoreError(f"{store.folder} holds no finished run of its plan of {len(study['plan'])}: run the study, then report")
    classes = tuple(map(str, runs[0][1].record["classes"]))
    reader = _Reader(_metrics(study, len(classes)), classes, len(runs), progress)
    entrants, absent = [], []
    for name, items in planned.items():
        finished = [run for owner, run in runs if owner == name]
        if finished:
            entrants.append(reader.entrant(name, len(items), dict(items[0].get("settings") or {}), finished))
        else:
            absent.append(name)
    asked = METRICS[reader.metrics[0]]
    entrants.sort(key=lambda e: (not e.complete, _rank(e.mean(asked.name), asked.higher_is_better), e.name))
    return Evidence(
        store.folder,
        study,
        entrants,
        reader.metrics,
        classes,
        reader.grouped,
        len(reader.known.seen),
        store.failures(),
        absent,
    )


def _rank(value: float, higher_is_better: bool) -> float:
    return float("inf") if not np.isfinite(value) else -value if higher_is_better else value


def _metrics(study: Mapping[str, Any], classes: int) -> tuple[str, ...]:
    asked = [str(m) for m in (study.get("study") or {}).get("metrics") or ()]
    scores = classes * sum(int(item.get("n_test") or 0) for item in study["plan"])
    ranked = ("roc_auc",) if classes <= RANKED_CLASSES and scores <= RANKED_SCORES else ()
    return tuple(m for m in dict.fromkeys([*asked, *ALWAYS[:2], *ranked, *ALWAYS[2:]]) if m in METRICS)


class _Reader:
    """Reads candidate after candidate; what they share (units, resamples) is made once."""

    def __init__(self, metrics: tuple[str, ...], classes: tuple[str, ...], total: int, progress: Progress | None) -> None:
        self.metrics, self.classes = metrics, classes
        self.total, self.done, self.progress = total, 0, progress
        self.grouped = False
        self.known = Known()
        self._bootstrap: tuple[str, Bootstrap] | None = None

    def entrant(self, name: str, planned: int, settings: dict[str, Any], runs: list[Run]) -> Entrant:
        entrant = Entrant(name, planned, settings, confusion=np.zeros((len(self.classes),) * 2, dtype=np.int64))
        rows: list[tuple[Ints, Ints, Ints, Floats]] = []
        outside: list[Predictions] = []
        for number, run in enumerate(runs):
            said = self._read(run)
            answers = Answers.checked(said.labels, said.probabilities)
            external = run.predictions("external")
            outside += [external] if external else []
            entrant.runs.append(self._line(run, said, answers, external))
            self._add(entrant, run, said, answers)
            rows.append((said.labels, self._codes(said), np.full(len(said.labels), number), answers.probabilities))
            self.done += 1
            if self.progress:
                self.progress(self.done, self.total)
        labels, units, splits, probabilities = (np.concatenate(column) for column in zip(*rows, strict=True))
        bootstrap = self._draws(labels, units, splits)
        entrant.replicates = bootstrap.replicates(self.metrics[0], probabilities)
        entrant.unseen = self._averaged(outside) if outside else None
        return entrant

    def _read(self, run: Run) -> Predictions:
        said = run.predictions()
        if said is None or said.logits.shape[1:] != (len(self.classes),) or len(said.labels) != len(said.logits):
            raise StoreError(f"{run.folder}/predictions.npz is missing or has not {len(self.classes)} classes: delete the folder")
        return said

    def _line(self, run: Run, said: Predictions, answers: Answers, external: Predictions | None) -> RunLine:
        record = run.record
        part = record["split"]
        return RunLine(
            run.key,
            (int(record["seed"]), int(part["repeat"]), int(part["fold"])),
            self.known.digest(said.ids),
            0 if said.groups is None else len(self.known.parts(said.groups)[0]),
            int(part["n_train"]) + int(part.get("n_validation") or 0),
            int(part["n_test"]),
            self._scores(answers),
            self._scores(Answers.checked(external.labels, external.probabilities)) if external else {},
            {k: v for k, v in record["cost"].items() if v is not None},
            {k: v for k, v in record.items() if k not in ("classes", "metrics", "cost")},
        )

    def _averaged(self, outside: list[Predictions]) -> Unseen:
        together = statistics.ensemble(outside)
        name, labels, probabilities = self.metrics[0], together.labels, together.probabilities
        found = statistics.interval(name, labels, probabilities, together.groups)
        each = [] if together.sites is None else by_group(name, labels, probabilities, together.sites)
        scores = self._scores(Answers.checked(labels, probabilities))
        return Unseen(len(labels), len(outside), scores, found, {score.group: score.value for score in each})

    def _add(self, entrant: Entrant, run: Run, said: Predictions, answers: Answers) -> None:
        """One run's rows into the sums of its candidate."""
        right = answers.predicted == answers.labels
        size = len(self.classes)
        entrant.confusion += np.bincount(answers.labels * size + answers.predicted, minlength=size * size).reshape(size, size)
        confidence = answers.probabilities.max(axis=1)
        entrant.bins += _binned(confidence, right)
        if said.groups is not None:
            entrant.groups.add(*self.known.parts(said.groups), right)
        if said.sites is not None:
            entrant.sites.add(*self.known.parts(said.sites), right)
        entrant.mistakes = _surest([*entrant.mistakes, *_mistakes(run.key, said, answers.predicted, confidence)])
        for row_name, values in _columns(run.history).items():
            entrant.history.setdefault(row_name, []).append(values)

    def _scores(self, answers: Answers) -> dict[str, float]:
        return score_all(self.metrics, answers)

    def _codes(self, said: Predictions) -> Ints:
        """(n,) the number of each row's independent unit."""
        self.grouped |= said.groups is not None
        return self.known.units(said.ids if said.groups is None else said.groups)

    def _draws(self, labels: Ints, units: Ints, splits: Ints) -> Bootstrap:
        """One Bootstrap for all candidates that were tested on the same rows."""
        key = digest([digest_array(column) for column in (labels, units, splits)])
        if self._bootstrap is None or self._bootstrap[0] != key:
            many = len(self.known.seen) > MANY_UNITS
            made = Bootstrap(labels, units, splits, resamples=FEWER if many else RESAMPLES)
            if self._bootstrap is not None:
                return made
            self._bootstrap = (key, made)
        return self._bootstrap[1]


def _binned(confidence: Floats, right: NDArray[np.bool_]) -> Floats:
    """(BINS, 3): rows, summed confidence, right answers."""
    member = bin_of(confidence, BINS)
    weights = (None, confidence, right.astype(np.float64))
    return np.stack([np.bincount(member, weights=w, minlength=BINS) for w in weights], axis=1).astype(np.float64)


def calibrated(store: Store, entrant: Entrant) -> Mended | None:
    """None unless every run set inner validation rows aside."""
    fitted, left = [], []
    for line in entrant.runs:
        run = store.run(line.key)
        aside, said = run.predictions("validation"), run.predictions()
        if aside is None or said is None or not len(aside.labels):
            return None
        fitted.append(statistics.temperature(aside.labels, aside.logits))
        left.append(METRICS["ece"].of(Answers.checked(said.labels, softmax(said.logits, fitted[-1]))))
    return Mended(float(np.mean(fitted)), std(np.array(fitted)), float(np.mean(left)))


def roc(store: Store, entrant: Entrant) -> tuple[Floats, float]:
    """(J, 101) share found at each of FALSE_ALARMS, a row a run in which every class occurs; and their mean area."""
    curves, areas = [], []
    for line in entrant.runs:
        said = store.run(line.key).predictions()
        if said is not None and len(np.unique(said.labels)) == said.logits.shape[1]:
            ranked = rankings(Answers.checked(said.labels, said.probabilities))
            curves.append(_roc(ranked))
            areas.append(line.metrics["roc_auc"] if "roc_auc" in line.metrics else area(ranked))
    return np.array(curves).reshape(-1, len(FALSE_ALARMS)), float(np.mean(areas)) if areas else float("nan")


def _roc(ranked: list[Ranking]) -> Floats:
    """(101,) averaged over the rankings, each class against the rest."""
    curves = []
    for ranking in ranked:
        found = np.concatenate([[0], np.cumsum(ranking.positives[::-1])])
        alarms = np.concatenate([[0], np.cumsum(ranking.negatives[::-1])])
        curves.append(np.interp(FALSE_ALARMS, alarms / alarms[-1], found / found[-1]))
    return np.asarray(np.mean(curves, axis=0))


def _mistakes(key: str, said: Predictions, answered: Ints, confidence: Floats) -> list[Mistake]:
    wrong = np.flatnonzero(answered != said.labels)
    sure = wrong[np.argsort(-confidence[wrong], kind="stable")][:MISTAKES]
    return [
        Mistake(
            key,
            str(said.ids[i]),
            int(said.labels[i]),
            int(answered[i]),
            float(confidence[i]),
            None if said.groups is None else str(said.groups[i]),
            None if said.spans is None else (float(said.spans[i][0]), float(said.spans[i][1])),
        )
        for i in sure
    ]


def _surest(mistakes: list[Mistake]) -> list[Mistake]:
    """The most confident ones, each sample once."""
    best: dict[str, Mistake] = {}
    for m in sorted(mistakes, key=lambda m: (-m.confidence, m.id)):
        best.setdefault(m.id, m)
    return list(best.values())[:MISTAKES]


def _columns(history: list[dict[str, float | str]]) -> dict[str, Floats]:
    """Column → (epochs,) of numbers; columns of words are left out."""
    names = [n for n in (history[0] if history else {}) if all(isinstance(row.get(n), float) for row in history)]
    return {n: np.array([row[n] for row in history], dtype=np.float64) for n in names}
