"""Tests the paper's claims on small models: every tokenisation strategy from the same models, clips and noise.

    python pipelines/study.py --profile smoke|pilot|cpu|gpu --output DIR [--publish FOLDER]
    python pipelines/study.py --profile smoke|pilot|cpu|gpu --report DIR    writes the report of its results.jsonl again

It starts from the models that the package ships. Every stage has a folder in DIR. A study that was stopped resumes
where it was, even within the training of an arm. Several processes with the same command share the runs among them.
"""

from pipelines.cli.errors import user_errors
from pipelines.shapes_study.arguments import parse_arguments
from pipelines.shapes_study.strategies.config import STRATEGIES, load_strategies


def main(argv: list[str] | None = None) -> None:
    """Runs the command line. An error that the user can correct ends with one line and exit code 2."""
    with user_errors("study"):
        arguments = parse_arguments(argv, "Test the paper's claims on small models.", STRATEGIES)
        config = load_strategies(arguments.config, arguments.profile)

        from pipelines.shapes_study.strategies.command import (
            run_study,  # only now: this imports the libraries, which takes seconds
        )

        run_study(arguments, config)


if __name__ == "__main__":
    main()
