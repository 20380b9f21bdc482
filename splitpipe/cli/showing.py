"""A record of any codec as a person would want to see it, and as JSON."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

__all__ = ["as_json", "lines_of", "summary_of"]

_MAX_LINES = 40
_MAX_ELEMENTS = 8  # of an array, before it is only described
_BYTES_PER_LINE = 16


def lines_of(record: Any) -> list[str]:
    """Return a record as lines of text; what is very long is cut, and says so."""
    lines = list(_lines(record))
    if len(lines) > _MAX_LINES:
        return [*lines[:_MAX_LINES], f"… {len(lines) - _MAX_LINES} more lines; --json shows all"]
    return lines


def summary_of(record: Any, width: int = 100) -> str:
    """Return a record as one line of at most `width` characters."""
    line = " ".join(part.strip() for part in _lines(record))
    return line if len(line) <= width else line[: width - 1] + "…"


def as_json(value: Any) -> Any:
    """Return a record as JSON can hold it: arrays as lists, bytes that are no text in base64."""
    if isinstance(value, dict):
        return {key if isinstance(key, str) else repr(key): as_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(item) for item in value]
    if isinstance(value, bytes | bytearray | memoryview):
        text = _text(bytes(value))
        return text if text is not None else {"base64": base64.b64encode(value).decode("ascii")}
    if isinstance(value, np.void) and value.dtype.names:
        return {name: as_json(value[name]) for name in value.dtype.names}
    if isinstance(value, np.ndarray | np.generic):
        return _array_as_json(value)
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else repr(value)
    return repr(value)


def _array_as_json(value: Any) -> Any:
    if value.dtype.names or value.dtype.kind in "SVMmc":
        return as_json(value.tolist()) if value.dtype.kind in "SV" else value.astype(str).tolist()
    return as_json(value.tolist())


def _text(data: bytes) -> str | None:
    """Return `data` as text, if that is what it is."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return None
    return text if all(char.isprintable() or char in "\n\r\t" for char in text) else None


def _lines(value: Any, indent: str = "") -> Iterator[str]:
    if isinstance(value, bytes | bytearray | memoryview):
        text = _text(bytes(value))
        yield from (f"{indent}{line}" for line in (_hex_dump(bytes(value)) if text is None else text.splitlines()))
    elif isinstance(value, dict) and value:
        for key, item in value.items():
            yield from _named(str(key), item, indent)
    elif isinstance(value, np.void) and value.dtype.names:
        for name in value.dtype.names:
            yield from _named(name, value[name], indent)
    elif isinstance(value, list | tuple) and any(isinstance(item, dict | list | tuple | np.ndarray) for item in value):
        for at, item in enumerate(value):
            yield from _named(str(at), item, indent)
    elif isinstance(value, np.ndarray):
        yield f"{indent}{_array(value)}"
    elif isinstance(value, str):
        yield from (f"{indent}{line}" for line in value.splitlines() or [""])
    elif isinstance(value, np.generic):
        yield f"{indent}{value} ({value.dtype})"
    else:
        yield f"{indent}{json.dumps(value) if value is None or isinstance(value, bool) else repr(value)}"


def _named(name: str, value: Any, indent: str) -> Iterator[str]:
    lines = list(_lines(value, indent + "  "))
    if len(lines) == 1:
        yield f"{indent}{name}: {lines[0].strip()}"
    else:
        yield f"{indent}{name}:"
        yield from lines


def _array(array: np.ndarray[Any, Any]) -> str:
    head = f"array {array.dtype} {'x'.join(map(str, array.shape)) or 'scalar'}"
    if array.size <= _MAX_ELEMENTS:
        return f"{head}: {np.array2string(array, separator=', ', max_line_width=100_000)}".replace("\n", "")
    if array.dtype.kind in "biuf":
        with np.errstate(all="ignore"):  # of infinities there is no mean, and of float16 often none
            return f"{head}, {float(array.min()):.6g} to {float(array.max()):.6g}, mean {float(array.mean()):.6g}"
    return head


def _hex_dump(data: bytes) -> Iterator[str]:
    for start in range(0, len(data), _BYTES_PER_LINE):
        some = data[start : start + _BYTES_PER_LINE]
        shown = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in some)
        yield f"{start:08x}  {some.hex(' '):<{3 * _BYTES_PER_LINE}} {shown}"
