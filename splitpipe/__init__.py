"""splitpipe: split a data set into bins; pipe it through worker processes into your training loop."""

from splitpipe.arrays import BigArray as BigArray
from splitpipe.arrays import BigArrayWriter as BigArrayWriter
from splitpipe.arrays import EmptyNDArray as EmptyNDArray
from splitpipe.arrays import MmapDict as MmapDict
from splitpipe.build import build_split_data as build_split_data
from splitpipe.codecs import Codec as Codec
from splitpipe.codecs import register_codec as register_codec
from splitpipe.lane import Lane as Lane
from splitpipe.lane import current_lane as current_lane
from splitpipe.loader import ArrayLoader as ArrayLoader
from splitpipe.loader import SplitDataLoader as SplitDataLoader
from splitpipe.loader import concat as concat
from splitpipe.loader import mix as mix
from splitpipe.memory import empty as empty
from splitpipe.pipeline import MpQItr as MpQItr
from splitpipe.pipeline import PipelineStats as PipelineStats
from splitpipe.pipeline import WorkerStats as WorkerStats
from splitpipe.storage import CleanReport as CleanReport
from splitpipe.storage import SalvageReport as SalvageReport
from splitpipe.storage import SplitWriter as SplitWriter
from splitpipe.storage import VerifyReport as VerifyReport
from splitpipe.storage import add_column as add_column
from splitpipe.storage import clean as clean
from splitpipe.storage import compact as compact
from splitpipe.storage import merge as merge
from splitpipe.storage import salvage as salvage
from splitpipe.storage import verify as verify
from splitpipe.storage import write_split_data as write_split_data

__all__ = (
    "ArrayLoader",
    "BigArray",
    "BigArrayWriter",
    "CleanReport",
    "Codec",
    "EmptyNDArray",
    "Lane",
    "MmapDict",
    "MpQItr",
    "PipelineStats",
    "SalvageReport",
    "SplitDataLoader",
    "SplitWriter",
    "VerifyReport",
    "WorkerStats",
    "add_column",
    "build_split_data",
    "clean",
    "compact",
    "concat",
    "current_lane",
    "empty",
    "merge",
    "mix",
    "register_codec",
    "salvage",
    "verify",
    "write_split_data",
)
