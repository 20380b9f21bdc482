"""Values that are no mapped arrays, as pickle opcodes that can stand in the middle of another pickle, and back.

Protocol 3 numbers its memo by itself, so that an object's opcodes may follow any others. Arrays and scalars of numpy
inside other objects are pickled by the public names `numpy.ndarray` and `operator.getitem`: numpy's own way names
modules that it renames, and each version must read what another wrote.
"""

from __future__ import annotations

import collections
import datetime
import io
import operator
import pickle
import struct
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from splitpipe.arrays import dtypes
from splitpipe.errors import ArrayTypeError, CorruptDataError, PickleRefusedError, SplitpipeError

__all__ = ["decode", "encode"]

_PROTOCOL = 3
_BYTES8 = struct.Struct("<cQ")


def encode(value: Any) -> list[bytes]:
    """Return the opcodes that leave `value` on an unpickler's stack.

    Raises:
        ArrayTypeError: it cannot be pickled.
    """
    if type(value) is bytes:  # of any length, and without a copy
        return [_BYTES8.pack(pickle.BINBYTES8, len(value)), value]
    file = io.BytesIO()
    try:
        _Pickler(file, _PROTOCOL).dump(value)
    except OverflowError as exc:
        raise ArrayTypeError(
            f"a {type(value).__qualname__} that holds bytes or text of 4 GiB or more cannot be stored: store the large "
            "part under a key of its own, as bytes or as an array"
        ) from exc
    except (pickle.PicklingError, TypeError, AttributeError, RecursionError) as exc:
        raise ArrayTypeError(
            f"a {type(value).__qualname__} cannot be stored, because it cannot be pickled: {exc}"
        ) from exc
    return [file.getvalue()[2:-1]]  # without PROTO and STOP


def decode(opcodes: bytes, *, trusted: bool, what: str) -> Any:
    """Return the value that opcodes leave on the stack.

    Args:
        opcodes: as `encode` returns them; those of any protocol will do.
        trusted: whether they may name anything that can be imported.
        what: they are of, for errors.

    Raises:
        PickleRefusedError: they name more than builtin types and arrays, and are not trusted.
        CorruptDataError: they are no such thing.
    """
    file = io.BytesIO(opcodes + pickle.STOP)
    try:
        return (_Unpickler if trusted else _PlainUnpickler)(file, what).load()
    except SplitpipeError:
        raise
    except Exception as exc:
        if trusted and not isinstance(exc, pickle.UnpicklingError | EOFError):
            raise  # of a class of the user's own, perhaps one that is no longer there
        raise CorruptDataError(f"{what} is damaged: {exc}") from exc


class _Pickler(pickle.Pickler):
    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, np.ndarray):
            return _reduced_array(obj)
        if isinstance(obj, np.generic):
            return operator.getitem, (np.asarray(obj), ())
        return NotImplemented


def _reduced_array(array: NDArray[Any]) -> Any:
    if type(array) is np.ma.MaskedArray:
        mask = np.ma.nomask if array.mask is np.ma.nomask else np.asarray(array.mask)
        fill = np.asarray(array.fill_value, array.dtype)
        return np.ma.MaskedArray, (np.asarray(array.data), mask, None, False, True, 0, fill, True, array.hardmask)
    if type(array).__reduce__ is not np.ndarray.__reduce__ and not isinstance(array, np.memmap):
        return NotImplemented  # it knows best
    kind = np.ndarray if isinstance(array, np.memmap) else type(array)
    if kind is np.ndarray:
        try:
            described = dtypes.describe(array.dtype)
        except ArrayTypeError:
            pass
        else:
            is_fortran = array.flags.f_contiguous and not array.flags.c_contiguous
            order: Literal["C", "F"] = "F" if is_fortran else "C"
            return np.ndarray, (array.shape, described, bytearray(array.tobytes(order)), 0, None, order)
    # numpy's own state, on an array that is made by a public name.
    state = np.asarray(array).__reduce__()[2] if kind is np.ndarray else array.__reduce__()[2]
    return np.ndarray.__new__, (kind, (0,), "b"), state


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, what: str) -> None:
        super().__init__(file)
        self._what = what

    def find_class(self, module: str, name: str) -> Any:
        if module.startswith("numpy.core."):  # numpy's name for it before 2.0; mmappickle wrote it
            module = module.replace(".core.", "._core.", 1)
        return super().find_class(module, name)


class _PlainUnpickler(_Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        found = _PLAIN.get((module, name))
        if found is None:
            raise PickleRefusedError(
                f"{self._what} is a pickle that asks for {module}.{name}, and loading it runs whatever its author "
                "wrote: pass allow_pickle=True if you trust the file"
            )
        return found


class _Maker:
    """Stands for one of numpy's names; has nothing that a pickle could set."""

    __slots__ = ("_make",)
    _make: Callable[..., Any]

    def __init__(self, make: Callable[..., Any]) -> None:
        object.__setattr__(self, "_make", make)

    def __call__(self, *args: Any) -> Any:
        return self._make(*args)

    def __setattr__(self, name: str, value: Any) -> None:
        raise pickle.UnpicklingError("sets what is not to be set")


def _make_array(shape: Any, described: Any, data: Any, offset: Any, strides: Any, order: Any) -> NDArray[Any]:
    dtype = dtypes.parse(described)  # none with objects: they would be made of these bytes
    array: NDArray[Any]
    if not isinstance(data, bytearray) or offset != 0 or strides is not None:
        raise pickle.UnpicklingError("an array that was not stored as such")
    array = np.ndarray(shape, dtype, data, 0, None, "F" if order == "F" else "C")
    return array


def _make_masked(data: Any, mask: Any, *options: Any) -> Any:
    if not isinstance(data, np.ndarray) or len(options) != 7:
        raise pickle.UnpicklingError("a masked array that was not stored as such")
    return np.ma.MaskedArray(data, mask, *options)


def _get_item(array: Any, place: Any) -> Any:
    if not isinstance(array, np.ndarray) or place != ():
        raise pickle.UnpicklingError("an element of something else than an array")
    return array[()]


_PLAIN: dict[tuple[str, str], Any] = {
    ("builtins", "bytearray"): bytearray,
    ("builtins", "complex"): complex,
    ("builtins", "frozenset"): frozenset,
    ("builtins", "range"): range,
    ("builtins", "set"): set,
    ("builtins", "slice"): slice,
    ("builtins", "Ellipsis"): Ellipsis,
    ("builtins", "NotImplemented"): NotImplemented,
    ("collections", "OrderedDict"): collections.OrderedDict,
    **{("datetime", name): getattr(datetime, name) for name in ("date", "datetime", "time", "timedelta", "timezone")},
    ("_operator", "getitem"): _Maker(_get_item),
    ("numpy", "ndarray"): _Maker(_make_array),
    ("numpy.ma", "MaskedArray"): _Maker(_make_masked),
    ("numpy.ma.core", "MaskedArray"): _Maker(_make_masked),
    ("numpy.ma", "nomask"): np.ma.nomask,
}
