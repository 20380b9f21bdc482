"""What a pipeline tells of itself: figures, a verdict, a bar, a timeline, and errors that say who is stuck."""

import dataclasses
import itertools
import json
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from splitpipe import MpQItr, SplitDataLoader, current_lane, write_split_data
from splitpipe.errors import CorruptDataError, WorkerDiedError, WorkerTimeoutError
from splitpipe.pipeline.stats import PipelineStats, WorkerStats, verdict

LARGE = 20_000


def _arrays(total: int, pause: float = 0.0) -> Iterator[Any]:
    lane = current_lane()
    for number in range(lane.index, total, lane.count):
        if pause:
            time.sleep(pause)
        yield np.full(LARGE, number)


def _spinning(seconds: float) -> None:
    """Keep a core busy."""
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        pass


def _computed(total: int, seconds: float) -> Iterator[Any]:
    lane = current_lane()
    for number in range(lane.index, total, lane.count):
        _spinning(seconds)
        yield number


# --- stats()


def test_stats_tell_what_was_done() -> None:
    """In the middle of an epoch and after the end; frozen, and each field in its documentation."""
    with MpQItr(_arrays, 40, workers=2, start="fork", prefetch=2) as pipe:
        before = pipe.stats()
        items = iter(pipe)
        held = [next(items) for _ in range(10)]
        time.sleep(0.3)
        during = pipe.stats()
        rest = list(items)
        after = pipe.stats()
    closed = pipe.stats()

    assert (before.epoch, before.items, before.workers, before.verdict) == (-1, 0, (), "too early to tell")
    assert (during.epoch, during.items, after.items, len(held) + len(rest)) == (0, 10, 40, 40)
    assert 10 * LARGE * 8 < during.received_bytes < 11 * LARGE * 8
    assert 0.3 < during.elapsed_s < 30
    assert during.items_per_s == pytest.approx(10 / during.elapsed_s)
    assert during.bytes_per_s == pytest.approx(during.received_bytes / during.elapsed_s)
    assert 0 <= during.wait_s <= during.elapsed_s
    assert during.waited == pytest.approx(during.wait_s / (during.elapsed_s - during.start_s), rel=0.05)
    assert 0 < during.start_s < during.elapsed_s - 0.3
    assert (during.skipped, during.restarted) == (0, 0)
    assert 0 < during.copies < 10 < after.copies
    assert [worker.worker for worker in during.workers] == [0, 1]
    for worker in during.workers:
        assert worker.busy + worker.blocked + worker.starved == pytest.approx(1)
        assert worker.blocked > 0.3
        assert worker.memory_bytes > 5_000_000
        assert worker.pid != os.getpid()
    for worker in after.workers:
        assert worker.queued == 0
    assert (closed.items, closed.copies, closed.received_bytes) == (40, after.copies, after.received_bytes)
    assert [worker.pid for worker in closed.workers] == [worker.pid for worker in after.workers]
    with pytest.raises(dataclasses.FrozenInstanceError):
        after.items = 3  # type: ignore[misc]
    for kind in (PipelineStats, WorkerStats):
        assert all(f"{field.name}: " in str(kind.__doc__) for field in dataclasses.fields(kind))


@pytest.mark.parametrize("way", [{"workers": 0}, {"workers": 2, "start": "thread"}], ids=str)
def test_stats_of_the_calling_thread_and_of_threads(way: dict[str, Any]) -> None:
    """They have no worker processes to tell of."""
    with MpQItr(_arrays, 10, 0.01, **way) as pipe:
        list(pipe)
        stats = pipe.stats()
    assert (stats.items, stats.received_bytes, stats.copies, stats.workers) == (10, 0, 0, ())
    assert stats.waited > 0.5
    assert ("making items takes" if way["workers"] == 0 else "the 2 threads are the bottleneck") in stats.verdict


# --- the verdict


def test_a_slow_consumer_is_named() -> None:
    """It waits for nobody."""
    with MpQItr(_arrays, 60, workers=2, start="fork") as pipe:
        for _ in pipe:
            time.sleep(0.02)
        assert pipe.stats().verdict.startswith("the consumer is the bottleneck: it waited")


def test_slow_workers_are_named() -> None:
    """Those that compute; the number of workers and cores tells what to do."""
    with MpQItr(_computed, 40, 0.02, workers=1, start="fork") as pipe:
        list(pipe)
        assert "workers are the bottleneck" in pipe.stats().verdict


def test_workers_that_wait_for_something_else_are_named() -> None:
    """Asleep in the generator, they keep nobody's core busy; also if the consumer pauses between epochs."""
    with MpQItr(_arrays, 20, 0.02, workers=2, start="fork") as pipe:
        for _ in range(2):
            list(pipe)
            time.sleep(0.5)
        stats = pipe.stats()
    assert stats.verdict.startswith("the workers are the bottleneck, and do not compute: ")


def test_a_slow_lane_is_named() -> None:
    """Its worker is busy while the others wait for their turn, or are done."""

    def slow_lane() -> Iterator[Any]:
        for number in range(20):
            if current_lane().index == 1:
                time.sleep(0.04)
            yield np.full(LARGE, number)

    def long_lane() -> Iterator[int]:
        for number in range(40 if current_lane().index == 2 else 1):
            time.sleep(0.02)
            yield number

    for generator, worker in ((slow_lane, 1), (long_lane, 2)):
        with MpQItr(generator, workers=3, start="fork", prefetch=1) as pipe:
            list(pipe)
            verdict_given = pipe.stats().verdict
        assert verdict_given.startswith(f"worker {worker} is the bottleneck")
        assert "Give the lanes equal work, or pass ordered=False" in verdict_given


def _worker(number: int, busy: float, blocked: float, computed: float = 1.0) -> WorkerStats:
    return WorkerStats(number, 1, busy, blocked, 1 - busy - blocked, 0, 0, computed * busy)


@pytest.mark.parametrize(
    ("waited", "elapsed", "workers", "cores", "expected"),
    [
        (0.9, 0.01, [], 2, "too early to tell"),
        (0.01, 5, [_worker(0, 0.1, 0.9)], 2, "the consumer is the bottleneck: it waited 1% of the time. To be faster"),
        (0.5, 5, [], 2, "making items takes 50% of the time: worker processes would do it"),
        (0.5, 5, [_worker(0, 0.9, 0.1)], 2, "the workers are the bottleneck: .*Use more of them: 2 cores are there"),
        (0.5, 5, [_worker(0, 0.9, 0.1)], 1, "the workers are the bottleneck: .*All 1 cores .* generator faster"),
        (0.5, 5, [_worker(0, 0.2, 0.0)], 1, "the workers are the bottleneck: .*busy 100%"),
        (0.5, 5, [_worker(0, 0.2, 0.8)], 2, "the consumer is the bottleneck now and then: .*larger prefetch"),
        (0.5, 5, [_worker(0, 0.9, 0.1, 0.2)], 2, "the workers are the bottleneck, and do not compute: .*disk, network"),
        (0.5, 5, [_worker(0, 0.9, 0.0), _worker(1, 0.1, 0.9)], 2, "worker 0 is the bottleneck: it was busy 100%"),
        (0.5, 5, [_worker(0, 0.0, 0.0)], 2, "the consumer is the bottleneck now and then"),
    ],
)
def test_the_verdict_follows_from_the_figures(
    waited: float, elapsed: float, workers: list[WorkerStats], cores: int, expected: str
) -> None:
    """Who is the bottleneck, and what to change."""
    assert re.match(expected, verdict(waited, elapsed, tuple(workers), threads=0, cores=cores, ordered=True))


def test_a_bar_shows_the_verdict(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """With the number of items, from the place where an epoch is resumed."""
    monkeypatch.setattr("tqdm.tqdm.monitor_interval", 0)
    with MpQItr(_arrays, 12, 0.02, workers=0, progress=True, length=12) as pipe:
        items = iter(pipe)
        for _ in range(4):
            next(items)
        state = pipe.state_dict()
        list(items)
        shown = capsys.readouterr().err
        assert "epoch 0" in shown
        assert "12/12" in shown
        assert "making items takes" in shown
        pipe.load_state_dict(state)
        list(pipe)
        assert "12/12" in capsys.readouterr().err


# --- trace=


def _events(path: Path) -> list[dict[str, Any]]:
    text = path.read_text().rstrip()
    try:
        events = json.loads(text)
    except json.JSONDecodeError:
        events = json.loads(text.rstrip(",") + "]")  # as the format allows
    assert isinstance(events, list)
    return events


@pytest.mark.parametrize("ordered", [True, False])
def test_a_trace_tells_who_did_what_when(tmp_path: Path, ordered: bool) -> None:
    """Per lane: produced, serialised, sent, waited for room; and here: waited and delivered."""
    path = tmp_path / "trace.json"
    options = {"workers": 2, "lanes": 3, "start": "fork", "prefetch": 1, "ordered": ordered}
    with MpQItr(_arrays, 60, trace=path, **options) as pipe:
        for _ in range(2):
            for _ in pipe:
                time.sleep(0.002)
    events = _events(path)

    names = {event["args"]["name"]: event["pid"] for event in events if event["ph"] == "M"}
    assert names.keys() == {"main process", "worker 0", "worker 1"}
    spans = [event for event in events if event["ph"] == "X"]
    assert all(event["dur"] >= 0 and event["ts"] > 0 for event in spans)
    seen: dict[str, dict[str, set[int]]] = {}
    for event in spans:
        process = next(name for name, pid in names.items() if pid == event["pid"])
        assert event["tid"] == event["args"]["lane"]
        seen.setdefault(event["name"], {}).setdefault(process, set()).add(event["tid"])
    worked = {"worker 0": {0, 2}, "worker 1": {1}}
    for name in ("produce", "serialise", "send", "wait for room"):
        assert seen[name] == worked, name
    for name in ("wait", "deliver"):
        assert seen[name] == {"main process": {0, 1, 2}}, name
    made = [event["args"] for event in spans if event["name"] == "produce"]
    items = {(each["epoch"], each["lane"], each["item"]) for each in made}
    assert items >= set(itertools.product(range(2), range(3), range(20)))
    assert len([event for event in spans if event["name"] == "deliver"]) == 2 * (60 + 3)


def test_a_worker_that_is_killed_spoils_no_trace(tmp_path: Path) -> None:
    """What it had not written is missing, and the rest can be read."""
    path = tmp_path / "trace.json"
    with MpQItr(_arrays, 30, trace=str(path), start="fork", restarts=1) as pipe:
        list(pipe)
        os.kill(pipe.stats().workers[0].pid, 9)
        list(pipe)
    produced = [event for event in _events(path) if event["name"] == "produce"]
    assert len({event["pid"] for event in produced}) == 2


def test_a_trace_that_cannot_be_written_is_an_error_at_once(tmp_path: Path) -> None:
    """Before any worker is started."""
    with pytest.raises(FileNotFoundError):
        MpQItr(_arrays, 3, trace=tmp_path / "missing" / "trace.json")


# --- workers="auto"


def test_the_number_of_workers_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer, if they wait for the consumer; more, if it waits for them; the items are the same all along."""
    monkeypatch.setattr("splitpipe.pipeline.options.usable_cores", lambda: 3)
    monkeypatch.setattr("splitpipe.pipeline.pipeline.usable_cores", lambda: 3)
    slow = tmp_path / "slow"

    def generate() -> Iterator[Any]:
        lane = current_lane()
        for number in range(lane.index, 36, lane.count):
            if slow.exists():
                time.sleep(0.03)
            yield np.full(LARGE, number)

    counts = []
    with MpQItr(generate, workers="auto", start="fork", prefetch=1) as pipe:
        for epoch in range(4):
            for number, item in enumerate(pipe):
                assert item[0] == number
                if epoch == 0:
                    time.sleep(0.03)
            counts.append(len(pipe.stats().workers))
            if epoch == 0:
                slow.touch()
        assert pipe.stats().items == 144
    assert counts[:2] == [3, 2]
    assert counts[-1] == 3


# --- who is stuck, and who died


@pytest.mark.parametrize("start", ["exec", "fork", "thread"])
def test_a_timeout_tells_where_the_generator_is(start: str) -> None:
    """With the stack of the worker, as it is in Python."""

    def stuck_right_here() -> None:
        deadline = time.monotonic() + 1.5
        while time.monotonic() < deadline:
            time.sleep(0.01)

    def generate() -> Iterator[int]:
        yield 1
        stuck_right_here()
        yield 2

    with MpQItr(generate, start=start, timeout=0.6) as pipe:
        message = "still starting"
        while "still starting" in message:  # a worker may be slow at that, too
            with pytest.raises(WorkerTimeoutError) as caught:
                list(pipe)
            message = str(caught.value)
    assert "nothing came from lane 0" in message
    assert "for 0.6 s" in message
    assert "stuck_right_here" in message
    assert "in generate" in message


@pytest.mark.parametrize("start", ["exec", "fork"])
def test_a_death_tells_how_much_memory_there_was(start: str) -> None:
    """At the most; it is what a kill for want of memory is about."""

    def generate() -> Iterator[int]:
        much = np.ones(15_000_000)  # 120 MB, which are given back before
        yield int(much[0])
        del much
        os.abort()

    with MpQItr(generate, start=start) as pipe, pytest.raises(WorkerDiedError, match="SIGABRT") as caught:
        list(pipe)
    words = str(caught.value).split("having used up to ")[1]
    assert 120 < int(words.split(" MB of memory")[0]) < 2000
    assert caught.value.worker == 0
    assert caught.value.exitcode == -6
    assert not psutil.pid_exists(caught.value.pid)


# --- on_error


class _Source(Iterator[int]):
    """Gives 0 to 9, but for the multiples of 4."""

    def __init__(self) -> None:
        self._numbers = iter(range(10))
        current_lane()

    def __next__(self) -> int:
        number = next(self._numbers)
        if number % 4 == 0:
            raise ValueError(f"no {number}")
        return number


class _Broken(Iterator[int]):
    def __next__(self) -> int:
        raise ValueError("never")


WAYS = [{"workers": 0}, {"workers": 1, "start": "fork"}, {"workers": 2, "start": "thread"}]


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_a_source_that_can_go_on_is_raised_skipped_or_told(way: dict[str, Any]) -> None:
    """As asked; what was skipped is counted, and its place is an item's place."""
    with MpQItr(_Source, lanes=1, **way) as pipe, pytest.raises(ValueError, match="no 0"):
        list(pipe)
    with MpQItr(_Source, lanes=1, on_error="skip", **way) as pipe:
        assert list(pipe) == list(pipe) == [1, 2, 3, 5, 6, 7, 9]
        assert (pipe.stats().items, pipe.stats().skipped) == (14, 6)
        items = iter(pipe)
        assert [next(items) for _ in range(4)] == [1, 2, 3, 5]
        state = pipe.state_dict()
    assert state["items"] == [6]
    told: list[BaseException] = []
    with MpQItr(_Source, lanes=1, on_error=told.append, **way) as pipe:
        pipe.load_state_dict(state)
        assert list(pipe) == [6, 7, 9]
        assert [str(error) for error in told] == ["no 8"]
        assert list(pipe) == [1, 2, 3, 5, 6, 7, 9]
        assert [str(error) for error in told] == ["no 8", "no 0", "no 4", "no 8"]


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_a_source_that_cannot_go_on_is_raised(way: dict[str, Any]) -> None:
    """A generator that raised is over; a source that only fails is given up; a function may raise by itself."""

    def generate() -> Iterator[int]:
        yield 1
        raise ValueError("over")

    def no(error: BaseException) -> None:
        raise LookupError("no more of this") from error

    for source, handler, kind, message in (
        (generate, "skip", ValueError, "over"),
        (_Broken, "skip", ValueError, "never"),
        (_Source, no, LookupError, "no more of this"),
    ):
        with MpQItr(source, lanes=1, on_error=handler, **way) as pipe, pytest.raises(kind, match=message):
            list(pipe)


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_batches_go_on_after_one_that_is_damaged(tmp_path: Path, way: dict[str, Any]) -> None:
    """The one that holds the damaged record is left out, and told of; all others come."""
    write_split_data(tmp_path, (b"%02d" % number * 50 for number in range(40)), splits=4)
    with SplitDataLoader(tmp_path) as data, data.batches(5, shuffle=False) as pipe:
        whole = list(pipe)
    bins = sorted(tmp_path.rglob("*.bin"))
    content = bytearray(bins[1].read_bytes())
    content[len(content) // 2] ^= 1
    bins[1].write_bytes(content)
    told: list[BaseException] = []
    with SplitDataLoader(tmp_path) as data:
        with data.batches(5, shuffle=False, on_error=told.append, **way) as pipe:
            arrived = list(pipe)
            assert pipe.stats().skipped == len(told)
        with data.batches(5, shuffle=False, **way) as pipe, pytest.raises(CorruptDataError):
            list(pipe)
    assert arrived == whole[:3] + whole[4:]
    assert [type(error) for error in told] == [CorruptDataError]
    assert bins[1].name in str(told[0])


def test_a_transform_that_fails_for_one_batch_leaves_it_out(tmp_path: Path) -> None:
    """Which one does not depend on the workers."""
    write_split_data(tmp_path, (b"%02d" % number for number in range(30)), splits=3)

    def transform(batch: list[bytes]) -> list[bytes]:
        if b"07" in batch:
            raise ValueError("not this one")
        return batch

    runs: list[Any] = []
    makers: list[Callable[[SplitDataLoader[Any]], MpQItr[Any]]] = [
        lambda data: data.batches(4, transform=transform, on_error="skip"),
        lambda data: data.batches(4, transform=transform, on_error="skip", workers=3, start="fork"),
    ]
    with SplitDataLoader(tmp_path) as data:
        for make in makers:
            with make(data) as pipe:
                runs.append([*pipe, *pipe])
                assert pipe.stats().skipped == 2
    assert runs[0] == runs[1]
    assert len(runs[0]) == 14
