"""Writing: records to payloads, payloads to segments, segments committed or aborted."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from splitpipe.codecs import Encoding
from splitpipe.errors import CodecError, ColumnError, StorageError, WriterStateError
from splitpipe.progress import progress_bar
from splitpipe.storage.catalog import remove_segment, segment_paths
from splitpipe.storage.columns import ColumnWriter, column_kinds
from splitpipe.storage.durable import Disk
from splitpipe.storage.layout import MAX_RECORD_BYTES, MAX_RECORDS
from splitpipe.storage.segment import Segment
from splitpipe.storage.segment_writer import SegmentWriter

__all__ = ["SplitWriter", "fit_existing", "write_split_data"]

# Payloads wait until they are this much together: what the CPU's cache holds.
_CHUNK_BYTES = 2 << 20
# What a waiting record takes beside its bytes: Python's object and its place in the list, rounded up.
_OBJECT_BYTES = 64
# So many records are taken from an iterator at once at most: should huge ones follow small ones, it was not too many.
_MAX_SOME = 256
# A segment ends at this many records, whatever their size; those of one chunk may still come on top.
_MAX_SEGMENT_RECORDS = MAX_RECORDS - _CHUNK_BYTES // _OBJECT_BYTES


class SplitWriter:
    """Appends records to the data set in a directory.

    Use it as a context manager: leaving the block commits, an exception in it aborts. Until a commit, no reader sees
    any of the new records; after it, they survive any crash. A process killed in between leaves the earlier data as
    it was. Any number of writers, in any processes, may append to one directory at once; each commit is one segment.

    Args:
        target_dir: the directory, made if missing.
        splits: how many bins the records of a segment are scattered over, 1 to 65,536.
        codec: how a record becomes bytes: "bytes", "json", "pickle", "tree", "struct", or one that was registered;
            with "+zlib", "+zstd" or "+lz4" behind it, compressed. A numpy dtype stands for "struct" with that dtype.
            An existing data set keeps the codec that it has.
        columns: the metadata that each record carries: names, whose types the first values tell, or {name: type}.
        shuffle: scatter in a random order instead of a rotating one; the records' numbers stay as they are added.
        start_clean: at the first commit, the new data replaces what the directory held; nothing but splitpipe's own
            segments is removed, and an abort leaves them.
        max_bin_bytes: when a bin grows beyond this, what was added so far is committed and a new segment begins, so
            that a crash in a long run loses little.
        durability: "commit" makes every commit wait until the data is on the disk; "none" does not, so that a power
            cut, but no kill, may take the newest commits or damage them.

    Raises:
        CodecError: no such codec, or not the one of the data that is there.
        ColumnError: a column cannot be had, or the data that is there has others.
        ValueError: `splits`, `max_bin_bytes` or `durability` is out of range.
    """

    def __init__(
        self,
        target_dir: str | os.PathLike[str],
        splits: int = 64,
        *,
        codec: str | np.dtype[Any] = "bytes",
        columns: Mapping[str, Any] | Iterable[str] = (),
        shuffle: bool = False,
        start_clean: bool = False,
        max_bin_bytes: int = 256 << 20,
        durability: str = "commit",
    ) -> None:
        if max_bin_bytes < 1:
            raise ValueError(f"max_bin_bytes is a number of bytes, at least 1, and got {max_bin_bytes}")
        self._directory = Path(target_dir)
        self._splits = splits
        self._encoding = Encoding.of(codec)
        self._kinds = column_kinds(columns)
        self._shuffle = shuffle
        self._max_bin_bytes = max_bin_bytes
        self._disk = Disk.of(durability)
        self._replaces: list[Path] = segment_paths(self._directory) if start_clean else []
        if not start_clean:
            self._encoding, self._kinds = fit_existing(self._directory, self._encoding, self._kinds)
        if not self._directory.is_dir():
            self._directory.mkdir(parents=True, exist_ok=True)
            self._disk.sync(self._directory.parent)
        self._state = "open"
        self._committed = 0
        self._begin_segment()

    def _begin_segment(self) -> None:
        self._segment = SegmentWriter(self._directory, self._splits, shuffle=self._shuffle, disk=self._disk)
        self._payloads: list[bytes] = []
        self._waiting_bytes = 0
        self._columns = {name: ColumnWriter(name, kind) for name, kind in self._kinds.items()}

    def add(self, record: Any, /, **columns: Any) -> None:
        """Append one record, with a value for each column; None is a missing value.

        Raises:
            RecordTypeError: the codec cannot hold it.
            ColumnError: a column's value is absent, unknown or does not fit.
            WriterStateError: the writer is closed, aborted, or failed to write before.
        """
        self._check_open()
        payload = self._encoded(record)
        if columns or self._columns:
            self._add_columns(columns)
        self._payloads.append(payload)
        self._waiting_bytes += len(payload) + _OBJECT_BYTES
        if self._waiting_bytes >= _CHUNK_BYTES:
            self._hand_over()

    def extend(self, records: Iterable[Any]) -> None:
        """Append many records, of a data set without columns: as `add`, in less time.

        If `records` raises, those before stay added.
        """
        self._check_open()
        if self._columns or not self._encoding.codec.identity:
            for record in records:
                self.add(record)
            return
        # The same as add(), some at a time: for bytes, a call for each would cost more than all the rest.
        stream, some = iter(records), 1
        while some:
            payloads: list[Any] = []
            try:
                payloads.extend(itertools.islice(stream, some))
            finally:
                self._take(payloads)
            # As many again as half the room that is left holds, going by those that just came.
            size = sum(map(len, payloads)) + _OBJECT_BYTES * len(payloads)
            some = len(payloads) and min(_MAX_SOME, max(1, _CHUNK_BYTES * len(payloads) // (2 * size)))

    def _take(self, records: list[Any]) -> None:
        """Append records that are their own payloads, once they are bytes."""
        payloads = records if set(map(type, records)) <= {bytes} else list(map(self._encoded, records))
        self._payloads += payloads
        self._waiting_bytes += sum(map(len, payloads)) + _OBJECT_BYTES * len(payloads)
        if self._waiting_bytes >= _CHUNK_BYTES:
            self._hand_over()

    def _check_open(self) -> None:
        if self._state != "open":
            raise WriterStateError(f"this writer of {self._directory} is {self._state}: make a new SplitWriter")

    def _encoded(self, record: Any) -> bytes:
        try:
            payload = self._encoding.codec.encode(record)
        except CodecError as exc:
            number = self._committed + self._segment.records + len(self._payloads)
            raise type(exc)(f"record {number} of this writer: {exc}") from exc.__cause__
        if len(payload) > MAX_RECORD_BYTES:
            raise StorageError(
                f"a record of {len(payload)} bytes: the format holds {MAX_RECORD_BYTES}; store it in parts"
            )
        return payload

    def _add_columns(self, values: dict[str, Any]) -> None:
        if values.keys() != self._columns.keys():
            raise ColumnError(
                f"a record came with the columns {sorted(values)}, and this writer has {sorted(self._columns)}: "
                "declare columns=... when writing, and give each record a value for each"
            )
        checked = [(column, column.check(values[name])) for name, column in self._columns.items()]
        for column, value in checked:
            column.append(value)

    def _hand_over(self) -> None:
        """Give the waiting payloads to the segment."""
        if not self._payloads:
            return
        payloads, self._payloads, self._waiting_bytes = self._payloads, [], 0
        self._state = "failed"  # until all is taken: half of it must never be committed
        if self._encoding.compression is not None:
            if not self._segment.records:
                self._encoding = self._encoding.trained(payloads)
            payloads = list(map(self._encoding.compress, payloads))
        self._segment.append(payloads)
        self._state = "open"
        if self._segment.largest_bin > self._max_bin_bytes or self._segment.records >= _MAX_SEGMENT_RECORDS:
            self.commit()

    def commit(self) -> int:
        """Make every record added so far visible and safe, all at once, and return how many are now committed.

        May be called any number of times; each call that has records to commit makes one segment. If the process
        dies before it returns, either all of the records since the last commit are there or none.
        """
        if self._state != "open":
            raise WriterStateError(f"this writer of {self._directory} is {self._state}: there is nothing to commit")
        self._hand_over()
        if self._segment.records:
            self._state = "failed"
            self._segment.publish(self._encoding, list(self._columns.values()), [path.name for path in self._replaces])
            self._committed += self._segment.records
            self._kinds = {name: column.kind for name, column in self._columns.items()}
            self._state = "open"
            self._begin_segment()
        self._remove_replaced()
        return self._committed

    def _remove_replaced(self) -> None:
        """Remove what the committed data replaces; readers ignore it already, for the new index names it."""
        for path in self._replaces:
            remove_segment(path)
        self._replaces = []

    def abort(self) -> None:
        """Drop every record since the last commit, from memory and from disk."""
        self._segment.discard()
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
        waiting = self._segment.records + len(self._payloads)
        return f"<SplitWriter {self._directory}: {self._committed} records committed, {waiting} waiting, {self._state}>"


def fit_existing(directory: Path, encoding: Encoding, kinds: dict[str, Any]) -> tuple[Encoding, dict[str, Any]]:
    """Return the encoding and the column types for data that is to be appended to `directory`.

    Raises:
        CodecError: it is of another codec than the data that is there.
        ColumnError: it has other columns.
    """
    paths = segment_paths(directory)
    if not paths:
        return encoding, kinds
    with contextlib.closing(Segment(paths[-1])) as newest:
        if difference := encoding.difference(newest.encoding):
            raise CodecError(
                f"{directory}: the new data and that which is there are of {difference}: write with "
                f"codec={newest.encoding.name!r}, or to another directory"
            )
        if set(newest.column_types) != set(kinds):
            raise ColumnError(
                f"{directory} has the columns {sorted(newest.column_types)}, and the new data has {sorted(kinds)}: "
                "every record of a data set carries the same columns"
            )
        for name, stored in newest.column_types.items():
            declared = stored if kinds[name] is None else ColumnWriter(name, kinds[name]).type_name
            if declared != stored:
                raise ColumnError(
                    f"{directory}: column {name!r} holds {stored}, and is declared as {declared}: declare what is there"
                )
        fitted = {name: str if stored == "str" else np.dtype(stored) for name, stored in newest.column_types.items()}
        # A dtype that the first record would tell is known already.
        return Encoding(newest.encoding.codec, encoding.compression), {name: fitted[name] for name in kinds}


def write_split_data(
    target_dir: str | os.PathLike[str],
    records: Iterable[Any],
    splits: int = 64,
    *,
    codec: str | np.dtype[Any] = "bytes",
    columns: Mapping[str, Any] | Iterable[str] = (),
    shuffle: bool = False,
    start_clean: bool = False,
    progress: bool = False,
    max_bin_bytes: int = 256 << 20,
    durability: str = "commit",
) -> int:
    """Append `records` to the data set in `target_dir` and return how many were written.

    They are committed at once at the end; if `records` raises, or the process dies, none is. Of more than a segment
    holds (`max_bin_bytes` in a bin, or 4,294,934,527 records), each full segment is committed on its own.

    Args:
        target_dir: the directory, made if missing. Data already there is appended to.
        records: what to write, each as `codec` takes it. With `columns`, pairs of (record, {column: value}).
        splits: how many bins the records are scattered over.
        codec: "bytes", "json", "pickle", "tree", "struct" or a registered one, alone or with "+zlib", "+zstd" or
            "+lz4"; or a numpy dtype, whose rows the records are.
        columns: metadata beside each record: names, or {name: type}.
        shuffle: scatter in a random order instead of a rotating one.
        start_clean: replace what the directory held instead of appending to it.
        progress: show a bar; needs `pip install "splitpipe[progress]"`.
        max_bin_bytes: the size of a bin at which a new segment begins.
        durability: "commit" waits until the data is on the disk; "none" does not.

    Raises:
        RecordTypeError: the codec cannot hold a record.
        ColumnError: a column's value is absent, unknown or does not fit.
        TypeError: `records` is not iterable, or is one bytes or str object instead of many records.
    """
    if isinstance(records, bytes | bytearray | memoryview | str):
        kind = type(records).__qualname__
        raise TypeError(f"records is one {kind}, whose items are no records: pass a list or a generator of records")
    stream = progress_bar(records, unit="rec", label="write") if progress else records
    with SplitWriter(
        target_dir,
        splits,
        codec=codec,
        columns=(kinds := column_kinds(columns)),
        shuffle=shuffle,
        start_clean=start_clean,
        max_bin_bytes=max_bin_bytes,
        durability=durability,
    ) as writer:
        if kinds:
            for pair in stream:
                record, values = _record_and_columns(pair)
                writer.add(record, **values)
        else:
            writer.extend(stream)
        return writer.commit()


def _record_and_columns(pair: Any) -> tuple[Any, dict[str, Any]]:
    if isinstance(pair, tuple) and len(pair) == 2 and isinstance(pair[1], Mapping):
        return pair[0], dict(pair[1])
    raise ColumnError(
        f"with columns=..., records are pairs of (record, {{column: value}}), and got a {type(pair).__qualname__}"
    )
