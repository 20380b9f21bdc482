"""The codec `bytes`: the record is the payload."""

from __future__ import annotations

from typing import Any

from splitpipe.codecs.codec import Codec
from splitpipe.errors import RecordTypeError

__all__ = ["BytesCodec"]


class BytesCodec(Codec):
    """Holds bytes, bytearray and memoryview; gives bytes back."""

    name = "bytes"
    identity = True

    def encode(self, record: Any) -> bytes:
        """Return `record` as bytes, copied if the caller could still change it."""
        if type(record) is bytes:
            return record
        if isinstance(record, bytes | bytearray | memoryview):
            return bytes(record)
        raise RecordTypeError(
            f"codec 'bytes' holds bytes, bytearray or memoryview, and got {type(record).__qualname__}: "
            "encode the record yourself, or write with codec='json', 'tree' or 'pickle'"
        )

    def decode(self, payload: bytes) -> bytes:
        """Return `payload` itself."""
        return payload
