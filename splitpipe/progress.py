"""Progress bars, by tqdm, imported when one is asked for."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from typing import Any, TypeVar

__all__ = ["make_bar", "progress_bar"]

T = TypeVar("T")


def progress_bar(items: Iterable[T], *, unit: str, label: str, total: int | None = None) -> Iterable[T]:
    """Return `items`, drawing a bar on standard error as they are taken.

    Args:
        items: what to iterate over; its `len()`, if it has one, tells the end unless `total` does.
        unit: what one item is called.
        label: what the bar is called.
        total: how many items there will be.

    Raises:
        ImportError: tqdm is not installed; the message has the command that installs it.
    """
    bar: Iterable[T] = _tqdm()(items, unit=unit, desc=label, total=total, leave=True)
    return bar


def make_bar(*, unit: str, label: str, total: int | None = None, done: int = 0) -> Any:
    """Return a bar that is told of each item (`update`), and closes as a context manager; otherwise as above.

    Args:
        unit: what one item is called.
        label: what the bar is called.
        total: how many items there will be.
        done: how many of them were done before.
    """
    return _tqdm()(unit=unit, desc=label, total=total, initial=done, leave=True)


def _tqdm() -> Any:
    try:
        return importlib.import_module("tqdm").tqdm
    except ImportError as exc:
        raise ImportError('progress=True needs tqdm: pip install "splitpipe[progress]"') from exc
