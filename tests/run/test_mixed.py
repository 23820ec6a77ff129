"""A run on a mix of clips of several lengths and shapes, images and texts."""

import json

import pytest
import torch
from PIL import Image

from data_tools.errors import BadVideo
from data_tools.packing import build_shards
from data_tools.shapes import render_clips
from data_tools.shards import ShardReader
from pipelines.cli.parsing import parse_run_arguments
from pipelines.engine.batch_plan import plan_batch
from pipelines.engine.loading.loader import build_dataset, micro_batches
from pipelines.engine.precomputing import CentredViews
from support.launch import checked
from support.runs import CONFIG, log_of, started, without_rates
from vtok.assembly.build import build_framework
from vtok.assembly.tiny import write_tiny_models

SETTINGS = ("--train.max_steps", 3, "--train.warmup_steps", 1, "--train.global_batch_size", 4, "--checkpoint.every", 2,
            "--train.micro_batch_size", 2, "--data.workers", 1, "--track", "[]", "--train.precision", "fp32",
            "--train.calibration_batches", 1)  # fmt: skip
VALIDATED = ("--validation.every", 3, "--validation.samples", 6, "--validation.captions", 0, "--validation.videos", 0)
PLAIN = ["--config", CONFIG, "--train.max_steps", "3", "--data.workers", "0"]


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """Four clips of 1 s and of 2 s, two images of other shapes, two texts, and questions about one or several media."""
    folder = tmp_path_factory.mktemp("mixed")
    rows = []
    for name, frames in (("short", 8), ("long", 16)):
        render_clips(folder / name, 2, seed=frames, frames=frames, fps=8)
        paths = sorted((folder / name).glob("*.mp4"))
        rows += [{"path": path.relative_to(folder).as_posix(), "caption": f"A {name} clip."} for path in paths]
        rows.append({"path": rows[-1]["path"], "start": 0, "end": 0.75, "question": "Is it long?", "answer": "No."})
    for name, size in (("wide.jpg", (120, 40)), ("high.png", (30, 90))):
        Image.new("RGB", size, "red").save(folder / name)
        rows.append({"image": name, "caption": "Red."})
    said = ("user", "Hello?"), ("assistant", "Yes?"), ("user", "Bye."), ("assistant", "Goodbye.")
    rows += [{"messages": [{"role": role, "content": text} for role, text in said]}] * 2
    said = ("user", "<video>, <image>: which?"), ("assistant", "One."), ("user", "<video>?"), ("assistant", "Two.")
    shown = {"videos": ["short/000.mp4", "long/001.mp4"], "images": ["wide.jpg"]}
    rows += [shown | {"messages": [{"role": role, "content": text} for role, text in said]}] * 2
    (folder / "captions.jsonl").write_text("\n".join(map(json.dumps, rows)))
    done = build_shards(folder, folder / "out", 4, progress=False)
    assert (done.packed, done.rejected) == (12, 0)
    return folder / "out"


def mixed_dataset(shards, folder, **options):
    config = parse_run_arguments([*PLAIN, "--data.shards", str(shards)]).config
    write_tiny_models(folder, ["A clip."])
    config.tiny_models = False
    config.model.mllm.weights, config.model.decoder.weights = f"{folder}/llava", f"{folder}/hunyuan"
    config.model.tokeniser.weights = f"{folder}/clip"
    for name, value in options.items():
        setattr(config.data, name, value)
    framework = build_framework(config.model)
    return config, framework, build_dataset(config, ShardReader(shards), framework, training=False)


def test_samples_have_their_own_length_and_micro_batches_one_form(shards, tmp_path):
    config, framework, dataset = mixed_dataset(shards, tmp_path)
    assert not dataset.alike
    items = [dataset[position] for position in range(12)]
    assert {item.sample.kind for item in items} == {"video", "image", "text", "several"}
    for sample, text, *_ in items:
        assert len(sample.frames) == sample.frames_valid
        assert len(sample.video) == sample.video_valid <= dataset.decoder_view.num_frames
        if sample.kind in ("image", "text"):
            assert len(sample.frames) == 1
        assert text.media == {"text": set(), "several": {0, 1, 2}}.get(sample.kind, {0})
        assert len(text.turns) == (sample.kind in ("text", "several"))
        assert sample.video.shape[-2:] == ((64, 64) if text.captioned else (32, 32))
    for loaded in micro_batches(dataset, plan_batch(2, 2, 1), 0, end=12):
        assert [len(video) for video in loaded.batch.groups] == [1, 1]
        with torch.no_grad():
            assert framework(loaded.batch)["loss"].isfinite()


def test_precompute_leaves_out_conversations_about_several(shards, tmp_path):
    config, framework, _ = mixed_dataset(shards, tmp_path)
    reader = ShardReader(shards)
    parts = [CentredViews(reader, shard, config, framework.tokeniser, latents=False) for shard in range(3)]
    found = [views[index] for views in parts for index in range(len(views))]
    assert [views.row(0) for views in parts] == [0, 4, 8]
    assert [item.reason for item in found if isinstance(item, BadVideo)] == ["several"] * 2


def test_clips_that_are_alike_are_decoded_at_once(tmp_path):
    render_clips(tmp_path / "clips", 4, seed=0, frames=16, fps=8)
    build_shards(tmp_path / "clips", tmp_path / "out", progress=False)
    _, _, dataset = mixed_dataset(tmp_path / "out", tmp_path, seconds=1.0)
    assert dataset.alike
    (loaded,) = micro_batches(dataset, plan_batch(4, 4, 1), 0, end=4)
    assert [video.shape for video in loaded.batch.groups] == [(4, 9, 3, 64, 64)]


@pytest.mark.slow
def test_a_mix_has_the_same_curve_on_1_and_2_ranks_and_resumed(ranks, shards, tmp_path):
    """The run on two ranks loses its last checkpoint, and goes on from the one before.

    The samples come from a mixture: one dataset has captions and prompts of its own, the other counts in L_under alone.
    """
    one, two = tmp_path / "one", tmp_path / "two"
    captioned = {"weight": 2, "name": "captioned", "captions": {"long": 2, "empty": 1}, "prompts": ["What is it?"]}
    quiet = {"weight": 1, "name": "quiet", "losses": ["under"]}
    mixture = json.dumps([own | {"shards": str(shards), "validation": str(shards)} for own in (captioned, quiet)])
    settings = (*SETTINGS, "--data.shards", "null", "--data.mixture", mixture, *VALIDATED)
    told = checked(started(settings, shards, one)).stdout
    assert "dataset quiet: 33.3% of the samples; losses under" in told and "captions long 67%, empty 33%" in told
    checked(started(settings, shards, two, start=ranks.run))
    whole = log_of(two)
    ours, theirs = (json.loads((run / "validation.jsonl").read_text()) for run in (one, two))
    assert ours.pop("digest") == theirs.pop("digest") and ours["samples"] == 12
    assert ours == pytest.approx(theirs, rel=1e-4)
    assert (
        ours["loss_dec/captioned"] > 0 == ours["loss_dec/quiet"] == ours["loss_vis_lm/quiet"] < ours["loss_under/quiet"]
    )
    for name in ("loss", "loss_under", "loss_vis_lm", "loss_dec"):
        assert ours[name] == pytest.approx((2 * ours[f"{name}/captioned"] + ours[f"{name}/quiet"]) / 3)
    assert [line["batch_digest"] for line in log_of(one)] == [line["batch_digest"] for line in whole]
    for ours, theirs in zip(log_of(one), whole, strict=True):
        for name in ("loss", "loss_under", "loss_vis_lm", "loss_dec", "grad_norm"):
            assert ours[name] == pytest.approx(theirs[name], rel=1e-4)
    assert any(line["loss_dec"] > 0 for line in whole)  # a step may have samples without a loss of generation alone
    (two / "checkpoints/step_00000003/COMPLETE").unlink()
    checked(started(settings, shards, two, "--resume", "auto", start=ranks.run))
    assert without_rates(log_of(two)) == without_rates(whole)
