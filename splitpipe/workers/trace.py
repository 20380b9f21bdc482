"""A timeline of what each process did when, which Perfetto (ui.perfetto.dev) and chrome://tracing open.

Trace Event Format, JSON array of complete events ("ph": "X"); the closing bracket is optional there, so every process
appends its own lines to one file, and one that is killed spoils nothing.
https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from splitpipe.transport import Sender
from splitpipe.transport.frames import Frame, Serializer
from splitpipe.workers.job import Job
from splitpipe.workers.lanes import LaneRun
from splitpipe.workers.places import Place

__all__ = ["Trace", "TracedRun", "TracedSender", "TracedSerializer", "begin_trace"]

_KEPT = 256  # events, before they are written


def begin_trace(path: str) -> None:
    """Begin a new file; OSError if it cannot be written."""
    Path(path).write_text("[\n", encoding="utf-8")


class Trace:
    """The events of one process.

    Args:
        path: the file, begun before.
        name: what the process is called.

    Attributes:
        lane: which lane it works on.
    """

    def __init__(self, path: str, name: str) -> None:
        self._path = path
        self._pid = os.getpid()
        self._lines: list[str] = []
        self.lane = 0
        self._line({"ph": "M", "name": "process_name", "args": {"name": name}})

    def _line(self, event: dict[str, Any]) -> None:
        self._lines.append(json.dumps({"pid": self._pid, "tid": 0, **event}) + ",\n")
        if len(self._lines) >= _KEPT:
            self.flush()

    def add(self, name: str, began: int, ended: int, **args: Any) -> None:
        """Add what was done from `began` to `ended`, both of `time.monotonic_ns`, which all processes share."""
        times = {"ts": began / 1000, "dur": (ended - began) / 1000}
        self._line({"ph": "X", "name": name, **times, "tid": self.lane, "args": {"lane": self.lane, **args}})

    def flush(self) -> None:
        """Write what was kept, by one append, which no other process's can part."""
        lines, self._lines = self._lines, []
        if lines:
            fd = os.open(self._path, os.O_WRONLY | os.O_APPEND)
            try:
                os.write(fd, "".join(lines).encode())
            finally:
                os.close(fd)


class TracedRun(LaneRun):
    """A lane that writes down when it produced."""

    def __init__(self, job: Job, place: Place, epoch: int, *, trace: Trace) -> None:
        super().__init__(job, place, epoch)
        self._trace = trace

    def step(self) -> Any:
        """Do as `LaneRun.step`."""
        self._trace.lane = self.lane.index
        began, item = time.monotonic_ns(), self.items
        try:
            return super().step()
        finally:
            self._trace.add("produce", began, time.monotonic_ns(), epoch=self.lane.epoch, item=item)


class TracedSerializer(Serializer):
    """A serializer that writes down when it worked."""

    def __init__(self, trace: Trace) -> None:
        super().__init__()
        self._trace = trace

    def frame(self, item: Any) -> Frame:
        """Do as `Serializer.frame`."""
        began = time.monotonic_ns()
        frame = super().frame(item)
        self._trace.add("serialise", began, time.monotonic_ns())
        return frame


class TracedSender(Sender):
    """A sender that writes down when it copied, and when it waited for room."""

    def __init__(self, *ends: int, trace: Trace) -> None:
        super().__init__(*ends)
        self._trace = trace

    def _ticket(self, need: int) -> int | None:
        began = time.monotonic_ns()
        ticket = super()._ticket(need)
        self._trace.add("wait for room", began, time.monotonic_ns())
        return ticket

    def send(self, kind: int, frame: Frame, lane: int, epoch: int, flags: int = 0, state: bytes = b"") -> bool:
        """Do as `Sender.send`."""
        began = time.monotonic_ns()
        sent = super().send(kind, frame, lane, epoch, flags, state)
        self._trace.add("send", began, time.monotonic_ns(), bytes=frame.size())
        return sent
