"""`restarts=n`: a worker that dies is started again, and every item still comes exactly once, in its place."""

import os
import random
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import sources

from splitpipe import MpQItr, current_lane, write_split_data
from splitpipe.errors import WorkerDiedError, WorkerStartError
from splitpipe.loader import SplitDataLoader
from splitpipe.workers import team


def _expected(generator: Any, *args: Any, lanes: int, epochs: int = 2) -> list[Any]:
    with MpQItr(generator, *args, lanes=lanes, workers=0) as pipe:
        return [_plain(item) for _ in range(epochs) for item in pipe]


def _plain(item: Any) -> Any:
    return item.tolist() if isinstance(item, np.ndarray) else item


def _kill(pipe: MpQItr[Any], worker: int) -> None:
    os.kill(pipe.stats().workers[worker].pid, signal.SIGKILL)


@pytest.mark.parametrize("source", [sources.plain, sources.keeping, sources.unequal, sources.drawn])
def test_killed_at_every_item_gives_every_item_once(source: Any) -> None:
    """From outside, after each item in turn: what had been sent arrives, and the next worker makes the rest."""
    expected = _expected(source, 7, lanes=3)
    with MpQItr(source, 7, lanes=3, workers=2, start="fork", restarts=len(expected)) as pipe:
        arrived = []
        for _ in range(2):
            for item in pipe:
                arrived.append(item)
                _kill(pipe, len(arrived) % 2)
        assert arrived == expected
        stats = pipe.stats()
        assert stats.restarted >= 2
        assert stats.items == len(expected)


@pytest.mark.parametrize("at", range(6))
def test_a_worker_that_kills_itself_goes_on_where_it_was(at: int, tmp_path: Path) -> None:
    """Once, while it makes an item, with items that it made and that were not asked for yet."""

    def generate() -> Iterator[Any]:
        lane = current_lane()
        for number in range(lane.state.get("next", 0), 6):
            marker = tmp_path / f"{lane.index}-{number}"
            if number == at and lane.index < 2 and not marker.exists():
                marker.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            if lane.index:
                lane.state["next"] = number + 1  # lane 0 is run again, the others keep their places
            yield lane.index, np.full(9000 if number % 2 else 9, number)

    with MpQItr(generate, lanes=3, workers=2, start="fork", restarts=2) as pipe:
        arrived = [(lane, int(array[0])) for lane, array in pipe]
        assert pipe.stats().restarted == 2
    assert arrived == [(lane, number) for number in range(6) for lane in range(3)]


@pytest.mark.parametrize("seed", range(6))
def test_killed_at_random_gives_every_item_once(seed: int) -> None:
    """Any worker, both at once, between epochs and in them; small items and large, with some of them held."""
    rng = random.Random(seed)
    size, ordered = rng.choice([3, 9000]), rng.random() < 0.7
    expected = _expected(sources.arrays, 40, size, lanes=4, epochs=3)
    held: list[Any] = []
    with MpQItr(
        sources.arrays, 40, size, lanes=4, workers=3, start="fork", restarts=100, ordered=ordered, prefetch=2
    ) as pipe:
        for epoch in range(3):
            for item in pipe:
                held.append(item)
                if rng.random() < 0.1:
                    for worker in rng.sample(range(3), rng.choice([1, 1, 2, 3])):
                        _kill(pipe, worker)
            if epoch < 2:
                _kill(pipe, rng.randrange(3))
        assert pipe.stats().restarted > 0
    arrived = [_plain(item) for item in held]
    if ordered:
        assert arrived == expected
    else:
        assert [sorted(arrived[at : at + 40]) for at in (0, 40, 80)] == [sorted(expected[:40])] * 3


@pytest.mark.usefixtures("helpers_end")
@pytest.mark.parametrize("start", ["exec", "spawn", "forkserver"])
def test_every_way_to_start_starts_again(start: str) -> None:
    """As it started first."""
    with MpQItr(sources.plain, 6, lanes=2, workers=1, start=start, restarts=1) as pipe:
        items = iter(pipe)
        arrived = [next(items)]
        _kill(pipe, 0)
        assert [*arrived, *items] == _expected(sources.plain, 6, lanes=2, epochs=1)


def test_batches_are_delivered_once(tmp_path: Path) -> None:
    """Each record of the epoch once, though a worker dies at every third batch."""
    records = [b"%03d" % number for number in range(100)]
    write_split_data(tmp_path, records, splits=4)
    with SplitDataLoader(tmp_path) as data, data.batches(7, workers=2, start="fork", restarts=9) as pipe:
        arrived: list[bytes] = []
        for number, batch in enumerate(pipe):
            arrived += batch
            if number % 3 == 0:
                _kill(pipe, number % 2)
    assert sorted(arrived) == records
    assert arrived != records


def test_two_workers_die_at_once_and_two_restarts_are_enough() -> None:
    """One for each."""
    with MpQItr(sources.arrays, 30, 9000, workers=2, start="fork", restarts=2) as pipe:
        items = iter(pipe)
        arrived = [next(items)]
        _kill(pipe, 0)
        _kill(pipe, 1)
        arrived += items
        assert pipe.stats().restarted == 2
    assert [int(item[0]) for item in arrived] == [*range(30)]


def test_when_no_restarts_are_left_it_is_an_error() -> None:
    """That says what the last death was; and nobody is left."""

    def generate() -> Iterator[int]:
        yield 1
        os.kill(os.getpid(), signal.SIGSEGV)

    with MpQItr(generate, start="fork", restarts=2) as pipe:
        items = iter(pipe)
        assert next(items) == 1
        with pytest.raises(WorkerDiedError, match=r"killed by SIGSEGV.*item 1 of lane 0 of epoch 0, after 2 restarts"):
            next(items)
        assert pipe.stats().restarted == 2
        assert psutil.Process().children() == []


def test_an_init_that_kills_uses_the_restarts_up() -> None:
    """And is not tried for ever."""
    with (
        MpQItr(sources.plain, 3, init=lambda _: os._exit(3), start="fork", restarts=3) as pipe,
        pytest.raises(WorkerDiedError, match="exited with code 3"),
    ):
        list(pipe)


def test_a_restart_that_fails_is_an_error_and_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next epoch may try again; and closing is as ever."""
    start_process = team.start_process

    def refuse(*_: Any) -> Any:
        raise WorkerStartError("no more processes")

    with MpQItr(sources.plain, 4, start="fork", restarts=3) as pipe:
        expected = list(pipe)
        _kill(pipe, 0)
        monkeypatch.setattr(team, "start_process", refuse)
        with pytest.raises(WorkerStartError, match="no more processes"):
            list(pipe)
        monkeypatch.setattr(team, "start_process", start_process)
        assert [item[0] for item in pipe] == [item[0] for item in expected]
        _kill(pipe, 0)
        monkeypatch.setattr(team, "start_process", refuse)
        with pytest.raises(WorkerStartError, match="no more processes"):
            list(pipe)


def test_an_exception_is_no_death() -> None:
    """It is raised, and no restart is used."""

    def generate() -> Iterator[int]:
        yield 1
        raise ValueError("wrong")

    with MpQItr(generate, start="fork", restarts=5) as pipe:
        with pytest.raises(ValueError, match="wrong"):
            list(pipe)
        assert pipe.stats().restarted == 0


def test_items_of_a_dead_worker_stay_valid() -> None:
    """What lies in the memory of a worker that is gone is the consumer's, for as long as it wants."""
    with MpQItr(sources.arrays, 12, 9000, start="fork", restarts=3) as pipe:
        held = []
        for item in pipe:
            held.append(item)
            if len(held) in (2, 5):
                _kill(pipe, 0)
    for number, item in enumerate(held):
        assert (item == number).all()
        item += 1
