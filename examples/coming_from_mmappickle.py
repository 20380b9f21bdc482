"""The examples of mmappickle's documentation; only names are others."""

import io
import pickle
import tempfile
from multiprocessing import Process
from pathlib import Path

import numpy as np

from splitpipe import EmptyNDArray, MmapDict


def quick_start(path: str) -> None:
    """A dictionary that is a file."""
    m = MmapDict(path)  # could be an existing file
    m["a_sample_key"] = "value"
    m["other_key"] = [1, 2, 3]
    print(m["a_sample_key"])
    print(m["other_key"][2])
    del m["a_sample_key"]
    print(m.keys())


def another_interpreter(path: str) -> None:
    """What is stored is there for others, this one or later ones."""
    m = MmapDict(path)
    print(m["other_key"])


def read_only(path: str) -> None:
    """In read-only mode any change fails."""
    m = MmapDict(path, True)
    try:
        m["other_key"] = "a"
    except io.UnsupportedOperation as error:
        print("unsupported:", str(error).rpartition(": ")[2])


def arrays(path: str) -> None:
    """Arrays are mapped: not loaded, but read and written where they lie in the file."""
    m = MmapDict(path)
    m["test"] = np.array([1, 2, 3], dtype=np.uint8)
    m["test"][1] = 4
    print(m["test"])
    print(type(m["test"]))
    m["test_large"] = EmptyNDArray((300, 300, 300))  # 216 MB, at no point allocated
    print(type(m["test_large"]), m["test_large"].shape)
    del m["test_large"]
    # Here, the file is still as long as it was.
    print("before:", Path(path).stat().st_size > 216_000_000)
    m.vacuum()
    print("after:", Path(path).stat().st_size)


def anybody(path: str) -> None:
    """Whoever has Python and numpy alone reads all of it."""
    with Path(path).open("rb") as file:
        print(pickle.load(file))


def viewer(m: MmapDict) -> None:
    """Runs beside the one who writes: `refresh` shows what came."""
    while "end" not in m:
        m.refresh()
    print("seen:", [m[f"image {i}"].mean() for i in range(3)])


def timelapse(path: str) -> None:
    """Images are added with their metadata, while another process looks at them."""
    m = MmapDict(path)
    watching = Process(target=viewer, args=(m,))
    watching.start()
    for i in range(3):
        m[f"image {i}"] = np.full((100, 100), float(i))
        m[f"metadata {i}"] = {"exposure": 0.1 * i}
    m["end"] = True
    watching.join()
    print("viewer ended:", watching.exitcode)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        test = str(Path(folder, "test.mmdpickle"))
        quick_start(test)
        another_interpreter(test)
        read_only(test)
        arrays(test)
        anybody(test)
        timelapse(str(Path(folder, "timelapse.mmdpickle")))
