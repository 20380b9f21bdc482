"""Writers killed anywhere, several at once, and those who watch them."""

import fcntl
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from oracle import in_child, kill_self_at, plain, same

from splitpipe import EmptyNDArray, MmapDict, MpQItr
from splitpipe.arrays.pickle_file import PickleFile

OLD = {"a": 1, "x": np.arange(5), "b": "text"}
STEPS = {
    "insert": (lambda d: d.update({"new": np.ones(3)}), {**OLD, "new": np.ones(3)}),
    "several": (lambda d: d.update({"n1": 1, "n2": EmptyNDArray(3)}), {**OLD, "n1": 1, "n2": np.zeros(3)}),
    "replace": (lambda d: d.__setitem__("a", 2), {"x": OLD["x"], "b": "text", "a": 2}),
    "delete": (lambda d: d.__delitem__("x"), {"a": 1, "b": "text"}),
    "vacuum": (lambda d: d.vacuum(), OLD),
    "create": (lambda d: None, {}),
}


def _fill(path: Path) -> None:
    d = MmapDict(path)
    d["x"] = np.zeros(1000)  # something to clear out
    d.update(OLD)
    del d["a"]
    d["a"] = 1
    d.update({key: d[key] for key in OLD if key != "x"} | {"x": OLD["x"]})


def _same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Compare; a key that is being replaced may still be in its old place, or in its new one."""
    return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)


@pytest.mark.parametrize("name", sorted(STEPS))
@pytest.mark.parametrize("durability", ["none", "commit"])
def test_a_writer_killed_at_any_call_leaves_the_state_before_or_after(
    tmp_path: Path, name: str, durability: str
) -> None:
    """For Python's unpickler too; who was watching sees it, and the next writer goes on."""
    work, after = STEPS[name]
    outcomes = set[str]()
    code, number = 1, 0
    while code:
        path = tmp_path / f"{number}.pickle"
        before: Any = None
        if name != "create":
            _fill(path)
            before = plain(path)
            watcher = MmapDict(path, readonly=True)

        def change(path: Path = path, number: int = number) -> None:
            kill_self_at(number)
            work(MmapDict(path, durability=durability))

        code = in_child(change)
        assert code in (0, -signal.SIGKILL)
        found = plain(path) if path.exists() else None
        is_old = found is None if before is None else _same(found or {}, before)
        assert is_old or {key: str(found[key]) for key in found} == {key: str(after[key]) for key in after}  # type: ignore[index]
        outcomes |= {"old"} if is_old else {"new"}
        outcomes |= {"new"} if name == "vacuum" and path.stat().st_size < 2000 else set()
        if before is not None:
            watcher.refresh()
            assert _same(watcher, found)
            watcher.close()
        with MmapDict(path) as d:
            assert _same(d, found or {})
            d["next"] = 5
            expected = {**(found or {}), "next": 5}
            assert _same(plain(path), expected)
            d.vacuum()
            assert _same(plain(path), expected)
        number += 1
    assert outcomes == {"old", "new"}
    assert number > 4


def test_an_entry_whose_successor_was_killed_before_it_could_delete_it_never_comes_back(tmp_path: Path) -> None:
    """Deleting a key deletes whatever of it a killed writer left."""
    for number in range(60):
        path = tmp_path / f"{number}.pickle"
        MmapDict(path).update({"a": 1, "b": 2})

        def replace(path: Path = path, number: int = number) -> None:
            kill_self_at(number)
            MmapDict(path)["a"] = 3

        code = in_child(replace)
        d = MmapDict(path)
        del d["a"]
        assert plain(path) == {"b": 2} == dict(MmapDict(path))
        if code == 0:
            break
    assert code == 0


def _hold(path: Path) -> tuple[int, int]:
    """Start a process that stops for good in the middle of a change, with the lock; return it and its pipe."""
    ready, told = os.pipe()
    child = os.fork()
    if child == 0:
        write = os.pwrite

        def stop(*args: Any) -> int:
            os.write(told, b"x")
            signal.pause()
            return write(*args)

        d = MmapDict(path)
        d["x"]
        os.pwrite = stop
        d["never"] = 1
    os.close(told)
    assert os.read(ready, 1) == b"x"
    return child, ready


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_killed_writer_leaves_no_lock_and_readers_do_not_wait_for_a_living_one(tmp_path: Path) -> None:
    """While one holds the lock, reading and refreshing go on; the next writer goes on when it is killed."""
    path = tmp_path / "d.pickle"
    d, watcher = MmapDict(path), MmapDict(path, readonly=True)
    d["x"] = np.arange(3)
    holder, ready = _hold(path)
    waiting = threading.Thread(target=lambda: d.update({"y": 2}))
    waiting.start()

    assert watcher.refresh()
    assert watcher["x"].tolist() == [0, 1, 2]
    assert dict(MmapDict(path, readonly=True)).keys() == {"x"}
    waiting.join(0.2)
    assert waiting.is_alive()
    os.kill(holder, signal.SIGKILL)
    waiting.join(5)
    assert not waiting.is_alive()
    os.waitpid(holder, 0)
    os.close(ready)
    assert plain(path).keys() == {"x", "y"}


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_child_forked_while_a_thread_writes_does_not_keep_the_lock(tmp_path: Path) -> None:
    """Neither by the descriptor of the lock nor by that of a map; and the child can write itself."""
    path = tmp_path / "d.pickle"
    d = MmapDict(path)
    d["x"] = np.arange(3)
    view = d["x"]
    entered, leave = threading.Event(), threading.Event()

    def slow() -> Any:
        entered.set()
        assert leave.wait(20)
        yield "slow", 1

    writing = threading.Thread(target=lambda: d.update(slow()))
    with d._file._file.turn():  # type: ignore[union-attr]
        ready, told = os.pipe()
        child = os.fork()
        if child == 0:
            os.write(told, b"x")
            signal.pause()
        assert os.read(ready, 1) == b"x"
    with path.open("rb+") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(ready)
    os.close(told)
    writing.start()
    leave.set()
    writing.join()
    assert entered.is_set()
    assert in_child(lambda: d.update({"child": 2})) == 0
    assert d.refresh()
    assert dict(d)["child"] == 2
    assert view.tolist() == [0, 1, 2]


def test_writers_in_several_processes_and_threads_lose_nothing(tmp_path: Path) -> None:
    """Four processes of two threads each, inserting, replacing and clearing out."""
    path = tmp_path / "d.pickle"
    d = MmapDict(path)

    def write(name: str) -> None:
        for i in range(40):
            d[f"{name}-{i % 20}"] = np.full(10, i)
            if i % 15 == 14:
                d.vacuum()

    def work(process: int) -> None:
        threads = [threading.Thread(target=write, args=(f"{process}.{t}",)) for t in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=work, args=(number,)) for number in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
        process.close()
    assert d.refresh()
    for found in (d, plain(path)):
        assert len(found) == 4 * 2 * 20
        assert all(found[key].tolist() == [int(key.rpartition("-")[2]) + 20] * 10 for key in found)
    assert d.commit_number >= 4 * 2 * 40


def test_threads_read_while_others_write_and_clear_out(tmp_path: Path) -> None:
    """One object, and another on the same file: nothing is read at the place of something else."""
    path = tmp_path / "d.pickle"
    d, other = MmapDict(path), MmapDict(path)
    d.update({f"k{i}": [i] * i for i in range(50)})
    other.refresh()
    failed: list[BaseException] = []
    done = threading.Event()

    def read(found: MmapDict) -> None:
        try:
            while not done.wait(0.001):  # the lock of an object is not fair, and the writers are to have a turn
                found.refresh()
                assert all(found[f"k{i}"] == [i] * i for i in range(50))
        except BaseException as exc:  # noqa: BLE001  a thread's own would be lost
            failed.append(exc)

    threads = [threading.Thread(target=read, args=(found,)) for found in (d, d, other)]
    for thread in threads:
        thread.start()
    for i in range(16):
        writer = (d, other)[i % 2]
        writer[f"k{i % 50}"] = [i % 50] * (i % 50)
        if i % 3 == 0:
            writer.vacuum()
    done.set()
    for thread in threads:
        thread.join()
    assert not failed


def test_a_watching_process_sees_each_state_whole(tmp_path: Path) -> None:
    """Keys come in the order of writing, two at a time, with the values that they had when they came."""
    path = tmp_path / "d.pickle"
    d = MmapDict(path)
    code = """
import sys
from splitpipe import MmapDict
d = MmapDict(sys.argv[1], readonly=True)
states = 0
while "end" not in d:
    number = d.commit_number
    if d.refresh():
        states += 1
        live = [key for key in d if key != "end"]
        assert len(live) % 2 == 0, live
        assert all((d[key] == int(key[1:])).all() and len(d[key]) == 1000 for key in live)
    else:
        assert number <= d.commit_number
print(states, len(d))
"""
    watcher = subprocess.Popen([sys.executable, "-c", code, path], stdout=subprocess.PIPE, text=True)
    for i in range(300):
        d.update({f"a{i}": np.full(1000, i), f"b{i}": np.full(1000, i)})
    d["end"] = True
    printed, _ = watcher.communicate(timeout=60)

    assert watcher.returncode == 0
    assert printed.split()[1] == "601"


@pytest.mark.parametrize("again", [False, True])
def test_entries_that_come_while_a_reader_reads_are_read_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, again: bool
) -> None:
    """What the reader has mapped ends in the middle of them."""
    path = tmp_path / "d.pickle"
    d, reader = MmapDict(path), MmapDict(path, readonly=True)
    d["first"] = 1
    mapped, late = PickleFile._mapped, iter(range(3))

    def and_then(self: PickleFile, least: int) -> Any:
        data = mapped(self, least)
        if self is not d._file and (number := next(late, None)) is not None:
            d[f"late {number}"] = np.ones(10_000)
        return data

    monkeypatch.setattr(PickleFile, "_mapped", and_then)
    if again:
        reader.refresh()
    else:
        reader = MmapDict(path, readonly=True)
    assert list(reader) == ["first", "late 0", "late 1", "late 2"]


def test_commit_number_and_refresh_tell_what_happened(tmp_path: Path) -> None:
    """One for each change; nothing to refresh when it stays; clearing out by another is seen too."""
    path = tmp_path / "d.pickle"
    d, other = MmapDict(path), MmapDict(path)
    assert d.commit_number == 0
    d["a"] = 1
    d["a"] = 2
    assert "a" not in other
    assert (d.commit_number, other.commit_number) == (2, 2)
    assert other.refresh()
    assert not other.refresh()
    assert other["a"] == 2
    del d["a"]
    assert other["a"] == 2  # what was opened stays until it is refreshed
    assert other.refresh()
    assert "a" not in other
    d["b"] = np.arange(3)
    d.vacuum()
    other["c"] = 3  # writes to the newest state
    assert list(other) == ["b", "c"]
    assert d.refresh()
    assert d.commit_number == other.commit_number > 3
    assert plain(path).keys() == {"b", "c"}


def _child_writes(d: MmapDict) -> int:
    d["x"][0] = 42
    d["child"] = os.getpid()
    return len(d)


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_it_can_be_passed_to_a_child_process(tmp_path: Path) -> None:
    """Inherited, or pickled for a fresh interpreter; arrays written to there are written to here."""
    d = MmapDict(tmp_path / "d.pickle")
    d["x"] = np.arange(3)
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert pool.apply(_child_writes, (d,)) == 2
        pool.close()
        pool.join()
    assert d["x"].tolist() == [42, 1, 2]
    code = "import pickle, sys; d = pickle.load(sys.stdin.buffer); d['x'][1] = 43; d['fresh'] = len(d)"
    subprocess.run([sys.executable, "-c", code], input=pickle.dumps(d), check=True)
    assert d["x"].tolist() == [42, 43, 2]
    assert d.refresh()
    assert d["child"] != os.getpid()
    copy = pickle.loads(pickle.dumps(MmapDict(d.path, readonly=True, allow_pickle=True)))
    assert (copy.readonly, copy.allow_pickle, list(copy)) == (True, True, ["x", "child", "fresh"])


def test_a_generator_in_a_worker_maps_and_does_not_copy(tmp_path: Path) -> None:
    """Opened there, or given; a large sparse array would not fit otherwise."""
    d = MmapDict(tmp_path / "d.pickle")
    d["x"] = EmptyNDArray((1 << 36,), "u1")
    d["x"][-1] = 9

    def generator(path: Path, given: MmapDict) -> Any:
        for found in (MmapDict(path, readonly=True), given):
            yield type(found["x"]).__name__, len(found["x"]), int(found["x"][-1])

    with MpQItr(generator, d.path, d, workers=1) as pipe:
        assert list(pipe) == [("memmap", 1 << 36, 9)] * 2
