"""SplitDataLoader: a data set read in the order of an epoch. Where storage, order and lanes meet."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

from splitpipe.lane import current_lane, in_lane
from splitpipe.order import plan_epoch
from splitpipe.storage.dataset import Dataset

__all__ = ["SplitDataLoader"]


class SplitDataLoader(Dataset):
    """The data set in a directory: a sequence of its records, and the orders to read them in.

    It shows what was committed when it was made; data appended later needs a new one. It pickles to its path, and
    may be used inside a pipeline's generator, from several threads, and after a fork.

    Args:
        data_dir: the directory that was written to.
        verify: compare each record's checksum the "first" time it is read (each process its own), "always", or
            "never".
        allow_pickle: load records of the codec "pickle", which runs whatever their author put into them.

    Raises:
        NotADatasetError: there is no committed data set.
        CorruptDataError: a file is missing, cut short, or not what was committed.
        FormatVersionError: written by a newer splitpipe.
        PickleRefusedError: the records are pickles and `allow_pickle` is not set.
        ValueError: `verify` is none of the three.
    """

    _next_epoch = 0  # of passes outside a pipeline, where nobody else counts them

    def iterate_binwise(
        self, shuffle: bool = False, seed: int | None = None, epoch: int | None = None
    ) -> Iterator[Any]:
        """Return an iterator over the records, bin by bin: the fast way through a data set larger than memory.

        Inside a pipeline's generator it yields that lane's share, so the lanes together yield every record once.

        Args:
            shuffle: permute the bins, and the records within each, as a function of `seed` and `epoch` alone.
            seed: what the shuffle starts from; by default the pipeline's seed, and 0 outside one.
            epoch: which pass this is; by default the pipeline's epoch, and outside one the number of passes that
                this object has begun before, so that each pass has another order.

        Raises:
            CorruptDataError: the bytes on disk are not those committed.
            ValueError: `seed` or `epoch` is negative.
        """
        lane = current_lane()
        if epoch is None:
            epoch = lane.epoch if in_lane() else self._next_epoch
            if not in_lane():
                self._next_epoch += 1
        seed = lane.seed if seed is None else seed
        if seed < 0 or epoch < 0:
            raise ValueError(f"seed and epoch count from 0, and got seed={seed}, epoch={epoch}")
        plan = plan_epoch(self.bin_counts(), shuffle=shuffle, seed=seed, epoch=epoch, lane=lane.index, lanes=lane.count)
        return itertools.chain.from_iterable(self.bin_records(run.bin, run.positions) for run in plan)
