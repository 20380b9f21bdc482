"""SplitDataLoader: the data set in a directory, as a sequence of records."""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from splitpipe.codecs import Codec
from splitpipe.loader.records import Records, View
from splitpipe.storage import BinReader, ColumnsView, Dataset
from splitpipe.storage.layout import ENTRY_PARTS, ENTRY_SHIFT

__all__ = ["SplitDataLoader"]

_unpack_parts = ENTRY_PARTS.unpack_from


class SplitDataLoader(Records):
    """The data set in a directory: a sequence of its records, and the orders to read them in.

    It shows what was committed when it was made; data appended later needs a new one. It pickles to its path, and
    may be used inside a pipeline's generator, from several threads, and after a fork.

    Args:
        data_dir: the directory that was written to.
        verify: compare each record's checksum the "first" time it is read (each process its own), "always", or
            "never".
        allow_pickle: load records of the codec "pickle", which runs whatever their author put into them.

    Raises:
        NotADatasetError: there is no committed data set.
        CorruptDataError: a file is missing, cut short, or not what was committed.
        FormatVersionError: written by a newer splitpipe.
        PickleRefusedError: the records are pickles and `allow_pickle` is not set.
        UnknownCodecError: the records are of a codec that was not registered in this process.
        ValueError: `verify` is none of the three.
    """

    def __init__(self, data_dir: str | os.PathLike[str], *, verify: str = "first", allow_pickle: bool = False) -> None:
        self._open(Dataset(data_dir, verify=verify, allow_pickle=allow_pickle))

    def _open(self, dataset: Dataset) -> None:
        self._dataset = dataset
        self._only = dataset.segments[0] if len(dataset.segments) == 1 else None
        self._entries: memoryview = self._only.entries if self._only else memoryview(b"")
        self._maps: list[Any] | None = None  # of the only segment, once all its records are trusted
        self._decode = dataset.decode

    def __len__(self) -> int:
        return self._dataset.records

    @overload
    def __getitem__(self, key: int) -> Any: ...
    @overload
    def __getitem__(self, key: slice) -> View: ...
    @overload
    def __getitem__(self, key: Sequence[int] | NDArray[Any]) -> Any: ...
    def __getitem__(self, key: Any) -> Any:
        """Return a record for a number, a view for a slice, many records for a list or array of numbers.

        Raises:
            IndexError: there is no such record.
            CorruptDataError: the bytes on disk are not those committed.
        """
        # The way of nearly every call, written out, for each call more would cost a tenth: a number, in a set of one
        # segment whose checksums were all compared before, in a bin that is mapped. All else goes the long way. A
        # negative key counts from the end of the entries too, and one that is no number cannot be shifted.
        if self._maps is not None:
            try:
                start, high, number, size = _unpack_parts(self._entries, key << ENTRY_SHIFT)
                if high:
                    start += high << 32
                payload = self._maps[number][start : start + size]
                return payload if self._decode is None else self._decode(payload)
            except (TypeError, IndexError, struct.error):
                pass
        return super().__getitem__(key)

    def _read(self, number: int) -> Any:
        if self._maps is None and self._only is not None and self._only.trusted:
            self._maps = self._only.maps
        return self._dataset.read(number)

    def _read_many(self, numbers: NDArray[np.int64], threads: int) -> Any:
        return self._dataset.read_many(numbers, threads=threads)

    def _bin_counts(self) -> Sequence[int]:
        return self._dataset.bin_counts

    def _open_bin(self, number: int, *, mapped: bool = False) -> tuple[BinReader, None]:
        return self._dataset.open_bin(number, mapped=mapped), None

    def _fixed_rows(self, number: int) -> tuple[Codec, NDArray[np.void]] | None:
        rows = self._dataset.fixed_rows(number)
        return None if rows is None else (self._dataset.codec, rows)

    def _locate(self, numbers: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        return self._dataset.locate(numbers)

    def _identity(self) -> bytes:
        return repr([(segment.path.name, segment.records) for segment in self._dataset.segments]).encode()

    def _columns(self) -> ColumnsView:
        return ColumnsView(self._dataset.column_names(), self._dataset.column)

    def close(self) -> None:
        """Let go of the files; nothing can be read afterwards. Needed only to free maps early."""
        self._dataset.close()

    def __enter__(self) -> SplitDataLoader:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        return {"dataset": self._dataset}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._open(state["dataset"])

    def __repr__(self) -> str:
        dataset = self._dataset
        return f"<SplitDataLoader {str(dataset.path)!r}: {len(self)} records in {len(dataset.bin_counts)} bins>"
