"""Runs with buckets: what is read for a position, one call of the decoder a micro-batch, and equal curves."""

import json
from copy import copy

import numpy as np
import pytest
import torch
from PIL import Image

from data_tools.buckets import Bucket, read_bucket
from data_tools.packing import build_shards
from data_tools.shards import ShardReader
from data_tools.video.encode import encode_mp4
from pipelines.cli.parsing import parse_run_arguments
from pipelines.engine.batch_plan import plan_batch
from pipelines.engine.loading import in_flight
from pipelines.engine.loading.buckets import settle_buckets
from pipelines.engine.loading.loader import build_dataset, collate, micro_batches, order_settings
from pipelines.engine.loading.precomputed import stored_views
from support.launch import assert_user_error, checked
from support.runs import CONFIG, log_of, started, without_rates
from vtok.assembly.build import build_framework
from vtok.assembly.tiny import write_tiny_models
from vtok.config import ConfigError

LIST = "[64x96x2, 96x64x2, 64x96x0.5, 64x64x0]"
SIZES = {"wide": (96, 64), "high": (64, 96)}
SETTINGS = ("--train.max_steps", 3, "--train.warmup_steps", 1, "--train.global_batch_size", 4, "--checkpoint.every", 2,
            "--train.micro_batch_size", 2, "--data.workers", 1, "--track", "[]", "--train.precision", "fp32",
            "--train.calibration_batches", 1, "--data.group_by_length", 12,
            "--model.decoder.loss_height", 64, "--model.decoder.loss_width", 96)  # fmt: skip


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """Wide and high clips of 0.6 s and 2.5 s, an image, two texts, and a question about a clip without a caption."""
    folder = tmp_path_factory.mktemp("buckets")
    rows, draw = [], np.random.default_rng(0)
    for name, (width, height) in SIZES.items():
        for number, frames in enumerate((5, 5, 20, 20)):
            pictures = draw.integers(0, 255, (frames, height, width, 3), np.uint8)
            path = f"{name}{number}.mp4"
            (folder / path).write_bytes(encode_mp4(iter(pictures), 8, crf=40))
            rows.append({"path": path, "caption": f"A {name} clip of {frames} frames."})
    rows.append({"path": "wide2.mp4", "start": 0, "end": 2.4, "question": "Is it wide?", "answer": "Yes."})
    Image.new("RGB", (80, 80), "red").save(folder / "red.png")
    rows.append({"image": "red.png", "caption": "Red."})
    said = ("user", "Hello?"), ("assistant", "Yes?")
    rows += [{"messages": [{"role": role, "content": text} for role, text in said]}] * 2
    (folder / "captions.jsonl").write_text("\n".join(map(json.dumps, rows)))
    done = build_shards(folder, folder / "out", 5, progress=False)
    assert (done.packed, done.rejected) == (12, 0)
    return folder / "out"


def parsed(shards, *options):
    given = ("--config", CONFIG, "--data.shards", shards, *SETTINGS, *options)
    return parse_run_arguments(list(map(str, given))).config


@pytest.fixture(scope="module")
def opened(shards, tmp_path_factory):
    """A function: settings -> configuration with its buckets settled, framework, and what builds a dataset."""
    folder = tmp_path_factory.mktemp("models")
    write_tiny_models(folder, ["A clip."])
    frameworks = []

    def open_(*options, reader=None):
        config = parsed(shards, *options)
        config.tiny_models = False
        config.model.mllm.weights, config.model.decoder.weights = f"{folder}/llava", f"{folder}/hunyuan"
        config.model.tokeniser.weights = f"{folder}/clip"
        frameworks[:] = frameworks or [build_framework(config.model)]
        reader = reader or ShardReader(shards)
        settle_buckets(config, reader, frameworks[0])
        return config, frameworks[0], lambda training: build_dataset(config, reader, frameworks[0], training)

    return open_


@pytest.fixture(scope="module")
def listed(opened):
    """(configuration, framework, training's dataset) with the buckets of ``LIST``."""
    config, framework, build = opened("--data.buckets", LIST)
    return config, framework, build(training=True)


def test_samples_have_the_size_and_length_of_their_bucket(listed):
    config, framework, dataset = listed
    buckets = [read_bucket(text, 8) for text in config.data.buckets]
    assert dataset.alike and dataset.order.bucketing.costs.argmin() == len(buckets)
    forms = set()
    for position in range(24):
        sample, text = dataset[position].sample, dataset[position].text
        number = dataset.order.bucket(position)
        form = (1, 32, 32) if number == len(buckets) else (buckets[number].frames, *buckets[number][:2])
        assert (len(sample.video), *sample.video.shape[-2:]) == form
        assert sample.video_valid <= len(sample.video) and len(sample.frames) == sample.frames_valid
        seconds = (form[0] - 1) / 8 if number < len(buckets) else 2.0
        assert sample.frames_valid <= round(seconds * 4) + 1
        assert text.captioned or not sample.video.any()
        assert text.captioned == (number < len(buckets)) or not text.captioned
        forms.add(form)
    assert len(forms) == 5
    whole = in_flight.sample_bytes(dataset)
    assert whole == 3 * (9 * 64 * 64 + 17 * 64 * 96)


def test_a_micro_batch_is_one_call_of_the_decoder(opened, monkeypatch):
    config, framework, build = opened("--data.buckets", "auto")
    assert isinstance(config.data.buckets, list) and len(config.data.buckets) >= 4
    calls = []
    forward = framework.decoder.transformer.forward
    monkeypatch.setattr(framework.decoder.transformer, "forward", lambda **k: calls.append(k) or forward(**k))
    dataset = build(training=True)
    for loaded in micro_batches(dataset, plan_batch(4, 2, 1), 0, end=12):
        assert len(loaded.batch.groups) == 1 and len(loaded.batch.groups[0]) == 2
        calls.clear()
        with torch.no_grad():
            assert framework(loaded.batch)["loss"].isfinite()
        assert len(calls) == 1


def test_validation_takes_each_clip_by_itself(opened):
    _, framework, build = opened("--data.buckets", "auto")
    dataset = build(training=False)
    assert not dataset.alike
    with torch.no_grad():
        for loaded in micro_batches(dataset, plan_batch(4, 4, 1), 0, end=12):
            assert len(loaded.batch.groups) == 4
            assert framework(loaded.batch)["loss"].isfinite()


def test_a_substitute_takes_the_form_of_what_it_replaces(listed):
    """A text that cannot be read may be replaced by a clip, and a clip by a text."""
    _, framework, plain = listed
    dataset = copy(plain)
    dataset.crashes = {}
    for position in range(24):
        dataset.crashes[position] = 1
        wanted, found = plain[position].sample, dataset[position].sample
        assert found.replaced and found.video.shape == wanted.video.shape
        assert (dataset.order.bucket(position) < 4) or not (found.caption or found.video.any())
    chunks = [[dataset[p] for p in (at, at + 1)] for at in range(0, 24, 2)]
    with torch.no_grad():
        for chunk in chunks:
            assert framework(collate(chunk, alike=True).batch)["loss"].isfinite()


def test_micro_batches_of_any_ranks_divide_a_chunk():
    plans = [plan_batch(12, 4, ranks, even=True) for ranks in (1, 2, 3, 4, 6, 12)]
    assert [(plan.micro_batch_size, plan.accumulation) for plan in plans] == [
        (4, 3),
        (2, 3),
        (4, 1),
        (1, 3),
        (2, 1),
        (1, 1),
    ]


def test_the_settings_of_the_order_name_the_buckets(opened, listed):
    config, _, build = opened("--data.buckets", "[64x96x2, 96x64x2]")
    texts = {order_settings(config, build(training=True).bucketing), order_settings(listed[0], listed[2].bucketing)}
    assert len(texts) == 2 and all("x" in text and "by cost" in text for text in texts)


@pytest.mark.parametrize(
    "options, says",
    [
        (("--data.buckets", "[64x96]"), "HEIGHTxWIDTHxSECONDS"),
        (("--data.buckets", "[64x90x2]"), "multiples of 16, not 64x90x2"),
        (("--data.buckets", "[64x96x3]"), "longer than data.seconds 2"),
        (("--data.buckets", "[]"), "data.buckets is empty"),
        (("--data.buckets", LIST, "--train.micro_batch_size", 3), "must divide train.global_batch_size 4"),
        (("--data.buckets", LIST, "--data.bucket_tokens", 9), "goes with data.buckets auto"),
        (("--data.buckets", "auto", "--data.bucket_tokens", 0), "at least 1"),
        (("--data.buckets", "auto", "--model.decoder.loss_latent_frames", 2), "leave out model.decoder.loss_latent"),
        (("--data.buckets", "auto", "--data.group_by_length", 6), "try 8"),
    ],
)
def test_wrong_buckets_are_refused_in_one_line(opened, options, says):
    with pytest.raises(ConfigError, match=says) as raised:
        opened(*options)
    assert "\n" not in str(raised.value)


def test_buckets_need_a_decoder(tmp_path):
    with pytest.raises(ConfigError, match="needs a decoder"):
        parse_run_arguments(["--config", "pipelines/configs/tiny_qwen2.5-vl.yaml", "--data.buckets", "auto"])


def test_stored_latents_are_refused(opened, shards):
    config, framework, _ = opened("--data.buckets", LIST)
    reader = ShardReader(shards)
    reader.precomputed = {"latents": {"data.seconds": 2.0}}
    with pytest.raises(ConfigError, match="leave out data.buckets"):
        stored_views(config, reader, framework)


def test_a_run_that_goes_on_keeps_the_buckets_that_auto_stood_for(opened, shards):
    config, framework, _ = opened("--data.buckets", LIST)
    config.data.buckets, earlier = "auto", ["64x96x2", "64x64x0"]
    settle_buckets(config, ShardReader(shards), framework, earlier)
    assert config.data.buckets == earlier


def test_auto_stays_within_the_size_of_l_dec(opened):
    config, framework, _ = opened("--data.buckets", "auto")
    buckets = [read_bucket(text, 8) for text in config.data.buckets]
    assert all(bucket.tokens(16) <= Bucket(64, 96, 17).tokens(16) for bucket in buckets)
    assert {bucket.height > bucket.width for bucket in buckets} == {True, False}
    assert {bucket.frames for bucket in buckets} >= {1, 17}


@pytest.mark.long
def test_buckets_have_the_same_curve_on_1_and_2_ranks_and_resumed(ranks, shards, tmp_path):
    """The run on two ranks loses its last checkpoint, and goes on from the one before. Other buckets are refused."""
    one, two = tmp_path / "one", tmp_path / "two"
    settings = (*SETTINGS, "--data.buckets", "auto")
    checked(started(settings, shards, one))
    checked(started(settings, shards, two, start=ranks.run))
    whole = log_of(two)
    assert [line["batch_digest"] for line in log_of(one)] == [line["batch_digest"] for line in whole]
    for ours, theirs in zip(log_of(one), whole, strict=True):
        for name in ("loss", "loss_under", "loss_vis_lm", "loss_dec", "grad_norm"):
            assert ours[name] == pytest.approx(theirs[name], rel=1e-4, abs=1e-6)
    (two / "checkpoints/step_00000003/COMPLETE").unlink()
    checked(started(settings, shards, two, "--resume", "auto", start=ranks.run))
    assert without_rates(log_of(two)) == without_rates(whole)
    other = started((*SETTINGS, "--data.buckets", LIST), shards, one, "--resume", "auto", "--train.max_steps", 4)
    assert_user_error(other, "its order is data.buckets", "set these back")
