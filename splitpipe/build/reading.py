"""What the workers of a build do: call the user's function, encode what it returns, send it in parcels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splitpipe.codecs import Codec, Encoding
from splitpipe.errors import ColumnError
from splitpipe.workers.failures import Failure, capture

__all__ = ["Parcel", "Reading"]

_PARCEL_BYTES = 1 << 20


@dataclass
class Parcel:
    """Some records on their way to the main process.

    Attributes:
        data: the payloads, one behind the other, uint8.
        sizes: the length of each payload, int64.
        columns: for each column, the value of each record.
        failures: the inputs that failed, by number, and how.
        spec: what the codec says of itself; the dtype of `struct` comes with the first record.
        is_last: no more of this turn follows.
    """

    data: NDArray[np.uint8] = field(default_factory=lambda: np.empty(0, np.uint8))
    sizes: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    columns: dict[str, list[Any]] = field(default_factory=dict)
    failures: list[tuple[int, Failure]] = field(default_factory=list)
    spec: dict[str, Any] = field(default_factory=dict)
    is_last: bool = False

    def payloads(self) -> list[bytes]:
        """Return the payloads apart."""
        data, ends = self.data.tobytes(), np.cumsum(self.sizes).tolist()
        return [data[start:end] for start, end in zip([0, *ends], ends, strict=False)]


class Reading:
    """A generator function for a pipeline: yields the parcels of some turns, each turn being some inputs.

    Args:
        turns: for each turn, the number of its first input, and its inputs.
        read_fn: the user's function.
        encoding: what records become payloads with.
        columns: the names of the columns.
    """

    def __init__(
        self,
        turns: Sequence[tuple[int, Sequence[Any]]],
        read_fn: Callable[[Any], Any],
        encoding: Encoding,
        columns: Sequence[str],
    ) -> None:
        self._turns = turns
        self._read_fn = read_fn
        self._encoding = encoding
        self._columns = tuple(columns)

    def __call__(self) -> Iterator[Parcel]:
        """Yield one parcel or more for each turn; the last says so."""
        for first, inputs in self._turns:
            waiting = _Waiting(self._encoding, self._columns)
            for number, source in enumerate(inputs, first):
                yield from self._read(number, source, waiting)
            yield waiting.parcel(is_last=True)

    def _read(self, number: int, source: Any, waiting: _Waiting) -> Iterator[Parcel]:
        """Add what is made of one input to what waits; yield parcels when they are full."""
        try:
            for record, values in self._records(source):
                waiting.add(record, values)
                if waiting.size >= _PARCEL_BYTES:
                    yield waiting.parcel()
        except Exception as exc:  # noqa: BLE001  whatever the user's function raises is told with its input
            waiting.failures.append((number, capture(exc, f"input {number}")))

    def _records(self, source: Any) -> Iterator[tuple[Any, Mapping[str, Any]]]:
        """Yield the records made from one input, each with its columns."""
        result = self._read_fn(source)
        for record in result if isinstance(result, Iterator) else (result,):
            if record is None:
                continue
            if not self._columns:
                yield record, {}
            elif isinstance(record, tuple) and len(record) == 2 and isinstance(record[1], Mapping):
                yield record
            else:
                raise ColumnError(
                    f"with columns=..., read_fn returns (record, {{column: value}}), and returned a "
                    f"{type(record).__qualname__}"
                )


class _Waiting:
    """Payloads that are not sent yet."""

    def __init__(self, encoding: Encoding, columns: Sequence[str]) -> None:
        self._codec: Codec = encoding.codec
        self._compress = encoding.compress
        self._names = columns
        self._payloads: list[bytes] = []
        self._columns: dict[str, list[Any]] = {name: [] for name in columns}
        self.failures: list[tuple[int, Failure]] = []
        self.size = 0

    def add(self, record: Any, values: Mapping[str, Any]) -> None:
        payload = self._compress(self._codec.encode(record))
        if values.keys() != self._columns.keys():
            raise ColumnError(f"read_fn returned the columns {sorted(values)}, and the build has {sorted(self._names)}")
        self._payloads.append(payload)
        self.size += len(payload)
        for name, value in values.items():
            self._columns[name].append(value)

    def parcel(self, *, is_last: bool = False) -> Parcel:
        """Return what waits, and wait for more."""
        sizes = np.fromiter(map(len, self._payloads), np.int64, len(self._payloads))
        data = np.frombuffer(b"".join(self._payloads), np.uint8)
        made = Parcel(data, sizes, self._columns, self.failures, self._codec.spec(), is_last)
        self._payloads, self.size, self.failures = [], 0, []
        self._columns = {name: [] for name in self._names}
        return made
