"""A real Slurm of two nodes on this machine, for as long as a test needs it."""

import getpass
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipelines.engine.ports import free_port
from support.ends import wait_for
from support.launch import REPO, environment

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch")

CONFIGURATION = """
ClusterName=vtok
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
DefMemPerCPU=100
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=20
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/%n.log
NodeName=n1 NodeAddr=127.0.0.1 NodeHostname={host} Port={ports[1]} CPUs=8 RealMemory=4000
NodeName=n2 NodeAddr=127.0.0.1 NodeHostname={host} Port={ports[2]} CPUs=8 RealMemory=4000
PartitionName=all Nodes=n1,n2 Default=YES State=UP
"""


def is_installed() -> bool:
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    return all(shutil.which(program, path=path) for program in PROGRAMS)


@dataclass
class Slurm:
    """Its commands, run from the repository's root as a user would.

    Args:
        environment: of its commands and so of the jobs.
    """

    environment: dict[str, str]

    def run(self, *command) -> str:
        """A command's stdout; it has to succeed."""
        done = subprocess.run(
            list(map(str, command)), cwd=REPO, env=self.environment, timeout=60, text=True, capture_output=True
        )
        assert done.returncode == 0, (command, done.stderr)
        return done.stdout.strip()

    def submit(self, *arguments) -> str:
        """The id of a new job."""
        return self.run("sbatch", "--parsable", *arguments)

    def facts(self, job: str, name: str) -> list[str]:
        """One entry of ``scontrol show job``, such as ``JobState``, for each task of an array."""
        facts = self.run("scontrol", "show", "job", job).split()
        return [fact.partition("=")[2] for fact in facts if fact.startswith(f"{name}=")]

    def restart_now(self, job: str) -> None:
        """Let a job that is queued again begin soon, not in the two minutes that Slurm leaves it.

        Not at once either: within a second of its end the nodes would still refuse its number.
        """
        wait_for(lambda: self.facts(job, "JobState") == ["PENDING"], 120)
        self.run("scontrol", "update", f"JobId={job}", "StartTime=now+3")

    def wait(self, job: str, seconds: float) -> set[tuple[str, str]]:
        """The states and exit codes in which a job's tasks have ended; they are given so many seconds."""
        running = {"PENDING", "CONFIGURING", "RUNNING", "COMPLETING", "REQUEUED"}
        wait_for(lambda: not running & set(self.facts(job, "JobState")), seconds)
        return set(zip(self.facts(job, "JobState"), self.facts(job, "ExitCode")))


@contextmanager
def two_nodes() -> Iterator[Slurm]:
    """A controller, two nodes and their authentication, on ports and sockets of their own."""
    # Not pytest's folder: the name of a socket may be at most 107 bytes long.
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))
    daemons: list[subprocess.Popen] = []
    surroundings = environment(SLURM_CONF=str(folder / "slurm.conf"), PATH=f"{environment()['PATH']}:/usr/sbin")
    slurm = Slurm(surroundings)

    def start(*command):
        log = (folder / "daemons.log").open("a")
        daemons.append(subprocess.Popen(command, env=surroundings, stdout=log, stderr=log))

    try:
        write_configuration(folder)
        munge = ("socket", "pid-file", "log-file", "seed-file")
        start(
            "munged", "--foreground", "--force", f"--key-file={folder}/munge.key",
            *(f"--{name}={folder}/munge.{name.removesuffix('-file')}" for name in munge),
        )  # fmt: skip
        wait_for((folder / "munge.socket").exists)
        start("slurmctld", "-D", "-c")
        start("slurmd", "-D", "-N", "n1")
        start("slurmd", "-D", "-N", "n2")
        idle = ("sinfo", "--noheader", "--Node", "--format=%T")
        wait_for(lambda: _answer(slurm, *idle) == ["idle", "idle"], 60)
        yield slurm
        slurm.run("scancel", "--user", getpass.getuser())
        wait_for(lambda: not slurm.run("squeue", "--noheader"), 60)
    except BaseException:
        for log in sorted(folder.glob("*.log")):
            print(f"--- {log.name}\n{log.read_text(errors='replace')[-2000:]}")
        raise
    finally:
        for daemon in reversed(daemons):
            daemon.terminate()
            try:
                daemon.wait(20)
            except subprocess.TimeoutExpired:
                daemon.kill()
        shutil.rmtree(folder, ignore_errors=True)


def write_configuration(folder: Path) -> None:
    (folder / "state").mkdir()
    key = folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o400)
    configuration = CONFIGURATION.format(
        host=socket.gethostname(), user=getpass.getuser(), folder=folder, ports=[free_port() for _ in range(3)]
    )
    (folder / "slurm.conf").write_text(configuration)


def _answer(slurm: Slurm, *command) -> list[str]:
    """A command's lines; none while there is nobody to answer it."""
    try:
        return slurm.run(*command).split()
    except AssertionError:
        return []
