"""Metadata beside the records: choose by it without reading a record."""

import tempfile

import numpy as np

from splitpipe import SplitDataLoader, write_split_data

with tempfile.TemporaryDirectory() as target:
    samples = ((bytes([i % 10]) * 100, {"label": i % 10, "name": f"sample {i}"}) for i in range(500))
    write_split_data(target, samples, splits=8, columns={"label": int, "name": str})

    data = SplitDataLoader(target)
    threes = np.flatnonzero(data.columns["label"] == 3)
    print(len(threes), "records of label 3, the first is", data.columns["name"][threes[0]])
    print("all the same:", set(data.gather(threes)) == {bytes([3]) * 100})
