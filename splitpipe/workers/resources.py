"""How much memory and how many cores there are for this process: the machine's, or what its cgroup leaves it."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["available_bytes", "default_max_bytes", "out_of_memory_kills", "usable_cores"]

_CGROUP = Path("/sys/fs/cgroup")
# Of the memory that is really available: the rest is the user's, and the page cache's.
_SHARE = 4


def available_bytes() -> int:
    """Return how much memory can be had now, without swapping and within the cgroup's limit."""
    import psutil  # here, for to import it costs a tenth of importing numpy

    available: int = psutil.virtual_memory().available
    for limit, used in ((_number("memory.max"), _number("memory.current")), _version_1()):
        if limit is not None and used is not None:
            available = min(available, max(0, limit - used))
    return available


def default_max_bytes() -> int:
    """Return how much shared memory a pipeline may use unless it is told."""
    return available_bytes() // _SHARE


def out_of_memory_kills() -> int:
    """Return how many processes of this cgroup were killed for want of memory so far; 0 where that is not known."""
    try:
        lines = (_folder() / "memory.events").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    counts = dict(line.split(" ", 1) for line in lines if " " in line)
    return int(counts.get("oom_kill", 0))


def usable_cores() -> int:
    """Return how many cores this process may use, by its affinity and its cgroup's quota; at least 1."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = (_folder() / "cpu.max").read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return cores
    if quota != "max":
        cores = min(cores, round(int(quota) / int(period)))
    return max(1, cores)


def _folder() -> Path:
    """Return where the cgroup of this process is, as seen from here."""
    try:
        lines = Path("/proc/self/cgroup").read_text(encoding="ascii").splitlines()
    except OSError:
        return _CGROUP
    own = next((line[3:] for line in lines if line.startswith("0::")), "/")
    folder = _CGROUP / own.lstrip("/")
    # In a container the path is that outside of it.
    return folder if (folder / "memory.max").exists() or (folder / "cpu.max").exists() else _CGROUP


def _number(name: str, folder: Path | None = None) -> int | None:
    try:
        return int(((folder or _folder()) / name).read_text(encoding="ascii"))
    except (OSError, ValueError):  # not there, or "max"
        return None


def _version_1() -> tuple[int | None, int | None]:
    folder = _CGROUP / "memory"
    return _number("memory.limit_in_bytes", folder), _number("memory.usage_in_bytes", folder)
