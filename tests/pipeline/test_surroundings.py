"""Where a pipeline finds itself: in a daemon, in a pool's worker, beside a reaper of children; and with threads."""

import contextlib
import gc
import multiprocessing
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sources

from splitpipe import MpQItr, current_lane
from splitpipe.errors import PipelineClosedError, WorkerDiedError, WorkerStartError

_fork: Any = multiprocessing.get_context("fork")


def _items(start: str) -> list[Any]:
    with MpQItr(sources.plain, 6, lanes=2, workers=2, start=start) as pipe:
        return list(pipe)


@pytest.mark.parametrize("start", ["exec", "fork"])
def test_it_works_in_a_worker_of_a_pool(start: str) -> None:
    """Which is a daemon: it may have no children by multiprocessing, which says so; by these ways it may."""
    with _fork.Pool(1) as pool:
        assert pool.apply(_items, (start,)) == _items("thread")
        with pytest.raises(WorkerStartError, match='a daemon process may not start="spawn" another: use start="exec"'):
            pool.apply(_items, ("spawn",))
        pool.close()
        pool.join()


def _threads_of_libraries() -> Iterator[dict[str, str | None]]:
    yield {name: os.environ.get(name) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}


def test_numeric_libraries_use_one_thread_in_a_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless told otherwise."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv("MKL_NUM_THREADS", "3")
    with MpQItr(_threads_of_libraries) as pipe:
        assert list(pipe) == [{"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "3"}]
    assert "OMP_NUM_THREADS" not in os.environ


def test_the_job_is_serialised_once() -> None:
    """However many workers there are."""
    pickled = []

    class Argument:
        def __reduce__(self) -> Any:
            pickled.append(1)
            return int, (5,)

    def generate(argument: int) -> Iterator[int]:
        yield argument + current_lane().index

    with MpQItr(generate, Argument(), workers=3) as pipe:
        assert list(pipe) == [5, 6, 7]
    assert pickled == [1]


@pytest.mark.parametrize("start", ["exec", "fork"])
def test_somebody_else_may_reap_the_workers(start: str) -> None:
    """SIGCHLD ignored: the kernel forgets how children ended, and a death is a death all the same."""
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        with MpQItr(sources.plain, 6, lanes=2, start=start) as pipe:
            assert list(pipe) == list(MpQItr(sources.plain, 6, lanes=2, workers=0))
        with (
            MpQItr(lambda: os._exit(3), start=start) as pipe,
            pytest.raises(WorkerDiedError, match=r"worker 0 .* ended"),
        ):
            list(pipe)
    finally:
        signal.signal(signal.SIGCHLD, before)


def test_an_init_that_fails_in_a_thread_fails_again() -> None:
    """As in a process: it has not been done."""

    def init(worker: int) -> None:
        raise LookupError(f"no model for {worker}")

    with MpQItr(sources.plain, 4, init=init, start="thread") as pipe:
        for _ in range(2):
            with pytest.raises(LookupError, match="no model for 0"):
                list(pipe)


def test_init_runs_once_in_each_thread() -> None:
    """Over all epochs."""
    seen: list[int] = []
    with MpQItr(sources.plain, 4, init=seen.append, start="thread", workers=2) as pipe:
        for _ in range(3):
            list(pipe)
    assert sorted(seen) == [0, 1]


def test_closing_waits_for_threads_of_epochs_given_up() -> None:
    """Each is busy with one item more, and then ends."""

    def generate() -> Iterator[int]:
        for number in range(100):
            yield number
            time.sleep(0.3)

    with MpQItr(generate, start="thread") as pipe:
        for _ in range(3):
            next(iter(pipe))
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("splitpipe")] == []


@pytest.mark.parametrize("start", ["thread", "fork"])
def test_a_generator_that_raises_when_it_is_closed_is_heard_of_in_the_log(
    start: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody waits for its epoch any more; the next one is whole."""

    def generate() -> Iterator[int]:
        try:
            yield from range(5)
        finally:
            if current_lane().epoch == 0:
                raise RuntimeError("not now")

    with MpQItr(generate, start=start, prefetch=1) as pipe:
        next(iter(pipe))
        assert list(pipe) == [0, 1, 2, 3, 4]
    if start == "thread":
        assert "the generator raised while it was closed, in thread 0" in caplog.text


@pytest.mark.parametrize("start", ["thread", "fork"])
def test_a_fork_of_the_main_process_does_not_use_its_pipeline(start: str) -> None:
    """It is told so, rather than that it waits for ever; and the parent's goes on."""
    with MpQItr(sources.arrays, 30, 9000, start=start, prefetch=1) as pipe:
        items = iter(pipe)
        next(items)
        time.sleep(0.1)  # for what was made ahead to be made
        child = os.fork()
        if child == 0:
            code = 1
            try:
                list(items)
            except PipelineClosedError:
                pipe.close()
                gc.collect()
                code = 0
            finally:
                os._exit(code)
        deadline = time.monotonic() + 10
        ended = 0
        while not ended and time.monotonic() < deadline:
            ended, status = os.waitpid(child, os.WNOHANG)
            time.sleep(0.01)
        if not ended:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        assert ended == child
        assert os.waitstatus_to_exitcode(status) == 0
        assert [int(item[0]) for item in items] == [*range(1, 30)]


def test_many_epochs_grow_nothing() -> None:
    """No descriptor, and no memory to speak of, once the first are over."""
    statm = Path("/proc/self/statm")

    def descriptors() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    with MpQItr(sources.arrays, 10, 9000, workers=2, start="fork") as pipe:
        for epoch in range(250):
            for taken, _ in enumerate(pipe):
                if taken == epoch % 13:
                    break
            if epoch == 100:
                before = descriptors(), int(statm.read_text().split()[1])
        assert descriptors() <= before[0] + 2 * 3  # before 3.13 a map holds one; a block may be mapped late
        assert int(statm.read_text().split()[1]) < before[1] * 1.05


def test_descriptors_that_are_missing_for_a_moment_cost_no_memory() -> None:
    """The item that could not be mapped is an error, and the next epoch has all the room that there was."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    with MpQItr(_arrays, 8, 3_000_000, max_bytes=5_000_000, start="fork", timeout=20) as pipe:
        items = iter(pipe)
        taken = [os.dup(0) for _ in range(3)]
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (max(taken) + 1, before[1]))
            if sys.version_info < (3, 13):  # later, a map needs none
                with pytest.raises(OSError, match="Too many open files"):
                    next(items)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
            for fd in taken:
                os.close(fd)
        assert [int(item[0]) for item in pipe] == list(range(8))


def test_an_interrupt_at_any_instant_leaves_a_pipeline_that_can_go_on() -> None:
    """As a notebook's interrupt of the loop does, or a time limit by signal: the next epoch is whole."""

    def ring(number: int, frame: object) -> None:
        raise InterruptedError("the alarm")

    before = signal.signal(signal.SIGALRM, ring)
    try:
        with MpQItr(_arrays, 60, 20_000, start="fork", timeout=20) as pipe:
            for epoch in range(30):
                items = iter(pipe)  # workers that are late are ended here, and that is not to be interrupted
                with contextlib.suppress(InterruptedError):
                    signal.setitimer(signal.ITIMER_REAL, 0.0002 + 0.0001 * epoch)
                    for _ in items:
                        pass
                    signal.setitimer(signal.ITIMER_REAL, 0)
            assert [int(item[0]) for item in pipe] == [i % 256 for i in range(60)]
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _arrays(count: int, size: int) -> Iterator[Any]:
    for i in range(count):
        yield np.full(size, i % 256, np.uint8)
