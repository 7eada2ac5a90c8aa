"""The statement: what the study knows stands in it, what it cannot know is left to the author, and the flow adds up."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from made_study import Made, make_study

from phoropter.core.errors import StoreError
from phoropter.core.storage.sealed_json import read_sealed_json
from phoropter.report.page import write_report
from phoropter.report.sections.study.provenance import describe_unplanned_runs
from phoropter.report.sections.study.statement import LEFT, build_statement, build_statement_table, describe_flow
from phoropter.report.summary.collect import collect_summary
from phoropter.report.summary.compare import compare_candidates
from phoropter.report.summary.report_input import ReportInput
from phoropter.results.exclusions import make_step
from phoropter.results.store import Store

MADE = Made({"one": 0.8, "other": 0.7}, classes=("ill", "well"), rows=120, groups=30, folds=4, seeds=(0, 1), pictures=0, epochs=1)


def input_of(store: Store, **dataset: object) -> ReportInput:
    study = read_sealed_json(store.folder / "study.json", StoreError)
    store.write_study({**study, "dataset": {**study["dataset"], **dataset}})
    summary = collect_summary(Store(store.folder))
    return ReportInput(Store(store.folder), summary, compare_candidates(store, summary))


def answers(inputs: ReportInput) -> dict[str, str]:
    return {str(row.values[1]): str(row.values[-1]) for row in build_statement_table(inputs).rows}


def test_what_the_study_knows_is_prefilled_and_the_rest_left(tmp_path: Path) -> None:
    found = answers(input_of(make_study(tmp_path, MADE)))
    assert "4 folds" in found["Partition of the data"] and "one" in found["Models and how they were built"]
    assert "30 " in found["Sample size"] and found["Sample size"].endswith(LEFT)
    assert "ill" in found["Outcome, who assessed it, blinding"]
    for topic in ("Ethical approval", "Dates of collection", "Objectives", "Fairness", "Differences between sites"):
        assert found[topic] == LEFT
    assert found["Leakage"] == "no audit is recorded"


def test_the_flow_counts_what_was_left_out_analysed_and_tested(tmp_path: Path) -> None:
    problems = ["a.png: it cannot be decoded", "b.png: it cannot be decoded", "c.png: it is empty"]
    inputs = input_of(make_study(tmp_path, MADE), problems=problems, notes=["5 windows without a label were left out."])
    flow = describe_flow(inputs)
    assert flow[0] == ("Left out because they could not be used: 3 inputs: it cannot be decoded (2); it is empty (1).")
    assert "5 windows without a label" in flow[1]
    assert "120 rows of 30" in flow[2] and sum(inputs.summary.study["dataset"]["counts"]) == 120
    runs = [r.load_predictions() for r in Store(tmp_path).runs() if r.candidate_name == "one"]
    tested = sum(len(p.ids) for p in runs if p is not None)
    assert f"{tested:,} answers" in flow[3] and "2 rounds" in flow[3]


def test_the_flow_has_a_sentence_for_each_step_that_is_recorded(tmp_path: Path) -> None:
    steps = [make_step("pictures", 120, {"cannot be read": 4}, 30).plain()]
    flow = describe_flow(input_of(make_study(tmp_path, MADE), exclusions=steps, problems=["a.png: it is empty"]))
    assert flow[0] == "Of 124 pictures 120 were kept, of 30 groups; left out: cannot be read (4)."
    assert flow[1].startswith("Left out because they could not be used: 1 input: it is empty")


def test_subgroups_are_named_in_words(tmp_path: Path) -> None:
    inputs = input_of(make_study(tmp_path, MADE))
    inputs.summary.study["study"] = {"data": {"subgroups": ["sex", {"age": [30.0, 50.5]}]}}
    assert answers(inputs)["Fairness"] == "results by sex and age (cut at 30 and 50.5) are on the page, under Subgroups"


def test_labels_are_not_counted_as_classes_that_add_up_to_the_rows(tmp_path: Path) -> None:
    inputs = input_of(make_study(tmp_path, MADE))
    first, second = inputs.summary.study["dataset"]["counts"]
    assert f"of 30 {inputs.summary.group_word.plural}, by class: ill {first}, well {second}." in " ".join(describe_flow(inputs))
    inputs.summary.study["dataset"]["task"] = "multi-label"
    assert f"of 30 {inputs.summary.group_word.plural}, with each label: ill {first}, well {second}." in " ".join(
        describe_flow(inputs)
    )
    found = answers(inputs)
    assert found["Numbers of participants and outcomes"].startswith("with each label: ")
    assert found["Outcome, who assessed it, blinding"].startswith("labels, of which a row may have several or none: ill and well")


def test_it_is_a_file_beside_the_page_and_harmless(tmp_path: Path) -> None:
    made = replace(MADE, name="a | b", classes=("<b>ill</b>", "well"))
    make_study(tmp_path, made)
    page = write_report(tmp_path)
    text = (page.parent / "statement.md").read_text(encoding="utf-8")
    assert text.startswith("# Statement: ") and "## Flow of records" in text and text.count(LEFT) > 8
    assert "<b>ill" not in page.read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert len({line.replace("\\|", "").count("|") for line in rows}) == 1
    assert build_statement(input_of(Store(tmp_path))) == text


def test_folders_of_no_planned_run_are_told(tmp_path: Path) -> None:
    store = make_study(tmp_path, MADE)
    assert describe_unplanned_runs(store) == "" and store.find_unplanned_runs() == []
    (tmp_path / "runs" / ("f" * 32)).mkdir()
    words = describe_unplanned_runs(store)
    assert words.startswith(f"1 folder under runs ({'f' * 32}) is of no run of this plan") and "phoropter import" in words
    assert "Not read" in write_report(tmp_path).read_text(encoding="utf-8")
