"""An exception on its way from a worker to the main process."""

from __future__ import annotations

import pickle
import signal
import traceback
from typing import TYPE_CHECKING, Any, NamedTuple

import cloudpickle

from splitpipe.errors import GeneratorError, RemoteTraceback, WorkerDiedError

if TYPE_CHECKING:
    from splitpipe.workers.process import WorkerProcess

__all__ = ["Failure", "capture", "explain_death", "rebuild"]


class Failure(NamedTuple):
    """What can be sent of an exception.

    Attributes:
        packed: the exception itself, pickled, or None if it does not survive that.
        summary: its type and text.
        text: its traceback in the worker.
        where: which worker, lane and item.
    """

    packed: bytes | None
    summary: str
    text: str
    where: str


def capture(exc: BaseException, where: str) -> Failure:
    """Return what can be sent of `exc`."""
    if isinstance(exc, SystemExit):
        died = WorkerDiedError(
            f"the generator called sys.exit({exc.code!r}) in {where}: return from it to end the lane, "
            "or raise an exception"
        )
        exc = died.with_traceback(exc.__traceback__)
    text = "".join(traceback.format_exception(exc))
    # Not str(exc), which may raise.
    summary = "".join(traceback.format_exception_only(type(exc), exc)).strip()
    return Failure(_packed(exc), summary, text, where)


def _packed(exc: BaseException) -> bytes | None:
    """Return the pickle of `exc` if the same comes out of it again."""
    try:
        packed: bytes = cloudpickle.dumps(exc)
        copy = pickle.loads(packed)
        same = type(copy) is type(exc) and str(copy) == str(exc)
    except Exception:  # noqa: BLE001  any error here says only that this exception cannot travel
        return None
    return packed if same else None


def rebuild(failure: Failure) -> BaseException:
    """Return the exception to raise in the main process, with the worker's traceback as its cause."""
    error: BaseException | None = None
    if failure.packed is not None:
        try:
            error = pickle.loads(failure.packed)
        except Exception:  # noqa: BLE001  loads there and not here, for whatever reason: the text is left
            error = None
    if error is None:
        error = GeneratorError(f"in {failure.where} the generator raised {failure.summary}")
    elif hasattr(error, "add_note"):
        error.add_note(f"raised in {failure.where}")
    error.__cause__ = RemoteTraceback(f"\n\n{failure.text}")
    return error


_HINTS = {
    "SIGKILL": "perhaps the system was out of memory (see `dmesg`): make batches smaller, or use fewer workers",
    "SIGSEGV": "a native extension crashed: the stack of the worker follows if it could still be taken",
    "SIGBUS": "memory-mapped data went away under the worker, or shared memory ran out",
    "SIGABRT": "a native extension gave up",
    "SIGTERM": "somebody ended it",
}


def explain_death(
    process: WorkerProcess, worker: int, waited_for: str, last_words: str, kills: int, has_started: bool
) -> WorkerDiedError:
    """Return the error for a worker that ended without being asked to.

    Args:
        process: the worker.
        worker: its number.
        waited_for: what the main process waited for.
        last_words: what it wrote when it died.
        kills: how many processes the system has killed since for want of memory.
        has_started: whether it came so far as to run anything.
    """
    process.reap()  # it has ended, and the forkserver, whose child it may be, needs a moment to tell how
    exitcode = process.exitcode()
    if exitcode is not None and exitcode < 0:
        try:
            name = signal.Signals(-exitcode).name
        except ValueError:
            name = f"signal {-exitcode}"
        how, hint = f"was killed by {name}", _HINTS.get(name, "look at what sends it")
        if name == "SIGKILL" and kills:
            hint = "the system was out of memory and killed it: make batches smaller, or use fewer workers"
    elif process.status_lost:
        how, hint = "ended", "nobody knows how, for its exit status was taken by os.wait(), or SIGCHLD is ignored"
    else:
        how, hint = f"exited with code {exitcode}", "something in the generator ends the process (os._exit?)"
        if not has_started:
            hint = (
                'it could not start, and says why on standard error. With start="spawn" or "forkserver" it imports '
                'your script, which then needs `if __name__ == "__main__":`; start="exec" does not'
            )
    peak = process.peak_bytes()
    memory = f", having used up to {peak / 1e6:,.0f} MB of memory," if peak else ""
    words: Any = f"\n{last_words}" if last_words else ""
    return WorkerDiedError(
        f"worker {worker} (pid {process.pid}) {how}{memory} while the main process waited for {waited_for}: "
        f"{hint}{words}",
        worker=worker,
        pid=process.pid,
        exitcode=exitcode,
    )
