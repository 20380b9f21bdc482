"""Reading the records of a run from the bins that it names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splitpipe.order import Run
from splitpipe.storage import BinReader, join_records

__all__ = ["records_of"]

# A bin opened for reading, and where in it each of its records of a sequence lies; None if all of them do.
OpenBin = tuple[BinReader, NDArray[np.int64] | None]


def records_of(bins: Sequence[OpenBin], run: Run) -> Any:
    """Return the records of a run: a list, or, of codec `struct`, an array."""
    parts = []
    for at, (reader, places) in enumerate(bins):
        mine = np.arange(len(run)) if run.which is None else np.flatnonzero(run.which == at)
        positions = run.positions if run.which is None else run.positions[mine]
        records = reader.records(positions if places is None else places[positions])
        if run.which is None:
            return records
        parts.append((mine, records))
    return join_records(len(run), parts)
