"""The tests that only a GPU can run, in processes of their own."""

import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import torch

from pipelines.benchmarks.gpu.findings import Finding
from pipelines.benchmarks.gpu.sizes import Sizes

ROOT = Path(__file__).parents[3]
MARKER = "mark.gpu"
ENDED = re.compile(r"(PASSED|FAILED|ERROR|SKIPPED)\b")
NAME = re.compile(r"::(\S+)")
TOLD_AGAIN = "short test summary info"
LAST = 3000  # characters of what pytest printed that are kept of a failure


def findings(sizes: Sizes, device: torch.device) -> Iterator[Finding]:
    """Each test as it ends, then how many passed, failed and were skipped; several run at a time.

    Raises:
        AssertionError: a test failed; with the end of what pytest printed.
    """
    files = [path for path in sorted((ROOT / "tests").rglob("test_*.py")) if MARKER in path.read_text()]
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-vv", "--color", "no", "-p", "no:cacheprovider"]
    command += ["-n", "0" if sizes.tiny else "6", "--dist", "load", *map(str, files)]
    output, counts = "", Counter()
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as pytest:
        for line in pytest.stdout:
            output += line
            ended, name = ENDED.search(line), NAME.search(line)
            if ended and name and TOLD_AGAIN not in output:
                outcome = ended[1].lower()
                counts[outcome] += 1
                yield Finding(name[1], None, "", note=outcome)
    for outcome in ("passed", "failed", "error", "skipped"):
        yield Finding(f"tests {outcome}", counts[outcome], "tests")
    if pytest.returncode:
        raise AssertionError(output[-LAST:])
