#!/usr/bin/env bash
# Train under Slurm, one task per rank. Set sizes by sbatch flags; no edits are needed:
#
#   sbatch --nodes 2 --ntasks-per-node 8 --gpus-per-node 8 slurm/train.sh [CONFIG [DS_CONFIG]] --data.shards DIR [OPTION ...]
#
# By default a task gets 8 cores (--cpus-per-task) and a job gets all memory of its nodes (--mem). OMP_NUM_THREADS
# defaults to the number of cores.
#
# Five minutes before its time limit, and on `scancel --signal=USR1 JOB`, the run saves and the job is requeued. It is
# requeued too if a rank is lost (killed, out of memory, a hung collective) or a disk fails (exit code 74). At most
# VTOK_RESTARTS (default 3) restarts in a row bring no new checkpoint: then the job ends. An error that the user must mend
# (exit code 2) ends it at once. A run that is started again with the same arguments, by Slurm or by hand, resumes from its
# newest complete checkpoint.
#SBATCH --job-name=vtok
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --mem=0
#SBATCH --signal=USR1@300
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail

cd "${SLURM_SUBMIT_DIR:-.}"
config=pipelines/configs/llava_next_8b_hunyuan.yaml
ds_config=deepspeed_configs/zero3.json
[[ ${1:---} == --* ]] || { config=$1 && shift; }
[[ ${1:---} == --* ]] || { ds_config=$1 && shift; }

# Here and not in each rank: a rank that fails is started again.
if ! python -c 'from importlib.util import find_spec; exit(find_spec("deepspeed") is None)' 2>/dev/null; then
    echo "vtok-train: error: $(command -v python || echo python) has no deepspeed: activate vtok's environment, then sbatch" >&2
    exit 2
fi

# The ranks connect to the first node. The port lies below Linux's ephemeral ports, is probably unique among the jobs
# of the node, and changes with each requeue.
first_node=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
MASTER_ADDR=$(scontrol show node "$first_node" | sed -n 's/.*NodeAddr=\([^ ]*\).*/\1/p')
MASTER_PORT=$((20000 + (SLURM_JOB_ID * 16 + ${SLURM_RESTART_COUNT:-0}) % 12000))
export MASTER_ADDR MASTER_PORT
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$SLURM_CPUS_PER_TASK}

output=runs/$(basename "${config%.yaml}")
arguments=(--config "$config" --ds_config "$ds_config" --output "$output" --resume auto "$@")
while (($#)); do # an --output among the arguments wins
    [[ $1 != --output ]] || output=$2
    [[ $1 != --output=* ]] || output=${1#--output=}
    shift
done

# A task that ends with 2, an error of the user, leaves this file: srun ends the others and returns their higher code.
export VTOK_USER_ERROR=$PWD/slurm-$SLURM_JOB_ID.user_error

# Since Slurm 22.05 srun does not inherit --cpus-per-task from the job.
code=0
srun --kill-on-bad-exit=1 --cpus-per-task="$SLURM_CPUS_PER_TASK" bash -c '
    export RANK=$SLURM_PROCID LOCAL_RANK=$SLURM_LOCALID WORLD_SIZE=$SLURM_NTASKS
    exec python pipelines/train.py "$@"
' train "${arguments[@]}" || code=$?
if [[ -e $VTOK_USER_ERROR ]]; then
    rm "$VTOK_USER_ERROR"
    code=2
fi

# 75: the run saved and stopped early. 138: USR1 arrived before a task had installed its signal handler.
reason() {
    case $code in
        75 | 138) echo "stopped early" ;;
        74) echo "a disk failed" ;;
        *) echo "a rank was lost" ;;
    esac
}

# Counts the restarts since the newest checkpoint in OUTPUT/restarts. Fails if there were too many.
may_restart() {
    local newest before=none count=0
    # By time: a run in stages has checkpoints in each, and one that is set aside keeps its higher step.
    newest=$(find "$output"/{,stage_*/}checkpoints -maxdepth 2 -name COMPLETE -printf '%T@ %p\n' 2>/dev/null |
        sort -n | tail -n 1)
    newest=${newest#* }
    newest=${newest:-start}
    [[ ! -f $output/restarts ]] || { read -r count && read -r before; } <"$output/restarts" || true
    [[ $before == "$newest" ]] || count=0
    ((count < ${VTOK_RESTARTS:-3})) || return 1
    mkdir -p "$output" && printf '%s\n' $((count + 1)) "$newest" >"$output/restarts"
    echo "$(reason) ($code): restart $((count + 1)) of at most ${VTOK_RESTARTS:-3} after $newest"
}

# A job that is not RUNNING was cancelled or is already being requeued.
if [[ $code != 0 && $code != 2 && $(squeue --noheader --jobs "$SLURM_JOB_ID" --format %T) == RUNNING ]]; then
    if may_restart; then
        scontrol requeue "$SLURM_JOB_ID" || true
    else
        echo "$(reason) ($code), again without a new checkpoint: the job ends"
        [[ $(reason) != "stopped early" ]] || echo "is its time limit long enough for the start, a step and five minutes?"
    fi
fi
exit $code
