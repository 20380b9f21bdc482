"""Writes the files of this folder with mmappickle 1.0.0 and bigarray 0.2.2 themselves.

Run with Python 3.10 and `pip install numpy==1.23.5 six mmappickle bigarray`: neither runs with a newer numpy.
"""

import datetime
from pathlib import Path

import numpy as np
from bigarray import PointerArrayWriter
from bigarray.mmap_array import MmapArrayWriter
from mmappickle.dict import mmapdict
from mmappickle.stubs import EmptyNDArray

HERE = Path(__file__).parent


def mmappickle_file() -> None:
    """Values of each kind that it has, one deleted, one replaced."""
    path = HERE / "mmappickle.pickle"
    path.unlink(missing_ok=True)
    m = mmapdict(str(path))
    m["text"] = "value"
    m["list"] = [1, [2], {"three": 3}]
    m["gone"] = np.arange(10)
    shared = ["x"]
    m["shared"] = [shared, shared]
    m["bytes"] = np.array([1, 2, 3], np.uint8)
    m["floats"] = np.arange(6.0).reshape(2, 3)
    m["masked"] = np.ma.MaskedArray([1.0, 2.0, 3.0], [False, True, False])
    m["empty"] = EmptyNDArray((2, 300, 4), np.int16)
    m["five"] = np.arange(32, dtype=">i4").reshape(2, 2, 2, 2, 2)
    m["date"] = datetime.date(2020, 1, 2)
    m["nested"] = {"array": np.arange(3)}
    m["text"] = "another"
    del m["gone"]


def bigarray_files() -> None:
    """One with names that was written to twice, and one without."""
    path = HERE / "bigarray"
    with PointerArrayWriter(str(path), shape=(0, 3), dtype="float32", remove_exist=True) as writer:
        writer.write({"a": np.arange(6, dtype="float32").reshape(2, 3)})
        writer.flush()
        writer.write({"b": np.arange(6, 15, dtype="float32").reshape(3, 3)})
    with MmapArrayWriter(str(HERE / "bigarray-plain"), shape=(4,), dtype="int64", remove_exist=True) as writer:
        writer.write(np.arange(4), start_position=0)


if __name__ == "__main__":
    mmappickle_file()
    bigarray_files()
