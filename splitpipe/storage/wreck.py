"""What is left of a damaged segment, found out from its index, its bins and its info; each is believed once checked."""

from __future__ import annotations

import contextlib
import json
import urllib.parse
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from splitpipe.errors import SplitpipeError
from splitpipe.storage.bin import map_file, missing, read_footer, read_rows
from splitpipe.storage.columns import later_column_specs, load_column
from splitpipe.storage.layout import (
    ENTRY_DTYPE,
    HEADER_BYTES,
    INDEX_NAME,
    INFO_NAME,
    OFFSET_BITS,
    OFFSET_MASK,
    ROW_DTYPE,
    bin_name,
    open_text,
)
from splitpipe.storage.segment import read_index

__all__ = ["Wreck"]


class Wreck:
    """The segment in directory `path`, whatever its state.

    Attributes:
        path: its directory.
        id: its id; empty if nothing tells.
        info: what its index says, or the copy beside it, or the bins; None if nothing tells.
        records: how many records it held; None if nothing tells.
        entries: where each record lies, as an index has it.
        intact: for each record whether its bytes are those committed.
        has_index: the index is there, and agrees with the bins.
        notes: what is damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.id = b""
        self.info: dict[str, Any] | None = None
        self.records: int | None = None
        self.entries: NDArray[Any] = np.empty(0, ENTRY_DTYPE)
        self.intact: NDArray[np.bool_] = np.empty(0, np.bool_)
        self.notes: list[str] = []
        self._maps: dict[int, Any] = {}
        indexed = self._read_index()
        self.has_index = indexed is not None
        if self.info is None:
            with self._noting():
                self.info = json.loads(open_text((path / INFO_NAME).read_bytes(), str(path / INFO_NAME)))
        for file in sorted(path.glob("[0-9]*.bin")):
            with self._noting():
                self._read_bin(int(file.stem), file)
        if indexed is not None:
            self._fill_from_index(indexed)
        self._note_lost_bins()
        if unreadable := self._why_unreadable():
            self.intact[:] = False
            self.notes.append(f"{path}: {unreadable}")

    def _why_unreadable(self) -> str:
        """Say why no record could be decoded even if its bytes are intact; empty if it can be."""
        if self.info is None:
            return "index and info are lost, and no bin tells what the codec was: no record can be read"
        compression = self.info["codec"].get("compression")
        if compression is not None and "dictionary" not in compression:  # a bin has its name alone
            name = compression["name"]
            return f"index and info are lost, and with them the dictionary of its {name}: no record can be read"
        return ""

    @contextlib.contextmanager
    def _noting(self) -> Iterator[None]:
        try:
            yield
        except (SplitpipeError, OSError) as exc:
            self.notes.append(str(exc))

    def _read_index(self) -> NDArray[Any] | None:
        with self._noting():
            index = map_file(self.path / INDEX_NAME)
            header, self.info = read_index(index, self.path / INDEX_NAME)
            self.id = header.segment
            self._expect(header.records)
            return np.frombuffer(index, ENTRY_DTYPE, header.records, HEADER_BYTES)
        return None

    def _expect(self, records: int) -> None:
        self.records = records
        self.entries = np.zeros(records, ENTRY_DTYPE)
        self.intact = np.zeros(records, np.bool_)

    def _read_bin(self, number: int, file: Path) -> None:
        """Take from a bin what its rows say, as far as its payloads agree."""
        source = self._maps[number] = map_file(file)
        footer = read_footer(source, file)
        self.id = self.id or footer.segment
        if footer.segment != self.id:
            self.notes.append(f"{file}: is of another segment")
            return
        if self.records is None:
            self._expect(footer.segment_records)
        if self.info is None:
            at = footer.rows_offset + footer.records * ROW_DTYPE.itemsize
            packed = source[at : at + footer.info_bytes]
            if zlib.crc32(packed) == footer.info_crc:  # if not, another bin may tell
                self.info = {**json.loads(packed), "columns": self._specs_of_files(), "replaces": []}
        rows = read_rows(source, file, footer.records)
        ordinals = rows.ordinals.astype(np.int64)
        self.entries["location"][ordinals] = rows.starts | np.uint64(number << OFFSET_BITS)
        self.entries["size"][ordinals] = rows.ends - rows.starts
        self.entries["crc"][ordinals] = rows.crcs
        if rows.payloads_are_intact(source):
            self.intact[ordinals] = True
        else:
            self.intact[ordinals] = [self._is_intact(ordinal) for ordinal in ordinals.tolist()]

    def _is_intact(self, ordinal: int) -> bool:
        payload = self.payload(ordinal)
        size, crc = int(self.entries["size"][ordinal]), int(self.entries["crc"][ordinal])
        return len(payload) == size and zlib.crc32(payload) == crc

    def _note_lost_bins(self) -> None:
        """Note the bins that are missing, where it is known that there were some."""
        for number, (length, _) in enumerate(self.info["bins"] if self.info and "bins" in self.info else ()):
            if length and number not in self._maps:
                self.notes.append(str(missing(self.path / bin_name(number))))

    def _fill_from_index(self, indexed: NDArray[Any]) -> None:
        """Take from the index what no row told, and see whether it agrees with what the rows told."""
        agrees = (indexed == self.entries) | (indexed["size"] == 0) & (self.entries["size"] == 0)
        if not agrees[self.intact].all():
            self.has_index = False
            self.notes.append(f"{self.path / INDEX_NAME}: differs from the bins")
        for ordinal in np.flatnonzero(~self.intact).tolist():
            self.entries[ordinal] = indexed[ordinal]
            self.intact[ordinal] = self._is_intact(ordinal)

    def payload(self, ordinal: int) -> bytes:
        """Return the bytes where a record should be; fewer than it has, if they are not there."""
        location, size = int(self.entries["location"][ordinal]), int(self.entries["size"][ordinal])
        source, offset = self._maps.get(location >> OFFSET_BITS), location & OFFSET_MASK
        return b"" if source is None else bytes(source[offset : offset + size])

    @property
    def bins(self) -> int:
        """How many bins it had, as far as its files tell."""
        return len(self.info["bins"]) if self.info and "bins" in self.info else max(self._maps, default=0) + 1

    def columns(self) -> dict[str, NDArray[Any]]:
        """Return the columns that are intact; what is wrong with the others is noted."""
        found: dict[str, NDArray[Any]] = {}
        for spec in self.column_specs():
            with self._noting():
                found[spec["name"]] = load_column(self.path, spec, self.records or 0)
        return found

    def column_specs(self) -> list[dict[str, Any]]:
        """Return what is known of its columns, those that were added later too."""
        later: list[dict[str, Any]] = []
        with self._noting():
            later = later_column_specs(self.path)
        return [*(self.info["columns"] if self.info else ()), *later]

    def _specs_of_files(self) -> list[dict[str, Any]]:
        """Return what the index would say of the columns, from their files; only their checksums cannot be checked."""
        parts: dict[str, dict[str, Path]] = {}
        for file in self.path.glob("column-*.npy"):
            name, _, part = file.name.removeprefix("column-").removesuffix(".npy").partition(".")
            parts.setdefault(name, {})[part or "values"] = file
        specs = []
        for name, files in sorted(parts.items()):
            kind = "str" if "text" in files else npy.open_memmap(files["values"], mode="r").dtype.str
            crcs = {part: zlib.crc32(file.read_bytes()) for part, file in files.items()}
            specs.append({"name": urllib.parse.unquote(name), "type": kind, "crcs": crcs})
        return specs
