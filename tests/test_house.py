"""The rules of the house, held by reading the source: ranks, circles, names, lengths, heavy imports behind their doors."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import phoropter

SOURCE = Path(phoropter.__file__).parent
TESTS = Path(__file__).parent
RANKS = {
    "core": 0,
    "signals": 1,
    "results": 1,
    "data": 2,
    "models": 2,
    "training": 3,
    "study": 4,
    "report": 4,
    "deploy": 4,
    "console": 5,
    "interface": 5,
    "operations": 5,
    "api": 6,
    "refit": 5,
    "starter": 6,
    "study_parts": 6,
    "commands": 7,
    "bundle_commands": 8,
    "operation_commands": 8,
    "explain_command": 9,
    "export_command": 9,
    "import_command": 9,
    "serve_command": 9,
    "cli": 10,
    "__main__": 11,
}
# Inside a room: rooms and modules from the lowest to the highest layer; each may import from lower layers of its room only.
LAYERS: dict[str, list[set[str]]] = {
    "core": [
        {"cpu_count", "durations", "errors", "seeds", "source_digest", "language"},
        {"columns", "extensions", "files", "processes"},
        {"delimited", "listed_files", "spec", "storage"},
        {"text_table"},
    ],
    "signals": [
        {"clean", "corruptions", "outcomes", "rasterize", "recording"},
        {"ecg", "quality", "readers", "render", "resample", "simulate_ecg", "windows"},
        {"ctg", "measures", "simulate_ctg"},
        {"simulate"},
    ],
    "results": [
        {"metrics", "record_shapes", "remote_store", "running_commands", "subgroup_file"},
        {"run_folder"},
        {"judged_answers", "shown_treatments", "store"},
        {"control_folder", "intervals", "positive_class"},
        {"data_size", "stats"},
        {"clinical", "questions", "shift"},
    ],
    "data": [
        {"dataset", "dicom_file", "stores", "time_overlap"},
        {"labels"},
        {"folders", "images", "source", "splits"},
        {"recordings", "sources", "subset"},
        {"controls", "in_memory", "leakage", "positive_class", "shift"},
        {"source_table"},
        {"spec"},
        {"metadata"},
        {"inspect", "subgroups", "unit_names"},
    ],
    "models": [
        {"alexnet", "timm_compat", "weights"},
        {"spec"},
        {"catalog", "catalog_build", "heads"},
        {"distilled_vit", "fusion", "pretrained"},
        {"backbones", "recognition"},
        {"bundle_description", "fine_tuning"},
        {"classifier"},
        {"inference", "signals"},
    ],
    "training": [
        {"array_cache", "augmentation", "malloc"},
        {"candidates", "costs"},
        {"batches", "trained_on"},
        {"feature_cache", "loop"},
        {"distillation", "fine_tuning", "predict", "solved_heads"},
        {"shift", "teacher_check"},
        {"fit"},
        {"bagging", "branch_ablation", "frozen", "tables"},
        {"selection", "train"},
        {"estimator_parts"},
        {"estimator"},
    ],
    "study": [
        {"settings"},
        {"progress", "spec"},
        {"display", "variants"},
        {"load", "loggers", "smoke_scale"},
        {"plan"},
        {"forecasts", "inputs", "records", "scheduling"},
        {"cost", "treatments"},
        {"shifts"},
        {"audit", "side_runs", "compute", "controls", "screening"},
        {"finished", "measuring"},
        {"worker"},
        {"clusters", "processes"},
        {"executors"},
    ],
    "starter": [{"choices", "first_look"}, {"recordings_table", "study_text"}, {"recordings_list"}],
    "report": [
        {"render", "summary"},
        {"custom_section", "figures", "study_pairing"},
        {"sections"},
        {"baseline_sentence", "clinical_sentences", "planned_sentences", "reliability", "top_group"},
        {"conclusion"},
        {"comparison_sentences", "model_card"},
        {"page"},
        {"comparison_page", "live"},
    ],
    "refit": [
        {"examples", "finished_study", "made_classifier"},
        {"evidence", "fold_models", "held_out", "leader_maps", "train_all"},
        {"card"},
        {"bundle_writer"},
        {"refit"},
    ],
    "interface": [
        {"frames", "progress_console"},
        {"parquet_file"},
        {"results_view"},
        {"bare_predictions"},
    ],
    "deploy": [
        {"decision", "examples", "inputs", "memory_inputs", "timm_layout"},
        {"described_bundle"},
        {"predictions"},
        {"predict"},
        {"explain"},
        {"bundle", "tables"},
        {"mlflow_model"},
        {"export"},
        {"engines"},
        {"serve"},
    ],
}


@cache
def modules() -> dict[str, Path]:
    """Dotted name without the package → file, packages' own files left out."""
    return {
        ".".join(p.relative_to(SOURCE).with_suffix("").parts): p for p in sorted(SOURCE.rglob("*.py")) if p.name != "__init__.py"
    }


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imported_names(tree: ast.AST) -> Iterator[str]:
    """What a tree imports, lazily and for type checking included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@cache
def imported_modules(name: str) -> frozenset[str]:
    """The modules of the package that a module imports."""
    found = set()
    for full in imported_names(tree_of(modules()[name])):
        parts = full.split(".")
        if parts[0] == "phoropter":
            found |= {m for m in (".".join(parts[1:]), ".".join(parts[1:-1])) if m in modules()}
    return frozenset(found)


MODULES = sorted(modules())


def test_imports_go_to_lower_ranks_only() -> None:
    upward = []
    for name in MODULES:
        room = first_word(name)
        for other in imported_modules(name):
            there = first_word(other)
            if there != room and RANKS[there] >= RANKS[room]:
                upward.append(f"{name} imports {other}")
    assert not upward, "\n".join(upward)


def layer_of(room: str, name: str) -> int:
    """The layer of a module's unit: the module itself, or the room inside its room that it stands in."""
    unit = name.split(".")[1]
    for number, layer in enumerate(LAYERS[room]):
        if unit in layer:
            return number
    raise AssertionError(f"{name} has no layer; add '{unit}' to LAYERS['{room}']")


def test_imports_inside_a_room_go_to_lower_layers_only() -> None:
    upward = []
    for name in (m for m in MODULES if first_word(m) in LAYERS):
        room, unit = name.split(".")[:2]
        for other in imported_modules(name):
            if other.startswith(room + ".") and other.split(".")[1] != unit and layer_of(room, other) >= layer_of(room, name):
                upward.append(f"{name} imports {other}")
    assert not upward, "\n".join(upward)


def test_no_import_circle() -> None:
    """Strongly connected components of all imports, lazy and type-checking ones included, are single modules (Tarjan 1972)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    circles: list[list[str]] = []

    def visit(v: str) -> None:
        index[v] = low[v] = len(index)
        stack.append(v)
        for w in imported_modules(v):
            if w not in index:
                visit(w)
                low[v] = min(low[v], low[w])
            elif w in stack:
                low[v] = min(low[v], index[w])
        if low[v] == index[v]:
            component = [stack.pop()]
            while component[-1] != v:
                component.append(stack.pop())
            if len(component) > 1:
                circles.append(sorted(component))

    for module in MODULES:
        if module not in index:
            visit(module)
    assert circles == []


# --- names ---------------------------------------------------------------------------------------------------------------------

# Public functions of one word: each is the field's own word for the thing, or a constructor beside the class-like ones.
ONE_WORD = {
    *("KFold", "GroupKFold", "BlockKFold", "LeaveOneGroupOut", "HoldOut", "Predefined", "HeldOutSites", "TestOnly", "FoldsFile"),
    *("folder", "manifest", "imagenet", "cifar10", "cifar100", "npz", "parquet", "digits", "recordings", "simulate"),
    *("hdf5", "shards"),
    *("finetune", "probe", "fuse", "distil", "baseline"),
    *("fit", "train", "softmax", "digest"),
}
COMMANDS = "cli"  # its functions are the commands and carry their names


def public_names(tree: ast.Module) -> Iterator[str]:
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
            yield node.name


def test_no_public_name_stands_in_two_modules() -> None:
    homes = defaultdict(set)
    for name, path in modules().items():
        if name.split(".")[0] != COMMANDS:
            for public in public_names(tree_of(path)):
                homes[public].add(name)
    assert {public: where for public, where in homes.items() if len(where) > 1} == {}


def test_public_functions_of_one_word_are_those_of_the_list() -> None:
    found = {
        node.name
        for name, path in modules().items()
        if name.split(".")[0] != COMMANDS
        for node in tree_of(path).body
        if isinstance(node, ast.FunctionDef) and "_" not in node.name
    }
    assert found <= ONE_WORD, f"give these a name of two words, or argue for a line in ONE_WORD: {sorted(found - ONE_WORD)}"
    assert found >= ONE_WORD, f"no longer there: {sorted(ONE_WORD - found)}"


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    yield from (n for n in ast.walk(tree) if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef)))


def test_most_functions_have_a_name_of_two_words() -> None:
    names = [f.name for path in modules().values() for f in functions(tree_of(path)) if not f.name.startswith("__")]
    assert sum("_" not in name.strip("_") for name in names) < 0.25 * len(names)


def test_files_functions_and_parameter_lists_stay_short() -> None:
    long = []
    for name, path in modules().items():
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > 350:
            long.append(f"{name} has {lines} lines, and a second idea wants a second file")
        for f in functions(tree_of(path)):
            if (lines := (f.end_lineno or 0) - f.lineno + 1) > 45:
                long.append(f"{name}.{f.name} has {lines} lines, more than 45")
            arguments = (*f.args.posonlyargs, *f.args.args, *f.args.kwonlyargs)
            if (parameters := len([a for a in arguments if a.arg not in ("self", "cls")])) > 8:
                long.append(f"{name}.{f.name} has {parameters} parameters, more than 8")
    assert not long, "\n".join(long)


def test_a_folder_has_at_most_twelve_modules() -> None:
    counts = Counter(path.parent for path in modules().values())
    assert {folder: count for folder, count in counts.items() if count > 12} == {}


# A module without a test of its own name, and whose test covers it.
COVERED_BY = {
    "core.storage.object_store": "data/stores/test_store_copy.py",
    "report.figures.exclusion_flow": "report/sections/study/test_exclusions.py",
    "report.figures.size_curves": "report/sections/training/test_data_size.py",
    "report.sections.training.tuned_values": "report/sections/training/test_data_size.py",
    "report.summary.data_size.size_curves": "report/sections/training/test_data_size.py",
    "study.records.learning_curve_record": "study/test_side_runs.py",
    "study.side_runs.tuned_run": "study/test_side_runs.py",
    "study.settings.side_specs": "study/test_side_runs.py",
    "study.variants.setting_effects": "study/test_side_runs.py",
    "study.variants.shares": "study/test_side_runs.py",
    "study.variants.tuning": "study/test_side_runs.py",
    "report.summary.shift.shift_results": "report/sections/predictions/test_under_shift.py",
    "report.figures.shift_curves": "report/sections/predictions/test_under_shift.py",
    "results.control_folder": "study/controls/test_control_folders.py",
    "study.records.table_record": "study/test_tables.py",
    "study.variants.multi_label_uses": "study/test_multi_label_study.py",
    "study.variants.imported_candidates": "test_import_command.py",
    "training.tables.check_table": "study/test_tables.py",
    "bundle_commands": "test_cli.py",
    "refit.evidence": "refit/test_refit.py",
    "refit.train_all": "refit/test_refit.py",
    "training.estimator_parts.picture_input": "training/test_estimator.py",
    "training.estimator_parts.saved_estimator": "training/test_estimator.py",
    "training.candidates.refit_record": "refit/test_refit.py",
    "study_parts": "test_cli.py",
    "starter.choices": "starter/test_first_study.py",
    "starter.first_look": "starter/test_first_study.py",
    "starter.recordings_list": "starter/test_first_study.py",
    "starter.study_text": "starter/test_first_study.py",
    "commands.init_command": "starter/test_first_study.py",
    "commands.json_shapes": "commands/test_json_documents.py",
    "commands.listing_commands": "test_cli.py",
    "commands.options": "test_cli.py",
    "commands.plan_command": "test_cli.py",
    "console": "test_cli.py",
    "core.errors": "test_cli.py",
    "data.leakage.checks": "data/leakage/test_audit.py",
    "data.leakage.near_duplicates": "data/leakage/test_audit.py",
    "data.sources.packed.cells": "data/sources/packed/test_parquet.py",
    "data.sources.packed.shard_patterns": "data/sources/packed/test_webdataset.py",
    "data.stores.shard_names": "data/sources/packed/test_webdataset.py",
    "data.recordings.bundle_view": "deploy/export/test_metadata.py",
    "data.splits.spec": "data/splits/test_protocol.py",
    "data.splits.splitters": "data/splits/test_protocol.py",
    "deploy.described_bundle": "deploy/test_predict.py",
    "deploy.predictions": "deploy/test_predict.py",
    "deploy.export.bundled_export": "deploy/test_engines.py",
    "deploy.explain.explained_parts": "deploy/explain/test_explanation.py",
    "models.heads": "models/test_fusion.py",
    "models.pretrained": "models/test_backbones.py",
    "training.candidates.entry": "training/candidates/test_candidate_entry.py",
    "training.solved_heads.problem": "training/solved_heads/test_logistic_regression.py",
    "training.solved_heads.solver": "training/solved_heads/test_logistic_regression.py",
    "report.figures.cost": "report/figures/test_comparison.py",
    "report.figures.predictions": "report/figures/test_comparison.py",
    "report.model_card": "report/test_parts.py",
    "report.render.document": "report/test_page.py",
    "report.render.font_subset": "report/figures/test_comparison.py",
    "report.render.section": "report/test_page.py",
    "report.render.svg": "report/figures/test_comparison.py",
    **{  # every table of every section is computed again, every title and file looked for on the page
        f"report.sections.{name}": "report/test_every_table.py"
        for name in (
            *("order", "candidates.cost", "candidates.leaderboard", "predictions.calibration", "predictions.classes"),
            *("predictions.confusion", "predictions.groups", "study.provenance", "training.distillation"),
            *("training.fusion", "training.trends"),
        )
    },
    "report.figures.clinical_curves": "report/sections/clinical/test_operating_points.py",
    "report.summary.clinical.subgroups": "report/sections/clinical/test_subgroup_tables.py",
    "report.summary.clinical.unseen_sites": "report/sections/clinical/test_unseen_sites.py",
    "report.summary.clinical.prior_shift": "report/sections/clinical/test_prior_table.py",
    "report.sections.clinical.levels": "report/sections/clinical/test_operating_points.py",
    "report.sections.clinical.positive_words": "report/test_clinical_sentences.py",
    "report.summary.clinical.collect": "report/sections/clinical/test_operating_points.py",
    "report.summary.clinical.model": "report/sections/clinical/test_operating_points.py",
    "results.clinical.spec": "study/variants/test_positive_uses.py",
    "report.sections.blind_metric": "report/test_one_estimand.py",
    "report.sections.candidate_values": "report/summary/test_collect.py",
    "report.sections.claim_sentences": "report/sections/test_published_figures.py",
    "report.sections.candidates.comparisons": "report/test_page.py",
    "report.sections.candidates.sweeps": "report/summary/test_collect.py",
    "report.sections.predictions.embedding": "report/test_page.py",
    "report.sections.predictions.leader_maps": "refit/test_leader_maps.py",
    "report.sections.predictions.mistakes": "report/test_page.py",
    "report.sections.training.learning_curves": "report/test_page.py",
    "report.comparison_sentences": "report/test_comparison_page.py",
    "report.study_pairing": "report/test_comparison_page.py",
    "report.summary.candidate_reader": "report/summary/test_collect.py",
    "report.summary.column_cache": "report/summary/test_collect.py",
    "report.summary.curves": "report/summary/test_collect.py",
    "report.summary.guessing": "report/test_noise.py",
    "report.summary.majority_class": "report/test_numbers.py",
    "report.summary.model": "report/summary/test_collect.py",
    "report.summary.report_input": "report/test_parts.py",
    "results.metrics.ranking": "results/metrics/test_registry.py",
    "results.metrics.sufficient_sums": "results/metrics/test_registry.py",
    "results.intervals.bootstrap": "results/intervals/test_bootstrap_intervals.py",
    "results.stats.optimism": "report/test_comparison_page.py",
    "results.intervals.resampling": "results/intervals/test_bootstrap_intervals.py",
    "signals.simulate": "signals/test_simulate_ecg.py",
    "study.plan": "study/test_compute.py",
    "study.variants.sweep": "study/test_spec.py",
    "study.records.convergence_record": "training/loop/test_convergence.py",
    "study.records.study_record": "study/test_worker.py",
    "study.records.thumbnails": "study/test_audit.py",
    "training.teacher_check": "training/test_distillation.py",
    "training.augmentation.randomness": "training/augmentation/test_pipeline.py",
}


def modules_in_test(file: Path) -> frozenset[str]:
    """The modules of the package that a test file imports, and those that its helpers and conftests import."""
    helpers = {p.stem: p for p in TESTS.rglob("*.py") if not p.stem.startswith(("test_", "conftest"))}
    files = {file, *(p / "conftest.py" for p in file.parents if TESTS in (p, *p.parents) and (p / "conftest.py").exists())}
    while more := {helpers[n] for f in files for n in map(first_word, imported_names(tree_of(f))) if n in helpers} - files:
        files |= more
    names = [name.removeprefix("phoropter.") for f in files for name in imported_names(tree_of(f))]
    return frozenset(m for m in MODULES if any(n == m or n.startswith(f"{m}.") for n in names))


def first_word(dotted: str) -> str:
    return dotted.partition(".")[0]


def reaches_module(file: Path, name: str) -> bool:
    """Whether a test file imports a module or what imports it; or, of a section of the page, names a table of it or its id."""
    imported = modules_in_test(file)
    if name in imported or any(name in imported_modules(m) for m in imported):
        return True
    constants = [n.value for n in ast.walk(tree_of(file)) if isinstance(n, ast.Constant)]
    calls = [n for n in ast.walk(tree_of(modules()[name])) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)]
    ids = {c.args[0].value for c in calls if c.func.id in ("Section", "Table") and c.args and isinstance(c.args[0], ast.Constant)}
    return name.startswith("report.sections.") and bool(ids & set(constants))


def test_the_test_of_a_module_is_found_by_its_name() -> None:
    wrong = []
    for name in MODULES:
        *rooms, module = name.split(".")
        own = TESTS.joinpath(*rooms) / f"test_{module}.py"
        if name not in COVERED_BY:
            if not own.exists():
                wrong.append(f"write {own.relative_to(TESTS)}, or say in COVERED_BY whose test covers {name}")
        elif own.exists():
            wrong.append(f"{own.name} exists: take {name} out of COVERED_BY")
        elif not reaches_module(TESTS / COVERED_BY[name], name):
            wrong.append(f"{COVERED_BY[name]} does not import {name}, nor name what it shows")
    assert not wrong, "\n".join(wrong)


# --- heavy packages ------------------------------------------------------------------------------------------------------------

TORCH_ROOMS = {"models", "training", "deploy", "refit"}
TORCH_FREE = {
    "models.spec",
    "models.catalog",
    "training.candidates",
    "training.augmentation.spec",
    "training.augmentation.custom_step",
    "training.selection.greedy_selection",
    "training.trained_on",
    "training.costs.inference_batch",
}
TORCH_ALSO = {
    *("study.worker", "study.compute", "study.records", "study.executors", "study.measuring"),
    "study.processes.gpu_places",
}
HEAVY = {"scipy", "sklearn", "pandas", "matplotlib", "pyarrow", "wfdb", "pyedflib", "pywt", "rich", "jinja2"}


def packages(names: Iterator[str]) -> set[str]:
    return {name.split(".")[0] for name in names}


def stands_in(name: str, rooms: set[str]) -> bool:
    return any(name == room or name.startswith(room + ".") for room in rooms)


def test_torch_stays_behind_its_doors() -> None:
    loaded = {name: packages(imported_names(tree_of(path))) for name, path in modules().items()}
    free = [m for m in MODULES if (first_word(m) not in TORCH_ROOMS or stands_in(m, TORCH_FREE)) and not stands_in(m, TORCH_ALSO)]
    assert [name for name in free if "torch" in loaded[name]] == []
    assert [name for name in MODULES if name != "models.timm_compat" and loaded[name] & {"torchvision", "timm"}] == []


def test_heavy_packages_are_imported_where_they_are_used() -> None:
    heavy = {}
    for name, path in modules().items():
        top = ast.Module([n for n in tree_of(path).body if isinstance(n, (ast.Import, ast.ImportFrom))], [])
        heavy[name] = packages(imported_names(top)) & HEAVY
    assert {name: found for name, found in heavy.items() if found} == {"training.estimator": {"sklearn"}}  # its base class


def loaded_after(code: str) -> set[str]:
    """The top-level modules a fresh interpreter holds after running this."""
    script = f"import sys\n{code}\nprint(*sorted({{m.split('.')[0] for m in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120)
    return set(done.stdout.splitlines()[-1].split())


def test_a_fresh_import_loads_nothing_heavy() -> None:
    assert not loaded_after("import phoropter, phoropter.cli") & (HEAVY | {"torch", "numpy", "pydantic"})


def test_planning_loads_no_torch(tmp_path: Path) -> None:
    code = (
        "from pathlib import Path; from phoropter.study.spec import read_study; from phoropter.study.plan import plan_study\n"
        f"assert len(plan_study(read_study('digits')[0], Path({str(tmp_path)!r})).runs) == 20"
    )
    assert not loaded_after(code) & {"torch", "torchvision", "timm"}


def test_public_names_are_what_the_package_shows() -> None:
    for name in phoropter.__all__:
        assert getattr(phoropter, name) is not None
    assert set(phoropter.__all__) <= set(dir(phoropter))
    with pytest.raises(AttributeError, match="no attribute 'Studdy'"):
        phoropter.Studdy  # noqa: B018
