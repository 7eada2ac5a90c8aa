"""The section of what the networks are shown: a sentence, or traces at one scale a column and pictures, whatever names say."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from phoropter.report.render.section import Section
from phoropter.report.sections.study.treatments import treatments_section
from phoropter.results.shown_treatments import ShownRow, ShownStep, ShownTrace, ShownTreatments, write_treatments
from phoropter.study.records.thumbnails import encode_jpeg

EVIL = "<script>alert(1)</script>"


def read_section(folder: Path, study: dict[str, Any] | None = None) -> Section:
    inputs: Any = SimpleNamespace(store=SimpleNamespace(folder=folder, study=study or {}))
    return treatments_section(inputs)


def test_one_sentence_where_there_is_nothing_to_show(tmp_path: Path) -> None:
    (line,) = read_section(tmp_path).paragraphs
    assert "the results folder has none" in line
    (line,) = read_section(tmp_path, {"given_predictions": "phoropter.compare(…)"}).paragraphs
    assert line.endswith("the predictions were given, and not the data.")
    write_treatments(tmp_path, ShownTreatments(source="x", reason=f"{EVIL} is gone"), {})
    assert read_section(tmp_path).paragraphs[0].endswith("is gone.") and not read_section(tmp_path).blocks


def test_traces_share_the_scale_of_their_column_and_pictures_are_inside_the_page(tmp_path: Path) -> None:
    traces = [ShownTrace(low=[0.0, None, 5.0], high=[10.0, None, 5.0]), ShownTrace(low=[1.0], high=[2.0])]
    after = [ShownTrace(low=[5.0, 5.0, 5.0], high=[5.0, 5.0, 5.0]), ShownTrace(low=[1.0], high=[2.0])]
    steps = [
        ShownStep(title="as recorded", about="First.", channel="ECG", unit="mV", traces=traces),
        ShownStep(title=EVIL, about="Then.", channel="ECG", unit="mV", traces=after),
        ShownStep(title="drawn", about="Last.", pictures=["2-0", "2-1"]),
    ]
    rows = [ShownRow(id="one@1.0", label="calm", span=(1.0, 6.0)), ShownRow(id=EVIL, label="stress")]
    jpeg = encode_jpeg(Image.new("RGB", (8, 8)), 8)
    shown = ShownTreatments(source="x", rows=rows, steps=steps, left_out=["mixup"])
    write_treatments(tmp_path, shown, {"2-0": jpeg, "2-1": b"no jpeg"})
    section = read_section(tmp_path)
    assert section.paragraphs[1] == "Left out, so that the page stays small: mixup."
    page = "\n".join(map(str, section.blocks))
    assert EVIL not in page and "&lt;script&gt;" in page and "one@1.0 · 1.0 to 6.0 s" in page
    assert "The columns go from 0 to 10 and 1 to 2 mV." in page
    assert page.count("data:image/jpeg;base64,") == 1, "what is no JPEG is not shown"
    first, _, second, _ = re.findall(r'<path d="([^"]*)"', page)
    assert first == "M27 1L27 47M133 24L133 24", "from 10 down to 0, a gap, then the middle"
    assert second.startswith("M27 24") and second.count("M") == 1


@pytest.mark.timeout(120)
def test_the_page_of_a_run_has_them_and_is_the_same_twice(tmp_path: Path) -> None:
    from phoropter.report.page import write_report
    from tiny_study import run_tiny_study

    store = run_tiny_study(tmp_path)
    once = write_report(store.folder).read_bytes()
    assert write_report(store.folder).read_bytes() == once
    text = once.decode()
    section = text[text.index('id="treatments"') :]
    section = section[: section.index("</section>")]
    assert section.count("data:image/jpeg") == 6 and "as in the file" in section
