"""One committed segment: its index and its bins, memory-mapped, read-only.

Nothing that an index says is believed: a slice of a map never leaves the file, a slice that comes out short is an
error, and so is a payload that fails its checksum. No Python object is kept per record.
"""

from __future__ import annotations

import json
import mmap
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splitpipe.errors import CorruptDataError
from splitpipe.storage.columns import load_column
from splitpipe.storage.layout import (
    ENTRY,
    ENTRY_DTYPE,
    HEADER_BYTES,
    INDEX_NAME,
    OFFSET_BITS,
    OFFSET_MASK,
    ROW_DTYPE,
    BinFooter,
    BinHeader,
    IndexHeader,
    bin_name,
)

__all__ = ["CHUNK_RECORDS", "Segment"]

# Records read at a time in bulk: enough that the work per chunk vanishes, few enough to stay in the CPU's cache.
CHUNK_RECORDS = 1024

# From 3.13 on, a map need not keep a file descriptor, of which a process may have few.
_NO_DESCRIPTOR: dict[str, bool] = {"trackfd": False} if sys.version_info >= (3, 13) else {}

_unpack_entry = ENTRY.unpack_from
_crc32 = zlib.crc32


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
        payload_bytes: the length of all files of bins together.

    Raises:
        CorruptDataError: the index, or a bin's length, is not what was committed.
        FormatVersionError: written by a newer splitpipe.
    """

    def __init__(self, path: Path, *, first: int = 0, verify: str = "first") -> None:
        self.path = path
        self.first = first
        self._index = _mapped(path / INDEX_NAME)
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
        self.payload_bytes = sum(self._bin_lengths)
        self._maps: list[mmap.mmap | None] = [None] * len(self.bin_counts)
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
        try:
            made = self._maps[number]
        except IndexError:
            raise CorruptDataError(
                f"{self.path / INDEX_NAME}: an entry names bin {number}, and the segment has {len(self._maps)}. "
                "Restore it from a copy",
                path=str(self.path / INDEX_NAME),
            ) from None
        if made is None:
            path = self.path / bin_name(number)
            made = _mapped(path)
            header = BinHeader.unpack(made[:HEADER_BYTES], str(path))
            if (header.number, header.segment) != (number, self._id):
                raise CorruptDataError(
                    f"{path}: is bin {header.number} of segment {header.segment.hex()}, and bin {number} of "
                    f"{self._id.hex()} belongs here: files were mixed up. Restore it from a copy",
                    path=str(path),
                    offset=0,
                )
            self._maps[number] = made
        return made

    def payload(self, ordinal: int) -> bytes:
        """Return the stored bytes of the record `ordinal`, which must be from 0 to `records - 1`."""
        location, size, crc = _unpack_entry(self._index, HEADER_BYTES + ordinal * 16)
        number, offset = location >> OFFSET_BITS, location & OFFSET_MASK
        made = self._maps[number] if number < len(self._maps) else None
        if made is None:
            made = self._map(number)
        payload = made[offset : offset + size]
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
        offsets = locations & np.uint64(OFFSET_MASK)
        numbers = (locations >> np.uint64(OFFSET_BITS)).astype(np.int64)
        needed = np.unique(numbers)
        maps = {number: self._map(number) for number in needed.tolist()}
        stops = (offsets + sizes).tolist()
        if len(maps) == 1:
            (only,) = maps.values()
            found = [only[start:stop] for start, stop in zip(offsets.tolist(), stops, strict=True)]
        else:
            places = zip(numbers.tolist(), offsets.tolist(), stops, strict=True)
            found = [maps[number][start:stop] for number, start, stop in places]
        self._check(found, ordinals, sizes, entries["crc"])
        return found

    def bin_payloads(self, number: int, positions: NDArray[np.int64]) -> Iterator[list[bytes]]:
        """Yield, some at a time, the stored bytes of the records at `positions` of a bin, counted as they lie there."""
        rows, starts = self._rows(number)
        made = self._map(number)
        for first in range(0, len(positions), CHUNK_RECORDS):
            places = positions[first : first + CHUNK_RECORDS]
            chosen, offsets = rows[places], starts[places]
            stops = (offsets + chosen["size"]).tolist()
            found = [made[start:stop] for start, stop in zip(offsets.tolist(), stops, strict=True)]
            self._check(found, chosen["ordinal"], chosen["size"], chosen["crc"])
            yield found

    def _rows(self, number: int) -> tuple[NDArray[Any], NDArray[np.uint64]]:
        """Return the rows of a bin and where each payload starts, checked."""
        path, made = self.path / bin_name(number), self._map(number)
        footer_offset = len(made) - HEADER_BYTES
        footer = BinFooter.unpack(made[footer_offset:], str(path), footer_offset)
        count, rows_offset = footer.records, footer.rows_offset
        rows_bytes = made[rows_offset : rows_offset + count * ROW_DTYPE.itemsize]
        rows = np.frombuffer(rows_bytes, ROW_DTYPE, len(rows_bytes) // ROW_DTYPE.itemsize)
        if count != self.bin_counts[number] or len(rows) != count or _crc32(rows_bytes) != footer.rows_crc:
            raise CorruptDataError(
                f"{path}: the rows that describe its {self.bin_counts[number]} records fail their checksum. "
                "Single records can still be read by number; restore the bin from a copy",
                path=str(path),
                offset=rows_offset,
            )
        ends = np.cumsum(rows["size"], dtype=np.uint64)
        return rows, ends - rows["size"] + np.uint64(HEADER_BYTES)

    def _check(
        self, found: list[bytes], ordinals: NDArray[Any], sizes: NDArray[np.uint32], crcs: NDArray[np.uint32]
    ) -> None:
        """Compare lengths, and the checksums of those not read before."""
        short = np.flatnonzero(np.fromiter(map(len, found), np.int64, len(found)) != sizes)
        if len(short):
            raise self._corrupt(int(ordinals[short[0]]), "it reaches beyond the end of the bin")
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


def _mapped(path: Path) -> mmap.mmap:
    try:
        with path.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ, **_NO_DESCRIPTOR)
    except FileNotFoundError:
        raise CorruptDataError(
            f"{path}: a file of a committed segment is missing. Restore it from a copy", path=str(path)
        ) from None
    except ValueError:
        # What mmap says to a file without bytes.
        raise CorruptDataError(f"{path}: is empty. Restore it from a copy", path=str(path), offset=0) from None


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
