"""Clips whose features are not theirs: VTok sampled them from the captions.

In training the decoder reads the tokens of true clips, in sampling those that VTok sampled. They are not exact, and a
decoder that has seen no such tokens believes them rather than the caption. Training on these clips, on L_dec alone,
teaches the language model to pass on what is right in them.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from data_tools.dataset import captions_of
from data_tools.shards import RawSample, ShardReader, shard_name, sidecar_path, write_manifest, write_shard
from data_tools.shards.layout import MANIFEST
from pipelines.engine.loading.precomputed import FEATURES, pack_features
from pipelines.inference.load import load_run
from pipelines.shapes_models.config import ModelsConfig
from pipelines.shapes_models.joint_run import SHARDS, part_of_mixture
from vtok.framework import VTokFramework
from vtok.generation import tokens_of
from vtok.sampling import Sampling
from vtok.visual_sampling import sample_features


def write(own: Path, joint: Path, config: ModelsConfig) -> None:
    """Writes clips of the joint training, with features that its model samples, to ``own/shards``.

    Whole shards are written, until there are enough clips. Those that are there stay.

    Args:
        own: Folder of the training on these clips.
        joint: Folder of the joint training.
        config: The settings.
    """
    folder = own / SHARDS
    if (folder / MANIFEST).exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    _, framework, _ = load_run(joint / "run", ema=True)
    tokens = tokens_of(framework, config.seconds)
    sampling, reader, first = Sampling(guidance=config.joint.own.guidance), ShardReader(joint / SHARDS), 0
    for number, size in enumerate(reader.shard_sizes):
        if first < config.joint.own.clips and not sidecar_path(folder, shard_name(number)).exists():
            samples = [reader.read(row) for row in range(first, first + size)]
            write_shard(folder, number, with_own(samples, framework, tokens, sampling, config.later_seed + number))
        first += size
    write_manifest(folder, precomputed=reader.precomputed)


def with_own(
    samples: list[RawSample], framework: VTokFramework, tokens: int, sampling: Sampling, seed: int
) -> Iterator[RawSample]:
    """Yields the samples with sampled features."""
    captions = [captions_of(sample.meta)[0] for sample in samples]
    features = sample_features(framework, captions, tokens, sampling, torch.Generator().manual_seed(seed))
    for place, sample in enumerate(samples):
        yield replace(sample, extras=sample.extras | {FEATURES: pack_features(features, place)})


def settings(own: Path, joint: Path, hard: Path, before: Path, config: ModelsConfig) -> dict[str, Any]:
    """Returns the settings of the last training, on all clips, those of ``own`` and the hard ones.

    Args:
        own: Folder of the training.
        joint: Folder of the joint training, with all clips.
        hard: Folder of the clips of :mod:`pipelines.shapes_models.describing`. Their loss is L_under alone.
        before: Folder of the training that this one goes on from.
        config: The settings.
    """
    of = config.joint.own
    mixture = [
        part_of_mixture(joint, "all", round(1 - of.share - of.hard, 6)),
        part_of_mixture(own, "own", of.share, losses=["dec"]),
        part_of_mixture(hard, "hard", of.hard, losses=["under"]),
    ]
    return {
        "data": {"mixture": mixture} | config.joint.data,
        "model": {"loss": of.loss},
        "train": of.train,
        "init": {"weights": str((before / "run").resolve()), "ema": True},
    }
