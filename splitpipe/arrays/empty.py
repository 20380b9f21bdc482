"""EmptyNDArray: stands for an array of zeros that is to be reserved in a file."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any, SupportsIndex

import numpy as np
from numpy.typing import DTypeLike

from splitpipe.errors import ArrayShapeError

__all__ = ["EmptyNDArray"]


class EmptyNDArray:
    """An array to reserve in a `MmapDict`: it takes no memory, and no room on the disk until it is written to.

    It reads as zeros. `d["frames"] = EmptyNDArray((10_000, 1024, 1024), "uint16")`, then fill `d["frames"]`.

    Args:
        shape: of the array; a number for one dimension.
        dtype: any without Python objects.

    Raises:
        ArrayShapeError: an extent is negative.
    """

    def __init__(self, shape: SupportsIndex | Sequence[SupportsIndex], dtype: DTypeLike = float) -> None:
        extents = shape if isinstance(shape, Sequence) else (shape,)
        self.shape = tuple(operator.index(extent) for extent in extents)
        self.dtype: np.dtype[Any] = np.dtype(dtype)
        if any(extent < 0 for extent in self.shape):
            raise ArrayShapeError(f"an array has no negative extent, and got shape {self.shape}")

    @property
    def nbytes(self) -> int:
        """How many bytes the array has."""
        size = self.dtype.itemsize
        for extent in self.shape:
            size *= extent  # of Python's numbers, which do not overflow
        return size

    def __repr__(self) -> str:
        return f"EmptyNDArray({self.shape}, {self.dtype.str!r})"
