"""Build: a data set made by many processes, in the order of its inputs, with one commit at the end.

`build.py` build_split_data · `reading.py` what the workers do · `journal.py` how far a build has come, on disk.
"""

from splitpipe.build.build import build_split_data as build_split_data

__all__ = ("build_split_data",)
