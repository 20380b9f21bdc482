"""The crash table: where a worker dies, how, and how it was started; and what is heard of it, within how long.

An error arrives at its place, after all items before it; a death is noticed within a second (two are allowed here, for
machines that are busy with other things); and the leak fixture sees to it that nothing is left of anybody.
"""

import functools
import time
from pathlib import Path
from typing import Any

import deaths
import psutil
import pytest

from splitpipe import MpQItr
from splitpipe.errors import ItemError, PipelineClosedError, WorkerDiedError

Expected = tuple[type[BaseException], str]

DIED: dict[str, Expected] = {
    "exception": (deaths.GoneError, "it is gone"),
    "SystemExit": (WorkerDiedError, r"called sys\.exit\(3\) in (worker|thread) 0"),
    "_exit(0)": (WorkerDiedError, r"worker 0 \(pid \d+\) exited with code 0.*os\._exit"),
    "SIGKILL": (WorkerDiedError, r"worker 0 \(pid \d+\) was killed by SIGKILL"),
    "SIGSEGV": (WorkerDiedError, r"(?s)was killed by SIGSEGV.*Segmentation fault"),
    "MemoryError": (MemoryError, "none left"),
    "RLIMIT_AS": (MemoryError, "Unable to allocate 2"),
}
# An exception while an item is pickled tells that the item does not pickle, and why.
UNPICKLED: dict[str, Expected] = {
    "exception": (ItemError, r"item 2 of epoch 0 cannot be sent .*DiesWhenDumped.*it is gone"),
    "MemoryError": (ItemError, "does not pickle .none left"),
    "RLIMIT_AS": (ItemError, "does not pickle .Unable to allocate 2"),
}
BEFORE = {"init": 0, "unpickling": 0, "generator": 2, "serialising": 2, "copy": 2}

TABLE = [
    *[("fork", where, how) for where in BEFORE for how in DIED if where != "unpickling"],
    *[("exec", where, how) for where in BEFORE for how in ("SIGKILL", "_exit(0)")],
    *[("exec", "unpickling", how) for how in DIED if how not in ("SIGKILL", "_exit(0)")],
    *[("exec", "generator", how) for how in DIED if how not in ("SIGKILL", "_exit(0)")],
    *[("thread", where, how) for where in ("init", "generator") for how in ("exception", "SystemExit", "MemoryError")],
]
SLOW = [
    (start, where, how)
    for start in ("spawn", "forkserver")
    for where, how in (
        ("init", "SIGKILL"),
        ("unpickling", "_exit(0)"),
        ("generator", "exception"),
        ("generator", "SIGKILL"),
        ("serialising", "SIGSEGV"),
        ("copy", "RLIMIT_AS"),
    )
]


def _dies(start: str, where: str, how: str, note: Path, size: int = 20_000) -> None:
    kind, message = UNPICKLED.get(how, DIED[how]) if where == "serialising" else DIED[how]
    argument = deaths.DiesWhenLoaded(how, note) if where == "unpickling" else None
    init = deaths.Init(where, how, note)
    with MpQItr(deaths.generate, where, how, note, size, argument, init=init, start=start) as pipe:
        items = iter(pipe)
        for number in range(BEFORE[where]):
            assert (next(items) == number).all()
        with pytest.raises(kind, match=message) as caught:
            next(items)
        noticed = time.monotonic()
        assert type(caught.value).__name__ in (kind.__name__, "_ArrayMemoryError")
        assert noticed - float(note.read_text()) < 2
        with pytest.raises(StopIteration):
            next(items)
        if kind is WorkerDiedError and how != "SystemExit":
            assert psutil.Process().children() == [] or start in ("spawn", "forkserver")
            with pytest.raises(PipelineClosedError):
                iter(pipe)


@pytest.mark.parametrize(("start", "where", "how"), TABLE)
def test_a_death_is_heard_of_at_once(start: str, where: str, how: str, tmp_path: Path) -> None:
    """Each row of the table; arrays of 160 KB, each in a block of its own. `fork` unpickles no job."""
    _dies(start, where, how, tmp_path / "note")


@pytest.mark.usefixtures("helpers_end")
@pytest.mark.parametrize(("start", "where", "how"), SLOW)
def test_the_standard_librarys_processes_are_heard_of_too(start: str, where: str, how: str, tmp_path: Path) -> None:
    """The rows that differ most, for these start slowly."""
    _dies(start, where, how, tmp_path / "note")


@pytest.mark.parametrize("how", ["exception", "_exit(0)", "SIGKILL"])
@pytest.mark.parametrize("where", ["serialising", "copy"])
def test_a_death_with_a_pack_open_is_heard_of_at_once(where: str, how: str, tmp_path: Path) -> None:
    """Arrays of 80 bytes, many of which travel together: what was committed arrives, half an item does not."""
    _dies("fork", where, how, tmp_path / "note", size=13)


@pytest.mark.usefixtures("helpers_end")
@pytest.mark.parametrize(
    ("start", "how"),
    [
        *[("fork", how) for how in ("_exit(0)", "SIGKILL", "SIGSEGV")],
        ("exec", "SIGKILL"),
        ("spawn", "_exit(0)"),
        ("forkserver", "SIGKILL"),
    ],
)
def test_a_death_while_it_waits_for_room_is_heard_of(start: str, how: str, tmp_path: Path) -> None:
    """What it had sent arrives, in order, and then the error."""
    note, when = tmp_path / "note", tmp_path / "when"
    with MpQItr(deaths.blocked, how, note, when, prefetch=1, start=start) as pipe:
        items = iter(pipe)
        next(items)
        _wait_for(lambda: pipe.stats().workers[0].blocked > 0)
        when.touch()
        _wait_for(note.exists)
        arrived: list[int] = []
        with pytest.raises(WorkerDiedError, match=DIED[how][1]):
            arrived.extend(int(item[0]) for item in items)
        assert arrived == [*range(1, len(arrived) + 1)]
        assert len(arrived) in (3, 4)
        assert time.monotonic() - float(note.read_text()) < 2


def _wait_for(condition: Any) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def _has_ended(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.mark.usefixtures("helpers_end")
@pytest.mark.parametrize(
    ("start", "how"),
    [
        *[("fork", how) for how in ("_exit(0)", "SIGKILL", "SIGSEGV")],
        ("exec", "SIGKILL"),
        ("spawn", "SIGKILL"),
        ("forkserver", "_exit(0)"),
    ],
)
def test_a_death_after_the_end_is_heard_of_in_the_next_epoch(start: str, how: str, tmp_path: Path) -> None:
    """At once; and if there is no next epoch, nobody need hear of it."""
    note, when = tmp_path / "note", tmp_path / "when"
    for again in (True, False):
        with MpQItr(deaths.ended, how, note, when, start=start) as pipe:
            (pid,) = pipe
            when.touch()
            _wait_for(functools.partial(_has_ended, pid))
            if again:
                began = time.monotonic()
                with pytest.raises(WorkerDiedError, match=DIED[how][1]):
                    list(pipe)
                assert time.monotonic() - began < 2
        when.unlink()


@pytest.mark.parametrize("start", ["fork", "exec"])
def test_no_room_for_an_item_is_a_memory_error(start: str) -> None:
    """At its place, saying what to do; not a bus error, and the worker lives."""
    size = 1 << 28
    with MpQItr(deaths.large, size, start=start) as pipe:
        items = iter(pipe)
        next(items)
        with pytest.raises(MemoryError, match=r"no shared memory for an item of 268\d+ bytes.*Make smaller batches"):
            next(items)
        assert psutil.pid_exists(pipe.stats().workers[0].pid)


@pytest.mark.parametrize("how", ["exception", "SystemExit", "MemoryError"])
def test_in_the_calling_thread_it_is_the_exception_itself(how: str, tmp_path: Path) -> None:
    """With `workers=0` nothing stands between; SystemExit too means what it says."""
    kind = SystemExit if how == "SystemExit" else DIED[how][0]
    items = iter(MpQItr(deaths.generate, "generator", how, tmp_path / "note", 10, workers=0))
    assert [next(items)[0], next(items)[0]] == [0, 1]
    with pytest.raises(kind) as caught:
        next(items)
    assert caught.value.__cause__ is None
