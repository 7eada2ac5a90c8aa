"""Data that a user passes as an object: arrays, a DataFrame of paths, a torch or Hugging Face dataset, recordings, a Dataset.

    ph.Study(data=(images, labels, groups), …)                  ph.Study(data=ph.in_memory(torchvision_set, size=64), …)

Objects are recognised by what they can do, so that neither torch nor pandas nor `datasets` is imported. Two objects with equal
contents have equal fingerprints, so a study finds its finished runs again.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pydantic import GetCoreSchemaHandler
from pydantic_core import core_schema

from phoropter.core.errors import DataError
from phoropter.core.extensions import REFERENCE, import_reference
from phoropter.data.dataset import Dataset
from phoropter.data.recordings.in_memory import from_recordings, looks_like_recording
from phoropter.data.source import Source, SourceRequest
from phoropter.data.sources.arrays import from_arrays
from phoropter.data.sources.items import from_huggingface, from_torch
from phoropter.data.sources.manifest import from_dataframe

_EXPECTED = (
    "a Dataset, (images, labels[, groups[, sites]]), a DataFrame with the columns path and label, a torch Dataset, a Hugging "
    "Face Dataset, or a list of recordings"
)
_RECORD_KEYS = {"kind", "name", "rows", "fingerprint"}
_PLAIN = (str, bytes, int, float, bool, type(None), dict, set, frozenset)


class InMemoryData:
    """A dataset that was passed as an object: what `object:` of a DataSpec holds. Equal where the contents are equal.

    dataset: the data, or None where only their record is left (read from a bundle or from the study.json of a run folder)
    kind:    class of the object that was passed
    """

    def __init__(self, dataset: Dataset, kind: str = "Dataset") -> None:
        self.dataset: Dataset | None = dataset
        self.kind = kind
        self._record: dict[str, Any] | None = None

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> InMemoryData:
        """The result of `plain` → an InMemoryData without data, which cannot be opened."""
        recorded = object.__new__(cls)
        recorded.dataset, recorded.kind, recorded._record = None, str(record["kind"]), dict(record)
        return recorded

    def plain(self) -> dict[str, Any]:
        """{"kind", "name", "rows", "fingerprint"}. The first call reads all contents, for the fingerprint."""
        if self._record is None:
            assert self.dataset is not None
            self._record = {
                "kind": self.kind,
                "name": self.dataset.name,
                "rows": len(self.dataset),
                "fingerprint": self.dataset.fingerprint,
            }
        return self._record

    def __eq__(self, other: object) -> bool:
        return isinstance(other, InMemoryData) and self.plain()["fingerprint"] == other.plain()["fingerprint"]

    def __hash__(self) -> int:
        return hash(self.plain()["fingerprint"])

    def __repr__(self) -> str:
        rows = self._record["rows"] if self.dataset is None and self._record else len(self.dataset or ())
        return f"InMemoryData({self.kind}, {rows} rows)"

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return core_schema.no_info_plain_validator_function(
            cls._validate_value,
            serialization=core_schema.plain_serializer_function_ser_schema(lambda value: value.plain(), when_used="json"),
        )

    @classmethod
    def _validate_value(cls, value: Any) -> InMemoryData:
        if isinstance(value, InMemoryData):
            return value
        if isinstance(value, dict) and set(value) == _RECORD_KEYS:
            return cls.from_record(value)
        if isinstance(value, str) and REFERENCE.fullmatch(value):
            value = import_reference(value)
            value = value() if callable(value) and not hasattr(value, "__getitem__") else value
        try:
            return cls(as_dataset(value), _describe_kind(value))
        except DataError as error:
            raise ValueError(str(error)) from None


def as_dataset(given: Any) -> Dataset:
    """An object with labelled pictures → Dataset.

    given: a Dataset; a tuple or list of (N, H, W[, C]) uint8 images, N labels and where known N groups and N sites; a DataFrame,
    whose paths start from the current folder; a torch `Dataset` (torchvision's too); a Hugging Face `Dataset` or `DatasetDict`;
    recordings (`Recording`, MNE's Raw, WFDB's Record; `from_recordings` has options)
    Raises DataError for anything else, and for contents that cannot be used.
    """
    if isinstance(given, Dataset):
        return given
    if isinstance(given, InMemoryData) and given.dataset is not None:
        return given.dataset
    if isinstance(given, (tuple, list)) and given and hasattr(given[0], "shape"):
        if not 2 <= len(given) <= 4:
            raise DataError(f"{len(given)} arrays came as data; expected (images, labels[, groups[, sites]])")
        return from_arrays(given[0], given[1], **dict(zip(("groups", "sites"), given[2:], strict=False)))
    recordings = given if isinstance(given, (tuple, list)) else [given]
    if recordings and all(looks_like_recording(item) for item in recordings):
        return from_recordings(recordings)
    if hasattr(given, "columns") and hasattr(given, "itertuples"):
        return from_dataframe(given)
    if hasattr(given, "column_names"):
        return from_huggingface(given)
    if hasattr(given, "__getitem__") and hasattr(given, "__len__") and not isinstance(given, (*_PLAIN, tuple, list)):
        return from_torch(given)
    raise DataError(f"data is {type(given).__name__}, expected {_EXPECTED}")


def is_data_object(value: Any) -> bool:
    """Whether a value of `data:` is an object, and nothing that a study file can contain."""
    if isinstance(value, dict):
        return type(value) is not dict  # a DatasetDict
    return not isinstance(value, _PLAIN) and not (isinstance(value, (list, tuple)) and all(isinstance(v, _PLAIN) for v in value))


def _open_object(request: SourceRequest) -> Dataset:
    given: InMemoryData = request.value
    if given.dataset is None:
        raise DataError(
            f"the data '{given.plain()['name']}' were passed in Python ({given.kind}), and only a record of them is left: "
            "pass the object again"
        )
    return replace(given.dataset, name=request.name) if request.name else given.dataset


def _describe_kind(value: Any) -> str:
    """The class of an object; of a list, the class of its first element."""
    return _describe_kind(value[0]) + "s" if isinstance(value, (tuple, list)) else type(value).__name__


OBJECT_SOURCE = Source(
    "object",
    _open_object,
    f"in Python: {_EXPECTED}; in a study file: `module:NAME` of such an object, or of a function that returns one (only with "
    "--trust-code)",
    value_type=InMemoryData | None,
)
