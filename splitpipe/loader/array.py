"""ArrayLoader: the rows of an array, or its named parts, as records."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splitpipe.arrays import BigArray
from splitpipe.codecs import Codec
from splitpipe.codecs.rows import RowCodec
from splitpipe.loader.opened import OpenBin
from splitpipe.loader.records import Records
from splitpipe.storage import ColumnsView

__all__ = ["ArrayLoader"]

# Records that are shuffled as one: more mix better, and cost 16 bytes each while they are. An array is read wherever
# one looks, so nothing else speaks against many.
_BIN_RECORDS = 1 << 22


class ArrayLoader(Records):
    """An array as a data set: all that `SplitDataLoader` has, views and `batches` too.

    By rows, a record is one element of the first axis, and a batch is one array. By names, a record is one named part,
    as it lies in the file, and a batch is a list of them, in the column "name" what each is called. It pickles to the
    path of the array, so that workers map the file.

    Args:
        array: a `BigArray`, or the path of one; or an array in memory, which workers get a copy of.
        by: "rows" or "names".

    Raises:
        ValueError: `by` is neither, or the array has no first axis.
        TypeError: by names, and the array has none, for it is no `BigArray`.
    """

    def __init__(self, array: NDArray[Any] | str | os.PathLike[str], by: str = "rows") -> None:
        self._open(array if isinstance(array, np.ndarray) else BigArray(array), by)

    def _open(self, array: NDArray[Any], by: str) -> None:
        if by not in ("rows", "names") or not array.ndim:
            raise ValueError(f'by is "rows" or "names" of an array with a first axis, and got {by!r}, {array.shape}')
        self._array, self._by = array, by
        self._plain: NDArray[Any] = array.view(np.ndarray)
        self._names: Mapping[str, tuple[int, int]] = {}
        self._codec: Codec = _PartCodec()
        if by == "names":
            if not isinstance(array, BigArray):
                raise TypeError(f"a {type(array).__qualname__} has no names: open its file with BigArray(path)")
            self._names = array.names
        elif array.dtype.itemsize and 0 not in array.shape[1:] and not array.dtype.hasobject:
            self._codec = RowCodec(np.dtype((array.dtype, array.shape[1:])))
        self._spans = list(self._names.values())

    def __len__(self) -> int:
        return len(self._plain) if self._by == "rows" else len(self._spans)

    def _read(self, number: int) -> Any:
        if self._by == "rows":
            return self._plain[number]
        start, stop = self._spans[number]
        return self._plain[start:stop]

    def _read_many(self, numbers: NDArray[np.int64], threads: int) -> Any:
        if self._by == "rows":
            return self._plain.take(numbers, axis=0)
        return [self._read(number) for number in numbers.tolist()]

    def _bin_counts(self) -> Sequence[int]:
        return [min(_BIN_RECORDS, len(self) - first) for first in range(0, len(self), _BIN_RECORDS)]

    def _open_bin(self, number: int, *, mapped: bool = False) -> OpenBin:
        bin_of_rows: Any = _ArrayBin(self, number * _BIN_RECORDS)
        return bin_of_rows, None

    def _fixed_rows(self, number: int) -> tuple[Codec, NDArray[np.void]] | None:
        rows = self._plain[number * _BIN_RECORDS : (number + 1) * _BIN_RECORDS]
        if not isinstance(self._codec, RowCodec) or not rows.flags.c_contiguous or not rows.nbytes:
            return None
        row = np.dtype((np.void, rows.nbytes // len(rows)))
        return self._codec, rows.reshape(len(rows), -1).view(np.uint8).view(row)[:, 0]

    def _locate(self, numbers: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        return numbers // _BIN_RECORDS, numbers % _BIN_RECORDS

    def _columns(self) -> ColumnsView:
        names = list(self._names)
        return ColumnsView(["name"] if self._by == "names" else [], lambda _: np.array(names, np.dtypes.StringDType()))

    def __getstate__(self) -> dict[str, Any]:
        return {"array": self._array, "by": self._by}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._open(state["array"], state["by"])

    def __repr__(self) -> str:
        what = str(getattr(self._array, "filename", None) or "in memory")
        return f"<ArrayLoader {what!r}: {len(self)} {self._by}>"


class _ArrayBin:
    """Some records of an array in a row; stands for the `BinReader` of stored records."""

    def __init__(self, loader: ArrayLoader, first: int) -> None:
        self._loader = loader
        self._first = first
        self.codec = loader._codec

    def positions(self, keys: NDArray[np.int64]) -> NDArray[np.int64]:
        return keys

    def records(self, positions: NDArray[np.int64]) -> Any:
        return self._loader._read_many(positions + self._first, 0)


class _PartCodec(Codec):
    """Of records that are arrays of any length: batches of them are lists."""

    name = "array"
    identity = True

    def encode(self, record: Any) -> bytes:
        return bytes(record.tobytes())

    def decode(self, payload: bytes) -> bytes:
        return payload
