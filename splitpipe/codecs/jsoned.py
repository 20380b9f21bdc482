"""The codec `json`: plain values that any language reads."""

from __future__ import annotations

import json
from typing import Any

from splitpipe.codecs.codec import Codec
from splitpipe.errors import PayloadError, RecordTypeError

__all__ = ["JsonCodec"]

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


class JsonCodec(Codec):
    """Holds None, booleans, numbers, str, lists and dicts with str keys, as JSON in UTF-8.

    What comes back is equal to what went in: a tuple, or a dict with other keys, would not be, and is refused.
    """

    name = "json"

    def encode(self, record: Any) -> bytes:
        """Return `record` as JSON."""
        try:
            text = _encode(record)
            copy = json.loads(text)
            # Equal, or unequal because of a NaN alone, which is not even equal to itself.
            if copy == record or repr(copy) == repr(record):
                return text.encode("utf-8")
        except (TypeError, ValueError, RecursionError) as exc:
            # A type without JSON, a circle or a lone surrogate, a nesting too deep.
            raise RecordTypeError(f"codec 'json' cannot hold this {type(record).__qualname__}: {exc}") from exc
        raise RecordTypeError(
            f"codec 'json' would change this {type(record).__qualname__} (a tuple becomes a list, a key that is no "
            "str becomes one): convert it first, or write with codec='tree'"
        )

    def decode(self, payload: bytes) -> Any:
        """Return the values."""
        try:
            return json.loads(payload)
        except (ValueError, RecursionError) as exc:
            raise PayloadError(f"is no JSON: {exc}") from exc
