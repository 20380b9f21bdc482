"""The plan of an epoch: whole bins, every record once, equal shares."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from splitpipe.order import plan_epoch

Counts = st.lists(st.integers(0, 40), max_size=12)


def _records(counts: list[int], **options: int) -> list[tuple[int, int]]:
    runs = plan_epoch(counts, shuffle=True, **{"seed": 3, "epoch": 0, **options})
    return [(run.bin, position) for run in runs for position in run.positions.tolist()]


@given(Counts, st.integers(1, 9), st.integers(0, 3))
def test_lanes_together_read_every_record_once_in_the_order_of_one(counts: list[int], lanes: int, epoch: int) -> None:
    """Lane after lane is the epoch of a single lane, and shares differ by at most one record."""
    shares = [_records(counts, epoch=epoch, lane=lane, lanes=lanes) for lane in range(lanes)]

    assert [record for share in shares for record in share] == _records(counts, epoch=epoch)
    everything = [(bin, place) for bin, count in enumerate(counts) for place in range(count)]
    assert sorted(itertools.chain(*shares)) == everything
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_unshuffled_is_the_stored_order() -> None:
    """Without shuffle, bins and the records in them come as they lie there."""
    runs = [(run.bin, run.positions.tolist()) for run in plan_epoch([2, 0, 3], shuffle=False, seed=0, epoch=0)]

    assert runs == [(0, [0, 1]), (2, [0, 1, 2])]


def test_each_bin_is_read_whole_before_the_next() -> None:
    """A shuffled epoch stays sequential at the scale of bins."""
    bins = [bin for bin, _ in _records([50] * 20)]

    assert [bin for at, bin in enumerate(bins) if at == 0 or bins[at - 1] != bin] == list(dict.fromkeys(bins))
    assert list(dict.fromkeys(bins)) != list(range(20))
