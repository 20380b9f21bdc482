"""A pipeline that is resumed gives exactly the rest: wherever it was left, and whoever goes on."""

import functools
import itertools
import json
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sources

from splitpipe import MpQItr, SplitDataLoader, current_lane, empty, write_split_data
from splitpipe.errors import JobError, StateError

OTHERS = [
    {"workers": 0},
    {"workers": 1, "start": "fork"},
    {"workers": 2, "start": "fork"},
    {"workers": 3, "start": "fork"},
    {"workers": 2, "start": "thread"},
]
SOURCES: dict[str, Callable[..., MpQItr[Any]]] = {
    "plain": functools.partial(MpQItr, sources.plain, 11, lanes=3),
    "keeps its place": functools.partial(MpQItr, sources.keeping, 11, lanes=3),
    "unequal lanes": functools.partial(MpQItr, sources.unequal, 3, lanes=4),
    "one lane": functools.partial(MpQItr, sources.plain, 5, lanes=1),
    "large items": functools.partial(MpQItr, sources.arrays, 7, 9000, lanes=3),
}


def _plain(item: Any) -> Any:
    return item.tolist() if isinstance(item, np.ndarray) else item


def _epochs(pipe: MpQItr[Any], count: int) -> list[list[Any]]:
    return [[_plain(item) for item in pipe] for _ in range(count)]


def _left_at_every_item(make: Callable[..., MpQItr[Any]], **way: Any) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield how many items of two epochs were taken, and the state then, as it comes back from a file."""
    with make(**way) as pipe:
        taken = 0
        for _ in range(2):
            yield taken, json.loads(json.dumps(pipe.state_dict()))
            for _ in pipe:
                taken += 1
                yield taken, json.loads(json.dumps(pipe.state_dict()))
        yield taken, json.loads(json.dumps(pipe.state_dict()))


@pytest.mark.parametrize("source", SOURCES)
def test_the_rest_of_the_epoch_is_exactly_the_rest(source: str) -> None:
    """At every item of two epochs and between them, by another number of workers each time; then the next epoch."""
    make = SOURCES[source]
    with make(workers=0) as pipe:
        first, second, third = _epochs(pipe, 3)
    everything = first + second + third
    for (taken, state), way in zip(_left_at_every_item(make, workers=0), itertools.cycle(OTHERS), strict=False):
        with make(**way) as pipe:
            pipe.load_state_dict(state)
            assert pipe.state_dict() == state
            rest: list[Any] = []
            while len(rest) < len(everything) - taken:
                rest += [_plain(item) for item in pipe]
        assert rest == everything[taken:], (taken, way)


@pytest.mark.parametrize("way", OTHERS, ids=str)
@pytest.mark.parametrize("source", ["plain", "keeps its place", "unequal lanes"])
def test_the_state_does_not_depend_on_who_works(source: str, way: dict[str, Any]) -> None:
    """What workers have made ahead is not in it: it counts what was delivered."""
    make = SOURCES[source]
    assert [*_left_at_every_item(make, **way)] == [*_left_at_every_item(make, workers=0)]


@pytest.mark.usefixtures("helpers_end")
@pytest.mark.parametrize("start", ["exec", "spawn", "forkserver"])
def test_any_way_to_start_goes_on(start: str) -> None:
    """From a state that another one left, over the end of the epoch."""
    for source in ("plain", "keeps its place"):
        make = SOURCES[source]
        with make(workers=0) as pipe:
            first, second = _epochs(pipe, 2)
        *_, (_, state) = itertools.islice(_left_at_every_item(make, workers=0), 5)
        with make(workers=2, start=start) as pipe:
            pipe.load_state_dict(state)
            assert _epochs(pipe, 2) == [first[4:], second]


@pytest.mark.parametrize("way", OTHERS[:4], ids=str)
def test_random_numbers_go_on_where_they_were(way: dict[str, Any]) -> None:
    """A generator that is run again draws what it drew: `random`, numpy, halves of normal pairs, and the lane's own."""
    make = functools.partial(MpQItr, sources.drawn, 9, lanes=2, seed=4)
    with make(workers=0) as pipe:
        first, second = _epochs(pipe, 2)
    for taken, state in _left_at_every_item(make, workers=0):
        if taken in (1, 4, 5, 8):
            with make(**way) as pipe:
                pipe.load_state_dict(state)
                assert _epochs(pipe, 2) == [first[taken:], second]


def _data(tmp_path: Path, records: int = 53) -> SplitDataLoader[Any]:
    write_split_data(tmp_path, (b"%03d" % number for number in range(records)), splits=5)
    return SplitDataLoader(tmp_path)


@pytest.mark.parametrize("lanes", [1, 2, 3, 5])
def test_batches_go_on_with_other_lanes(tmp_path: Path, lanes: int) -> None:
    """At every batch and between epochs, for where they are is one number."""
    with _data(tmp_path) as data:
        make = functools.partial(data.batches, 4, seed=3)
        with make(lanes=3) as pipe:
            first, second = _epochs(pipe, 2)
        assert len(first) == 14
        for taken, state in _left_at_every_item(make, lanes=3):
            if taken > 14:
                break
            with make(lanes=lanes, workers=taken % 3, start="fork") as pipe:
                pipe.load_state_dict(state)
                rest: list[Any] = []
                while len(rest) < 28 - taken:
                    rest += list(pipe)
                assert rest == (first + second)[taken:]


def test_batches_of_another_object_and_another_process_go_on(tmp_path: Path) -> None:
    """A state is of data and options, not of an object in memory."""
    with _data(tmp_path) as data, data.batches(4, workers=0) as pipe:
        items = iter(pipe)
        taken = [next(items) for _ in range(3)]
        state = json.dumps(pipe.state_dict())
        rest = list(items)
    with SplitDataLoader(tmp_path) as data, data.batches(4, workers=1) as pipe:
        pipe.load_state_dict(json.loads(state))
        assert list(pipe) == rest
    assert len(taken + rest) == 14
    assert "0x" not in state


def test_a_partial_and_a_callable_object_go_on() -> None:
    """Made anew, as another process would."""

    class Source:
        def __call__(self) -> Iterator[int]:
            yield from range(5)

    def make_partial() -> MpQItr[Any]:
        return MpQItr(functools.partial(sources.plain, 5), workers=0)

    def make_object() -> MpQItr[Any]:
        return MpQItr(pickle.loads(pickle.dumps(SourceHere())), workers=0)

    for make in (make_partial, make_object, lambda: MpQItr(Source(), workers=0)):
        with make() as pipe:
            items = iter(pipe)
            next(items)
            state = json.loads(json.dumps(pipe.state_dict()))
            rest = list(items)
        assert "0x" not in json.dumps(state)
        with make() as pipe:
            pipe.load_state_dict(state)
            assert list(pipe) == rest


class SourceHere:
    """An object that is called for its items."""

    def __call__(self) -> Iterator[int]:
        """Yield them."""
        yield from range(5)


@pytest.mark.parametrize("start", ["fork", "thread"])
@pytest.mark.parametrize("source", ["plain", "keeps its place", "unequal lanes"])
def test_without_an_order_every_item_comes_once(source: str, start: str) -> None:
    """What was delivered before, and what comes after: together the epoch, nothing twice."""
    make = functools.partial(SOURCES[source], ordered=False, start=start)
    with make(workers=0) as pipe:
        first = list(pipe)
    for taken in range(0, len(first) + 1, 3):
        with make(workers=2) as pipe:
            items = iter(pipe)
            before = [next(items) for _ in range(taken)]
            state = json.loads(json.dumps(pipe.state_dict()))
        with make(workers=3) as pipe:
            pipe.load_state_dict(state)
            assert sorted(before + list(pipe)) == sorted(first)


def test_a_state_is_taken_and_given_in_the_middle_of_an_epoch() -> None:
    """By the same pipeline: the iterator of the epoch given up says so, the next one goes on."""
    with MpQItr(sources.plain, 8, lanes=2, workers=2, start="fork") as pipe:
        items = iter(pipe)
        before = [next(items) for _ in range(3)]
        state = pipe.state_dict()
        next(items)
        pipe.load_state_dict(state)
        assert [number for number, _, _ in [*before, *pipe]] == [*range(8)]
        assert [epoch for _, _, epoch in pipe] == [1] * 8


def test_a_state_is_small_whatever_the_number_of_items() -> None:
    """A few hundred bytes, in plain types."""
    with MpQItr(sources.keeping, 3000, workers=0, lanes=2) as pipe:
        items = iter(pipe)
        for _ in range(2000):
            next(items)
        state = pipe.state_dict()

    assert len(json.dumps(state)) < 400
    assert json.loads(json.dumps(state)) == state


def _two(seed: int = 0) -> MpQItr[Any]:
    pipe = MpQItr(sources.plain, 8, workers=0, lanes=2, seed=seed)
    next(iter(pipe))
    return pipe


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 5}, r"state is of a pipeline with seed=5, and this one has seed=0"),
        ({"lanes": 3}, r"with lanes=3, and this one has lanes=2"),
        ({"generator": "other"}, r"with generator='other', and this one has generator='plain'"),
        ({"data": ["7 records"]}, r"with data=\['7 records'\], and this one has data=\[\]"),
        ({"world_size": 2}, "with world_size=2"),
        ({"tail": "pad"}, "with tail='pad'"),
        ({"version": 2}, "version 2, and this splitpipe knows 1: update it"),
        ({"items": None}, "damaged"),
        ({"items": [1]}, "damaged"),
        ({"items": [1, -2]}, "damaged"),
        ({"items": ["x", 0]}, "damaged"),
        ({"left": [0, 7]}, "damaged"),
        ({"left": [0, 0]}, "damaged"),
        ({"left": 3}, "damaged"),
        ({"states": []}, "damaged"),
        ({"states": {"0": "{"}}, "damaged"),
        ({"states": {"0": 5}}, "damaged"),
        ({"states": {"0": "[1]"}}, "damaged"),
        ({"epoch": "x"}, "damaged"),
    ],
)
def test_a_state_of_something_else_is_refused(change: dict[str, Any], message: str) -> None:
    """With the difference named; and the pipeline stays as it was."""
    with _two() as pipe:
        state = pipe.state_dict()
        with pytest.raises(StateError, match=message):
            pipe.load_state_dict({**state, **change})
        assert pipe.state_dict() == state
        for name in change:
            with pytest.raises(StateError):
                pipe.load_state_dict({key: value for key, value in state.items() if key != name})


@pytest.mark.parametrize("state", [None, 3, [], {}, "x", {"epoch": 0}])
def test_what_is_no_state_is_refused(state: Any) -> None:
    """As a StateError, which is a ValueError."""
    with _two() as pipe, pytest.raises(StateError, match="a state is what state_dict"):
        pipe.load_state_dict(state)


def test_a_state_of_other_data_is_refused(tmp_path: Path) -> None:
    """Other records, another size of batches, another order: all would go on with other items."""
    with _data(tmp_path / "a") as data, _data(tmp_path / "b", 54) as other:
        with data.batches(4) as pipe:
            next(iter(pipe))
            state = pipe.state_dict()
        for wrong in (other.batches(4), data.batches(5), data.batches(4, shuffle=False), data[:50].batches(4)):
            with wrong, pytest.raises(StateError, match=r"with data=\['53 records .*and this one has data=\["):
                wrong.load_state_dict(state)
        with MpQItr(_read, data, workers=0) as pipe:
            next(iter(pipe))
            state = pipe.state_dict()
        with MpQItr(_read, other, workers=0) as pipe, pytest.raises(StateError, match="with data="):
            pipe.load_state_dict(state)


def _read(data: SplitDataLoader[Any]) -> Iterator[Any]:
    yield from data.iterate_binwise()


def test_lanes_that_came_out_of_turn_are_not_moved(tmp_path: Path) -> None:
    """Of an unordered epoch the number of batches does not tell which they were."""
    with _data(tmp_path) as data, data.batches(4, lanes=2) as pipe:
        next(iter(pipe))
        state = {**pipe.state_dict(), "items": [3, 0]}
        with data.batches(4, lanes=3) as other, pytest.raises(StateError, match="lanes=2, and this one has lanes=3"):
            other.load_state_dict(state)


@pytest.mark.parametrize("way", OTHERS, ids=str)
def test_a_generator_that_gives_fewer_items_now_is_named(tmp_path: Path, way: dict[str, Any]) -> None:
    """Rather than an epoch that silently ends early."""
    length = tmp_path / "length"
    length.write_text("9")

    def generate() -> Iterator[int]:
        yield from range(int(length.read_text()))

    with MpQItr(generate, workers=0) as pipe:
        items = iter(pipe)
        for _ in range(5):
            next(items)
        state = pipe.state_dict()
    length.write_text("3")
    with MpQItr(generate, lanes=1, **way) as pipe:
        pipe.load_state_dict(state)
        with pytest.raises(JobError, match=r"lane 0 of epoch 0 had given 5 items, and .*generate gives fewer now"):
            list(pipe)


@pytest.mark.parametrize("way", OTHERS[:2], ids=str)
def test_a_place_that_is_no_json_is_named(way: dict[str, Any]) -> None:
    """At the item that it goes with."""

    def generate() -> Iterator[int]:
        for number in range(3):
            current_lane().state["place"] = number if number < 2 else {1, 2}
            yield number

    with MpQItr(generate, **way) as pipe:
        items = iter(pipe)
        assert [next(items), next(items)] == [0, 1]
        with pytest.raises(TypeError, match=r"saved as plain JSON, and in lane 0 of 1.* it is not"):
            next(items)


@pytest.mark.parametrize("size", [10, 20_000, 300_000])
@pytest.mark.parametrize("length", [5000, 70_000])
def test_a_place_may_be_large(size: int, length: int) -> None:
    """Larger than a message of the pipe, or than a pack, beside items of every way of travelling."""

    def generate() -> Iterator[Any]:
        state = current_lane().state
        for i in range(state.get("next", 0), 6):
            state.update(next=i + 1, fat="x" * length)
            built = empty(size, np.uint8)
            built[:] = i
            yield built

    with MpQItr(generate, start="fork") as pipe:
        items = iter(pipe)
        before = [next(items)[-1] for _ in range(3)]
        state = json.loads(json.dumps(pipe.state_dict()))
    with MpQItr(generate, start="fork") as pipe:
        pipe.load_state_dict(state)
        assert before + [item[-1] for item in pipe] == list(range(6))


def test_a_place_goes_with_what_was_built_whatever_its_size() -> None:
    """Where the table of an item travels in the message itself, beside padding that is none of the place."""

    def generate() -> Iterator[Any]:
        state = current_lane().state
        for i in range(state.get("next", 0), 4):
            state["next"] = i + 1
            yield empty(70_001, np.uint8)

    with MpQItr(generate, start="fork") as pipe:
        next(iter(pipe))
        assert pipe.state_dict()["states"] == {"0": '{"next": 1}'}
