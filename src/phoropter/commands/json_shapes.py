"""The shapes of what `--json` writes, as pydantic models; docs/reference/json/ holds their JSON Schemas.

A document's `format` is raised when a key is renamed, removed or means something else; keys may be added under one format.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

FORMAT: Literal[1] = 1
Count = Annotated[int, Field(ge=0)]


class Shape(BaseModel):
    """Base of every object within a document."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class JsonDocument(Shape):
    """Base of every document.

    phoropter: the version that wrote it
    format: of its keys
    """

    phoropter: str
    format: Literal[1] = FORMAT


class ClassCounts(Shape):
    """rows: of the dataset · classes: class → rows · groups, sites: how many; None where the data have none"""

    name: str
    rows: Count
    classes: dict[str, Count]
    groups: Count | None
    sites: Count | None


class PlannedCandidateShape(Shape):
    """how: what is done, in words · runs, done: counts of its runs · seconds: estimate for those missing; None: for an average"""

    name: str
    how: str
    runs: Count
    done: Count
    seconds: Annotated[float, Field(ge=0)] | None


class EstimateShape(Shape):
    """Of the missing runs on `hardware`. measured: whether the speed was measured here; the last is memory of a process."""

    seconds: Annotated[float, Field(ge=0)]
    hardware: str
    measured: bool
    feature_seconds: Annotated[float, Field(ge=0)]
    pixel_bytes: Count
    feature_bytes: Count
    memory_bytes: Count


class FindingShape(Shape):
    """A finding of the leakage audit: severity is stop, warn or note."""

    kind: str
    severity: str
    words: str


class PlannedPart(Shape):
    """One part of a study.

    folder: where its results are, or would be
    splits: of rows into training and test parts
    smoke_changes: what --smoke changed
    questions: the planned contrasts, in words
    refused: why `run` would stop; None where it would not
    """

    name: str
    folder: str
    data: ClassCounts
    splits: Count
    runs: Count
    missing: Count
    candidates: tuple[PlannedCandidateShape, ...]
    estimate: EstimateShape
    questions: tuple[str, ...]
    findings: tuple[FindingShape, ...]
    notes: tuple[str, ...]
    smoke_changes: tuple[str, ...]
    refused: str | None


class PlanDocument(JsonDocument):
    """`phoropter plan STUDY --json`."""

    parts: tuple[PlannedPart, ...]


class CandidateState(Shape):
    """Counts of the runs of a candidate; a damaged run counts as missing."""

    name: str
    done: Count
    running: Count
    failed: Count
    missing: Count


class RunningRun(Shape):
    """A run in progress."""

    candidate: str
    split: str
    epoch: Count
    epochs: Count


class FailedRun(Shape):
    """A run that failed, and its error."""

    candidate: str
    split: str
    error: str


class StatusDocument(JsonDocument):
    """`phoropter status FOLDER --json`.

    study: its name; None before the images are ready
    preparing: what is being prepared; None where nothing is
    notes: such as damaged runs
    """

    folder: str
    study: str | None
    preparing: str | None
    runs: Count
    done: Count
    candidates: tuple[CandidateState, ...]
    running: tuple[RunningRun, ...]
    failed: tuple[FailedRun, ...]
    notes: tuple[str, ...]


class GroupSizes(Shape):
    """How many groups, and rows in the smallest, the median and the largest."""

    count: Count
    fewest: Count
    median: float
    most: Count


class InputProblemShape(Shape):
    """An input that cannot be used, and why."""

    where: str
    why: str


class InspectDocument(JsonDocument):
    """`phoropter inspect PATH --json`.

    source: the key under `data:` that reads it
    sizes: `WIDTHxHEIGHT` → pictures among the `sampled` headers
    duplicates: ids of rows with equal contents
    recordings: facts about each recording, where rows are windows of recordings
    """

    source: str
    name: str
    rows: Count
    unlabelled: Count
    classes: dict[str, Count]
    parts: dict[str, Count]
    sites: dict[str, Count]
    groups: GroupSizes | None
    sizes: dict[str, Count]
    sampled: Count
    unreadable: Count
    bytes: Count | None
    duplicates: tuple[tuple[str, ...], ...]
    problems: tuple[InputProblemShape, ...]
    notes: tuple[str, ...]
    recordings: tuple[dict[str, Any], ...]


class BackboneShape(Shape):
    """A network: multiply_adds for one image of `side` pixels · width of its features · weights: its tags, the default first."""

    name: str
    parameters: Count | None
    multiply_adds: Count | None
    side: Count
    width: Count
    weights: tuple[str, ...]


class BackbonesDocument(JsonDocument):
    """`phoropter backbones PATTERN --json`."""

    backbones: tuple[BackboneShape, ...]


class StudyPartShape(Shape):
    """A part of a shipped study and the names of its candidates."""

    name: str
    candidates: tuple[str, ...]


class ShippedStudy(Shape):
    """A shipped study: source, result to expect, time and data, each empty where it is not stated."""

    name: str
    source: str
    expect: str
    time: str
    data: str
    parts: tuple[StudyPartShape, ...]


class StudiesDocument(JsonDocument):
    """`phoropter studies --json`."""

    studies: tuple[ShippedStudy, ...]


class DoctorDocument(JsonDocument):
    """`phoropter doctor --json`.

    versions: of Python and of the packages
    devices: what --device takes here
    cores: that this process may use
    notes: what does not work, and does not matter or does
    weights_folder: `PHOROPTER_WEIGHTS`; None where it is not set
    """

    versions: dict[str, str]
    devices: tuple[str, ...]
    cores: Count
    cache: str
    weights_folder: str | None
    notes: dict[str, str]


class PredictedAnswer(Shape):
    """The answer for an image, window, recording or subject.

    id: of the row, or the name of the recording or subject
    windows: that were joined; None for a row
    recording, start_s, stop_s: of a window
    label: as the input states it
    answer: the likeliest class; of several labels those above a half, joined by |
    decision: by the bundle's threshold; None where it has none for such answers
    probabilities: class → probability
    """

    id: str
    windows: Count | None = None
    recording: str | None = None
    start_s: float | None = None
    stop_s: float | None = None
    label: str | None = None
    answer: str
    decision: str | None = None
    probabilities: dict[str, Annotated[float, Field(ge=0, le=1)]]


class PredictDocument(JsonDocument):
    """`phoropter predict BUNDLE PATHS --json`.

    rows: each image or window
    recordings: one answer each; empty for images
    left_out: inputs that could not be used
    files: what was written
    """

    bundle: str
    classes: tuple[str, ...]
    rows: tuple[PredictedAnswer, ...]
    recordings: tuple[PredictedAnswer, ...]
    left_out: tuple[InputProblemShape, ...]
    notes: tuple[str, ...]
    files: tuple[str, ...]


class LeaderboardColumn(Shape):
    """kind: how its values read (percent values are shares, durations seconds) · unit: as the page shows it"""

    name: str
    kind: str
    unit: str


class ReportDocument(JsonDocument):
    """`phoropter report FOLDER --json`.

    page: the file that was written
    conclusion: its sentences
    leaderboard: rows in order, each a value per column; a mean with its deviation, an interval, as objects; None: no value
    """

    page: str
    conclusion: tuple[str, ...]
    columns: tuple[LeaderboardColumn, ...]
    leaderboard: tuple[tuple[Any, ...], ...]


DOCUMENTS: dict[str, type[JsonDocument]] = {
    "plan": PlanDocument,
    "status": StatusDocument,
    "inspect": InspectDocument,
    "backbones": BackbonesDocument,
    "studies": StudiesDocument,
    "doctor": DoctorDocument,
    "predict": PredictDocument,
    "report": ReportDocument,
}
