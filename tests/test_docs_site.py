"""The documentation as a site: it builds without a warning, asks nothing of a network, and reads on a phone and in the dark."""

from __future__ import annotations

import re
import runpy
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from phoropter.study.spec import read_study
from warm_python import WarmPython

ROOT = Path(__file__).parents[1]
BUILD = "import sys\nfrom sphinx.cmd.build import build_main\nsys.exit(build_main(['-W', '-q', '-d', 'trees', {!r}, 'site']))\n"
LOADING = {("script", "src"), ("img", "src"), ("link", "href"), ("iframe", "src"), ("source", "src"), ("object", "data")}
PAGES = ("index.html", "tutorial.html", "faq.html", "coming-from.html", "gallery.html", "reference/recipe.html", "api.html")
WAIT_S = 600  # for the build, on a machine that does much else
pytestmark = pytest.mark.timeout(2 * WAIT_S)
GALLERY = runpy.run_path(str(ROOT / "scripts" / "gallery.py"))


@pytest.fixture(scope="module")
def site(warm: WarmPython, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("docs")
    done = warm.run_code(BUILD.format(str(ROOT / "docs")), folder)
    assert done.wait(WAIT_S) == 0, done.read_log()
    return folder / "site"


class LoadedAddresses(HTMLParser):
    """What a browser loads by itself of a page: scripts, styles, pictures, frames; not the links that a reader may follow."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        rel = dict(attrs).get("rel") or ""
        self.found += [
            v for k, v in attrs if v and (tag, k) in LOADING and rel not in ("canonical", "next", "prev", "index", "search")
        ]


@pytest.mark.slow
def test_the_site_builds_and_asks_nothing_of_a_network(site: Path) -> None:
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 30
    for page in pages:
        foreign = [a for a in LoadedAddresses(page.read_text(encoding="utf-8")).found if re.match(r"(https?:)?//", a)]
        assert foreign == [], page.name
    for style in site.rglob("*.css"):
        assert not re.search(r"(url\(|@import)\s*['\"]?(https?:)?//", style.read_text(encoding="utf-8")), style.name


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        opened = play.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-dev-shm-usage"])
        yield opened
        opened.close()


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_pages_fit_the_screen(site: Path, browser: Any, width: int, scheme: str) -> None:
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    try:
        for name in PAGES:
            page.goto((site / name).as_uri())
            assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), name
            background = {"light": "rgb(255, 255, 255)", "dark": "rgb(19, 20, 22)"}[scheme]
            assert page.evaluate("getComputedStyle(document.body).backgroundColor") == background
    finally:
        page.close()
    assert {address.partition(":")[0] for address in asked} <= {"file", "data"}


def test_the_gallery_shows_the_pages_that_its_script_makes() -> None:
    text = (ROOT / "docs" / "gallery.md").read_text(encoding="utf-8")
    names = [exhibit.name for exhibit in GALLERY["EXHIBITS"]]
    assert re.findall(r'href="gallery/(\w+)/index\.html"', text) == names
    assert re.findall(r"images/gallery-(\w+)\.png", text) == names


@pytest.mark.parametrize("exhibit", GALLERY["EXHIBITS"], ids=lambda e: e.name)
def test_an_exhibit_s_study_stands_on_its_page_and_ends_where_it_says(exhibit: Any, tmp_path: Path) -> None:
    study = tmp_path / exhibit.study
    study.write_text(GALLERY["read_study_text"](exhibit), encoding="utf-8")
    parts = read_study(study)
    folders = [part.name if len(parts) == 1 else f"{study.stem}/{part.name}" for part in parts]
    assert exhibit.results in folders


@pytest.mark.slow
def test_the_gallery_computes_what_a_page_shows(tmp_path: Path, warm: WarmPython) -> None:
    """On a page of its own: a script that makes a folder, and a study of that folder without a network."""
    (tmp_path / "page.md").write_text(
        "```python\n# make_it.py\nimport numpy as np\nfrom pathlib import Path\nfrom PIL import Image\n"
        "for kind, grey in (('a', 40), ('b', 200)):\n    Path('it', kind).mkdir(parents=True, exist_ok=True)\n"
        "    for i in range(8):\n"
        "        Image.fromarray(np.full((8, 8, 3), grey + i, np.uint8)).save(f'it/{kind}/{i}.png')\n```\n"
        "```yaml\n# it.yaml\nname: it\ndata: {folder: it, size: 32}\nprotocol: {split: stratified-k-fold, folds: 2}\n"
        "candidates: [{baseline: mean-image}]\n```\n"
    )
    code = (
        f"import runpy\nfrom pathlib import Path\ng = runpy.run_path({str(ROOT / 'scripts' / 'gallery.py')!r})\n"
        "here = Path.cwd()\nmake = g['compute_page']\n"
        "make.__globals__.update(ROOT=here, DOCS=here, WORK=here / 'work', OUT=here / 'out')\n"
        "(here / 'work').mkdir()\nmake(g['Exhibit']('it', 'page.md', 'it.yaml', 'it'))\n"
    )
    done = warm.run_code(code, tmp_path)
    assert done.wait(WAIT_S) == 0, done.read_log()
    assert "mean-image" in (tmp_path / "out" / "it" / "index.html").read_text(encoding="utf-8")
