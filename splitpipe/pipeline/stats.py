"""What a pipeline did, in figures, and what follows from them, in words."""

from __future__ import annotations

from dataclasses import dataclass

from splitpipe.workers.member import Member

__all__ = ["PipelineStats", "WorkerStats", "verdict"]

# Below this share of the time nobody would notice.
_LITTLE = 0.05
_MUCH = 0.5
# Below this many seconds the figures tell of the start and not of the work.
_TOO_SHORT_S = 0.05


@dataclass(frozen=True)
class WorkerStats:
    """What one worker process did since it was started. The three shares add up to 1.

    Attributes:
        worker: its number.
        pid: its process id.
        busy: share of the time in which it ran the generator, serialised and copied.
        blocked: share in which it waited for room, because the consumer was behind.
        starved: share in which it waited for an epoch to begin.
        computed: share in which it kept a core busy; what is missing of `busy` it waited for disk, network, a lock, or
            a core.
        queued: how many items it has made that were not asked for yet, as far as they were looked at.
        memory_bytes: its resident memory now, shared memory included; 0 if it is gone.
    """

    worker: int
    pid: int
    busy: float
    blocked: float
    starved: float
    computed: float
    queued: int
    memory_bytes: int

    @classmethod
    def of(cls, member: Member) -> WorkerStats:
        """Return what a worker did."""
        lived, blocked, starved = member.figures()
        busy = max(0.0, lived - blocked - starved)
        return cls(
            member.number, member.process.pid, busy / lived, blocked / lived, starved / lived, member.cpu_s() / lived,
            member.receiver.queued, member.memory_bytes(),
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
        wait_s: how many seconds the consumer spent waiting for items.
        elapsed_s: how many seconds passed in epochs, from the start of each to its end or to now.
        items_per_s: items in each of those seconds.
        bytes_per_s: bytes in each of those seconds.
        waited: share of those seconds in which the consumer waited.
        workers: what each worker process did; empty with `workers=0` and threads.
        verdict: who is the bottleneck, and what to change, in words.
    """

    epoch: int
    items: int
    skipped: int
    received_bytes: int
    copies: int
    restarted: int
    wait_s: float
    elapsed_s: float
    items_per_s: float
    bytes_per_s: float
    waited: float
    workers: tuple[WorkerStats, ...]
    verdict: str


def verdict(waited: float, elapsed_s: float, workers: tuple[WorkerStats, ...], *, cores: int, ordered: bool) -> str:
    """Return who is the bottleneck, and what to change.

    Args:
        waited: share of the time in which the consumer waited.
        elapsed_s: the time, in seconds.
        workers: what the worker processes did.
        cores: how many cores may be used.
        ordered: whether items are taken from the lanes in turn.
    """
    if elapsed_s < _TOO_SHORT_S:
        return "too early to tell"
    if waited < _LITTLE:
        return f"the consumer is the bottleneck: it waited {waited:.0%} of the time. To be faster, make the loop faster"
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
    computed = sum(worker.computed for worker in workers) / sum(worker.busy for worker in workers)
    if computed < _MUCH:
        return (
            f"nobody is busy: {seen}, but computed in {computed:.0%} of that. The generator waits for something else: "
            "disk, network, a lock, a core. More workers may help, also more than there are cores"
        )
    if len(workers) < cores:
        return f"the workers are the bottleneck: {seen}. Use more of them: {cores} cores are there"
    return f"the workers are the bottleneck: {seen}. All {cores} cores are in use: make the generator faster"
