"""The two pipes between one worker and the main process.

Worker to main: messages. Each is written by one `os.write` of at most PIPE_BUF bytes, which the kernel makes atomic: a
message is there whole or not at all, whenever the worker dies, and an item exists exactly when its message does.
Main to worker: control words of 8 bytes, credits among them. A closed control pipe tells the worker to end.
Nothing is shared with another worker, so a death can break no channel but its own.
"""

from __future__ import annotations

import contextlib
import enum
import os
import select
import struct
import weakref
from collections import deque
from typing import Any, NamedTuple

from splitpipe.transport.frames import Frame, aligned_buffer, load_frame
from splitpipe.transport.slots import SlotReader, SlotWriter, create_slot

__all__ = ["ChannelClosed", "Control", "Kind", "Message", "Receiver", "Sender", "SenderEnds", "open_channel"]

# length of the message, kind, frame is in the slot (1) or in the message (0), slot, lane, epoch, buffers, tail, size,
# capacity of the slot
_HEADER = struct.Struct("<HBBIIIIQQQ")
_WORD = struct.Struct("<II")
_READ_BYTES = 1 << 16
_MAX_MESSAGE = getattr(select, "PIPE_BUF", 512)  # POSIX's least, where the system does not tell
# No slot: the message took no credit and needs none back.
_NO_SLOT = 0xFFFFFFFF


class Kind(enum.IntEnum):
    """What a message is."""

    ITEM = 0  # the next item of a lane
    END = 1  # a lane has no more items in this epoch
    ERROR = 2  # the lane raised; the object is the failure


class Control(enum.IntEnum):
    """What a control word is."""

    CREDIT = 0  # a slot is free again
    START = 1  # begin an epoch
    STOP = 2  # give up an epoch


class Message(NamedTuple):
    """One message as it arrived."""

    kind: Kind
    lane: int
    epoch: int
    slot: int
    in_slot: bool
    buffers: int
    tail: int
    size: int
    capacity: int
    body: bytes


class SenderEnds(NamedTuple):
    """Descriptors of the worker's end of a channel: the two pipes, which only it keeps open, and the slots."""

    data: int
    control: int
    slots: list[int]


def open_channel(label: str, slots: int, spare: int) -> tuple[Receiver, SenderEnds]:
    """Return the two ends of a new channel; OSError if there are not enough descriptors, with none of them kept.

    Args:
        label: what /proc shows of its slots.
        slots: how many slots it has.
        spare: how many of them views may keep; see `Receiver`.
    """
    with contextlib.ExitStack() as undo:

        def kept(*fds: int) -> tuple[int, ...]:
            for fd in fds:
                undo.callback(os.close, fd)
            return fds

        data_out, data_in = kept(*os.pipe())
        control_out, control_in = kept(*os.pipe())
        slot_fds = [kept(create_slot(label))[0] for _ in range(slots)]
        undo.pop_all()
    return Receiver(data_out, control_in, slot_fds, spare), SenderEnds(data_in, control_out, slot_fds)


class ChannelClosed(BaseException):
    """The main process closed the channel, or is gone: the worker is to end, whatever it is doing.

    No error that anyone is told of, and so neither in `splitpipe.errors` nor caught by `except Exception`.
    """


class Sender:
    """The worker's end.

    Args:
        data: descriptor of the pipe for messages.
        control: descriptor of the pipe for control words.
        slots: descriptors of the slots.
    """

    def __init__(self, data: int, control: int, slots: list[int]) -> None:
        self._data, self._control = data, control
        self._slots = [SlotWriter(fd) for fd in slots]
        self._free = deque(range(len(slots)))
        os.set_blocking(control, False)
        self._readable = select.poll()
        self._readable.register(control, select.POLLIN)
        self._words: deque[tuple[Control, int]] = deque()

    def _read_control(self, *, wait: bool) -> None:
        """Take in what the main process said; credits are used up here.

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
        for kind, value in _WORD.iter_unpack(words):
            if kind == Control.CREDIT:
                self._free.append(value)
            else:
                self._words.append((Control(kind), value))

    def next_start(self) -> int:
        """Wait to be told which epoch to begin, and return it; ChannelClosed if there will be none."""
        while True:
            while self._words:
                kind, epoch = self._words.popleft()
                if kind is Control.START:
                    return epoch
            self._read_control(wait=True)

    def stopped(self) -> bool:
        """Return whether the epoch under way is to be given up; does not wait."""
        self._read_control(wait=False)
        return bool(self._words)

    def send(self, kind: Kind, frame: Frame, *, lane: int = 0, epoch: int = 0) -> bool:
        """Send an object, waiting for a free slot; return False if meanwhile the epoch was given up."""
        while not self._free:
            if self._words:
                return False
            self._read_control(wait=True)
        slot = self._free.popleft()
        length = _HEADER.size + frame.size
        if length <= _MAX_MESSAGE:
            header = (length, kind, 0, slot, lane, epoch, frame.buffers, frame.tail, frame.size, 0)
            self._write(_HEADER.pack(*header) + frame.to_bytes())
            return True
        writer = self._slots[slot]
        try:
            frame.write_to(writer.reserve(frame.size))
        except BaseException:
            self._free.append(slot)
            raise
        header = (_HEADER.size, kind, 1, slot, lane, epoch, frame.buffers, frame.tail, frame.size, writer.capacity)
        self._write(_HEADER.pack(*header))
        return True

    def tell(self, kind: Kind, *, lane: int = 0, epoch: int = 0) -> None:
        """Send a message without an object."""
        self._write(_HEADER.pack(_HEADER.size, kind, 0, _NO_SLOT, lane, epoch, 0, 0, 0, 0))

    def _write(self, message: bytes) -> None:
        try:
            os.write(self._data, message)
        except BrokenPipeError:
            raise ChannelClosed from None


_alive: weakref.WeakSet[Receiver] = weakref.WeakSet()


def _close_in_forked_child() -> None:
    """A child that the user forks must not hold the pipes open: their workers would not see the parent close them."""
    for receiver in list(_alive):
        receiver.disown()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_in_forked_child)


class Receiver:
    """The main process's end; takes the descriptors over.

    Args:
        data: descriptor of the pipe for messages, read without waiting.
        control: descriptor of the pipe for control words.
        slots: descriptors of the slots.
        spare: how many slots views may keep before further items are copied out, so that a consumer that keeps
            every item never stops the worker.
    """

    def __init__(self, data: int, control: int, slots: list[int], spare: int) -> None:
        self.data = data
        self._control = control
        self._slot_fds = slots
        self._slots = [SlotReader(fd) for fd in slots]
        self._spare = spare
        self._leased: set[int] = set()  # changed by leases that die in any thread, so only by atomic steps
        self._rest = b""
        self._owner = os.getpid()
        self.messages: deque[Message] = deque()
        self.copies = 0
        self.bytes = 0
        os.set_blocking(data, False)
        _alive.add(self)

    def drain(self) -> None:
        """Take in every message that is there; does not wait."""
        while True:
            try:
                chunk = os.read(self.data, _READ_BYTES)
            except BlockingIOError:
                return
            if not chunk:
                return
            chunk, at = self._rest + chunk, 0
            while at + _HEADER.size <= len(chunk):
                length, kind, in_slot, slot, lane, epoch, buffers, tail, size, capacity = _HEADER.unpack_from(chunk, at)
                if at + length > len(chunk):
                    break
                body = chunk[at + _HEADER.size : at + length]
                self.messages.append(
                    Message(Kind(kind), lane, epoch, slot, bool(in_slot), buffers, tail, size, capacity, body)
                )
                at += length
            self._rest = chunk[at:]

    def open(self, message: Message) -> Any:
        """Return the object of a message; its arrays are views of the slot, which comes back when they die."""
        self.bytes += message.size
        if not message.in_slot:
            self._credit(message.slot)
            frame = aligned_buffer(message.size) if message.buffers else memoryview(message.body)
            if message.buffers:
                frame[:] = message.body
            return load_frame(frame, message.tail, message.buffers)
        slot = message.slot
        self._leased.add(slot)
        view = self._slots[slot].view(message.size, message.capacity, lambda: self._release(slot))
        if message.buffers and len(self._leased) > self._spare:
            private = aligned_buffer(message.size)
            private[:] = view
            view, self.copies = private, self.copies + 1
        return load_frame(view, message.tail, message.buffers)

    def discard(self, message: Message) -> None:
        """Give the slot of a message back unread."""
        if message.slot != _NO_SLOT:
            self._credit(message.slot)

    def _release(self, slot: int) -> None:
        """Called when the last view of an item dies: any thread, any instant, perhaps in a forked child."""
        if os.getpid() == self._owner:
            self._leased.discard(slot)
            self._credit(slot)

    def _credit(self, slot: int) -> None:
        self.control(Control.CREDIT, slot)

    def control(self, kind: Control, value: int) -> None:
        """Send a control word; to a worker that is gone, or after `close`, nothing happens."""
        fd = self._control
        if fd >= 0:
            with contextlib.suppress(BrokenPipeError):
                os.write(fd, _WORD.pack(kind, value))

    def hang_up(self) -> None:
        """Close the control pipe: the worker ends as soon as it looks."""
        fd, self._control = self._control, -1
        if fd >= 0:
            os.close(fd)

    def disown(self) -> None:
        """Let go of the pipes, in a process that is not the one that made them."""
        self.hang_up()
        fd, self.data = self.data, -1
        if fd >= 0:
            os.close(fd)

    def close(self) -> None:
        """Close all descriptors; views that are held stay valid."""
        self.disown()
        fds, self._slot_fds, self._slots = self._slot_fds, [], []
        for fd in fds:
            os.close(fd)
        self.messages.clear()
