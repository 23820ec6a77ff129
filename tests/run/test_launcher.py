"""What a launcher tells of a rank, by torchrun's, Slurm's or Open MPI's variables; a fault in them is one line."""

import pytest

from pipelines import finetune, generate, train
from pipelines.cli import launcher
from pipelines.cli.launcher import launch_of, ranks_of_machine, rendezvous
from pipelines.engine import distributed
from support.commands import called, environment_of
from support.launch import assert_user_error, environment, python
from vtok.config import ConfigError

TORCHRUN = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}
SRUN = {"SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "1", "SLURM_LOCALID": "1"}
MPIRUN = {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_LOCAL_RANK": "1"}
MPIEXEC = {"PMI_SIZE": "2", "PMI_RANK": "1", "MPI_LOCALRANKID": "1"}
OF_DAEMONS = {"SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "3", "SLURM_LOCALID": "0"}
OF_PMI2 = {"PMI_SIZE": "2", "PMI_RANK": "1"}
PLACE = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}


@pytest.mark.parametrize(
    "own",
    [
        TORCHRUN, SRUN | PLACE, MPIRUN | PLACE, SRUN | MPIRUN | PLACE, SRUN | {"RANK": ""} | PLACE, MPIEXEC | PLACE,
        OF_DAEMONS | MPIEXEC | PLACE, SRUN | OF_PMI2 | PLACE,
    ],
)  # fmt: skip
def test_each_launcher_s_variables_give_torchrun_s(own):
    assert launch_of(own)[:3] == (1, 2, 1) and rendezvous(own) == TORCHRUN


@pytest.mark.parametrize(
    "own",
    [
        {},
        {"RANK": "", "WORLD_SIZE": ""},
        {"WORLD_SIZE": "1"},
        SRUN | {"SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"},
        {"SLURM_STEP_NUM_TASKS": "1"},
        {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "4", "SLURM_PROCID": "0"},  # of a batch script
        {"RANK": "0", "WORLD_SIZE": "1"},
        {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "no.such.machine.invalid", "MASTER_PORT": "x"},
    ],
)
def test_a_rank_alone_needs_nobody_s_address(own):
    assert launch_of(own)[:2] == (0, 1) and distributed.meets_nobody(own)
    assert distributed.is_launched(own) == bool(own.get("RANK"))


@pytest.mark.parametrize(
    "own, message",
    [
        ({"RANK": "0"}, "RANK is 0, but WORLD_SIZE is not set: start it with deepspeed, torchrun or slurm/train.sh"),
        ({"RANK": "0", "WORLD_SIZE": ""}, "WORLD_SIZE is not set"),
        ({"WORLD_SIZE": "2"}, "WORLD_SIZE is 2, but RANK is not set"),
        ({"RANK": "abc", "WORLD_SIZE": "1"}, "RANK is 'abc', but must be a whole number of at least 0"),
        ({"RANK": "-1", "WORLD_SIZE": "2"}, "RANK is '-1', but must be a whole number"),
        ({"RANK": "0", "WORLD_SIZE": "0"}, "WORLD_SIZE is '0', but must be a whole number of at least 1"),
        ({"RANK": "2", "WORLD_SIZE": "2"}, "RANK is 2, but WORLD_SIZE is 2: ranks are counted from 0"),
        (TORCHRUN | {"LOCAL_RANK": "x"}, "LOCAL_RANK is 'x'"),
        (TORCHRUN | {"LOCAL_RANK": ""}, "this is rank 1 of 2, but LOCAL_RANK is not set"),
        (TORCHRUN | {"MASTER_ADDR": ""}, "this is rank 1 of 2, but MASTER_ADDR is not set: start it with"),
        (TORCHRUN | {"MASTER_PORT": "abc"}, "MASTER_PORT is 'abc', but must be a whole number from 1 to 65535"),
        (TORCHRUN | {"MASTER_PORT": "99999"}, "MASTER_PORT is '99999', but must be"),
        (TORCHRUN | {"MASTER_ADDR": "no.such.machine.invalid"}, "MASTER_ADDR is no.such.machine.invalid, which this"),
        (TORCHRUN | {"MASTER_ADDR": "a" * 70}, "which this machine does not find"),
        (SRUN, "this is task 1 of 2 of srun, but MASTER_ADDR and MASTER_PORT are not set: use slurm/train.sh"),
        ({"SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "0"}, "SLURM_STEP_NUM_TASKS is 2, but SLURM_LOCALID is not set"),
        ({"SLURM_STEP_NUM_TASKS": "2", "SLURM_LOCALID": "0"}, "but SLURM_PROCID is not set"),
        ({"SLURM_STEP_NUM_TASKS": "two"}, "SLURM_STEP_NUM_TASKS is 'two'"),
        (MPIRUN, "this is task 1 of 2 of mpirun, but MASTER_ADDR"),
    ],
)
def test_what_is_missing_or_odd_is_named(own, message, monkeypatch):
    monkeypatch.setattr(launcher, "NAME_PATIENCE", 0.0)
    with pytest.raises(ConfigError) as refused:
        rendezvous(own)
    assert message in str(refused.value) and "\n" not in str(refused.value)


def test_the_ranks_of_a_machine_are_those_of_its_launcher():
    assert ranks_of_machine({}) == 1 and ranks_of_machine({"LOCAL_WORLD_SIZE": "4", "SLURM_NTASKS_PER_NODE": "1"}) == 4
    assert ranks_of_machine({"SLURM_STEP_TASKS_PER_NODE": "4(x12),3"}) == 4
    assert ranks_of_machine({"SLURM_STEP_TASKS_PER_NODE": "12"}) == 12


def test_a_bare_srun_of_several_tasks_trains_nothing(tmp_path):
    """Once each task trained for itself, without a word."""
    command = ("pipelines/train.py", "--config", "pipelines/configs/tiny.yaml", "--output", tmp_path / "out")
    assert_user_error(
        python(*command, **SRUN), "vtok-train: error: rank 1: this is task 1 of 2 of srun, but MASTER_ADDR"
    )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("main, program", [(train.main, "vtok-train"), (generate.main, "generate")])
def test_every_command_reads_them_before_its_arguments(main, program):
    for own, message in (({"RANK": "0"}, "WORLD_SIZE is not set"), ({"RANK": "3", "WORLD_SIZE": "2"}, "RANK is 3")):
        with environment_of(environment() | own):
            assert_user_error(called(main, "--no_such_option", 1), f"{program}: error: ", message)


def test_a_finetuning_runs_in_one_process(tmp_path):
    with environment_of(environment() | SRUN):
        ended = called(finetune.main, tmp_path, "--from", "shapes/vtok", "--output", tmp_path / "out")
    assert ended.returncode == 2 and not list(tmp_path.iterdir())
