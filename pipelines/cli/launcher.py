"""What a launcher (deepspeed, torchrun, srun) tells a process of its rank, before any rendezvous."""

import os


def rank_and_ranks() -> tuple[int, int]:
    """Returns this process's rank and the number of ranks, from the launcher's environment variables.

    Inside a step of ``srun``, Slurm's own variables are used, and ``LOCAL_RANK`` is set.
    """
    if "RANK" in os.environ:
        return int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    if "SLURM_STEP_NUM_TASKS" in os.environ:
        os.environ.setdefault("LOCAL_RANK", os.environ["SLURM_LOCALID"])
        return int(os.environ["SLURM_PROCID"]), int(os.environ["SLURM_STEP_NUM_TASKS"])
    return 0, 1
