#!/usr/bin/env bash
# On the GPU machine, from the repository's root, with .wheels carried there (pipelines/benchmarks/gpu/wheels.sh): runs
# the study's profile gpu, with several processes on the one GPU, and leaves results, report and GIFs in $OUT.
#
#   bash pipelines/shapes_study/strategies/on_device.sh 12      processes; about one a core
set -uo pipefail
out=${OUT:?the folder that is brought back}
site=$(mktemp -d)
python3 -m tarfile -e .wheels/site.tar.xz "$site" || exit
export PYTHONPATH=$PWD:$site PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1
for number in $(seq "${1:-12}"); do
    python3 pipelines/study.py --profile gpu --output "$site/study" --publish "$out" > "$out/log-$number.txt" 2>&1 &
done
wait
