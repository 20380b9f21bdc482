"""The codec `json`: what comes back is equal to what went in, or it is refused."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splitpipe import SplitDataLoader, write_split_data
from splitpipe.codecs.jsoned import JsonCodec
from splitpipe.errors import CorruptDataError, PayloadError, RecordTypeError

RECORDS: list[Any] = [
    None,
    True,
    -5,
    2**200,
    0.1,
    float("inf"),
    "",
    "é漢字🙂\u2028\0",
    [],
    {},
    {"a": [1, {"b": None}], "": [[]]},
]
_PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
_VALUES = st.recursive(_PLAIN, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20)


@settings(deadline=None)
@given(_VALUES)
def test_any_json_value_comes_back(value: Any) -> None:
    """NaN included, which is not equal to itself."""
    codec = JsonCodec()
    payload = codec.encode(value)
    assert repr(codec.decode(payload)) == repr(value)


@pytest.mark.parametrize("codec", ["json", "json+zlib", "json+zstd", "json+lz4"])
def test_records_come_back_by_every_way_in(tmp_path: Path, codec: str) -> None:
    """By number, gathered, bin by bin, as a list and through views."""
    write_split_data(tmp_path, RECORDS, splits=3, codec=codec)
    data = SplitDataLoader(tmp_path)

    assert [data[i] for i in range(len(data))] == list(data) == data.gather(range(len(data))) == RECORDS
    assert sorted(map(repr, data.iterate_binwise())) == sorted(map(repr, RECORDS))
    assert list(data[::-2]) == RECORDS[::-2]
    assert data.select([3, 3])[1] == RECORDS[3]


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ((1, 2), "would change this tuple"),
        ([{"a": (1,)}], "would change this list"),
        ({1: "a"}, "would change this dict"),
        (b"x", "bytes is not JSON serializable"),
        ({1, 2}, "set is not JSON serializable"),
        ("\ud800", "surrogates not allowed"),
    ],
)
def test_what_json_would_change_is_refused(record: Any, message: str) -> None:
    """With what is wrong, and a codec that holds it."""
    with pytest.raises(RecordTypeError, match=message):
        JsonCodec().encode(record)


def test_circles_and_depth_are_refused() -> None:
    """Not with a RecursionError."""
    circle: list[Any] = []
    circle.append(circle)
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    for record in (circle, deep):
        with pytest.raises(RecordTypeError, match="codec 'json' cannot hold this list"):
            JsonCodec().encode(record)


@pytest.mark.parametrize("payload", [b"", b"{", b"\xff", b'"a', b"[" * 100_000, b"1 2", b"\xff\xfe\0"])
def test_bytes_that_are_no_json_are_named(payload: bytes) -> None:
    """A PayloadError, whatever json raises."""
    with pytest.raises(PayloadError, match="is no JSON"):
        JsonCodec().decode(payload)


def test_damage_that_was_not_checked_names_the_record(tmp_path: Path) -> None:
    """With verify="never" too."""
    write_split_data(tmp_path, ["first", "second"], splits=1, codec="json")
    (path,) = tmp_path.glob("*/00000.bin")
    path.write_bytes(path.read_bytes().replace(b'"second"', b'"second,'))
    data = SplitDataLoader(tmp_path, verify="never")

    assert data[0] == "first"
    for read in (lambda: data[1], lambda: data.gather([0, 1]), lambda: list(data.iterate_binwise())):
        with pytest.raises(CorruptDataError, match=r"record 1 is damaged .* is no JSON"):
            read()
