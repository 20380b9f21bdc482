"""The header of a `.npy` file, with the room that numpy leaves in it for the first axis to grow."""

from __future__ import annotations

import ast
import math
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib import format as npy

from splitpipe.errors import ArrayFileError, ArrayTypeError, CorruptDataError, FormatVersionError

__all__ = ["HEADER_LIMIT", "NpyHeader", "pack_npy", "parse_npy"]

HEADER_LIMIT = 1 << 20  # bytes: a dtype of very many fields fits, and a damaged length does not fill the memory
_MAGIC = b"\x93NUMPY"
_ALIGNED = 64
_GROWTH_DIGITS = 21  # of the first extent, for which numpy leaves room: those of 2**64 and one more


@dataclass(frozen=True)
class NpyHeader:
    """What a `.npy` file says of itself.

    Attributes:
        dtype: of the array.
        shape: of the array.
        fortran: whether the elements lie in Fortran's order.
        size: bytes of the header; the elements follow.
    """

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    fortran: bool
    size: int

    @property
    def row_bytes(self) -> int:
        """Bytes of one element of the first axis."""
        return math.prod(self.shape[1:]) * self.dtype.itemsize

    @property
    def stop(self) -> int:
        """Where the elements end in the file."""
        return self.size + math.prod(self.shape) * self.dtype.itemsize


def parse_npy(head: bytes, path: str, file_bytes: int) -> NpyHeader:
    """Return what the first bytes of a file say.

    Args:
        head: at least all of the header, if the file has it.
        path: of the file, for errors.
        file_bytes: its length.

    Raises:
        ArrayFileError: it is no `.npy` file.
        ArrayTypeError: it holds Python objects.
        CorruptDataError: it is cut short, or damaged.
        FormatVersionError: of a version that is not known.
    """
    if head[: len(_MAGIC)] != _MAGIC[: len(head)] or not head:
        raise ArrayFileError(
            f"{path}: is no .npy file, nor one of bigarray: write it with BigArrayWriter or numpy.save"
        )
    try:
        if head[6] not in (1, 2, 3):
            raise FormatVersionError(f"{path}: is a .npy file of version {head[6]}, which is not known here: upgrade")
        form = "<H" if head[6] == 1 else "<I"
        begin = 8 + struct.calcsize(form)
        size = begin + struct.unpack_from(form, head, 8)[0]
        if size > len(head):
            raise ValueError("longer than the file")
        text = head[begin:size].decode("latin1" if head[6] < 3 else "utf-8")
        found = ast.literal_eval(text.strip())
        dtype, shape = npy.descr_to_dtype(found["descr"]), found["shape"]
        if not isinstance(shape, tuple) or not all(type(extent) is int and extent >= 0 for extent in shape):
            raise ValueError(f"shape {shape!r}")
        header = NpyHeader(dtype, shape, bool(found["fortran_order"]), size)
    except (IndexError, KeyError, TypeError, ValueError, SyntaxError, struct.error, MemoryError, RecursionError) as exc:
        raise CorruptDataError(f"{path}: its header is cut short or damaged: {exc}", path=path, offset=0) from exc
    if dtype.hasobject:
        raise ArrayTypeError(
            f"{path}: holds Python objects, which cannot be mapped: numpy.load reads it, if you trust it"
        )
    if file_bytes < header.stop:
        raise CorruptDataError(
            f"{path}: is cut short: an array of {dtype} and shape {shape} ends at byte {header.stop}, and the file has "
            f"{file_bytes}",
            path=path,
            offset=file_bytes,
        )
    return header


def pack_npy(dtype: np.dtype[Any], shape: tuple[int, ...], size: int | None = None) -> bytes:
    """Return a header as numpy writes it, for elements in C's order.

    Args:
        dtype: of the array; without Python objects.
        shape: of the array; at least one dimension.
        size: bytes that the header is to have; None for as many as let the first axis grow to any length.

    Raises:
        ValueError: it does not fit in `size` bytes.
    """
    text = repr({"descr": npy.dtype_to_descr(dtype), "fortran_order": False, "shape": shape})[:-1] + ", }"
    encoded, version = _encoded(text)
    form = "<H" if version == 1 else "<I"
    begin = 8 + struct.calcsize(form)
    if size is None:
        least = begin + len(encoded) + _GROWTH_DIGITS - len(repr(shape[0])) + 1
        size = -(-least // _ALIGNED) * _ALIGNED
    room = size - begin
    if len(encoded) + 1 > room:
        raise ValueError(f"a header of {len(encoded)} bytes has no place in {room}")
    return _MAGIC + bytes([version, 0]) + struct.pack(form, room) + encoded.ljust(room - 1) + b"\n"


def _encoded(text: str) -> tuple[bytes, int]:
    try:
        encoded = text.encode("latin1")
    except UnicodeEncodeError:
        return text.encode("utf-8"), 3
    return encoded, 1 if len(encoded) < (1 << 16) - 2 * _ALIGNED else 2
