"""The interface: answers equal those of Predictor.predict, for every kind of body and input, and mistakes are one sentence."""

from __future__ import annotations

import base64
import io
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from PIL import Image
from running_server import Made, Running, run_server

import phoropter
from phoropter.deploy.serve.limits import ServeLimits


def expected_probabilities(made: Made, number: int) -> dict[str, float]:
    predictor = made.served.predictor
    predicted = predictor.predict(made.files[number][0], device="cpu")
    means = predicted.average_by_recording()
    values = predicted.probabilities[0] if means is None else means.probabilities[0]
    return dict(zip(predictor.classes, values.tolist(), strict=True))


def test_three_kinds_of_body_give_the_answer_of_predict(asked: Running, pictures: Made) -> None:
    ((name, data),) = pictures.load(3)
    coded = json.dumps({"items": [{"name": name, "data": base64.b64encode(data).decode()}]}).encode()
    answers = [
        asked.post("/predict", [(name, data)]),
        asked.ask("POST", "/predict", coded, {"Content-Type": "application/json; charset=utf-8"}),
        asked.ask("POST", f"/predict?name={name}", data, {"Content-Type": "image/png"}),
        asked.ask("POST", f"/predict?bundle=shapes-net&name={name}", data, {"Content-Type": "application/octet-stream"}),
    ]
    for answer in answers:
        assert answer.status == 200, answer.body
        (item,) = answer.json["items"]
        assert item["name"] == name
        assert item["probabilities"] == pytest.approx(expected_probabilities(pictures, 3), abs=1e-6)
        likeliest = max(item["probabilities"], key=item["probabilities"].get)
        assert item["decision"] == {"class": likeliest, "rule": "the likeliest class", "threshold": None}


def test_many_clients_at_once_get_the_answers_of_their_own_files(asked: Running, pictures: Made) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda i: asked.post("/predict", pictures.load(i % 12)), range(24)))
    for i, answer in enumerate(answers):
        expected = expected_probabilities(pictures, i % 12)
        assert answer.json["items"][0]["probabilities"] == pytest.approx(expected, abs=1e-5)


def test_one_bad_file_among_several_is_told_and_the_others_are_predicted(asked: Running, pictures: Made) -> None:
    files = [*pictures.load(0), ("notes.txt", b"hello"), *pictures.load(1)]
    items = asked.post("/predict?shown=true", files).json["items"]
    assert [item["name"] for item in items] == [files[0][0], "notes.txt", files[2][0]]
    assert items[1] == {"name": "notes.txt", "error": "notes.txt: not a picture that can be read: its contents are text"}
    shown = np.array(Image.open(io.BytesIO(base64.b64decode(items[2]["shown"]))))
    expected = pictures.served.predictor.preprocess(Image.open(pictures.files[1][0])).numpy()[0]
    assert np.array_equal(shown, expected.transpose(1, 2, 0)), "what is shown is what the network is given"


def test_none_that_can_be_used_is_one_sentence(asked: Running) -> None:
    one = asked.post("/predict", [("a.txt", b"hello")])
    assert one.status == 422 and one.error == "a.txt: not a picture that can be read: its contents are text"
    (item,) = asked.post("/predict?partial=true", [("a.txt", b"hello")]).json["items"]
    assert item == {"name": "a.txt", "error": one.error}
    two = asked.post("/predict", [("a.txt", b"hello"), ("b.png", b"")])
    assert two.status == 422 and two.error.startswith("none of the 2 files can be used; the first: a.txt: ")


@pytest.mark.parametrize("kind", ["ecg", "ctg"])
def test_recordings_have_their_windows_and_an_explanation_along_time(kind: str, request: pytest.FixtureRequest) -> None:
    made: Made = request.getfixturevalue(kind)
    with run_server([made.served]) as running:
        (item,) = running.post("/predict?shown=true", made.load(0)).json["items"]
        assert item["probabilities"] == pytest.approx(expected_probabilities(made, 0), abs=1e-6)
        predicted = made.served.predictor.predict(made.files[0][0], device="cpu")
        assert [[w["start_s"], w["stop_s"]] for w in item["windows"]] == predicted.dataset.spans.tolist()  # type: ignore[union-attr]
        (explained,) = running.post("/explain", made.load(0)).json["items"]
        assert explained["error" if "error" in explained else "target"] in made.served.predictor.classes
        best = max(range(len(item["windows"])), key=lambda i: item["windows"][i]["probabilities"][explained["target"]])
        trace = explained["trace"]
        assert explained["window"] == best and trace["start_s"] == item["windows"][best]["start_s"]
        lengths = {len(values) for values in trace["signals"].values()}
        assert lengths == {len(trace["time_map"])} and 0 <= min(trace["time_map"]) <= max(trace["time_map"]) <= 1
        beyond = running.post("/explain?window=9999", made.load(0))
        assert beyond.status == 422 and "window is 9999, and" in beyond.error


def test_an_explanation_is_that_of_predictor_explain(asked: Running, pictures: Made) -> None:
    answer = asked.post("/explain?target=light&numbers=true", pictures.load(2))
    (item,) = answer.json["items"]
    (ours,) = pictures.served.predictor.explain(pictures.files[2][0], target="light", device="cpu")
    np.testing.assert_allclose(np.array(item["numbers"]), ours.map, atol=1e-3)
    assert item["target"] == "light" and item["method"] == ours.method and item["trace"] is None
    drawn = np.array(Image.open(io.BytesIO(base64.b64decode(item["map"]))))
    assert np.abs(drawn.astype(float) - 255 * ours.map).max() <= 1
    for name in ("shown", "overlay"):
        assert Image.open(io.BytesIO(base64.b64decode(item[name]))).size == (48, 48)


@pytest.mark.parametrize(
    ("method", "path", "status", "told"),
    [
        ("POST", "/predict?bundle=other", 404, "there is no bundle of this name; expected shapes-net"),
        ("POST", "/explain?target=blue", 422, "target is no class of the bundle; expected dark or light"),
        ("POST", "/explain?window=x", 422, "window: input should be a valid integer"),
        ("POST", "/predict?shown=perhaps", 422, "shown: input should be a valid boolean"),
        ("GET", "/predict", 405, "takes another method"),
        ("PUT", "/predict", 405, "takes another method"),
        ("GET", "/examples/shapes-net/..%2Fbundle.json", 404, ""),
        ("GET", "/examples/shapes-net/bundle.json", 404, "no example of this name"),
        ("GET", "/examples/other/1.png", 404, "there is no bundle of this name"),
        ("GET", "/docs", 404, "nothing at this address"),
        ("GET", "/..%2f..%2fetc/passwd", 404, "nothing at this address"),
    ],
)
def test_mistakes_are_one_sentence(asked: Running, pictures: Made, method: str, path: str, status: int, told: str) -> None:
    answer = asked.post(path, pictures.load(0)) if method == "POST" else asked.ask(method, path)
    assert answer.status == status and told in answer.error
    assert status != 405 or answer.headers["allow"] == "POST"


def test_several_bundles_are_asked_by_name(pictures: Made, ecg: Made) -> None:
    with run_server([pictures.served, ecg.served]) as running:
        unnamed = running.post("/predict", pictures.load(0))
        assert unnamed.status == 422 and f"say ?bundle=shapes-net or {ecg.served.name}" in unnamed.error
        assert running.post("/predict?bundle=shapes-net", pictures.load(0)).json["bundle"] == "shapes-net"
        assert [b["name"] for b in running.ask("GET", "/version").json["bundles"]] == ["shapes-net", ecg.served.name]


def test_files_beyond_the_limit_are_refused(pictures: Made) -> None:
    ((name, data),) = pictures.load(0)
    coded = json.dumps({"items": [{"data": base64.b64encode(data).decode()}] * 3}).encode()
    with run_server([pictures.served], limits=ServeLimits(files=2)) as running:
        assert running.post("/predict", [(name, data)] * 2).status == 200
        for answer in (
            running.post("/predict", [(name, data)] * 3),
            running.ask("POST", "/predict", coded, {"Content-Type": "application/json"}),
        ):
            assert answer.status == 413 and "files" in answer.error


def test_state_and_version(asked: Running, pictures: Made) -> None:
    assert asked.ask("GET", "/health").json == asked.ask("GET", "/ready").json == {"ready": True}
    version = asked.ask("GET", "/version").json
    (bundle,) = version["bundles"]
    assert version["phoropter"] == phoropter.__version__ and version["limits"]["files"] == ServeLimits().files
    assert bundle["classes"] == ["dark", "light"] and bundle["size"] == 48 and not bundle["recordings"]
    assert b"phoropter_requests_total" in asked.ask("GET", "/metrics").body


def test_examples_of_the_study_are_served_as_they_lie_and_can_be_predicted(asked: Running, pictures: Made) -> None:
    (bundle,) = asked.ask("GET", "/version").json["bundles"]
    assert len(bundle["examples"]) == 2
    for example in bundle["examples"]:
        answer = asked.ask("GET", f"/examples/shapes-net/{example['name']}")
        assert answer.body == (pictures.bundle / "examples" / example["name"]).read_bytes()
        assert asked.post("/predict", [(example["name"], answer.body)]).status == 200


def test_the_page_asks_nobody_else(asked: Running) -> None:
    kinds = {"/": "text/html", "/page.css": "text/css", "/page.js": "text/javascript"}
    for path, kind in kinds.items():
        answer = asked.ask("GET", path)
        assert answer.headers["content-type"] == f"{kind}; charset=utf-8"
        text = answer.body.decode().replace("http://www.w3.org/2000/svg", "")
        assert "http:" not in text and "https:" not in text and "//cdn" not in text and " style=" not in text


def test_the_description_names_every_path_and_its_errors(asked: Running) -> None:
    described: dict[str, Any] = asked.ask("GET", "/openapi.json").json
    paths = {"/predict", "/explain", "/version", "/health", "/ready", "/metrics", "/examples/{bundle}/{name}"}
    assert set(described["paths"]) == paths
    predict = described["paths"]["/predict"]["post"]
    assert {"multipart/form-data", "application/json", "image/png", "text/csv"} <= set(predict["requestBody"]["content"])
    for status in ("400", "401", "403", "413", "415", "422", "429", "503"):
        assert predict["responses"][status]["content"]["application/json"]["schema"] == {
            "$ref": "#/components/schemas/ErrorAnswer"
        }
