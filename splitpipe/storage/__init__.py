"""Storage: records on disk. Knows nothing of processes, lanes or orders.

Writing: `writer.py` records to segments · `segment_writer.py` one segment being written · `scatter.py` which bin a
record goes to · `durable.py` getting files onto the disk. Reading: `dataset.py` the segments of a directory as one
sequence · `segment.py` one of them, mapped · `bin.py` one of its bins · `bin_reader.py` many records of one bin ·
`cold.py` many records from slow storage. Both: `layout.py` the bytes of the files · `catalog.py` which segments a
directory holds · `columns.py` one typed value per record, beside the records · `columns_view.py` the columns as a
mapping.
"""

from splitpipe.storage.bin_reader import BinReader as BinReader
from splitpipe.storage.columns_view import ColumnsView as ColumnsView
from splitpipe.storage.columns_view import join_columns as join_columns
from splitpipe.storage.dataset import Dataset as Dataset
from splitpipe.storage.writer import SplitWriter as SplitWriter
from splitpipe.storage.writer import write_split_data as write_split_data

__all__ = ("BinReader", "ColumnsView", "Dataset", "SplitWriter", "join_columns", "write_split_data")
