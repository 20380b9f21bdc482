"""A bin opened for reading many of its records, in any order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from splitpipe.codecs import Codec
from splitpipe.storage.bin import Rows
from splitpipe.storage.layout import HEADER_BYTES

if TYPE_CHECKING:
    from splitpipe.storage.segment import Segment

__all__ = ["BinReader"]


class BinReader:
    """Reads the records of one bin by their position in it; made by `Segment.open_bin`.

    Args:
        segment: whose bin it is.
        source: the bin's file, mapped or in memory.
        rows: what the bin says of its payloads.
        intact: the payloads need no check one by one.
    """

    def __init__(self, segment: Segment, source: Any, rows: Rows, *, intact: bool) -> None:
        self._segment = segment
        self._source = source
        self._rows = rows
        self._intact = intact

    @property
    def codec(self) -> Codec:
        """The codec of the records."""
        return self._segment.encoding.codec

    def positions(self, ordinals: NDArray[Any]) -> NDArray[np.int64]:
        """Return where in the bin the records with these numbers of the segment lie; all must be in it."""
        return np.searchsorted(self._rows.ordinals, ordinals)

    def payloads(self, positions: NDArray[np.int64]) -> list[Any]:
        """Return the stored bytes of the records at `positions`."""
        rows, source = self._rows, self._source
        starts, ends = rows.starts[positions], rows.ends[positions]
        found = [source[start:end] for start, end in zip(starts.tolist(), ends.tolist(), strict=True)]
        if not self._intact:
            self._segment.check(found, rows.ordinals[positions], ends - starts, rows.crcs[positions])
        return found

    def records(self, positions: NDArray[np.int64]) -> Any:
        """Return the records at `positions`, a list, or, of codec `struct`, an array.

        Raises:
            CorruptDataError: the bytes on disk are not those committed.
        """
        return self._segment.decoded(self.payloads(positions), self._rows.ordinals[positions])

    def fixed_rows(self) -> NDArray[np.void] | None:
        """Return the payloads as an array of items of their size, if all have one and are as committed."""
        starts, ends = self._rows.starts, self._rows.ends
        size = int(ends[0] - starts[0])
        if not size or not self._intact or self._segment.encoding.compression or (ends - starts != size).any():
            return None
        return np.frombuffer(self._source, np.dtype((np.void, size)), len(starts), HEADER_BYTES)
