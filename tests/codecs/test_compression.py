"""Compression around any codec, with a dictionary of what the records have in common."""

import copy
import json
import pickle
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splitpipe import SplitDataLoader, SplitWriter, compact, write_split_data
from splitpipe.codecs.compression import COMPRESSIONS, Compression
from splitpipe.errors import CodecError, CorruptDataError, PayloadError, UnknownCodecError

RECORDS = [{"name": f"sample number {i}", "label": i % 7, "path": f"/data/images/{i:06}.jpg"} for i in range(3000)]


def _stored_bytes(path: Path) -> int:
    return sum(file.stat().st_size for file in path.glob("*/*.bin"))


def _dictionary(path: Path) -> str:
    (index,) = path.glob("*/info")
    text = index.read_text(encoding="ascii")
    found: str = json.JSONDecoder().raw_decode(text[text.index("{") :])[0]["codec"]["compression"]["dictionary"]
    return found


@pytest.mark.parametrize("name", COMPRESSIONS)
@settings(deadline=None)
@given(payload=st.binary(max_size=2000), dictionary=st.binary(min_size=256, max_size=600))
def test_any_bytes_come_back(name: str, payload: bytes, dictionary: bytes) -> None:
    """With and without a dictionary, and the spec describes it whole."""
    plain, shared = Compression(name), Compression(name, dictionary)

    assert plain.decompress(plain.compress(payload)) == payload
    assert Compression.from_spec(shared.spec()).decompress(shared.compress(payload)) == payload


@pytest.mark.parametrize("codec", ["bytes", "json", "tree", "pickle"])
@pytest.mark.parametrize("name", COMPRESSIONS)
def test_records_come_back_by_every_way_in(tmp_path: Path, name: str, codec: str) -> None:
    """Through two segments, which each have a dictionary of their own."""
    records: list[Any] = [json.dumps(record).encode() for record in RECORDS] if codec == "bytes" else RECORDS
    for part in (records[:2000], records[2000:]):
        write_split_data(tmp_path, part, splits=2, codec=f"{codec}+{name}")
    data = SplitDataLoader(tmp_path, allow_pickle=True)

    assert list(data) == records
    assert data.gather([2999, 0, -1]) == [records[2999], records[0], records[2999]]
    assert data[2500] == records[2500]
    assert sorted(map(repr, data.iterate_binwise(shuffle=True))) == sorted(map(repr, records))
    assert list(data[10:30:7]) == records[10:30:7]


@pytest.mark.parametrize("name", COMPRESSIONS)
def test_a_dictionary_makes_small_records_smaller(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a third at least: than without one, and than uncompressed."""
    write_split_data(tmp_path / "plain", RECORDS, splits=1, codec="json")
    write_split_data(tmp_path / "with", RECORDS, splits=1, codec=f"json+{name}")
    monkeypatch.setattr(Compression, "trained", lambda self, payloads: self)
    write_split_data(tmp_path / "without", RECORDS, splits=1, codec=f"json+{name}")

    assert _dictionary(tmp_path / "with")
    assert not _dictionary(tmp_path / "without")
    sizes = {which: _stored_bytes(tmp_path / which) for which in ("with", "without", "plain")}
    assert 1.5 * sizes["with"] < min(sizes["without"], sizes["plain"])


@pytest.mark.parametrize("name", COMPRESSIONS)
def test_a_dictionary_survives_commits_appends_compaction_and_pickling(tmp_path: Path, name: str) -> None:
    """Each segment has the one that its payloads need, be it none."""
    with SplitWriter(tmp_path, 2, codec=f"json+{name}") as writer:
        for start, stop in ((0, 2), (2, 1500), (1500, 1502)):
            writer.extend(RECORDS[start:stop])
            writer.commit()
    write_split_data(tmp_path, RECORDS[1502:], splits=3, codec=f"json+{name}")

    data = SplitDataLoader(tmp_path)
    for loader in (data, pickle.loads(pickle.dumps(data)), copy.deepcopy(data)):
        assert list(loader) == RECORDS
    assert compact(tmp_path) == len(RECORDS)
    assert list(SplitDataLoader(tmp_path)) == RECORDS


def test_appending_with_another_compression_is_refused(tmp_path: Path) -> None:
    """As with another codec."""
    write_split_data(tmp_path, RECORDS, codec="json+zlib")
    for codec in ("json", "json+zstd"):
        with pytest.raises(CodecError, match=r"write with codec='json\+zlib'"):
            SplitWriter(tmp_path, codec=codec)


@pytest.mark.parametrize("codec", ["json+gzip", "json+", "json+zstd+lz4", "json+ZSTD", "+zlib", "zlib"])
def test_unknown_names_are_refused(tmp_path: Path, codec: str) -> None:
    """With those that there are."""
    with pytest.raises(UnknownCodecError, match=r"lz4, zlib, zstd|'json', 'pickle', 'struct', 'tree'"):
        SplitWriter(tmp_path, codec=codec)


@pytest.mark.parametrize(("name", "module"), [("zstd", "zstandard"), ("lz4", "lz4.block")])
def test_a_missing_package_is_named_with_its_cure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, module: str
) -> None:
    """When writing, and when opening."""
    write_split_data(tmp_path, RECORDS[:3], codec=f"json+{name}")
    monkeypatch.setitem(sys.modules, module, None)

    for use in (lambda: SplitDataLoader(tmp_path), lambda: SplitWriter(tmp_path / "new", codec=f"json+{name}")):
        with pytest.raises(ImportError, match=rf'pip install "splitpipe\[{name}\]"'):
            use()


def _is_refused(compression: Compression, payload: bytes) -> bool:
    try:
        compression.decompress(payload)
        return False
    except PayloadError as exc:
        return f"does not decompress with {compression.name}" in str(exc)


@pytest.mark.parametrize("shared", [b"", b"some of what they have in common " * 10])
@pytest.mark.parametrize("name", COMPRESSIONS)
def test_every_flipped_bit_and_every_cut_gives_bytes_or_a_payload_error(name: str, shared: bytes) -> None:
    """And no memory beyond what so few bytes can become, whatever size they claim."""
    compression = Compression(name, shared)
    whole = compression.compress(b"some of what they have in common, and " * 9 + bytes(range(200)))
    damaged = [whole[:length] for length in range(len(whole))]
    for bit in range(len(whole) * 8):
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        damaged.append(bytes(flipped))
    refused = sum(_is_refused(compression, payload) for payload in damaged)
    assert refused >= len(whole) // 2


def test_damage_that_was_not_checked_names_the_record(tmp_path: Path) -> None:
    """With verify="never" too."""
    write_split_data(tmp_path, ["first", "second"], splits=1, codec="json+zstd")
    (path,) = tmp_path.glob("*/00000.bin")
    content = bytearray(path.read_bytes())
    content[64] ^= 0xFF
    path.write_bytes(content)
    data = SplitDataLoader(tmp_path, verify="never")

    assert data[1] == "second"
    for read in (lambda: data[0], lambda: data.gather([1, 0]), lambda: list(data.batches(2))):
        with pytest.raises(CorruptDataError, match=r"record 0 is damaged .* does not decompress with zstd"):
            read()


@pytest.mark.parametrize("name", COMPRESSIONS)
def test_threads_may_decompress_at_once(tmp_path: Path, name: str) -> None:
    """Records so large that the GIL is let go."""
    records = [bytes([i % 251]) * 300_000 + str(i).encode() * 50_000 for i in range(24)]
    write_split_data(tmp_path, records, splits=2, codec=f"bytes+{name}")
    data = SplitDataLoader(tmp_path)

    with ThreadPoolExecutor(8) as pool:
        for read in (pool.map(data.__getitem__, [*range(24)] * 6),):
            assert all(found == records[i % 24] for i, found in enumerate(read))
