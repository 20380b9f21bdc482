"""Writing: scatter records over bins, seal the bins, commit the segment or abort it.

Records wait in one list until there are enough; then each bin gets its share in one write. So a writer holds one
buffer however many bins it fills, keeps no file open between writes, and does its work per record in C loops.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import shutil
import uuid
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splitpipe.codecs import get_codec
from splitpipe.errors import CodecError, ColumnError, StorageError, WriterStateError
from splitpipe.progress import progress_bar
from splitpipe.storage.catalog import new_segment_name, segment_paths, work_path
from splitpipe.storage.columns import column_writers
from splitpipe.storage.durable import publish, sync, write_synced
from splitpipe.storage.layout import (
    ENTRY_DTYPE,
    HEADER_BYTES,
    INDEX_NAME,
    MAX_BINS,
    MAX_RECORD_BYTES,
    MAX_RECORDS,
    OFFSET_BITS,
    ROW_DTYPE,
    BinFooter,
    BinHeader,
    IndexHeader,
    bin_name,
)
from splitpipe.storage.scatter import bins_of
from splitpipe.storage.segment import Segment

__all__ = ["SplitWriter", "write_split_data"]

# Payload bytes that wait for one round of writes: 256 KiB for each of the default 64 bins.
_BUFFER_BYTES = 16 << 20
# What a waiting record takes beside its bytes: Python's object and its place in the list, rounded up.
_OBJECT_BYTES = 64


class SplitWriter:
    """Appends records to the data set in a directory.

    Use it as a context manager: leaving the block commits, an exception in it aborts. Until a commit, no reader sees
    any of the new records; after it, they survive any crash. A process killed in between leaves the earlier data as
    it was. Any number of writers, in any processes, may append to one directory at once; each commit is one segment.

    Args:
        target_dir: the directory, made if missing.
        splits: how many bins the records of a segment are scattered over, 1 to 65,536.
        codec: how a record becomes bytes: "bytes" for bytes-like records, "pickle" for any Python object. An
            existing data set keeps the codec that it has.
        columns: the metadata that each record carries: names, whose types the first values tell, or {name: type}.
        shuffle: scatter in a random order instead of a rotating one; the records' numbers stay as they are added.
        start_clean: at the first commit, the new data replaces what the directory held; nothing but splitpipe's own
            segments is removed, and an abort leaves them.

    Raises:
        CodecError: no such codec, or not the one of the data that is there.
        ColumnError: a column cannot be had, or the data that is there has others.
        ValueError: `splits` is out of range.
    """

    def __init__(
        self,
        target_dir: str | os.PathLike[str],
        splits: int = 64,
        *,
        codec: str = "bytes",
        columns: Mapping[str, Any] | Iterable[str] = (),
        shuffle: bool = False,
        start_clean: bool = False,
    ) -> None:
        if not 1 <= splits <= MAX_BINS:
            raise ValueError(f"splits is the number of bins, 1 to {MAX_BINS}, and got {splits}")
        self._directory = Path(target_dir)
        self._splits = splits
        self._codec = get_codec(codec)
        self._column_kinds = dict(columns) if isinstance(columns, Mapping) else columns
        self._columns = column_writers(self._column_kinds)
        self._shuffle = shuffle
        self._replaces: list[Path] = segment_paths(self._directory) if start_clean else []
        if not start_clean:
            self._check_fits_existing()
        if not self._directory.is_dir():
            self._directory.mkdir(parents=True, exist_ok=True)
            sync(self._directory.parent)
        self._state = "open"
        self._committed = 0
        self._begin_segment()

    def _check_fits_existing(self) -> None:
        paths = segment_paths(self._directory)
        if not paths:
            return
        with contextlib.closing(Segment(paths[-1])) as newest:
            if newest.codec_name != self._codec.name:
                raise CodecError(
                    f"{self._directory} holds records of codec {newest.codec_name!r}, and this writer has "
                    f"{self._codec.name!r}: write with codec={newest.codec_name!r}, or to another directory"
                )
            if set(newest.column_names) != set(self._columns):
                raise ColumnError(
                    f"{self._directory} has the columns {sorted(newest.column_names)}, and this writer has "
                    f"{sorted(self._columns)}: every record of a data set carries the same columns"
                )

    def _begin_segment(self) -> None:
        self._id = uuid.uuid4()
        self._work = work_path(self._directory, self._id)
        self._payloads: list[bytes] = []
        self._waiting_bytes = 0
        self._written = 0  # records that left the list for their bins
        self._ends = np.full(self._splits, HEADER_BYTES, dtype=np.uint64)  # where each bin's next payload goes
        self._payload_crcs = [0] * self._splits  # of all payloads of each bin
        self._entries: list[NDArray[Any]] = []
        self._columns = column_writers(self._column_kinds)

    def add(self, record: Any, **columns: Any) -> None:
        """Append one record, with a value for each column.

        Raises:
            RecordTypeError: the codec cannot hold it.
            ColumnError: a column's value is missing, unknown or does not fit.
            WriterStateError: the writer is closed, aborted, or failed to write before.
        """
        if self._state != "open":
            raise WriterStateError(f"this writer of {self._directory} is {self._state}: make a new SplitWriter")
        try:
            payload = self._codec.encode(record)
        except CodecError as exc:
            number = self._committed + self._written + len(self._payloads)
            raise type(exc)(f"record {number} of this writer: {exc}") from exc.__cause__
        size = len(payload)
        if size > MAX_RECORD_BYTES:
            raise StorageError(f"a record of {size} bytes: the format holds {MAX_RECORD_BYTES}; store it in parts")
        if columns or self._columns:
            self._add_columns(columns)
        self._payloads.append(payload)
        self._waiting_bytes += size + _OBJECT_BYTES
        if self._waiting_bytes >= _BUFFER_BYTES:
            self._flush()
            if self._written > MAX_RECORDS - _BUFFER_BYTES // _OBJECT_BYTES:
                self.commit()  # another round might be more than a segment holds

    def _add_columns(self, values: dict[str, Any]) -> None:
        if values.keys() != self._columns.keys():
            raise ColumnError(
                f"a record came with the columns {sorted(values)}, and this writer has {sorted(self._columns)}: "
                "declare columns=... when writing, and give each record a value for each"
            )
        checked = [(column, column.check(values[name])) for name, column in self._columns.items()]
        for column, value in checked:
            column.append(value)

    def _flush(self) -> None:
        """Write the waiting records to their bins."""
        if not self._payloads:
            return
        self._state = "failed"  # until all is written: half a round must never be committed
        self._work.mkdir(exist_ok=True)
        payloads, count = self._payloads, len(self._payloads)
        sizes = np.fromiter(map(len, payloads), np.uint64, count)
        bins = bins_of(self._written, count, self._splits, shuffle=self._shuffle)
        by_bin = np.argsort(bins, kind="stable")
        bounds = np.searchsorted(bins[by_bin], np.arange(self._splits + 1))
        offsets = np.empty(count, np.uint64)
        for number in range(self._splits):
            mine = by_bin[bounds[number] : bounds[number + 1]]
            if len(mine):
                ends = self._ends[number] + np.cumsum(sizes[mine])
                offsets[mine] = ends - sizes[mine]
                joined = b"".join([payloads[i] for i in mine.tolist()])
                self._append_to_bin(number, joined)
                self._payload_crcs[number] = zlib.crc32(joined, self._payload_crcs[number])
                self._ends[number] = ends[-1]
        entries = np.empty(count, ENTRY_DTYPE)
        entries["location"] = bins.astype(np.uint64) << np.uint64(OFFSET_BITS) | offsets
        entries["size"] = sizes
        entries["crc"] = np.fromiter(map(zlib.crc32, payloads), np.uint32, count)
        self._entries.append(entries)
        self._written += count
        self._payloads, self._waiting_bytes = [], 0
        self._state = "open"

    def _append_to_bin(self, number: int, data: bytes) -> None:
        with (self._work / bin_name(number)).open("ab") as file:
            if file.tell() == 0:
                file.write(BinHeader(number, self._id.bytes).pack())
            file.write(data)

    def commit(self) -> int:
        """Make every record added so far visible and safe, all at once, and return how many are now committed.

        May be called any number of times; each call that has records to commit makes one segment. If the process
        dies before it returns, either all of the records since the last commit are there or none.
        """
        if self._state != "open":
            raise WriterStateError(f"this writer of {self._directory} is {self._state}: there is nothing to commit")
        self._flush()
        if self._written:
            self._state = "failed"
            self._seal()
            publish(self._work, self._directory / new_segment_name(self._directory, self._id))
            self._committed += self._written
            self._state = "open"
            self._begin_segment()
        self._remove_replaced()
        return self._committed

    def _seal(self) -> None:
        """Finish the bins and write the columns and the index: all that the rename is to make visible."""
        entries = np.concatenate(self._entries)
        info: dict[str, Any] = {"codec": {"name": self._codec.name}}
        bins = entries["location"] >> np.uint64(OFFSET_BITS)
        by_bin = np.argsort(bins, kind="stable")
        bounds = np.searchsorted(bins[by_bin], np.arange(self._splits + 1))
        shape = []
        for number in range(self._splits):
            mine = by_bin[bounds[number] : bounds[number + 1]]
            if not len(mine):
                shape.append([0, 0])  # a bin without records has no file
                continue
            rows = np.empty(len(mine), ROW_DTYPE)
            rows["ordinal"] = mine
            rows["size"] = entries["size"][mine]
            rows["crc"] = entries["crc"][mine]
            shape.append([self._seal_bin(number, rows, info), len(mine)])
        info["bins"] = shape
        info["columns"] = [column.save(self._work) for column in self._columns.values()]
        info["replaces"] = [path.name for path in self._replaces]
        info["created"] = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
        info_json = _to_json(info)
        header = IndexHeader(self._splits, self._id.bytes, len(entries), len(info_json), zlib.crc32(info_json))
        write_synced(self._work / INDEX_NAME, header.pack(), entries.data.cast("B"), info_json)

    def _seal_bin(self, number: int, rows: NDArray[Any], info: dict[str, Any]) -> int:
        """Write what follows the payloads of a bin, sync it, and return the length of the file."""
        rows_bytes, info_json = rows.tobytes(), _to_json(info)
        footer = BinFooter(
            rows_offset=int(self._ends[number]),
            records=len(rows),
            segment_records=self._written,
            rows_crc=zlib.crc32(rows_bytes),
            info_bytes=len(info_json),
            info_crc=zlib.crc32(info_json),
            number=number,
            segment=self._id.bytes,
            payloads_crc=self._payload_crcs[number],
        )
        self._append_to_bin(number, rows_bytes + info_json + footer.pack())
        sync(self._work / bin_name(number))
        return int(self._ends[number]) + len(rows_bytes) + len(info_json) + HEADER_BYTES

    def _remove_replaced(self) -> None:
        """Remove what the committed data replaces; readers ignore it already, for the new index names it."""
        for path in self._replaces:
            shutil.rmtree(path, ignore_errors=True)
        self._replaces = []

    def abort(self) -> None:
        """Drop every record since the last commit, from memory and from disk."""
        shutil.rmtree(self._work, ignore_errors=True)
        self._state = "aborted"

    def close(self) -> None:
        """Commit what is left and end the writer; once closed or aborted, does nothing."""
        if self._state in ("closed", "aborted"):
            return
        self.commit()
        self._state = "closed"

    def __enter__(self) -> SplitWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None:
            try:
                self.close()
            except BaseException:
                self.abort()
                raise
        else:
            self.abort()

    def __repr__(self) -> str:
        waiting = self._written + len(self._payloads)
        return f"<SplitWriter {self._directory}: {self._committed} records committed, {waiting} waiting, {self._state}>"


def write_split_data(
    target_dir: str | os.PathLike[str],
    records: Iterable[Any],
    splits: int = 64,
    *,
    codec: str = "bytes",
    columns: Mapping[str, Any] | Iterable[str] = (),
    shuffle: bool = False,
    start_clean: bool = False,
    progress: bool = False,
) -> int:
    """Append `records` to the data set in `target_dir` and return how many were written.

    All of them are committed at once at the end; if `records` raises, or the process dies, none is.

    Args:
        target_dir: the directory, made if missing. Data already there is appended to.
        records: what to write, each as `codec` takes it. With `columns`, pairs of (record, {column: value}).
        splits: how many bins the records are scattered over.
        codec: "bytes" for bytes-like records, "pickle" for any Python object.
        columns: metadata beside each record: names, or {name: type}.
        shuffle: scatter in a random order instead of a rotating one.
        start_clean: replace what the directory held instead of appending to it.
        progress: show a bar; needs `pip install "splitpipe[progress]"`.

    Raises:
        RecordTypeError: the codec cannot hold a record.
        ColumnError: a column's value is missing, unknown or does not fit.
        TypeError: `records` is not iterable, or is one bytes or str object instead of many records.
    """
    if isinstance(records, bytes | bytearray | memoryview | str):
        kind = type(records).__qualname__
        raise TypeError(f"records is one {kind}, whose items are no records: pass a list or a generator of records")
    stream = progress_bar(records, unit="rec", label="write") if progress else records
    kinds = dict(columns) if isinstance(columns, Mapping) else tuple(columns)
    with SplitWriter(
        target_dir, splits, codec=codec, columns=kinds, shuffle=shuffle, start_clean=start_clean
    ) as writer:
        if kinds:
            for pair in stream:
                record, values = _record_and_columns(pair)
                writer.add(record, **values)
        else:
            for record in stream:
                writer.add(record)
        return writer.commit()


def _record_and_columns(pair: Any) -> tuple[Any, dict[str, Any]]:
    if isinstance(pair, tuple) and len(pair) == 2 and isinstance(pair[1], Mapping):
        return pair[0], dict(pair[1])
    raise ColumnError(
        f"with columns=..., records are pairs of (record, {{column: value}}), and got a {type(pair).__qualname__}"
    )


def _to_json(info: dict[str, Any]) -> bytes:
    return json.dumps(info, sort_keys=True, separators=(",", ":")).encode("ascii")
