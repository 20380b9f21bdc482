"""Channels from a worker process: splitpipe, multiprocessing.Queue, faster-fifo and torch's DataLoader.

Each starts one worker that runs `generate` and hands its dicts to the consumer in order, by the library's
own fastest documented way. `splitdataloader.MpQItr` is not listed: it is the same loop over a
multiprocessing.Queue of 16.
"""

from __future__ import annotations

import abc
import multiprocessing
from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from multiprocessing.process import BaseProcess
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

import splitpipe
from benchmarks.harness import Contender

__all__ = ["CHANNELS", "Channel", "Item"]

Item = dict[str, NDArray[np.float32]]

_DEPTH = 16  # items that a queue may hold
_ARRAYS = _DEPTH + 4  # more than are ever under way: a queue may pickle an item long after it was put
_fork = multiprocessing.get_context("fork")


def generate(size: int) -> Iterator[Item]:
    """Yield dicts of one array of `size` bytes for ever; item i has i as its first and last element."""
    rng = np.random.default_rng(0)
    prepared = [rng.random(size // 4, dtype=np.float32) for _ in range(_ARRAYS)]
    count = 0
    while True:
        array = prepared[count % _ARRAYS]
        array[0] = array[-1] = count
        yield {"array": array}
        count += 1


class Channel(Contender):
    """A way to run a generator in another process."""

    package: ClassVar[str] = ""

    @abc.abstractmethod
    def stream(self, size: int) -> AbstractContextManager[Iterator[Item]]:
        """Start a worker that runs `generate(size)` and give its items; on leaving, stop it."""


class SplitpipeChannel(Channel):
    """This project, with its defaults."""

    name = "splitpipe"
    module = "splitpipe"
    package = "splitpipe"

    @contextmanager
    def stream(self, size: int) -> Iterator[Iterator[Item]]:
        with splitpipe.MpQItr(generate, size, workers=1) as pipe:
            yield iter(pipe)


class QueueChannel(Channel):
    """The standard library: a process with a loop around `put`."""

    name = "multiprocessing.Queue"
    module = "multiprocessing"

    @contextmanager
    def stream(self, size: int) -> Iterator[Iterator[Item]]:
        queue: Any = _fork.Queue(_DEPTH)
        with _stopping(_fork.Process(target=_put_all, args=(queue, size), daemon=True)):
            yield iter(queue.get, None)
        queue.close()


class FasterFifoChannel(Channel):
    """A ring buffer in shared memory with room for eight items, emptied by `get_many`."""

    name = "faster-fifo"
    module = "faster_fifo"
    package = "faster-fifo"

    @contextmanager
    def stream(self, size: int) -> Iterator[Iterator[Item]]:
        from faster_fifo import Queue

        queue: Any = Queue(max_size_bytes=max(8 * (size + 1024), 1 << 20))
        with _stopping(_fork.Process(target=_put_all, args=(queue, size), daemon=True)):
            yield self._items(queue)

    def _items(self, queue: Any) -> Iterator[Item]:
        while True:
            yield from queue.get_many(max_messages_to_get=_DEPTH)


class TorchChannel(Channel):
    """Torch's DataLoader over an IterableDataset, unbatched; tensors arrive, and are viewed as arrays."""

    name = "torch DataLoader"
    module = "torch.utils.data"
    package = "torch"

    @contextmanager
    def stream(self, size: int) -> Iterator[Iterator[Item]]:
        from torch.utils.data import DataLoader, IterableDataset

        class Generated(IterableDataset):  # type: ignore[misc]  # torch is not part of type checking
            def __iter__(self) -> Iterator[Item]:
                return generate(size)

        loader = DataLoader(Generated(), batch_size=None, num_workers=1, multiprocessing_context=_fork)
        with closing(self._items(loader)) as items:
            yield items

    def _items(self, loader: Any) -> Generator[Item, None, None]:
        for tensors in loader:
            yield {name: tensor.numpy() for name, tensor in tensors.items()}


def _put_all(queue: Any, size: int) -> None:
    for item in generate(size):
        queue.put(item)


@contextmanager
def _stopping(process: BaseProcess) -> Iterator[None]:
    process.start()
    try:
        yield
    finally:
        process.kill()
        process.join()


CHANNELS: tuple[type[Channel], ...] = (SplitpipeChannel, QueueChannel, FasterFifoChannel, TorchChannel)
