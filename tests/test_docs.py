"""What the documentation shows is true: its snippets run, its bytes are a data set."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from splitpipe import SplitDataLoader, SplitWriter, write_split_data

ROOT = Path(__file__).parent.parent
_FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def _blocks(page: str, language: str) -> list[str]:
    text = (ROOT / page).read_text(encoding="utf-8")
    return [body for kind, body in _FENCED.findall(text) if kind == language]


def _dumped_files(page: str) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of each file that the page shows as a dump."""
    text = (ROOT / page).read_text(encoding="utf-8")
    for name, dump in re.findall(r"^`([\w.-]+)`\n\n```\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        lines = [line[6:54].strip() for line in dump.splitlines()]
        yield name, bytes.fromhex("".join(lines))


def test_the_bytes_on_the_format_page_are_a_data_set(tmp_path: Path) -> None:
    """Every dumped file together opens, and holds what the page says."""
    segment = tmp_path / "segment-0000000000000001-00000000"
    segment.mkdir()
    for name, content in _dumped_files("docs/format.md"):
        (segment / name).write_bytes(content)
    data = SplitDataLoader(tmp_path, verify="always")

    assert list(data) == [b"apple", b"fig", b"cherry"]
    assert sorted(data.iterate_binwise()) == sorted(data)
    assert data.columns["label"].tolist() == [1, 2, 1]


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # a reader on one page may leave closing to Python
def test_the_reader_on_the_format_page_reads_what_splitpipe_writes(tmp_path: Path) -> None:
    """Several segments, one of them replaced by another."""
    namespace: dict[str, Any] = {}
    (code,) = _blocks("docs/format.md", "python")
    exec(code, namespace)  # noqa: S102  the page is our own
    write_split_data(tmp_path, [b"gone"])
    with SplitWriter(tmp_path, splits=3, start_clean=True) as writer:
        writer._remove_replaced = lambda: None  # type: ignore[method-assign]  # as if killed before it removed them
        for i in range(20):
            writer.add(b"x" * i)
    write_split_data(tmp_path, [b"more"])

    assert (
        list(namespace["read"](tmp_path))
        == list(SplitDataLoader(tmp_path))
        == [*(b"x" * i for i in range(20)), b"more"]
    )
