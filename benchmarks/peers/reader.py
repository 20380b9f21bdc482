"""A process that reads random records and then stands still, so that its memory can be looked at.

`python -m benchmarks.peers.reader DIRECTORY READS SEED` reads by `data[i]` and again as many by gather, prints
`ready`, and ends when its standard input does. With no arguments it imports numpy and nothing else.
"""

from __future__ import annotations

import sys

import numpy as np

__all__ = ["main"]

_BATCH = 256


def _read(directory: str, reads: int, seed: int) -> object:
    """Read and compare; return what is to stay open."""
    import splitpipe

    data = splitpipe.SplitDataLoader(directory)
    rng = np.random.default_rng(seed)
    for number in rng.integers(len(data), size=reads).tolist():
        _compare(data[number], number)
    for first in range(0, reads, _BATCH):
        numbers = rng.integers(len(data), size=min(_BATCH, reads - first))
        for record, number in zip(data.gather(numbers), numbers.tolist(), strict=True):
            _compare(record, number)
    return data


def _compare(record: bytes, number: int) -> None:
    if int.from_bytes(record, "big") != number:
        raise SystemExit(f"record {number} reads as {record!r}")


def main() -> None:
    """Do what the command line asks."""
    if len(sys.argv) > 1:
        directory, reads, seed = sys.argv[1:]
        kept = _read(directory, int(reads), int(seed))  # noqa: F841  open until the end
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.read()


if __name__ == "__main__":
    main()
