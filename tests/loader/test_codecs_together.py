"""Data sets of different codecs, read as one."""

from pathlib import Path

import numpy as np
import pytest

from splitpipe import SplitDataLoader, concat, write_split_data
from splitpipe.errors import CollateError


def test_rows_of_two_dtypes_never_become_one_array(tmp_path: Path) -> None:
    """Not even if they are of one size: the bytes of one would be read as the other."""
    write_split_data(tmp_path / "ints", [(1,), (2,)], codec=np.dtype([("a", "<i4")]), splits=1)
    write_split_data(tmp_path / "floats", [(1.5,), (2.5,)], codec=np.dtype([("a", "<f4")]), splits=1)
    both = concat(SplitDataLoader(tmp_path / "ints"), SplitDataLoader(tmp_path / "floats"))

    assert [row["a"] for row in both] == [row["a"] for row in both.gather([0, 1, 2, 3])] == [1, 2, 1.5, 2.5]
    assert sorted(row["a"] for row in both.iterate_binwise(shuffle=True, window=2)) == [1, 1.5, 2, 2.5]
    assert [batch["a"].tolist() for batch in both.batches(2, shuffle=False)] == [[1, 2], [1.5, 2.5]]
    assert [row["a"] for row in next(iter(both.batches(4, shuffle=False, collate=list)))] == [1, 2, 1.5, 2.5]
    with pytest.raises(CollateError, match=r"<i4.*<f4.*collate=list"):
        next(iter(both.batches(4, shuffle=False)))
