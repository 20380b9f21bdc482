"""Counting the words of a source file: the CPU-heavy work of the demo."""

from __future__ import annotations

import keyword
import re
from collections import Counter

__all__ = ["count_tokens", "identifiers"]

# Strings, comments, identifiers, numbers, operators; in this order, so that words in a string are not identifiers.
_TOKEN = re.compile(
    r"""
    (?P<string>(?:[rbuf]{0,2})(?:\"\"\".*?\"\"\"|'''.*?'''|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'))
    | (?P<comment>\#[^\n]*)
    | (?P<name>[^\W\d]\w*)
    | (?P<number>\d[\w.]*)
    | (?P<operator>[^\w\s])
    """,
    re.VERBOSE | re.DOTALL | re.IGNORECASE,
)
# What an identifier is told from other tokens by: the first character of its key in the counts.
_NAME = "name:"


def count_tokens(source: bytes) -> Counter[str]:
    """Return how often each token occurs in a source file; names as they are, other tokens by their kind.

    Bytes that are no UTF-8 count as operators. One regular expression in place of Python's `tokenize`, because that
    refuses files that are no valid Python, of which even the standard library's tests hold some, and takes two and a
    half times as long: the demo is to end within half a minute.
    """
    counts: Counter[str] = Counter()
    for match in _TOKEN.finditer(source.decode("utf-8", "replace")):
        kind = match.lastgroup or "operator"
        counts[_NAME + match.group() if kind == "name" else kind] += 1
    return counts


def identifiers(counts: Counter[str]) -> Counter[str]:
    """Return the counts of identifiers alone, without Python's keywords."""
    names = {token[len(_NAME) :]: count for token, count in counts.items() if token.startswith(_NAME)}
    return Counter({name: count for name, count in names.items() if not keyword.iskeyword(name)})
