"""A training that is killed and started again: its batches are those of one that was never killed."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from splitpipe import MpQItr, SplitDataLoader, write_split_data


def batches(data: SplitDataLoader, size: int) -> Iterator[list[int]]:
    """Yield batches of this lane's share. The loader is an argument, so that a state of other data is refused."""
    batch = []
    for record in data.iterate_binwise(shuffle=True):
        batch.append(int(record))
        if len(batch) == size:
            yield batch
            batch = []


def train(folder: Path, checkpoint: Path, *, workers: int, die_at: int | None = None) -> list[int]:
    """Train for two epochs, from the checkpoint on if there is one; return the first record of each batch."""
    seen: list[int] = []  # stands for the model
    first = 0
    with MpQItr(batches, SplitDataLoader(folder), 10, workers=workers, lanes=4, seed=3, epochs=2) as pipe:
        if checkpoint.exists():
            saved = json.loads(checkpoint.read_text())
            seen, first = saved["model"], saved["epoch"]
            pipe.load_state_dict(saved["pipe"])
            print("goes on in epoch", first, "after", len(seen), "batches")
        for epoch in range(first, 2):
            for batch in pipe:
                seen.append(batch[0])
                if len(seen) % 4 == 0:
                    state = {"model": seen, "epoch": epoch, "pipe": pipe.state_dict()}
                    checkpoint.with_suffix(".new").write_text(json.dumps(state))
                    checkpoint.with_suffix(".new").replace(checkpoint)  # whole, or not at all
                if len(seen) == die_at:
                    os.kill(os.getpid(), signal.SIGKILL)
    return seen


def main() -> None:
    """Train undisturbed, then killed and resumed, with other numbers of workers; compare."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_split_data(folder / "data", (b"%d" % i for i in range(400)), splits=8)
        undisturbed = train(folder / "data", folder / "none.json", workers=1)
        killed = subprocess.run([sys.executable, __file__, name])  # noqa: S603  this file, which kills itself
        print("killed by", signal.Signals(-killed.returncode).name)
        resumed = train(folder / "data", folder / "checkpoint.json", workers=2)
        print("batches:", len(resumed), "the same:", resumed == undisturbed)


if len(sys.argv) > 1:
    train(Path(sys.argv[1], "data"), Path(sys.argv[1], "checkpoint.json"), workers=2, die_at=50)
else:
    main()
