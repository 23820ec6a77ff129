#!/usr/bin/env bash
# Build shards under Slurm, on one node or as an array job of independent parts:
#
#   sbatch --cpus-per-task 16 slurm/build_shards.sh INPUT --output DIR [OPTION ...]
#   sbatch --cpus-per-task 16 --array 0-7 slurm/build_shards.sh INPUT --output DIR [OPTION ...]
#
# The part that finishes last merges. If a slow network file system hides the other parts' last shards from it, run
# `vtok-shards merge DIR`. A job or part that is started again resumes where it stopped.
#SBATCH --job-name=vtok-shards
#SBATCH --ntasks=1
#SBATCH --open-mode=append
#SBATCH --requeue
set -euo pipefail

cd "${SLURM_SUBMIT_DIR:-.}"
part=0/1
if [[ -n "${SLURM_ARRAY_TASK_ID:-}" ]]; then
    if ((SLURM_ARRAY_TASK_MAX - SLURM_ARRAY_TASK_MIN + 1 != SLURM_ARRAY_TASK_COUNT)); then
        echo "vtok-shards: error: the array's numbers have gaps: give it as --array 0-$((SLURM_ARRAY_TASK_COUNT - 1))" >&2
        exit 2
    fi
    part=$((SLURM_ARRAY_TASK_ID - SLURM_ARRAY_TASK_MIN))/$SLURM_ARRAY_TASK_COUNT
fi
exec vtok-shards build --workers "${SLURM_CPUS_PER_TASK:-1}" --part "$part" "$@"
