"""What is stored with the clips: same batches, same losses within bf16, and refused by name where it does not fit."""

import shutil
from dataclasses import replace

import pytest
import torch
import webdataset

from data_tools.inspect.index import index_shards
from data_tools.inspect.stats import dataset_stats
from data_tools.inspect.verify import verify_shards
from data_tools.packing import build_shards
from data_tools.shapes import render_clips
from data_tools.shards import ShardReader, write_manifest, write_shard
from pipelines import precompute, train
from pipelines.config import RunConfig, TrainConfig, ValidationConfig
from pipelines.engine.loading.precomputed import pack_captions, unpack_caption, unused_encoders
from pipelines.engine.saving import checkpoint
from pipelines.engine.saving.folders import newest
from support.commands import called
from support.launch import assert_user_error, checked
from support.runs import log_of

CONFIG = ("--config", "pipelines/configs/tiny.yaml", "--data.window", "centred", "--data.seconds", 1)
RUN = ("--train.max_steps", 3, "--train.global_batch_size", 4, "--train.lr", 1e-4)
TRAIN = (train.main, *CONFIG, *RUN, "--ds_config", "deepspeed_configs/zero3.json")

CONFIGURED = RunConfig(TrainConfig(max_steps=1))
SAME = ("batch_digest", "loss", "loss_dec", "loss_vis_lm", "loss_under", "grad_norm")


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    render_clips(folder / "clips", 10, seed=3)
    build_shards(folder / "clips", folder / "shards", samples_per_shard=3, progress=False)
    return folder / "shards"


@pytest.fixture(scope="module")
def stored(ranks, shards):
    """Features, and latents in place of the video, on two ranks; one shard was there already when they started."""
    output = shards.parent / "stored"
    command = (precompute.main, shards, "--output", output, *CONFIG, "--latents", "--drop-video")
    checked(ranks.run(*command))
    kept = (output / "shard-000001.tar").read_bytes()
    for name in ("manifest.json", "manifest.npy", "shard-000001.index.json", "shard-000001.tar"):
        (output / name).unlink()
    untouched = (output / "shard-000000.tar").stat().st_mtime_ns
    checked(called(*command))
    assert (output / "shard-000001.tar").read_bytes() == kept
    assert (output / "shard-000000.tar").stat().st_mtime_ns == untouched
    return output


@pytest.mark.slow
def test_training_on_what_is_stored_equals_training_on_the_videos(shards, stored, tmp_path):
    features_only = tmp_path / "features_only"
    checked(called(precompute.main, shards, "--output", features_only, *CONFIG))
    logs = {}
    for name, data in (("video", shards), ("stored", stored), ("features", features_only)):
        checked(called(*TRAIN, "--data.shards", data, "--output", tmp_path / name))
        logs[name] = log_of(tmp_path / name)
    # Known by the same hashes, also where the encoders were left out.
    frozen = [checkpoint.read_state(newest(tmp_path / name)).frozen for name in logs]
    assert frozen[0]["feature_extractor"] and frozen[0] == frozen[1] == frozen[2]
    for name in ("stored", "features"):
        for ours, theirs in zip(logs[name], logs["video"], strict=True):
            assert ours["batch_digest"] == theirs["batch_digest"]
            for loss in ("loss_under", "loss_vis_lm", "loss_dec"):
                assert ours[loss] == pytest.approx(theirs[loss], rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(
    "decoder",
    [
        ("hunyuan", "--data.text_dropout", 0.5),
        pytest.param(("wan", "--model.decoder.adapter_dim", 64), marks=pytest.mark.long, id="wan"),
    ],
    ids=lambda own: own[0],
)
def test_losses_with_stored_captions_are_those_of_the_text_encoder(shards, tmp_path, decoder):
    """To the last digit, for a clip at a time and in the encoder's own precision; and the text encoder is left out."""
    own = ("--model.decoder.kind", *decoder, "--train.micro_batch_size", 1)
    logs = {}
    for name, captions in (("without", ()), ("with", ("--captions",))):
        data = tmp_path / f"stored_{name}"
        checked(called(precompute.main, shards, "--output", data, *CONFIG, *own[:2], *captions))
        assert ("text_encoder" in unused_encoders(CONFIGURED, ShardReader(data), [])) == bool(captions)
        checked(called(*TRAIN, *own, "--data.shards", data, "--output", tmp_path / name))
        logs[name] = log_of(tmp_path / name)
    for ours, theirs in zip(logs["with"], logs["without"], strict=True):
        assert ours["loss_dec"] > 0
        assert [ours[key] for key in SAME] == [theirs[key] for key in SAME]
    other = "hunyuan" if decoder[0] == "wan" else "wan"
    refused = called(*TRAIN, "--data.shards", data, "--model.decoder.kind", other, "--output", tmp_path / "other")
    assert_user_error(refused, f"decoder.kind {decoder[0]}", f"has {other}")


def test_a_stored_caption_is_that_of_its_token_ids():
    stored = pack_captions([[5, 7], [9]], [torch.ones(2, 4), torch.zeros(1, 4)])
    assert torch.equal(unpack_caption(stored, [5, 7]), torch.ones(2, 4))
    assert torch.equal(unpack_caption(stored, [9]), torch.zeros(1, 4))
    assert unpack_caption(stored, [5]) is None


@pytest.mark.parametrize("videos", [0, 1])
def test_encoders_are_left_out_where_all_shards_hold_what_they_give(shards, stored, videos):
    """But for the autoencoder where validation samples videos, which it decodes."""
    config = replace(CONFIGURED, validation=ValidationConfig(videos=videos))
    video, encoded = ShardReader(shards), ShardReader(stored)
    both = {"feature_extractor", "autoencoder"}
    assert unused_encoders(config, encoded, []) == both
    assert unused_encoders(config, encoded, [encoded]) == (both if videos == 0 else {"feature_extractor"})
    assert unused_encoders(config, encoded, [video]) == unused_encoders(config, video, [encoded]) == set()


def test_what_does_not_fit_is_refused_by_name(stored, tmp_path):
    train = (*TRAIN, "--data.shards", stored, "--output", tmp_path / "out")
    assert_user_error(
        called(*train, "--model.tokeniser.spatial_grid_size", 2), "tokeniser.spatial_grid_size 4", "has 2"
    )
    assert_user_error(called(*train, "--data.window", "drawn"), "data.window centred", "has drawn")
    assert_user_error(called(*train, "--seed", 1), "weights (sha256)")
    again = (precompute.main, stored.parent / "shards", "--output", stored, *CONFIG)
    assert_user_error(called(*again), "already holds a dataset")
    drawn = (precompute.main, stored.parent / "shards", "--output", tmp_path / "x", *CONFIG)
    assert_user_error(called(*drawn, "--data.window", "drawn"), "set data.window to centred")
    assert_user_error(called(*drawn, "--data.buckets", "auto"), "leave out data.buckets")


def test_what_is_stored_of_an_indexed_tar_has_all_facts(tmp_path):
    """Its json has none of them. The names are as long as those of some tools."""
    render_clips(tmp_path / "clips", 2, seed=0)
    indexed, ready = tmp_path / "in", tmp_path / "ready"
    indexed.mkdir()
    with webdataset.TarWriter(str(indexed / "0.tar")) as writer:
        for number in range(2):
            clip = (tmp_path / f"clips/{number:03d}.mp4").read_bytes()
            writer.write({"__key__": f"{'k' * 90}{number}", "mp4": clip, "txt": "A.", "json": {"id": number}})
    index_shards(indexed)
    checked(called(precompute.main, indexed, "--output", ready, *CONFIG, "--latents", "--drop-video"))
    assert verify_shards(ready, decode=True).faults == []
    numbers, rows = dataset_stats(indexed), ShardReader(ready).rows
    same = ("samples", "hours", "fps", "width", "height", "frames", "codecs", "buckets")
    assert {name: dataset_stats(ready)[name] for name in same} == {name: numbers[name] for name in same}
    for name in ("width", "height", "frames", "duration"):
        assert rows[name].tolist() == ShardReader(indexed).rows[name].tolist() != [0, 0]
    index_shards(ready, overwrite=True)
    assert ShardReader(ready).rows.tolist() == rows.tolist() and ShardReader(ready).precomputed["latents"]


def test_an_output_is_not_finished_with_other_data_or_settings(shards, tmp_path):
    again = (precompute.main, tmp_path / "in", "--output", tmp_path / "out", *CONFIG)
    shutil.copytree(shards, tmp_path / "in")
    checked(called(*again))
    for name in ("manifest.json", "manifest.npy", "shard-000001.index.json", "shard-000001.tar"):
        (tmp_path / "out" / name).unlink()
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    assert_user_error(called(*again, "--data.fit", "pad"), "was begun with another configuration")
    write_shard(tmp_path / "in", 1, [ShardReader(shards).read(0)])
    write_manifest(tmp_path / "in")
    assert_user_error(called(*again), "was begun with other data: choose another --output")
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()} == before
