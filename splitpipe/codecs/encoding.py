"""Encoding: a codec, and the compression around it. What a segment's records went through, and how to undo it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from splitpipe.codecs.codec import Codec
from splitpipe.codecs.compression import Compression
from splitpipe.codecs.registry import get_codec
from splitpipe.codecs.rows import RowCodec
from splitpipe.errors import UnknownCodecError

__all__ = ["Encoding"]


class Encoding:
    """How records become payloads and back.

    Attributes:
        codec: record to bytes and back.
        compression: around it, or None.
        compress: what `codec.encode` made to payload.
        decode: payload to record; None if the payload is the record.
        decode_many: payloads to a sequence of records; None if the payloads are the records.
    """

    def __init__(self, codec: Codec, compression: Compression | None = None) -> None:
        self.codec = codec
        self.compression = compression
        self.compress = compression.compress if compression else _unchanged
        self.decode: Callable[[Any], Any] | None = None if codec.identity else codec.decode
        if compression is not None:
            self.decode = compression.decompress if codec.identity else self._decompress_and_decode
        self.decode_many = None if self.decode is None else self._decode_many

    def __reduce__(self) -> tuple[object, ...]:
        return Encoding, (self.codec, self.compression)

    def _decompress_and_decode(self, payload: bytes) -> Any:
        return self.codec.decode(self.compression.decompress(payload) if self.compression else payload)

    def _decode_many(self, payloads: Sequence[Any]) -> Any:
        if self.compression is not None:
            payloads = list(map(self.compression.decompress, payloads))
        return payloads if self.codec.identity else self.codec.decode_many(payloads)

    @classmethod
    def of(cls, codec: Any) -> Encoding:
        """Return the encoding that a user asked for with `codec=`: a name, "name+compression", or a numpy dtype.

        Raises:
            UnknownCodecError: there is no such codec or compression.
            ImportError: the compression needs a package that is not installed.
        """
        if isinstance(codec, np.dtype):
            return cls(RowCodec(codec))
        if not isinstance(codec, str):
            raise UnknownCodecError(
                f'a codec is given by name ("json", "json+zstd") or as a numpy dtype, and got {codec!r}'
            )
        name, plus, compression = codec.partition("+")
        known = get_codec(name)
        # with_spec, so that a struct's dtype, found with the first record, is this writer's own.
        return cls(known.with_spec(known.spec()), Compression(compression) if plus else None)

    @classmethod
    def from_spec(cls, spec: Mapping[str, Any]) -> Encoding:
        """Return the encoding that `spec()` described."""
        compression = spec.get("compression")
        return cls(get_codec(spec["name"]).with_spec(spec), Compression.from_spec(compression) if compression else None)

    @property
    def name(self) -> str:
        """What a user passes as `codec=` to get this encoding."""
        return self.codec.name + (f"+{self.compression.name}" if self.compression else "")

    @property
    def takes_view(self) -> bool:
        """Whether `decode` wants a view of the mapped file instead of bytes."""
        return self.codec.takes_view and self.compression is None

    def spec(self) -> dict[str, Any]:
        """Return what a reader needs, as JSON."""
        compression = {"compression": self.compression.spec()} if self.compression else {}
        return {"name": self.codec.name, **self.codec.spec(), **compression}

    def trained(self, payloads: Sequence[bytes]) -> Encoding:
        """Return this encoding with a dictionary made from `payloads`, the first that `codec.encode` made."""
        if self.compression is None:
            return self
        return Encoding(self.codec, self.compression.trained(payloads))

    def difference(self, other: Encoding) -> str:
        """Return in words what keeps records of two encodings out of one data set; empty if nothing does."""
        if self.name != other.name:
            return f"codec {self.name!r} and codec {other.name!r}"
        if self.codec.spec() != other.codec.spec() and self.codec.spec() and other.codec.spec():
            return f"{self.codec.name} of {self.codec.spec()} and of {other.codec.spec()}"
        return ""


def _unchanged(payload: bytes) -> bytes:
    return payload
