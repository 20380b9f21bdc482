"""Whoever fails, and however: an error at its place in the order, at once, with its cause; and a clean end."""

import contextlib
import ctypes
import gc
import os
import pickle
import resource
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from splitpipe import MpQItr, current_lane
from splitpipe.errors import (
    GeneratorError,
    ItemError,
    JobError,
    PipelineClosedError,
    RemoteTraceback,
    WorkerDiedError,
    WorkerStartError,
    WorkerTimeoutError,
)


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _crash() -> None:
    ctypes.string_at(0)


def _run_out_of_memory() -> None:
    raise MemoryError("none left")


class _Dies:
    """Dies while it is pickled."""

    def __reduce__(self) -> Any:
        _kill()


class _Raises:
    def __reduce__(self) -> Any:
        raise ValueError("not me")


DEATHS: dict[str, tuple[Callable[[], object], type[BaseException], str]] = {
    "SIGKILL": (_kill, WorkerDiedError, "worker 1 .*killed by SIGKILL.*lane 1 of epoch 0.*out of memory"),
    "SIGSEGV": (_crash, WorkerDiedError, "(?s)killed by SIGSEGV.*Segmentation fault.*string_at"),
    "_exit(0)": (lambda: os._exit(0), WorkerDiedError, "exited with code 0"),
    "_exit(7)": (lambda: os._exit(7), WorkerDiedError, "exited with code 7"),
    "sys.exit": (lambda: sys.exit(3), WorkerDiedError, r"sys\.exit\(3\).*worker 1"),
    "exception": (lambda: {}["missing"], KeyError, "missing"),
    "MemoryError": (_run_out_of_memory, MemoryError, "none left"),
}


@pytest.mark.parametrize("start", ["exec", "fork"])
@pytest.mark.parametrize("death", DEATHS)
def test_a_death_arrives_at_its_place_and_at_once(death: str, start: str) -> None:
    """Worker 1 dies after two items: all that was sent before it arrives, then the error, within a second."""
    die, expected, message = DEATHS[death]

    def generate() -> Iterator[tuple[int, int]]:
        for i in range(10):
            if current_lane().index == 1 and i == 2:
                die()
            yield current_lane().index, i

    pipe = MpQItr(generate, workers=2, start=start)
    items = iter(pipe)
    arrived = [next(items) for _ in range(5)]
    began = time.monotonic()
    with pytest.raises(expected, match=message):
        next(items)

    assert time.monotonic() - began < 1
    assert arrived == [(0, 0), (1, 0), (0, 1), (1, 1), (0, 2)]
    with pytest.raises(StopIteration):
        next(items)
    pipe.close()


@pytest.mark.parametrize("start", ["exec", "fork"])
def test_death_while_pickling_waiting_or_starting_is_noticed(start: str) -> None:
    """In the middle of serialising, before the first item, and while blocked for space."""
    for generator in (lambda: iter([_Dies()]), lambda: _kill()):
        with MpQItr(generator, start=start) as pipe, pytest.raises(WorkerDiedError, match="SIGKILL"):
            next(iter(pipe))

    def endless() -> Iterator[Any]:
        while True:
            yield os.getpid()

    with MpQItr(endless, prefetch=1, start=start) as pipe:
        items = iter(pipe)
        os.kill(next(items), signal.SIGKILL)
        with pytest.raises(WorkerDiedError, match="SIGKILL"):
            list(items)


def test_a_dead_worker_closes_the_pipeline() -> None:
    """The others are ended, and the next use says so."""
    pipe = MpQItr(lambda: _kill() if current_lane().index else iter(range(99)), workers=3)
    with pytest.raises(WorkerDiedError):
        list(pipe)

    assert psutil.Process().children() == []
    with pytest.raises(PipelineClosedError, match="was closed"):
        iter(pipe)


@pytest.mark.parametrize("workers", [0, 1])
def test_exceptions_keep_type_arguments_and_traceback(workers: int) -> None:
    """The same exception, inline or from a worker; from a worker with its remote traceback as cause."""

    def generate() -> Iterator[int]:
        yield 1
        raise OSError(28, "no space", "file.txt")

    with MpQItr(generate, workers=workers) as pipe:
        items = iter(pipe)
        assert next(items) == 1
        with pytest.raises(OSError, match="no space") as caught:
            next(items)
        assert list(pipe.__class__(lambda: [1], workers=workers)) == [1]

    assert (caught.value.errno, caught.value.filename) == (28, "file.txt")
    if workers:
        assert isinstance(caught.value.__cause__, RemoteTraceback)
        assert "in generate" in str(caught.value.__cause__)
        if sys.version_info >= (3, 11):
            assert "lane 0 of 1, item 1 of epoch 0" in caught.value.__notes__[0]


def test_a_pipeline_goes_on_after_an_exception() -> None:
    """The next epoch begins anew, with the same workers."""

    def generate() -> Iterator[int]:
        yield os.getpid()
        if current_lane().epoch == 0:
            raise ValueError("only once")

    with MpQItr(generate) as pipe:
        with pytest.raises(ValueError, match="only once"):
            list(pipe)
        first, second = list(pipe), list(pipe)
        assert first == second


def test_an_exception_that_does_not_pickle_is_told_in_words() -> None:
    """Its type and text are in the message of a GeneratorError."""

    class OddError(Exception):
        def __init__(self, a: int, b: int) -> None:
            super().__init__(f"{a} and {b}")

    def generate() -> Iterator[int]:
        yield from ()
        raise OddError(1, 2)

    with MpQItr(generate) as pipe, pytest.raises(GeneratorError, match=r"raised .*OddError: 1 and 2"):
        list(pipe)


@pytest.mark.parametrize("start", ["exec", "fork"])
def test_an_item_that_does_not_pickle_names_the_part(start: str) -> None:
    """With its path, after the items before it."""
    with MpQItr(lambda: iter([1, {"x": [0, {"lock": threading.Lock()}]}, 3]), start=start) as pipe:
        items = iter(pipe)
        assert next(items) == 1
        with pytest.raises(ItemError, match=r"item 1 of .*item\['x'\]\[1\]\['lock'\], a lock.* does not pickle"):
            next(items)
    with MpQItr(lambda: iter([[_Raises()]])) as pipe, pytest.raises(ItemError, match=r"item\[0\].*not me"):
        next(iter(pipe))


def _lane_number() -> Iterator[int]:
    yield current_lane().index


def _two(a: int, b: int = 0) -> Iterator[int]:
    yield a + b


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MpQItr(3), "got a int: pass the function itself"),  # type: ignore[arg-type]
        (lambda: MpQItr(_two(1)), "got a generator: pass the function itself"),  # type: ignore[arg-type]
        (lambda: MpQItr(_two), r"_two\(.*cannot be called with the arguments given: missing a required argument: 'a'"),
        (lambda: MpQItr(_two, 1, 2, 3), "too many positional arguments"),
        (lambda: MpQItr(_two, 1, c=2), "unexpected keyword argument 'c'"),
        (lambda: MpQItr(_two, 1, rank=0), "rank and world_size go together"),
        (
            lambda: MpQItr(lambda seed=0: [seed], seed=3),
            "an option of MpQItr and a parameter of the generator.*functools.partial",
        ),
        (lambda: MpQItr(_two, 1, workers=1.5), 'workers is an int, or "auto", and got 1.5'),
        (lambda: MpQItr(_two, 1, workers=True), "workers is an int"),
        (lambda: MpQItr(_two, 1, workers=-1), "workers is at least 0, and got -1"),
        (lambda: MpQItr(_two, 1, lanes=0), "lanes is at least 1"),
        (lambda: MpQItr(_two, 1, prefetch=0), "prefetch is at least 1"),
        (lambda: MpQItr(_two, 1, seed=-1), "seed is at least 0"),
        (lambda: MpQItr(_two, 1, start="threads"), 'start is one of "exec", "fork", "spawn"'),
        (lambda: MpQItr(_two, 1, timeout=0), "timeout is a number of seconds above 0"),
    ],
)
def test_a_wrong_call_is_refused_when_made(make: Callable[[], object], message: str) -> None:
    """Before any process is started; as the TypeError or ValueError that a caller expects."""
    with pytest.raises((TypeError, ValueError), match=message):
        make()


@pytest.mark.parametrize("workers", [0, 1])
def test_a_function_that_returns_no_iterable_is_named(workers: int) -> None:
    """As a JobError, also inline."""
    with MpQItr(lambda: 5, workers=workers) as pipe, pytest.raises(JobError, match="returned a int; a generator"):  # type: ignore[arg-type,return-value]
        list(pipe)


def test_an_argument_that_cannot_be_sent_is_named() -> None:
    """By its place or keyword."""
    lock = threading.Lock()
    for pipe, name in ((MpQItr(_two, 1, lock), "argument 1 of _two"), (MpQItr(_two, a=lock), "argument a= of _two")):
        with pytest.raises(JobError, match=f"{name}, a lock, cannot be sent to a worker"):
            iter(pipe)


def test_an_error_of_init_arrives() -> None:
    """With the word that it was at the start."""

    def init(worker: int) -> None:
        raise LookupError(f"no model for {worker}")

    with MpQItr(_two, 1, init=init) as pipe, pytest.raises(LookupError, match="no model for 0") as caught:
        list(pipe)
    if sys.version_info >= (3, 11):
        assert "while it started" in caught.value.__notes__[0]


def test_a_slow_generator_runs_into_the_timeout() -> None:
    """Naming the lane; and close does not wait for it long."""
    with MpQItr(lambda: (time.sleep(60) for _ in range(1)), timeout=0.2) as pipe:
        with pytest.raises(WorkerTimeoutError, match=r"lane 0 \(worker 0, pid \d+\) for 0.2 s"):
            next(iter(pipe))
        began = time.monotonic()
    assert time.monotonic() - began < 5


def test_break_and_begin_again_many_times_grows_nothing() -> None:
    """A hundred epochs given up at different items: the right items, the same workers, the same descriptors."""

    def generate() -> Iterator[tuple[int, Any]]:
        current_lane()
        for i in range(20):
            yield os.getpid(), np.full(3000, i)

    with MpQItr(generate, workers=2) as pipe:
        workers, counts = set[int](), list[int]()
        for epoch in range(100):
            for taken, (pid, item) in enumerate(pipe):
                assert item[0] == taken // 2
                workers.add(pid)
                if taken == epoch % 30:
                    break
            counts.append(len(list(Path("/proc/self/fd").iterdir())))
            assert pipe.stats().epoch == epoch
        assert len(workers) == 2
        assert max(counts) - counts[0] <= 2 * (4 + 3)  # each slot is mapped at its first use, and never again


def test_the_generators_finally_runs_on_break_and_close(tmp_path: Path) -> None:
    """At the next epoch, and at the end."""

    def generate() -> Iterator[int]:
        epoch = current_lane().epoch
        try:
            yield from range(1000)
        finally:
            (tmp_path / f"closed-{epoch}").touch()

    with MpQItr(generate) as pipe:
        for _ in range(3):
            next(iter(pipe))
        list(pipe)
        # The next epoch may have been begun early, and be over too.
        assert {f"closed-{epoch}" for epoch in range(4)} <= {path.name for path in tmp_path.iterdir()}
        next(iter(pipe))
    assert (tmp_path / "closed-4").exists()


def test_the_iterator_of_an_older_epoch_says_so() -> None:
    """Instead of mixing epochs."""
    with MpQItr(_two, 1) as pipe:
        old = iter(pipe)
        new = iter(pipe)
        with pytest.raises(PipelineClosedError, match=r"epoch 0 is over: .* is in epoch 1"):
            next(old)
        assert list(new) == [1]
        last = iter(pipe)
    with pytest.raises(PipelineClosedError, match="was closed"):
        next(last)


def test_dropping_the_last_reference_ends_the_workers_at_once() -> None:
    """Without close and without a garbage collection: after a break, after exhaustion, and never iterated."""
    gc.disable()
    try:
        for _ in MpQItr(lambda: iter(range(100)), workers=2):
            break
        assert list(MpQItr(lambda: iter(range(3)))) == [0, 1, 2]
        MpQItr(_two, 1)
        assert psutil.Process().children() == []
    finally:
        gc.enable()


def test_next_works_as_on_an_iterator() -> None:
    """As code written for splitdataloader does."""
    with MpQItr(lambda: iter("abc")) as pipe:
        assert [next(pipe), next(pipe), next(pipe)] == ["a", "b", "c"]
        assert next(pipe, "end") == "end"


def test_a_forked_child_does_no_harm() -> None:
    """It cannot use the pipeline, its end frees nothing, and the parent goes on."""
    with MpQItr(lambda: (np.full(5000, i) for i in range(50))) as pipe:
        items = iter(pipe)
        held = next(items)
        child = os.fork()
        if child == 0:
            code = 1
            with contextlib.suppress(PipelineClosedError):
                del held
                gc.collect()
                for _ in range(50):
                    next(items)
                code = 2
            with contextlib.suppress(BaseException):
                pipe.close()
                code = 0 if code == 1 else code
            os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert [int(item[0]) for item in items] == list(range(1, 50))
        assert (held == 0).all()


def test_a_pipeline_in_a_worker_of_another_works() -> None:
    """Workers are no daemons: a generator may use a pipeline of its own."""

    def outer() -> Iterator[int]:
        with MpQItr(lambda: iter([1, 2, 3])) as inner:
            yield from inner

    with MpQItr(outer) as pipe:
        assert list(pipe) == [1, 2, 3]


SCRIPT = """
import time
import numpy as np
import psutil
from splitpipe import MpQItr, current_lane

class Batch:
    def __init__(self, x): self.x = x

OFFSET = 5

def helper(i): return Batch(np.full(3, i + OFFSET))

def generate(n):
    current_lane()
    for i in range(n):
        yield helper(i)
        time.sleep(PAUSE)

pipe = MpQItr[Batch](generate, 200, workers=2)
for i, batch in enumerate(pipe):
    assert type(batch) is Batch and isinstance(batch, Batch)
    if i == 3: print("going", *[child.pid for child in psutil.Process().children()], flush=True)
print("done", i, batch.x.tolist(), flush=True)
"""


def _script(tmp_path: Path, pause: float) -> Path:
    path = tmp_path / "unguarded.py"
    path.write_text(SCRIPT.replace("PAUSE", str(pause)))
    return path


def test_a_script_without_a_main_guard_runs(tmp_path: Path) -> None:
    """From a file and from standard input; classes of the script come back as themselves."""
    path = _script(tmp_path, 0)
    for command, stdin in (([sys.executable, "-W", "error", path], None), ([sys.executable, "-"], path.read_text())):
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=60)

        assert done.stderr == ""
        assert "done 399 [204, 204, 204]" in done.stdout


def _pids_of(process: "subprocess.Popen[str]") -> list[int]:
    assert process.stdout is not None
    return [int(word) for word in process.stdout.readline().split()[1:]]


def _gone(pids: list[int], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while any(psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie" for pid in pids):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def test_ctrl_c_gives_one_traceback_and_no_orphan(tmp_path: Path) -> None:
    """Sent to the whole group, as a terminal does."""
    with subprocess.Popen(
        [sys.executable, _script(tmp_path, 0.05)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        workers = _pids_of(process)
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=20)

    assert len(workers) == 2
    assert process.returncode == -signal.SIGINT
    assert errors.count("Traceback") == 1
    assert errors.rstrip().endswith("KeyboardInterrupt")
    assert _gone(workers, 2)


@pytest.mark.parametrize("pause", [0.0005, 30], ids=["busy", "asleep in the generator"])
def test_workers_end_when_the_main_process_is_killed(tmp_path: Path, pause: float) -> None:
    """By SIGKILL, within two seconds, whatever they are doing."""
    script = _script(tmp_path, pause).read_text().replace("if i == 3", "if i == 1")
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        workers = _pids_of(process)
        process.kill()
        process.wait()

    assert len(workers) == 2
    assert _gone(workers, 2)


def test_too_few_descriptors_are_an_error_that_says_so() -> None:
    """At any point of the start, and none of them is lost."""

    def fill() -> None:
        for limit in range(len(list(Path("/proc/self/fd").iterdir())), 60):
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, 100))
            before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208  needs a descriptor less than iterdir
            try:
                with MpQItr(_lane_number, workers=2, start="fork") as pipe:
                    list(pipe)
            except (WorkerStartError, OSError):
                assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208

    child = os.fork()
    if child == 0:
        try:
            fill()
            assert psutil.Process().children() == []
            os._exit(0)
        finally:
            traceback.print_exc()
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_system_without_pidfd_is_told_to_work_inline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Instead of an AttributeError; and inline it works."""
    monkeypatch.delattr(os, "pidfd_open")
    with MpQItr(_two, 1) as pipe, pytest.raises(WorkerStartError, match="use workers=0"):
        iter(pipe)
    assert list(MpQItr(_two, 1, workers=0)) == [1]


@pytest.mark.parametrize("start", ["exec", "fork"])
def test_what_a_generator_prints_appears_once(start: str, tmp_path: Path) -> None:
    """From the main process and from workers, when output goes to a file."""
    script = (
        "from splitpipe import MpQItr\n"
        "print('main')\n"
        f"pipe = MpQItr(lambda: (print('worker') for _ in range(1)), start={start!r})\n"
        "list(pipe)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)

    assert sorted(done.stdout.split()) == ["main", "worker"]


def test_errors_with_fields_cross_processes() -> None:
    """A pipeline's own error raised in a worker arrives with its fields."""
    error = pickle.loads(pickle.dumps(WorkerDiedError("x", worker=3, pid=4, exitcode=-9)))

    assert (error.worker, error.pid, error.exitcode) == (3, 4, -9)
