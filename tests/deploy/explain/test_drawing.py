"""The figure of a recording has its trace in its own units, its seconds on the axis, its frequencies where it has some."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

import phoropter as ph
from phoropter.deploy.explain import drawing
from phoropter.signals.simulate import ctg_simulate, ecg_simulate
from small_recordings import BIRTHS, PEOPLE


@pytest.mark.parametrize("name", ["people", "births"])
def test_axes_of_a_recording_are_in_seconds_units_and_hertz(explained_bundles: dict[str, Path], name: str) -> None:
    recording = (ecg_simulate(PEOPLE) if name == "people" else ctg_simulate(BIRTHS))[0]
    explanation = ph.load(explained_bundles[name]).explain(recording, device="cpu")[0]
    window = explanation.window
    assert window is not None
    figure = Figure()
    drawing.draw_window(figure, explanation, window)
    labels = [axes.get_ylabel() for axes in figure.axes]
    assert labels == (["ECG (mV)", "frequency (Hz)"] if name == "people" else ["FHR (bpm)", "UC (nd)", "picture"])
    assert figure.axes[-1].get_xlabel() == "time in the recording (s)"
    for axes, channel in zip(figure.axes, window.signals, strict=False):
        if not axes.lines:
            continue
        line, values = axes.lines[0], window.signals[channel]
        assert np.array_equal(line.get_xdata(), explanation.time_s) and np.array_equal(line.get_ydata(), values)
        assert axes.get_xlim() == (window.start_s, window.stop_s)
        low, high = axes.get_ylim()
        assert low <= np.nanmin(values) and high >= np.nanmax(values)
        assert high - low < 1.3 * (np.nanmax(values) - np.nanmin(values)) + 1, "the trace fills its axes"


def test_the_title_says_what_is_explained_and_what_was_answered(explained_bundles: dict[str, Path]) -> None:
    model = ph.load(explained_bundles["people"])
    explanation = model.explain(ecg_simulate(PEOPLE)[0], device="cpu")[0]
    title = drawing.title_figure(explanation)
    assert explanation.name in title and f"evidence for {model.classes[explanation.target]}" in title and "answer" not in title
    other = replace(explanation, target=1 - explanation.target)
    assert f"the answer is {model.classes[explanation.target]}" in drawing.title_figure(other)
    nothing = replace(explanation, map=np.zeros_like(explanation.map))
    assert drawing.title_figure(nothing).endswith("no evidence was found")
