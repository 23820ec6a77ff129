#!/usr/bin/env bash
# Makes an environment with lmms-eval, which wants some versions that do not fit ours, and VTok as a model of it:
#     bash pipelines/evaluation/lmms_eval_model/environment.sh FOLDER
# Tried: Python 3.11, lmms-eval 0.7.3, torch 2.13.0 (CPU), transformers 5.24, datasets 5.2, av 18.1, filelock 3.
set -euo pipefail
folder=$(realpath -m "${1:?give the folder of the new environment}")
root=$(cd "$(dirname "$0")/../../.." && pwd)

python3 -m venv "$folder"
pip=("$folder/bin/python" -m pip --disable-pip-version-check)
"${pip[@]}" install -q --no-deps "lmms-eval==0.7.3"
# What it needs, in other words than its own. latex2sympy2 wants another antlr4 than math-verify, so no resolver finds a
# solution. It asks for av < 16, but VTok reads index_entries, which av has from 17 on. ruff and pre-commit are tools of
# its developers. It reaches into filelock 3. The suites of the paper's Table 3 need none of what is left out.
"$folder/bin/python" - > "$folder/requirements.txt" <<'PYTHON'
import re
from importlib.metadata import requires
for line in requires("lmms-eval"):
    if "extra ==" not in line and re.match(r"[\w-]+", line)[0] not in ("latex2sympy2", "av", "ruff", "pre-commit"):
        print(line)
PYTHON
"${pip[@]}" install -q -e "$root" -r "$folder/requirements.txt" "filelock<4"
if ! "$folder/bin/python" -c "import torchvision" 2>/dev/null; then
    # PyPI's torchvision is of torch's CUDA build, and timm imports it. Neither VTok nor those suites need them.
    echo "torchvision does not fit this torch and is removed, with timm"
    "${pip[@]}" uninstall -q -y torchvision timm
fi
cd "$root"  # metadata of another checkout in the current folder would hide ours
"$folder/bin/python" -c "from lmms_eval.models import get_model; print(get_model('vtok').__name__, 'is ready')"
