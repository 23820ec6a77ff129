"""Encodes a video with a VidTwin and decodes it again, on request with the dynamics of another video.

    python pipelines/reconstruct_vidtwin.py --checkpoint X.ckpt --input a.mp4 [--dynamics-of b.mp4] --output-dir D

writes ``D/a_reconstruction.mp4`` (or ``D/a_with_dynamics_of_b.mp4``) and ``D/a_side_by_side.mp4`` with the originals on
the left. Without another video it prints PSNR and SSIM of the reconstruction. The video is cut into clips of 16 frames;
the published model saw 8 frames per second.
"""

import argparse
from pathlib import Path

from pipelines.cli.checks import require_new_folder, require_picture
from pipelines.cli.errors import user_errors


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Encode a video with a VidTwin and decode it again.")
    parser.add_argument("--checkpoint", type=Path, required=True, help="the published .ckpt, or a .safetensors")
    parser.add_argument("--config", type=Path, help="YAML file of what differs from the published architecture")
    parser.add_argument("--input", type=Path, required=True, help="the video")
    parser.add_argument("--dynamics-of", type=Path, metavar="VIDEO", help="its dynamics replace those of the input")
    parser.add_argument("--output-dir", type=Path, required=True)
    parser.add_argument("--fps", type=float, default=8.0, help="frames per second to read and write")
    a = parser.parse_args(argv)
    require_picture(1, 1, a.fps, 1)
    require_new_folder("--output-dir", a.output_dir)
    return a


def main(argv: list[str] | None = None) -> None:
    """Runs the command line. An error that the user can correct ends with one line and exit code 2."""
    with user_errors("reconstruct_vidtwin"):
        arguments = parse_arguments(argv)

        from pipelines.vidtok_training.vidtwin import (
            write_reconstruction,  # only now: this imports the libraries, which takes seconds
        )

        write_reconstruction(arguments)


if __name__ == "__main__":
    main()
