"""The example of bigarray's README; only names are others, and the path. Behind it, what bigarray has not."""

import shutil
import tempfile
from multiprocessing import Pool
from pathlib import Path

import numpy as np

from splitpipe import ArrayLoader, BigArray, BigArrayWriter

n = 80 * 10  # total number of samples
jobs = [(i, i + 10) for i in range(0, n // 10, 10)]
folder = tempfile.mkdtemp()
path = str(Path(folder, "array"))

# ====== Multiprocessing writing ====== #
writer = BigArrayWriter(path, shape=(n,), dtype="int32", overwrite=True)


def fn_write(job: tuple[int, int]) -> None:
    """Write ten arrays."""
    start, end = job
    # it is crucial to write at different position for different process
    writer.write({f"name{i}": np.arange(i * 10, i * 10 + 10) for i in range(start, end)}, start=start * 10)


# using 2 processes to generate and write data
with Pool(2) as p:
    p.map(fn_write, jobs)
writer.flush()
writer.close()

# ====== Multiprocessing reading ====== #
x = BigArray(path)
print(x["name0"])
print(x["name66"])
print(x["name78"])

# normal indexing
for start, end in x.names.values():
    data = x[start:end]
# fast indexing
for name in x.names:
    data = x[name]


# multiprocess indexing
def fn_read(job: tuple[int, int]) -> int:
    """Add up ten arrays."""
    start, end = job
    total = 0
    for i in range(start, end):
        total += int(np.sum(x[f"name{i}"]))
    return total


# use multiprocessing to calculate the sum of all arrays
with Pool(2) as p:
    total_sum = sum(p.map(fn_read, jobs))
print(np.sum(x), total_sum)

# ====== It grows, numpy alone opens it, and it is a data set ====== #
with BigArrayWriter(path) as writer:
    writer.write({"more": np.arange(5)})
print(np.load(path, mmap_mode="r").shape, BigArray(path)["more"])
with ArrayLoader(path).batches(128, workers=2) as batches:
    print(len(batches), sum(int(batch.sum()) for batch in batches))
shutil.rmtree(folder)
