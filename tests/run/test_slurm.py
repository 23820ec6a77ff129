"""slurm/*.sh on a real Slurm of two nodes: to the end, stopped and queued again, a rank killed, an array build."""

import os
import shlex
import time
from pathlib import Path
from signal import SIGKILL

import pytest

from pipelines.engine.ports import free_port
from support import runs, slurm
from support.ends import wait_for
from support.launch import REPO

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not slurm.is_installed(), reason="needs Slurm: apt-get install slurm-wlm munge"),
]
STEPS = 8


@pytest.fixture(scope="module")
def cluster():
    with slurm.two_nodes() as cluster:
        yield cluster


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return runs.make_shards(tmp_path_factory.mktemp("data"))


def submit(cluster, shards, output, every=1000, flags=()):
    """A training job of one rank on each of two nodes; what it prints goes to OUTPUT.txt."""
    options = runs.options(shards, output, STEPS, every)
    job = ("--nodes", 2, *flags, "--output", f"{output}.txt", "slurm/train.sh", runs.CONFIG, runs.DS_CONFIG)
    return cluster.submit(*job, *options)


@pytest.fixture(scope="module")
def undisturbed(cluster, shards, tmp_path_factory):
    output = tmp_path_factory.mktemp("undisturbed") / "out"
    assert cluster.wait(submit(cluster, shards, output), 300) == {("COMPLETED", "0:0")}
    return runs.without_rates(runs.log_of(output))


def test_a_job_of_two_nodes_trains_to_its_end(undisturbed):
    assert [line["step"] for line in undisturbed] == list(range(1, STEPS + 1))


@pytest.mark.long
def test_a_task_has_eight_cores_and_its_nodes_memory_unless_flags_say_otherwise(cluster, shards, tmp_path):
    """A task that asked for nothing would have one core and 100 MB here (``DefMemPerCPU``)."""
    for flags, cores, memory in (((), 8, 4000), (("--cpus-per-task", 3, "--mem", 2000), 3, 2000)):
        output = tmp_path / f"{cores} cores"
        job = submit(cluster, shards, output, flags=("--export", "ALL,OMP_NUM_THREADS=", *flags))
        wait_for(lambda: len(runs.ranks(output)) == 2, 300)
        assert cluster.facts(job, "NumCPUs") == [str(2 * cores)]
        assert f" AllocMem={memory} " in cluster.run("scontrol", "show", "node", "n1")
        assert f" CPUs={2 * cores} " in cluster.run("scontrol", "show", "step", f"{job}.0")
        assert {rank.environ()["OMP_NUM_THREADS"] for rank in runs.ranks(output).values()} == {str(cores)}
        cluster.run("scancel", job)
        cluster.wait(job, 60)


@pytest.mark.long
def test_usr1_saves_and_the_job_is_queued_again_and_goes_on(cluster, shards, undisturbed, tmp_path):
    output = tmp_path / "out"
    job = submit(cluster, shards, output)
    wait_for(lambda: runs.steps_done(output) >= 3, 300)
    cluster.run("scancel", "--signal=USR1", job)
    cluster.restart_now(job)
    saved = [marker.parent.name for marker in output.glob("checkpoints/*/COMPLETE")]
    assert saved == [f"step_{runs.steps_done(output):08d}"] and runs.steps_done(output) < STEPS
    assert cluster.wait(job, 300) == {("COMPLETED", "0:0")}
    assert cluster.facts(job, "Restarts") == ["1"]
    assert runs.without_rates(runs.log_of(output)) == undisturbed


def test_a_killed_rank_ends_the_job_at_once_and_it_is_queued_again_and_goes_on(cluster, shards, undisturbed, tmp_path):
    output = tmp_path / "out"
    job = submit(cluster, shards, output, every=3)
    wait_for(lambda: runs.steps_done(output) >= 4, 300)
    killed = time.monotonic()
    os.kill(runs.ranks(output)[1].pid, SIGKILL)
    cluster.restart_now(job)
    assert time.monotonic() - killed < 60 and runs.steps_done(output) < STEPS
    assert cluster.wait(job, 300) == {("COMPLETED", "0:0")}
    assert cluster.facts(job, "Restarts") == ["1"]
    assert "restart 1 of at most 3 after" in Path(f"{output}.txt").read_text()
    assert runs.without_rates(runs.log_of(output)) == undisturbed


@pytest.mark.parametrize("wrong", [("--nonsense", 1), ("--train.lr", "fast"), ("--data_root", "missing")])
def test_an_error_of_the_user_ends_the_job_with_2_though_srun_ends_the_slower_rank(cluster, shards, tmp_path, wrong):
    """srun's code is the highest of all, so it was 143, and the job was queued again three times."""
    slower = "import os, time; time.sleep(20 if os.environ.get('SLURM_PROCID') == '1' else 0)"
    (tmp_path / "sitecustomize.py").write_text(slower)
    output = tmp_path / "out"
    job = cluster.submit(
        "--nodes", 2, "--export", f"ALL,PYTHONPATH={tmp_path}:{REPO}", "--output", f"{output}.txt", "slurm/train.sh",
        runs.CONFIG, runs.DS_CONFIG, *runs.options(shards, output, STEPS, 1000), *wrong,
    )  # fmt: skip
    assert cluster.wait(job, 120) == {("FAILED", "2:0")}
    assert "restart" not in Path(f"{output}.txt").read_text() and not output.exists()
    assert not list(REPO.glob("slurm-*.user_error"))


@pytest.mark.long
def test_srun_without_the_script_needs_an_address_unless_it_has_one_task(cluster, shards, undisturbed, tmp_path):
    """Without one, each task once trained for itself."""

    def trained(output, *flags, before=""):
        words = ["python", "pipelines/train.py", "--config", runs.CONFIG, "--ds_config", runs.DS_CONFIG]
        command = shlex.join(map(str, (*words, *runs.options(shards, output, STEPS, 1000))))
        wrap = f"{before} srun {command}"
        job = cluster.submit("--cpus-per-task", 2, *flags, "--output", f"{output}.txt", "--wrap", wrap)
        return cluster.wait(job, 300)

    bare, addressed, alone = (tmp_path / name for name in ("bare", "addressed", "alone"))
    assert trained(bare, "--nodes", 2) == {("FAILED", "2:0")} and not bare.exists()
    assert "this is task 0 of 2 of srun, but MASTER_ADDR and MASTER_PORT" in Path(f"{bare}.txt").read_text()
    address = f"export MASTER_ADDR=127.0.0.1 MASTER_PORT={free_port()};"
    assert trained(addressed, "--nodes", 2, before=address) == {("COMPLETED", "0:0")}
    assert runs.without_rates(runs.log_of(addressed)) == undisturbed
    assert trained(alone, "--ntasks", 1) == {("COMPLETED", "0:0")} and len(runs.log_of(alone)) == STEPS


@pytest.mark.long
def test_an_array_builds_the_same_shards(cluster, shards, tmp_path):
    built = tmp_path / "shards"
    command = ("slurm/build_shards.sh", shards.parent / "clips", "--output", built, "--samples-per-shard", 5)
    job = cluster.submit("--array", "3-5", "--output", tmp_path / "%a.txt", *command)
    assert cluster.wait(job, 120) == {("COMPLETED", "0:0")}
    names = sorted(path.name for path in shards.glob("*.tar"))
    assert len(names) > 3 and (built / "manifest.json").exists()
    for name in names:
        assert (built / name).read_bytes() == (shards / name).read_bytes()
