"""Stores frozen features, latents and captions with a dataset's clips. Each rank writes its share of the shards."""

import argparse
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple

import torch
from tqdm import tqdm

from data_tools.dataset import captions_of
from data_tools.errors import BadVideo
from data_tools.shards import RawSample, ShardReader, shard_name, sidecar_path, write_manifest, write_shard
from data_tools.video.views import CENTRE, Views, make_views, one_shape, stand_in, window
from pipelines.config import RunConfig
from pipelines.engine import distributed, models
from pipelines.engine.loading import precomputed
from pipelines.engine.loading.workers import read_ahead
from pipelines.engine.setup import precision
from pipelines.views import views_of
from vtok.config import ConfigError
from vtok.tokeniser import Tokeniser, build_tokeniser
from vtok.video_decoder import build_text_encoder, build_vae, caption_tokenizer, decoder_kind, encode_video
from vtok.weights.precision import cast_parameters

PROGRAM = "precompute"


def precompute_shards(a: argparse.Namespace, config: RunConfig) -> None:
    """Runs the command ``precompute.py``.

    Args:
        a: The arguments that ``precompute.py`` parsed, except those of the configuration.
        config: Configuration of the training that will use the result.

    Raises:
        ConfigError: The output holds something else, or the encoders cannot be loaded.
        DataError: The input is no dataset.
    """
    reader = ShardReader(a.input)
    recipe = f"{Path(a.input).resolve()} {a.latents} {a.captions} {a.drop_video} {config}\n{reader.manifest_hash}\n"
    with distributed.connected(), torch.no_grad():
        distributed.rank_zero_first(lambda: prepare_output(a.output, recipe, config, reader))
        if config.tiny_models:
            models.point_to_tiny_models(config)
            config.model = models.inside_run(config.model, a.output)
        precompute(reader, a.output, Encoders(config, a.latents, a.captions), a.drop_video)


class Encoders:
    """The tokeniser's frozen encoder and, as far as they are wanted, the decoder's encoders, on this rank's device.

    Args:
        config: Names their weights.
        latents: Whether to load the autoencoder.
        captions: Whether to load the text encoder.
    """

    def __init__(self, config: RunConfig, latents: bool, captions: bool):
        models.quiet_libraries()
        self.config, decoder = config, config.model.decoder
        self.tokeniser = build_tokeniser(config.model.tokeniser).requires_grad_(False).eval()
        self.vae = build_vae(decoder) if latents else None
        self.text_encoder = build_text_encoder(decoder) if captions else None
        self.caption_ids = caption_tokenizer(decoder) if captions else None
        self.recipe = {
            "features": precomputed.feature_recipe(config, self.tokeniser),
            "latents": precomputed.latent_recipe(config, decoder, self.vae) if latents else None,
            "captions": precomputed.caption_recipe(decoder, self.text_encoder) if captions else None,
        }
        for module in filter(None, (self.tokeniser, self.vae, self.text_encoder)):
            cast_parameters(module, precision(config.train))
            module.to(distributed.device())
        self.no_caption = self.encoded_caption("") if captions else None  # what data.text_dropout takes

    def encoded_caption(self, caption: str) -> tuple[list[int], torch.Tensor]:
        """Returns a caption's token ids, and the caption as the text encoder encodes it."""
        ids = self.caption_ids(caption)
        encode = decoder_kind(self.config.model.decoder).encode_captions
        return ids, encode(self.text_encoder, [ids], distributed.device())[0]

    def encode(self, views: Views, vectors: torch.Tensor | None, captions: list[str]) -> dict[str, bytes]:
        """Returns the bytes to store with a clip, by name of the member.

        Args:
            views: The clip.
            vectors: Its motion vectors, if the strategy reads them.
            captions: Its captions.
        """
        device = distributed.device()
        frames = views.frames[None, : views.frames_valid].to(device)
        features = self.tokeniser.features(frames, vectors=None if vectors is None else vectors[None].to(device))
        stored = {precomputed.FEATURES: precomputed.pack_features(features, 0)}
        if self.vae is not None:
            posterior = encode_video(self.vae, views.video[None].to(device), self.config.model.decoder.vae_tiling)
            stored[precomputed.LATENTS] = precomputed.pack_posterior(posterior, 0)
        if self.no_caption is not None:
            ids, encoded = zip(*map(self.encoded_caption, captions), self.no_caption)
            stored[precomputed.CAPTIONS] = precomputed.pack_captions(list(ids), list(encoded))
        return stored


class Clip(NamedTuple):
    """A sample, the views of its window, and the motion vectors of its frames if the strategy reads them."""

    raw: RawSample
    views: Views
    vectors: torch.Tensor | None


class CentredViews:
    """Rows of a shard, each with the views of its centred window, as in training with ``data.window: centred``.

    Samples have all facts that the sidecar has. The json of another tool lacks most of them.

    Attributes:
        crashes: Not 0 for an index at which two loader processes died (see :mod:`pipelines.engine.loading.workers`).
    """

    def __init__(self, reader: ShardReader, shard: int, config: RunConfig, tokeniser: Tokeniser, latents: bool):
        self.reader, self.data = reader, config.data
        self.first, self.all_facts = sum(reader.shard_sizes[:shard]), reader.shard_facts(shard)
        self.views = views_of(config, tokeniser.feature_extractor.image_size)
        self.vectors_of = tokeniser.vectors_of
        self.skip = () if latents else ("video",)
        self.crashes: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self.all_facts)

    def row(self, index: int) -> int:
        return self.first + index

    def __getitem__(self, index: int) -> Clip | BadVideo:
        if self.crashes.get(index):
            return BadVideo("decoder_crash", f"sample {self.reader.key(self.row(index))}: two loader processes died")
        try:
            raw = self.reader.read(self.row(index))
            if raw.others:
                raise BadVideo("several", f"sample {raw.key} is about several media, whose features are not stored")
            facts = self.all_facts[index]
            raw = replace(raw, meta=raw.meta | {"facts": facts})
            if not raw.extension:
                return self.clip(raw, stand_in(one_shape(self.data.seconds, *self.views)))
            start = window(facts["duration"], self.data.seconds, CENTRE)
            how = self.data.fit, self.data.decoder, self.skip, facts.get("entry")
            views = make_views(raw.video, facts["duration"], *self.views, start, *how, padded=("video",))
            return self.clip(raw, views)
        except BadVideo as problem:
            return problem

    def clip(self, raw: RawSample, views: Views) -> Clip:
        """Adds the motion vectors, if the strategy reads them."""
        assert views.frames is not None  # the tokeniser's view is always drawn
        return Clip(raw, views, self.vectors_of(views.frames[: views.frames_valid]) if self.vectors_of else None)


def encoded(items: Iterable[Clip | BadVideo], encoders: Encoders, drop_video: bool, bar: tqdm) -> Iterator[RawSample]:
    """Yields the samples with what their encoders give. Reports a clip that cannot be read, and leaves it out.

    Args:
        items: Clips, or the reason why one cannot be read.
        encoders: Encode the views.
        drop_video: Whether to leave out the video itself.
        bar: Advances with every item.
    """
    for item in items:
        bar.update()
        if isinstance(item, BadVideo):
            bar.write(f"{PROGRAM}: left out: {item}", file=sys.stderr)
            continue
        raw, views, vectors = item
        extras = raw.extras | encoders.encode(views, vectors, captions_of(raw.meta))
        yield replace(raw, extras=extras, video=b"" if drop_video else raw.video)


def precompute(reader: ShardReader, output: Path, encoders: Encoders, drop_video: bool) -> None:
    """Writes this rank's unfinished shards. When all ranks are done, rank 0 writes the manifest."""
    config, latents = encoders.config, encoders.vae is not None
    mine = range(distributed.rank(), len(reader.shard_sizes), distributed.world_size())
    with tqdm(total=sum(reader.shard_sizes[n] for n in mine), unit="clip", disable=distributed.rank() > 0) as bar:
        for number in mine:
            size = reader.shard_sizes[number]
            if sidecar_path(output, shard_name(number)).exists():
                bar.update(size)
                continue
            dataset = CentredViews(reader, number, config, encoders.tokeniser, latents)
            clips = read_ahead(dataset, ([index] for index in range(size)), config.data.workers, itemgetter(0))
            write_shard(output, number, encoded(clips, encoders, drop_video, bar))
    distributed.barrier()
    distributed.rank_zero_first(lambda: write_manifest(output, precomputed=encoders.recipe) and None)


def prepare_output(output: Path, recipe: str, config: RunConfig, reader: ShardReader) -> None:
    """Creates the output folder, with tiny models if the configuration asks for them.

    A marker file keeps the recipe, whose second line is the state of the input. So another start with another recipe
    or changed data cannot mix its shards with these.

    Raises:
        ConfigError: The output is finished, or was begun with another recipe or other data.
    """
    marker = output / "precompute.txt"
    if (output / "manifest.json").exists():
        raise ConfigError(f"{output} already holds a dataset: choose another --output or delete it")
    if marker.exists() and marker.read_text() != recipe:
        same_settings = marker.read_text().splitlines()[:1] == recipe.splitlines()[:1]
        other = "other data" if same_settings else "another configuration"
        raise ConfigError(f"{output} was begun with {other}: choose another --output or delete it")
    output.mkdir(parents=True, exist_ok=True)
    marker.write_text(recipe)
    if config.tiny_models:
        models.prepare_tiny_models(config, output, models.dataset_texts(reader))
