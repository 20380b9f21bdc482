"""Which segments a directory holds: their names, their order, and where work in progress lies.

segment-<16 hex digits: nanoseconds since 1970>-<8 hex digits of its id>   committed
.writing-<32 hex digits: its id>                                           being written, invisible to readers
"""

from __future__ import annotations

import time
import uuid
from pathlib import Path

__all__ = ["new_segment_name", "segment_paths", "work_path"]

_COMMITTED = "segment-"
_WORK = ".writing-"


def segment_paths(directory: Path) -> list[Path]:
    """Return the committed segments of `directory`, oldest commit first; empty if there is no such directory."""
    try:
        return sorted(path for path in directory.iterdir() if path.name.startswith(_COMMITTED))
    except (FileNotFoundError, NotADirectoryError):
        return []


def work_path(directory: Path, segment: uuid.UUID) -> Path:
    """Return where `segment` is written until it is committed."""
    return directory / f"{_WORK}{segment.hex}"


def new_segment_name(directory: Path, segment: uuid.UUID) -> str:
    """Return a name for `segment` that sorts behind every one now in `directory`, even if the clock was set back."""
    now = time.time_ns()
    committed = segment_paths(directory)
    if committed:
        now = max(now, int(committed[-1].name[len(_COMMITTED) :].split("-")[0], 16) + 1)
    return f"{_COMMITTED}{now:016x}-{segment.hex[:8]}"
