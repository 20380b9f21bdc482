"""Many segments as one sequence: length, single records, slices as views, gathers, columns."""

from __future__ import annotations

import contextlib
import itertools
import operator
import os
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from splitpipe.codecs import get_codec
from splitpipe.errors import NotADatasetError, PickleRefusedError, StorageError
from splitpipe.storage.catalog import segment_paths
from splitpipe.storage.columns import ColumnsView
from splitpipe.storage.segment import CHUNK_RECORDS, Segment

__all__ = ["Dataset", "View"]


class Dataset(Sequence[Any]):
    """The records committed to a directory, as a sequence; `SplitDataLoader` documents what users meet.

    It holds maps of the files, shared by every process that has them open, and no Python object per record. It
    pickles to its path and the names of its segments.
    """

    def __init__(self, data_dir: str | os.PathLike[str], *, verify: str = "first", allow_pickle: bool = False) -> None:
        if verify not in ("first", "always", "never"):
            raise ValueError(f'verify is "first", "always" or "never", and got {verify!r}')
        self._path = Path(data_dir)
        self._verify = verify
        self._allow_pickle = allow_pickle
        self._open(segment_paths(self._path))

    def _open(self, paths: list[Path]) -> None:
        if not paths:
            raise NotADatasetError(_why_no_dataset(self._path))
        segments = [Segment(path, verify=self._verify) for path in paths]
        replaced = {name for segment in segments for name in segment.replaces}
        self._segments = []
        self._starts: list[int] = []
        self._len = 0
        for segment in segments:
            if segment.path.name in replaced:
                segment.close()
                continue
            segment.first = self._len
            self._starts.append(self._len)
            self._segments.append(segment)
            self._len += segment.records
        self._decode = self._choose_decode()
        self._only = self._segments[0].payload if len(self._segments) == 1 else None
        self.columns: Mapping[str, NDArray[Any]] = ColumnsView(self._column_names(), self._load_column)

    def _choose_decode(self) -> Callable[[bytes], Any] | None:
        names = sorted({segment.codec_name for segment in self._segments})
        if len(names) > 1:
            raise StorageError(
                f"{self._path}: its segments are of different codecs, {', '.join(names)}: "
                "unrelated writers filled one directory; move the segments of each codec to a directory of their own"
            )
        codec = get_codec(names[0])
        if codec.runs_code and not self._allow_pickle:
            raise PickleRefusedError(
                f"{self._path}: its records are of codec {codec.name!r}, and loading one runs whatever its author put "
                "there: if you trust whoever wrote it, pass allow_pickle=True"
            )
        return None if codec.identity else codec.decode

    def _column_names(self) -> list[str]:
        first, *others = (segment.column_names for segment in self._segments)
        return [name for name in first if all(name in names for names in others)]

    def _load_column(self, name: str) -> NDArray[Any]:
        parts = [segment.column(name) for segment in self._segments]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def __len__(self) -> int:
        return self._len

    @overload
    def __getitem__(self, key: int) -> Any: ...
    @overload
    def __getitem__(self, key: slice) -> View: ...
    @overload
    def __getitem__(self, key: Sequence[int] | NDArray[Any]) -> list[Any]: ...
    def __getitem__(self, key: Any) -> Any:
        """Return a record for a number, a view for a slice, a list of records for a list or array of numbers.

        Raises:
            IndexError: there is no such record.
            CorruptDataError: the bytes on disk are not those committed.
        """
        if type(key) is int and 0 <= key < self._len:
            if self._only is not None:
                payload = self._only(key)
            else:
                at = bisect_right(self._starts, key) - 1
                payload = self._segments[at].payload(key - self._starts[at])
            return payload if self._decode is None else self._decode(payload)
        if isinstance(key, slice):
            return View(self, range(self._len)[key])
        if isinstance(key, Sequence | np.ndarray) and not isinstance(key, str | bytes):
            return self.gather(key)
        return self[_position(key, self._len)]

    def gather(self, ids: ArrayLike) -> list[Any]:
        """Return the records numbered `ids`, a sequence or array of integers, in the order asked for.

        Negative numbers count from the end, and a number may come more than once.

        Raises:
            IndexError: there is no record of one of the numbers, or `ids` are not integers.
            CorruptDataError: the bytes on disk are not those committed.
        """
        numbers = _positions(ids, self._len)
        payloads = self._payloads(numbers)
        return payloads if self._decode is None else list(map(self._decode, payloads))

    def _payloads(self, numbers: NDArray[np.int64]) -> list[bytes]:
        if len(self._segments) == 1:
            return self._segments[0].payloads(numbers)
        found: list[bytes] = [b""] * len(numbers)
        segment_of = np.searchsorted(self._starts, numbers, side="right") - 1
        for at in np.unique(segment_of).tolist():
            places = np.flatnonzero(segment_of == at)
            payloads = self._segments[at].payloads(numbers[places] - self._starts[at])
            for place, payload in zip(places.tolist(), payloads, strict=True):
                found[place] = payload
        return found

    def __iter__(self) -> Iterator[Any]:
        for start in range(0, self._len, CHUNK_RECORDS):
            yield from self.gather(np.arange(start, min(start + CHUNK_RECORDS, self._len)))

    def bin_counts(self) -> list[int]:
        """Return how many records each bin holds, over all segments, oldest segment first."""
        return [count for segment in self._segments for count in segment.bin_counts]

    def bin_records(self, number: int, positions: NDArray[np.int64]) -> Iterator[Any]:
        """Return the records at `positions` of a bin, numbered as `bin_counts` counts the bins."""
        for segment in self._segments:
            if number < len(segment.bin_counts):
                payloads = itertools.chain.from_iterable(segment.bin_payloads(number, positions))
                return payloads if self._decode is None else map(self._decode, payloads)
            number -= len(segment.bin_counts)
        raise IndexError(f"no such bin: the number is {number} too high")

    def close(self) -> None:
        """Let go of the files; nothing can be read afterwards. Needed only to free maps early."""
        for segment in self._segments:
            segment.close()

    def __enter__(self) -> Dataset:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        return {
            "path": self._path,
            "verify": self._verify,
            "allow_pickle": self._allow_pickle,
            "segments": [segment.path.name for segment in self._segments],
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._path = state["path"]
        self._verify = state["verify"]
        self._allow_pickle = state["allow_pickle"]
        self._open([self._path / name for name in state["segments"]])

    def __repr__(self) -> str:
        bins = len(self.bin_counts())
        return f"<{type(self).__name__} {str(self._path)!r}: {self._len} records in {bins} bins>"


class View(Sequence[Any]):
    """Some records of a data set, as a sequence; made by slicing, holds no record, pickles small."""

    def __init__(self, dataset: Dataset, ids: range) -> None:
        self._dataset = dataset
        self._ids = ids

    def __len__(self) -> int:
        return len(self._ids)

    @overload
    def __getitem__(self, key: int) -> Any: ...
    @overload
    def __getitem__(self, key: slice) -> View: ...
    @overload
    def __getitem__(self, key: Sequence[int] | NDArray[Any]) -> list[Any]: ...
    def __getitem__(self, key: Any) -> Any:
        """Return a record for a number, a view for a slice, a list of records for a list or array of numbers."""
        if isinstance(key, slice):
            return View(self._dataset, self._ids[key])
        if isinstance(key, Sequence | np.ndarray) and not isinstance(key, str | bytes):
            return self.gather(key)
        return self._dataset[self._ids[_position(key, len(self._ids))]]

    def gather(self, ids: ArrayLike) -> list[Any]:
        """Return the records numbered `ids` within this view, in the order asked for; as `Dataset.gather`."""
        return self._dataset.gather(self._ids.start + self._ids.step * _positions(ids, len(self._ids)))

    def __iter__(self) -> Iterator[Any]:
        for start in range(0, len(self._ids), CHUNK_RECORDS):
            yield from self.gather(np.arange(start, min(start + CHUNK_RECORDS, len(self._ids))))

    @property
    def columns(self) -> Mapping[str, NDArray[Any]]:
        """The columns of the records in the view: name to an array with one element per record."""
        return ColumnsView(self._dataset.columns, lambda name: self._dataset.columns[name][np.array(self._ids)])

    def __repr__(self) -> str:
        return f"<View of {len(self._ids)} records of {self._dataset!r}>"


def _position(key: Any, length: int) -> int:
    """Return `key` as a number from 0 to `length - 1`."""
    try:
        number = operator.index(key)
    except TypeError:
        raise TypeError(
            f"records are numbered: the index is an int, a slice, or a list of ints, and got {type(key).__qualname__}"
        ) from None
    if not -length <= number < length:
        raise IndexError(f"no record {number}: there are {length}, numbered 0 to {length - 1}")
    return number + length if number < 0 else number


def _positions(ids: ArrayLike, length: int) -> NDArray[np.int64]:
    """Return `ids` as numbers from 0 to `length - 1`, int64, one-dimensional."""
    array = np.asarray(ids)
    if array.size == 0:
        return np.empty(0, np.int64)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise IndexError(
            f"record numbers are a one-dimensional sequence of integers, and got shape {array.shape} of {array.dtype}"
        )
    numbers: NDArray[np.int64] = array.astype(np.int64, copy=False)
    if numbers.min() < -length or numbers.max() >= length:
        wrong = int(numbers[(numbers < -length) | (numbers >= length)][0])
        raise IndexError(f"no record {wrong}: there are {length}, numbered 0 to {length - 1}")
    return np.where(numbers < 0, numbers + length, numbers)


def _why_no_dataset(path: Path) -> str:
    cure = "write one with splitpipe.write_split_data"
    if not path.exists():
        return f"{path}: there is no such directory: check the path, or {cure}"
    if not path.is_dir():
        return f"{path}: is a file, and a data set is a directory: pass the directory that was written to"
    with contextlib.suppress(StopIteration):
        next(path.iterdir())
        return f"{path}: is no data set: it holds no committed segment of splitpipe; {cure}, and let its writer commit"
    return f"{path}: is empty: no record was ever committed to it; {cure}"
