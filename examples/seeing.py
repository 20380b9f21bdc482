"""What a pipeline did: figures, who is the bottleneck, and a timeline to look at."""

import json
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from splitpipe import MpQItr, current_lane


def batches(count: int, seconds: float) -> Iterator[NDArray[np.float64]]:
    """Yield batches, each of which takes some time."""
    lane = current_lane()
    for _ in range(lane.index, count, lane.count):
        time.sleep(seconds)
        yield np.zeros(100_000)


for making, using in ((0.004, 0.0), (0.0005, 0.004)):
    with MpQItr(batches, 150, making, workers=2, start="fork") as pipe:  # at once, so that starting hardly counts
        for _ in pipe:
            time.sleep(using)
        stats = pipe.stats()  # inside the block: the figures of workers end with them
    print(f"{stats.items} items, {stats.received_bytes / 1e6:.0f} MB, {stats.items_per_s:.0f} items/s")
    for worker in stats.workers:
        print(f"  worker {worker.worker}: busy {worker.busy:.0%}, waited for room {worker.blocked:.0%}")
    print(" ", stats.verdict)

with tempfile.TemporaryDirectory() as folder:
    file = Path(folder, "trace.json")
    with MpQItr(batches, 20, 0.001, workers=2, trace=file) as pipe:
        for _ in pipe:
            pass
    # Open it in ui.perfetto.dev or chrome://tracing. They do without the closing bracket, and json does not.
    events = json.loads(file.read_text().rstrip().rstrip(",") + "]")
    print("timeline:", dict(sorted(Counter(event["name"] for event in events if event["ph"] == "X").items())))
