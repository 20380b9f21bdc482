"""An object as a pickle, and beside it the buffers that were too good to copy into the pickle.

Pickle protocol 5 (PEP 574) hands out the memory of arrays instead of copying it. A frame is that memory, each buffer
at a multiple of 64 bytes, then a table of where each buffer is, then the pickle.
"""

from __future__ import annotations

import copyreg
import io
import pickle
import struct
import sys
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple

import cloudpickle
import numpy as np

from splitpipe.memory import ALIGNMENT, aligned_buffer

__all__ = ["Frame", "Serializer", "copy_frame", "load_frame", "unpicklable_part"]

# Where a buffer is: the block that it was built in, or 0 for the frame itself; its first byte there; its length.
_PLACE = struct.Struct("<QQQ")
# dtypes that their one letter tells whole, and whose memory anything may look at.
_PLAIN = frozenset("?bBhHiIlLqQefdgFDG")


def _reduce_array(array: Any) -> Any:
    """Reduce an array to its shape, dtype and memory: half of the time, and more kinds, than numpy's own way."""
    dtype, flags = array.dtype, array.flags
    if flags.c_contiguous:
        order = "C"
    elif flags.f_contiguous:
        order = "F"
    else:
        array, order = np.ascontiguousarray(array), "C"
    if dtype.char in _PLAIN and dtype.isnative:
        return np.ndarray, (array.shape, dtype.char, pickle.PickleBuffer(array), 0, None, order)
    if dtype.hasobject or not array.nbytes or dtype.metadata:
        return array.__reduce_ex__(5)
    # Datetimes and structures do not let their memory be looked at as what they are, but as bytes.
    flat = array.reshape(-1, order=order).view(np.uint8)
    return np.ndarray, (array.shape, dtype, pickle.PickleBuffer(flat), 0, None, order)


def _reduce_tensor(tensor: Any) -> Any:
    """Reduce a tensor in main memory to an array's memory; any other to what torch makes of it."""
    torch = sys.modules["torch"]
    plain = tensor.device.type == "cpu" and tensor.layout is torch.strided and not tensor.requires_grad
    if not plain or tensor.is_quantized or tensor.is_conj() or tensor.is_neg():
        return tensor.__reduce_ex__(5)
    flat: Any = tensor.contiguous().view(-1).view(torch.uint8).numpy() if tensor.numel() else np.empty(0, np.uint8)
    return _tensor, (tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."), pickle.PickleBuffer(flat))


def _tensor(shape: tuple[int, ...], dtype: str, buffer: Any) -> Any:
    """Return the tensor whose memory is `buffer`."""
    import torch  # the worker has it, and what it sends is this

    kind = getattr(torch, dtype)
    if not len(memoryview(buffer)):
        return torch.empty(shape, dtype=kind)
    return torch.frombuffer(buffer, dtype=kind).view(shape)


_REDUCERS: dict[type, Callable[[Any], Any]] = {}


class _Pickler(pickle.Pickler):
    dispatch_table = _REDUCERS


class _ByValue(cloudpickle.Pickler):  # type: ignore[misc]  # cloudpickle has no types
    """For instances of classes that only the user's script or a closure knows: by value, and slower."""

    # But not open files, of which cloudpickle would make what they hold.
    dispatch_table: ClassVar[dict[type, Any]] = {
        kind: reducer for kind, reducer in cloudpickle.Pickler.dispatch_table.items() if kind is not io.TextIOWrapper
    }


class Frame(NamedTuple):
    """An object made ready to be sent.

    Attributes:
        packed: the pickle, and whatever is to stand behind it.
        buffers: the memory beside it.
    """

    packed: bytes
    buffers: list[memoryview]

    def size(self) -> int:
        """Return how many bytes the frame takes, if all buffers lie in it."""
        size = len(self.packed)
        for raw in self.buffers:
            size += _PLACE.size + _rounded(raw.nbytes)
        return size

    def end(self, table: int) -> int:
        """Return where in the frame it ends, if its table begins at `table`."""
        return table + _PLACE.size * len(self.buffers) + len(self.packed)

    def write_to(self, target: memoryview, built: Sequence[tuple[int, int] | None] = ()) -> int:
        """Copy the frame into `target`, the one copy of its way; return where its table begins.

        Args:
            target: no more than `size()` bytes are needed.
            built: for each buffer the block and the place in it where it lies already, or None; empty for none.
        """
        packed, buffers = self
        table = 0
        for number, raw in enumerate(buffers):
            if not built or built[number] is None:
                table += _rounded(raw.nbytes)
        entry, at = table, 0
        for number, raw in enumerate(buffers):
            length = raw.nbytes
            there = built[number] if built else None
            if there is None:
                target[at : at + length] = raw
                there = 0, at
                at += _rounded(length)
            _PLACE.pack_into(target, entry, *there, length)
            entry += _PLACE.size
        target[entry : entry + len(packed)] = packed
        return table


def _rounded(length: int) -> int:
    return (length + ALIGNMENT - 1) & -ALIGNMENT


class _Sink:
    """What a pickler takes for a file; it writes once, unless the pickle is long."""

    def __init__(self, write: Callable[[bytes], None]) -> None:
        self.write = write


_NO_BUFFERS: list[memoryview] = []
_new, _modules, _registry = tuple.__new__, sys.modules, copyreg.dispatch_table


class Serializer:
    """Makes frames of objects, one after the other; what it needs for that is kept."""

    def __init__(self) -> None:
        self._written: list[bytes] = []
        self._taken: list[pickle.PickleBuffer] = []
        self._registered, self._knows_torch = -1, False
        self._pickler = _Pickler(_Sink(self._written.append), protocol=5, buffer_callback=self._taken.append)

    def frame(self, item: Any) -> Frame:
        """Return `item` as a frame; raises whatever its pickling does."""
        written, taken = self._written, self._taken
        if len(_registry) != self._registered or (not self._knows_torch and "torch" in _modules):
            self._learn()
        try:
            self._pickler.dump(item)
            packed = written[0] if len(written) == 1 else b"".join(written)
            # `new`, for Frame(...) would take twice as long.
            return _new(Frame, (packed, [buffer.raw() for buffer in taken] if taken else _NO_BUFFERS))
        except (pickle.PicklingError, AttributeError, TypeError):
            taken.clear()
            again = io.BytesIO()
            _ByValue(again, protocol=5, buffer_callback=taken.append).dump(item)
            return Frame(again.getvalue(), [buffer.raw() for buffer in taken])
        finally:
            # Nothing is to hold the item, and nothing of an interrupted one is to be left.
            self._pickler.clear_memo()
            written.clear()
            taken.clear()

    def _learn(self) -> None:
        """Take in what was registered or imported since."""
        self._registered = len(copyreg.dispatch_table)
        tensor = getattr(sys.modules.get("torch"), "Tensor", None)  # None while torch is being imported
        self._knows_torch = tensor is not None
        for table in (_REDUCERS, _ByValue.dispatch_table):
            table.update(copyreg.dispatch_table)
            table[np.ndarray] = _reduce_array
            if tensor is not None:
                table[tensor] = _reduce_tensor


def load_frame(frame: memoryview, tail: int, buffers: int, blocks: Callable[[int], memoryview] | None = None) -> Any:
    """Return the object in `frame`; its arrays are views of that memory and keep it alive.

    Args:
        frame: the memory.
        tail: where in it the table begins.
        buffers: how many buffers there are.
        blocks: returns the memory of a block that a buffer was built in.
    """
    if not buffers:
        return pickle.loads(frame)
    table = tail + buffers * _PLACE.size
    memory = []
    for block, start, length in _PLACE.iter_unpack(frame[tail:table]):
        whole = frame if not block or blocks is None else blocks(block)
        memory.append(whole[start : start + length])
    return pickle.loads(frame[table:], buffers=memory)


def copy_frame(frame: memoryview, tail: int, buffers: int, blocks: Callable[[int], memoryview] | None = None) -> Any:
    """Return the object in `frame`, as `load_frame` does, with memory of its own."""
    if not buffers:
        return pickle.loads(frame)
    table = tail + buffers * _PLACE.size
    mine = aligned_buffer(tail)
    mine[:] = frame[:tail]
    memory = []
    for block, start, length in _PLACE.iter_unpack(frame[tail:table]):
        if not block or blocks is None:
            memory.append(mine[start : start + length])
        else:
            private = aligned_buffer(length)
            private[:] = blocks(block)[start : start + length]
            memory.append(private)
    return pickle.loads(frame[table:], buffers=memory)


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
