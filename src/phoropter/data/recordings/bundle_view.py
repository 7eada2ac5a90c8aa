"""BundleView: what a bundle records to render new recordings as in training."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from phoropter.core.spec import Spec
from phoropter.data.dataset import Dataset
from phoropter.data.recordings.dataset import RenderedPictures
from phoropter.data.recordings.views import ChannelView, CtgView


class BundleView(Spec):
    """The View of a study, every default filled in, and the sampling rate of its recordings in Hz."""

    view: Annotated[ChannelView | CtgView, Field(discriminator="kind")]
    rate_hz: float


def get_bundle_view(dataset: Dataset) -> BundleView | None:
    """The BundleView of a study's dataset; None for a dataset of images."""
    if not isinstance(dataset.pictures, RenderedPictures):
        return None
    windows = dataset.pictures.windows
    return BundleView(view=windows.view, rate_hz=windows.recordings[0].rate_hz)
