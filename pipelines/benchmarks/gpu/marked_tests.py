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
OUTCOME = re.compile(r"\b(PASSED|FAILED|ERROR|SKIPPED)\b")


def findings(sizes: Sizes, device: torch.device) -> Iterator[Finding]:
    """How many passed, failed and were skipped, as they end; fails with what pytest printed where one failed.

    Several run at a time: none of them measures anything.
    """
    files = [path for path in sorted((ROOT / "tests").rglob("test_*.py")) if MARKER in path.read_text()]
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-vv", "-n", "0" if sizes.tiny else "6", "--dist", "load"]
    command += ["-p", "no:cacheprovider", "--color", "no", *map(str, files)]
    output, counts = [], Counter()
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as pytest:
        for line in pytest.stdout:
            output.append(line)
            found = OUTCOME.search(line)
            if found and "::" in line and "short test summary" not in "".join(output):
                counts[found[1]] += 1
                print(f"  {line.strip()}", flush=True)
    for outcome in ("PASSED", "FAILED", "ERROR", "SKIPPED"):
        yield Finding(f"tests {outcome.lower()}", counts[outcome], "tests")
    if pytest.returncode:
        raise AssertionError("".join(output)[-3000:])
