"""Store frozen features, and latents and captions if asked for, with the clips: training then runs no encoder.

    python pipelines/precompute.py DIR --output DIR2 --config X.yaml
        [--latents [--drop-video]] [--captions] [--section.key value]

On several ranks (with the deepspeed launcher) each takes whole shards. Started again, it goes on with the unfinished
shards. Training on DIR2 uses what is stored if its own configuration gives the same recipe, and names what differs if
it does not.
"""

import argparse
from pathlib import Path

from pipelines.cli.checks import require_new_folder
from pipelines.cli.errors import user_errors
from pipelines.cli.parsing import parse_run_arguments
from pipelines.config import RunConfig
from vtok.config import require


def parse_arguments(argv: list[str] | None) -> tuple[argparse.Namespace, RunConfig]:
    """The command's own arguments, and the configuration that the others make."""
    parser = argparse.ArgumentParser(description="Store frozen features, latents and captions with the clips.")
    parser.add_argument("input", metavar="DIR", help="dataset of shards")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR2")
    parser.add_argument("--latents", action="store_true", help="store the autoencoder's posterior too")
    parser.add_argument("--captions", action="store_true", help="store what the decoder's own text encoder gives")
    parser.add_argument("--drop-video", action="store_true", help="leave the video out; needs --latents")
    known, rest = parser.parse_known_args(argv)
    require_new_folder("--output", known.output)
    config = parse_run_arguments(rest).config
    require(config.data.window == "centred", "stored features are of one window: set data.window to centred")
    require(
        not config.data.buckets,
        "stored features are of one window and size, and a run with data.buckets refuses them: leave out data.buckets",
    )
    require(known.latents or not known.drop_video, "--drop-video needs --latents: L_dec is made from one of them")
    require(
        config.model.generates or not (known.latents or known.captions),
        f"mllm.kind {config.model.mllm.kind} has no decoder, so no latents and no captions for it: leave out --latents "
        "and --captions",
    )
    return known, config


def main(argv: list[str] | None = None) -> None:
    """Console entry; what the user can mend ends with one line and exit code 2."""
    with user_errors("precompute"):
        arguments, config = parse_arguments(argv)

        from pipelines.engine.precomputing import (
            precompute_shards,  # only now: this imports the libraries, which takes seconds
        )

        precompute_shards(arguments, config)


if __name__ == "__main__":
    main()
