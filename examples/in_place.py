"""Batches that are built where they are sent from, and so are never copied; and what becomes of their memory."""

import time
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from splitpipe import MpQItr, current_lane, empty

SHAPE = (64, 128, 128)  # 4 MB


def copied(batches: int) -> Iterator[NDArray[np.float32]]:
    """Yield ordinary arrays: each is copied once, into shared memory."""
    for _ in range(batches):
        batch = np.empty(SHAPE, np.float32)
        batch[:] = 1  # your work
        yield batch


def in_place(batches: int) -> Iterator[NDArray[np.float32]]:
    """Yield arrays that lie in shared memory already. Ask for another each time: what was sent is read-only here."""
    for _ in range(batches):
        batch = empty(SHAPE, np.float32)
        batch[:] = 1
        yield batch


def augmented(batches: int) -> Iterator[dict[str, NDArray[np.float32]]]:
    """Most functions of numpy take `out=`; so do cv2, scipy and torch."""
    lane = current_lane()
    for _ in range(lane.index, batches, lane.count):
        batch = empty(SHAPE, np.float32)
        lane.rng.random(out=batch, dtype=np.float32)
        np.multiply(batch, 2, out=batch)
        yield {"x": batch}


for generator in (copied, in_place):
    with MpQItr(generator, 60) as pipe:
        next(pipe)  # not to time the start
        began = time.perf_counter()
        total = sum(int(batch[0, 0, 0]) for batch in pipe)
        print(generator.__name__, total, f"batches, {(time.perf_counter() - began) / 60 * 1e3:.2f} ms for each")

with MpQItr(augmented, 8, workers=2, max_bytes=200_000_000) as crowd:
    kept = list(crowd)  # a consumer that keeps everything gets private copies of what is too much
    print("kept", len(kept), "of which copied", crowd.stats().copies)
kept[0]["x"] += 1  # the memory is yours, also after the pipe was closed
print("still there:", all(float(item["x"].max()) > 1.99 for item in kept))
