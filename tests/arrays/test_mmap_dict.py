"""MmapDict: a dictionary in a file that Python's own unpickler reads after every step."""

import datetime
import io
import os
import pickle
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from oracle import plain, same

from splitpipe import EmptyNDArray, MmapDict
from splitpipe.errors import (
    ArrayShapeError,
    ArrayTypeError,
    CorruptDataError,
    PickleRefusedError,
    ViewsAliveError,
    WriterStateError,
)

ALIGNED = np.dtype([("a", "u1"), ("b", "<f8"), ("c", ">i2", (2, 3))], align=True)
ARRAYS = [
    np.arange(6).reshape(2, 3),
    np.asfortranarray(np.arange(24.0).reshape(2, 3, 4)),
    np.arange(40, dtype=">u2").reshape(8, 5)[::2, 1:4],
    np.arange(6).reshape(2, 3).T,
    np.array(3.5),
    np.array(True),
    np.empty((0,)),
    np.empty((3, 0, 2), "<c16"),
    np.array(["a", "bcd"]),
    np.array([b"", b"xyz"]),
    np.array(["2020-01-01", "NaT"], "M8[D]"),
    np.array([5, 7], "m8[25us]"),
    np.zeros(3, ALIGNED),
    np.zeros(2, [("x", "<f4"), ("inner", [("y", "S3"), ("z", "?")])]),
    np.array([(1, 2.0)], np.dtype({"names": ["p", "q"], "formats": ["i4", "f8"], "offsets": [4, 16], "itemsize": 32})),
    np.array([1.5], np.longdouble),
    np.array([1, 2], np.float16),
    np.frombuffer(b"abcdef", "V3"),
    np.zeros((2, 2), "V0"),
    np.broadcast_to(np.arange(3), (4, 3)),
]
MASKED = [
    np.ma.MaskedArray([1.0, 2.0, 3.0], [False, True, False], fill_value=-1.0),
    np.ma.MaskedArray([1, 2, 3]),
    np.ma.MaskedArray(np.arange(6).reshape(2, 3), True),
    np.ma.MaskedArray([(1, 2.0)], [(True, False)], [("a", "i4"), ("b", "f8")]),
    np.ma.MaskedArray(np.arange(24).reshape(2, 3, 4, order="F"), False, hard_mask=True),
    np.ma.MaskedArray(5, True),
    np.ma.MaskedArray(np.empty((0, 2)), np.empty((0, 2), bool)),
    np.ma.MaskedArray(["a", "bc"], [True, False]),
]
VALUES: list[Any] = [
    None,
    True,
    -3,
    1 << 300,
    2.5,
    1 + 2j,
    "text, \ud800 too",
    b"",
    b"bytes" * 1000,
    bytearray(b"array"),
    (1, (2, [3])),
    (b"ab", 1),
    (b"ab", b"c" * 300, 3, [b"d"]),
    [b"ab"],
    {"a": {1, 2}, "b": frozenset("x")},
    range(3, 9, 2),
    slice(1, None, 2),
    ...,
    datetime.datetime(2020, 1, 2, 3, tzinfo=datetime.timezone.utc),
    np.float64(2.5),
    np.int8(3),
    np.datetime64("2020-01-01", "ns"),
    np.zeros(1, ALIGNED)[0],
    np.bool_(True),
    np.str_("s"),
    [np.arange(3), {"x": np.asfortranarray(np.arange(6).reshape(2, 3))}, np.float32(1)],
    [np.ma.MaskedArray([1, 2], [True, False])],
]


class Special:
    """A class of the user's own."""

    def __init__(self, value: object) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Special) and other.value == self.value

    __hash__ = object.__hash__


@pytest.mark.parametrize("value", [*ARRAYS, *MASKED], ids=lambda value: f"{value.dtype.str}-{value.shape}")
def test_an_array_comes_back_mapped_and_writable_in_place(tmp_path: Path, value: Any) -> None:
    """And aligned, and as a writable array of its own to whoever unpickles the file."""
    path = tmp_path / "d.pickle"
    with MmapDict(path) as d:
        d["x"] = 1  # so that the array does not begin where the file does
        d["array"] = value
        found = d["array"]
        data = found.data if isinstance(found, np.ma.MaskedArray) else found
        assert same(found, value)
        assert same(found, plain(path)["array"])
        assert type(found) is (np.ma.MaskedArray if isinstance(value, np.ma.MaskedArray) else np.memmap)
        assert isinstance(data, np.memmap)
        assert data.flags.aligned
        assert data.flags.writeable
        assert plain(path)["array"].flags.writeable
        assert data.flags.f_contiguous == value.flags.f_contiguous or not value.flags.forc
        if value.size and value.dtype.itemsize:
            data.view(np.ndarray)[...] = np.zeros((), value.dtype)
            assert same(plain(path)["array"], found)
            again = MmapDict(path)["array"]
            again = again.data if isinstance(again, np.ma.MaskedArray) else again
            assert str(again.tolist()) == str(np.zeros(value.shape, value.dtype).tolist())


def test_masks_fill_values_and_hardness_stay_and_are_written_to_in_place(tmp_path: Path) -> None:
    """A mask is mapped like the data; that there is none is kept too."""
    path = tmp_path / "d.pickle"
    d = MmapDict(path)
    d.update({str(i): value for i, value in enumerate(MASKED)})
    for i, value in enumerate(MASKED):
        for found in (d[str(i)], plain(path)[str(i)]):
            fills = [np.asarray(each.fill_value, value.dtype).tobytes() for each in (found, value)]
            assert fills[0] == fills[1]
            assert found.hardmask == value.hardmask
            assert (found.mask is np.ma.nomask) == (value.mask is np.ma.nomask)
    d["0"][2] = np.ma.masked
    d["0"][1] = 7.0

    assert plain(path)["0"].mask.tolist() == [False, False, True]
    assert plain(path)["0"].tolist() == [1.0, 7.0, None]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_values_of_builtin_types_and_of_numpy_need_no_leave(tmp_path: Path, value: Any) -> None:
    """They come back from another object, without `allow_pickle`, and from Python's unpickler."""
    path = tmp_path / "d.pickle"
    MmapDict(path)["v"] = value

    assert same(MmapDict(path)["v"], value)
    assert same(plain(path)["v"], value)


def test_objects_shared_within_a_value_and_values_with_many_of_them_do_not_mix(tmp_path: Path) -> None:
    """Each value has a memo of its own, whatever comes before it."""
    path = tmp_path / "d.pickle"
    shared: list[Any] = [1]
    loop: list[Any] = []
    loop.append(loop)
    d = MmapDict(path)
    d["many"] = [[i] for i in range(1000)] * 2
    d["twice"] = [shared, shared, "text", "text"]
    d["loop"] = loop
    d["after"] = [shared, shared]
    for found in (d, plain(path)):
        assert found["many"] == [[i] for i in range(1000)] * 2
        twice, loop = found["twice"], found["loop"]
        assert twice[0] is twice[1]
        assert loop[0] is loop
        assert found["after"] == [[1], [1]]


def test_what_is_more_than_builtin_asks_for_leave(tmp_path: Path) -> None:
    """But not of the object that stored it."""
    path = tmp_path / "d.pickle"
    d = MmapDict(path)
    d["own"], d["objects"], d["plain"] = Special([1]), [np.array([{}, 2])], 3
    assert d["own"] == Special([1])

    other = MmapDict(path)
    with pytest.raises(PickleRefusedError, match=r"value of 'own' .*Special.*allow_pickle=True"):
        other["own"]
    with pytest.raises(PickleRefusedError):
        other["objects"]
    assert other["plain"] == 3
    trusting = MmapDict(path, allow_pickle=True)
    assert trusting["own"] == Special([1])
    assert trusting["objects"][0].tolist() == [{}, 2]
    d["more"] = 1
    del d["plain"]
    d.vacuum()
    assert d["own"] == Special([1])


def test_a_hostile_pickle_is_not_run(tmp_path: Path) -> None:
    """Neither a call of its own, nor numpy's with arguments that would make objects of bytes."""
    d = MmapDict(tmp_path / "d.pickle")

    class Call:
        def __init__(self, *call: Any) -> None:
            self._call = call

        def __reduce__(self) -> Any:
            return self._call

    d["system"] = [Call(os.system, ("touch " + str(tmp_path / "ran"),))]
    d["getattr"] = [Call(getattr, ([], "append"))]
    d["objects"] = [Call(np.ndarray, ((1,), "O", bytearray(8), 0, None, "C"))]
    d["far"] = [Call(np.ndarray, ((1 << 40,), "u1", bytearray(8), 0, None, "C"))]
    d["strides"] = [Call(np.ndarray, ((4,), "u1", bytearray(8), 0, (1000,), "C"))]
    other = MmapDict(tmp_path / "d.pickle")
    for key in other:
        with pytest.raises((PickleRefusedError, CorruptDataError)):
            other[key]
    assert not (tmp_path / "ran").exists()


@pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")
def test_no_private_name_of_numpy_is_in_the_file(tmp_path: Path) -> None:
    """So that versions of numpy that call their modules otherwise read it."""
    path = tmp_path / "d.pickle"
    d = MmapDict(path, allow_pickle=True)
    d.update({str(i): value for i, value in enumerate([*ARRAYS, *MASKED, *VALUES])})
    d["objects"] = [
        np.array([{}, 2]),
        np.matrix([[1, 2]]),
        np.rec.array([(1, 2.0)], "i4,f8"),
        np.dtype("f4"),
        np.float32,
    ]

    assert b"_core" not in path.read_bytes()
    assert b"numpy.core" not in path.read_bytes()
    assert type(plain(path)["objects"][1]) is np.matrix
    assert plain(path)["objects"][2].f0.tolist() == [1]
    assert plain(path)["objects"][0].tolist() == [{}, 2]


KEYS = st.text(max_size=3) | st.sampled_from(["a", "b", "k" * 255, "k" * 256, "é" * 200])
SMALL = st.none() | st.integers() | st.text() | st.binary() | st.lists(st.integers(), max_size=3)
DTYPES = npst.scalar_dtypes() | npst.array_dtypes(allow_subarrays=True)
STORED = SMALL | npst.arrays(DTYPES, npst.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
STEPS = st.one_of(
    st.tuples(st.just("set"), KEYS, STORED),
    st.tuples(st.just("update"), st.dictionaries(KEYS, STORED, max_size=4), st.none()),
    st.tuples(st.sampled_from(["delete", "pop", "setdefault"]), KEYS, st.none()),
    st.tuples(st.sampled_from(["vacuum", "reopen", "clear", "popitem"]), st.none(), st.none()),
)


def _step(d: MmapDict, model: dict[str, Any], name: str, one: Any, value: Any) -> None:
    if name == "set":
        d[one] = value
        model.pop(one, None)  # a new value comes last
        model[one] = value
    elif name == "update":
        d.update(one)
        for key in one:
            model.pop(key, None)
        model.update(one)
    elif name == "delete" and one in model:
        del d[one], model[one]
    elif name == "pop":
        assert same(d.pop(one, None), model.pop(one, None))
    elif name == "setdefault":
        d.setdefault(one, 3)
        model.setdefault(one, 3)
    elif name == "popitem" and model:
        key, _ = d.popitem()
        del model[key]
    elif name == "clear":
        d.clear()
        model.clear()
    elif name == "vacuum":
        d.vacuum()


@settings(max_examples=150, deadline=None)
@given(st.lists(STEPS, max_size=12))
def test_it_does_what_a_dict_does_and_the_file_is_a_pickle_of_it_after_each_step(steps: list[Any]) -> None:
    """Two objects on one file, of which one watches; and Python's unpickler."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "d.pickle"
        model: dict[str, Any] = {}
        d, watcher = MmapDict(path), MmapDict(path, readonly=True)
        for name, one, value in steps:
            before = d.commit_number, list(model)
            _step(d, model, name, one, value)
            if name == "reopen":
                d.close()
                d = MmapDict(path)
            assert before[0] != d.commit_number or before[1] == list(model)
            watcher.refresh()
            for found in (d, watcher, MmapDict(path), plain(path)):
                assert list(found) == list(found.keys()) == list(model)
                assert len(found) == len(model)
                assert all(same(found[key], model[key]) for key in model)
            assert not watcher.refresh()
        d.close()
        watcher.close()


def test_it_looks_like_a_dict(tmp_path: Path) -> None:
    """Keys, items, membership, defaults, errors, text."""
    d = MmapDict(tmp_path / "d.pickle")
    d.update([("a", 1)], b=2)
    d |= {"c": 3}

    assert repr(d.keys()) == "dict_keys(['a', 'b', 'c'])"
    assert list(d.items()) == [("a", 1), ("b", 2), ("c", 3)]
    assert list(d.values()) == [1, 2, 3]
    assert "a" in d
    assert "x" not in d
    assert 5 not in d
    assert d.get("x") is None
    assert d == {"a": 1, "b": 2, "c": 3}
    assert repr(d) == f"<MmapDict '{tmp_path / 'd.pickle'}': 3 keys>"
    with pytest.raises(KeyError):
        d["x"]
    with pytest.raises(KeyError):
        del d["x"]


def test_a_key_that_is_stored_again_comes_last_and_leaves_earlier_arrays_as_they_are(tmp_path: Path) -> None:
    """What somebody looks at does not change under him."""
    d = MmapDict(tmp_path / "d.pickle")
    d["a"], d["b"] = np.arange(3), 2
    old = d["a"]
    d["a"] = np.arange(3) + 10

    assert old.tolist() == [0, 1, 2]
    assert d["a"].tolist() == [10, 11, 12]
    assert list(d) == ["b", "a"]


def test_update_is_all_or_nothing(tmp_path: Path) -> None:
    """A value that cannot be stored leaves the file byte for byte as it was."""
    path = tmp_path / "d.pickle"
    d = MmapDict(path)
    d["a"] = 1
    before = path.read_bytes()
    with pytest.raises(ArrayTypeError):
        d.update({"b": np.zeros(100_000), "c": (i for i in "x")})
    assert path.read_bytes() == before
    assert list(d) == ["a"]
    number = d.commit_number
    d.update({"b": 1, "c": 2, "d": 3})
    assert d.commit_number == number + 1


def test_an_empty_array_reserves_without_memory_or_disk(tmp_path: Path) -> None:
    """Of more than 4 GiB; what is written to its end is there for all, and clearing out keeps the holes."""
    path = tmp_path / "d.pickle"
    d = MmapDict(path)
    d["junk"] = np.ones(1000)
    d["large"] = EmptyNDArray((5, 1 << 30), np.uint8)
    d["small"] = EmptyNDArray(3)
    d["after"] = "text"
    d["large"][4, -1] = 7
    del d["junk"]
    d.vacuum()

    assert path.stat().st_size > 5 << 30
    assert path.stat().st_blocks * 512 < 1 << 20
    other = MmapDict(path, readonly=True)
    assert other["large"].shape == (5, 1 << 30)
    assert (other["large"][4, -1], other["large"][0, 0], other["large"][4, -2]) == (7, 0, 0)
    assert other["small"].tolist() == [0, 0, 0]
    assert other["small"].dtype == np.float64
    assert other["after"] == "text"
    with pytest.raises(ArrayShapeError, match="no negative extent"):
        EmptyNDArray((3, -1))


def test_what_a_killed_writer_left_does_not_show_in_an_empty_array(tmp_path: Path) -> None:
    """The bytes behind the end are dropped before anything is written there."""
    path = tmp_path / "d.pickle"
    d = MmapDict(path)
    with path.open("ab") as file:
        file.write(b"\xff" * 100_000)
    d["x"] = EmptyNDArray(1000, "u1")

    assert not d["x"].any()


def test_vacuum_gives_the_room_back_and_refuses_while_arrays_are_mapped(tmp_path: Path) -> None:
    """Of this object or another of the process, sliced or not; afterwards everything is as before."""
    path = tmp_path / "d.pickle"
    path.touch(mode=0o640)
    d, other = MmapDict(path), MmapDict(path)
    d["gone"], d["kept"], d["word"] = np.ones(100_000), np.arange(1000), "text"
    other.refresh()
    part = other["kept"][5:10]
    del d["gone"]
    size, number = path.stat().st_size, d.commit_number
    with pytest.raises(ViewsAliveError, match="drop them first"):
        d.vacuum()
    assert path.stat().st_size == size
    del part
    d.vacuum()

    assert path.stat().st_size < 10_000
    assert path.stat().st_mode & 0o777 == 0o640
    assert d.commit_number > number
    assert other.refresh()
    for found in (d, other, plain(path)):
        assert list(found) == ["kept", "word"]
        assert found["kept"].tolist() == list(range(1000))
    assert d["kept"].ctypes.data % 64 == 0
    before = path.stat().st_ino
    d.vacuum()  # nothing to do
    assert path.stat().st_ino == before
    assert list(tmp_path.iterdir()) == [path]


def test_vacuum_keeps_every_value_and_arrays_aligned_wherever_they_come_to_lie(tmp_path: Path) -> None:
    """With keys of all lengths taken out before them, so that each moves by another number of bytes."""
    d = MmapDict(tmp_path / "d.pickle")
    d.update({"k" * (i % 90) + str(i): np.arange(i % 7 * 10.0) if i % 2 else (b"x" * i, i) for i in range(300)})
    for key in list(d)[::3]:
        del d[key]
    before = {key: np.array(value) if isinstance(value, np.ndarray) else value for key, value in d.items()}
    d.vacuum()

    assert same(dict(d), before)
    assert same(plain(tmp_path / "d.pickle"), before)
    assert all(value.ctypes.data % 64 == 0 for value in d.values() if isinstance(value, np.ndarray) and value.size)


def test_arrays_outlive_the_dictionary(tmp_path: Path) -> None:
    """A closed one says so."""
    d = MmapDict(tmp_path / "d.pickle")
    d["x"] = np.arange(3)
    array = d["x"]
    d.close()
    d.close()
    array[0] = 9
    array.flush()

    assert array.tolist() == [9, 1, 2]
    with pytest.raises(WriterStateError, match="is closed"):
        d["x"]
    with pytest.raises(WriterStateError, match="is closed"):
        d["x"] = 1


def test_the_files_of_other_interpreters_and_numpys_are_the_same(tmp_path: Path) -> None:
    """A fresh process with nothing but Python and numpy reads the file."""
    import subprocess

    path = tmp_path / "d.pickle"
    d = MmapDict(path)
    d.update({str(i): value for i, value in enumerate([*ARRAYS, *MASKED])})
    code = (
        "import pickle, sys; d = pickle.load(open(sys.argv[1], 'rb'))\n"
        "print(sum(v.nbytes for v in d.values()), any(m.startswith('splitpipe') for m in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=False)

    assert done.stdout.split() == [str(sum(value.nbytes for value in [*ARRAYS, *MASKED])), "False"], done.stderr


def test_flush_and_durability(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With "commit" each change is synced before it is visible and after."""
    calls: list[str] = []
    wrapped: Callable[[int], None] = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (calls.append("sync"), wrapped(fd))[1])
    d = MmapDict(tmp_path / "a.pickle")
    d["x"] = 1
    assert not calls
    d.flush()
    assert calls == ["sync"]
    MmapDict(tmp_path / "b.pickle", durability="commit")["x"] = 1
    assert calls == ["sync"] * 3
    with pytest.raises(ValueError, match='"commit" or "none"'):
        MmapDict(tmp_path / "a.pickle", durability="some")


def test_large_arrays_of_any_layout_are_written_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What does not lie in one piece is copied a part at a time."""
    monkeypatch.setattr("splitpipe.arrays.pieces._COPY_BYTES", 1000)
    monkeypatch.setattr("splitpipe.arrays.pieces._BUFFER_BYTES", 100)
    value = np.arange(3 * 500 * 7).reshape(3, 500, 7).transpose(1, 0, 2)[::2]
    d = MmapDict(tmp_path / "d.pickle")
    d.update({"a": value, "b": "x" * 1000, "c": value[0]})

    assert same(d["a"], value)
    assert same(plain(tmp_path / "d.pickle"), {"a": value, "b": "x" * 1000, "c": value[0]})


def test_the_classes_own_pickles_are_read_by_both_unpicklers(tmp_path: Path) -> None:
    """The one in C and the one in Python."""
    path = tmp_path / "d.pickle"
    d = MmapDict(path)
    d.update({"x": np.arange(3), "m": MASKED[0], "gone": 1, "v": [1, 2]})
    del d["gone"]
    found = pickle._Unpickler(io.BytesIO(path.read_bytes())).load()  # type: ignore[attr-defined]

    assert same(found, plain(path))
    assert list(found) == ["x", "m", "v"]
