"""The codec `pickle`: any Python object. Reading it back needs the reader's trust."""

from __future__ import annotations

import pickle
from typing import Any

from splitpipe.codecs.codec import Codec
from splitpipe.errors import RecordTypeError

__all__ = ["PickleCodec"]

# Protocol 5 is the newest that every supported Python reads; a fixed number keeps files readable by all of them.
_PROTOCOL = 5


class PickleCodec(Codec):
    """Holds whatever pickles; loading one runs what its author put in, so readers pass `allow_pickle=True`."""

    name = "pickle"
    runs_code = True

    def encode(self, record: Any) -> bytes:
        """Return the pickle of `record`."""
        try:
            return pickle.dumps(record, protocol=_PROTOCOL)
        except (pickle.PicklingError, TypeError, AttributeError) as exc:
            # The three that pickle raises for an object that it cannot hold.
            raise RecordTypeError(
                f"codec 'pickle' cannot hold this {type(record).__qualname__}: {exc}. "
                "Turn what does not pickle into plain values first"
            ) from exc

    def decode(self, payload: bytes) -> Any:
        """Return the object that was pickled."""
        return pickle.loads(payload)
