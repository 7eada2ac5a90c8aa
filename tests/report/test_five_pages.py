"""Five kinds of studies, each page opened in several widths and two themes: nothing is cut, nothing complains."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from five_pages import FIVE
from made_reports import Reported, report
from made_study import Made, make_study
from test_browser import FLAGS, Visit, faults_of

from phoropter.report.render.svg import RenderedFigure
from phoropter.report.sections.training.learning_curves import learning_curve_section
from phoropter.report.summary.collect import collect_summary
from phoropter.report.summary.compare import compare_candidates
from phoropter.report.summary.report_input import ReportInput
from phoropter.results.store import Store

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

MAX_PAGE_BYTES = 5_000_000
# Cells of wide tables that are partly covered: by the edge of the table's box, its first column, or the button over its end.
CUT_CELLS = """() => [...document.querySelectorAll(".frame.wide")].flatMap((frame) => {
  const box = frame.firstElementChild.getBoundingClientRect(), cue = frame.querySelector(".cue");
  const right = cue.hidden ? box.right : cue.getBoundingClientRect().left;
  return [...frame.querySelectorAll("tr")].flatMap((row) => {
    const [first, ...others] = [...row.cells].map((cell) => [cell, cell.getBoundingClientRect()]);
    const left = first[1].right;
    return others.filter(([, r]) => (r.left < left - 1 && r.right > left + 1) || (r.left < right - 1 && r.right > right + 1))
      .map(([cell]) => `${frame.querySelector("table").getAttribute("aria-labelledby")}: ${cell.textContent}`);
  });
})"""
# Cells whose text is wider than the cell.
SPILT_CELLS = """() => [...document.querySelectorAll("td, tbody th")].filter((cell) => {
  const range = document.createRange();
  range.selectNodeContents(cell);
  const text = range.getBoundingClientRect(), box = cell.getBoundingClientRect();
  return cell.offsetWidth && (text.left < box.left - 1 || text.right > box.right + 1);
}).map((cell) => cell.textContent)"""


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield browser
        browser.close()


class MadePages(dict[str, Reported]):
    """Each page is made when a test asks for it."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def __missing__(self, name: str) -> Reported:
        self[name] = report(self.folder / name, FIVE[name])
        return self[name]


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> MadePages:
    return MadePages(tmp_path_factory.mktemp("pages"))


@pytest.mark.parametrize("name", FIVE)
def test_a_page_is_one_small_file_without_a_request_or_a_complaint(browser: Any, pages: MadePages, name: str) -> None:
    assert pages[name].page.stat().st_size < MAX_PAGE_BYTES
    for width, scheme in ((1280, "light"), (390, "dark")):
        visit = Visit(browser, pages[name], width, scheme).open_all()
        assert visit.asked == [pages[name].page.as_uri()] and visit.complaints == []
        assert visit.page.evaluate("document.documentElement.scrollWidth") == width


@pytest.mark.parametrize("width", [390, 768, 1280])
@pytest.mark.parametrize("name", FIVE)
def test_no_table_cuts_a_number_or_a_verdict_wherever_it_is_scrolled(
    browser: Any, pages: MadePages, name: str, width: int
) -> None:
    page = Visit(browser, pages[name], width).open_all().page
    page.emulate_media(reduced_motion="reduce")  # tables are scrolled at once, not in half a second
    assert page.evaluate(SPILT_CELLS) == []
    assert width > 390 or page.locator(".frame.wide .cue:visible").count() > 3, "what is hidden is announced"
    for _ in range(12):  # until every column of every table was seen
        assert page.evaluate(CUT_CELLS) == []
        if not page.locator(".frame.wide .cue:visible").count():
            break
        page.evaluate("document.querySelectorAll('.frame.wide .cue:not([hidden])').forEach((cue) => cue.click())")
        page.wait_for_timeout(80)
    assert page.locator(".frame.wide .cue:visible").count() == 0


@pytest.mark.parametrize("name", FIVE)
def test_the_first_screen_holds_answer_reliability_and_leaderboard(browser: Any, pages: MadePages, name: str) -> None:
    page = Visit(browser, pages[name], 1280).page
    for element in (".conclusion p", ".reliability dl", "#leaderboard thead", "#leaderboard tbody tr"):
        box = page.locator(element).first.bounding_box()
        assert box is not None and box["y"] + box["height"] <= 900, element


@pytest.mark.parametrize(("name", "width", "scheme"), [("people", 390, "light"), ("sweep", 1280, "dark"), ("noise", 390, "dark")])
def test_axe_finds_nothing_serious(browser: Any, pages: MadePages, name: str, width: int, scheme: str) -> None:
    found = faults_of(browser, pages[name].page.as_uri(), width, scheme)
    assert [fault for fault in found if fault[1] in ("serious", "critical")] == []


@pytest.mark.parametrize("name", FIVE)
def test_every_candidate_has_its_examples(pages: MadePages, name: str) -> None:
    text, made = pages[name].text, FIVE[name]
    folded = [candidate for candidate in made.accuracies if f"<summary>{candidate}: " in text]
    assert len(folded) == len(made.accuracies) - 1, "the first candidate's are not folded"
    assert text.count("Wrong, most confident first") == len(made.accuracies)
    assert text.count("Correct, most confident first") == len(made.accuracies)


def test_the_best_single_network_and_the_best_fusion_are_embedded_side_by_side(pages: MadePages) -> None:
    for name, first, second in (
        ("winner", "resnet50 + convnext_tiny", "resnet50"),
        ("people", "resnet50 + vit_small_patch16_224", "resnet50"),
    ):
        files = {p.stem for p in (pages[name].page.parent / "figures").glob("features-*.svg")}
        assert files == {"features-by-class", "features-by-class-2"}, "a split of one person has no colours by person"
        assert f"whose features were stored: {first} and {second}." in pages[name].text


def test_validation_error_ends_at_one_minus_the_recorded_accuracy(pages: MadePages) -> None:
    assert (pages["winner"].page.parent / "figures" / "learning-validation-error.svg").exists()
    store = Store(pages["winner"].folder)
    for name in FIVE["winner"].accuracies:
        last = [float(run.history[-1]["validation_accuracy"]) for run in store.runs() if run.candidate_name == name]
        assert f"{name} ends at {(1 - np.mean(last)) * 100:.1f} %" in pages["winner"].text


def test_a_candidate_without_epochs_is_named_and_not_drawn_as_a_dot(tmp_path: Path) -> None:
    store = make_study(tmp_path, Made(accuracies={"solved": 0.8, "trained": 0.9}, rows=60, folds=2, seeds=(0,), pictures=0))
    summary = collect_summary(store)
    solved = next(c for c in summary.candidates if c.name == "solved")
    solved.history = {column: [values[:1] for values in rows] for column, rows in solved.history.items()}
    section = learning_curve_section(ReportInput(store, summary, compare_candidates(store, summary)))
    assert section is not None
    assert section.paragraphs[0] == "Without a curve, because it was not trained by epochs: solved."
    drawn = [b.alt_text for b in section.iter_blocks() if isinstance(b, RenderedFigure) and b.name.startswith("learning-")]
    assert drawn and all("trained ends at" in text and "solved" not in text for text in drawn)
