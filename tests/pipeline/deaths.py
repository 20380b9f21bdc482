"""Ways for a worker to die, and places for it: in a module that imports little, so that workers start fast."""

import ctypes
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from splitpipe.transport.frames import Frame


class GoneError(Exception):
    """What the generator raises."""


def _raise() -> None:
    raise GoneError("it is gone")


def _raise_memory_error() -> None:
    raise MemoryError("none left")


def limit_memory(more: int) -> None:
    """Allow this process so many bytes of address space beyond what it has."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + more,) * 2)


def _allocate() -> None:
    limit_memory(1 << 28)
    np.ones(1 << 28)


WAYS: dict[str, Callable[[], object]] = {
    "exception": _raise,
    "SystemExit": lambda: sys.exit(3),
    "_exit(0)": lambda: os._exit(0),
    "SIGKILL": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "SIGSEGV": lambda: ctypes.string_at(0),
    "MemoryError": _raise_memory_error,
    "RLIMIT_AS": _allocate,
}


def die(how: str, note: Path) -> None:
    """Write down when it is, and die."""
    note.write_text(str(time.monotonic()))
    WAYS[how]()


def die_soon(how: str, note: Path, when: Path) -> None:
    """Die in a thread, once there is a file `when`."""

    def wait() -> None:
        while not when.exists():
            time.sleep(0.005)
        die(how, note)

    threading.Thread(target=wait, daemon=True).start()


class DiesWhenLoaded:
    """An argument that kills whoever unpickles it."""

    def __init__(self, how: str, note: Path) -> None:
        self._arguments = how, note

    def __reduce__(self) -> Any:
        """Reduce to the call that kills."""
        return die, self._arguments


class DiesWhenDumped:
    """An item that kills whoever pickles it."""

    def __init__(self, how: str, note: Path) -> None:
        self._arguments = how, note

    def __reduce__(self) -> Any:
        """Die."""
        die(*self._arguments)
        return int, ()


class Init:
    """What the worker calls at its start: dies there, or sees to it that the third copy kills."""

    def __init__(self, where: str, how: str, note: Path) -> None:
        self._where, self._how, self._note = where, how, note

    def __call__(self, worker: int) -> None:
        """Do so."""
        if self._where == "init":
            die(self._how, self._note)
        elif self._where == "copy":
            copy, copied = Frame.write_to, []

            def dying_copy(frame: Frame, target: memoryview, *more: Any) -> int:
                copied.append(1)
                if len(copied) == 3:
                    target[:100] = bytes(100)  # in the middle of it
                    die(self._how, self._note)
                return copy(frame, target, *more)

            Frame.write_to = dying_copy  # type: ignore[method-assign]


def generate(where: str, how: str, note: Path, size: int, _: object = None) -> Iterator[Any]:
    """Yield arrays that bear their number, and die with the third."""
    for number in range(6):
        if number == 2 and where == "generator":
            die(how, note)
        if number == 2 and where == "serialising":
            yield DiesWhenDumped(how, note)
        yield np.full(size, number, np.float64)


def blocked(how: str, note: Path, when: Path) -> Iterator[Any]:
    """Yield for ever."""
    die_soon(how, note, when)
    number = 0
    while True:
        yield np.full(5000, number)
        number += 1


def ended(how: str, note: Path, when: Path) -> Iterator[Any]:
    """Yield one item, and live on."""
    die_soon(how, note, when)
    yield os.getpid()


def large(size: int) -> Iterator[Any]:
    """Yield two arrays, of which the second has no room in shared memory."""
    yield np.zeros(10_000)
    limit_memory(3 * size // 2)
    yield np.zeros(size, np.uint8)
