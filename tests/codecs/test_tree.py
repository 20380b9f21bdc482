"""The codec `tree`: nested containers of arrays and scalars, as they were, without pickle."""

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from splitpipe import SplitDataLoader, write_split_data
from splitpipe.codecs.tree import TreeCodec
from splitpipe.errors import CorruptDataError, PayloadError, RecordTypeError

DTYPES = [
    *("?", "i1", "<i2", ">i4", "<i8", "u1", ">u2", "<u4", "<u8", "<f2", ">f4", "<f8", "g", "<c8", ">c16", "G"),
    *("<M8[us]", ">M8[D]", "<M8[25s]", "<M8", "<m8[ns]", "<m8", "S5", "<U3", ">U2", "V7"),
    np.dtype([("a", ">i4"), ("b", "S3"), ("c", [("d", "<f4", (2, 3))])]),
    np.dtype([("a", "i1"), ("b", "<f8")], align=True),
    np.dtype([(("a title", "a"), "<i4"), ("é", "<M8[s]")]),
]
SHAPES = [(), (0,), (3,), (2, 0, 3), (2, 3), (1, 1), (2, 3, 4)]


def _array(dtype: Any, shape: tuple[int, ...], order: Any = "C") -> np.ndarray[Any, Any]:
    """An array of arbitrary bytes; booleans of their two."""
    dtype = np.dtype(dtype)
    count = int(np.prod(shape))
    data = np.random.default_rng(1).integers(0, 2 if dtype.kind == "b" else 97, count * dtype.itemsize, np.uint8)
    return np.frombuffer(data.tobytes(), dtype, count).reshape(shape, order=order)


def _same(a: Any, b: Any) -> bool:
    """Equal in types, structure, dtypes, shapes, order of keys and every bit."""
    if type(a) is not type(b):
        return False
    if isinstance(a, np.ndarray | np.generic):
        if a.dtype.names:  # between fields may lie bytes that are nobody's
            return (a.dtype, a.shape, repr(a.tolist())) == (b.dtype, b.shape, repr(b.tolist()))
        return (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())
    if isinstance(a, dict):
        return len(a) == len(b) and all(_same(x, y) for x, y in zip([*a.items()], [*b.items()], strict=True))
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(_same, a, b))
    if isinstance(a, float):
        return struct.pack("d", a) == struct.pack("d", b)
    return bool(a == b)


_KEYS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(st.characters())
_ARRAYS = hnp.arrays(
    hnp.scalar_dtypes().filter(lambda dtype: dtype.itemsize > 0), hnp.array_shapes(min_dims=0, min_side=0, max_side=4)
)
_LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | _ARRAYS
_TREES = st.recursive(
    _LEAVES,
    lambda inner: st.lists(inner) | st.lists(inner).map(tuple) | st.dictionaries(_KEYS, inner),
    max_leaves=12,
)


@settings(deadline=None)
@given(_TREES)
def test_any_tree_comes_back_as_it_was(tree: Any) -> None:
    """Types, keys and their order, dtypes, NaN to the bit."""
    codec = TreeCodec()
    payload = codec.encode(tree)

    assert len(payload) % 64 == 0
    assert _same(codec.decode(payload), tree)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_arrays_of_every_dtype_come_back_as_views_of_the_file(tmp_path: Path, dtype: Any, order: str) -> None:
    """Every shape, both orders: read-only, aligned, not copied."""
    records = [{"x": _array(dtype, shape, order), "y": i} for i, shape in enumerate(SHAPES)]
    write_split_data(tmp_path, records, splits=2, codec="tree")
    data = SplitDataLoader(tmp_path)

    for read in ([data[i] for i in range(len(data))], data.gather(range(len(data))), list(data)):
        assert all(map(_same, read, records))
        for record, shape in zip(read, SHAPES, strict=True):
            array = record["x"]
            assert not array.flags.writeable
            assert array.flags.f_contiguous == records[record["y"]]["x"].flags.f_contiguous
            if array.size:
                assert array.ctypes.data % 64 == 0, shape
                assert not array.flags.owndata
    if data[4]["x"].dtype.kind != "V":
        assert np.shares_memory(data[4]["x"], data.gather([4])[0]["x"])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_numpy_scalars_of_every_dtype_come_back(tmp_path: Path, dtype: Any) -> None:
    """As the numpy type that they were, in a list beside Python's own."""
    scalar = np.array(["é"], dtype)[0] if np.dtype(dtype).kind == "U" else _array(dtype, (1,))[0]
    write_split_data(tmp_path, [[scalar, 1], scalar], splits=1, codec="tree")
    data = SplitDataLoader(tmp_path)

    assert _same(data[0][0], scalar)
    assert _same(data[1], scalar)
    assert type(data[0][1]) is int


@pytest.mark.parametrize("text", [np.str_(""), np.bytes_(b""), np.str_("é🙂"), np.bytes_(b"\0a")])
def test_numpy_texts_come_back(text: Any) -> None:
    """Empty ones as well, which numpy gives a size of 0."""
    read = TreeCodec().decode(TreeCodec().encode({"t": text}))["t"]
    assert type(read) is type(text)
    assert read == text


def test_arrays_that_are_not_contiguous_come_back(tmp_path: Path) -> None:
    """Strided, reversed, transposed, broadcast, of a memmap."""
    base = np.arange(60.0).reshape(3, 4, 5)
    np.save(tmp_path / "x.npy", base)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    arrays = [base[::2, ::-1], base.transpose(1, 2, 0), np.broadcast_to(base[0, 0], (3, 5)), base[..., 1], mapped]
    write_split_data(tmp_path / "d", arrays, splits=2, codec="tree")

    for read, array in zip(SplitDataLoader(tmp_path / "d"), arrays, strict=True):
        np.testing.assert_array_equal(read, array)


def test_trees_come_back_by_every_way_in(tmp_path: Path) -> None:
    """Bin by bin, through views, several segments and in threads; of all kinds of leaf."""
    records = [
        {
            "image": np.full((3, i % 4), i, np.float32),
            "name": f"é{i}",
            "raw": bytes([i]) * i,
            "n": i,
            "big": 10**i,
            "nothing": None,
            1: (i, [i / 2, {"deep": ()}]),
            None: [],
        }
        for i in range(50)
    ]
    write_split_data(tmp_path, records[:30], splits=3, codec="tree")
    write_split_data(tmp_path, records[30:], splits=4, codec="tree")
    data = SplitDataLoader(tmp_path)

    assert all(map(_same, data, records))
    assert all(map(_same, sorted(data.iterate_binwise(shuffle=True), key=lambda record: record["n"]), records))
    assert all(map(_same, data[::-3], records[::-3]))
    assert all(map(_same, data.select([40, 2]), [records[40], records[2]]))
    assert all(map(_same, data.gather(range(50), threads=3), records))


def test_a_view_outlives_its_loader(tmp_path: Path) -> None:
    """Closed, or gone: the map stays as long as an array needs it."""
    write_split_data(tmp_path, [np.arange(100)], splits=1, codec="tree")
    with SplitDataLoader(tmp_path) as data:
        array = data[0]
    del data

    assert array.sum() == 4950


def test_nothing_of_pickle_or_python_is_stored(tmp_path: Path) -> None:
    """No pickle opcodes, no path of a module: any language reads it."""
    record = {"a": _array(DTYPES[-2], (3,)), "b": [np.float32(1), (1, 2.5, "x", b"y", 2**99, None, True)]}
    payload = TreeCodec().encode(record)

    assert b"numpy" not in payload
    assert b"builtins" not in payload
    assert b"\x80\x05" not in payload
    length, slots = struct.unpack_from("<II", payload)
    assert payload[8 : 8 + length].startswith(b'["dict",["a",["array",[["a","|i1"]')
    assert slots % 8 == 0


class _Text(str):
    """A subclass, whose class would be lost."""


class _Array(np.ndarray[Any, Any]):
    """A subclass of an array."""


_OVERLAPPING = np.dtype({"names": ["a", "b"], "formats": ["<i4", "<i4"], "offsets": [0, 2]})


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (object(), "is a builtins.object: convert it, or write with codec='pickle'"),
        ({1}, "is a builtins.set"),
        (1j, "is a builtins.complex"),
        (_Text("x"), r"is a .*_Text"),
        (np.arange(3).view(_Array), r"is a .*_Array"),
        (np.ma.masked_array([1], [True]), "MaskedArray"),
        (np.array([None]), "is of object"),
        (np.array(["a"], np.dtypes.StringDType()), "is of StringDType"),
        (np.zeros(2, [("a", object)]), "fixed size"),
        (np.zeros(2, "V0"), "fixed size"),
        (np.zeros(2, _OVERLAPPING), "dtypes that numpy can describe"),
        (np.zeros(2, _OVERLAPPING)[0], "dtypes that numpy can describe"),
        ("\ud800", "text that UTF-8 has"),
        (np.str_("a\0"), "numpy drops the NULs"),
        pytest.param(10**5000, "cannot hold the int", id="5000 digits"),
    ],
)
def test_what_would_not_come_back_is_refused_with_its_place(tmp_path: Path, value: Any, message: str) -> None:
    """In a list in a dict in the second record."""
    with pytest.raises(RecordTypeError, match=message) as caught:
        write_split_data(tmp_path, [1, {"x": [0, value]}], codec="tree")
    assert "record 1 of this writer" in str(caught.value)
    assert "record['x'][1]" in str(caught.value)


@pytest.mark.parametrize("key", [(1, 2), b"x", np.int64(1), np.str_("x"), pytest.param(10**5000, id="5000 digits")])
def test_keys_that_would_not_come_back_are_refused(key: Any) -> None:
    """All but str, int, float, bool and None."""
    with pytest.raises(RecordTypeError, match=r"codec 'tree' .* key"):
        TreeCodec().encode([{key: 1}])


def test_circles_and_depth_are_refused() -> None:
    """At 64 levels, below which all is well."""
    circle: dict[str, Any] = {}
    circle["me"] = circle
    with pytest.raises(RecordTypeError, match=r"holds 64 levels, and record\['me'\]\['me'\]"):
        TreeCodec().encode(circle)
    deep: Any = 7
    for _ in range(64):
        deep = [deep]
    assert TreeCodec().decode(TreeCodec().encode(deep)) == deep
    with pytest.raises(RecordTypeError, match="64 levels"):
        TreeCodec().encode([deep])


_SMALL = TreeCodec().encode(
    {"a": np.arange(3, dtype=np.int16), "s": "text", "n": 2**70, "v": [np.str_("é"), True, (1.5, None)]}
)


def _decodes_or_names(payload: bytes) -> None:
    try:
        read = TreeCodec().decode(payload)
    except PayloadError:
        return
    arrays = [value for value in read.values() if isinstance(value, np.ndarray)] if isinstance(read, dict) else []
    assert all(array.nbytes <= len(payload) for array in arrays)
    str(read if len(arrays) == 0 else list(read))  # what came is whole: Python can show it


def test_every_flipped_bit_gives_a_value_or_a_payload_error() -> None:
    """Never another exception, never an array larger than the payload."""
    damaged = bytearray(_SMALL)
    for bit in range(len(damaged) * 8):
        damaged[bit // 8] ^= 1 << bit % 8
        _decodes_or_names(bytes(damaged))
        damaged[bit // 8] ^= 1 << bit % 8


def test_every_cut_gives_a_value_or_a_payload_error() -> None:
    """At each length; what is cut off may be filling alone."""
    for length in range(len(_SMALL)):
        _decodes_or_names(_SMALL[:length])


@settings(deadline=None)
@given(_TREES, st.data())
def test_any_damage_gives_a_value_or_a_payload_error(tree: Any, draw: st.DataObject) -> None:
    """Bytes replaced anywhere, in trees of any kind."""
    payload = bytearray(TreeCodec().encode(tree))
    for at in draw.draw(st.lists(st.integers(0, len(payload) - 1), min_size=1, max_size=4)):
        payload[at] = draw.draw(st.integers(0, 255))
    _decodes_or_names(bytes(payload))


@pytest.mark.parametrize(
    "template",
    [
        '["array","<f8",[1000000000000],"C",0]',
        '["array","<f8",[0,9223372036854775807,9223372036854775807],"C",0]',
        '["array","<f8",[-1],"C",0]',
        '["array","<f8",[1],"X",0]',
        '["array","|O",[1],"C",0]',
        '["array","T",[1],"C",0]',
        '["array","<i8,,",[1],"C",0]',
        '["array","a5",[1],"C",0]',
        '["array","|S0",[1],"C",0]',
        '["array",[["a","<i8",[1000000000,1000000000]]],[1],"C",0]',
        '["array",["<i8",[99999999999]],[1],"C",0]',
        '["array",[["a","<i8"],["a","<i8"]],[1],"C",0]',
        '["scalar","<f8",1e300]',
        '["int",true]',
        '["int",-8]',
        '["int",18446744073709551616]',
        '["nothing",0]',
        '["dict",[[],null]]',
        '["dict",[1,2,3]]',
        "[]",
        "7",
        '"list"',
        "[" * 100_000,
        '["list",' * 200 + "null" + "]" * 200,
    ],
)
def test_a_template_that_no_encoder_wrote_is_refused(template: str) -> None:
    """By name, whatever numpy and json raise."""
    payload = struct.pack("<II", len(template), 8) + template.encode() + bytes(192)
    with pytest.raises(PayloadError, match="is no tree"):
        TreeCodec().decode(payload)


@pytest.mark.parametrize("verify", ["never", "first"])
def test_damage_in_a_data_set_names_the_record(tmp_path: Path, verify: str) -> None:
    """By every way in, checksums or not."""
    write_split_data(tmp_path, [{"a": i} for i in range(5)], splits=1, codec="tree")
    (path,) = tmp_path.glob("*/00000.bin")
    content = bytearray(path.read_bytes())
    content[64 + 3 * 64 + 8] ^= 1  # the template's first letter, in the fourth record
    path.write_bytes(content)
    data = SplitDataLoader(tmp_path, verify=verify)

    assert data[2] == {"a": 2}
    for read in (
        lambda: data[3],
        lambda: data.gather([2, 3]),
        lambda: list(data),
        lambda: list(data.iterate_binwise()),
        lambda: list(data.batches(5)),
        lambda: list(data.batches(2, shuffle=False)),
    ):
        with pytest.raises(CorruptDataError, match="record 3 is damaged") as caught:
            read()
        assert caught.value.record == 3
