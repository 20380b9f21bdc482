"""What the README of ra_pickles shows, done with splitpipe."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from splitpipe import MpQItr, SplitDataLoader, SplitWriter, current_lane, merge


def simulate(target_dir: str, steps: int) -> Iterator[int]:
    """One of several simulations that add to one data set at the same time, each with a writer of its own."""
    lane = current_lane()
    with SplitWriter(target_dir, splits=4, codec="pickle") as writer:
        for _ in range(steps):
            writer.add(np.full(4, lane.index))
        yield writer.commit()


with tempfile.TemporaryDirectory() as folder:
    ours, others = str(Path(folder, "ours")), str(Path(folder, "others"))

    # RandomAccessPicklesWriter(100, folder): here the number of bins is chosen, not the records in each.
    writer = SplitWriter(ours, splits=4, codec="pickle")
    for i in range(30):
        writer.add(np.ones(4) * i)  # any Python object
    writer.close()

    # RandomAccessPicklesReader(folder). Loading a pickle runs what its author put in: say that you trust it.
    reader = SplitDataLoader(ours, allow_pickle=True)
    print("total", len(reader))  # get_total()
    print("element 7:", reader[7])  # get_element(7)

    # Sampling: no record is read before the view is.
    without = reader.sample(10, seed=0)
    print("10 of 30, all different:", len({record[0] for record in without}) == 10)
    print("with replacement, 100 of 30:", len(reader.sample(100, replace=True, seed=0)))

    # get_multi_in_parallel([1, 2, 3]): threads help where the disk is slow to answer; none need be started or closed.
    print("by threads:", [int(record[0]) for record in reader.gather([1, 2, 3], threads=5)])

    # Several programs may add to one directory at the same time.
    with MpQItr(simulate, others, 20, workers=3) as runs:
        print("written by each of three:", list(runs))

    # Two data sets added together.
    print("merged:", merge(ours, others), "more")
    print("total", len(SplitDataLoader(ours, allow_pickle=True)))
