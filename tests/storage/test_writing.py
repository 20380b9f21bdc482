"""Writing: scatter, append, commit, abort; what a crash leaves."""

import errno
import os
import resource
import shutil
import signal
import sys
import threading
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from splitpipe import SplitDataLoader, SplitWriter, write_split_data
from splitpipe.errors import CodecError, NotADatasetError, RecordTypeError, WriterStateError
from splitpipe.storage.scatter import bins_of


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("splits", [1, 2, 7, 64, 1000])
def test_scatter_fills_bins_evenly_and_does_not_depend_on_the_rounds(splits: int, shuffle: bool) -> None:
    """Each stripe fills every bin once, and cutting the writing into rounds changes nothing."""
    whole = bins_of(0, 3000, splits, shuffle=shuffle)
    rounds = np.concatenate([bins_of(at, 100, splits, shuffle=shuffle) for at in range(0, 3000, 100)])
    counts = np.bincount(whole, minlength=splits)

    assert np.array_equal(whole, rounds)
    assert len(counts) == splits
    assert counts.max() - counts.min() <= 1


@pytest.mark.parametrize("period", [2, 3, 10, 63, 64, 65, 128])
def test_periodic_data_spreads_over_all_bins(period: int) -> None:
    """Records that recur with any period, those next to the number of bins too, reach three quarters of the bins."""
    bins = bins_of(0, 64 * 500, 64, shuffle=False)[::period]

    assert len(np.unique(bins)) >= 48
    assert np.bincount(bins, minlength=64).max() < 4 * len(bins) / 64


def test_rounds_of_writing_give_the_same_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A buffer of 200 bytes, so a round every few records, changes neither records nor order."""
    records = [os.urandom(i % 90) for i in range(500)]
    write_split_data(tmp_path / "one", records, splits=5)
    _rounds_of(monkeypatch, 200)
    write_split_data(tmp_path / "many", records, splits=5)
    one, many = SplitDataLoader(tmp_path / "one"), SplitDataLoader(tmp_path / "many")

    assert list(many) == list(one) == records
    assert list(many.iterate_binwise()) == list(one.iterate_binwise())


def test_records_without_bytes_do_not_pile_up_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each counts with what Python needs for it, so that a round of writing comes for any kind of records."""
    _rounds_of(monkeypatch, 6400)
    with SplitWriter(tmp_path, splits=2) as writer:
        for _ in range(100):
            assert not list(tmp_path.glob(".writing-*/*.bin"))
            writer.add(b"")
        for _ in range(400):
            writer.add(b"")
        assert list(tmp_path.glob(".writing-*/*.bin"))
    assert list(SplitDataLoader(tmp_path)) == [b""] * 500


def test_append_keeps_what_was_there(tmp_path: Path) -> None:
    """Two calls, one data set; the number returned is that of the call."""
    assert write_split_data(tmp_path, [b"a", b"b"]) == 2
    assert write_split_data(tmp_path, iter([b"c"])) == 1
    assert list(SplitDataLoader(tmp_path)) == [b"a", b"b", b"c"]


def test_nothing_is_visible_before_commit_and_all_after(tmp_path: Path) -> None:
    """A reader opened between two commits sees the first alone."""
    write_split_data(tmp_path, [b"old"])
    writer = SplitWriter(tmp_path)
    writer.add(b"new")

    assert list(SplitDataLoader(tmp_path)) == [b"old"]
    assert writer.commit() == 1
    assert list(SplitDataLoader(tmp_path)) == [b"old", b"new"]
    writer.add(b"newer")
    writer.close()
    assert list(SplitDataLoader(tmp_path)) == [b"old", b"new", b"newer"]


def test_an_exception_in_the_block_aborts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither records nor files of the block stay; what was there does."""
    write_split_data(tmp_path, [b"old"])
    before = sorted(tmp_path.iterdir())
    _rounds_of(monkeypatch, 1)  # so that bins are on disk when it happens

    def fill() -> None:
        with SplitWriter(tmp_path) as writer:
            writer.add(b"new")
            assert sorted(tmp_path.iterdir()) != before
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fill()
    assert sorted(tmp_path.iterdir()) == before
    assert list(SplitDataLoader(tmp_path)) == [b"old"]


def test_a_source_that_raises_writes_nothing(tmp_path: Path) -> None:
    """`write_split_data` is all or nothing."""

    def source() -> Iterator[bytes]:
        yield b"a"
        raise OSError("source broke")

    with pytest.raises(OSError, match="source broke"):
        write_split_data(tmp_path / "new", source())
    with pytest.raises(NotADatasetError, match="is empty: no record was ever committed"):
        SplitDataLoader(tmp_path / "new")


def test_start_clean_replaces_only_our_own_files(tmp_path: Path) -> None:
    """Foreign files stay, old records go; an abort keeps the old records."""
    (tmp_path / "mine.txt").write_text("keep")
    write_split_data(tmp_path, [b"old"])
    with pytest.raises(RecordTypeError):
        write_split_data(tmp_path, [b"new", "no bytes"], start_clean=True)
    assert list(SplitDataLoader(tmp_path)) == [b"old"]

    write_split_data(tmp_path, [{"new": 1}], start_clean=True, codec="pickle")

    assert list(SplitDataLoader(tmp_path, allow_pickle=True)) == [{"new": 1}]
    assert (tmp_path / "mine.txt").read_text() == "keep"
    assert len(list(tmp_path.iterdir())) == 2


def test_replaced_segments_are_ignored_even_when_not_yet_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A writer killed between its commit and the removal of the old data leaves the new data alone visible."""
    write_split_data(tmp_path, [b"old"])
    monkeypatch.setattr(SplitWriter, "_remove_replaced", lambda self: None)
    write_split_data(tmp_path, [b"new"], start_clean=True)

    assert len(list(tmp_path.iterdir())) == 2
    assert list(SplitDataLoader(tmp_path)) == [b"new"]


def test_writers_at_once_lose_nothing(tmp_path: Path) -> None:
    """Four threads, each with its own writer and several commits, into one directory."""

    def fill(name: int) -> None:
        with SplitWriter(tmp_path, splits=3) as writer:
            for i in range(20):
                writer.add(f"{name}-{i}".encode())
                if i % 7 == 0:
                    writer.commit()

    threads = [threading.Thread(target=fill, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert Counter(SplitDataLoader(tmp_path)) == Counter(f"{n}-{i}".encode() for n in range(4) for i in range(20))


def test_commits_sort_in_order_even_if_the_clock_goes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The order of the records is that of the commits."""
    write_split_data(tmp_path, [b"first"])
    monkeypatch.setattr("splitpipe.storage.catalog.time.time_ns", lambda: 1)
    write_split_data(tmp_path, [b"second"])
    write_split_data(tmp_path, [b"third"])

    assert list(SplitDataLoader(tmp_path)) == [b"first", b"second", b"third"]


def test_a_record_that_is_no_bytes_names_its_number_and_type(tmp_path: Path) -> None:
    """And the cure."""
    with pytest.raises(RecordTypeError, match=r"record 1 .* got str: .*codec='json'"):
        write_split_data(tmp_path, [b"a", "b"])
    with pytest.raises(RecordTypeError, match=r"record 0 .* cannot hold this function"):
        write_split_data(tmp_path, [lambda: 0], codec="pickle")


def test_bytes_given_for_records_is_refused(tmp_path: Path) -> None:
    """One bytes object is not a sequence of records."""
    with pytest.raises(TypeError, match="records is one bytes"):
        write_split_data(tmp_path, b"abc")


def test_buffers_are_copied(tmp_path: Path) -> None:
    """A bytearray may be reused by the caller at once."""
    buffer = bytearray(b"one")
    with SplitWriter(tmp_path) as writer:
        writer.add(buffer)
        buffer[:] = b"two"
        writer.add(memoryview(buffer))

    assert list(SplitDataLoader(tmp_path)) == [b"one", b"two"]


def test_another_codec_or_other_columns_than_the_data_has_are_refused(tmp_path: Path) -> None:
    """At once, naming what is expected and what was given."""
    write_split_data(tmp_path, [b"a"])

    with pytest.raises(CodecError, match="codec 'pickle' and codec 'bytes': write with codec='bytes'"):
        SplitWriter(tmp_path, codec="pickle")
    with pytest.raises(ValueError, match=r"has the columns \[\], and the new data has \['label'\]"):
        SplitWriter(tmp_path, columns=["label"])


@pytest.mark.parametrize("splits", [0, -1, 65537])
def test_splits_out_of_range_are_refused(tmp_path: Path, splits: int) -> None:
    """With the range."""
    with pytest.raises(ValueError, match="1 to 65536"):
        SplitWriter(tmp_path, splits)


def test_a_closed_or_aborted_writer_says_so(tmp_path: Path) -> None:
    """Instead of losing the record; close twice is fine."""
    writer = SplitWriter(tmp_path)
    writer.close()
    writer.close()
    with pytest.raises(WriterStateError, match="is closed"):
        writer.add(b"a")
    writer = SplitWriter(tmp_path)
    writer.abort()
    with pytest.raises(WriterStateError, match="is aborted"):
        writer.commit()


def test_a_full_disk_is_an_error_and_loses_nothing(tmp_path: Path) -> None:
    """A real limit on file sizes, met in the middle of a bin: an OSError, no rest of it, the earlier data as it was."""
    write_split_data(tmp_path, [b"old"])
    before = sorted(tmp_path.iterdir())

    def fill() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        try:
            write_split_data(tmp_path, [bytes(90_000)] * 4, splits=2)
        except OSError as exc:
            os._exit(exc.errno or 0)

    assert _in_child(fill) == errno.EFBIG
    assert sorted(tmp_path.iterdir()) == before
    assert list(SplitDataLoader(tmp_path)) == [b"old"]


def test_a_writer_that_failed_refuses_to_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a round of writing is never committed, should the caller swallow the error."""
    _rounds_of(monkeypatch, 1)
    writer = SplitWriter(tmp_path, splits=2)
    writer.add(b"a")
    shutil.rmtree(next(tmp_path.glob(".writing-*")))
    with pytest.raises(OSError, match="writing-"):
        writer.commit()
    with pytest.raises(WriterStateError, match="is failed"):
        writer.add(b"b")
    writer.abort()


def test_progress_shows_a_bar(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On standard error; and without tqdm there is a line that says what to install."""
    monkeypatch.setattr("tqdm.tqdm.monitor_interval", 0)  # tqdm's own thread lives as long as the process
    assert write_split_data(tmp_path, [b"a", b"b"], progress=True) == 2
    assert "2/2" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "tqdm", None)
    with pytest.raises(ImportError, match=r"pip install \"splitpipe\[progress\]\""):
        write_split_data(tmp_path, [b"a"], progress=True)


def test_foreign_folders_beside_segments_are_ignored(tmp_path: Path) -> None:
    """Whatever they are called."""
    (tmp_path / "segment-backup").mkdir()
    write_split_data(tmp_path, [b"a"])

    assert list(SplitDataLoader(tmp_path)) == [b"a"]


def test_no_records_commit_nothing(tmp_path: Path) -> None:
    """An empty source returns 0 and leaves earlier data alone."""
    write_split_data(tmp_path, [b"a"])

    assert write_split_data(tmp_path, []) == 0
    assert list(SplitDataLoader(tmp_path)) == [b"a"]


def _rounds_of(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """Let writers hand over and write to their bins whenever `size` bytes wait."""
    monkeypatch.setattr("splitpipe.storage.writer._CHUNK_BYTES", size)
    monkeypatch.setattr("splitpipe.storage.segment_writer._ROUND_BYTES", size)


def _in_child(work: Callable[[], object]) -> int:
    """Run `work` in a forked child; return its exit code, negative for the signal that ended it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # 3.12 warns of forking beside numpy's idle threads
        child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        finally:
            os._exit(99)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _kill_self_at(event_number: int) -> None:
    """From now on, SIGKILL this process just before its `event_number`-th file operation."""
    seen = 0

    def count() -> None:
        nonlocal seen
        if seen == event_number:
            os.kill(os.getpid(), signal.SIGKILL)
        seen += 1

    def hook(event: str, _: object) -> None:
        if event in ("open", "os.rename", "os.mkdir", "os.remove", "os.rmdir"):
            count()

    def counted(operation: Callable[..., object]) -> Callable[..., object]:
        def call(*args: object) -> object:
            count()
            return operation(*args)

        return call

    for name in ("write", "writev", "fsync"):  # these raise no audit event
        setattr(os, name, counted(getattr(os, name)))
    sys.addaudithook(hook)


def test_a_writer_killed_at_any_file_operation_leaves_all_or_nothing(tmp_path: Path) -> None:
    """SIGKILL before each open, write, fsync, rename and mkdir of an append: old data, or old and new, never half."""
    old, new = [b"old0", b"old1"], [b"new0", b"new1", b"new2"]
    outcomes = set[int]()
    for event_number in range(200):
        target = tmp_path / f"killed-{event_number}"
        write_split_data(target, old, splits=2)

        def append(target: Path = target, event_number: int = event_number) -> None:
            _kill_self_at(event_number)
            write_split_data(target, new, splits=2)

        code = _in_child(append)
        found = list(SplitDataLoader(target))
        assert found in (old, old + new)
        outcomes.add(len(found))
        write_split_data(target, [b"after"], splits=2)
        assert list(SplitDataLoader(target)) == [*found, b"after"]
        if code == 0:
            break
        assert code == -signal.SIGKILL

    assert code == 0, "the writer never got through"
    assert outcomes == {2, 5}
    assert event_number > 30


def test_a_bin_that_is_full_begins_a_new_segment(tmp_path: Path) -> None:
    """What was added so far is committed then, so that a crash loses little; order and number stay."""
    records = [b"%04d" % i * 100 for i in range(2000)]
    with SplitWriter(tmp_path, splits=2, max_bin_bytes=100_000) as writer:
        writer.extend(records[:1500])
        writer._hand_over()
        assert len(SplitDataLoader(tmp_path)) == 1500
        writer.extend(records[1500:])
        assert writer.commit() == 2000
    assert list(SplitDataLoader(tmp_path)) == records
    assert len(list(tmp_path.iterdir())) >= 2
    with pytest.raises(ValueError, match="max_bin_bytes is a number of bytes"):
        SplitWriter(tmp_path, max_bin_bytes=0)


def test_a_clean_start_replaces_the_old_at_the_first_of_many_segments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And none of the new ones."""
    write_split_data(tmp_path, [b"old"])
    _rounds_of(monkeypatch, 1000)
    records = [b"%04d" % i * 100 for i in range(100)]
    write_split_data(tmp_path, records, splits=2, start_clean=True, max_bin_bytes=5000)

    assert list(SplitDataLoader(tmp_path)) == records
    assert len(list(tmp_path.iterdir())) > 3


def test_durability_none_never_waits_for_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And "commit" does, for each file and directory; anything else is refused."""
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    write_split_data(tmp_path / "none", [b"a", b"b"], splits=2, durability="none")
    assert not synced
    write_split_data(tmp_path / "commit", [b"a", b"b"], splits=2)
    assert len(synced) >= 6, "two bins, index, info, the segment and its directory"
    assert list(SplitDataLoader(tmp_path / "none")) == [b"a", b"b"]
    with pytest.raises(ValueError, match='durability is "commit" or "none", and got \'always\''):
        SplitWriter(tmp_path, durability="always")


def test_few_descriptors_suffice_for_many_bins(tmp_path: Path) -> None:
    """For writing and for reading at random, whatever the number of bins."""
    records = [b"%d" % i for i in range(900)]

    def work() -> None:
        soft = len(list(Path("/proc/self/fd").iterdir())) + 24
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, soft))
        write_split_data(tmp_path, records, splits=300)
        data = SplitDataLoader(tmp_path)
        order = np.random.default_rng(0).permutation(900).tolist()
        if [data[i] for i in order] != [records[i] for i in order] or data.gather(order, threads=3) != data.gather(
            order
        ):
            os._exit(1)
        if sorted(data.iterate_binwise(shuffle=True)) != sorted(records):
            os._exit(2)

    assert _in_child(work) == 0


def test_extend_keeps_what_came_before_an_error(tmp_path: Path) -> None:
    """Of a source that raises, and of a record that does not fit, the records before are added."""

    def source() -> Iterator[bytes]:
        yield from [b"a", b"b", b"c"]
        raise ZeroDivisionError

    writer = SplitWriter(tmp_path)
    with pytest.raises(ZeroDivisionError):
        writer.extend(source())
    assert writer.commit() == 3
    writer.close()
    assert list(SplitDataLoader(tmp_path)) == [b"a", b"b", b"c"]


def test_huge_records_behind_small_ones_are_taken_few_at_a_time(tmp_path: Path) -> None:
    """So that memory stays bounded: large records are handed over one by one, not by the thousand."""
    waiting = []

    def source(writer: SplitWriter) -> Iterator[bytes]:
        for i in range(2000):
            waiting.append(i - writer._segment.records)
            yield b"x" * (10 if i < 1000 else 20_000)

    with SplitWriter(tmp_path, splits=2) as writer:
        writer.extend(source(writer))
    assert max(waiting[1300:]) * 20_000 < 4 << 20
    assert len(SplitDataLoader(tmp_path)) == 2000


def test_a_column_may_be_called_record(tmp_path: Path) -> None:
    """Names of arguments are not taken from the names that columns may have."""
    with SplitWriter(tmp_path, columns=["record", "self"]) as writer:
        writer.add(b"a", record=1, self=2)
    assert SplitDataLoader(tmp_path).columns["record"].tolist() == [1]
