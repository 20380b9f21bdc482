"""MpQItr: a generator function run in worker processes, its items consumed here, epoch after epoch."""

from __future__ import annotations

import dataclasses
import inspect
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Generic, TypeVar

from splitpipe.errors import PipelineClosedError, WorkerDiedError
from splitpipe.lane import outer_lane
from splitpipe.pipeline.bar import with_bar
from splitpipe.pipeline.crew import Crew, Tally, make_crew
from splitpipe.pipeline.options import OnError, Options, check_names
from splitpipe.pipeline.state import load_state, state_of
from splitpipe.pipeline.stats import PipelineStats, WorkerStats, verdict
from splitpipe.pipeline.warning import warn_of_lanes
from splitpipe.workers import Job, Places
from splitpipe.workers.lanes import NOTHING_LEFT, Skipped
from splitpipe.workers.resources import usable_cores
from splitpipe.workers.trace import Trace, begin_trace

__all__ = ["MpQItr"]

T = TypeVar("T")

_MANY = 100  # items without asking for the lane: it is not going to


class MpQItr(Generic[T]):
    """Runs `gen(*args, **kwargs)` in worker processes and yields its items here.

    Each `iter()` is the next epoch; the workers stay, and from the second epoch on, or if `epochs` says that there
    are more, begin the next one as soon as they are done with theirs. An epoch is split into lanes: the generator
    runs once per lane, and a `SplitDataLoader` read in it gives that lane's share. Items come from the lanes in turn,
    so their order depends on the number of lanes and never on timing or on the number of workers. Arrays in an item
    are writable views of shared memory, yours to keep: the memory is used again when the last view dies.

    Use it as a context manager, or call `close()`; leaving the loop and dropping the last reference ends the workers
    too. An option whose name the generator wants for a keyword of its own: bind it with `functools.partial`.

    Args:
        gen: a generator function, or any callable that returns an iterable. Lambdas, closures and functions of an
            unguarded script or a notebook are fine.
        args: its arguments.
        workers: how many processes, no more than lanes; 0 runs the generator in the calling thread, with the same
            items in the same order; "auto" begins with one for each core there is, and finds out after each epoch
            whether fewer or more do better.
        lanes: how many lanes; by default one per worker, and with "auto" one per core.
        ordered: take items from the lanes in turn; False takes what is there first.
        prefetch: how many items each worker makes ahead of the consumer, and up to three more while the consumer holds
            none; then it waits. Items below 16 KB travel together, and count as one for each millisecond's work.
        max_bytes: how much shared memory all workers together may use; by default a quarter of what is available. One
            item for each is always allowed.
        start: "exec" starts fresh interpreters, which never import your script; "fork" copies this process, which is
            faster and unsafe beside threads; "spawn" and "forkserver" are the standard library's, and import your
            script; "thread" uses threads of this process, for work that lets go of the interpreter's lock.
        seed: what `current_lane().rng`, the global generators of `random`, numpy and torch in a worker, and the
            shuffles of loaders start from.
        rank: which of `world_size` main processes this is; by default what torchrun, mpirun or srun say in the
            environment, and otherwise the only one.
        world_size: how many main processes share each epoch.
        tail: what they do with what they cannot share equally: "drop" it (the default), "pad" it with items from the
            beginning so that all have as many, or leave it "uneven", exactly once each.
        restarts: how many workers that die are started again, continuing with the item that was not delivered.
        timeout: how many seconds to wait for one item at most; by default, and with `workers=0`, without end.
        init: called once in each worker, with its number, before anything else; not called with `workers=0`.
        on_error: what an exception in the source does: "raise" it here; "skip" the item; or a function that is called
            with it here, and then the item is skipped. Only an iterator with a `__next__` of its own can go on; a
            generator that raised is over, and its exception is raised.
        length: how many items an epoch has, for `len()` and the bar; not checked.
        epochs: how many epochs there will be, if you know: each of them is begun early, and none beyond.
        progress: show a bar for each epoch, with the verdict of `stats()`; needs `pip install "splitpipe[progress]"`.
        trace: a file to write a timeline to, for ui.perfetto.dev or chrome://tracing: when each worker produced,
            serialised, sent and waited, and when items were taken here.
        kwargs: keyword arguments of `gen`.

    Raises:
        JobError: `gen` cannot be called with these arguments, or, at the first `iter()`, cannot be sent to a worker.
        TypeError: an option of the wrong type.
        ValueError: an option out of its range.
    """

    def __init__(
        self,
        gen: Callable[..., Iterable[T]],
        *args: Any,
        workers: int | str = 1,
        lanes: int | None = None,
        ordered: bool = True,
        prefetch: int = 4,
        max_bytes: int | None = None,
        start: str = "exec",
        seed: int = 0,
        rank: int | None = None,
        world_size: int | None = None,
        tail: str | None = None,
        restarts: int = 0,
        timeout: float | None = None,
        init: Callable[[int], object] | None = None,
        on_error: OnError = "raise",
        length: int | None = None,
        epochs: int | None = None,
        progress: bool = False,
        trace: str | os.PathLike[str] | None = None,
        **kwargs: Any,
    ) -> None:
        self._options = options = Options(
            workers, lanes, ordered, prefetch, max_bytes, start, seed, rank, world_size, tail, restarts, timeout,
            on_error, length, epochs, progress, trace,
        )  # fmt: skip
        check_names(gen, options, _DEFAULTS)
        skips = on_error != "raise"
        outer = outer_lane()
        if outer is not None:  # a pipeline within a lane does that lane's share of that lane's epoch
            seed = seed or outer.seed
        rank, world_size = options.ranks()
        lane_count, tail = options.lane_count(), options.tail_kind()
        self._job = Job(gen, args, kwargs, lane_count, seed, init, rank, world_size, tail, skips)
        self._job.check(_DEFAULTS)
        self._workers = min(options.most_workers(), self._job.lanes)
        self._ordered, self._timeout = ordered, timeout
        self._crew: Crew | None = None
        self._finalizer: weakref.finalize[Any, Any] | None = None
        self._closed = False
        self._places = Places(-1 if outer is None else outer.epoch - 1)
        self._resumed: Places | None = None
        self._began: float | None = None  # the epoch under way, if there is one
        self._ended_s = 0.0  # duration of the epochs that are over
        self._tally = Tally()
        self._last_workers: tuple[WorkerStats, ...] = ()
        self._taking = threading.RLock()  # one thread at a time takes an item, or begins an epoch
        self._resumed_after = 0  # items of the epoch under way that another pipeline delivered
        self._warned = False
        self._trace: Trace | None = None
        if trace is not None:
            begin_trace(options.team(1).trace)
            self._trace = Trace(options.team(1).trace, "main process")

    def __iter__(self) -> Iterator[T]:
        """Begin the next epoch; one that is under way is given up, and its iterator raises from then on.

        If another thread waits for an item of it, it is given that one first.
        """
        with self._taking:
            return self._begin()

    def _begin(self) -> Iterator[T]:
        self._check_open()
        self._end_epoch(given_up=True)
        if self._crew is not None and not self._crew.settled:
            self._end_crew()  # an interrupt, at any instant, may have left the channels in the middle of something
        if self._resumed is not None:
            places, self._resumed = self._resumed, None
        else:
            self._adjust_workers()
            places = Places.beginning(self._places.epoch + 1, self._job.lanes)
        self._places = places
        crew = self._ready_crew()
        self._began = time.perf_counter()
        self._resumed_after = sum(places.items)
        crew.start(places)
        items: Iterator[T] = _Epoch(self, places.epoch)
        if self._options.progress:
            done, label = sum(places.items), f"epoch {places.epoch}"
            items = with_bar(items, label=label, total=self._options.length, done=done, verdict=self._verdict)
        return items

    def __next__(self) -> T:
        """Return the next item of the epoch under way, and begin one if there is none."""
        with self._taking:
            if self._began is None:
                self._begin()
            return self._next_item(self._places.epoch)

    def _check_open(self) -> None:
        if self._closed:
            raise PipelineClosedError("this pipeline was closed: make a new MpQItr")

    def _ready_crew(self) -> Crew:
        if self._crew is None:
            self._crew = make_crew(self._job, self._options, self._workers, self._places)
            self._finalizer = weakref.finalize(self, self._crew.close)
        return self._crew

    def _next_item(self, epoch: int) -> T:
        """Return the next item of `epoch`; StopIteration at its end."""
        places, crew = self._places, self._crew
        if self._began is None or crew is None or epoch != places.epoch:
            reason = "closed" if self._closed else f"iterated again, and is in epoch {places.epoch}"
            raise PipelineClosedError(f"epoch {epoch} is over: the pipeline was {reason}")
        try:
            while places.left:
                item = self._receive(crew, places)
                if self._job.lanes > 1 and not places.asked and not self._warned:
                    self._warn_of_lanes(sum(places.items) - self._resumed_after >= _MANY)
                if item is NOTHING_LEFT:
                    continue
                if type(item) is Skipped:
                    self._skip(item.error)
                    continue
                return item  # type: ignore[no-any-return]  # what arrives is what the generator yields
        except WorkerDiedError:
            self.close()
            raise
        except BaseException as exc:
            if self._closed and isinstance(exc, OSError | ValueError):
                raise PipelineClosedError("the pipeline was closed while this thread waited for an item") from None
            self._end_epoch(given_up=True)
            raise
        self._end_epoch(given_up=False)
        raise StopIteration

    def _receive(self, crew: Crew, places: Places) -> Any:
        if self._trace is not None:
            return self._traced_receive(crew, places, self._trace)
        if self._ordered:
            return crew.receive(places.left[0], self._timeout)
        return crew.receive_any(list(places.left), self._timeout)[1]

    def _traced_receive(self, crew: Crew, places: Places, trace: Trace) -> Any:
        began, waited = time.monotonic_ns(), crew.wait_s
        lane = places.left[0]
        try:
            if self._ordered:
                return crew.receive(lane, self._timeout)
            lane, item = crew.receive_any(list(places.left), self._timeout)
            return item
        finally:
            ended = time.monotonic_ns()
            arrived = min(ended, began + int((crew.wait_s - waited) * 1e9))
            trace.lane = lane
            trace.add("wait", began, arrived)
            trace.add("deliver", arrived, ended)

    def _skip(self, error: BaseException) -> None:
        self._tally.skipped += 1
        if callable(self._options.on_error):
            self._options.on_error(error)

    def _end_epoch(self, *, given_up: bool) -> None:
        if self._began is None:
            return
        self._ended_s += time.perf_counter() - self._began
        self._began = None
        if given_up and self._crew is not None:
            self._crew.stop()
        if self._trace is not None:
            self._trace.flush()
        self._warn_of_lanes(sum(self._places.items) > self._resumed_after)

    def _warn_of_lanes(self, enough: bool) -> None:
        """Warn, once, of a generator that has given enough items without asking for its lane."""
        if enough and self._job.lanes > 1 and not self._places.asked and not self._warned:
            self._warned = True
            warn_of_lanes(self._job)

    def _adjust_workers(self) -> None:
        """Take one worker more or less, if the last epoch says that it would help; the items stay the same."""
        if not self._options.adjusts or self._crew is None:
            return
        workers = self._crew_stats()
        loads = [worker.load for worker in workers]
        waited = self._waited()
        fewer = max(loads) < 0.5 and waited < 0.05 and self._workers > 1
        more = sum(loads) / len(loads) > 0.8 and waited > 0.1 and self._workers < min(usable_cores(), self._job.lanes)
        if fewer or more:
            self._end_crew()
            self._workers += 1 if more else -1

    def _end_crew(self) -> None:
        """End the workers; the next epoch starts others."""
        self._last_workers = self._crew_stats()
        crew, self._crew = self._crew, None
        if crew is not None and self._finalizer is not None:
            self._tally.add(crew)
            self._finalizer()

    def __len__(self) -> int:
        """Return `length=`.

        Raises:
            TypeError: it was not given.
        """
        if self._options.length is None:
            raise TypeError("nobody knows how many items a generator yields: pass length= to MpQItr")
        return self._options.length

    @property
    def epoch(self) -> int:
        """The epoch under way or ended last; -1 before the first."""
        return self._places.epoch

    def state_dict(self) -> dict[str, Any]:
        """Return where the pipeline is, as plain JSON: which items were delivered, not which are under way.

        Another `MpQItr`, made alike, takes it by `load_state_dict` and continues with the very next item: with any
        number of workers and any start method, but as many lanes.
        """
        return state_of(self._job, self._resumed or self._places)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state` was taken, at the next `iter()`.

        A generator that keeps its place in `current_lane().state`, and `data.batches`, start there at once; any other
        generator runs from the beginning of the epoch, and what it gave before is not sent.

        Raises:
            StateError: it is no state, or one of other data, other lanes, another seed.
        """
        self._check_open()
        resumed = load_state(self._job, state)
        self._end_epoch(given_up=True)
        self._end_crew()
        self._places = resumed
        self._resumed = resumed if resumed.left else None

    def stats(self) -> PipelineStats:
        """Return what the pipeline did so far."""
        elapsed, waited = self._elapsed(), self._waited()
        tally, workers = self._tally.with_crew(self._crew), self._crew_stats()
        rate = 1 / elapsed if elapsed else 0.0
        return PipelineStats(
            self._places.epoch, tally.items, tally.skipped, tally.bytes, tally.copies, tally.restarted, tally.start_s,
            tally.wait_s, elapsed, tally.items * rate, tally.bytes * rate, waited, workers, self._verdict(workers),
        )  # fmt: skip

    def _elapsed(self) -> float:
        return self._ended_s + (0.0 if self._began is None else time.perf_counter() - self._began)

    def _waited(self) -> float:
        tally = self._tally.with_crew(self._crew)
        elapsed = self._elapsed() - tally.start_s
        return min(1.0, tally.wait_s / elapsed) if elapsed > 0 else 0.0

    def _crew_stats(self) -> tuple[WorkerStats, ...]:
        if self._crew is None:
            return self._last_workers
        return tuple(WorkerStats.of(member) for member in self._crew.members)

    def _verdict(self, workers: tuple[WorkerStats, ...] | None = None) -> str:
        workers = self._crew_stats() if workers is None else workers
        threads = self._workers if self._options.start == "thread" else 0
        elapsed = self._elapsed() - self._tally.with_crew(self._crew).start_s
        return verdict(self._waited(), elapsed, workers, threads=threads, cores=usable_cores(), ordered=self._ordered)

    def close(self) -> None:
        """End the workers, in a few seconds at most; items that you hold stay valid. May be called again."""
        self._closed = True
        try:
            self._end_epoch(given_up=True)
        finally:  # a warning may be an error
            self._end_crew()

    def __enter__(self) -> MpQItr[T]:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __reduce__(self) -> Any:
        raise TypeError(
            f"a pipeline stays in the process that made it, and cannot be pickled: make MpQItr({self._job.name}, ...) "
            "where it is iterated"
        )

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"epoch {self._places.epoch}"
        return f"<MpQItr {self._job.name}: {self._workers} workers, {self._job.lanes} lanes, {state}>"


class _Epoch(Iterator[T]):
    """One pass. It keeps the pipeline alive, and not the other way round: dropping it may end the workers."""

    def __init__(self, pipe: MpQItr[T], number: int) -> None:
        self._pipe = pipe
        self._number = number
        self._ended = False

    def __next__(self) -> T:
        with self._pipe._taking:
            if self._ended:
                raise StopIteration
            try:
                return self._pipe._next_item(self._number)
            except BaseException:
                self._ended = True
                raise


# What each option is unless it is given.
_DEFAULTS = {
    name: parameter.default
    for name, parameter in inspect.signature(MpQItr).parameters.items()
    if name in {field.name for field in dataclasses.fields(Options)}
}
