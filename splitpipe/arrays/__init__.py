"""Named arrays in files of their own: a dictionary in one file, and an array that grows. Knows nothing of data sets.

`mmap_dict.py` MmapDict · `pickle_file.py` its file: add, delete, refresh, clear out · `layout.py` the bytes of it ·
`values.py` objects as opcodes · `stored_array.py` arrays as opcodes · `vacuum.py` copying what is not deleted ·
`empty.py` arrays to reserve · `mmappickle.py` what mmappickle wrote.
`big_array.py` BigArray · `big_array_writer.py` BigArrayWriter · `npy.py` the header of a `.npy` · `names.py` the names
beside it · `bigarray_file.py` what bigarray wrote.
`shared_file.py` an open file and the lock on it · `maps.py` maps and who looks at them · `pieces.py` what is written ·
`dtypes.py` dtypes as plain values.
"""

from splitpipe.arrays.big_array import BigArray as BigArray
from splitpipe.arrays.big_array_writer import BigArrayWriter as BigArrayWriter
from splitpipe.arrays.empty import EmptyNDArray as EmptyNDArray
from splitpipe.arrays.mmap_dict import MmapDict as MmapDict

__all__ = ("BigArray", "BigArrayWriter", "EmptyNDArray", "MmapDict")
