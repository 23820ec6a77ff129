"""Encodes a video with a VidTok and decodes it again.

    python pipelines/reconstruct.py --config vidtok_kl_causal_488_4chn --checkpoint X.ckpt --input v.mp4 --output-dir D

writes ``D/v_reconstruction.mp4`` and ``D/v_side_by_side.mp4`` with the original on the left. By default the video is
cut into clips that are reconstructed one by one. With --read-long-video the whole video is one clip, reconstructed
chunk by chunk. With --tile frames are reconstructed in tiles: the result is almost the same, and memory holds one tile.
"""

import argparse
from pathlib import Path

from pipelines.cli.checks import require_new_folder, require_picture
from pipelines.cli.errors import user_errors


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Encode a video with a VidTok and decode it again.")
    parser.add_argument("--config", required=True, help="a published name, or a YAML file")
    parser.add_argument("--checkpoint", type=Path, required=True, help="the published .ckpt, or a .safetensors")
    parser.add_argument("--input", type=Path, required=True, help="the video")
    parser.add_argument("--output-dir", type=Path, required=True)
    parser.add_argument("--height", type=int, default=256)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--fps", type=float, default=30.0)
    parser.add_argument("--chunk", type=int, default=16, help="frames per clip, or per chunk of a long video")
    parser.add_argument("--read-long-video", action="store_true", help="treat the whole video as one clip")
    parser.add_argument("--pad-gen-frames", action="store_true", help="continue from the previous reconstruction")
    parser.add_argument("--tile", type=int, help="side of square tiles in pixels, for frames too large for memory")
    parser.add_argument("--tile-overlap", type=int, default=64, help="overlap of neighbouring tiles, in pixels")
    parser.add_argument("--compile", action="store_true", help="compile the model's blocks, which takes minutes once")
    a = parser.parse_args(argv)
    require_picture(a.height, a.width, a.fps, a.chunk)
    require_new_folder("--output-dir", a.output_dir)
    return a


def main(argv: list[str] | None = None) -> None:
    """Runs the command line. An error that the user can correct ends with one line and exit code 2."""
    with user_errors("reconstruct"):
        arguments = parse_arguments(argv)

        from pipelines.vidtok_training.reconstruct import (
            write_reconstruction,  # only now: this imports the libraries, which takes seconds
        )

        write_reconstruction(arguments)


if __name__ == "__main__":
    main()
