"""MmapDict: a dictionary in one file that is a plain pickle, whose arrays are mapped."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, KeysView, Mapping, MutableMapping
from pathlib import Path
from typing import Any

from splitpipe.arrays.mmappickle import MmappickleFile, is_mmappickle
from splitpipe.arrays.pickle_file import PickleFile
from splitpipe.errors import ReadOnlyError

__all__ = ["MmapDict"]


class MmapDict(MutableMapping[str, Any]):
    """A dictionary in one file. Keys are strings, values anything that pickles.

    Arrays and masked arrays, of any dtype without Python objects, come back mapped: a `numpy.memmap` that is written to
    in place. The file is at all times a plain pickle: `pickle.load(open(path, "rb"))` gives all of it as a dict, with
    Python and numpy alone.

    What it shows is the state in which it was opened, with what was changed through it; `refresh` shows what others
    changed since. Several processes and threads may write: each change is made under a lock that ends with its process.
    It pickles to its path, and may be used after a fork.

    Args:
        path: of the file, which is made if it is not there.
        readonly: for reading alone. Files of mmappickle are always opened so.
        allow_pickle: load values that are more than builtin types and arrays, which runs whatever their author put
            into them. What was stored through this very object needs no leave.
        durability: "commit" lets each change wait until the disk has it. With "none" a change survives its process
            being killed at any instant, but may not survive a power cut before `flush`.

    Raises:
        ArrayNotFoundError: `readonly`, and there is no file; or there is no directory to make it in.
        ArrayFileError: the file is something else.
        CorruptDataError: it is cut short or damaged.
        FormatVersionError: it was written by a newer splitpipe.
        ReadOnlyError: it may not be written to.
        ValueError: `durability` is neither.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        readonly: bool = False,
        *,
        allow_pickle: bool = False,
        durability: str = "none",
    ) -> None:
        if durability not in ("commit", "none"):
            raise ValueError(f'durability is "commit" or "none", and got {durability!r}')
        self.path = Path(path).resolve()
        self.allow_pickle = allow_pickle
        self._durability = durability
        self._file: PickleFile | MmappickleFile
        if is_mmappickle(self.path):
            self._file, readonly = MmappickleFile(self.path), True
        else:
            self._file = PickleFile(self.path, readonly=readonly, durable=durability == "commit")
        self.readonly = readonly

    def __getitem__(self, key: str) -> Any:
        """Return the value of `key`; arrays as they lie in the file.

        Raises:
            KeyError: there is none.
            PickleRefusedError: it is a pickle of more than builtin types and arrays, and `allow_pickle` is not set.
            CorruptDataError: the bytes on disk are not what was stored.
        """
        return self._file.read(key, allow_pickle=self.allow_pickle)

    def __setitem__(self, key: str, value: Any) -> None:
        """Store `value`, an `EmptyNDArray` as zeros that take no room. An earlier value of `key` stays mapped.

        Raises:
            ArrayKeyError: `key` is no string.
            ArrayTypeError: `value` cannot be pickled, or is an array of Python objects.
            DiskFullError: there is no room; the file is as it was.
            ReadOnlyError: this is open for reading alone.
        """
        self._written().add([(key, value)])

    def __delitem__(self, key: str) -> None:
        """Take `key` out; `vacuum` gives its room back.

        Raises:
            KeyError: there is none.
            ReadOnlyError: this is open for reading alone.
        """
        self._written().delete([key])

    def update(self, other: Any = (), /, **kwargs: Any) -> None:
        """Store many values in one step: all of them, or none after an error; raises as assignment does."""
        items: Iterable[tuple[Any, Any]]
        if isinstance(other, Mapping):
            items = other.items()
        elif hasattr(other, "keys"):
            items = ((key, other[key]) for key in other.keys())  # noqa: SIM118  what dict.update takes too
        else:
            items = other
        last = dict(items)  # of a key that comes twice, its last value
        self._written().add({**last, **kwargs}.items())

    def __ior__(self, other: Any) -> MmapDict:
        self.update(other)
        return self

    def clear(self) -> None:
        """Take every key out."""
        self._written().delete(list(self))

    def keys(self) -> KeysView[str]:
        """Return the keys, in the order in which their values were stored."""
        return self._file.places.keys()

    def __contains__(self, key: object) -> bool:
        return key in self._file.places

    def __iter__(self) -> Iterator[str]:
        return iter(self._file.places)

    def __len__(self) -> int:
        return len(self._file.places)

    def _written(self) -> PickleFile:
        """Return the file to write to."""
        if self.readonly or isinstance(self._file, MmappickleFile):
            why = "is open read-only: open it without readonly=True to change it"
            if isinstance(self._file, MmappickleFile):
                why = "was written by mmappickle, whose files are only read: copy it, MmapDict(new).update(this)"
            raise ReadOnlyError(f"{self.path}: {why}")
        return self._file

    @property
    def commit_number(self) -> int:
        """How many changes the file has seen, as it is on the disk now; writing into a mapped array is none.

        As long as it stays the same, `refresh` has nothing to do.
        """
        return self._file.commit_number

    def refresh(self) -> bool:
        """Show what others changed since; return whether that is anything. No writer is waited for, or made to wait."""
        return self._file.refresh()

    def vacuum(self) -> None:
        """Give the room of deleted and replaced values back, by a new file in the place of this one.

        Other processes keep what they have mapped, as it was; what they write into it afterwards is lost.

        Raises:
            ViewsAliveError: arrays of this process are mapped from the file: drop them first.
            DiskFullError: there is no room for the new file; the file is as it was.
            ReadOnlyError: this is open for reading alone.
        """
        self._written().vacuum()

    def flush(self) -> None:
        """Wait until the disk has everything, what was written into mapped arrays as well."""
        self._file.sync()

    def close(self) -> None:
        """Let go of the file; arrays that are mapped from it stay."""
        self._file.close()

    def __enter__(self) -> MmapDict:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return _opened, (str(self.path), self.readonly, self.allow_pickle, self._durability)

    def __repr__(self) -> str:
        return f"<MmapDict {str(self.path)!r}: {len(self)} keys>"


def _opened(path: str, readonly: bool, allow_pickle: bool, durability: str) -> MmapDict:
    return MmapDict(path, readonly, allow_pickle=allow_pickle, durability=durability)
