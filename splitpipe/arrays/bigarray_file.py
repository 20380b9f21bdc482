"""Files that bigarray wrote, read as they are.

    "mmapdata"  size, 8 digits  marshal of [dtype, shape]  ...  elements  pickle of {name: (start, stop)}  size, 8 bytes

The elements begin at the first multiple of their size that is at least 502 bytes from the beginning. Neither marshal
nor pickle is believed: of each, only the few forms are read that a list, strings and numbers have.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from splitpipe.arrays import values
from splitpipe.arrays.npy import NpyHeader
from splitpipe.errors import CorruptDataError, SplitpipeError

__all__ = ["is_bigarray", "read_bigarray"]

_MAGIC = b"mmapdata"
_META_BYTES = 486
_RESERVED = len(_MAGIC) + 8 + _META_BYTES


def is_bigarray(path: Path) -> bool:
    """Return whether there is a file that begins as those of bigarray do."""
    try:
        with path.open("rb") as file:
            return file.read(len(_MAGIC)) == _MAGIC
    except (FileNotFoundError, IsADirectoryError):
        return False


def read_bigarray(path: Path) -> tuple[NpyHeader, dict[str, tuple[int, int]]]:
    """Return what a file of bigarray holds, and its names; none if it has no list of them.

    Raises:
        CorruptDataError: it is cut short or damaged.
    """
    with path.open("rb") as file:
        head = file.read(_RESERVED)
        file_bytes = file.seek(0, 2)
        try:
            size = int(head[8:16])
            name, shape = _unmarshal(head[16 : 16 + size])
            dtype = np.dtype(str(name))
            header = NpyHeader(dtype, tuple(map(int, shape)), False, -(-_RESERVED // dtype.itemsize) * dtype.itemsize)
        except (ValueError, TypeError, struct.error, IndexError, StopIteration, ZeroDivisionError) as exc:
            raise CorruptDataError(
                f"{path}: its header is cut short or damaged: {exc}", path=str(path), offset=0
            ) from exc
        if dtype.hasobject or file_bytes < header.stop or min((0, *header.shape)) < 0:
            raise CorruptDataError(
                f"{path}: is cut short: {dtype} of shape {header.shape} ends at byte {header.stop}, and the file has "
                f"{file_bytes}",
                path=str(path),
                offset=file_bytes,
            )
        if file_bytes - header.stop < 8:
            return header, {}
        file.seek(file_bytes - 8)
        size = int.from_bytes(file.read(8), "big")
        file.seek(max(file_bytes - 8 - size, 0))
        pickled = file.read(min(size, file_bytes))
    return header, _names(pickled, header, path)


def _names(pickled: bytes, header: NpyHeader, path: Path) -> dict[str, tuple[int, int]]:
    try:
        found = values.decode(pickled, trusted=False, what=str(path))
        names = {str(name): (int(start), int(stop)) for name, (start, stop) in found.items()}
    except Exception as exc:
        if isinstance(exc, SplitpipeError):
            raise
        raise CorruptDataError(f"{path}: the names at its end are damaged: {exc}", path=str(path)) from exc
    rows = header.shape[0] if header.shape else 0
    return {name: (start, min(stop, rows)) for name, (start, stop) in names.items() if 0 <= start <= rows}


def _unmarshal(data: bytes) -> Any:
    """Return the list, tuple, str or int that marshal made these bytes of."""
    return _value(iter(data), [])


def _value(data: Iterator[int], seen: list[Any]) -> Any:
    code = next(data)
    kind, is_kept = chr(code & 0x7F), bool(code & 0x80)
    if kind == "r":
        return seen[_number(data, 4)]
    place = len(seen)
    if is_kept:
        seen.append(None)
    value: Any
    if kind == "i":
        value = _number(data, 4)
    elif kind == "l":
        digits = _number(data, 4)
        value = sum(_number(data, 2) << 15 * place for place in range(abs(digits))) * (1 if digits > 0 else -1)
    elif kind in "zZ":
        value = _text(data, _number(data, 1))
    elif kind in "aAu":
        value = _text(data, _number(data, 4))
    elif kind in ")([":
        value = [_value(data, seen) for _ in range(_number(data, 1 if kind == ")" else 4))]
        value = value if kind == "[" else tuple(value)
    else:
        raise ValueError(f"a value of kind {kind!r}")
    if is_kept:
        seen[place] = value
    return value


def _number(data: Iterator[int], size: int) -> int:
    return int.from_bytes(bytes([next(data) for _ in range(size)]), "little", signed=size == 4)


def _text(data: Iterator[int], size: int) -> str:
    return bytes([next(data) for _ in range(size)]).decode()
