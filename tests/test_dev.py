"""The script that sets the project up: what it decides before it installs anything."""

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
