"""Receiver: the main process's end of a channel."""

from __future__ import annotations

import contextlib
import os
import pickle
import time
import weakref
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np

from splitpipe.transport.arena import ArenaView
from splitpipe.transport.frames import copy_frame, load_frame
from splitpipe.transport.messages import HEAD, IN_SLOT, SLOT, WORD, Control, Kind, Message
from splitpipe.transport.pack import PackReader
from splitpipe.transport.page import SENT, Page, make_fence

__all__ = ["Receiver"]

_READ_BYTES = 1 << 16
# What comes within this time is worth looking out for.
SOON_NS = 50_000
_HEAD_SIZE = HEAD.size

_alive: weakref.WeakSet[Receiver] = weakref.WeakSet()


def _close_in_forked_child() -> None:
    """A child that the user forks must not hold the pipes open: their workers would not see the parent close them."""
    for receiver in list(_alive):
        receiver.disown()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_in_forked_child)


class Receiver:
    """Takes in the messages of one worker, in order; takes the descriptors over.

    Args:
        data: descriptor of the pipe for messages, read without waiting.
        control: descriptor of the pipe for control words.
        arena: descriptor of the arena.
        spare: how many items views may keep before further items are copied out, so that a consumer that keeps every
            item never stops the worker.
        limit: how many bytes of shared memory the worker uses; views may keep half of them.

    Attributes:
        page: the page of this channel.
        copies: how many items were copied out because the consumer keeps many.
        bytes: how many bytes of items arrived.
        comes_soon: whether the last message came within a moment, and the next one may.
    """

    def __init__(self, data: int, control: int, arena: int, spare: int, limit: int) -> None:
        self.data = data
        self.page = Page(arena)
        self._fence = make_fence()
        self._control = control
        self._arena = ArenaView(arena)
        self._spare, self._most = spare, limit // 2
        self._leased: dict[int, int] = {}  # bytes by hold; leases die in any thread, so only by atomic steps
        self._rest = b""
        self._owner = os.getpid()
        self._told: deque[Message] = deque()  # by the pipe
        self._packed: deque[Message] = deque()  # in the pack that is open
        self._pack: PackReader | None = None
        self._seen = 0  # how many messages were read from the pipe
        self.comes_soon = False  # whether the last message came within a moment
        self.copies = 0
        self.bytes = 0
        os.set_blocking(data, False)
        _alive.add(self)

    def drain(self) -> None:
        """Take in every message that is in the pipe; does not wait."""
        more = self.data >= 0
        while more:
            try:
                chunk = os.read(self.data, _READ_BYTES)
            except BlockingIOError:
                return
            more = len(chunk) == _READ_BYTES
            chunk = self._rest + chunk
            view, at = memoryview(chunk), 0
            while at + _HEAD_SIZE <= len(chunk):
                length, kind, flags, buffers, lane, epoch, state, tail = HEAD.unpack_from(chunk, at)
                if at + length > len(chunk):
                    break
                body = view[at + _HEAD_SIZE : at + length]
                if kind == Kind.MAP:
                    _, offset, capacity, _ = SLOT.unpack(body)
                    self._arena.add(offset, capacity)
                elif kind == Kind.UNMAP:
                    self._arena.remove(SLOT.unpack(body)[1])
                elif kind != Kind.BELL:
                    self._told.append(Message(kind, flags, buffers, lane, epoch, state, tail, body))
                at += length
                self._seen += 1
            self._rest = chunk[at:]

    def next(self) -> Message | None:
        """Return the next message of a lane, if it is there."""
        if self._packed:
            return self._packed.popleft()
        while True:
            if self._pack is not None:
                written, closed = self._pack.look()
                if self._pack.at < written:
                    self._unpack(self._pack, written)
                    return self._packed.popleft()
                if not closed:
                    return None
                self._credit(self._pack.ticket)
                self._pack = None
            if not self._told:
                return None
            message = self._told[0]
            if message.kind == Kind.PACK:
                ticket, block, size, _ = SLOT.unpack(message.body)
                self._pack = PackReader(memoryview(self._arena[block])[:size], ticket)  # first, for it may fail
            self._told.popleft()
            if message.kind != Kind.PACK:
                return message

    def _unpack(self, pack: PackReader, written: int) -> None:
        at, memory = pack.at, pack.memory
        unpack, append, new = HEAD.unpack_from, self._packed.append, tuple.__new__
        while at < written:
            length, *head = unpack(memory, at)
            # `new`, for Message(...) would take as long as all the rest.
            append(new(Message, (*head, memory[at + _HEAD_SIZE : at + length])))
            at += length
        pack.at = at

    @property
    def queued(self) -> int:
        """How many items are there that were not asked for, as far as was looked."""
        items = [message for message in self._told if message.kind == Kind.ITEM]
        return len(self._packed) + len(items)

    def watch(self) -> bool:
        """Look for what comes next for some microseconds, if it came as soon the last time; return whether it came.

        To sleep and be woken takes both sides longer than that.
        """
        if not self.comes_soon:
            return False
        cells, seen, pack = self.page.cells, self._seen, self._pack
        until = time.monotonic_ns() + SOON_NS
        while time.monotonic_ns() < until:
            if cells[SENT] > seen or (pack is not None and pack.has_news()):
                return True
        self.comes_soon = False
        return False

    def begin_wait(self) -> bool:
        """Ask to be woken when something comes; return False if there is something already."""
        self.page.waiting = True
        with self._fence:
            pass
        if self._told or self._packed or (self._pack is not None and self._pack.has_news()):
            self.page.waiting = False
            return False
        return True

    def end_wait(self) -> None:
        """Do without being woken."""
        self.page.waiting = False

    def open(self, message: Message) -> Any:
        """Return the object of a message; arrays may be views of shared memory, which comes back when they die."""
        _, flags, buffers, _, _, _, tail, body = message
        if not flags & IN_SLOT:
            self.bytes += len(body)
            return copy_frame(body, tail, buffers) if buffers else pickle.loads(body)
        ticket, block, size, total = SLOT.unpack_from(body)
        self.bytes += size
        frame = self._frame(message)
        if not buffers:
            try:
                return pickle.loads(frame)
            finally:
                self._credit(ticket)
        held = len(self._leased) >= self._spare or (self._leased and sum(self._leased.values()) + total > self._most)
        if held or total > self._most:
            self.copies += 1
            try:
                return copy_frame(frame, tail, buffers, self._whole)
            finally:
                self._credit(ticket)
        hold = _Hold(self, ticket)
        self._leased[id(hold)] = total
        if block:
            frame = self._lease(block, hold)
        return load_frame(frame, tail, buffers, lambda other: self._lease(other, hold))

    def state(self, message: Message) -> str:
        """Return the state of a message's lane after its item, as JSON; empty if it keeps none.

        To be asked for before `open`, which may give the memory back.
        """
        frame = self._frame(message)
        return bytes(frame[len(frame) - message.state_bytes :]).decode()

    def _frame(self, message: Message) -> memoryview:
        """Return the frame of a message; if that cannot be, for want of descriptors, its ticket goes back."""
        if not message.flags & IN_SLOT:
            return message.body
        _, block, size, _ = SLOT.unpack_from(message.body)
        if not block:
            return message.body[SLOT.size : SLOT.size + size]
        try:
            return memoryview(self._arena[block])[:size]
        except BaseException:
            self.discard(message)
            raise

    def _whole(self, block: int) -> memoryview:
        return memoryview(self._arena[block])

    def _lease(self, block: int, hold: _Hold) -> memoryview:
        # Right on the map: an array on top of a plain one would have that for its base, and skip the lease.
        memory = self._arena[block]
        lease = _Lease((len(memory),), np.uint8, memory)
        lease.hold = hold
        return memoryview(lease)

    def discard(self, message: Message) -> None:
        """Give the memory of a message back unread."""
        if message.flags & IN_SLOT:
            self._credit(SLOT.unpack_from(message.body)[0])

    def release(self, hold: _Hold, ticket: int) -> None:
        """Give a lease back. Called when the last view of an item dies: any thread, any instant, any process."""
        if os.getpid() == self._owner:
            self._credit(ticket)
            self._leased.pop(id(hold), None)  # last, for as long as it is there, the descriptor is ours

    def _credit(self, ticket: int) -> None:
        self.control(Control.CREDIT, ticket)

    def control(self, kind: Control, value: int) -> None:
        """Send a control word; to a worker that is gone, or after `close`, nothing happens."""
        fd = self._control
        if fd >= 0:
            with contextlib.suppress(BrokenPipeError):
                os.write(fd, WORD.pack(kind, value))

    def hang_up(self) -> None:
        """Close both pipes: the worker ends as soon as it looks, or writes."""
        data, self.data = self.data, -1
        if data >= 0:
            os.close(data)
        if self._control >= 0:
            # Its number stays taken: a lease that dies this instant in another thread writes there, and is not to hit
            # what the number would be given to next.
            with Path(os.devnull).open("wb") as nothing:
                os.dup2(nothing.fileno(), self._control, inheritable=False)

    def disown(self) -> None:
        """Let go of the pipes, in a process that is not the one that made them."""
        self.hang_up()

    def _let_go(self) -> None:
        fd, self._control = self._control, -1
        if fd >= 0:
            os.close(fd)

    def __del__(self) -> None:
        self._let_go()  # only left to do if views were held when it was closed; they held this, too

    def close(self) -> None:
        """Close all descriptors; views that are held stay valid."""
        self.hang_up()
        if not self._leased:
            self._let_go()
        self._pack = None
        self._packed.clear()
        self._told.clear()
        self._arena.close()
        self.page.close()


class _Hold:
    """What all views of one item share; when it dies, the item's memory is free again."""

    __slots__ = ("_receiver", "_ticket")

    def __init__(self, receiver: Receiver, ticket: int) -> None:
        self._receiver, self._ticket = receiver, ticket

    def __del__(self) -> None:
        self._receiver.release(self, self._ticket)


class _Lease(np.ndarray[Any, Any]):
    """The memory under views; keeps the hold."""

    hold: _Hold | None = None
