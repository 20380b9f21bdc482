"""The file of a MmapDict: which entries it has, and adding, deleting and clearing out, each as one change of a byte."""

from __future__ import annotations

import contextlib
import os
import weakref
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from splitpipe.arrays import layout, stored_array, values
from splitpipe.arrays.layout import COUNTERS, COUNTERS_AT, DEAD, END_BYTES, FIRST, LIVE, PREFIX, STOP
from splitpipe.arrays.maps import Map, map_file, views_are_alive
from splitpipe.arrays.pieces import Piece, Tail, length_of
from splitpipe.arrays.shared_file import SharedFile, create
from splitpipe.arrays.vacuum import copy_live
from splitpipe.errors import ArrayFileError, ArrayKeyError, CorruptDataError, FormatVersionError, ViewsAliveError

__all__ = ["PickleFile"]

_open_files: weakref.WeakSet[PickleFile] = weakref.WeakSet()


class PickleFile:
    """One file, open.

    What it shows is the state of the last `refresh`; changes are made to the newest state, under the lock.

    Attributes:
        places: where the entry of each key begins, in the order of the file.

    Args:
        path: of the file; it is made if it is not there, unless `readonly`.
        readonly: change nothing.
        durable: let each change wait for the disk, before it becomes visible and after.

    Raises:
        ArrayNotFoundError: there is no file, or no directory to make it in.
        ArrayFileError: it is something else.
        CorruptDataError: it is cut short or damaged.
        FormatVersionError: it was written by a newer splitpipe.
        ReadOnlyError: it may not be written to.
    """

    def __init__(self, path: Path, *, readonly: bool, durable: bool = False) -> None:
        if not readonly and not path.exists():
            create(path, layout.pack_header(0, 0) + b".")
        self.places: dict[str, int] = {}
        self._file = SharedFile(path, readonly=readonly)
        self._path = str(path)
        self._durable = durable
        self._map: Map | None = None
        self._loaded: tuple[int, int] | None = None  # the file that `places` are of
        self._end = FIRST  # where the STOP is
        self._commits = 0  # all changes up to this one are in `places`; even
        self._covered: list[int] = []  # entries that a later one replaced, and nobody has deleted yet
        self._own: set[int] = set()  # entries that were written here, so that they can be trusted
        try:
            if not readonly and not self._file.size():
                self._begin()
            self._load()
        except BaseException:
            self.close()
            raise
        _open_files.add(self)

    def _begin(self) -> None:
        """Make an empty file, as those who make temporary files leave it, an empty dictionary."""
        with self._file.turn():
            if not self._file.size():
                self._file.write(layout.pack_header(0, 0) + b".", 0)

    def _load(self) -> None:
        """Read the whole file."""
        self._map, self._loaded = None, None
        head = self._file.read(FIRST, 0)
        _check(head, self._path)
        self._commits, _ = _counters(head[COUNTERS_AT:])
        self.places.clear()
        self._covered.clear()
        self._own.clear()
        self._end = FIRST
        self._read_on()
        self._loaded = self._file.identity

    def _read_on(self) -> None:
        """Take in the entries from where the STOP was."""
        while True:
            data = self._mapped(self._file.size())
            found, self._end = layout.scan(data, self._end)
            self._take(found)
            if self._end < len(data) and data[self._end] == STOP:
                self._covered = [at for at in self._covered if data[at] == LIVE]
                return
            if self._file.size() <= len(data):  # otherwise somebody wrote more meanwhile
                raise CorruptDataError(
                    f"{self._path}: is cut short or damaged at byte {self._end}: what comes before, and b'.', is what "
                    "can be read of it",
                    path=self._path,
                    offset=self._end,
                )

    def _take(self, found: Iterable[tuple[str, int]]) -> None:
        """Put entries that come behind the known ones into `places`; the later one of a key counts."""
        places, covered = self.places, self._covered
        for key, at in found:
            if key in places:
                covered.append(places.pop(key))
            places[key] = at

    def _mapped(self, least: int) -> Map:
        """Return a map of the file, at least so many bytes of it."""
        data = self._map
        if data is None or len(data) < least:
            self._file.fd  # noqa: B018  raises if this was closed
            data = self._map = map_file(self._file)
        return data

    @property
    def commit_number(self) -> int:
        """The number of changes that the file has seen, as it is on the disk now."""
        if self._file.is_replaced():  # which is for `refresh` to take in
            with self._file.path.open("rb") as file:
                return COUNTERS.unpack_from(file.read(FIRST), COUNTERS_AT)[0] // 2  # type: ignore[no-any-return]
        return self._counters()[0] // 2

    def _counters(self) -> tuple[int, int]:
        return COUNTERS.unpack(self._file.read(COUNTERS.size, COUNTERS_AT))

    def refresh(self) -> bool:
        """Take in what others changed; return whether that is anything.

        No writer is waited for: an entry is complete before it becomes visible.
        """
        with self._file.state:
            return self._refresh()

    def _refresh(self) -> bool:
        if self._file.is_replaced() or self._loaded != self._file.identity:
            if self._file.is_replaced():
                self._file.reopen()
            self._load()
            return True
        commits, deleted = self._counters()
        changed = False
        if deleted > self._commits:  # first: an entry that is deleted because a newer one replaced it must be found
            data = self._mapped(self._end)
            gone = [key for key, at in self.places.items() if data[at] != LIVE]
            self._covered = [at for at in self._covered if data[at] == LIVE]
            for key in gone:
                self._own.discard(self.places.pop(key))
            changed = bool(gone)
        if self._file.read(1, self._end) != b".":
            self._read_on()
            changed = True
        self._commits = commits & ~1
        return changed

    def read(self, key: str, *, allow_pickle: bool) -> Any:
        """Return the value of a key.

        Raises:
            KeyError: there is none.
            CorruptDataError: it is not what was stored.
            PickleRefusedError: it is a pickle of more than builtin types and arrays, by somebody else.
        """
        array, opcodes, own = self._found(key)
        if opcodes is None:
            return array
        return values.decode(opcodes, trusted=allow_pickle or own, what=f"{self._path}: the value of {key!r}")

    def _found(self, key: str) -> tuple[Any, bytes | None, bool]:
        """Return the array of a key, or the opcodes of another value, and whether they were stored through this object.

        When it returns, nothing but the array refers to the map, so that `vacuum` does not take a reader for a view.
        """
        with self._file.state:
            if self._loaded != self._file.identity:  # opened anew by a thread that has not got further yet
                self._refresh()
            at = self.places[key]
            data = self._mapped(self._end)
            _, size, _, key_bytes = PREFIX.unpack_from(data, at)
            start, stop = at + PREFIX.size + key_bytes, at + END_BYTES + size - len(layout.ENTRY_END)
            array = stored_array.unpack(data, start, stop, self._path)
            opcodes = None if array is not None else data[start:stop]
            del data
            return array, opcodes, at in self._own

    @contextlib.contextmanager
    def _turn(self) -> Iterator[None]:
        with self._file.turn():
            self.refresh()
            if self._covered:  # by a writer that was killed before it could
                self._commit([(at, DEAD) for at in self._covered])
                self._covered = []
            yield

    def add(self, items: Iterable[tuple[str, Any]]) -> None:
        """Store values, all of them or, after an error, none.

        Raises:
            ArrayKeyError: a key is no string.
            ArrayTypeError: a value cannot be stored.
            DiskFullError: they do not fit.
        """
        with self._turn():
            behind = self._end + 1
            if self._file.size() > behind:  # what a killed writer left: holes must be zeros
                os.ftruncate(self._file.fd, behind)
            try:
                added, end = self._write(items)
                if self._durable:
                    self._file.sync()
            except BaseException:
                with contextlib.suppress(OSError):
                    os.ftruncate(self._file.fd, behind)
                raise
            if not added:
                return
            replaced = [self.places[key] for key, _ in added if key in self.places]
            # The new entries first: with the first byte of the first of them, all are there.
            self._commit([(self._end, LIVE), *((at, DEAD) for at in replaced)])
            with self._file.state:
                self._take(added)
                self._covered, self._end = [], end
                self._own.difference_update(replaced)
                self._own.update(at for _, at in added)

    def _write(self, items: Iterable[tuple[str, Any]]) -> tuple[list[tuple[str, int]], int]:
        """Write entries behind the end; return them, and where the STOP behind the last one is."""
        tail = Tail(self._file, self._end + 1)
        added: list[tuple[str, int]] = []
        for key, value in items:
            at = self._end if not added else tail.at
            head, pieces = _entry(key, value, at)
            tail.add([head if added else head[1:], *pieces])  # the first byte is the STOP of before, and stays it
            added.append((str(key), at))
        if added:
            tail.add([b"."])
        tail.flush()
        return added, tail.at - 1

    def delete(self, keys: Sequence[str]) -> None:
        """Delete entries, one after the other.

        Raises:
            KeyError: there is none of one of the keys; nothing is deleted.
        """
        with self._turn():
            places = [self.places[key] for key in keys]
            self._commit([(at, DEAD) for at in places], deletes=True)
            with self._file.state:
                for key in keys:
                    del self.places[key]
                self._own.difference_update(places)

    def _commit(self, changes: Iterable[tuple[int, int]], *, deletes: bool = False) -> None:
        """Change the first bytes of entries, and count that as one change."""
        commits, deleted = self._counters()
        commits += commits & 1  # of a writer that was killed: what it did counts as done
        done = commits + 2
        loaded, self._loaded = self._loaded, None  # after an error, the file tells how far this came
        self._file.write(COUNTERS.pack(commits + 1, done if deletes else deleted), COUNTERS_AT)
        for at, op in changes:
            self._file.write(bytes([op]), at)
        if self._durable:
            self._file.sync()
        self._file.write(COUNTERS.pack(done, done if deletes else deleted), COUNTERS_AT)
        self._commits, self._loaded = done, loaded

    def vacuum(self) -> None:
        """Write what is not deleted to a new file and put that in the place of this one.

        Raises:
            ViewsAliveError: arrays of this process are mapped from this file.
            DiskFullError: there is no room for the new file; this one stays.
        """
        with self._turn(), self._file.state:
            live = sorted(self.places.values())
            data = self._mapped(self._end + 1)
            if self._file.size() == self._end + 1 and layout.is_dense(data, live, self._end):
                return
            del data
            self._refuse_views()
            own = [key for key, at in self.places.items() if at in self._own]
            done = (self._counters()[0] | 1) + 1
            copy_live(self._file, live, layout.pack_header(done, done), self._refuse_views)
            self._file.reopen()
            self._load()
            self._own.update(self.places[key] for key in own)

    def _refuse_views(self) -> None:
        """Raise if an array of this process lies in the file."""
        for other in list(_open_files):  # each maps the file again when it reads
            if other._file.identity == self._file.identity:
                with other._file.state:  # after what a thread is just reading; it waits for nobody meanwhile
                    other._map = None
        if views_are_alive(self._file.identity):
            raise ViewsAliveError(
                f"{self._path}: arrays of this process are still mapped from it, and what is written to them would be "
                "lost: drop them first, or copy them"
            )

    def sync(self) -> None:
        """Wait until the disk has everything, what was written to mapped arrays as well."""
        self._file.sync()

    def close(self) -> None:
        """Let go of the file; arrays that are mapped from it stay."""
        self._map = None
        self._file.close()


def _entry(key: Any, value: Any, at: int) -> tuple[bytes, list[Piece]]:
    """Return an entry that goes to `at`, its key and what follows."""
    if not isinstance(key, str):
        raise ArrayKeyError(f"the keys of a MmapDict are strings, and got {key!r}, a {type(key).__qualname__}")
    name = str(key).encode("utf-8", "surrogatepass")
    start = at + PREFIX.size + len(name)
    pieces = stored_array.pack(value, start) if stored_array.is_array(value) else values.encode(value)
    return layout.pack_key(name, length_of(pieces)), [*pieces, layout.ENTRY_END]


def _counters(data: bytes) -> tuple[int, int]:
    commits, deleted = COUNTERS.unpack_from(data)
    return commits & ~1, deleted


def _check(head: bytes, path: str) -> None:
    """Raise if a file does not begin as a MmapDict does."""
    if head[: len(layout.MAGIC)] != layout.MAGIC[: len(head)] or not head:
        what = "is empty" if not head else "is something else"
        cure = (
            ": read what was pickled elsewhere with pickle.load, and put it into a new file: MmapDict(new).update(it)"
        )
        raise ArrayFileError(
            f"{path}: is no file of a MmapDict, but {what}{cure if head[:1] == layout.MAGIC[:1] else ''}"
        )
    if len(head) < FIRST:
        raise CorruptDataError(f"{path}: is cut short within its first {FIRST} bytes", path=path, offset=len(head))
    if head[layout.VERSION_AT] > layout.VERSION:
        raise FormatVersionError(
            f"{path}: is of version {head[layout.VERSION_AT]}, and versions up to {layout.VERSION} are known here: "
            "upgrade splitpipe"
        )
