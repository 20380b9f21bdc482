"""Memory: built in place it is not copied; what is used is bounded, whoever holds what; small items never wait."""

import concurrent.futures
import itertools
import os
import random
import signal
import time
from collections import deque
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import sources
from numpy.typing import NDArray
from sources import place, shared_bytes

from splitpipe import MpQItr, current_lane, empty

LARGE = 20_000  # float64: 160 KB

# --- empty()


@pytest.mark.parametrize("start", ["exec", "fork"])
def test_what_is_built_in_place_is_not_copied(start: str) -> None:
    """It arrives where it was built: the same byte of the same memory; writable, and aligned."""
    with MpQItr(sources.built, 30, LARGE, start=start) as pipe:
        for number, (array, built_at) in enumerate(pipe):
            assert built_at is not None
            assert place(array) == built_at
            assert (array == number).all()
            assert array.ctypes.data % 64 == 0
            array[:] = -1
        assert pipe.stats().copies == 0


def test_what_was_yielded_is_read_only_in_the_worker() -> None:
    """For it is the consumer's; a view of it was writable before, and the next one is again."""

    def generate() -> Iterator[Any]:
        for _ in range(3):
            array = empty((100, 200))
            before = array.flags.writeable
            yield array
            yield before, array.flags.writeable

    with MpQItr(generate, start="fork") as pipe:
        assert [item for item in pipe if isinstance(item, tuple)] == [(True, False)] * 3


def test_several_in_one_item_and_beside_others() -> None:
    """Each where it was built; the others are copied, once."""

    def generate() -> Iterator[Any]:
        for number in range(10):
            a, b, c = empty(LARGE), empty((50, 400), "f4"), empty(10)
            plain, many = np.full(LARGE, number), [np.full(9, leaf) for leaf in range(100)]
            a[:] = b[:] = c[:] = number
            places = place(a), place(b), place(c)
            yield {"a": a, "b": [b, "x"], "c": c, "plain": plain, "many": many}, places

    with MpQItr(generate, start="fork") as pipe:
        for number, (item, (a, b, c)) in enumerate(pipe):
            assert (place(item["a"]), place(item["b"][0]), c) == (a, b, None)
            assert None not in (a, b, place(item["plain"]))
            for array in (item["a"], item["b"][0], item["c"], item["plain"]):
                assert (array == number).all()
            assert [int(leaf[8]) for leaf in item["many"]] == [*range(100)]


def test_a_part_is_sent_where_it_lies() -> None:
    """Rows, other dtypes and shapes of the memory; what is not contiguous is copied."""

    def generate() -> Iterator[Any]:
        for number in range(20):
            array = empty((40, 1000))
            array[:] = number
            array[30:] = 7
            at = place(array)
            yield array[10:30], array[30:], array[12:25].view("u8").reshape(-1), array[:, 5:900], at

    with MpQItr(generate, start="fork", prefetch=2) as pipe:
        for number, (rows, last, other, columns, at) in enumerate(pipe):
            assert at is not None
            assert [place(rows), place(last), place(other)] == [at + 80_000, at + 240_000, at + 96_000]
            assert (rows == number).all()
            assert (last == 7).all()
            assert (other.view("f8") == number).all()
            assert columns.shape == (40, 895)
            assert (columns[:30] == number).all()


def test_yielded_twice_it_arrives_twice() -> None:
    """In two items: the second time as a copy; twice in one item it is one array."""

    def generate() -> Iterator[Any]:
        for number in range(10):
            array = empty(LARGE)
            array[:] = number
            yield array
            yield array
            yield {"x": array, "y": array}

    with MpQItr(generate, start="fork") as pipe:
        items = iter(pipe)
        for number in range(10):
            first = next(items)
            at = place(first)
            second = next(items)
            assert place(second) != at
            both = next(items)
            assert both["x"] is both["y"]
            for array in (first, second, both["x"]):
                assert (array == number).all()
            del first, second, both, array


def test_what_is_never_sent_is_used_again() -> None:
    """Dropped by the thousand, it takes no more memory than one; kept, it takes its share, and then private memory."""

    def generate() -> Iterator[Any]:
        for _ in range(1000):
            assert place(empty(LARGE)) is not None
        yield "dropped"
        kept = [empty(LARGE) for _ in range(100)]
        shared = [array for array in kept if place(array) is not None]
        for number, array in enumerate(kept):
            array[:] = number
        yield len(shared)
        del array, shared
        while kept:
            yield kept.pop(0)

    with MpQItr(generate, start="fork", max_bytes=2_000_000) as pipe:
        items = iter(pipe)
        assert next(items) == "dropped"
        assert shared_bytes() < 3_000_000
        assert 5 < next(items) <= 12
        for number, array in enumerate(items):
            assert (array == number).all()
            assert shared_bytes() < 4_500_000


def test_threads_of_the_generator_may_build() -> None:
    """Several at once, some of what they build being dropped; and what arrives is what they made."""

    def make(number: int) -> NDArray[Any]:
        empty(LARGE)[:] = -1
        array = empty(LARGE // 2 + 100 * (number % 50))
        array[:] = number
        return array

    def generate() -> Iterator[Any]:
        with concurrent.futures.ThreadPoolExecutor(6) as pool:
            yield from pool.map(make, range(400))

    with MpQItr(generate, start="fork", max_bytes=8_000_000) as pipe:
        held: deque[Any] = deque(maxlen=3)
        for number, array in enumerate(pipe):
            held.append((number, array))
            for each, kept in held:
                assert kept[0] == kept[-1] == each
        assert number == 399


@pytest.mark.parametrize("way", [{"workers": 0}, {"workers": 2, "start": "thread"}], ids=str)
def test_without_a_worker_process_it_is_an_ordinary_array(way: dict[str, Any]) -> None:
    """Inline, in threads, and outside of any pipeline."""
    with MpQItr(sources.built, 5, LARGE, **way) as pipe:
        for array, built_at in pipe:
            assert built_at is None
            array[:] = 1
    assert place(empty(LARGE)) is None
    assert empty((3, 2), object).tolist() == [[None] * 2] * 3
    assert empty((0, 5)).shape == (0, 5)
    assert empty((), "i4").shape == ()


def test_a_process_that_a_generator_forks_builds_nothing_in_its_memory() -> None:
    """There both would think the same memory free; it has ordinary arrays, and the worker's are untouched."""

    def generate() -> Iterator[Any]:
        del_me = empty(LARGE)
        del del_me  # a free block, which the child knows of too
        child = os.fork()
        if child == 0:
            array = empty(LARGE)
            array[:] = -1
            time.sleep(0.3)
            array[:] = -1
            os._exit(0 if place(array) is None else 1)
        array = empty(LARGE)
        array[:] = 5
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        yield code, array

    with MpQItr(generate, start="fork") as pipe:
        ((code, array),) = pipe
    assert (array == 5).all()
    assert code == 0


def test_a_pipeline_inside_a_worker_builds_in_its_own_memory() -> None:
    """And what it gives can be passed on."""

    def outer() -> Iterator[Any]:
        with MpQItr(sources.built, 6, LARGE, start="fork") as inner:
            for array, built_at in inner:
                yield array, built_at is not None
                yield empty(LARGE).shape

    with MpQItr(outer, start="fork") as pipe:
        items = list(pipe)
    assert [int(array[0]) for array, in_place in items[::2] if in_place] == [*range(6)]


# --- max_bytes


def _sizes(seed: int, kind: str, count: int = 50) -> list[int]:
    rng = random.Random(seed)
    if kind == "growing":
        return [20_000 + 20_000 * number for number in range(count)]
    if kind == "shrinking":
        return [20_000 + 20_000 * number for number in range(count, 0, -1)]
    return [rng.choice([100, 5_000, 20_000, 90_000, 300_000, 1_200_000]) + rng.randrange(5000) for _ in range(count)]


@pytest.mark.parametrize("in_place", [False, True], ids=["copied", "in place"])
@pytest.mark.parametrize("held", [0, 2, 150], ids=["holds none", "holds two", "holds all"])
@pytest.mark.parametrize("max_bytes", [1, 400_000, 3_000_000])
def test_memory_stays_within_its_bound_and_nothing_stops(max_bytes: int, held: int, in_place: bool) -> None:
    """Of two workers together, each of which may have one item more, with its headroom of a quarter."""
    sizes = [size for kind in ("growing", "shrinking", "mixed") for size in _sizes(max_bytes, kind)]
    one = 2 * (max(sizes) * 1.25 + 100_000)  # 80 KB are a pack's
    with MpQItr(
        sources.sized, sizes, in_place=in_place, workers=2, lanes=3, start="fork", max_bytes=max_bytes, timeout=20
    ) as pipe:
        keep: deque[Any] = deque(maxlen=held)
        peak = 0
        for number, item in enumerate(pipe):
            keep.append(item)
            peak = max(peak, shared_bytes())
            if number % 20 == 0:
                time.sleep(0.01)  # for the workers to go as far as they may
        assert number == len(sizes) - 1
        assert peak <= max_bytes + one
    for item, expected in zip(reversed(keep), _dealt(sizes), strict=False):
        assert item[0] == item[-1] == expected % 256


def _dealt(sizes: list[int]) -> Iterator[int]:
    """Yield the numbers of the items, the last to arrive first."""
    shares = [range(lane, len(sizes), 3) for lane in range(3)]
    turns = itertools.chain.from_iterable(itertools.zip_longest(*shares))
    return reversed([number for number in turns if number is not None])


@pytest.mark.parametrize("seed", range(4))
def test_items_may_be_let_go_in_any_order(seed: int) -> None:
    """Their memory comes back each time, and what is still held stays as it was."""
    rng = random.Random(seed)
    held: list[tuple[int, NDArray[Any]]] = []
    with MpQItr(sources.arrays, 300, 3000, workers=2, start="fork", max_bytes=1_000_000, timeout=20) as pipe:
        for number, item in enumerate(pipe):
            held.append((number, item))
            while held and rng.random() < 0.55:
                at = rng.randrange(len(held))
                each, array = held[at]
                assert (array == each).all()
                del held[at], array
    for each, array in held:
        assert (array == each).all()


def test_memory_is_faulted_in_once_for_items_of_one_size() -> None:
    """After the first ones, blocks are used again: no more of them are made."""
    with MpQItr(sources.arrays, 200, LARGE, start="fork") as pipe:
        seen = [(shared_bytes(), place(item)) for item in pipe]
    assert seen[20][0] == seen[-1][0]
    assert {at for _, at in seen[100:]} <= {at for _, at in seen[:100]}


# --- packs


def _small(total: int, pause: float, every: int) -> Iterator[tuple[int, int]]:
    lane = current_lane()
    for number in range(total):
        if number % every == 0 and pause:
            time.sleep(pause)
        yield lane.index, number


@pytest.mark.parametrize("consumer", ["fast", "slow"])
@pytest.mark.parametrize("producer", ["fast", "slow"])
@pytest.mark.parametrize("ordered", [True, False])
def test_thousands_of_small_items_arrive_in_order(producer: str, consumer: str, ordered: bool) -> None:
    """Of several lanes, whoever waits for whom; each lane's in its order."""
    pause = 0.002 if producer == "slow" else 0.0
    with MpQItr(_small, 2000, pause, 100, workers=2, lanes=3, start="fork", ordered=ordered) as pipe:
        arrived = []
        for item in pipe:
            arrived.append(item)
            if consumer == "slow" and len(arrived) % 200 == 0:
                time.sleep(0.004)
    if ordered:
        assert arrived == [(lane, number) for number in range(2000) for lane in range(3)]
    for lane in range(3):
        assert [number for each, number in arrived if each == lane] == [*range(2000)]


def _wake(pipe: MpQItr[Any]) -> None:
    """End workers that sleep, for closing would wait for them a while."""
    for worker in pipe.stats().workers:
        os.kill(worker.pid, signal.SIGKILL)


@pytest.mark.parametrize("before", [0, 1, 500])
@pytest.mark.parametrize("late", [0.0, 0.4])
def test_an_item_is_never_held_back_while_the_consumer_waits(before: int, late: float) -> None:
    """Made just before the generator sleeps for a minute, it is there within a second; also if it is asked for late."""

    def generate() -> Iterator[float]:
        yield from [0.0] * before
        time.sleep(0.2)  # until all of those were taken, and the consumer waits
        yield time.monotonic()
        time.sleep(60)

    with MpQItr(generate, start="fork") as pipe:
        items = iter(pipe)
        for _ in range(before):
            next(items)
        if late:
            time.sleep(late)
        asked = time.monotonic()
        made = next(items)
        assert time.monotonic() - max(asked, made) < 1
        _wake(pipe)


def test_an_item_is_not_held_back_by_the_other_lanes() -> None:
    """Without an order, one lane's item arrives while the other lane of the worker, or the other worker, is busy."""

    def generate() -> Iterator[float]:
        if current_lane().index == 0:
            time.sleep(60)
        yield time.monotonic()
        yield time.monotonic()
        time.sleep(60)

    with MpQItr(generate, workers=2, start="fork", ordered=False) as pipe:
        items = iter(pipe)
        for _ in range(2):
            assert time.monotonic() - next(items) < 1
        _wake(pipe)


def test_small_items_between_large_ones_keep_their_place() -> None:
    """Packs and blocks in turn, around the sizes at which one becomes the other."""
    sizes = [1, 10, 1024, 16_000, 16_300, 16_383, 16_384, 16_385, 17_000, 40_000, 65_535, 65_536, 65_537, 70_000] * 6
    random.Random(1).shuffle(sizes)
    for max_bytes in (1, 10_000_000):
        with MpQItr(sources.sized, sizes, in_place=False, start="fork", max_bytes=max_bytes) as pipe:
            arrived = [(len(item), int(item[0]), int(item[-1])) for item in pipe]
        assert arrived == [(size, number % 256, number % 256) for number, size in enumerate(sizes)]
    with MpQItr(lambda: (b"x" * size for size in sizes), start="fork") as pipe:
        assert [len(item) for item in pipe] == sizes


def test_an_item_of_thousands_of_arrays() -> None:
    """More than one message could list; of nothing too."""
    sent = {f"{number}": np.full(number % 7, number) for number in range(5000)}
    with MpQItr(lambda: iter([sent, np.empty((0, 3)), sent]), start="fork") as pipe:
        first, nothing, second = pipe
    assert nothing.shape == (0, 3)
    for arrived in (first, second):
        assert arrived.keys() == sent.keys()
        assert all((arrived[name] == array).all() for name, array in sent.items())


# --- out of band


@pytest.mark.parametrize("start", ["exec", "fork"])
def test_pandas_objects_travel_beside_the_pickle(start: str) -> None:
    """Their columns are views of the shared memory, and writable."""
    pandas = pytest.importorskip("pandas")

    def generate() -> Iterator[Any]:
        import pandas as pd

        for number in range(5):
            yield pd.DataFrame({"a": np.full(LARGE, number), "b": np.arange(LARGE) / 2, "c": ["x", "y"] * (LARGE // 2)})

    with MpQItr(generate, start=start) as pipe:
        for number, frame in enumerate(pipe):
            assert isinstance(frame, pandas.DataFrame)
            assert (frame["a"] == number).all()
            assert (frame["b"] == np.arange(LARGE) / 2).all()
            assert frame["c"].iloc[:2].tolist() == ["x", "y"]
            assert place(frame["b"].to_numpy()) is not None
            frame.loc[0, "a"] = -1


@pytest.mark.parametrize("start", ["exec", "fork"])
def test_arrow_tables_travel_beside_the_pickle(start: str) -> None:
    """Their buffers lie in the shared memory."""
    pyarrow = pytest.importorskip("pyarrow")

    def generate() -> Iterator[Any]:
        import pyarrow as pa

        for number in range(5):
            yield pa.table({"a": np.full(LARGE, number), "b": ["x", None] * (LARGE // 2)})

    with MpQItr(generate, start=start) as pipe:
        for number, table in enumerate(pipe):
            assert isinstance(table, pyarrow.Table)
            assert table.column("a").to_pylist() == [number] * LARGE
            assert table.column("b").null_count == LARGE // 2
            assert place(table.column("a").chunks[0].buffers()[1].address) is not None
