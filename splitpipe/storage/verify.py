"""verify: compare every byte of a data set with what was committed."""

from __future__ import annotations

import contextlib
import json
import os
import zlib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from splitpipe.errors import CorruptDataError, NotADatasetError, SplitpipeError
from splitpipe.progress import progress_bar
from splitpipe.storage.bin import map_bin, read_rows
from splitpipe.storage.catalog import segment_paths
from splitpipe.storage.columns import load_column
from splitpipe.storage.dataset import why_no_dataset
from splitpipe.storage.layout import INFO_NAME, bin_name, open_text
from splitpipe.storage.segment import Segment

__all__ = ["Problem", "VerifyReport", "verify"]

_MAX_NAMED = 1000  # damaged records of one bin that are named one by one


@dataclass(frozen=True)
class Problem:
    """Something that is not as it was committed.

    Attributes:
        path: the file.
        record: the record's number in the data set; None if the damage is not in one.
        offset: where in the file, in bytes; None if that is not known.
        text: what is wrong, and what to do.
    """

    path: str
    record: int | None
    offset: int | None
    text: str


@dataclass(frozen=True)
class VerifyReport:
    """What `verify` found.

    Attributes:
        path: the data set's directory.
        segments: how many segments were looked at.
        records: how many records they are to hold, as far as their indexes can be read.
        bytes: how many bytes of bins were read.
        problems: all that is damaged; empty if nothing is.
    """

    path: str
    segments: int
    records: int
    bytes: int
    problems: tuple[Problem, ...]


def verify(data_dir: str | os.PathLike[str], *, threads: int | None = None, progress: bool = False) -> VerifyReport:
    """Compare every byte of a data set with what was committed, and return what is wrong; nothing is changed.

    Args:
        data_dir: the data set's directory.
        threads: how many bins are read at a time; by default as many as there are cores.
        progress: show a bar; needs `pip install "splitpipe[progress]"`.

    Raises:
        NotADatasetError: there is no committed data set.
    """
    path = Path(data_dir)
    paths = segment_paths(path)
    if not paths:
        raise NotADatasetError(why_no_dataset(path))
    problems: list[Problem] = []
    segments, damaged = _opened(paths)
    problems += damaged
    jobs = [partial(_bin_problems, segment, number) for segment in segments for number in _filled(segment)]
    jobs += [partial(_column_problems, segment, name) for segment in segments for name in segment.column_specs]
    jobs += [partial(_info_problems, segment) for segment in segments]
    with ThreadPoolExecutor(threads or os.cpu_count(), thread_name_prefix="splitpipe-verify") as pool:
        results: Iterable[list[Problem]] = pool.map(lambda job: job(), jobs)
        if progress:
            results = progress_bar(results, unit="part", label="verify", total=len(jobs))
        for found in results:
            problems += found
    report = VerifyReport(
        str(path),
        len(paths),
        sum(segment.records for segment in segments),
        sum(length for segment in segments for length in segment.bin_lengths),
        tuple(problems),
    )
    for segment in segments:
        segment.close()
    return report


def _opened(paths: Iterable[Path]) -> tuple[list[Segment], list[Problem]]:
    """Return the segments that can be opened, and why the others cannot."""
    segments: list[Segment] = []
    problems: list[Problem] = []
    for path in paths:
        with _noted(problems, path):
            segments.append(Segment(path, check_bins=False))
    replaced = {name for segment in segments for name in segment.replaces}
    live = []
    first = 0
    for segment in segments:
        if segment.path.name in replaced:
            segment.close()
            continue
        segment.first = first
        first += segment.records
        live.append(segment)
    return live, problems


@contextlib.contextmanager
def _noted(problems: list[Problem], path: Path) -> Iterator[None]:
    """Turn what is raised inside into a problem."""
    try:
        yield
    except CorruptDataError as exc:
        problems.append(Problem(exc.path or str(path), exc.record, exc.offset, str(exc)))
    except (SplitpipeError, OSError) as exc:
        problems.append(Problem(str(path), None, None, str(exc)))


def _filled(segment: Segment) -> list[int]:
    return [number for number, count in enumerate(segment.bin_counts) if count]


def _bin_problems(segment: Segment, number: int) -> list[Problem]:
    problems: list[Problem] = []
    path = segment.path / bin_name(number)
    with _noted(problems, path):
        segment.check_bin_length(number)
        source = map_bin(path, number, segment.id)
        rows = read_rows(source, path, segment.bin_counts[number])
        bins, offsets, sizes = segment.locate(rows.ordinals.astype(np.int64))
        crcs = segment.crcs(rows.ordinals.astype(np.int64))
        same = (bins == number) & (crcs == rows.crcs) & (sizes == rows.ends - rows.starts)
        same &= (offsets == rows.starts) | (sizes == 0)  # where nothing lies does not matter
        problems += [
            _record_problem(segment, ordinal, "its entry in the index and its row in the bin differ")
            for ordinal in rows.ordinals[~same][:_MAX_NAMED].tolist()
        ]
        if not rows.payloads_are_intact(source):
            found = np.array(
                [zlib.crc32(source[start:end]) for start, end in zip(rows.starts, rows.ends, strict=True)], np.uint32
            )
            problems += [
                _record_problem(segment, ordinal, "it fails its checksum")
                for ordinal in rows.ordinals[found != rows.crcs][:_MAX_NAMED].tolist()
            ]
    return problems


def _record_problem(segment: Segment, ordinal: int, what: str) -> Problem:
    error = segment.corrupt(ordinal, what)
    return Problem(error.path, error.record, error.offset, str(error))


def _column_problems(segment: Segment, name: str) -> list[Problem]:
    problems: list[Problem] = []
    with _noted(problems, segment.path):
        load_column(segment.path, segment.column_specs[name], segment.records)
    return problems


def _info_problems(segment: Segment) -> list[Problem]:
    problems: list[Problem] = []
    path = segment.path / INFO_NAME
    with _noted(problems, path):
        copy: dict[str, Any] = json.loads(open_text(path.read_bytes(), str(path)))
        if copy != segment.info:
            raise CorruptDataError(f"{path}: is not the copy of the index's info that it should be", path=str(path))
    return problems
