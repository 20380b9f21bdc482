"""The sequence is a function of seed, epoch and lanes; ranks share it exactly; epochs follow each other, whatever."""

import functools
import itertools
import json
import random
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import sources
from hypothesis import given, settings
from hypothesis import strategies as st

from splitpipe import MpQItr, SplitDataLoader, current_lane, write_split_data
from splitpipe.errors import LaneNotAskedWarning
from splitpipe.lane import Lane
from splitpipe.order import lane_share, rank_count, wrapped
from splitpipe.pipeline import find_rank

WAYS = [
    {"workers": 0},
    *[{"workers": workers, "start": "fork"} for workers in (1, 2, 3, 4)],
    {"workers": 3, "start": "thread"},
    {"workers": 1, "start": "thread"},
    {"workers": 2, "start": "exec"},
]
PROCESSES = [way for way in WAYS if way.get("start") != "thread"]


def _plain(item: Any) -> Any:
    return item.tolist() if isinstance(item, np.ndarray) else item


def _two_epochs(make: Callable[..., MpQItr[Any]], **way: Any) -> list[Any]:
    with make(**way) as pipe:
        return [_plain(item) for _ in range(2) for item in pipe]


MAKERS: dict[str, Callable[..., MpQItr[Any]]] = {
    "plain": functools.partial(MpQItr, sources.plain, 17, lanes=4),
    "unequal": functools.partial(MpQItr, sources.unequal, 5, lanes=4),
    "large": functools.partial(MpQItr, sources.arrays, 13, 9000, lanes=4, prefetch=1),
    "few": functools.partial(MpQItr, sources.plain, 2, lanes=4),
    "none": functools.partial(MpQItr, sources.plain, 0, lanes=4),
}


@pytest.mark.parametrize("way", WAYS[1:], ids=str)
@pytest.mark.parametrize("name", MAKERS)
def test_the_sequence_is_the_same_for_any_workers(name: str, way: dict[str, Any]) -> None:
    """With lanes given: from processes, threads, and the calling thread; two epochs."""
    assert _two_epochs(MAKERS[name], **way) == _two_epochs(MAKERS[name], workers=0)


@pytest.mark.usefixtures("helpers_end")
@pytest.mark.parametrize("start", ["spawn", "forkserver"])
def test_the_sequence_is_the_same_for_the_standard_librarys_processes(start: str) -> None:
    """Random numbers included."""
    make = functools.partial(MpQItr, sources.drawn, 9, lanes=3, seed=2)
    assert _two_epochs(make, workers=2, start=start) == _two_epochs(make, workers=0)


@pytest.mark.parametrize("way", PROCESSES[1:], ids=str)
def test_the_global_random_generators_do_not_depend_on_workers(way: dict[str, Any]) -> None:
    """Each lane has states of its own: of `random`, of numpy, and `current_lane().rng`."""
    make = functools.partial(MpQItr, sources.drawn, 23, lanes=4, seed=8)
    numbers = _two_epochs(make, **way)
    assert numbers == _two_epochs(make, workers=0)
    for column in range(2, 7):
        assert len({item[column] for item in numbers}) == len(numbers) == 46


def test_the_calling_threads_random_numbers_are_its_own() -> None:
    """Inline, the lanes borrow the global generators and give them back as they were."""
    expected = [random.Random(5).random(), np.random.RandomState(5).rand()]
    random.seed(5)
    np.random.seed(5)
    with MpQItr(sources.drawn, 5, workers=0, lanes=2) as pipe:
        list(pipe)
    assert [random.random(), np.random.rand()] == expected


def _same() -> Iterator[int]:
    yield from range(3)


def _nothing() -> Iterator[int]:
    yield from ()


@pytest.mark.parametrize("way", [WAYS[0], WAYS[2], WAYS[5]], ids=str)
def test_lanes_that_nobody_asked_for_are_warned_of_once(way: dict[str, Any]) -> None:
    """At the end of the first epoch, at the line that iterates; never again."""
    with MpQItr(_same, lanes=2, **way) as pipe, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore")  # Python's own, of a fork beside the threads of pytest
        warnings.simplefilter("always", LaneNotAskedWarning)
        for _ in range(3):
            assert list(pipe) == [0, 0, 1, 1, 2, 2]
    (warning,) = caught
    assert "_same ran in 2 lanes and never asked which one" in str(warning.message)
    assert warning.filename == __file__


def test_a_warning_that_is_an_error_leaves_nothing() -> None:
    """With `-W error`, wherever the epoch is ended: the workers end too, as the leak fixture sees."""
    for workers in (1, 2):
        with pytest.raises(LaneNotAskedWarning), MpQItr(_same, lanes=2, workers=workers, start="fork") as pipe:
            next(iter(pipe))
        del pipe
    pipe = MpQItr(_same, lanes=2, start="fork")
    next(iter(pipe))
    with pytest.raises(LaneNotAskedWarning):
        pipe.close()
    assert psutil.Process().children() == []
    assert [worker.memory_bytes for worker in pipe.stats().workers] != [0]  # the figures that they ended with


@pytest.mark.parametrize("way", [WAYS[0], WAYS[2], WAYS[5]], ids=str)
def test_no_warning_where_it_is_not_due(way: dict[str, Any], tmp_path: Path) -> None:
    """One lane; a generator that asks, late or through a loader; one that gives nothing."""
    write_split_data(tmp_path, [b"1", b"2", b"3"])

    def late() -> Iterator[int]:
        yield from range(3)
        current_lane()

    def loads(path: Path) -> Iterator[Any]:
        with SplitDataLoader(path) as data:
            yield from data.iterate_binwise()

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for generator, arguments, lanes in (
            (_same, (), 1),
            (sources.plain, (5,), 2),
            (late, (), 2),
            (loads, (tmp_path,), 2),
            (_nothing, (), 2),
        ):
            with MpQItr(generator, *arguments, lanes=lanes, **way) as pipe:
                list(pipe)


def test_no_warning_for_an_epoch_of_which_this_pipeline_gave_nothing() -> None:
    """What was delivered before it was resumed tells nothing of who asked."""
    make = functools.partial(MpQItr, sources.plain, 6, lanes=2, workers=1, start="fork")
    with make() as pipe:
        next(iter(pipe))
        state = pipe.state_dict()
    with make() as pipe:
        pipe.load_state_dict(state)
        iter(pipe)


# --- ranks


LAUNCHERS = {
    "torchrun": ("RANK", "WORLD_SIZE"),
    "mpirun": ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    "mpiexec": ("PMI_RANK", "PMI_SIZE"),
    "srun": ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS"),
}


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment that no launcher made."""
    for name in itertools.chain(*LAUNCHERS.values()):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_ranks_come_from_the_environment(alone: pytest.MonkeyPatch, launcher: str) -> None:
    """Of each launcher; arguments come first; half of a launcher's variables is none."""
    rank, size = LAUNCHERS[launcher]
    alone.setenv(rank, "2")
    assert find_rank(None, None) == (0, 1)
    alone.setenv(size, "3")
    assert find_rank(None, None) == (2, 3)
    assert find_rank(0, 2) == (0, 2)
    for start, workers in (("fork", 1), ("thread", 1), ("exec", 0)):
        with MpQItr(_rank, start=start, workers=workers) as pipe:
            assert list(pipe) == [(2, 3)]
    with MpQItr(_rank, rank=1, world_size=4) as pipe:
        assert list(pipe) == [(1, 4)]
    alone.setenv(rank, "3")
    with pytest.raises(ValueError, match=rf"got 3 of 3 \(from {rank} and {size} in the environment\)"):
        MpQItr(_rank)
    alone.setenv(rank, "x")
    with pytest.raises(ValueError, match=f"{rank}='x' in the environment is no number"):
        MpQItr(_rank)


def _rank() -> Iterator[tuple[int, int]]:
    yield current_lane().rank, current_lane().world_size


@pytest.mark.parametrize(("rank", "world_size"), [(0, None), (None, 2), (2, 2), (-1, 2), (0, 0)])
def test_ranks_that_do_not_fit_are_refused(rank: int | None, world_size: int | None) -> None:
    """When the pipeline is made."""
    with pytest.raises(ValueError, match="rank"):
        MpQItr(_rank, rank=rank, world_size=world_size)


def test_ranks_draw_other_random_numbers() -> None:
    """Lane 0 of rank 1 is not lane 0 of rank 0."""
    numbers = []
    for rank in range(2):
        with MpQItr(sources.drawn, 8, lanes=2, workers=0, rank=rank, world_size=2) as pipe:
            numbers += [item[2:] for item in pipe]
    assert len({number for item in numbers for number in item}) == 5 * 16


@given(st.integers(0, 200), st.integers(1, 9), st.sampled_from(["drop", "pad", "uneven"]))
def test_counts_of_ranks_fit(total: int, world_size: int, tail: str) -> None:
    """Equal if dropped or padded, with less than one for each rank lost or repeated; exact if uneven."""
    counts = [rank_count(total, rank, world_size, tail) for rank in range(world_size)]
    if tail == "uneven":
        assert sum(counts) == total
        assert max(counts) - min(counts) <= 1
    else:
        assert len(set(counts)) == 1
        assert 0 <= (sum(counts) - total) * (1 if tail == "pad" else -1) < world_size


@given(st.integers(0, 120), st.integers(1, 7), st.integers(1, 5), st.sampled_from(["drop", "pad", "uneven"]))
def test_shares_of_lanes_cover_an_epoch(total: int, world_size: int, lanes: int, tail: str) -> None:
    """In pieces of one sequence that begins anew at its end: everything once, but for the tail."""
    counts, taken = [], Counter[int]()
    for rank in range(world_size):
        count = 0
        for lane in range(lanes):
            share = lane_share(total, Lane(lane, lanes, rank=rank, world_size=world_size, tail=tail))
            pieces = [*wrapped(*share, total)]
            assert all(0 <= start < stop <= total for start, stop in pieces)
            count += sum(stop - start for start, stop in pieces)
            taken.update(itertools.chain.from_iterable(itertools.starmap(range, pieces)))
        counts.append(count)
    if tail == "uneven":
        assert taken == Counter(range(total))
        assert max(counts) - min(counts) <= 1
    elif tail == "drop":
        assert taken == Counter(range(total - total % world_size))
        assert len(set(counts)) == 1
    else:
        assert set(taken) == set(range(total))
        assert len(set(counts)) == 1
        assert sum(counts) - total < world_size


@pytest.fixture
def numbered(tmp_path: Path) -> Iterator[SplitDataLoader[Any]]:
    """101 records, each its own number, in bins of unequal size."""
    write_split_data(tmp_path, (b"%d" % number for number in range(101)), splits=6)
    with SplitDataLoader(tmp_path) as data:
        yield data


def _binwise(data: SplitDataLoader[Any]) -> Iterator[int]:
    for record in data.iterate_binwise(shuffle=True):
        yield int(record)


@pytest.mark.parametrize("tail", ["drop", "pad", "uneven"])
@pytest.mark.parametrize(("world_size", "lanes"), [(2, 1), (3, 2), (4, 3), (120, 1)])
def test_ranks_share_the_records(numbered: SplitDataLoader[Any], world_size: int, lanes: int, tail: str) -> None:
    """By `iterate_binwise` in a generator of one's own: as many for each as asked, in each epoch, of one shuffle."""
    for epoch in range(2):
        shares = []
        for rank in range(world_size):
            pipe = MpQItr(
                _binwise, numbered, workers=0, lanes=lanes, rank=rank, world_size=world_size, tail=tail, seed=3
            )
            for _ in range(epoch):
                list(pipe)
            shares.append(list(pipe))
        _check_shares(shares, 101, 1, tail)


def _check_shares(shares: list[list[int]], total: int, batch: int, tail: str) -> None:
    counts = [len(share) for share in shares]
    taken = Counter(itertools.chain.from_iterable(shares))
    if tail == "uneven":
        assert taken == Counter(range(total))
        assert max(counts) - min(counts) <= batch
    elif tail == "drop":
        assert set(taken.values()) <= {1}
        assert max(counts) - min(counts) < batch  # the last batch may be short
        assert total - sum(counts) < len(shares) * batch
    else:
        assert set(taken) == set(range(total))
        assert sum(taken.values()) - total < len(shares) * batch


@pytest.mark.parametrize("tail", ["drop", "pad", "uneven"])
@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize(("world_size", "lanes"), [(2, 1), (3, 2), (30, 1)])
def test_ranks_share_the_batches(
    numbered: SplitDataLoader[Any], world_size: int, lanes: int, drop_last: bool, tail: str
) -> None:
    """By `data.batches`: equal counts of batches, and together those of one process; `len` says how many."""
    size = 7
    with numbered.batches(size, seed=5, drop_last=drop_last) as pipe:
        whole = list(pipe)
    shares = []
    for rank in range(world_size):
        options = {"rank": rank, "world_size": world_size, "tail": tail, "lanes": lanes}
        with numbered.batches(size, seed=5, drop_last=drop_last, **options) as pipe:
            shares.append(list(pipe))
            assert len(pipe) == len(shares[-1])
    dealt = [batch for turn in itertools.zip_longest(*shares) for batch in turn if batch is not None]
    counts = [len(share) for share in shares]
    if tail == "uneven":
        assert dealt == whole
    elif tail == "drop":
        assert len(set(counts)) == 1
        assert dealt == whole[: len(dealt)]
        assert len(whole) - len(dealt) < world_size
    else:
        assert len(set(counts)) == 1
        assert dealt == [*itertools.islice(itertools.cycle(whole), len(dealt))]
        assert 0 <= len(dealt) - len(whole) < world_size


@pytest.mark.parametrize("tail", ["drop", "pad", "uneven"])
def test_a_rank_is_resumed_with_its_own_batches(numbered: SplitDataLoader[Any], tail: str) -> None:
    """With other lanes and workers, also where the batches begin anew to pad it."""
    make = functools.partial(numbered.batches, 9, seed=1, rank=2, world_size=5, tail=tail)
    with make(lanes=2) as pipe:
        whole = list(pipe)
    for taken in range(len(whole)):
        with make(lanes=2) as pipe:
            items = iter(pipe)
            for _ in range(taken):
                next(items)
            state = json.loads(json.dumps(pipe.state_dict()))
        with make(workers=taken % 3, start="fork") as pipe:
            pipe.load_state_dict(state)
            assert list(pipe) == whole[taken:]


# --- epochs


def _noting(folder: Path, total: int) -> Iterator[int]:
    lane = current_lane()
    (folder / f"{lane.epoch}").touch()
    yield from range(lane.index, total, lane.count)


def _begun(folder: Path) -> list[int]:
    return sorted(int(path.name) for path in folder.iterdir())


def _soon(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 10
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.005)
    return condition()


def test_the_next_epoch_is_begun_early_from_the_second_on(tmp_path: Path) -> None:
    """Not after the first, for who iterates once wants no more; never more than one ahead."""
    with MpQItr(_noting, tmp_path, 4, workers=2, start="fork") as pipe:
        assert list(pipe) == [0, 1, 2, 3]
        time.sleep(0.2)
        assert _begun(tmp_path) == [0]
        assert list(pipe) == [0, 1, 2, 3]
        assert _soon(lambda: _begun(tmp_path) == [0, 1, 2])
        time.sleep(0.2)
        assert _begun(tmp_path) == [0, 1, 2]
        assert list(pipe) == [0, 1, 2, 3]
        assert _soon(lambda: _begun(tmp_path) == [0, 1, 2, 3])


def test_epochs_that_are_known_are_begun_early_and_none_beyond(tmp_path: Path) -> None:
    """From the first on, up to the last."""
    with MpQItr(_noting, tmp_path, 4, workers=1, start="fork", epochs=3) as pipe:
        for epoch in range(3):
            assert list(pipe) == [0, 1, 2, 3]
            assert _soon(functools.partial(_begun_up_to, tmp_path, min(epoch + 1, 2)))
        time.sleep(0.2)
        assert _begun(tmp_path) == [0, 1, 2]
        assert list(pipe) == [0, 1, 2, 3]  # asked for all the same


def _begun_up_to(folder: Path, epoch: int) -> bool:
    return _begun(folder) == [*range(epoch + 1)]


@pytest.mark.parametrize("taken", [1, 3, 4, 5, 8, 9])
def test_giving_up_an_epoch_leaves_the_next_one_whole(taken: int) -> None:
    """Time and again, at the same item, with the next epoch begun early or not."""
    with MpQItr(sources.plain, 9, lanes=3, workers=2, start="fork", prefetch=2) as pipe:
        for epoch in range(30):
            items = iter(pipe)
            assert [next(items) for _ in range(taken)] == [(n, n % 3, epoch) for n in range(taken)]
            if epoch % 3 == 0:
                assert len(list(items)) == 9 - taken


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("take"), st.integers(1, 12)),
        st.tuples(st.just("begin"), st.just(0)),
        st.tuples(st.just("save"), st.just(0)),
        st.tuples(st.just("load"), st.just(0)),
        st.tuples(st.just("elsewhere"), st.integers(0, 3)),
    ),
    max_size=14,
)


class _Model:
    """What a pipeline of 7 items in 3 lanes is to do: the epoch, and how many items of it were delivered."""

    def __init__(self) -> None:
        self.epoch, self.taken, self.resumed = -1, 0, False
        self.ended = True  # whether the end of the epoch was seen

    def begin(self) -> None:
        if not self.resumed:
            self.epoch, self.taken = self.epoch + 1, 0
        self.resumed = self.ended = False

    def copy(self) -> tuple[int, int, bool]:
        return self.epoch, self.taken, self.ended and not self.resumed

    def load(self, saved: tuple[int, int, bool]) -> None:
        self.epoch, self.taken, self.ended = saved
        self.resumed = self.epoch >= 0 and not self.ended


@settings(max_examples=40, deadline=None)
@given(STEPS, st.sampled_from([None, 2]), st.sampled_from([sources.plain, sources.keeping]))
def test_any_sequence_of_taking_breaking_saving_and_loading_gives_what_is_due(
    steps: list[tuple[str, int]], epochs: int | None, source: Any
) -> None:
    """Against a model that only counts."""
    make = functools.partial(MpQItr, source, 7, lanes=3, prefetch=1, epochs=epochs, start="fork")
    pipe, model = make(workers=2), _Model()
    items: Iterator[Any] = iter(())
    saved = json.dumps(pipe.state_dict()), model.copy()
    try:
        for step, number in steps:
            if step == "take":
                for _ in range(number):
                    if model.ended:
                        assert next(items, None) is None
                    elif model.taken == 7:
                        assert next(items, None) is None
                        model.ended = True
                    else:
                        assert next(items) == (model.taken, model.taken % 3, model.epoch)
                        model.taken += 1
            elif step == "begin":
                items = iter(pipe)
                model.begin()
            elif step == "save":
                saved = json.dumps(pipe.state_dict()), model.copy()
            else:
                if step == "elsewhere":
                    pipe.close()
                    pipe = make(workers=number)
                pipe.load_state_dict(json.loads(saved[0]))
                model.load(saved[1])
                items = iter(pipe)
                model.begin()
    finally:
        pipe.close()
