"""Which of several main processes this is: told by arguments, or by the environment that their launcher sets."""

from __future__ import annotations

import os

from splitpipe.lane import outer_lane

__all__ = ["find_rank"]

# What torchrun, mpirun (Open MPI), mpiexec (MPICH, Intel) and srun set in each process that they start. srun's step is
# asked for, not the job: in a batch script itself, which is one process, the job's variables are set too.
_LAUNCHERS = (
    ("RANK", "WORLD_SIZE"),
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    ("PMI_RANK", "PMI_SIZE"),
    ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS"),
)


def find_rank(rank: int | None, world_size: int | None) -> tuple[int, int]:
    """Return rank and world size: the arguments, or the lane this runs in, or what the environment says, or 0 and 1.

    Raises:
        ValueError: only one is given, or they do not fit each other.
    """
    if (rank is None) != (world_size is None):
        raise ValueError(f"rank and world_size go together, and got rank={rank}, world_size={world_size}")
    source = ""
    outer = outer_lane()
    if outer is not None and rank is None:
        return outer.number, outer.world_size * outer.count  # a pipeline in a lane does that lane's share
    if rank is None or world_size is None:
        rank, world_size = 0, 1
        for name_of_rank, name_of_size in _LAUNCHERS:
            if name_of_rank in os.environ and name_of_size in os.environ:
                source = f" (from {name_of_rank} and {name_of_size} in the environment)"
                rank, world_size = _number(name_of_rank), _number(name_of_size)
                break
    if not 0 <= rank < world_size:
        raise ValueError(f"rank counts from 0 to world_size - 1, and got {rank} of {world_size}{source}")
    return rank, world_size


def _number(name: str) -> int:
    try:
        return int(os.environ[name])
    except ValueError:
        raise ValueError(
            f"{name}={os.environ[name]!r} in the environment is no number: pass rank= and world_size=, or unset it"
        ) from None
