"""Start, watch and stop one worker process: the only place that knows how an operating system does it."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any, NoReturn

from splitpipe.errors import WorkerStartError

__all__ = ["WorkerProcess", "start_exec", "start_fork", "stop_processes"]

# How long a worker may take to notice that it is to end, and then to die of SIGTERM, before the next harder means.
_GRACE_S = 2.0
_TERMINATE_S = 1.0

# The user's __main__ is never imported: sys.path comes first, so that splitpipe is found wherever it was found here.
_BOOT = (
    "import json, sys; config = json.loads(sys.argv[1]); sys.path[:] = config.pop('path'); "
    "from splitpipe.workers.child import run; run(config)"
)

# One thread for each library that would else take every core, in each of several workers.
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")


class WorkerProcess:
    """A running worker.

    Attributes:
        pid: its process id.
        pidfd: a descriptor that becomes readable when the process ends.
    """

    def __init__(self, pid: int, popen: subprocess.Popen[bytes] | None = None) -> None:
        self.pid = pid
        self._popen = popen
        self._exitcode: int | None = None
        try:
            self.pidfd = os.pidfd_open(pid)
        except OSError as exc:
            # A worker that cannot be watched is not kept.
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            if popen is not None:
                popen.returncode = -signal.SIGKILL
            raise WorkerStartError(f"cannot watch worker process {pid}: {exc}. Raise the limit (`ulimit -n`)") from exc

    def exitcode(self) -> int | None:
        """Return how it ended, negative for a signal, or None if it runs; reaps it."""
        if self._popen is not None:
            return self._popen.poll()
        if self._exitcode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self._exitcode = os.waitstatus_to_exitcode(status) if pid else None
        return self._exitcode

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, unless it is gone."""
        if self.exitcode() is None:
            os.kill(self.pid, number)

    def close(self) -> None:
        """Give the descriptor back."""
        os.close(self.pidfd)


def start_exec(config: dict[str, Any], fds: Iterable[int]) -> WorkerProcess:
    """Start a fresh interpreter that runs `child.run(config)`; it inherits `fds` and no other descriptor.

    Raises:
        WorkerStartError: the system refuses another process.
    """
    environment = {**dict.fromkeys(_ONE_THREAD, "1"), **os.environ}
    argument = json.dumps({**config, "path": sys.path})
    # Ctrl-C goes to the whole process group, and only the main process is to answer: the mask survives exec until the
    # worker has set SIGINT to be ignored.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        popen = subprocess.Popen(  # noqa: S603  our own interpreter and our own code
            [sys.executable, "-c", _BOOT, argument], pass_fds=tuple(fds), env=environment, stdin=subprocess.DEVNULL
        )
    except OSError as exc:
        raise WorkerStartError(f"cannot start a worker process: {exc}. Use fewer workers, or raise the limit") from exc
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return WorkerProcess(popen.pid, popen)


def start_fork(run: Callable[[], None]) -> WorkerProcess:
    """Start a copy of this process that calls `run` and ends; raises as `start_exec`."""
    # What waits in the buffers is this process's to print, and the copy would print it again.
    sys.stdout.flush()
    sys.stderr.flush()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        pid = os.fork()
    except OSError as exc:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        raise WorkerStartError(f"cannot fork a worker process: {exc}. Use fewer workers, or raise the limit") from exc
    if pid == 0:
        _run_and_exit(run)
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return WorkerProcess(pid)


def _run_and_exit(run: Callable[[], None]) -> NoReturn:
    """Call `run` in a forked child and never come back into the caller's code, of which there is another process."""
    code = 1
    try:
        run()
        sys.stdout.flush()
        code = 0
    finally:
        os._exit(code)


def stop_processes(processes: list[WorkerProcess]) -> None:
    """Wait for processes that were told to end, together; the late are terminated, then killed. All are reaped."""
    left = _wait(processes, _GRACE_S)
    for process in left:
        process.signal(signal.SIGTERM)
    left = _wait(left, _TERMINATE_S)
    for process in left:
        process.signal(signal.SIGKILL)
    _wait(left, None)
    for process in processes:
        process.exitcode()
        process.close()


def _wait(processes: list[WorkerProcess], seconds: float | None) -> list[WorkerProcess]:
    """Return those that still run after at most `seconds`."""
    deadline = None if seconds is None else time.monotonic() + seconds
    running = {process.pidfd: process for process in processes}
    poller = select.poll()
    for pidfd in running:
        poller.register(pidfd, select.POLLIN)
    while running:
        left = None if deadline is None else max(0.0, deadline - time.monotonic()) * 1000
        ended = poller.poll(left)
        if not ended:
            break
        for pidfd, _ in ended:
            poller.unregister(pidfd)
            del running[pidfd]
    return list(running.values())
