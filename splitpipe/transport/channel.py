"""A channel: two pipes and an arena between the main process and one worker, shared with no other worker."""

from __future__ import annotations

import contextlib
import os
from typing import NamedTuple

from splitpipe.transport.arena import create_arena
from splitpipe.transport.receiver import Receiver

__all__ = ["SenderEnds", "open_channel"]


class SenderEnds(NamedTuple):
    """Descriptors of the worker's end of a channel: the two pipes, which only it keeps open, and the arena."""

    data: int
    control: int
    arena: int


def open_channel(label: str, spare: int, limit: int) -> tuple[Receiver, SenderEnds]:
    """Return the two ends of a new channel; OSError if there are not enough descriptors, with none of them kept.

    Args:
        label: what /proc shows of its memory.
        spare: how many items views may keep; see `Receiver`.
        limit: how many bytes of shared memory it may use.
    """
    with contextlib.ExitStack() as undo:

        def kept(*fds: int) -> tuple[int, ...]:
            for fd in fds:
                undo.callback(os.close, fd)
            return fds

        data_out, data_in = kept(*os.pipe())
        control_out, control_in = kept(*os.pipe())
        (arena,) = kept(create_arena(label))
        receiver = Receiver(data_out, control_in, arena, spare, limit)
        undo.pop_all()
    return receiver, SenderEnds(data_in, control_out, arena)
