"""The command line as a person meets it: in a process of its own, by its output and its exit code."""

import os
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import pytest

from splitpipe.cli.tokens import count_tokens, identifiers


def _splitpipe(*arguments: str | Path, **options: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "splitpipe", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=100, **options)  # type: ignore[call-overload,no-any-return]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Forty source files in two folders, one of them no text."""
    for i in range(40):
        path = tmp_path / "own" / f"part{i % 2}" / f"module{i}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"def frobnicate(thing{i}):\n    return 'quoted frobnicate', {i}  # comment\n" * 5)
    (tmp_path / "own" / "noise.bin").write_bytes(bytes(range(256)))
    return tmp_path / "own"


def test_the_demo_packs_a_folder_counts_and_compares(folder: Path) -> None:
    """Exit code 0, the right count, all three worker numbers, and the comparison is named."""
    done = _splitpipe("demo", "--data", folder)

    assert done.returncode == 0, done.stderr
    assert "records  41" in done.stdout
    assert "frobnicate 200" in done.stdout
    assert all(label in done.stdout for label in ("plain loop", "0 workers", "1 worker", "2 workers", "tokens/s"))
    assert "the counts of all tokens equal those of the plain loop" in " ".join(done.stdout.split())


def test_the_demo_fails_if_the_counts_differ(folder: Path, tmp_path: Path) -> None:
    """With a loader that drops a record, it says so and exits with 1: the comparison can fail."""
    script = tmp_path / "broken.py"
    script.write_text(
        "import itertools, sys\n"
        "from splitpipe import SplitDataLoader\n"
        "from splitpipe.cli import main\n"
        "whole = SplitDataLoader.iterate_binwise\n"
        "SplitDataLoader.iterate_binwise = lambda *a, **k: itertools.islice(whole(*a, **k), 1, None)\n"
        f"sys.exit(main(['demo', '--data', {str(folder)!r}]))\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=100)

    assert done.returncode == 1
    assert "THE COUNTS DIFFER" in done.stdout


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "there is no such folder"),
        (lambda path: path.mkdir(), "holds no files"),
        (lambda path: path.write_text("x"), "is a file"),
    ],
)
def test_a_folder_that_cannot_be_packed_gets_one_line_and_code_2(tmp_path: Path, make: object, message: str) -> None:
    """Missing, empty, or no folder at all."""
    make(tmp_path / "own")  # type: ignore[operator]
    done = _splitpipe("demo", "--data", tmp_path / "own")

    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


_AS_NOBODY = """
import os, sys
import rich, tqdm
from splitpipe.cli import main
if os.getuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("what", ["folder", "files"])
def test_what_may_not_be_read_gets_one_line_and_code_2(what: str) -> None:
    """A folder, or all files in one, without permission; as a user other than root, whom nothing stops."""
    with tempfile.TemporaryDirectory() as name:
        own = Path(name, "own")
        own.mkdir()
        (own / "secret").write_text("x")
        (own / "secret").chmod(0o000)
        Path(name).chmod(0o755)
        own.chmod(0o000 if what == "folder" else 0o755)
        command = [sys.executable, "-c", _AS_NOBODY, "demo", "--data", own]
        done = subprocess.run(command, capture_output=True, text=True, timeout=100)
        own.chmod(0o755)

    assert done.returncode == 2, done.stderr
    assert "permissions" in done.stderr
    assert done.stderr.count("\n") == 1


def test_ctrl_c_ends_the_demo_without_a_traceback(folder: Path) -> None:
    """Exit code 130, in the midst of work by a worker process, sent to the whole group as a terminal does."""
    for i in range(300):
        (folder / f"more{i}.py").write_text("x = 'y'\n" * 3000)
    process = subprocess.Popen(
        [sys.executable, "-m", "splitpipe", "demo", "--data", str(folder)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stderr is not None
    with process.stderr:
        errors = ""
        while "1 worker:" not in errors:
            errors += process.stderr.read(1)
        os.killpg(process.pid, signal.SIGINT)
        errors += process.stderr.read()

    assert process.wait(20) == 130
    assert "Traceback" not in errors


def test_the_version_and_the_help_are_there() -> None:
    """And no verb means help."""
    assert _splitpipe("--version").stdout.startswith("splitpipe 0.")
    assert "demo" in _splitpipe().stdout
    assert _splitpipe("nonsense").returncode == 2


def test_tokens_are_told_apart() -> None:
    """Names in strings and comments are no identifiers, and no byte is lost silently."""
    counts = count_tokens(b"def f(x): return 'f x' + f # f\n\xff")

    assert identifiers(counts) == Counter(f=2, x=1)
    assert counts["string"] == counts["comment"] == 1
    assert counts["operator"] == 5
