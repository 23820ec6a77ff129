"""Tests the paper's claims on small models, from its first clip to its report.

    python pipelines/study.py --profile smoke|cpu|gpu --output DIR [--config pipelines/configs/study.yaml]
    python pipelines/study.py --profile smoke|cpu|gpu --report DIR         writes a report again, from DIR/results.jsonl

Every stage has a folder in DIR. A study that was stopped resumes where it was, even within the training of an arm.
Several processes with the same command share the arms among them.
"""

import argparse
from pathlib import Path

from pipelines.cli.errors import user_errors
from pipelines.shapes_study.config import STUDY, load_study


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Test the paper's claims on small models.")
    parser.add_argument("--config", type=Path, default=STUDY, help="YAML of the study")
    parser.add_argument("--profile", required=True, help="profile in the YAML: smoke, cpu, gpu")
    place = parser.add_mutually_exclusive_group(required=True)
    place.add_argument("--output", type=Path, help="folder for the stages and the report")
    place.add_argument("--report", type=Path, help="folder with a results.jsonl: only write its report again")
    parser.add_argument("--publish", type=Path, help="folder to copy results, report and pictures to")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Runs the command line. An error that the user can correct ends with one line and exit code 2."""
    with user_errors("study"):
        arguments = parse_arguments(argv)
        study = load_study(arguments.config, arguments.profile)

        from pipelines.shapes_study.command import (
            run_study,  # only now: this imports the libraries, which takes seconds
        )

        run_study(arguments, study)


if __name__ == "__main__":
    main()
