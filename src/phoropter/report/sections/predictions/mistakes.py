"""Example predictions: wrong and right answers of every candidate, with the thumbnails that the runs kept, and its confusions."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence

from markupsafe import Markup

from phoropter.report.render.section import ContentBlock, FileLink, FoldedBlocks, Section
from phoropter.report.render.table import one_line
from phoropter.report.render.wording import count_with_noun
from phoropter.report.sections.predictions.confusion import find_top_confusions
from phoropter.report.sections.predictions.mistakes_file import MISTAKES_FILE
from phoropter.report.summary.model import CandidateResults, ExampleAnswer
from phoropter.report.summary.report_input import ReportInput
from phoropter.results.store import Store

MAX_JPEG_BYTES = 60_000  # a larger picture is not a thumbnail and is left out of the page
PICTURE_BUDGET = 2_500_000  # characters of pictures on the page; the candidates beyond have the names of their examples
_JPEG_MAGIC = b"\xff\xd8\xff"
_OF_FIRST, _OF_OTHERS = (12, 6), (6, 4)  # wrong and right answers that are shown
MAX_PAIRS_SHOWN = 4  # confusions whose examples are shown


def mistakes_section(inputs: ReportInput) -> Section:
    """The first candidate's examples are shown, those of the others are folded."""
    summary, left = inputs.summary, PICTURE_BUDGET
    blocks: list[ContentBlock] = []
    for place, candidate in enumerate(summary.candidates):
        gallery = build_gallery(inputs.store, candidate, summary.classes, _OF_OTHERS if place else _OF_FIRST, left)
        left -= sum(len(part) for part in gallery)
        errors = int(candidate.confusion.sum() - candidate.confusion.trace())
        total = int(candidate.confusion.sum())
        title = f"{candidate.name}: {errors:,} of {count_with_noun(total, 'answer')} wrong"
        blocks += gallery if place == 0 else [FoldedBlocks(title, tuple(gallery))]
    blocks.append(FileLink(f"tables/{MISTAKES_FILE}", "CSV", "Every wrong answer, beside what each candidate answered:"))
    text = (
        f"Held-out images that {summary.candidates[0].name} misclassified with the highest confidence, and some that it "
        "classified correctly. Some of the errors may be wrong labels."
    )
    text += " The other candidates follow." if len(summary.candidates) > 1 else ""
    return Section("mistakes", "Example predictions", (text,), tuple(blocks))


def build_gallery(
    store: Store, candidate: CandidateResults, classes: Sequence[str], shown: tuple[int, int], budget: int
) -> list[Markup]:
    """Confusions, wrong and right answers of a candidate; names alone where no thumbnails were kept or the budget is spent.

    shown: how many wrong and how many right answers · budget: characters that the pictures may take
    """
    answers = [*candidate.mistakes, *candidate.right_answers, *(e for found in candidate.confused.values() for e in found)]
    jpegs = {key: store.run(key).load_pictures() for key in {e.run for e in answers}} if budget > 0 else {}
    blocks = [confusions] if (confusions := _confusion_sentence(candidate, classes)) else []
    for title, examples, limit in (("Wrong", candidate.mistakes, shown[0]), ("Correct", candidate.right_answers, shown[1])):
        pictured = [(e, jpeg) for e in examples if (jpeg := jpegs.get(e.run, {}).get(e.id))][:limit]
        items = [_picture_item(e, jpeg, classes) for e, jpeg in pictured]
        if sum(map(len, items)) <= budget and items:
            head = Markup("<h3>{}</h3>\n").format(f"{title}, most confident first")
            blocks.append(head + Markup('<ul class="gallery">\n{}\n</ul>').format(Markup("\n").join(items)))
            budget -= sum(map(len, items))
        elif title == "Wrong" and examples:
            names = "; ".join(f"{_place_of(e)} ({answer_text(*_class_names(e, classes))})" for e in examples[:limit])
            blocks.append(Markup('<p class="note">{}</p>').format(f"{title}, most confident first: {names}."))
    return blocks + _pair_galleries(candidate, classes, jpegs, budget)


def _pair_galleries(
    candidate: CandidateResults, classes: Sequence[str], jpegs: Mapping[str, Mapping[str, bytes]], budget: int
) -> list[Markup]:
    """A row of pictures for each of the most frequent confusions, as far as thumbnails were kept and the budget goes."""
    blocks: list[Markup] = []
    for true, predicted, *_ in find_top_confusions(candidate, MAX_PAIRS_SHOWN):
        examples = candidate.confused.get((true, predicted), [])
        items = [_picture_item(e, jpeg, classes) for e in examples if (jpeg := jpegs.get(e.run, {}).get(e.id))]
        if items and sum(map(len, items)) <= budget:
            head = Markup("<h3>{}</h3>\n").format(answer_text(one_line(classes[true]), one_line(classes[predicted])))
            blocks.append(head + Markup('<ul class="gallery">\n{}\n</ul>').format(Markup("\n").join(items)))
            budget -= sum(map(len, items))
    return blocks


def _confusion_sentence(candidate: CandidateResults, classes: Sequence[str]) -> Markup | None:
    """The most frequent confusions; None where there are none."""
    pairs = [
        f"{one_line(classes[t])} as {one_line(classes[p])} {n:,} times ({share * 100:.1f} % of {one_line(classes[t])})"
        for t, p, n, share in find_top_confusions(candidate, 5)
    ]
    return Markup('<p class="note">{}</p>').format(f"Most frequent confusions: {'; '.join(pairs)}.") if pairs else None


def _class_names(example: ExampleAnswer, classes: Sequence[str]) -> tuple[str, str]:
    return one_line(classes[example.true_class]), one_line(classes[example.predicted_class])


def answer_text(true: str, predicted: str) -> str:
    """`cat, predicted as dog`; of a right answer the class alone."""
    return true if true == predicted else f"{true}, predicted as {predicted}"


def bold_answer(true: str, predicted: str, is_right: bool) -> Markup:
    """The same with the classes in bold."""
    words = Markup("<b>{}</b>").format(true)
    return words if is_right else words + Markup(" predicted as <b>{}</b>").format(predicted)


def place_text(id: str, group: str | None, span: tuple[float, float] | None) -> str:
    """The id of a row, and where known its group and time. span: seconds in its recording"""
    where = one_line(id)
    if group is not None and group not in where:
        where = f"{one_line(group)} · {where}"
    if span is not None:
        where += f" · {span[0]:,.1f} to {span[1]:,.1f} s"
    return where


def _place_of(example: ExampleAnswer) -> str:
    return place_text(example.id, example.group, example.time_span)


def _picture_item(example: ExampleAnswer, jpeg: bytes, classes: Sequence[str]) -> Markup:
    names = _class_names(example, classes)
    words = bold_answer(*names, example.true_class == example.predicted_class)
    return Markup(
        '<li><figure><img src="{}" alt="{}"><figcaption>{}, {}\u00a0% confidence<br>{}</figcaption></figure></li>'
    ).format(jpeg_data_uri(jpeg), answer_text(*names), words, f"{example.confidence * 100:.1f}", _place_of(example))


def jpeg_data_uri(jpeg: bytes) -> str:
    """A data URI, or an empty string if the bytes are not a small JPEG."""
    if not jpeg.startswith(_JPEG_MAGIC) or len(jpeg) > MAX_JPEG_BYTES:
        return ""
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode("ascii")
