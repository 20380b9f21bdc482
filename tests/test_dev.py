"""The script that sets the project up: what it decides before it installs anything."""

import subprocess
from pathlib import Path

import pytest

import dev


def test_an_old_python_gets_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Naming the version that is needed."""
    monkeypatch.setattr(dev.sys, "version_info", (3, 8, 1))

    assert dev.main(["test"]) == 2
    assert "needs Python 3.10 or newer" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["deploy"]])
def test_an_unknown_command_gets_the_list(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """And exit code 2."""
    assert dev.main(arguments) == 2
    assert "dev.py demo" in capsys.readouterr().err


def test_a_python_without_ensurepip_gets_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Naming the package to install, before anything is made or removed."""
    monkeypatch.setattr(dev.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(dev, "ready_environment", lambda: pytest.fail("it went on"))

    assert dev.main(["test"]) == 2
    errors = capsys.readouterr().err
    assert "apt install python3-venv" in errors
    assert errors.count("\n") == 1


def test_a_failed_installation_does_not_blame_what_is_there(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It names the command that failed; and Ctrl-C meanwhile is no traceback."""

    def fail(exc: BaseException) -> None:
        raise exc

    monkeypatch.setattr(dev, "ready_environment", lambda: fail(subprocess.CalledProcessError(1, ["pip", "install"])))
    assert dev.main(["demo"]) == 2
    assert capsys.readouterr().err == "dev.py: `pip install` failed: see above\n"

    monkeypatch.setattr(dev, "ready_environment", lambda: fail(KeyboardInterrupt()))
    assert dev.main(["demo"]) == 130


@pytest.mark.parametrize(("command", "folders"), [("demo", [None]), ("test", [dev.ROOT] * 3)])
def test_the_demo_runs_where_it_was_called_and_the_tests_in_the_project(
    command: str, folders: list[Path | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that a relative `--data DIR` is the caller's; further arguments go to the last step alone."""
    ran: list[tuple[list[str], Path | None]] = []

    def run(line: list[str], cwd: Path | None, check: bool) -> subprocess.CompletedProcess[str]:
        ran.append((line, cwd))
        return subprocess.CompletedProcess(line, 0)

    monkeypatch.setattr(dev, "ready_environment", lambda: "python")
    monkeypatch.setattr(dev.subprocess, "run", run)

    assert dev.main([command, "--more"]) == 0
    assert [cwd for _, cwd in ran] == folders
    assert ["--more" in line for line, _ in ran] == [False] * (len(ran) - 1) + [True]


def test_the_environment_is_made_again_when_its_requirements_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Made once, kept while pyproject.toml stays, remade when it changes or the last attempt broke off."""
    made: list[Path] = []

    def run(command: list[object], check: bool) -> None:
        if command[1:3] == ["-m", "venv"]:
            (tmp_path / ".venv" / "bin").mkdir(parents=True)
            (tmp_path / ".venv" / "bin" / "python").touch()
        else:
            made.append(tmp_path)

    monkeypatch.setattr(dev, "ROOT", tmp_path)
    monkeypatch.setattr(dev, "VENV", tmp_path / ".venv")
    monkeypatch.setattr(dev.subprocess, "run", run)
    (tmp_path / "pyproject.toml").write_text("one")
    for _ in range(2):
        dev.ready_environment()
    assert len(made) == 1
    (tmp_path / "pyproject.toml").write_text("two")
    dev.ready_environment()
    assert len(made) == 2
    (tmp_path / ".venv" / "made-from").unlink()
    dev.ready_environment()
    assert len(made) == 3
