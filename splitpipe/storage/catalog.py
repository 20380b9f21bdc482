"""Which segments a directory holds: their names, their order, and where work in progress lies.

segment-<16 hex digits: nanoseconds since 1970>-<8 hex digits of its id>   committed
.writing-<32 hex digits: its id>                                           being written, invisible to readers
"""

from __future__ import annotations

import re
import time
import uuid
from pathlib import Path

__all__ = ["new_segment_name", "segment_paths", "work_path"]

_COMMITTED = re.compile(r"segment-([0-9a-f]{16})-[0-9a-f]{8}")


def segment_paths(directory: Path) -> list[Path]:
    """Return the committed segments of `directory`, oldest commit first; empty if there is no such directory."""
    try:
        return sorted(path for path in directory.iterdir() if _COMMITTED.fullmatch(path.name))
    except (FileNotFoundError, NotADirectoryError):
        return []


def work_path(directory: Path, segment: uuid.UUID) -> Path:
    """Return where `segment` is written until it is committed."""
    return directory / f".writing-{segment.hex}"


def new_segment_name(directory: Path, segment: uuid.UUID) -> str:
    """Return a name for `segment` that sorts behind every one now in `directory`, even if the clock was set back."""
    taken = [int(match[1], 16) for path in segment_paths(directory) if (match := _COMMITTED.fullmatch(path.name))]
    return f"segment-{max([time.time_ns(), *(number + 1 for number in taken)]):016x}-{segment.hex[:8]}"
