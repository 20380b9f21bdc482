"""One committed segment: its index and its bins, memory-mapped, read-only.

Nothing that an index says is believed: a slice of a map never leaves the file, a slice that comes out short is an
error, and so is a payload that fails its checksum. No Python object is kept per record.
"""

from __future__ import annotations

import json
import mmap
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splitpipe.errors import CorruptDataError
from splitpipe.storage.bin import Rows, map_bin, map_file, read_bin, read_rows
from splitpipe.storage.columns import load_column
from splitpipe.storage.layout import (
    ENTRY,
    ENTRY_DTYPE,
    HEADER_BYTES,
    INDEX_NAME,
    OFFSET_BITS,
    OFFSET_MASK,
    IndexHeader,
    bin_name,
)

__all__ = ["CHUNK_RECORDS", "Segment"]

# Records read at a time in bulk: enough that the work per chunk vanishes, few enough to stay in the CPU's cache.
CHUNK_RECORDS = 1024

# A bin up to this size is read whole into memory before its records are taken out in random order: one pass in
# sequence brings it into the CPU's cache, and taking a record from there costs two thirds of taking it from a map.
_SMALL_BIN_BYTES = 16 << 20

_unpack_entry = ENTRY.unpack_from
_crc32 = zlib.crc32
_OFFSET_MASK = np.uint64(OFFSET_MASK)
_OFFSET_SHIFT = np.uint64(OFFSET_BITS)


class Segment:
    """The committed segment in directory `path`.

    Args:
        path: the segment's directory.
        first: the number, in the data set, of its first record; errors name records by it.
        verify: "first" checks each payload's CRC-32 the first time that this object reads it, "always" every time,
            "never" not at all.

    Attributes:
        records: how many records it holds.
        codec_name: the codec of its records.
        bin_counts: how many records each bin holds.
        replaces: names of the segments that this one stands for; they are to be ignored.
        column_names: the columns that its records carry.

    Raises:
        CorruptDataError: the index, or a bin's length, is not what was committed.
        FormatVersionError: written by a newer splitpipe.
    """

    def __init__(self, path: Path, *, first: int = 0, verify: str = "first") -> None:
        self.path = path
        self.first = first
        self._index = map_file(path / INDEX_NAME)
        index_path = str(path / INDEX_NAME)
        header = IndexHeader.unpack(self._index[:HEADER_BYTES], index_path)
        self.records = header.records
        self._id = header.segment
        info_offset = HEADER_BYTES + header.records * ENTRY.size
        self._info = _parse_info(self._index[info_offset:], header.info_bytes, header.info_crc, index_path, info_offset)
        self.codec_name: str = self._info["codec"]["name"]
        self._bin_lengths = [length for length, _ in self._info["bins"]]
        self.bin_counts: list[int] = [count for _, count in self._info["bins"]]
        self.replaces: list[str] = self._info["replaces"]
        self._column_specs: dict[str, Any] = {spec["name"]: spec for spec in self._info["columns"]}
        self.column_names = tuple(self._column_specs)
        self._maps: list[Any] = [None] * len(self.bin_counts)  # a map, from the first use of a bin on
        self._entries: NDArray[Any] = np.frombuffer(self._index, ENTRY_DTYPE, header.records, HEADER_BYTES)
        self._unread: bytearray | None = None  # 1 where a payload's checksum is still to be compared
        if verify != "never":
            self._unread = bytearray(b"\1") * self.records
        self._keep_unread = verify == "always"
        self._check_bin_lengths()

    def _check_bin_lengths(self) -> None:
        for number, expected in enumerate(self._bin_lengths):
            if not expected:
                continue
            path = self.path / bin_name(number)
            try:
                found = path.stat().st_size
            except FileNotFoundError:
                raise CorruptDataError(
                    f"{path}: a bin of a committed segment is missing. Restore it from a copy", path=str(path)
                ) from None
            if found != expected:
                raise CorruptDataError(
                    f"{path}: is {found} bytes long, and was committed with {expected}. Restore it from a copy",
                    path=str(path),
                    offset=min(found, expected),
                )

    def _map(self, number: int) -> mmap.mmap:
        """Return the map of a bin, made and checked at its first use."""
        if number >= len(self._maps):
            raise CorruptDataError(
                f"{self.path / INDEX_NAME}: an entry names bin {number}, and the segment has {len(self._maps)}. "
                "Restore it from a copy",
                path=str(self.path / INDEX_NAME),
            )
        if self._maps[number] is None:
            self._maps[number] = map_bin(self.path / bin_name(number), number, self._id)
        made: mmap.mmap = self._maps[number]
        return made

    def payload(self, ordinal: int) -> bytes:
        """Return the stored bytes of the record `ordinal`, which must be from 0 to `records - 1`."""
        location, size, crc = _unpack_entry(self._index, HEADER_BYTES + ordinal * 16)
        number, offset = location >> OFFSET_BITS, location & OFFSET_MASK
        try:
            payload: bytes = self._maps[number][offset : offset + size]
        except (TypeError, IndexError):  # not mapped yet, or no such bin
            payload = self._map(number)[offset : offset + size]
        if len(payload) != size:
            raise self._corrupt(ordinal, f"its {size} bytes reach beyond the end of the bin")
        unread = self._unread
        if unread is not None and unread[ordinal]:
            if _crc32(payload) != crc:
                raise self._corrupt(ordinal, f"checksum {_crc32(payload):08x}, committed as {crc:08x}")
            if not self._keep_unread:
                unread[ordinal] = 0
        return payload

    def payloads(self, ordinals: NDArray[np.int64]) -> list[bytes]:
        """Return the stored bytes of many records, in the order asked for; each from 0 to `records - 1`."""
        entries = self._entries[ordinals]
        locations, sizes = entries["location"], entries["size"]
        starts = locations & _OFFSET_MASK
        ends = starts + sizes
        numbers = (locations >> _OFFSET_SHIFT).tolist()
        maps = self._maps
        for number in set(numbers):
            if number >= len(maps) or maps[number] is None:
                self._map(number)
        places = zip(numbers, starts.tolist(), ends.tolist(), strict=True)
        found = [maps[number][start:end] for number, start, end in places]
        short = np.flatnonzero(np.fromiter(map(len, found), np.int64, len(found)) != sizes)
        if len(short):
            raise self._corrupt(int(ordinals[short[0]]), "it reaches beyond the end of the bin")
        self._check(found, ordinals, entries["crc"])
        return found

    def bin_payloads(self, number: int, positions: NDArray[np.int64]) -> Iterator[list[bytes]]:
        """Yield, some at a time, the stored bytes of the records at `positions` of a bin, counted as they lie there."""
        path, source = self.path / bin_name(number), self._source(number)
        rows = read_rows(source, path, self.bin_counts[number])
        intact = self._check_bin(source, rows)
        for first in range(0, len(positions), CHUNK_RECORDS):
            places = positions[first : first + CHUNK_RECORDS]
            bounds = zip(rows.starts[places].tolist(), rows.ends[places].tolist(), strict=True)
            found = [source[start:end] for start, end in bounds]
            if not intact:
                self._check(found, rows.ordinals[places], rows.crcs[places])
            yield found

    def _source(self, number: int) -> bytes | mmap.mmap:
        """Return the content of a bin that is to be read whole."""
        if self._bin_lengths[number] <= _SMALL_BIN_BYTES:
            return read_bin(self.path / bin_name(number), number, self._id)
        return self._map(number)

    def _check_bin(self, source: bytes | mmap.mmap, rows: Rows) -> bool:
        """Return whether the payloads of a bin need no check one by one.

        If the checksum over all of them is wrong, the bin is not given up: each record is checked, and the one that
        is damaged is named.
        """
        if self._unread is None:
            return True
        unread = np.frombuffer(self._unread, np.uint8)
        if not self._keep_unread and not unread[rows.ordinals].any():
            return True
        intact = rows.payloads_are_intact(source)
        if intact and not self._keep_unread:
            unread[rows.ordinals] = 0
        return intact

    def _check(self, found: list[bytes], ordinals: NDArray[Any], crcs: NDArray[np.uint32]) -> None:
        """Compare the checksums of those not read before."""
        if self._unread is None:
            return
        unread = np.frombuffer(self._unread, np.uint8)
        if not unread[ordinals].any():
            return
        wrong = np.flatnonzero(np.fromiter(map(_crc32, found), np.uint32, len(found)) != crcs)
        if len(wrong):
            at = int(wrong[0])
            raise self._corrupt(
                int(ordinals[at]), f"checksum {_crc32(found[at]):08x}, committed as {int(crcs[at]):08x}"
            )
        if not self._keep_unread:
            unread[ordinals] = 0

    def _corrupt(self, ordinal: int, what: str) -> CorruptDataError:
        location, _, _ = _unpack_entry(self._index, HEADER_BYTES + ordinal * 16)
        path, offset = self.path / bin_name(location >> OFFSET_BITS), location & OFFSET_MASK
        return CorruptDataError(
            f"record {self.first + ordinal} is damaged ({path} at byte {offset}): {what}. Restore the file from a copy",
            path=str(path),
            record=self.first + ordinal,
            offset=offset,
        )

    def column(self, name: str) -> NDArray[Any]:
        """Return one column as an array of shape (records,)."""
        return load_column(self.path, self._column_specs[name], self.records)

    def close(self) -> None:
        """Unmap everything; nothing can be read afterwards."""
        del self._entries
        for made in (self._index, *self._maps):
            if made is not None:
                made.close()


def _parse_info(tail: bytes, length: int, crc: int, path: str, offset: int) -> dict[str, Any]:
    if len(tail) != length or _crc32(tail) != crc:
        raise CorruptDataError(
            f"{path}: the {length} bytes of info at byte {offset} are cut short or fail their checksum. "
            "Restore the file from a copy",
            path=path,
            offset=offset,
        )
    info: dict[str, Any] = json.loads(tail)
    return info
