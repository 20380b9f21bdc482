"""Compression of payloads, one by one, by name: zlib always; zstd and lz4 where they are installed.

Records are small and alike, so what one has in common with the others is taken out once: a dictionary trained on
the first records is stored with the data.
"""

from __future__ import annotations

import base64
import importlib
import threading
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from splitpipe.errors import PayloadError, UnknownCodecError

__all__ = ["COMPRESSIONS", "Compression"]

# The dictionary is stored beside the data, once per bin: it must stay small beside what it saves.
_MAX_DICTIONARY_BYTES = 16 << 10
_SAMPLES_PER_DICTIONARY_BYTE = 64
_MIN_DICTIONARY_BYTES = 256

COMPRESSIONS = ("lz4", "zlib", "zstd")

_Function = Callable[[bytes], bytes]


class Compression:
    """One way to compress payloads, with or without a dictionary.

    Args:
        name: one of COMPRESSIONS.
        dictionary: what payloads have in common; empty for none.

    Raises:
        UnknownCodecError: there is no compression of that name.
        ImportError: it needs a package that is not installed; the message has the command that installs it.
    """

    def __init__(self, name: str, dictionary: bytes = b"") -> None:
        if name not in _MAKERS:
            raise UnknownCodecError(f"there is no compression {name!r}; there are {', '.join(COMPRESSIONS)}")
        self.name = name
        self.dictionary = dictionary
        self.compress, self._decompress = _MAKERS[name](dictionary)

    def __reduce__(self) -> tuple[object, ...]:
        return Compression, (self.name, self.dictionary)  # compressors themselves do not pickle

    def trained(self, payloads: Sequence[bytes]) -> Compression:
        """Return this compression with a dictionary made from `payloads`; itself, if they are too few for one."""
        size = min(_MAX_DICTIONARY_BYTES, sum(map(len, payloads)) // _SAMPLES_PER_DICTIONARY_BYTE)
        if size < _MIN_DICTIONARY_BYTES:
            return self
        return Compression(self.name, _TRAINERS[self.name](payloads, size))

    def decompress(self, payload: bytes) -> bytes:
        """Return what was compressed.

        Raises:
            PayloadError: these bytes do not decompress.
        """
        try:
            return self._decompress(payload)
        except (zlib.error, RuntimeError, ValueError, EOFError) as exc:
            raise PayloadError(f"does not decompress with {self.name}: {exc}") from exc

    def spec(self) -> dict[str, Any]:
        """Return what a reader needs, as JSON."""
        return {"name": self.name, "dictionary": base64.b64encode(self.dictionary).decode("ascii")}

    @classmethod
    def from_spec(cls, spec: Mapping[str, Any]) -> Compression:
        """Return the compression that `spec()` described."""
        return cls(spec["name"], base64.b64decode(spec["dictionary"]))


def _zlib(dictionary: bytes) -> tuple[_Function, _Function]:
    def compress(payload: bytes) -> bytes:
        # Raw deflate: the header and checksum of zlib's own format would be 6 bytes more per record.
        packer = zlib.compressobj(6, zlib.DEFLATED, -zlib.MAX_WBITS, zdict=dictionary)
        return packer.compress(payload) + packer.flush()

    def decompress(payload: bytes) -> bytes:
        unpacker = zlib.decompressobj(-zlib.MAX_WBITS, zdict=dictionary)
        data = unpacker.decompress(payload)
        if not unpacker.eof or unpacker.unused_data:
            raise EOFError("its end is not where it should be")
        return data

    return compress, decompress


def _zstd(dictionary: bytes) -> tuple[_Function, _Function]:
    zstandard = _extra("zstandard", "zstd")
    shared = zstandard.ZstdCompressionDict(dictionary) if dictionary else None
    compress = zstandard.ZstdCompressor(dict_data=shared, write_dict_id=False).compress
    of_thread = threading.local()  # a decompressor works without the GIL, and must not be used by two threads at once

    def decompress(payload: bytes) -> bytes:
        if not hasattr(of_thread, "decompress"):
            of_thread.decompress = zstandard.ZstdDecompressor(dict_data=shared).decompress
        try:
            # What the payload says of its size is checked before memory is taken for it: 128 KiB in a block of 4 bytes
            # is the most that zstd can reach.
            if zstandard.frame_content_size(payload) > (len(payload) << 15):
                raise ValueError("it claims a size that zstd cannot reach")
            data: bytes = of_thread.decompress(payload, allow_extra_data=False)
        except zstandard.ZstdError as exc:
            raise ValueError(str(exc)) from exc
        return data

    return compress, decompress


def _lz4(dictionary: bytes) -> tuple[_Function, _Function]:
    block = _extra("lz4.block", "lz4")

    def compress(payload: bytes) -> bytes:
        data: bytes = block.compress(payload, dict=dictionary) if dictionary else block.compress(payload)
        return data

    def decompress(payload: bytes) -> bytes:
        # The first four bytes tell the size: what they say is checked before memory is taken for it.
        if int.from_bytes(payload[:4], "little") > 255 * len(payload):
            raise ValueError("it claims a size that LZ4 cannot reach")
        try:
            data: bytes = block.decompress(payload, dict=dictionary) if dictionary else block.decompress(payload)
        except block.LZ4BlockError as exc:
            raise ValueError(str(exc)) from exc
        return data

    return compress, decompress


def _raw_dictionary(payloads: Sequence[bytes], size: int) -> bytes:
    """Return pieces of payloads, spread evenly over them: what zlib and LZ4 take as a dictionary."""
    step = max(1, len(payloads) // 64)
    chosen = payloads[::step]
    share = -(-size // len(chosen))
    return b"".join(payload[:share] for payload in chosen)[-size:]


def _zstd_dictionary(payloads: Sequence[bytes], size: int) -> bytes:
    zstandard = _extra("zstandard", "zstd")
    try:
        trained: bytes = zstandard.train_dictionary(size, list(payloads)).as_bytes()
    except zstandard.ZstdError:
        return b""  # too few, too short or too much alike: zstd says so itself, and does without
    return trained


def _extra(module: str, extra: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as exc:
        raise ImportError(f'compression {extra!r} needs a package: pip install "splitpipe[{extra}]"') from exc


_MAKERS: dict[str, Callable[[bytes], tuple[_Function, _Function]]] = {"lz4": _lz4, "zlib": _zlib, "zstd": _zstd}
_TRAINERS = {"lz4": _raw_dictionary, "zlib": _raw_dictionary, "zstd": _zstd_dictionary}
