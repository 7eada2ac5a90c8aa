"""Downloads weights into a folder to carry (weights_folder.py): resumed where they stopped, checked, with licence and settings.

From the hub by its own library, so its variables hold: HF_ENDPOINT (a mirror), HF_TOKEN, proxies. Weights that are not on the hub
come from their URL.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from phoropter.core.errors import WeightsError, cut_message
from phoropter.core.files import make_folder, write_json
from phoropter.models.weights.pretraining_words import describe_pretraining
from phoropter.models.weights.weight_files import RemoteWeights, is_offline, read_sidecar_json
from phoropter.models.weights.weights_folder import (
    ManifestEntry,
    add_to_manifest,
    digest_weights,
    read_weights_manifest,
)

_UNFINISHED = ".unfinished"  # folder of downloads in progress
_TIMEOUT_S = 30.0
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class WantedWeights:
    """name: with its tag · tag · settings: for the JSON beside the file where the hub has none"""

    name: str
    tag: str | None
    remote: RemoteWeights
    settings: Mapping[str, Any]


def fetch_into_folder(wanted: WantedWeights, folder: Path) -> tuple[ManifestEntry, bool]:
    """Downloads weights into a folder unless they are there and sound; returns their entry, and whether they were downloaded.

    Raises WeightsError; what was downloaded until then is used by the next call.
    """
    known = read_weights_manifest(folder).weights.get(wanted.name)
    if known is not None and (folder / known.file).is_file() and digest_weights(folder / known.file) == known.sha256:
        return known, False
    if is_offline():
        raise WeightsError(f"{wanted.name} cannot be downloaded: HF_HUB_OFFLINE is set; unset it where there is a network")
    make_folder(folder)
    aside = folder / _UNFINISHED / wanted.name
    got, licence = _from_hub(wanted, aside) if wanted.remote.repo else (_from_url(str(wanted.remote.url), aside), None)
    file = folder / f"{wanted.name}{got.suffix}"
    settings = read_sidecar_json(aside / "config.json") if (aside / "config.json").is_file() else dict(wanted.settings)
    try:  # beside the weights, so that `weights: PATH` in a study knows size, mean and deviation
        write_json(file.with_suffix(".json"), settings)
    except ValueError:
        problem = "its config.json holds a value that JSON lacks, such as NaN; choose another tag"
        raise WeightsError(f"{wanted.name}: {problem}") from None
    got.replace(file)
    entry = ManifestEntry(
        file=file.name,
        bytes=file.stat().st_size,
        sha256=digest_weights(file),
        repo=wanted.remote.repo,
        url=None if wanted.remote.repo else wanted.remote.url,
        licence=licence,
        pretraining=describe_pretraining(wanted.tag),
    )
    add_to_manifest(folder, wanted.name, entry)
    shutil.rmtree(folder / _UNFINISHED / wanted.name, ignore_errors=True)
    return entry, True


def _from_hub(wanted: WantedWeights, aside: Path) -> tuple[Path, str | None]:
    """The downloaded file, checked against the hub's digest, and the licence that the card of the model states."""
    import huggingface_hub
    from huggingface_hub import errors

    repo, names = str(wanted.remote.repo), wanted.remote.candidate_files

    def download(name: str) -> Path | None:
        try:
            return Path(huggingface_hub.hf_hub_download(repo, name, local_dir=aside))
        except errors.EntryNotFoundError:
            return None

    try:
        got = next((path for name in names if (path := download(name))), None)
        if got is None:
            raise WeightsError(f"the hub has no weights {repo} ({' or '.join(names)}); choose another tag, or a path")
        etag = str(huggingface_hub.get_hf_file_metadata(huggingface_hub.hf_hub_url(repo, got.name)).etag)
        download("config.json")
        card = download("README.md")
    except errors.GatedRepoError:
        raise WeightsError(f"weights {repo} are gated: request access to them on the hub and run `hf auth login`") from None
    except WeightsError:
        raise
    except Exception as error:
        reason = cut_message(error, 160)
        raise WeightsError(f"{wanted.name} could not be downloaded: {reason}; the same command goes on from here") from None
    if re.fullmatch(r"[0-9a-f]{64}", etag) and digest_weights(got) != etag:
        got.unlink()
        raise WeightsError(f"{wanted.name} arrived damaged: its SHA-256 is not the hub's; the same command downloads it again")
    return got, _read_licence(card)


def _read_licence(card: Path | None) -> str | None:
    from huggingface_hub.repocard import metadata_load

    try:
        stated = (metadata_load(card) or {}) if card else {}
    except Exception:  # a card that is no YAML states no licence
        return None
    name = stated.get("license_name") if stated.get("license") in (None, "other") else stated.get("license")
    return None if name is None else str(name)


def _from_url(url: str, aside: Path) -> Path:
    """The file of a URL, begun again where an earlier download stopped."""
    import urllib.error
    import urllib.request

    make_folder(aside)
    file = aside / url.rpartition("/")[2]
    part = file.with_name(file.name + ".part")
    begun = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={begun}-"} if begun else {})
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer, part.open("ab") as out:
            if begun and answer.status != 206:  # the server sends it from the beginning
                out.truncate(0)
            shutil.copyfileobj(answer, out, _CHUNK_BYTES)
    except (OSError, ValueError) as error:
        raise WeightsError(f"{url} could not be downloaded: {error}; the same command goes on from here") from None
    stated = re.search(r"-([0-9a-f]{8,})\.pth$", url)  # torch.hub's names end in the first letters of the digest
    if stated and not digest_weights(part).startswith(stated[1]):
        part.unlink()
        raise WeightsError(f"{url} arrived damaged: its SHA-256 does not begin with {stated[1]}; the same command tries again")
    return part.replace(file)
