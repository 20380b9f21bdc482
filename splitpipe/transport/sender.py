"""Sender: the worker's end of a channel."""

from __future__ import annotations

import os
import select
from collections import deque
from time import monotonic_ns

from splitpipe.transport.arena import Arena, Block
from splitpipe.transport.building import Builder
from splitpipe.transport.frames import Frame
from splitpipe.transport.messages import HEAD, IN_SLOT, MAX_MESSAGE, SLOT, WORD, Control, Kind
from splitpipe.transport.pack import PACK_BYTES, PackWriter
from splitpipe.transport.page import WAITING, Page, make_fence, memory_is_ordered

__all__ = ["ChannelClosed", "Sender"]

# Items up to this size go into packs, and are copied out of them: less work than to lease and return a block.
_PACKED = 1 << 14
_READ_BYTES = 1 << 16
_HEAD_SIZE = HEAD.size
_LEFT_BYTES = HEAD.size + SLOT.size
_BELL = HEAD.pack(HEAD.size, Kind.BELL, 0, 0, 0, 0, 0, 0)


class ChannelClosed(BaseException):
    """The main process closed the channel, or is gone: the worker is to end, whatever it is doing.

    No error that anyone is told of, and so neither in `splitpipe.errors` nor caught by `except Exception`.
    """


class Sender:
    """Sends objects to the main process, never more than it has tickets for, and hears what it says.

    Args:
        data: descriptor of the pipe for messages.
        control: descriptor of the pipe for control words.
        arena: descriptor of the arena.
        tickets: how many messages may be under way or held by the consumer.
        limit: how many bytes of shared memory to use, unless a single item needs more.

    Attributes:
        page: the page of this channel.
        builder: where `empty` takes memory from.
    """

    def __init__(self, data: int, control: int, arena: int, tickets: int, limit: int) -> None:
        self.page = Page(arena)
        self._data, self._control = data, control
        self._limit = limit
        self._arena = Arena(arena, limit)
        self.builder = Builder(self._arena)
        self._free = deque(range(tickets))
        self._used: list[list[Block]] = [[] for _ in range(tickets)]  # the blocks of each ticket
        self._out = 0  # bytes of blocks under way or held by the consumer
        self._pack: PackWriter | None = None
        self._packs = memory_is_ordered()
        self._fence, self._cells = make_fence(), self.page.cells
        os.set_blocking(control, False)
        self._readable = select.poll()
        self._readable.register(control, select.POLLIN)
        self._epoch = -1
        self._start: int | None = None  # an epoch that the main process asked for, and that was not begun
        self._asked = -1  # the last epoch that it asked for
        self._asks = 0  # how many it asked for
        self._stopped = False  # the epoch under way is to be given up

    def _read_control(self, *, wait: bool) -> None:
        """Take in what the main process said.

        Raises:
            ChannelClosed: the main process closed the channel, or is gone.
        """
        if wait:
            self._readable.poll()
        try:
            words = os.read(self._control, _READ_BYTES)
        except BlockingIOError:
            return
        if not words:
            raise ChannelClosed
        for kind, value in WORD.iter_unpack(words):
            if kind == Control.CREDIT:
                self._take_back(value)
            elif kind == Control.START:
                self._asked, self._asks = value, self._asks + 1
                if value > self._epoch:
                    self._start, self._stopped = value, True
            elif value >= self._epoch:
                self._stopped = True

    def _take_back(self, ticket: int) -> None:
        self._free.append(ticket)
        for block in self._used[ticket]:
            self._out -= block.capacity
            self._arena.give(block)
        self._used[ticket] = []

    def next_start(self, *, completed: bool, last: int | None) -> int:
        """Return which epoch to begin, waiting to be told; ChannelClosed if there will be none.

        The next one after one that came to its end is begun early, as soon as that one was asked for. Not so after the
        first, if nobody said that there will be more: to run the generator again unasked would surprise those who
        iterate once.

        Args:
            completed: whether the epoch before came to its end.
            last: the last epoch that there will be, if that is known.
        """
        self._read_control(wait=False)
        while self._start is None:
            # One ahead, and no more; the last one may have been ahead itself, and be asked for only now.
            more = self._epoch < last if last is not None else self._asks > 1
            if completed and more and not self.stopped() and self._epoch == self._asked:
                self._epoch += 1
                return self._epoch
            self.page.begin_wait(idle=True)
            self._read_control(wait=True)
            self.page.end_wait()
        self._epoch, self._start, self._stopped = self._start, None, False
        return self._epoch

    def stopped(self) -> bool:
        """Return whether the epoch under way is to be given up."""
        return self._stopped or self.page.given_up > self._epoch

    def _ticket(self, need: int) -> int | None:
        """Return a ticket for an item of `need` bytes, waiting for one; None if meanwhile the epoch was given up."""
        # What the consumer holds is at most half of the limit (see `Receiver`): while more is out, some will come
        # back without its doing more than ask for the next item. With less out, one item of any size is allowed.
        while not self._free or (self._out + need > self._limit and self._out > self._limit // 2):
            if self.stopped():
                return None
            self.page.begin_wait(idle=False)
            self._read_control(wait=True)
            self.page.end_wait()
        return self._free.popleft()

    def send(self, kind: int, frame: Frame, lane: int, epoch: int, flags: int = 0, state: bytes = b"") -> bool:
        """Send an object, waiting for room; return False if meanwhile the epoch was given up.

        Args:
            kind: what it is.
            frame: the object.
            lane: which lane it is of.
            epoch: and which epoch.
            flags: for the message.
            state: of the lane, after it.

        Raises:
            MemoryError: there is no shared memory for it.
        """
        # What nearly every small item takes, written out: a call more would cost a tenth of it.
        if state:
            frame = Frame(frame.packed + state, frame.buffers)
        packed, buffers = frame
        size = frame.size() if buffers else len(packed)
        length = _HEAD_SIZE + size
        if length > _PACKED or not self._packs:
            return self._send_in_slot(kind, frame, size, lane, epoch, flags, len(state))
        pack = self._pack
        if pack is None or pack.at + length > PACK_BYTES or monotonic_ns() > pack.until:
            pack = self._open_pack()
            if pack is None:
                return False
        memory, at = pack.memory, pack.at
        body, end = at + _HEAD_SIZE, at + length
        if buffers:
            tail = frame.write_to(memory[body : body + size])
        else:
            memory[body : body + size] = packed
            tail = 0
        HEAD.pack_into(memory, at, length, kind, flags, len(buffers), lane, epoch, len(state), tail)
        pack.at = pack.cells[0] = end  # the commit
        with self._fence:
            pass
        if self._cells[WAITING]:
            self._ring()
        return True

    def _open_pack(self) -> PackWriter | None:
        self._close_pack()
        ticket = self._ticket(PACK_BYTES)
        if ticket is None:
            return None
        block = self._block(ticket, PACK_BYTES)
        self._pack = PackWriter(block)
        self._write(_about_block(Kind.PACK, ticket, block.offset, PACK_BYTES))
        return self._pack

    def _close_pack(self) -> None:
        if self._pack is not None:
            self._pack.close()
            self._pack = None
            with self._fence:
                pass
            if self.page.waiting:
                self._ring()

    def _ring(self) -> None:
        """Wake the main process."""
        # Unsaid before the bell, for after it the main process may be waiting again.
        self.page.waiting = False
        self._write(_BELL)

    def _block(self, ticket: int, size: int) -> Block:
        """Return a block for a ticket; the main process is told of it."""
        try:
            block = self._arena.take(size)
        except BaseException:
            self._free.append(ticket)
            raise
        self._hand_over(ticket, block)
        self._tell_blocks()
        return block

    def _hand_over(self, ticket: int, block: Block) -> None:
        self._used[ticket].append(block)
        self._out += block.capacity

    def _tell_blocks(self) -> None:
        if not self._arena.has_news:
            return
        made, removed = self._arena.news()
        for offset, capacity in made:
            self._write(_about_block(Kind.MAP, 0, offset, capacity))
        for offset in removed:
            self._write(_about_block(Kind.UNMAP, 0, offset, 0))

    def _send_in_slot(
        self, kind: int, frame: Frame, size: int, lane: int, epoch: int, flags: int, state_bytes: int
    ) -> bool:
        self._close_pack()
        self.builder.collect()
        places, built, there = self.builder.find(frame.buffers)
        own = size - there
        ticket = self._ticket(own)
        if ticket is None:
            return False
        offset, inline = 0, b""
        if built and None not in places and own + _LEFT_BYTES < MAX_MESSAGE:
            rest = bytearray(own)  # the table and the pickle alone
            tail = frame.write_to(memoryview(rest), places)
            inline = bytes(rest[: frame.end(tail)])
        else:
            block = self._block(ticket, own)
            tail, offset = frame.write_to(block.memory, places), block.offset
        for other in built:
            other.users += 1
            self._hand_over(ticket, other)
        self._tell_blocks()
        total = sum(each.capacity for each in self._used[ticket])
        body = SLOT.pack(ticket, offset, frame.end(tail), total) + inline
        length, buffers = _HEAD_SIZE + len(body), len(frame.buffers)
        self._write(HEAD.pack(length, kind, flags | IN_SLOT, buffers, lane, epoch, state_bytes, tail) + body)
        if built:
            self.builder.sent(built)
        return True

    def tell(self, kind: Kind, lane: int, epoch: int, flags: int = 0) -> None:
        """Send a message without an object."""
        self._close_pack()
        self._write(HEAD.pack(HEAD.size, kind, flags, 0, lane, epoch, 0, 0))

    def flush(self) -> None:
        """Close what is open, for the epoch is over."""
        self._close_pack()

    def _write(self, message: bytes) -> None:
        try:
            os.write(self._data, message)
        except BrokenPipeError:
            raise ChannelClosed from None
        self.page.count_sent()


def _about_block(kind: Kind, ticket: int, offset: int, size: int) -> bytes:
    return HEAD.pack(HEAD.size + SLOT.size, kind, 0, 0, 0, 0, 0, 0) + SLOT.pack(ticket, offset, size, 0)
