"""Refuses what must not be committed: files above 500 KB, names with spaces or commas, paths of a machine.

python .ci/committed_files.py [FILE ...]      all tracked files without a name
"""

import re
import subprocess
import sys
from pathlib import Path

LARGEST = 500 * 1024
MODELS = "vtok/shapes_models/"  # the shipped small models may be larger
MACHINE_PATH = re.compile(r"(?<![\w./~$}])/(?:tmp/\w|work/|home/\w|root/)")


def main(names: list[str]) -> int:
    names = names or subprocess.run(["git", "ls-files"], check=True, capture_output=True, text=True).stdout.splitlines()
    problems = [f"{name}: {problem}" for name in names for problem in problems_of(name)]
    print("\n".join(problems), end="\n" if problems else "")
    return 1 if problems else 0


def problems_of(name: str) -> list[str]:
    """What is wrong with one file, a phrase each."""
    path, found = Path(name), []
    if not path.is_file():
        return found
    if re.search(r"[ ,]", name):
        found.append("a space or a comma in its name")
    if path.stat().st_size > LARGEST and not name.startswith(MODELS):
        found.append(f"{path.stat().st_size // 1024} KB, above {LARGEST // 1024}")
    if not name.startswith("tests/"):  # which name files that are not there
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
            if MACHINE_PATH.search(line):
                found.append(f"line {number} names a path of a machine")
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
