"""The command line of a study."""

import argparse
from pathlib import Path


def parse_arguments(argv: list[str] | None, description: str, config: Path) -> argparse.Namespace:
    """Parses the arguments of ``study.py`` or ``study_variants.py``.

    Args:
        argv: The arguments; the process's own if ``None``.
        description: What the command does.
        config: The YAML that it reads if none is given.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--config", type=Path, default=config, help="YAML of the study")
    parser.add_argument("--profile", required=True, help="profile in the YAML: smoke, cpu and so on")
    place = parser.add_mutually_exclusive_group(required=True)
    place.add_argument("--output", type=Path, help="folder for the stages and the report")
    place.add_argument("--report", type=Path, help="folder with a results.jsonl: only write its report again")
    parser.add_argument("--publish", type=Path, help="folder to copy results, report and pictures to")
    return parser.parse_args(argv)
