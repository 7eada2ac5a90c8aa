"""How many recordings and windows were left out, and why, in counts that add up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from phoropter.results.exclusions import ExclusionStep, make_step
from phoropter.signals.recording import LoadedRecordings, Recording
from phoropter.signals.windows import WindowTable

# Of a recording that gives no window, by the reasons of a WindowTable, in the order in which they are told
_NO_WINDOW = {
    "no_label": "of unknown class",
    "other_label": "without a label of the classes",
    "invalid": "without any heart rate",
    "too_short": "shorter than a window",
    "short_run": "no stretch of one class is as long as a window",
    "edge": "events too near to an end alone",
    "nan": "samples missing in every window",
    "missing": "more missing than allowed in every window",
}
_DROPPED_WINDOW = {
    "nan": "samples missing",
    "edge": "event too near to an end of the recording",
    "missing": "more missing than allowed",
}


def count_exclusions(loaded: LoadedRecordings, kept: Sequence[Recording], table: WindowTable) -> tuple[ExclusionStep, ...]:
    """Two steps: of the recordings that were found, those that give a window; of all windows of these, the table's.

    kept: the recordings of which the table was made
    """
    reasons = Counter(list(why)[-1] for why in table.windowless.values())
    left_out = {
        **loaded.left_out,
        "cannot be read, or of another rate": len(loaded.problems),
        "cannot be rendered": len(loaded.recordings) - len(kept),
        **{words: reasons[reason] for reason, words in _NO_WINDOW.items()},
    }
    used = set(table.recording.tolist())
    people = len({kept[index].subject for index in used})
    lost = {
        words: table.dropped.get(reason, 0) - sum(why.get(reason, 0) for why in table.windowless.values())
        for reason, words in _DROPPED_WINDOW.items()
    }
    return make_step("recordings", len(used), left_out, people), make_step("windows", len(table), lost, people)
