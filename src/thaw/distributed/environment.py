"""What environment variables say of this process among those of its run."""

import os

FAILURE_VARIABLE, PARENT_VARIABLE = "THAW_FAILURE_FILE", "THAW_PARENT"
"""Of processes that thaw started: where the first to fail writes why; the number of the process that waits for them."""


def place() -> tuple[int, int] | None:
    """(rank, number of processes) where torchrun, srun or thaw started them, as Lightning finds it; else None."""
    if "TORCHELASTIC_RUN_ID" in os.environ:
        return int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    if "SLURM_NTASKS" in os.environ and os.environ.get("SLURM_JOB_NAME") not in ("bash", "interactive"):
        return int(os.environ.get("SLURM_PROCID", 0)), int(os.environ["SLURM_NTASKS"])
    if PARENT_VARIABLE in os.environ:
        # Lightning takes WORLD_SIZE away when a trainer is done.
        return int(os.environ["RANK"]), int(os.environ.get("WORLD_SIZE", 0))
    return None
