"""merge: the records of several data sets in one; compact: many segments made one."""

from __future__ import annotations

import contextlib
import os
import shutil
import uuid
from pathlib import Path

import numpy as np

from splitpipe.errors import CodecError, ColumnError, NotADatasetError, StorageError
from splitpipe.progress import progress_bar
from splitpipe.storage.catalog import (
    Claim,
    new_segment_name,
    remove_segment,
    segment_name_beside,
    segment_paths,
    work_path,
)
from splitpipe.storage.copying import SegmentCopy
from splitpipe.storage.dataset import open_segments, why_no_dataset
from splitpipe.storage.durable import Disk
from splitpipe.storage.segment import Segment

__all__ = ["compact", "merge"]

_CHUNK_RECORDS = 4096


def merge(target_dir: str | os.PathLike[str], *source_dirs: str | os.PathLike[str], progress: bool = False) -> int:
    """Append the records of other data sets to the one in `target_dir`, and return how many were added.

    Their files are linked where the file system can, and copied where not; the sources stay as they are. What is in
    the target already is left out, so a merge that was killed can be called again.

    Args:
        target_dir: the directory, made if missing.
        source_dirs: the directories of the other data sets.
        progress: show a bar; needs `pip install "splitpipe[progress]"`.

    Raises:
        CodecError: they are of different codecs; nothing was merged.
        ColumnError: they have different columns; nothing was merged.
        NotADatasetError: a source is no data set; nothing was merged.
        StorageError: some records of a compacted segment are in the target and some are not; nothing was merged.
    """
    target = Path(target_dir)
    with contextlib.ExitStack() as stack:
        there = _open(stack, target) if segment_paths(target) else []
        coming: list[Segment] = []
        for source in map(Path, source_dirs):
            if not segment_paths(source):
                raise NotADatasetError(why_no_dataset(source))
            coming += _open(stack, source)
        _check_alike([*there, *coming])
        coming = _new(there, coming)
        target.mkdir(parents=True, exist_ok=True)
        for segment in progress_bar(coming, unit="segment", label="merge") if progress else coming:
            _copy_segment(segment.path, target, uuid.UUID(bytes=segment.id))
        return sum(segment.records for segment in coming)


def _open(stack: contextlib.ExitStack, path: Path) -> list[Segment]:
    return [stack.enter_context(contextlib.closing(segment)) for segment in open_segments(segment_paths(path))]


def _new(there: list[Segment], coming: list[Segment]) -> list[Segment]:
    """Return those of `coming` whose records are not there yet, each once."""
    known = {held for segment in there for held in segment.holds}
    new: list[Segment] = []
    for segment in coming:
        of_others = segment.holds - {segment.id.hex()}
        if segment.id.hex() in known or (of_others and of_others <= known):
            continue
        if of_others & known:
            raise StorageError(
                f"{segment.path}: was compacted from segments of which some are in the target and some are not: merge "
                "into a directory of its own"
            )
        new.append(segment)
        known |= segment.holds
    return new


def _check_alike(segments: list[Segment]) -> None:
    first, *others = segments
    for other in others:
        if difference := first.encoding.difference(other.encoding):
            raise CodecError(f"{first.path} and {other.path} are of {difference}: records of one codec can be merged")
        if first.column_types != other.column_types:
            raise ColumnError(
                f"{first.path} has the columns {first.column_types}, and {other.path} has {other.column_types}: "
                "records that carry the same columns can be merged"
            )


def _copy_segment(path: Path, target: Path, segment: uuid.UUID) -> None:
    work = work_path(target, segment)
    shutil.rmtree(work, ignore_errors=True)  # what a merge that was killed left
    work.mkdir()
    claim = Claim(work)
    try:
        for file in sorted(path.iterdir()):
            _link(file, work / file.name)
        Disk().publish(work, target / new_segment_name(target, segment))
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise
    finally:
        claim.release()


def _link(file: Path, copy: Path) -> None:
    try:
        os.link(file, copy)
    except OSError:  # another file system, or one without links
        shutil.copy2(file, copy)
        Disk().sync(copy)


def compact(data_dir: str | os.PathLike[str], splits: int | None = None, *, progress: bool = False) -> int:
    """Write all segments of a data set into one, and return how many records it holds.

    Records, order and columns stay. The new segment takes the place of the old ones at once; a kill leaves the data
    as it was. Loaders that have the data open must be opened again; records appended meanwhile stay.

    Args:
        data_dir: the data set's directory.
        splits: how many bins; by default as many as the segment that has most.
        progress: show a bar; needs `pip install "splitpipe[progress]"`.

    Raises:
        CorruptDataError: a record is damaged; nothing was changed.
        NotADatasetError: there is no committed data set.
    """
    path = Path(data_dir)
    if not segment_paths(path):
        raise NotADatasetError(why_no_dataset(path))
    with contextlib.ExitStack() as stack:
        there = segment_paths(path)  # those that were replaced before, too: they must not come to life again
        segments = _open(stack, path)
        _check_alike(segments)
        newest = segments[-1]
        bins = max(len(segment.bin_counts) for segment in segments) if splits is None else splits
        copy = SegmentCopy(path, bins, newest.encoding, newest.column_types)
        try:
            for segment in progress_bar(segments, unit="segment", label="compact") if progress else segments:
                _copy_records(segment, copy)
            held = sorted({held for segment in segments for held in segment.holds})
            copy.publish(
                [old.name for old in there], lambda new: segment_name_beside(newest.path, new), {"holds": held}
            )
        except BaseException:
            copy.discard()
            raise
        for old in there:
            remove_segment(old)
        return copy.records


def _copy_records(segment: Segment, copy: SegmentCopy) -> None:
    columns = {name: segment.column(name) for name in segment.column_types}
    for first in range(0, segment.records, _CHUNK_RECORDS):
        ordinals = np.arange(first, min(first + _CHUNK_RECORDS, segment.records))
        values = {name: column[ordinals] for name, column in columns.items()}
        copy.add([bytes(payload) for payload in segment.payloads(ordinals)], segment.encoding, values)
