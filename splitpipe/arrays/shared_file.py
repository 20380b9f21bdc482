"""A file that several processes have open: reading and writing at places, and the lock by which writers take turns.

The lock is `flock` on a descriptor that is opened for the one turn. The kernel lifts it when that descriptor goes,
however the process ends. No map is made of that descriptor, for a map keeps a duplicate, and a forked child closes its
copy at once: so nobody but the writer himself can hold the lock.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from splitpipe.errors import ArrayFileError, ArrayNotFoundError, DiskFullError, ReadOnlyError, WriterStateError

__all__ = ["SharedFile", "allocate", "create", "fill_or_fail", "write_all"]

_FULL = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)


class SharedFile:
    """One open file.

    Args:
        path: which.
        readonly: open it for reading alone.

    Raises:
        ArrayNotFoundError: there is none.
        ArrayFileError: it is a directory.
        ReadOnlyError: it may not be written to.
    """

    def __init__(self, path: Path, *, readonly: bool) -> None:
        self.path = path
        self.readonly = readonly
        self._turns = threading.Lock()  # `flock` knows processes and descriptors, and no threads
        self.state = threading.RLock()  # for what threads know of the file; never held while a turn is waited for
        self._lock_fd: int | None = None
        self._fd: int | None = None
        self.reopen()
        _open_files.add(self)

    def reopen(self) -> None:
        """Open whatever the path names now."""
        fd = self._open()
        identity, closer = _identity(os.fstat(fd)), weakref.finalize(self, os.close, fd)
        with self.state:
            self.close()
            self._fd, self._closer, self.identity = fd, closer, identity

    def _open(self) -> int:
        try:
            return os.open(self.path, os.O_RDONLY if self.readonly else os.O_RDWR)
        except FileNotFoundError:
            raise ArrayNotFoundError(f"{self.path}: there is no such file") from None
        except IsADirectoryError:
            raise ArrayFileError(f"{self.path}: is a directory, and a file is needed") from None
        except PermissionError as exc:
            if self.readonly:
                raise
            raise ReadOnlyError(f"{self.path}: may not be written to: open it for reading alone") from exc

    def close(self) -> None:
        """Let go of the file; maps made of it stay."""
        if self._fd is not None:
            self._fd = None
            self._closer()

    @property
    def fd(self) -> int:
        """The descriptor to read, write and map with.

        Raises:
            WriterStateError: the file was closed.
        """
        if self._fd is None:
            raise WriterStateError(f"{self.path}: is closed: open it again")
        return self._fd

    def is_replaced(self) -> bool:
        """Return whether the path names another file now than the one that is open.

        Raises:
            ArrayNotFoundError: it names none.
        """
        try:
            return _identity(os.stat(self.path)) != self.identity  # noqa: PTH116  on the way of every refresh
        except FileNotFoundError:
            raise ArrayNotFoundError(f"{self.path}: was removed while it was open") from None

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        """Wait until no other process or thread writes, and keep them waiting; opens anew what was replaced meanwhile.

        Raises:
            ReadOnlyError: this is open for reading alone.
        """
        if self.readonly:
            raise ReadOnlyError(f"{self.path}: is open read-only: open it without readonly=True to change it")
        import fcntl  # there is none on Windows

        with self._turns:
            while True:
                self.fd  # noqa: B018  raises if this was closed
                lock_fd = self._lock_fd = self._open()
                try:
                    fcntl.flock(lock_fd, fcntl.LOCK_EX)
                    mine = _identity(os.fstat(lock_fd))
                    if mine != self.identity:
                        self.reopen()
                    if mine == self.identity and not self.is_replaced():
                        break
                except BaseException:
                    self._unlock()
                    raise
                self._unlock()
            try:
                yield
            finally:
                self._unlock()

    def _unlock(self) -> None:
        if self._lock_fd is not None:
            os.close(self._lock_fd)
            self._lock_fd = None

    def after_fork(self) -> None:
        """Give up, in a forked child, the turn that a thread of the parent may have had."""
        self._unlock()
        self._turns, self.state = threading.Lock(), threading.RLock()

    def size(self) -> int:
        """Return the length of the file in bytes."""
        return os.fstat(self.fd).st_size

    def read(self, size: int, offset: int) -> bytes:
        """Return at most `size` bytes from `offset` on."""
        return os.pread(self.fd, size, offset)

    def write(self, data: Any, offset: int) -> None:
        """Write all of `data`, bytes or an array of them, at `offset`.

        Raises:
            DiskFullError: it does not fit.
        """
        with fill_or_fail(self.path):
            write_all(self.fd, data, offset)

    def sync(self) -> None:
        """Wait until the disk has everything, what was written through maps as well."""
        os.fsync(self.fd)


def write_all(fd: int, data: Any, offset: int) -> None:
    """Write all of `data` at `offset`, in as many calls as it takes."""
    written = os.pwrite(fd, data, offset)
    if written < len(data):
        rest = memoryview(data)[written:]
        while rest:
            offset += written
            written = os.pwrite(fd, rest, offset)
            rest = rest[written:]


def allocate(file: SharedFile, offset: int, length: int) -> None:
    """Make sure that the disk has room for what is to be written, where it can tell; the file grows to hold it.

    Raises:
        DiskFullError: it has not.
    """
    if length and hasattr(os, "posix_fallocate"):
        with fill_or_fail(file.path):
            try:
                os.posix_fallocate(file.fd, offset, length)
            except OSError as exc:
                if exc.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
                    raise


@contextlib.contextmanager
def fill_or_fail(path: Path) -> Iterator[None]:
    """Make the errors of a disk that is full ones that name the file and the cure."""
    try:
        yield
    except OSError as exc:
        if exc.errno not in _FULL or isinstance(exc, DiskFullError):
            raise
        raise DiskFullError(
            exc.errno, f"{path}: {exc.strerror}: what was written is undone; make room, and write again"
        ) from exc


def create(path: Path, content: bytes, *, length: int = 0, replace: bool = False) -> None:
    """Make a file that appears under its name with all of its content; if there is one, leave it.

    Args:
        path: its name.
        content: what it begins with.
        length: how long it is, in bytes; what `content` does not reach are zeros that take no room.
        replace: put it in the place of one that is there.
    """
    beside = path.with_name(f".{path.name}.{os.urandom(4).hex()}.new")
    try:
        fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    except FileNotFoundError:
        raise ArrayNotFoundError(f"{path}: cannot be made, for there is no directory {path.parent}") from None
    try:
        with fill_or_fail(path):
            write_all(fd, content, 0)
            os.truncate(fd, max(length, len(content)))
        if replace:
            beside.replace(path)
        else:
            _link(beside, path)
    finally:
        os.close(fd)
        beside.unlink(missing_ok=True)


def _link(beside: Path, path: Path) -> None:
    """Give a file a second name, unless there is one of that name."""
    try:
        os.link(beside, path)
    except FileExistsError:
        return
    except OSError:  # not every file system has links; on those, two who make the file at once may be a problem
        if not path.exists():
            beside.replace(path)


def _identity(stat: os.stat_result) -> tuple[int, int]:
    return stat.st_dev, stat.st_ino


_open_files: weakref.WeakSet[SharedFile] = weakref.WeakSet()


def _after_fork() -> None:
    for file in list(_open_files):
        file.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
