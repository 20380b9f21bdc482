"""A progress bar that says who is the bottleneck."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from splitpipe.progress import make_bar

__all__ = ["with_bar"]

T = TypeVar("T")

_EVERY_S = 1.0


def with_bar(
    items: Iterator[T], *, label: str, total: int | None, done: int, verdict: Callable[[], str]
) -> Iterator[T]:
    """Return `items`, drawing a bar on standard error as they are taken.

    Args:
        items: what to iterate over.
        label: what the bar is called.
        total: how many items there will be, if that is known.
        done: how many were delivered before.
        verdict: says who is the bottleneck.

    Raises:
        ImportError: tqdm is not installed; the message has the command that installs it.
    """
    return _drawn(items, make_bar(unit="it", label=label, total=total, done=done), verdict)


def _drawn(items: Iterator[T], bar: Any, verdict: Callable[[], str]) -> Iterator[T]:
    then = time.monotonic() + _EVERY_S
    with bar:
        for item in items:
            yield item
            bar.update()
            if time.monotonic() > then:
                then += _EVERY_S
                bar.set_postfix_str(verdict().split(":")[0], refresh=False)
        bar.set_postfix_str(verdict().split(":")[0], refresh=False)
