"""splitpipe: split a data set into bins; pipe it through worker processes into your training loop."""

from splitpipe.build import build_split_data as build_split_data
from splitpipe.codecs import Codec as Codec
from splitpipe.codecs import register_codec as register_codec
from splitpipe.lane import Lane as Lane
from splitpipe.lane import current_lane as current_lane
from splitpipe.loader import SplitDataLoader as SplitDataLoader
from splitpipe.loader import concat as concat
from splitpipe.loader import mix as mix
from splitpipe.pipeline import MpQItr as MpQItr
from splitpipe.pipeline import PipelineStats as PipelineStats
from splitpipe.storage import SplitWriter as SplitWriter
from splitpipe.storage import write_split_data as write_split_data

__all__ = (
    "Codec",
    "Lane",
    "MpQItr",
    "PipelineStats",
    "SplitDataLoader",
    "SplitWriter",
    "build_split_data",
    "concat",
    "current_lane",
    "mix",
    "register_codec",
    "write_split_data",
)
