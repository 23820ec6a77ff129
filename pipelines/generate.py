"""Make videos with a trained model.

    python pipelines/generate.py --checkpoint OUTPUT --prompt "A red circle moves up." --output x.mp4
    torchrun --nproc_per_node 8 pipelines/generate.py --checkpoint OUTPUT --prompts FILE --output DIR \\
        --samples 5 --layout vbench

Many prompts are shared out among the ranks, each of which denoises ``--batch_size`` videos together; started again,
only those that are not there yet are made.
"""

import argparse
from pathlib import Path

from pipelines.cli.checks import (
    MAX_SAMPLES,
    require_ending,
    require_generation,
    require_new_file,
    require_new_folder,
    require_text,
)
from pipelines.cli.errors import user_errors
from pipelines.cli.steps import add_step, with_step
from vtok.config import require
from vtok.sampling import Sampling


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Make videos with a trained model.")
    parser.add_argument("--checkpoint", type=Path, required=True, help="a run's folder, a checkpoint's, or an export")
    add_step(parser)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--prompt", help="of one video")
    what.add_argument("--prompts", type=Path, help="one a line, or a table (.csv, .jsonl, …) with a column 'prompt'")
    parser.add_argument("--output", type=Path, required=True, help="the mp4 to write; with --prompts the folder")
    parser.add_argument("--samples", type=int, default=1, help="videos of each of the --prompts; seeds count up")
    parser.add_argument("--layout", choices=["numbered", "vbench"], default="numbered", help="names of the videos")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--fps", type=float, help="frames per second of the file (default: the decoder's)")
    parser.add_argument("--steps", type=int, default=50, help="denoising steps")
    parser.add_argument("--temperature", type=float, default=1.0, help="of the sampled visual tokens")
    parser.add_argument("--top_components", type=int, help="likeliest Gaussians of the head gmm that take part (all)")
    parser.add_argument(
        "--visual_guidance", type=float, default=1.0, metavar="SCALE",
        help="leads visual tokens away from those without text; 1 is off, above 1 needs data.text_dropout in training",
    )  # fmt: skip
    parser.add_argument("--candidates", type=int, default=1, help="samples of the tokens; the likeliest one is shown")
    parser.add_argument(
        "--best_of", type=int, default=1, metavar="N",
        help="videos made of a prompt; the one that the model itself would describe by the prompt is kept",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch_size", type=int, default=1, help="videos that are denoised together")
    parser.add_argument("--ema", action="store_true", help="use the average of the weights")
    parser.add_argument("--local_rank", help=argparse.SUPPRESS)  # the deepspeed launcher's; the environment is used
    a = with_step(parser.parse_args(argv))
    require(1 <= a.samples <= MAX_SAMPLES, f"--samples must lie between 1 and {MAX_SAMPLES:,}, not {a.samples}")
    require_generation(a)
    a.sampling = Sampling(a.temperature, a.top_components, a.visual_guidance, a.candidates, a.best_of)
    if a.prompts:
        require_new_folder("--output", a.output)
    else:
        require_text("--prompt", a.prompt)
        require_new_file("--output", a.output)
        require_ending("--output", a.output, ".mp4")
    return a


def main(argv: list[str] | None = None) -> None:
    """Console entry; what the user can mend ends with one line and exit code 2."""
    with user_errors("generate"):
        arguments = parse_arguments(argv)

        from pipelines.inference.generate import (
            generate_missing,  # only now: this imports the libraries, which takes seconds
        )

        generate_missing(arguments)


if __name__ == "__main__":
    main()
