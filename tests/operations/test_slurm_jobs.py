"""Jobs as SLURM gets them: made commands `sbatch` and `srun` keep what submitit writes; a job that must end is queued again.

The nightly test asks a real SLURM of one node (slurm_node.py).
"""

from __future__ import annotations

import os
import re
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest
from click.testing import CliRunner

from phoropter.cli import main
from phoropter.core.errors import MissingExtraError, RunError, SpecError
from phoropter.operations import slurm_jobs
from phoropter.operations.slurm_jobs import JobShare, StudyJob, submit_study
from phoropter.results.store import Store
from slurm_node import ask_slurm, serve_slurm
from warm_python import WarmPython

MADE_SBATCH = """#!/bin/sh
cp "$1" "$SEEN/sbatch-script"
echo "Submitted batch job 77"
"""

DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('here', flush=True); time.sleep(100)"


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
        done = CliRunner().invoke(main, [*arguments, "--gpus", "2", "--partition", "long", "--add"], catch_exceptions=False)
    assert done.exit_code == 0 and "77_0, 77_1, 77_2;" in done.output
    script = (cluster / "sbatch-script").read_text()
    flags = dict(re.findall(r"#SBATCH --([\w-]+)=(\S+)", script))
    assert flags["array"] == "0-2%3" and flags["time"] == "90" and flags["cpus-per-task"] == "4"
    assert flags["gpus-per-node"] == "2" and flags["partition"] == "long"
    import submitit

    job = submitit.core.utils.DelayedSubmission.load(next((cluster / "out" / "jobs").glob("77_0_submitted.pkl"))).function
    assert isinstance(job, StudyJob) and job.folder == cluster
    assert job.arguments == ["run", "small.yaml", "-o", str(cluster / "out"), "--add", "--devices", "all"]


def test_a_job_that_must_end_stops_its_command_and_is_queued_again(tmp_path: Path) -> None:
    """As submitit does it: the signal is handled while the job waits for its command, and all processes of the job get it."""
    pytest.importorskip("submitit", reason="submitit is not installed: pip install 'phoropter[slurm]'")
    (tmp_path / "phoropter.py").write_text(  # found before the package, as the folder of the job is the first place
        "import signal, sys, time\nfrom pathlib import Path\n"
        "def leave(*_):\n    Path('left').touch()\n    sys.exit(143)\n"
        "signal.signal(signal.SIGTERM, leave)\nPath('began').write_text(' '.join(sys.argv[1:]))\ntime.sleep(100)\n"
    )
    job, again = StudyJob(["run", "x"], tmp_path), []

    def warn_job() -> None:
        wait_until((tmp_path / "began").exists, 60)
        for process in (job.process.pid if job.process else 0, os.getpid()):
            os.kill(process, signal.SIGUSR2)

    def end_job(*_: object) -> NoReturn:
        again.append(job.checkpoint())
        raise SystemExit(255)

    before = signal.signal(signal.SIGUSR2, end_job)
    thread = threading.Thread(target=warn_job)
    try:
        thread.start()
        with pytest.raises(SystemExit):
            job()
    finally:
        signal.signal(signal.SIGUSR2, before)
    thread.join(60)
    assert (tmp_path / "left").exists() and job.process is not None and job.process.wait(10) == 143
    assert again[0].function.arguments == ["run", "x"] and again[0].function.process is None


def test_a_command_that_does_not_leave_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("submitit", reason="submitit is not installed: pip install 'phoropter[slurm]'")
    monkeypatch.setattr(slurm_jobs, "LEAVE_S", 0.2)
    job = StudyJob(["run", "x"], tmp_path)
    job.process = subprocess.Popen([sys.executable, "-c", DEAF], stdout=subprocess.PIPE)
    assert job.process.stdout is not None and job.process.stdout.readline() == b"here\n"
    job.checkpoint()
    assert job.process.wait(10) == -signal.SIGKILL
    job.process.stdout.close()


STUDY = """\
name: small
data: {digits: true, size: 32, max_samples: 120}
protocol: {split: hold-out, seeds: [0]}
recipe: {preset: scratch, epochs: 300, lr: 0.01}
candidates: [{backbone: test_resnet, weights: random}]
"""


@pytest.fixture
def slurm(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The variables of a real SLURM of one node, and a study in the folder of the test."""
    pytest.importorskip("submitit", reason="submitit is not installed: pip install 'phoropter[slurm]'")
    (tmp_path / "small.yaml").write_text(STUDY)
    with serve_slurm(tmp_path / "slurm") as found:
        yield {"PHOROPTER_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1", **found}


def list_files(folder: Path, name: str) -> list[Path]:
    return list(folder.rglob(name))


@pytest.mark.nightly
@pytest.mark.timeout(600)
@pytest.mark.parametrize("ask", [["scancel", "--signal=USR2"], ["scontrol", "requeue"]], ids=["warned", "requeued"])
def test_a_real_slurm_queues_a_job_again_that_must_end(
    slurm: dict[str, str], tmp_path: Path, warm: WarmPython, ask: list[str]
) -> None:
    """A job that is warned before a time limit, and one that SLURM takes back without a warning, go on from their checkpoints."""
    out = tmp_path / "out"
    submitted = warm.run_command_line(["submit", "small.yaml", "-o", "out"], tmp_path, slurm)
    assert submitted.wait(60) == 0, submitted.read_log()
    wait_until(lambda: bool(list_files(out, "now.json")), 120)
    ask_slurm([*ask, ask_slurm(["squeue", "-h", "-o", "%A"], slurm)], slurm)
    wait_until(lambda: bool(list_files(out, "checkpoint.pt")), 60)
    wait_until(lambda: not ask_slurm(["squeue", "-h"], slurm), 240)
    (run,) = Store(out).runs()
    logs = read_logs(out / "jobs")
    assert logs.count("Starting with JobEnvironment") == 2 and ("Requeued job" in logs) == (ask[0] == "scancel")
    assert len(run.history) == 300


@pytest.mark.nightly
@pytest.mark.timeout(600)
def test_the_line_for_sbatch_in_the_docs_warns_the_command(slurm: dict[str, str], tmp_path: Path, warm: WarmPython) -> None:
    """A minute before a limit of two; the study would last for hours."""
    (tmp_path / "small.yaml").write_text(STUDY.replace("300", "1000000"))
    page = (Path(__file__).parents[2] / "docs" / "scale.md").read_text()
    (warning,) = re.findall(r"--signal=\S+", page)
    command = f"exec {sys.executable} -m phoropter run {tmp_path / 'small.yaml'} -o {tmp_path / 'out'}"
    log = tmp_path / "job.log"
    ask_slurm(["sbatch", warning, "--time=2", f"--output={log}", f"--wrap={command}"], slurm)
    wait_until(lambda: not ask_slurm(["squeue", "-h"], slurm), 200)
    assert "stopped by SIGTERM" in log.read_text() and "TIME LIMIT" not in log.read_text()
    assert list_files(tmp_path / "out", "checkpoint.pt")


def wait_until(holds: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def read_logs(jobs: Path) -> str:
    return "".join(log.read_text() for log in sorted(jobs.glob("*_log.*")))


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
