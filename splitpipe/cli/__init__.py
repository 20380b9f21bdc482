"""The command line.

`main.py` the verbs and the exit codes · `demo.py` a verb, `tokens.py` the work it does · `usage.py` the error of a
command line that asks for the impossible.
"""

from splitpipe.cli.main import main as main

__all__ = ("main",)
