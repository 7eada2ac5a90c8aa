"""phoropter weights get | list | verify, against a small hub on the loopback interface."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from phoropter.core.errors import WeightsError
from phoropter.models import catalog
from phoropter.models.spec import BackboneSpec
from phoropter.models.weights import fetch_folder
from phoropter.models.weights.fetch_folder import WantedWeights, _from_url, _read_licence, fetch_into_folder
from phoropter.models.weights.weight_files import RemoteWeights

TENSORS = save({"a": np.arange(3 << 20, dtype=np.float32)})  # 12 MiB: the hub's library writes 10 MiB at a time
CARD = b"---\nlicense: apache-2.0\ntags: [timm]\n---\n# A network\n"
NAME = "test_resnet.r160_in1k"


@dataclass
class FakeHub:
    """files: path → contents · log: (method, path, range) of each request · cut: answers to GET that end in the middle"""

    files: dict[str, bytes]
    log: list[tuple[str, str, str]] = field(default_factory=list)
    cut: int = 0
    url: str = ""
    false_etag: bool = False


def make_handler(hub: FakeHub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self.answer()

        def do_GET(self) -> None:
            self.answer()

        def answer(self) -> None:
            hub.log.append((self.command, self.path, self.headers.get("Range", "")))
            contents = hub.files.get(self.path)
            if contents is None:
                self.send_response(404)
                self.send_header("X-Error-Code", "EntryNotFound")
                self.send_header("X-Repo-Commit", "0" * 40)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            start = int((re.match(r"bytes=(\d+)-", self.headers.get("Range", "")) or ["", "0"])[1])
            self.send_response(206 if start else 200)
            etag = "f" * 64 if hub.false_etag else hashlib.sha256(contents).hexdigest()
            for key, value in (("ETag", f'"{etag}"'), ("X-Linked-Etag", f'"{etag}"'), ("X-Repo-Commit", "0" * 40)):
                self.send_header(key, value)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(contents) - 1}/{len(contents)}")
            self.send_header("X-Linked-Size", str(len(contents)))
            self.send_header("Content-Length", str(len(contents) - start))
            self.end_headers()
            if self.command == "GET":
                rest = contents[start:]
                if hub.cut and len(rest) > 11 << 20:
                    hub.cut -= 1
                    rest = rest[: 11 << 20]
                    self.close_connection = True
                self.wfile.write(rest)

    return Handler


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    base = f"/timm/{NAME}/resolve/main"
    config = json.dumps({"architecture": "test_resnet", "num_classes": 1000, "pretrained_cfg": {"input_size": [3, 160, 160]}})
    fake = FakeHub({f"{base}/model.safetensors": TENSORS, f"{base}/README.md": CARD, f"{base}/config.json": config.encode()})
    server = ThreadingHTTPServer(("127.0.0.1", 0), make_handler(fake))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    fake.url = f"http://127.0.0.1:{server.server_port}"
    yield fake
    server.shutdown()
    server.server_close()


def phoropter(hub: FakeHub, home: Path, *arguments: object, **variables: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, because the hub's library reads its variables when it is imported."""
    environment = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
    environment |= {"HF_ENDPOINT": hub.url, "HF_HOME": str(home / "hub"), "HF_HUB_OFFLINE": "0", "NO_PROXY": "*", **variables}
    command = [sys.executable, "-m", "phoropter", "weights", *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)


def test_weights_are_fetched_resumed_listed_found_and_verified(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "stick"
    hub.cut = 1
    done = phoropter(hub, tmp_path, "get", "test_resnet", "--to", folder)
    assert done.returncode == 0, done.stderr
    assert f"fetched: {NAME}.safetensors (12.0 MiB, apache-2.0, ImageNet-1k)" in done.stdout
    assert any(method == "GET" and wanted for method, _, wanted in hub.log), hub.log
    assert {p.name for p in folder.iterdir() if not p.name.startswith(".")} == {
        f"{NAME}.safetensors",
        f"{NAME}.json",
        "weights.json",
    }
    digest = hashlib.sha256(TENSORS).hexdigest()
    entry = json.loads((folder / "weights.json").read_text())["weights"][NAME]
    assert (entry["sha256"], entry["bytes"], entry["licence"]) == (digest, len(TENSORS), "apache-2.0")

    monkeypatch.setenv("PHOROPTER_WEIGHTS", str(folder))  # offline, as every test: the folder is enough
    catalog.check_weights(BackboneSpec(name="test_resnet"))
    assert catalog.identify_weights(BackboneSpec(name="test_resnet")) == f"{NAME}@{digest}"
    named = BackboneSpec(name="test_resnet", weights=str(folder / f"{NAME}.safetensors"))
    assert catalog.resolve_side(named) == 160

    requests = len(hub.log)
    again = phoropter(hub, tmp_path, "get", NAME, "--to", folder)
    assert again.returncode == 0 and "there: " in again.stdout and len(hub.log) == requests
    listed = phoropter(hub, tmp_path, "list", PHOROPTER_WEIGHTS=str(folder))
    assert re.search(rf"{NAME}\s+folder\s+ImageNet-1k\s+apache-2.0", listed.stdout)
    assert "1 listed in weights.json, all as recorded" in phoropter(hub, tmp_path, "verify", folder).stdout

    (folder / f"{NAME}.safetensors").write_bytes(TENSORS[:-1] + b"x")
    broken = phoropter(hub, tmp_path, "verify", folder)
    assert broken.returncode == 2 and "another content than was recorded" in broken.stderr
    assert "fetched: " in phoropter(hub, tmp_path, "get", NAME, "--to", folder).stdout, "a damaged file is fetched again"
    assert (folder / f"{NAME}.safetensors").read_bytes() == TENSORS


def test_what_is_not_what_the_hub_says_is_not_kept(hub: FakeHub, tmp_path: Path) -> None:
    hub.false_etag = True
    done = phoropter(hub, tmp_path, "get", "test_resnet", "--to", tmp_path / "stick")
    assert done.returncode == 2 and "arrived damaged" in done.stderr
    assert not list((tmp_path / "stick").glob("*.safetensors"))


@pytest.mark.parametrize("value", ["NaN", "-Infinity", '"\\ud800"'])
def test_settings_that_are_no_json_are_refused_and_nothing_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    def from_hub(wanted: WantedWeights, aside: Path) -> tuple[Path, None]:
        aside.mkdir(parents=True)
        (aside / "config.json").write_text(f'{{"crop_pct": {value}}}')
        (aside / "model.safetensors").write_bytes(b"weights")
        return aside / "model.safetensors", None

    monkeypatch.setattr(fetch_folder, "_from_hub", from_hub)
    monkeypatch.setattr(fetch_folder, "is_offline", lambda: False)
    wanted = WantedWeights(NAME, "r160_in1k", RemoteWeights(f"timm/{NAME}", None, None), {})
    with pytest.raises(WeightsError, match=r"config\.json holds a value that JSON lacks"):
        fetch_into_folder(wanted, tmp_path / "stick")
    assert [p.name for p in (tmp_path / "stick").iterdir()] == [".unfinished"]


def test_a_file_of_a_url_goes_on_where_it_stopped_and_is_held_against_its_name(hub: FakeHub, tmp_path: Path) -> None:
    name = f"net-{hashlib.sha256(TENSORS).hexdigest()[:8]}.pth"
    hub.files[f"/{name}"] = TENSORS
    (tmp_path / f"{name}.part").write_bytes(TENSORS[:1000])
    assert _from_url(f"{hub.url}/{name}", tmp_path).read_bytes() == TENSORS
    assert hub.log == [("GET", f"/{name}", "bytes=1000-")]
    hub.files["/net-00000000.pth"] = TENSORS
    with pytest.raises(WeightsError, match="arrived damaged"):
        _from_url(f"{hub.url}/net-00000000.pth", tmp_path)


def test_a_card_without_a_licence_states_none(tmp_path: Path) -> None:
    card = tmp_path / "README.md"
    for text, licence in ((CARD.decode(), "apache-2.0"), ("# no data", None), ("---\n: [\n---\n", None)):
        card.write_text(text)
        assert _read_licence(card) == licence
    card.write_text("---\nlicense: other\nlicense_name: dinov3-license\n---\n")
    assert _read_licence(card) == "dinov3-license" and _read_licence(None) is None
