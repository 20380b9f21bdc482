"""What several tests of pipelines need."""

import multiprocessing.forkserver
import multiprocessing.resource_tracker
from collections.abc import Iterator
from typing import Any

import pytest


@pytest.fixture
def helpers_end() -> Iterator[None]:
    """End the processes that the standard library starts for `spawn` and `forkserver`, and keeps for the next time."""
    yield
    server: Any = multiprocessing.forkserver._forkserver  # type: ignore[attr-defined]
    server._stop()
    tracker: Any = multiprocessing.resource_tracker._resource_tracker  # type: ignore[attr-defined]
    tracker._stop()
