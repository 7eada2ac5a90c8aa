"""Studies reported once for the whole room: one of everything, and one of everything hostile and half done."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # so that the tests find made_study.py beside them

from made_reports import HOSTILE, WHOLE, Reported, report


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Reported:
    """Groups, sites, external rows, inner validation rows, features, pictures; every run finished."""
    return report(tmp_path_factory.mktemp("whole") / "study", WHOLE)


@pytest.fixture(scope="session")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Reported:
    """Names that try to be something else, in a study that is small, partly failed and not finished."""
    return report(tmp_path_factory.mktemp("hostile") / "study", HOSTILE)
