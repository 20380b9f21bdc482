"""Codecs of the user's own, found by name."""

import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest

from splitpipe import Codec, MpQItr, SplitDataLoader, SplitWriter, register_codec, write_split_data
from splitpipe.codecs import registry
from splitpipe.errors import RecordTypeError, UnknownCodecError


class Shifted(Codec):
    """Text, each byte shifted by as much as its spec says."""

    name: ClassVar[str] = "shifted"

    def __init__(self, by: int = 1) -> None:
        self.by = by

    def encode(self, record: Any) -> bytes:
        """Shift up."""
        if not isinstance(record, str):
            raise RecordTypeError(f"codec 'shifted' holds str, and got {record!r}")
        return bytes((byte + self.by) % 256 for byte in record.encode())

    def decode(self, payload: bytes) -> str:
        """Shift down."""
        return bytes((byte - self.by) % 256 for byte in payload).decode()

    def spec(self) -> dict[str, Any]:
        """By how much."""
        return {"by": self.by}

    def with_spec(self, spec: Mapping[str, Any]) -> Codec:
        """The codec that shifts by as much; a spec without it is none of ours."""
        return Shifted(spec["by"])


@pytest.fixture
def shifted(monkeypatch: pytest.MonkeyPatch) -> Shifted:
    """Registered for one test."""
    monkeypatch.setattr(registry, "_CODECS", dict(registry._CODECS))
    codec = Shifted(3)
    register_codec(codec)
    return codec


@pytest.mark.usefixtures("shifted")
@pytest.mark.parametrize("codec", ["shifted", "shifted+zlib"])
def test_a_registered_codec_writes_and_reads(tmp_path: Path, codec: str) -> None:
    """With the settings that it was registered with, kept in the data."""
    write_split_data(tmp_path, ["abc", "é"], splits=1, codec=codec)
    register_codec(Shifted(9))

    assert list(SplitDataLoader(tmp_path)) == ["abc", "é"]
    assert (b"def" in next(tmp_path.glob("*/*.bin")).read_bytes()) is (codec == "shifted")
    with pytest.raises(RecordTypeError, match="record 0 of this writer: codec 'shifted' holds str, and got 5"):
        write_split_data(tmp_path / "new", [5], codec=codec)


def _share(data: SplitDataLoader) -> Iterator[Any]:
    yield from data.iterate_binwise()


@pytest.mark.usefixtures("shifted")
@pytest.mark.parametrize("start", ["fork", "exec"])
def test_workers_get_it_with_the_loader(tmp_path: Path, start: Any) -> None:
    """Those too that begin as new processes, which registered nothing."""
    records = [f"record {i}" for i in range(50)]
    write_split_data(tmp_path, records, splits=4, codec="shifted")

    with MpQItr(_share, SplitDataLoader(tmp_path), workers=2, start=start) as items:
        assert sorted(items) == sorted(records)
    with SplitDataLoader(tmp_path).batches(10, workers=1, start=start) as batches:
        assert sorted(record for batch in batches for record in batch) == sorted(records)


@pytest.mark.usefixtures("shifted")
def test_an_unknown_codec_is_named_with_those_there_are(tmp_path: Path) -> None:
    """When opening in a process that did not register it, and when writing."""
    write_split_data(tmp_path, ["abc"], codec="shifted")
    code = f"from splitpipe import SplitDataLoader; SplitDataLoader({str(tmp_path)!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)

    assert done.returncode == 1
    assert "UnknownCodecError: there is no codec 'shifted'; there are 'bytes', 'json', 'pickle'" in done.stderr
    assert "splitpipe.register_codec before the data is opened" in done.stderr
    with pytest.raises(UnknownCodecError, match=r"there is no codec 'shiftet'; there are 'bytes', .*'shifted'"):
        SplitWriter(tmp_path, codec="shiftet")


@pytest.mark.parametrize("codec", [None, 7, float, ["json"]])
def test_what_is_neither_a_name_nor_a_dtype_is_refused(tmp_path: Path, codec: Any) -> None:
    """With what a codec is given by."""
    with pytest.raises(UnknownCodecError, match="given by name"):
        SplitWriter(tmp_path, codec=codec)


@pytest.mark.parametrize("name", ["", "a+b", "a b", "a/b", 7, None, "json", "bytes", "tree"])
def test_a_bad_name_is_refused(name: Any) -> None:
    """Empty, not a str, with what separates names, or splitpipe's own."""
    bad = type("Bad", (Shifted,), {"name": name})
    with pytest.raises(ValueError, match=r"letters, digits|splitpipe's own codecs: choose another name"):
        register_codec(bad())


@pytest.mark.usefixtures("shifted")
@pytest.mark.parametrize("name", ["a", "3d", "my-codec.v2", "größe"])
def test_letters_digits_and_some_signs_are_a_name(tmp_path: Path, name: str) -> None:
    """As the error's text says."""
    register_codec(type("Fine", (Shifted,), {"name": name})(5))
    write_split_data(tmp_path, ["x"], codec=name)


@pytest.mark.parametrize("codec", [Shifted, "shifted", None])
def test_what_is_no_codec_is_refused(codec: Any) -> None:
    """The class instead of an instance, for one."""
    with pytest.raises(TypeError, match=r"takes an instance of a splitpipe.Codec subclass"):
        register_codec(codec)
