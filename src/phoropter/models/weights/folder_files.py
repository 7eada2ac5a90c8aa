"""The files of weights in a folder, whoever put them there, and what is stated of each by its name and by the JSON beside it.

No torch: nothing but the JSON is read. Whether a file keeps what is stated, models/recognition finds out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from phoropter.core.errors import WeightsError
from phoropter.models.weights.pretraining_words import describe_pretraining
from phoropter.models.weights.weight_files import PICKLE_SUFFIXES, read_sidecar
from phoropter.models.weights.weights_folder import ManifestEntry, add_to_manifest, digest_weights, read_weights_manifest

_ENDINGS = (".safetensors", *PICKLE_SUFFIXES)


@dataclass(frozen=True)
class StatedFacts:
    """What name and JSON say of a file of weights.

    architecture: the network that the JSON names, else the name of the file up to its first dot · pretraining: in words
    licence: None where none is stated · sha256: of the contents; None where the JSON states none
    """

    architecture: str
    pretraining: str
    licence: str | None
    sha256: str | None


def list_weight_files(folder: Path) -> list[Path]:
    """Files of weights in a folder, by name."""
    return [file for file in sorted(folder.iterdir()) if file.suffix in _ENDINGS and file.is_file()]


def list_unlisted_files(folder: Path) -> list[Path]:
    """Files of weights in a folder that its manifest does not name."""
    known = {entry.file for entry in read_weights_manifest(folder).weights.values()}
    return [file for file in list_weight_files(folder) if file.name not in known]


def read_stated_facts(file: Path) -> StatedFacts:
    """What is stated of a file. Raises WeightsError where the JSON beside it is damaged."""
    beside = read_sidecar(file.with_suffix(".json"))
    name, _, tag = file.stem.partition(".")
    licence, digest = beside.get("licence") or beside.get("license"), beside.get("sha256")
    return StatedFacts(
        architecture=str(beside.get("architecture") or name).partition(".")[0],
        pretraining=describe_pretraining(tag),
        licence=str(licence) if licence else None,
        sha256=digest if isinstance(digest, str) and re.fullmatch("[0-9a-f]{64}", digest) else None,
    )


def add_unlisted_files(folder: Path) -> list[ManifestEntry]:
    """Records the unlisted files of a folder in its manifest, as they are now; their entries.

    Raises WeightsError for a file that is not what the JSON beside it states; those before it are recorded.
    """
    added = []
    for file in list_unlisted_files(folder):
        stated, digest = read_stated_facts(file), digest_weights(file)
        if stated.sha256 not in (None, digest):
            raise WeightsError(f"{file} has another SHA-256 than {file.stem}.json states; copy it again, or correct the JSON")
        size = file.stat().st_size
        facts = {"licence": stated.licence, "pretraining": stated.pretraining}
        added.append(ManifestEntry(file=file.name, bytes=size, sha256=digest, repo=None, url=None, **facts))
        add_to_manifest(folder, file.stem, added[-1])
    return added
