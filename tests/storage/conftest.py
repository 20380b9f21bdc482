"""A small data set for the tests of storage."""

from pathlib import Path

import pytest

from splitpipe import write_split_data

RECORDS = [bytes([65 + i]) * (i * 7 % 23) for i in range(26)]


@pytest.fixture
def records() -> list[bytes]:
    """Twenty-six records of 0 to 22 bytes, all different but for the empty ones."""
    return list(RECORDS)


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """The directory of a committed data set of `records` in four bins, with two columns."""
    target = tmp_path / "small"
    rows = [(record, {"size": len(record), "name": f"é{i}"}) for i, record in enumerate(RECORDS)]
    assert write_split_data(target, rows, splits=4, columns={"size": int, "name": str}) == len(RECORDS)
    return target
