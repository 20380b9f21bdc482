"""The bytes of a MmapDict: a pickle whose last state is always complete. Pack and unpack, no I/O.

    header   64 bytes: PROTO 5; a bytes object with our name, the commit number and so on, popped again; EMPTY_DICT
    entry    one after the other
    STOP     what follows it no unpickler looks at

An entry is made so that its first byte alone says what it is:

    op (1)   size (8)   POP MARK BINUNICODE n key value SETITEMS NONE   POP
                        └────────────── `size` bytes ──────────────┘

    op = BINFLOAT    a float of any eight bytes, popped; then the key and its value go into the dict: it is there
    op = BINBYTES8   the rest is one bytes object, popped: it is as if it were not there, and nothing in it runs
    op = STOP        the end of the pickle

So an entry is written behind the STOP, where nobody looks, with a STOP of its own at its end; then the old STOP, which
is the entry's first byte, becomes its BINFLOAT. To delete is to make that a BINBYTES8. Each is one byte.
"""

from __future__ import annotations

import struct
from typing import Any

__all__ = [
    "COUNTERS",
    "COUNTERS_AT",
    "DEAD",
    "END_BYTES",
    "ENTRY_END",
    "FIRST",
    "LIVE",
    "MAGIC",
    "PREFIX",
    "STOP",
    "VERSION",
    "VERSION_AT",
    "entry_size",
    "is_dense",
    "pack_header",
    "pack_key",
    "scan",
]

MAGIC = b"\x80\x05C\x3asplitpipe.MmapDict"
VERSION = 1
VERSION_AT = len(MAGIC)
COUNTERS_AT = 32
COUNTERS = struct.Struct("<QQ")  # commits, twice their number and odd during one; its value at the last deletion
FIRST = 64  # where the first entry begins

STOP, LIVE, DEAD = b"."[0], b"G"[0], b"\x8e"[0]
PREFIX = struct.Struct("<BQ3sI")  # op, size, POP MARK BINUNICODE, bytes of the key
_MARKS = b"0(X"
ENTRY_END = b"uN0"  # SETITEMS NONE, and the POP behind `size` bytes
END_BYTES = 10  # of an entry, beside those that `size` counts


def pack_header(commits: int, deleted: int) -> bytes:
    """Return the first 64 bytes of a file."""
    name = (MAGIC + bytes([VERSION])).ljust(COUNTERS_AT, b"\0")
    return (name + COUNTERS.pack(commits, deleted)).ljust(FIRST - 2, b"\0") + b"0}"


def pack_key(key: bytes, value_bytes: int) -> bytes:
    """Return an entry up to its value."""
    return PREFIX.pack(LIVE, entry_size(len(key), value_bytes), _MARKS, len(key)) + key


def entry_size(key_bytes: int, value_bytes: int) -> int:
    """Return what an entry tells as its size."""
    return PREFIX.size - 9 + key_bytes + value_bytes + len(ENTRY_END) - 1


def scan(data: Any, at: int) -> tuple[list[tuple[str, int]], int]:
    """Return key and place of each entry from `at` on that is not deleted, and where what is no entry begins.

    That is the STOP, unless the file was cut or damaged, or others have written more of it than is in `data`.

    Args:
        data: the file, mapped or in memory.
        at: where an entry, or the STOP, is.
    """
    found: list[tuple[str, int]] = []
    unpack, length = PREFIX.unpack_from, len(data)
    while at + PREFIX.size <= length and data[at] != STOP:
        op, size, marks, key_bytes = unpack(data, at)
        after = at + END_BYTES + size
        if marks != _MARKS or after >= length or size < entry_size(key_bytes, 1):
            break
        if op == LIVE:
            start = at + PREFIX.size
            try:
                found.append((data[start : start + key_bytes].decode("utf-8", "surrogatepass"), at))
            except UnicodeDecodeError:
                break
        elif op != DEAD:
            break
        at = after
    return found, at


def is_dense(data: Any, live: list[int], end: int) -> bool:
    """Return whether the entries at `live`, in order, lie one behind the other up to the STOP at `end`."""
    at = FIRST
    for begin in live:
        if begin != at:
            return False
        at += END_BYTES + PREFIX.unpack_from(data, at)[1]
    return at == end
