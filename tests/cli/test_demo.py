"""The command line as a person meets it: in a process of its own, by its output and its exit code."""

import os
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from splitpipe.cli import demo, main
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


def test_an_empty_name_is_no_folder_and_not_the_default() -> None:
    """`--data "$UNSET"` must not pack something else instead."""
    done = _splitpipe("demo", "--data", "")

    assert done.returncode == 2
    assert "there is no such folder" in done.stderr
    assert done.stdout == ""


def test_names_that_are_no_utf8_are_packed_and_named_on_any_terminal(folder: Path) -> None:
    """A file name of arbitrary bytes, and an identifier that an ASCII terminal cannot show."""
    Path(os.fsdecode(os.fsencode(folder) + b"/\xff.py")).write_text("größe = 1\n" * 900, encoding="utf-8")
    done = _splitpipe("demo", "--data", folder, env={**os.environ, "PYTHONIOENCODING": "ascii"})

    assert done.returncode == 0, done.stderr
    assert "records  42" in done.stdout
    assert r"gr\xf6\xdfe 900" in done.stdout


def test_a_log_is_not_filled_with_bars(folder: Path) -> None:
    """Without a terminal each pass shows its beginning and its end, however many batches it has."""
    for i in range(300):
        (folder / f"more{i}.py").write_text("x = 'y'\n" * 2000)
    done = _splitpipe("demo", "--data", folder)

    assert done.returncode == 0, done.stderr
    assert 3 <= done.stderr.count("file/s]") <= 3 * 3


@pytest.mark.parametrize("what", ["folder", "files", "parent"])
def test_what_may_not_be_read_gets_one_line_and_code_2(what: str) -> None:
    """A folder, all files in one, or what it lies in; as a user other than root, whom nothing stops."""
    with tempfile.TemporaryDirectory() as name:
        own = Path(name, "own")
        own.mkdir()
        (own / "secret").write_text("x")
        (own / "secret").chmod(0o000)
        Path(name).chmod(0o600 if what == "parent" else 0o755)
        own.chmod(0o000 if what == "folder" else 0o755)
        command = [sys.executable, "-c", _AS_NOBODY, "demo", "--data", own]
        done = subprocess.run(command, capture_output=True, text=True, timeout=100)
        Path(name).chmod(0o755)
        own.chmod(0o755)

    assert done.returncode == 2, done.stderr
    assert "permissions" in done.stderr
    assert done.stderr.count("\n") == 1


def test_what_may_not_be_read_beside_what_may_is_counted(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Nothing is left out silently; permission is refused by hand here, for nothing stops root."""
    allowed, walk = os.access, os.walk

    def access(path: Path, mode: int) -> bool:
        return "module7" not in str(path) and allowed(path, mode)

    def refuse(top: Path, onerror: Callable[[OSError], None]) -> Iterator[tuple[str, list[str], list[str]]]:
        onerror(PermissionError(13, "refused"))
        yield from walk(top)

    shown: list[dict[str, str]] = []
    monkeypatch.setattr(demo.os, "access", access)
    monkeypatch.setattr(demo.os, "walk", refuse)
    monkeypatch.setattr(demo, "_WORKERS", ())  # tqdm would leave its monitor thread
    monkeypatch.setattr(demo, "_show", lambda facts, passes, same: shown.append(facts))

    assert main(["demo", "--data", str(folder)]) == 0
    assert shown[0]["records"] == "40"
    assert shown[0]["left out"] == "1 files and 1 folders that may not be read"


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
