"""Compares variants of the motion token on small models: the same tokens and parameters, other contents.

    python pipelines/study_variants.py --profile smoke|cpu --output DIR [--publish FOLDER]
    python pipelines/study_variants.py --profile smoke|cpu --report DIR    writes a report again, from DIR/results.jsonl

It is short, since it starts from the models that the package ships and asks questions only. A study that was stopped
resumes where it was. Several processes with the same command share the runs among them.
"""

from pipelines.cli.errors import user_errors
from pipelines.shapes_study.arguments import parse_arguments
from pipelines.shapes_study.variants.config import VARIANTS, load_variants


def main(argv: list[str] | None = None) -> None:
    """Runs the command line. An error that the user can correct ends with one line and exit code 2."""
    with user_errors("study_variants"):
        arguments = parse_arguments(argv, "Compare variants of the motion token on small models.", VARIANTS)
        config = load_variants(arguments.config, arguments.profile)

        from pipelines.shapes_study.variants.command import (
            run_variants,  # only now: this imports the libraries, which takes seconds
        )

        run_variants(arguments, config)


if __name__ == "__main__":
    main()
