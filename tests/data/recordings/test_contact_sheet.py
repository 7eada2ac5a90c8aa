"""The contact sheet of a dataset of recordings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from phoropter.core.errors import DataError
from phoropter.data.recordings.contact_sheet import write_contact_sheet
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
