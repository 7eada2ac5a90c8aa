"""Database: one record that says how the recordings of a database are read, cut into windows and labelled.

A new database is a reader (a module of signals/readers) and one value in the table of databases.py. A user passes a value of
his own, `ph.recordings(FOLDER, database=ph.Database("mine", read=...))`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from phoropter.core.errors import DataError, InputProblem
from phoropter.core.extensions import Extension
from phoropter.data.recordings.views import GreyScale
from phoropter.signals.recording import LoadedRecordings, OnBadInput, Recording, read_folder
from phoropter.signals.render import Representation

WindowKind = Literal["sliding", "events", "ctg"]


@dataclass(frozen=True, eq=False)
class Database(Extension):
    """A recording database. Give `read`, or `read_file` and `pattern`; every other field is a default a study can change.

    read:            (folder, on_bad_input) → LoadedRecordings or a list of Recording
    read_file:       file → Recording; also reads single files at prediction time
    read_label_sets: as read, with several labels of a recording joined by `|` in its label: what `multi_label: true` reads
    pattern:         the database's files inside its folder, such as "*.hea" or "S*/S*.pkl"
    detect:          (folder, names in it) → whether `phoropter inspect` recognises the folder; for databases of the table only
    windows:         "sliding": windows of one channel; "events": a window around each event; "ctg": cardiotocograms;
                     None: cardiotocograms if every recording has the channels FHR and UC, else sliding
    window_s:        length of a window in seconds (None: 5, or 0.8 around events)
    channel:         the channel to represent (None: the only one there is)
    rate_hz:         the sampling rate every recording must have (None: any, the same for all)
    tasks:           task → {label in the recordings: class}, or None where labels are the classes; the first is the default
    classes:         the classes in order, where there are no tasks
    outcome:         the rule that makes classes of outcomes, such as "apgar<=6"
    representation:  how a window becomes an image (None: a spectrogram; a CtgPlot for cardiotocograms)
    grey_scale:      "per-image" or "per-subject"
    require_r_peaks: refuse an ECG in which no heartbeat is found
    subjects:        what the groups are, in the plural, for notes and reports: people, births, patients
    note:            citation and licence, repeated in every report
    download_hint:   where the data can be had
    """

    read: Callable[[Any, OnBadInput], LoadedRecordings | Sequence[Recording]] | None = None
    read_file: Callable[[Path], Recording] | None = None
    read_label_sets: Callable[[Any, OnBadInput], LoadedRecordings | Sequence[Recording]] | None = None
    pattern: str | None = None
    detect: Callable[[Path, Sequence[str]], bool] | None = None
    windows: WindowKind | None = "sliding"
    window_s: float | None = None
    channel: str | None = None
    rate_hz: float | None = None
    tasks: Mapping[str, Mapping[str, str] | None] = field(default_factory=dict)
    classes: tuple[str, ...] | None = None
    outcome: str | None = None
    representation: Representation | None = None
    grey_scale: GreyScale = "per-image"
    require_r_peaks: bool = False
    subjects: str = "subjects"
    note: str = ""
    download_hint: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.has_reader:
            raise ValueError(f"the database '{self.name}' cannot be read: give it read, or read_file and pattern")
        if self.windows not in ("sliding", "events", "ctg", None):
            raise ValueError(f"windows of the database '{self.name}' is {self.windows!r}, expected sliding, events, ctg or None")

    @property
    def has_reader(self) -> bool:
        """Whether it can read a folder. A placeholder made from a record, which holds name and version only, cannot."""
        return self.read is not None or (self.read_file is not None and self.pattern is not None)

    @cached_property
    def with_label_sets(self) -> Database:
        """The same database with several labels a recording, those of its first task, where it has a reader for them."""
        if self.read_label_sets is None:
            return self
        labels = next((task for task in self.tasks.values() if task), {})
        return replace(self, read=self.read_label_sets, tasks={}, classes=tuple(dict.fromkeys(labels.values())) or self.classes)

    @property
    def suffix(self) -> str:
        """The ending of its files in small letters, such as ".hea"; "" where no pattern tells it."""
        return Path(self.pattern).suffix.lower() if self.pattern else ""

    def load(self, folder: Any, on_bad_input: OnBadInput) -> LoadedRecordings:
        """Reads a folder. A recording of another rate than `rate_hz` stops the reading, or is listed as a problem.

        folder: a path; a simulation is given its cohort instead. Raises DataError where nothing can be read.
        """
        loaded = self._read_folder(folder, on_bad_input)
        kept, problems = [], list(loaded.problems)
        for recording in loaded.recordings:
            if self.rate_hz is not None and recording.rate_hz != self.rate_hz:
                what = f"its rate is {recording.rate_hz:g} Hz, recordings of {self.name} have {self.rate_hz:g} Hz"
                if on_bad_input == "stop":
                    raise DataError(f"recording {recording.id}: {what}; leave it out or say on_bad_input: skip")
                problems.append(InputProblem(recording.id, what))
                continue
            kept.append(recording)
        return replace(loaded, recordings=kept, problems=problems)

    def _read_folder(self, folder: Any, on_bad_input: OnBadInput) -> LoadedRecordings:
        if self.read is not None:
            loaded = self.read(folder, on_bad_input)
            return loaded if isinstance(loaded, LoadedRecordings) else LoadedRecordings(list(loaded))
        if self.read_file is None or self.pattern is None:
            raise DataError(f"only the name of the database '{self.name}' was recorded: pass its version {self.version} itself")
        return read_folder(Path(folder), on_bad_input, pattern=self.pattern, read_file=self.read_file)
