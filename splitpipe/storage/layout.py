"""The bytes of an index and of a bin: headers, entries, limits. Pack and unpack, no I/O.

`docs/format.md` shows all of it with the bytes of a real data set. Everything is little-endian.

    index   header 64 B | one 16 B entry per record | info (JSON)
    info    the same info again, with its checksum: a lost index can be built again from it and the bins
    bin     header 64 B | payloads | one 12 B row per record | info (JSON) | footer 64 B

The index finds any record in one step. The rows at the end of a bin describe the same payloads in the order in
which they lie there: they serve reading a bin whole, and let an index that was lost be built again.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from splitpipe.errors import CorruptDataError, FormatVersionError

__all__ = [
    "CURE",
    "ENTRY",
    "ENTRY_DTYPE",
    "ENTRY_PARTS",
    "ENTRY_SHIFT",
    "HEADER_BYTES",
    "INDEX_NAME",
    "INFO_NAME",
    "MAX_BINS",
    "MAX_RECORDS",
    "MAX_RECORD_BYTES",
    "OFFSET_BITS",
    "OFFSET_MASK",
    "ROW_DTYPE",
    "VERSION",
    "BinFooter",
    "BinHeader",
    "IndexHeader",
    "bin_name",
    "open_text",
    "seal_text",
]

VERSION = (1, 0)  # a reader takes any minor version of its own major version or of an older one
HEADER_BYTES = 64  # headers and footers fill one cache line, so entries start aligned
OFFSET_BITS = 48  # a bin may hold 256 TiB
OFFSET_MASK = (1 << OFFSET_BITS) - 1
MAX_BINS = 1 << 16  # the bin's number has the other 16 bits of a location
MAX_RECORDS = (1 << 32) - 1  # of one segment: the rows of a bin hold ordinals in 32 bits
MAX_RECORD_BYTES = (1 << 32) - 1  # an entry holds the size in 32 bits

INDEX_NAME = "index"
INFO_NAME = "info"

# location = bin << 48 | offset; size and CRC-32 (zlib's) are of the stored payload.
ENTRY = struct.Struct("<QII")
# The same entry without its CRC, and the location taken apart: offset's low 32 bits, its high 16 bits, bin.
ENTRY_PARTS = struct.Struct("<IHHI")
ENTRY_SHIFT = 4  # an entry has 1 << 4 bytes
ENTRY_DTYPE = np.dtype([("location", "<u8"), ("size", "<u4"), ("crc", "<u4")])
# ordinal = the record's number within the segment.
ROW_DTYPE = np.dtype([("ordinal", "<u4"), ("size", "<u4"), ("crc", "<u4")])

# How the message of every damage ends.
CURE = "restore it from a copy, or save what is readable with `splitpipe salvage`"


def bin_name(number: int) -> str:
    """Return the file name of bin `number` of a segment."""
    return f"{number:05d}.bin"


def seal_text(text: bytes) -> bytes:
    """Return `text` with its own CRC-32 behind it, as 8 hex digits."""
    return text + b"%08x" % zlib.crc32(text)


def open_text(sealed: bytes, path: str) -> bytes:
    """Return the text that `seal_text` sealed, found in the file `path`.

    Raises:
        CorruptDataError: it is not what was sealed.
    """
    text, crc = sealed[:-8], sealed[-8:]
    if len(crc) != 8 or crc != b"%08x" % zlib.crc32(text):
        raise CorruptDataError(f"{path}: fails its checksum: {CURE}", path=path, offset=0)
    return text


def _seal(packed: bytes) -> bytes:
    """Return `packed`, 60 bytes, with its own CRC-32 behind it."""
    return packed + struct.pack("<I", zlib.crc32(packed))


def _opened(block: bytes, magic: bytes, path: str, offset: int) -> bytes:
    """Return the 60 bytes under the seal of a header or footer, or raise if they are not what was written."""
    if len(block) != HEADER_BYTES:
        raise CorruptDataError(
            f"{path}: ends inside the {HEADER_BYTES} B block at byte {offset}: it was cut short: {CURE}",
            path=path,
            offset=offset,
        )
    if block[: len(magic)] != magic:
        raise CorruptDataError(
            f"{path}: byte {offset} should hold {magic!r} and holds {block[: len(magic)]!r}: "
            f"damaged, or not a file of splitpipe: {CURE}",
            path=path,
            offset=offset,
        )
    if zlib.crc32(block[:-4]) != int.from_bytes(block[-4:], "little"):
        raise CorruptDataError(
            f"{path}: the {HEADER_BYTES} B block at byte {offset} fails its checksum: {CURE}",
            path=path,
            offset=offset,
        )
    return block[:-4]


def _check_version(major: int, minor: int, path: str) -> None:
    if major > VERSION[0]:
        raise FormatVersionError(
            f"{path}: written in format {major}.{minor}, and this splitpipe reads up to {VERSION[0]}.x: "
            "upgrade with `pip install -U splitpipe`"
        )


@dataclass(frozen=True)
class IndexHeader:
    """The first 64 bytes of an index.

    8s magic | u16 major | u16 minor | u32 bins | 16s segment id | u64 records | u32 info bytes | u32 info CRC |
    12 zero bytes | u32 CRC of the 60 before
    """

    MAGIC: ClassVar[bytes] = b"\x89SPIDX\r\n"  # as PNG's: a copy in text mode breaks it visibly
    _LAYOUT: ClassVar[struct.Struct] = struct.Struct("<8sHHI16sQII12x")

    bins: int
    segment: bytes
    records: int
    info_bytes: int
    info_crc: int

    def pack(self) -> bytes:
        """Return the header's 64 bytes."""
        return _seal(self._LAYOUT.pack(self.MAGIC, *VERSION, *vars(self).values()))

    @classmethod
    def unpack(cls, block: bytes, path: str) -> IndexHeader:
        """Return the header in `block`, the first 64 bytes of the file `path`.

        Raises:
            CorruptDataError: these are not the bytes of an index header.
            FormatVersionError: they are, of a newer format.
        """
        _, major, minor, *fields = cls._LAYOUT.unpack(_opened(block, cls.MAGIC, path, 0))
        _check_version(major, minor, path)
        return cls(*fields)


@dataclass(frozen=True)
class BinHeader:
    """The first 64 bytes of a bin.

    8s magic | u16 major | u16 minor | u32 number | 16s segment id | 28 zero bytes | u32 CRC of the 60 before
    """

    MAGIC: ClassVar[bytes] = b"\x89SPBIN\r\n"
    _LAYOUT: ClassVar[struct.Struct] = struct.Struct("<8sHHI16s28x")

    number: int
    segment: bytes

    def pack(self) -> bytes:
        """Return the header's 64 bytes."""
        return _seal(self._LAYOUT.pack(self.MAGIC, *VERSION, *vars(self).values()))

    @classmethod
    def unpack(cls, block: bytes, path: str) -> BinHeader:
        """Return the header in `block`, the first 64 bytes of the file `path`; raises as `IndexHeader.unpack`."""
        _, major, minor, *fields = cls._LAYOUT.unpack(_opened(block, cls.MAGIC, path, 0))
        _check_version(major, minor, path)
        return cls(*fields)


@dataclass(frozen=True)
class BinFooter:
    """The last 64 bytes of a bin.

    8s magic | u64 rows offset | u32 records in the bin | u32 records in the segment | u32 rows CRC | u32 info bytes |
    u32 info CRC | u32 number | 16s segment id | u32 CRC of all payloads | u32 CRC of the 60 before
    """

    MAGIC: ClassVar[bytes] = b"\x89SPEND\r\n"
    _LAYOUT: ClassVar[struct.Struct] = struct.Struct("<8sQIIIIII16sI")

    rows_offset: int
    records: int
    segment_records: int
    rows_crc: int
    info_bytes: int
    info_crc: int
    number: int
    segment: bytes
    payloads_crc: int

    def pack(self) -> bytes:
        """Return the footer's 64 bytes."""
        return _seal(self._LAYOUT.pack(self.MAGIC, *vars(self).values()))

    @classmethod
    def unpack(cls, block: bytes, path: str, offset: int) -> BinFooter:
        """Return the footer in `block`, the 64 bytes at `offset` of the file `path`.

        Raises:
            CorruptDataError: these are not the bytes of a bin's footer.
        """
        _, *fields = cls._LAYOUT.unpack(_opened(block, cls.MAGIC, path, offset))
        return cls(*fields)
