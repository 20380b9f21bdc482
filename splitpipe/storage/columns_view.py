"""The columns of a data set as a mapping, and as the tables of other libraries."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["ColumnsView", "join_columns"]


class ColumnsView(Mapping[str, "NDArray[Any]"]):
    """The columns of a data set: name to an array with one element per record, loaded when first asked for.

    Numbers, booleans and datetimes are mapped from the disk. Where values are missing, floats are NaN, datetimes NaT,
    strings None, and integers and booleans a masked array.
    """

    def __init__(self, names: Iterable[str], load: Callable[[str], NDArray[Any]]) -> None:
        self._names = tuple(names)
        self._load = load
        self._loaded: dict[str, NDArray[Any]] = {}

    def __getitem__(self, name: str) -> NDArray[Any]:
        if name not in self._loaded:
            if name not in self._names:
                known = ", ".join(map(repr, self._names)) or "none"
                raise KeyError(f"no column {name!r}; this data set has {known}")
            self._loaded[name] = self._load(name)
        return self._loaded[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_loaded": {}}  # who unpickles it loads what is wanted there

    def __repr__(self) -> str:
        return f"<columns {', '.join(self._names) or 'none'}>"

    def to_pandas(self) -> Any:
        """Return a `pandas.DataFrame` with one row per record; missing values as pandas has them.

        Raises:
            ImportError: pandas is not installed; the message has the command that installs it.
        """
        pandas = _extra("pandas", "pandas")
        return pandas.DataFrame({name: _series(pandas, self[name]) for name in self})

    def to_arrow(self) -> Any:
        """Return a `pyarrow.Table` with one row per record; missing values are nulls.

        Raises:
            ImportError: pyarrow is not installed; the message has the command that installs it.
        """
        arrow = _extra("pyarrow", "arrow")
        return arrow.table({name: _arrow_array(arrow, self[name]) for name in self})


def join_columns(parts: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Return the parts of a column, one behind the other, as one array; what is missing in one stays missing."""
    if len(parts) == 1:
        return parts[0]
    if any(isinstance(part, np.ma.MaskedArray) for part in parts):
        masks = np.concatenate([np.ma.getmaskarray(part) for part in parts])
        return np.ma.MaskedArray(np.concatenate([np.asarray(part) for part in parts]), masks)
    if any(part.dtype.kind == "T" for part in parts):
        # numpy joins no strings that may be missing with strings that may not.
        widest = next((part.dtype for part in parts if hasattr(part.dtype, "na_object")), parts[0].dtype)
        return np.concatenate([np.array(part.tolist(), widest) for part in parts])
    return np.concatenate(parts)


def _series(pandas: Any, values: NDArray[Any]) -> Any:
    if isinstance(values, np.ma.MaskedArray):
        kind = "boolean" if values.dtype.kind == "b" else values.dtype.name.replace("i", "I").replace("uI", "UI")
        series = pandas.Series(values.data, dtype=kind)
        series[np.ma.getmaskarray(values)] = pandas.NA
        return series
    return pandas.Series(values.astype(object) if values.dtype.kind == "T" else np.array(values))


def _arrow_array(arrow: Any, values: NDArray[Any]) -> Any:
    if values.dtype.kind == "T":
        return arrow.array(values.tolist(), arrow.string())
    if isinstance(values, np.ma.MaskedArray):
        return arrow.array(values.data, mask=np.ma.getmaskarray(values))
    return arrow.array(np.asarray(values), from_pandas=True)


def _extra(module: str, extra: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as exc:
        raise ImportError(f'this needs {module}: pip install "splitpipe[{extra}]"') from exc
