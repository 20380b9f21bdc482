"""build_split_data: many processes, one order, one commit, and no work done twice."""

import errno
import logging
import multiprocessing
import os
import resource
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from splitpipe import SplitDataLoader, build_split_data, clean, write_split_data
from splitpipe.errors import (
    BuildInputError,
    ColumnError,
    NotADatasetError,
    RecordTypeError,
    StorageError,
    WorkerDiedError,
)


def _slow_first(number: int) -> bytes:
    if number % 5 == 0:
        time.sleep(0.01)
    return b"%d" % number


@pytest.mark.parametrize("workers", [0, 1, 2, 3])
def test_records_come_in_the_order_of_the_inputs(tmp_path: Path, workers: int) -> None:
    """Whatever the timing and the number of workers."""
    assert build_split_data(tmp_path, range(100), _slow_first, workers=workers, splits=4) == 100
    assert list(SplitDataLoader(tmp_path)) == [b"%d" % i for i in range(100)]


def test_what_read_fn_returns_becomes_none_one_or_many_records(tmp_path: Path) -> None:
    """None is no record, a generator many, also with columns."""

    def read(number: int) -> Any:
        if number == 0:
            return None
        if number == 1:
            return {"n": 1}, {"k": 1}
        return (({"n": number}, {"k": i}) for i in range(number))

    assert build_split_data(tmp_path, [0, 1, 3, 2], read, workers=2, codec="json", columns={"k": int}) == 6
    data = SplitDataLoader(tmp_path)
    assert [record["n"] for record in data] == [1, 3, 3, 3, 2, 2]
    assert data.columns["k"].tolist() == [1, 0, 1, 2, 0, 1]


def test_many_records_of_one_input_are_sent_in_parcels(tmp_path: Path) -> None:
    """In order, however many, and however large the next input is."""

    def read(number: int) -> Iterator[bytes]:
        for i in range(40):
            yield b"%d-%d" % (number, i) + bytes(100_000)

    assert build_split_data(tmp_path, range(4), read, workers=2, splits=2) == 160
    found = [bytes(record).rstrip(b"\0") for record in SplitDataLoader(tmp_path)]
    assert found == [b"%d-%d" % (number, i) for number in range(4) for i in range(40)]


@pytest.mark.parametrize("codec", ["pickle+zlib", "tree+zstd", "json+lz4"])
def test_workers_compress_with_the_dictionary_of_the_first_records(tmp_path: Path, codec: str) -> None:
    """And everything comes back."""

    def read(number: int) -> Any:
        return {"text": f"the quick brown fox number {number}", "numbers": list(range(number % 9))}

    build_split_data(tmp_path, range(3000), read, workers=2, codec=codec)
    data = SplitDataLoader(tmp_path, allow_pickle=True)
    assert list(data) == [read(number) for number in range(3000)]
    assert data._dataset.segments[0].encoding.compression is not None


def test_struct_takes_its_dtype_from_the_first_record_of_any_worker(tmp_path: Path) -> None:
    """And workers that were told different ones are found out."""
    build_split_data(tmp_path / "same", range(50), lambda i: np.float32(i), workers=2, codec="struct")
    assert SplitDataLoader(tmp_path / "same")[[7, 3]].tolist() == [7.0, 3.0]
    with pytest.raises(RecordTypeError, match=r"give the dtype as codec=numpy.dtype"):
        build_split_data(
            tmp_path / "other",
            range(50),
            lambda i: np.float32(i) if i // 3 % 2 else np.float64(i),  # three inputs are a turn
            workers=2,
            codec="struct",
        )


def _fails_at_seven(number: int) -> bytes:
    if number == 7:
        raise ValueError(f"no pixels in {number}")
    return b"%d" % number


@pytest.mark.parametrize("workers", [0, 2])
def test_a_failing_input_is_named_and_nothing_is_visible(tmp_path: Path, workers: int) -> None:
    """With its number, itself, what was raised and where."""
    with pytest.raises(BuildInputError, match=r"input 7, 'seven', failed: KeyError: 'x'\. Nothing was") as caught:
        build_split_data(tmp_path, [*range(7), "seven", 8], lambda i: {}["x"] if i == "seven" else b"", workers=workers)
    assert caught.value.input == 7
    assert isinstance(caught.value.__cause__, KeyError)
    assert not list(tmp_path.iterdir())


def test_failing_inputs_can_be_left_out_or_handled(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Logged, or given to a function, which may raise."""
    with caplog.at_level(logging.WARNING, "splitpipe"):
        assert build_split_data(tmp_path / "skip", range(10), _fails_at_seven, workers=2, on_error="skip") == 9
    assert "input 7, 7, is left out: ValueError: no pixels in 7" in caplog.text
    assert list(SplitDataLoader(tmp_path / "skip")) == [b"%d" % i for i in range(10) if i != 7]

    seen: list[Any] = []
    build_split_data(
        tmp_path / "call", range(10), _fails_at_seven, workers=1, on_error=lambda *failed: seen.append(failed)
    )
    ((source, error),) = seen
    assert source == 7
    assert isinstance(error, ValueError)
    with pytest.raises(ValueError, match='"raise", "skip" or a function'):
        build_split_data(tmp_path, [1], _fails_at_seven, on_error="ignore")  # type: ignore[arg-type]


def test_a_record_that_does_not_fit_is_a_failing_input(tmp_path: Path) -> None:
    """Of the wrong type for the codec, or without its columns; a value that does not fit its column too."""
    with pytest.raises(BuildInputError, match="input 1, 1, failed: RecordTypeError: codec 'bytes'"):
        build_split_data(tmp_path, range(3), lambda i: "text" if i == 1 else b"", workers=1)
    with pytest.raises(BuildInputError, match=r"returns \(record, \{column: value\}\), and returned a bytes"):
        build_split_data(tmp_path, range(3), lambda i: b"", workers=1, columns=["x"])
    with pytest.raises(BuildInputError, match=r"returned the columns \['y'\], and the build has \['x'\]"):
        build_split_data(tmp_path, range(3), lambda i: (b"", {"y": 1}), workers=1, columns=["x"])
    with pytest.raises(ColumnError, match="column 'x' holds <i8, and got 'a'"):
        build_split_data(tmp_path, range(3), lambda i: (b"", {"x": i if i < 2 else "a"}), workers=1, columns=["x"])


def test_a_killed_worker_fails_the_build_and_nothing_is_visible(tmp_path: Path) -> None:
    """Named as such; the data from before stays."""
    write_split_data(tmp_path, [b"old"])

    def read(number: int) -> bytes:
        if number == 30:
            os.kill(os.getpid(), signal.SIGKILL)
        return b"new"

    with pytest.raises(WorkerDiedError, match="SIGKILL"):
        build_split_data(tmp_path, range(100), read, workers=2)
    assert list(SplitDataLoader(tmp_path)) == [b"old"]
    assert not list(tmp_path.glob(".writing-*"))


def test_a_build_appends_and_fits_what_is_there(tmp_path: Path) -> None:
    """With its codec and columns; start_clean replaces it instead."""
    write_split_data(tmp_path, [({"a": 1}, {"k": 1})], codec="json", columns=["k"])
    build_split_data(tmp_path, [2, 3], lambda i: ({"a": i}, {"k": i}), workers=0, codec="json", columns=["k"])
    assert [record["a"] for record in SplitDataLoader(tmp_path)] == [1, 2, 3]
    with pytest.raises(ColumnError, match=r"has the columns \['k'\]"):
        build_split_data(tmp_path, [2], lambda i: {"a": i}, workers=0, codec="json")
    build_split_data(tmp_path, [9], lambda i: b"new", workers=0, start_clean=True)
    assert list(SplitDataLoader(tmp_path)) == [b"new"]
    assert len(list(tmp_path.iterdir())) == 1


def test_no_inputs_or_no_records_commit_nothing(tmp_path: Path) -> None:
    """And leave no file."""
    assert build_split_data(tmp_path, [], _slow_first) == 0
    assert build_split_data(tmp_path, range(5), lambda i: None, workers=1) == 0
    assert not list(tmp_path.iterdir())


def test_a_bar_counts_inputs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With rate and time left, as tqdm shows them."""
    monkeypatch.setattr("tqdm.tqdm.monitor_interval", 0)
    build_split_data(tmp_path, range(40), _slow_first, workers=1, progress=True)
    assert "40/40" in capsys.readouterr().err


def test_a_build_works_from_a_daemonic_process(tmp_path: Path) -> None:
    """Which may have no children of multiprocessing's own."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        process = multiprocessing.get_context("fork").Process(
            target=build_split_data, args=(tmp_path, range(20), _slow_first), kwargs={"workers": 2}, daemon=True
        )
        process.start()
    process.join(30)
    assert process.exitcode == 0
    assert len(SplitDataLoader(tmp_path)) == 20


class _Counted:
    """Reads, and leaves a mark for each time it read an input."""

    def __init__(self, marks: Path, fail_at: int | None = None) -> None:
        self.marks = marks
        self.fail_at = fail_at

    def __call__(self, number: int) -> Any:
        with (self.marks / str(number)).open("a") as mark:
            mark.write("x")
        if number == self.fail_at:
            raise RuntimeError("the disk of the camera")
        return {"n": number}, {"k": None if number < 30 or number % 7 == 0 else number, "s": f"é{number}"}

    def times(self) -> list[int]:
        return [len((self.marks / str(number)).read_text()) for number in range(100)]


@pytest.fixture
def marks(tmp_path: Path) -> Path:
    """Where `_Counted` leaves its marks."""
    (tmp_path / "marks").mkdir()
    return tmp_path / "marks"


COLUMNS = {"k": int, "s": str}


@pytest.mark.parametrize("codec", ["json", "tree+zlib"])
@pytest.mark.parametrize("columns", [COLUMNS, ["k", "s"]])
def test_resume_goes_on_where_a_failed_build_stopped(
    tmp_path: Path, marks: Path, monkeypatch: pytest.MonkeyPatch, codec: str, columns: Any
) -> None:
    """Finished inputs are not read again; records, order and columns are those of a build that never failed."""
    monkeypatch.setattr("splitpipe.build.build._CHECKPOINT_S", 0)
    options: dict[str, Any] = {"codec": codec, "columns": columns, "splits": 3}
    with pytest.raises(BuildInputError, match="build again with resume=True"):
        build_split_data(tmp_path / "data", range(100), _Counted(marks, 60), workers=2, **options)
    with pytest.raises(NotADatasetError):
        SplitDataLoader(tmp_path / "data")
    counted = _Counted(marks)
    assert build_split_data(tmp_path / "data", range(100), counted, workers=1, resume=True, **options) == 100

    data = SplitDataLoader(tmp_path / "data")
    assert [record["n"] for record in data] == list(range(100))
    assert data.columns["s"].tolist() == [f"é{i}" for i in range(100)]
    expected = [None if i < 30 or i % 7 == 0 else i for i in range(100)]
    assert data.columns["k"].tolist() == expected
    assert sorted(record["n"] for record in data.iterate_binwise()) == list(range(100))
    assert set(counted.times()[:48]) == {1}, "what the main process had taken before the failure is not read again"
    assert not list((tmp_path / "data").glob(".writing-*"))
    names = {path.name.split(".")[0] for path in (tmp_path / "data").glob("segment-*/*")}
    assert not {"journal", "columns-0"} & names


def test_resume_of_a_build_that_was_committed_does_nothing(tmp_path: Path, marks: Path) -> None:
    """So that a script can always pass resume=True; without, the records are appended again."""
    options: dict[str, Any] = {"codec": "json", "columns": COLUMNS, "workers": 0}
    for resume in (True, True, True):
        counted = _Counted(marks)
        assert build_split_data(tmp_path / "data", range(100), counted, resume=resume, **options) == 100
    assert set(counted.times()) == {1}
    assert len(SplitDataLoader(tmp_path / "data")) == 100
    assert build_split_data(tmp_path / "data", range(100), counted, **options) == 100
    assert len(SplitDataLoader(tmp_path / "data")) == 200


def test_resume_of_other_inputs_or_settings_is_refused(
    tmp_path: Path, marks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the cure; and without anything to go on from, a build begins."""
    monkeypatch.setattr("splitpipe.build.build._CHECKPOINT_S", 0)
    options: dict[str, Any] = {"codec": "json", "columns": COLUMNS, "workers": 0}
    with pytest.raises(BuildInputError):
        build_split_data(tmp_path / "data", range(100), _Counted(marks, 60), **options)
    for inputs, changed in ((range(99), {}), (range(100), {"splits": 5})):
        with pytest.raises(StorageError, match="of other inputs, splits, codec or columns: build with those"):
            build_split_data(tmp_path / "data", inputs, _Counted(marks), resume=True, **options, **changed)
    assert clean(tmp_path / "data", force=True).removed
    assert build_split_data(tmp_path / "data", range(100), _Counted(marks), resume=True, **options) == 100


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


def test_a_full_disk_fails_the_build_and_resume_goes_on_when_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real limit on file sizes: an OSError, nothing visible, and what was kept is of use."""
    monkeypatch.setattr("splitpipe.build.build._CHECKPOINT_S", 0)

    def build(*, resume: bool) -> int:
        return build_split_data(tmp_path, range(20), lambda i: bytes(20_000), workers=0, splits=2, resume=resume)

    def fill() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, 150_000))
        try:
            build(resume=False)
        except OSError as exc:
            os._exit(exc.errno or 0)

    assert _in_child(fill) == errno.EFBIG
    with pytest.raises(NotADatasetError):
        SplitDataLoader(tmp_path)
    assert build(resume=True) == 20
    assert list(SplitDataLoader(tmp_path)) == [bytes(20_000)] * 20


def _kill_self_at(event_number: int) -> None:
    seen = 0

    def count() -> None:
        nonlocal seen
        if seen == event_number:
            os.kill(os.getpid(), signal.SIGKILL)
        seen += 1

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if event in ("os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.truncate") or (
            event == "open" and isinstance(args[0], str | os.PathLike) and ".writing-" in os.fspath(args[0])
        ):
            count()

    def counted(operation: Callable[..., object]) -> Callable[..., object]:
        def call(*args: object) -> object:
            count()
            return operation(*args)

        return call

    for name in ("write", "writev", "fsync"):
        setattr(os, name, counted(getattr(os, name)))
    sys.addaudithook(hook)


@pytest.mark.timeout(300)
def test_a_build_killed_at_any_file_operation_is_resumed_to_the_same_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGKILL before each write, fsync, open, rename and removal: nothing visible, and resume gives all of it."""
    monkeypatch.setattr("splitpipe.build.build._CHECKPOINT_S", 0)
    monkeypatch.setattr("splitpipe.build.build._MAX_TURN", 2)

    def read(number: int) -> Any:
        return b"%d" % number, {"k": number}

    def build(target: Path, *, resume: bool) -> int:
        return build_split_data(
            target, range(4), read, workers=0, splits=2, columns={"k": int}, resume=resume, durability="commit"
        )

    expected = [b"%d" % number for number in range(4)]
    visible = set[bool]()
    for event_number in range(1000):
        target = tmp_path / str(event_number)

        def killed(target: Path = target, event_number: int = event_number) -> None:
            _kill_self_at(event_number)
            build(target, resume=False)

        code = _in_child(killed)
        try:
            found = list(SplitDataLoader(target))
        except NotADatasetError:
            found = []
        assert found in ([], expected)
        visible.add(bool(found))
        if not found:
            assert build(target, resume=True) == 4
            data = SplitDataLoader(target)
            assert list(data) == expected
            assert data.columns["k"].tolist() == [0, 1, 2, 3]
            assert sorted(data.iterate_binwise()) == expected
        if code == 0:
            break
        assert code == -signal.SIGKILL
    assert code == 0
    assert visible == {True, False}
    assert event_number > 60
