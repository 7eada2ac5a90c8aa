"""Where the results of negative controls lie in a results folder; each is a results folder of its own."""

from __future__ import annotations

from phoropter.results.store import Store

CONTROLS_FOLDER = "controls"


def open_controls(store: Store, kinds: tuple[str, ...]) -> dict[str, Store]:
    """Kind → the store of a control of the study that has been begun."""
    folders = {kind: store.folder / CONTROLS_FOLDER / kind for kind in kinds}
    return {kind: Store(folder) for kind, folder in folders.items() if (folder / "study.json").is_file()}
