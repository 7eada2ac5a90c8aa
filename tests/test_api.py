"""The Python interface: a study made of keys, what it refuses, its smoke version, callbacks and results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import phoropter as ph
from phoropter.core.errors import SpecError


def make_study(**keys: Any) -> ph.Study:
    words = {
        "name": "small",
        "data": ph.digits(size=32, max_samples=60),
        "candidates": [ph.probe("test_resnet", weights="random", name="net", recipe={"preset": "probe", "epochs": 1})],
        "protocol": ph.KFold(2, seeds=[0]),
    }
    return ph.Study(**{**words, **keys})


def test_a_study_runs_with_callbacks_and_reports(tmp_path: Path) -> None:
    class Counter:
        kinds: list[str] = []

        def on_event(self, event: ph.ProgressEvent) -> None:
            self.kinds.append(event.kind)

    study = make_study()
    assert study.name == "small" and len(study.plan().runs) == 2
    results = study.run(tmp_path, quiet=True, callbacks=[Counter()])
    assert Counter.kinds.count("done") == 2 and len(results.runs) == 2
    assert list(results.to_dataframe().columns[:4]) == ["candidate", "seed", "repeat", "fold"]

    def section(inputs: ph.ReportInput) -> ph.Section | None:
        rows = tuple(ph.TableRow((c.name, len(c.name))) for c in inputs.summary.candidates)
        table = ph.Table("lengths", "Lengths of names", (ph.Column("Candidate"), ph.Column("Letters")), rows)
        return ph.Section("lengths", "Lengths of names", ("How long each name is.",), (table,))

    page = results.report(sections=[section]).read_text(encoding="utf-8")
    assert "Lengths of names" in page and "How long each name is." in page


def test_code_of_the_user_s_own_that_raises_fails_its_runs_and_no_others(tmp_path: Path) -> None:
    def forgetful(logits: Any, labels: Any, weights: Any) -> Any:
        return logits.sum(1)

    own = ph.probe(
        "test_resnet",
        weights="random",
        name="own",
        recipe={"preset": "probe", "epochs": 1, "loss": ph.Loss("forgetful", compute=forgetful)},
    )
    sound = ph.probe("test_resnet", weights="random", name="sound", recipe={"preset": "probe", "epochs": 1})
    with pytest.warns(UserWarning, match=r"2 runs failed, the first \(own\) with: TypeError: .*weights.*line \d+"):
        results = make_study(candidates=[own, sound]).run(tmp_path / "both", quiet=True)
    assert {r.candidate_name for r in results.runs} == {"sound"} and len(results.runs) == len(results.failures) == 2
    with pytest.warns(UserWarning, match="2 runs failed"):
        results = make_study(candidates=[own]).run(tmp_path / "own", quiet=True)
    with pytest.raises(ph.PhoropterError, match=r"no finished run of its plan of 2 \(2 failed, the first with: TypeError"):
        results.report()


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"nmae": "x"}, "unknown key 'nmae'"),
        ({"second_protocol": True}, "`second_protocol` makes two studies"),
        ({"screening": {"kep": 1}}, "did you mean 'keep'"),
        ({"metrics": ["acuracy"]}, "did you mean 'accuracy'"),
    ],
)
def test_a_mistake_is_refused_when_the_study_is_made(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        make_study(**keys)


def test_the_smoke_version_is_a_study_of_its_own() -> None:
    study = make_study(data=ph.digits(size=128))
    small = study.smoke_version()
    assert isinstance(small, ph.Study) and small.data.size == 64 and study.data.size == 128
    assert small.context.smoke_changes and "small" in repr(small)


def test_a_screening_plans_its_first_rung() -> None:
    study = make_study(candidates=[ph.finetune("test_resnet", weights="random", name="net")], screening=True)
    assert [c.name for c in study.plan().candidates] == ["net probe"]


def test_study_and_plan_print_briefly_and_show_in_a_notebook() -> None:
    study = make_study(candidates=[ph.probe("test_resnet", weights="random", name="<i>net", recipe="probe")])
    planned = study.plan()
    assert str(planned).splitlines() == ["Plan of small: 2 runs, 2 splits, 60 rows in 10 classes", "  <i>net: 2 runs"]
    assert repr(planned) == "Plan('small': 2 runs, 2 splits, 60 rows in 10 classes)"
    html = study._repr_html_()
    assert "Study small" in html and "1 candidate · metrics: accuracy" in html and "&lt;i&gt;net" in html and "<i>" not in html
    html = planned._repr_html_()
    assert "Plan of small" in html and "<td>&lt;i&gt;net</td>" in html and "<td>2</td>" in html and "<i>" not in html
