"""Turns videos into tokens: S spatial tokens of the key frame, then M motion tokens.

    python pipelines/tokenise.py VIDEO ... --output tokens.safetensors [--show picture.png] [--checkpoint OUTPUT]

The file has these tensors for each VIDEO; videos are numbered from 0:

    0.tokens     (S + M, token_dim)     the input of phi_vis
    0.spatial    (S, d_v)               the key frame's pooled features, frozen
    0.motion     (M, residual_dim)      the pooled residuals, frozen
    0.times      (M,)                   the time of each motion token's frame, in seconds
    0.vectors    (frames - 1, 2, h, w)  with video-lavit: the motion vectors that its codes are of
    0.cuts       (k - 1,)               with vtok-cuts: the time of each further key frame, in seconds

With vtok-cuts there are k * S spatial tokens, S of each key frame in the order of time. The picture shows the first key
frame, and a line where each further one begins.

With video-lavit ``motion`` are the vectors of the codes, and ``times`` those of the steps, each of several codes.

The metadata has the names and key frames of the videos. Without a checkpoint g_phi has random weights. Then the frozen
features are those of any run with this configuration, but the motion tokens are random projections.
"""

import argparse
from pathlib import Path

from pipelines.cli.checks import require_ending, require_new_file
from pipelines.cli.config_files import PRESETS
from pipelines.cli.errors import user_errors
from pipelines.cli.steps import add_step, with_step


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Turn videos into tokens.")
    parser.add_argument("videos", type=Path, nargs="+", metavar="VIDEO")
    parser.add_argument("--output", type=Path, required=True, help="the safetensors file to write")
    parser.add_argument("--show", type=Path, help="PNG file to write: key frames with their grid, residuals over time")
    weights = parser.add_mutually_exclusive_group()
    weights.add_argument("--checkpoint", type=Path, help="a run's folder, a checkpoint's, or an export")
    weights.add_argument("--config", type=Path, default=PRESETS / "llava_next_8b_hunyuan.yaml", help="YAML of a run")
    add_step(parser)
    a = with_step(parser.parse_args(argv))
    for option, path in {"--output": a.output, "--show": a.show}.items():
        if path:
            require_new_file(option, path)
    if a.show:
        require_ending("--show", a.show, ".png")
    return a


def main(argv: list[str] | None = None) -> None:
    """Runs the command line. An error that the user can correct ends with one line and exit code 2."""
    with user_errors("tokenise"):
        arguments = parse_arguments(argv)

        from pipelines.inference.tokenise import (
            tokenise_videos,  # only now: this imports the libraries, which takes seconds
        )

        tokenise_videos(arguments)


if __name__ == "__main__":
    main()
