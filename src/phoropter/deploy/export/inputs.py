"""Real inputs on which an exported file is compared with its bundle: those at paths, or the examples in the bundle."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from phoropter.core.errors import DataError, SpecError
from phoropter.core.seeds import random_permutation
from phoropter.deploy.examples import read_examples
from phoropter.deploy.export.proof import MAX_INPUTS, ProofInputs
from phoropter.deploy.inputs import describe_unreadable, find_paths
from phoropter.deploy.predict import Bundle
from phoropter.deploy.predictions import decode_chunks, open_inputs


def find_proof_inputs(bundle: Bundle, paths: Sequence[Path]) -> ProofInputs:
    """At most MAX_INPUTS of the images or windows at `paths`; without paths, of the bundle's examples.

    Raises SpecError where there are neither, DataError where none of them can be read.
    """
    if paths:
        return read_proof_inputs(bundle, paths, f"inputs at {paths[0]}" + (" and others" if len(paths) > 1 else ""))
    if examples := read_examples(bundle.folder):
        return read_proof_inputs(bundle, [example.file for example in examples], "examples in the bundle")
    raise SpecError(
        f"the bundle {bundle.folder} has no examples to compare the file on; pass --study DIR, the results folder of its study, "
        "or --inputs PATH, files it can predict"
    )


def read_proof_inputs(bundle: Bundle, paths: Sequence[Path], source: str) -> ProofInputs:
    """The squares of images or windows at paths, drawn by their names where there are many."""
    there, _ = find_paths(paths, "skip")
    dataset = open_inputs(bundle, there, "skip")
    drawn = np.sort(random_permutation(dataset.hashed_ids, "export")[:MAX_INPUTS])
    chunks = list(decode_chunks(bundle, dataset.select_rows(drawn), "skip"))
    squares = np.concatenate([chunk.pixels.array for chunk in chunks])
    if not len(squares):
        raise DataError(describe_unreadable(str(paths[0]), len(drawn), chunks[0].problems))
    return ProofInputs(squares, source)
