"""Computes the studies of the tutorials and of docs/gallery.md as they stand there; copies their pages to docs/_pages/gallery/.

    python scripts/gallery.py [--scenes FOLDER --weights FILE] [--pictures]

`--scenes` names a folder of Intel's natural scenes and `--weights` a safetensors file of MobileNetV1; without them that study is
left out, in a sentence. Results stay in runs/gallery/, so that a second call only writes pages.
`--pictures` also photographs the top of each page for docs/images/, by Playwright.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
WORK = ROOT / "runs" / "gallery"
OUT = DOCS / "_pages" / "gallery"  # docs/conf.py puts what is below _pages beside the built pages


@dataclass(frozen=True)
class Exhibit:
    """A page of the gallery.

    page: of the documentation, where its study stands · study: its file · results: its folder below `runs`
    wants: the files that it needs, as its study names them
    """

    name: str
    page: str
    study: str
    results: str
    wants: tuple[str, ...] = ()


EXHIBITS = (
    Exhibit("scenes", "gallery.md", "scenes.yaml", "scenes", wants=("scenes", "weights.safetensors")),
    Exhibit("digits", "tutorial.md", "digits.yaml", "digits"),
    Exhibit("ecg", "tutorial-ecg.md", "ecg.yaml", "ecg/stress-subject-held-out"),
    Exhibit("ctg", "tutorial-ctg.md", "ctg.yaml", "births"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--scenes", type=Path, help="a folder of Intel's natural scenes")
    parser.add_argument("--weights", type=Path, help="a safetensors file of mobilenetv1_100")
    parser.add_argument("--pictures", action="store_true", help="write docs/images/gallery-NAME.png")
    asked = parser.parse_args()
    WORK.mkdir(parents=True, exist_ok=True)
    for named, link in ((asked.scenes, "scenes"), (asked.weights, "weights.safetensors")):
        if named is None:
            continue
        if not named.exists():
            parser.error(f"{named} is not there; --scenes names a folder of classes, --weights a safetensors file")
        for source, target in ((named, WORK / link), (named.with_suffix(".json"), (WORK / link).with_suffix(".json"))):
            target.unlink(missing_ok=True)
            if source.exists():  # the JSON beside weights has their size, mean and deviation
                target.symlink_to(source.resolve())
    for exhibit in EXHIBITS:
        if missing := [name for name in exhibit.wants if not (WORK / name).exists()]:
            print(f"{exhibit.name} is left out: runs/gallery has no {' and no '.join(missing)} (--scenes, --weights)")
            continue
        compute_page(exhibit)
        if asked.pictures:
            photograph_page(exhibit)


def read_study_text(exhibit: Exhibit) -> str:
    """The study as its page shows it. Raises ValueError where the page has none of that name."""
    text = (DOCS / exhibit.page).read_text(encoding="utf-8")
    found = re.search(rf"```yaml\n(# {re.escape(exhibit.study)}\n.*?)```", text, re.S)
    if found is None:
        raise ValueError(
            f"docs/{exhibit.page} has no block that begins with '# {exhibit.study}'; the gallery computes what it shows"
        )
    return found[1]


def compute_page(exhibit: Exhibit) -> None:
    """Runs what the page of an exhibit shows, as far as its study; copies the report to docs/_pages/gallery/NAME/index.html."""
    (WORK / exhibit.study).write_text(read_study_text(exhibit), encoding="utf-8")
    for script in re.findall(r"```python\n(# make_\w+\.py\n.*?)```", (DOCS / exhibit.page).read_text(encoding="utf-8"), re.S):
        subprocess.run([sys.executable, "-c", script], cwd=WORK, check=True)
    subprocess.run([sys.executable, "-m", "phoropter", "run", exhibit.study], cwd=WORK, check=True)
    copied = OUT / exhibit.name / "index.html"
    copied.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(WORK / "runs" / exhibit.results / "report" / "index.html", copied)
    print(f"written: {copied.relative_to(ROOT)} ({copied.stat().st_size / 1e6:.1f} MB)")


def photograph_page(exhibit: Exhibit) -> None:
    """docs/images/gallery-NAME.png: the first screen of the page, 1000 × 700 points."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=os.environ.get("PHOROPTER_CHROMIUM"))
        page = browser.new_page(viewport={"width": 1000, "height": 700}, color_scheme="light")
        page.goto((OUT / exhibit.name / "index.html").as_uri())
        page.screenshot(path=DOCS / "images" / f"gallery-{exhibit.name}.png")
        browser.close()


if __name__ == "__main__":
    main()
