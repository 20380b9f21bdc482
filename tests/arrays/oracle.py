"""What the tests of MmapDict compare with: the standard unpickler, and files as they were killed."""

from __future__ import annotations

import os
import pickle
import signal
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np


def plain(path: Path) -> dict[str, Any]:
    """Return what Python's own unpickler makes of a file."""
    with path.open("rb") as file:
        found = pickle.load(file)
    assert type(found) is dict
    return found


def same(one: Any, other: Any) -> bool:
    """Return whether two values are equal, element by element, dtype and mask and all."""
    if isinstance(one, np.ndarray) or isinstance(other, np.ndarray):
        if isinstance(one, np.ma.MaskedArray) is not isinstance(other, np.ma.MaskedArray):
            return False
        if one.dtype != other.dtype or one.shape != other.shape:
            return False
        if isinstance(one, np.ma.MaskedArray):
            masks = np.ma.getmaskarray(one), np.ma.getmaskarray(other)
            return same(*masks) and same(np.asarray(one.data), np.asarray(other.data))
        return np.ascontiguousarray(one).tobytes() == np.ascontiguousarray(other).tobytes()
    if isinstance(one, dict) and isinstance(other, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return type(one) is type(other) and len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and bool(one == other)


def in_child(work: Callable[[], object]) -> int:
    """Run `work` in a forked child; return its exit code, negative for the signal that ended it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # 3.12 warns of forking beside numpy's idle threads
        child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        finally:
            os._exit(99)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


_CALLS = ("open", "pwrite", "fsync", "ftruncate", "truncate", "link", "unlink", "replace", "rename", "posix_fallocate")


def kill_self_at(number: int) -> None:
    """From now on, SIGKILL this process just before the `number`-th of its calls that change or sync a file."""
    seen = 0

    def counted(operation: Callable[..., object]) -> Callable[..., object]:
        def call(*args: Any, **kwargs: Any) -> object:
            nonlocal seen
            if seen == number:
                os.kill(os.getpid(), signal.SIGKILL)
            seen += 1
            return operation(*args, **kwargs)

        return call

    for name in _CALLS:
        setattr(os, name, counted(getattr(os, name)))
