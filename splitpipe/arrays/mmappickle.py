"""Files that mmappickle wrote, read as they are.

    PROTO 4  FRAME 13  BININT version POP  BININT commits POP  MARK
    FRAME size  SHORT_BINUNICODE n key  value  BININT m POP  NEWTRUE POP        POP POP: it is deleted
    FRAME 2  DICT STOP

Its arrays are calls of `numpy.core.multiarray.fromstring`, which numpy no longer has: they are mapped, not called.
"""

from __future__ import annotations

import ast
import re
import struct
from pathlib import Path
from typing import Any

import numpy as np

from splitpipe.arrays import values
from splitpipe.arrays.maps import Map, array_in, map_file
from splitpipe.arrays.shared_file import SharedFile
from splitpipe.errors import CorruptDataError

__all__ = ["MmappickleFile", "is_mmappickle"]

_HEADER = re.compile(rb"\x80\x04\x95\x0d\x00{7}J\x01\x00\x00\x000J....0\(", re.DOTALL)
_HEADER_BYTES = 24
_FRAME = struct.Struct("<cQcB")
_END = b"\x95\x02\0\0\0\0\0\0\0d."
_LIVE, _DEAD = b"\x880", b"00"
_ARRAY = b"\x8c\x16numpy.core.fromnumeric\x8c\x07reshape\x93\x8c\x15numpy.core.multiarray\x8c\x0afromstring\x93"
_MASKED = b"\x8c\x0dnumpy.ma.core\x8c\x0bMaskedArray\x93"
_SIZES = {b"C": "<B", b"B": "<I", b"\x8e": "<Q"}
_CALL = b"\x86R"


def is_mmappickle(path: Path) -> bool:
    """Return whether there is a file that begins as those of mmappickle do."""
    try:
        with path.open("rb") as file:
            return bool(_HEADER.fullmatch(file.read(_HEADER_BYTES)))
    except (FileNotFoundError, IsADirectoryError):
        return False


class MmappickleFile:
    """One file, open for reading; see `PickleFile`.

    Raises:
        CorruptDataError: it is cut short or damaged.
    """

    def __init__(self, path: Path) -> None:
        self._file = SharedFile(path, readonly=True)
        self._path = str(path)
        self.places: dict[str, int] = {}
        try:
            self._load()
        except BaseException:
            self.close()
            raise

    def _load(self) -> None:
        self._loaded = self.commit_number, self._file.size()
        self._map: Map | None = map_file(self._file)
        data, at = self._map, _HEADER_BYTES
        self.places.clear()
        while data[at : at + len(_END)] != _END:
            try:
                op, size, kind, key_bytes = _FRAME.unpack_from(data, at)
            except struct.error:
                raise self._damaged(at) from None
            stop = at + 9 + size
            mark = data[stop - 2 : stop]
            if op != b"\x95" or kind != b"\x8c" or mark not in (_LIVE, _DEAD) or size < 10 + key_bytes:
                raise self._damaged(at)
            if mark == _LIVE:
                self.places[data[at + 11 : at + 11 + key_bytes].decode("utf-8", "surrogatepass")] = at
            at = stop

    def _damaged(self, at: int) -> CorruptDataError:
        return CorruptDataError(f"{self._path}: at byte {at} is cut short or damaged", path=self._path, offset=at)

    @property
    def commit_number(self) -> int:
        """The number of changes that the file has seen, as mmappickle counts them."""
        return int.from_bytes(self._file.read(4, 18), "little", signed=True)

    def refresh(self) -> bool:
        """Read the file again if it changed; return whether it did."""
        if self._file.is_replaced():
            self._file.reopen()
        elif (self.commit_number, self._file.size()) == self._loaded:
            return False
        self._load()
        return True

    def read(self, key: str, *, allow_pickle: bool) -> Any:
        """Return the value of a key; raises as `PickleFile.read`."""
        at = self.places[key]
        if self._map is None:
            self._map = map_file(self._file)
        data = self._map
        _, size, _, key_bytes = _FRAME.unpack_from(data, at)
        start, stop = at + 11 + key_bytes, at + 9 + size - 8
        try:
            if data[start : start + len(_MASKED)] == _MASKED:
                array, after = self._array(data, start + len(_MASKED), stop)
                mask, _ = self._array(data, after, stop)
                return np.ma.MaskedArray(array, mask.reshape(array.shape) if mask.ndim else np.ma.nomask, copy=False)
            if data[start : start + len(_ARRAY)] == _ARRAY:
                return self._array(data, start, stop)[0]
        except (ValueError, SyntaxError, KeyError, struct.error, TypeError) as exc:
            raise self._damaged(start) from exc
        return values.decode(data[start:stop], trusted=allow_pickle, what=f"{self._path}: the value of {key!r}")

    def _array(self, data: Map, start: int, stop: int) -> tuple[Any, int]:
        """Return the array whose opcodes begin at `start`, and where they end."""
        at = start + len(_ARRAY)
        size_form = _SIZES[data[at : at + 1]]
        (size,) = struct.unpack_from(size_form, data, at + 1)
        begin = at + 1 + struct.calcsize(size_form)
        at = begin + size
        if at > stop or data[start : start + len(_ARRAY)] != _ARRAY or data[at : at + 1] != b"\x8c":
            raise self._damaged(start)
        name = data[at + 2 : at + 2 + data[at + 1]].decode()
        dtype = np.dtype(ast.literal_eval(name) if name[:1] in "[{(" else name)
        at += 2 + data[at + 1] + len(_CALL)
        after = data.find(_CALL, at, stop)  # behind the shape, whose opcodes are numbers and a tuple
        while True:
            if after < 0:
                raise self._damaged(start)
            shape = _shape(data[at:after], self._path)
            if shape is not None and np.prod(shape, dtype=object) * dtype.itemsize == size and not dtype.hasobject:
                break
            after = data.find(_CALL, after + 1, stop)
        return array_in(data, self._path, dtype, shape, begin, "C"), after + len(_CALL)

    def sync(self) -> None:
        """Do nothing: nothing was written."""

    def close(self) -> None:
        """Let go of the file."""
        self._map = None
        self._file.close()


def _shape(opcodes: bytes, path: str) -> tuple[int, ...] | None:
    try:
        shape = values.decode(opcodes, trusted=False, what=path)
    except Exception:  # noqa: BLE001  whatever an unpickler raises of half a tuple
        return None
    fits = isinstance(shape, tuple) and all(type(extent) is int and extent >= 0 for extent in shape)
    return shape if fits else None
