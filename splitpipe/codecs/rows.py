"""The codec `struct`: every record is a row of one fixed numpy dtype, so many are read as one array."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from splitpipe.codecs.codec import Codec
from splitpipe.errors import PayloadError, RecordTypeError

__all__ = ["RowCodec", "dtype_from_json", "dtype_to_json"]

# What numpy calls the dtypes that are stored. numpy.dtype itself takes far more than it ever returns as a name.
_NAME = re.compile(r"[<>|][biufcSUVmM][0-9]+(\[[0-9A-Za-zµμ]+\])?")


class RowCodec(Codec):
    """Holds rows of `dtype`: structured scalars, tuples of their fields, or arrays of a subarray dtype.

    Reading one gives a numpy scalar (an array, for a subarray dtype); reading many gives one array of them.

    Args:
        dtype: any dtype of fixed size without objects; None takes it from the first record.
    """

    name = "struct"

    def __init__(self, dtype: Any = None) -> None:
        self.row = None if dtype is None else _checked(np.dtype(dtype))

    def encode(self, record: Any) -> bytes:
        """Return the bytes of one row."""
        if self.row is None:
            self.row = _checked(_dtype_of(record))
        if getattr(record, "dtype", None) == self.row and record.shape == ():
            return bytes(record.tobytes())
        return self._converted(record)

    def _converted(self, record: Any) -> bytes:
        """Return the bytes of a row that came as a tuple of its fields, or as the array that a subarray dtype is."""
        row = self.row
        if row is None:  # pragma: no cover  encode has just seen to it
            raise RecordTypeError("codec 'struct' has no dtype yet")
        found = getattr(record, "dtype", None)
        is_tuple = bool(row.names) and found is None and isinstance(record, tuple)
        if row.subdtype is None and not is_tuple and not (found and record.shape == () and _is_same(found, row)):
            got = f"a {type(record).__qualname__}" if found is None else f"{found} of shape {record.shape}"
            raise RecordTypeError(f"codec 'struct' holds rows of {row}, and got {got}")
        if row.subdtype is not None and (found != row.base or record.shape != row.shape):
            got = type(record).__qualname__ if found is None else f"{found} of shape {record.shape}"
            raise RecordTypeError(f"codec 'struct' holds arrays of {row.base} of shape {row.shape}, and got {got}")
        try:
            return np.array(record, dtype=row.base).tobytes()
        except (TypeError, ValueError, OverflowError) as exc:
            raise RecordTypeError(f"codec 'struct' holds rows of {row}, which {record!r} is not: {exc}") from exc

    def decode(self, payload: bytes) -> Any:
        """Return the row."""
        row = self.row
        if row is None or len(payload) != row.itemsize:
            raise PayloadError(f"has {len(payload)} bytes, and a row of {row} has {row.itemsize if row else 0}")
        decoded = np.frombuffer(payload, row.base)
        return decoded.reshape(row.shape) if row.subdtype is not None else decoded[0]

    def decode_many(self, payloads: Sequence[Any]) -> Any:
        """Return the rows as one array, shape (len(payloads), *shape of the dtype)."""
        row = self.row
        if row is None or not set(map(len, payloads)) <= {row.itemsize}:
            raise PayloadError(f"has another length than a row of {row}")
        return np.frombuffer(bytearray().join(payloads), row.base).reshape(len(payloads), *row.shape)

    def batch(self, payloads: NDArray[np.void]) -> Any:
        """Return the rows as one array, shape (len(payloads), *shape of the dtype)."""
        row = self.row
        if row is None or payloads.dtype.itemsize != row.itemsize:
            return None
        return payloads.view(row.base).reshape(len(payloads), *row.shape)

    def collate(self, records: Any) -> Any:
        """Return the rows as one array."""
        return np.asarray(records, dtype=self.row.base if self.row else None)

    def spec(self) -> dict[str, Any]:
        """Return the dtype as JSON."""
        return {} if self.row is None else {"dtype": dtype_to_json(self.row)}

    def with_spec(self, spec: Mapping[str, Any]) -> RowCodec:
        """Return the codec of the dtype in `spec`."""
        return RowCodec(dtype_from_json(spec["dtype"]) if "dtype" in spec else None)


def _is_same(found: np.dtype[Any], row: np.dtype[Any]) -> bool:
    """Return whether a scalar is of `row`: its own dtype has no byte order, and a text's own length."""
    if found.kind == row.kind and row.kind in "SU":
        return bool(found.itemsize <= row.itemsize)
    return bool(found.newbyteorder("=") == row.newbyteorder("="))


def _dtype_of(record: Any) -> np.dtype[Any]:
    if isinstance(record, np.ndarray) and record.shape:
        return np.dtype((_checked(record.dtype), record.shape))  # numpy 2.5 makes none of texts of any length
    if isinstance(record, np.ndarray | np.generic):
        return record.dtype
    raise RecordTypeError(
        f"codec 'struct' takes its dtype from the first record, and that is a {type(record).__qualname__}: pass a "
        "numpy scalar or array, or write with codec=numpy.dtype(...)"
    )


def _checked(dtype: np.dtype[Any]) -> np.dtype[Any]:
    if dtype.hasobject or not dtype.itemsize:
        raise RecordTypeError(f"codec 'struct' holds dtypes of a fixed size without objects, and got {dtype}")
    try:
        dtype_to_json(dtype)
    except ValueError as exc:
        raise RecordTypeError(f"codec 'struct' holds dtypes that numpy can describe, and got {dtype}: {exc}") from exc
    return dtype


def dtype_to_json(dtype: np.dtype[Any]) -> Any:
    """Return `dtype` as JSON can hold it: numpy's own description of it, as in `.npy` files.

    Raises:
        ValueError: numpy has none: its fields overlap or are out of order.
    """
    if dtype.subdtype is not None:
        return [dtype_to_json(dtype.base), list(dtype.shape)]
    return npy.dtype_to_descr(dtype)


def dtype_from_json(described: Any) -> np.dtype[Any]:
    """Return the dtype that `dtype_to_json` described.

    Raises:
        PayloadError: it describes none, or one with objects.
    """
    try:
        dtype = _parsed(described)
    except (TypeError, ValueError, IndexError, KeyError) as exc:
        raise PayloadError(f"names a dtype that numpy does not know: {described!r}: {exc}") from exc
    if dtype.hasobject:
        raise PayloadError(f"names a dtype with Python objects: {described!r}")
    return dtype


def _parsed(described: Any) -> np.dtype[Any]:
    if isinstance(described, list) and len(described) == 2 and _is_shape(described[1]):
        return np.dtype((_parsed(described[0]), tuple(described[1])))
    return npy.descr_to_dtype(_with_tuples(described))


def _is_shape(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(extent, int) for extent in value)


def _with_tuples(described: Any) -> Any:
    """Return numpy's description with the tuples that JSON turned into lists."""
    if isinstance(described, str):
        if not _NAME.fullmatch(described):
            raise ValueError("no such name")
        return described
    if not isinstance(described, list):
        raise TypeError("neither a name nor a list of fields")
    return [_field(*field) for field in described]


def _field(name: Any, described: Any, *shape: Any) -> tuple[Any, ...]:
    title = tuple(name) if isinstance(name, list) else name
    return (title, _with_tuples(described), *(tuple(extents) for extents in shape))
