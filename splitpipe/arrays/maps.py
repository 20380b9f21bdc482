"""Maps of files, and which of them some array still looks at.

An array refers to its map, and so does whatever was sliced from it. A map that nobody else refers to ends with the
last of them: so a map that is still there after its maker let go of it is one that an array looks at.
"""

from __future__ import annotations

import gc
import mmap
import sys
import weakref
from typing import Any

import numpy as np

from splitpipe.arrays.shared_file import SharedFile

__all__ = ["Map", "array_in", "map_file", "views_are_alive"]

Map = mmap.mmap

_maps: dict[tuple[int, int], weakref.WeakSet[Map]] = {}  # of this process, by the file that they are of


def map_file(file: SharedFile) -> Map:
    """Map all of `file`; what is written through the map lands in it, unless it is open for reading alone."""
    # Before 3.13 a map keeps a descriptor of its own, to be resized with; these never are.
    options: Any = {"trackfd": False} if sys.version_info >= (3, 13) else {}
    access = mmap.ACCESS_READ if file.readonly else mmap.ACCESS_WRITE
    made = mmap.mmap(file.fd, 0, access=access, **options)
    _maps.setdefault(file.identity, weakref.WeakSet()).add(made)
    return made


def views_are_alive(identity: tuple[int, int]) -> bool:
    """Return whether anything in this process still refers to a map of the file."""
    maps = _maps.get(identity)
    if maps:
        gc.collect()  # what only refers to itself does not count
    if not maps:
        _maps.pop(identity, None)
    return bool(maps)


def array_in(data: Map, path: str, dtype: np.dtype[Any], shape: tuple[int, ...], offset: int, order: str) -> Any:
    """Return a `numpy.memmap` of part of a map, which numpy itself would make with a map of its own."""
    array: Any = np.ndarray.__new__(np.memmap, shape, dtype, data, offset, None, "F" if order == "F" else "C")
    array._mmap, array.filename, array.offset = data, path, offset
    array.mode = "r+" if array.flags.writeable else "r"
    return array
