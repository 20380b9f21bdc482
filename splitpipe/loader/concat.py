"""concat: several sequences of records as one, one behind the other."""

from __future__ import annotations

import functools
from bisect import bisect_right
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splitpipe.codecs import Codec
from splitpipe.loader.opened import OpenBin
from splitpipe.loader.records import Records
from splitpipe.storage import ColumnsView, join_columns, join_records

__all__ = ["concat"]


def concat(*parts: Records) -> Records:
    """Return the records of all `parts` as one sequence: those of the first, then those of the second, and so on.

    Shuffled, their bins are shuffled together. Its columns are those that all parts have.

    Args:
        parts: data sets, views, or what `concat` returned.

    Raises:
        TypeError: one of them is nothing of the kind.
        ValueError: there is none.
    """
    for part in parts:
        if not isinstance(part, Records):
            raise TypeError(
                f"concat takes data sets and views of them, and got a {type(part).__qualname__}: open a directory with "
                "SplitDataLoader(path) first"
            )
    if not parts:
        raise ValueError("concat takes at least one data set")
    return _Concat(parts)


def _joined(columns: Sequence[ColumnsView], name: str) -> NDArray[Any]:
    return join_columns([of_part[name] for of_part in columns])


class _Concat(Records):
    def __init__(self, parts: Sequence[Records]) -> None:
        self._parts = tuple(parts)
        self._ends = np.cumsum([len(part) for part in self._parts])
        self._starts: list[int] = (self._ends - [len(part) for part in self._parts]).tolist()
        counts = [list(part._bin_counts()) for part in self._parts]
        self._counts = [count for of_part in counts for count in of_part]
        self._first_bins: list[int] = np.cumsum([0, *map(len, counts)]).tolist()

    def __len__(self) -> int:
        return int(self._ends[-1])

    def _part_of(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.searchsorted(self._ends, numbers, side="right")

    def _read(self, number: int) -> Any:
        at = int(np.searchsorted(self._ends, number, side="right"))
        return self._parts[at]._read(number - self._starts[at])

    def _read_many(self, numbers: NDArray[np.int64], threads: int) -> Any:
        part_of = self._part_of(numbers)
        parts = []
        for at in np.unique(part_of).tolist():
            places = np.flatnonzero(part_of == at)
            parts.append((places, self._parts[at]._read_many(numbers[places] - self._starts[at], threads)))
        return join_records(len(numbers), parts)

    def _bin_counts(self) -> Sequence[int]:
        return self._counts

    def _open_bin(self, number: int, *, mapped: bool = False) -> OpenBin:
        at = bisect_right(self._first_bins, number) - 1
        return self._parts[at]._open_bin(number - self._first_bins[at], mapped=mapped)

    def _fixed_rows(self, number: int) -> tuple[Codec, NDArray[np.void]] | None:
        at = bisect_right(self._first_bins, number) - 1
        return self._parts[at]._fixed_rows(number - self._first_bins[at])

    def _locate(self, numbers: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        bins, keys = np.empty(len(numbers), np.int64), np.empty(len(numbers), np.int64)
        part_of = self._part_of(numbers)
        for at in np.unique(part_of).tolist():
            places = part_of == at
            of_part, keys[places] = self._parts[at]._locate(numbers[places] - self._starts[at])
            bins[places] = of_part + self._first_bins[at]
        return bins, keys

    def _identity(self) -> bytes:
        return b"+".join(part._identity() for part in self._parts)

    def _columns(self) -> ColumnsView:
        first, *others = columns = [part.columns for part in self._parts]
        names = [name for name in first if all(name in names for names in others)]
        return ColumnsView(names, functools.partial(_joined, columns))

    def __repr__(self) -> str:
        return f"<concat of {len(self._parts)} parts: {len(self)} records>"
