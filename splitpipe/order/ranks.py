"""Which part of an epoch a lane of a rank does."""

from __future__ import annotations

from collections.abc import Iterator

from splitpipe.lane import Lane

__all__ = ["lane_share", "rank_count", "share", "wrapped"]


def share(total: int, lane: int, lanes: int) -> tuple[int, int]:
    """Return where lane `lane` of `lanes` begins and ends in a sequence of `total`; shares differ by at most one."""
    return total * lane // lanes, total * (lane + 1) // lanes


def rank_count(total: int, rank: int, world_size: int, tail: str) -> int:
    """Return how many of `total` things a rank does, dealt out in turn or in one piece.

    Args:
        total: how many there are.
        rank: which rank.
        world_size: of how many.
        tail: "drop" what cannot be shared equally, "pad" it from the beginning, or be "uneven".
    """
    if tail == "drop":
        return total // world_size
    if tail == "pad":
        return -(-total // world_size)
    return (total - rank + world_size - 1) // world_size


def lane_share(total: int, lane: Lane) -> tuple[int, int]:
    """Return where a lane's records begin and end in an epoch of `total`; padded, it may end beyond (`wrapped`)."""
    if lane.tail == "uneven":
        first, end = share(total, lane.rank, lane.world_size)
    else:
        count = rank_count(total, lane.rank, lane.world_size, lane.tail)
        first, end = lane.rank * count, (lane.rank + 1) * count
    start, stop = share(end - first, lane.index, lane.count)
    return first + start, first + stop


def wrapped(start: int, stop: int, total: int) -> Iterator[tuple[int, int]]:
    """Yield the pieces of `start` to `stop` in a sequence of `total` that begins anew at its end."""
    while start < stop and total:
        place = start % total
        piece = min(stop - start, total - place)
        yield place, place + piece
        start += piece
