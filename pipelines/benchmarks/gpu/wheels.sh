#!/usr/bin/env bash
# Gathers what a bare GPU machine (Python 3.12, torch, transformers) lacks into .wheels/site.tar.xz, which git ignores:
#
#   bash pipelines/benchmarks/gpu/wheels.sh            needs a package registry; on_device.sh unpacks the archive there
#
# An archive of installed packages and not the wheels themselves: it is a third smaller, and PyAV alone is 35 MB.
# Repository and archive together must stay below 64 MiB, what travels to the machine; the last line says the sum.
set -euo pipefail
cd "$(dirname "$0")/../../.."

python=3.12
most=$((64 * 1024 * 1024))
missing=(
    "av<19" webdataset braceexpand zlib-ng                  # data_tools
    "diffusers>=0.42,<0.43" importlib-metadata         # vtok; its other needs are there
    "peft>=0.21,<0.22" ftfy wcwidth                    # vtok
    hjson                                              # DeepSpeed; its other needs, pydantic apart, are there
    jsonargparse                                       # pipelines
)
deepspeed=$(sed -n 's/.*"deepspeed>=\([0-9.]*\).*/\1/p' pyproject.toml)

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for_device=(--only-binary=:all: --python-version $python --implementation cp)
for platform in manylinux_2_28 manylinux_2_27 manylinux_2_17 manylinux2014 manylinux1; do
    for_device+=(--platform "${platform}_x86_64")
done
pip download -q "${for_device[@]}" -d "$work/wheels" --no-deps "${missing[@]}"
pip download -q "${for_device[@]}" -d "$work/wheels" pydantic  # with its core, which must be of the very version
# Published as source only; without its kernels, which it compiles where they are used, it is a wheel for any Python.
DS_BUILD_OPS=0 pip wheel -q --no-deps --no-build-isolation -w "$work/wheels" "deepspeed==$deepspeed"
for wheel in "$work"/wheels/*.whl; do
    python3 -m zipfile -e "$wheel" "$work/site"
done

mkdir -p .wheels
tar -C "$work/site" -cf - . | xz -6 -T2 > .wheels/site.tar.xz.part
mv .wheels/site.tar.xz.part .wheels/site.tar.xz

ls "$work/wheels"
archive=$(stat -c %s .wheels/site.tar.xz)
repository=$(git ls-files -z --cached --others --exclude-standard | xargs -0 stat -c %s | awk '{sum += $1} END {print sum}')
sum=$((archive + repository))
echo "archive $archive + repository $repository = $sum of $most bytes"
[ $sum -le $most ]
