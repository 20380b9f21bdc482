"""What a worker process does from its first line to its last."""

from __future__ import annotations

import contextlib
import faulthandler
import logging
import os
import random
import select
import signal
import threading
from collections import deque
from typing import Any

import numpy as np

from splitpipe.errors import ItemError
from splitpipe.transport import Sender
from splitpipe.transport.channel import ChannelClosed, Kind
from splitpipe.transport.frames import Frame, unpicklable_part
from splitpipe.workers.failures import capture
from splitpipe.workers.job import Job, load_job
from splitpipe.workers.lanes import NOTHING_LEFT, LaneRun

__all__ = ["run"]

logger = logging.getLogger(__name__)

_GLOBAL_PURPOSE = 2  # first word of the spawn key of the global generators; see lane.py


def run(config: dict[str, Any], job: Job | None = None) -> None:
    """Serve epochs until the main process closes the control pipe, or is gone.

    Args:
        config: worker, lanes (a list), parent (pid), data, control, slots, job, words (descriptors).
        job: what to run, where it need not be read from the descriptor.
    """
    # Ctrl-C is the main process's to answer; it closes the control pipe.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    faulthandler.enable(file=config["words"])
    _die_with(config["parent"])
    worker = _Worker(config, job)
    # The main process is gone or wants no more: the end, without a word.
    with contextlib.suppress(ChannelClosed):
        worker.serve()


class _Worker:
    def __init__(self, config: dict[str, Any], job: Job | None) -> None:
        self._number: int = config["worker"]
        self._lanes: list[int] = config["lanes"]
        self._sender = Sender(config["data"], config["control"], config["slots"])
        self._job_fd: int = config["job"]
        self._job = job

    def serve(self) -> None:
        ready = False
        while True:
            epoch = self._sender.next_start()
            try:
                if not ready:
                    self._get_ready()
                    ready = True
            except BaseException as exc:  # noqa: BLE001  what the user's modules and init raise goes to the main process
                self._fail(exc, f"worker {self._number} (pid {os.getpid()}), while it started", self._lanes[0], epoch)
            else:
                self._run_epoch(epoch)

    def _get_ready(self) -> None:
        if self._job is None:
            self._job = load_job(self._job_fd)
        if self._job.init is not None:
            self._job.init(self._number)

    def _run_epoch(self, epoch: int) -> None:
        if self._job is None:
            return
        _seed_globals(self._job.seed, epoch, self._number)
        runs = deque(LaneRun(self._job, lane, epoch) for lane in self._lanes)
        every = list(runs)
        try:
            while runs and not self._sender.stopped():
                if not self._step(runs):
                    break
        finally:
            for lane_run in every:
                self._close(lane_run)

    def _step(self, runs: deque[LaneRun]) -> bool:
        """Send the next item of the lane whose turn it is; return whether the epoch goes on."""
        lane_run = runs[0]
        lane, epoch = lane_run.lane.index, lane_run.lane.epoch
        try:
            item = lane_run.step()
            if item is NOTHING_LEFT:
                runs.popleft()
                self._sender.tell(Kind.END, lane=lane, epoch=epoch)
                return True
            runs.rotate(-1)
            return self._sender.send(Kind.ITEM, self._frame(item, lane_run), lane=lane, epoch=epoch)
        except ChannelClosed:
            raise
        except BaseException as exc:  # noqa: BLE001  whatever the user's generator raises goes to the main process
            self._fail(exc, self._where(lane_run), lane, epoch)
        return False

    def _frame(self, item: Any, lane_run: LaneRun) -> Frame:
        try:
            return Frame(item)
        except Exception as exc:
            part = unpicklable_part(item) or f"item, a {type(item).__qualname__}"
            raise ItemError(
                f"{self._where(lane_run)} cannot be sent to the main process: {part}, does not pickle ({exc}). "
                "Yield plain values and arrays"
            ) from exc

    def _where(self, lane_run: LaneRun) -> str:
        return f"worker {self._number} (pid {os.getpid()}), {lane_run}"

    def _fail(self, exc: BaseException, where: str, lane: int, epoch: int) -> None:
        self._sender.send(Kind.ERROR, Frame(capture(exc, where)), lane=lane, epoch=epoch)

    def _close(self, lane_run: LaneRun) -> None:
        try:
            lane_run.close()
        except Exception:
            # Nobody waits for this epoch any more, so there is nobody to raise it to.
            logger.exception("the generator raised while it was closed, in %s", self._where(lane_run))


def _seed_globals(seed: int, epoch: int, worker: int) -> None:
    """Give the global generators of `random` and numpy a state of this epoch and worker: a copy would repeat itself."""
    words = np.random.SeedSequence(seed, spawn_key=(_GLOBAL_PURPOSE, epoch, worker)).generate_state(4)
    random.seed(int.from_bytes(words.tobytes(), "little"))
    np.random.seed(words)


def _die_with(parent: int) -> None:
    """End this process when the main process does, even while the generator computes."""
    try:
        pidfd = os.pidfd_open(parent)
    except ProcessLookupError:
        os._exit(0)
    if os.getppid() != parent:
        os._exit(0)  # it died before, and its number may be another's by now

    def watch() -> None:
        poller = select.poll()
        poller.register(pidfd, select.POLLIN)
        poller.poll()
        os._exit(0)

    threading.Thread(target=watch, name="splitpipe-parent-watch", daemon=True).start()
