"""The codec `tree`: nested dicts, lists and tuples of arrays and scalars, without pickle.

    payload   u32 bytes of the template | u32 bytes of the slots | template (JSON) | slots | blobs

The template says how the record is built and where each part of it lies; parts of fixed size are in slots of 8
bytes or more, those of any size (str, bytes, large int) have a slot of 16 with offset and length of a blob. So
records that differ in values alone share one template, which is parsed once. Slots start at a multiple of 8,
each blob at one of 64. Every payload is a multiple of 64 bytes long, and so is what comes before it in a bin: an array
starts at a multiple of 64 in the mapped file too.

In the template null is None, and a list is a node, named by its first element:

    ["dict", [key, node], ...]   keys are str, int, float, bool or null
    ["list", node, ...]          ["tuple", node, ...]
    ["array", dtype, shape, order, offset]     order "C" or "F"
    ["scalar", dtype, offset]                  a numpy scalar
    ["bool", offset]             one byte      ["int", offset]   int64     ["float", offset]   float64
    ["str", offset]  ["bytes", offset]  ["bigint", offset]                 a blob; bigint in decimal
"""

from __future__ import annotations

import functools
import json
import math
import struct
import sys
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from splitpipe.codecs.codec import Codec
from splitpipe.codecs.rows import dtype_from_json, dtype_to_json
from splitpipe.codecs.stacked import stack_trees
from splitpipe.errors import PayloadError, RecordTypeError
from splitpipe.memory import empty

__all__ = ["TreeCodec"]

ALIGNMENT = 64  # a cache line, and what every vector instruction wants
_HEAD = struct.Struct("<II")
_BLOB = struct.Struct("<QQ")
_BOOL = struct.Struct("<?")
_INT = struct.Struct("<q")
_FLOAT = struct.Struct("<d")
_NUMBERS = {"bool": _BOOL, "int": _INT, "float": _FLOAT}
_MAX_DEPTH = 64

_Build = Callable[[Any], Any]
_Stack = Callable[[NDArray[np.uint8], int], Any]

# What a template or an offset that no encoder wrote can end in.
_MALFORMED = (struct.error, ValueError, TypeError, IndexError, KeyError, OverflowError, RecursionError)


class TreeCodec(Codec):
    """Holds nested dict, list and tuple of numpy arrays and scalars, int, float, bool, str, bytes and None.

    Arrays come back as read-only views of the mapped file: no copy, and memory that all processes share.
    """

    name = "tree"
    takes_view = True

    def encode(self, record: Any) -> bytes:
        """Return the record's payload."""
        return _Encoder().payload(record)

    def decode(self, payload: Any) -> Any:
        """Return the record in `payload`, bytes or a view of them."""
        try:
            length, _ = _HEAD.unpack_from(payload)
            return _builder(bytes(payload[_HEAD.size : _HEAD.size + length]))(payload)
        except _MALFORMED as exc:
            raise PayloadError(f"is no tree: {exc}") from exc

    def batch(self, payloads: NDArray[np.void]) -> Any:
        """Return one tree of these records, each leaf an array of their values; None if they differ in structure."""
        rows = payloads.view(np.uint8).reshape(len(payloads), -1)
        try:
            length, slot_bytes = _HEAD.unpack_from(rows[0])
            heads = rows[:, : _HEAD.size + length]
            if (heads != heads[0]).any():
                return None
            stack = _stacker(heads[0, _HEAD.size :].tobytes())
            slots = _slots_at(length)
            return None if stack is None else stack(rows, _round_up(slots + slot_bytes, ALIGNMENT))
        except _MALFORMED as exc:
            raise PayloadError(f"is no tree: {exc}") from exc

    def collate(self, records: Sequence[Any]) -> Any:
        """Return what `batch` returns, from decoded records, which need not lie in rows of one length."""
        return stack_trees(records)


class _Encoder:
    """Lays out one record: first what goes where, then the bytes."""

    def __init__(self) -> None:
        self._slots = 0  # bytes of slots so far
        self._blobs = 0  # bytes of blobs so far, each rounded up
        self._writes: list[tuple[bool, int, Any]] = []  # (is a blob, where, bytes)

    def payload(self, record: Any) -> bytes:
        # Offsets in the template count from the start of the slots and of the blobs; where those start depends
        # only on lengths that the payload tells.
        template = json.dumps(self._node(record, "", 0), separators=(",", ":")).encode("ascii")
        slots_at = _slots_at(len(template))
        blobs_at = _round_up(slots_at + self._slots, ALIGNMENT)
        out = bytearray(blobs_at + self._blobs)
        _HEAD.pack_into(out, 0, len(template), self._slots)
        out[_HEAD.size : _HEAD.size + len(template)] = template
        for is_blob, at, data in self._writes:
            start = (blobs_at if is_blob else slots_at) + at
            out[start : start + len(data)] = data
        return bytes(out)

    def _slot(self, data: bytes) -> int:
        at = self._slots
        self._slots += _round_up(len(data), 8)
        self._writes.append((False, at, data))
        return at

    def _blob(self, data: Any, size: int) -> int:
        at = self._blobs
        self._blobs += _round_up(size, ALIGNMENT)
        self._writes.append((True, at, data))
        return at

    def _sized(self, data: bytes) -> int:
        return self._slot(_BLOB.pack(self._blob(data, len(data)), len(data)))

    def _node(self, value: Any, path: str, depth: int) -> Any:
        kind = type(value)
        if value is None:
            return None
        if kind is bool:
            return ["bool", self._slot(_BOOL.pack(value))]
        if kind is int:
            if -(1 << 63) <= value < 1 << 63:
                return ["int", self._slot(_INT.pack(value))]
            return ["bigint", self._sized(_decimal(value, path))]
        if kind is float:
            return ["float", self._slot(_FLOAT.pack(value))]
        if kind is str:
            return ["str", self._sized(_utf8(value, path))]
        if kind in (bytes, bytearray, memoryview):
            return ["bytes", self._sized(bytes(value))]
        if isinstance(value, np.generic):
            return self._scalar(value, path)
        if kind in (np.ndarray, np.memmap):
            return self._array(value, path)
        return self._container(value, kind, path, depth)

    def _scalar(self, value: np.generic, path: str) -> Any:
        dtype = value.dtype
        if isinstance(value, np.str_ | np.bytes_):
            if value[-1:] in ("\0", b"\0"):
                raise RecordTypeError(
                    f"codec 'tree' cannot hold the {type(value).__name__} at record{path}: numpy drops the NULs at its "
                    "end; convert it to str or bytes"
                )
            dtype = np.dtype((dtype.kind, max(1, len(value))))  # an empty one has a size of 0 otherwise
        return ["scalar", _described(dtype, path), self._slot(value.tobytes())]

    def _array(self, array: NDArray[Any], path: str) -> Any:
        order: Literal["C", "F"] = "F" if array.flags.f_contiguous and not array.flags.c_contiguous else "C"
        at = self._blob(array.tobytes(order), array.nbytes)
        return ["array", _described(array.dtype, path), list(array.shape), order, at]

    def _container(self, value: Any, kind: type, path: str, depth: int) -> Any:
        if depth >= _MAX_DEPTH:
            raise RecordTypeError(f"codec 'tree' holds {_MAX_DEPTH} levels, and record{path} is deeper: flatten it")
        if kind is dict:
            pairs: list[Any] = []
            for key, item in value.items():
                if key is not None and type(key) not in (str, int, float, bool):
                    raise RecordTypeError(
                        f"codec 'tree' holds dicts with keys of str, int, float, bool or None, and record{path} has "
                        f"the key {key!r}"
                    )
                pairs.append([key, self._node(item, f"{path}[{_shown(key, path)}]", depth + 1)])
            return ["dict", *pairs]
        if kind in (list, tuple):
            return [kind.__name__, *(self._node(item, f"{path}[{i}]", depth + 1) for i, item in enumerate(value))]
        raise RecordTypeError(
            f"codec 'tree' holds dict, list, tuple, numpy arrays and scalars, int, float, bool, str, bytes and None, "
            f"and record{path} is a {kind.__module__}.{kind.__qualname__}: convert it, or write with codec='pickle'"
        )


def _utf8(text: str, path: str) -> bytes:
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as exc:
        raise RecordTypeError(f"codec 'tree' holds text that UTF-8 has, and record{path} is not: {exc}") from exc


def _described(dtype: np.dtype[Any], path: str) -> Any:
    if dtype.hasobject or dtype.kind == "T" or not dtype.itemsize:
        raise RecordTypeError(
            f"codec 'tree' holds arrays whose elements have a fixed size, and record{path} is of {dtype}: convert it"
        )
    try:
        return dtype_to_json(dtype)
    except ValueError as exc:
        raise RecordTypeError(
            f"codec 'tree' holds dtypes that numpy can describe, and record{path} is of {dtype}: {exc}"
        ) from exc


def _shown(key: Any, path: str) -> str:
    try:
        return repr(key)
    except ValueError as exc:  # Python's own limit of digits, which JSON keeps too
        raise RecordTypeError(f"codec 'tree' cannot hold a key of record{path}: {exc}") from exc


def _decimal(value: int, path: str) -> bytes:
    try:
        return str(value).encode("ascii")
    except ValueError as exc:  # Python's own limit of digits
        raise RecordTypeError(f"codec 'tree' cannot hold the int at record{path}: {exc}") from exc


def _round_up(size: int, step: int) -> int:
    return -(-size // step) * step


def _slots_at(template: int) -> int:
    return _round_up(_HEAD.size + template, 8)


@functools.lru_cache(maxsize=1024)
def _builder(template: bytes) -> _Build:
    """Return what builds a record from a payload with this template."""
    slots = _slots_at(len(template))
    build = _Reader(slots).build(json.loads(template), 0)

    def record(payload: Any) -> Any:
        slot_bytes = _HEAD.unpack_from(payload)[1]
        return build(payload, _round_up(slots + slot_bytes, ALIGNMENT))

    return record


class _Reader:
    """Turns the nodes of a template into functions of (payload, where its blobs start)."""

    def __init__(self, slots: int) -> None:
        self._slots = slots

    def build(self, node: Any, depth: int) -> Callable[[Any, int], Any]:
        if node is None:
            return lambda payload, blobs: None
        if depth > _MAX_DEPTH:
            raise ValueError("it is nested too deep")
        kind, *parts = node
        if kind == "dict":
            items = [(key, self.build(item, depth + 1)) for key, item in parts]
            return lambda payload, blobs: {key: item(payload, blobs) for key, item in items}
        if kind in ("list", "tuple"):
            nodes = [self.build(item, depth + 1) for item in parts]
            if kind == "list":
                return lambda payload, blobs: [item(payload, blobs) for item in nodes]
            return lambda payload, blobs: tuple([item(payload, blobs) for item in nodes])
        return self._leaf(kind, parts)

    def _leaf(self, kind: str, parts: list[Any]) -> Callable[[Any, int], Any]:
        if kind == "array":
            return _array_reader(*parts)
        at = self._slots + _natural(parts[-1])
        if kind in _NUMBERS:
            unpack = _NUMBERS[kind].unpack_from
            return lambda payload, blobs: unpack(payload, at)[0]
        if kind == "scalar":
            dtype = dtype_from_json(parts[0])
            if dtype.kind == "U":
                return _text_reader(dtype, at)
            return lambda payload, blobs: np.frombuffer(payload, dtype, 1, at)[0]
        convert = _CONVERSIONS[kind]
        return lambda payload, blobs: convert(_blob(payload, at, blobs))


_CONVERSIONS: dict[str, Callable[[bytes], Any]] = {
    "str": lambda data: data.decode("utf-8"),
    "bytes": bytes,
    "bigint": int,
}


def _natural(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"{value!r} is no offset")
    return value


def _array_reader(described: Any, shape: list[int], order: Any, offset: int) -> Callable[[Any, int], NDArray[Any]]:
    dtype = dtype_from_json(described)
    if not dtype.itemsize:
        raise ValueError(f"elements of {dtype} have no size")
    count = math.prod(map(_natural, shape))
    at, extents = _natural(offset), tuple(shape)

    def read(payload: Any, blobs: int) -> NDArray[Any]:
        if not count:
            empty = np.empty(extents, dtype)
            empty.flags.writeable = False
            return empty
        return np.frombuffer(payload, dtype, count, blobs + at).reshape(extents, order=order)

    return read


def _text_reader(dtype: np.dtype[Any], at: int) -> Callable[[Any, int], Any]:
    codes = np.dtype((dtype.str[0] + "u4", (dtype.itemsize // 4,)))

    def read(payload: Any, blobs: int) -> Any:
        # numpy would make a str of them that Python cannot bear.
        if np.frombuffer(payload, codes, 1, at).max(initial=0) > sys.maxunicode:
            raise ValueError("a text has characters beyond Unicode")
        return np.frombuffer(payload, dtype, 1, at)[0]

    return read


def _blob(payload: Any, at: int, blobs: int) -> bytes:
    start, size = _BLOB.unpack_from(payload, at)
    data = bytes(payload[blobs + start : blobs + start + size])
    if len(data) != size:
        raise ValueError(f"a part of {size} bytes reaches beyond its end")
    return data


@functools.lru_cache(maxsize=64)
def _stacker(template: bytes) -> _Stack | None:
    """Return what builds one tree of arrays from payloads with this template; None if a part of it is of any size."""
    return _stack_node(json.loads(template), _slots_at(len(template)))


def _stack_node(node: Any, slots: int) -> _Stack | None:
    if node is None:
        return lambda rows, blobs: None
    kind, *parts = node
    if kind in ("dict", "list", "tuple"):
        stacks = [_stack_node(part[1] if kind == "dict" else part, slots) for part in parts]
        whole = [stack for stack in stacks if stack is not None]
        if len(whole) != len(stacks):
            return None
        if kind == "dict":
            keys = [key for key, _ in parts]
            return lambda rows, blobs: {key: stack(rows, blobs) for key, stack in zip(keys, whole, strict=True)}
        build = list if kind == "list" else tuple
        return lambda rows, blobs: build([stack(rows, blobs) for stack in whole])
    if kind == "array":
        described, shape, order, at = parts
        return _stack_arrays(dtype_from_json(described), tuple(shape), order, at, in_blobs=True)
    dtypes = {"bool": np.dtype(np.bool_), "int": np.dtype("<i8"), "float": np.dtype("<f8")}
    if kind not in dtypes and kind != "scalar":
        return None
    dtype = dtypes[kind] if kind in dtypes else dtype_from_json(parts[0])
    return _stack_arrays(dtype, (), "C", slots + parts[-1], in_blobs=False)


def _stack_arrays(dtype: np.dtype[Any], shape: tuple[int, ...], order: str, at: int, *, in_blobs: bool) -> _Stack:
    size = math.prod(shape) * dtype.itemsize

    def stack(rows: NDArray[np.uint8], blobs: int) -> NDArray[Any]:
        start = at + (blobs if in_blobs else 0)
        if start < 0 or start + size > rows.shape[1]:
            raise ValueError(f"an array of {size} bytes reaches beyond its end")
        # A copy: many small arrays that lie apart would be slow to work with, and hold on to all of the payloads.
        copied = empty((len(rows), size), np.uint8)
        copied[:] = rows[:, start : start + size]
        taken: NDArray[Any] = copied.view(dtype)
        # Stored in Fortran order, an array's last axis comes first.
        stacked = taken.reshape(len(rows), *(shape[::-1] if order == "F" else shape))
        return stacked.transpose(0, *range(len(shape), 0, -1)) if order == "F" else stacked

    return stack
