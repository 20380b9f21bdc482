"""Progress bars, by tqdm, imported when one is asked for."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from typing import Any, TypeVar

__all__ = ["progress_bar"]

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
    try:
        tqdm: Any = importlib.import_module("tqdm")
    except ImportError as exc:
        raise ImportError('progress=True needs tqdm: pip install "splitpipe[progress]"') from exc
    bar: Iterable[T] = tqdm.tqdm(items, unit=unit, desc=label, total=total, leave=True)
    return bar
