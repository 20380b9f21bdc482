"""Every exception of splitpipe, one tree.

    SplitpipeError
    ├── StorageError
    │   ├── NotADatasetError(FileNotFoundError)   the path holds no committed data set
    │   ├── FormatVersionError                     written by a newer splitpipe
    │   ├── CorruptDataError(ValueError)           bytes on disk are not what was committed
    │   ├── ColumnError(ValueError)                a metadata value or column does not fit
    │   ├── BuildInputError(RuntimeError)          the function of a build failed with one of its inputs
    │   ├── WriterStateError                       add or commit after the writer was closed or aborted
    │   ├── ArrayNotFoundError(FileNotFoundError)  no file of named arrays at that path
    │   ├── ArrayFileError(ValueError)             the file is something else
    │   ├── ArrayKeyError(TypeError)               a key or name that is no string
    │   ├── ArrayTypeError(TypeError)              a value or dtype that cannot be held without loss
    │   ├── ArrayShapeError(ValueError)            rows of another shape, or a place that is not there
    │   ├── ArrayOverlapError(ValueError)          two processes wrote under one name
    │   ├── ViewsAliveError(BufferError)           mapped arrays would lose their file
    │   ├── ReadOnlyError(UnsupportedOperation)    opened for reading alone, and written to
    │   └── DiskFullError(OSError)                 no room; what was there stays
    ├── CodecError
    │   ├── UnknownCodecError(LookupError)         no codec of that name
    │   ├── RecordTypeError(TypeError)             the codec cannot hold a record of this type
    │   ├── PayloadError(ValueError)               bytes that the codec did not make
    │   ├── CollateError(ValueError)               records that differ too much to be one batch
    │   └── PickleRefusedError(PermissionError)    a pickle on disk, and nobody said to trust it
    └── PipelineError
        ├── WorkerDiedError                        a worker process ended without being asked to
        ├── WorkerStartError                       a worker process could not be brought to life
        ├── ItemError(TypeError)                   the generator made something that cannot be sent
        ├── JobError(TypeError)                    the generator function or its arguments cannot be sent
        ├── WorkerTimeoutError(TimeoutError)       no item within the time allowed
        ├── StateError(ValueError)                 a saved state is of another pipeline
        ├── GeneratorError(RuntimeError)           the generator raised something that cannot be sent as it is
        ├── RemoteTraceback                        the cause of an error from a worker: its traceback there
        ├── PipelineClosedError                    used after close()
        └── LaneNotAskedWarning(UserWarning)       every lane gives the same items, for the generator asks for none

Each subclasses the builtin that a caller would expect, names what happened and where, and ends in the cure.
They survive pickling, because an error may cross from a worker process.
"""

from __future__ import annotations

import io

__all__ = [
    "ArrayFileError",
    "ArrayKeyError",
    "ArrayNotFoundError",
    "ArrayOverlapError",
    "ArrayShapeError",
    "ArrayTypeError",
    "BuildInputError",
    "CodecError",
    "CollateError",
    "ColumnError",
    "CorruptDataError",
    "DiskFullError",
    "FormatVersionError",
    "GeneratorError",
    "ItemError",
    "JobError",
    "LaneNotAskedWarning",
    "NotADatasetError",
    "PayloadError",
    "PickleRefusedError",
    "PipelineClosedError",
    "PipelineError",
    "ReadOnlyError",
    "RecordTypeError",
    "RemoteTraceback",
    "SplitpipeError",
    "StateError",
    "StorageError",
    "UnknownCodecError",
    "ViewsAliveError",
    "WorkerDiedError",
    "WorkerStartError",
    "WorkerTimeoutError",
    "WriterStateError",
]


class SplitpipeError(Exception):
    """The root: catch it to catch everything that splitpipe itself raises."""


class StorageError(SplitpipeError):
    """Something about a data set on disk."""


class NotADatasetError(StorageError, FileNotFoundError):
    """The path holds no committed data set."""


class FormatVersionError(StorageError):
    """The data was written in a newer format than this version of splitpipe reads."""


class CorruptDataError(StorageError, ValueError):
    """Bytes on disk are not the bytes that were committed.

    Attributes:
        path: the damaged file.
        record: the record's number in the data set, where the damage has one.
        offset: where in the file, in bytes, where that is known.
    """

    def __init__(self, message: str, *, path: str = "", record: int | None = None, offset: int | None = None) -> None:
        super().__init__(message)
        self.path = path
        self.record = record
        self.offset = offset

    def __reduce__(self) -> tuple[object, ...]:
        # Exception's own __reduce__ passes `args` alone; the fields travel as state.
        return (type(self), self.args, self.__dict__)


class ColumnError(StorageError, ValueError):
    """A metadata column or one of its values does not fit."""


class BuildInputError(StorageError, RuntimeError):
    """The function given to `build_split_data` raised; its exception is the `__cause__`.

    Attributes:
        input: the number of the input, from 0.
    """

    def __init__(self, message: str, *, input: int = -1) -> None:
        super().__init__(message)
        self.input = input

    def __reduce__(self) -> tuple[object, ...]:
        return (type(self), self.args, self.__dict__)


class WriterStateError(StorageError):
    """The writer was used after it was closed or aborted."""


class ArrayNotFoundError(StorageError, FileNotFoundError):
    """There is no file at the path of a `MmapDict` or `BigArray`."""


class ArrayFileError(StorageError, ValueError):
    """The file is neither a `MmapDict` nor an array, whichever was asked for."""


class ArrayKeyError(StorageError, TypeError):
    """A key of a `MmapDict`, or a name in a `BigArray`, is a string, and something else was given."""


class ArrayTypeError(StorageError, TypeError):
    """The value cannot be stored, or not without losing some of it: Python objects, or another dtype."""


class ArrayShapeError(StorageError, ValueError):
    """Rows of another shape than the array has, or a place outside it."""


class ArrayOverlapError(StorageError, ValueError):
    """Another process wrote under the same name since this writer was opened."""


class ViewsAliveError(StorageError, BufferError):
    """Arrays of this process are still mapped from a file that was to be replaced."""


class ReadOnlyError(StorageError, io.UnsupportedOperation):
    """The file is open for reading alone, or is of a kind that is only read."""


class DiskFullError(StorageError, OSError):
    """The disk, a quota or a limit has no room for what was to be written."""


class CodecError(SplitpipeError):
    """Something about turning records into bytes and back."""


class UnknownCodecError(CodecError, LookupError):
    """No codec of that name is registered."""


class RecordTypeError(CodecError, TypeError):
    """The codec of this data set cannot hold a record of this type."""


class PayloadError(CodecError, ValueError):
    """The codec of this data set makes no such bytes."""


class CollateError(CodecError, ValueError):
    """The records differ too much to be made one batch."""


class PickleRefusedError(CodecError, PermissionError):
    """The records are pickles, and loading a pickle runs whatever its author wrote: it must be allowed."""


class PipelineError(SplitpipeError):
    """Something about worker processes and what they send."""


class WorkerDiedError(PipelineError):
    """A worker process ended without finishing its work and without raising.

    Attributes:
        worker: which worker, from 0.
        pid: its process id.
        exitcode: its exit status; negative for the signal that killed it.
    """

    def __init__(self, message: str, *, worker: int = -1, pid: int = -1, exitcode: int | None = None) -> None:
        super().__init__(message)
        self.worker = worker
        self.pid = pid
        self.exitcode = exitcode

    def __reduce__(self) -> tuple[object, ...]:
        return (type(self), self.args, self.__dict__)


class WorkerStartError(PipelineError):
    """A worker process could not be started."""


class WorkerTimeoutError(PipelineError, TimeoutError):
    """No item arrived within the time that the caller allowed."""


class StateError(PipelineError, ValueError):
    """A saved state is not one of this pipeline: of other data, other lanes, or no state at all."""


class ItemError(PipelineError, TypeError):
    """The generator produced something that cannot be sent to the main process."""


class JobError(PipelineError, TypeError):
    """The generator function or its arguments cannot be called or cannot be sent to a worker."""


class GeneratorError(PipelineError, RuntimeError):
    """The generator raised an exception that does not survive pickling; type and text are in the message."""


class RemoteTraceback(PipelineError):  # noqa: N818  what it is, not an error of its own
    """The traceback of an error as it was in the worker; it is the `__cause__` of what is raised here."""


class PipelineClosedError(PipelineError):
    """The pipeline was used after close()."""


class LaneNotAskedWarning(PipelineError, UserWarning):  # noqa: N818  a warning, as `-W error` shows it
    """A generator ran in several lanes and never asked which one it is, so each gave the same items."""
