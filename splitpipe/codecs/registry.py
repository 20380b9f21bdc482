"""Name to codec."""

from __future__ import annotations

import re
from typing import Any

from splitpipe.codecs.codec import Codec
from splitpipe.codecs.jsoned import JsonCodec
from splitpipe.codecs.pickled import PickleCodec
from splitpipe.codecs.raw import BytesCodec
from splitpipe.codecs.rows import RowCodec
from splitpipe.codecs.tree import TreeCodec
from splitpipe.errors import UnknownCodecError

__all__ = ["get_codec", "is_builtin", "register_codec"]

_BUILTIN: dict[str, Codec] = {
    codec.name: codec for codec in (BytesCodec(), JsonCodec(), PickleCodec(), RowCodec(), TreeCodec())
}
_CODECS = dict(_BUILTIN)
_NAME = re.compile(r"[\w.-]+")  # "+" comes before a compression


def register_codec(codec: Codec) -> None:
    """Make `codec` known by its name, for writing and for reading.

    Data written with it is readable wherever a codec of that name is registered; worker processes of a pipeline
    get it with the loader.

    Raises:
        TypeError: it is no instance of Codec.
        ValueError: its name is one of splitpipe's own, or holds other than letters, digits, "-", "_" and ".".
    """
    if not isinstance(codec, Codec):
        raise TypeError(f"register_codec takes an instance of a splitpipe.Codec subclass, and got {codec!r}")
    name = getattr(codec, "name", None)
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ValueError(f"a codec's name is letters, digits, '-', '_' and '.', and got {name!r}")
    if name in _BUILTIN:
        raise ValueError(f"{name!r} is one of splitpipe's own codecs: choose another name")
    _CODECS[name] = codec


def is_builtin(codec: Codec) -> bool:
    """Return whether every process knows `codec` by its name."""
    return codec.name in _BUILTIN


def get_codec(name: Any) -> Codec:
    """Return the codec called `name`.

    Raises:
        UnknownCodecError: no codec has that name; the message lists those that exist.
    """
    try:
        return _CODECS[name]
    except (KeyError, TypeError):
        known = ", ".join(repr(known) for known in sorted(_CODECS))
        raise UnknownCodecError(
            f"there is no codec {name!r}; there are {known}. One of your own must be registered with "
            "splitpipe.register_codec before the data is opened"
        ) from None
