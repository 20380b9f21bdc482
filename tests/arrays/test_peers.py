"""Files that mmappickle and bigarray themselves wrote, see files/make.py; and numpy 1 reading ours."""

import datetime
import os
import pickle
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from splitpipe import BigArray, MmapDict
from splitpipe.errors import CorruptDataError, PickleRefusedError, ReadOnlyError, SplitpipeError

FILES = Path(__file__).parent / "files"


def test_a_file_of_mmappickle_opens_read_only(tmp_path: Path) -> None:
    """Asked for or not; its arrays are mapped, its builtin values need no leave."""
    path = tmp_path / "m.pickle"
    shutil.copy(FILES / "mmappickle.pickle", path)
    before = path.read_bytes()
    for d in (MmapDict(path), MmapDict(path, readonly=True), pickle.loads(pickle.dumps(MmapDict(path)))):
        assert d.readonly
        assert list(d) == ["list", "shared", "bytes", "floats", "masked", "empty", "five", "date", "nested", "text"]
        assert (d["text"], d["list"], d["date"]) == ("another", [1, [2], {"three": 3}], datetime.date(2020, 1, 2))
        shared = d["shared"]
        assert shared == [["x"], ["x"]]
        assert shared[0] is shared[1]
        assert isinstance(d["bytes"], np.memmap)
        assert (d["bytes"].dtype, d["bytes"].tolist()) == (np.uint8, [1, 2, 3])
        assert d["floats"].tolist() == [[0, 1, 2], [3, 4, 5]]
        assert (d["empty"].shape, d["empty"].dtype, d["empty"].any()) == ((2, 300, 4), np.int16, False)
        assert (d["five"].dtype, d["five"].shape, d["five"].sum()) == (np.dtype(">i4"), (2, 2, 2, 2, 2), 496)
        assert isinstance(d["masked"].data.base, np.memmap) or isinstance(d["masked"], np.ma.MaskedArray)
        assert d["masked"].tolist() == [1, None, 3]
        assert d.commit_number == 14
        assert not d.refresh()
        with pytest.raises(ReadOnlyError, match=r"written by mmappickle.*copy it"):
            d["x"] = 1
        with pytest.raises(ValueError, match="read-only"):
            d["bytes"][0] = 5
        with pytest.raises(PickleRefusedError, match="allow_pickle=True"):
            d["nested"]
        d.close()
    assert MmapDict(path, allow_pickle=True)["nested"]["array"].tolist() == [0, 1, 2]
    assert path.read_bytes() == before
    copied = MmapDict(tmp_path / "copy.pickle")
    copied.update(MmapDict(path, allow_pickle=True))
    assert copied["floats"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert "nested" in copied


def test_a_cut_file_of_mmappickle_is_named(tmp_path: Path) -> None:
    """At every length at which it is still known to be one."""
    path = tmp_path / "m.pickle"
    whole = (FILES / "mmappickle.pickle").read_bytes()
    for cut in range(0, len(whole), 7):
        path.write_bytes(whole[:cut])
        with pytest.raises(SplitpipeError, match=r"m\.pickle"):
            MmapDict(path, readonly=True)


def test_files_of_bigarray_open_read_only(tmp_path: Path) -> None:
    """With the names that were written last, or none; it pickles to its path."""
    for x in (BigArray(FILES / "bigarray"), pickle.loads(pickle.dumps(BigArray(FILES / "bigarray")))):
        assert (x.shape, x.dtype, x.mode) == ((5, 3), np.dtype("f4"), "r")
        assert np.array_equal(x, np.arange(15).reshape(5, 3))
        assert dict(x.names) == {"a": (0, 2), "b": (2, 5)}
        assert x["b"].tolist() == np.arange(6, 15).reshape(3, 3).tolist()
    plain = BigArray(FILES / "bigarray-plain")
    assert (plain.tolist(), dict(plain.names)) == ([0, 1, 2, 3], {})
    private = BigArray(FILES / "bigarray", mode="c")
    private["a"] = 0
    assert BigArray(FILES / "bigarray")["a"].any()


def test_a_cut_file_of_bigarray_is_named(tmp_path: Path) -> None:
    """In its header, its elements or its names."""
    path = tmp_path / "b"
    whole = (FILES / "bigarray").read_bytes()
    for cut in range(8, len(whole)):
        path.write_bytes(whole[:cut])
        try:
            x = BigArray(path)
        except CorruptDataError as exc:
            assert str(path) in str(exc)  # noqa: PT017
        else:
            assert x.shape == (5, 3)
            assert not x.names


@pytest.mark.skipif("NUMPY1_PYTHON" not in os.environ, reason="set NUMPY1_PYTHON to a Python that has numpy 1")
def test_numpy_1_reads_the_files(tmp_path: Path) -> None:
    """Every kind of array, nested ones and scalars too, by pickle.load alone."""
    import test_mmap_dict as kinds

    path = tmp_path / "d.pickle"
    d = MmapDict(path)
    stored = [*kinds.ARRAYS, *kinds.MASKED, *kinds.VALUES]
    d.update({str(i): value for i, value in enumerate(stored)})
    d["objects"] = [np.array([{}, 2]), np.dtype("f4"), np.float32]
    code = """
import pickle, sys, numpy as np
d = pickle.load(open(sys.argv[1], "rb"))
assert np.__version__.startswith("1.")
for key, value in d.items():
    if isinstance(value, np.ndarray):
        assert value.flags.writeable
        print(key, value.dtype.str, value.shape, np.ascontiguousarray(value).tobytes().hex())
assert d["objects"][0].tolist() == [{}, 2]
"""
    done = subprocess.run([os.environ["NUMPY1_PYTHON"], "-c", code, path], capture_output=True, text=True, check=False)
    expected = [
        f"{i} {value.dtype.str} {value.shape} {np.ascontiguousarray(value).tobytes().hex()}"
        for i, value in enumerate(stored)
        if isinstance(value, np.ndarray)
    ]
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == expected
