"""How far a build has come, kept beside its files, so that a build that was killed can go on.

.writing-<id>/journal        how many inputs are done, and where each file ended then (JSON, with its checksum)
.writing-<id>/columns-<n>/   the columns of the records between checkpoints n - 1 and n
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import cloudpickle

from splitpipe.errors import CorruptDataError
from splitpipe.storage.catalog import is_claimed, work_paths
from splitpipe.storage.columns import ColumnWriter, load_column
from splitpipe.storage.durable import Disk
from splitpipe.storage.layout import open_text, seal_text

__all__ = ["Checkpoint", "ColumnLog", "find_checkpoint", "fingerprint", "remove_journal", "save_checkpoint"]

_NAME = "journal"


@dataclass(frozen=True)
class Checkpoint:
    """A state of a build that can be gone on from.

    Attributes:
        fingerprint: of the inputs and of how they are stored.
        done: how many inputs are read.
        segment: what `SegmentWriter.resume` takes.
        encoding: what `Encoding.from_spec` takes.
        columns: for each column, its parts so far: (what the column files say, number of records).
    """

    fingerprint: str
    done: int
    segment: dict[str, Any]
    encoding: dict[str, Any]
    columns: dict[str, list[Any]] = field(default_factory=dict)


def fingerprint(inputs: Sequence[Any], *settings: Any) -> str:
    """Return a short text that is another one for other inputs or settings."""
    digest = hashlib.sha256(repr(settings).encode())
    for source in inputs:
        digest.update(cloudpickle.dumps(source))
    return digest.hexdigest()


def save_checkpoint(work: Path, checkpoint: Checkpoint, disk: Disk) -> None:
    """Put `checkpoint` in the place of the one before; all that it speaks of must be on the disk."""
    disk.replace(work / _NAME, [seal_text(json.dumps(asdict(checkpoint)).encode("ascii"))])


def find_checkpoint(directory: Path) -> tuple[Path, Checkpoint] | None:
    """Return the furthest checkpoint of a dead build in `directory`, and where its files lie."""
    found: list[tuple[Path, Checkpoint]] = []
    for work in work_paths(directory) if directory.is_dir() else ():
        path = work / _NAME
        if path.exists() and not is_claimed(work):
            try:
                found.append((work, Checkpoint(**json.loads(open_text(path.read_bytes(), str(path))))))
            except CorruptDataError:
                continue
    return max(found, key=lambda pair: pair[1].done, default=None)


def remove_journal(work: Path) -> None:
    """Remove what a committed segment does not need."""
    (work / _NAME).unlink(missing_ok=True)  # first: a journal must never speak of columns that are gone
    for path in work.glob("columns-*"):
        shutil.rmtree(path)


class ColumnLog:
    """The columns of a build: those of the last checkpoint and before on disk, the newest in memory.

    Args:
        kinds: {name: type or None}.
        parts: what a checkpoint says of the columns before it.
    """

    def __init__(self, kinds: Mapping[str, Any], parts: Mapping[str, list[Any]]) -> None:
        self._kinds = dict(kinds)
        self.parts = {name: list(parts.get(name, [])) for name in kinds}
        self._begin()

    def _begin(self) -> None:
        self._newest = {name: ColumnWriter(name, kind) for name, kind in self._kinds.items()}
        self._count = 0

    def extend(self, columns: Mapping[str, Sequence[Any]], count: int) -> None:
        """Take the values of the next `count` records; raises ColumnError if one does not fit."""
        for name, writer in self._newest.items():
            for value in columns[name]:
                writer.append(writer.check(value))
        self._count += count

    def save(self, work: Path, disk: Disk) -> None:
        """Write the newest values beside those before."""
        if not self._newest or not self._count:
            return
        directory = work / f"columns-{max(map(len, self.parts.values()))}"
        shutil.rmtree(directory, ignore_errors=True)  # of a checkpoint that was never reached
        directory.mkdir()
        for name, writer in self._newest.items():
            # A column that had nothing but None so far has no type, and so no file.
            spec = None if writer.kind is None else writer.save(directory, disk)
            self.parts[name].append([spec, self._count])
            self._kinds[name] = writer.kind
        disk.sync(directory)
        self._begin()

    def whole(self, work: Path) -> list[ColumnWriter]:
        """Return a writer for each column that holds all its values."""
        return [self._joined(name, work) for name in self._newest]

    def _joined(self, name: str, work: Path) -> ColumnWriter:
        newest = self._newest[name]
        if not self.parts[name]:
            return newest
        joined = ColumnWriter(name, newest.kind)
        for number, (spec, count) in enumerate(self.parts[name]):
            if spec is None:
                for _ in range(count):
                    joined.append(None)
            else:
                joined.extend(load_column(work / f"columns-{number}", spec, count))
        joined.join(newest)
        return joined
