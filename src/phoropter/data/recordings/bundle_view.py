"""How a bundle remembers the representation of the recordings it was trained on."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from phoropter.core.spec import Spec
from phoropter.data.dataset import Dataset
from phoropter.data.recordings.dataset import RenderedPictures
from phoropter.data.recordings.views import ChannelView, CtgView


class BundleView(Spec):
    """How the recordings of a study became pictures, for its bundle: the View with nothing left open, and their rate in Hz."""

    view: Annotated[ChannelView | CtgView, Field(discriminator="kind")]
    rate_hz: float


def get_bundle_view(dataset: Dataset) -> BundleView | None:
    """Of a study's dataset; None where it holds pictures."""
    if not isinstance(dataset.pictures, RenderedPictures):
        return None
    drawing = dataset.pictures.windows
    return BundleView(view=drawing.view, rate_hz=drawing.recordings[0].rate_hz)
