"""salvage: what can still be read of a damaged data set, and exactly what cannot."""

from __future__ import annotations

import contextlib
import json
import os
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from splitpipe.codecs import Encoding
from splitpipe.errors import CorruptDataError, NotADatasetError, SplitpipeError, StorageError
from splitpipe.storage.bin import map_bin, map_file, read_footer, read_rows
from splitpipe.storage.catalog import segment_paths
from splitpipe.storage.columns import load_column
from splitpipe.storage.copying import SegmentCopy
from splitpipe.storage.dataset import why_no_dataset
from splitpipe.storage.durable import Disk
from splitpipe.storage.layout import (
    ENTRY_DTYPE,
    HEADER_BYTES,
    INDEX_NAME,
    INFO_NAME,
    OFFSET_BITS,
    OFFSET_MASK,
    BinHeader,
    IndexHeader,
    bin_name,
    open_text,
)
from splitpipe.storage.segment import read_index

__all__ = ["SalvageReport", "salvage"]


@dataclass(frozen=True)
class SalvageReport:
    """What `salvage` saved, and what is gone.

    Attributes:
        target: the directory of the data that was saved; the damaged one itself, if only indexes were lost.
        saved: how many records were saved.
        lost: the numbers of the records that are gone, as ranges (first, last); of the damaged data set.
        unknown: segments of which nobody knows how many records they held; those saved of them are the last ones.
        notes: all else that was found: what was damaged, which columns are gone.
    """

    target: str
    saved: int
    lost: tuple[tuple[int, int], ...]
    unknown: tuple[str, ...]
    notes: tuple[str, ...]


@dataclass
class _Wreck:
    """What is left of a segment.

    Attributes:
        path: its directory.
        info: what its index said, or what the copy, or the bins still say; None if nothing does.
        records: how many records it held; None if nobody knows.
        payloads: the records that are intact, by ordinal.
        notes: what is damaged.
        has_index: its index is as it was committed.
    """

    path: Path
    info: dict[str, Any] | None = None
    records: int | None = None
    places: dict[int, tuple[int, int, int, int]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    has_index: bool = False
    id: bytes = b""
    maps: dict[int, Any] = field(default_factory=dict)

    def payload(self, ordinal: int) -> bytes:
        """Return the stored bytes of an intact record."""
        number, offset, size, _ = self.places[ordinal]
        return bytes(self.maps[number][offset : offset + size])


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
    wrecks = [_survey(segment) for segment in paths]
    replaced = {name for wreck in wrecks if wreck.info for name in wreck.info["replaces"]}
    wrecks = [wreck for wreck in wrecks if wreck.path.name not in replaced]
    lost, unknown = _lost(wrecks)
    notes = [note for wreck in wrecks for note in wreck.notes]
    if target_dir is None:
        _rebuild_indexes(path, wrecks, lost, unknown)
        saved, target = sum(len(wreck.places) for wreck in wrecks), path
    else:
        target = Path(target_dir)
        if target.exists() and any(target.iterdir()):
            raise StorageError(f"{target}: is not empty: salvage writes to a directory of its own")
        saved = _copy(wrecks, target, notes)
    return SalvageReport(str(target), saved, tuple(lost), tuple(unknown), tuple(notes))


def _survey(path: Path) -> _Wreck:
    """Find out what is left of a segment."""
    wreck = _Wreck(path)
    with _noted(wreck):
        index = map_file(path / INDEX_NAME)
        header, wreck.info = read_index(index, path / INDEX_NAME)
        wreck.records, wreck.id, wreck.has_index = header.records, header.segment, True
        entries = np.frombuffer(index, ENTRY_DTYPE, header.records, HEADER_BYTES)
        bins = (entries["location"] >> np.uint64(OFFSET_BITS)).tolist()
        offsets = (entries["location"] & np.uint64(OFFSET_MASK)).tolist()
        places = zip(bins, offsets, entries["size"].tolist(), entries["crc"].tolist(), strict=True)
        wreck.places.update(enumerate(places))
    if wreck.info is None:
        with _noted(wreck):
            wreck.info = json.loads(open_text((path / INFO_NAME).read_bytes(), str(path / INFO_NAME)))
    for file in sorted(path.glob("[0-9]*.bin")):
        with _noted(wreck):
            _survey_bin(wreck, file)
    _keep_intact(wreck)
    return wreck


@contextlib.contextmanager
def _noted(wreck: _Wreck) -> Iterator[None]:
    try:
        yield
    except (SplitpipeError, OSError) as exc:
        wreck.notes.append(str(exc))


def _survey_bin(wreck: _Wreck, file: Path) -> None:
    """Take from a bin what the index did not tell."""
    number = int(file.stem)
    source = map_file(file)
    wreck.maps[number] = source
    footer = read_footer(source, file)
    wreck.id = wreck.id or footer.segment
    wreck.records = footer.segment_records if wreck.records is None else wreck.records
    rows = read_rows(source, file, footer.records)
    for ordinal, start, end, crc in zip(
        rows.ordinals.tolist(), rows.starts.tolist(), rows.ends.tolist(), rows.crcs.tolist(), strict=True
    ):
        if footer.segment == wreck.id:
            wreck.places.setdefault(ordinal, (number, start, end - start, crc))
    if wreck.info is None:
        info_at = footer.rows_offset + 12 * footer.records
        bare = json.loads(source[info_at : info_at + footer.info_bytes])
        wreck.info = {**bare, "columns": _column_specs(wreck), "replaces": []}


def _column_specs(wreck: _Wreck) -> list[dict[str, Any]]:
    """Return what the index would say of the columns, from their files; what is lost with it is only their checksums."""
    parts: dict[str, dict[str, Path]] = {}
    for file in wreck.path.glob("column-*.npy"):
        name, _, part = file.name.removeprefix("column-").removesuffix(".npy").partition(".")
        parts.setdefault(name, {})[part or "values"] = file
    return [_column_spec(name, files) for name, files in sorted(parts.items())]


def _column_spec(name: str, files: dict[str, Path]) -> dict[str, Any]:
    import urllib.parse

    kind = "str" if "text" in files else npy.open_memmap(files["values"], mode="r").dtype.str
    crcs = {part: zlib.crc32(file.read_bytes()) for part, file in files.items()}
    return {"name": urllib.parse.unquote(name), "type": kind, "crcs": crcs}


def _keep_intact(wreck: _Wreck) -> None:
    """Forget the places where the bytes are not those committed."""
    for ordinal, (number, offset, size, crc) in list(wreck.places.items()):
        source = wreck.maps.get(number)
        payload = b"" if source is None else source[offset : offset + size]
        if source is None or len(payload) != size or zlib.crc32(payload) != crc:
            del wreck.places[ordinal]


def _lost(wrecks: Sequence[_Wreck]) -> tuple[list[tuple[int, int]], list[str]]:
    """Return which records are gone, as ranges, and the segments of which that cannot be said."""
    lost: list[tuple[int, int]] = []
    unknown: list[str] = []
    first = 0
    for wreck in wrecks:
        if wreck.records is None:
            unknown.append(wreck.path.name)
            continue
        gone = np.ones(wreck.records, np.bool_)
        gone[list(wreck.places)] = False
        edges = np.flatnonzero(np.diff(np.concatenate([[0], gone.view(np.int8), [0]])))
        lost += [(first + int(start), first + int(end) - 1) for start, end in edges.reshape(-1, 2)]
        first += wreck.records
    return lost, unknown


def _rebuild_indexes(
    path: Path, wrecks: Sequence[_Wreck], lost: Sequence[tuple[int, int]], unknown: Sequence[str]
) -> None:
    if lost or unknown:
        gone = ", ".join(f"{first}" if first == last else f"{first} to {last}" for first, last in lost[:20])
        raise StorageError(
            f"{path}: records are gone ({gone or 'nobody knows which'}"
            f"{', and more' if len(lost) > 20 else ''}{'; of ' + ', '.join(unknown) if unknown else ''}): "
            f"save the others with `splitpipe salvage {path} TARGET`"
        )
    for wreck in wrecks:
        if not wreck.has_index and wreck.info is not None and wreck.records is not None:
            _rebuild_index(wreck, wreck.info, wreck.records)


def _rebuild_index(wreck: _Wreck, info: dict[str, Any], records: int) -> None:
    entries = np.zeros(records, ENTRY_DTYPE)
    counts: dict[int, int] = {}
    for ordinal, (number, offset, size, crc) in wreck.places.items():
        entries[ordinal] = (number << OFFSET_BITS | offset, size, crc)
        counts[number] = counts.get(number, 0) + 1
    if "bins" not in info:
        bins = max(counts) + 1
        info["bins"] = [
            [(wreck.path / bin_name(number)).stat().st_size, counts[number]] if number in counts else [0, 0]
            for number in range(bins)
        ]
    packed = json.dumps(info, sort_keys=True, separators=(",", ":")).encode("ascii")
    header = IndexHeader(len(info["bins"]), wreck.id, records, len(packed), zlib.crc32(packed))
    Disk().replace(wreck.path / INDEX_NAME, [header.pack(), entries.data.cast("B"), packed])


def _copy(wrecks: Sequence[_Wreck], target: Path, notes: list[str]) -> int:
    readable = [wreck for wreck in wrecks if wreck.info is not None and wreck.places]
    if not readable:
        return 0
    columns = [_columns(wreck, notes) for wreck in readable]
    shared = [name for name in columns[0] if all(name in of_wreck for of_wreck in columns)]
    notes += [f"column {name!r} could not be saved" for name in _all_names(readable) if name not in shared]
    encodings = [Encoding.from_spec(_info(wreck)["codec"]) for wreck in readable]
    types = {spec["name"]: spec["type"] for spec in _info(readable[-1])["columns"] if spec["name"] in shared}
    target.mkdir(parents=True, exist_ok=True)
    bins = max(max(wreck.maps) + 1 for wreck in readable)
    copy = SegmentCopy(target, bins, encodings[-1], types)
    try:
        for wreck, encoding, of_wreck in zip(readable, encodings, columns, strict=True):
            ordinals = sorted(wreck.places)
            for first in range(0, len(ordinals), 4096):
                some = ordinals[first : first + 4096]
                values = {name: of_wreck[name][some] for name in shared}
                copy.add([wreck.payload(ordinal) for ordinal in some], encoding, values)
        copy.publish()
    except BaseException:
        copy.discard()
        raise
    return copy.records


def _info(wreck: _Wreck) -> dict[str, Any]:
    return wreck.info or {}


def _all_names(wrecks: Sequence[_Wreck]) -> list[str]:
    return list(dict.fromkeys(spec["name"] for wreck in wrecks for spec in _info(wreck)["columns"]))


def _columns(wreck: _Wreck, notes: list[str]) -> dict[str, NDArray[Any]]:
    """Return the columns of a segment that are intact."""
    found: dict[str, NDArray[Any]] = {}
    for spec in _info(wreck)["columns"]:
        try:
            found[spec["name"]] = load_column(wreck.path, spec, wreck.records or 0)
        except CorruptDataError as exc:
            notes.append(str(exc))
    return found
