"""Missing values in columns, columns as tables of pandas and Arrow, and columns that come later."""

import datetime
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splitpipe import SplitDataLoader, SplitWriter, add_column, compact, merge, verify, write_split_data
from splitpipe.errors import ColumnError, CorruptDataError, NotADatasetError

NOON = datetime.datetime(2026, 1, 2, 12, 0, 0, 5)
KINDS: dict[str, tuple[Any, list[Any]]] = {
    "bool": (bool, [True, None, False, None, True]),
    "int": (int, [None, 2**62, -1, None, 0]),
    "small": ("uint8", [255, None, 0, None, 7]),
    "float": (float, [0.5, None, float("inf"), 1, None]),
    "str": (str, ["é", None, "", None, "a/b"]),
    "when": (datetime.datetime, [NOON, None, NOON, None, NOON]),
}
ROWS = [(bytes([i]), {name: values[i] for name, (_, values) in KINDS.items()}) for i in range(5)]


def _plain(column: Any) -> list[Any]:
    """Return a column's values, None for each that is missing."""
    return [None if value != value else value for value in column.tolist()]


def _write(path: Path, rows: Any = ROWS, **options: Any) -> SplitDataLoader:
    write_split_data(path, rows, splits=2, columns={name: kind for name, (kind, _) in KINDS.items()}, **options)
    return SplitDataLoader(path)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("declared", [True, False])
def test_missing_values_come_back_as_missing(tmp_path: Path, name: str, declared: bool) -> None:
    """Masked, NaN, NaT or None, with the type declared or told by the first value that is not missing."""
    kind, values = KINDS[name]
    columns: Any = {name: kind} if declared else [name]
    write_split_data(tmp_path, [(b"", {name: value}) for value in values], columns=columns)
    column = SplitDataLoader(tmp_path).columns[name]

    assert _plain(column) == values
    assert isinstance(column, np.ma.MaskedArray) == (name in ("bool", "int", "small"))
    assert column.dtype.kind == {"b": "b", "i": "i", "s": "u" if declared else "i", "f": "f", "w": "M"}.get(
        name[0] if name != "str" else "", "T"
    )


def test_a_column_with_a_value_for_every_record_has_no_mask(tmp_path: Path) -> None:
    """Nor the file of one."""
    write_split_data(tmp_path, [(b"", {"x": 1})], columns={"x": int})

    assert not isinstance(SplitDataLoader(tmp_path).columns["x"], np.ma.MaskedArray)
    assert list(tmp_path.glob("*/*missing*")) == []


@pytest.mark.parametrize("count", [1, 5000])
def test_a_column_of_none_alone_must_be_declared(tmp_path: Path, count: int) -> None:
    """The error has the cure; nothing is committed before."""
    rows = [(b"", {"x": None})] * count
    with pytest.raises(ColumnError, match=r"column 'x' had no value but None.*columns=\{'x': type\}"):
        write_split_data(tmp_path / "a", rows, columns=["x"])
    with pytest.raises(NotADatasetError):
        SplitDataLoader(tmp_path / "a")
    write_split_data(tmp_path / "b", rows, columns={"x": str})
    assert SplitDataLoader(tmp_path / "b").columns["x"].tolist() == [None] * count


def test_masks_go_on_through_segments_chunks_and_compaction(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Segments with, without and of nothing but missing values, in either order."""
    monkeypatch.setattr("splitpipe.storage.columns._CHUNK", 2)
    whole = [(b"w", {name: values[0] if values[0] is not None else values[1] for name, (_, values) in KINDS.items()})]
    empty = [(b"e", dict.fromkeys(KINDS))] * 3
    rows: list[Any] = []
    for part in (whole, ROWS, empty, whole * 2):
        data = _write(tmp_path, part)
        rows += part
    expected = {name: [values[name] for _, values in rows] for name in KINDS}

    assert {name: _plain(data.columns[name]) for name in KINDS} == expected
    assert _plain(data[::-2].columns["int"]) == expected["int"][::-2]
    assert data.select([1, 9]).columns["str"].tolist() == [expected["str"][1], expected["str"][9]]
    compact(tmp_path)
    after = SplitDataLoader(tmp_path)
    assert {name: _plain(after.columns[name]) for name in KINDS} == expected
    assert verify(tmp_path).problems == ()
    assert merge(tmp_path / "merged", tmp_path) == len(rows)


def test_select_takes_no_record_whose_value_is_missing(tmp_path: Path) -> None:
    """A masked comparison counts as false, and so does one with NaN or None."""
    columns = (data := _write(tmp_path)).columns

    assert list(data.select(columns["int"] < 1)) == [b"\2", b"\4"]
    assert list(data.select(columns["bool"])) == [b"\0", b"\4"]
    assert list(data.select(columns["small"] == 0)) == [b"\2"]
    assert list(data.select(columns["float"] > 0)) == [b"\0", b"\2", b"\3"]
    assert list(data.select(columns["when"] == np.datetime64(NOON))) == [b"\0", b"\2", b"\4"]


def test_columns_become_a_pandas_frame(tmp_path: Path) -> None:
    """With pandas' own missing values and types that know them; of several segments, and of a view."""
    pandas = pytest.importorskip("pandas")
    _write(tmp_path)
    data = _write(tmp_path)
    frame = data.columns.to_pandas()

    assert len(frame) == 10
    for name, (_, values) in KINDS.items():
        assert frame[name].isna().tolist() == [value is None for value in values] * 2
        assert [None if pandas.isna(value) else value for value in frame[name]] == values * 2
    assert {name: str(frame[name].dtype) for name in ("bool", "int", "small", "float", "when")} == {
        "bool": "boolean",
        "int": "Int64",
        "small": "UInt8",
        "float": "float64",
        "when": "datetime64[us]",
    }
    assert data[3:4].columns.to_pandas()["int"].isna().tolist() == [True]
    frame.loc[0, "float"] = 9.0  # a frame of its own
    assert data.columns["float"][0] == 0.5


def test_columns_become_an_arrow_table(tmp_path: Path) -> None:
    """Missing values are nulls."""
    pytest.importorskip("pyarrow")
    _write(tmp_path)
    table = _write(tmp_path).columns.to_arrow()

    assert {name: table[name].to_pylist() for name in KINDS} == {
        name: values * 2 for name, (_, values) in KINDS.items()
    }
    assert {name: str(table[name].type) for name in KINDS} == {
        "bool": "bool",
        "int": "int64",
        "small": "uint8",
        "float": "double",
        "str": "string",
        "when": "timestamp[us]",
    }


@pytest.mark.parametrize(
    ("method", "module", "extra"), [("to_pandas", "pandas", "pandas"), ("to_arrow", "pyarrow", "arrow")]
)
def test_a_missing_package_is_named_with_its_cure(
    small: Path, monkeypatch: pytest.MonkeyPatch, method: str, module: str, extra: str
) -> None:
    """The extra that brings it."""
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=rf'needs {module}: pip install "splitpipe\[{extra}\]"'):
        getattr(SplitDataLoader(small).columns, method)()


@settings(deadline=None)
@given(st.lists(st.none() | st.text() | st.just("\0a\0"), min_size=1))
def test_any_text_comes_back_from_a_column(tmp_path_factory: pytest.TempPathFactory, values: list[Any]) -> None:
    """Empty, missing, with NULs inside and at the end."""
    path = tmp_path_factory.mktemp("texts")
    write_split_data(path, [(b"", {"x": v}) for v in values], splits=1, columns={"x": str}, durability="none")

    assert SplitDataLoader(path).columns["x"].tolist() == values


@pytest.mark.parametrize(
    ("kind", "value"),
    [(float, 10**400), ("float32", 1e300), ("float16", -70000), (str, "a\ud800"), (datetime.datetime, NOON.date())],
)
def test_what_the_column_cannot_hold_is_refused_at_its_record(tmp_path: Path, kind: Any, value: Any) -> None:
    """Not later, when the record cannot be taken back."""
    with SplitWriter(tmp_path, columns={"x": kind}) as writer:
        writer.add(b"0", x=None)
        with pytest.raises(ColumnError, match="column 'x' holds"):
            writer.add(b"1", x=value)
    assert list(SplitDataLoader(tmp_path)) == [b"0"]


@pytest.mark.parametrize(
    "columns", [iter(["a", "b"]), (name for name in ("a", "b")), {"a", "b"}, dict.fromkeys("ab").keys()]
)
def test_names_of_columns_may_be_any_iterable(tmp_path: Path, columns: Any) -> None:
    """Be it one that can be gone through only once."""
    write_split_data(tmp_path, [(b"x", {"a": 1, "b": "y"})], columns=columns)
    assert {name: column.tolist() for name, column in SplitDataLoader(tmp_path).columns.items()} == {
        "a": [1],
        "b": ["y"],
    }


def test_a_str_is_no_list_of_names(tmp_path: Path) -> None:
    """By either way in; the error has the list."""
    for write in (
        lambda: write_split_data(tmp_path, [], columns="label"),
        lambda: SplitWriter(tmp_path, columns="label"),
    ):
        with pytest.raises(ColumnError, match=r"pass a list of names, columns=\['label'\]"):
            write()


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    """Five records without columns, in two segments."""
    write_split_data(tmp_path / "plain", [b"0", b"1", b"2"], splits=2)
    write_split_data(tmp_path / "plain", [b"3", b"4"], splits=2)
    return tmp_path / "plain"


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("declared", [True, False])
def test_a_column_is_added_to_what_is_committed(plain: Path, name: str, declared: bool) -> None:
    """Values, missing ones too, over segments; a loader that was open does not see it."""
    before = SplitDataLoader(plain)
    kind, values = KINDS[name]
    add_column(plain, name, iter(values), kind if declared else None)
    data = SplitDataLoader(plain)

    assert _plain(data.columns[name]) == values
    assert list(data.columns) == [name]
    assert list(before.columns) == []
    assert list(data) == list(before)
    assert verify(plain).problems == ()


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        (np.arange(5, dtype=">i2"), "int16"),
        (np.linspace(0, 1, 5, dtype="f4"), "float32"),
        (np.array(["a", "bc", "", "d", "é"]), "StringDType()"),
        (np.array(["a", "bc", "", "d", "é"], np.dtypes.StringDType()), "StringDType()"),
        (np.array(["2026-01-01", "NaT"] * 2 + ["2026-01-02"], "M8[D]"), "datetime64[D]"),
        (np.array([1, None, 2, None, 3], object), "int64"),
        (np.ma.masked_array(np.arange(5, dtype="u1"), [0, 1, 0, 0, 1]), "uint8"),
        (np.ma.masked_array(np.arange(5).astype("M8[s]"), [0, 1, 0, 0, 1]), "datetime64[s]"),
        (np.arange(5) > 2, "bool"),
    ],
    ids=lambda value: str(getattr(value, "dtype", "")),
)
def test_an_array_is_added_with_its_dtype(plain: Path, values: Any, dtype: str) -> None:
    """And its missing values."""
    add_column(plain, "x", values)
    column = SplitDataLoader(plain).columns["x"]

    assert str(column.dtype) == dtype
    assert _plain(column) == _plain(values)


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("x", [1, 2], "has 5 records, and the column 'x' got 2 values"),
        ("x", range(6), "got 6 values"),
        ("there", [1] * 5, "has a column 'there': choose another name"),
        ("x", [1, "a", 3, 4, 5], "column 'x' holds <i8, and got 'a', a str"),
        ("x", [None] * 5, "had no value but None"),
        ("", [1] * 5, "name is a non-empty str"),
        ("x", np.zeros((5, 2)), "and got"),
    ],
)
def test_a_column_that_does_not_fit_changes_nothing(plain: Path, name: str, values: Any, message: str) -> None:
    """Wrong in number, name or type."""
    add_column(plain, "there", [1] * 5)
    files = sorted(plain.rglob("*"))
    with pytest.raises(ColumnError, match=message):
        add_column(plain, name, values)

    assert sorted(plain.rglob("*")) == files
    assert list(SplitDataLoader(plain).columns) == ["there"]


def test_a_column_of_the_first_writing_is_not_added_again(small: Path, tmp_path: Path) -> None:
    """And without a data set there is nothing to add to."""
    with pytest.raises(ColumnError, match="has a column 'size'"):
        add_column(small, "size", [0] * 26)
    with pytest.raises(NotADatasetError):
        add_column(tmp_path / "nothing", "x", [])


@pytest.mark.parametrize("segment", [0, 1])
def test_an_addition_that_was_killed_shows_nothing_and_can_be_repeated(plain: Path, segment: int) -> None:
    """As a kill leaves it: the column is whole in one segment alone; other values the second time."""
    add_column(plain, "x", [None, 2, 3, 4, 5])
    sorted(plain.glob("*/column-x.spec"))[segment].unlink()

    assert list(SplitDataLoader(plain).columns) == []
    assert list(SplitDataLoader(plain)) == [b"0", b"1", b"2", b"3", b"4"]
    add_column(plain, "x", ["a", "b", None, "d", "e"])
    assert SplitDataLoader(plain).columns["x"].tolist() == ["a", "b", None, "d", "e"]
    assert verify(plain).problems == ()


def test_records_appended_later_carry_the_added_column(plain: Path) -> None:
    """Of its type; compacted, it is as any other."""
    add_column(plain, "x", [1, None, 3, 4, 5])
    with pytest.raises(ColumnError, match=r"has the columns \['x'\], and the new data has \[\]"):
        write_split_data(plain, [b"5"])
    with pytest.raises(ColumnError, match="holds <i8, and is declared as str"):
        write_split_data(plain, [(b"5", {"x": "a"})], columns={"x": str})
    write_split_data(plain, [(b"5", {"x": 6})], columns=["x"])
    compact(plain)
    data = SplitDataLoader(plain)

    assert _plain(data.columns["x"]) == [1, None, 3, 4, 5, 6]
    assert list(plain.glob("*/*.spec")) == []


@pytest.mark.parametrize("name", ["../up", "a.b", "x.spec", "with blank", "é/è", "%2E", "a*[b]"])
def test_any_text_may_name_an_added_column(plain: Path, name: str) -> None:
    """Beside others whose files have names that look alike."""
    for other in (name, name + ".ends", name + ".missing"):
        add_column(plain, other, [f"{other}{i}" for i in range(4)] + [None])
    data = SplitDataLoader(plain)

    for other in (name, name + ".ends", name + ".missing"):
        assert data.columns[other].tolist() == [f"{other}{i}" for i in range(4)] + [None]
    assert [path.name for path in plain.parent.iterdir()] == ["plain"]


def _damages(path: Path) -> Iterator[bytes]:
    whole = path.read_bytes()
    yield whole[:-1]
    yield whole[:1]
    yield bytes([*whole[:-3], whole[-3] ^ 1, *whole[-2:]])


def test_a_damaged_spec_of_an_added_column_is_named(plain: Path) -> None:
    """When opening."""
    add_column(plain, "x", [1, 2, 3, 4, 5])
    path = min(plain.glob("*/column-x.spec"))
    for damaged in _damages(path):
        path.write_bytes(damaged)
        with pytest.raises(CorruptDataError, match=r"column-x\.spec"):
            SplitDataLoader(plain)
