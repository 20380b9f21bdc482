"""verify, salvage, clean, merge, compact: nothing is changed that is whole, and what is lost is named exactly."""

import errno
import os
import resource
import shutil
import signal
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splitpipe import (
    SplitDataLoader,
    SplitWriter,
    add_column,
    clean,
    compact,
    merge,
    salvage,
    verify,
    write_split_data,
)
from splitpipe.errors import CodecError, ColumnError, CorruptDataError, NotADatasetError, SplitpipeError, StorageError


def _files(target: Path) -> list[Path]:
    return sorted(path for path in target.rglob("*") if path.is_file())


def _content(target: Path) -> dict[str, bytes]:
    return {str(path.relative_to(target)): path.read_bytes() for path in _files(target)}


def _all(data: SplitDataLoader) -> list[Any]:
    return [(record, *(column[i] for column in data.columns.values())) for i, record in enumerate(data)]


@pytest.fixture
def two(tmp_path: Path) -> Path:
    """Two segments of a compressed codec, with columns, one of them added later."""
    for first in (0, 5):
        rows = [
            ({"n": n, "text": "word " * n}, {"k": None if n == 3 else n, "s": f"é{n}"}) for n in range(first, first + 5)
        ]
        write_split_data(tmp_path / "two", rows, splits=3, codec="json+zlib", columns={"k": int, "s": str})
    add_column(tmp_path / "two", "later", [n * 0.5 for n in range(10)])
    return tmp_path / "two"


def test_verify_finds_nothing_where_nothing_is_wrong(two: Path) -> None:
    """And says how much it looked at."""
    report = verify(two, threads=2)

    assert (report.segments, report.records, report.problems) == (2, 10, ())
    assert report.bytes == sum(path.stat().st_size for path in two.glob("*/*.bin"))


def test_verify_finds_every_flipped_bit_of_every_file(two: Path) -> None:
    """All of them, one at a time (one bit of each byte); the file is named. Bits that no reader uses count too."""
    segment = sorted(two.iterdir())[1]
    for path in _files(segment):
        whole = bytearray(path.read_bytes())
        for at in range(0, len(whole), 4 if path.suffix == ".npy" else 1):  # most of a short .npy is padding
            whole[at] ^= 1 << at % 8
            path.write_bytes(whole)
            problems = verify(two, threads=1).problems
            named = {Path(problem.path).parent.name for problem in problems} | {
                Path(problem.path).name for problem in problems
            }
            harmless = path.suffix == ".bin" and _in_bin_info(whole, at)
            assert segment.name in named or harmless, f"{path.name}, byte {at}"
            whole[at] ^= 1 << at % 8
        path.write_bytes(whole)
    assert not verify(two).problems


def _in_bin_info(content: bytearray, at: int) -> bool:
    """Return whether byte `at` of a bin is of the info repeated there, which only salvage needs."""
    length = int.from_bytes(content[-36:-32], "little")
    return len(content) - 64 - length <= at < len(content) - 64


def test_verify_names_damaged_records_by_number_and_offset(two: Path) -> None:
    """As the reader would, over segments."""
    path = sorted(two.glob("*/00001.bin"))[1]
    content = bytearray(path.read_bytes())
    content[64] ^= 255
    path.write_bytes(content)
    (problem,) = verify(two).problems

    assert problem.path == str(path)
    assert problem.offset == 64
    assert problem.record is not None
    with pytest.raises(CorruptDataError, match=f"record {problem.record} is damaged"):
        SplitDataLoader(two)[problem.record]
    assert "splitpipe salvage" in problem.text


def test_a_lost_index_is_built_again_in_place(two: Path) -> None:
    """From the bins and the copy of the info; what is read is the same, byte for byte."""
    before, content = _all(SplitDataLoader(two)), _content(two)
    for path in two.glob("*/index"):
        path.unlink()
    with pytest.raises(CorruptDataError, match=r"index: a file of a committed segment is missing.*splitpipe salvage"):
        SplitDataLoader(two)
    report = salvage(two)

    assert (report.saved, report.lost, report.unknown) == (10, (), ())
    assert len(report.notes) == 2
    assert _all(SplitDataLoader(two)) == before
    assert _content(two) == content
    assert salvage(two).notes == ()


def test_without_index_and_info_the_bins_suffice(tmp_path: Path) -> None:
    """For any codec that needs no dictionary, columns included."""
    rows = [(np.arange(n), {"k": n, "s": "x" * n}) for n in range(20)]
    write_split_data(tmp_path, rows, splits=30, codec="tree", columns=["k", "s"])
    for name in ("index", "info"):
        next(tmp_path.glob(f"*/{name}")).unlink()

    assert salvage(tmp_path).saved == 20
    data = SplitDataLoader(tmp_path)
    assert [record.tolist() for record in data] == [list(range(n)) for n in range(20)]
    assert data.columns["s"].tolist() == ["x" * n for n in range(20)]


def test_records_that_are_gone_are_named_and_the_others_saved(two: Path, tmp_path: Path) -> None:
    """A bin is missing, a record is damaged, an index is lost: in place is refused, elsewhere is all that is left."""
    before = _all(SplitDataLoader(two))
    first, second = sorted(two.iterdir())
    (first / "00000.bin").unlink()
    (second / "index").write_bytes(b"")
    path = second / "00002.bin"
    content = bytearray(path.read_bytes())
    content[64] ^= 1
    path.write_bytes(content)
    with pytest.raises(StorageError, match=r"records are gone: .*Save the others with `splitpipe salvage"):
        salvage(two)
    damaged = _content(two)
    report = salvage(two, tmp_path / "saved")

    lost = [number for begin, end in report.lost for number in range(begin, end + 1)]
    assert _all(SplitDataLoader(tmp_path / "saved")) == [row for i, row in enumerate(before) if i not in lost]
    assert report.saved == 10 - len(lost)
    assert 2 <= len(lost) <= 4
    assert _content(two) == damaged
    assert not verify(tmp_path / "saved").problems
    with pytest.raises(StorageError, match="is not empty"):
        salvage(two, tmp_path / "saved")


def test_a_column_that_is_lost_is_named_and_the_records_saved(two: Path, tmp_path: Path) -> None:
    """With the other columns."""
    next(two.glob("*/column-s.text.npy")).write_bytes(b"")
    report = salvage(two, tmp_path / "saved")

    assert "column 's' could not be saved" in report.notes
    saved = SplitDataLoader(tmp_path / "saved")
    assert list(saved) == list(SplitDataLoader(two))
    assert list(saved.columns) == ["k", "later"]
    assert saved.columns["later"].tolist() == [n * 0.5 for n in range(10)]


@settings(deadline=None, max_examples=150)
@given(
    spots=st.lists(st.tuples(st.integers(0, 10**9), st.integers(0, 10**9), st.integers(1, 255)), min_size=1, max_size=6)
)
def test_whatever_is_damaged_salvage_gives_committed_records_in_order(
    spots: list[tuple[int, int, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Any bytes anywhere: never other bytes; what it says is gone, and what it saved, are together all of them."""
    base = tmp_path_factory.getbasetemp() / "salvage-base"
    records = [os.urandom(n % 13) + b"%d" % n for n in range(40)]
    if not base.exists():
        write_split_data(base, records[:25], splits=3)
        write_split_data(base, records[25:], splits=2)
    records = list(SplitDataLoader(base))
    target = tmp_path_factory.mktemp("salvage")
    shutil.copytree(base, target / "damaged")
    files = _files(target / "damaged")
    for file, at, change in spots:
        path = files[file % len(files)]
        content = bytearray(path.read_bytes())
        content[at % len(content)] ^= change
        path.write_bytes(content)
    report = salvage(target / "damaged", target / "saved")
    saved = list(SplitDataLoader(target / "saved")) if report.saved else []

    if not report.unknown:
        lost = {number for begin, end in report.lost for number in range(begin, end + 1)}
        assert saved == [record for number, record in enumerate(records) if number not in lost]
    rest = iter(records)
    assert all(record in rest for record in saved)  # in the order in which they were
    shutil.rmtree(target)


def _in_child(work: Callable[[], object]) -> int:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        finally:
            os._exit(99)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _age(path: Path) -> None:
    """Make a directory look as if nothing had happened in it for an hour."""
    os.utime(path, (time.time() - 3600,) * 2)


def test_clean_removes_what_the_dead_left_and_nothing_of_the_living(two: Path) -> None:
    """A killed writer's files go; those of a writer that lives, in this process or another, stay, however old."""
    before = _content(two)

    def killed() -> None:
        with SplitWriter(two, codec="json+zlib", columns=["k", "s", "later"]) as writer:
            writer.add({"n": 1}, k=1, s="", later=0.5)
            writer._hand_over()
            writer._segment.flush()
            os.kill(os.getpid(), signal.SIGKILL)

    assert _in_child(killed) == -signal.SIGKILL
    (dead,) = two.glob(".writing-*")
    assert clean(two).kept == (str(dead),), "it began less than a minute ago"
    _age(dead)
    assert clean(two, dry_run=True).removed == (str(dead),)
    with SplitWriter(two, codec="json+zlib", columns=["k", "s", "later"]) as writer:
        writer.add({"n": 1}, k=1, s="", later=0.5)
        writer._hand_over()
        writer._segment.flush()
        _age(writer._segment.work)
        report = clean(two)
        assert report.removed == (str(dead),)
        assert report.kept == (str(writer._segment.work),)
        assert report.bytes > 0
        writer.abort()
    assert _content(two) == before
    with pytest.raises(NotADatasetError, match="no such directory"):
        clean(two / "nothing")


def test_clean_removes_segments_that_were_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever replaced them was killed before it could."""
    write_split_data(tmp_path, [b"old"])
    monkeypatch.setattr(SplitWriter, "_remove_replaced", lambda self: None)
    write_split_data(tmp_path, [b"new"], start_clean=True)
    assert len(list(tmp_path.iterdir())) == 2

    assert len(clean(tmp_path).removed) == 1
    assert list(SplitDataLoader(tmp_path)) == [b"new"]


def test_merge_appends_by_links_and_leaves_the_sources(two: Path, tmp_path: Path) -> None:
    """Called again, it adds nothing; the target may be new, and a source may go afterwards."""
    before = _content(two)
    expected = _all(SplitDataLoader(two))
    assert merge(tmp_path / "target", two) == 10
    assert merge(tmp_path / "target", two) == 0
    assert _content(two) == before
    index = next((tmp_path / "target").glob("*/index"))
    assert index.stat().st_nlink == 2
    shutil.rmtree(two)

    assert _all(SplitDataLoader(tmp_path / "target")) == expected
    assert not verify(tmp_path / "target").problems


def test_merge_knows_the_records_of_compacted_segments(two: Path, tmp_path: Path) -> None:
    """Whichever side was compacted; where only some of them are there, it says so."""
    expected = _all(SplitDataLoader(two))
    merge(tmp_path / "target", two)
    compact(tmp_path / "target")
    assert merge(tmp_path / "target", two) == 0
    merge(tmp_path / "plain", two)
    compact(two)
    assert merge(tmp_path / "plain", two) == 0
    assert merge(tmp_path / "target", two) == 0
    assert _all(SplitDataLoader(tmp_path / "target")) == _all(SplitDataLoader(tmp_path / "plain")) == expected
    shutil.rmtree(sorted((tmp_path / "plain").iterdir())[0])
    with pytest.raises(StorageError, match="of which some are in the target and some are not"):
        merge(tmp_path / "plain", two)


def test_merge_refuses_what_does_not_fit_before_it_touches_anything(two: Path, tmp_path: Path) -> None:
    """Another codec, other columns, no data set."""
    write_split_data(tmp_path / "bytes", [b"a"])
    write_split_data(tmp_path / "plain", [{"n": 1}], codec="json+zlib")
    for source, error in (("bytes", CodecError), ("plain", ColumnError), ("nothing", NotADatasetError)):
        with pytest.raises(error):
            merge(tmp_path / "target", two, tmp_path / source)
    assert not (tmp_path / "target").exists()


def test_compact_makes_one_segment_of_the_same_records(two: Path) -> None:
    """Order and columns too; what is appended meanwhile comes behind."""
    before = _all(SplitDataLoader(two))
    assert compact(two) == 10
    assert len(list(two.iterdir())) == 1
    assert _all(SplitDataLoader(two)) == before
    assert not verify(two).problems
    write_split_data(
        two, [({"n": 10}, {"k": 1, "s": "", "later": 1.0})], codec="json+zlib", columns=["k", "s", "later"]
    )
    assert compact(two, splits=1) == 11
    assert [row[0]["n"] for row in _all(SplitDataLoader(two))] == list(range(11))
    with pytest.raises(ValueError, match="1 to 65536"):
        compact(two, splits=0)


def test_compact_of_damaged_data_changes_nothing(two: Path) -> None:
    """And names the record."""
    path = next(two.glob("*/00001.bin"))
    content = bytearray(path.read_bytes())
    content[64] ^= 1
    path.write_bytes(content)
    before = _content(two)
    with pytest.raises(CorruptDataError, match="record"):
        compact(two)
    assert _content(two) == before


def _count_operations(at: int) -> None:
    """From now on, SIGKILL this process just before its operation number `at` that changes a file or a directory."""
    import sys

    seen = 0

    def count() -> None:
        nonlocal seen
        if seen == at:
            os.kill(os.getpid(), signal.SIGKILL)
        seen += 1

    def hook(event: str, _: object) -> None:
        if event in ("os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.link", "os.truncate"):
            count()

    def counted(operation: Callable[..., object]) -> Callable[..., object]:
        def call(*args: object) -> object:
            count()
            return operation(*args)

        return call

    for name in ("write", "writev", "fsync"):
        setattr(os, name, counted(getattr(os, name)))
    sys.addaudithook(hook)


def _rewrite(target: Path) -> None:
    rows = [({"n": 0}, {"k": 0, "s": "", "later": 0.0})]
    write_split_data(target, rows, codec="json+zlib", columns=["k", "s", "later"], start_clean=True)


def _salvage_index(target: Path) -> None:
    next(target.glob("*/index")).unlink()
    salvage(target)


@pytest.mark.parametrize(
    "change",
    [
        lambda target: compact(target),
        lambda target: merge(target, target.parent / "other"),
        lambda target: add_column(target, "new", range(10)),
        _rewrite,
        _salvage_index,
    ],
    ids=["compact", "merge", "add_column", "start_clean", "salvage"],
)
def test_care_killed_at_any_operation_leaves_the_old_or_the_new(
    two: Path, tmp_path: Path, change: Callable[[Path], Any]
) -> None:
    """SIGKILL before each write, fsync, rename, link and removal; done again, it is done."""
    old = _all(SplitDataLoader(two))
    other = tmp_path / "kills" / "other"
    rows = [({"n": 77}, {"k": 7, "s": "é", "later": 1.0})]
    write_split_data(other, rows, codec="json+zlib", columns={"k": int, "s": str, "later": float})
    done = tmp_path / "kills" / "done"
    shutil.copytree(two, done)
    change(done)
    new = _all(SplitDataLoader(done))
    for at in range(400):
        target = tmp_path / "kills" / f"at-{at}"
        shutil.copytree(two, target)

        def killed(target: Path = target, at: int = at) -> None:
            _count_operations(at)
            change(target)

        code = _in_child(killed)
        try:
            assert _all(SplitDataLoader(target)) in (old, new)
        except CorruptDataError:
            assert change is _salvage_index
        if code == 0:
            break
        assert code == -signal.SIGKILL
        try:
            change(target)
        except ColumnError:
            assert "new" in SplitDataLoader(target).columns
        assert _all(SplitDataLoader(target)) == new
        assert not verify(target).problems
        shutil.rmtree(target)
    assert code == 0
    assert at > 3


@pytest.mark.parametrize(
    "change",
    [
        compact,
        lambda target: add_column(target, "new", ["x" * 3000] * 10),
        lambda target: salvage(target, target / "new"),
    ],
    ids=["compact", "add_column", "salvage"],
)
def test_a_full_disk_leaves_the_data_as_it_was(two: Path, change: Callable[[Path], Any]) -> None:
    """A real limit on file sizes."""
    before = _all(SplitDataLoader(two))

    def fill() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (200, 200))
        try:
            change(two)
        except OSError as exc:
            os._exit(exc.errno or 0)

    assert _in_child(fill) == errno.EFBIG
    assert _all(SplitDataLoader(two)) == before
    assert not verify(two).problems
    assert not list(two.rglob(".writing-*"))


def test_care_of_no_data_set_is_refused(tmp_path: Path) -> None:
    """With what to do."""
    for care in (verify, salvage, compact):
        with pytest.raises(NotADatasetError, match=r"write one with splitpipe\.write_split_data"):
            care(tmp_path / "nothing")
    assert issubclass(NotADatasetError, SplitpipeError)
