"""The plan of an epoch: whole bins, every record once, equal shares."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from splitpipe.order import Run, cut, plan_epoch
from splitpipe.order.ranks import share

Counts = st.lists(st.integers(0, 40), max_size=12)


def _records(counts: list[int], **options: int) -> list[tuple[int, int]]:
    runs = plan_epoch(counts, shuffle=True, **{"seed": 3, "epoch": 0, **options})
    return [place for run in runs for place in _places(run)]


def _places(run: Run) -> list[tuple[int, int]]:
    which = [0] * len(run) if run.which is None else run.which.tolist()
    return [(run.bins[at], position) for at, position in zip(which, run.positions.tolist(), strict=True)]


@given(Counts, st.integers(1, 9), st.integers(0, 3))
def test_lanes_together_read_every_record_once_in_the_order_of_one(counts: list[int], lanes: int, epoch: int) -> None:
    """Lane after lane is the epoch of a single lane, and shares differ by at most one record."""
    bounds = [share(sum(counts), lane, lanes) for lane in range(lanes)]
    shares = [_records(counts, epoch=epoch, start=start, stop=stop) for start, stop in bounds]

    assert [record for share in shares for record in share] == _records(counts, epoch=epoch)
    everything = [(bin, place) for bin, count in enumerate(counts) for place in range(count)]
    assert sorted(itertools.chain(*shares)) == everything
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_unshuffled_is_the_stored_order() -> None:
    """Without shuffle, bins and the records in them come as they lie there."""
    runs = [(*run.bins, run.positions.tolist()) for run in plan_epoch([2, 0, 3], shuffle=False, seed=0, epoch=0)]

    assert runs == [(0, [0, 1]), (2, [0, 1, 2])]


def test_each_bin_is_read_whole_before_the_next() -> None:
    """A shuffled epoch stays sequential at the scale of bins."""
    bins = [bin for bin, _ in _records([50] * 20)]

    assert [bin for at, bin in enumerate(bins) if at == 0 or bins[at - 1] != bin] == list(dict.fromkeys(bins))
    assert list(dict.fromkeys(bins)) != list(range(20))


@given(Counts, st.integers(1, 5), st.integers(1, 9), st.integers(0, 60))
def test_a_window_mixes_some_bins_and_every_cut_of_it_is_a_part_of_the_whole(
    counts: list[int], window: int, parts: int, seed: int
) -> None:
    """Every record once, from so many bins at a time; shares are the same sequence."""
    whole = _records(counts, window=window, seed=seed)
    bounds = [share(sum(counts), part, parts) for part in range(parts)]

    assert sorted(whole) == [(bin, place) for bin, count in enumerate(counts) for place in range(count)]
    assert [
        record
        for start, stop in bounds
        for record in _records(counts, window=window, seed=seed, start=start, stop=stop)
    ] == whole
    runs = list(plan_epoch(counts, shuffle=True, seed=seed, epoch=0, window=window))
    assert all(len(run.bins) <= window for run in runs)
    assert len({number for run in runs for number in run.bins}) == sum(len(set(run.bins)) for run in runs)


def test_a_window_mixes_well() -> None:
    """Neighbours in the epoch come from different bins more often than not."""
    bins = [bin for bin, _ in _records([100] * 8, window=4)]

    assert sum(a != b for a, b in itertools.pairwise(bins)) > 0.6 * len(bins)


@given(Counts, st.integers(1, 7), st.integers(1, 4), st.integers(1, 3))
def test_batches_cut_the_sequence_whatever_the_number_of_lanes(
    counts: list[int], size: int, lanes: int, window: int
) -> None:
    """Taken in turn from the lanes, batches are the whole sequence in pieces of `size`."""
    whole = _records(counts, window=window)
    expected = [whole[at : at + size] for at in range(0, len(whole), size)]
    of_lanes = []
    for lane in range(lanes):
        runs = plan_epoch(counts, shuffle=True, seed=3, epoch=0, window=window)
        of_lanes.append([[place for run in batch for place in _places(run)] for batch in cut(runs, size, lane, lanes)])

    assert [of_lanes[k % lanes][k // lanes] for k in range(len(expected))] == expected
    assert sum(map(len, of_lanes)) == len(expected)
