"""Batches of arrays, straight from the mapped files: rows of one dtype, and trees of arrays."""

import tempfile
from pathlib import Path

import numpy as np

from splitpipe import SplitDataLoader, write_split_data

with tempfile.TemporaryDirectory() as folder:
    rows, trees = str(Path(folder, "rows")), str(Path(folder, "trees"))

    # Rows of one dtype: a batch is one structured array.
    event = np.dtype([("time", "<f8"), ("energy", "<f4"), ("sensor", "<u2")])
    write_split_data(rows, ((i / 10, i % 7, i % 100) for i in range(10_000)), splits=8, codec=event)
    total, sizes = 0.0, []
    for batch in SplitDataLoader(rows).batches(512):
        total += float(batch["energy"].sum())
        sizes.append(len(batch))
    print("rows:", sizes[0], "in a batch,", len(sizes), "batches, the last of", sizes[-1], "energy", total)

    # Trees: a batch is one tree, its arrays and numbers stacked along a new first axis, its strings in lists.
    samples = ({"image": np.full((4, 4), i % 255, "u1"), "label": i % 10, "name": f"image {i}"} for i in range(1000))
    write_split_data(trees, samples, splits=8, codec="tree")
    batches = SplitDataLoader(trees).batches(
        100,
        transform=lambda batch: {**batch, "image": batch["image"] / 255},  # runs in the workers
        workers=2,
        seed=1,
    )
    with batches:
        first = next(iter(batches))
        print("trees:", first["image"].shape, first["image"].dtype, first["label"].shape, len(first["name"]))
        print("epochs:", [sum(len(batch["label"]) for batch in batches) for _ in range(2)])
