"""The global generators of `random`, numpy and torch, each lane with a state of its own.

A copy of a process would repeat its random numbers, and lanes that share a process would take them from each other, so
that the items would depend on the number of workers.
"""

from __future__ import annotations

import random
import sys
from typing import Any

import numpy as np

from splitpipe.lane import Lane

__all__ = ["Borrowed", "GlobalRandomness"]

_numpy: Any = np.random  # whose types leave out the functions for the global generator
_PURPOSE = 2  # first word of the spawn key; see lane.py


class GlobalRandomness:
    """What the global generators are at while one lane runs.

    Args:
        lane: the lane, from whose seed, epoch and number they start.
    """

    def __init__(self, lane: Lane) -> None:
        sequence = np.random.SeedSequence(lane.seed, spawn_key=(_PURPOSE, lane.epoch, lane.number))
        self._words = sequence.generate_state(4)
        self._bits = np.random.MT19937(sequence)
        self._random: Any = None
        self._torch: Any = None

    def enter(self) -> None:
        """Set the global generators to this lane's states."""
        # numpy forgets half a normal pair here, in every lane at every item, so that all see the same.
        _numpy.set_bit_generator(self._bits)
        if self._random is None:
            random.seed(int.from_bytes(self._words.tobytes(), "little"))
        else:
            random.setstate(self._random)
        torch = sys.modules.get("torch")
        if torch is not None and hasattr(torch, "manual_seed"):
            if self._torch is None:
                torch.manual_seed(int(self._words[0]) << 32 | int(self._words[1]))
            else:
                torch.set_rng_state(self._torch)

    def stay(self) -> None:
        """Do what `enter` does where no other lane was in between."""
        _numpy.set_bit_generator(self._bits)

    def leave(self) -> None:
        """Keep the states for the next time."""
        self._random = random.getstate()
        torch = sys.modules.get("torch")
        if torch is not None and hasattr(torch, "get_rng_state"):
            self._torch = torch.get_rng_state()


class Borrowed:
    """The global generators of the calling thread's process, lent to a lane for one item, and given back as they were.

    Args:
        randomness: of the lane.
    """

    def __init__(self, randomness: GlobalRandomness) -> None:
        self._randomness = randomness

    def __enter__(self) -> None:
        self._numpy = _numpy.get_bit_generator()
        self._random = random.getstate()
        torch = sys.modules.get("torch")
        self._torch = torch.get_rng_state() if torch is not None and hasattr(torch, "get_rng_state") else None
        self._randomness.enter()

    def __exit__(self, *exc_info: object) -> None:
        self._randomness.leave()
        _numpy.set_bit_generator(self._numpy)
        random.setstate(self._random)
        if self._torch is not None:
            sys.modules["torch"].set_rng_state(self._torch)
