"""Views, selections, samples, several data sets as one, and the orders to read them in."""

import itertools
import pickle
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splitpipe import MpQItr, SplitDataLoader, concat, mix, write_split_data
from splitpipe.errors import CorruptDataError


def _numbers(path: Path, *counts: int, splits: int = 4) -> SplitDataLoader:
    """Return a data set of the records b"0", b"1", ... with their number in a column, in a segment per count."""
    begin = 0
    for count in counts:
        rows = [(b"%d" % i, {"number": i, "text": f"n{i}"}) for i in range(begin, begin + count)]
        write_split_data(path, rows, splits=splits, columns={"number": int, "text": str})
        begin += count
    return SplitDataLoader(path)


@pytest.fixture
def data(tmp_path: Path) -> Iterator[SplitDataLoader]:
    """Fifty records in two segments."""
    with _numbers(tmp_path / "data", 30, 20) as opened:
        yield opened


Step = st.integers(-3, 3).filter(bool)
Cut = st.slices(50)


@settings(deadline=None, max_examples=60)
@given(cuts=st.lists(st.one_of(Cut, st.lists(st.integers(0, 5), max_size=8)), max_size=4))
def test_views_of_views_are_what_lists_give(cuts: list[Any], tmp_path_factory: pytest.TempPathFactory) -> None:
    """Any slices and selections, one on top of the other, read in every way."""
    view: Any = _shared(tmp_path_factory)
    expected = [b"%d" % i for i in range(50)]
    for cut in cuts:
        if isinstance(cut, slice):
            view, expected = view[cut], expected[cut]
        else:
            ids = [number for number in cut if number < len(expected)]
            view, expected = view.select(ids), [expected[number] for number in ids]

    assert list(view) == expected
    assert [view[i] for i in range(len(view))] == expected
    assert view.gather(range(len(view))) == view[list(range(len(view)))] == expected
    assert view.gather(range(len(view)), threads=2) == expected
    assert view.columns["number"].tolist() == [int(record) for record in expected]
    assert view.columns["text"].tolist() == [f"n{int(record)}" for record in expected]
    for options in ({}, {"shuffle": True, "seed": 5}, {"shuffle": True, "window": 3}):
        assert sorted(view.iterate_binwise(**options)) == sorted(expected)
    assert list(pickle.loads(pickle.dumps(view))) == expected


def _shared(factory: pytest.TempPathFactory) -> SplitDataLoader:
    path = factory.getbasetemp() / "shared-views"
    return SplitDataLoader(path) if path.exists() else _numbers(path, 30, 20)


def test_a_condition_on_columns_selects_before_any_record_is_read(data: SplitDataLoader) -> None:
    """Even of records that are damaged."""
    for path in data._dataset.path.glob("*/*.bin"):
        content = bytearray(path.read_bytes())
        content[64:70] = b"\xff" * 6
        path.write_bytes(content)
    numbers = data.columns["number"]
    view = data.select((numbers >= 10) & (numbers % 2 == 0))

    assert len(view) == 20
    assert view.columns["number"].tolist() == list(range(10, 50, 2))


@pytest.mark.parametrize(
    ("which", "message"),
    [([True, False], "one element per record, 50, and got shape"), ([50], "no record 50"), ([1.5], "integers")],
)
def test_a_selection_that_does_not_fit_is_refused(data: SplitDataLoader, which: Any, message: str) -> None:
    """Naming what is expected and what was got."""
    with pytest.raises(IndexError, match=message):
        data.select(which)


def test_views_pickle_small(tmp_path: Path) -> None:
    """A bit per record of the whole, or a few bytes per record of the view, whichever is less."""
    write_split_data(tmp_path, (b"x" for _ in range(80_000)), splits=2)
    data = SplitDataLoader(tmp_path)
    half = data.select(np.arange(80_000) % 2 == 0)

    assert len(pickle.dumps(data[5:70_000:3])) < 1000
    assert len(pickle.dumps(half)) < 80_000 / 8 + 1000
    assert len(pickle.dumps(data.select([5, 4, 70_000]))) < 1000
    assert len(pickle.loads(pickle.dumps(half))) == 40_000


def test_a_sample_is_the_same_for_the_same_seed(data: SplitDataLoader) -> None:
    """With and without replacement; without, no record comes twice."""
    for n in (0, 1, 7, 25, 50):
        drawn = list(data.sample(n, seed=3))
        assert len(drawn) == len(set(drawn)) == n
        assert drawn == list(data.sample(n, seed=3))
    assert list(data.sample(25, seed=3)) != list(data.sample(25, seed=4))
    assert len(set(data.sample(500, replace=True))) > 40
    assert data.sample(3).columns["number"].tolist() == [int(record) for record in data.sample(3)]


@pytest.mark.parametrize(("n", "replace"), [(51, False), (-1, True)])
def test_a_sample_that_cannot_be_drawn_is_refused(data: SplitDataLoader, n: int, replace: bool) -> None:
    """With the numbers."""
    with pytest.raises(ValueError, match=f"cannot draw {n} of 50 records"):
        data.sample(n, replace=replace)


def test_samples_are_even(tmp_path: Path) -> None:
    """Every record about as often as any other."""
    data = _numbers(tmp_path, 40)
    drawn = Counter(record for seed in range(300) for record in data.sample(8, seed=seed))

    assert len(drawn) == 40
    assert 30 < min(drawn.values()) <= max(drawn.values()) < 95


def test_a_window_mixes_bins_and_loses_nothing(tmp_path: Path) -> None:
    """Every record once, another order than without, the same for the same seed, for any number of lanes."""
    data = _numbers(tmp_path, 120, splits=8)
    plain = list(data.iterate_binwise(shuffle=True, seed=1, epoch=0))
    mixed = list(data.iterate_binwise(shuffle=True, seed=1, epoch=0, window=4))

    assert sorted(plain) == sorted(mixed)
    assert mixed != plain
    assert mixed == list(data.iterate_binwise(shuffle=True, seed=1, epoch=0, window=4))
    with pytest.raises(ValueError, match="at least 1, and got 0"):
        data.iterate_binwise(window=0)


def test_lanes_share_views_and_concats(data: SplitDataLoader, tmp_path: Path) -> None:
    """Inside a pipeline each lane yields its share of whatever sequence of records it reads."""
    other = _numbers(tmp_path / "other", 9)
    for records in (data[3:40:2], concat(data, other), mix([data, other], length=33)):

        def read(records: Any = records) -> Any:
            yield from records.iterate_binwise(shuffle=True)

        one = list(MpQItr(read, workers=0, lanes=1, seed=4))
        three = list(MpQItr(read, workers=0, lanes=3, seed=4))
        assert sorted(one) == sorted(three)
        assert one == [record for lane in range(3) for record in _of_lane(three, lane, len(one))]


def _of_lane(items: list[bytes], lane: int, total: int) -> list[bytes]:
    """Return what lane `lane` of three gave, which come in turns."""
    shares = [total * (at + 1) // 3 - total * at // 3 for at in range(3)]
    turns = [at for turn in range(max(shares)) for at in range(3) if turn < shares[at]]
    return [item for item, at in zip(items, turns, strict=True) if at == lane]


def test_concat_is_one_behind_the_other(data: SplitDataLoader, tmp_path: Path) -> None:
    """In every way of reading; views and concats can be parts, and be taken of it."""
    other = _numbers(tmp_path / "other", 12)
    both = concat(data, other[2:9], concat(other, data[:3]))
    expected = [*data, *other[2:9], *other, *data[:3]]

    assert list(both) == expected
    assert [both[i] for i in range(len(both))] == expected
    assert both[-1] == expected[-1]
    assert both[[0, 55, 3, 60, 55]] == [expected[i] for i in (0, 55, 3, 60, 55)]
    assert list(both[45:70:3]) == expected[45:70:3]
    assert list(both.select([70, 51, 0])) == [expected[i] for i in (70, 51, 0)]
    assert sorted(both.iterate_binwise(shuffle=True)) == sorted(expected)
    assert sorted(both[40:60].iterate_binwise(shuffle=True)) == sorted(expected[40:60])
    assert both.columns["number"].tolist() == [int(record) for record in expected]
    assert both.columns["text"].tolist() == [f"n{int(record)}" for record in expected]
    assert list(pickle.loads(pickle.dumps(both))) == expected
    with pytest.raises(TypeError, match="got a str: open a directory with SplitDataLoader"):
        concat(data, "path")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="at least one"):
        concat()


def test_a_mix_draws_by_weight_and_is_a_function_of_seed_and_epoch(tmp_path: Path) -> None:
    """Shares as asked for; parts that run out go on in another order; the same again for the same seed and epoch."""
    few, many = _numbers(tmp_path / "few", 10), _numbers(tmp_path / "many", 400)
    mixed = mix([few[:], many], [1, 3], length=800)
    epoch = list(mixed.iterate_binwise(seed=2, epoch=5))

    assert len(epoch) == len(mixed) == 800
    assert epoch == list(mixed.iterate_binwise(seed=2, epoch=5))
    assert epoch != list(mixed.iterate_binwise(seed=2, epoch=6))
    assert epoch != list(mixed.iterate_binwise(seed=3, epoch=5))
    of_few = [record for record in epoch if int(record) < 10]
    assert 150 < len(of_few) < 260
    passes = [of_few[at : at + 10] for at in range(0, 100, 10)]
    assert passes[0] != passes[1]


def test_each_pass_of_a_part_of_a_mix_is_complete(tmp_path: Path) -> None:
    """No record of a part comes again before all of them came."""
    a, b = _numbers(tmp_path / "a", 7), _numbers(tmp_path / "b", 5)
    write_split_data(tmp_path / "c", [b"x%d" % i for i in range(5)], splits=2)
    c = SplitDataLoader(tmp_path / "c")
    epoch = [record for record in mix([a, c], length=200).iterate_binwise() if record.startswith(b"x")]

    assert len(b) == 5
    for at in range(0, len(epoch) - 4, 5):
        assert len(set(epoch[at : at + 5])) == 5


@pytest.mark.parametrize(
    ("weights", "message"),
    [([1], "2 positive numbers"), ([1, 0], "positive"), ([1, float("nan")], "positive")],
)
def test_a_mix_that_cannot_be_is_refused(tmp_path: Path, weights: list[float], message: str) -> None:
    """With what was got."""
    data = _numbers(tmp_path, 3)
    with pytest.raises(ValueError, match=message):
        mix([data, data], weights)
    with pytest.raises(ValueError, match="has none: leave it out"):
        mix([data, data[:0]])


def test_the_exact_draw_of_a_mix_is_this_literal(tmp_path: Path) -> None:
    """A change changes everyone's runs, so it must be meant."""
    a, b = _numbers(tmp_path / "a", 3, splits=2), _numbers(tmp_path / "b", 6, splits=2)[3:]

    assert b"".join(mix([a, b], length=16).iterate_binwise(seed=1, epoch=0)) == MIXED
    assert b"".join(a.sample(3, seed=1)) + b"".join(a.sample(6, replace=True, seed=1)) == SAMPLED


MIXED = b"0345312042541013"
SAMPLED = b"210221002"


def test_threads_read_the_same_and_find_damage(data: SplitDataLoader) -> None:
    """In the order asked for, with repetitions, over several segments; a record that is damaged is named."""
    rng = np.random.default_rng(0)
    ids = rng.integers(-50, 50, 300)
    expected = data.gather(ids)

    assert SplitDataLoader(data._dataset.path).gather(ids, threads=5) == expected
    path = next(data._dataset.path.glob("*/00001.bin"))
    content = bytearray(path.read_bytes())
    content[64] ^= 1
    path.write_bytes(content)
    with pytest.raises(CorruptDataError, match=r"record .* is damaged"):
        SplitDataLoader(data._dataset.path).gather(range(50), threads=3)
    assert SplitDataLoader(data._dataset.path).gather([], threads=3) == []


def test_batches_of_plain_records_are_lists(data: SplitDataLoader) -> None:
    """In any order of workers the same; the last is short, or left out."""
    batches = list(data.batches(8, shuffle=False))

    assert list(itertools.chain(*batches)) == list(data.iterate_binwise())
    assert [len(batch) for batch in batches] == [8] * 6 + [2]
    pipe = data.batches(8, drop_last=True, seed=3)
    assert len(pipe) == 6
    first = list(pipe)
    assert [len(batch) for batch in first] == [8] * 6
    assert list(pipe) != first
    with data.batches(8, drop_last=True, seed=3, workers=2) as parallel:
        assert list(parallel) == first
    assert list(data.batches(8, seed=3, drop_last=True, transform=len)) == [8] * 6
    assert sorted(itertools.chain(*data[5:20].batches(4))) == sorted(data[5:20])
    with pytest.raises(ValueError, match="at least 1"):
        data.batches(0)
