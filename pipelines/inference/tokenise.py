"""Tokenises videos, and writes and draws their tokens."""

import argparse
import json
from pathlib import Path

import torch
from PIL.Image import Image
from safetensors.torch import save
from torch import Tensor

from data_tools.shards import atomic_write
from data_tools.video.views import make_views, tokeniser_view
from pipelines.cli.parsing import load_config
from pipelines.engine import distributed
from pipelines.inference.load import load_run
from pipelines.inference.pictures import stacked, token_picture
from pipelines.inference.understand import duration_of
from vtok.tokeniser import Tokeniser, build_tokeniser


def tokenise_videos(a: argparse.Namespace) -> None:
    """Runs the command ``tokenise.py``.

    Args:
        a: The arguments that ``tokenise.py`` parsed.

    Raises:
        ConfigError: The checkpoint or the configuration is wrong.
        DataError: A video cannot be read.
    """
    tokeniser = load_run(a.checkpoint)[1].tokeniser if a.checkpoint else fresh_tokeniser(a.config)
    tensors, pictures, keys = {}, [], []
    for number, video in enumerate(a.videos):
        own, key_frame, key = tokenise(tokeniser, video)
        tensors |= {f"{number}.{name}": tensor for name, tensor in own.items()}
        keys.append(key)
        if a.show:
            pictures.append(picture_of(tokeniser, video, own, key_frame))
    metadata = dict(videos=json.dumps([str(video) for video in a.videos]), key_frames=json.dumps(keys))
    with atomic_write(a.output) as file:
        file.write(save(tensors, metadata))
    if a.show:
        with atomic_write(a.show) as file:
            stacked(pictures).save(file, format="PNG")
    print(f"{a.output}: {', '.join(str(len(tensors[f'{n}.tokens'])) for n in range(len(keys)))} tokens")


def fresh_tokeniser(config: Path) -> Tokeniser:
    """Builds the tokeniser of a configuration file, with a random ``g_phi``."""
    return build_tokeniser(load_config(config).model.tokeniser).eval().to(distributed.device())


@torch.no_grad()
def tokenise(tokeniser: Tokeniser, video: Path) -> tuple[dict[str, Tensor], Tensor, int]:
    """Tokenises a whole video.

    Args:
        tokeniser: The tokeniser.
        video: Path of the video.

    Returns:
        The tensors that ``tokenise.py`` documents, by name without the number; the key frame (3, h, w) ``uint8``; the
        number of the key frame among the sampled frames.

    Raises:
        DataError: The video cannot be read.
    """
    config, frames = tokeniser.config, frames_of(tokeniser, video)[None]
    count = frames.shape[1]
    (key,) = tokeniser.key_frames(frames, [count])
    vectors = tokeniser.vectors_of(frames[0].cpu())[None].to(frames.device) if tokeniser.vectors_of else None
    features = tokeniser.features(frames, key_frame_idx=key, vectors=vectors)
    times = torch.tensor(tokeniser.time_frames(count, key_frame_idx=key)) / config.fps
    tensors = dict(
        tokens=features.without_gap(tokeniser.encode(features))[0],
        spatial=features.spatial[0, : features.of("spatial")[1][0]],
        motion=features.motion[0],
        times=times,
    )
    tensors |= {} if vectors is None else {"vectors": vectors[0]}
    tensors |= {"cuts": times[features.key_steps[0]]} if config.strategy == "vtok-cuts" and features.key_steps else {}
    return {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, frames[0, key], key


def frames_of(tokeniser: Tokeniser, video: Path) -> Tensor:
    """Returns the frames of a whole video that a tokeniser reads, (T, 3, h, w) ``uint8``, on this rank's device.

    Raises:
        DataError: The video cannot be read.
    """
    duration, size = duration_of(video), tokeniser.feature_extractor.image_size
    views = make_views(video, duration, tokeniser_view(duration, tokeniser.config.fps, size, size), None, start=0.0)
    return views.frames[: views.frames_valid].to(distributed.device())


def picture_of(tokeniser: Tokeniser, video: Path, tensors: dict[str, Tensor], key_frame: Tensor) -> Image:
    """Draws the tokens of a video; arguments are results of :func:`tokenise`."""
    grid = tokeniser.config.spatial_grid_size
    counts = f"{len(tensors['spatial'])} spatial + {len(tensors['motion'])} motion tokens"
    if "vectors" in tensors:  # a code has no size, so the picture shows what the codes are of
        lengths = tensors["vectors"].norm(dim=1).mean((1, 2)).tolist()
        times = [(frame + 1) / tokeniser.config.fps for frame in range(len(lengths))]
        title = f"{video.name}: {counts}; mean length of the motion vectors over time (% of the frame)"
        return token_picture(key_frame, grid, times, lengths, title)
    # The norm is the residual's, not the token's: g_phi's bias hides how far a frame is from the key frame.
    norms = tensors["motion"].float().norm(dim=1).tolist()
    title = f"{video.name}: {counts}; norm of each one's residual over time"
    cuts = tensors["cuts"].tolist() if "cuts" in tensors else []
    return token_picture(key_frame, grid, tensors["times"].tolist(), norms, title, cuts)
