#!/usr/bin/env bash
# Train under Slurm, one task per rank; sizes come from sbatch flags, not from edits:
#
#   sbatch --nodes 2 --ntasks-per-node 8 --gpus-per-node 8 slurm/train.sh [CONFIG [DS_CONFIG [--section.key value ...]]]
#
# Started again with the same arguments, it continues from its newest complete checkpoint.
#SBATCH --job-name=vtok
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --open-mode=append
set -euo pipefail

cd "${SLURM_SUBMIT_DIR:-.}"
config=${1:-pipelines/configs/llava_next_8b_hunyuan.yaml}
ds_config=${2:-deepspeed_configs/zero3.json}
shift $(($# < 2 ? $# : 2))

# The ranks meet at the first node's address, on a port that two jobs on it are unlikely to share.
first_node=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
MASTER_ADDR=$(scontrol show node "$first_node" | sed -n 's/.*NodeAddr=\([^ ]*\).*/\1/p')
MASTER_PORT=$((20000 + SLURM_JOB_ID % 20000))
export MASTER_ADDR MASTER_PORT

srun --kill-on-bad-exit=1 bash -c '
    export RANK=$SLURM_PROCID LOCAL_RANK=$SLURM_LOCALID WORLD_SIZE=$SLURM_NTASKS
    exec python pipelines/train.py "$@"
' train --config "$config" --ds_config "$ds_config" --output "runs/$(basename "${config%.yaml}")" --resume auto "$@"
