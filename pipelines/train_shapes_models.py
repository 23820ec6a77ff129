"""Trains the small models that vtok ships, from nothing: CLIP, LLaVA-Next and HunyuanVideo for the shapes world.

    nice -n 19 python pipelines/train_shapes_models.py --profile smoke|cpu --output DIR

Every stage has a folder in DIR. Started again, the command resumes where it was, even within a training. DIR/family
holds the models; vtok/shapes_models/ is a copy of it.
"""

import argparse
from pathlib import Path

from pipelines.cli.errors import user_errors
from pipelines.shapes_models.config import PROFILES, load_models


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train the small models that vtok ships.")
    parser.add_argument("--config", type=Path, default=PROFILES, help="YAML of the profiles")
    parser.add_argument("--profile", required=True, help="profile in the YAML: smoke, cpu")
    parser.add_argument("--output", type=Path, required=True, help="folder for the stages and the models")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Runs the command line. An error that the user can correct ends with one line and exit code 2."""
    with user_errors("train_shapes_models"):
        arguments = parse_arguments(argv)
        models = load_models(arguments.config, arguments.profile)

        from pipelines.shapes_models.command import run  # only now: this imports the libraries, which takes seconds

        print(run(models, arguments.output))


if __name__ == "__main__":
    main()
