"""Copying committed records into a new segment as they are stored, without decoding them."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splitpipe.codecs import Encoding
from splitpipe.storage.columns import ColumnWriter
from splitpipe.storage.durable import Disk
from splitpipe.storage.segment_writer import SegmentWriter

__all__ = ["SegmentCopy"]


class SegmentCopy:
    """A new segment in `directory`, filled with payloads of old ones.

    Args:
        directory: where the new segment is to be.
        splits: how many bins.
        encoding: what its payloads are to be encoded with; those of another dictionary are compressed again.
        columns: {name: type as stored}.

    Attributes:
        records: how many were copied.
    """

    def __init__(self, directory: Path, splits: int, encoding: Encoding, columns: Mapping[str, str]) -> None:
        self._encoding = encoding
        self._segment = SegmentWriter(directory, splits, shuffle=False, disk=Disk())
        self._columns = {
            name: ColumnWriter(name, str if stored == "str" else np.dtype(stored)) for name, stored in columns.items()
        }

    @property
    def records(self) -> int:
        """How many records were copied."""
        return self._segment.records

    def add(self, payloads: Sequence[bytes], encoding: Encoding, columns: Mapping[str, NDArray[Any]]) -> None:
        """Append payloads of `encoding`, and for each column an array with a value for each."""
        if not payloads:
            return
        if encoding.compression is not None and encoding.spec() != self._encoding.spec():
            payloads = [self._encoding.compress(encoding.compression.decompress(payload)) for payload in payloads]
        for name, writer in self._columns.items():
            writer.extend(columns[name])
        self._segment.append(payloads)

    def publish(
        self,
        replaces: Sequence[str] = (),
        name: Callable[[uuid.UUID], str] | None = None,
        remarks: Mapping[str, Any] | None = None,
    ) -> Path:
        """Commit the segment, as `SegmentWriter.publish`, and return its path."""
        columns = list(self._columns.values())
        return self._segment.publish(self._encoding, columns, replaces, name=name, remarks=remarks)

    def discard(self) -> None:
        """Remove what was written."""
        self._segment.discard()
