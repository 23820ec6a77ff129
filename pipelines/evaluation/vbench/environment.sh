#!/usr/bin/env bash
# Makes an environment with VBench, which wants numpy < 2 and transformers 4.33:
#     bash pipelines/evaluation/vbench/environment.sh FOLDER
# Tried: Python 3.11, torch 2.14.1, torchvision 0.29.1, vbench 0.1.5. Four dimensions (object_class, multiple_objects, color,
# spatial_relationship) also need detectron2, which VBench's own README tells how to install.
set -euo pipefail
folder=$(realpath -m "${1:?give the folder of the new environment}")

python3 -m venv "$folder"
pip=("$folder/bin/python" -m pip --disable-pip-version-check)
"${pip[@]}" install -q "setuptools<81" wheel torch torchvision "numpy<2"  # vbench imports pkg_resources
"${pip[@]}" install -q "setuptools<81" "numpy<2" "vbench==0.1.5"
"$folder/bin/python" -c "import vbench.temporal_flickering; print('VBench is ready')"
