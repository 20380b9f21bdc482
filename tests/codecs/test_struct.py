"""The codec `struct`: rows of one numpy dtype, read as scalars one by one and as one array in batches."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from splitpipe import SplitDataLoader, SplitWriter, write_split_data
from splitpipe.codecs.rows import RowCodec, dtype_from_json, dtype_to_json
from splitpipe.errors import CodecError, CorruptDataError, PayloadError, RecordTypeError

ROW = np.dtype([("id", "<i8"), ("pos", ">f4", (3,)), ("name", "S4"), ("when", "<M8[s]"), ("in", [("x", "u1")])])
ROWS = np.zeros(40, ROW)
ROWS["id"] = np.arange(40)
ROWS["pos"] = np.arange(120).reshape(40, 3) / 7
ROWS["name"] = [f"n{i}".encode() for i in range(40)]
ROWS["when"] = np.datetime64("2026-01-01", "s") + np.arange(40)
ROWS["in"]["x"] = np.arange(40)


def test_rows_come_back_by_every_way_in(tmp_path: Path) -> None:
    """Over two segments, with the dtype that was given."""
    write_split_data(tmp_path, ROWS[:25], splits=3, codec=ROW)
    write_split_data(tmp_path, ROWS[25:], splits=2, codec=ROW)
    data = SplitDataLoader(tmp_path)

    assert data[7] == ROWS[7]
    assert data[7].dtype == ROW
    for read in (list(data), data.gather(range(40)), [data[i] for i in range(40)]):
        np.testing.assert_array_equal(np.array(read, ROW), ROWS)
    assert sorted(row["id"] for row in data.iterate_binwise(shuffle=True)) == list(range(40))
    np.testing.assert_array_equal(np.array(list(data[30:20:-1]), ROW), ROWS[30:20:-1])


@pytest.mark.parametrize(
    "rows",
    [
        np.arange(5, dtype="u2"),
        np.arange(5.0),
        np.array([True, False, True]),
        np.array([1j, 2]),
        np.array(["ab", "cd"]),
        np.array([b"ab", b"cd"]),
        np.array(["2026-01-01", "NaT"], "M8[D]"),
        np.arange(24, dtype="f4").reshape(4, 2, 3),
        np.arange(8, dtype="i2").reshape(4, 2).astype(">i2"),
        np.zeros(3, np.dtype([("a", "i1"), ("b", "f8")], align=True)),
    ],
    ids=lambda rows: f"{rows.dtype}{rows.shape}",
)
@pytest.mark.parametrize("codec", ["struct", "struct+zlib"])
def test_the_first_record_tells_the_dtype(tmp_path: Path, rows: Any, codec: str) -> None:
    """Of scalars, structured scalars, and arrays."""
    write_split_data(tmp_path, rows, splits=1, codec=codec)
    data = SplitDataLoader(tmp_path)

    for read, row in zip(data, rows, strict=True):
        assert type(read) is type(row)
        assert read.dtype == row.dtype
        np.testing.assert_array_equal(read, row)
    (batch,) = data.batches(len(rows), shuffle=False)
    assert batch.dtype == rows.dtype
    np.testing.assert_array_equal(batch, rows)


@pytest.mark.parametrize("rows", [np.arange(3, dtype=">u2"), np.array(["", "abc", "é"]), np.array([b"a", b""], "S3")])
def test_scalars_of_an_array_are_rows_of_its_dtype(tmp_path: Path, rows: Any) -> None:
    """Though numpy gives them another byte order, or a shorter text another length."""
    write_split_data(tmp_path, rows, splits=1, codec=rows.dtype)
    (batch,) = SplitDataLoader(tmp_path).batches(3, shuffle=False)

    assert batch.dtype == rows.dtype
    np.testing.assert_array_equal(batch, rows)


def test_two_writers_of_a_dtype_from_the_first_record_know_nothing_of_each_other(tmp_path: Path) -> None:
    """Each has its own."""
    write_split_data(tmp_path / "a", np.arange(3.0), codec="struct")
    write_split_data(tmp_path / "b", np.arange(3), codec="struct")

    assert [SplitDataLoader(tmp_path / name)[2].dtype.kind for name in "ab"] == ["f", "i"]


def test_subarray_dtypes_hold_arrays(tmp_path: Path) -> None:
    """Given as such; a record is an array, a batch one array of them."""
    arrays = np.arange(60, dtype="<f4").reshape(10, 2, 3)
    write_split_data(tmp_path, arrays, splits=1, codec=np.dtype(("<f4", (2, 3))))
    data = SplitDataLoader(tmp_path)

    np.testing.assert_array_equal(data[4], arrays[4])
    np.testing.assert_array_equal(next(iter(data.batches(10, shuffle=False))), arrays)


def test_tuples_of_the_fields_are_rows(tmp_path: Path) -> None:
    """Nested as the dtype is."""
    write_split_data(tmp_path, [row.item() for row in ROWS], splits=2, codec=ROW)
    np.testing.assert_array_equal(np.array(list(SplitDataLoader(tmp_path)), ROW), ROWS)


@pytest.mark.parametrize(
    ("codec", "record", "message"),
    [
        (np.dtype("<f4"), np.float64(1), "holds rows of float32, and got float64"),
        (np.dtype("<f4"), 1.0, "holds rows of float32, and got a float"),
        (np.dtype("<f4"), (1.0, 2.0), "holds rows of float32, and got a tuple"),
        (np.dtype("<f4"), np.zeros(2, "f4"), "holds rows of float32, and got float32 of shape"),
        (np.dtype("U2"), np.str_("abc"), "rows of <U2, and got <U3"),
        (ROW, np.zeros(1, "i8")[0], "got int64"),
        (ROW, (1, 2), "which .* is not"),
        (np.dtype([("a", "u1")]), (300,), "which .* is not"),
        (np.dtype([("a", "u1")]), ("x",), "which .* is not"),
        (np.dtype([("a", "u1")]), {"a": 1}, "got a dict"),
        (np.dtype(("f4", (2,))), np.zeros(3, "f4"), r"of shape \(2,\), and got float32 of shape \(3,\)"),
        (np.dtype(("f4", (2,))), np.zeros(2), r"and got float64 of shape \(2,\)"),
        (np.dtype(("f4", (2,))), [1, 2], "and got list"),
        ("struct", {"a": 1}, "takes its dtype from the first record, and that is a dict"),
        ("struct", (1, 2), "that is a tuple: pass a numpy scalar or array"),
        ("struct", np.array([None]), "without objects"),
        ("struct", np.zeros((0, 3)), "of a fixed size"),
        ("struct", np.array(["x"], np.dtypes.StringDType()), "without objects"),
    ],
)
def test_what_is_no_such_row_is_refused(tmp_path: Path, codec: Any, record: Any, message: str) -> None:
    """With what was expected and what came."""
    with pytest.raises(RecordTypeError, match=message):
        write_split_data(tmp_path, [record], codec=codec)


@pytest.mark.parametrize(
    "dtype",
    [
        np.dtype(object),
        np.dtype([("a", object)]),
        np.dtype([]),
        np.dtype("V0"),
        np.dtype({"names": ["a", "b"], "formats": ["<i4", "<i4"], "offsets": [0, 2]}),
    ],
    ids=str,
)
def test_a_dtype_that_cannot_be_stored_is_refused_at_once(tmp_path: Path, dtype: Any) -> None:
    """Before any record is written."""
    with pytest.raises(RecordTypeError, match="codec 'struct' holds dtypes"):
        SplitWriter(tmp_path / "d", codec=dtype)
    assert not (tmp_path / "d").exists()


def test_appending_another_dtype_is_refused(tmp_path: Path) -> None:
    """Declared, by name of another codec, or as it comes."""
    write_split_data(tmp_path, np.arange(3, dtype="<i4"), codec="struct")

    with pytest.raises(CodecError, match=r"struct of .*<i8.* and of .*<i4"):
        SplitWriter(tmp_path, codec=np.dtype("<i8"))
    with pytest.raises(CodecError, match="codec 'tree' and codec 'struct'"):
        SplitWriter(tmp_path, codec="tree")
    with pytest.raises(RecordTypeError, match="rows of int32, and got float64"):
        write_split_data(tmp_path, np.arange(3.0), codec="struct")
    write_split_data(tmp_path, np.arange(3, 5, dtype="<i4"), codec="struct")
    assert list(SplitDataLoader(tmp_path)) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    "dtype", [ROW, np.dtype(("<f4", (2, 3))), np.dtype([(("t", "a"), "i1")]), np.dtype("<M8[25s]")]
)
def test_dtypes_go_through_json(dtype: Any) -> None:
    """And come back equal."""
    assert dtype_from_json(dtype_to_json(dtype)) == dtype


@pytest.mark.parametrize("described", ["|O", "<i8,,", "x", 7, None, {}, [["a"]], [["a", "|O"]], ["<i4", [-1]], [[]]])
def test_a_description_of_no_dtype_is_refused(described: Any) -> None:
    """A PayloadError, whatever numpy raises."""
    with pytest.raises(PayloadError, match="names a dtype"):
        dtype_from_json(described)


def test_a_payload_of_another_length_is_no_row() -> None:
    """Nor is any before the dtype is known."""
    with pytest.raises(PayloadError, match="has 3 bytes, and a row of int32 has 4"):
        RowCodec("<i4").decode(b"abc")
    with pytest.raises(PayloadError, match="a row of None"):
        RowCodec().decode(b"abc")


@pytest.mark.parametrize("read", [list, lambda data: list(data.batches(40)), lambda data: list(data.iterate_binwise())])
def test_a_flipped_bit_is_named(tmp_path: Path, read: Any) -> None:
    """In batches too, whose rows nobody looks at one by one."""
    write_split_data(tmp_path, ROWS, splits=1, codec=ROW)
    (path,) = tmp_path.glob("*/00000.bin")
    content = bytearray(path.read_bytes())
    content[64 + 17 * ROW.itemsize] ^= 1
    path.write_bytes(content)

    with pytest.raises(CorruptDataError, match="record 17 is damaged"):
        read(SplitDataLoader(tmp_path))
