"""Files of one array: splitpipe, numpy in memory, numpy.memmap, h5py and bigarray behind one set of methods."""

from __future__ import annotations

import abc
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

import splitpipe
from benchmarks.harness import Contender

__all__ = ["ARRAYS", "SLICE", "ArrayStore"]

SLICE = 256  # rows looked at together


class ArrayStore(Contender):
    """A way to keep one array.

    Attributes:
        note: what the table says behind the name.
        path: of its file.
    """

    note: ClassVar[str] = ""
    package = ""

    def __init__(self, path: Path) -> None:
        self.path = path

    @abc.abstractmethod
    def create(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        """Make the file of an array of which nothing is written yet."""

    @abc.abstractmethod
    def write(self, array: NDArray[Any]) -> None:
        """Write all of the array into the file just made, wait for the disk, and close."""

    @abc.abstractmethod
    def load(self) -> Any:
        """Return what stands for the array, for slices to be taken from."""

    def release(self) -> None:
        """Let go of what `load` returned."""

    def slices(self, loaded: Any) -> Iterator[Any]:
        """Yield SLICE rows at a time; the benchmark itself takes slices in the same way."""
        for start in range(0, len(loaded), SLICE):
            yield loaded[start : start + SLICE]


class SplitpipeArray(ArrayStore):
    """This project: rows appended to an empty array."""

    name = "splitpipe"
    module = "splitpipe"
    _writer: splitpipe.BigArrayWriter

    def create(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self._writer = splitpipe.BigArrayWriter(self.path, (0, *shape[1:]), dtype, overwrite=True)

    def write(self, array: NDArray[Any]) -> None:
        self._writer.write(array)
        self._writer.close()

    def load(self) -> Any:
        return splitpipe.BigArray(self.path)


class NumpyArray(ArrayStore):
    """numpy.save, and all of it in memory."""

    name = "numpy"
    module = "numpy"
    note = "in memory"

    def create(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.path.touch()

    def write(self, array: NDArray[Any]) -> None:
        with self.path.open("wb") as file:
            np.save(file, array)
            file.flush()
            os.fsync(file.fileno())

    def load(self) -> Any:
        with self.path.open("rb") as file:
            return np.load(file)


class MemmapArray(ArrayStore):
    """numpy.memmap: the size is known from the beginning."""

    name = "numpy.memmap"
    module = "numpy"
    _array: Any

    def create(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self._array = np.lib.format.open_memmap(self.path, "w+", dtype, shape)

    def write(self, array: NDArray[Any]) -> None:
        self._array[...] = array
        self._array.flush()
        del self._array

    def load(self) -> Any:
        return np.load(self.path, mmap_mode="r")


class H5pyArray(ArrayStore):
    """h5py, a contiguous dataset."""

    name = "h5py"
    module = "h5py"
    package = "h5py"

    def create(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        import h5py

        self._file: Any = h5py.File(self.path, "w")

    def write(self, array: NDArray[Any]) -> None:
        self._file.create_dataset("array", data=array)
        self.release()
        fd = os.open(self.path, os.O_RDONLY)
        os.fsync(fd)
        os.close(fd)

    def load(self) -> Any:
        import h5py

        self._file = h5py.File(self.path, "r")
        return self._file["array"]

    def release(self) -> None:
        self._file.close()


class BigarrayArray(ArrayStore):
    """bigarray, which this project's arrays replace."""

    name = "bigarray"
    module = "bigarray"
    package = "bigarray"

    def create(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        from bigarray import MmapArrayWriter

        self._writer: Any = MmapArrayWriter(str(self.path), shape=(0, *shape[1:]), dtype=dtype, remove_exist=True)

    def write(self, array: NDArray[Any]) -> None:
        self._writer.write(array)
        self._writer.flush()
        self._writer.close()

    def load(self) -> Any:
        from bigarray import MmapArray

        return MmapArray(str(self.path), mode="r")


ARRAYS: tuple[type[ArrayStore], ...] = (SplitpipeArray, NumpyArray, MemmapArray, H5pyArray, BigarrayArray)
