"""Loader: stored records as sequences, and the orders to read them in. Where storage, order and lanes meet.

`records.py` what every sequence of records can do, and views of some of one · `loader.py` the records of a directory
· `opened.py` the records of a run · `batches.py` the batches of one · `concat.py` several as one · `mix.py` several
drawn from by weight · `array.py` the rows or named parts of an array.
"""

from splitpipe.loader.array import ArrayLoader as ArrayLoader
from splitpipe.loader.concat import concat as concat
from splitpipe.loader.loader import SplitDataLoader as SplitDataLoader
from splitpipe.loader.mix import Mix as Mix
from splitpipe.loader.mix import mix as mix
from splitpipe.loader.records import Records as Records
from splitpipe.loader.records import View as View

__all__ = ("ArrayLoader", "Mix", "Records", "SplitDataLoader", "View", "concat", "mix")
