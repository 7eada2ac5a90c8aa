"""No planted identifier of a DICOM folder is found in anything that phoropter writes or prints, from inspect to predict."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from phoropter.cli import main

pytest.importorskip("pydicom")

STUDY = """\
name: chest
data: {folder: exported, size: 32, on_bad_input: skip}
protocol: {split: group-k-fold, folds: 2}
save_models: all
recipe: {preset: probe, epochs: 1}
candidates:
  - {name: cnn, backbone: test_resnet, weights: random, frozen: true}
  - {name: whole, backbone: test_resnet, weights: random, recipe: {preset: scratch, epochs: 1}}
"""
PLANTED = ("QWNAME", "QWGIVEN", "QWIDENT", "19481231", "QWPLACE", "QWDOCTOR", "QWFILE", "QWACCESS", "QWADDRESS", "1.2.826.77")


def plant(root: Path, write_dicom: Callable[..., Path]) -> None:
    for row in range(12):
        patient = row % 6
        write_dicom(
            root / ("ill" if row < 6 else "well") / f"QWFILE{row}_QWNAME.dcm",
            np.random.default_rng(row).integers(0, 256, (40, 40), dtype=np.uint8),
            PatientID=f"QWIDENT{patient}",
            PatientName=f"QWNAME{patient}^QWGIVEN",
            PatientBirthDate="19481231",
            PatientAddress="QWADDRESS 7",
            InstitutionName=f"QWPLACE{patient % 2}",
            ReferringPhysicianName="QWDOCTOR",
            AccessionNumber=f"QWACCESS{row}",
            StudyInstanceUID=f"1.2.826.77.{patient}",
            BurnedInAnnotation="YES" if row == 0 else "NO",
        )
    damaged = bytearray((root / "ill" / "QWFILE1_QWNAME.dcm").read_bytes())
    (root / "ill" / "QWFILE90_QWNAME.dcm").write_bytes(bytes(damaged[:-900]))
    (root / "ill" / "QWFILE91_QWNAME.dcm").write_bytes(bytes(128) + b"DICM" + b"QWNAME" * 9)
    (root / "QWFILE_report.txt").write_text("QWNAME")


def planted_words(content: bytes) -> list[str]:
    """Which planted words stand in it, in any of the encodings that files are written in."""
    lower = content.lower()
    return [w for w in PLANTED if any(w.lower().encode(code) in lower for code in ("utf-8", "utf-16-le", "utf-32-le"))]


def test_nothing_that_is_written_names_a_patient(
    tmp_path: Path, write_dicom: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PHOROPTER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("phoropter.data.sources.file_hashes.SETTLED_S", -1.0)  # so that files made now are remembered
    (tmp_path / "study.yaml").write_text(STUDY)
    root, out = tmp_path / "exported", tmp_path / "out"
    plant(root, write_dicom)
    printed = ""
    for arguments in (
        ["inspect", root],
        ["plan", tmp_path / "study.yaml", "-o", out],
        ["run", tmp_path / "study.yaml", "-o", out, "--device", "cpu"],
        ["status", out],
        ["report", out],
        ["folds", tmp_path / "study.yaml", "-o", tmp_path / "folds.csv"],
    ):
        result = CliRunner().invoke(main, [str(a) for a in arguments], catch_exceptions=False)
        printed += result.output
        assert result.exit_code == 0, result.output
    (bundle, *_) = sorted(path.parent for path in out.rglob("bundle.json"))
    predicted = CliRunner().invoke(
        main, ["predict", str(bundle), str(root), "-o", str(tmp_path / "p.csv"), "--on-bad-input", "skip"], catch_exceptions=False
    )
    assert predicted.exit_code == 0, predicted.output
    page = (out / "report" / "index.html").read_text()
    assert "text is burnt into their pixels" in printed and "text is burnt into their pixels" in page and "patient-000" in page
    assert (tmp_path / "p.csv").read_text().count("image-") == 12
    written = [path for path in tmp_path.rglob("*") if path.is_file() and not path.is_relative_to(root)]
    assert len(written) > 30 and planted_words((root / "ill" / "QWFILE0_QWNAME.dcm").read_bytes())
    assert {path.name: words for path in written if (words := planted_words(path.read_bytes() + path.name.encode()))} == {}
    assert planted_words((printed + predicted.output).encode()) == []
