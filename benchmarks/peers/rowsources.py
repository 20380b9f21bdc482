"""Sources of rows of one size: splitpipe, numpy in memory, a mapped .npy file and h5py behind one set of methods.

Each gives batches of rows in an order that it draws while the clock runs, by its own fastest documented way.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

import splitpipe
from benchmarks.harness import Contender

__all__ = ["BATCH", "SOURCES", "RowSource", "Rows"]

BATCH = 256
_SIDE = 28  # of the images that the tree records hold

Rows = NDArray[np.uint8]


class RowSource(Contender):
    """A way to read rows of uint8 in shuffled batches.

    Attributes:
        note: what the table says behind the name.
        directory: where the rows lie.
    """

    note: ClassVar[str] = ""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    @abc.abstractmethod
    def write(self, rows: Rows) -> None:
        """Keep `rows`, shape (count, width), in the new directory `directory`."""

    @abc.abstractmethod
    def open(self) -> None:
        """Open what lies in `directory`; what was learnt by an earlier handle is forgotten."""

    @abc.abstractmethod
    def close(self) -> None:
        """Let go of the handle."""

    @abc.abstractmethod
    def epoch(self) -> Iterator[Any]:
        """Read all rows, shuffled, in batches of BATCH."""

    def rows_of(self, batch: Any) -> Rows:
        """Return the rows of a batch of `epoch`, shape (count, width); not timed.

        Raises:
            ValueError: what else the batch holds does not belong to its rows.
        """
        rows: Rows = batch
        return rows


class SplitpipeRows(RowSource):
    """This project with a numpy dtype as its codec."""

    name = "splitpipe"
    module = "splitpipe"
    package = "splitpipe"
    _batches: Any

    def write(self, rows: Rows) -> None:
        splitpipe.write_split_data(self.directory, rows, codec=np.dtype((np.uint8, rows.shape[1:])))

    def open(self) -> None:
        self._batches = splitpipe.SplitDataLoader(self.directory).batches(BATCH, shuffle=True)

    def close(self) -> None:
        del self._batches

    def epoch(self) -> Iterator[Any]:
        return iter(self._batches)


class SplitpipeTrees(SplitpipeRows):
    """This project with dicts of an image and its label, the codec `tree`; a label is its image's last byte."""

    name = "splitpipe tree"

    def write(self, rows: Rows) -> None:
        images = rows.reshape(len(rows), _SIDE, -1)
        records = ({"image": image, "label": int(image[-1, -1])} for image in images)
        splitpipe.write_split_data(self.directory, records, codec="tree")

    def rows_of(self, batch: Any) -> Rows:
        rows: Rows = batch["image"].reshape(len(batch["image"]), -1)
        if not np.array_equal(rows[:, -1], batch["label"]):
            raise ValueError("the labels are not those of their images")
        return rows


class _ByNumber(RowSource):
    """Takes each batch by the numbers of its rows, out of a permutation."""

    package = ""
    _file = "rows.npy"
    _count: int
    _take: Callable[[NDArray[np.intp]], Rows]

    def epoch(self) -> Iterator[Any]:
        order = np.random.default_rng().permutation(self._count)
        return map(self._take, (order[start : start + BATCH] for start in range(0, self._count, BATCH)))

    def close(self) -> None:
        del self._take


class MemoryRows(_ByNumber):
    """`numpy.take` from an array in memory: nothing is on disk, nothing is opened."""

    name = "numpy.take"
    module = "numpy"
    note = "in memory"
    _rows: Rows

    def write(self, rows: Rows) -> None:
        self._rows, self._count = rows, len(rows)

    def open(self) -> None:
        self._take = self._from_memory

    def _from_memory(self, numbers: NDArray[np.intp]) -> Rows:
        return np.take(self._rows, numbers, axis=0)


class MappedRows(MemoryRows):
    """`numpy.take` from a mapped .npy file."""

    name = "numpy.memmap"
    note = ".npy"

    def write(self, rows: Rows) -> None:
        self.directory.mkdir()
        np.save(self.directory / self._file, rows)

    def open(self) -> None:
        self._rows = np.asarray(np.load(self.directory / self._file, mmap_mode="r"))
        self._count = len(self._rows)
        super().open()

    def close(self) -> None:
        super().close()
        del self._rows


class H5pyRows(_ByNumber):
    """h5py: a contiguous dataset; each batch's numbers are sorted, for it takes them in no other order."""

    name = "h5py"
    module = "h5py"
    package = "h5py"
    note = "sorted in a batch"
    _file = "rows.h5"

    def write(self, rows: Rows) -> None:
        import h5py

        self.directory.mkdir()
        with h5py.File(self.directory / self._file, "w") as file:
            file.create_dataset("rows", data=rows)

    def open(self) -> None:
        import h5py

        self._handle: Any = h5py.File(self.directory / self._file, "r")
        self._dataset: Any = self._handle["rows"]
        self._count = len(self._dataset)
        self._take = self._from_dataset

    def _from_dataset(self, numbers: NDArray[np.intp]) -> Rows:
        rows: Rows = self._dataset[np.sort(numbers)]
        return rows

    def close(self) -> None:
        super().close()
        self._handle.close()


SOURCES: tuple[type[RowSource], ...] = (SplitpipeRows, SplitpipeTrees, MemoryRows, MappedRows, H5pyRows)
