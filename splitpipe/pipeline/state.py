"""The place of a pipeline in its epochs, as plain JSON: saved between two items, and resumed by another pipeline."""

from __future__ import annotations

import functools
import json
from collections import deque
from typing import Any

from splitpipe.errors import StateError
from splitpipe.workers import Job, Places

__all__ = ["load_state", "state_of"]

_VERSION = 1


def _identity(job: Job) -> dict[str, Any]:
    """Return what must be the same for a state to fit."""
    parts = [*_parts(job.gen), *job.args, *job.kwargs.values()]
    data = [str(part.fingerprint()) for part in parts if callable(getattr(part, "fingerprint", None))]
    return {
        "generator": job.name,
        "data": data,
        "seed": job.seed,
        "lanes": job.lanes,
        "rank": job.rank,
        "world_size": job.world_size,
        "tail": job.tail,
    }


def _parts(gen: Any) -> list[Any]:
    """Return a function, or what was bound to it and the function."""
    if isinstance(gen, functools.partial):
        return [*_parts(gen.func), *gen.args, *gen.keywords.values()]
    return [gen]


def state_of(job: Job, places: Places) -> dict[str, Any]:
    """Return the state at `places`: what was delivered, and nothing of what is under way."""
    return {
        "version": _VERSION,
        **_identity(job),
        "epoch": places.epoch,
        "items": places.items[:],
        "left": list(places.left),
        "states": {str(lane): state for lane, state in enumerate(places.states) if state},
    }


def load_state(job: Job, state: Any) -> Places:
    """Return the places that a state tells.

    Raises:
        StateError: it is none, or one of another pipeline.
    """
    if not isinstance(state, dict) or "version" not in state:
        raise StateError(f"a state is what state_dict() returned, and got a {type(state).__qualname__} without version")
    if state["version"] != _VERSION:
        raise StateError(
            f"the state is of version {state['version']!r}, and this splitpipe knows {_VERSION}: update it"
        )
    try:
        places = Places(
            int(state["epoch"]),
            [int(items) for items in state["items"]],
            [state["states"].get(str(lane), "") for lane in range(len(state["items"]))],
            deque(int(lane) for lane in state["left"]),
        )
        lanes = int(state["lanes"])
    except (KeyError, TypeError, ValueError, AttributeError) as exc:
        raise _damaged(exc) from exc
    movable = job.starts_anywhere and _in_turn(places)
    for name, mine in _identity(job).items():
        if state.get(name) != mine and not (name == "lanes" and movable):
            raise StateError(
                f"the state is of a pipeline with {name}={state.get(name)!r}, and this one has {name}={mine!r}: make "
                "the pipeline as it was, or begin anew without the state"
            )
    try:
        _check(places, lanes)
    except (TypeError, ValueError) as exc:
        raise _damaged(exc) from exc
    if lanes == job.lanes or places.epoch < 0:
        return places
    return _dealt(sum(places.items), places, job.lanes)


def _damaged(why: Exception) -> StateError:
    return StateError(f"the state is damaged: {why!r}. It is what state_dict() returned, unchanged")


def _check(places: Places, lanes: int) -> None:
    """Raise ValueError or TypeError if these can be the places of no pipeline."""
    count = lanes if places.epoch >= 0 else 0
    if len(places.items) != count or any(items < 0 for items in places.items):
        raise ValueError(f"items={places.items} of {count} lanes")
    if len(set(places.left)) < len(places.left) or not set(places.left) <= set(range(count)):
        raise ValueError(f"left={list(places.left)} of {count} lanes")
    for state in places.states:
        if state and not isinstance(json.loads(state), dict):
            raise ValueError(f"a lane's state is {state}")


def _in_turn(places: Places) -> bool:
    """Return whether the items came from the lanes in turn, so that their number alone tells which they were."""
    total, lanes = sum(places.items), len(places.items)
    return not places.left or places.items == [(total - lane + lanes - 1) // lanes for lane in range(lanes)]


def _dealt(total: int, places: Places, lanes: int) -> Places:
    """Return the places of so many lanes after `total` items taken in turn."""
    items = [(total - lane + lanes - 1) // lanes for lane in range(lanes)]
    left = deque(range(lanes)) if places.left else deque[int]()
    left.rotate(-(total % lanes))
    return Places(places.epoch, items, [""] * lanes, left)
