"""What MmapDict makes of files, keys and values that are none: a named error, and the file as it was."""

import contextlib
import datetime
import errno
import io
import os
import pickle
import resource
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from oracle import in_child, plain, same

from splitpipe import EmptyNDArray, MmapDict
from splitpipe.errors import (
    ArrayFileError,
    ArrayKeyError,
    ArrayNotFoundError,
    ArrayTypeError,
    CorruptDataError,
    DiskFullError,
    FormatVersionError,
    ReadOnlyError,
    SplitpipeError,
)


def _some(path: Path) -> bytes:
    d = MmapDict(path)
    d.update({"a": 1, "x": np.arange(20.0), "m": np.ma.MaskedArray([1, 2], [True, False]), "gone": "text"})
    del d["gone"]
    d.close()
    return path.read_bytes()


def test_a_file_cut_at_any_length_is_an_error_and_stays_as_it_is(tmp_path: Path) -> None:
    """Read-only or not; but for the empty file, which a writer takes for a new one."""
    path = tmp_path / "d.pickle"
    whole = _some(path)
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        for readonly in (True, False) if length else (True,):
            with pytest.raises((CorruptDataError, ArrayFileError), match=r"d\.pickle"):
                MmapDict(path, readonly)
        assert path.read_bytes() == whole[:length]


def test_a_damaged_byte_gives_a_named_error_or_another_value_and_never_a_crash(tmp_path: Path) -> None:
    """Each byte of a small file, set to several others."""
    path = tmp_path / "d.pickle"
    whole = _some(path)
    for at in range(len(whole)):
        for byte in (0, 0x2E, 0x47, 0xFF, whole[at] ^ 1):
            path.write_bytes(whole[:at] + bytes([byte]) + whole[at + 1 :])
            try:
                found = MmapDict(path, readonly=True)
            except SplitpipeError:
                continue
            for key in found:
                with contextlib.suppress(SplitpipeError):
                    str(found[key])
            found.close()


@pytest.mark.parametrize(
    "content",
    [b"", b"hello world " * 20, pickle.dumps({"a": 1}), pickle.dumps([1] * 100), b"\x93NUMPY\x01\x00" + bytes(200)],
)
def test_a_file_that_is_something_else_is_refused_and_stays(tmp_path: Path, content: bytes) -> None:
    """A pickle of a dict is told how it gets in."""
    path = tmp_path / "other"
    path.write_bytes(content)
    with pytest.raises(ArrayFileError, match="is no file of a MmapDict"):
        MmapDict(path, readonly=True)
    if content:
        cure = "pickle.load" if content[:1] == b"\x80" else "something else"
        with pytest.raises(ArrayFileError, match=cure):
            MmapDict(path)
    assert path.read_bytes() == content
    with pytest.raises(ArrayFileError, match="is a directory"):
        MmapDict(tmp_path)


def test_a_missing_file_is_made_for_writers_alone(tmp_path: Path) -> None:
    """And never in a directory that is not there."""
    with pytest.raises(ArrayNotFoundError, match="no such file"):
        MmapDict(tmp_path / "none", readonly=True)
    with pytest.raises(ArrayNotFoundError, match="there is no directory"):
        MmapDict(tmp_path / "none" / "d.pickle")
    assert list(tmp_path.iterdir()) == []
    empty = tmp_path / "empty"
    empty.touch()
    assert len(MmapDict(empty)) == 0
    assert plain(empty) == {}


def test_a_newer_format_is_named(tmp_path: Path) -> None:
    """Instead of being misread."""
    path = tmp_path / "d.pickle"
    content = bytearray(_some(path))
    content[22] = 2
    path.write_bytes(content)
    with pytest.raises(FormatVersionError, match="is of version 2"):
        MmapDict(path)


@pytest.mark.parametrize("key", [1, None, b"bytes", ("a",), np.arange(3)])
def test_a_key_is_a_string(tmp_path: Path, key: Any) -> None:
    """Nothing else, and nothing of an update with such a key is stored."""
    path = tmp_path / "d.pickle"
    before = _some(path)
    d = MmapDict(path)
    with pytest.raises(ArrayKeyError, match="keys of a MmapDict are strings"):
        d[key] = 1
    if not isinstance(key, np.ndarray):
        with pytest.raises(ArrayKeyError):
            d.update({"new": 1, key: 2})
    assert path.read_bytes() == before


@pytest.mark.parametrize("key", ["", "k" * 255, "k" * 256, "é" * 100_000, "\ud800", "a\0b"])
def test_keys_of_any_length(tmp_path: Path, key: str) -> None:
    """And with anything in them."""
    path = tmp_path / "d.pickle"
    MmapDict(path)[key] = np.arange(3)

    assert MmapDict(path)[key].tolist() == [0, 1, 2]
    assert list(plain(path)) == [key]


@pytest.mark.parametrize(
    "value",
    [
        np.array([{}], "O"),
        np.array(["x"], np.dtypes.StringDType()),
        np.zeros(2, [("a", "i4"), ("b", "O")]),
        np.ma.MaskedArray([{}], [True], "O"),
        EmptyNDArray(3, "O"),
        lambda: 0,
        [lambda: 0],
        (i for i in "x"),
    ],
    ids=repr,
)
def test_a_value_that_cannot_be_stored_is_named(tmp_path: Path, value: Any) -> None:
    """Objects in an array, or what does not pickle; the file stays."""
    path = tmp_path / "d.pickle"
    before = _some(path)
    d = MmapDict(path)
    with pytest.raises(ArrayTypeError, match=r"Python objects|cannot be pickled"):
        d["new"] = value
    assert path.read_bytes() == before


def test_a_readonly_dictionary_changes_nothing(tmp_path: Path) -> None:
    """The error is the one that mmappickle's users catch, and arrays are not writable."""
    path = tmp_path / "d.pickle"
    before = _some(path)
    path.chmod(0o400)
    d = MmapDict(path, readonly=True)
    for change in (
        lambda: d.__setitem__("a", 2),
        lambda: d.__delitem__("a"),
        lambda: d.update(b=1),
        lambda: d.clear(),
        lambda: d.vacuum(),
        lambda: d.pop("a"),
    ):
        with pytest.raises(io.UnsupportedOperation, match="open it without readonly=True"):
            change()
    with pytest.raises(ReadOnlyError):
        d["a"] = 2
    with pytest.raises(ValueError, match="read-only"):
        d["x"][0] = 1
    with pytest.raises(ValueError, match="read-only"):
        d["m"][0] = 1
    assert path.read_bytes() == before


@pytest.mark.parametrize("step", ["insert", "array", "update", "vacuum", "sparse"])
def test_a_full_disk_is_a_named_error_and_the_file_as_it_was(tmp_path: Path, step: str) -> None:
    """A real limit on the size of files, met in the middle of a value; afterwards small ones still fit."""
    path = tmp_path / "d.pickle"
    d = MmapDict(path)
    d["kept"], d["gone"] = np.arange(30_000.0), 1
    del d["gone"]
    before = path.read_bytes()

    def fill() -> None:
        limit = 100_000 if step == "vacuum" else 300_000
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        try:
            if step == "insert":
                d["new"] = b"x" * 200_000
            elif step == "array":
                d["new"] = np.arange(25_000.0)
            elif step == "update":
                d.update({f"n{i}": np.arange(2000.0) for i in range(20)})
            elif step == "sparse":
                d["new"] = EmptyNDArray(1 << 20)
            else:
                d.vacuum()
        except DiskFullError as exc:
            if path.read_bytes() == before and list(d) == ["kept"]:
                if step != "vacuum":
                    d["small"] = 1
                os._exit(exc.errno or 0)

    assert in_child(fill) == errno.EFBIG
    assert list(tmp_path.iterdir()) == [path]
    assert same(plain(path)["kept"], np.arange(30_000.0))


def test_values_too_large_for_pickle_inside_others_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And told what to do."""

    class Large:
        def __reduce__(self) -> Any:
            raise OverflowError("cannot serialize a bytes object larger than 4 GiB")

    d = MmapDict(tmp_path / "d.pickle")
    with pytest.raises(ArrayTypeError, match=r"4 GiB .* under a key of its own"):
        d["x"] = [Large()]


def test_a_removed_file_is_named(tmp_path: Path) -> None:
    """By the next look at it."""
    d = MmapDict(tmp_path / "d.pickle")
    d["a"] = datetime.date(2020, 1, 1)
    (tmp_path / "d.pickle").unlink()
    with pytest.raises(ArrayNotFoundError, match="was removed"):
        d.refresh()
    with pytest.raises(ArrayNotFoundError):
        d["b"] = 1
    assert d["a"] == datetime.date(2020, 1, 1)
