"""One typed value per record and column, beside the records, each column in plain `.npy` files.

Numbers, booleans and datetimes: `<column>.npy`, one element per record. Strings: `<column>.ends.npy`, where each
ends in the UTF-8 text `<column>.text.npy`. `numpy.load` opens them all without splitpipe.
"""

from __future__ import annotations

import datetime
import io
import urllib.parse
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splitpipe.errors import ColumnError, CorruptDataError
from splitpipe.storage.durable import write_synced

__all__ = ["ColumnWriter", "ColumnsView", "column_writers", "load_column"]

# How many values are kept as Python objects before they become one array.
_CHUNK = 4096

# What a Python type, given or found as the first value, is stored as. bool before int: it is a subclass of it.
_STORED_AS: dict[type, np.dtype[Any]] = {
    bool: np.dtype(np.bool_),
    int: np.dtype(np.int64),
    float: np.dtype(np.float64),
    datetime.datetime: np.dtype("datetime64[us]"),
    str: np.dtypes.StringDType(),
}

# What values a column of each dtype kind takes.
_ACCEPTED: dict[str, tuple[type, ...]] = {
    "b": (bool, np.bool_),
    "i": (int, np.integer),
    "u": (int, np.integer),
    "f": (int, float, np.integer, np.floating),
    "M": (datetime.datetime, np.datetime64),
    "T": (str,),
}


class ColumnWriter:
    """Collects the values of one column of one segment.

    Args:
        name: the column's name.
        kind: a Python type (bool, int, float, str, datetime.datetime), a numpy dtype, or None to take it from the
            first value.
    """

    def __init__(self, name: str, kind: Any = None) -> None:
        self.name = name
        self._dtype = None if kind is None else _stored_dtype(name, kind)
        self._values: list[Any] = []
        self._chunks: list[NDArray[Any]] = []

    def check(self, value: Any) -> Any:
        """Return `value` as it will be stored; raises ColumnError if it does not fit, and keeps nothing."""
        if self._dtype is None:
            self._dtype = _stored_dtype(self.name, _type_of(value))
        if not _fits(value, self._dtype):
            raise ColumnError(
                f"column {self.name!r} holds {_name_of(self._dtype)}, and got {value!r}, "
                f"a {type(value).__qualname__}: convert it, or declare the column's type with columns={{name: type}}"
            )
        return value

    def append(self, value: Any) -> None:
        """Keep `value`, one that `check` returned, as that of the next record."""
        self._values.append(value)
        if len(self._values) >= _CHUNK:
            self._flush()

    def _flush(self) -> None:
        if self._values:
            self._chunks.append(np.array(self._values, dtype=self._dtype))
            self._values = []

    def save(self, directory: Path) -> dict[str, Any]:
        """Write the column's files, synced, and return what the index is to say about it."""
        self._flush()
        values = np.concatenate(self._chunks) if self._chunks else np.empty(0, dtype=self._dtype)
        if isinstance(self._dtype, np.dtypes.StringDType):
            texts = [text.encode("utf-8") for text in values.tolist()]
            ends = np.cumsum(np.fromiter(map(len, texts), np.uint64, len(texts)), dtype=np.uint64)
            parts: dict[str, NDArray[Any]] = {"ends": ends, "text": np.frombuffer(b"".join(texts), np.uint8)}
        else:
            parts = {"values": values}
        crcs = {part: _save_array(_part_path(directory, self.name, part), array) for part, array in parts.items()}
        return {"name": self.name, "type": _name_of(values.dtype), "crcs": crcs}


def column_writers(columns: Mapping[str, Any] | Iterable[str]) -> dict[str, ColumnWriter]:
    """Return a writer for each column of `columns`, {name: type} or just the names."""
    if isinstance(columns, str):
        raise ColumnError(f"columns is a str, {columns!r}: pass a list of names, columns=[{columns!r}]")
    kinds = dict(columns) if isinstance(columns, Mapping) else dict.fromkeys(columns)
    for name in kinds:
        if not isinstance(name, str) or not name:
            raise ColumnError(f"a column's name is a non-empty str, and got {name!r}")
    return {name: ColumnWriter(name, kind) for name, kind in kinds.items()}


def load_column(directory: Path, spec: Mapping[str, Any], records: int) -> NDArray[Any]:
    """Return a column of a segment as an array of shape (records,); strings as numpy's StringDType.

    Raises:
        CorruptDataError: a file of the column is missing or not what was committed.
    """
    name, crcs = spec["name"], spec["crcs"]
    parts = {part: _load_array(_part_path(directory, name, part), crc) for part, crc in crcs.items()}
    if spec["type"] != "str":
        values = parts["values"]
    else:
        ends = parts["ends"].tolist()
        text = parts["text"].tobytes()
        starts = [0, *ends[:-1]]
        strings = [text[start:end].decode("utf-8") for start, end in zip(starts, ends, strict=bool(ends))]
        values = np.array(strings, dtype=np.dtypes.StringDType())
    if values.shape != (records,):
        raise CorruptDataError(
            f"{directory}: column {name!r} has shape {values.shape} for {records} records: run a verify, or restore "
            "the segment from a copy",
            path=str(directory),
        )
    return values


class ColumnsView(Mapping[str, "NDArray[Any]"]):
    """The columns of a data set: name to an array with one element per record, loaded when first asked for."""

    def __init__(self, names: Iterable[str], load: Any) -> None:
        self._names = tuple(names)
        self._load = load
        self._loaded: dict[str, NDArray[Any]] = {}

    def __getitem__(self, name: str) -> NDArray[Any]:
        if name not in self._loaded:
            if name not in self._names:
                known = ", ".join(map(repr, self._names)) or "none"
                raise KeyError(f"no column {name!r}; this data set has {known}")
            self._loaded[name] = self._load(name)
        return self._loaded[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __repr__(self) -> str:
        return f"<columns {', '.join(self._names) or 'none'}>"


def _stored_dtype(name: str, kind: Any) -> np.dtype[Any]:
    if isinstance(kind, type) and kind in _STORED_AS:
        return _STORED_AS[kind]
    try:
        dtype: np.dtype[Any] = np.dtype(kind)
    except TypeError as exc:
        raise ColumnError(f"column {name!r}: {kind!r} is neither a Python type nor a numpy dtype: {exc}") from None
    if dtype.kind == "T":
        return dtype
    if dtype.kind not in _ACCEPTED:
        known = ", ".join(known.__name__ for known in _STORED_AS)
        raise ColumnError(
            f"column {name!r} cannot hold {dtype}: use {known} or a numpy number, boolean or datetime64 dtype"
        )
    little: np.dtype[Any] = dtype.newbyteorder("<")
    return little


def _type_of(value: Any) -> Any:
    known = next((known for known in _STORED_AS if isinstance(value, known)), None)
    return known or (value.dtype if isinstance(value, np.generic) else type(value))


def _fits(value: Any, dtype: np.dtype[Any]) -> bool:
    """Return whether `dtype` holds `value` without loss of kind or range."""
    accepted = isinstance(value, _ACCEPTED[dtype.kind]) and (dtype.kind == "b" or not isinstance(value, bool))
    if accepted and dtype.kind in "iu":
        limits = np.iinfo(dtype)
        return bool(limits.min <= value <= limits.max)
    return accepted and getattr(value, "tzinfo", None) is None  # datetime64 knows no time zones


def _name_of(dtype: np.dtype[Any]) -> str:
    return "str" if dtype.kind == "T" else dtype.str


def _part_path(directory: Path, name: str, part: str) -> Path:
    # Quoted, any column name is one valid file name: "/" becomes "%2F".
    quoted = urllib.parse.quote(name, safe=" ")
    return directory / (f"column-{quoted}.npy" if part == "values" else f"column-{quoted}.{part}.npy")


def _save_array(path: Path, array: NDArray[Any]) -> int:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    data = buffer.getbuffer()
    write_synced(path, data)
    return zlib.crc32(data)


def _load_array(path: Path, crc: int) -> NDArray[Any]:
    try:
        found = zlib.crc32(path.read_bytes())
    except FileNotFoundError:
        raise CorruptDataError(
            f"{path}: the file of a committed column is missing. Restore it from a copy", path=str(path)
        ) from None
    if found != crc:
        raise CorruptDataError(
            f"{path}: the column fails its checksum ({found:08x}, committed as {crc:08x}). Restore it from a copy",
            path=str(path),
        )
    array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    return array
