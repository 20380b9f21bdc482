"""All workers of a pipeline: started together, heard through one epoll, stopped together."""

from __future__ import annotations

import os
import select
import time
from functools import partial
from typing import Any

from splitpipe.errors import PipelineClosedError, WorkerStartError, WorkerTimeoutError
from splitpipe.transport import Control, Message, Receiver, open_channel
from splitpipe.transport.channel import Kind
from splitpipe.workers import child
from splitpipe.workers.failures import explain_death, rebuild
from splitpipe.workers.job import Job, store_job
from splitpipe.workers.lanes import NOTHING_LEFT
from splitpipe.workers.process import WorkerProcess, start_exec, start_fork, stop_processes

__all__ = ["Team"]

# Slots beyond `prefetch`: one for the item arriving, one for the item that the consumer works on until then, and one
# for an item that it keeps for a while.
_HELD_SLOTS = 3
# What Linux has and the transport is made of.
_NEEDED = ((os, "memfd_create"), (os, "pidfd_open"), (select, "epoll"))
# How much of what a worker said at its death is worth reading.
_MAX_LAST_WORDS = 4000


class Team:
    """The worker processes of one pipeline.

    Args:
        job: what each of them runs.
        workers: how many, at least 1.
        prefetch: how many items each may make ahead of the consumer.
        start: "exec" for fresh interpreters, "fork" for copies of this process.
    """

    def __init__(self, job: Job, workers: int, prefetch: int, start: str) -> None:
        if not all(hasattr(module, name) for module, name in _NEEDED):
            raise WorkerStartError(
                "worker processes need memfd, pidfd and epoll, which this system lacks: use workers=0 here, or Linux"
            )
        self._lanes = [list(range(worker, job.lanes, workers)) for worker in range(workers)]
        self._owner = os.getpid()
        self._closed = False
        self._epoch = -1
        self._receivers: list[Receiver] = []
        self._processes: list[WorkerProcess] = []
        self._words: list[int] = []
        self._dead: set[int] = set()
        self._events = select.epoll()
        job_fd = store_job(job) if start == "exec" else -1
        try:
            for worker in range(workers):
                self._start_worker(worker, job, job_fd, prefetch, start)
        except BaseException:
            self.close()
            raise
        finally:
            if job_fd >= 0:
                os.close(job_fd)

    def _start_worker(self, worker: int, job: Job, job_fd: int, prefetch: int, start: str) -> None:
        try:
            words = os.memfd_create(f"splitpipe-words-{worker}", os.MFD_CLOEXEC)
            self._words.append(words)
            receiver, ends = open_channel(f"worker-{worker}", prefetch + _HELD_SLOTS, _HELD_SLOTS)
            self._receivers.append(receiver)
        except OSError as exc:
            raise WorkerStartError(
                f"not enough file descriptors for worker {worker}: {exc}. Use fewer workers, lower prefetch, or raise "
                "the limit with `ulimit -n`"
            ) from exc
        config = {
            "worker": worker,
            "lanes": self._lanes[worker],
            "parent": os.getpid(),
            "data": ends.data,
            "control": ends.control,
            "slots": ends.slots,
            "job": job_fd,
            "words": words,
        }
        try:
            if start == "exec":
                process = start_exec(config, [ends.data, ends.control, *ends.slots, words, job_fd])
            else:
                process = start_fork(partial(child.run, config, job))
        finally:
            os.close(ends.data)
            os.close(ends.control)
        self._processes.append(process)
        self._events.register(receiver.data, select.EPOLLIN)
        self._events.register(process.pidfd, select.EPOLLIN)

    @property
    def copies(self) -> int:
        """How many items were copied out of shared memory because the consumer keeps many."""
        return sum(receiver.copies for receiver in self._receivers)

    @property
    def received_bytes(self) -> int:
        """How many bytes of items arrived."""
        return sum(receiver.bytes for receiver in self._receivers)

    def start(self, epoch: int) -> None:
        """Tell all workers to begin an epoch."""
        self._epoch = epoch
        for receiver in self._receivers:
            receiver.control(Control.START, epoch)

    def stop(self) -> None:
        """Tell all workers to give up the epoch under way; what they still send of it is dropped."""
        for receiver in self._receivers:
            receiver.control(Control.STOP, self._epoch)
        self._epoch = -1

    def receive(self, lane: int, timeout: float | None) -> Any:
        """Return the next item of `lane`, or NOTHING_LEFT.

        A worker runs its lanes in the order in which they are asked for here, so its next message is the lane's.

        Raises:
            WorkerDiedError: the worker is gone, and everything that it sent before has been received.
            WorkerTimeoutError: nothing came for `timeout` seconds.
            BaseException: what the generator raised.
        """
        worker = lane % len(self._receivers)
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            message = self._next_message(worker)
            if message is not None:
                return self._open(worker, message)
            self._wait([lane], timeout, deadline)

    def receive_any(self, lanes: list[int], timeout: float | None) -> tuple[int, Any]:
        """Return one of `lanes` and its next item or NOTHING_LEFT, whichever is there first; raises as `receive`."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            for worker in dict.fromkeys(lane % len(self._receivers) for lane in lanes):
                message = self._next_message(worker)
                if message is not None:
                    return message.lane, self._open(worker, message)
            self._wait(lanes, timeout, deadline)

    def _next_message(self, worker: int) -> Message | None:
        """Return the worker's next message of this epoch, if it is there; older ones are dropped."""
        receiver = self._receivers[worker]
        while receiver.messages:
            message = receiver.messages.popleft()
            if message.epoch == self._epoch:
                return message
            receiver.discard(message)
        return None

    def _open(self, worker: int, message: Message) -> Any:
        if message.kind is Kind.END:
            return NOTHING_LEFT
        item = self._receivers[worker].open(message)
        if message.kind is Kind.ERROR:
            raise rebuild(item)
        return item

    def _wait(self, lanes: list[int], timeout: float | None, deadline: float | None) -> None:
        """Wait for a message of any worker, or for the death of one that is waited for."""
        if os.getpid() != self._owner:
            raise PipelineClosedError("this pipeline belongs to the process that made it: make one after the fork")
        for lane in lanes:
            worker = lane % len(self._receivers)
            if worker in self._dead:
                raise self._explain(worker, lane)
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        events = self._events.poll(left)
        if not events:
            raise WorkerTimeoutError(
                f"nothing came from lane {lanes[0]} (worker {lanes[0] % len(self._receivers)}) for {timeout} s: "
                "the generator is slower than that, or stuck. Raise timeout=, or look at it with `py-spy dump`"
            )
        for fd, _ in events:
            for worker, (receiver, process) in enumerate(zip(self._receivers, self._processes, strict=True)):
                if fd == receiver.data:
                    receiver.drain()
                elif fd == process.pidfd:
                    # What it sent before it died is in the pipe, and is delivered first.
                    receiver.drain()
                    self._dead.add(worker)
                    self._events.unregister(fd)
                    self._events.unregister(receiver.data)

    def _explain(self, worker: int, lane: int) -> BaseException:
        process = self._processes[worker]
        words = os.pread(self._words[worker], _MAX_LAST_WORDS, 0).decode("utf-8", "replace")
        waited_for = f"an item of lane {lane} of epoch {self._epoch}"
        return explain_death(worker, process.pid, process.exitcode(), waited_for, words)

    def close(self) -> None:
        """End all workers within seconds, and give back every descriptor; held views stay valid."""
        if self._closed or os.getpid() != self._owner:
            return
        self._closed = True
        for receiver in self._receivers:
            receiver.hang_up()
        stop_processes(self._processes)
        self._events.close()
        for receiver in self._receivers:
            receiver.close()
        for words in self._words:
            os.close(words)
