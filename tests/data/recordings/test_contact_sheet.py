"""The contact sheet of a dataset of recordings."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from phoropter.core.errors import DataError
from phoropter.data.recordings.contact_sheet import draw_traces, find_span, write_contact_sheet
from phoropter.data.recordings.dataset import render_recordings
from phoropter.data.recordings.views import ChannelView, CtgView
from phoropter.signals.recording import Recording
from phoropter.signals.render import CtgPlot, Spectrogram
from phoropter.signals.windows import WindowRule

ECG = ChannelView(channel="ECG", representation=Spectrogram(size=32), rule=WindowRule(length_s=5, step_s=2))


def test_a_preview_shows_every_class(people: list[Recording], births: list[Recording], tmp_path: Path) -> None:
    from PIL import Image

    for dataset in (
        render_recordings(people, ECG),
        render_recordings(births, CtgView(representation=CtgPlot(size=32))),
    ):
        sheet = np.asarray(Image.open(write_contact_sheet(dataset, tmp_path / f"{len(dataset)}.png")).convert("RGB"))
        assert min(sheet.shape[:2]) > 500 and (sheet < 128).any()
    with pytest.raises(DataError, match="the preview should end in"):
        write_contact_sheet(render_recordings(people, ECG), tmp_path / "sheet.txt")


def test_traces_have_axes_in_the_units_of_the_recording_and_names_that_cover_nothing() -> None:
    figure = Figure()
    minutes, seconds = figure.subplots(2)
    beats = {"FHR": np.full(400, 140.0), "baseline": np.full(400, 135.0)}
    draw_traces(minutes, beats, (1800.0, 3600.0), "bpm", names_time=True)
    assert minutes.get_xlim() == (30.0, 60.0) and minutes.get_xlabel() == "min" and minutes.get_legend() is None
    names = {text.get_text(): text for text in minutes.texts}
    assert set(names) == {"FHR", "baseline", "bpm"} and all(text.xy[1] == 1.0 for text in names.values()), "above the axis"
    assert [names[line].get_color() for line in beats] == [line.get_color() for line in minutes.lines]
    draw_traces(seconds, {"ECG": np.zeros(50)}, (10.0, 15.0), "mV", names_time=False)
    assert seconds.get_xlim() == (10.0, 15.0) and seconds.get_xlabel() == ""


def test_a_recording_shown_whole_begins_at_zero(people: list[Recording]) -> None:
    dataset = render_recordings(people, ECG)
    assert dataset.spans is not None and find_span(dataset, 1) == tuple(dataset.spans[1])
    whole = replace(dataset, spans=None)
    assert find_span(whole, 1) == (0.0, 5.0)
