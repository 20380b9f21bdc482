"""`splitpipe demo`: the main job on real files, measured, and compared with a plain loop.

Packs Python's own standard library, or a folder of yours, into bins; reads it back shuffled in worker processes that
tokenise each file; adds the counts up in the main process.
"""

from __future__ import annotations

import argparse
import os
import sys
import sysconfig
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from splitpipe import MpQItr, SplitDataLoader, write_split_data
from splitpipe.cli.tokens import count_tokens, identifiers
from splitpipe.cli.usage import UsageError

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["add_verb", "run"]

_BINS = 64
_FILES_PER_BATCH = 16
_WORKERS = (0, 1, 2)


@dataclass(frozen=True)
class _Pass:
    """One way of counting all tokens: with how many workers, what came out, how long it took, how long it waited."""

    label: str
    counts: Counter[str]
    seconds: float
    wait_s: float

    @property
    def tokens_per_second(self) -> float:
        return self.counts.total() / self.seconds


def add_verb(verbs: Any) -> None:
    """Add `demo` to the verbs of the command line."""
    parser = verbs.add_parser("demo", help="pack real files, tokenise them in workers, compare with a plain loop")
    parser.add_argument("--data", metavar="DIR", help="pack the files of this folder instead of the standard library")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the demo and return the exit code: 0, or 1 if the counts differ from those of the plain loop."""
    for module in ("rich", "tqdm"):
        if find_spec(module) is None:
            raise UsageError(f'the demo needs {module}: pip install "splitpipe[cli]"')
    files, locked = _standard_library() if options.data is None else _own_files(options.data)
    with tempfile.TemporaryDirectory(prefix="splitpipe-demo-") as target:
        began = time.perf_counter()
        records = ((content, {"path": name, "bytes": len(content)}) for name, content in _read(files))
        written = write_split_data(target, records, splits=_BINS, columns={"path": str, "bytes": int})
        write_s = time.perf_counter() - began
        if not written:
            raise UsageError("none of the files could be read: check their permissions")
        data = SplitDataLoader(target)
        total_bytes = int(data.columns["bytes"].sum())
        began = time.perf_counter()
        read_bytes = sum(map(len, data.iterate_binwise(shuffle=True)))
        read_s = time.perf_counter() - began
        plain = _plain_loop(files)
        passes = [_pipeline(target, workers, written) for workers in _WORKERS]
    same = read_bytes == total_bytes and all(each.counts == plain.counts for each in passes)
    facts = {
        "records": f"{written:,}",
        "bins": f"{_BINS}",
        "written": f"{total_bytes / 1e6:,.1f} MB at {total_bytes / 1e6 / write_s:,.0f} MB/s, synced to disk",
        "read shuffled": f"{total_bytes / 1e6 / read_s:,.0f} MB/s, checksums compared",
    }
    if locked or written < len(files):
        facts["left out"] = f"{len(files) - written:,} files and {locked:,} folders that may not be read"
    _show(facts, [plain, *passes], same)
    return 0 if same else 1


def _standard_library() -> tuple[list[tuple[str, Path]], int]:
    """Return the source files of Python itself, and that no folder was left out."""
    root = Path(sysconfig.get_paths()["stdlib"])
    found = (path for path in sorted(root.rglob("*.py")) if "site-packages" not in path.parts)
    files = [(_text(path.relative_to(root)), path) for path in found]
    if not files:
        raise UsageError("this Python comes without its source files; give a folder of yours: --data DIR")
    return files, 0


def _own_files(folder: str) -> tuple[list[tuple[str, Path]], int]:
    """Return the regular files below a folder, and how many folders in it may not be read."""
    root = Path(folder)
    try:
        there = bool(folder) and root.exists()
    except PermissionError as exc:
        raise UsageError(f"--data {folder}: may not be read: check the permissions of what it lies in") from exc
    if not there:
        raise UsageError(f"--data {folder or '(empty)'}: there is no such folder")
    if not root.is_dir():
        raise UsageError(f"--data {root}: is a file; give the folder that it lies in")
    if not os.access(root, os.R_OK | os.X_OK):
        raise UsageError(f"--data {root}: may not be read: check its permissions")
    locked: list[OSError] = []
    files = []
    for parent, folders, names in os.walk(root, onerror=locked.append):
        folders.sort()
        paths = (Path(parent, name) for name in sorted(names))
        # Path.is_file would raise in a folder that may be listed and not entered.
        files += [(_text(path.relative_to(root)), path) for path in paths if os.path.isfile(path)]  # noqa: PTH113
    if not files:
        raise UsageError(f"--data {root}: holds no files" + (" that may be read" if locked else ""))
    return files, len(locked)


def _text(path: Path) -> str:
    """Return a name as text even where it is no UTF-8, which a string column cannot hold."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _read(files: list[tuple[str, Path]]) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of each file that may be read."""
    for name, path in files:
        if os.access(path, os.R_OK):
            yield name, path.read_bytes()


def _plain_loop(files: list[tuple[str, Path]]) -> _Pass:
    began, counts = time.perf_counter(), Counter[str]()
    for _, content in _read(files):
        counts.update(count_tokens(content))
    return _Pass("plain loop, no splitpipe", counts, time.perf_counter() - began, 0.0)


def _token_batches(target: str, size: int) -> Iterator[tuple[int, Counter[str]]]:
    """The generator that runs in the workers: read this lane's share of the bins, count, batch the counts."""
    files, counts = 0, Counter[str]()
    for record in SplitDataLoader(target).iterate_binwise(shuffle=True):
        counts.update(count_tokens(record))
        files += 1
        if files == size:
            yield files, counts
            files, counts = 0, Counter()
    if files:
        yield files, counts


def _pipeline(target: str, workers: int, records: int) -> _Pass:
    from tqdm import tqdm

    counts = Counter[str]()
    with MpQItr(_token_batches, target, _FILES_PER_BATCH, workers=workers, seed=0) as pipe:
        began = time.perf_counter()
        label = f"{workers} worker{'' if workers == 1 else 's'}"
        # Each redraw is one more line in a log, so there it shows little but the beginning and the end.
        interval = 0.5 if sys.stderr.isatty() else 10
        with tqdm(total=records, desc=label, unit="file", mininterval=interval, maxinterval=interval) as bar:
            for files, batch in pipe:
                counts.update(batch)
                bar.update(files)
        seconds = time.perf_counter() - began
        # Without workers the main process does the work itself: that is no waiting.
        return _Pass(label, counts, seconds, pipe.stats().wait_s if workers else 0.0)


def _show(facts: dict[str, str], passes: list[_Pass], same: bool) -> None:
    from rich.console import Console

    console = Console()
    for name, value in facts.items():
        console.print(f"{name:>14}  {value}", highlight=False)
    console.print(_speeds(passes))
    frequent = identifiers(passes[0].counts).most_common(10)
    console.print("most frequent:", ", ".join(f"{name} {count:,}" for name, count in frequent), highlight=False)
    if same:
        console.print("compared: with 0, 1 and 2 workers the counts of all tokens equal those of the plain loop")
    else:
        console.print("compared: THE COUNTS DIFFER from those of the plain loop; please report this")


def _speeds(passes: list[_Pass]) -> Table:
    from rich.table import Table

    table = Table()
    for heading in ("", "seconds", "tokens/s", "consumer waited"):
        table.add_column(heading, justify="right" if heading else "left")
    for each in passes:
        waited = f"{each.wait_s:.2f} s" if each.wait_s else "-"
        table.add_row(each.label, f"{each.seconds:.2f}", f"{each.tokens_per_second:,.0f}", waited)
    return table
