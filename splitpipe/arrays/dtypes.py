"""dtypes as plain Python values that numpy of any version takes for them, and back."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from splitpipe.errors import ArrayTypeError

__all__ = ["describe", "parse"]

# What numpy calls the dtypes that are stored; numpy.dtype itself takes far more for a name than it ever gives.
_NAME = re.compile(r"[<>|=]?[biufcSUVmM?][0-9]*(\[[0-9A-Za-zµμ]+\])?")


def describe(dtype: np.dtype[Any]) -> Any:
    """Return a str, or a dict of lists and tuples, that `numpy.dtype` takes for `dtype`.

    Raises:
        ArrayTypeError: it holds Python objects, or is of a kind that has no such description.
    """
    if dtype.hasobject:
        raise ArrayTypeError(
            f"an array of {dtype} holds Python objects, and those cannot be mapped: store it inside a list, which is "
            "pickled, or convert it to a dtype of fixed size"
        )
    described = _described(dtype)
    if parse(described) != dtype:
        raise ArrayTypeError(f"numpy has no description of {dtype} that leads back to it: store a view of its bytes")
    return described


def parse(described: Any) -> np.dtype[Any]:
    """Return the dtype that `describe` described.

    Raises:
        ValueError: it describes none, or one with objects.
    """
    try:
        dtype: np.dtype[Any] = np.dtype(_checked(described))
    except (TypeError, KeyError, SyntaxError, OverflowError) as exc:
        raise ValueError(f"names a dtype that numpy does not know: {described!r}: {exc}") from exc
    if dtype.hasobject:
        raise ValueError(f"names a dtype with Python objects: {described!r}")
    return dtype


def _described(dtype: np.dtype[Any]) -> Any:
    if dtype.subdtype is not None:
        base, shape = dtype.subdtype
        return _described(base), tuple(map(int, shape))
    if dtype.names is None or dtype.fields is None:
        return dtype.str
    fields = [dtype.fields[name] for name in dtype.names]
    described: dict[str, Any] = {
        "names": list(dtype.names),
        "formats": [_described(field[0]) for field in fields],
        "offsets": [int(field[1]) for field in fields],
        "itemsize": int(dtype.itemsize),
    }
    if any(len(field) > 2 for field in fields):
        described["titles"] = [field[2] if len(field) > 2 else None for field in fields]
    return described


def _checked(described: Any) -> Any:
    """Return `described` if it has the form that `_described` gives it."""
    if isinstance(described, str) and _NAME.fullmatch(described):
        return described
    if isinstance(described, tuple) and len(described) == 2 and isinstance(described[1], tuple):
        return _checked(described[0]), described[1]
    if isinstance(described, dict) and isinstance(described.get("formats"), list):
        return {**described, "formats": [_checked(each) for each in described["formats"]]}
    raise TypeError("neither a name, nor fields, nor an array of them")
