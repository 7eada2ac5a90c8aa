"""A SLURM of one node on loopback, for tests: Debian's slurm-wlm, installed, or its packages unpacked by `dpkg -x` into a folder.

PHOROPTER_SLURM_ROOT names that folder. Nothing of it needs root, munge or a control group; nothing stays behind.
"""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

CONFIGURATION = """\
ClusterName=one
SlurmctldHost=localhost(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/none
AuthInfo=cred_expire=5
CredType=cred/none
{plugins}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
SwitchType=switch/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
NodeName=localhost NodeAddr=127.0.0.1 CPUs={cpus} State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""  # a job that is queued again waits until its credential expires, 120 s where cred_expire is not said


@contextmanager
def serve_slurm(folder: Path) -> Iterator[dict[str, str]]:
    """Yields the variables with which `sbatch` and its kin find a node that is idle. Skips the test where SLURM is not there."""
    root = Path(os.environ.get("PHOROPTER_SLURM_ROOT", "/"))
    libraries = root / "usr" / "lib" / "x86_64-linux-gnu"
    places = [str(root / "usr" / "bin"), str(root / "usr" / "sbin"), os.environ["PATH"]]
    environment = {"PATH": os.pathsep.join(places), "SLURM_CONF": str(folder / "slurm.conf")}
    controller, node, step = (_find_program(name, environment["PATH"]) for name in ("slurmctld", "slurmd", "slurmstepd"))
    if root != Path("/"):
        environment["LD_LIBRARY_PATH"] = f"{libraries}{os.pathsep}{libraries / 'slurm-wlm'}"
    plugins = "" if root == Path("/") else f"PluginDir={libraries / 'slurm-wlm'}"
    for name in ("state", "spool"):
        (folder / name).mkdir(parents=True)
    (folder / "slurm.conf").write_text(
        CONFIGURATION.format(user=getpass.getuser(), folder=folder, plugins=plugins, ports=_free_ports(), cpus=os.cpu_count())
    )
    with ExitStack() as stack:
        for command in ([controller, "-D"], [node, "-D", "-N", "localhost", "-d", step]):
            stack.enter_context(_run_daemon(command, environment, folder))
        deadline = time.monotonic() + 60
        while ask_slurm(["sinfo", "-h", "-o", "%t"], environment) != "idle":
            assert time.monotonic() < deadline, [log.read_text()[-2000:] for log in folder.glob("*.log")]
            time.sleep(0.2)
        yield environment


def ask_slurm(command: list[str], environment: dict[str, str]) -> str:
    """What a command of SLURM prints."""
    found = {**os.environ, **environment}
    done = subprocess.run(command, env=found, capture_output=True, text=True, check=False)
    return done.stdout.strip()


@contextmanager
def _run_daemon(command: list[str], environment: dict[str, str], folder: Path) -> Iterator[None]:
    with (folder / f"{Path(command[0]).name}.out").open("w") as log:
        daemon = subprocess.Popen(command, env={**os.environ, **environment}, stdout=log, stderr=log)
    try:
        yield
    finally:
        daemon.terminate()
        try:
            daemon.wait(20)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()


def _find_program(name: str, path: str) -> str:
    found = shutil.which(name, path=path) or shutil.which(f"{name}-wlm", path=path)
    if found is None:
        pytest.skip(f"SLURM is not installed: there is no {name}; apt-get install slurm-wlm, or PHOROPTER_SLURM_ROOT")
    return found


def _free_ports() -> list[int]:
    with socket.socket() as one, socket.socket() as other:
        for probe in (one, other):
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in (one, other)]
