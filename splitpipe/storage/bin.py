"""One committed bin: its map, and the rows that describe the payloads in it."""

from __future__ import annotations

import mmap
import sys
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splitpipe.errors import CorruptDataError
from splitpipe.storage.layout import HEADER_BYTES, ROW_DTYPE, BinFooter, BinHeader

__all__ = ["Rows", "map_bin", "map_file", "read_bin", "read_rows"]

# From 3.13 on, a map need not keep a file descriptor, of which a process may have few.
_NO_DESCRIPTOR: dict[str, bool] = {"trackfd": False} if sys.version_info >= (3, 13) else {}


@dataclass(frozen=True)
class Rows:
    """What a bin says of its payloads, in the order in which they lie; each array of shape (records of the bin,).

    Attributes:
        ordinals: the records' numbers within the segment.
        crcs: CRC-32 of each payload.
        starts: where each payload starts in the file.
        ends: where each payload ends; none lies outside the file.
        payloads_crc: CRC-32 of all payloads together.
    """

    ordinals: NDArray[np.uint32]
    crcs: NDArray[np.uint32]
    starts: NDArray[np.uint64]
    ends: NDArray[np.uint64]
    payloads_crc: int

    def payloads_are_intact(self, source: bytes | mmap.mmap) -> bool:
        """Return whether the payloads in `source`, all of the file, are as committed; cheaper than to check each."""
        if not len(self.ends):
            return True
        with memoryview(source) as whole, whole[HEADER_BYTES : int(self.ends[-1])] as payloads:
            return zlib.crc32(payloads) == self.payloads_crc


def map_file(path: Path) -> mmap.mmap:
    """Return a file of a committed segment as a read-only map.

    Raises:
        CorruptDataError: it is missing or empty.
    """
    try:
        with path.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ, **_NO_DESCRIPTOR)
    except FileNotFoundError:
        raise _missing(path) from None
    except ValueError:
        # What mmap says to a file without bytes.
        raise CorruptDataError(f"{path}: is empty. Restore it from a copy", path=str(path), offset=0) from None


def map_bin(path: Path, number: int, segment: bytes) -> mmap.mmap:
    """Return the map of bin `number` of the segment with id `segment`.

    Raises:
        CorruptDataError: the file is not that bin.
        FormatVersionError: it is of a newer format.
    """
    made = map_file(path)
    _check_identity(made, path, number, segment)
    return made


def read_bin(path: Path, number: int, segment: bytes) -> bytes:
    """Return the whole file of bin `number` of the segment with id `segment`; raises as `map_bin`."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise _missing(path) from None
    _check_identity(content, path, number, segment)
    return content


def _missing(path: Path) -> CorruptDataError:
    return CorruptDataError(f"{path}: a file of a committed segment is missing. Restore it from a copy", path=str(path))


def _check_identity(source: bytes | mmap.mmap, path: Path, number: int, segment: bytes) -> None:
    header = BinHeader.unpack(source[:HEADER_BYTES], str(path))
    if (header.number, header.segment) != (number, segment):
        raise CorruptDataError(
            f"{path}: is bin {header.number} of segment {header.segment.hex()}, and bin {number} of {segment.hex()} "
            "belongs here: files were mixed up. Restore it from a copy",
            path=str(path),
            offset=0,
        )


def read_rows(source: bytes | mmap.mmap, path: Path, records: int) -> Rows:
    """Return the rows of the bin whose file is `source`, and which is to hold `records` records.

    Raises:
        CorruptDataError: the end of the bin is not as committed.
    """
    footer_offset = len(source) - HEADER_BYTES
    footer = BinFooter.unpack(source[footer_offset:], str(path), footer_offset)
    packed = source[footer.rows_offset : footer.rows_offset + records * ROW_DTYPE.itemsize]
    if footer.records != records or zlib.crc32(packed) != footer.rows_crc:
        raise CorruptDataError(
            f"{path}: the rows that describe its {records} records fail their checksum. "
            "Records can still be read by number; restore the bin from a copy",
            path=str(path),
            offset=footer.rows_offset,
        )
    rows: NDArray[Any] = np.frombuffer(packed, ROW_DTYPE)
    ends = np.cumsum(rows["size"], dtype=np.uint64) + np.uint64(HEADER_BYTES)
    if records and ends[-1] != footer.rows_offset:
        raise CorruptDataError(
            f"{path}: its payloads end at byte {ends[-1]}, and its rows start at {footer.rows_offset}. "
            "Restore the bin from a copy",
            path=str(path),
            offset=footer.rows_offset,
        )
    # Copies of the fields, for a column of packed 12-byte rows is slow to go through.
    ordinals, crcs = np.ascontiguousarray(rows["ordinal"]), np.ascontiguousarray(rows["crc"])
    return Rows(ordinals, crcs, ends - rows["size"], ends, footer.payloads_crc)
