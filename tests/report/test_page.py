"""The page as a document: self-contained, safe, whole, the same every time; and what it says of unfinished studies."""

from __future__ import annotations

import base64
import hashlib
import html
import itertools
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from made_reports import HOSTILE_CLASSES, HOSTILE_NAME, Reported, report
from made_study import Made, make_study
from reading_html import Tags

from phoropter.core.errors import StoreError
from phoropter.report.conclusion import describe_test_population
from phoropter.report.page import collect_notices, read_report_input, write_report
from phoropter.report.render.svg import RenderedFigure
from phoropter.report.sections.candidates.leaderboard import leaderboard_table
from phoropter.report.sections.predictions.confusion import MAX_CONFUSION_MATRICES, confusion_section
from phoropter.report.summary.collect import collect_summary
from phoropter.study.smoke_scale import make_smoke_version
from phoropter.study.spec import read_study

SMALL = Made(accuracies={"a": 0.9, "b": 0.8}, classes=("x", "y"), rows=60, folds=3, seeds=(0,), epochs=2, pictures=1)


def test_sections_come_in_the_order_a_reader_needs(whole: Reported) -> None:
    ids = re.findall(r'<section[^>]* id="([\w-]+)"', whole.text)
    assert ids == [
        "conclusion", "reliability", "leaderboard", "comparisons", "screening", "cost", "networks", "treatments", "groups",
        "external-test", "unseen-sites", "classes", "confusion", "mistakes", "label-review", "calibration", "branches",
        "distillation", "learning-curves", "embedding", "leakage", "statement", "provenance",
    ]  # fmt: skip


def test_nothing_on_the_page_comes_from_elsewhere(whole: Reported) -> None:
    for tag, attributes in Tags(whole.text).tags:
        for name in ("src", "href", "action", "data", "poster", "srcset", "background"):
            target = attributes.get(name) or ""
            assert target == "" or target.startswith(("data:image/", "#", "tables/", "figures/")), (tag, target)
    style = re.search(r"<style>(.*?)</style>", whole.text, re.S)
    assert style is not None and "url(" not in style.group(1) and "@import" not in style.group(1)


def test_the_content_policy_allows_this_style_and_this_script_alone(whole: Reported) -> None:
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]+)"', whole.text)
    assert policy is not None
    rules = dict(part.strip().split(" ", 1) for part in html.unescape(policy.group(1)).split(";"))
    assert rules["default-src"] == "'none'" and "unsafe" not in policy.group(1)
    for kind, tag in (("style-src", "style"), ("script-src", "script")):
        blocks = re.findall(rf"<{tag}>(.*?)</{tag}>", whole.text, re.S)
        assert len(blocks) == 1
        assert rules[kind] == f"'sha256-{base64.b64encode(hashlib.sha256(blocks[0].encode()).digest()).decode()}'"
    assert not re.search(r'<[^>]+ (style|on\w+)="', whole.text)


def test_ids_are_unique_and_references_resolve(whole: Reported) -> None:
    tags = Tags(whole.text)
    ids = [a["id"] for _, a in tags.tags if "id" in a]
    assert len(ids) == len(set(ids))
    for _, attributes in tags.tags:
        for word in (attributes.get("aria-labelledby") or "").split():
            assert word in ids
        for name in ("href", "clip-path", "fill"):
            for target in re.findall(r"^#(.+)$|url\(#(.+)\)", attributes.get(name) or ""):
                assert "".join(target) in ids


def test_every_link_to_a_file_leads_to_a_file(whole: Reported) -> None:
    links = {a["href"] for tag, a in Tags(whole.text).tags if tag == "a" and not (a["href"] or "#").startswith("#")}
    assert len(links) > 30
    assert all((whole.page.parent / str(link)).stat().st_size > 0 for link in links)


def test_every_image_has_a_text_alternative(whole: Reported) -> None:
    tags = Tags(whole.text)
    assert all(a.get("alt") for tag, a in tags.tags if tag == "img")
    drawings = [a for tag, a in tags.tags if tag == "svg"]
    assert len(drawings) > 10 and all(a["role"] == "img" and a["aria-labelledby"] for a in drawings)
    assert len(re.findall(r"<desc id=[^>]*>[^<]{20,}</desc>", whole.text)) == len(drawings)


def test_headings_go_down_one_level_at_a_time(whole: Reported) -> None:
    levels = [int(tag[1]) for tag, _ in Tags(whole.text).tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(b - a <= 1 for a, b in itertools.pairwise(levels))


def test_the_provenance_has_times_versions_and_commands(whole: Reported) -> None:
    text = Tags(whole.text).text
    assert "2026-01-02 03:04 UTC to 2026-01-02 03:14 UTC" in text
    assert "torch 2.13.0" in text and "phoropter run whole.yaml" in text


def test_a_page_is_small(whole: Reported) -> None:
    assert whole.page.stat().st_size < 1_000_000


def test_hostile_names_are_shown_and_do_nothing(hostile: Reported) -> None:
    tags = Tags(hostile.text)
    assert not any("onerror" in a or a.get("src") == "x" for _, a in tags.tags)
    assert [tag for tag, _ in tags.tags].count("script") == 1
    assert not {"iframe", "i", "u"} & {tag for tag, _ in tags.tags}
    text = tags.text
    assert HOSTILE_NAME in text and "<script>alert(1)</script>" in text and HOSTILE_CLASSES[1] in text
    assert "half <i>done</i>" in text and "At most 120 rows <u>of</u> the dataset were used." in text
    assert "\x00" not in hostile.text


def test_hostile_names_name_no_files(hostile: Reported) -> None:
    names = {p.relative_to(hostile.page.parent).as_posix() for p in hostile.page.parent.rglob("*") if p.is_file()}
    assert all(
        re.fullmatch(
            r"index\.html|conclusion\.txt|(model-card|statement)\.md|(tables|figures)/[a-z0-9-]+\.(csv|md|tex|svg|pdf)", name
        )
        for name in names
    )


def test_an_unfinished_study_says_so_before_the_first_number(hostile: Reported) -> None:
    text = Tags(hostile.text).text
    start = text[: text.index("Leaderboard")]
    assert "This study is not complete. 6 of 8 runs are finished. 1 run failed" in start
    assert "1 run is not computed yet" in start
    assert "In this smoke version of the study, after 6 of 8 runs:" in start
    assert "This is a smoke version of the study. What was changed:" in start


def test_failed_runs_are_listed_with_their_reason(hostile: Reported) -> None:
    rows = Tags(hostile.text).tables["failures"]
    assert rows[1][2] == "the loss left the finite numbers at step 41 of epoch 3"


def test_incomplete_candidates_say_how_many_runs_they_have(hostile: Reported) -> None:
    names = [row[0] for row in Tags(hostile.text).tables["leaderboard"][1:-1]]
    assert sorted(names) == sorted([f"{HOSTILE_NAME} (3 of 4 runs)", "plain (3 of 4 runs)"])


def test_published_scores_have_a_column_except_in_a_smoke_version(tmp_path: Path) -> None:
    made = {**vars(SMALL), "published": {"a": {"accuracy": 71.0}}}
    for scale, shown in ((None, True), (["2 folds instead of 5"], False)):
        table = leaderboard_table(collect_summary(make_study(tmp_path / str(shown), Made(**{**made, "scale": scale}))))
        assert ("Published" in [c.name for c in table.columns]) is shown


def test_a_complete_study_has_no_notice(whole: Reported) -> None:
    assert 'class="notice"' not in whole.text


def test_overlapping_groups_are_announced(tmp_path: Path) -> None:
    summary = collect_summary(make_study(tmp_path / "s", Made(**{**vars(SMALL), "groups": 6, "overlap": True})))
    assert [n.title for n in collect_notices(summary)] == ["Groups overlap."]
    assert describe_test_population(summary) == "on unseen rows of groups that are partly in the training data"


def test_the_same_study_gives_the_same_bytes(tmp_path: Path, whole: Reported) -> None:
    again = tmp_path / "again"
    write_report(whole.folder, again)
    files = sorted(p.relative_to(again) for p in again.rglob("*") if p.is_file())
    assert len(files) > 60
    assert [f for f in files if (again / f).read_bytes() != (whole.page.parent / f).read_bytes()] == []


def test_the_page_can_be_named_and_progress_is_reported(tmp_path: Path) -> None:
    make_study(tmp_path / "s", SMALL)
    told: list[tuple[int, int]] = []
    page = write_report(
        tmp_path / "s", tmp_path / "here" / "my report.html", progress=lambda done, total: told.append((done, total))
    )
    assert page == tmp_path / "here" / "my report.html"
    assert (tmp_path / "here" / "my report" / "tables" / "leaderboard.csv").exists()
    assert 'href="my report/tables/leaderboard.csv"' in page.read_text(encoding="utf-8")
    assert not (tmp_path / "s" / "report").exists()
    assert told == [(i, 6) for i in range(1, 7)]


def test_a_study_without_runs_is_refused_in_one_sentence(tmp_path: Path) -> None:
    make_study(tmp_path / "s", Made(**{**vars(SMALL), "missing": 6}))
    with pytest.raises(StoreError, match="holds no finished run of its plan of 6: run the study"):
        write_report(tmp_path / "s")


def test_a_folder_without_a_study_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="not a results folder"):
        write_report(tmp_path)


def test_a_single_candidate_has_no_comparisons(tmp_path: Path) -> None:
    done = report(tmp_path / "s", Made(**{**vars(SMALL), "accuracies": {"alone": 0.9}, "pictures": 0}))
    text = Tags(done.text).text
    assert "there is no other candidate to compare it with" in text
    assert 'id="comparisons"' not in done.text
    assert "Wrong, most confident first: internal/" in text, "names stand where no thumbnails were kept"


def test_reporting_loads_no_torch(tmp_path: Path) -> None:
    make_study(tmp_path / "s", SMALL)
    code = (
        "import sys; from phoropter.report.page import write_report; write_report(sys.argv[1]); "
        "bad = {'torch', 'torchvision', 'timm', 'pandas', 'sklearn', 'matplotlib.pyplot'} & set(sys.modules); "
        "sys.exit(str(bad) if bad else 0)"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code, str(tmp_path / "s")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_importing_the_page_loads_no_matplotlib() -> None:
    code = "import sys, phoropter.report.page; sys.exit(bool({'matplotlib', 'jinja2', 'scipy.stats'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_all_latex_tables_of_a_report_compile(tmp_path: Path, whole: Reported) -> None:
    if shutil.which("pdflatex") is None:
        pytest.skip("pdflatex is not installed")
    tables = sorted((whole.page.parent / "tables").glob("*.tex"))
    body = "".join(t.read_text(encoding="utf-8") + "\\clearpage\n" for t in tables)
    head = "\\documentclass{article}\n\\usepackage[T1]{fontenc}\n\\usepackage{booktabs,graphicx}\n\\begin{document}\n"
    (tmp_path / "all.tex").write_text(head + body + "\\end{document}\n", encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", "all.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout[-2000:]


def test_candidates_without_a_run_are_named_apart_from_incomplete_ones(tmp_path: Path) -> None:
    made = Made(**{**vars(SMALL), "accuracies": {"a": 0.9, "b": 0.8, "c": 0.7}, "folds": 2, "missing": 1})
    (notice,) = collect_notices(collect_summary(make_study(tmp_path / "some", made)))
    assert notice.lines[-1] == "Incomplete: c. Their results come from fewer splits, and they rank last."
    (notice,) = collect_notices(collect_summary(make_study(tmp_path / "none", Made(**{**vars(made), "missing": 4}))))
    assert notice.lines[-1] == "Without a finished run, and so not on this page: c."


def test_collapsed_features_have_no_embedding(tmp_path: Path) -> None:
    store = make_study(tmp_path / "study", replace(SMALL, features=6, collapsed=True))
    assert 'id="embedding"' not in write_report(store.folder).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["alexnet-and-after", "clinical-questions", "sonic-wesad"])
def test_a_smoke_page_writes_the_names_of_networks_as_they_are(name: str, tmp_path: Path) -> None:
    """Each line of the notice has a capital, so none may begin with a name."""
    study = read_study(name)[0]
    small = make_smoke_version(study)
    used = {b.name for version in (study, small) for c in version.parsed_candidates for b in c.backbones}
    changes = small.context.smoke_changes
    (notice,) = collect_notices(collect_summary(make_study(tmp_path, Made({"a": 0.9}, folds=2, scale=changes))))
    shown, recorded = " ".join(notice.lines), " ".join(changes)
    assert any(network in recorded for network in used)
    assert all(shown.count(network) == recorded.count(network) for network in used)


def test_the_page_says_of_how_many_candidates_it_draws_confusions(tmp_path: Path) -> None:
    for many in (MAX_CONFUSION_MATRICES, MAX_CONFUSION_MATRICES + 1):
        accuracies = {f"candidate {i}": 0.5 + 0.05 * i for i in range(many)}
        made = make_study(tmp_path / str(many), Made(accuracies, classes=("a", "b"), rows=60, folds=2, seeds=(0,), pictures=0))
        section = confusion_section(read_report_input(made.folder))
        drawn = [block for block in section.blocks if isinstance(block, RenderedFigure)]
        assert len(drawn) == MAX_CONFUSION_MATRICES
        assert section.paragraphs == () or section.paragraphs[0].startswith("By rank, the first 4 of 5 candidates are drawn;")
        assert bool(section.paragraphs) == (many > MAX_CONFUSION_MATRICES)
