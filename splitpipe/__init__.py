"""splitpipe: split a data set into bins; pipe it through worker processes into your training loop."""

from splitpipe.lane import Lane as Lane
from splitpipe.lane import current_lane as current_lane
from splitpipe.loader import SplitDataLoader as SplitDataLoader
from splitpipe.pipeline import MpQItr as MpQItr
from splitpipe.pipeline import PipelineStats as PipelineStats
from splitpipe.storage import SplitWriter as SplitWriter
from splitpipe.storage import write_split_data as write_split_data

__all__ = (
    "Lane",
    "MpQItr",
    "PipelineStats",
    "SplitDataLoader",
    "SplitWriter",
    "current_lane",
    "write_split_data",
)
