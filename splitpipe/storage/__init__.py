"""Storage: records on disk. Knows nothing of processes, lanes or orders.

Writing: `writer.py` records to segments · `segment_writer.py` one segment being written · `scatter.py` which bin a
record goes to · `durable.py` getting files onto the disk. Reading: `dataset.py` the segments of a directory as one
sequence · `segment.py` one of them, mapped · `bin.py` one of its bins · `bin_reader.py` many records of one bin ·
`cold.py` many records from slow storage. Care: `verify.py` ·
`salvage.py`, from what `wreck.py` finds · `cleaning.py` clean · `merging.py` merge and compact, by `copying.py` ·
`adding.py` add_column. Both: `layout.py` the bytes of the files · `catalog.py` which segments a
directory holds · `columns.py` one typed value per record, beside the records · `columns_view.py` the columns as a
mapping.
"""

from splitpipe.storage.adding import add_column as add_column
from splitpipe.storage.bin_reader import BinReader as BinReader
from splitpipe.storage.cleaning import CleanReport as CleanReport
from splitpipe.storage.cleaning import clean as clean
from splitpipe.storage.columns_view import ColumnsView as ColumnsView
from splitpipe.storage.columns_view import join_columns as join_columns
from splitpipe.storage.dataset import Dataset as Dataset
from splitpipe.storage.dataset import join_records as join_records
from splitpipe.storage.merging import compact as compact
from splitpipe.storage.merging import merge as merge
from splitpipe.storage.salvage import SalvageReport as SalvageReport
from splitpipe.storage.salvage import salvage as salvage
from splitpipe.storage.verify import Problem as Problem
from splitpipe.storage.verify import VerifyReport as VerifyReport
from splitpipe.storage.verify import verify as verify
from splitpipe.storage.writer import SplitWriter as SplitWriter
from splitpipe.storage.writer import write_split_data as write_split_data

__all__ = (
    "BinReader",
    "CleanReport",
    "ColumnsView",
    "Dataset",
    "Problem",
    "SalvageReport",
    "SplitWriter",
    "VerifyReport",
    "add_column",
    "clean",
    "compact",
    "join_columns",
    "join_records",
    "merge",
    "salvage",
    "verify",
    "write_split_data",
)
