"""An object as a pickle, and beside it the buffers that were too good to copy into the pickle.

Pickle protocol 5 (PEP 574) hands out the memory of arrays instead of copying it. A frame is that memory, each buffer
at a multiple of 64 bytes, then a table of where each buffer is, then the pickle.
"""

from __future__ import annotations

import pickle
import struct
from typing import Any

import cloudpickle
import numpy as np

__all__ = ["ALIGNMENT", "Frame", "aligned_buffer", "load_frame", "unpicklable_part"]

# A cache line, and what AVX-512 loads and JAX ask for.
ALIGNMENT = 64

_PLACE = struct.Struct("<QQ")  # offset in the frame, length


class Frame:
    """An object made ready to be sent.

    Attributes:
        size: how many bytes the frame takes.
        tail: where in the frame the table and the pickle are.
        buffers: how many buffers lie before them.
    """

    def __init__(self, item: Any) -> None:
        taken: list[pickle.PickleBuffer] = []
        try:
            packed = pickle.dumps(item, protocol=5, buffer_callback=taken.append)
        except (pickle.PicklingError, AttributeError, TypeError):
            # Instances of classes that only the user's script or a closure knows: by value, and slower.
            taken.clear()
            packed = cloudpickle.dumps(item, protocol=5, buffer_callback=taken.append)
        self._raw = [buffer.raw() for buffer in taken]
        self._places = []
        offset = 0
        for raw in self._raw:
            self._places.append((offset, raw.nbytes))
            offset += -(-raw.nbytes // ALIGNMENT) * ALIGNMENT
        self._tail = b"".join([*(_PLACE.pack(*place) for place in self._places), packed])
        self.tail = offset
        self.buffers = len(self._raw)
        self.size = offset + len(self._tail)

    def write_to(self, target: memoryview) -> None:
        """Copy the frame into `target`, the one copy of its way."""
        for (offset, length), raw in zip(self._places, self._raw, strict=True):
            target[offset : offset + length] = raw
        target[self.tail : self.size] = self._tail

    def to_bytes(self) -> bytes:
        """Return the frame as bytes, for one that is small."""
        if not self._raw:
            return self._tail
        target = bytearray(self.size)
        self.write_to(memoryview(target))
        return bytes(target)


def load_frame(frame: memoryview, tail: int, buffers: int) -> Any:
    """Return the object in `frame`; its arrays are views of that memory and keep it alive."""
    table = tail + buffers * _PLACE.size
    places = _PLACE.iter_unpack(frame[tail:table])
    return pickle.loads(frame[table:], buffers=[frame[offset : offset + length] for offset, length in places])


def aligned_buffer(size: int) -> memoryview:
    """Return `size` bytes of private, writable memory that starts at a multiple of 64."""
    room = np.empty(size + ALIGNMENT, np.uint8)
    start = -room.ctypes.data % ALIGNMENT
    return room[start : start + size].data


def unpicklable_part(item: Any, path: str = "item") -> str | None:
    """Return where in `item` the first part lies that does not pickle, such as `item['x'][2]`, or None."""
    parts: list[tuple[str, Any]] = []
    if isinstance(item, dict):
        parts = [(f"{path}[{key!r}]", value) for key, value in item.items()]
    elif isinstance(item, list | tuple):
        parts = [(f"{path}[{at}]", value) for at, value in enumerate(item)]
    elif hasattr(item, "__dict__") and not callable(item):
        parts = [(f"{path}.{name}", value) for name, value in vars(item).items()]
    for name, value in parts:
        found = unpicklable_part(value, name)
        if found is not None:
            return found
    try:
        cloudpickle.dumps(item)
    except Exception:  # noqa: BLE001  __reduce__ may raise anything; whatever it is, this part does not pickle
        return f"{path}, a {type(item).__qualname__}"
    return None
