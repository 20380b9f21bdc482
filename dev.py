#!/usr/bin/env python3
"""Set up a virtual environment beside this file and run a command of the project in it.

python3 dev.py demo [options]     the main job; options go to `splitpipe demo`
python3 dev.py test [options]     ruff, mypy and pytest; options go to pytest
"""

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
OLDEST = (3, 10)
COMMANDS = {
    "demo": [["-m", "splitpipe", "demo"]],
    "test": [["-m", "ruff", "check", "."], ["-m", "mypy"], ["-m", "pytest"]],
}


# Annotations are quoted so that an older Python gets as far as the line that tells it so.
def main(arguments: "list[str]") -> int:
    """Return the exit code of the command named by the first argument."""
    if sys.version_info < OLDEST:
        return fail(f"needs Python {OLDEST[0]}.{OLDEST[1]} or newer, and this is {sys.version.split()[0]}")
    if not arguments or arguments[0] not in COMMANDS:
        print((__doc__ or "").strip(), file=sys.stderr)
        return 2
    if importlib.util.find_spec("ensurepip") is None:
        return fail("this Python has no ensurepip; on Debian and Ubuntu: sudo apt install python3-venv")
    # The demo stays where it was called, so that `--data DIR` means the caller's folder.
    folder = None if arguments[0] == "demo" else ROOT
    *steps, last = COMMANDS[arguments[0]]
    try:
        python = ready_environment()
        for step in [*steps, last + arguments[1:]]:
            code = subprocess.run([python, *step], cwd=folder, check=False).returncode
            if code:
                return code
    except subprocess.CalledProcessError as exc:
        return fail(f"`{' '.join(map(str, exc.cmd))}` failed: see above")
    except KeyboardInterrupt:
        return 130
    return 0


def ready_environment() -> Path:
    """Return the Python of the environment, made anew if what it was made from has changed."""
    python = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    made_from = hashlib.sha256((ROOT / "pyproject.toml").read_bytes() + sys.version.encode()).hexdigest()
    stamp = VENV / "made-from"
    if not (stamp.exists() and stamp.read_text() == made_from and python.exists()):
        print(f"setting up {VENV}", file=sys.stderr)
        shutil.rmtree(VENV, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", VENV], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", "--editable", f"{ROOT}[dev]"], check=True)
        stamp.write_text(made_from)
    return python


def fail(message: str) -> int:
    """Say why nothing was done, and return the exit code for it."""
    print(f"dev.py: {message}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
