"""Reading the records of a run from the bins that it names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splitpipe.order import Run
from splitpipe.storage import BinReader

__all__ = ["records_of"]

# A bin opened for reading, and where in it each of its records of a sequence lies; None if all of them do.
OpenBin = tuple[BinReader, NDArray[np.int64] | None]


def records_of(bins: Sequence[OpenBin], run: Run) -> list[Any]:
    """Return the records of a run."""
    if run.which is None:
        reader, places = bins[0]
        return reader.records(run.positions if places is None else places[run.positions])
    found: list[Any] = [None] * len(run)
    for at, (reader, places) in enumerate(bins):
        mine = np.flatnonzero(run.which == at)
        positions = run.positions[mine]
        for place, record in zip(
            mine.tolist(), reader.records(positions if places is None else places[positions]), strict=True
        ):
            found[place] = record
    return found
