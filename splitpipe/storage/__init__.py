"""Storage: records on disk. Knows nothing of processes, lanes or orders.

`layout.py` the bytes of the files · `catalog.py` which segments a directory holds · `durable.py` getting files onto
the disk · `writer.py` scatter, seal, commit · `segment.py` one committed segment, mapped ·
`bin.py` one of its bins · `columns.py` one typed
value per record, beside the records · `dataset.py` many segments as one sequence.
"""

from splitpipe.storage.dataset import Dataset as Dataset
from splitpipe.storage.dataset import View as View
from splitpipe.storage.writer import SplitWriter as SplitWriter
from splitpipe.storage.writer import write_split_data as write_split_data

__all__ = ("Dataset", "SplitWriter", "View", "write_split_data")
