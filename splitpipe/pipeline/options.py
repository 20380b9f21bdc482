"""What may be said of a pipeline, checked."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from splitpipe.lane import outer_lane
from splitpipe.pipeline.ranks import find_rank
from splitpipe.workers.process import START_METHODS
from splitpipe.workers.resources import default_max_bytes, usable_cores
from splitpipe.workers.team import TeamOptions

__all__ = ["Options", "check_names"]

OnError = Literal["raise", "skip"] | Callable[[BaseException], object]


@dataclass(frozen=True)
class Options:
    """The options of `MpQItr`, in whose docstring they are explained."""

    workers: int | str
    lanes: int | None
    ordered: bool
    prefetch: int
    max_bytes: int | None
    start: str
    seed: int
    rank: int | None
    world_size: int | None
    tail: str | None
    restarts: int
    timeout: float | None
    on_error: OnError
    length: int | None
    epochs: int | None
    progress: bool
    trace: str | os.PathLike[str] | None

    def __post_init__(self) -> None:
        if not self.adjusts:
            _check_count("workers", self.workers, 0)
        for name, least in (("prefetch", 1), ("seed", 0), ("restarts", 0)):
            _check_count(name, getattr(self, name), least)
        for name, least in (("lanes", 1), ("max_bytes", 1), ("epochs", 1), ("length", 0)):
            if getattr(self, name) is not None:
                _check_count(name, getattr(self, name), least)
        _check_choice("start", self.start, (*START_METHODS, "thread"))
        _check_choice("tail", self.tail, (None, "drop", "pad", "uneven"))
        if not callable(self.on_error):
            _check_choice("on_error", self.on_error, ("raise", "skip"))
        if self.timeout is not None and not (isinstance(self.timeout, int | float) and self.timeout > 0):
            raise ValueError(f"timeout is a number of seconds above 0, or None, and got {self.timeout!r}")
        self.ranks()

    @property
    def adjusts(self) -> bool:
        """Whether the number of workers is found out."""
        return self.workers == "auto"

    def most_workers(self) -> int:
        """Return how many workers there may be."""
        return usable_cores() if isinstance(self.workers, str) else self.workers

    def lane_count(self) -> int:
        """Return how many lanes there are."""
        return self.lanes or max(self.most_workers(), 1)

    def ranks(self) -> tuple[int, int]:
        """Return rank and world size."""
        return find_rank(self.rank, self.world_size)

    def tail_kind(self) -> str:
        """Return what the ranks do with what they cannot share equally; lanes that are ranks leave nothing out."""
        return self.tail or ("drop" if outer_lane() is None else "uneven")

    def team(self, workers: int) -> TeamOptions:
        """Return what a team of so many workers needs to know."""
        return TeamOptions(
            workers,
            self.prefetch,
            self.start,
            default_max_bytes() if self.max_bytes is None else self.max_bytes,
            self.restarts,
            self.epochs,
            os.path.abspath(self.trace) if self.trace else "",  # noqa: PTH100  a str, which goes to another process
        )


def check_names(gen: Callable[..., Any], options: Options, defaults: dict[str, Any]) -> None:
    """Raise TypeError if a keyword was taken for an option, and may have been meant for the generator.

    Args:
        gen: the generator function.
        options: what was given.
        defaults: what each option is unless it is given.
    """
    try:
        parameters = inspect.signature(gen).parameters
    except (TypeError, ValueError):
        return
    bound = gen.keywords if isinstance(gen, functools.partial) else {}
    for name, default in defaults.items():
        wants = name in parameters and parameters[name].kind is not inspect.Parameter.POSITIONAL_ONLY
        if wants and name not in bound and getattr(options, name) != default:
            raise TypeError(
                f"{name}= is an option of MpQItr and a parameter of the generator: which one is meant? For the "
                f"generator, pass functools.partial(gen, {name}=...)"
            )


def _check_count(name: str, value: Any, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        kinds = 'an int, or "auto"' if name == "workers" else "an int"
        raise TypeError(f"{name} is {kinds}, and got {value!r}")
    if value < least:
        raise ValueError(f"{name} is at least {least}, and got {value}")


def _check_choice(name: str, value: Any, choices: tuple[str | None, ...]) -> None:
    if value not in choices:
        names = ", ".join(f'"{choice}"' for choice in choices if choice)
        more = ", or a function" if name == "on_error" else ""
        raise ValueError(f"{name} is one of {names}{more}, and got {value!r}")
