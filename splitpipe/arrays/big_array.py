"""BigArray: a mapped `.npy` file, parts of which have names."""

from __future__ import annotations

import os
import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splitpipe.arrays.bigarray_file import is_bigarray, read_bigarray
from splitpipe.arrays.names import parse_names, read_names
from splitpipe.arrays.npy import HEADER_LIMIT, NpyHeader, parse_npy
from splitpipe.errors import ArrayFileError, ArrayNotFoundError, ReadOnlyError

__all__ = ["BigArray", "read_header"]


class BigArray(np.memmap):
    """An array in a `.npy` file, mapped: a `numpy.memmap`, parts of which have names.

    `x["name"]` is the part of that name, `x[3:5]` rows as of any array; both are plain arrays over the same memory.
    It shows the rows and names that were there when it was made. It pickles to its path.

    Args:
        path: of a file that `BigArrayWriter`, `numpy.save` or bigarray wrote.
        mode: "r" for reading, "r+" for writing in place, "c" for writing to memory alone.

    Raises:
        ArrayNotFoundError: there is no file.
        ArrayFileError: it is something else.
        ArrayTypeError: it holds Python objects.
        CorruptDataError: it, or the names beside it, is cut short or damaged.
        ReadOnlyError: `mode` is "r+", and the file is bigarray's own.
        ValueError: there is no such mode.
    """

    # The way of nearly every access, in a slot: it is found twice as fast as an attribute of the instance.
    __slots__ = ("_plain",)
    _plain: NDArray[Any]
    _names: Mapping[str, tuple[int, int]] | None
    _lines: bytes

    def __new__(cls, path: str | os.PathLike[str], mode: str = "r") -> BigArray:
        """Map the file at `path`."""
        if mode not in ("r", "r+", "c"):
            raise ValueError(f'mode is "r", "r+" or "c", and got {mode!r}')
        file = Path(path).resolve()
        names: Mapping[str, tuple[int, int]] | None = None
        lines = b""
        if is_bigarray(file):
            if mode == "r+":
                raise ReadOnlyError(f"{file}: was written by bigarray, whose files are only read: copy it")
            header, names = read_bigarray(file)
        else:
            lines = read_names(file)  # before the header, for rows come before their names
            header = read_header(file)
        plain = _mapped(file, header, mode)
        self: Any = plain.view(cls)
        self._plain = plain.view(np.ndarray)
        self.filename, self.mode, self.offset = file, mode, header.size
        self._names, self._lines = names, lines
        return self  # type: ignore[no-any-return]

    @property
    def names(self) -> Mapping[str, tuple[int, int]]:
        """The name of each part, with its first row and the row behind its last, in the order of writing."""
        if self.__dict__.get("_names") is None:
            rows = self.shape[0] if self.shape else 0
            entries = parse_names(self.__dict__.get("_lines", b""), rows, str(self.filename))
            self._names = {name: (start, stop) for name, start, stop in entries}
        return types.MappingProxyType(self._names or {})

    def __getitem__(self, key: Any) -> Any:
        """Return the part of that name for a string, and what numpy does for anything else."""
        try:
            return self._plain[key]
        except AttributeError:  # of what was derived from a BigArray, which has no names
            return self.view(np.ndarray)[key]
        except (IndexError, ValueError):  # numpy knows no such field
            if not isinstance(key, str):
                raise
        start, stop = self._part(key)
        return self._plain[start:stop]

    def __setitem__(self, key: Any, value: Any) -> None:
        if isinstance(key, str) and not (self.dtype.names and key in self.dtype.names):
            start, stop = self._part(key)
            key = slice(start, stop)
        super().__setitem__(key, value)

    def _part(self, name: str) -> tuple[int, int]:
        try:
            return self.names[name]
        except KeyError:
            raise KeyError(
                f"{self.filename}: nothing in it is called {name!r}; `names` has {len(self.names)}"
            ) from None

    def __iter__(self) -> Iterator[Any]:
        return iter(self.view(np.ndarray))

    def __array_wrap__(self, array: Any, context: Any = None, return_scalar: bool = False) -> Any:
        if array is self:  # the `out` of what was computed
            return self
        plain = array.view(np.ndarray)
        return plain[()] if return_scalar else plain

    def __reduce__(self) -> Any:
        if "_names" not in self.__dict__ or self.mode == "c":
            return np.array(self).__reduce__()
        return type(self), (str(self.filename), self.mode)

    def __reduce_ex__(self, protocol: Any) -> Any:
        if "_names" not in self.__dict__ or self.mode == "c":
            return np.array(self).__reduce_ex__(protocol)
        return self.__reduce__()


def read_header(path: Path) -> NpyHeader:
    """Return what the `.npy` file at `path` says of itself; raises as `BigArray`."""
    try:
        with path.open("rb") as file:
            return parse_npy(file.read(HEADER_LIMIT), str(path), os.fstat(file.fileno()).st_size)
    except FileNotFoundError:
        raise ArrayNotFoundError(f"{path}: there is no such file: write it with BigArrayWriter") from None
    except IsADirectoryError:
        raise ArrayFileError(f"{path}: is a directory, and a .npy file is needed") from None


def _mapped(path: Path, header: NpyHeader, mode: str) -> Any:
    order: Any = "F" if header.fortran else "C"
    if header.stop == header.size:  # nothing to map; what mapping nothing does differs between versions of numpy
        return np.empty(header.shape, header.dtype, order).view(np.memmap)
    try:
        return np.memmap(path, header.dtype, mode, header.size, header.shape, order)  # type: ignore[call-overload]
    except PermissionError as exc:
        raise ReadOnlyError(f'{path}: may not be written to: open it with mode="r" or "c"') from exc
