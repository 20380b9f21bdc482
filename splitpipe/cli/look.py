"""`splitpipe info`, `head` and `cat`: what a data set holds."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from splitpipe import SplitDataLoader
from splitpipe.cli.showing import as_json, lines_of, summary_of
from splitpipe.cli.usage import UsageError
from splitpipe.errors import NotADatasetError
from splitpipe.storage.catalog import segment_paths, work_paths
from splitpipe.storage.dataset import open_segments, why_no_dataset

__all__ = ["add_verbs"]


def add_verbs(verbs: Any) -> None:
    """Add `info`, `head` and `cat` to the verbs of the command line."""
    info = verbs.add_parser("info", help="how many records, which codec and columns, how large")
    info.set_defaults(run=_info)
    head = verbs.add_parser("head", help="the first records, a line each, with their columns")
    head.add_argument("-n", "--records", type=int, default=10, metavar="N", help="how many (default 10)")
    head.set_defaults(run=_head)
    cat = verbs.add_parser("cat", help="some records whole")
    cat.set_defaults(run=_cat)
    for parser in (info, head, cat):
        parser.add_argument("data", metavar="DIR", help="the data set's directory")
        parser.add_argument("--json", action="store_true", help="print JSON")
    cat.add_argument("numbers", metavar="N", type=int, nargs="+", help="a record's number, from 0; -1 is the last")
    cat.add_argument("--raw", action="store_true", help="write the records of codec bytes as they are")
    for parser in (head, cat):
        parser.add_argument("--allow-pickle", action="store_true", help="load pickles, which run what is in them")


def _info(options: argparse.Namespace) -> int:
    path = Path(options.data)
    paths = segment_paths(path)
    if not paths:
        raise NotADatasetError(why_no_dataset(path))
    with contextlib.ExitStack() as stack:
        segments = [stack.enter_context(contextlib.closing(segment)) for segment in open_segments(paths)]
        newest = segments[-1]
        facts: dict[str, Any] = {
            "path": str(path),
            "records": sum(segment.records for segment in segments),
            "bytes": sum(length for segment in segments for length in segment.bin_lengths),
            "codec": newest.encoding.name,
            "columns": newest.column_types,
            "segments": len(segments),
            "bins": sum(1 for segment in segments for count in segment.bin_counts if count),
            "committed": newest.info.get("created", "unknown"),
            "being written": len(work_paths(path)),
        }
        facts.update(newest.encoding.codec.spec())
    if options.json:
        _print_json(facts)
    else:
        facts["columns"] = ", ".join(f"{name} ({kind})" for name, kind in facts["columns"].items()) or "none"
        for name, value in facts.items():
            print(f"{name + ':':<15}{value:,}" if isinstance(value, int) else f"{name + ':':<15}{value}")
    return 0


def _head(options: argparse.Namespace) -> int:
    with SplitDataLoader(options.data, allow_pickle=options.allow_pickle) as data:
        numbers = range(min(max(options.records, 0), len(data)))
        if options.json:
            _print_json(_as_json(data, numbers))
            return 0
        for number in numbers:
            columns = "".join(f"  {name}={data.columns[name][number]}" for name in data.columns)
            print(f"{number:>6}  {summary_of(data[number])}{columns}")
    return 0


def _cat(options: argparse.Namespace) -> int:
    with SplitDataLoader(options.data, allow_pickle=options.allow_pickle) as data:
        for number in options.numbers:
            if not -len(data) <= number < len(data):
                raise UsageError(f"there is no record {number}: there are {len(data)}, numbered 0 to {len(data) - 1}")
        if options.json:
            _print_json(_as_json(data, options.numbers))
            return 0
        for number in options.numbers:
            record = data[number]
            if options.raw and isinstance(record, bytes):
                sys.stdout.flush()
                sys.stdout.buffer.write(record)
                continue
            print(f"record {number % len(data)}")
            for name in data.columns:
                print(f"  {name} = {data.columns[name][number]}")
            for line in lines_of(record):
                print(f"  {line}")
    return 0


def _as_json(data: SplitDataLoader, numbers: Sequence[int]) -> list[dict[str, Any]]:
    return [
        {
            "number": number % len(data),
            "record": as_json(data[number]),
            "columns": {name: as_json(data.columns[name][number]) for name in data.columns},
        }
        for number in numbers
    ]


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False))
