"""How much memory and how many cores there are for this process: the machine's, or what its cgroup leaves it.

https://docs.kernel.org/admin-guide/cgroup-v2.html and, for version 1, .../cgroup-v1/memory.html
"""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["available_bytes", "default_max_bytes", "out_of_memory_kills", "usable_cores"]

_CGROUP = Path("/sys/fs/cgroup")
_OWN = Path("/proc/self/cgroup")
# Of the memory that is really available: the rest is the user's, and the page cache's.
_SHARE = 4


def available_bytes() -> int:
    """Return how much memory can be had now, without swapping and within the cgroup's limit."""
    import psutil  # here, for to import it costs a tenth of importing numpy

    available: int = psutil.virtual_memory().available
    for folder in _folders("memory"):
        limit = _number(folder / "memory.max", folder / "memory.limit_in_bytes")
        used = _number(folder / "memory.current", folder / "memory.usage_in_bytes")
        if limit is not None and used is not None:
            # What is cached of files counts as used, and is given up when something else needs it.
            counts = _counts(folder / "memory.stat")
            cached = counts.get("inactive_file", 0) + counts.get("active_file", 0)
            available = min(available, max(0, limit - used + cached))
    return available


def default_max_bytes() -> int:
    """Return how much shared memory a pipeline may use unless it is told."""
    return available_bytes() // _SHARE


def out_of_memory_kills() -> int:
    """Return how many processes of this cgroup were killed for want of memory so far; 0 where that is not known."""
    kills = 0
    for folder in _folders("memory"):
        for name in ("memory.events", "memory.oom_control"):
            kills = max(kills, _counts(folder / name).get("oom_kill", 0))
    return kills


def usable_cores() -> int:
    """Return how many cores this process may use, by its affinity and its cgroup's quota; at least 1."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for folder in _folders("cpu"):
        quota, period = _number(folder / "cpu.cfs_quota_us"), _number(folder / "cpu.cfs_period_us")
        words = _text(folder / "cpu.max").split()
        if len(words) == 2 and words[0] != "max":
            quota, period = int(words[0]), int(words[1])
        if quota is not None and quota > 0 and period:
            cores = min(cores, max(1, round(quota / period)))
    return cores


def _folders(controller: str) -> list[Path]:
    """Return where the cgroup of this process may be, as seen from here: of version 2, of version 1."""
    folders = []
    for line in _text(_OWN).splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers or controller in controllers.split(","):
            root = _CGROUP / controllers if controllers else _CGROUP
            folder = root / path.lstrip("/")
            # In a container the path is that outside of it, and the root what is its own.
            folders.append(folder if folder.is_dir() else root)
    return folders


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except OSError:
        return ""


def _number(*paths: Path) -> int | None:
    """Return the number in the first of these files that holds one; None if none does, as where it says "max"."""
    for path in paths:
        text = _text(path).strip()
        if text.lstrip("-").isdigit():
            return int(text)
    return None


def _counts(path: Path) -> dict[str, int]:
    """Return the named numbers in a file of lines such as `oom_kill 2`."""
    words = [line.split() for line in _text(path).splitlines()]
    return {line[0]: int(line[1]) for line in words if len(line) == 2 and line[1].isdigit()}
