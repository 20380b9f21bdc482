"""A CPU-heavy generator in two worker processes, over shuffled bins; no `__main__` guard needed."""

import tempfile
from collections.abc import Iterator

import numpy as np

from splitpipe import MpQItr, SplitDataLoader, current_lane, write_split_data


def batches(path: str, size: int) -> Iterator[dict[str, np.ndarray]]:
    """Read this lane's share of the bins and yield batches of decoded records."""
    lane = current_lane()
    rows = []
    for record in SplitDataLoader(path).iterate_binwise(shuffle=True):
        row = np.frombuffer(record, np.uint8).astype(np.float32)
        rows.append(np.sqrt(row) + lane.rng.normal(0, 0.01, row.shape))  # augmentation, the same in every run
        if len(rows) == size:
            yield {"x": np.stack(rows), "lane": np.array(lane.index)}
            rows = []
    if rows:
        yield {"x": np.stack(rows), "lane": np.array(lane.index)}


with tempfile.TemporaryDirectory() as target:
    write_split_data(target, (bytes([i % 256]) * 64 for i in range(1000)), splits=8)
    with MpQItr(batches, target, 32, workers=2, seed=1) as pipe:
        for epoch in range(2):
            seen = sum(len(batch["x"]) for batch in pipe)
            print("epoch", epoch, "records", seen)
        print("waited", round(pipe.stats().wait_s, 3), "s for the workers")
