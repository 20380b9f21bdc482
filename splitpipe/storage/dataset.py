"""The committed segments of one directory, as one sequence of numbered records. Knows no order but theirs."""

from __future__ import annotations

import contextlib
import os
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splitpipe.codecs import Codec, is_builtin, register_codec
from splitpipe.errors import NotADatasetError, PickleRefusedError, StorageError
from splitpipe.storage.bin_reader import BinReader
from splitpipe.storage.catalog import segment_paths
from splitpipe.storage.cold import read_cold
from splitpipe.storage.columns_view import join_columns
from splitpipe.storage.segment import Segment

__all__ = ["Dataset", "join_records", "open_segments", "why_no_dataset"]


def open_segments(paths: Sequence[Path], *, verify: str = "first") -> list[Segment]:
    """Return the segments at `paths`, numbered on from each other, without those that another one replaces."""
    opened = [Segment(path, verify=verify) for path in paths]
    replaced = {name for segment in opened for name in segment.replaces}
    segments, first = [], 0
    for segment in opened:
        if segment.path.name in replaced:
            segment.close()
            continue
        segment.first = first
        first += segment.records
        segments.append(segment)
    return segments


class Dataset:
    """What is committed to a directory; `SplitDataLoader` is the face that users meet.

    It holds maps of the files, shared by every process that has them open, and no Python object per record. It
    pickles to its path and the names of its segments.

    Attributes:
        path: the directory.
        segments: the segments, oldest first.
        records: how many records they hold.
        decode: payload to record, if it is the same for all segments; None if the payload is the record.
    """

    def __init__(self, data_dir: str | os.PathLike[str], *, verify: str = "first", allow_pickle: bool = False) -> None:
        if verify not in ("first", "always", "never"):
            raise ValueError(f'verify is "first", "always" or "never", and got {verify!r}')
        self.path = Path(data_dir)
        self._verify = verify
        self._allow_pickle = allow_pickle
        self._open(segment_paths(self.path))

    def _open(self, paths: list[Path]) -> None:
        if not paths:
            raise NotADatasetError(why_no_dataset(self.path))
        self.segments = open_segments(paths, verify=self._verify)
        self._starts = [segment.first for segment in self.segments]
        self.records = sum(segment.records for segment in self.segments)
        self._check_codecs()
        self.decode: Callable[[Any], Any] | None = self.segments[0].encoding.decode
        self.bin_counts = [count for segment in self.segments for count in segment.bin_counts]
        self._bin_starts = np.cumsum([0, *(len(segment.bin_counts) for segment in self.segments)]).tolist()

    def _check_codecs(self) -> None:
        first, *others = (segment.encoding for segment in self.segments)
        for other in others:
            if difference := first.difference(other):
                raise StorageError(
                    f"{self.path}: its segments are of {difference}: unrelated writers filled one directory; move the "
                    "segments of each to a directory of their own"
                )
        if first.codec.runs_code and not self._allow_pickle:
            raise PickleRefusedError(
                f"{self.path}: its records are of codec {first.name!r}, and loading one runs whatever its author put "
                "there: if you trust whoever wrote it, pass allow_pickle=True"
            )

    @property
    def codec(self) -> Codec:
        """The codec of the records."""
        return self.segments[0].encoding.codec

    def read(self, number: int) -> Any:
        """Return the record `number`, from 0 to `records - 1`."""
        at = bisect_right(self._starts, number) - 1
        return self.segments[at].record(number - self._starts[at])

    def read_many(self, numbers: NDArray[np.int64], *, threads: int = 0) -> Any:
        """Return the records with these numbers, in the order asked for: a list, or, of codec `struct`, an array.

        Args:
            numbers: each from 0 to `records - 1`.
            threads: how many to read with, as from slow storage; 0 reads from the maps.
        """
        if len(self.segments) == 1:
            return self._read_segment(self.segments[0], numbers, threads)
        segment_of = np.searchsorted(self._starts, numbers, side="right") - 1
        parts = []
        for at in np.unique(segment_of).tolist():
            places = np.flatnonzero(segment_of == at)
            parts.append((places, self._read_segment(self.segments[at], numbers[places] - self._starts[at], threads)))
        return join_records(len(numbers), parts)

    def _read_segment(self, segment: Segment, ordinals: NDArray[np.int64], threads: int) -> Any:
        payloads = read_cold(segment, ordinals, threads) if threads else segment.payloads(ordinals)
        return segment.decoded(payloads, ordinals)

    def open_bin(self, number: int, *, mapped: bool = False) -> BinReader:
        """Return a bin, counted as in `bin_counts`, opened for reading many of its records."""
        at = bisect_right(self._bin_starts, number) - 1
        return self.segments[at].open_bin(number - self._bin_starts[at], mapped=mapped)

    def fixed_rows(self, number: int) -> NDArray[np.void] | None:
        """Return the payloads of a bin as an array of items of their size, if all have one and are as committed."""
        at = bisect_right(self._bin_starts, number) - 1
        return self.segments[at].fixed_rows(number - self._bin_starts[at])

    def locate(self, numbers: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return, for each record, its bin, counted as in `bin_counts`, and its ordinal in the bin's segment."""
        bins, ordinals = np.empty(len(numbers), np.int64), np.empty(len(numbers), np.int64)
        segment_of = np.searchsorted(self._starts, numbers, side="right") - 1
        for at in np.unique(segment_of).tolist():
            places = segment_of == at
            ordinals[places] = numbers[places] - self._starts[at]
            bins[places] = self.segments[at].locate(ordinals[places])[0] + self._bin_starts[at]
        return bins, ordinals

    def column_names(self) -> list[str]:
        """Return the names of the columns that every record has."""
        first, *others = (segment.column_types for segment in self.segments)
        return [name for name in first if all(name in names for names in others)]

    def column(self, name: str) -> NDArray[Any]:
        """Return one column as an array of shape (records,)."""
        return join_columns([segment.column(name) for segment in self.segments])

    def close(self) -> None:
        """Let go of the files; nothing can be read afterwards."""
        for segment in self.segments:
            segment.close()

    def __getstate__(self) -> dict[str, Any]:
        return {
            "path": self.path,
            "verify": self._verify,
            "allow_pickle": self._allow_pickle,
            "segments": [segment.path.name for segment in self.segments],
            "codec": None if is_builtin(self.codec) else self.codec,  # another process may not know it
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.path = state["path"]
        self._verify = state["verify"]
        self._allow_pickle = state["allow_pickle"]
        if state["codec"] is not None:
            register_codec(state["codec"])
        self._open([self.path / name for name in state["segments"]])


def join_records(count: int, parts: Iterable[tuple[NDArray[np.int64], Any]]) -> Any:
    """Return `count` records put together from parts, each some places and the records that belong there.

    Parts that are arrays of one dtype become one array, others one list.
    """
    listed = list(parts)
    kinds = {(some.dtype, some.shape[1:]) if isinstance(some, np.ndarray) else None for _, some in listed}
    joined: Any = [None] * count
    if len(kinds) == 1 and (kind := kinds.pop()) is not None:
        dtype, shape = kind
        joined = np.empty((count, *shape), dtype)
        for places, some in listed:
            joined[places] = some
        return joined
    for places, some in listed:
        for place, record in zip(places.tolist(), some, strict=True):
            joined[place] = record
    return joined


def why_no_dataset(path: Path) -> str:
    """Say why there is no data set at `path`, and what to do."""
    cure = "write one with splitpipe.write_split_data"
    if not path.exists():
        return f"{path}: there is no such directory: check the path, or {cure}"
    if not path.is_dir():
        return f"{path}: is a file, and a data set is a directory: pass the directory that was written to"
    with contextlib.suppress(StopIteration):
        next(path.iterdir())
        return f"{path}: is no data set: it holds no committed segment of splitpipe; {cure}, and let its writer commit"
    return f"{path}: is empty: no record was ever committed to it; {cure}"
