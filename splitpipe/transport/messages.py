"""What the two sides of a channel say to each other, byte by byte.

Worker to main: messages, `HEAD` and then a body. Each goes through the pipe by one `os.write` of at most PIPE_BUF
bytes, which the kernel makes atomic, or lies in a pack (`pack.py`): it is there whole or not at all, whenever the
worker dies.
Main to worker: words of 8 bytes.
"""

from __future__ import annotations

import enum
import select
import struct
from typing import NamedTuple

__all__ = [
    "HEAD",
    "IN_SLOT",
    "LANE_ASKED",
    "MAX_MESSAGE",
    "SLOT",
    "WORD",
    "Control",
    "Kind",
    "Message",
]

# length of the whole message, kind, flags, buffers, lane, epoch, bytes of state at the end of the frame, table
HEAD = struct.Struct("<IBBxxIIIIQ")
# The body of a message whose frame lies in a block: ticket, block, bytes of the frame, bytes of all blocks used.
SLOT = struct.Struct("<IxxxxQQQ")
WORD = struct.Struct("<II")
MAX_MESSAGE = getattr(select, "PIPE_BUF", 512)  # POSIX's least, where the system does not tell

# Flags.
IN_SLOT = 1  # the frame lies in a block
LANE_ASKED = 2  # the generator has asked for its lane


class Kind(enum.IntEnum):
    """What a message is."""

    ITEM = 0  # the next item of a lane
    END = 1  # a lane has no more items in this epoch
    ERROR = 2  # the lane raised, and is over; the object is the failure
    SKIP = 3  # the lane raised and goes on; the object is the failure
    PACK = 4  # more messages lie in a block
    MAP = 5  # a block was made
    UNMAP = 6  # a block is gone
    BELL = 7  # look into the pack again


class Control(enum.IntEnum):
    """What a control word is."""

    CREDIT = 0  # a ticket is free again
    START = 1  # begin an epoch
    STOP = 2  # give up an epoch


class Message(NamedTuple):
    """One message of a lane as it arrived.

    Attributes:
        kind: what it is.
        flags: of the above.
        buffers: how many buffers the frame has.
        lane: which lane it is of.
        epoch: and which epoch.
        state_bytes: how long the lane's state is, at the end of the frame.
        tail: where in the frame its table begins.
        body: the frame; or SLOT, and the frame unless that lies in a block.
    """

    kind: int
    flags: int
    buffers: int
    lane: int
    epoch: int
    state_bytes: int
    tail: int
    body: memoryview
