"""`python -m splitpipe`: the command line."""

import sys

from splitpipe.cli import main

if __name__ == "__main__":
    sys.exit(main())
