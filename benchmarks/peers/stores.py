"""Stores of records: splitpipe, LMDB, bagz, array_record and splitdataloader behind one set of methods.

Each uses its own fastest documented way for the job. Loops run in C (`map`, `chain`), so that what is timed
is the library and not this file.
"""

from __future__ import annotations

import abc
import os
import struct
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

import splitpipe
from benchmarks.harness import Contender

__all__ = ["STORES", "Store"]

_SPLITS = 64


class Store(Contender):
    """A library that keeps records on disk.

    Attributes:
        shuffle_note: how the shuffled epoch is read where the library has no such thing; empty where it has.
        directory: where the records of the reading workloads lie.
    """

    shuffle_note: ClassVar[str] = ""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    @abc.abstractmethod
    def write(self, target: Path, records: Sequence[bytes]) -> None:
        """Write the records into the new directory `target`; when this returns they are on the disk."""

    @abc.abstractmethod
    def open(self) -> None:
        """Open what lies in `directory` for reading; what was learnt by an earlier handle is forgotten."""

    @abc.abstractmethod
    def close(self) -> None:
        """Let go of the handle."""

    @abc.abstractmethod
    def length(self) -> int:
        """Return how many records there are."""

    @abc.abstractmethod
    def get(self, ids: Iterable[int]) -> Iterator[bytes]:
        """Read records one at a time, in the order asked."""

    @abc.abstractmethod
    def gather(self, batches: Iterable[Sequence[int]]) -> Iterator[bytes]:
        """Read many records with each call."""

    @abc.abstractmethod
    def scan(self) -> Iterator[bytes]:
        """Read all records in the order that is cheapest for the library."""

    @abc.abstractmethod
    def shuffled(self) -> Iterator[bytes]:
        """Read all records in random order."""


class SplitpipeStore(Store):
    """This project; CRC of every record on write, and on the first read of a handle."""

    name = "splitpipe"
    module = "splitpipe"
    package = "splitpipe"
    _data: splitpipe.SplitDataLoader

    def write(self, target: Path, records: Sequence[bytes]) -> None:
        splitpipe.write_split_data(target, records, splits=_SPLITS)

    def open(self) -> None:
        self._data = splitpipe.SplitDataLoader(self.directory)

    def close(self) -> None:
        del self._data

    def length(self) -> int:
        return len(self._data)

    def get(self, ids: Iterable[int]) -> Iterator[bytes]:
        return map(self._data.__getitem__, ids)

    def gather(self, batches: Iterable[Sequence[int]]) -> Iterator[bytes]:
        return chain.from_iterable(map(self._data.__getitem__, batches))

    def scan(self) -> Iterator[bytes]:
        return self._data.iterate_binwise()

    def shuffled(self) -> Iterator[bytes]:
        return self._data.iterate_binwise(shuffle=True)


class LmdbStore(Store):
    """LMDB: integer keys in order, one transaction with `sync=True`, one long read transaction."""

    name = "LMDB"
    module = "lmdb"
    package = "lmdb"
    shuffle_note = "sequential"
    _key = struct.Struct(">Q").pack

    def write(self, target: Path, records: Sequence[bytes]) -> None:
        import lmdb

        target.mkdir()
        room = 2 * sum(map(len, records)) + (64 << 20)
        items = zip(map(self._key, range(len(records))), records, strict=True)
        with lmdb.open(str(target), map_size=room, sync=True) as env, env.begin(write=True) as txn:
            txn.cursor().putmulti(items, append=True)

    def open(self) -> None:
        import lmdb

        self._env: Any = lmdb.open(str(self.directory), readonly=True, lock=False)
        self._txn: Any = self._env.begin()

    def close(self) -> None:
        self._txn.abort()
        self._env.close()

    def length(self) -> int:
        return int(self._env.stat()["entries"])

    def get(self, ids: Iterable[int]) -> Iterator[bytes]:
        return map(self._txn.get, map(self._key, ids))

    def gather(self, batches: Iterable[Sequence[int]]) -> Iterator[bytes]:
        cursor = self._txn.cursor()
        for batch in batches:
            for _, record in cursor.getmulti(map(self._key, batch)):
                yield record

    def scan(self) -> Iterator[bytes]:
        records: Iterator[bytes] = self._txn.cursor().iternext(keys=False, values=True)
        return records

    def shuffled(self) -> Iterator[bytes]:
        return self.scan()


class BagzStore(Store):
    """Bagz without compression; its shuffled epoch reads record by record along a permutation."""

    name = "bagz"
    module = "bagz"
    package = "bagz"
    shuffle_note = "permutation"
    _file = "records.bag"

    def write(self, target: Path, records: Sequence[bytes]) -> None:
        import bagz

        target.mkdir()
        with bagz.Writer(str(target / self._file)) as writer:
            for record in records:
                writer.write(record)
        _flush(target)

    def open(self) -> None:
        import bagz

        self._reader: Any = bagz.Reader(str(self.directory / self._file))

    def close(self) -> None:
        del self._reader

    def length(self) -> int:
        return len(self._reader)

    def get(self, ids: Iterable[int]) -> Iterator[bytes]:
        return map(self._reader.__getitem__, ids)

    def gather(self, batches: Iterable[Sequence[int]]) -> Iterator[bytes]:
        return chain.from_iterable(map(self._reader.read_indices, batches))

    def scan(self) -> Iterator[bytes]:
        return iter(self._reader)

    def shuffled(self) -> Iterator[bytes]:
        order = np.random.default_rng().permutation(len(self._reader))
        return map(self._reader.__getitem__, order.tolist())


class ArrayRecordStore(Store):
    """array_record with a record in each group, uncompressed; its shuffled epoch is batched reads of a permutation.

    The reader's options are those that its documentation gives for random access.
    """

    name = "array_record"
    module = "array_record.python.array_record_module"
    package = "array_record"
    shuffle_note = "permutation"
    _file = "records.array_record"
    _chunk = 1024  # records of one read in the shuffled epoch

    def write(self, target: Path, records: Sequence[bytes]) -> None:
        from array_record.python.array_record_module import ArrayRecordWriter

        target.mkdir()
        writer = ArrayRecordWriter(str(target / self._file), "group_size:1,uncompressed")
        deque(map(writer.write, records), maxlen=0)
        writer.close()
        _flush(target)

    def open(self) -> None:
        from array_record.python.array_record_module import ArrayRecordReader

        options = "readahead_buffer_size:0,max_parallelism:0"
        self._reader: Any = ArrayRecordReader(str(self.directory / self._file), options)

    def close(self) -> None:
        self._reader.close()

    def length(self) -> int:
        return int(self._reader.num_records())

    def get(self, ids: Iterable[int]) -> Iterator[bytes]:
        seek, read = self._reader.seek, self._reader.read
        for number in ids:  # a range or list of one number goes through the library's threads and costs more
            seek(number)
            yield read()

    def gather(self, batches: Iterable[Sequence[int]]) -> Iterator[bytes]:
        return chain.from_iterable(map(self._reader.read, batches))

    def scan(self) -> Iterator[bytes]:
        return iter(self._reader.read_all())

    def shuffled(self) -> Iterator[bytes]:
        order = np.random.default_rng().permutation(self.length()).tolist()
        return self.gather(order[start : start + self._chunk] for start in range(0, len(order), self._chunk))


class SplitdataloaderStore(Store):
    """The library whose interface splitpipe continues: bins of length-prefixed records, no checksums."""

    name = "splitdataloader"
    module = "splitdataloader"
    package = "splitdataloader"

    def write(self, target: Path, records: Sequence[bytes]) -> None:
        from splitdataloader import write_split_data

        write_split_data(str(target), records, splits=_SPLITS)
        _flush(target)

    def open(self) -> None:
        from splitdataloader import SplitDataLoader

        self._data: Any = SplitDataLoader(str(self.directory))

    def close(self) -> None:
        del self._data

    def length(self) -> int:
        return len(self._data)

    def get(self, ids: Iterable[int]) -> Iterator[bytes]:
        return map(self._data.__getitem__, ids)

    def gather(self, batches: Iterable[Sequence[int]]) -> Iterator[bytes]:
        return self.get(chain.from_iterable(batches))

    def scan(self) -> Iterator[bytes]:
        records: Iterator[bytes] = self._data.iterate_binwise()
        return records

    def shuffled(self) -> Iterator[bytes]:
        records: Iterator[bytes] = self._data.iterate_binwise(shuffle=True)
        return records


def _flush(directory: Path) -> None:
    """Bring a directory and the files in it to the disk, for libraries that leave this to the caller."""
    for path in (*directory.iterdir(), directory):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


STORES: tuple[type[Store], ...] = (SplitpipeStore, LmdbStore, BagzStore, ArrayRecordStore, SplitdataloaderStore)
