"""Turns videos into tokens: S spatial tokens of the key frame, then M motion tokens.

    python pipelines/tokenise.py VIDEO ... --output tokens.safetensors [--show picture.png] [--checkpoint OUTPUT]

The file has these tensors for each VIDEO; videos are numbered from 0:

    0.tokens     (S + M, token_dim)     the input of phi_vis
    0.spatial    (S, d_v)               the key frame's pooled features, frozen
    0.motion     (M, residual_dim)      the pooled residuals, frozen
    0.times      (M,)                   the time of each motion token's frame, in seconds

The metadata has the names and key frames of the videos. Without a checkpoint g_phi has random weights. Then the frozen
features are those of any run with this configuration, but the motion tokens are random projections.
"""

import argparse
import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from data_tools.errors import DataError
from data_tools.shards import atomic_write
from data_tools.video.views import make_views, tokeniser_view
from pipelines.cli.config_files import PRESETS
from pipelines.cli.errors import die
from pipelines.cli.parsing import load_config
from pipelines.engine import distributed
from pipelines.inference.load import load_run
from pipelines.inference.pictures import stacked, token_picture
from pipelines.inference.understand import duration_of
from vtok.config import ConfigError
from vtok.tokeniser import Tokeniser, build_tokeniser


@torch.no_grad()
def tokenise(tokeniser: Tokeniser, video: Path) -> tuple[dict[str, Tensor], Tensor, int]:
    """Tokenises a whole video.

    Args:
        tokeniser: The tokeniser.
        video: Path of the video.

    Returns:
        The tensors of the module's documentation, by name without the number; the key frame (3, h, w) ``uint8``; the
        number of the key frame among the sampled frames.

    Raises:
        DataError: The video cannot be read.
    """
    duration = duration_of(video)
    config, size = tokeniser.config, tokeniser.feature_extractor.image_size
    views = make_views(video, duration, tokeniser_view(duration, config.fps, size, size), None, start=0.0)
    frames = views.frames[None, : views.frames_valid].to(distributed.device())
    count = frames.shape[1]
    (key,) = tokeniser.key_frames(frames, [count])
    features = tokeniser.features(frames, key_frame_idx=key)
    times = torch.tensor(tokeniser.time_frames(count, key_frame_idx=key)) / config.fps
    tensors = dict(
        tokens=tokeniser.encode(features)[0], spatial=features.spatial[0], motion=features.motion[0], times=times
    )
    return {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, frames[0, key], key


def picture_of(tokeniser: Tokeniser, video: Path, tensors: dict[str, Tensor], key_frame: Tensor):
    """Draws the tokens of a video; arguments are results of :func:`tokenise`."""
    grid = tokeniser.config.spatial_grid_size
    # The norm is the residual's, not the token's: g_phi's bias hides how far a frame is from the key frame.
    norms = tensors["motion"].float().norm(dim=1).tolist()
    counts = f"{len(tensors['spatial'])} spatial + {len(norms)} motion tokens"
    title = f"{video.name}: {counts}; norm of each one's residual over time"
    return token_picture(key_frame, grid, tensors["times"].tolist(), norms, title)


def main(argv: list[str] | None = None) -> None:
    """Runs the command line. An error that the user can correct ends with one line and exit code 2."""
    parser = argparse.ArgumentParser(description="Turn videos into tokens.")
    parser.add_argument("videos", type=Path, nargs="+", metavar="VIDEO")
    parser.add_argument("--output", type=Path, required=True, help="the safetensors file to write")
    parser.add_argument("--show", type=Path, help="PNG file to write: key frames with their grid, residuals over time")
    weights = parser.add_mutually_exclusive_group()
    weights.add_argument("--checkpoint", type=Path, help="output folder of a training run")
    weights.add_argument("--config", type=Path, default=PRESETS / "llava_next_8b_hunyuan.yaml", help="YAML of a run")
    a = parser.parse_args(argv)
    try:
        tokeniser = load_run(a.checkpoint)[1].tokeniser if a.checkpoint else fresh_tokeniser(a.config)
        tensors, pictures, keys = {}, [], []
        for number, video in enumerate(a.videos):
            own, key_frame, key = tokenise(tokeniser, video)
            tensors |= {f"{number}.{name}": tensor for name, tensor in own.items()}
            keys.append(key)
            if a.show:
                pictures.append(picture_of(tokeniser, video, own, key_frame))
    except (ConfigError, DataError) as error:
        die("tokenise", error)
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


if __name__ == "__main__":
    main(sys.argv[1:])
