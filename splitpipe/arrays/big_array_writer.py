"""BigArrayWriter: writes a `.npy` file whose first axis grows, and the names of its parts."""

from __future__ import annotations

import contextlib
import operator
import os
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, SupportsIndex

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from splitpipe.arrays.big_array import read_header
from splitpipe.arrays.bigarray_file import is_bigarray
from splitpipe.arrays.names import Entry, NamesFile, names_path
from splitpipe.arrays.npy import HEADER_LIMIT, NpyHeader, pack_npy, parse_npy
from splitpipe.arrays.pieces import blocks_of
from splitpipe.arrays.shared_file import SharedFile, allocate, create
from splitpipe.errors import (
    ArrayFileError,
    ArrayKeyError,
    ArrayOverlapError,
    ArrayShapeError,
    ArrayTypeError,
    ReadOnlyError,
    WriterStateError,
)

__all__ = ["BigArrayWriter"]


class BigArrayWriter:
    """Writes rows, with names or without, to a `.npy` file that grows as they come.

    The file can be opened at any time, with `BigArray` or `numpy.load(path, mmap_mode="r")`; names lie in a file beside
    it, `<path>.names`. Several processes may write at once, each with a writer of its own, one that it inherited by a
    fork, or one that was sent to it. What `flush` has returned for survives a power cut, what `write` has returned for
    the death of the process.

    Args:
        path: of the file.
        shape: of a new array; rows that it has from the beginning read as zeros and take no room. None or a negative
            number as the first extent is 0. Of an array that is there, it must be the same but for the first extent.
        dtype: of a new array; of one that is there, it must be the same.
        overwrite: begin anew, whatever is there.

    Raises:
        ArrayShapeError: `shape` is missing, has no dimension, or is not that of the array that is there.
        ArrayTypeError: `dtype` is missing, holds Python objects, or is not that of the array that is there.
        ArrayFileError: the file is something else.
        CorruptDataError: it is cut short or damaged.
        ReadOnlyError: it may not be written to, or is bigarray's own.
        DiskFullError: there is no room.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        shape: SupportsIndex | Sequence[SupportsIndex | None] | None = None,
        dtype: DTypeLike | None = None,
        overwrite: bool = False,
    ) -> None:
        self.path = Path(path).resolve()
        # Rows that are written without a place: behind the last ones so written, while there are rows reserved.
        self._next: int | None = None
        if overwrite or not self.path.exists() or not self.path.stat().st_size:
            self._create(shape, dtype)
        elif is_bigarray(self.path):
            raise ReadOnlyError(
                f"{self.path}: was written by bigarray, whose files are only read: copy it to another path, or pass "
                "overwrite=True"
            )
        else:
            self._check(read_header(self.path), shape, dtype)
        self._open()
        with self._turn():
            self._known.update(_spans(self._names.news(self._header().shape[0])))

    def _create(self, shape: Any, dtype: DTypeLike | None) -> None:
        if shape is None:
            raise ArrayShapeError(f"{self.path}: there is no array yet: say which shape it has, as in shape=(0, 128)")
        if dtype is None:
            raise ArrayTypeError(f"{self.path}: there is no array yet: say which dtype it has, as in dtype='float32'")
        extents, kind = _extents(shape), np.dtype(dtype)
        if kind.hasobject or kind.subdtype is not None or not kind.itemsize:
            raise ArrayTypeError(f"{self.path}: an array on disk has elements of fixed size, no Python objects: {kind}")
        names_path(self.path).unlink(missing_ok=True)  # first, lest they be taken for names in the new array
        head = pack_npy(kind, extents)
        length = NpyHeader(kind, extents, False, len(head)).stop
        create(self.path, head, length=length, replace=True)
        if extents[0]:
            self._next = 0

    def _check(self, header: NpyHeader, shape: Any, dtype: DTypeLike | None) -> None:
        """Raise unless the array that is there can grow, and is what was asked for."""
        if not header.shape or (header.fortran and len(header.shape) > 1):
            raise ArrayShapeError(
                f"{self.path}: an array of shape {header.shape} in {'Fortran' if header.fortran else 'C'} order cannot "
                "grow along its first axis: copy it"
            )
        if dtype is not None and np.dtype(dtype) != header.dtype:
            raise ArrayTypeError(f"{self.path}: is of {header.dtype}, and dtype={np.dtype(dtype)} was asked for")
        if shape is not None and _extents(shape)[1:] != header.shape[1:]:
            raise ArrayShapeError(f"{self.path}: has rows of {header.shape[1:]}, and shape={shape} was asked for")

    def _open(self) -> None:
        self._file = SharedFile(self.path, readonly=False)
        self._identity = self._file.identity
        self._names = NamesFile(self.path)
        self._known: dict[str, tuple[int, int]] = {}  # names that were there, or that this writer wrote
        self._foreign: dict[str, tuple[int, int]] = {}  # names that others wrote since

    @contextlib.contextmanager
    def _turn(self) -> Iterator[None]:
        with self._file.turn():
            if self._file.identity != self._identity:
                raise ArrayFileError(f"{self.path}: was begun anew by another writer: open it again")
            yield

    def _header(self) -> NpyHeader:
        return parse_npy(self._file.read(HEADER_LIMIT, 0)[:HEADER_LIMIT], str(self.path), self._file.size())

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the array, with what others have written."""
        return self._header().shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of the array."""
        return self._header().dtype

    @property
    def names(self) -> Mapping[str, tuple[int, int]]:
        """The first row of each name, and the row behind its last."""
        with self._turn():
            self._hear(self._header())
        return {**self._known, **self._foreign}

    def write(
        self, arrays: Mapping[str, ArrayLike] | ArrayLike | Sequence[ArrayLike], start: SupportsIndex | None = None
    ) -> BigArrayWriter:
        """Write rows; return this writer.

        Args:
            arrays: names and their rows; or rows without a name: an array, or a list of arrays. They come one behind
                the other.
            start: the first row to write; a negative number counts from the end. By default, the rows come behind those
                that were written last: in rows reserved by `shape`, or at the end.

        Raises:
            ArrayShapeError: the rows are of another shape than those of the array, or `start` is before its beginning.
            ArrayTypeError: the dtype of the array does not hold the rows without loss.
            ArrayKeyError: a name is no string.
            ArrayOverlapError: another process wrote one of the names since this writer was opened.
            DiskFullError: there is no room.
        """
        header = self._header()
        parts = _parts(arrays, header, self.path)
        count = sum(len(rows) for _, rows in parts)
        with self._turn():
            header = self._header()
            self._hear(header)
            at = self._place(header, start)
            entries = _entries(parts, at)
            self._refuse_foreign(entries)
            if start is None:
                self._append(header, parts, at, entries)
                self._next = None if self._next is None else at + count
                return self
            if at + count > header.shape[0]:
                self._grow(header, at, count)
        # The rows are there, and those of other processes are elsewhere: nobody needs to wait.
        self._fill(header, parts, at)
        if entries:
            with self._turn():
                self._hear(self._header())
                self._refuse_foreign(entries)
                self._add_names(entries)
        return self

    def _place(self, header: NpyHeader, start: SupportsIndex | None) -> int:
        rows = header.shape[0]
        if start is None:
            return self._next if self._next is not None and self._next < rows else rows
        at = operator.index(start)
        if at < -rows:
            raise ArrayShapeError(f"{self.path}: has {rows} rows, and start={at} is before the first")
        return at + rows if at < 0 else at

    def _fill(self, header: NpyHeader, parts: list[tuple[str | None, NDArray[Any]]], at: int) -> None:
        offset = header.size + at * header.row_bytes
        for _, rows in parts:
            for block in blocks_of(rows):
                self._file.write(block, offset)
                offset += len(block)

    def _append(self, header: NpyHeader, parts: Any, at: int, entries: list[Entry]) -> None:
        """Write rows, then let the array have them, then give them their names; after an error, none of the three."""
        size, old = self._file.size(), header.shape[0]
        rows = max(old, at + sum(len(rows) for _, rows in parts))
        try:
            self._fill(header, parts, at)
            self._set_rows(header, rows)
            self._add_names(entries)
        except BaseException:
            with contextlib.suppress(OSError):
                self._set_rows(header, old)
                os.ftruncate(self._file.fd, size)
            raise

    def _grow(self, header: NpyHeader, at: int, count: int) -> None:
        """Let the array reach up to row `at + count`; what is to be written gets its room on the disk now."""
        size = self._file.size()
        begin = header.size + at * header.row_bytes
        try:
            allocate(self._file, begin, count * header.row_bytes)
            self._set_rows(header, at + count)
        except BaseException:
            with contextlib.suppress(OSError):
                os.ftruncate(self._file.fd, size)
            raise

    def _set_rows(self, header: NpyHeader, rows: int) -> None:
        shape = (rows, *header.shape[1:])
        least = NpyHeader(header.dtype, shape, False, header.size).stop
        if self._file.size() < least:
            os.ftruncate(self._file.fd, least)
        try:
            head = pack_npy(header.dtype, shape, header.size)
        except ValueError as exc:
            raise ArrayShapeError(
                f"{self.path}: its header was written without room for the array to grow: {exc}: copy it"
            ) from exc
        self._file.write(head, 0)

    def _hear(self, header: NpyHeader) -> None:
        """Take in the names that others wrote."""
        self._foreign.update(_spans(self._names.news(header.shape[0])))

    def _refuse_foreign(self, entries: list[Entry]) -> None:
        for name, start, stop in entries:
            if name in self._foreign:
                begin, end = self._foreign[name]
                raise ArrayOverlapError(
                    f"{self.path}: another process wrote {name!r}, rows {begin} to {end}, since this writer was made; "
                    f"here it was to be rows {start} to {stop}: give each process names and rows of its own"
                )

    def _add_names(self, entries: list[Entry]) -> None:
        if entries:
            self._names.add(entries)
            self._known.update(_spans(entries))

    def flush(self) -> BigArrayWriter:
        """Wait until the disk has everything that this and other processes have written; return this writer."""
        self._file.sync()
        self._names.sync()
        folder = os.open(self.path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        return self

    def close(self) -> None:
        """Flush, and let go of the files."""
        with contextlib.suppress(WriterStateError):  # closed before
            self.flush()
        self._file.close()
        self._names.close()

    def __enter__(self) -> BigArrayWriter:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "known": self._known, "next": self._next}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.path, self._next = state["path"], state["next"]
        self._open()
        self._known = state["known"]
        with self._turn():  # what was written since the writer that was sent here was opened is of others
            news = _spans(self._names.news(self._header().shape[0]))
        self._foreign = {name: span for name, span in news.items() if self._known.get(name) != span}

    def __repr__(self) -> str:
        return f"<BigArrayWriter {str(self.path)!r}>"


def _extents(shape: Any) -> tuple[int, ...]:
    """Return a shape as numbers."""
    extents = tuple(shape) if isinstance(shape, Iterable) else (shape,)
    if not extents:
        raise ArrayShapeError("an array that grows has at least one dimension, and got shape ()")
    first = 0 if extents[0] is None else max(operator.index(extents[0]), 0)
    rest = tuple(operator.index(extent) for extent in extents[1:])
    if any(extent < 0 for extent in rest):
        raise ArrayShapeError(f"only the first extent may be open, and got shape {extents}")
    return first, *rest


def _spans(entries: Iterable[Entry]) -> dict[str, tuple[int, int]]:
    return {name: (start, stop) for name, start, stop in entries}


def _entries(parts: Iterable[tuple[str | None, NDArray[Any]]], at: int) -> list[Entry]:
    entries = []
    for name, rows in parts:
        if name is not None:
            entries.append((name, at, at + len(rows)))
        at += len(rows)
    return entries


def _parts(arrays: Any, header: NpyHeader, path: Path) -> list[tuple[str | None, NDArray[Any]]]:
    """Return what is to be written, each as rows of the array."""
    if isinstance(arrays, Mapping):
        for name in arrays:
            if not isinstance(name, str):
                raise ArrayKeyError(f"{path}: a name is a string, and got {name!r}, a {type(name).__qualname__}")
        return [(str(name), _rows(value, header, f"{path}: {name!r}")) for name, value in arrays.items()]
    several = isinstance(arrays, list | tuple) and all(isinstance(each, np.ndarray) for each in arrays)
    if several and len(arrays) and all(each.ndim == len(header.shape) for each in arrays):
        return [(None, _rows(value, header, f"{path}: array {i}")) for i, value in enumerate(arrays)]
    return [(None, _rows(arrays, header, f"{path}: the array"))]


def _rows(value: ArrayLike, header: NpyHeader, what: str) -> NDArray[Any]:
    """Return `value` as rows, converted without loss."""
    if isinstance(value, np.ma.MaskedArray):
        raise ArrayTypeError(f"{what} is masked, and a .npy file holds no masks: write its `filled()`")
    found = np.asarray(value)
    if not found.ndim or found.shape[1:] != header.shape[1:]:
        raise ArrayShapeError(
            f"{what} has shape {found.shape}, and rows here are of {header.shape[1:]}: it would have to be "
            f"{('n', *header.shape[1:])}".replace("'", "")
        )
    if found.dtype == header.dtype:
        return found
    if not np.can_cast(found.dtype, header.dtype, "safe") and not (found.size and _is_kept(found, header.dtype)):
        raise ArrayTypeError(
            f"{what} is of {found.dtype}, and {header.dtype} does not hold all of its values: convert it with "
            f"astype({str(header.dtype)!r}) if what is lost does not matter"
        )
    return found.astype(header.dtype)


def _is_kept(values: NDArray[Any], dtype: np.dtype[Any]) -> bool:
    """Return whether values are the same in `dtype`."""
    if dtype.kind != values.dtype.kind and not {dtype.kind, values.dtype.kind} <= set("biufc"):
        return False
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            there = values.astype(dtype)
            back = there.astype(values.dtype)
            same = (back == values) | ((back != back) & (values != values))
            if {dtype.kind, values.dtype.kind} == {"i", "u"}:
                same &= (there < 0) == (values < 0)  # large numbers become negative ones and large ones again
            return bool(np.all(same))
    except (TypeError, ValueError, OverflowError):
        return False
