"""A small study with a run of each kind (network, probe, average, student), and the bytes by which two of it are compared."""

from __future__ import annotations

from phoropter.results.store import Store

FOUR_KINDS = """\
name: four-kinds
data: {digits: true, size: 32, max_samples: 200}
protocol: {split: hold-out, seeds: [0]}
recipe: {preset: scratch, epochs: 8, lr: 0.01}
save_models: all
candidates:
  - {name: cnn, backbone: test_resnet, weights: random}
  - {name: probed, backbone: test_vit, weights: random, frozen: true, recipe: {preset: probe, epochs: 2}}
  - {name: average, fuse: [cnn, probed], mode: ensemble}
  - {name: taught, student: test_resnet, teacher: cnn, weights: random, loss: soft, recipe: {epochs: 1}}
"""


def all_predictions(store: Store) -> dict[str, bytes]:
    """Key → the file of predictions, of every finished run."""
    return {run.key: (run.folder / "predictions.npz").read_bytes() for run in store.runs()}
