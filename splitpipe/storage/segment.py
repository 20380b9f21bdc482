"""One committed segment: its index and its bins, memory-mapped, read-only.

Nothing that an index says is believed: a slice of a map never leaves the file, a slice that comes out short is an
error, and so is a payload that fails its checksum. No Python object is kept per record.
"""

from __future__ import annotations

import json
import mmap
import os
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splitpipe.codecs import Encoding
from splitpipe.errors import CorruptDataError, PayloadError
from splitpipe.storage.bin import BinMaps, Rows, map_bin, map_file, missing, read_bin, read_rows
from splitpipe.storage.bin_reader import BinReader
from splitpipe.storage.columns import later_column_specs, load_column
from splitpipe.storage.layout import (
    CURE,
    ENTRY,
    ENTRY_DTYPE,
    HEADER_BYTES,
    INDEX_NAME,
    OFFSET_BITS,
    OFFSET_MASK,
    IndexHeader,
    bin_name,
)

__all__ = ["Segment", "read_index"]

# A bin up to this size is read whole into memory before its records are taken out in random order: one pass in
# sequence brings it into the CPU's cache, and taking a record from there costs two thirds of taking it from a map.
_SMALL_BIN_BYTES = 16 << 20

# An index up to this size is read instead of mapped: a set of very many small segments needs no map for each.
_SMALL_INDEX_BYTES = 64 << 10

_ENTRY_BYTES = ENTRY.size
_unpack_entry = ENTRY.unpack_from
_crc32 = zlib.crc32
_OFFSET_MASK = np.uint64(OFFSET_MASK)
_OFFSET_SHIFT = np.uint64(OFFSET_BITS)


class Segment:
    """The committed segment in directory `path`.

    Args:
        path: the segment's directory.
        verify: "first" checks each payload's CRC-32 the first time that this object reads it, "always" every time,
            "never" not at all.
        check_bins: look at once whether all bins are there and as long as they were committed.

    Attributes:
        first: the number, in the data set, of its first record; errors name records by it.
        records: how many records it holds.
        encoding: what its records went through.
        bin_counts: how many records each bin holds.
        replaces: names of the segments that this one stands for; they are to be ignored.
        holds: ids of the segments whose records it has: its own, and of a compacted one those it was made of.
        column_types: the columns that its records carry, and the type of each as it is stored.
        entries: the index's entry of each record, one behind the other.
        maps: each bin, mapped; None before its first use.
        trusted: whether every record was read and compared with its checksum, and need not be again.

    Raises:
        CorruptDataError: the index, or a bin's length, is not what was committed.
        FormatVersionError: written by a newer splitpipe.
        UnknownCodecError: its records are of a codec that this process does not know.
    """

    def __init__(self, path: Path, *, verify: str = "first", check_bins: bool = True) -> None:
        self.path = path
        self._directory = f"{path}{os.sep}"
        self.first = 0
        self._index = _open_index(path / INDEX_NAME)
        header, self.info = read_index(self._index, path / INDEX_NAME)
        self.records = header.records
        self.id = header.segment
        self.encoding = Encoding.from_spec(self.info["codec"])
        self.bin_lengths: list[int] = [length for length, _ in self.info["bins"]]
        self.bin_counts: list[int] = [count for _, count in self.info["bins"]]
        self.replaces: list[str] = self.info["replaces"]
        self.holds: set[str] = {self.id.hex(), *self.info.get("holds", ())}
        self.column_specs: dict[str, Any] = {
            spec["name"]: spec for spec in (*self.info["columns"], *later_column_specs(path))
        }
        self.column_types: dict[str, str] = {name: spec["type"] for name, spec in self.column_specs.items()}
        self._maps = BinMaps(len(self.bin_counts))
        self.maps = self._maps.maps
        self.entries = memoryview(self._index)[HEADER_BYTES : HEADER_BYTES + header.records * _ENTRY_BYTES]
        self._entries: NDArray[Any] = np.frombuffer(self.entries, ENTRY_DTYPE)
        self.verify = verify
        self.trusted = False
        self._unchecked = self.records  # how many are not marked as checked
        # Not 0 where a checksum was compared; memory that is zero until written to, and takes no room before.
        self._bin_checked = np.array([not count for count in self.bin_counts])  # those compared whole
        self._marks = mmap.mmap(-1, max(1, self.records))
        self._checked: NDArray[np.uint8] = np.frombuffer(self._marks, np.uint8)
        for number, count in enumerate(self.bin_counts):
            if count and check_bins:
                self.check_bin_length(number)

    def check_bin_length(self, number: int) -> None:
        """Raise CorruptDataError unless a bin's file is there, and as long as it was committed."""
        expected = self.bin_lengths[number]
        path = f"{self._directory}{bin_name(number)}"  # a pathlib.Path for each bin would take most of an open
        try:
            found = os.stat(path).st_size  # noqa: PTH116
        except FileNotFoundError:
            raise missing(Path(path)) from None
        if found != expected:
            raise CorruptDataError(
                f"{path}: is {found} bytes long, and was committed with {expected}: {CURE}",
                path=path,
                offset=min(found, expected),
            )

    def _map(self, number: int) -> Any:
        """Return the map of a bin, made and checked at its first use."""
        if number >= len(self.maps):
            raise CorruptDataError(
                f"{self.path / INDEX_NAME}: an entry names bin {number}, and the segment has {len(self.maps)}: {CURE}",
                path=str(self.path / INDEX_NAME),
            )
        made = self.maps[number]
        if made is None:
            made = map_bin(self.path / bin_name(number), number, self.id)
            if self.encoding.takes_view:
                made = memoryview(made)
            self._maps.put(number, made)
        return made

    def payload(self, ordinal: int) -> Any:
        """Return the stored bytes of the record `ordinal`, which must be from 0 to `records - 1`."""
        location, size, crc = _unpack_entry(self.entries, ordinal * _ENTRY_BYTES)
        number, offset = location >> OFFSET_BITS, location & OFFSET_MASK
        payload = self._map(number)[offset : offset + size]
        if len(payload) != size:
            raise self.corrupt(ordinal, f"its {size} bytes reach beyond the end of the bin")
        if self.verify != "never" and not self._marks[ordinal] and not self._bin_checked[number]:
            if _crc32(payload) != crc:
                raise self.corrupt(ordinal, f"checksum {_crc32(payload):08x}, committed as {crc:08x}")
            if self.verify == "first":
                self._marks[ordinal] = 1
                self._count_checked(1)
        return payload

    def _mark_checked(self, ordinals: NDArray[Any]) -> None:
        """Remember that these records were compared with their checksums."""
        before = int(np.count_nonzero(self._checked[ordinals]))
        self._checked[ordinals] = 1
        self._count_checked(len(ordinals) - before)

    def _count_checked(self, count: int) -> None:
        self._unchecked -= count
        # A record that came twice, or to two threads at once, was counted twice: the marks decide.
        if self._unchecked <= 0 and not self.trusted:
            self._unchecked = self.records - int(np.count_nonzero(self._checked))
            self.trusted = not self._unchecked

    def record(self, ordinal: int) -> Any:
        """Return the record `ordinal`, which must be from 0 to `records - 1`."""
        payload, decode = self.payload(ordinal), self.encoding.decode
        try:
            return payload if decode is None else decode(payload)
        except PayloadError as exc:
            raise self.corrupt(ordinal, str(exc)) from exc

    def decoded(self, payloads: list[Any], ordinals: NDArray[Any]) -> Any:
        """Return the records of many payloads, a list, or, of codec `struct`, an array."""
        decode_many = self.encoding.decode_many
        try:
            return payloads if decode_many is None else decode_many(payloads)
        except PayloadError:
            for ordinal in ordinals.tolist():
                self.record(ordinal)  # names the one
            raise

    def payloads(self, ordinals: NDArray[np.int64]) -> list[Any]:
        """Return the stored bytes of many records, in the order asked for; each from 0 to `records - 1`."""
        entries = self._entries.take(ordinals)
        locations, sizes = entries["location"], entries["size"]
        starts = locations & _OFFSET_MASK
        places = list(
            zip((locations >> _OFFSET_SHIFT).tolist(), starts.tolist(), (starts + sizes).tolist(), strict=True)
        )
        maps = self.maps
        try:
            found = [maps[number][start:end] for number, start, end in places]
        except (TypeError, IndexError):  # not mapped, or no such bin
            found = self._taken_bin_by_bin(places)
        if not self.trusted:
            self.check(found, ordinals, sizes, entries["crc"])
        return found

    def _taken_bin_by_bin(self, places: Sequence[tuple[int, int, int]]) -> list[Any]:
        """Return the bytes at places (bin, start, end), with no more bins mapped at a time than there is room for."""
        found: list[Any] = [b""] * len(places)
        for at in sorted(range(len(places)), key=places.__getitem__):
            number, start, end = places[at]
            found[at] = self._map(number)[start:end]
        return found

    def locate(self, ordinals: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.uint64], NDArray[np.uint32]]:
        """Return, for each of many records, its bin, its offset in the bin's file and its size."""
        entries = self._entries[ordinals]
        bins = (entries["location"] >> _OFFSET_SHIFT).astype(np.int64)
        if len(bins) and int(bins.max()) >= len(self.maps):
            self._map(int(bins.max()))
        return bins, entries["location"] & _OFFSET_MASK, entries["size"]

    def crcs(self, ordinals: NDArray[np.int64]) -> NDArray[np.uint32]:
        """Return the checksum that each of many records was committed with."""
        crcs: NDArray[np.uint32] = self._entries["crc"][ordinals]
        return crcs

    def open_bin(self, number: int, *, mapped: bool = False) -> BinReader:
        """Return a bin opened for reading many of its records.

        Args:
            number: which bin.
            mapped: read from the map even where a copy in memory would be faster.
        """
        path = self.path / bin_name(number)
        is_small = self.bin_lengths[number] <= _SMALL_BIN_BYTES
        if is_small and not mapped and not self.encoding.takes_view:
            source: Any = read_bin(path, number, self.id)
        else:
            source = self._map(number)
        rows = read_rows(source, path, self.bin_counts[number])
        return BinReader(self, source, rows, intact=self._check_bin(number, source, rows))

    def fixed_rows(self, number: int) -> NDArray[np.void] | None:
        """Return the payloads of a bin as an array of items of their size, if all have one and are as committed."""
        rows = self._maps.rows.get(number)
        if rows is None or self.verify == "always":
            rows = self.open_bin(number, mapped=True).fixed_rows()
            if rows is not None:
                self._maps.rows[number] = rows
        return rows

    def _check_bin(self, number: int, source: Any, rows: Rows) -> bool:
        """Return whether the payloads of a bin need no check one by one.

        If the checksum over all of them is wrong, the bin is not given up: each record is checked, and the one that
        is damaged is named.
        """
        if self.verify == "never" or self.trusted or self._bin_checked[number]:
            return True
        intact = rows.payloads_are_intact(source)
        if intact and self.verify == "first":
            self._bin_checked[number] = True
            self.trusted = bool(self._bin_checked.all())
        return intact

    def check(self, found: list[Any], ordinals: NDArray[Any], sizes: NDArray[Any], crcs: NDArray[np.uint32]) -> None:
        """Compare the lengths of payloads, and the checksums of those not read before; raises CorruptDataError."""
        short = np.flatnonzero(np.fromiter(map(len, found), np.int64, len(found)) != sizes)
        if len(short):
            raise self.corrupt(int(ordinals[short[0]]), "it reaches beyond the end of the bin")
        if self.verify == "never" or self.trusted or self._checked[ordinals].all():
            return
        wrong = np.flatnonzero(np.fromiter(map(_crc32, found), np.uint32, len(found)) != crcs)
        if len(wrong):
            at = int(wrong[0])
            raise self.corrupt(int(ordinals[at]), f"checksum {_crc32(found[at]):08x}, committed as {int(crcs[at]):08x}")
        if self.verify == "first":
            self._mark_checked(ordinals)

    def corrupt(self, ordinal: int, what: str) -> CorruptDataError:
        """Return the error that names a record, where it lies and what is wrong with it."""
        location, _, _ = _unpack_entry(self.entries, ordinal * _ENTRY_BYTES)
        path, offset = self.path / bin_name(location >> OFFSET_BITS), location & OFFSET_MASK
        return CorruptDataError(
            f"record {self.first + ordinal} is damaged ({path} at byte {offset}): {what}: {CURE}",
            path=str(path),
            record=self.first + ordinal,
            offset=offset,
        )

    def column(self, name: str) -> NDArray[Any]:
        """Return one column as an array of shape (records,)."""
        return load_column(self.path, self.column_specs[name], self.records)

    def close(self) -> None:
        """Let go of all files; nothing can be read afterwards. A map goes when the last view of it does."""
        self._maps.drop()
        self._entries = np.empty(0, ENTRY_DTYPE)
        self.entries.release()
        if isinstance(self._index, mmap.mmap):
            self._index.close()


def _open_index(path: Path) -> mmap.mmap | bytes:
    try:
        if path.stat().st_size <= _SMALL_INDEX_BYTES:
            return path.read_bytes()
    except FileNotFoundError:
        raise missing(path) from None
    return map_file(path)


def read_index(index: mmap.mmap | bytes, path: Path) -> tuple[IndexHeader, dict[str, Any]]:
    """Return the header and the info of an index.

    Raises:
        CorruptDataError: it is not what was committed.
        FormatVersionError: it was written by a newer splitpipe.
    """
    header = IndexHeader.unpack(index[:HEADER_BYTES], str(path))
    offset = HEADER_BYTES + header.records * _ENTRY_BYTES
    tail = index[offset:]
    if len(tail) != header.info_bytes or _crc32(tail) != header.info_crc:
        raise CorruptDataError(
            f"{path}: the {header.info_bytes} bytes of info at byte {offset} are cut short or fail their checksum: "
            f"{CURE}",
            path=str(path),
            offset=offset,
        )
    info: dict[str, Any] = json.loads(tail)
    return header, info
