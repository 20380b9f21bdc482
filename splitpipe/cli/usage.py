"""The error of a command line that asks for something impossible."""

__all__ = ["UsageError"]


class UsageError(Exception):
    """The message is one line for the person at the keyboard; the exit code is 2."""
