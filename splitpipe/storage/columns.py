"""One typed value per record and column, beside the records, each column in plain `.npy` files.

Numbers, booleans and datetimes: `column-<name>.npy`, one element per record. Strings: `column-<name>.ends.npy`, where
each ends in the UTF-8 text `column-<name>.text.npy`. Where an integer, a boolean or a string is missing,
`column-<name>.missing.npy` is true; a missing float is NaN, a missing datetime NaT. `numpy.load` opens them all without
splitpipe. A column that came later than its segment has a file `column-<name>.spec` that says what the index says of
the others.
"""

from __future__ import annotations

import datetime
import io
import json
import math
import os
import re
import urllib.parse
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splitpipe.errors import ColumnError, CorruptDataError
from splitpipe.storage.bin import map_file
from splitpipe.storage.durable import Disk
from splitpipe.storage.layout import CURE, open_text, seal_text

__all__ = [
    "ColumnWriter",
    "column_files",
    "column_kinds",
    "later_column_specs",
    "load_column",
    "save_later_column",
]

# How many values are kept as Python objects before they become one array.
_CHUNK = 4096

_STRINGS = np.dtypes.StringDType()

# What a Python type, given or found as the first value, is stored as. bool before int: it is a subclass of it.
_STORED_AS: dict[type, np.dtype[Any]] = {
    bool: np.dtype(np.bool_),
    int: np.dtype(np.int64),
    float: np.dtype(np.float64),
    datetime.datetime: np.dtype("datetime64[us]"),
    str: _STRINGS,
}

# Text that UTF-8 does not have.
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")

# What values a column of each dtype kind takes.
_ACCEPTED: dict[str, tuple[type, ...]] = {
    "b": (bool, np.bool_),
    "i": (int, np.integer),
    "u": (int, np.integer),
    "f": (int, float, np.integer, np.floating),
    "M": (datetime.datetime, np.datetime64),
    "T": (str,),
}

# What stands in the array where a value is missing.
_FILLS: dict[str, Any] = {"b": False, "i": 0, "u": 0, "f": float("nan"), "M": np.datetime64("NaT", "s"), "T": ""}


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
        self._missing: list[NDArray[np.bool_]] = []  # for each chunk, where it has no value

    @property
    def kind(self) -> Any:
        """The column's numpy dtype; None as long as no value told."""
        return self._dtype

    @property
    def type_name(self) -> str | None:
        """The name of the dtype in the index; None as long as no value told."""
        return None if self._dtype is None else _name_of(self._dtype)

    def check(self, value: Any) -> Any:
        """Return `value` as it will be stored; raises ColumnError if it does not fit, and keeps nothing."""
        if value is None:
            return None
        if self._dtype is None:
            self._dtype = _stored_dtype(self.name, _type_of(value))
        if not _fits(value, self._dtype):
            raise ColumnError(
                f"column {self.name!r} holds {_name_of(self._dtype)}, and got {value!r}, "
                f"a {type(value).__qualname__}: convert it, or declare the column's type with columns={{name: type}}"
            )
        return value

    def append(self, value: Any) -> None:
        """Keep `value`, one that `check` returned, as that of the next record; None for a missing one."""
        self._values.append(value)
        if len(self._values) >= _CHUNK and self._dtype is not None:
            self._flush(self._dtype)

    def extend(self, values: NDArray[Any]) -> None:
        """Keep an array of values, as `load_column` returns it."""
        if self._values and self._dtype is not None:
            self._flush(self._dtype)
        dtype = self._dtype = self._dtype or values.dtype
        missing = np.ma.getmaskarray(values) if isinstance(values, np.ma.MaskedArray) else None
        if dtype.kind == "T":
            missing = np.array([value is None for value in values.tolist()], np.bool_)
            values = np.array([value or "" for value in values.tolist()], _STRINGS)
        self._chunks.append(np.asarray(values, dtype))
        self._missing.append(np.zeros(len(values), np.bool_) if missing is None else missing)

    def join(self, other: ColumnWriter) -> None:
        """Keep the values of `other`, a writer of the same column, behind these."""
        if self._values and self._dtype is not None:
            self._flush(self._dtype)
        self._chunks += other._chunks
        self._missing += other._missing
        for value in other._values:
            self.append(value)

    def _flush(self, dtype: np.dtype[Any]) -> None:
        missing = np.fromiter((value is None for value in self._values), np.bool_, len(self._values))
        if missing.any():
            fill = _FILLS[dtype.kind]
            self._values = [fill if value is None else value for value in self._values]
        self._chunks.append(np.array(self._values, dtype=dtype))
        self._missing.append(missing)
        self._values = []

    def save(self, directory: Path, disk: Disk) -> dict[str, Any]:
        """Write the column's files, synced, and return what the index is to say about it.

        Raises:
            ColumnError: no value told what type the column has.
        """
        if self._dtype is None:
            raise ColumnError(
                f"column {self.name!r} had no value but None, so its type is not known: declare it with "
                f"columns={{{self.name!r}: type}}"
            )
        self._flush(self._dtype)
        values, missing = np.concatenate(self._chunks), np.concatenate(self._missing)
        if self._dtype.kind == "T":
            texts = [text.encode("utf-8") for text in values.tolist()]
            ends = np.cumsum(np.fromiter(map(len, texts), np.uint64, len(texts)), dtype=np.uint64)
            parts: dict[str, NDArray[Any]] = {"ends": ends, "text": np.frombuffer(b"".join(texts), np.uint8)}
        else:
            parts = {"values": values}
        if missing.any() and self._dtype.kind not in "fM":
            parts["missing"] = missing
        crcs = {part: _save_array(_part_path(directory, self.name, part), array, disk) for part, array in parts.items()}
        return {"name": self.name, "type": _name_of(values.dtype), "crcs": crcs}


def column_kinds(columns: Mapping[str, Any] | Iterable[str]) -> dict[str, Any]:
    """Return {name: type or None} for what a user passed as `columns=`, {name: type} or just the names.

    Raises:
        ColumnError: it is neither.
    """
    if isinstance(columns, str):
        raise ColumnError(f"columns is a str, {columns!r}: pass a list of names, columns=[{columns!r}]")
    kinds = dict(columns) if isinstance(columns, Mapping) else dict.fromkeys(columns)
    for name, kind in kinds.items():
        if not isinstance(name, str) or not name:
            raise ColumnError(f"a column's name is a non-empty str, and got {name!r}")
        if kind is not None:
            _stored_dtype(name, kind)
    return kinds


def load_column(directory: Path, spec: Mapping[str, Any], records: int) -> NDArray[Any]:
    """Return a column of a segment as an array of shape (records,); strings as numpy's StringDType.

    Where values are missing, integers and booleans are a masked array, and strings have None.

    Raises:
        CorruptDataError: a file of the column is missing or not what was committed.
    """
    name, crcs = spec["name"], spec["crcs"]
    parts = {part: _load_array(_part_path(directory, name, part), crc) for part, crc in crcs.items()}
    missing = parts.get("missing")
    values = _strings(parts, missing) if spec["type"] == "str" else parts["values"]
    if values.shape != (records,) or (missing is not None and missing.shape != (records,)):
        raise CorruptDataError(
            f"{directory}: column {name!r} has shape {values.shape} for {records} records: {CURE}", path=str(directory)
        )
    if missing is not None and spec["type"] != "str":
        return np.ma.MaskedArray(values, missing)
    return values


def _strings(parts: Mapping[str, NDArray[Any]], missing: NDArray[Any] | None) -> NDArray[Any]:
    ends, text = parts["ends"].tolist(), parts["text"].tobytes()
    strings: list[Any] = [
        text[start:end].decode("utf-8") for start, end in zip([0, *ends[:-1]], ends, strict=bool(ends))
    ]
    if missing is None:
        return np.array(strings, dtype=_STRINGS)
    for at in np.flatnonzero(missing).tolist():
        strings[at] = None
    return np.array(strings, dtype=np.dtypes.StringDType(na_object=None))


def save_later_column(directory: Path, column: ColumnWriter, disk: Disk) -> None:
    """Add a column to a committed segment: its files, then the one that says they are there."""
    spec = column.save(directory, disk)
    disk.replace(_spec_path(directory, column.name), [seal_text(json.dumps(spec).encode("ascii"))])


def later_column_specs(directory: Path) -> list[dict[str, Any]]:
    """Return what is known of the columns that were added to a segment after its commit, in the order of names.

    Raises:
        CorruptDataError: the file that tells is damaged.
    """
    listed = os.listdir(directory)  # noqa: PTH208  pathlib takes as long over this as all else that opens a segment
    names = sorted(name for name in listed if name.startswith("column-") and name.endswith(".spec"))
    paths = [directory / name for name in names]
    return [json.loads(open_text(path.read_bytes(), str(path))) for path in paths]


def column_files(directory: Path, spec: Mapping[str, Any]) -> list[Path]:
    """Return the files that hold a column."""
    return [_part_path(directory, spec["name"], part) for part in spec["crcs"]]


def _stored_dtype(name: str, kind: Any) -> np.dtype[Any]:
    if isinstance(kind, type) and kind in _STORED_AS:
        return _STORED_AS[kind]
    try:
        dtype: np.dtype[Any] = np.dtype(kind)
    except TypeError as exc:
        raise ColumnError(f"column {name!r}: {kind!r} is neither a Python type nor a numpy dtype: {exc}") from None
    if dtype.kind == "T":
        return _STORED_AS[str]
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
    if accepted and dtype.kind == "f":
        largest = np.finfo(dtype).max.item()
        return bool(-largest <= value <= largest or value != value or value in (math.inf, -math.inf))
    if accepted and dtype.kind == "T":
        return value.isascii() or not _LONE_SURROGATE.search(value)
    return accepted and getattr(value, "tzinfo", None) is None  # datetime64 knows no time zones


def _name_of(dtype: np.dtype[Any]) -> str:
    return "str" if dtype.kind == "T" else dtype.str


def _part_path(directory: Path, name: str, part: str) -> Path:
    return directory / (f"column-{_quoted(name)}.npy" if part == "values" else f"column-{_quoted(name)}.{part}.npy")


def _spec_path(directory: Path, name: str) -> Path:
    return directory / f"column-{_quoted(name)}.spec"


def _quoted(name: str) -> str:
    # Quoted, any name is one valid part of a file name: "/" becomes "%2F", and "." separates only what we put there.
    return urllib.parse.quote(name, safe=" ").replace(".", "%2E")


def _save_array(path: Path, array: NDArray[Any], disk: Disk) -> int:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    data = buffer.getbuffer()
    path.unlink(missing_ok=True)  # what an earlier try to add this column left: nobody refers to it
    disk.write(path, [data])
    return zlib.crc32(data)


def _load_array(path: Path, crc: int) -> NDArray[Any]:
    with map_file(path) as content:
        found = zlib.crc32(content)
    if found != crc:
        raise CorruptDataError(
            f"{path}: the column fails its checksum ({found:08x}, committed as {crc:08x}): {CURE}", path=str(path)
        )
    array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    return array
