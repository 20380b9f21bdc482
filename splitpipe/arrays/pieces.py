"""What a value is written as: a sequence of bytes, blocks of an array's memory, and holes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splitpipe.arrays.empty import EmptyNDArray
from splitpipe.arrays.shared_file import SharedFile

__all__ = ["Block", "Piece", "Tail", "blocks_of", "length_of"]

_BUFFER_BYTES = 1 << 20  # small pieces are written together
_COPY_BYTES = 1 << 24  # of an array that does not lie in one piece, copied at a time


@dataclass(frozen=True)
class Block:
    """The elements of an array, in the order in which they lie in the file, or a hole of their size.

    Attributes:
        array: what is written; its memory is looked at when it is.
    """

    array: NDArray[Any] | EmptyNDArray

    @property
    def order(self) -> str:
        """Return "C", or "F" if the elements are kept in Fortran's order."""
        if isinstance(self.array, EmptyNDArray):
            return "C"
        return "F" if self.array.flags.f_contiguous and not self.array.flags.c_contiguous else "C"

    def __len__(self) -> int:
        return self.array.nbytes


Piece = bytes | bytearray | Block


def length_of(pieces: Iterable[Piece]) -> int:
    """Return how many bytes `pieces` are together."""
    return sum(map(len, pieces))


def blocks_of(array: NDArray[Any]) -> Iterator[NDArray[np.uint8]]:
    """Yield the bytes of an array in the order of `Block`; without a copy, if it lies in one piece."""
    if not array.nbytes:
        return
    array = np.asarray(array)  # of no subclass
    if array.flags.f_contiguous:
        array = array.T
    if array.flags.c_contiguous:
        yield array.reshape(-1).view(np.uint8)
        return
    step = max(1, _COPY_BYTES * len(array) // array.nbytes)
    for first in range(0, len(array), step):
        yield np.ascontiguousarray(array[first : first + step]).reshape(-1).view(np.uint8)


class Tail:
    """Writes pieces one behind the other, small ones together.

    Args:
        file: what to write to; it must have nothing from `at` on, so that holes are zeros.
        at: where the first piece goes.
    """

    def __init__(self, file: SharedFile, at: int) -> None:
        self._file = file
        self._waiting = bytearray()
        self._written = at
        self.at = at  # of the next piece

    def add(self, pieces: Iterable[Piece]) -> None:
        """Write pieces, now or together with those that follow.

        Raises:
            DiskFullError: they do not fit.
        """
        for piece in pieces:
            self.at += len(piece)
            if not isinstance(piece, Block):
                self._waiting += piece
                if len(self._waiting) >= _BUFFER_BYTES:
                    self.flush()
                continue
            self.flush()
            if not isinstance(piece.array, EmptyNDArray):
                for block in blocks_of(piece.array):
                    self._file.write(block, self._written)
                    self._written += len(block)
            self._written = self.at

    def flush(self) -> None:
        """Write what waits."""
        if self._waiting:
            self._file.write(bytes(self._waiting), self._written)
            self._written += len(self._waiting)
            self._waiting.clear()
