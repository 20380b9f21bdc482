"""splitpipe: split a data set into bins; pipe it through worker processes into your training loop."""

from splitpipe.lane import Lane as Lane
from splitpipe.lane import current_lane as current_lane

__all__ = ("Lane", "current_lane")
