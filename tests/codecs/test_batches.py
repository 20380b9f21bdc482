"""Batches of `struct` and `tree`: one value for many records, equal to the records taken one by one."""

import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from splitpipe import SplitDataLoader, write_split_data
from splitpipe.errors import CollateError

COUNT = 103


def _tree(i: int, *, texts: bool = False) -> dict[Any, Any]:
    tree: dict[Any, Any] = {
        "image": np.arange(12, dtype=">u2").reshape(3, 4) + np.uint16(i),
        "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3) * i),
        "when": np.array([f"2026-01-{1 + i % 28:02}"], "M8[D]"),
        "zero": np.array(i, "i1"),
        "empty": np.zeros((0, 2), "f4"),
        "id": i,
        "half": i / 2,
        "odd": bool(i % 2),
        "scalar": np.float32(i),
        "row": np.array([(i, b"x")], [("a", ">i4"), ("b", "S3")])[0],
        "code": np.str_("ab"),
        "nothing": None,
        3: (i, [np.int8(i % 100), {"deep": -i}]),
    }
    return {**tree, "name": f"n{i}", "raw": bytes([i])} if texts else tree


def _assert_stacked(batch: Any, records: list[Any]) -> None:
    """Every leaf of `batch` holds those of `records`, in the same structure."""
    first = records[0]
    if first is None:
        assert batch is None
    elif isinstance(first, dict):
        assert list(batch) == list(first)
        for key in first:
            _assert_stacked(batch[key], [record[key] for record in records])
    elif isinstance(first, list | tuple):
        assert type(batch) is type(first)
        for i in range(len(first)):
            _assert_stacked(batch[i], [record[i] for record in records])
    elif type(first) in (str, bytes):
        assert batch == records
    else:
        value = np.asarray(first)
        assert batch.dtype == value.dtype
        assert batch.shape == (len(records), *value.shape)
        np.testing.assert_array_equal(batch, np.array(records, value.dtype))


@pytest.fixture(params=["tree", "tree, mixed sizes", "tree+zlib", "struct"])
def data(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SplitDataLoader]:
    """103 records in two segments of three bins, whose batches are of arrays or have texts in lists too."""
    if request.param == "struct":
        rows = np.zeros(COUNT, [("id", "<i8"), ("x", ">f4", (2,))])
        rows["id"] = np.arange(COUNT)
        rows["x"][:, 1] = np.arange(COUNT) / 3
        records: Any = rows
    else:
        records = [_tree(i, texts=request.param != "tree") for i in range(COUNT)]
    codec = request.param.partition(",")[0]
    write_split_data(tmp_path, records[:60], splits=3, codec=codec)
    write_split_data(tmp_path, records[60:], splits=3, codec=codec)
    with SplitDataLoader(tmp_path) as data:
        yield data


def _ids(batch: Any) -> list[int]:
    ids: list[int] = batch["id"].tolist()
    return ids


def _check(data: SplitDataLoader, batch: Any) -> None:
    records = data.gather(_ids(batch))
    if isinstance(batch, np.ndarray):
        np.testing.assert_array_equal(batch, np.array(records, batch.dtype))
    else:
        _assert_stacked(batch, records)


@pytest.mark.parametrize("window", [1, 3])
@pytest.mark.parametrize("shuffle", [False, True])
def test_a_batch_holds_the_records_gathered_one_by_one(data: SplitDataLoader, shuffle: bool, window: int) -> None:
    """Values, shapes, dtypes, structure; every record once; over the ends of bins and segments."""
    batches = list(data.batches(16, shuffle=shuffle, window=window, seed=5))

    assert [len(_ids(batch)) for batch in batches] == [16] * 6 + [7]
    assert sorted(i for batch in batches for i in _ids(batch)) == list(range(COUNT))
    for batch in batches:
        _check(data, batch)


def test_workers_make_the_same_sequence(data: SplitDataLoader) -> None:
    """Two of them as none, epoch by epoch."""
    made = []
    for workers in (0, 2):
        with data.batches(10, workers=workers, window=2, seed=3) as batches:
            made.append([[pickle.dumps(batch) for batch in batches] for _ in range(2)])
    assert [[_ids(pickle.loads(b)) for b in epoch] for epoch in made[0]] == [
        [_ids(pickle.loads(b)) for b in epoch] for epoch in made[1]
    ]
    for batch in made[1][1]:
        _check(data, pickle.loads(batch))
    assert made[0][0] != made[0][1]


def test_the_last_batch_may_be_left_out(data: SplitDataLoader) -> None:
    """And the length says so."""
    assert len(data.batches(16)) == 7
    assert len(data.batches(16, drop_last=True)) == 6
    assert [len(_ids(batch)) for batch in data.batches(16, drop_last=True)] == [16] * 6
    assert list(data.batches(COUNT + 1, drop_last=True)) == []


def test_unshuffled_batches_are_in_the_order_of_iterate_binwise(data: SplitDataLoader) -> None:
    """Cut into pieces, and nothing else."""
    ids = [i for batch in data.batches(7, shuffle=False) for i in _ids(batch)]
    assert ids == [int(record["id"]) for record in data.iterate_binwise()]


def test_collate_and_transform_are_the_users_own(data: SplitDataLoader) -> None:
    """`list` leaves the records as they are; a transform gets what collate made."""
    (batch,) = data.batches(COUNT, shuffle=False, collate=list)
    assert type(batch) is list
    assert [int(record["id"]) for record in batch] == [int(record["id"]) for record in data.iterate_binwise()]
    sums = list(data.batches(50, collate=lambda records: [int(r["id"]) for r in records], transform=sum))
    assert sum(sums) == sum(range(COUNT))
    assert [type(x) for x in data.batches(60, transform=_ids)] == [list, list]


def test_batches_of_a_view_hold_its_records(data: SplitDataLoader) -> None:
    """Of a slice and of a selection."""
    view = data.select([5, 70, 9, 100, 5])[1:]
    (batch,) = view.batches(10, shuffle=False)

    assert sorted(_ids(batch)) == [5, 9, 70, 100]
    _check(data, batch)


@pytest.mark.parametrize(
    ("others", "message"),
    [
        ({"x": np.zeros(4)}, r"record\['x'\] is not alike .* arrays of float64\[3\], float64\[4\]"),
        ({"x": np.zeros(3, "f4")}, r"record\['x'\] .* float32\[3\], float64\[3\]"),
        ({"x": [1, 2]}, r"record\['x'\] .* list and ndarray"),
        ({"x": None}, r"record\['x'\] .* NoneType and ndarray"),
        ({"y": np.zeros(3)}, "record is not alike .* dicts with other keys"),
        ([], "record is not alike .* dict and list"),
    ],
)
def test_records_that_differ_are_refused_with_the_place(tmp_path: Path, others: Any, message: str) -> None:
    """And with the cure, which works."""
    write_split_data(tmp_path, [{"x": np.zeros(3)}, others] * 3, splits=1, codec="tree")
    data = SplitDataLoader(tmp_path)

    with pytest.raises(CollateError, match=message + ".*collate=list"):
        list(data.batches(6))
    assert len(next(iter(data.batches(6, collate=list)))) == 6


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1, 2.5], [1.0, 2.5]),
        ([1, -(2**63)], [1, -(2**63)]),
        ([np.str_("a"), np.str_("abc")], ["a", "abc"]),
        (["a", "abc"], ["a", "abc"]),
        ([np.float64(1), 2.0], [1.0, 2.0]),
        ([[1, [2]], [1, [3]]], [[1, 1], [[2, 3]]]),
        ([1, 2**63], "integers of more than 64 bits"),
        ([-1, 2**70], "integers of more than 64 bits"),
        ([[1], [1, 2]], r"record\['v'\] is not alike .* a list of other lengths"),
        ([True, 1], "bool and int"),
        ([np.int8(1), np.int16(1)], "int16 and int8"),
        ([np.datetime64(1, "s"), np.datetime64(1, "D")], "scalars of"),
    ],
)
def test_values_of_one_place_become_one_array_or_are_refused(tmp_path: Path, values: Any, expected: Any) -> None:
    """No integer becomes a float, and none is cut."""
    write_split_data(tmp_path, [{"v": value} for value in values], splits=1, codec="tree")
    batches = SplitDataLoader(tmp_path).batches(2, shuffle=False)

    if isinstance(expected, str):
        with pytest.raises(CollateError, match=expected):
            list(batches)
    else:
        (batch,) = batches
        found = batch["v"]
        plain = [part.tolist() if hasattr(part, "tolist") else part for part in found]
        if isinstance(expected[1], list) and expected[1] and isinstance(expected[1][0], list):
            plain[1] = [part.tolist() for part in found[1]]
        assert plain == expected


@pytest.mark.parametrize("codec", ["json", "pickle", "bytes"])
def test_batches_of_other_codecs_are_lists(tmp_path: Path, codec: str) -> None:
    """In the order that was asked for."""
    records = [b"a", b"bb", b"c"] if codec == "bytes" else ["a", "bb", "c"]
    write_split_data(tmp_path, records, splits=1, codec=codec)

    assert list(SplitDataLoader(tmp_path, allow_pickle=True).batches(2, shuffle=False)) == [records[:2], records[2:]]
