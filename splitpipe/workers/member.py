"""One worker of a team: its process and its channel."""

from __future__ import annotations

import os
import select
import time

from splitpipe.errors import WorkerDiedError
from splitpipe.transport import Message, Receiver
from splitpipe.workers.child import DUMP_SIGNAL
from splitpipe.workers.failures import explain_death
from splitpipe.workers.process import WorkerProcess

__all__ = ["Member"]

# How much of what a worker said is worth reading.
_MAX_WORDS = 8000
# How long a worker may take to begin, and then to go on, to write down its stacks.
_DUMP_BEGINS_S, _DUMP_PAUSES_S = 1.0, 0.1


class Member:
    """A worker.

    Args:
        number: its number.
        process: its process.
        receiver: the main process's end of its channel.
        words: descriptor of a pipe that it writes its stacks to.

    Attributes:
        dead: whether the process has ended.
        has_given: whether something was received from it.
    """

    def __init__(self, number: int, process: WorkerProcess, receiver: Receiver, words: int) -> None:
        self.number, self.process, self.receiver = number, process, receiver
        self._words = words
        self._events = select.poll()
        for fd in (receiver.data, process.pidfd):
            self._events.register(fd, select.POLLIN)
        self.dead = self.has_given = False

    def next(self, epoch: int) -> Message | None:
        """Return its next message of this epoch, if it is there; older ones are dropped."""
        receiver = self.receiver
        while True:
            message = receiver.next()
            if message is None or message.epoch == epoch:
                return message
            receiver.discard(message)

    def wait(self, seconds: float | None) -> list[tuple[int, int]]:
        """Return what has happened to it, a message or its death, as `select.poll` does; empty if nothing did."""
        return self._events.poll(None if seconds is None else seconds * 1000)

    def explain(self, waited_for: str, kills: int) -> WorkerDiedError:
        """Return the error that tells of its death."""
        has_started = bool(self.receiver.page.ready_ns)
        return explain_death(self.process, self.number, waited_for, self._read_words(0.0), kills, has_started)

    def stacks(self) -> str:
        """Return what its threads are doing, if it can still say so."""
        self.process.signal(DUMP_SIGNAL)
        return self._read_words(_DUMP_BEGINS_S)

    def _read_words(self, patience: float) -> str:
        poller = select.poll()
        poller.register(self._words, select.POLLIN)
        said = b""
        while len(said) < _MAX_WORDS and poller.poll(patience * 1000):
            chunk = os.read(self._words, _MAX_WORDS)
            if not chunk:
                break
            said += chunk
            patience = min(patience, _DUMP_PAUSES_S)
        return said.decode("utf-8", "replace").strip()

    def resources(self) -> tuple[int, float]:
        """Return its resident memory, and what share of its life it computed; zeros if it is gone."""
        import psutil  # here, for to import it costs a tenth of importing numpy, and few ask

        try:
            process = psutil.Process(self.process.pid)
            with process.oneshot():
                times, lived = process.cpu_times(), time.time() - process.create_time()
                return process.memory_info().rss, min(1.0, (times.user + times.system) / max(lived, 1e-3))
        except psutil.NoSuchProcess:
            return 0, 0.0

    def figures(self) -> tuple[float, float, float]:
        """Return for how many seconds it was there, blocked for want of room, and idle between epochs."""
        page = self.receiver.page
        there = (time.monotonic_ns() - page.ready_ns) / 1e9 if page.ready_ns else 0.0
        return there, *page.waits()

    def close(self) -> None:
        """Give all descriptors back; the process has ended, and is closed by `stop_processes`."""
        self.receiver.close()
        words, self._words = self._words, -1
        if words >= 0:
            os.close(words)
