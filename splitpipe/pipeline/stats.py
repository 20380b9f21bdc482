"""What a pipeline did, in figures, and what follows from them, in words."""

from __future__ import annotations

from dataclasses import dataclass

from splitpipe.workers.member import Member

__all__ = ["PipelineStats", "WorkerStats", "verdict"]

# Below this share of the time nobody would notice.
_LITTLE = 0.05
_MUCH = 0.5
# Who computes so little of the time waits for something else.
_IDLE = 0.3
# Below this many seconds the figures tell of the start and not of the work.
_TOO_SHORT_S = 0.05


@dataclass(frozen=True)
class WorkerStats:
    """What one worker process did since it had started. The three shares add up to 1.

    Attributes:
        worker: its number.
        pid: its process id.
        busy: share of the time in which it ran the generator (computing or waiting), serialised and copied.
        blocked: share in which it waited for room, because the consumer was behind.
        starved: share in which it waited for an epoch to begin.
        queued: how many items it has made that were not asked for yet, as far as they were looked at.
        memory_bytes: its resident memory now, shared memory included; 0 if it is gone.
        computed: share of its life, its start included, in which it used a core.
    """

    worker: int
    pid: int
    busy: float
    blocked: float
    starved: float
    queued: int
    memory_bytes: int
    computed: float

    @classmethod
    def of(cls, member: Member) -> WorkerStats:
        """Return what a worker did."""
        there, blocked, starved = member.figures()
        busy, whole = max(0.0, there - blocked - starved), there or 1.0
        return cls(
            member.number, member.process.pid, busy / whole, blocked / whole, starved / whole, member.receiver.queued,
            *member.resources(),
        )  # fmt: skip

    @property
    def load(self) -> float:
        """Share of the time in which it had an epoch to work on that it was busy."""
        return self.busy / (self.busy + self.blocked) if self.busy else 0.0


@dataclass(frozen=True)
class PipelineStats:
    """What a pipeline did since it was made.

    Attributes:
        epoch: the epoch under way or ended last; -1 before the first.
        items: how many items were delivered.
        skipped: how many could not be made, and were skipped.
        received_bytes: how many bytes of items came from the workers; 0 with `workers=0` and threads.
        copies: how many items were copied out of shared memory because the consumer kept many of them.
        restarted: how many dead workers were replaced.
        start_s: how many seconds passed until the workers had started and the first item was there.
        wait_s: how many seconds the consumer spent waiting for items after that.
        elapsed_s: how many seconds passed in epochs, from the start of each to its end or to now.
        items_per_s: items in each of those seconds.
        bytes_per_s: bytes in each of those seconds.
        waited: share of those seconds, but for `start_s`, in which the consumer waited.
        workers: what each worker process did; empty with `workers=0` and threads; after `close()`, until then.
        verdict: who is the bottleneck, and what to change, in words.
    """

    epoch: int
    items: int
    skipped: int
    received_bytes: int
    copies: int
    restarted: int
    start_s: float
    wait_s: float
    elapsed_s: float
    items_per_s: float
    bytes_per_s: float
    waited: float
    workers: tuple[WorkerStats, ...]
    verdict: str


def verdict(
    waited: float, elapsed_s: float, workers: tuple[WorkerStats, ...], *, threads: int, cores: int, ordered: bool
) -> str:
    """Return who is the bottleneck, and what to change.

    Args:
        waited: share of the time in which the consumer waited.
        elapsed_s: the time, in seconds.
        workers: what the worker processes did.
        threads: how many threads do their work, if they are none.
        cores: how many cores may be used.
        ordered: whether items are taken from the lanes in turn.
    """
    if elapsed_s < _TOO_SHORT_S:
        return "too early to tell"
    if waited < _LITTLE:
        return f"the consumer is the bottleneck: it waited {waited:.0%} of the time. To be faster, make the loop faster"
    if threads:
        return (
            f"the {threads} threads are the bottleneck: the consumer waited {waited:.0%} of the time. More help "
            "if they wait for something; if they compute, processes do"
        )
    if not workers:
        return f"making items takes {waited:.0%} of the time: worker processes would do it beside the loop"
    load = sum(worker.load for worker in workers) / len(workers)
    seen = f"the consumer waited {waited:.0%} of the time, and the workers were busy {load:.0%}"
    slowest = max(workers, key=lambda worker: worker.busy)
    others = [worker.busy for worker in workers if worker is not slowest]
    if others and slowest.load > _MUCH and max(others) < _MUCH * slowest.busy:
        cure = ", or pass ordered=False" if ordered else ""
        return (
            f"worker {slowest.worker} is the bottleneck: it was busy {slowest.load:.0%}, and the others had less to do "
            f"or waited for their turn. Give the lanes equal work{cure}"
        )
    if load <= _MUCH:
        return f"the consumer is the bottleneck now and then: {seen}. A larger prefetch would even it out"
    if sum(worker.computed for worker in workers) < _IDLE * sum(worker.busy for worker in workers):
        return (
            f"the workers are the bottleneck, and do not compute: {seen}, mostly waiting for disk, network or a sleep. "
            "Use more of them, also more than there are cores"
        )
    if len(workers) < cores:
        return f"the workers are the bottleneck: {seen}. Use more of them: {cores} cores are there"
    return f"the workers are the bottleneck: {seen}. All {cores} cores are in use: make the generator faster"
