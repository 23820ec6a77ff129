"""The training command on shapes clips: order, resuming, bad samples, and what its checkpoints are good for."""

import json
import math
import resource
import shutil
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from safetensors.torch import load_file
from transformers import LlavaNextForConditionalGeneration

from data_tools.packing import build_shards
from data_tools.shapes import render_clips
from data_tools.shards import ShardReader
from data_tools.video.decode import validate
from pipelines import export, generate, train, understand
from pipelines.engine import loop
from pipelines.engine.ports import free_port
from pipelines.inference.load import load_run
from support.commands import called
from support.launch import assert_user_error, checked, deepspeed, run
from support.runs import assert_same_run, copied_to_resume, log_of
from vtok.assembly.pretrained import from_pretrained

TINY = ("--config", "pipelines/configs/tiny.yaml", "--ds_config", "deepspeed_configs/zero3.json")
SHORT = ("--train.max_steps", 4, "--train.global_batch_size", 4, "--checkpoint.every", 2, "--data.seconds", 1)


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    render_clips(folder, 10, seed=3)
    return folder


@pytest.fixture(scope="module")
def shards(clips):
    build_shards(clips, clips.parent / "shards", samples_per_shard=4, progress=False)
    return clips.parent / "shards"


@pytest.fixture(scope="module")
def two_ranks(ranks, shards, tmp_path_factory):
    """A finished run of four steps on two ranks; ten clips, so that the third batch of four spans epochs."""
    output = tmp_path_factory.mktemp("two") / "out"
    checked(ranks.run(train.main, *TINY, *SHORT, "--data.shards", shards, "--output", output))
    return output


@pytest.fixture(scope="module")
def one_rank(shards, tmp_path_factory):
    """The same run on one rank, with another micro-batch, no workers, and without the launcher."""
    output = tmp_path_factory.mktemp("one") / "out"
    options = ("--train.micro_batch_size", 1, "--data.workers", 0, "--data.shards", shards, "--output", output)
    checked(called(train.main, *TINY, *SHORT, *options))
    return output


def test_the_run_s_folder(two_ranks):
    log = log_of(two_ranks)
    assert [line["step"] for line in log] == [1, 2, 3, 4]
    assert set(log[0]) == {
        "step", "loss", "loss_under", "loss_vis_lm", "loss_dec", "lr", "grad_norm", "samples_per_s", "tokens_per_s",
        "data_wait", "batch_digest", "bad_samples", "cut_texts", "ema_distance", "checkpoint_stall", "host_gb",
        "mfu", "hfu", "skipped", "rank_s", "slowest_rank", "slowest_rank_s", "median_rank_s",
    }  # fmt: skip
    assert all(len(line["rank_s"]) == 2 and line["slowest_rank"] in (0, 1) for line in log)
    for line in log:
        assert line["loss"] == pytest.approx(line["loss_under"] + line["loss_vis_lm"] + line["loss_dec"], rel=1e-5)
    assert log[-1]["loss"] < log[0]["loss"]
    assert (two_ranks / "config.yaml").exists() and list((two_ranks / "tensorboard").iterdir())
    names = sorted(path.name for path in (two_ranks / "checkpoints").glob("step_*"))
    assert names == ["step_00000002", "step_00000004"]


def test_checkpoints_hold_only_what_was_trained(two_ranks):
    """Each trained parameter once: weights, moments and average, cut among the ranks' files; nothing is pickled."""
    folder = two_ranks / "checkpoints/step_00000004"
    stored = defaultdict(int)
    for path in folder.glob("rank_*.safetensors"):
        for name, tensor in load_file(path).items():
            stored[name] += tensor.numel()
    del stored["random_state/cpu"]
    shapes = json.loads((folder / "state.json").read_text())["shapes"]
    assert not [name for name in shapes if name.startswith(("decoder.", "tokeniser.feature_extractor."))]
    kinds = ("weights", "exp_avg", "exp_avg_sq", "ema")
    assert stored == {f"{kind}/{name}": math.prod(shape) for kind in kinds for name, shape in shapes.items()}
    assert {path.suffix for path in folder.iterdir() if path.name != "COMPLETE"} <= {".safetensors", ".json", ".yaml"}


def test_one_rank_sees_the_same_batches_and_gives_the_same_curve(one_rank, two_ranks):
    one, two = log_of(one_rank), log_of(two_ranks)
    assert [line["batch_digest"] for line in one] == [line["batch_digest"] for line in two]
    for a, b in zip(one, two, strict=True):
        for name in ("loss", "loss_under", "loss_vis_lm", "loss_dec", "grad_norm"):
            assert a[name] == pytest.approx(b[name], rel=1e-4)


def test_a_resumed_run_repeats_the_log_to_the_last_digit(ranks, two_ranks, shards, tmp_path):
    """The last checkpoint is incomplete, as if the run had died while writing it: the one before it is taken."""
    output = copied_to_resume(two_ranks, tmp_path / "out")
    options = ("--data.shards", shards, "--output", output, "--resume", "auto")
    checked(ranks.run(train.main, *TINY, *SHORT, *options))
    assert_same_run(output, two_ranks)
    assert (output / "checkpoints/step_00000004/COMPLETE").exists()


@pytest.mark.slow
@pytest.mark.parametrize("before, after", [(2, 1), pytest.param(1, 2, marks=pytest.mark.long)])
def test_resuming_on_another_number_of_ranks_keeps_batches_and_curve(
    ranks, one_rank, two_ranks, shards, tmp_path, before, after
):
    """In mid-epoch."""
    output, run = tmp_path / "out", {1: called, 2: ranks.run}[after]
    shutil.copytree({1: one_rank, 2: two_ranks}[before], output)
    shutil.rmtree(output / "checkpoints/step_00000004")
    checked(run(train.main, *TINY, *SHORT, "--data.shards", shards, "--output", output, "--resume", "auto"))
    for ours, theirs in zip(log_of(output), log_of(two_ranks), strict=True):
        assert ours["batch_digest"] == theirs["batch_digest"]
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-4)


@pytest.mark.slow
def test_a_swapped_sample_changes_the_digest_and_is_logged(two_ranks, shards, tmp_path):
    """One sample's bytes are damaged: it is replaced, one line says so, and only its batches have another digest."""
    damaged = tmp_path / "shards"
    shutil.copytree(shards, damaged)
    reader = ShardReader(damaged)
    shard, offset, *_ = reader.rows[0].item()
    with (damaged / f"{reader.shard_names[shard]}.tar").open("r+b") as tar:
        tar.seek(offset + 2000)
        tar.write(b"\0" * 100)
    options = ("--data.shards", damaged, "--data.workers", 2)
    checked(called(train.main, *TINY, *SHORT, *options, "--output", tmp_path / "a"))
    bad = [json.loads(line) for line in (tmp_path / "a/bad_samples.jsonl").read_text().splitlines()]
    assert bad and {line["key"] for line in bad} == {reader.key(0)}
    assert {line["reason"] for line in bad} == {"corrupt_shard"}
    changed = {line["step"] for line in bad}
    for ours, theirs in zip(log_of(tmp_path / "a"), log_of(two_ranks)):
        assert (ours["batch_digest"] != theirs["batch_digest"]) == (ours["step"] in changed)

    result = called(train.main, *TINY, *SHORT, *options, "--data.max_bad_share", 0, "--output", tmp_path / "b")
    assert_user_error(result, "max_bad_share", reader.key(0), "bad_samples.jsonl")


@pytest.mark.slow
def test_a_disk_that_stays_full_is_one_line_and_leaves_the_checkpoint_before(two_ranks, shards, tmp_path, monkeypatch):
    """A limit on the size of files stands for the disk: the log still fits, a checkpoint does not."""
    monkeypatch.setattr(loop, "AT_END", 0.0)
    output = tmp_path / "out"
    shutil.copytree(two_ranks, output)
    again = ("--data.shards", shards, "--output", output, "--resume", "auto", "--train.max_steps", 5)
    with files_limited_to(2_000_000):
        result = called(train.main, *TINY, *SHORT, *again)
    assert result.returncode == 74 and "step_00000005 could not be written (File too large)" in result.stderr
    (line,) = [line for line in result.stderr.splitlines() if ": error: " in line]
    assert "the last checkpoint could not be written" in line and "step_00000004 is complete" in line
    assert sorted(path.name for path in (output / "checkpoints").iterdir()) == ["step_00000002", "step_00000004"]
    checked(called(train.main, *TINY, *SHORT, *again))
    assert (output / "checkpoints/step_00000005/COMPLETE").exists()


@contextmanager
def files_limited_to(size: int) -> Iterator[None]:
    """Within, a write that makes a file longer than ``size`` bytes fails with EFBIG."""
    found = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, found[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, found)


def test_understand_and_generate_from_a_checkpoint(two_ranks, clips, tmp_path):
    moved = tmp_path / "moved"  # a run's folder is complete in itself
    shutil.copytree(two_ranks, moved)
    asked = ("--video", clips / "000.mp4", "--question", "What moves?", "--json")
    answer = json.loads(checked(called(understand.main, "--checkpoint", moved, *asked)).stdout)
    assert answer["question"] == "What moves?" and isinstance(answer["answer"], str) and answer["step"] == 4

    video = tmp_path / "x.mp4"
    wanted = ("--seconds", 1.5, "--fps", 12, "--seed", 0, "--steps", 2)
    checked(called(generate.main, "--checkpoint", moved, "--prompt", "A circle", "--output", video, *wanted))
    facts = validate(video)
    assert (facts.frames, facts.fps, facts.width, facts.height) == (18, 12, 64, 64)
    assert facts.duration == pytest.approx(1.5)


@pytest.mark.slow
@pytest.mark.parametrize("torchrun", [pytest.param(False, marks=pytest.mark.long), True])
def test_ranks_share_prompts_out(ranks, two_ranks, tmp_path, torchrun):
    (tmp_path / "prompts.txt").write_text("A red circle\nA blue square\nA green star\n")
    options = ("--checkpoint", two_ranks, "--prompts", tmp_path / "prompts.txt", "--samples", 1, "--layout", "vbench",
               "--output", tmp_path / "v", "--seconds", 0.5, "--fps", 8, "--steps", 1)  # fmt: skip
    if torchrun:
        launcher = ("torchrun", "--nproc_per_node", 2, "--master_port", free_port())
        made = checked(run(*launcher, "pipelines/generate.py", *options))
    else:
        made = checked(ranks.run(generate.main, *options))
    names = {f"{prompt}-0.mp4" for prompt in ("A red circle", "A blue square", "A green star")}
    assert {path.name for path in (tmp_path / "v").iterdir()} == names
    assert [made.stdout.count(name) for name in names] == [1, 1, 1]  # each by one of them


def test_an_exported_run_opens_as_llava_next_and_as_our_own(two_ranks, clips, tmp_path):
    options = ("--checkpoint", two_ranks, "--dtype", "fp32", "--output")
    checked(called(export.main, *options, tmp_path / "live"))
    checked(called(export.main, *options, tmp_path / "average", "--ema"))
    stored = {}
    for path in two_ranks.glob("checkpoints/step_00000004/rank_*.safetensors"):  # both ranks' halves, in order
        for name, tensor in sorted(load_file(path).items()):
            stored[name] = torch.cat([stored.get(name, tensor[:0]), tensor])

    name = "model.layers.1.mlp.down_proj.weight"
    for folder, kind in (("live", "weights"), ("average", "ema")):
        llava = LlavaNextForConditionalGeneration.from_pretrained(tmp_path / folder)
        weight = llava.model.language_model.get_parameter(name.removeprefix("model."))
        assert torch.equal(weight.flatten(), stored[f"{kind}/mllm.causal_lm.{name}"])
        assert llava.model.vision_tower is not None and not llava.lm_head.weight.is_meta

    framework = from_pretrained(tmp_path / "live").eval()
    _, trained, _ = load_run(two_ranks)
    for (name, ours), (_, theirs) in zip(framework.state_dict().items(), trained.state_dict().items(), strict=True):
        assert torch.equal(ours, theirs), name
    assert (tmp_path / "live/vtok.safetensors").exists() and not (tmp_path / "live.part").exists()
    assert_user_error(called(export.main, *options, tmp_path / "live"), "choose another --output")

    # The commands take an export like a run: it answers as the run does.
    asked = ("--video", clips / "000.mp4", "--max_new_tokens", 4)
    said = [
        checked(called(understand.main, "--checkpoint", where, *asked)).stdout
        for where in (two_ranks, tmp_path / "live")
    ]
    assert said[0] == said[1] and said[0].strip()
    assert_user_error(called(understand.main, "--checkpoint", tmp_path / "live", *asked, "--ema"), "--ema")


@pytest.mark.slow
def test_the_short_form_packs_raw_clips_once(clips, tmp_path):
    short = ("--data_root", clips, "--token_dim", 96, "--lr", "2e-4", "--batch_size", 5,
             "--epochs", 1, "--data.seconds", 1)  # fmt: skip
    checked(called(train.main, *short, "--output", tmp_path / "a"))
    log = log_of(tmp_path / "a")
    assert [line["step"] for line in log] == [1, 2]  # ten clips in batches of five
    (shards,) = tmp_path.glob("shards-*")
    written = (shards / "manifest.json").stat().st_mtime_ns
    checked(called(train.main, *short, "--output", tmp_path / "b"))
    assert (shards / "manifest.json").stat().st_mtime_ns == written


def test_bad_input_ends_with_one_line(ranks, two_ranks, shards, tmp_path):
    options = (*TINY, "--output", tmp_path / "out")
    assert_user_error(called(train.main, *options, "--train.max_step", 3), "--train.max_steps")
    assert_user_error(called(train.main, *options, "--data.shards", tmp_path / "none"), "none", "vtok-shards build")
    assert_user_error(called(train.main, *options), "--data.shards")
    uneven = (*options, "--data.shards", shards, "--train.global_batch_size", 3)
    assert_user_error(ranks.run(train.main, *uneven), "cannot be divided among 2 ranks")
    assert not (tmp_path / "out").exists()  # nothing half-written
    again = called(train.main, *TINY, "--data.shards", shards, "--output", two_ranks)
    assert_user_error(again, "--resume auto")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_fp8_products_without_their_gpu_are_refused_before_anything_is_written(tmp_path):
    options = (*TINY, "--output", tmp_path / "out", "--model.decoder.fp8", "dynamic")
    assert_user_error(called(train.main, *options), "decoder.fp8 dynamic needs a GPU")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_the_launcher_ends_with_the_ranks_exit_code(shards, tmp_path):
    uneven = (*TINY, "--output", tmp_path / "out", "--data.shards", shards, "--train.global_batch_size", 3)
    assert_user_error(deepspeed(2, "pipelines/train.py", *uneven), "cannot be divided among 2 ranks")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_checkpoint_that_does_not_fit_is_one_line(ranks, two_ranks, shards, clips, tmp_path):
    shutil.copytree(two_ranks, tmp_path / "out")
    resume = (train.main, *TINY, "--data.shards", shards, "--output", tmp_path / "out", "--resume", "auto")
    assert_user_error(ranks.run(*resume, "--model.visual_head.components", 3), "of another model", "visual_head")
    assert_user_error(ranks.run(*resume, "--seed", 1), "its seed is 0, this run's is 1")
    ask = ("--checkpoint", tmp_path / "out", "--video")
    assert_user_error(called(understand.main, *ask, clips / "captions.csv"), "not_a_video")
    assert_user_error(called(understand.main, *ask, tmp_path / "none.mp4"), "no such video")
    assert_user_error(called(understand.main, "--checkpoint", clips, "--video", "x"), "config.yaml")
