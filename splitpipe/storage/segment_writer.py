"""One segment being written: payloads to bins, bins sealed, all of it published at once.

Payloads are grouped by bin a few thousand at a time, while they are in the CPU's cache; the groups wait until each
bin gets its share in one write. So a writer holds one buffer however many bins it fills, keeps no bin open between
writes, and does its work per record in C loops. The entries of the index go to its file as they come.
"""

from __future__ import annotations

import datetime
import itertools
import json
import operator
import shutil
import uuid
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splitpipe.codecs import Encoding
from splitpipe.storage.catalog import Claim, new_segment_name, work_path
from splitpipe.storage.columns import ColumnWriter
from splitpipe.storage.durable import Disk
from splitpipe.storage.layout import (
    ENTRY,
    ENTRY_DTYPE,
    HEADER_BYTES,
    INDEX_NAME,
    INFO_NAME,
    MAX_BINS,
    OFFSET_BITS,
    ROW_DTYPE,
    BinFooter,
    BinHeader,
    IndexHeader,
    bin_name,
    seal_text,
)
from splitpipe.storage.scatter import bins_of

__all__ = ["SegmentWriter"]

# Groups wait in memory until they are this much together; then every bin gets one write.
_ROUND_BYTES = 16 << 20

# When a segment is sealed, this many entries are sorted by bin in memory at a time.
_SEALED_RECORDS = 1 << 22


class SegmentWriter:
    """Writes one segment into `directory`.

    Args:
        directory: the data set's directory.
        splits: how many bins.
        shuffle: scatter in a random order instead of a rotating one.
        disk: how files are written.

    Raises:
        ValueError: `splits` is out of range.

    Attributes:
        records: how many were appended.
        work: where the segment lies until it is published.
    """

    def __init__(self, directory: Path, splits: int, *, shuffle: bool, disk: Disk) -> None:
        if not 1 <= splits <= MAX_BINS:
            raise ValueError(f"splits is the number of bins, 1 to {MAX_BINS}, and got {splits}")
        self._directory = directory
        self._splits = splits
        self._shuffle = shuffle
        self._disk = disk
        self._id = uuid.uuid4()
        self.work = work_path(directory, self._id)
        self._claim: Claim | None = None
        self.records = 0
        self._ends = np.full(splits, HEADER_BYTES, dtype=np.int64)  # where each bin's next payload goes
        self._payload_crcs = [0] * splits  # of all payloads of each bin
        self._begun = [False] * splits  # whether a bin has a file
        self._groups: list[list[bytes]] = [[] for _ in range(splits)]  # for each bin, what is to be written to it
        self._entries: list[NDArray[Any]] = []
        self._waiting_bytes = 0

    @property
    def largest_bin(self) -> int:
        """The length, so far, of the longest bin, in bytes."""
        return int(self._ends.max())

    def append(self, payloads: Sequence[bytes]) -> None:
        """Take the payloads of the next records, at least one."""
        count = len(payloads)
        sizes = np.fromiter(map(len, payloads), np.int64, count)
        bins = bins_of(self.records, count, self._splits, shuffle=self._shuffle)
        by_bin, bounds = group_by_bin(bins, self._splits)
        grouped = _taken(payloads, by_bin)
        ends = np.cumsum(sizes[by_bin])
        starts = ends - sizes[by_bin]
        for number in np.flatnonzero(np.diff(bounds)).tolist():
            first, last = bounds[number], bounds[number + 1]
            joined = b"".join(grouped[first:last])
            self._groups[number].append(joined)
            self._payload_crcs[number] = zlib.crc32(joined, self._payload_crcs[number])
            starts[first:last] += self._ends[number] - starts[first]
            self._ends[number] += len(joined)
        entries = np.empty(count, ENTRY_DTYPE)
        entries["location"][by_bin] = starts
        entries["location"] |= bins.astype(np.uint64) << np.uint64(OFFSET_BITS)
        entries["size"] = sizes
        entries["crc"] = np.fromiter(map(zlib.crc32, payloads), np.uint32, count)
        self._entries.append(entries)
        self.records += count
        self._waiting_bytes += int(ends[-1]) + entries.nbytes
        if self._waiting_bytes >= _ROUND_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write what waits to the files."""
        if self._claim is None:
            self.work.mkdir()
            self._claim = Claim(self.work)
            self._disk.create(self.work / INDEX_NAME, bytes(HEADER_BYTES))  # filled in when it is sealed
        filled = [number for number, groups in enumerate(self._groups) if groups]
        for number in filled:  # all before the first is written to: a file is made in a third of the time then
            if not self._begun[number]:
                self._disk.create(self.work / bin_name(number), BinHeader(number, self._id.bytes).pack())
                self._begun[number] = True
        for number in filled:
            self._disk.append(self.work / bin_name(number), self._groups[number])
            self._groups[number] = []
        self._disk.append(self.work / INDEX_NAME, [entries.data.cast("B") for entries in self._entries])
        self._entries.clear()
        self._waiting_bytes = 0

    def sync(self) -> None:
        """Write what waits, and make all files safe."""
        self.flush()
        for number in np.flatnonzero(self._begun).tolist():
            self._disk.sync(self.work / bin_name(number))
        self._disk.sync(self.work / INDEX_NAME)

    def state(self) -> dict[str, Any]:
        """Return, as JSON, what `resume` needs to go on from here; nothing may wait."""
        return {
            "splits": self._splits,
            "shuffle": self._shuffle,
            "records": self.records,
            "begun": self._begun,
            "ends": self._ends.tolist(),
            "crcs": self._payload_crcs,
        }

    @classmethod
    def resume(cls, work: Path, state: Mapping[str, Any], *, disk: Disk) -> SegmentWriter:
        """Return a writer that goes on with the files in `work` from where `state()` was taken.

        Raises:
            CorruptDataError: a file is missing or shorter than it was then.
        """
        segment = cls(work.parent, state["splits"], shuffle=state["shuffle"], disk=disk)
        segment._id, segment.work = uuid.UUID(work.name.removeprefix(".writing-")), work
        segment._claim = Claim(work)
        segment.records = state["records"]
        segment._ends = np.array(state["ends"], np.int64)
        segment._payload_crcs = list(state["crcs"])
        disk.cut(work / INDEX_NAME, HEADER_BYTES + segment.records * ENTRY.size)
        segment._begun = list(state["begun"])
        for number, begun in enumerate(segment._begun):
            if begun:
                disk.cut(work / bin_name(number), int(segment._ends[number]))
            else:
                (work / bin_name(number)).unlink(missing_ok=True)
        return segment

    def publish(
        self,
        encoding: Encoding,
        columns: Sequence[ColumnWriter],
        replaces: Sequence[str],
        *,
        before_rename: Callable[[Path], None] | None = None,
        name: Callable[[uuid.UUID], str] | None = None,
        remarks: Mapping[str, Any] | None = None,
    ) -> Path:
        """Make the segment visible and safe, and return its path.

        Args:
            encoding: what its payloads went through.
            columns: its columns, each with a value for each record.
            replaces: names of the segments that it stands for.
            before_rename: called with its directory, to remove what the segment does not need.
            name: gives it a name for its id; by default one behind all others.
            remarks: what else its info is to say, as JSON.
        """
        self.flush()
        self._seal(encoding, columns, replaces, remarks or {})
        if before_rename is not None:
            before_rename(self.work)
        final = self._directory / (name(self._id) if name else new_segment_name(self._directory, self._id))
        self._disk.publish(self.work, final)
        self._release()
        return final

    def discard(self) -> None:
        """Remove what was written."""
        shutil.rmtree(self.work, ignore_errors=True)
        self._release()

    def leave(self) -> None:
        """Let go of the files without removing them."""
        self._release()

    def _release(self) -> None:
        if self._claim is not None:
            self._claim.release()

    def _seal(
        self,
        encoding: Encoding,
        columns: Sequence[ColumnWriter],
        replaces: Sequence[str],
        remarks: Mapping[str, Any],
    ) -> None:
        """Finish the bins and write the columns and the index: all that the rename is to make visible."""
        spec = encoding.spec()
        bare = {key: value for key, value in spec.items() if key != "compression"}
        if encoding.compression is not None:
            bare["compression"] = {"name": encoding.compression.name}
        info: dict[str, Any] = {
            "codec": spec,
            "bins": self._seal_bins(_to_json({"codec": bare})),
            "columns": [column.save(self.work, self._disk) for column in columns],
            "replaces": list(replaces),
            "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            **remarks,
        }
        info_json = _to_json(info)
        header = IndexHeader(self._splits, self._id.bytes, self.records, len(info_json), zlib.crc32(info_json))
        index = self.work / INDEX_NAME
        self._disk.append(index, [info_json])
        self._disk.patch(index, 0, header.pack())
        self._disk.sync(index)
        (self.work / INFO_NAME).unlink(missing_ok=True)  # of a build that was killed when it had come as far as this
        self._disk.write(self.work / INFO_NAME, [seal_text(info_json)])

    def _seal_bins(self, info_json: bytes) -> list[list[int]]:
        """Seal every bin and return, for each, its file's length and its number of records; 0 for no file."""
        crcs, counts = [0] * self._splits, np.zeros(self._splits, np.int64)
        packed: list[bytes] = [b""] * self._splits  # rows that are not written yet
        entries = np.memmap(self.work / INDEX_NAME, ENTRY_DTYPE, "r", HEADER_BYTES, self.records)
        for first in range(0, self.records, _SEALED_RECORDS):
            for number in np.flatnonzero(counts).tolist():
                self._disk.append(self.work / bin_name(number), [packed[number]])
            some = entries[first : first + _SEALED_RECORDS]
            by_bin, bounds = group_by_bin(some["location"] >> np.uint64(OFFSET_BITS), self._splits)
            rows = np.empty(len(some), ROW_DTYPE)
            rows["ordinal"] = by_bin + first
            rows["size"] = some["size"][by_bin]
            rows["crc"] = some["crc"][by_bin]
            counts += np.diff(bounds)
            for number, (begin, end) in enumerate(itertools.pairwise(bounds)):
                packed[number] = rows[begin:end].tobytes()
                crcs[number] = zlib.crc32(packed[number], crcs[number])
        shape = [[0, 0] for _ in range(self._splits)]
        for number in np.flatnonzero(counts).tolist():
            tail = self._tail(number, int(counts[number]), crcs[number], info_json)
            self._disk.append(self.work / bin_name(number), [packed[number], *tail])
            length = int(self._ends[number] + counts[number] * ROW_DTYPE.itemsize) + sum(map(len, tail))
            shape[number] = [length, int(counts[number])]
        for number in np.flatnonzero(counts).tolist():  # all were begun before the first is waited for
            self._disk.sync(self.work / bin_name(number))
        return shape

    def _tail(self, number: int, records: int, rows_crc: int, info_json: bytes) -> list[bytes]:
        """Return what follows the rows of a bin."""
        footer = BinFooter(
            rows_offset=int(self._ends[number]),
            records=records,
            segment_records=self.records,
            rows_crc=rows_crc,
            info_bytes=len(info_json),
            info_crc=zlib.crc32(info_json),
            number=number,
            segment=self._id.bytes,
            payloads_crc=self._payload_crcs[number],
        )
        return [info_json, footer.pack()]


def group_by_bin(bins: NDArray[Any], splits: int) -> tuple[NDArray[np.int64], list[int]]:
    """Return the positions of records ordered by bin, and where in that order each bin's begin and end."""
    narrow = bins.astype(np.uint16)  # numpy sorts 16 bits by radix, in one pass
    by_bin = np.argsort(narrow, kind="stable")
    bounds = np.zeros(splits + 1, np.int64)
    np.cumsum(np.bincount(narrow, minlength=splits), out=bounds[1:])
    return by_bin, bounds.tolist()


def _taken(payloads: Sequence[bytes], order: NDArray[np.int64]) -> Sequence[bytes]:
    # itemgetter takes many items in one C loop; of a single one it would return no tuple.
    return operator.itemgetter(*order.tolist())(payloads) if len(order) > 1 else payloads


def _to_json(info: dict[str, Any]) -> bytes:
    return json.dumps(info, sort_keys=True, separators=(",", ":")).encode("ascii")
