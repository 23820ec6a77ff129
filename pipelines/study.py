"""Tests the paper's claims on small models, from its first clip to its report.

    python pipelines/study.py --profile smoke|cpu|gpu --output DIR [--config pipelines/configs/study.yaml]
    python pipelines/study.py --profile smoke|cpu|gpu --report DIR         writes a report again, from DIR/results.jsonl

Every stage has a folder in DIR. A study that was stopped resumes where it was, even within the training of an arm.
Several processes with the same command share the arms among them.
"""

from pipelines.cli.errors import user_errors
from pipelines.shapes_study.arguments import parse_arguments
from pipelines.shapes_study.config import STUDY, load_study


def main(argv: list[str] | None = None) -> None:
    """Runs the command line. An error that the user can correct ends with one line and exit code 2."""
    with user_errors("study"):
        arguments = parse_arguments(argv, "Test the paper's claims on small models.", STUDY)
        study = load_study(arguments.config, arguments.profile)

        from pipelines.shapes_study.command import (
            run_study,  # only now: this imports the libraries, which takes seconds
        )

        run_study(arguments, study)


if __name__ == "__main__":
    main()
