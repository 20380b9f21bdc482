"""What the workers are to run, and how it gets to them."""

from __future__ import annotations

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
    def draws(self) -> bool:
        """Whether `gen` may draw from the global random generators."""
        return bool(getattr(self.gen, "draws", True))

    def check(self) -> None:
        """Raise JobError if `gen` cannot be called with these arguments."""
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
            raise JobError(
                f"{self.name}{signature} cannot be called with the arguments given: {exc}. A keyword that is an option "
                "of MpQItr too is bound with functools.partial"
            ) from None


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
    parts = [(f"the function {job.name}", job.gen), ("init", job.init)]
    parts += [(f"argument {at} of {job.name}", arg) for at, arg in enumerate(job.args)]
    parts += [(f"argument {name}= of {job.name}", arg) for name, arg in job.kwargs.items()]
    guilty = [f"{name}, a {type(part).__qualname__}," for name, part in parts if unpicklable_part(part)]
    return guilty[0] if guilty else f"the job of {job.name}"
