"""salvage: what can still be read of a damaged data set, and exactly what cannot."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from splitpipe.codecs import Encoding
from splitpipe.errors import NotADatasetError, StorageError
from splitpipe.storage.catalog import segment_paths
from splitpipe.storage.copying import SegmentCopy
from splitpipe.storage.dataset import why_no_dataset
from splitpipe.storage.durable import Disk
from splitpipe.storage.layout import INDEX_NAME, OFFSET_BITS, IndexHeader, bin_name
from splitpipe.storage.wreck import Wreck

__all__ = ["SalvageReport", "salvage"]

_CHUNK_RECORDS = 4096
_MAX_NAMED = 20  # ranges of lost records in an error's text; the report has all


@dataclass(frozen=True)
class SalvageReport:
    """What `salvage` saved, and what is gone.

    Attributes:
        target: the directory of the data that was saved; the damaged one itself, if only indexes were lost.
        saved: how many records were saved.
        lost: the numbers, in the damaged data set, of the records that are gone, as ranges (first, last).
        unknown: segments of which nothing tells how many records they held.
        notes: what was damaged, and which columns could not be saved.
    """

    target: str
    saved: int
    lost: tuple[tuple[int, int], ...]
    unknown: tuple[str, ...]
    notes: tuple[str, ...]


def salvage(data_dir: str | os.PathLike[str], target_dir: str | os.PathLike[str] | None = None) -> SalvageReport:
    """Save what is readable of a damaged data set, and say exactly which records are gone.

    Without a target, indexes that were lost are built again from the bins, in place; nothing else is changed, and if
    records are gone, that is an error. With a target, every record that is intact is written there, in order, with
    those columns that can still be read; the damaged data stays as it is.

    Args:
        data_dir: the damaged data set's directory.
        target_dir: an empty or missing directory for what is saved.

    Raises:
        NotADatasetError: there is nothing of splitpipe's.
        StorageError: without a target: records are gone; with one: it is not empty.
    """
    path = Path(data_dir)
    paths = segment_paths(path)
    if not paths:
        raise NotADatasetError(why_no_dataset(path))
    wrecks = [Wreck(segment) for segment in paths]
    replaced = {name for wreck in wrecks if wreck.info for name in wreck.info["replaces"]}
    wrecks = [wreck for wreck in wrecks if wreck.path.name not in replaced]
    lost, unknown = _lost(wrecks)
    notes: list[str] = []
    if target_dir is None:
        _rebuild_indexes(path, wrecks, lost, unknown)
        saved, target = sum(int(wreck.intact.sum()) for wreck in wrecks), path
    else:
        target = Path(target_dir)
        if target.exists() and any(target.iterdir()):
            raise StorageError(f"{target}: is not empty: salvage writes to a directory of its own")
        saved = _copy(wrecks, target, notes)
    notes = [*(note for wreck in wrecks for note in wreck.notes), *notes]
    return SalvageReport(str(target), saved, tuple(lost), tuple(unknown), tuple(notes))


def _lost(wrecks: Sequence[Wreck]) -> tuple[list[tuple[int, int]], list[str]]:
    """Return which records are gone, as ranges, and the segments of which that cannot be said."""
    lost: list[tuple[int, int]] = []
    unknown: list[str] = []
    first = 0
    for wreck in wrecks:
        if wreck.records is None:
            unknown.append(wreck.path.name)
            continue
        edges = np.flatnonzero(np.diff(np.concatenate([[0], (~wreck.intact).view(np.int8), [0]])))
        lost += [(first + start, first + end - 1) for start, end in edges.reshape(-1, 2).tolist()]
        first += wreck.records
    return lost, unknown


def _rebuild_indexes(
    path: Path, wrecks: Sequence[Wreck], lost: Sequence[tuple[int, int]], unknown: Sequence[str]
) -> None:
    if lost or unknown:
        ranges = [f"{first}" if first == last else f"{first} to {last}" for first, last in lost[:_MAX_NAMED]]
        gone = [*ranges, *(["and more"] if len(lost) > _MAX_NAMED else []), *(f"all of {name}" for name in unknown)]
        raise StorageError(
            f"{path}: records are gone: {', '.join(gone)}. Save the others with `splitpipe salvage {path} TARGET`"
        )
    for wreck in wrecks:
        if not wreck.has_index and wreck.info is not None:
            _rebuild_index(wreck, wreck.info)


def _rebuild_index(wreck: Wreck, info: dict[str, Any]) -> None:
    bins = wreck.entries["location"] >> np.uint64(OFFSET_BITS)
    counts = np.bincount(bins.astype(np.int64), minlength=wreck.bins).tolist()
    if "bins" not in info:
        paths = [wreck.path / bin_name(number) for number in range(len(counts))]
        lengths = [path.stat().st_size if count else 0 for path, count in zip(paths, counts, strict=True)]
        info["bins"] = [list(pair) for pair in zip(lengths, counts, strict=True)]
    packed = json.dumps(info, sort_keys=True, separators=(",", ":")).encode("ascii")
    header = IndexHeader(len(info["bins"]), wreck.id, len(wreck.entries), len(packed), zlib.crc32(packed))
    Disk().replace(wreck.path / INDEX_NAME, [header.pack(), wreck.entries.data.cast("B"), packed])


def _copy(wrecks: Sequence[Wreck], target: Path, notes: list[str]) -> int:
    infos = [(wreck, wreck.info) for wreck in wrecks if wreck.info is not None and wreck.intact.any()]
    if not infos:
        return 0
    columns = [wreck.columns() for wreck, _ in infos]
    everywhere = [name for name in columns[0] if all(name in of_wreck for of_wreck in columns)]
    names = dict.fromkeys(spec["name"] for wreck, _ in infos for spec in wreck.column_specs())
    notes += [f"column {name!r} could not be saved" for name in names if name not in everywhere]
    types = {spec["name"]: spec["type"] for spec in infos[-1][0].column_specs() if spec["name"] in everywhere}
    encodings = [Encoding.from_spec(info["codec"]) for _, info in infos]
    target.mkdir(parents=True, exist_ok=True)
    copy = SegmentCopy(target, max(wreck.bins for wreck, _ in infos), encodings[-1], types)
    try:
        for (wreck, _), encoding, of_wreck in zip(infos, encodings, columns, strict=True):
            ordinals = np.flatnonzero(wreck.intact)
            for first in range(0, len(ordinals), _CHUNK_RECORDS):
                some = ordinals[first : first + _CHUNK_RECORDS]
                values = {name: of_wreck[name][some] for name in everywhere}
                copy.add([wreck.payload(ordinal) for ordinal in some.tolist()], encoding, values)
        copy.publish()
    except BaseException:
        copy.discard()
        raise
    return copy.records
