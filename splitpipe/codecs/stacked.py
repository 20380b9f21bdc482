"""Many trees of one structure as one tree, whose leaves hold the values of all of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splitpipe.errors import CollateError
from splitpipe.memory import empty

__all__ = ["stack_trees"]


def stack_trees(trees: Sequence[Any], path: str = "record") -> Any:
    """Return one tree: arrays and numbers stacked along a new first axis, str and bytes as lists, None as None.

    Raises:
        CollateError: the trees differ in structure, or arrays in shape; the message says where.
    """
    first = trees[0]
    kinds = {type(tree) for tree in trees}
    if len(kinds) > 1 and not kinds <= {int, float, np.float64}:
        raise _different(path, " and ".join(sorted(kind.__qualname__ for kind in kinds)))
    if first is None:
        return None
    if isinstance(first, dict):
        if any(tree.keys() != first.keys() for tree in trees):
            raise _different(path, "dicts with other keys")
        return {key: stack_trees([tree[key] for tree in trees], f"{path}[{key!r}]") for key in first}
    if isinstance(first, list | tuple):
        if any(len(tree) != len(first) for tree in trees):
            raise _different(path, f"a {type(first).__name__} of other lengths")
        parts = [stack_trees([tree[i] for tree in trees], f"{path}[{i}]") for i in range(len(first))]
        return parts if isinstance(first, list) else tuple(parts)
    if isinstance(first, np.ndarray):
        if any((tree.shape, tree.dtype) != (first.shape, first.dtype) for tree in trees):
            found = sorted({f"{tree.dtype}{list(tree.shape)}" for tree in trees})
            raise _different(path, f"arrays of {', '.join(found[:3])}")
        # `out`, or numpy would turn big endian into little.
        return np.stack(trees, out=empty((len(trees), *first.shape), first.dtype))
    if isinstance(first, np.generic) and len(kinds) == 1:
        return _stack_scalars(trees, path)
    if isinstance(first, str | bytes):
        return list(trees)
    kind = np.float64 if kinds & {float, np.float64} else np.bool_ if kinds == {bool} else np.int64
    try:
        return np.array(trees, kind)
    except OverflowError:
        raise _different(path, "integers of more than 64 bits") from None


def _stack_scalars(scalars: Sequence[Any], path: str) -> NDArray[Any]:
    dtypes = {scalar.dtype for scalar in scalars}
    if len(dtypes) == 1:
        return np.array(scalars, dtypes.pop())
    if isinstance(scalars[0], np.str_ | np.bytes_):
        return np.array(scalars)  # of the longest
    raise _different(path, f"scalars of {', '.join(sorted(map(str, dtypes)))}")


def _different(path: str, what: str) -> CollateError:
    return CollateError(
        f"{path} is not alike in all records of a batch: {what}. Pass collate=list to get the records as they are, or "
        "a function of your own that makes one batch of a list of records"
    )
