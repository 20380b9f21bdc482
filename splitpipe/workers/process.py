"""Start, watch and stop one worker process: the only place that knows how an operating system does it."""

from __future__ import annotations

import abc
import contextlib
import importlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any, NoReturn

from splitpipe.errors import WorkerStartError
from splitpipe.workers import child
from splitpipe.workers.job import Job

__all__ = ["DESCRIPTORS", "START_METHODS", "WorkerProcess", "start_process", "stop_processes"]

START_METHODS = ("exec", "fork", "spawn", "forkserver")
# What of a worker's configuration is a descriptor that it inherits.
DESCRIPTORS = ("data", "control", "arena", "words", "job")

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


class WorkerProcess(abc.ABC):
    """A running worker.

    Attributes:
        pid: its process id.
        pidfd: a descriptor that becomes readable when the process ends.
        status_lost: whether it has ended, and something else in this process took its exit status.
    """

    status_lost = False

    def __init__(self, pid: int) -> None:
        self.pid = pid
        try:
            self.pidfd = os.pidfd_open(pid)
        except OSError as exc:
            # A worker that cannot be watched is not kept.
            os.kill(pid, signal.SIGKILL)
            self.reap()
            raise WorkerStartError(f"cannot watch worker process {pid}: {exc}. Raise the limit (`ulimit -n`)") from exc

    @abc.abstractmethod
    def exitcode(self) -> int | None:
        """Return how it ended, negative for a signal, or None if it runs; reaps it."""

    @abc.abstractmethod
    def reap(self) -> None:
        """Wait until it has ended."""

    def peak_bytes(self) -> int:
        """Return how much memory it had at most, once it has ended; 0 if that is not known."""
        return 0

    def signal(self, number: int) -> None:
        """Send a signal, unless it is gone."""
        if self.exitcode() is None:
            os.kill(self.pid, number)

    def close(self) -> None:
        """Give the descriptor back."""
        os.close(self.pidfd)


class _Child(WorkerProcess):
    """A child of this process that nobody else reaps."""

    def __init__(self, pid: int, popen: subprocess.Popen[bytes] | None = None) -> None:
        self._popen = popen
        self._exitcode: int | None = None
        self._peak = 0
        super().__init__(pid)

    def exitcode(self) -> int | None:
        if self._exitcode is None:
            self._wait(os.WNOHANG)
        return self._exitcode

    def reap(self) -> None:
        if self._exitcode is None:
            self._wait(0)

    def _wait(self, options: int) -> None:
        try:
            pid, status, usage = os.wait4(self.pid, options)
        except ChildProcessError:  # os.wait(), or SIGCHLD is ignored
            self.status_lost = True
            pid, status, usage = self.pid, 0, None
        if pid:
            self._exitcode = os.waitstatus_to_exitcode(status)
            self._peak = usage.ru_maxrss * 1024 if usage is not None else 0
            if self._popen is not None:
                self._popen.returncode = self._exitcode

    def peak_bytes(self) -> int:
        return self._peak


class _OfMultiprocessing(WorkerProcess):
    """A process that the standard library started, and reaps."""

    def __init__(self, process: Any) -> None:
        self._process = process
        super().__init__(process.pid)

    def exitcode(self) -> int | None:
        code: int | None = self._process.exitcode
        return code

    def reap(self) -> None:
        self._process.join()

    def close(self) -> None:
        super().close()
        self._process.join()
        self._process.close()


def start_process(method: str, config: dict[str, Any], job: Job) -> WorkerProcess:
    """Start a process that runs `child.run(config)`; it inherits the descriptors in `config` and no other.

    Args:
        method: one of `START_METHODS`.
        config: see `child.run`.
        job: for a forked process, which need not read it.

    Raises:
        WorkerStartError: the system refuses another process.
    """
    config = {**config, "is_child": method != "forkserver"}
    # Ctrl-C goes to the whole process group, and only the main process is to answer: the mask is inherited, until the
    # worker has set SIGINT to be ignored.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        if method == "exec":
            return _exec(config)
        if method == "fork":
            return _fork(config, job)
        return _of_multiprocessing(method, config)
    except OSError as exc:
        raise WorkerStartError(f"cannot start a worker process: {exc}. Use fewer workers, or raise the limit") from exc
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _exec(config: dict[str, Any]) -> WorkerProcess:
    """Start a fresh interpreter."""
    environment = {**dict.fromkeys(_ONE_THREAD, "1"), **os.environ}
    argument = json.dumps({**config, "path": sys.path})
    popen = subprocess.Popen(  # noqa: S603  our own interpreter and our own code
        [sys.executable, "-c", _BOOT, argument],
        pass_fds=[config[name] for name in DESCRIPTORS],
        env=environment,
        stdin=subprocess.DEVNULL,
    )
    return _Child(popen.pid, popen)


def _fork(config: dict[str, Any], job: Job) -> WorkerProcess:
    """Start a copy of this process."""
    # What waits in the buffers is this process's to print, and the copy would print it again.
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        _run_and_exit(config, job)
    return _Child(pid)


def _run_and_exit(config: dict[str, Any], job: Job) -> NoReturn:
    """Run in a forked child and never come back into the caller's code, of which there is another process."""
    code = 1
    try:
        _use_one_thread()
        child.run(config, job)
        sys.stdout.flush()
        code = 0
    finally:
        os._exit(code)


def _use_one_thread() -> None:
    """Have numeric libraries that are loaded already use one thread, unless the user has said otherwise."""
    if not any(name in os.environ for name in _ONE_THREAD):
        with contextlib.suppress(ImportError):
            importlib.import_module("threadpoolctl").threadpool_limits(1)
        if "torch" in sys.modules:
            sys.modules["torch"].set_num_threads(1)


def _of_multiprocessing(method: str, config: dict[str, Any]) -> WorkerProcess:
    """Start a process as the standard library does: it imports the user's script."""
    multiprocessing: Any = importlib.import_module("multiprocessing")
    reduction: Any = importlib.import_module("multiprocessing.reduction")
    if multiprocessing.current_process().daemon:
        raise WorkerStartError(f'a daemon process may not start="{method}" another: use start="exec"')
    process = multiprocessing.get_context(method).Process(
        target=_run_spawned, args=(config, _Inherited(config, reduction)), name="splitpipe-worker", daemon=True
    )
    with _one_thread_in_environment():
        process.start()
    return _OfMultiprocessing(process)


class _Inherited:
    """Descriptors that go along while a process is started, and are pickled only then."""

    def __init__(self, config: dict[str, Any], reduction: Any) -> None:
        self._fds = {name: config[name] for name in DESCRIPTORS}
        self._reduction = reduction

    def __reduce__(self) -> Any:
        return dict, ({name: self._reduction.DupFd(fd) for name, fd in self._fds.items()},)


def _run_spawned(config: dict[str, Any], inherited: dict[str, Any]) -> None:
    child.run({**config, **{name: fd.detach() for name, fd in inherited.items()}})


@contextlib.contextmanager
def _one_thread_in_environment() -> Iterator[None]:
    mine = [name for name in _ONE_THREAD if name not in os.environ]
    os.environ.update(dict.fromkeys(mine, "1"))
    try:
        yield
    finally:
        for name in mine:
            del os.environ[name]


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
