#!/usr/bin/env bash
# Build shards under Slurm:
#
#   sbatch --cpus-per-task 2 slurm/build_shards.sh INPUT --output DIR [--samples-per-shard N]
#SBATCH --job-name=vtok-shards
#SBATCH --ntasks=1
set -euo pipefail

cd "${SLURM_SUBMIT_DIR:-.}"
exec vtok-shards build "$@"
