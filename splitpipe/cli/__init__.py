"""The command line.

`main.py` the verbs and the exit codes · `look.py` info, head and cat, `showing.py` a record as text · `care.py`
verify, salvage, clean, merge and compact · `demo.py` demo, `tokens.py` the work it does · `usage.py` the error of a
command line that asks for the impossible.
"""

from splitpipe.cli.main import main as main

__all__ = ("main",)
