"""Getting files onto the disk: the only place that syncs and renames.

A file is safe when its bytes are synced; its name is safe when its directory is synced. A segment is written under
a name that no reader looks at, made safe, and renamed: rename is atomic, so a reader sees all of it or nothing.
"""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["publish", "sync", "write_synced"]


def sync(path: Path) -> None:
    """Make the bytes of a file, or the names in a directory, survive a power cut."""
    if os.name == "nt" and path.is_dir():
        return  # Windows opens no directory, and keeps names in a journal of its own
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_synced(path: Path, *parts: bytes | memoryview) -> None:
    """Write a new file and sync it."""
    with path.open("xb") as file:
        for part in parts:
            file.write(part)
        file.flush()
        os.fsync(file.fileno())


def publish(work: Path, final: Path) -> None:
    """Give the directory `work`, whose files are synced, the name `final`, for good."""
    sync(work)
    work.rename(final)
    sync(final.parent)
