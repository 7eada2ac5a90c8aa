"""The statement for a journal or an ethics board: items of TRIPOD+AI, CLAIM and REFORMS, prefilled with what the study knows.

Numbers are those of TRIPOD+AI (Collins et al. 2024); beside them stand the section of CLAIM (Tejani et al. 2024) and the module
of REFORMS (Kapoor et al. 2024) that ask for the same. What a study cannot know is left to the author, and says so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from markupsafe import Markup

from phoropter.core.durations import format_duration
from phoropter.report.render.section import Section
from phoropter.report.render.table import Column, Table, TableRow, escape_markdown, one_line
from phoropter.report.render.wording import count_with_noun, list_names
from phoropter.report.sections.candidate_costs import sum_study_seconds
from phoropter.report.sections.candidate_values import describe_estimands, describe_interval_methods
from phoropter.report.sections.study.exclusions import describe_exclusions
from phoropter.report.sections.study.leakage import read_audit_findings, severe_findings
from phoropter.report.sections.study.provenance import describe_protocol, reproduce_commands
from phoropter.report.summary.model import StudySummary
from phoropter.report.summary.report_input import ReportInput
from phoropter.results.exclusions import count_analysed

STATEMENT_FILE = "statement.md"
LEFT = "left to the author"
MAX_NAMED = 8


@dataclass(frozen=True)
class StatementItem:
    """number: of TRIPOD+AI · topic: what it asks for · claim, reforms: where the others ask · answer: what the study knows"""

    number: str
    topic: str
    claim: str
    reforms: str
    answer: Callable[[ReportInput], str] = lambda inputs: LEFT


def statement_section(inputs: ReportInput) -> Section:
    """Never None: every study can be reported."""
    table = build_statement_table(inputs)
    left = sum(row.values[-1] == LEFT for row in table.rows)
    text = (
        f"{len(table.rows) - left} of {len(table.rows)} items are prefilled from this study; {left} it cannot know. The words "
        "are a beginning, not a claim that a guideline is met. statement.md beside this page has them for editing."
    )
    flow = Markup("<ul>{}</ul>").format(Markup("").join(Markup("<li>{}</li>").format(one_line(s)) for s in describe_flow(inputs)))
    return Section(
        "statement", "Statement (TRIPOD+AI, CLAIM, REFORMS)", (text,), (Markup("<h3>Flow of records</h3>"), flow, table)
    )


def build_statement(inputs: ReportInput) -> str:
    """The same as Markdown, with the flow of records."""
    name = escape_markdown(one_line(str(inputs.summary.study.get("name", ""))))
    flow = "\n".join(f"- {escape_markdown(one_line(line))}" for line in describe_flow(inputs))
    head = f"# Statement: {name}\n\nPrefilled from the study; what it cannot know is {LEFT}.\n\n## Flow of records\n\n{flow}\n\n"
    return f"{head}## Items\n\n{build_statement_table(inputs).to_markdown()}"


def build_statement_table(inputs: ReportInput) -> Table:
    """A row for each item."""
    columns = (
        Column("TRIPOD+AI"),
        Column("Item", "words"),
        Column("CLAIM", "words"),
        Column("REFORMS", "words"),
        Column("Here", "words"),
    )
    rows = tuple(TableRow((i.number, i.topic, i.claim, i.reforms, i.answer(inputs) or LEFT)) for i in STATEMENT_ITEMS)
    return Table("statement", "Items of the reporting guidelines", columns, rows, sortable=False, max_html_rows=60)


def describe_flow(inputs: ReportInput) -> list[str]:
    """Records in, left out and why, analysed, tested: a sentence each."""
    summary = inputs.summary
    dataset = summary.study.get("dataset") or {}
    problems = [str(p) for p in dataset.get("problems") or ()]
    lines = describe_exclusions(summary)
    if problems:
        reasons = Counter(p.partition(": ")[2] or p for p in problems).most_common(MAX_NAMED)
        why = "; ".join(f"{reason} ({count})" for reason, count in reasons)
        lines.append(f"Left out because they could not be used: {count_with_noun(len(problems), 'input')}: {why}.")
    lines += [f"Of the data it is recorded: {note}" for note in map(str, dataset.get("notes") or ())]
    rows, groups = count_analysed(dataset)
    units = f" of {summary.group_word.count(groups)}" if groups else ""
    lines.append(f"Analysed: {count_with_noun(rows, 'row')}{units}, {_count_classes(summary)}.")
    tested = max((sum(run.n_test for run in c.runs) for c in summary.candidates), default=0)
    rounds = len({run.split[:2] for run in summary.candidates[0].runs})
    answers = f"{count_with_noun(tested, 'answer')} of each candidate in {count_with_noun(rounds, 'round')}"
    lines.append(f"Tested on rows that were not trained on: {answers}.")
    lines.append(f"How many records and people were eligible before these, and why others were not collected: {LEFT}.")
    return lines


def _count_classes(summary: StudySummary) -> str:
    """`by class: ill 42, well 78`; of several labels a row, which do not add up to the rows, `with each label: …`."""
    counts = (summary.study.get("dataset") or {}).get("counts") or []
    named = ", ".join(f"{one_line(c)} {n:,}" for c, n in list(zip(summary.classes, counts, strict=False))[:20])
    return f"{'with each label' if summary.is_multi_label else 'by class'}: {named}"


def _describe_source(inputs: ReportInput) -> str:
    dataset = inputs.summary.study.get("dataset") or {}
    sites = (
        f", {inputs.summary.site_word.plural} {list_names(list(map(str, dataset['sites'])), MAX_NAMED)}"
        if dataset.get("sites")
        else ""
    )
    return f"{dataset.get('name', '')}{sites}; fingerprint {dataset.get('fingerprint', 'unknown')}"


def _describe_preparation(inputs: ReportInput) -> str:
    dataset = inputs.summary.study.get("dataset") or {}
    return f"pictures of {dataset.get('size', '?')} pixels; the keys of `data` are in the study file under Provenance"


def _describe_positive(inputs: ReportInput) -> str:
    positive = (inputs.summary.study.get("dataset") or {}).get("positive")
    looked_for = f"; looked for: {positive}" if positive else ""
    what = "labels, of which a row may have several or none:" if inputs.summary.is_multi_label else "classes"
    return f"{what} {list_names(list(inputs.summary.classes), MAX_NAMED)}{looked_for}; how they were assessed is {LEFT}"


def _describe_size(inputs: ReportInput) -> str:
    summary = inputs.summary
    return f"{summary.unit_word.count(summary.n_units)}; whether they suffice for the question is {LEFT}"


def _describe_missing(inputs: ReportInput) -> str:
    problems = (inputs.summary.study.get("dataset") or {}).get("problems") or ()
    return f"{count_with_noun(len(problems), 'input')} could not be used, see the flow of records"


def _describe_models(inputs: ReportInput) -> str:
    shown = [
        f"{c.name} ({c.runs[0].record['candidate'].get('description') or 'no description'})" for c in inputs.summary.candidates
    ]
    return list_names(shown, MAX_NAMED)


def _describe_partition(inputs: ReportInput) -> str:
    return describe_protocol(inputs.summary)


def _describe_measures(inputs: ReportInput) -> str:
    summary = inputs.summary
    return f"{describe_estimands(summary, list(summary.metrics))} Intervals: {describe_interval_methods(summary)}."


def _describe_imbalance(inputs: ReportInput) -> str:
    recipe = inputs.summary.candidates[0].runs[0].record.get("recipe") or {}
    weights, sampling = (recipe.get("loss") or {}).get("class_weights", "none"), recipe.get("imbalance") or {}
    drawn = "undersampling " + str(sampling["undersample"]) if sampling.get("undersample") else "no undersampling"
    return f"of the first candidate: class weights {weights if isinstance(weights, str) else 'as stated'}, {drawn}"


def _describe_leakage(inputs: ReportInput) -> str:
    if read_audit_findings(inputs.summary) is None:
        return "no audit is recorded"
    found = severe_findings(inputs.summary)
    return " ".join(found) if found else "the audit found none, see Leakage audit"


def _describe_sites(inputs: ReportInput) -> str:
    sites = (inputs.summary.study.get("dataset") or {}).get("sites") or ()
    return f"results by {inputs.summary.site_word.singular} are on the page" if len(sites) > 1 else ""


def _describe_subgroups(inputs: ReportInput) -> str:
    stated = (inputs.summary.study_config.get("data") or {}) if isinstance(inputs.summary.study_config.get("data"), dict) else {}
    if not stated.get("subgroups"):
        return ""
    edges: dict[str, tuple[float, ...]] = {}
    for column in stated["subgroups"]:
        edges |= {column: ()} if isinstance(column, str) else column
    named = [f"{c} (cut at {list_names([f'{v:g}' for v in at])})" if at else c for c, at in edges.items()]
    return f"results by {list_names(named, MAX_NAMED)} are on the page, under Subgroups"


def _describe_results(inputs: ReportInput) -> str:
    return "Leaderboard, Pairwise comparisons and the sections that follow, each with its interval"


def _describe_code(inputs: ReportInput) -> str:
    versions = inputs.summary.study.get("versions") or {}
    used = ", ".join(f"{name} {version}" for name, version in list(versions.items())[:4])
    return f"`{'; '.join(line for line in reproduce_commands(inputs.summary) if not line.startswith('#'))}`; {used}"


def _describe_compute(inputs: ReportInput) -> str:
    machine = inputs.summary.study.get("machine") or {}
    return f"{format_duration(sum_study_seconds(inputs.summary))} on {machine.get('processor') or 'an unknown machine'}"


def _describe_counts(inputs: ReportInput) -> str:
    return _count_classes(inputs.summary)


_DATA, _TRUTH, _MODEL = "Methods: data", "Methods: reference standard", "Methods: model and training"
_EVALUATION, _RESULTS = "Methods: evaluation", "Results"
STATEMENT_ITEMS = (
    StatementItem("1, 2", "Title and abstract", "Title, abstract", "–"),
    StatementItem("3a–c", "Context, intended use, known inequalities", "Introduction", "1 Study goals"),
    StatementItem("4", "Objectives", "Introduction", "1 Study goals"),
    StatementItem("5a", "Sources of data", _DATA, "3 Data quality", _describe_source),
    StatementItem("5b", "Dates of collection", _DATA, "3 Data quality"),
    StatementItem("6a–c", "Setting, eligibility, treatments", _DATA, "3 Data quality"),
    StatementItem("7", "Preparation of data", _DATA, "4 Data preprocessing", _describe_preparation),
    StatementItem("8a–c", "Outcome, who assessed it, blinding", _TRUTH, "3 Data quality", _describe_positive),
    StatementItem("9a–c", "Choice and definition of predictors", _DATA, "5 Modeling"),
    StatementItem("10", "Sample size", _DATA, "3 Data quality", _describe_size),
    StatementItem("11", "Missing data", _DATA, "4 Data preprocessing", _describe_missing),
    StatementItem("12a", "Partition of the data", "Methods: data partitions", "5 Modeling", _describe_partition),
    StatementItem("12c", "Models and how they were built", _MODEL, "5 Modeling", _describe_models),
    StatementItem("12d", "Differences between sites", _EVALUATION, "8 Generalizability", _describe_sites),
    StatementItem(
        "12e", "Measures of performance and their uncertainty", _EVALUATION, "7 Metrics and uncertainty", _describe_measures
    ),
    StatementItem("13", "Class imbalance", _MODEL, "5 Modeling", _describe_imbalance),
    StatementItem("14", "Fairness", _EVALUATION, "8 Generalizability", _describe_subgroups),
    StatementItem("–", "Leakage", "Methods: data partitions", "6 Data leakage", _describe_leakage),
    StatementItem("17", "Ethical approval", "Other information", "–"),
    StatementItem("18a–d", "Funding, conflicts of interest, protocol, registration", "Other information", "–"),
    StatementItem("18e", "Availability of data", "Other information", "2 Computational reproducibility"),
    StatementItem("18f", "Availability of code", "Other information", "2 Computational reproducibility", _describe_code),
    StatementItem("–", "Computing resources", _MODEL, "2 Computational reproducibility", _describe_compute),
    StatementItem("19", "Involvement of patients and the public", "–", "–"),
    StatementItem(
        "20a–c", "Flow and characteristics of participants", _RESULTS, "3 Data quality", lambda inputs: "see Flow of records"
    ),
    StatementItem("21", "Numbers of participants and outcomes", _RESULTS, "3 Data quality", _describe_counts),
    StatementItem("23a–b", "Performance with intervals", _RESULTS, "7 Metrics and uncertainty", _describe_results),
    StatementItem("25, 26", "Interpretation and limitations", "Discussion", "8 Generalizability"),
    StatementItem("27a–c", "Use in current care, next steps", "Discussion", "8 Generalizability"),
)
