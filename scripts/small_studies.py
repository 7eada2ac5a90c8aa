"""Runs the small versions of the five papers' studies on what stands in for their data, and writes a line for each part.

    python scripts/small_studies.py [STUDY ...] [-o runs/studies] [--data FOLDER]

The data are found in the folder that PHOROPTER_TEST_DATA names (default: ../shared/data), and unpacked into OUT/data; what is
missing is said, and parts that need it are left out. Weights are those of PHOROPTER_WEIGHTS, else of `weights` in that folder;
`PHOROPTER_WEIGHTS=` (empty) leaves all networks at random. Each part is computed by one thread. Finished runs stay, so
that a second call goes on; the processor time of all calls is added up in OUT/processor-seconds.json.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import tarfile
import time
from dataclasses import dataclass
from pathlib import Path

from phoropter.core.errors import PhoropterError
from phoropter.report.page import read_report_input, write_report
from phoropter.report.render.metric_format import MetricFormat
from phoropter.report.summary.guessing import find_uninformed
from phoropter.study.executors import execute_study
from phoropter.study.smoke_scale import make_smoke_version
from phoropter.study.spec import StudySpec, list_shipped_studies, read_study
from phoropter.study.worker import ComputeOptions

ROOT = Path(__file__).parent.parent
PAPERS = ("sonic-wesad", "attention-or-convolution", "alexnet-and-after", "vit-teaches-cnn", "ctg-high-risk")

# Name in the data folder of the studies → what stands in for it: a folder or an archive, and the folder inside.
STAND_INS: dict[str, tuple[str, str]] = {
    "eegmat-ecg": ("eegmat-ecg.tar.gz", "eegmat-ecg"),
    "cifar10": ("cifar10-mini", ""),
    "256_ObjectCategories": ("caltech101.tar", "101_ObjectCategories"),
    "imagenet-val": ("imagenet-sample-images.tar", "imagenet-sample-images"),
    "intel": ("intel.tar", "intel"),
    "ctu-uhb-ctgdb": ("ctu-uhb-ctgdb.tar.gz", "ctu-uhb-ctgdb"),
}
# Words of the shipped files → those of what stands in, where another source has other words.
INSTEAD: tuple[tuple[str, str], ...] = (
    (r"\{cifar100: cifar-100-python,", "{folder: cifar10,"),
    (r"\{wesad: WESAD, task: 2-class,(.*), download_hint: [^}]*\}", r"{eegmat: eegmat-ecg, on_bad_input: skip,\1}"),
    (r"\{wesad: WESAD, task: 3-class,(.*), download_hint: [^}]*\}", r"{simulate: ecg, task: 3-class,\1}"),
)
# What a part's data are, by its words in the file, for the table.
WORDS: tuple[tuple[str, str], ...] = (
    ("eegmat", "ECG at rest and during arithmetic"),
    ("simulate: ecg", "simulated ECG"),
    ("simulate: ctg", "simulated births"),
    ("cifar10", "CIFAR-10, a part of it"),
    ("256_ObjectCategories", "Caltech-101, a part of it"),
    ("imagenet-val", "one picture of each class"),
    ("intel", "Intel scenes, a part of them"),
    ("ctu", "CTU-UHB"),
)


@dataclass(frozen=True)
class PartResult:
    """One part, as the table shows it."""

    study: str
    part: str
    data: str
    runs: int
    seconds: float
    best: str


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("studies", nargs="*", default=PAPERS, help="names of shipped studies")
    parser.add_argument("-o", "--out", type=Path, default=ROOT / "runs" / "studies")
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("PHOROPTER_TEST_DATA", ROOT.parent / "shared" / "data")))
    asked = parser.parse_args()
    for sentence in gather_data(asked.data, asked.out / "data"):
        print(sentence)
    if (asked.data / "weights").is_dir():
        os.environ.setdefault("PHOROPTER_WEIGHTS", str((asked.data / "weights").resolve()))
    try:
        results = [result for name in asked.studies for result in run_parts(name, asked.out)]
    except KeyboardInterrupt as stopped:  # a signal, after a checkpoint
        raise SystemExit(f"{stopped or 'stopped'}; the same command goes on from here") from None
    print(
        "\n".join(
            [
                "",
                "| study | part | data | runs | processor time | the best candidate, and guessing |",
                "|---|---|---|---:|---:|---|",
            ]
        )
    )
    for result in results:
        minutes, seconds = divmod(round(result.seconds), 60)
        taken = f"{minutes} min {seconds} s" if minutes else f"{seconds} s"
        print(f"| {result.study} | {result.part} | {result.data} | {result.runs} | {taken} | {result.best} |")


def gather_data(source: Path, to: Path) -> list[str]:
    """Unpacks or links what stands in for the papers' data; a sentence for each thing that is missing."""
    to.mkdir(parents=True, exist_ok=True)
    missing = []
    for name, (archive, inside) in STAND_INS.items():
        if (to / name).exists():
            continue
        if not (source / archive).exists():
            missing.append(
                f"{source / archive} is missing, so parts that need {name} are left out; PHOROPTER_TEST_DATA names the folder"
            )
        elif not inside:
            (to / name).symlink_to((source / archive).resolve())
        else:
            with tarfile.open(source / archive) as file:
                file.extractall(to / "unpacked", filter="data")
            (to / "unpacked" / inside).rename(to / name)
    return missing


def read_parts(name: str, out: Path) -> list[StudySpec]:
    """The parts of a shipped study with the words of what stands in for its data, beside which the file is written."""
    text = list_shipped_studies()[name].read_text(encoding="utf-8")
    for pattern, words in INSTEAD:
        text = re.sub(pattern, words, text)
    file = out / "data" / f"{name}.yaml"
    file.write_text(text, encoding="utf-8")
    return [_rank_fairly(part) for part in read_study(str(file))]


def _rank_fairly(part: StudySpec) -> StudySpec:
    """Of the recordings that stand in for WESAD the part's own metric that counts classes alike comes first.

    People of eegmat rest three times as long as they calculate, simulated ones more than half of the time: whoever always answers
    rest is right 75 and 54 times in 100, and so few people do not tell a network from that by accuracy.
    """
    if part.data.source not in ("eegmat", "simulate") or "macro_f1" not in part.metric_names:
        return part
    return part.with_changes(metrics=("macro_f1", *(m for m in part.metrics if m != "macro_f1")))


def run_parts(name: str, out: Path) -> list[PartResult]:
    """Computes the small version of each part whose data are there."""
    results = []
    for part in read_parts(name, out):
        began = processor_seconds()
        try:
            store = execute_study(make_smoke_version(part), out / part.name, lambda event: None, options=ComputeOptions("cpu", 1))
            write_report(store.folder)
        except PhoropterError as error:
            print(f"{part.name}: left out: {error}")
            continue
        for failure in store.read_failures().values():
            print(f"{part.name}: a run of '{failure['candidate']}' failed: {failure['error']}")
        taken = add_seconds(out / "processor-seconds.json", part.name, processor_seconds() - began)
        results.append(
            PartResult(name, part.name, name_data(part), sum(1 for _ in store.runs()), taken, describe_best(store.folder))
        )
        print(results[-1], flush=True)
    return results


def name_data(part: StudySpec) -> str:
    """What the table calls the data of a part."""
    said = ", ".join(f"{key}: {value}" for key, value in part.data.model_dump(exclude_unset=True).items())
    return next((words for word, words in WORDS if word in said), part.data.source)


def describe_best(folder: Path) -> str:
    """The first candidate, its value with 95 % interval, the value of guessing, and whether it is clearly better."""
    found = read_report_input(folder)
    best, shown = found.summary.candidates[0], MetricFormat.from_metric(found.summary.ranking_metric)
    if best.replicates is None or best.no_information is None:
        return f"{best.name}: no interval"
    interval = best.replicates.confidence_interval()
    informed = best not in find_uninformed(found.summary, found.comparisons.design)
    values = (
        f"{shown.format_value(interval.estimate)} ({shown.format_value(interval.low)} to {shown.format_value(interval.high)})"
    )
    verdict = "clearly better" if informed else "not clearly better"
    metric = "" if found.summary.metrics[0] == "accuracy" else f"{shown.inline_title} "
    return f"{best.name}: {metric}{values}; guessing {shown.format_value(best.no_information.value)}: {verdict}"


def processor_seconds() -> float:
    """Of this process and the ended ones that it started."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def add_seconds(file: Path, part: str, seconds: float) -> float:
    """Adds processor time to what earlier calls took for a part; the sum."""
    known = json.loads(file.read_text()) if file.exists() else {}
    known[part] = known.get(part, 0.0) + seconds
    file.write_text(json.dumps(known, indent=1))
    return float(known[part])


if __name__ == "__main__":
    main()
