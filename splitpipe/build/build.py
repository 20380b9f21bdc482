"""build_split_data: many processes read and encode, this one writes what they send, in the order of the inputs."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from splitpipe.build.journal import (
    Checkpoint,
    ColumnLog,
    find_checkpoint,
    fingerprint,
    remove_journal,
    save_checkpoint,
)
from splitpipe.build.reading import Parcel, Reading
from splitpipe.codecs import Encoding
from splitpipe.errors import BuildInputError, RecordTypeError, StorageError
from splitpipe.pipeline import MpQItr
from splitpipe.progress import progress_bar
from splitpipe.storage.catalog import remove_segment, segment_paths
from splitpipe.storage.columns import column_kinds
from splitpipe.storage.dataset import open_segments
from splitpipe.storage.durable import Disk
from splitpipe.storage.segment_writer import SegmentWriter
from splitpipe.storage.writer import fit_existing
from splitpipe.workers.failures import Failure, rebuild

__all__ = ["build_split_data"]

_log = logging.getLogger("splitpipe.build")

_CHECKPOINT_S = 10.0  # what a killed build loses at most, as long as one turn takes less
_MAX_TURN = 32  # inputs that a worker reads before it is the next one's turn

OnError = Literal["raise", "skip"] | Callable[[Any, BaseException], object]


def build_split_data(
    target_dir: str | os.PathLike[str],
    inputs: Iterable[Any],
    read_fn: Callable[[Any], Any],
    *,
    workers: int | None = None,
    splits: int = 64,
    codec: Any = "bytes",
    columns: Mapping[str, Any] | Iterable[str] = (),
    shuffle: bool = False,
    start_clean: bool = False,
    on_error: OnError = "raise",
    resume: bool = False,
    progress: bool = False,
    durability: str = "commit",
    start: str = "exec",
) -> int:
    """Append the records that `read_fn` makes of `inputs` to the data set in `target_dir`; return how many.

    Records come in the order of the inputs, and are committed at once at the end: of a build that fails or is killed,
    none is visible. Its work is kept from time to time, for `resume=True` to go on from.

    Args:
        target_dir: the directory, made if missing. Data already there is appended to.
        inputs: what the records are made from, such as file names; all of them are held in memory.
        read_fn: called in a worker with one input. Returns a record; or (record, {column: value}), with `columns`; or
            None for no record; or is a generator of any of these.
        workers: how many processes; by default one per core, and 0 reads in the calling thread.
        splits: how many bins the records are scattered over.
        codec: as of `write_split_data`; encoding and compressing are done by the workers.
        columns: metadata beside each record: names, or {name: type}.
        shuffle: scatter in a random order.
        start_clean: replace what the directory held.
        on_error: "raise" ends the build when `read_fn` raises; "skip" logs a warning; a function is called with the
            input and the exception, and may raise. What a generator yielded before it raised is kept.
        resume: go on where a build of the same inputs was killed or failed; do nothing if it was committed.
        progress: show a bar with rate and time left.
        durability: as of `SplitWriter`.
        start: as of `MpQItr`.

    Raises:
        BuildInputError: `read_fn` raised, and `on_error` is "raise"; its `__cause__` is what was raised.
        WorkerDiedError: a worker was killed.
        RecordTypeError: workers made records of different dtypes.
        StorageError: what was left to `resume` is of other inputs or settings.
    """
    listed = list(inputs)
    failures = _Failures(listed, on_error)
    build = _Build(Path(target_dir), listed, splits, codec, columns, shuffle, start_clean, resume, durability)
    if build.committed is not None:
        return build.committed
    done: Iterable[int] = build.run(read_fn, _cores() if workers is None else workers, start, failures)
    if progress:
        done = progress_bar(done, unit="input", label="build", total=len(listed) - build.done)
    try:
        for _ in done:
            pass
        return build.commit()
    finally:
        build.close()


def _records_built(directory: Path, fingerprint: str) -> int | None:
    """Return how many records the same build committed before; None if it did not."""
    segments = open_segments(segment_paths(directory))
    built = [segment.records for segment in segments if segment.info.get("build") == fingerprint]
    for segment in segments:
        segment.close()
    return built[-1] if built else None


def _cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Failures:
    """What is done about inputs that fail."""

    def __init__(self, inputs: Sequence[Any], on_error: OnError) -> None:
        if on_error not in ("raise", "skip") and not callable(on_error):
            raise ValueError(f'on_error is "raise", "skip" or a function, and got {on_error!r}')
        self._inputs = inputs
        self._on_error = on_error

    def handle(self, number: int, failure: Failure) -> None:
        """Raise, log, or tell the caller's function."""
        error, source = rebuild(failure), self._inputs[number]
        if callable(self._on_error):
            self._on_error(source, error)
        elif self._on_error == "skip":
            _log.warning("input %d, %r, is left out: %s", number, source, failure.summary)
        else:
            raise BuildInputError(
                f"input {number}, {source!r}, failed: {failure.summary}. Nothing was committed: mend it and build "
                'again with resume=True, or leave such inputs out with on_error="skip"',
                input=number,
            ) from error


class _Build:
    """One build: where it writes, and how far it has come."""

    def __init__(
        self,
        directory: Path,
        inputs: Sequence[Any],
        splits: int,
        codec: Any,
        columns: Any,
        shuffle: bool,
        start_clean: bool,
        resume: bool,
        durability: str,
    ) -> None:
        self._directory, self._inputs = directory, inputs
        self._disk = Disk.of(durability)
        encoding, kinds = Encoding.of(codec), column_kinds(columns)
        self._replaces = segment_paths(directory) if start_clean else []
        if not start_clean:
            encoding, kinds = fit_existing(directory, encoding, kinds)
        self._fingerprint = fingerprint(inputs, splits, encoding.name, sorted(kinds), shuffle)
        directory.mkdir(parents=True, exist_ok=True)
        found = find_checkpoint(directory) if resume else None
        self.committed = _records_built(directory, self._fingerprint) if resume and found is None else None
        if found is None:
            self.done = 0
            self._encoding = encoding
            self._is_trained = encoding.compression is None
            self._segment = SegmentWriter(directory, splits, shuffle=shuffle, disk=self._disk)
            self._columns = ColumnLog(kinds, {})
        else:
            work, checkpoint = found
            if checkpoint.fingerprint != self._fingerprint:
                raise StorageError(
                    f"{work}: is what is left of a build of other inputs, splits, codec or columns: build with those, "
                    "or remove it with `splitpipe clean` and build without resume=True"
                )
            self.done = checkpoint.done
            self._encoding = Encoding.from_spec(checkpoint.encoding)
            self._is_trained = True
            self._segment = SegmentWriter.resume(work, checkpoint.segment, disk=self._disk)
            self._columns = ColumnLog(kinds, checkpoint.columns)
        self._saved = time.monotonic()
        self._has_checkpoint = found is not None
        self._is_committed = False

    def run(self, read_fn: Callable[[Any], Any], workers: int, start: str, failures: _Failures) -> Iterator[int]:
        """Read and write; yield the number of each input that is done."""
        turns = self._turns(workers)
        if not self._is_trained and turns:
            # The dictionary comes from the first records, and every worker compresses with it from its first on.
            plain = Encoding(self._encoding.codec)
            yield from self._run(turns[:1], read_fn, plain, min(workers, 1), start, failures)
            turns = turns[1:]
        yield from self._run(turns, read_fn, self._encoding, workers, start, failures)

    def _turns(self, workers: int) -> list[tuple[int, Sequence[Any]]]:
        """Return what is left to read, in turns: (number of the first input, inputs)."""
        left = len(self._inputs) - self.done
        size = max(1, min(_MAX_TURN, left // (8 * max(workers, 1))))
        return [(first, self._inputs[first : first + size]) for first in range(self.done, len(self._inputs), size)]

    def _run(
        self,
        turns: Sequence[tuple[int, Sequence[Any]]],
        read_fn: Callable[[Any], Any],
        encoding: Encoding,
        workers: int,
        start: str,
        failures: _Failures,
    ) -> Iterator[int]:
        names = self._columns.parts
        pipes = max(1, min(workers, len(turns)))
        with contextlib.ExitStack() as stack:
            # One pipeline for each worker: the one whose turn it is may send many parcels before the next is heard.
            parcels = [
                iter(
                    stack.enter_context(
                        MpQItr(
                            Reading(turns[worker::pipes], read_fn, encoding, list(names)),
                            workers=min(workers, 1),
                            start=start,
                            rank=0,
                            world_size=1,
                            epochs=1,
                        )
                    )
                )
                for worker in range(pipes)
            ]
            for number, (first, inputs) in enumerate(turns):
                for parcel in parcels[number % pipes]:
                    self._take(parcel, encoding, failures)
                    if parcel.is_last:
                        break
                self.done = first + len(inputs)
                if time.monotonic() - self._saved >= _CHECKPOINT_S:
                    self._save()
                yield from range(first, self.done)

    def _take(self, parcel: Parcel, encoding: Encoding, failures: _Failures) -> None:
        for failed, failure in parcel.failures:
            failures.handle(failed, failure)
        payloads = parcel.payloads()
        if not payloads:
            return
        self._adopt(parcel.spec)
        if encoding.compression is None and self._encoding.compression is not None:
            if not self._is_trained:
                self._encoding, self._is_trained = self._encoding.trained(payloads), True
            payloads = list(map(self._encoding.compress, payloads))
        self._columns.extend(parcel.columns, len(payloads))
        self._segment.append(payloads)

    def _adopt(self, spec: dict[str, Any]) -> None:
        """Take on what the first record told a worker's codec, and see that all workers were told the same."""
        mine = self._encoding.codec.spec()
        if not mine:
            self._encoding = Encoding(self._encoding.codec.with_spec(spec), self._encoding.compression)
        elif mine != spec:
            raise RecordTypeError(
                f"records of {mine} and of {spec} came from the inputs: give the dtype as codec=numpy.dtype(...)"
            )

    def _save(self) -> None:
        self._segment.sync()
        self._columns.save(self._segment.work, self._disk)
        checkpoint = Checkpoint(
            self._fingerprint, self.done, self._segment.state(), self._encoding.spec(), self._columns.parts
        )
        save_checkpoint(self._segment.work, checkpoint, self._disk)
        self._saved = time.monotonic()
        self._has_checkpoint = True

    def commit(self) -> int:
        """Make all records visible, and return how many they are."""
        written = self._segment.records
        if written:
            columns = self._columns.whole(self._segment.work)
            self._segment.publish(
                self._encoding,
                columns,
                [path.name for path in self._replaces],
                before_rename=remove_journal,
                remarks={"build": self._fingerprint},
            )
        self._is_committed = True
        for path in self._replaces:
            remove_segment(path)
        return written

    def close(self) -> None:
        """Leave nothing behind but what can be gone on from."""
        if self._is_committed and self._segment.records:
            return
        if self._has_checkpoint and not self._is_committed:
            self._segment.leave()
        else:
            self._segment.discard()
