"""Memory for arrays: aligned, and in a pipeline's worker already where it will be sent from.

Whoever makes a batch asks here; who provides the memory (`transport/building.py`) says so here. So neither need know
the other.
"""

from __future__ import annotations

import math
import operator
import os
from collections.abc import Iterable
from typing import Any, Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray

__all__ = ["ALIGNMENT", "Provider", "aligned_buffer", "empty", "provide"]

# A cache line, and what AVX-512 loads and JAX ask for.
ALIGNMENT = 64
# Below this, to copy is cheaper than to look after shared memory.
_SHARED_FROM = 1 << 16


class Provider(Protocol):
    """Whoever has memory that need not be copied when it is sent."""

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any], size: int) -> NDArray[Any] | None:
        """Return an array of `size` bytes, or None if there is no room."""


_provider: Provider | None = None


def provide(provider: Provider | None) -> None:
    """Let `empty` take its memory from `provider` in this process."""
    global _provider
    _provider = provider


def _forget() -> None:
    provide(None)


if hasattr(os, "register_at_fork"):
    # A child that a generator forks would give out memory that the worker thinks is free.
    os.register_at_fork(after_in_child=_forget)


def empty(shape: int | tuple[int, ...], dtype: DTypeLike = float) -> NDArray[Any]:
    """Return an array that, in a pipeline's generator, needs no copy when it is yielded.

    As `numpy.empty`, it is not initialised. In a worker process the memory of an array of 64 KB or more is shared with
    the main process: fill it, and yield it alone or as part of an item. From then on it is the consumer's, and
    read-only here; ask for another one. Everywhere else, and for objects, it is what `numpy.empty` returns.

    Args:
        shape: of the array.
        dtype: of the array.
    """
    shape = tuple(shape) if isinstance(shape, Iterable) else (operator.index(shape),)
    kind = np.dtype(dtype)
    if _provider is not None:
        size = math.prod(shape) * kind.itemsize
        if size >= _SHARED_FROM and not kind.hasobject:
            provided = _provider.empty(shape, kind, size)
            if provided is not None:
                return provided
    return np.empty(shape, kind)


def aligned_buffer(size: int) -> memoryview:
    """Return `size` bytes of private, writable memory that starts at a multiple of 64."""
    room = np.empty(size + ALIGNMENT, np.uint8)
    start = -room.ctypes.data % ALIGNMENT
    view: memoryview = room[start : start + size].data
    return view
