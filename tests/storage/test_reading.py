"""Reading back: by number, by slice, by list, in order, bin by bin."""

import os
import pickle
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from splitpipe import SplitDataLoader, SplitWriter, write_split_data
from splitpipe.errors import PickleRefusedError


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(st.lists(st.binary(max_size=300), min_size=1, max_size=80), st.integers(1, 9), st.booleans())
def test_records_come_back_as_written(
    tmp_path_factory: pytest.TempPathFactory, records: list[bytes], splits: int, shuffle: bool
) -> None:
    """Whatever the records and bins: by number, as a whole, and as a multiset bin by bin."""
    target = tmp_path_factory.mktemp("data")
    write_split_data(target, records, splits, shuffle=shuffle)

    data = SplitDataLoader(target)

    assert [data[i] for i in range(len(data))] == records
    assert list(data) == records
    assert data.gather(range(len(records))) == records
    assert sorted(data.iterate_binwise(shuffle=True)) == sorted(records)


def test_every_slice_is_a_view_of_what_a_list_gives(small: Path, records: list[bytes]) -> None:
    """All starts, stops and steps, and slices of slices, agree with a list's."""
    data, records = SplitDataLoader(small)[:7], records[:7]
    marks = [None, *range(-9, 10)]
    for start in marks:
        for stop in marks:
            for step in (None, 1, 2, 3, -1, -2, -9):
                view = data[start:stop:step]

                assert list(view) == records[start:stop:step]
                assert list(view[1:][::-1]) == records[start:stop:step][1:][::-1]


def test_a_view_is_a_sequence_with_its_own_columns(small: Path, records: list[bytes]) -> None:
    """Length, negative numbers, lists of numbers and columns are those of the records in view."""
    view = SplitDataLoader(small)[20:4:-3]

    assert len(view) == len(records[20:4:-3])
    assert view[-1] == records[20:4:-3][-1]
    assert view[[2, 0]] == [records[20:4:-3][2], records[20:4:-3][0]]
    assert view.columns["size"].tolist() == [len(record) for record in records[20:4:-3]]
    with pytest.raises(IndexError, match="no record 6: there are 6"):
        view[6]


def test_lists_and_arrays_of_numbers_come_in_the_order_asked(small: Path, records: list[bytes]) -> None:
    """Any order, repeats and negative numbers; lists, tuples and arrays alike."""
    data, ids = SplitDataLoader(small), [5, 1, -1, 9, 5]
    expected = [records[i] for i in ids]

    assert data[ids] == data[tuple(ids)] == data[np.array(ids)] == data.gather(ids) == expected
    assert data[[]] == []
    assert data[np.int32(3)] == records[3]


@pytest.mark.parametrize("index", [26, -27, 10**30])
def test_a_number_out_of_range_names_itself_and_the_length(small: Path, index: int) -> None:
    """Like a list's IndexError, with the numbers in it."""
    with pytest.raises(IndexError, match=f"no record {index}: there are 26, numbered 0 to 25"):
        SplitDataLoader(small)[index]


@pytest.mark.parametrize("ids", [[0, 26], [-27], [0.5], [[1], [2]], ["a"]])
def test_a_list_with_a_bad_number_is_an_index_error(small: Path, ids: list[object]) -> None:
    """No silent truncation of floats, no wrap-around."""
    with pytest.raises(IndexError, match=r"no record|one-dimensional sequence of integers"):
        SplitDataLoader(small).gather(ids)


@pytest.mark.parametrize("key", ["3", 2.0, None, {}])
def test_a_key_that_is_no_number_is_a_type_error(small: Path, key: object) -> None:
    """The message says what an index may be."""
    with pytest.raises(TypeError, match="the index is an int, a slice, or a list of ints"):
        SplitDataLoader(small)[key]  # type: ignore[call-overload]


def test_many_segments_read_as_one_sequence(tmp_path: Path) -> None:
    """Appends and several commits of one writer number on."""
    write_split_data(tmp_path, [b"a", b"b"], splits=3)
    with SplitWriter(tmp_path, splits=2) as writer:
        for record in (b"c", b"d", b"e"):
            writer.add(record)
            writer.commit()
    data = SplitDataLoader(tmp_path)

    assert list(data) == [b"a", b"b", b"c", b"d", b"e"]
    assert [data[i] for i in range(5)] == list(data)
    assert data[[4, 0, 2, 0]] == [b"e", b"a", b"c", b"a"]
    assert sorted(data.iterate_binwise(shuffle=True)) == list(data)


def test_bins_are_read_in_stored_order_without_shuffle(small: Path, records: list[bytes]) -> None:
    """Every record once, and twice the same order."""
    data = SplitDataLoader(small)

    assert sorted(data.iterate_binwise()) == sorted(records)
    assert list(data.iterate_binwise()) == list(data.iterate_binwise())


def test_exact_shuffled_order_for_one_seed_is_this_literal(tmp_path: Path) -> None:
    """Seed 7, epoch 0, eight records in two bins: a change changes everyone's runs, so it must be meant."""
    write_split_data(tmp_path, [b"0", b"1", b"2", b"3", b"4", b"5", b"6", b"7"], splits=2)

    assert b"".join(SplitDataLoader(tmp_path).iterate_binwise(shuffle=True, seed=7, epoch=0)) == LITERAL
    assert b"".join(SplitDataLoader(tmp_path).iterate_binwise(shuffle=True, seed=7, epoch=1)) == LITERAL_NEXT


LITERAL = b"26154703"
LITERAL_NEXT = b"03746512"


def test_shuffle_depends_on_seed_and_epoch_alone(small: Path) -> None:
    """The same pair gives the same order from any object; each further pass of one object is the next epoch."""
    data = SplitDataLoader(small)
    passes = [list(data.iterate_binwise(shuffle=True, seed=1)) for _ in range(3)]

    assert passes == [list(SplitDataLoader(small).iterate_binwise(shuffle=True, seed=1, epoch=e)) for e in range(3)]
    assert passes[0] != passes[1] != passes[2] != passes[0]
    assert passes[0] != list(SplitDataLoader(small).iterate_binwise(shuffle=True, seed=2))


def test_negative_seed_or_epoch_is_refused(small: Path) -> None:
    """Before any record is read."""
    with pytest.raises(ValueError, match="count from 0, and got seed=-1"):
        SplitDataLoader(small).iterate_binwise(shuffle=True, seed=-1)


def test_a_loader_pickles_small_and_reopens(small: Path, records: list[bytes]) -> None:
    """Views too; and the copy shows the same commit even after an append."""
    data = SplitDataLoader(small)
    packed, packed_view = pickle.dumps(data), pickle.dumps(data[3:9])
    write_split_data(small, [(b"later", {"size": 5, "name": "x"})], columns={"size": int, "name": str})

    assert len(packed) < 600
    assert list(pickle.loads(packed)) == records
    assert list(pickle.loads(packed_view)) == records[3:9]
    assert len(SplitDataLoader(small)) == 27


def test_threads_and_forked_children_read_the_same(small: Path, records: list[bytes]) -> None:
    """One object used from four threads, and by a child made after it was opened."""
    data, found = SplitDataLoader(small), list[list[bytes]]()
    threads = [threading.Thread(target=lambda: found.append([data[i] for i in range(26)])) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    child = os.fork()
    if child == 0:
        os._exit(0 if list(data) == records else 1)

    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert found == [records] * 4


def test_pickled_records_are_refused_until_trusted(tmp_path: Path) -> None:
    """The codec `pickle` round-trips any object, and opens only with allow_pickle=True."""
    rows = [{"x": np.arange(3)}, ("a", 1), None]
    write_split_data(tmp_path, rows, codec="pickle")

    with pytest.raises(PickleRefusedError, match="allow_pickle=True"):
        SplitDataLoader(tmp_path)
    data = SplitDataLoader(tmp_path, allow_pickle=True)
    assert list(data[1:]) == rows[1:]
    assert data[0]["x"].tolist() == [0, 1, 2]
    assert len(list(data.iterate_binwise(shuffle=True))) == 3


@pytest.mark.skipif(sys.version_info < (3, 13), reason="before 3.13 each map of Python keeps a descriptor")
def test_no_file_stays_open_while_reading(small: Path) -> None:
    """Maps need no descriptor, so a loader of any number of bins costs none."""
    before = len(list(Path("/proc/self/fd").iterdir()))
    data = SplitDataLoader(small)
    list(data)

    assert len(list(Path("/proc/self/fd").iterdir())) == before
    data.close()
