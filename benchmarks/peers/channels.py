"""Channels from a worker process: splitpipe and its peers.

Each starts one worker that runs a generator and hands its items to the consumer in order, by the library's own
fastest documented way. `splitdataloader.MpQItr` is not listed: it is the same loop over a multiprocessing.Queue
of 16.
"""

from __future__ import annotations

import abc
import importlib
import multiprocessing
from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from multiprocessing.process import BaseProcess
from typing import Any, ClassVar

import splitpipe
from benchmarks.harness import Contender
from benchmarks.loads import AT_MOST_HELD, Item, Load

__all__ = ["CHANNELS", "Channel"]

_fork = multiprocessing.get_context("fork")


class Channel(Contender):
    """A way to run a generator in another process."""

    @abc.abstractmethod
    def stream(self, load: Load) -> AbstractContextManager[Iterator[Item]]:
        """Start a worker that runs `load.generate()` and give its items; on leaving, stop it."""


class SplitpipeChannel(Channel):
    """This project, with its defaults."""

    name = "splitpipe"
    module = "splitpipe"
    package = "splitpipe"

    @contextmanager
    def stream(self, load: Load) -> Iterator[Iterator[Item]]:
        with splitpipe.MpQItr(load.generate, workers=1) as pipe:
            yield iter(pipe)


class QueueChannel(Channel):
    """The standard library: a process with a loop around `put`."""

    name = "multiprocessing.Queue"
    module = "multiprocessing"
    package = ""

    @contextmanager
    def stream(self, load: Load) -> Iterator[Iterator[Item]]:
        queue: Any = _fork.Queue(AT_MOST_HELD)
        with _stopping(_fork.Process(target=_put_all, args=(queue, load), daemon=True)):
            yield iter(queue.get, None)
        queue.close()


class FasterFifoChannel(Channel):
    """A ring buffer in shared memory with room for eight items, emptied by `get_many`."""

    name = "faster-fifo"
    module = "faster_fifo"
    package = "faster-fifo"

    @contextmanager
    def stream(self, load: Load) -> Iterator[Iterator[Item]]:
        from faster_fifo import Queue

        queue: Any = Queue(max_size_bytes=max(8 * (load.size + 1024), 1 << 20))
        with _stopping(_fork.Process(target=_put_all, args=(queue, load), daemon=True)):
            yield self._items(queue)

    def _items(self, queue: Any) -> Iterator[Item]:
        while True:
            yield from queue.get_many(max_messages_to_get=AT_MOST_HELD)


class FasterFifoGetChannel(FasterFifoChannel):
    """The same ring buffer, emptied item by item, as one does who has a `multiprocessing.Queue` to replace."""

    name = "faster-fifo put/get"

    def _items(self, queue: Any) -> Iterator[Item]:
        while True:
            yield queue.get()


class TorchChannel(Channel):
    """Torch's DataLoader over an IterableDataset, unbatched; tensors arrive, and are viewed as arrays."""

    name = "torch DataLoader"
    module = "torch.utils.data"
    package = "torch"

    @contextmanager
    def stream(self, load: Load) -> Iterator[Iterator[Item]]:
        from torch.utils.data import DataLoader, IterableDataset

        class Generated(IterableDataset):  # type: ignore[misc]  # torch is not part of type checking
            def __iter__(self) -> Iterator[Item]:
                return load.generate()

        loader = DataLoader(Generated(), batch_size=None, num_workers=1, multiprocessing_context=_fork)
        with closing(self._items(loader)) as items:
            yield items

    def _items(self, loader: Any) -> Generator[Item, None, None]:
        from torch import Tensor

        for item in loader:
            yield {name: value.numpy() if isinstance(value, Tensor) else value for name, value in item.items()}


class SpdlChannel(Channel):
    """SPDL's `iterate_in_subprocess` with an arena: large fields in shared memory, the rest through a queue.

    The arena is made as large as its documentation advises: for what the queue holds and two items more. Before
    Python 3.13 its clean-up makes Python's resource tracker print KeyErrors on stderr, which do no harm here.
    """

    module = "spdl.pipeline"
    package = "spdl-core"
    _units: ClassVar[int] = AT_MOST_HELD + 2

    @contextmanager
    def stream(self, load: Load) -> Iterator[Iterator[Item]]:
        spdl: Any = importlib.import_module(self.module)
        iterable = spdl.iterate_in_subprocess(
            load.generate,
            buffer_size=AT_MOST_HELD,
            mp_context="fork",
            arena=self._arena(spdl, max(load.size, 4096)),
        )
        items = iter(iterable)
        del iterable  # the worker is stopped when nobody refers to it any more; `items` does until it is closed
        with closing(items):
            yield items

    @abc.abstractmethod
    def _arena(self, spdl: Any, unit: int) -> Any:
        """Return the arena for items of `unit` bytes."""


class SpdlRingChannel(SpdlChannel):
    """SPDL's ring buffer: items are copied out of it."""

    name = "SPDL ring"

    def _arena(self, spdl: Any, unit: int) -> Any:
        return spdl.SharedMemoryRingBuffer(self._units * unit)


class SpdlPoolChannel(SpdlChannel):
    """SPDL's pool of segments: items are views of it."""

    name = "SPDL pool"

    def _arena(self, spdl: Any, unit: int) -> Any:
        return spdl.SharedMemorySegmentPool(unit, self._units)


class GrainChannel(Channel):
    """Grain's `mp_prefetch` over an IterDataset: arrays in shared memory, one new segment for each.

    It can only spawn its worker. Arrays below 64 KB are pickled (`min_shm_size`), which is a multiple faster than
    the default of giving each a segment; above that a worker that is being stopped may hang in its pipe for 25 s.
    """

    name = "Grain mp_prefetch"
    module = "grain"
    package = "grain"

    @contextmanager
    def stream(self, load: Load) -> Iterator[Iterator[Item]]:
        grain: Any = importlib.import_module(self.module)

        class Generating(grain.DatasetIterator):  # type: ignore[misc]  # grain is not part of type checking
            def __init__(self) -> None:
                super().__init__()
                self._items = load.generate()

            def __next__(self) -> Item:
                return next(self._items)

            def get_state(self) -> dict[str, Any]:
                return {}

            def set_state(self, state: dict[str, Any]) -> None:
                raise NotImplementedError("no benchmark resumes")

        class Generated(grain.IterDataset):  # type: ignore[misc]
            def __iter__(self) -> Generating:
                return Generating()

        small = grain.experimental.DatasetOptions(min_shm_size=1 << 16)
        one_worker = grain.multiprocessing.MultiprocessingOptions(num_workers=1, per_worker_buffer_size=AT_MOST_HELD)
        data = grain.experimental.WithOptionsIterDataset(Generated(), small).mp_prefetch(one_worker)
        with closing(iter(data)) as items:
            yield items


def _put_all(queue: Any, load: Load) -> None:
    for item in load.generate():
        queue.put(item)


@contextmanager
def _stopping(process: BaseProcess) -> Iterator[None]:
    process.start()
    try:
        yield
    finally:
        process.kill()
        process.join()


CHANNELS: tuple[type[Channel], ...] = (
    SplitpipeChannel,
    QueueChannel,
    FasterFifoChannel,
    FasterFifoGetChannel,
    TorchChannel,
    SpdlRingChannel,
    SpdlPoolChannel,
    GrainChannel,
)
