"""A run owns its folder: whoever comes second is refused, and a start that failed leaves nothing behind."""

import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.cli.parsing import RunArguments, parse_run_arguments
from pipelines.engine import ownership
from pipelines.engine.outputs import claim_output
from pipelines.engine.saving.folders import begun
from support.launch import REPO, environment
from vtok.config import ConfigError

HOLDER = """
import sys
from pathlib import Path
from pipelines.engine import ownership
with ownership.held(Path(sys.argv[1])):
    ownership.own(Path(sys.argv[1]))
    print("mine", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder():
    """Starts a process that owns a folder until it is killed."""
    started = []

    def start(output: Path) -> subprocess.Popen:
        process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(output)], cwd=REPO, env=environment(), text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        started.append(process)
        assert process.stdout.readline() == "mine\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


def asked(output: Path | None, resume: str | None = None) -> RunArguments:
    return RunArguments(None, "tiny", Path("zero3.json"), output, resume)


def test_a_second_run_is_refused_by_name_and_a_crash_frees_the_folder(holder, tmp_path):
    first = holder(tmp_path / "run")
    with pytest.raises(ConfigError, match=rf"in use by process {first.pid} on \S+: wait for it") as refused:
        claim_output(asked(tmp_path / "run", "auto"))
    assert "\n" not in str(refused.value)
    first.kill()
    first.wait()
    assert claim_output(asked(tmp_path / "run", "auto")) == tmp_path / "run"
    with ownership.held(tmp_path / "run"):
        pass


def test_two_runs_without_an_output_get_two_folders(holder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    holder(tmp_path / "runs/tiny")
    assert claim_output(asked(None)) == Path("runs/tiny-2")
    with ownership.held(Path("runs/tiny-2")):
        pass
    assert not Path("runs/tiny-2").exists()  # it never began


def test_a_start_that_failed_does_not_forbid_the_next(tmp_path):
    output = tmp_path / "run"
    for _ in range(2):
        claim_output(asked(output))
        with pytest.raises(ZeroDivisionError), ownership.held(output):
            (output / "config.yaml").write_text("seed: 1\n")  # all was checked, and then it failed
            raise ZeroDivisionError
        assert not begun(output)
    (output / "log.jsonl").write_text('{"step": 1}\n')
    with pytest.raises(ConfigError, match="already holds a run"):
        claim_output(asked(output))


@pytest.mark.parametrize("bad", ["file/run", "n" * 300])
def test_a_folder_that_cannot_be_made_is_one_line(tmp_path, bad):
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigError, match="cannot write --output"):
        claim_output(asked(tmp_path / bad))


def test_a_resumed_run_takes_its_own_configuration(tmp_path):
    (tmp_path / "config.yaml").write_text("train: {max_steps: 77}\n")
    resumed = parse_run_arguments(["--resume", "auto", "--output", str(tmp_path), "--train.lr", "0.5"]).config
    assert resumed.train.max_steps == 77 and resumed.train.lr == 0.5 and resumed.demo is None
