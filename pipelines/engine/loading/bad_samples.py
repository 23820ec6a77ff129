"""Logs and counts the samples of a run that could not be read and were replaced. Too many stop the run."""

import json
from pathlib import Path

from data_tools.errors import DataError
from pipelines.engine import distributed
from pipelines.engine.logs import PatientFile, truncate_log

# The share counts at least this many samples, so one early bad clip does not stop a run.
FEWEST_SAMPLES_JUDGED = 1000


class BadSamples:
    """Writes ``bad_samples.jsonl`` on rank 0. All ranks count the same samples.

    Args:
        output: The run's folder.
        max_share: The share of consumed samples that may be bad.
        step: The step that the run starts from. Entries of an earlier attempt count up to there; later ones are
            removed.
    """

    def __init__(self, output: Path, max_share: float, step: int):
        self.path = output / "bad_samples.jsonl"
        self.max_share = max_share
        self.log: PatientFile | None = None
        self.keys: list[str] = distributed.rank_zero_first(lambda: noted_keys(self.path, step))

    def record(self, step: int, replaced: list[tuple[int, str, str]]) -> int:
        """Records the samples that any rank replaced in a step: (position, bad key, reason) each.

        Returns:
            Their number in the run so far.
        """
        self.keys += [key for _, key, _ in replaced]
        if replaced and distributed.rank() == 0:
            self.log = self.log or PatientFile(self.path)
            for position, key, reason in replaced:
                line = json.dumps(dict(step=step, position=position, key=key, reason=reason))
                self.log.write(line.encode() + b"\n")
            self.log.flush()
        return len(self.keys)

    def check(self, consumed: int) -> None:
        """Raises DataError if more than ``max_share`` of the consumed samples were bad. It names the latest keys."""
        if len(self.keys) > self.max_share * max(consumed, FEWEST_SAMPLES_JUDGED):
            raise DataError(
                f"{len(self.keys)} of {consumed} samples could not be read, more than data.max_bad_share "
                f"{self.max_share:g} allows; the latest are {', '.join(self.keys[-5:])}; see {self.path}"
            )


def noted_keys(path: Path, step: int) -> list[str]:
    """Returns the keys recorded up to ``step``. Removes later lines from the file."""
    truncate_log(path, step)
    return [json.loads(line)["key"] for line in path.read_text().splitlines()] if path.exists() else []
