"""What the scripts of slurm/ do, with a scheduler that only writes down what it is told."""

import pytest

from support.launch import REPO, run

FAKES = {
    "srun": """
        if [[ -n $STEP ]]; then mkdir -p "$OUT/$STEP"; touch "$OUT/$STEP/COMPLETE"; fi
        if [[ -n $SAID ]]; then touch "$VTOK_USER_ERROR"; fi
        exit $CODE
    """,
    "scontrol": 'if [[ $1 == requeue ]]; then echo requeued >>"$OUT.told"; else echo "node NodeAddr=n1 "; fi',
    "squeue": "echo RUNNING",
}  # fmt: skip


@pytest.fixture
def job(tmp_path):
    """Starts the job's script with its ranks' exit code, and a checkpoint that they write; returns what it says."""
    for name, text in FAKES.items():
        (tmp_path / name).write_text(f"#!/usr/bin/env bash\n{text}\n")
        (tmp_path / name).chmod(0o755)
    output = tmp_path / "run"

    def start(code: int, step: str = "", said: str = "", expected: int | None = None) -> tuple[str, int]:
        told = tmp_path / "run.told"
        told.unlink(missing_ok=True)
        ended = run(
            "bash", "-c", f'export PATH={tmp_path}:$PATH; exec bash slurm/train.sh "$@"', "job",
            REPO / "pipelines/configs/tiny.yaml", REPO / "deepspeed_configs/zero3.json", "--output", output,
            CODE=str(code), STEP=step, SAID=said, OUT=str(output), SLURM_JOB_ID="1", SLURM_JOB_NODELIST="n1",
            SLURM_CPUS_PER_TASK="1", SLURM_SUBMIT_DIR=str(tmp_path),
        )  # fmt: skip
        assert ended.returncode == (code if expected is None else expected), ended.stderr
        return ended.stdout, told.exists()

    return start


def test_a_checkpoint_in_any_stage_is_progress(job):
    """Also one of an earlier step than one that was set aside, and of a stage whose name comes before."""
    for step in (
        "checkpoints/step_00000009.aside",
        "checkpoints/step_00000005",
        "stage_2_all/checkpoints/step_00000007",
        "stage_10_end/checkpoints/step_00000001",
    ):
        told, requeued = job(1, step)
        assert requeued and "restart 1 of at most 3 after" in told and f"{step}/COMPLETE" in told
    assert [job(1)[1] for _ in range(3)] == [True, True, False]


@pytest.mark.parametrize(
    "code, requeued", [(0, False), (2, False), (75, True), (138, True), (1, True), (74, True), (137, True)]
)
def test_which_ends_are_queued_again(job, code, requeued):
    assert job(code)[1] == requeued


def test_a_job_without_progress_ends_after_three_restarts_and_progress_counts_anew(job):
    assert [job(1)[1] for _ in range(4)] == [True, True, True, False]
    assert "a rank was lost (137), again without a new checkpoint: the job ends" in job(137)[0]
    assert "a disk failed (74), again" in job(74)[0]
    assert "stopped early (75), again without a new checkpoint: the job ends\nis its time limit long" in job(75)[0]
    told, requeued = job(1, "checkpoints/step_00000005")
    assert requeued and "restart 1 of at most 3 after" in told and "step_00000005" in told
    assert [job(1)[1] for _ in range(3)] == [True, True, False]


def test_an_error_of_the_user_in_one_rank_ends_the_job_whatever_srun_returns(job, tmp_path):
    assert not job(143, said="by a rank", expected=2)[1]
    assert not list(tmp_path.glob("slurm-*"))
    assert job(143)[1]


DEFAULTS = ("pipelines/configs/llava_next_8b_hunyuan.yaml", "deepspeed_configs/zero3.json")


@pytest.mark.parametrize(
    "files, output",
    [((), "runs/llava_next_8b_hunyuan"), (("a.yaml",), "runs/a"), (("a.yaml", "b.json"), "runs/a")],
)
def test_files_may_be_left_out_before_the_options(tmp_path, files, output):
    """``slurm/train.sh --data.shards DIR`` once took the option for a configuration."""
    for name, text in (FAKES | {"srun": 'echo "$@"'}).items():
        (tmp_path / name).write_text(f"#!/usr/bin/env bash\n{text}\n")
        (tmp_path / name).chmod(0o755)
    said = run(
        "bash", "-c", f'export PATH={tmp_path}:$PATH; exec bash {REPO}/slurm/train.sh "$@"', "job",
        *files, "--data.shards", "DIR",
        SLURM_JOB_ID="1", SLURM_JOB_NODELIST="n1", SLURM_CPUS_PER_TASK="1", SLURM_SUBMIT_DIR=str(tmp_path),
    ).stdout  # fmt: skip
    config, ds_config = (*files, *DEFAULTS[len(files) :])
    assert f"--config {config} --ds_config {ds_config} --output {output} --resume auto --data.shards DIR" in said


@pytest.mark.parametrize("last, code, said", [("4", 0, "--part 1/3"), ("6", 2, "give it as --array 0-2")])
def test_the_numbers_of_an_array_build_have_no_gaps(tmp_path, last, code, said):
    """A part of ``--array 2,3,6`` was 4 of 3, and no job packed the others."""
    (tmp_path / "vtok-shards").write_text('#!/usr/bin/env bash\necho "$@"\n')
    (tmp_path / "vtok-shards").chmod(0o755)
    numbers = {"ID": "3", "MIN": "2", "MAX": last, "COUNT": "3"}
    ended = run(
        "bash", "-c", f"export PATH={tmp_path}:$PATH; exec bash slurm/build_shards.sh CLIPS",
        **{f"SLURM_ARRAY_TASK_{name}": value for name, value in numbers.items()},
    )  # fmt: skip
    assert ended.returncode == code and said in ended.stdout + ended.stderr


def test_an_environment_without_deepspeed_ends_the_job(job, tmp_path):
    (tmp_path / "python").write_text("#!/usr/bin/env bash\nexit 1\n")
    (tmp_path / "python").chmod(0o755)
    assert not job(143, expected=2)[1]
