"""Frozen features, latents and captions that ``precompute.py`` stored in the shards, with the video or instead of it.

Features and latents fit only one window of each clip, one backbone and one preprocessing. Captions are stored as the
decoder's own text encoder encodes them. The *recipe* of each kind lists everything that it depends on. The dataset's
manifest holds it. Training computes its own recipe and refuses a different one.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from data_tools.shards import ShardReader
from data_tools.streaming.mixture import Mixture
from pipelines.cli.config_files import plain
from pipelines.config import STORED, RunConfig
from vtok.assembly.architectures import assemble
from vtok.config import ConfigError, DecoderConfig, require
from vtok.feature_extractor import extractor_parts
from vtok.framework import VTokFramework
from vtok.tokeniser import Tokeniser, VisualFeatures
from vtok.video_decoder import Posterior, decoder_parts
from vtok.video_decoder.tiling import is_tiled
from vtok.weights import Part, combined_hash, content_hash, shapes_of

FEATURES, LATENTS, CAPTIONS = "features.safetensors", "latents.safetensors", "captions.safetensors"

# The view of a sample that a kind replaces. The decoder reads the others.
VIEWS = {"features": "frames", "latents": "video"}
OF_DECODER = ("latents", "captions")
OF_ONE_SHAPE = ("features", "latents")

WINDOW_SETTINGS = ("data.seconds", "data.window", "data.fit", "data.decoder", "decoder.loss_size")
FEATURE_SETTINGS = (
    "tokeniser.strategy", "tokeniser.sampled_frames", "tokeniser.backbone", "tokeniser.vgg_layer_index",
    "tokeniser.spatial_grid_size", "tokeniser.residual_grid", "tokeniser.residual_to",
    "tokeniser.max_key_frames", "tokeniser.cut_threshold",
    "tokeniser.fps", "tokeniser.motion_stride", "tokeniser.motion_tokens_per_second", "tokeniser.key_frame_idx",
)  # fmt: skip
# What datasets of earlier versions were made with; they do not state it.
EARLIER = {"tokeniser.residual_to": "key", "tokeniser.cut_threshold": 0.15}
# The setting that names the weights of a part of the feature extractor.
SETTING_OF = {"feature_extractor": "weights", "motion_codec": "codec"}
LATENT_SETTINGS = ("decoder.fps", "decoder.loss_latent_frames")


def feature_recipe(config: RunConfig, tokeniser: Tokeniser) -> dict[str, Any]:
    """Returns everything that stored features depend on: settings, and the content of the backbone's weights.

    Raises:
        ConfigError: The backbone has random weights, which another run would not have.
    """
    own = tokeniser.config
    require(own.weights is not None, "precomputed features are those of trained weights: set tokeniser.weights")
    require(
        own.codec is not None or not own.reads_vectors,
        "precomputed features are those of a trained motion codec: set tokeniser.codec",
    )
    hashes = {
        f"tokeniser.{SETTING_OF[name]} (sha256)": weights_hash(tokeniser.feature_extractor, part)
        for name, part in extractor_parts(own).items()
    }
    return settings(config, WINDOW_SETTINGS + FEATURE_SETTINGS) | hashes


def latent_recipe(config: RunConfig, decoder: DecoderConfig, vae: nn.Module) -> dict[str, Any]:
    """Returns everything that stored latents depend on.

    Args:
        config: The run's configuration.
        decoder: The configuration that the autoencoder was loaded with.
        vae: The autoencoder.
    """
    return settings(config, WINDOW_SETTINGS + LATENT_SETTINGS) | {
        "decoder.vae_tiling": is_tiled(vae, config.model.decoder.vae_tiling, *config.model.decoder.loss_size),
        "decoder.vae (sha256)": weights_hash(nn.ModuleDict({"vae": vae}), decoder_parts(decoder)["vae"]),
    }


def caption_recipe(decoder: DecoderConfig, text_encoder: nn.Module) -> dict[str, Any]:
    """Returns what stored captions depend on, beside their token ids, which lie with them.

    Args:
        decoder: The configuration that the text encoder was loaded with.
        text_encoder: The text encoder.
    """
    hashed = weights_hash(nn.ModuleDict({"text_encoder": text_encoder}), decoder_parts(decoder)["text_encoder"])
    return {"decoder.kind": decoder.kind, "decoder.text_encoder (sha256)": hashed}


def weights_hash(module: nn.Module, part: Part) -> str:
    """Hashes the stored values of a module's parameters. The rank may hold only a shard of them."""
    tensors = part.tensors(shapes_of(module))
    return combined_hash({name: content_hash(tensor) for name, tensor in tensors.items()})


def settings(config: RunConfig, names: tuple[str, ...]) -> dict[str, Any]:
    sections = {"data": config.data, "tokeniser": config.model.tokeniser, "decoder": config.model.decoder}
    return {name: plain(getattr(sections[name.split(".")[0]], name.split(".")[1])) for name in names}


def stored_views(config: RunConfig, reader: ShardReader | Mixture, framework: VTokFramework) -> frozenset[str]:
    """Returns the views of a sample, of "frames" and "video", that the shards store in encoded form.

    Raises:
        ConfigError: They were made with another recipe (the message names a setting that differs), or only some
            datasets of a mixture have them.
    """
    readers = readers_of(reader)
    recipes = [one.precomputed or {} for one in readers]
    shapes = assemble(framework.config) if any(recipes) else framework  # whose encoders may have been left out
    own = {
        "features": lambda: feature_recipe(config, shapes.tokeniser),
        "latents": lambda: latent_recipe(config, shapes.decoder.config, shapes.decoder.vae),
        "captions": lambda: caption_recipe(shapes.decoder.config, shapes.decoder.text_encoder),
    }
    for kind in OF_ONE_SHAPE if config.data.buckets else ():
        require(
            not any(recipe.get(kind) for recipe in recipes),
            f"the shards hold precomputed {kind} of one window and size: leave out data.buckets, or use other shards",
        )
    stored = set()
    for kind in own if config.model.generates else ["features"]:
        found = [recipe.get(kind) for recipe in recipes]
        if not any(found):
            continue
        if not all(found):
            raise ConfigError(f"only some datasets of data.mixture hold precomputed {kind}: use them for all or none")
        wanted = own[kind]()
        for one, recipe in zip(readers, found):
            require_recipe(one.folder, kind, recipe, wanted)
        stored.add(kind)
    return frozenset(VIEWS[kind] for kind in stored & VIEWS.keys())


def unused_encoders(
    config: RunConfig, reader: ShardReader | Mixture, held_out: Sequence[ShardReader]
) -> frozenset[str]:
    """Returns the encoders that a run on these shards never runs, for ``build_framework``'s ``without``."""
    readers = [*readers_of(reader), *held_out]
    stored = [one.precomputed or {} for one in readers]
    whole = [kind for kind in STORED if all(kinds.get(kind) for kinds in stored)]
    # Validation encodes the prompts of the videos that it samples, and decodes these.
    sampled = held_out and config.validation.videos
    decodes = config.model.generates and not sampled
    return frozenset(STORED[kind] for kind in whole if decodes or kind not in OF_DECODER)


def readers_of(reader: ShardReader | Mixture) -> list[ShardReader]:
    return reader.readers if isinstance(reader, Mixture) else [reader]


def require_recipe(folder: Path | str, kind: str, stored: dict, wanted: dict) -> None:
    """Raises ConfigError if the recipes differ. The message names the first setting that does."""
    stored = EARLIER | stored
    for name in wanted:
        if stored.get(name) != wanted[name]:
            raise ConfigError(
                f"{folder}: its {kind} were computed with {name} {stored.get(name)}, this run has {wanted[name]}: "
                "set it back, or run pipelines/precompute.py again"
            )


def pack_features(features: VisualFeatures, clip: int) -> bytes:
    """Stores one clip's own features in bf16."""
    own = {kind: features.of(kind) for kind in ("spatial", "motion")}
    return pack(**{kind: values[clip, : counts[clip]] for kind, (values, counts) in own.items()})


def pack_posterior(posterior: Posterior, clip: int) -> bytes:
    """Stores one clip's posterior over latents in bf16."""
    return pack(mean=posterior.mean[clip], std=posterior.std[clip])


def pack(**tensors: Tensor) -> bytes:
    return save({name: x.to(torch.bfloat16).cpu().contiguous() for name, x in tensors.items()})


def unpack_features(stored: list[bytes]) -> VisualFeatures:
    """Combines the stored features of clips into those of a micro-batch, in fp32."""
    clips = [load(data) for data in stored]
    (spatial, spatial_counts), (motion, motion_counts) = (
        side_by_side([clip[kind].float() for clip in clips]) for kind in ("spatial", "motion")
    )
    return VisualFeatures(spatial, motion, motion_counts, spatial_counts)


def side_by_side(features: list[Tensor]) -> tuple[Tensor, list[int]]:
    """Stacks features (n, dim) of clips, with zeros behind those of shorter ones; also returns each clip's n."""
    return pad_sequence(features, batch_first=True), [len(own) for own in features]


def unpack_posteriors(stored: list[bytes]) -> Posterior:
    """Combines the stored posteriors of clips into that of a micro-batch, in fp32."""
    clips = [load(data) for data in stored]
    return Posterior(*(torch.stack([clip[name].float() for clip in clips]) for name in ("mean", "std")))


def pack_captions(ids: list[list[int]], captions: list[Tensor]) -> bytes:
    """Stores one clip's encoded captions in the precision of their encoder, with the token ids that they are of."""
    tensors = {f"ids.{index}": torch.tensor(own) for index, own in enumerate(ids)}
    tensors |= {f"caption.{index}": caption.cpu().contiguous() for index, caption in enumerate(captions)}
    return save(tensors)


def unpack_caption(stored: bytes, ids: list[int]) -> Tensor | None:
    """Returns a clip's encoded caption of these token ids, or ``None`` if none of those stored has them."""
    clip = load(stored)
    keys = (key for key, own in clip.items() if key.startswith("ids.") and own.tolist() == ids)
    found = next(keys, None)
    return None if found is None else clip[found.replace("ids.", "caption.")]
