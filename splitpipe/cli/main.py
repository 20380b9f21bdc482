"""The verbs of `splitpipe`, and what becomes of their errors: one line, and an exit code.

0 all is well · 1 it failed · 2 it was asked for something impossible · 130 interrupted
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Sequence
from importlib import metadata

from splitpipe.cli import care, demo, look
from splitpipe.cli.usage import UsageError
from splitpipe.errors import PickleRefusedError, SplitpipeError

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Args:
        arguments: what follows the program's name; by default what the process was started with.
    """
    parser = argparse.ArgumentParser(prog="splitpipe", description="Split a dataset into bins; pipe it to your loop.")
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    verbs = parser.add_subparsers(title="verbs", metavar="VERB")
    look.add_verbs(verbs)
    care.add_verbs(verbs)
    demo.add_verb(verbs)
    options = parser.parse_args(arguments)
    if options.version:
        print(f"splitpipe {metadata.version('splitpipe')}")
        return 0
    if not hasattr(options, "run"):
        parser.print_help()
        return 0
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A name that the terminal has no letters for is shown escaped, not as a traceback.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        code: int = options.run(options)
        sys.stdout.flush()  # here, where it is known what a broken pipe means
    except KeyboardInterrupt:
        return 130
    except UsageError as exc:
        print(f"splitpipe: {exc}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        sys.stdout = None  # whoever read it has seen enough (`| head`); nothing is to be flushed at exit
        return 0
    except PickleRefusedError as exc:
        print(f"splitpipe: {exc} (here: --allow-pickle)", file=sys.stderr)
        return 1
    except (SplitpipeError, OSError, ImportError) as exc:
        print(f"splitpipe: {exc}", file=sys.stderr)
        return 1
    return code
