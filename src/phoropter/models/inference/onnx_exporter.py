"""What is common to all who ask torch's exporters for an ONNX model."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from importlib.util import find_spec

from phoropter.core.errors import MissingExtraError

ONNX_PACKAGES = ("onnx", "onnxruntime", "onnxscript")
MAX_ONNX_BYTES = 1_900_000_000  # of weights in one model, whose format ends at 2 GiB


@contextmanager
def quiet_exporter() -> Iterator[None]:
    """Within it, exporters print nothing: their notes are for their authors, and a failure is told by its exception."""
    previous = logging.root.manager.disable
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        logging.disable(logging.CRITICAL)
        try:
            yield
        finally:
            logging.disable(previous)


def require_onnx_packages(what: str) -> None:
    """Raises MissingExtraError where a package is not installed that writes ONNX models or runs them. what: needs it"""
    for package in ONNX_PACKAGES:
        if find_spec(package) is None:
            raise MissingExtraError(package, "deploy", what)
