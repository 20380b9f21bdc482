"""What every codec offers. The codecs themselves live beside this file."""

from __future__ import annotations

from typing import Any, Protocol

__all__ = ["Codec"]


class Codec(Protocol):
    """Turns a record into bytes and back; stateless, one instance serves every data set.

    Attributes:
        name: what the index stores, and what the user passes as `codec=`.
        identity: decoding returns its argument, so a reader may skip the call.
        runs_code: decoding can run code chosen by whoever wrote the bytes, so a reader must be told to trust them.
    """

    name: str
    identity: bool
    runs_code: bool

    def encode(self, record: Any) -> bytes:
        """Return the record as bytes; called once per record, in the process that writes.

        Raises:
            RecordTypeError: this codec cannot hold such a record.
        """

    def decode(self, payload: bytes) -> Any:
        """Return the record that `encode` made `payload` from; called once per record read."""
