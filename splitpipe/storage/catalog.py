"""Which segments a directory holds: their names, their order, and where work in progress lies.

segment-<16 hex digits: nanoseconds since 1970>-<8 hex digits of its id>   committed
.writing-<32 hex digits: its id>                                           being written, invisible to readers
.removed-<name of a segment>                                               being removed, invisible to readers
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import time
import uuid
from pathlib import Path

__all__ = [
    "Claim",
    "is_claimed",
    "new_segment_name",
    "remove_segment",
    "removed_paths",
    "segment_name_beside",
    "segment_paths",
    "work_path",
    "work_paths",
]

_COMMITTED = re.compile(r"segment-([0-9a-f]{16})-[0-9a-f]{8}")
_WORK = re.compile(r"\.writing-[0-9a-f]{32}")


def segment_paths(directory: Path) -> list[Path]:
    """Return the committed segments of `directory`, oldest commit first; empty if there is no such directory."""
    try:
        return sorted(path for path in directory.iterdir() if _COMMITTED.fullmatch(path.name))
    except (FileNotFoundError, NotADirectoryError):
        return []


def work_path(directory: Path, segment: uuid.UUID) -> Path:
    """Return where `segment` is written until it is committed."""
    return directory / f".writing-{segment.hex}"


def work_paths(directory: Path) -> list[Path]:
    """Return what is being written in `directory`, or was by writers that are dead."""
    return sorted(path for path in directory.iterdir() if _WORK.fullmatch(path.name))


def removed_paths(directory: Path) -> list[Path]:
    """Return segments that somebody began to remove and did not get through with."""
    return sorted(directory.glob(".removed-segment-*"))


def segment_name_beside(path: Path, segment: uuid.UUID) -> str:
    """Return a name for `segment` that sorts where the segment at `path` does, which it replaces."""
    return f"{path.name.rpartition('-')[0]}-{segment.hex[:8]}"


def remove_segment(path: Path) -> None:
    """Remove a committed segment that another one replaces, if that can be done; readers see all of it or none."""
    gone = path.with_name(f".removed-{path.name}")
    with contextlib.suppress(OSError):  # somebody else removes it, or it is open under Windows: `clean` will
        path.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)


def new_segment_name(directory: Path, segment: uuid.UUID) -> str:
    """Return a name for `segment` that sorts behind every one now in `directory`, even if the clock was set back."""
    taken = [int(match[1], 16) for path in segment_paths(directory) if (match := _COMMITTED.fullmatch(path.name))]
    return f"segment-{max([time.time_ns(), *(number + 1 for number in taken)]):016x}-{segment.hex[:8]}"


class Claim:
    """Marks a work directory as that of a living process: the kernel lifts the mark when the process ends, however.

    Nobody waits for it, and no reader or writer looks at it: it is for `clean` alone. Where there is no `flock`
    (Windows, some network file systems), nothing is marked, and `clean` leaves what it cannot judge.
    """

    def __init__(self, work: Path) -> None:
        self._fd: int | None = None
        if os.name == "posix":
            self._fd = os.open(work, os.O_RDONLY)
            with contextlib.suppress(OSError):
                _lock(self._fd)

    def release(self) -> None:
        """Lift the mark."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def is_claimed(work: Path) -> bool:
    """Return whether the writer of `work` lives, or may: what cannot be judged counts as claimed."""
    if os.name != "posix":
        return True
    fd = os.open(work, os.O_RDONLY)
    try:
        _lock(fd)
    except OSError:
        return True
    finally:
        os.close(fd)
    return False


def _lock(fd: int) -> None:
    import fcntl  # there is none on Windows

    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
