"""clean: what dead writers left behind."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from splitpipe.errors import CorruptDataError, NotADatasetError
from splitpipe.storage.catalog import is_claimed, removed_paths, segment_paths, work_paths
from splitpipe.storage.dataset import why_no_dataset
from splitpipe.storage.segment import Segment

__all__ = ["CleanReport", "clean"]

# Between making its directory and claiming it, a writer looks dead for a moment.
_MIN_AGE_S = 60.0


@dataclass(frozen=True)
class CleanReport:
    """What `clean` did.

    Attributes:
        removed: what was removed (with `dry_run`, what would be).
        kept: what is being written by a process that lives, or may.
        bytes: how much room the removed took.
    """

    removed: tuple[str, ...]
    kept: tuple[str, ...]
    bytes: int


def clean(data_dir: str | os.PathLike[str], *, dry_run: bool = False, force: bool = False) -> CleanReport:
    """Remove what dead writers and builds left in a directory; committed data and what a living one writes stay.

    A build that was killed cannot be resumed afterwards. On Windows, and on network file systems without locks,
    nobody can tell whether a writer lives: there, work in progress is kept unless `force`.

    Args:
        data_dir: the data set's directory.
        dry_run: remove nothing, and say what would be.
        force: remove what is being written by living processes too.

    Raises:
        NotADatasetError: there is no such directory.
    """
    path = Path(data_dir)
    if not path.is_dir():
        raise NotADatasetError(why_no_dataset(path))
    removed, kept = [*_replaced(path), *removed_paths(path)], list[Path]()
    for work in work_paths(path):
        dead = time.time() - work.stat().st_mtime > _MIN_AGE_S and not is_claimed(work)
        (removed if dead or force else kept).append(work)
    for segment in segment_paths(path):
        removed += [leftover for leftover in segment.glob(".*.new") if leftover.is_file()]
    size = sum(_size(leftover) for leftover in removed)
    for leftover in () if dry_run else removed:
        if leftover.is_dir():
            shutil.rmtree(leftover)
        else:
            leftover.unlink()
    return CleanReport(tuple(map(str, removed)), tuple(map(str, kept)), size)


def _replaced(path: Path) -> list[Path]:
    """Return the segments that another one stands for: whoever replaced them was killed before it removed them."""
    names: set[str] = set()
    for segment in segment_paths(path):
        # What cannot be read replaces nothing.
        with contextlib.suppress(CorruptDataError), contextlib.closing(Segment(segment, check_bins=False)) as opened:
            names.update(opened.replaces)
    return [segment for segment in segment_paths(path) if segment.name in names]


def _size(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())
