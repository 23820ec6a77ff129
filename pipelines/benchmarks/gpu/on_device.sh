#!/usr/bin/env bash
# On the GPU machine, from the repository's root, with .wheels carried there: unpacks the packages it lacks, runs the
# kit and leaves <card>.json, <card>.md and log.txt in $OUT. Arguments are the kit's; its table comes last.
#
#   bash pipelines/benchmarks/gpu/on_device.sh --minutes 8
set -uo pipefail
out=${OUT:?the folder that is brought back}
site=$(mktemp -d)
python3 -m tarfile -e .wheels/site.tar.xz "$site" || exit
export PYTHONPATH=$PWD:$site PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1
exec python3 pipelines/bench.py gpu --output "$out" "$@" 2> "$out/log.txt"
