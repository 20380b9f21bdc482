"""The names of an array's parts, in a file beside it: one line of JSON for each, `["name", start, stop]`.

Lines are only ever added, and the last one of a name counts. A line that a killed writer left without its end does not.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from splitpipe.arrays.shared_file import SharedFile, create
from splitpipe.errors import CorruptDataError

__all__ = ["Entry", "NamesFile", "names_path", "parse_names", "read_names"]

Entry = tuple[str, int, int]  # name, first row, the row behind the last


def names_path(path: Path) -> Path:
    """Return where the names of the array at `path` are."""
    return path.with_name(path.name + ".names")


def read_names(path: Path) -> bytes:
    """Return the lines that are beside the array at `path`; none if there is no such file."""
    try:
        return names_path(path).read_bytes()
    except FileNotFoundError:
        return b""


def parse_names(lines: bytes, rows: int, path: str) -> list[Entry]:
    """Return the entries of some whole lines.

    Args:
        lines: of the file; what follows the last line end is left out.
        rows: that the array has.
        path: of the array, for errors.

    Raises:
        CorruptDataError: a line is no entry, or names rows that are not there.
    """
    whole = lines[: lines.rfind(b"\n") + 1]
    try:
        # All at once: one call for each line would take three times as long.
        found = json.loads(b"[" + b",".join(whole.splitlines()) + b"]")
        entries = [(str(name), int(start), int(stop)) for name, start, stop in found]
    except (ValueError, TypeError, RecursionError) as exc:
        raise CorruptDataError(f"{path}: the names beside it are damaged: {exc}", path=f"{path}.names") from exc
    for name, start, stop in entries:
        if not 0 <= start <= stop <= rows:
            raise CorruptDataError(
                f"{path}: the names beside it call rows {start} to {stop} {name!r}, and there are {rows} rows: one of "
                "the two files is of another array",
                path=f"{path}.names",
            )
    return entries


class NamesFile:
    """The file of names, as a writer of the array sees it; to be used in his turn.

    Args:
        path: of the array.
    """

    def __init__(self, path: Path) -> None:
        self._array = str(path)
        if not names_path(path).exists():
            create(names_path(path), b"")
        self._file = SharedFile(names_path(path), readonly=False)
        self._read = 0  # bytes

    def news(self, rows: int) -> list[Entry]:
        """Return the entries that are there and have not been returned before; cuts a last line that has no end."""
        size = self._file.size()
        if size == self._read:
            return []
        lines = self._file.read(size - self._read, self._read)
        whole = lines.rfind(b"\n") + 1
        if whole < len(lines):
            os.ftruncate(self._file.fd, self._read + whole)
        entries = parse_names(lines, rows, self._array)
        self._read += whole
        return entries

    def add(self, entries: Sequence[Entry] | Iterable[Entry]) -> None:
        """Write entries; `news` was asked before, in the same turn.

        Raises:
            DiskFullError: they do not fit; none is written.
        """
        lines = "".join(json.dumps(entry) + "\n" for entry in entries).encode()
        try:
            self._file.write(lines, self._read)
        except BaseException:
            os.ftruncate(self._file.fd, self._read)
            raise
        self._read += len(lines)

    def sync(self) -> None:
        """Wait until the disk has the names."""
        self._file.sync()

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()
