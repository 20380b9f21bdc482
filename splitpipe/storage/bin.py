"""One committed bin: its map, and the rows that describe the payloads in it."""

from __future__ import annotations

import itertools
import mmap
import sys
import weakref
import zlib
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from splitpipe.errors import CorruptDataError
from splitpipe.storage.layout import CURE, HEADER_BYTES, ROW_DTYPE, BinFooter, BinHeader

__all__ = ["BinMaps", "Rows", "map_bin", "map_file", "missing", "read_bin", "read_footer", "read_rows"]

# From 3.13 on, a map need not keep a file descriptor, of which a process may have few.
_NO_DESCRIPTOR: dict[str, bool] = {"trackfd": False} if sys.version_info >= (3, 13) else {}

_Source = bytes | mmap.mmap | memoryview


@dataclass(frozen=True)
class Rows:
    """What a bin says of its payloads, in the order in which they lie; each array of shape (records of the bin,).

    Attributes:
        ordinals: the records' numbers within the segment, ascending.
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

    def payloads_are_intact(self, source: _Source) -> bool:
        """Return whether the payloads in `source`, all of the file, are as committed; cheaper than to check each."""
        if not len(self.ends):
            return True
        with memoryview(source) as whole, whole[HEADER_BYTES : int(self.ends[-1])] as payloads:
            return zlib.crc32(payloads) == self.payloads_crc


class BinMaps:
    """The maps of a segment's bins.

    Those of all segments of a process together stay fewer than its descriptors allow, for before Python 3.13 each map
    holds one: the bin that was mapped first goes first.

    Attributes:
        maps: each bin's map, by number; None for a bin not mapped, or not any more.
        rows: of a mapped bin whose payloads are all of one size and were checked, those payloads as an array.
    """

    _mapped: ClassVar[OrderedDict[int, tuple[weakref.ref[BinMaps], int]]] = OrderedDict()
    _serial: ClassVar[Iterator[int]] = itertools.count()

    def __init__(self, bins: int) -> None:
        self.maps: list[Any] = [None] * bins
        self.rows: dict[int, NDArray[np.void]] = {}

    def put(self, number: int, made: Any) -> None:
        """Keep `made` as the map of bin `number`; another bin may lose its place for it."""
        self.maps[number] = made
        if _NO_DESCRIPTOR:
            return
        limit, mapped = _descriptors() // 2, BinMaps._mapped
        mapped[next(BinMaps._serial)] = weakref.ref(self), number
        if len(mapped) > limit:
            for serial in [serial for serial, (maps, _) in mapped.items() if maps() is None]:
                del mapped[serial]
        while len(mapped) > limit:
            BinMaps._drop_oldest()

    @staticmethod
    def _drop_oldest() -> None:
        maps, oldest = BinMaps._mapped.popitem(last=False)[1]
        if (its_maps := maps()) is not None:
            its_maps.maps[oldest] = None  # unmapped as soon as nobody reads from it
            its_maps.rows.pop(oldest, None)

    def drop(self) -> None:
        """Let go of all maps."""
        self.maps[:] = [None] * len(self.maps)
        self.rows.clear()


def _descriptors() -> int:
    """Return how many files this process may have open."""
    try:
        import resource  # there is none on Windows
    except ImportError:
        return 512
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 1 << 20 if soft == resource.RLIM_INFINITY else soft


def map_file(path: Path) -> mmap.mmap:
    """Return a file of a committed segment as a read-only map.

    Raises:
        CorruptDataError: it is missing or empty.
    """
    try:
        with path.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ, **_NO_DESCRIPTOR)
    except FileNotFoundError:
        raise missing(path) from None
    except ValueError:
        # What mmap says to a file without bytes.
        raise CorruptDataError(f"{path}: is empty: {CURE}", path=str(path), offset=0) from None


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
        raise missing(path) from None
    _check_identity(content, path, number, segment)
    return content


def missing(path: Path) -> CorruptDataError:
    """Return the error for a file of a segment that is not there."""
    return CorruptDataError(f"{path}: a file of a committed segment is missing: {CURE}", path=str(path))


def _check_identity(source: bytes | mmap.mmap, path: Path, number: int, segment: bytes) -> None:
    header = BinHeader.unpack(source[:HEADER_BYTES], str(path))
    if (header.number, header.segment) != (number, segment):
        raise CorruptDataError(
            f"{path}: is bin {header.number} of segment {header.segment.hex()}, and bin {number} of {segment.hex()} "
            f"belongs here: files were mixed up: {CURE}",
            path=str(path),
            offset=0,
        )


def read_footer(source: _Source, path: Path) -> BinFooter:
    """Return the footer of the bin whose file is `source`; raises CorruptDataError."""
    offset = len(source) - HEADER_BYTES
    return BinFooter.unpack(bytes(source[max(offset, 0) :]), str(path), offset)


def read_rows(source: _Source, path: Path, records: int) -> Rows:
    """Return the rows of the bin whose file is `source`, and which is to hold `records` records.

    Raises:
        CorruptDataError: the end of the bin is not as committed.
    """
    footer = read_footer(source, path)
    packed = bytes(source[footer.rows_offset : footer.rows_offset + records * ROW_DTYPE.itemsize])
    if footer.records != records or zlib.crc32(packed) != footer.rows_crc:
        raise CorruptDataError(
            f"{path}: the rows that describe its {records} records fail their checksum. Records can still be read by "
            f"number; {CURE}",
            path=str(path),
            offset=footer.rows_offset,
        )
    rows: NDArray[Any] = np.frombuffer(packed, ROW_DTYPE)
    ends = np.cumsum(rows["size"], dtype=np.uint64) + np.uint64(HEADER_BYTES)
    if records and ends[-1] != footer.rows_offset:
        raise CorruptDataError(
            f"{path}: its payloads end at byte {ends[-1]}, and its rows start at {footer.rows_offset}: {CURE}",
            path=str(path),
            offset=footer.rows_offset,
        )
    # Copies of the fields, for a column of packed 12-byte rows is slow to go through.
    ordinals, crcs = np.ascontiguousarray(rows["ordinal"]), np.ascontiguousarray(rows["crc"])
    return Rows(ordinals, crcs, ends - rows["size"], ends, footer.payloads_crc)
