"""add_column: a column for records that are committed already, without touching their bins."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from splitpipe.errors import ColumnError, NotADatasetError
from splitpipe.storage.catalog import segment_paths
from splitpipe.storage.columns import ColumnWriter, column_kinds, save_later_column
from splitpipe.storage.dataset import open_segments, why_no_dataset
from splitpipe.storage.durable import Disk

__all__ = ["add_column"]


def add_column(data_dir: str | os.PathLike[str], name: str, values: Any, kind: Any = None) -> None:
    """Add a column to the committed records of a data set; loaders that are opened afterwards have it.

    Killed in between, it leaves the data set without the column, and can be called again. Records that are appended
    later must carry the column too.

    Args:
        data_dir: the data set's directory.
        name: the column's name.
        values: one value per record, in their order; None for a missing one.
        kind: its type, as in `columns={name: type}`; by default as the first value, or as the array, tells.

    Raises:
        ColumnError: there is such a column, or other than one value per record, or one that does not fit.
        NotADatasetError: there is no committed data set.
    """
    path = Path(data_dir)
    segments = open_segments(segment_paths(path))
    try:
        if not segments:
            raise NotADatasetError(why_no_dataset(path))
        records = sum(segment.records for segment in segments)
        if any(spec["name"] == name for segment in segments for spec in segment.info["columns"]) or all(
            name in segment.column_types for segment in segments
        ):
            raise ColumnError(f"{path} has a column {name!r}: choose another name")
        column_kinds({name: kind})
        typed, checked = _checked(name, values, kind)
        if len(checked) != records:
            raise ColumnError(f"{path} has {records} records, and the column {name!r} got {len(checked)} values")
        for segment in segments:
            column = ColumnWriter(name, typed)
            for value in checked[segment.first : segment.first + segment.records]:
                column.append(value)
            save_later_column(segment.path, column, Disk())
    finally:
        for segment in segments:
            segment.close()


def _checked(name: str, values: Any, kind: Any) -> tuple[Any, list[Any]]:
    """Return the column's type and its values, each seen to fit."""
    if isinstance(values, np.ma.MaskedArray) and values.dtype.kind == "M":
        values = values.filled(np.datetime64("NaT", "s"))
    if isinstance(values, np.ndarray):
        kind = values.dtype if kind is None and values.dtype.kind not in "OU" else kind
        values = values if values.dtype.kind == "M" else values.tolist()
    writer = ColumnWriter(name, kind)
    checked = [writer.check(value) for value in values]
    return writer.kind, checked
