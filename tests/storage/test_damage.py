"""Damage on disk: every cut and every flipped bit gives the committed data or a named error, never other bytes."""

import json
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from splitpipe import SplitDataLoader, write_split_data
from splitpipe.errors import CorruptDataError, FormatVersionError, NotADatasetError, SplitpipeError
from splitpipe.storage.layout import BinHeader, IndexHeader

TINY = [b"first record", b"", b"third"]
INFO_BYTES = len(b'{"codec":{"name":"bytes"}}')  # at the end of each bin, before its footer


def _read_all(target: Path) -> list[bytes]:
    """Read by every way in; they must agree."""
    data = SplitDataLoader(target)
    one_by_one = [data[i] for i in range(len(data))]
    assert data.gather(range(len(data))) == one_by_one
    assert sorted(SplitDataLoader(target).iterate_binwise()) == sorted(one_by_one)
    return one_by_one


def _files(target: Path) -> list[Path]:
    """All files that reading looks at; `info` is a copy for salvage."""
    return sorted(path for path in target.rglob("*") if path.is_file() and path.name != "info")


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """Three records in two bins."""
    write_split_data(tmp_path / "tiny", TINY, splits=2)
    return tmp_path / "tiny"


def test_every_cut_of_every_file_is_noticed(tiny: Path) -> None:
    """At each length from 0 to one byte short."""
    for path in _files(tiny):
        whole = path.read_bytes()
        for length in range(len(whole)):
            path.write_bytes(whole[:length])
            with pytest.raises(CorruptDataError, match=path.name):
                _read_all(tiny)
        path.write_bytes(whole)
    assert _read_all(tiny) == TINY


def test_every_flipped_bit_gives_the_data_or_a_named_error(tiny: Path) -> None:
    """All bits of all files; never other bytes, never an error without a name.

    Unnoticed are only bits that no reading uses: the info repeated in each bin, and where a record without bytes is.
    """
    harmless = 0
    for path in _files(tiny):
        whole = bytearray(path.read_bytes())
        for bit in range(len(whole) * 8):
            whole[bit // 8] ^= 1 << bit % 8
            path.write_bytes(whole)
            try:
                assert _read_all(tiny) == TINY, f"{path.name}, bit {bit}"
            except SplitpipeError as exc:
                if path.parent.name not in str(exc):
                    pytest.fail(f"{path.name}, bit {bit}: the error names no file: {exc}")
            else:
                in_info = path.suffix == ".bin" and len(whole) - 64 - INFO_BYTES <= bit // 8 < len(whole) - 64
                in_empty_location = path.name == "index" and 80 <= bit // 8 < 88
                assert in_info or in_empty_location, f"{path.name}, bit {bit}"
                harmless += 1
            whole[bit // 8] ^= 1 << bit % 8
        path.write_bytes(whole)
    assert harmless < 500


def _values(target: Path, verify: str) -> list[Any]:
    """Read all records and columns, in every way."""
    data = SplitDataLoader(target, verify=verify)
    found = [[repr(data[i]) for i in range(len(data))], [repr(record) for record in data.gather(range(len(data)))]]
    found.append(sorted(repr(record) for record in data.iterate_binwise()))
    found += [[repr(value) for value in data.columns[name].tolist()] for name in data.columns]
    return found


@pytest.mark.parametrize("verify", ["first", "never"])
@pytest.mark.parametrize(
    ("codec", "make"),
    [
        ("json", lambda n: {"n": n, "text": "é" * n}),
        ("json+zlib", lambda n: {"n": n, "text": "é" * 50}),
        ("tree", lambda n: {"n": n, "array": np.arange(n, dtype="<i2"), "parts": (b"x" * n, "y", None, [1.5, True])}),
        (np.dtype([("a", "<u2"), ("b", "<f4")]), lambda n: (n, n / 2)),
    ],
    ids=["json", "json+zlib", "tree", "struct"],
)
def test_damage_to_any_codec_or_column_gives_the_data_or_a_named_error(
    tmp_path: Path, codec: Any, make: Callable[[int], Any], verify: str
) -> None:
    """A bit of each byte, and cuts. Unverified, a value may be wrong; an error has a name all the same."""
    rows = [(make(n), {"k": None if n == 1 else n, "s": "é" * n}) for n in range(4)]
    write_split_data(tmp_path / "set", rows, splits=2, codec=codec, columns={"k": int, "s": str})
    expected = _values(tmp_path / "set", verify)
    for path in _files(tmp_path / "set"):
        whole = path.read_bytes()
        flips = [whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1 :] for at in range(len(whole))]
        for damaged in (*flips, *(whole[:length] for length in range(0, len(whole), 5))):
            path.write_bytes(damaged)
            try:
                found = _values(tmp_path / "set", verify)
            except SplitpipeError as exc:
                assert path.parent.name in str(exc) or path.name in str(exc)  # noqa: PT017  many flips raise nothing
            else:
                assert verify == "never" or found == expected, path.name
        path.write_bytes(whole)


def test_a_flipped_payload_bit_names_file_record_and_offset(tiny: Path) -> None:
    """The error's fields say the same as its text; the other records stay readable."""
    path = next(path for path in _files(tiny) if b"third" in path.read_bytes())
    offset = path.read_bytes().index(b"third")
    damaged = bytearray(path.read_bytes())
    damaged[offset] ^= 4
    path.write_bytes(damaged)
    data = SplitDataLoader(tiny)

    with pytest.raises(CorruptDataError, match=f"record 2 is damaged .*at byte {offset}.*checksum") as caught:
        data[2]
    assert (caught.value.path, caught.value.record, caught.value.offset) == (str(path), 2, offset)
    assert data[0] == TINY[0]
    assert data[1] == TINY[1]
    for read in (lambda: data.gather([0, 2]), lambda: list(data), lambda: list(data.iterate_binwise())):
        with pytest.raises(CorruptDataError, match="record 2"):
            read()


def test_damage_is_found_once_or_always_or_never_as_asked(tiny: Path) -> None:
    """`first` checks a record's first reading, `always` each, `never` none."""
    loaders = {verify: SplitDataLoader(tiny, verify=verify) for verify in ("first", "always", "never")}
    assert all(list(data) == TINY for data in loaders.values())
    path = next(path for path in _files(tiny) if b"third" in path.read_bytes())
    with path.open("r+b") as file:
        file.seek(path.read_bytes().index(b"third"))
        file.write(b"THIRD")

    assert loaders["first"][2] == loaders["never"][2] == b"THIRD"
    with pytest.raises(CorruptDataError):
        loaders["always"][2]
    with pytest.raises(ValueError, match="got 'sometimes'"):
        SplitDataLoader(tiny, verify="sometimes")


def _rewrite_index(target: Path, change: Callable[[bytearray], None]) -> None:
    (path,) = target.glob("*/index")
    data = bytearray(path.read_bytes())
    change(data)
    path.write_bytes(data)


@pytest.mark.parametrize("location", [(1 << 64) - 1, 7 << 48, (1 << 48) - 1, 0])
def test_an_index_that_points_anywhere_is_refused(tiny: Path, location: int) -> None:
    """Bins that do not exist, offsets far outside: an error, not a crash and not a large allocation."""
    _rewrite_index(tiny, lambda data: struct.pack_into("<QI", data, 64, location, 0xFFFFFFFF))
    data = SplitDataLoader(tiny)

    for read in (lambda: data[0], lambda: data.gather([0]), lambda: list(data)):
        with pytest.raises(CorruptDataError):
            read()
    assert data[2] == TINY[2]


def test_a_newer_format_is_refused_with_both_versions(tiny: Path) -> None:
    """And with what to do; the checksum of the header is right."""

    def newer(data: bytearray) -> None:
        struct.pack_into("<H", data, 8, 9)
        struct.pack_into("<I", data, 60, zlib.crc32(data[:60]))

    _rewrite_index(tiny, newer)
    with pytest.raises(FormatVersionError, match=r"format 9\.0, and this splitpipe reads up to 1\.x: upgrade"):
        SplitDataLoader(tiny)


def test_mixed_up_bins_are_noticed(tiny: Path, tmp_path: Path) -> None:
    """A bin of another data set, right in length, is not believed."""
    write_split_data(tmp_path / "other", TINY, splits=2)
    (mine,), (other,) = tiny.glob("*/00000.bin"), (tmp_path / "other").glob("*/00000.bin")
    shutil.copy(other, mine)

    with pytest.raises(CorruptDataError, match="files were mixed up"):
        list(SplitDataLoader(tiny))


def test_a_missing_bin_is_named_when_opening(tiny: Path) -> None:
    """Not at hour nine of the training."""
    next(tiny.glob("*/00001.bin")).unlink()
    with pytest.raises(CorruptDataError, match=r"00001\.bin: a file of a committed segment is missing"):
        SplitDataLoader(tiny)


def test_headers_pack_to_their_size_and_back() -> None:
    """64 bytes, and nothing lost."""
    index = IndexHeader(3, bytes(range(16)), 2**33, 77, 88)
    header = BinHeader(65535, bytes(16))

    assert IndexHeader.unpack(index.pack(), "index") == index
    assert BinHeader.unpack(header.pack(), "bin") == header
    assert len(index.pack()) == len(header.pack()) == 64


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "no such directory: check the path, or write one with splitpipe.write_split_data"),
        (lambda path: path.write_text("x"), "is a file, and a data set is a directory: pass the directory"),
        (lambda path: path.mkdir(), "is empty: no record was ever committed"),
        (lambda path: (path.mkdir(), (path / "index.dat").write_text("x")), "is no data set: it holds no committed"),
    ],
)
def test_a_path_that_is_no_data_set_says_why(tmp_path: Path, make: Callable[[Path], object], message: str) -> None:
    """A FileNotFoundError with the cure."""
    make(tmp_path / "x")
    with pytest.raises(NotADatasetError, match=message) as caught:
        SplitDataLoader(tmp_path / "x")
    assert isinstance(caught.value, FileNotFoundError)


def test_the_info_of_an_index_is_plain_json(tiny: Path) -> None:
    """Readable without splitpipe."""
    (path,) = tiny.glob("*/index")
    info = json.loads(path.read_bytes()[64 + 16 * 3 :])

    assert info["codec"] == {"name": "bytes"}
    assert [count for _, count in info["bins"]] == [1, 2]
