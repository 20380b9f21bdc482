"""Named arrays in files of their own: a dictionary in one file, and an array that grows.

`mmap_dict.py` MmapDict · `empty.py` arrays to reserve.
"""

__all__ = ()
