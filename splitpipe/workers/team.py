"""All workers of a pipeline: started together, heard through one epoll, stopped together."""

from __future__ import annotations

import os
import select
import time
from dataclasses import dataclass
from typing import Any

from splitpipe.errors import PipelineClosedError, WorkerStartError, WorkerTimeoutError
from splitpipe.transport import Control, Kind, Message, open_channel
from splitpipe.transport.messages import LANE_ASKED
from splitpipe.transport.receiver import SOON_NS
from splitpipe.workers.failures import rebuild
from splitpipe.workers.job import Job, store_job
from splitpipe.workers.lanes import NOTHING_LEFT, Skipped
from splitpipe.workers.member import Member
from splitpipe.workers.places import Places
from splitpipe.workers.process import start_process, stop_processes
from splitpipe.workers.resources import out_of_memory_kills

__all__ = ["Team", "TeamOptions"]

_END, _ERROR, _SKIP = int(Kind.END), int(Kind.ERROR), int(Kind.SKIP)  # ints compare in a third of the time

# Tickets beyond `prefetch`: one for the item arriving, one for the item that the consumer works on until then, and one
# for an item that it keeps for a while.
_HELD = 3
# What Linux has and the transport is made of.
_NEEDED = ((os, "memfd_create"), (os, "pidfd_open"), (select, "epoll"))


@dataclass(frozen=True)
class TeamOptions:
    """How a team works, whatever it works on.

    Attributes:
        workers: how many, at least 1.
        prefetch: how many items each may make ahead of the consumer.
        start: how processes are started.
        max_bytes: of shared memory, for all together.
        restarts: how many times a dead one is replaced.
        epochs: how many epochs there will be, if that is known: none is begun early beyond.
        trace: the file to write a timeline to; empty for none.
    """

    workers: int
    prefetch: int
    start: str
    max_bytes: int
    restarts: int = 0
    epochs: int | None = None
    trace: str = ""


class Team:
    """The worker processes of one pipeline.

    Args:
        job: what each of them runs.
        options: how.
        places: where the lanes of the first epoch begin.

    Attributes:
        restarted: how many dead workers were replaced.
        wait_s: for how many seconds it waited for workers, without the wait for the first item of each.
        start_s: for how many seconds it waited for those.
        settled: whether every receipt came to its end; one that was interrupted may have lost what it was at.
        delivered: how many items it gave.
    """

    def __init__(self, job: Job, options: TeamOptions, places: Places) -> None:
        if not all(hasattr(module, name) for module, name in _NEEDED):
            raise WorkerStartError(
                "worker processes need memfd, pidfd and epoll, which this system lacks: use workers=0 or "
                'start="thread" here, or Linux'
            )
        self._job, self._options, self._workers = job, options, options.workers
        self._owner = os.getpid()
        self._closed = False
        self._places = places
        self._members: list[Member] = []
        self._lost_bytes = self._lost_copies = 0  # what came from workers that were replaced
        self.restarted = 0
        self.settled = True
        self.wait_s = self.start_s = 0.0
        self.delivered = 0
        self._restarts = options.restarts
        self._kills = out_of_memory_kills()
        self._events = select.epoll()
        self._by_fd: dict[int, Member] = {}
        self._job_fd = store_job(job) if options.start != "fork" else -1
        try:
            for worker in range(self._workers):
                self._members.append(self._started(worker, places))
        except BaseException:
            self.close()
            raise

    def _started(self, worker: int, places: Places) -> Member:
        """Return a new worker whose lanes begin where `places` says."""
        options = self._options
        limit = max(1, options.max_bytes // self._workers)
        heard = said = -1
        try:
            heard, said = os.pipe2(os.O_CLOEXEC)
            receiver, ends = open_channel(f"worker-{worker}", _HELD, limit)
        except OSError as exc:
            for fd in (heard, said):
                if fd >= 0:
                    os.close(fd)
            raise WorkerStartError(
                f"not enough file descriptors for worker {worker}: {exc}. Use fewer workers, or raise the limit with "
                "`ulimit -n`"
            ) from exc
        os.set_blocking(said, False)  # a worker that dies is not to wait for someone to listen
        config = {
            "worker": worker,
            "workers": self._workers,
            "parent": os.getpid(),
            "tickets": options.prefetch + _HELD,
            "limit": limit,
            "epoch": places.epoch,
            "places": places.of_worker(worker, self._workers),
            "last_epoch": None if options.epochs is None else options.epochs - 1,
            "trace": options.trace,
            "words": said,
            "job": self._job_fd,
            **ends._asdict(),
        }
        try:
            process = start_process(options.start, config, self._job)
        except BaseException:
            receiver.close()
            os.close(heard)
            raise
        finally:
            os.close(ends.data)
            os.close(ends.control)
            os.close(said)
        member = Member(worker, process, receiver, heard)
        for fd in (receiver.data, process.pidfd):
            self._events.register(fd, select.EPOLLIN)
            self._by_fd[fd] = member
        return member

    def start(self, places: Places) -> None:
        """Tell all workers to begin an epoch.

        Args:
            places: which one; how far each lane of it has come is kept here.
        """
        self._places = places
        for member in self._members:
            member.receiver.control(Control.START, places.epoch)

    def stop(self) -> None:
        """Tell all workers to give up the epoch under way; what they still send of it is dropped."""
        if os.getpid() != self._owner:
            return  # a forked copy of this team; the workers are not its own
        for member in self._members:
            member.receiver.page.given_up = self._places.epoch + 1
            member.receiver.control(Control.STOP, self._places.epoch)

    def receive(self, lane: int, timeout: float | None) -> Any:
        """Return the next item of `lane`, or NOTHING_LEFT, or Skipped.

        A worker runs its lanes in the order in which they are asked for here, so its next message is the lane's.

        Raises:
            WorkerDiedError: the worker is gone, and everything that it sent before has been received.
            WorkerTimeoutError: nothing came for `timeout` seconds.
            BaseException: what the generator raised.
        """
        self.settled = False
        places = self._places
        member = self._members[lane % self._workers]
        message = member.next(places.epoch)
        if message is None:
            began = time.monotonic()
            while message is None:
                self._wait([lane], timeout, began)
                member = self._members[lane % self._workers]
                message = member.next(places.epoch)
            self._waited(began, member)
        return self._deliver(member, message)

    def receive_any(self, lanes: list[int], timeout: float | None) -> tuple[int, Any]:
        """Return one of `lanes` and its next item or NOTHING_LEFT, whichever is there first; raises as `receive`."""
        self.settled = False
        began = time.monotonic()
        while True:
            for worker in dict.fromkeys(lane % self._workers for lane in lanes):
                member = self._members[worker]
                message = member.next(self._places.epoch)
                if message is not None:
                    self._waited(began, member)
                    return message.lane, self._deliver(member, message)
            self._wait(lanes, timeout, began)

    def _deliver(self, member: Member, message: Message) -> Any:
        kind, flags, _, lane, _, state_bytes, _, _ = message
        places = self._places
        if flags & LANE_ASKED:
            places.asked = True
        if kind == _END:
            places.ended(lane)
            self.settled = True
            return NOTHING_LEFT
        state = member.receiver.state(message) if state_bytes else ""
        item = member.receiver.open(message)
        self.settled = True
        if kind == _ERROR:
            raise rebuild(item)
        places.passed(lane, state)
        if kind == _SKIP:
            return Skipped(rebuild(item))
        self.delivered += 1
        return item

    def _waited(self, began: float, member: Member) -> None:
        """Take note of a wait that is over; that for the first item of a worker is for its start."""
        waited = time.monotonic() - began
        if member.has_given:
            self.wait_s += waited
        else:
            self.start_s += waited
            member.has_given = True

    def _wait(self, lanes: list[int], timeout: float | None, began: float) -> None:
        """Wait for a message of the workers of some lanes, or for the death of one of them."""
        if os.getpid() != self._owner:
            raise PipelineClosedError("this pipeline belongs to the process that made it: make one after the fork")
        members = [self._members[worker] for worker in dict.fromkeys(lane % self._workers for lane in lanes)]
        for member in members:
            if member.dead:  # and all that it sent was received
                self._replace(member, lanes)
                return
        if len(members) == 1 and members[0].receiver.watch():
            members[0].receiver.drain()
            return
        asleep = time.monotonic_ns()
        try:
            quiet = [member.receiver.begin_wait() for member in members]  # all are asked, not up to the first
            if all(quiet):
                left = None if timeout is None else max(0.0, began + timeout - time.monotonic())
                # Not woken by the items of workers whose turn it is not.
                events = members[0].wait(left) if len(members) == 1 else self._events.poll(left)
                if not events:
                    raise self._late(lanes[0], timeout)
                for fd, _ in events:
                    self._hear(fd)
        finally:
            soon = time.monotonic_ns() - asleep < SOON_NS
            for member in members:
                member.receiver.end_wait()
                member.receiver.comes_soon = soon

    def _hear(self, fd: int) -> None:
        member = self._by_fd.get(fd)
        if member is None:
            return  # its death was heard of a moment ago
        member.receiver.drain()
        if fd == member.process.pidfd:
            # What it sent before it died is in the pipe and in its packs, and is delivered first.
            member.dead = True
            for each in (fd, member.receiver.data):
                self._events.unregister(each)
                del self._by_fd[each]

    def _replace(self, member: Member, lanes: list[int]) -> None:
        """Start a worker in the place of a dead one, at what comes after what that one has sent.

        Raises:
            WorkerDiedError: no restarts are left.
        """
        if not self._restarts:
            lane = next(lane for lane in lanes if lane % self._workers == member.number)
            waited_for = f"item {self._places.items[lane]} of lane {lane} of epoch {self._places.epoch}"
            if self.restarted:
                waited_for += f", after {self.restarted} restarts"
            raise member.explain(waited_for, out_of_memory_kills() - self._kills)
        self._restarts -= 1
        fresh = self._started(member.number, self._places)  # first, for if it fails the dead one is to be closed later
        self._members[member.number] = fresh
        self.restarted += 1
        self._lost_bytes += member.receiver.bytes
        self._lost_copies += member.receiver.copies
        member.close()
        stop_processes([member.process])
        fresh.receiver.control(Control.START, self._places.epoch)

    def _late(self, lane: int, timeout: float | None) -> WorkerTimeoutError:
        self.settled = True
        member = self._members[lane % self._workers]
        if not member.receiver.page.ready_ns:
            doing = "It is still starting"
        else:
            stacks = member.stacks()
            doing = f"This is what it does:\n{stacks}" if stacks else "It does not answer"
        return WorkerTimeoutError(
            f"nothing came from lane {lane} (worker {member.number}, pid {member.process.pid}) for {timeout} s: the "
            f"generator is slower than that, or stuck. Raise timeout=, or see why. {doing}"
        )

    @property
    def members(self) -> list[Member]:
        """The workers, by number."""
        return self._members

    @property
    def copies(self) -> int:
        """How many items were copied out of shared memory because the consumer keeps many."""
        return self._lost_copies + sum(member.receiver.copies for member in self._members)

    @property
    def received_bytes(self) -> int:
        """How many bytes of items arrived."""
        return self._lost_bytes + sum(member.receiver.bytes for member in self._members)

    def close(self) -> None:
        """End all workers within seconds, and give back every descriptor; held views stay valid."""
        if self._closed or os.getpid() != self._owner:
            return
        self._closed = True
        for member in self._members:
            member.receiver.hang_up()
        stop_processes([member.process for member in self._members])
        self._events.close()
        for member in self._members:
            member.close()
        if self._job_fd >= 0:
            os.close(self._job_fd)
