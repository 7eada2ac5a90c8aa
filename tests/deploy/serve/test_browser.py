"""The served page in headless Chromium: files in, answers and maps out, nothing asked of anybody else, and axe finds no fault."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from running_server import Made, Running, run_server

from phoropter.deploy.serve.guard import GuardRules

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
TOKEN = "a-token-of-many-letters"


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield browser
        browser.close()


class Visit:
    """The page of a server; what it asked of others and what it complained of."""

    def __init__(self, browser: Any, running: Running, width: int = 1280, scheme: str = "light", **options: Any) -> None:
        self.own = f"http://127.0.0.1:{running.port}/"
        self.elsewhere: list[str] = []
        self.complaints: list[str] = []
        self.page = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, **options).new_page()
        self.page.on("request", self._note_request)
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.goto(self.own)

    def _note_request(self, request: Any) -> None:
        if not request.url.startswith((self.own, "data:", "blob:")):
            self.elsewhere.append(request.url)

    def give(self, files: list[Path], cards: int = 1) -> Any:
        """Chooses files and waits for their cards; returns the last one."""
        self.page.locator("#bundles p").first.wait_for()
        before = self.page.locator(".card").count()
        self.page.set_input_files("#choose", [str(file) for file in files])
        return self.wait_for_cards(before + cards)

    def wait_for_cards(self, count: int) -> Any:
        sync_api.expect(self.page.locator(".card")).to_have_count(count, timeout=60_000)
        sync_api.expect(self.page.locator("[aria-busy]")).to_have_count(0, timeout=60_000)
        return self.page.locator(".card").last

    def end(self) -> None:
        assert self.elsewhere == [] and self.complaints == []
        self.page.context.close()


@pytest.mark.parametrize(("width", "scheme"), [(1280, "dark"), (390, "light")])
def test_pictures_are_answered_with_what_was_shown_and_a_map(
    browser: Any, asked: Running, pictures: Made, width: int, scheme: str
) -> None:
    visit = Visit(browser, asked, width, scheme)
    card = visit.give([pictures.files[0][0], pictures.files[8][0]], cards=2)
    answer = asked.post("/predict", pictures.load(8)).json["items"][0]
    decided, p = answer["decision"]["class"], answer["probabilities"][answer["decision"]["class"]]
    assert card.locator("h3").inner_text() == pictures.files[8][0].name
    assert card.locator(".decision").inner_text() == f"{decided} · {100 * p:.1f}\u00a0%"
    assert visit.page.locator("#say").inner_text() == f"{answer['name']}: {decided}, {100 * p:.1f}\u00a0%"
    assert card.locator("ul.bars li").count() == 2
    pictured = card.locator("figure img")
    assert pictured.count() == 2 and all(pictured.nth(i).evaluate("e => e.naturalWidth") == 48 for i in range(2))
    assert f"vidence for {decided}" in card.locator("figcaption").last.inner_text()
    assert "95\u00a0% interval" in visit.page.locator("#bundles").inner_text(), "the study's reliability is said in words"
    assert visit.page.evaluate("document.documentElement.scrollWidth") == width
    visit.end()


@pytest.mark.parametrize("kind", ["ecg", "ctg"])
def test_a_recording_is_answered_with_its_trace_and_a_map_along_time(
    browser: Any, kind: str, request: pytest.FixtureRequest
) -> None:
    made: Made = request.getfixturevalue(kind)
    with run_server([made.served]) as running:
        visit = Visit(browser, running, 390)
        card = visit.give(made.files[0])
        trace = card.locator("figure.wide svg").last
        assert trace.locator("path.trace").count() == (1 if kind == "ecg" else 3)
        assert "The recording from" in card.inner_text()
        if kind == "ecg":  # of several windows: the arrow keys choose another one, and its map comes
            slider = card.locator("input[type=range]")
            before = card.locator("figure.wide figcaption").last.inner_text()
            slider.focus()
            visit.page.keyboard.press("ArrowLeft" if slider.input_value() == slider.get_attribute("max") else "ArrowRight")
            sync_api.expect(card.locator("figure.wide figcaption").last).not_to_have_text(before, timeout=60_000)
        assert visit.page.evaluate("document.documentElement.scrollWidth") == 390
        visit.end()


def test_another_class_is_explained_when_it_is_chosen(browser: Any, asked: Running, pictures: Made) -> None:
    visit = Visit(browser, asked)
    card = visit.give(pictures.files[0])
    chosen = card.locator("select")
    other = next(name for name in ("dark", "light") if name != chosen.input_value())
    chosen.select_option(other)
    sync_api.expect(card.locator("figcaption").last).to_contain_text(f"vidence for {other}", timeout=60_000)  # some, or none
    visit.end()


def test_a_broken_file_is_one_sentence(browser: Any, asked: Running, tmp_path: Path) -> None:
    (tmp_path / "x<img src=y>.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    visit = Visit(browser, asked)
    card = visit.give([tmp_path / "x<img src=y>.png"])
    told = card.locator(".warn").inner_text()
    assert told.startswith("x<img src=y>.png: ") and visit.page.locator("#say").inner_text() == told
    assert card.locator("img").count() == 0
    visit.end()


def test_examples_of_the_study_are_one_press_away(browser: Any, asked: Running) -> None:
    visit = Visit(browser, asked)
    visit.page.locator("#show-example").click()
    card = visit.wait_for_cards(1)
    assert card.locator(".decision").count() == 1
    visit.page.locator("#clear").click()
    assert visit.page.locator(".card").count() == 0
    visit.end()


def test_two_bundles_stand_side_by_side(browser: Any, pictures: Made, ctg: Made) -> None:
    with run_server([pictures.served, ctg.served]) as running:
        visit = Visit(browser, running)
        card = visit.give(pictures.files[0])
        columns = card.locator(".columns > div")
        assert columns.count() == 2 and columns.first.locator("h4").inner_text() == "cnn of shapes"
        left, right = (columns.nth(i).bounding_box() for i in range(2))
        assert left["y"] == right["y"] and left["x"] < right["x"]
        assert columns.nth(0).locator(".decision").count() == 1
        assert "a recording should end in" in columns.nth(1).locator(".warn").inner_text()


def test_a_token_is_asked_for_and_kept_out_of_the_address(browser: Any, pictures: Made) -> None:
    with run_server([pictures.served], GuardRules(token=TOKEN)) as running:
        visit = Visit(browser, running)
        visit.page.locator("#token").fill(TOKEN)
        visit.page.keyboard.press("Enter")
        card = visit.give(pictures.files[0])
        assert card.locator(".decision").count() == 1 and TOKEN not in visit.page.url
        assert visit.page.evaluate("localStorage.length + sessionStorage.length + document.cookie.length") == 0


def test_keyboard_alone_reaches_everything_in_order(browser: Any, asked: Running, pictures: Made) -> None:
    visit = Visit(browser, asked)
    visit.give(pictures.files[0])
    visit.page.locator("body").evaluate("document.activeElement.blur()")
    reached = []
    for _ in range(8):
        visit.page.keyboard.press("Tab")
        reached.append(visit.page.evaluate("document.activeElement.id || document.activeElement.className"))
    assert reached[:7] == ["skip", "theme", "choose", "example", "show-example", "clear", "class-1-shapes-net"]
    visit.end()


def test_the_page_works_with_the_network_cut(browser: Any, asked: Running, pictures: Made) -> None:
    """Every address but this server's is refused, as on a machine without a network."""
    visit = Visit(browser, asked)
    visit.page.context.route(lambda url: not url.startswith(visit.own), lambda route: route.abort())
    assert visit.give(pictures.files[0]).locator("figure img").count() == 2
    visit.end()


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_axe_finds_no_fault(browser: Any, ecg: Made, pictures: Made, width: int, scheme: str) -> None:
    found = importlib.util.find_spec("axe_playwright_python")
    if found is None or found.origin is None:
        pytest.skip("axe-playwright-python is not installed")
    source = Path(found.origin).with_name("axe.min.js").read_text(encoding="utf-8")
    with run_server([pictures.served, ecg.served]) as running:
        visit = Visit(browser, running, width, scheme, bypass_csp=True)
        visit.give(pictures.files[0])
        visit.give(ecg.files[0])
        visit.page.evaluate(source)
        run = "axe.run(document).then(r => r.violations.map(v => [v.id, v.impact, v.nodes[0].html]))"
        assert visit.page.evaluate(run) == []
        assert visit.page.evaluate("document.documentElement.scrollWidth") == width
