"""Copying the entries of a MmapDict that are not deleted to a new file, which takes the place of the old one."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Iterator

from splitpipe.arrays import layout, stored_array
from splitpipe.arrays.layout import END_BYTES, PREFIX
from splitpipe.arrays.shared_file import SharedFile, fill_or_fail, write_all

__all__ = ["copy_live"]

_COPY_BYTES = 1 << 22
_START_BYTES = 256  # of a value: its notes are less


def copy_live(file: SharedFile, live: Iterable[int], header: bytes, check: Callable[[], None]) -> None:
    """Put a new file in the place of `file`: `header`, and the entries at `live`; what is a hole stays one.

    Args:
        file: the old one.
        live: where entries begin, in order.
        header: the first bytes of the new file.
        check: called when all is written; what it raises leaves `file` where it is.

    Raises:
        DiskFullError: there is no room for it; `file` stays.
    """
    beside = file.path.with_name(f".{file.path.name}.vacuum")  # the next one replaces what a killed one left
    beside.unlink(missing_ok=True)
    fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, os.fstat(file.fd).st_mode & 0o777)
    try:
        with fill_or_fail(file.path):
            os.fchmod(fd, os.fstat(file.fd).st_mode & 0o7777)
            write_all(fd, header, 0)
            at = len(header)
            for old in live:
                at = _copy_entry(file, old, fd, at)
            write_all(fd, b".", at)
            os.fsync(fd)
        check()
        beside.replace(file.path)
    finally:
        os.close(fd)
        beside.unlink(missing_ok=True)
    folder = os.open(file.path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _copy_entry(file: SharedFile, old: int, fd: int, new: int) -> int:
    """Copy one entry and return where it ends; the elements of an array lie at a multiple of 64 again."""
    _, size, _, key_bytes = PREFIX.unpack(file.read(PREFIX.size, old))
    stop = old + END_BYTES + size
    begin = PREFIX.size + key_bytes
    head = file.read(min(begin + _START_BYTES, stop - old), old)
    key, value = head[PREFIX.size : begin], head[begin:]
    replaced = stored_array.notes_bytes(value)
    notes = stored_array.moved(value, new - old) if replaced else b""
    taken = begin + replaced
    rest: int = stop - old - taken
    start = layout.pack_key(key, len(notes) + rest - len(layout.ENTRY_END)) + notes
    write_all(fd, start, new)
    _copy(file.fd, old + taken, fd, new + len(start), rest)
    return new + len(start) + rest


def _copy(source: int, start: int, target: int, at: int, length: int) -> None:
    for begin, end in _data(source, start, start + length):
        while begin < end:
            part = os.pread(source, min(end - begin, _COPY_BYTES), begin)
            if not part:
                raise OSError(errno.EIO, "the file became shorter while it was copied")
            write_all(target, part, at + begin - start)
            begin += len(part)


def _data(fd: int, begin: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield the parts of a file between `begin` and `end` that are no holes."""
    if end - begin < _COPY_BYTES or not hasattr(os, "SEEK_DATA"):
        yield begin, end
        return
    while begin < end:
        try:
            begin = os.lseek(fd, begin, os.SEEK_DATA)
        except OSError as exc:
            if exc.errno != errno.ENXIO:  # "no data from there on"
                raise
            return
        stop = min(os.lseek(fd, begin, os.SEEK_HOLE), end)
        if begin < stop:
            yield begin, stop
        begin = stop
