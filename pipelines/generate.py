"""Make videos with a trained model.

    python pipelines/generate.py --checkpoint OUTPUT --prompt "A red circle moves up." --output x.mp4
    torchrun --nproc_per_node 8 pipelines/generate.py --checkpoint OUTPUT --prompts FILE --output DIR \\
        --samples 5 --layout vbench

Many prompts are shared out among the ranks, each of which denoises ``--batch_size`` videos together; started again,
only those that are not there yet are made.
"""

import argparse
import sys
from pathlib import Path

from data_tools.errors import DataError
from pipelines.cli.errors import die
from pipelines.engine.launcher import rank_and_ranks
from pipelines.inference.generate import Wanted, generate_videos
from pipelines.inference.load import load_run
from pipelines.inference.shares import own_share, read_prompts
from vtok.config import ConfigError, require

MAX_NAME_BYTES = 255


def video_paths(prompts: list[str], folder: Path, samples: int, layout: str) -> dict[Path, tuple[str, int]]:
    """Where each prompt's samples go: {path: (prompt, sample)}.

    Args:
        layout: ``numbered`` by the prompt's row, or ``vbench``: ``{prompt}-{sample}.mp4``, which VBench reads.

    Raises:
        ConfigError: a prompt cannot be part of a file's name.
    """
    paths = {}
    for row, prompt in enumerate(prompts):
        stem = f"{row:06d}" if layout == "numbered" else prompt
        for sample in range(samples):
            name = f"{stem}-{sample}.mp4"
            fits = "/" not in name and "\0" not in name and len(f"{name}.part".encode()) <= MAX_NAME_BYTES
            require(fits, f"prompt {row} cannot name a file, as --layout vbench wants: {prompt[:60]!r}")
            paths[folder / name] = (prompt, sample)
    return paths


def parse_arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Make videos with a trained model.")
    parser.add_argument("--checkpoint", type=Path, required=True, help="output folder of a training run")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--prompt", help="of one video")
    what.add_argument("--prompts", type=Path, help="one a line, or a CSV with a column 'prompt'")
    parser.add_argument("--output", type=Path, required=True, help="the mp4 to write; with --prompts the folder")
    parser.add_argument("--samples", type=int, default=1, help="videos of each of the --prompts; seeds count up")
    parser.add_argument("--layout", choices=["numbered", "vbench"], default="numbered", help="names of the videos")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--fps", type=float, default=24.0)
    parser.add_argument("--steps", type=int, default=50, help="denoising steps")
    parser.add_argument("--temperature", type=float, default=1.0, help="of the sampled visual tokens")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch_size", type=int, default=1, help="videos that are denoised together")
    parser.add_argument("--ema", action="store_true", help="use the average of the weights")
    parser.add_argument("--local_rank", help=argparse.SUPPRESS)  # the deepspeed launcher's; the environment is used
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Console entry; what the user can mend ends with one line and exit code 2."""
    a = parse_arguments(argv)
    try:
        require(a.samples >= 1, "--samples must be at least 1")
        require(a.batch_size >= 1, "--batch_size must be at least 1")
        if a.prompts:
            paths = video_paths(read_prompts(a.prompts), a.output, a.samples, a.layout)
        else:
            paths = {a.output: (a.prompt, 0)}
        wanted = [Wanted(path, prompt, a.seed + sample) for path, (prompt, sample) in paths.items()]
        missing = [one for one in own_share(wanted) if a.prompt or not one.path.exists()]
        if missing:
            config, framework, _ = load_run(a.checkpoint, a.ema)
        for start in range(0, len(missing), a.batch_size):
            batch = missing[start : start + a.batch_size]
            videos = generate_videos(config, framework, batch, a.seconds, a.fps, a.steps, a.temperature)
            for one, frames in zip(batch, videos):
                print(f"{one.path}: {len(frames)} frames at {a.fps:g} per second", flush=True)
    except (ConfigError, DataError) as error:
        die("generate", error, rank_and_ranks()[0])


if __name__ == "__main__":
    main(sys.argv[1:])
