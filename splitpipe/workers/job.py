"""What the workers are to run, and how it gets to them."""

from __future__ import annotations

import difflib
import functools
import inspect
import os
import pickle
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import cloudpickle

from splitpipe.errors import JobError
from splitpipe.lane import Lane
from splitpipe.transport.frames import unpicklable_part

__all__ = ["Job", "load_job", "store_job"]


@dataclass(frozen=True)
class Job:
    """A generator function with its arguments, and what every lane of it shares.

    Attributes:
        gen: called once per lane and epoch; returns an iterable.
        args: its arguments.
        kwargs: its keyword arguments.
        lanes: how many lanes an epoch has.
        seed: the pipeline's seed.
        init: called once in each worker before anything else, with the worker's number.
        rank: which of `world_size` main processes this is.
        world_size: how many main processes share each epoch.
        tail: what they do with what cannot be shared equally.
        skips: whether a source that raised is asked for its next item.
    """

    gen: Callable[..., Iterable[Any]]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    lanes: int
    seed: int
    init: Callable[[int], object] | None = None
    rank: int = 0
    world_size: int = 1
    tail: str = "drop"
    skips: bool = False

    @property
    def name(self) -> str:
        """What the generator function is called; the same in every process, for saved states to tell."""
        function: Any = self.gen
        while isinstance(function, functools.partial):
            function = function.func
        return str(getattr(function, "__qualname__", None) or type(function).__qualname__)

    @property
    def starts_anywhere(self) -> bool:
        """Whether `gen` takes `first=`, the number of items that it need not give again."""
        return bool(getattr(self.gen, "starts_anywhere", False))

    @property
    def lane_of_item(self) -> Callable[[Lane, int], Lane] | None:
        """Returns, for a lane and the number of one of its items, whose random numbers that item is made with.

        None if those of a lane go on from item to item.
        """
        found: Callable[[Lane, int], Lane] | None = getattr(self.gen, "lane_of_item", None)
        return found

    @property
    def draws(self) -> bool:
        """Whether `gen` may draw from the global random generators."""
        return bool(getattr(self.gen, "draws", True))

    def check(self, options: Iterable[str] = ()) -> None:
        """Raise JobError if `gen` cannot be called with these arguments.

        Args:
            options: names that a keyword may have been meant to be.
        """
        if not callable(self.gen):
            kind = type(self.gen).__qualname__
            raise JobError(
                f"MpQItr runs a generator function in its workers, and got a {kind}: pass the function itself, "
                "not what it returns"
            )
        try:
            signature = inspect.signature(self.gen)
        except (TypeError, ValueError):
            return  # some callables written in C have none; calling will tell
        try:
            signature.bind(*self.args, **self.kwargs)
        except TypeError as exc:
            meant = [word for name in self.kwargs if name not in signature.parameters for word in _near(name, options)]
            cure = f"Did you mean {meant[0]}=?" if meant else "An option of MpQItr is bound with functools.partial"
            raise JobError(f"{self.name}{signature} cannot be called with the arguments given: {exc}. {cure}") from None


# What other libraries call it.
_ELSEWHERE = {"num_workers": "workers", "prefetch_factor": "prefetch", "worker_init_fn": "init", "in_order": "ordered"}


def _near(name: str, options: Iterable[str]) -> list[str]:
    """Return options that `name` may have been meant to be."""
    return [_ELSEWHERE[name]] if name in _ELSEWHERE else difflib.get_close_matches(name, options, 1)


def store_job(job: Job) -> int:
    """Return the descriptor of a memfd that holds the job; every worker maps the same one.

    Raises:
        JobError: a part of the job does not pickle; it is named.
    """
    try:
        packed = cloudpickle.dumps(job)
    except Exception as exc:
        raise JobError(f"{_unpicklable(job)} cannot be sent to a worker: {exc}. Make it inside the function") from exc
    fd = os.memfd_create("splitpipe-job", os.MFD_CLOEXEC)
    with open(fd, "wb", closefd=False) as file:
        file.write(packed)
    return fd


def load_job(fd: int) -> Job:
    """Return the job stored in `fd`."""
    job: Job = pickle.loads(os.pread(fd, os.fstat(fd).st_size, 0))
    _adopt_main(job.gen)
    return job


def _adopt_main(gen: Any) -> None:
    """Let objects of classes of the user's script pickle here by name.

    The script is not imported in a worker; cloudpickle brings what the function uses of it. Standing in this
    process's `__main__`, a class is found by name when an instance is sent, and the main process finds its own.
    """
    function = inspect.unwrap(getattr(gen, "func", gen))
    if getattr(function, "__module__", None) == "__main__":
        main = sys.modules["__main__"].__dict__
        for name, value in getattr(function, "__globals__", {}).items():
            main.setdefault(name, value)


def _unpicklable(job: Job) -> str:
    used = _used_by(job.gen)
    for name, value in used.items():
        if unpicklable_part(value):
            return f"{name}, a {type(value).__qualname__} that {job.name} uses,"
    parts = [(f"the function {job.name}", job.gen), ("init", job.init)]
    parts += [(f"argument {at} of {job.name}", arg) for at, arg in enumerate(job.args)]
    parts += [(f"argument {name}= of {job.name}", arg) for name, arg in job.kwargs.items()]
    guilty = [f"{name}, a {type(part).__qualname__}," for name, part in parts if unpicklable_part(part)]
    return guilty[0] if guilty else f"the job of {job.name}"


def _used_by(gen: Any) -> Mapping[str, Any]:
    """Return what a function of the user's script uses that goes along with it."""
    function = inspect.unwrap(getattr(gen, "func", gen))
    try:
        used = inspect.getclosurevars(function)
    except (TypeError, ValueError):
        return {}
    outside = used.globals if getattr(function, "__module__", None) == "__main__" else {}
    return {**used.nonlocals, **outside}
