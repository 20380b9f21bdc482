"""Arrays as pickle opcodes, made so that their elements can be mapped where they lie.

    BYTEARRAY8 n notes POP                notes: bytes of the two heads, then zeros, so that the elements lie at a
                                          multiple of 64; for us alone: an unpickler drops it. No other value begins
                                          with this opcode, for protocol 3 does not have it
    [numpy.ma.MaskedArray (]              only of a masked array
    numpy.ndarray ( head BYTEARRAY8 size elements 0 None order )
    [a second such array, or numpy.ma.nomask; None False True 0 fill_value True hard_mask )]

A head is shape and dtype. `numpy.ndarray(shape, dtype, buffer, 0, None, order)` is all that a reader calls, so numpy 1
and 2 read it alike; the buffer is a bytearray, so what a plain pickle.load gives is writable.
"""

from __future__ import annotations

import pickle
import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splitpipe.arrays import dtypes, values
from splitpipe.arrays.empty import EmptyNDArray
from splitpipe.arrays.maps import Map, array_in
from splitpipe.arrays.pieces import Block, Piece
from splitpipe.errors import CorruptDataError

__all__ = ["is_array", "moved", "notes_bytes", "pack", "unpack"]

_ALIGNED = 64
_NOTES = struct.Struct("<II")  # bytes of the head, and of the head of the mask
_BUFFER = struct.Struct("<cQ")
_ARRAY = b"cnumpy\nndarray\n("
_MASKED = b"cnumpy.ma\nMaskedArray\n("
_NO_MASK = b"cnumpy.ma\nnomask\n"
_BEFORE_FILL, _AFTER_FILL = b"N\x89\x88K\x00", b"\x88"
_HARD, _SOFT = b"\x88tR", b"\x89tR"
_ENDS = {order: b"K\x00NX\x01\x00\x00\x00" + order.encode() + b"tR" for order in "CF"}
_END_BYTES = len(_ENDS["C"])


def is_array(value: Any) -> bool:
    """Return whether `value` is stored as this module does it; what subclasses arrays otherwise is pickled."""
    if isinstance(value, np.memmap):
        return True  # of which only the elements are stored
    return type(value) in (np.ndarray, np.ma.MaskedArray, EmptyNDArray)


def pack(value: Any, at: int) -> list[Piece]:
    """Return an array as pieces to be written at `at`.

    Raises:
        ArrayTypeError: its dtype holds Python objects, or has no description.
    """
    if not isinstance(value, np.ma.MaskedArray):
        head, array = _array(value)
        return [*_begin(at, b"", len(head) - len(_ARRAY), 0), head, *array]
    head, array = _array(np.asarray(value.data))
    mask_head, mask = (_NO_MASK, []) if value.mask is np.ma.nomask else _array(np.asarray(value.mask))
    fill = values.encode(np.asarray(value.fill_value, value.dtype))
    mask_bytes = len(mask_head) - len(_ARRAY) if mask else 0
    end = [_BEFORE_FILL, *fill, _AFTER_FILL, _HARD if value.hardmask else _SOFT]
    return [*_begin(at, _MASKED, len(head) - len(_ARRAY), mask_bytes), head, *array, mask_head, *mask, *end]


def _array(value: NDArray[Any] | EmptyNDArray) -> tuple[bytes, list[Piece]]:
    """Return the opcodes of an array up to its buffer, and those from there on."""
    described = dtypes.describe(value.dtype)
    head = b"".join((*values.encode(tuple(map(int, value.shape))), *values.encode(described)))
    block = Block(value)
    return _ARRAY + head, [_BUFFER.pack(pickle.BYTEARRAY8, len(block)), block, _ENDS[block.order]]


def _begin(at: int, before: bytes, head_bytes: int, mask_bytes: int) -> list[Piece]:
    notes = _NOTES.pack(head_bytes, mask_bytes)
    elements = at + _BUFFER.size + len(notes) + 1 + len(before) + len(_ARRAY) + head_bytes + _BUFFER.size
    notes += bytes(-elements % _ALIGNED)
    return [_dropped(notes), before]


def _dropped(notes: bytes) -> bytes:
    return _BUFFER.pack(pickle.BYTEARRAY8, len(notes)) + notes + pickle.POP


def notes_bytes(start: bytes) -> int:
    """Return how many bytes the notes take with which the stored value `start` begins; 0 if it is no array."""
    return _BUFFER.unpack_from(start)[1] + _BUFFER.size + 1 if start[:1] == pickle.BYTEARRAY8 else 0


def moved(start: bytes, shift: int) -> bytes:
    """Return the notes of an array that is moved by `shift` bytes, made longer or shorter.

    Args:
        start: at least as much of the value as its notes are.
        shift: how far everything up to the notes moves.
    """
    filled = (notes_bytes(start) - _BUFFER.size - 1 - _NOTES.size - shift) % _ALIGNED
    return _dropped(start[_BUFFER.size :][: _NOTES.size] + bytes(filled))


def unpack(data: Map, start: int, stop: int, path: str) -> Any:
    """Return the array whose opcodes lie from `start` to `stop` in a map, or None if they are not of an array.

    Raises:
        CorruptDataError: they begin as those of an array and do not go on as such.
    """
    if data[start : start + 1] != pickle.BYTEARRAY8:
        return None
    try:
        return _Reading(data, start, stop, path).array()
    except CorruptDataError:
        raise
    except Exception as exc:  # whatever numpy and pickle raise of damaged bytes
        raise _damaged(path, start) from exc


def _damaged(path: str, at: int) -> CorruptDataError:
    return CorruptDataError(f"{path}: at byte {at}: is not what was stored there for an array", path=path, offset=at)


class _Reading:
    """Goes through the opcodes of one array."""

    def __init__(self, data: Map, start: int, stop: int, path: str) -> None:
        self._data = data
        self._stop = stop
        self._path = path
        self._at = start
        _, notes = _BUFFER.unpack(self._next(_BUFFER.size))
        self._heads: tuple[int, int] = _NOTES.unpack_from(self._next(notes))
        self._expect(pickle.POP)

    def _next(self, length: int) -> bytes:
        begin, self._at = self._at, self._at + length
        if not 0 <= length <= self._stop - begin:
            raise _damaged(self._path, begin)
        return self._data[begin : self._at]

    def _expect(self, opcodes: bytes) -> None:
        if self._next(len(opcodes)) != opcodes:
            raise _damaged(self._path, self._at)

    def _follows(self, opcodes: bytes) -> bool:
        return self._data[self._at : self._at + len(opcodes)] == opcodes

    def array(self) -> Any:
        if not self._follows(_MASKED):
            found = self._plain(self._heads[0])
            if self._at != self._stop:
                raise _damaged(self._path, self._at)
            return found
        self._expect(_MASKED)
        found = self._plain(self._heads[0])
        mask: Any = np.ma.nomask
        if self._heads[1]:
            mask = self._plain(self._heads[1])
        else:
            self._expect(_NO_MASK)
        self._expect(_BEFORE_FILL)
        fill = values.decode(self._next(self._stop - self._at - 4), trusted=False, what=self._path)
        self._expect(_AFTER_FILL)
        hard = self._next(3) == _HARD
        return np.ma.MaskedArray(found, mask, None, False, True, 0, fill, True, hard)

    def _plain(self, head_bytes: int) -> Any:
        self._expect(_ARRAY)
        head = self._next(head_bytes)
        shape, described = values.decode(b"(" + head + b"t", trusted=False, what=self._path)
        dtype = dtypes.parse(described)
        op, size = _BUFFER.unpack(self._next(_BUFFER.size))
        begin = self._at
        nbytes = EmptyNDArray(shape, dtype).nbytes
        if op != pickle.BYTEARRAY8 or size != nbytes or size > self._stop - begin - _END_BYTES:
            raise _damaged(self._path, begin)
        self._at += size
        end = self._next(_END_BYTES)
        if end not in _ENDS.values():
            raise _damaged(self._path, self._at)
        return array_in(self._data, self._path, dtype, shape, begin, "F" if end == _ENDS["F"] else "C")
