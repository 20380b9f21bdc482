"""Codecs: a record to bytes and back, found by the name that is stored with the data.

`codec.py` what a codec is · `registry.py` name to codec · `encoding.py` a codec and the compression around it ·
`compression.py` zlib, zstd, lz4. Each other file is one codec: `raw.py` bytes · `jsoned.py` json · `pickled.py` pickle
· `rows.py` struct · `tree.py` tree.
"""

from splitpipe.codecs.codec import Codec as Codec
from splitpipe.codecs.encoding import Encoding as Encoding
from splitpipe.codecs.registry import is_builtin as is_builtin
from splitpipe.codecs.registry import register_codec as register_codec

__all__ = ("Codec", "Encoding", "is_builtin", "register_codec")
