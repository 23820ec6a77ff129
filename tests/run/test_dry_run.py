"""A dry run, a printed configuration, and how long a wrong option takes to be told."""

import subprocess
import sys
import time

import pytest

from data_tools.packing import build_shards
from data_tools.shapes import render_clips
from pipelines import precompute, train, train_motion_codec, train_vidtok
from pipelines.cli.config_files import PRESETS, save_config
from pipelines.cli.parsing import CLIP_L, parse_run_arguments
from support.launch import REPO, environment
from support.tiny import model_config

COMMANDS = ("train", "train_vidtok", "understand", "generate", "tokenise", "evaluate", "export", "plan", "precompute",
            "reconstruct", "reconstruct_vidtwin", "study", "bench")  # fmt: skip
MODULES = [*(f"pipelines.{command}" for command in COMMANDS), "data_tools.cli"]


def refused(main, argv: list, capsys) -> str:
    with pytest.raises(SystemExit) as ended:
        main(list(map(str, argv)))
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_a_dry_run_reads_data_and_weights_and_writes_nothing(shards, planned, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    train.main(["--config", str(planned), "--data.shards", str(shards), "--dry_run", "--output", "out"])
    told = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert told["output"] == "out" and told["steps"] == "3"
    assert told["parameters"].endswith("frozen") and "language model" in told["starts"]
    assert "8 samples in" in told["data"] and "visual tokens" in told["first"]
    assert sorted(tmp_path.rglob("*")) == before


def test_a_dry_run_refuses_what_a_run_would(planned, shards, tmp_path, capsys):
    common = ("--config", planned, "--dry_run")
    assert "no folder" in refused(train.main, [*common, "--data.root", tmp_path / "none"], capsys)
    assert "none" in refused(train.main, [*common, "--data.shards", tmp_path / "none"], capsys)
    wrong = ("--model.mllm.weights", tmp_path / "no_model", "--data.shards", shards)
    assert "mllm.weights" in refused(train.main, [*common, *wrong], capsys)


@pytest.mark.parametrize("output", ["file", "file/below", "x" * 300])
@pytest.mark.parametrize(
    "main, given",
    [
        (train.main, ["--dry_run", "--data.shards"]),
        (train_vidtok.main, ["--dry_run", "--config", PRESETS / "vidtok_stage1.yaml", "--data.shards"]),
        (train_motion_codec.main, ["--dry_run", "--train.max_steps", 1, "--data.frames", 25, "--data.shards"]),
        (precompute.main, []),
    ],
)
def test_an_output_that_cannot_be_a_folder_is_refused(shards, tmp_path, capsys, main, given, output):
    (tmp_path / "file").write_text("mine")
    assert "--output" in refused(main, [*given, shards, "--output", tmp_path / output], capsys)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_vidtok_has_a_dry_run_too(tmp_path, capsys):
    (tmp_path / "videos").mkdir()
    command = ["--config", str(PRESETS / "vidtok_stage1.yaml"), "--data.root", str(tmp_path / "videos"), "--dry_run"]
    assert "videos" in refused(train_vidtok.main, command, capsys)


def test_the_configuration_that_is_printed_is_the_run_s(capsys, tmp_path):
    with pytest.raises(SystemExit) as ended:
        train.main(["--data_root", "D", "--batch_size", "12", "--print_config"])
    assert not ended.value.code
    (tmp_path / "x.yaml").write_text(capsys.readouterr().out)
    again = parse_run_arguments(["--config", str(tmp_path / "x.yaml")]).config
    assert again == parse_run_arguments(["--data_root", "D", "--batch_size", "12"]).config


@pytest.mark.parametrize(
    "given, weights", [([], CLIP_L), (["--model.tokeniser.weights", "mine"], "mine"), (["--backbone", "vgg19"], None)]
)
def test_the_short_form_s_clip_is_the_published_one(given, weights):
    backbone = [] if "--backbone" in given else ["--backbone", "clip"]
    config = parse_run_arguments(["--data_root", "D", *backbone, *given]).config
    assert config.model.tokeniser.weights == weights


@pytest.mark.parametrize("module", MODULES)
def test_a_wrong_option_is_told_before_the_libraries_are_imported(module):
    words = [sys.executable, "-X", "importtime", "-m", module, "--no_such_option", "x"]
    started = time.monotonic()
    result = subprocess.run(words, cwd=REPO, env=environment(), capture_output=True, text=True)
    assert result.returncode == 2 and time.monotonic() - started < 15  # a busy machine; the modules are the judge
    imported = {line.rsplit("|", 1)[-1].strip() for line in result.stderr.splitlines() if "import time" in line}
    assert "argparse" in imported and not imported & {"torch", "transformers", "diffusers", "deepspeed"}
    assert "Traceback" not in result.stderr


@pytest.fixture
def planned(tiny_models, tmp_path_factory):
    """The YAML of a run that names tiny models as if they were published ones."""
    config = parse_run_arguments(["--config", str(PRESETS / "tiny.yaml"), "--train.max_steps", "3"]).config
    config.tiny_models, config.model = False, model_config(tiny_models)
    path = tmp_path_factory.mktemp("planned") / "config.yaml"
    save_config(config, path)
    return path


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    render_clips(folder / "clips", 8, seed=1)
    build_shards(folder / "clips", folder / "shards", progress=False)
    return folder / "shards"
