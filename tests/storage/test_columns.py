"""Columns: one typed value per record, beside the records."""

import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from splitpipe import SplitDataLoader, SplitWriter, write_split_data
from splitpipe.errors import ColumnError, CorruptDataError

NOON = datetime.datetime(2026, 1, 2, 12, 0, 0, 5)


@pytest.mark.parametrize(
    ("kind", "values", "dtype"),
    [
        (int, [1, -5, 2**62], "int64"),
        (None, [1, np.int16(7)], "int64"),
        (float, [0.5, 1, float("inf")], "float64"),
        (bool, [True, False], "bool"),
        (None, [True, np.False_], "bool"),
        (str, ["", "a/b", "é漢字🙂"], "StringDType()"),
        (None, [NOON, NOON + datetime.timedelta(days=1)], "datetime64[us]"),
        ("uint8", [0, 255], "uint8"),
        (np.float32, [0.5], "float32"),
        (None, [np.float32(1.5)], "float32"),
    ],
)
def test_values_come_back_with_their_type(tmp_path: Path, kind: Any, values: list[Any], dtype: str) -> None:
    """Declared, or found from the first value."""
    columns: Any = ["x"] if kind is None else {"x": kind}
    write_split_data(tmp_path, [(b"", {"x": value}) for value in values], columns=columns)

    column = SplitDataLoader(tmp_path).columns["x"]

    assert str(column.dtype) == dtype
    assert column.tolist() == [value.item() if isinstance(value, np.generic) else value for value in values]


def test_columns_follow_the_records_through_segments_and_rounds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Element i is of record i, after appends, shuffled writing and many small chunks."""
    monkeypatch.setattr("splitpipe.storage.columns._CHUNK", 3)
    rows = [(str(i).encode(), {"number": i, "name": f"n{i}"}) for i in range(20)]
    write_split_data(tmp_path, rows[:13], splits=3, columns=["number", "name"], shuffle=True)
    write_split_data(tmp_path, rows[13:], splits=3, columns=["name", "number"])
    data = SplitDataLoader(tmp_path)

    assert [int(record) for record in data] == data.columns["number"].tolist() == list(range(20))
    assert data.columns["name"].tolist() == [f"n{i}" for i in range(20)]
    assert sorted(data.columns) == ["name", "number"]


def test_an_unknown_column_names_those_there_are(small: Path) -> None:
    """A KeyError, as of any mapping."""
    with pytest.raises(KeyError, match="no column 'nmae'; this data set has 'size', 'name'"):
        SplitDataLoader(small).columns["nmae"]


@pytest.mark.parametrize(
    ("columns", "values", "message"),
    [
        ({"x": int}, {"x": "1"}, r"column 'x' holds <i8, and got '1', a str"),
        ({"x": int}, {"x": 1.5}, "got 1.5, a float"),
        ({"x": int}, {"x": True}, "got True, a bool"),
        ({"x": "uint8"}, {"x": 256}, r"holds \|u1, and got 256"),
        ({"x": int}, {"x": 2**63}, "got 9223372036854775808"),
        ({"x": datetime.datetime}, {"x": NOON.replace(tzinfo=datetime.timezone.utc)}, "tzinfo"),
        (["x"], {"x": {}}, "column 'x' cannot hold|neither a Python type nor"),
        (["x"], {}, r"came with the columns \[\], and this writer has \['x'\]"),
        (["x"], {"x": 1, "y": 2}, r"\['x', 'y'\], and this writer has \['x'\]"),
    ],
)
def test_a_value_that_does_not_fit_is_refused(tmp_path: Path, columns: Any, values: Any, message: str) -> None:
    """Naming the column, what it holds and what it got."""
    with pytest.raises(ColumnError, match=message):
        write_split_data(tmp_path, [(b"", values)], columns=columns)


def test_a_refused_value_leaves_the_writer_usable(tmp_path: Path) -> None:
    """The record that was refused is not there, and columns stay in step."""
    with SplitWriter(tmp_path, columns={"a": int, "b": int}) as writer:
        writer.add(b"0", a=0, b=0)
        with pytest.raises(ColumnError):
            writer.add(b"bad", a=1, b="x")
        writer.add(b"2", a=2, b=2)
    data = SplitDataLoader(tmp_path)

    assert list(data) == [b"0", b"2"]
    assert data.columns["a"].tolist() == data.columns["b"].tolist() == [0, 2]


@pytest.mark.parametrize("columns", ["label", [""], [3], {"x": object}, {"x": "complex64"}, {"x": list}])
def test_a_column_that_cannot_be_is_refused_at_once(tmp_path: Path, columns: Any) -> None:
    """Before any record is written."""
    with pytest.raises(ColumnError, match="column"):
        SplitWriter(tmp_path, columns=columns)


def test_records_without_their_values_are_refused(tmp_path: Path) -> None:
    """With columns, records are pairs."""
    with pytest.raises(ColumnError, match=r"pairs of \(record, \{column: value\}\), and got a bytes"):
        write_split_data(tmp_path, [b"a"], columns=["x"])


def test_any_text_may_name_a_column(tmp_path: Path) -> None:
    """Slashes, dots and blanks never leave the directory."""
    names = ["../up", "a/b", "with blank", "é", "x.ends"]
    write_split_data(tmp_path / "d", [(b"", dict.fromkeys(names, 1))], columns=names)
    data = SplitDataLoader(tmp_path / "d")

    assert all(data.columns[name].tolist() == [1] for name in names)
    assert [path.name for path in tmp_path.iterdir()] == ["d"]


@pytest.mark.parametrize("how", ["flip", "cut", "remove"])
def test_a_damaged_column_is_named(small: Path, how: str) -> None:
    """And the records stay readable."""
    for path in small.glob("*/column-*"):
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data if how == "flip" else data[:-1])
        if how == "remove":
            path.unlink()
    loaded = SplitDataLoader(small)

    for name in ("size", "name"):
        with pytest.raises(CorruptDataError, match=f"column-{name}.* (fails its checksum|is missing)"):
            loaded.columns[name]
    assert len(list(loaded)) == 26
