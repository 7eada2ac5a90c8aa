"""Finished runs in an S3-compatible object store, `s3://BUCKET/STUDY`, and the local folder that mirrors them.

    s3://BUCKET/STUDY/runs/KEY/checksums.json    of a finished run, which exists when this is there; uploaded last
    s3://BUCKET/STUDY/runs/KEY/COPY/FILE         its files; COPY is the checksum of that checksums.json
    s3://BUCKET/STUDY/claims/KEY                 who computes KEY; rewritten while he does
    s3://BUCKET/STUDY/study.json
    MIRROR/remote.json                           the address, and whether the store can hold claims

A study is computed in the mirror, a results folder like any other; the store takes each run whole when it is finished and gives
those that others finished. Claims only save work: two processes that compute one run have the same predictions, each uploads a
copy of its own, for their times differ, and the last checksums.json says which of them counts. What is fetched is compared with
its checksums, and counts as absent where it is damaged. Failure notes, checkpoints and reports stay in the mirror.
"""

from __future__ import annotations

import re
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from phoropter.core.errors import SpecError, StoreError
from phoropter.core.files import atomic_write_folder, cache_dir, digest, make_folder, read_json, write_json
from phoropter.core.storage.checksums import CHECKSUM_FILE, checksum_bytes, find_damage, print_notice
from phoropter.core.storage.object_store import explain_store_errors, open_object_store

RENEW_S = 60.0  # how often a claim is rewritten by who holds it
STALE_S = 300.0  # a claim that has not changed for so long, by the clock of who looks, is nobody's
_MIRROR_FILE = "remote.json"
_MAX_DEPTH = 3  # folders between a mirror and the results folder of a part or a control in it


def open_place(place: Path | str) -> Path:
    """A results folder as it is named; of `s3://BUCKET/STUDY`, the local folder that mirrors it. Raises as `open_mirror`."""
    return open_mirror(str(place), cache_dir() / "mirrors") if str(place).startswith("s3:") else Path(place)


def open_mirror(url: str, mirrors: Path) -> Path:
    """The local folder that mirrors a store, with all finished runs of both in both; those of parts and controls below it too.

    mirrors: where mirrors are kept. Raises SpecError for an address that is none, DiskError where the store does not answer.
    """
    if not re.fullmatch(r"s3://[^/\s]+/[^\s]*[^/\s]", url):
        raise SpecError(f"'{url}' is no address of a study, expected s3://BUCKET/STUDY: a bucket and a name in it")
    remote = RemoteStore(url)
    remote.can_claim = remote.probe_claims()
    if not remote.can_claim:
        print_notice(f"{url} ignores conditional writes: runs are not claimed there, and two machines may compute the same run")
    folder = mirrors / f"{re.sub(r'[^A-Za-z0-9]+', '-', url[5:]).strip('-')}-{digest(url)[:8]}"
    make_folder(folder)
    write_json(folder / _MIRROR_FILE, {"url": url, "can_claim": remote.can_claim})
    there = remote.list_runs()
    here = {run.relative_to(folder).as_posix() for run in folder.glob("**/runs/[0-9a-f]*/") if find_damage(run) is None}
    find_store = cache(find_remote)  # one client, with its connections, for all runs of a results folder
    for path in sorted(there | here):
        place = folder / path
        results = place.parents[1]
        store = find_store(results)
        assert store is not None
        if path not in here:
            store.fetch_run(place.name, place)
        elif path not in there:
            store.upload_run(place)
        if not (results / "study.json").exists():
            store.fetch_file("study.json", results / "study.json")
    return folder


def find_remote(folder: Path) -> RemoteStore | None:
    """The store that a results folder mirrors, or a folder above it; None for one that mirrors none.

    Raises StoreError for a damaged note of the address.
    """
    for place in (folder, *folder.parents[:_MAX_DEPTH]):
        if (place / _MIRROR_FILE).exists():
            note = read_json(place / _MIRROR_FILE, 10_000, StoreError)
            below = folder.relative_to(place).parts
            return RemoteStore("/".join([str(note["url"]), *below]), bool(note["can_claim"]))
    return None


@dataclass
class RemoteStore:
    """can_claim: whether the store refuses a second conditional create, as `probe_claims` finds"""

    url: str
    can_claim: bool = True
    seen_claims: dict[str, tuple[bytes, float]] = field(default_factory=dict)  # key → claim of another, and when it changed

    @cached_property
    def client(self) -> Any:
        """obstore's client. Raises MissingExtraError."""
        return open_object_store(self.url, "-o s3://…")

    def probe_claims(self) -> bool:
        """Whether of two conditional creates of one object the second is refused."""
        name = f"probe/{secrets.token_hex(8)}"
        found = self._create(name, b"first") and not self._create(name, b"second")
        with self._explain_errors():
            self.client.delete(name)
        return found

    def list_runs(self) -> set[str]:
        """The runs that are in the store whole, as `runs/KEY`; of a part or a control, `PART/runs/KEY`."""
        with self._explain_errors():
            paths = [str(entry["path"]) for page in self.client.list() for entry in page]
        found = (re.fullmatch(rf"((?:[^/]+/)*runs/[0-9a-f]{{32}})/{re.escape(CHECKSUM_FILE)}", path) for path in paths)
        return {match[1] for match in found if match and ".." not in match[1].split("/")}

    def upload_run(self, folder: Path) -> None:
        """Uploads a finished run, its list of checksums last: until then, the store has no such run. Raises DiskError."""
        listed = (folder / CHECKSUM_FILE).read_bytes()
        copy = f"runs/{folder.name}/{checksum_bytes(listed)}"
        for file in sorted(p for p in folder.rglob("*") if p.is_file() and not p.name.startswith(".")):
            if file != folder / CHECKSUM_FILE:
                with self._explain_errors():
                    self.client.put(f"{copy}/{file.relative_to(folder).as_posix()}", file.read_bytes())
        with self._explain_errors():
            self.client.put(f"runs/{folder.name}/{CHECKSUM_FILE}", listed)

    def fetch_run(self, key: str, target: Path) -> bool:
        """Downloads a run into `target`; False where the store does not have it whole. Raises DiskError."""
        listed = self._read_object(f"runs/{key}/{CHECKSUM_FILE}")
        if listed is None:
            return False
        copy = f"runs/{key}/{checksum_bytes(listed)}"
        with self._explain_errors():
            paths = [str(entry["path"]) for page in self.client.list(copy) for entry in page]
        names = [path.removeprefix(f"{copy}/") for path in paths]
        if any(Path(name).is_absolute() or ".." in Path(name).parts for name in names):
            return False
        try:
            with atomic_write_folder(target) as aside:
                (aside / CHECKSUM_FILE).write_bytes(listed)
                for name in names:
                    make_folder((aside / name).parent)
                    self.fetch_file(f"{copy}/{name}", aside / name)
                if (damage := find_damage(aside)) is not None:
                    raise StoreError(f"{self.url}/runs/{key} is damaged ({damage}): it counts as absent and is computed again")
        except StoreError as error:
            print_notice(str(error))
            return False
        return True

    def fetch_file(self, name: str, target: Path) -> None:
        """Downloads one object; writes nothing where there is none. Raises DiskError."""
        if (content := self._read_object(name)) is not None:
            target.write_bytes(content)

    def upload_file(self, file: Path) -> None:
        """Uploads a file of the results folder under its name, over an earlier one. Raises DiskError."""
        with self._explain_errors():
            self.client.put(file.name, file.read_bytes())

    @contextmanager
    def hold_claim(self, key: str) -> Iterator[bool]:
        """Yields whether this process may compute a run; where the store holds no claims, anybody may. Raises DiskError."""
        name, mine = f"claims/{key}", secrets.token_hex(8)
        if not self.can_claim:
            yield True
            return
        if not (self._create(name, f"{mine} 0".encode()) or self._take_over(name, mine)):
            yield False
            return
        ended = threading.Event()
        renewer = threading.Thread(target=self._renew_claim, args=(name, mine, ended), daemon=True)
        renewer.start()
        try:
            yield True
        finally:
            ended.set()
            renewer.join()
            with suppress(Exception):  # a claim that stays is stale in a few minutes
                if self._holds_claim(name, mine):  # else it was taken over while this process was frozen
                    self.client.delete(name)

    def _renew_claim(self, name: str, mine: str, ended: threading.Event) -> None:
        count = 0
        while not ended.wait(RENEW_S):
            count += 1
            with suppress(Exception):  # others may take the run over then, and write the same bytes
                if self._holds_claim(name, mine):
                    self.client.put(name, f"{mine} {count}".encode())

    def _holds_claim(self, name: str, mine: str) -> bool:
        claim = self._read_object(name)
        return claim is not None and claim.startswith(mine.encode())

    def _take_over(self, name: str, mine: str) -> bool:
        """Whether a claim that is there is this process's own (its creation was sent twice), gone, or stale, and is taken."""
        claim = self._read_object(name)
        if claim is None:
            return self._create(name, f"{mine} 0".encode())
        if claim.startswith(mine.encode()):
            return True
        before, since = self.seen_claims.get(name, (b"", 0.0))
        if claim != before:
            self.seen_claims[name] = (claim, time.monotonic())
            return False
        if time.monotonic() - since < STALE_S:
            return False
        with self._explain_errors():
            self.client.put(name, f"{mine} 0".encode())
        return True

    def _read_object(self, name: str) -> bytes | None:
        """The content of an object; None where there is none."""
        try:
            with self._explain_errors():
                return bytes(self.client.get(name).bytes())
        except FileNotFoundError:
            return None

    def _create(self, name: str, content: bytes) -> bool:
        """Writes an object that is not there; False where it is."""
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        with self._explain_errors():
            try:
                self.client.put(name, content, mode="create")
            except (AlreadyExistsError, PreconditionError):
                return False
        return True

    def _explain_errors(self) -> AbstractContextManager[None]:
        """Raises DiskError for what the store answers, or for its silence; FileNotFoundError passes."""
        advice = "finished runs are kept here, and the same command goes on when the store answers"
        return explain_store_errors(self.url, advice)
