"""Jobs as SLURM gets them: made commands `sbatch` and `srun` run what submitit writes; a job that must end is queued again."""

from __future__ import annotations

import os
import re
import stat
import sys
import threading
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from phoropter.cli import main
from phoropter.core.errors import MissingExtraError, RunError, SpecError
from phoropter.operations.slurm_jobs import JobShare, StudyJob, submit_study

MADE_SBATCH = """#!/bin/sh
cp "$1" "$SEEN/sbatch-script"
echo "Submitted batch job 77"
"""


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose sbatch keeps the script that it is given."""
    pytest.importorskip("submitit", reason="submitit is not installed: pip install 'phoropter[slurm]'")
    for name, text in (("sbatch", MADE_SBATCH), ("srun", "#!/bin/sh\nexit 1\n")):
        (tmp_path / "bin").mkdir(exist_ok=True)
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("SEEN", str(tmp_path))
    return tmp_path


def test_a_study_becomes_an_array_of_jobs(cluster: Path) -> None:
    (cluster / "small.yaml").write_text(
        "name: small\ndata: {digits: true}\nprotocol: {split: stratified-k-fold, folds: 2}\ncandidates: [resnet18]\n"
    )
    arguments = ["submit", "small.yaml", "-o", str(cluster / "out"), "--workers", "3", "--minutes", "90", "--cpus", "4"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(cluster)
        done = CliRunner().invoke(main, [*arguments, "--gpus", "2", "--partition", "long"], catch_exceptions=False)
    assert done.exit_code == 0 and "77_0, 77_1, 77_2;" in done.output
    script = (cluster / "sbatch-script").read_text()
    flags = dict(re.findall(r"#SBATCH --([\w-]+)=(\S+)", script))
    assert flags["array"] == "0-2%3" and flags["time"] == "90" and flags["cpus-per-task"] == "4"
    assert flags["gpus-per-node"] == "2" and flags["partition"] == "long"
    import submitit

    job = submitit.core.utils.DelayedSubmission.load(next((cluster / "out" / "jobs").glob("77_0_submitted.pkl"))).function
    assert isinstance(job, StudyJob) and job.folder == cluster
    assert job.arguments == ["run", "small.yaml", "-o", str(cluster / "out"), "--devices", "all"]


def test_a_job_that_must_end_stops_its_command_and_is_queued_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("submitit", reason="submitit is not installed: pip install 'phoropter[slurm]'")
    script = tmp_path / "phoropter.py"  # found before the package, as the folder of the job is the first place
    script.write_text(
        "import signal, sys, time\nfrom pathlib import Path\n"
        "def leave(*_):\n    Path('left').touch()\n    sys.exit(143)\n"
        "signal.signal(signal.SIGTERM, leave)\nPath('began').write_text(' '.join(sys.argv[1:]))\ntime.sleep(100)\n"
    )
    job, ended = StudyJob(["run", "x"], tmp_path), list[BaseException]()

    def call_job() -> None:
        try:
            job()
        except RunError as error:
            ended.append(error)

    thread = threading.Thread(target=call_job)
    thread.start()
    deadline = time.monotonic() + 60
    while not (tmp_path / "began").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    again = job.checkpoint()
    thread.join(60)
    assert (tmp_path / "left").exists() and "exit code 143" in str(ended[0])
    assert again.function.arguments == ["run", "x"] and again.function.process is None


def test_a_job_ends_as_its_command(tmp_path: Path) -> None:
    (tmp_path / "phoropter.py").write_text("import sys\nsys.exit(int(sys.argv[1]))\n")
    assert StudyJob(["0"], tmp_path)() == 0 and StudyJob(["1"], tmp_path)() == 1
    with pytest.raises(RunError, match="phoropter 2 ended with exit code 2"):
        StudyJob(["2"], tmp_path)()


def test_refusals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("submitit", reason="submitit is not installed: pip install 'phoropter[slurm]'")
    with pytest.raises(SpecError, match="--executor local shares this machine"):
        submit_study(["run", "x"], tmp_path, JobShare(gpus=1), "local")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RunError, match="srun"):
        submit_study(["run", "x"], tmp_path, JobShare())
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(MissingExtraError, match=r"phoropter\[slurm\]"):
        submit_study(["run", "x"], tmp_path, JobShare())


def test_a_mirror_of_a_store_is_refused(cluster: Path) -> None:
    (cluster / "small.yaml").write_text(
        "name: small\ndata: {digits: true}\nprotocol: {split: stratified-k-fold, folds: 2}\ncandidates: [resnet18]\n"
    )
    (cluster / "out").mkdir()
    (cluster / "out" / "remote.json").write_text('{"url": "s3://bucket/study", "can_claim": true}')
    refused = CliRunner().invoke(main, ["submit", str(cluster / "small.yaml"), "-o", str(cluster / "out")])
    assert refused.exit_code == 2 and "-o must be a folder that all machines see" in refused.output
