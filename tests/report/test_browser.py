"""The page in headless Chromium, from the file system: no request, no error, and its two scripts do what they say."""

from __future__ import annotations

import importlib.util
import shutil
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from made_reports import Reported
from made_study import make_study

from phoropter.report.comparison_page import write_comparison_page
from phoropter.report.live import server as live_server
from phoropter.results.store import Store

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield browser
        browser.close()


class Visit:
    """A page opened from its file; what it asked for and what it complained of."""

    def __init__(self, browser: Any, reported: Reported, width: int = 1280, scheme: str = "light") -> None:
        self.asked: list[str] = []
        self.complaints: list[str] = []
        self.page = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme).new_page()
        self.page.on("request", lambda r: self.asked.append(r.url) if not r.url.startswith("data:") else None)
        self.page.on("console", lambda m: self.complaints.append(m.text))
        self.page.on("pageerror", lambda e: self.complaints.append(str(e)))
        self.page.on("dialog", lambda d: (self.complaints.append("dialog"), d.dismiss()))
        self.page.goto(reported.page.as_uri())

    def open_all(self) -> Visit:
        """Opens what is folded."""
        self.page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")
        self.page.wait_for_timeout(60)
        return self

    def column(self, table: str, place: int) -> list[str]:
        return list(self.page.locator(f"table[aria-labelledby=caption-{table}] tbody tr > :nth-child({place})").all_inner_texts())


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("name", ["whole", "hostile"])
def test_opens_without_a_request_an_error_or_a_sideways_scroll(
    browser: Any, width: int, name: str, request: pytest.FixtureRequest
) -> None:
    reported = request.getfixturevalue(name)
    visit = Visit(browser, reported, width)
    assert visit.asked == [reported.page.as_uri()]
    assert visit.complaints == []
    assert visit.page.evaluate("document.documentElement.scrollWidth") == width
    assert visit.open_all().page.evaluate("document.documentElement.scrollWidth") == width and visit.complaints == []
    sizes = "[...document.querySelectorAll('p, li, td, figcaption')].map(e => parseFloat(getComputedStyle(e).fontSize))"
    assert min(visit.page.evaluate(sizes)) >= 12


def test_sorting_by_keyboard_orders_by_value_and_says_so(browser: Any, whole: Reported) -> None:
    visit = Visit(browser, whole)
    head = visit.page.locator("table[aria-labelledby=caption-leaderboard] thead th").nth(1)
    before = visit.column("leaderboard", 1)
    head.locator("button").focus()
    visit.page.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "descending"
    visit.page.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "ascending"
    shown = [float(text.split()[0]) for text in visit.column("leaderboard", 2)]
    assert shown == sorted(shown)
    assert visit.column("leaderboard", 1) == before[::-1]
    assert visit.page.locator("[role=status]").inner_text().startswith("Sorted by Accuracy")
    assert visit.page.locator("table[aria-labelledby=caption-leaderboard] [aria-sort]").count() == 1


def test_sorting_puts_missing_values_last(browser: Any, whole: Reported) -> None:
    visit = Visit(browser, whole)
    button = visit.page.locator("table[aria-labelledby=caption-leaderboard] thead th").nth(4).locator("button")
    for _ in range(2):
        button.click()
        assert visit.column("leaderboard", 1)[-1] == "majority-class baseline"


def test_durations_sort_by_length_not_by_text(browser: Any, whole: Reported) -> None:
    visit = Visit(browser, whole).open_all()
    visit.page.locator("table[aria-labelledby=caption-costs] thead th").nth(5).locator("button").click()
    keys = visit.page.eval_on_selector_all(
        "table[aria-labelledby=caption-costs] tbody tr", "rows => rows.map(r => Number(r.cells[5].dataset.key))"
    )
    assert keys == sorted(keys, reverse=True) and len(keys) == 3


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_theme_follows_the_reader_until_the_button_is_pressed(browser: Any, whole: Reported, scheme: str) -> None:
    visit = Visit(browser, whole, scheme=scheme)

    def brightness() -> int:
        return sum(visit.page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).slice(0, 3).map(Number)"))

    def ink() -> int:
        script = "getComputedStyle(document.querySelector('figure svg text')).fill.match(/\\d+/g).slice(0, 3).map(Number)"
        return sum(visit.page.evaluate(script))

    began_dark = brightness() < 200
    assert began_dark == (scheme == "dark")
    assert (ink() > 384) == began_dark, "the figures' text follows the page"
    visit.page.locator("button.theme").click()
    assert (brightness() < 200) != began_dark
    assert (ink() > 384) != began_dark
    assert visit.complaints == []


def test_text_stands_out_from_its_paper_in_both_themes(browser: Any, whole: Reported) -> None:
    script = """() => {
      const light = (c) => { const [r, g, b] = c.match(/[\\d.]+/g).map(Number).map(v => v / 255)
        .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
      const ratio = (a, b) => (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
      const paper = light(getComputedStyle(document.body).backgroundColor);
      return [...document.querySelectorAll("p, a, th, td, li, summary, figcaption, h1, h2, h3, button")]
        .filter((e) => e.offsetParent && !e.closest(".notice, .skip") && ratio(light(getComputedStyle(e).color), paper) < 4.5)
        .map((e) => e.outerHTML.slice(0, 80));
    }"""
    for scheme in ("light", "dark"):
        assert Visit(browser, whole, scheme=scheme).open_all().page.evaluate(script) == []


def test_small_screens_see_the_small_figures(browser: Any, whole: Reported) -> None:
    for width, shown, hidden in ((390, ".at-narrow", ".at-wide"), (1280, ".at-wide", ".at-narrow")):
        page = Visit(browser, whole, width).page
        assert page.locator(f"{shown} svg").first.is_visible() and not page.locator(f"{hidden} svg").first.is_visible()


def test_collapsed_blocks_are_printed(browser: Any, whole: Reported) -> None:
    page = Visit(browser, whole).page
    assert page.locator("details[open]").count() == 1, "the leaderboard is open"
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("details[open]").count() == page.locator("details").count() > 1
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.locator("details[open]").count() == 1


def test_sections_fold_by_keyboard_by_link_and_all_at_once(browser: Any, whole: Reported) -> None:
    page = Visit(browser, whole).page
    folds, cost = page.locator("section.fold > details"), page.locator("#cost > details")
    cost.locator("> summary").focus()
    page.keyboard.press("Enter")
    assert cost.get_attribute("open") is not None and page.locator("#cost table").is_visible()
    page.keyboard.press("Space")
    assert cost.get_attribute("open") is None and not page.locator("#cost table").is_visible()
    page.locator(".reliability a[href='#calibration']").click()
    page.locator("#calibration table").first.wait_for(state="visible", timeout=10_000)  # opened by an event of its own
    for shown, words in ((folds.count(), "Close all sections"), (0, "Open all sections")):
        page.locator(".unfold button").click()
        page.wait_for_function("words => document.querySelector('.unfold button').textContent === words", arg=words)
        assert page.locator("section.fold > details[open]").count() == shown


def test_the_page_reads_without_its_script(chromium: str, browser: Any, whole: Reported) -> None:
    page = browser.new_context(java_script_enabled=False).new_page()
    page.goto(whole.page.as_uri())
    assert page.locator("table thead th").first.inner_text() == "Candidate"
    assert not page.locator("button.theme").is_visible()


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_axe_finds_no_fault(browser: Any, whole: Reported, width: int, scheme: str) -> None:
    assert faults_of(browser, whole.page.as_uri(), width, scheme) == []


def faults_of(browser: Any, address: str, width: int, scheme: str, wait: str = "h1") -> list[Any]:
    """axe-core comes with the package axe-playwright-python; where that is absent the test says so."""
    found = importlib.util.find_spec("axe_playwright_python")
    if found is None or found.origin is None:
        pytest.skip("axe-playwright-python is not installed")
    source = Path(found.origin).with_name("axe.min.js").read_text(encoding="utf-8")
    page = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, bypass_csp=True).new_page()
    page.goto(address)
    page.locator(wait).first.wait_for()
    page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    page.wait_for_timeout(60)
    page.evaluate(source)
    run = "axe.run(document, {iframes: false}).then(r => r.violations.map(v => [v.id, v.impact, v.nodes[0].html]))"
    faults: list[Any] = page.evaluate(run)
    page.context.close()
    return faults


@pytest.fixture(scope="module")
def beside(whole: Reported, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole study against one of the same rows under a lax protocol."""
    folder = tmp_path_factory.mktemp("beside") / "lax"
    make_study(folder, replace(whole.made, name="lax", overlap=True, features=0, pictures=0, external=0, validation=0))
    return write_comparison_page(whole.folder, folder, folder / "page")


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_two_studies_open_and_axe_finds_no_fault(browser: Any, beside: Path, whole: Reported, width: int, scheme: str) -> None:
    visit = Visit(browser, Reported(whole.folder, beside, whole.made), width, scheme)
    assert visit.asked == [beside.as_uri()] and visit.complaints == []
    assert visit.page.evaluate("document.documentElement.scrollWidth") == width
    assert faults_of(browser, beside.as_uri(), width, scheme) == []


@pytest.mark.parametrize(("width", "scheme"), [(1280, "dark"), (390, "light")])
def test_the_live_page_shows_the_state_and_the_report(
    browser: Any, whole: Reported, tmp_path: Path, width: int, scheme: str
) -> None:
    watched = live_server.WatchedFolder(whole.folder, tmp_path)
    watched.parts.append(live_server.WatchedStudy(Store(whole.folder), tmp_path / "0", n_reported=30))
    shutil.copytree(whole.page.parent, tmp_path / "0")
    watched.refresh_state()
    with live_server.ReportServer(watched, 0) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        page = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme).new_page()
        complaints: list[str] = []
        page.on("console", lambda m: complaints.append(m.text))
        page.on("pageerror", lambda e: complaints.append(str(e)))
        address = f"http://127.0.0.1:{server.server_address[1]}/"
        page.goto(address)
        page.frame_locator("iframe").locator("h1").wait_for()
        assert page.frame_locator("iframe").locator("h1").inner_text() == "whole"
        assert "30 of 30 runs done" in page.locator("#parts").inner_text()
        assert page.evaluate("document.documentElement.scrollWidth") == width and complaints == []
        assert faults_of(browser, address, width, scheme, "#parts h2") == []
        page.context.close()
        server.shutdown()
        thread.join(30)
