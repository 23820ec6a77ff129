#!/usr/bin/env bash
# Makes an environment with lmms-eval, which wants other versions than we do (av < 16), and VTok as a model of it:
#     bash pipelines/evaluation/lmms_eval_model/environment.sh FOLDER
# Tried: Python 3.11, torch 2.13.0 (CPU), lmms-eval 0.7.3.
set -euo pipefail
folder=${1:?give the folder of the new environment}
root=$(cd "$(dirname "$0")/../../.." && pwd)

python3 -m venv "$folder"
"$folder/bin/pip" install -q -e "$root" "lmms-eval==0.7.3"
if ! "$folder/bin/python" -c "import torchvision" 2>/dev/null; then
    # PyPI's torchvision is of torch's CUDA build. Neither VTok nor the suites of the paper's Table 3 need it.
    echo "torchvision does not fit this torch and is removed"
    "$folder/bin/pip" uninstall -q -y torchvision
fi
"$folder/bin/python" -c "from lmms_eval.models import get_model; print(get_model('vtok'), 'is ready')"
