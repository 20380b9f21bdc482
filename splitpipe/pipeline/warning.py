"""The warning about a generator that does in every lane the same."""

from __future__ import annotations

import inspect
import warnings

from splitpipe.errors import LaneNotAskedWarning
from splitpipe.workers import Job

__all__ = ["warn_of_lanes"]


def warn_of_lanes(job: Job) -> None:
    """Warn that the generator ran in several lanes and never asked which one it is."""
    warnings.warn(
        f"{job.name} ran in {job.lanes} lanes and never asked which one it is, so each lane gave the same items. Read "
        "a SplitDataLoader in it, or take the share of current_lane().index of current_lane().count; or pass lanes=1",
        LaneNotAskedWarning,
        stacklevel=_levels_to_user(),
    )


def _levels_to_user() -> int:
    """Return how many calls up the user's code is, as `warnings.warn` counts from whoever calls this."""
    frame, levels = inspect.currentframe(), 0
    while frame is not None and frame.f_globals.get("__name__", "").startswith("splitpipe."):
        frame, levels = frame.f_back, levels + 1
    return levels
