"""What all benchmarks share: contenders, interleaved repeats, medians with their spread, one table.

A run of one contender is followed by a run of the next, and the order turns with every repeat, so that a
machine that slows down for a while slows all of them down. A ratio is taken within a repeat, between
neighbours in time; the table shows the median of those ratios, and the smallest and largest.
"""

from __future__ import annotations

import abc
import argparse
import contextlib
import importlib
import importlib.metadata
import json
import os
import platform
import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar

try:
    from rich.console import Console
    from rich.table import Table
except ImportError as error:
    raise SystemExit(f"{error}; the benchmarks need: pip install 'splitpipe[bench]'") from None

BASELINE = "splitpipe"


class Contender(abc.ABC):
    """One library in a benchmark.

    Attributes:
        name: what the table calls it.
        module: what must be importable for it to take part.
        package: the distribution that provides the module; empty for the standard library.
    """

    name: ClassVar[str]
    module: ClassVar[str]
    package: ClassVar[str]

    @classmethod
    def missing(cls) -> str | None:
        """Say why this contender cannot take part, or None if it can."""
        try:
            importlib.import_module(cls.module)
        except ImportError as error:
            return f"{error} (pip install {cls.package})"
        return None


@dataclass(frozen=True)
class Sample:
    """One timed run: how long it took, for how many items of how many bytes together."""

    seconds: float
    items: int
    size: int


@dataclass(frozen=True)
class Task:
    """One contender's way of doing one workload; each call of `run` is one timed run."""

    contender: str
    run: Callable[[], Sample]
    note: str = ""


@dataclass(frozen=True)
class Row:
    """What one contender achieved in one workload: one entry per repeat, in time order.

    Attributes:
        costs: seconds per item.
        rates: bytes per second.
        ratios: this contender's cost over the baseline's in the same repeat; empty if the baseline did not run.
    """

    workload: str
    contender: str
    note: str
    costs: list[float]
    rates: list[float]
    ratios: list[float]


AnyContender = TypeVar("AnyContender", bound=Contender)


def present(
    contenders: Iterable[type[AnyContender]], only: Sequence[str]
) -> tuple[list[type[AnyContender]], dict[str, str]]:
    """Return the contenders that can take part, and why each of the others cannot."""
    chosen = [contender for contender in contenders if not only or contender.name in only]
    reasons = {contender.name: contender.missing() for contender in chosen}
    able = [contender for contender in chosen if reasons[contender.name] is None]
    return able, {name: reason for name, reason in reasons.items() if reason is not None}


def measure(workload: str, tasks: Sequence[Task], repeats: int, baseline: str = BASELINE) -> list[Row]:
    """Run every task `repeats` times, interleaved, and return one row for each."""
    samples: dict[str, list[Sample]] = {task.contender: [] for task in tasks}
    for repeat in range(repeats):
        turn = repeat % len(tasks)
        for task in (*tasks[turn:], *tasks[:turn]):
            samples[task.contender].append(task.run())
    costs = {name: [run.seconds / run.items for run in runs] for name, runs in samples.items()}
    base = costs.get(baseline, [])
    return [
        Row(
            workload,
            task.contender,
            task.note,
            costs[task.contender],
            [run.size / run.seconds for run in samples[task.contender]],
            [own / ours for own, ours in zip(costs[task.contender], base, strict=False)],
        )
        for task in tasks
    ]


def best_peer(rows: Sequence[Row], baseline: str = BASELINE) -> Row | None:
    """Return the row that comes closest to the baseline's, or passes it by most; None if nothing was compared."""
    compared = [row for row in rows if row.ratios and row.contender != baseline]
    return min(compared, key=lambda row: statistics.median(row.ratios), default=None)


def facts(contenders: Iterable[type[Contender]]) -> str:
    """Describe the machine and the versions in one line."""
    packages = dict.fromkeys(["numpy", *(contender.package for contender in contenders if contender.package)])
    versions = ", ".join(f"{package} {_version(package)}" for package in packages)
    cores = len(os.sched_getaffinity(0))
    return f"{_cpu()}, {cores} cores, Python {platform.python_version()}, {versions}"


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "(not installed: source tree)"


def _cpu() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


def spread(values: Sequence[float], form: str) -> str:
    """Write a median with its smallest and largest value: `1.5 (1.2..1.9)`."""
    middle = format(statistics.median(values), form)
    return middle if len(values) == 1 else f"{middle} ({min(values):{form}}..{max(values):{form}})"


class Report:
    """The table of one benchmark; fill it with `add` and `remark`, then `show` it and `save` it."""

    def __init__(
        self,
        title: str,
        contenders: Iterable[type[Contender]],
        absent: dict[str, str],
        baseline: str = BASELINE,
    ) -> None:
        self.title = title
        self.baseline = baseline
        self.facts = facts(contenders)
        self.absent = absent
        self.rows: list[Row] = []
        self.remarks: dict[str, Any] = {}

    def add(self, rows: Iterable[Row]) -> None:
        """Take the rows of one workload."""
        self.rows.extend(rows)

    def remark(self, text: str, measured: Any) -> None:
        """Take a line to print below the table, and the figures that it stands for, as JSON takes them."""
        self.remarks[text] = measured

    def show(self) -> None:
        """Print the table, the machine, and who was skipped and why."""
        console = Console(highlight=False)
        if not console.is_terminal:
            console.width = 130  # a file or a pipe: wide enough that no cell wraps
        if self.rows:
            console.print(self._table())
        for text in self.remarks:
            console.print(text, soft_wrap=True, markup=False)
        console.print(self.facts, soft_wrap=True)
        for name, reason in self.absent.items():
            console.print(f"skipped {name}: {reason}", soft_wrap=True, markup=False)

    def _table(self) -> Table:
        table = Table(title=self.title, caption="median (smallest..largest) of the repeats")
        for heading in ("workload", "contender"):
            table.add_column(heading, no_wrap=True)
        for heading in ("µs each", "per second", "GB/s", f"times {self.baseline}'s cost"):
            table.add_column(heading, justify="right", no_wrap=True)
        for row, following in zip(self.rows, [*self.rows[1:], None], strict=True):
            last = following is None or following.workload != row.workload
            table.add_row(*self._cells(row), end_section=last)
        return table

    def _cells(self, row: Row) -> Iterator[str]:
        yield row.workload
        yield f"{row.contender}, {row.note}" if row.note else row.contender
        yield spread([cost * 1e6 for cost in row.costs], ".2f")
        yield f"{1 / statistics.median(row.costs):,.0f}"
        yield f"{statistics.median(row.rates) / 1e9:.3f}"
        if row.contender == self.baseline:
            yield "1"
        else:
            yield spread(row.ratios, ".2f") if row.ratios else "-"

    def save(self, path: Path) -> None:
        """Write everything measured, every repeat of it, as JSON."""
        content = {"title": self.title, "facts": self.facts, "skipped": self.absent, "remarks": self.remarks}
        path.write_text(json.dumps({**content, "rows": [asdict(row) for row in self.rows]}, indent=2) + "\n")


def options(description: str, names: Sequence[str], workloads: Sequence[str]) -> argparse.ArgumentParser:
    """Return a parser of the options that every benchmark has; without `--only` if there are no names."""
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=description, formatter_class=layout)
    parser.add_argument("--repeats", type=int, default=5, help="timed runs of everything (default 5)")
    if names:
        parser.add_argument("--only", action="append", default=[], choices=names, help="these contenders alone")
    parser.add_argument("--workload", action="append", default=[], choices=workloads, help="these alone")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every measurement to FILE")
    return parser
