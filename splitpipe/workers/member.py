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
        began: when it was started, by `time.monotonic`.
    """

    def __init__(self, number: int, process: WorkerProcess, receiver: Receiver, words: int) -> None:
        self.number, self.process, self.receiver = number, process, receiver
        self._words = words
        self.dead = False
        self.began = time.monotonic()

    def next(self, epoch: int) -> Message | None:
        """Return its next message of this epoch, if it is there; older ones are dropped."""
        while True:
            message = self.receiver.next()
            if message is None or message.epoch == epoch:
                return message
            self.receiver.discard(message)

    def explain(self, waited_for: str, kills: int) -> WorkerDiedError:
        """Return the error that tells of its death."""
        return explain_death(self.process, self.number, waited_for, self._read_words(0.0), kills)

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

    def memory_bytes(self) -> int:
        """Return its resident memory; 0 if it is gone."""
        import psutil  # here, for to import it costs a tenth of importing numpy, and few ask

        try:
            resident: int = psutil.Process(self.process.pid).memory_info().rss
        except psutil.NoSuchProcess:
            return 0
        return resident

    def cpu_s(self) -> float:
        """Return for how many seconds it has kept a core busy; 0 if it is gone."""
        import psutil  # see above

        try:
            times = psutil.Process(self.process.pid).cpu_times()
        except psutil.NoSuchProcess:
            return 0.0
        return float(times.user + times.system)

    def figures(self) -> tuple[float, float, float]:
        """Return for how many seconds it has lived, was blocked for want of room, and idle between epochs."""
        blocked, idle = self.receiver.page.waits()
        return time.monotonic() - self.began, blocked, idle

    def close(self) -> None:
        """Give all descriptors back; the process has ended, and is closed by `stop_processes`."""
        self.receiver.close()
        words, self._words = self._words, -1
        if words >= 0:
            os.close(words)
