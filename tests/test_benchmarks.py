"""The benchmarks run from the command line, check what they read, and name whom they skip. No timing is asserted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

pytest.importorskip("rich", reason="the benchmarks need the extra `bench`")

from benchmarks.arrays import Runs, WrongArrayError
from benchmarks.harness import Row, Sample, Task, best_peer, measure, spread
from benchmarks.loads import Load, filled, take_arrays
from benchmarks.peers.arraystores import SplitpipeArray
from benchmarks.peers.rowsources import Rows, RowSource, SplitpipeRows, SplitpipeTrees
from benchmarks.peers.stores import SplitpipeStore
from benchmarks.rows import Epochs, WrongRowsError, make_rows
from benchmarks.scale import Numbered, WrongNumberError, private, standing
from benchmarks.storage import Workloads, WrongRecordsError, make_records
from benchmarks.transport import WrongItemError, take
from splitpipe import MpQItr, write_split_data

ROOT = Path(__file__).parents[1]
PEERS = ("faster_fifo", "torch", "spdl", "grain")  # of the transport


def run(module: str, *arguments: str, hidden: Sequence[str] = (), scratch: Path) -> str:
    """Run a benchmark in a process in which the modules `hidden` cannot be imported; return what it printed."""
    for name in hidden:
        message = f"No module named {name!r}"
        (scratch / f"{name}.py").write_text(f"raise ModuleNotFoundError({message!r})\n")
    search = os.pathsep.join([str(scratch), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": search, "TMPDIR": str(scratch), "COLUMNS": "130"}
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_storage_shows_splitpipe_names_the_skipped_and_leaves_nothing(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    tiny = ("--records", "500", "--repeats", "1", "--json", str(figures))
    printed = run("benchmarks.storage", *tiny, hidden=["lmdb"], scratch=tmp_path)
    assert "skipped LMDB: No module named 'lmdb' (pip install lmdb)" in printed
    rows = json.loads(figures.read_text())["rows"]
    ours = [row["workload"] for row in rows if row["contender"] == "splitpipe"]
    assert ours == ["write", "open", "get", "gather", "scan", "first epoch", "later epoch"]
    assert all(workload in printed for workload in ours)
    assert "LMDB" not in {row["contender"] for row in rows}
    assert list(tmp_path.glob("splitpipe-bench-*")) == []


def test_transport_shows_splitpipe_beside_the_standard_library_and_names_the_skipped(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    tiny = ("--seconds", "0.02", "--repeats", "1", "--json", str(figures), "--workload", "100 B", "--workload", "1 MB")
    printed = run("benchmarks.transport", *tiny, hidden=PEERS, scratch=tmp_path)
    assert "skipped faster-fifo: No module named 'faster_fifo' (pip install faster-fifo)" in printed
    assert "skipped torch DataLoader: No module named 'torch' (pip install torch)" in printed
    assert "skipped SPDL ring: No module named 'spdl' (pip install spdl-core)" in printed
    assert "skipped Grain mp_prefetch: No module named 'grain' (pip install grain)" in printed
    rows = json.loads(figures.read_text())["rows"]
    names = ["splitpipe", "multiprocessing.Queue"]
    assert [(row["workload"], row["contender"]) for row in rows] == [(w, n) for w in ("100 B", "1 MB") for n in names]
    assert all(len(row["ratios"]) == 1 for row in rows)


def test_pipeline_shows_each_workload_and_its_variants(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    tiny = ("--seconds", "0.02", "--requests", "20", "--epochs", "101", "--repeats", "1", "--json", str(figures))
    printed = run("benchmarks.pipeline", *tiny, hidden=PEERS, scratch=tmp_path)
    content = json.loads(figures.read_text())
    seen: dict[str, list[str]] = {}
    for row in content["rows"]:
        assert len(row["costs"]) == len(row["ratios"]) == 1
        assert row["costs"][0] > 0
        seen.setdefault(row["workload"], []).append(row["contender"])
    asked = ["splitpipe", "multiprocessing.Queue"]
    assert seen == {
        "built in place": ["splitpipe", "copied"],
        "made to received": asked,
        "the same, 99 %": asked,
        "asked to received": asked,
        "CPU-heavy": ["splitpipe", "one worker", "two processes", "one process"],
        "first item": ["splitpipe", "fork"],
        "epochs": ["splitpipe"],
    }
    growth = list(content["remarks"])
    assert [text.split(",")[0] for text in growth] == [
        f"epochs: {who}" for who in ("main process", "worker 0", "worker 1")
    ]
    assert all(text in printed for text in growth)
    assert "skipped torch DataLoader" in printed
    assert list(tmp_path.glob("splitpipe-bench-*")) == []


@pytest.mark.parametrize("in_place", [True, False])
def test_what_is_built_in_place_is_what_is_copied(in_place: bool) -> None:
    load = Load(partial(filled, 100_000, in_place=in_place), 100_000, take_arrays)
    with MpQItr(load.generate, start="fork") as pipe:
        load.take(iter(pipe), 0, 30)


def test_best_peer_is_the_one_that_comes_closest() -> None:
    def row(name: str, *ratios: float) -> Row:
        return Row("w", name, "", [1.0] * 3, [1.0] * 3, [*ratios])

    ours, slow, alone = row("splitpipe", 1.0, 1.0, 1.0), row("slow", 3.0, 2.0, 9.0), row("alone")
    close = row("close", 9.0, 1.5, 1.2)  # by the median, whatever its worst repeat
    faster = row("faster", 0.5, 0.7, 0.6)
    assert best_peer([ours, slow, close, alone]) is close
    assert best_peer([ours, slow, close, faster]) is faster
    assert best_peer([ours, alone]) is None
    assert best_peer([ours, slow], baseline="slow") is ours


def test_rows_shows_splitpipe_beside_numpy_and_names_the_skipped(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    tiny = ("--rows", "600", "--repeats", "1", "--json", str(figures))
    printed = run("benchmarks.rows", *tiny, hidden=["h5py"], scratch=tmp_path)
    assert "skipped h5py: No module named 'h5py' (pip install h5py)" in printed
    rows = json.loads(figures.read_text())["rows"]
    names = ["splitpipe", "splitpipe tree", "numpy.take", "numpy.memmap"]
    expected = [(workload, name) for workload in ("first epoch", "later epoch") for name in names]
    assert [(row["workload"], row["contender"]) for row in rows] == expected
    assert list(tmp_path.glob("splitpipe-bench-*")) == []


def test_arrays_shows_splitpipe_beside_numpy_and_the_dictionary_and_names_the_skipped(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    tiny = ("--rows", "600", "--keys", "3000", "--gigabytes", "0.01", "--repeats", "1", "--json", str(figures))
    printed = run("benchmarks.arrays", *tiny, hidden=["h5py", "bigarray"], scratch=tmp_path)
    assert "skipped h5py: No module named 'h5py' (pip install h5py)" in printed
    content = json.loads(figures.read_text())
    workloads = ("create", "write", "load", "iterate", "iterate again", "iterate, summed")
    expected = [(workload, name) for workload in workloads for name in ("splitpipe", "numpy", "numpy.memmap")]
    assert [(row["workload"], row["contender"]) for row in content["rows"]] == expected
    assert len(content["remarks"]) == 5
    assert all(text in printed for text in content["remarks"])
    assert list(tmp_path.glob("splitpipe-bench-*")) == []


def test_scale_shows_the_ratio_to_the_smaller_set_and_the_memory_of_readers(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    tiny = ("--open", "100", "1000", "--get", "100", "1000", "--reads", "300", "--readers", "2", "--repeats", "2")
    printed = run("benchmarks.scale", *tiny, "--json", str(figures), scratch=tmp_path)
    assert "times smaller's cost" in printed
    content = json.loads(figures.read_text())
    expected = [(workload, name) for workload in ("open", "get") for name in ("smaller", "larger")]
    assert [(row["workload"], row["contender"]) for row in content["rows"]] == expected
    assert all(len(row["ratios"]) == 2 for row in content["rows"])
    ((text, taken),) = content["remarks"].items()
    assert text.startswith("memory: 2 readers of 1,000 records: ")
    assert text in printed
    assert [len(each) for kind in ("readers", "numpy alone") for each in taken[kind]] == [2, 2, 2, 2]
    assert list(tmp_path.glob("splitpipe-bench-*")) == []


def test_a_benchmark_of_memory_alone_shows_no_table(tmp_path: Path) -> None:
    tiny = ("--open", "100", "1000", "--reads", "300", "--readers", "1", "--repeats", "1", "--workload", "memory")
    printed = run("benchmarks.scale", *tiny, scratch=tmp_path)
    assert printed.startswith("memory: 1 readers of 1,000 records: ")


def test_only_measures_the_named_contender(tmp_path: Path) -> None:
    printed = run("benchmarks.storage", "--records", "500", "--repeats", "1", "--only", "splitpipe", scratch=tmp_path)
    assert "splitdataloader" not in printed
    assert "skipped" not in printed


def test_runs_interleave_and_turn_and_ratios_pair_up_within_a_repeat() -> None:
    order: list[str] = []

    def task(name: str, seconds: Iterable[float]) -> Task:
        times = iter(seconds)

        def once() -> Sample:
            order.append(name)
            return Sample(next(times), items=2, size=10)

        return Task(name, once)

    ours, peer = measure("w", [task("splitpipe", [1, 2]), task("peer", [3, 8])], repeats=2)
    assert order == ["splitpipe", "peer", "peer", "splitpipe"]
    assert ours == Row("w", "splitpipe", "", [0.5, 1.0], [10.0, 5.0], [1.0, 1.0])
    assert (peer.costs, peer.ratios) == ([1.5, 4.0], [3.0, 4.0])


def test_spread_shows_median_and_extremes() -> None:
    assert spread([3.0, 1.0, 2.0], ".1f") == "2.0 (1.0..3.0)"
    assert spread([2.0], ".1f") == "2.0"


class _BrokenStore(SplitpipeStore):
    """A reader that returns the right number of records, but one of them twice."""

    def scan(self) -> Iterator[bytes]:
        records = [*super().scan()]
        return iter([*records[:-1], records[0]])


def test_a_reader_that_returns_other_records_is_caught_by_the_check_and_by_the_clock(tmp_path: Path) -> None:
    records = make_records(300)
    workloads = Workloads(records, tmp_path)
    store = _BrokenStore(tmp_path / "data")
    store.write(store.directory, records)
    store.open()
    with pytest.raises(WrongRecordsError, match="scan"):
        workloads.check(store)
    with pytest.raises(WrongRecordsError):
        workloads.by_name["scan"](store)


class _BrokenRows(SplitpipeRows):
    """A reader that returns the right number of rows, but one batch twice instead of another."""

    def epoch(self) -> Iterator[Any]:
        batches = [*super().epoch()]
        return iter([batches[1], *batches[1:]])


class _ShortRows(SplitpipeRows):
    """A reader that leaves out a batch."""

    def epoch(self) -> Iterator[Any]:
        return iter([*super().epoch()][1:])


class _WrongLabels(SplitpipeTrees):
    """A reader that returns the right images with other labels."""

    def epoch(self) -> Iterator[Any]:
        return ({**batch, "label": batch["label"] + 1} for batch in super().epoch())


@pytest.mark.parametrize("kind", [_BrokenRows, _ShortRows, _WrongLabels])
def test_a_reader_that_returns_other_rows_is_caught_by_the_check_and_by_the_clock(
    kind: type[RowSource], tmp_path: Path
) -> None:
    rows: Rows = make_rows(600)
    epochs = Epochs(rows)
    source = kind(tmp_path / "data")
    source.write(rows)
    source.open()
    with pytest.raises(WrongRowsError):
        epochs.check(source)
    for workload in epochs.by_name.values():
        with pytest.raises(WrongRowsError):
            workload(source)


class _BrokenArray(SplitpipeArray):
    """A reader that returns the rows of an array from the second on."""

    def load(self) -> Any:
        return super().load()[1:]


def test_an_array_that_is_another_is_caught_by_the_check_and_by_the_clock(tmp_path: Path) -> None:
    runs = Runs(np.random.default_rng(0).random((600, 2, 2)))
    store = _BrokenArray(tmp_path / "a.npy")
    runs.create(store)
    with pytest.raises(WrongArrayError):
        runs.check(store)
    for name in ("load", "iterate", "iterate again", "iterate, summed"):
        with pytest.raises(WrongArrayError):
            runs.by_name[name](store)


class _BrokenNumbers(Numbered):
    """A reader that returns each record in the place of the next."""

    def data(self) -> Sequence[bytes]:
        records = [*super().data()]
        return [records[-1], *records[:-1]]


def test_a_reader_that_returns_another_number_is_caught_by_the_clock(tmp_path: Path) -> None:
    numbers = _BrokenNumbers(tmp_path / "data", 1000, 32)
    numbers.write()
    with pytest.raises(WrongNumberError, match="another at 500"):
        numbers.open()
    with pytest.raises(WrongNumberError, match="not those that were asked for"):
        numbers.get([*numbers.data()[:-1], bytes(32)], 1000)


def test_a_large_set_that_holds_other_numbers_is_caught_while_it_is_warmed_and_by_the_readers(tmp_path: Path) -> None:
    write_split_data(tmp_path / "data", ((number ^ 1).to_bytes(32, "big") for number in range(101)))
    with pytest.raises(WrongNumberError, match="add up to"):
        Numbered(tmp_path / "data", 101, 32).warmed()
    with pytest.raises(WrongNumberError, match="a reader ended early"), standing(2, str(tmp_path / "data"), "50"):
        pass


def test_readers_stand_still_while_their_memory_is_taken_and_are_gone_afterwards(tmp_path: Path) -> None:
    Numbered(tmp_path / "data", 100, 32).write()
    with standing(2, str(tmp_path / "data"), "50") as pids:
        assert all(used > 1 for used in private(pids))
    assert not any(psutil.pid_exists(pid) for pid in pids)


def test_a_lost_item_ends_the_transport_benchmark() -> None:
    import numpy as np

    items = ({"array": np.full(4, number, np.float32)} for number in (0, 1, 3))
    with pytest.raises(WrongItemError, match="expected item 2, got one from 3"):
        take(items, 0, 3)
