"""What every test is held to: it leaves no process, descriptor, thread or shared memory behind."""

import gc
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest


def _descriptors() -> dict[str, str]:
    """Return what each open descriptor of this process is, but for the one of this very listing."""
    links = list(Path("/proc/self/fd").iterdir())
    return {link.name: os.readlink(link) for link in links if link.exists() or link.is_symlink()}  # noqa: PTH115


def _leftovers(before: dict[str, str], shared: set[str], threads: set[threading.Thread]) -> dict[str, object]:
    left: dict[str, object] = {
        "processes": [child.cmdline() for child in psutil.Process().children(recursive=True)],
        "descriptors": {fd: what for fd, what in _descriptors().items() if before.get(fd) != what},
        "shared memory": _shared_memory() - shared,
        "threads": [thread.name for thread in set(threading.enumerate()) - threads],
    }
    return {kind: what for kind, what in left.items() if what}


def _shared_memory() -> set[str]:
    return {path.name for path in Path("/dev/shm").iterdir()}  # noqa: S108  looked at, not written to


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """Fail a test that leaves anything behind; a moment is given to what is on its way out."""
    before, shared, threads = _descriptors(), _shared_memory(), set(threading.enumerate())
    yield
    deadline = time.monotonic() + 2
    while (left := _leftovers(before, shared, threads)) and time.monotonic() < deadline:
        gc.collect()  # not for every test: with all that the suite imports, it takes longer than most tests
        time.sleep(0.02)
    assert not left
