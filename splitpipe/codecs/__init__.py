"""Codecs: a record to bytes and back, found by the name that is stored with the data.

`codec.py` says what a codec is; `registry.py` finds one by name; each other file is one codec.
"""

from splitpipe.codecs.codec import Codec as Codec
from splitpipe.codecs.registry import get_codec as get_codec

__all__ = ("Codec", "get_codec")
