"""Samples that could not be read and were replaced: logged, counted over the whole run, and too many stop it."""

import json
from pathlib import Path

from data_tools.errors import DataError
from pipelines.engine import distributed
from pipelines.engine.logs import truncate_log

# The share is judged from this many samples on, so that one early bad clip does not stop a run.
FEWEST_SAMPLES_JUDGED = 1000


class BadSamples:
    """Writes ``bad_samples.jsonl``, on rank 0; all ranks count alike.

    Args:
        output: the run's folder.
        max_share: share of the samples consumed that may be bad.
        step: step the run starts from; what an earlier attempt noted up to there counts, the rest is dropped.
    """

    def __init__(self, output: Path, max_share: float, step: int):
        self.path = output / "bad_samples.jsonl"
        self.max_share = max_share
        self.keys: list[str] = distributed.rank_zero_first(lambda: noted_keys(self.path, step))

    def record(self, step: int, replaced: list[tuple[int, str, str]]) -> int:
        """Note the samples replaced in a step on any rank: (position, bad key, reason) each.

        Returns:
            How many there were in the run.
        """
        self.keys += [key for _, key, _ in replaced]
        if replaced and distributed.rank() == 0:
            with self.path.open("a") as log:
                for position, key, reason in replaced:
                    print(json.dumps(dict(step=step, position=position, key=key, reason=reason)), file=log)
        return len(self.keys)

    def check(self, consumed: int) -> None:
        """Raises DataError, naming the latest keys, past ``max_share`` of the samples consumed."""
        if len(self.keys) > self.max_share * max(consumed, FEWEST_SAMPLES_JUDGED):
            raise DataError(
                f"{len(self.keys)} of {consumed} samples could not be read, more than data.max_bad_share "
                f"{self.max_share:g} allows; the latest are {', '.join(self.keys[-5:])}; see {self.path}"
            )


def noted_keys(path: Path, step: int) -> list[str]:
    """Keys noted up to ``step``; later lines are dropped from the file."""
    truncate_log(path, step)
    return [json.loads(line)["key"] for line in path.read_text().splitlines()] if path.exists() else []
