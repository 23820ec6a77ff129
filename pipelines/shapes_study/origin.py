"""Where a report comes from: the command and the commit."""

import subprocess
from argparse import Namespace
from pathlib import Path

RESULTS = "results.jsonl"


def origin_of(command: str, a: Namespace, default: Path) -> str:
    """Returns the command and the commit that a study is made by.

    Args:
        command: File name of the command.
        a: Its arguments.
        default: The YAML that it reads if none is given.
    """
    config = "" if a.config == default else f"--config {a.config.name} "
    return f"`python pipelines/{command} {config}--profile {a.profile} --output DIR` at commit {commit()}"


def commit() -> str:
    """Returns the short hash of the checked-out commit, marked if tracked files differ from it.

    The published report itself does not count.
    """
    here, published = Path(__file__).parent, ":(exclude,top)pipelines/study_report"
    said = [
        subprocess.run(["git", *words], cwd=here, text=True, capture_output=True).stdout.strip()
        for words in (
            ("rev-parse", "--short", "HEAD"), ("status", "--porcelain", "--untracked-files=no", "--", ":/", published),
        )
    ]  # fmt: skip
    return (said[0] or "unknown") + " with changes" * bool(said[1])
