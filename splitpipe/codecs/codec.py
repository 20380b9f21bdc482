"""What every codec is. The codecs themselves live beside this file, one each."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

__all__ = ["Codec"]


class Codec(abc.ABC):
    """Turns a record into bytes and back. Subclass it for a codec of your own, and register an instance.

    Attributes:
        name: what the index stores, and what the user passes as `codec=`.
        identity: decoding returns its argument, so a reader may skip the call.
        runs_code: decoding can run code chosen by whoever wrote the bytes, so a reader must be told to trust them.
        takes_view: `decode` is given a read-only view of the mapped file, which it may keep, instead of bytes.
        row: the numpy dtype of every record, if all of them are rows of one; then many are read as one array.
    """

    name: ClassVar[str]
    identity: ClassVar[bool] = False
    runs_code: ClassVar[bool] = False
    takes_view: ClassVar[bool] = False
    row: np.dtype[Any] | None = None

    @abc.abstractmethod
    def encode(self, record: Any) -> bytes:
        """Return the record as bytes; called once per record, in the process that writes.

        Raises:
            RecordTypeError: this codec cannot hold such a record.
        """

    @abc.abstractmethod
    def decode(self, payload: bytes) -> Any:
        """Return the record that `encode` made `payload` from; called once per record read.

        Raises:
            PayloadError: `encode` makes no such bytes.
        """

    def decode_many(self, payloads: Sequence[Any]) -> Any:
        """Return the records of many payloads as a sequence; raises as `decode`."""
        return list(map(self.decode, payloads))

    def batch(self, payloads: NDArray[np.void]) -> Any:
        """Return one value that holds the records of `payloads`, of one size; None if they cannot be taken together.

        Args:
            payloads: at least one, shape (records,), memory that belongs to the batch.
        """
        del payloads

    def collate(self, records: Sequence[Any]) -> Any:
        """Return one value that holds these decoded records: what `batch` returns, where that can do it."""
        return list(records)

    def spec(self) -> dict[str, Any]:
        """Return what a reader needs to know of this codec besides its name, as JSON."""
        return {}

    def with_spec(self, spec: Mapping[str, Any]) -> Codec:
        """Return the codec that `spec`, which `spec()` returned when the data was written, describes."""
        del spec
        return self
