"""What goes through a pipeline comes out the same, in the same order, whatever carries it."""

import collections
import functools
import itertools
import pickle
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from splitpipe import Lane, MpQItr, SplitDataLoader, current_lane, write_split_data

WAYS = [{"workers": 0}, {"workers": 1}, {"workers": 2}, {"workers": 3}, {"workers": 2, "start": "fork"}]

ARRAYS = {
    **{dtype: np.arange(12).astype(dtype) for dtype in ("?", "i1", "<u2", ">i4", "f2", "f8", "c16", "S3", "U2")},
    "datetime": np.array(["2026-01-01", "NaT"], "M8[ns]"),
    "timedelta": np.array([1, 2], "m8[s]"),
    "structured": np.array([(1, 2.5, b"x")], [("a", "i4"), ("b", "f8"), ("c", "S1")]),
    "object": np.array([None, "x", 3], object),
    "zero-dimensional": np.array(7.5),
    "empty": np.empty((0, 3)),
    "fortran": np.asfortranarray(np.arange(20_000.0).reshape(100, 200)),
    "strided": np.arange(20_000)[::3],
    "transposed": np.arange(20_000).reshape(100, 200).T,
    "reversed": np.arange(9)[::-1],
    "large": np.arange(300_000, dtype=np.float32).reshape(3, 100, 1000),
    "read-only": np.frombuffer(bytes(5000), np.uint8),
}


def _give(*items: Any) -> Iterator[Any]:
    yield from items


def _count(total: int) -> Iterator[tuple[int, int, int, int]]:
    lane = current_lane()
    for i in range(lane.index, total, lane.count):
        yield i, lane.index, lane.epoch, lane.seed


@pytest.mark.parametrize("start", ["exec", "fork"])
def test_every_kind_of_array_arrives_as_it_was(start: str) -> None:
    """Values, dtype, shape and order; in a dict, small and large together."""
    with MpQItr(_give, ARRAYS, start=start) as pipe:
        (arrived,) = pipe

    assert arrived.keys() == ARRAYS.keys()
    for name, sent in ARRAYS.items():
        found = arrived[name]
        assert found.dtype == sent.dtype, name
        assert found.shape == sent.shape, name
        assert np.array_equal(found, sent, equal_nan=sent.dtype.kind in "Mm"), name
    assert arrived["fortran"].flags.f_contiguous


@pytest.mark.parametrize("size", [10, 1000, 100_000])
def test_arrays_are_writable_aligned_and_the_consumers_own(size: int) -> None:
    """Small ones, which travel in the message, and large ones, which are views of shared memory."""
    with MpQItr(_give, *[{"x": np.full(size, i), "y": np.zeros(3)} for i in range(20)]) as pipe:
        for i, item in enumerate(pipe):
            assert item["x"].ctypes.data % 64 == item["y"].ctypes.data % 64 == 0
            assert (item["x"] == i).all()
            item["x"][:] = -1


def test_other_objects_travel_too() -> None:
    """None, bytes, nested containers, an object with a buffer of its own, and an item of 20 MB."""
    items = [
        None,
        b"x" * 10_000,
        {"a": [1, (2, {3})]},
        bytearray(b"y" * 9000),
        collections.Counter("abc"),
        b"z" * 20_000_000,
    ]
    with MpQItr(_give, *items, pickle.PickleBuffer(b"w" * 9000)) as pipe:
        *arrived, buffer = pipe

    assert arrived == items
    assert bytes(buffer) == b"w" * 9000


@pytest.mark.parametrize("way", WAYS, ids=str)
@pytest.mark.parametrize("lanes", [1, 2, 3, 5])
def test_the_sequence_depends_on_the_lanes_alone(way: dict[str, Any], lanes: int) -> None:
    """Any number of workers, any start: lanes take turns, those that end are passed over, epochs count up."""
    expected = []
    for epoch in range(2):
        shares = [[(i, lane, epoch, 9) for i in range(lane, 13, lanes)] for lane in range(lanes)]
        turns = itertools.chain.from_iterable(itertools.zip_longest(*shares))
        expected.append([item for item in turns if item is not None])
    with MpQItr(_count, 13, lanes=lanes, seed=9, **way) as pipe:
        assert [list(pipe), list(pipe)] == expected


def test_unordered_delivers_every_item_once() -> None:
    """In whatever order."""
    with MpQItr(_count, 100, workers=2, lanes=4, ordered=False) as pipe:
        assert sorted(item[0] for item in pipe) == list(range(100))


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_a_loader_in_a_lane_reads_its_share(tmp_path: Path, way: dict[str, Any]) -> None:
    """All lanes together read every record once, each epoch in another order, the same in every run."""
    records = [b"%d" % i for i in range(300)]
    write_split_data(tmp_path, records, splits=7)

    def read(path: Path) -> Iterator[bytes]:
        yield from SplitDataLoader(path).iterate_binwise(shuffle=True)

    with MpQItr(read, tmp_path, lanes=4, seed=1, **way) as pipe:
        first, second = list(pipe), list(pipe)

    assert sorted(first) == sorted(second) == sorted(records)
    assert first != second
    assert first[:5] == FIRST_FIVE


FIRST_FIVE = [b"243", b"214", b"44", b"152", b"153"]


def test_lambdas_closures_partials_and_methods_run_in_workers() -> None:
    """What only cloudpickle can send."""
    offset = 10

    class Source:
        def items(self, n: int) -> Iterator[int]:
            yield from range(offset, offset + n)

    generators: list[Callable[[int], Any]] = [
        lambda n: (offset + i for i in range(n)),
        functools.partial(lambda k, n: range(offset, offset + n * k), 1),
        Source().items,
        lambda n: [10, 11, 12][:n],
    ]
    for generator in generators:
        with MpQItr(generator, 3) as pipe:
            assert list(pipe) == [10, 11, 12]


def test_instances_of_local_classes_come_back_as_the_same_class() -> None:
    """A class made inside a function, sent there and back by value, is still that class."""

    class Batch:
        def __init__(self, x: int) -> None:
            self.x = x

    with MpQItr(lambda: iter([Batch(1), Batch(2)])) as pipe:
        batches = list(pipe)

    assert [type(batch) is Batch for batch in batches] == [True, True]
    assert [batch.x for batch in batches] == [1, 2]


@pytest.mark.parametrize("workers", [0, 1])
def test_init_and_rng_are_the_lanes_own(workers: int) -> None:
    """`rng` differs between lanes and epochs and is the same in every run; outside a pipeline there is one lane."""

    def draw() -> Iterator[int]:
        yield int(current_lane().rng.integers(1 << 40))

    runs = []
    for _ in range(2):
        with MpQItr(draw, workers=workers, lanes=2, seed=5) as pipe:
            runs.append([*pipe, *pipe])

    assert runs[0] == runs[1]
    assert len(set(runs[0])) == 4
    assert current_lane() == Lane(0, 1, 0, 0)


def test_init_runs_once_in_each_worker_before_anything_else(tmp_path: Path) -> None:
    """With the worker's number."""

    def init(worker: int) -> None:
        (tmp_path / f"{worker}").touch(exist_ok=False)

    def look() -> Iterator[list[str]]:
        yield [path.name for path in tmp_path.iterdir() if path.name == str(current_lane().index)]

    with MpQItr(look, workers=2, init=init) as pipe:
        assert list(pipe) == list(pipe) == [["0"], ["1"]]


def test_workers_never_make_more_than_prefetch_ahead(tmp_path: Path) -> None:
    """Backpressure: a slow consumer is ahead of by `prefetch` items and the three it may hold, no more."""
    made = tmp_path / "made"

    def count() -> Iterator[np.ndarray[Any, Any]]:
        for i in range(100):
            made.write_text(str(i + 1))
            yield np.zeros(10_000)

    with MpQItr(count, prefetch=3) as pipe:
        for taken, _ in enumerate(pipe, start=1):
            if taken == 20:
                break
            if taken % 6 == 0:
                threading.Event().wait(0.05)
                assert int(made.read_text()) <= taken + 3 + 3 + 1


def test_hoarding_every_item_neither_blocks_nor_corrupts() -> None:
    """`list(pipe)` of far more items than there are slots; later ones are copies, and said to be."""
    with MpQItr(_give, *[np.full(5000, i) for i in range(60)], workers=2, lanes=1, prefetch=1) as pipe:
        items = list(pipe)
        copies = pipe.stats().copies

    assert [int(item[0]) for item in items] == list(range(60))
    assert all((item == i).all() for i, item in enumerate(items))
    assert copies > 40


def test_items_survive_close_epoch_and_their_siblings() -> None:
    """A slice of one array, kept beyond its item, its epoch and the pipeline, keeps its values."""
    with MpQItr(lambda: ({"a": np.full(9000, i), "b": np.full(9000, -i)} for i in range(10))) as pipe:
        kept = [next(iter(pipe))["b"][5:8].reshape(3, 1).T for _ in range(3)]
        for _ in range(3):
            for item in pipe:
                assert (item["a"] == -item["b"]).all()

    assert [part.tolist() for part in kept] == [[[0, 0, 0]]] * 3


def test_slots_are_reused_out_of_order() -> None:
    """A consumer that holds one item and lets others go gets no copies."""
    with MpQItr(_give, *[np.full(5000, i) for i in range(200)]) as pipe:
        held = None
        for i, item in enumerate(pipe):
            held = item if i % 50 == 0 else held
            assert held is not None
            assert held[0] == i // 50 * 50
        del item, held
        assert pipe.stats().copies == 0


def test_stats_count_what_was_delivered() -> None:
    """Items, bytes and times of all epochs."""
    with MpQItr(_give, *[np.zeros(1000)] * 5) as pipe:
        list(pipe)
        list(pipe)
    stats = pipe.stats()  # after the end too

    assert (stats.epoch, stats.items) == (1, 10)
    assert 80_000 < stats.received_bytes < 90_000
    assert 0 < stats.wait_s <= stats.elapsed_s


def test_length_is_what_the_user_says() -> None:
    """And a TypeError otherwise."""
    assert len(MpQItr(_give, length=7)) == 7
    with pytest.raises(TypeError, match="pass length="):
        len(MpQItr(_give))


def test_progress_shows_a_bar(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """On standard error, and the items come through."""
    monkeypatch.setattr("tqdm.tqdm.monitor_interval", 0)  # tqdm's own thread lives as long as the process
    with MpQItr(_give, 1, 2, 3, progress=True, length=3) as pipe:
        assert list(pipe) == [1, 2, 3]
    assert "3/3" in capsys.readouterr().err
