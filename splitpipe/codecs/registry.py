"""Name to codec."""

from __future__ import annotations

from splitpipe.codecs.codec import Codec
from splitpipe.codecs.pickled import PickleCodec
from splitpipe.codecs.raw import BytesCodec
from splitpipe.errors import UnknownCodecError

__all__ = ["get_codec"]

_CODECS: dict[str, Codec] = {codec.name: codec for codec in (BytesCodec(), PickleCodec())}


def get_codec(name: str) -> Codec:
    """Return the codec called `name`.

    Raises:
        UnknownCodecError: no codec has that name; the message lists those that exist.
    """
    try:
        return _CODECS[name]
    except (KeyError, TypeError):
        known = ", ".join(repr(known) for known in sorted(_CODECS))
        raise UnknownCodecError(f"there is no codec {name!r}; this version has {known}") from None
