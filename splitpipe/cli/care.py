"""`splitpipe verify`, `salvage`, `clean`, `merge` and `compact`: the care of data sets."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from importlib.util import find_spec
from typing import Any

import splitpipe
from splitpipe.cli.usage import UsageError
from splitpipe.storage.layout import MAX_BINS

__all__ = ["add_verbs"]


def add_verbs(verbs: Any) -> None:
    """Add the verbs of care to those of the command line."""
    verify = verbs.add_parser("verify", help="compare every byte with what was committed")
    verify.set_defaults(run=_verify)
    salvage = verbs.add_parser("salvage", help="build lost indexes again, or save what is readable to TARGET")
    salvage.set_defaults(run=_salvage)
    clean = verbs.add_parser("clean", help="remove what dead writers and builds left")
    clean.set_defaults(run=_clean)
    merge = verbs.add_parser("merge", help="append the records of other data sets")
    merge.set_defaults(run=_merge)
    compact = verbs.add_parser("compact", help="write all segments into one")
    compact.set_defaults(run=_compact)
    for parser in (verify, salvage, clean, merge, compact):
        parser.add_argument("data", metavar="DIR", help="the data set's directory")
        parser.add_argument("--json", action="store_true", help="print JSON")
    verify.add_argument("--threads", type=int, help="how many bins are read at a time (default: as many as cores)")
    salvage.add_argument("target", metavar="TARGET", nargs="?", help="an empty directory for what is saved")
    clean.add_argument("--dry-run", action="store_true", help="remove nothing, and say what would be")
    clean.add_argument("--force", action="store_true", help="remove what living writers write, too")
    merge.add_argument("sources", metavar="SOURCE", nargs="+", help="the directories of the other data sets")
    compact.add_argument("--splits", type=int, metavar="N", help="how many bins (default: as many as now)")


def _progress() -> bool:
    """Return whether to show bars: to a person, if there is something to draw them with."""
    return sys.stderr.isatty() and find_spec("tqdm") is not None


def _verify(options: argparse.Namespace) -> int:
    if options.threads is not None and options.threads < 1:
        raise UsageError(f"--threads is a number of threads, at least 1, and got {options.threads}")
    report = splitpipe.verify(options.data, threads=options.threads, progress=_progress())
    lines = [problem.text for problem in report.problems]
    found = f"{len(lines)} problems" if lines else "all as committed"
    lines.append(f"{report.path}: {report.records:,} records, {report.bytes:,} bytes in bins: {found}")
    _print(options, report, lines)
    return 1 if report.problems else 0


def _salvage(options: argparse.Namespace) -> int:
    report = splitpipe.salvage(options.data, options.target)
    lines = list(report.notes)
    lines += [
        f"gone: record {first}" if first == last else f"gone: records {first} to {last}" for first, last in report.lost
    ]
    lines += [f"gone: all of {name}, and nobody knows how many those were" for name in report.unknown]
    lines.append(f"{report.target}: {report.saved:,} records saved")
    _print(options, report, lines)
    return 0


def _clean(options: argparse.Namespace) -> int:
    report = splitpipe.clean(options.data, dry_run=options.dry_run, force=options.force)
    verb = "would remove" if options.dry_run else "removed"
    lines = [f"{verb} {path}" for path in report.removed]
    lines += [f"kept {path}: its writer lives, or began less than a minute ago" for path in report.kept]
    lines.append(f"{options.data}: {verb} {len(report.removed)} leftovers, {report.bytes:,} bytes")
    _print(options, report, lines)
    return 0


def _merge(options: argparse.Namespace) -> int:
    added = splitpipe.merge(options.data, *options.sources, progress=_progress())
    _print(options, {"target": options.data, "added": added}, [f"{options.data}: {added:,} records added"])
    return 0


def _compact(options: argparse.Namespace) -> int:
    if options.splits is not None and not 1 <= options.splits <= MAX_BINS:
        raise UsageError(f"--splits is a number of bins, 1 to {MAX_BINS}, and got {options.splits}")
    records = splitpipe.compact(options.data, options.splits, progress=_progress())
    _print(options, {"path": options.data, "records": records}, [f"{options.data}: {records:,} records in one segment"])
    return 0


def _print(options: argparse.Namespace, report: Any, lines: list[str]) -> None:
    if options.json:
        print(json.dumps(report if isinstance(report, dict) else dataclasses.asdict(report), indent=2))
    else:
        print("\n".join(lines))
