"""MpQItr: a generator function run in worker processes, its items consumed here, epoch after epoch."""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Generic, TypeVar

from splitpipe.errors import PipelineClosedError, WorkerDiedError
from splitpipe.progress import progress_bar
from splitpipe.workers import InlineTeam, Job, Team
from splitpipe.workers.lanes import NOTHING_LEFT

__all__ = ["MpQItr", "PipelineStats"]

T = TypeVar("T")

# Options that a later version will have; a generator's own keywords of these names are bound with functools.partial.
_RESERVED = ("max_bytes", "rank", "restarts", "world_size")


@dataclass(frozen=True)
class PipelineStats:
    """What a pipeline did since it was made.

    Attributes:
        epoch: the epoch under way or ended last; -1 before the first.
        items: how many items were delivered.
        received_bytes: how many bytes of items came from the workers; 0 with `workers=0`.
        copies: how many items were copied out of shared memory because the consumer kept many of them.
        wait_s: how many seconds the consumer spent waiting for items.
        elapsed_s: how many seconds passed in epochs, from the start of each to its end or to now.
    """

    epoch: int
    items: int
    received_bytes: int
    copies: int
    wait_s: float
    elapsed_s: float


class MpQItr(Generic[T]):
    """Runs `gen(*args, **kwargs)` in worker processes and yields its items here.

    Each `iter()` is the next epoch; the workers stay. An epoch is split into lanes: the generator runs once per lane,
    and a `SplitDataLoader` read in it gives that lane's share. Items come from the lanes in turn, so their order
    depends on the number of lanes and never on timing or on the number of workers. Arrays in an item are writable
    views of shared memory, yours to keep: the memory is used again when the last view dies.

    Use it as a context manager, or call `close()`; leaving the loop and dropping the last reference ends the workers
    too. An option whose name the generator wants for a keyword of its own: bind it with `functools.partial`.

    Args:
        gen: a generator function, or any callable that returns an iterable. Lambdas, closures and functions of an
            unguarded script or a notebook are fine.
        args: its arguments.
        workers: how many processes, no more than lanes; 0 runs the generator in the calling thread, with the same
            items in the same order.
        lanes: how many lanes; by default one per worker.
        ordered: take items from the lanes in turn; False takes what is there first.
        prefetch: how many items each worker makes ahead of the consumer; then it waits.
        start: "exec" starts fresh interpreters, which never import your script; "fork" copies this process, which is
            faster and unsafe beside threads.
        seed: what `current_lane().rng` and the shuffles of loaders start from.
        timeout: how many seconds to wait for one item at most; by default, and with `workers=0`, without end.
        init: called once in each worker, with its number, before anything else; not called with `workers=0`.
        length: how many items an epoch has, for `len()` and the bar; not checked.
        progress: show a bar for each epoch; needs `pip install "splitpipe[progress]"`.
        kwargs: keyword arguments of `gen`.

    Raises:
        JobError: `gen` cannot be called with these arguments, or, at the first `iter()`, cannot be sent to a worker.
        TypeError: an option of the wrong type, or one that this version does not have.
        ValueError: an option out of its range.
    """

    def __init__(
        self,
        gen: Callable[..., Iterable[T]],
        *args: Any,
        workers: int = 1,
        lanes: int | None = None,
        ordered: bool = True,
        prefetch: int = 4,
        start: str = "exec",
        seed: int = 0,
        timeout: float | None = None,
        init: Callable[[int], object] | None = None,
        length: int | None = None,
        progress: bool = False,
        **kwargs: Any,
    ) -> None:
        for name in _RESERVED:
            if name in kwargs:
                raise TypeError(
                    f"{name}= is an option that this version of MpQItr does not have yet. If the generator takes a "
                    f"keyword of that name, pass functools.partial(gen, {name}=...)"
                )
        _check_count("workers", workers, 0)
        _check_count("lanes", max(workers, 1) if lanes is None else lanes, 1)
        _check_count("prefetch", prefetch, 1)
        _check_count("seed", seed, 0)
        if start not in ("exec", "fork"):
            raise ValueError(f'start is "exec" or "fork", and got {start!r}')
        if timeout is not None and not timeout > 0:
            raise ValueError(f"timeout is a number of seconds above 0, or None, and got {timeout!r}")
        self._job = Job(gen, args, kwargs, lanes or max(workers, 1), seed, init)
        self._job.check()
        self._workers = min(workers, self._job.lanes)
        self._ordered, self._prefetch, self._start = ordered, prefetch, start
        self._timeout, self._length, self._progress = timeout, length, progress
        self._team: Team | InlineTeam | None = None
        self._finalizer: weakref.finalize[Any, Any] | None = None
        self._closed = False
        self._epoch = -1
        self._lanes: list[int] = []  # those with items left in the epoch under way
        self._turn = 0  # whose turn it is among them
        self._delivered = 0
        self._wait_s = 0.0
        self._ended_s = 0.0  # duration of the epochs that are over
        self._began: float | None = None

    def __iter__(self) -> Iterator[T]:
        """Begin the next epoch; one that is under way is given up, and its iterator raises from then on."""
        team = self._ready_team()
        self._end_epoch()
        self._epoch += 1
        self._began = time.perf_counter()
        team.start(self._epoch)
        self._lanes, self._turn = list(range(self._job.lanes)), 0
        items: Iterator[T] = _Epoch(self, self._epoch)
        if self._progress:
            items = iter(progress_bar(items, unit="it", label=f"epoch {self._epoch}", total=self._length))
        return items

    def __next__(self) -> T:
        """Return the next item of the epoch under way, and begin one if there is none."""
        if self._began is None:
            iter(self)
        return self._next_item(self._epoch)

    def _ready_team(self) -> Team | InlineTeam:
        if self._closed:
            raise PipelineClosedError("this pipeline was closed: make a new MpQItr")
        if self._team is None:
            if self._workers:
                self._team = Team(self._job, self._workers, self._prefetch, self._start)
            else:
                self._team = InlineTeam(self._job)
            self._finalizer = weakref.finalize(self, self._team.close)
        return self._team

    def _next_item(self, epoch: int) -> T:
        """Return the next item of `epoch`; StopIteration at its end."""
        if self._closed or epoch != self._epoch:
            reason = "closed" if self._closed else f"iterated again, and is in epoch {self._epoch}"
            raise PipelineClosedError(f"epoch {epoch} is over: the pipeline was {reason}")
        while self._lanes:
            began = time.perf_counter()
            try:
                lane, item = self._receive()
            except WorkerDiedError:
                self.close()
                raise
            except BaseException:
                self._end_epoch()
                raise
            finally:
                self._wait_s += time.perf_counter() - began
            if item is not NOTHING_LEFT:
                self._turn += 1
                self._delivered += 1
                return item  # type: ignore[no-any-return]  # what arrives is what the generator yields
            self._turn = self._lanes.index(lane)
            self._lanes.remove(lane)
        self._end_epoch()
        raise StopIteration

    def _receive(self) -> tuple[int, Any]:
        team = self._ready_team()
        if self._ordered:
            lane = self._lanes[self._turn % len(self._lanes)]
            return lane, team.receive(lane, self._timeout)
        return team.receive_any(self._lanes, self._timeout)

    def _end_epoch(self) -> None:
        if self._began is not None:
            self._ended_s += time.perf_counter() - self._began
            self._began = None
            self._lanes = []
            if self._team is not None:
                self._team.stop()

    def __len__(self) -> int:
        """Return `length=`.

        Raises:
            TypeError: it was not given.
        """
        if self._length is None:
            raise TypeError("nobody knows how many items a generator yields: pass length= to MpQItr")
        return self._length

    def stats(self) -> PipelineStats:
        """Return what the pipeline did so far."""
        running = 0.0 if self._began is None else time.perf_counter() - self._began
        received, copies = (self._team.received_bytes, self._team.copies) if self._team else (0, 0)
        return PipelineStats(self._epoch, self._delivered, received, copies, self._wait_s, self._ended_s + running)

    def close(self) -> None:
        """End the workers, in a few seconds at most; items that you hold stay valid. May be called again."""
        self._closed = True
        self._end_epoch()
        if self._finalizer is not None:
            self._finalizer()

    def __enter__(self) -> MpQItr[T]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"epoch {self._epoch}"
        return f"<MpQItr {self._job.name}: {self._workers} workers, {self._job.lanes} lanes, {state}>"


class _Epoch(Iterator[T]):
    """One pass. It keeps the pipeline alive, and not the other way round: dropping it may end the workers."""

    def __init__(self, pipe: MpQItr[T], number: int) -> None:
        self._pipe = pipe
        self._number = number
        self._ended = False

    def __next__(self) -> T:
        if self._ended:
            raise StopIteration
        try:
            return self._pipe._next_item(self._number)
        except BaseException:
            self._ended = True
            raise


def _check_count(name: str, value: Any, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} is an int, and got {value!r}")
    if value < least:
        raise ValueError(f"{name} is at least {least}, and got {value}")
