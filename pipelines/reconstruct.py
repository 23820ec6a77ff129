"""Put a video through a VidTok and back.

    python pipelines/reconstruct.py --config vidtok_kl_causal_488_4chn --checkpoint X.ckpt --input v.mp4 --output-dir D

writes ``D/v_reconstruction.mp4`` and ``D/v_side_by_side.mp4``, the original on the left. The video is cut into clips
that are reconstructed one by one, or, with --read-long-video, it is one clip that goes through in chunks. With --tile
each clip's frames are reconstructed in tiles, which is near the same and needs memory for one tile.
"""

import argparse
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from data_tools.errors import DataError
from pipelines.engine import distributed
from pipelines.errors import die
from pipelines.media import save_mp4
from pipelines.vidtok_clips import read_clips, to_pixels
from pipelines.vidtok_models import in_tiles, load_vidtok
from vtok.config import ConfigError, require
from vtok.vidtok import VidTok
from vtok.vidtok.model import lengthened


def one_by_one(model: VidTok, clips: Iterable[Tensor]) -> Iterator[Tensor]:
    """Each clip's reconstruction, by itself."""
    return (model(clip)[1] for clip in clips)


def after_generated(model: VidTok, clips: Iterable[Tensor]) -> Iterator[Tensor]:
    """Each clip's reconstruction behind the last f - 1 frames of the reconstruction before it.

    A causal clip begins with f - 1 copies of its first frame. Here a later clip begins with what came before instead.
    """
    factor, past = model.config.time_factor, None
    for clip in clips:
        if past is None:
            reconstruction = model(clip)[1]
            past = lengthened(reconstruction, factor - 1, 0)
        else:
            joined = torch.cat([past, clip], dim=2)
            joined = lengthened(joined, -joined.shape[2] % factor, 0)
            reconstruction = model.decode(model.encode(joined))[:, :, -clip.shape[2] :]
            past = torch.cat([past, reconstruction], dim=2)
        past = past[:, :, past.shape[2] - (factor - 1) :].clamp(-1, 1)
        yield reconstruction


@torch.no_grad()
def reconstruct(
    model: VidTok,
    video: Path,
    fps: float,
    height: int,
    width: int,
    chunk: int,
    long: bool = False,
    pad_generated: bool = False,
) -> tuple[Tensor, Tensor]:
    """The video and its reconstruction, (T, 3, height, width) ``uint8`` each.

    Args:
        chunk: frames of a clip (one more, the first, if the model is causal), or of a long video's chunk.
        long: the video is one clip, in chunks.
        pad_generated: see :func:`after_generated`.

    Raises:
        DataError: the video cannot be read.
        ConfigError: the model cannot do what is asked of it.
    """
    require(model.is_causal or not (long or pad_generated), "a non-causal VidTok takes clips, each by itself")
    require(not (long and pad_generated), "choose one of --read-long-video and --pad-gen-frames")
    require(not long or model.tile is None, "choose one of --read-long-video and --tile")
    require(chunk >= 1 and fps > 0, "--chunk must be at least 1 and --fps positive")
    factor = model.config.space_factor
    require(
        min(height, width) >= factor and height % factor == width % factor == 0,
        f"--height and --width must be multiples of {factor}, not {height}x{width}",
    )
    length = chunk + 1 if model.is_causal and not long else chunk
    frames, clips = read_clips(video, fps, height, width, length)
    device, originals = distributed.device(), []

    def inputs() -> Iterator[Tensor]:
        for clip in clips:
            originals.append(to_pixels(clip))
            yield clip.to(device)

    if long:
        outputs = model.reconstruct(inputs(), frames)
    else:
        outputs = after_generated(model, inputs()) if pad_generated else one_by_one(model, inputs())
    reconstructions = [to_pixels(output) for output in outputs]
    return torch.cat(originals), torch.cat(reconstructions)


def main(argv: list[str] | None = None) -> None:
    """Console entry; what the user can mend ends with one line and exit code 2."""
    parser = argparse.ArgumentParser(description="Put a video through a VidTok and back.")
    parser.add_argument("--config", required=True, help="a published name, or a YAML file")
    parser.add_argument("--checkpoint", type=Path, required=True, help="the published .ckpt, or a .safetensors")
    parser.add_argument("--input", type=Path, required=True, help="the video")
    parser.add_argument("--output-dir", type=Path, required=True)
    parser.add_argument("--height", type=int, default=256)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--fps", type=float, default=30.0)
    parser.add_argument("--chunk", type=int, default=16, help="frames of a clip, or of a long video's chunk")
    parser.add_argument("--read-long-video", action="store_true", help="the whole video is one clip")
    parser.add_argument(
        "--pad-gen-frames", action="store_true", help="a clip goes on from the reconstruction before it"
    )
    parser.add_argument("--tile", type=int, help="pixels a side of square tiles, for frames too large for memory")
    parser.add_argument("--tile-overlap", type=int, default=64, help="of neighbouring tiles, in pixels")
    a = parser.parse_args(argv)
    try:
        model = load_vidtok(a.config, a.checkpoint).to(distributed.device())
        if a.tile is not None:
            in_tiles(model, a.tile, a.tile_overlap)
        original, reconstruction = reconstruct(
            model, a.input, a.fps, a.height, a.width, a.chunk, a.read_long_video, a.pad_gen_frames
        )
    except (ConfigError, DataError) as error:
        die("reconstruct", error)
    for name, frames in (
        ("reconstruction", reconstruction),
        ("side_by_side", torch.cat([original, reconstruction], dim=3)),
    ):
        path = a.output_dir / f"{a.input.stem}_{name}.mp4"
        save_mp4(frames, a.fps, path)
        print(f"{path}: {len(frames)} frames at {a.fps:g} per second")


if __name__ == "__main__":
    main(sys.argv[1:])
