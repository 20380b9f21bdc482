"""BigArray and BigArrayWriter: a .npy that grows, parts of which have names."""

import contextlib
import copy
import errno
import multiprocessing
import os
import pickle
import resource
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from oracle import in_child, kill_self_at

from splitpipe import ArrayLoader, BigArray, BigArrayWriter, MpQItr, concat
from splitpipe.errors import (
    ArrayFileError,
    ArrayKeyError,
    ArrayNotFoundError,
    ArrayOverlapError,
    ArrayShapeError,
    ArrayTypeError,
    CorruptDataError,
    DiskFullError,
    FormatVersionError,
    ReadOnlyError,
    WriterStateError,
)


def _rows(start: int, stop: int) -> Any:
    return np.arange(start * 3, stop * 3, dtype="i4").reshape(-1, 3)


def _loaded(path: Path) -> Any:
    """Return what numpy alone sees."""
    return np.load(path, mmap_mode="r")


def test_it_grows_and_numpy_opens_it_at_any_time(tmp_path: Path) -> None:
    """Through every number of digits of its length; the header stays where it is, and the rows aligned."""
    path = tmp_path / "a.npy"
    written = 0
    with BigArrayWriter(path, shape=(None, 3), dtype="i4") as writer:
        for count in (0, 1, 8, 1, 90, 900, 9000, 100_000, 0):
            assert writer.write(_rows(written, written + count)) is writer
            written += count
            assert writer.shape == (written, 3)
            assert np.array_equal(_loaded(path), _rows(0, written))
            assert np.array_equal(BigArray(path), _rows(0, written))
    assert (BigArray(path).offset, path.stat().st_size) == (128, 128 + written * 12)
    with path.open("rb") as file:
        assert np.lib.format.read_magic(file) == (1, 0)
        assert np.lib.format.read_array_header_1_0(file) == ((written, 3), False, np.dtype("i4"))
    assert np.array_equal(np.load(path), _rows(0, written))


def test_names_are_parts(tmp_path: Path) -> None:
    """By name, by row, as a mapping in the order of writing; of a file opened again too."""
    path = tmp_path / "a.npy"
    writer = BigArrayWriter(path, shape=(0, 3), dtype="i4")
    writer.write({"a": _rows(0, 2), "é\n": _rows(2, 2)})
    writer.write(_rows(2, 4)).flush()
    writer.close()
    with BigArrayWriter(path) as again:
        again.write({"b": _rows(4, 9)})
        assert dict(again.names) == {"a": (0, 2), "é\n": (2, 2), "b": (4, 9)}
        assert again.dtype == np.dtype("i4")
    x = BigArray(path)

    assert list(x.names.items()) == [("a", (0, 2)), ("é\n", (2, 2)), ("b", (4, 9))]
    assert np.array_equal(x["b"], _rows(4, 9))
    assert x["é\n"].shape == (0, 3)
    for name, (start, stop) in x.names.items():
        assert np.shares_memory(x[name], x[start:stop]) or start == stop
    with pytest.raises(KeyError, match="nothing in it is called 'none'"):
        x["none"]
    with pytest.raises(TypeError):
        x.names["c"] = (0, 1)  # type: ignore[index]


def test_a_place_may_be_given_and_reserved_rows_are_filled_first(tmp_path: Path) -> None:
    """Negative numbers count from the end; a gap reads as zeros."""
    path = tmp_path / "a.npy"
    with BigArrayWriter(path, shape=(6, 3), dtype="i4") as writer:
        assert writer.shape == (6, 3)
        writer.write(_rows(4, 6), start=4)
        writer.write([_rows(0, 1), _rows(1, 3)])
        assert np.array_equal(_loaded(path)[[0, 1, 2, 4, 5]], _rows(0, 6)[[0, 1, 2, 4, 5]])
        assert not _loaded(path)[3].any()
        writer.write({"over": _rows(3, 8)})
        assert np.array_equal(_loaded(path), _rows(0, 8))
        writer.write({"end": _rows(0, 2)}, start=-2)
        assert np.array_equal(BigArray(path)["end"], _rows(0, 2))
        writer.write(_rows(20, 21), start=10)
        assert _loaded(path).shape == (11, 3)
        assert not _loaded(path)[8:10].any()
        with pytest.raises(ArrayShapeError, match="before the first"):
            writer.write(_rows(0, 1), start=-12)


def test_it_is_a_memmap_and_does_what_one_does(tmp_path: Path) -> None:
    """Indexing, arithmetic, modes; its parts and results are plain arrays."""
    path = tmp_path / "a.npy"
    with BigArrayWriter(path, (0, 3), "i4") as writer:
        writer.write({"a": _rows(0, 4), "b": _rows(4, 6)})
    x, whole = BigArray(path), _rows(0, 6)

    assert isinstance(x, np.memmap)
    assert (x.shape, x.dtype, x.mode, x.filename) == ((6, 3), np.dtype("i4"), "r", path)
    for key in (2, -1, slice(1, 5, 2), [0, 3], (slice(None), 1), whole[:, 0] > 6, ..., None, (1, 2)):
        assert np.array_equal(x[key], whole[key])
    assert type(x[1:3]) is type(x["a"]) is type(x + 1) is type(next(iter(x))) is np.ndarray
    assert [row.tolist() for row in x] == whole.tolist()
    assert type(x.sum()) is np.int64
    assert x.T.tolist() == whole.T.tolist()
    assert x.reshape(-1)[4] == 4
    assert np.array_equal(copy.copy(x), whole)
    assert np.array_equal(np.concatenate([x, x]), np.concatenate([whole, whole]))
    assert str(x) == str(whole)
    with pytest.raises(IndexError):
        x[6]
    with pytest.raises(ValueError, match="read-only"):
        x[0] = 1
    private = BigArray(path, mode="c")
    private["b"] = 0
    assert not private["b"].any()
    assert np.array_equal(_loaded(path), whole)
    shared = BigArray(path, "r+")
    shared["b"] = 7
    shared[0] *= 2
    shared.flush()
    assert (_loaded(path)[4:] == 7).all()
    with pytest.raises(ValueError, match='mode is "r"'):
        BigArray(path, "w+")


def test_it_pickles_to_its_path_and_what_was_taken_from_it_to_its_elements(tmp_path: Path) -> None:
    """So that a worker maps the file."""
    path = tmp_path / "a.npy"
    with BigArrayWriter(path, (1 << 40,), "u1") as writer:
        writer.write({"end": np.array([7], "u1")}, start=-1)
    x = BigArray(path)
    sent = pickle.dumps(x)

    assert len(sent) < 1000
    assert pickle.loads(sent)["end"].tolist() == [7]
    assert pickle.loads(pickle.dumps(x[-3:])).tolist() == [0, 0, 7]
    small = x.reshape(1 << 20, -1)[-1:, -2:]
    assert pickle.loads(pickle.dumps(small)).tolist() == [[0, 7]]

    def generator(given: BigArray) -> Any:
        yield int(given["end"][0]), int(BigArray(path)[-1]), isinstance(given, np.memmap)

    with MpQItr(generator, x, workers=1) as pipe:
        assert list(pipe) == [(7, 7, True)]


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6.0).reshape(2, 3),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.zeros(3, [("a", "i4"), ("é", "f8", (2,))]),
        np.empty((0, 4)),
        np.array(5),
        np.array(["2020", "NaT"], "M8[D]"),
    ],
    ids=lambda array: f"{array.dtype.str}-{array.shape}",
)
def test_any_npy_file_opens(tmp_path: Path, array: Any) -> None:
    """In either order, of any dtype and version, with nothing in it; those in C order can grow."""
    path = tmp_path / "a.npy"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("warnings.warn", lambda *_, **__: None)  # numpy tells that version 3 is new
        np.save(path, array)
    x = BigArray(path)
    assert (x.shape, x.dtype, dict(x.names)) == (array.shape, array.dtype, {})
    assert x.tobytes() == array.tobytes()
    if array.ndim and (array.flags.c_contiguous or array.ndim < 2):
        with BigArrayWriter(path) as writer:
            writer.write({"more": array, "again": array})
        assert BigArray(path).shape == (3 * len(array), *array.shape[1:])
        assert _loaded(path)[len(array) :].tobytes() == array.tobytes() * 2
        if array.dtype.names:
            assert BigArray(path)["a"].shape == (9,)  # a field, as of any array
            assert BigArray(path)["more"].shape == (3,)
    else:
        with pytest.raises(ArrayShapeError, match="cannot grow"):
            BigArrayWriter(path)


def test_rows_that_do_not_fit_are_an_error_and_nothing_is_written(tmp_path: Path) -> None:
    """Of another shape, or of a dtype that would lose something; none of a batch with one such is."""
    path = tmp_path / "a.npy"
    writer = BigArrayWriter(path, (0, 3), "i4")
    writer.write({"a": _rows(0, 2)})
    before = path.read_bytes(), (tmp_path / "a.npy.names").read_bytes()
    for rows in (np.zeros((2, 4), "i4"), np.zeros(3, "i4"), np.zeros((2, 3, 1), "i4"), 5, np.zeros((1, 0), "i4")):
        with pytest.raises(ArrayShapeError, match=r"has shape .* rows here are of \(3,\)"):
            writer.write({"good": _rows(0, 1), "bad": rows})
    for rows in (
        np.full((1, 3), 1 << 31),
        np.full((1, 3), 0.5),
        np.full((1, 3), np.nan),
        np.full((1, 3), 1j),
        np.full((1, 3), "a"),
        np.full((1, 3), {}, "O"),
        np.full((1, 3), 2**64 - 1, "u8"),
        np.ma.MaskedArray(_rows(0, 1)),
    ):
        with pytest.raises(ArrayTypeError, match=r"does not hold all of its values|is masked"):
            writer.write({"good": _rows(0, 1), "bad": rows})
    with pytest.raises(ArrayKeyError, match="a name is a string"):
        writer.write({1: _rows(0, 1)})  # type: ignore[dict-item]
    assert (path.read_bytes(), (tmp_path / "a.npy.names").read_bytes()) == before

    writer.write(np.full((1, 3), 5.0))  # what converts without loss does
    writer.write([[1, 2, 3]])
    writer.write(np.full((1, 3), 1 << 30))
    writer.close()
    assert _loaded(path)[2:].tolist() == [[5] * 3, [1, 2, 3], [1 << 30] * 3]
    with BigArrayWriter(tmp_path / "f.npy", (0,), "f4") as floats:
        floats.write(np.array([np.nan, np.inf, 0.5]))
        with pytest.raises(ArrayTypeError, match=r"astype\('float32'\)"):
            floats.write(np.array([0.1]))


def test_a_new_array_needs_shape_and_dtype_and_an_old_one_keeps_them(tmp_path: Path) -> None:
    """Said with the cure; `overwrite` begins anew, names too."""
    path = tmp_path / "a.npy"
    with pytest.raises(ArrayShapeError, match="say which shape"):
        BigArrayWriter(path, dtype="i4")
    with pytest.raises(ArrayTypeError, match="say which dtype"):
        BigArrayWriter(path, shape=3)
    with pytest.raises(ArrayTypeError, match="no Python objects"):
        BigArrayWriter(path, 3, "O")
    with pytest.raises(ArrayShapeError, match="at least one dimension"):
        BigArrayWriter(path, (), "i4")
    with pytest.raises(ArrayShapeError, match="only the first"):
        BigArrayWriter(path, (0, -1), "i4")
    with pytest.raises(ArrayNotFoundError, match="there is no directory"):
        BigArrayWriter(tmp_path / "none" / "a.npy", 3, "i4")
    assert list(tmp_path.iterdir()) == []
    old = BigArrayWriter(path, (-1, 3), "i4")
    old.write({"a": _rows(0, 1)})
    with pytest.raises(ArrayShapeError, match="has rows of"):
        BigArrayWriter(path, (0, 4))
    with pytest.raises(ArrayTypeError, match="is of int32"):
        BigArrayWriter(path, dtype="f4")
    BigArrayWriter(path, (7, 3), "i4").close()
    assert BigArray(path).shape == (1, 3)
    with BigArrayWriter(path, (0, 2), "f4", overwrite=True) as new:
        assert BigArray(path).shape == (0, 2)
        assert dict(BigArray(path).names) == {}
        with pytest.raises(ArrayFileError, match="begun anew"):
            old.write(_rows(0, 1))
        new.write({"b": np.ones((1, 2), "f4")})
    old._file.close()
    old._names.close()
    with pytest.raises(WriterStateError, match="is closed"):
        new.write(np.ones((1, 2), "f4"))
    assert dict(BigArray(path).names) == {"b": (0, 1)}


def _write_part(job: tuple[BigArrayWriter, int]) -> int:
    writer, number = job
    writer.write({f"{number}.{i}": _rows(number * 10 + i, number * 10 + i + 1) for i in range(10)}, start=number * 10)
    return os.getpid()


@pytest.mark.parametrize("rows", [0, 200])
def test_several_processes_write_at_places_of_their_own(tmp_path: Path, rows: int) -> None:
    """With writers that were sent to them, in rows that are reserved, or that come to be."""
    path = tmp_path / "a.npy"
    writer = BigArrayWriter(path, (rows, 3), "i4")
    with multiprocessing.get_context("fork").Pool(2) as pool:
        pool.map(_write_part, [(writer, number) for number in reversed(range(20))], chunksize=1)
        pool.close()
        pool.join()
    writer.flush()
    assert len(writer.names) == 200
    writer.close()
    x = BigArray(path)

    assert np.array_equal(x, _rows(0, 200))
    assert all(np.array_equal(x[f"{i // 10}.{i % 10}"], _rows(i, i + 1)) for i in range(200))


def test_several_processes_append_and_lose_nothing(tmp_path: Path) -> None:
    """Each with a writer of its own, and by threads."""
    path = tmp_path / "a.npy"
    BigArrayWriter(path, (0, 3), "i4").close()

    def append(number: int) -> None:
        writer = BigArrayWriter(path)

        def run(first: int) -> None:
            for i in range(25):
                writer.write({f"{number}.{first + i}": _rows(number, number + 1)})

        threads = [threading.Thread(target=run, args=(first,)) for first in (0, 25)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        writer.close()

    processes = [multiprocessing.get_context("fork").Process(target=append, args=(n,)) for n in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        process.close()
    x = BigArray(path)

    assert x.shape == (200, 3)
    assert sorted(x.names.values()) == [(i, i + 1) for i in range(200)]
    assert all(np.array_equal(x[name], _rows(int(name[0]), int(name[0]) + 1)) for name in x.names)


def test_a_name_that_another_process_wrote_meanwhile_is_reported(tmp_path: Path) -> None:
    """Before anything is written; to him who sent the writer too. What was there before may be replaced."""
    path = tmp_path / "a.npy"
    with BigArrayWriter(path, (20, 3), "i4") as first:
        first.write({"old": _rows(0, 2)}, start=0)
    one, two = BigArrayWriter(path), BigArrayWriter(path)
    sent = pickle.loads(pickle.dumps(two))
    two.write({"x": _rows(5, 8)}, start=5)
    before = path.read_bytes()
    for writer in (one, sent, pickle.loads(pickle.dumps(one))):
        with pytest.raises(ArrayOverlapError, match=r"wrote 'x', rows 5 to 8, .* rows 6 to 9"):
            writer.write({"x": _rows(0, 3)}, start=6)
    assert path.read_bytes() == before
    two.write({"x": _rows(1, 4)}, start=5)  # its own
    one.write({"old": _rows(7, 9)}, start=0)
    assert np.array_equal(BigArray(path)["old"], _rows(7, 9))
    for writer in (one, two, sent):
        writer.close()


@pytest.mark.parametrize("place", [None, 2, 5])
def test_a_writer_killed_at_any_call_leaves_an_array_that_opens(tmp_path: Path, place: int | None) -> None:
    """With all that was there, and of what is new all of a name or nothing; the next writer goes on."""
    outcomes = set[int]()
    code, number = 1, 0
    while code:
        path = tmp_path / f"{number}.npy"
        with BigArrayWriter(path, (0, 3), "i4") as writer:
            writer.write({"a": _rows(0, 2)})

        def change(path: Path = path, number: int = number) -> None:
            kill_self_at(number)
            with BigArrayWriter(path) as writer:
                writer.write({"b": _rows(5, 7), "c": _rows(8, 9)}, start=place)

        code = in_child(change)
        assert code in (0, -signal.SIGKILL)
        x = BigArray(path)
        assert np.array_equal(_loaded(path), x)
        assert np.array_equal(x["a"], _rows(0, 2))
        assert set(x.names) in ({"a"}, {"a", "b", "c"})
        if "b" in x.names:
            assert np.array_equal(x["b"], _rows(5, 7))
            assert np.array_equal(x["c"], _rows(8, 9))
        outcomes.add(len(x.names))
        with BigArrayWriter(path) as writer:
            writer.write({"after": _rows(1, 2)})
        assert np.array_equal(BigArray(path)["after"], _rows(1, 2))
        assert BigArray(path).names["after"][0] == len(x)
        number += 1
    assert outcomes == {1, 3}
    assert number > 5


def test_an_array_killed_while_it_is_made_is_there_or_not(tmp_path: Path) -> None:
    """Never half a header."""
    for number in range(30):
        path = tmp_path / f"{number}.npy"

        def make(path: Path = path, number: int = number) -> None:
            kill_self_at(number)
            BigArrayWriter(path, (4, 3), "i4").close()

        code = in_child(make)
        if path.exists():
            assert _loaded(path).shape == (4, 3)
        with BigArrayWriter(path, (4, 3), "i4") as writer:
            assert writer.shape == (4, 3)
        if not code:
            break
    assert code == 0


@pytest.mark.parametrize("place", [None, 10])
def test_a_full_disk_is_a_named_error_and_the_array_as_it_was(tmp_path: Path, place: int | None) -> None:
    """A real limit on the size of files."""
    path = tmp_path / "a.npy"
    writer = BigArrayWriter(path, (0, 3), "i4")
    writer.write({"a": _rows(0, 10)})
    before = path.read_bytes()

    def fill() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        try:
            writer.write({"b": _rows(0, 10_000)}, start=place)
        except DiskFullError as exc:
            if path.read_bytes() == before and set(BigArray(path).names) == {"a"}:
                writer.write({"c": _rows(0, 10)})
                os._exit(exc.errno or 0)

    assert in_child(fill) == errno.EFBIG
    assert set(BigArray(path).names) == {"a", "c"}
    writer.close()


def test_a_last_name_without_its_end_does_not_count(tmp_path: Path) -> None:
    """And the next writer cuts it off."""
    path, names = tmp_path / "a.npy", tmp_path / "a.npy.names"
    with BigArrayWriter(path, (0, 3), "i4") as writer:
        writer.write({"a": _rows(0, 1), "b": _rows(1, 2)})
    whole = names.read_bytes()
    for cut in range(len(whole)):
        names.write_bytes(whole[:cut])
        assert len(BigArray(path).names) == whole[:cut].count(b"\n")
    with BigArrayWriter(path) as writer:
        writer.write({"c": _rows(2, 3)})
    assert dict(BigArray(path).names) == {"a": (0, 1), "c": (2, 3)}


def test_files_that_are_something_else_or_cut_short_are_named(tmp_path: Path) -> None:
    """For reader and writer, at every length."""
    path = tmp_path / "a.npy"
    with BigArrayWriter(path, (0, 3), "i4") as writer:
        writer.write({"a": _rows(0, 4)})
    whole = path.read_bytes()
    for cut in range(len(whole)):
        path.write_bytes(whole[:cut])
        for opened in (BigArray, BigArrayWriter) if cut else (BigArray,):
            with pytest.raises((CorruptDataError, ArrayFileError), match=r"a\.npy"):
                opened(path)
        assert path.read_bytes() == whole[:cut]
    path.write_bytes(whole)
    for names in (b"[]\n", b"hello\n", b'["a", 0, 5]\n', b'["a", -1, 2]\n', b'{"a": 1}\n', b'["a", 0]\n'):
        (tmp_path / "a.npy.names").write_bytes(names)
        with pytest.raises(CorruptDataError, match="names beside it"):
            BigArray(path).names  # noqa: B018
        with pytest.raises(CorruptDataError, match="names beside it"):
            BigArrayWriter(path)
    for content in (b"text" * 100, pickle.dumps({"a": 1})):
        path.write_bytes(content)
        with pytest.raises(ArrayFileError, match=r"no \.npy file"):
            BigArray(path)
        with pytest.raises(ArrayFileError, match=r"no \.npy file"):
            BigArrayWriter(path)
        assert path.read_bytes() == content
    np.save(path, np.array([{}], "O"))
    with pytest.raises(ArrayTypeError, match="Python objects"):
        BigArray(path)
    with pytest.raises(ArrayNotFoundError, match="no such file"):
        BigArray(tmp_path / "none")
    with pytest.raises(ArrayFileError, match="is a directory"):
        BigArray(tmp_path)


@pytest.mark.parametrize("at", range(6, 128))
def test_a_damaged_header_gives_a_named_error_or_another_array(tmp_path: Path, at: int) -> None:
    """Each byte of it."""
    path = tmp_path / "a.npy"
    with BigArrayWriter(path, (4, 3), "i4"):
        pass
    whole = path.read_bytes()
    for byte in (0, 0x27, 0x39, 0xFF, whole[at] ^ 1):
        path.write_bytes(whole[:at] + bytes([byte]) + whole[at + 1 :])
        with contextlib.suppress(ArrayFileError, CorruptDataError, ArrayTypeError, FormatVersionError):
            assert BigArray(path).nbytes <= len(whole)


def test_a_growing_array_is_watched_by_another_process_with_numpy_alone(tmp_path: Path) -> None:
    """Each time that it is opened, all rows that it has are there."""
    path = tmp_path / "a.npy"
    writer = BigArrayWriter(path, (0, 3), "i4")
    code = """
import sys, numpy as np
seen = 0
while seen < 2000:
    rows = np.load(sys.argv[1], mmap_mode="r")
    assert len(rows) >= seen
    assert (rows == np.arange(len(rows) * 3).reshape(-1, 3)).all()
    seen = len(rows)
"""
    watcher = subprocess.Popen([sys.executable, "-c", code, path])
    for i in range(0, 2000, 4):
        writer.write(_rows(i, i + 4))
    writer.close()
    assert watcher.wait(timeout=60) == 0


def test_its_rows_are_a_data_set(tmp_path: Path) -> None:
    """Shuffled batches as arrays, the same for any number of workers, every row once; views; several together."""
    path = tmp_path / "a.npy"
    with BigArrayWriter(path, (0, 3), "i4") as writer:
        writer.write({"a": _rows(0, 60), "b": _rows(60, 100)})
    data = ArrayLoader(BigArray(path))
    assert repr(data) == f"<ArrayLoader '{path}': 100 rows>"
    assert len(data) == 100
    assert np.array_equal(data[3], _rows(3, 4)[0])
    assert np.array_equal(data[[5, 1]], _rows(0, 6)[[5, 1]])
    inline = list(data.batches(32))
    with data.batches(32, workers=2) as pipe:
        batches = list(pipe)
    assert [batch.shape for batch in inline] == [(32, 3), (32, 3), (32, 3), (4, 3)]
    assert all(map(np.array_equal, inline, batches))
    assert sorted(np.concatenate(inline)[:, 0]) == list(range(0, 300, 3))
    assert not np.array_equal(np.concatenate(inline), _rows(0, 100))
    assert np.array_equal(np.concatenate(list(ArrayLoader(path).batches(7, shuffle=False))), _rows(0, 100))
    some = data.select(np.arange(100) % 2 == 0)
    assert sorted(np.concatenate(list(some.batches(8)))[:, 0]) == list(range(0, 300, 6))
    both = concat(data, ArrayLoader(_rows(100, 120)))
    assert sorted(np.concatenate(list(both.batches(9)))[:, 0]) == list(range(0, 360, 3))
    assert [row[0] for row in data.iterate_binwise()] == list(range(0, 300, 3))


def test_its_names_are_a_data_set(tmp_path: Path) -> None:
    """Parts of any length in lists, with their names as a column; mapped, not copied."""
    path = tmp_path / "a.npy"
    with BigArrayWriter(path, (0,), "i8") as writer:
        writer.write({f"n{i}": np.full(i, i) for i in range(10)})
    x = BigArray(path)
    data = ArrayLoader(x, by="names")

    assert len(data) == 10
    assert data[3].tolist() == [3, 3, 3]
    assert np.shares_memory(data[3], x)
    assert data.columns["name"].tolist() == [f"n{i}" for i in range(10)]
    with data.batches(4, workers=2) as pipe:
        batches = list(pipe)
    assert [len(batch) for batch in batches] == [4, 4, 2]
    assert sorted(len(part) for batch in batches for part in batch) == list(range(10))
    named = data.select(data.columns["name"] == "n7")
    assert [part.tolist() for part in named] == [[7] * 7]
    lengths = data.batches(5, shuffle=False, collate=lambda parts: np.array([len(part) for part in parts]))
    assert np.concatenate(list(lengths)).tolist() == list(range(10))
    with pytest.raises(TypeError, match="has no names"):
        ArrayLoader(np.zeros(3), by="names")
    with pytest.raises(ValueError, match='"rows" or "names"'):
        ArrayLoader(x, by="columns")


@pytest.mark.parametrize(
    "array",
    [
        np.asfortranarray(np.arange(60.0).reshape(20, 3)),
        np.arange(20),
        np.zeros(20, [("a", "i4"), ("b", "f8")]),
        np.array(["2020"] * 20, "M8[D]"),
    ],
    ids=lambda array: f"{array.dtype.str}-{array.shape}",
)
def test_rows_of_any_layout_and_dtype_make_batches(array: Any) -> None:
    """The records that they are."""
    batches = list(ArrayLoader(array).batches(8, shuffle=False))

    assert np.array_equal(np.concatenate(batches), array)
    assert all(batch.dtype == array.dtype for batch in batches)


def test_bigarrays_own_files_are_read_only(tmp_path: Path) -> None:
    """See test_peers.py for what is in them."""
    path = tmp_path / "b"
    path.write_bytes((Path(__file__).parent / "files" / "bigarray").read_bytes())
    before = path.read_bytes()
    with pytest.raises(ReadOnlyError, match="written by bigarray"):
        BigArray(path, "r+")
    with pytest.raises(ReadOnlyError, match="written by bigarray"):
        BigArrayWriter(path)
    with pytest.raises(ValueError, match="read-only"):
        BigArray(path)[0] = 1
    assert path.read_bytes() == before
