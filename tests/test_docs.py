"""What the documentation shows is true: its snippets run, its bytes are a data set."""

import re
import shlex
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from splitpipe import SplitDataLoader, SplitWriter, verify, write_split_data

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
    assert verify(tmp_path).problems == ()


def test_the_tree_on_the_format_page_is_what_the_codec_writes(tmp_path: Path) -> None:
    """Template, slots and blobs lie where the page says."""
    write_split_data(tmp_path, [{"x": np.arange(3, dtype="i2"), "n": 7, "s": "hé"}], codec="tree", splits=1)
    (file,) = tmp_path.glob("*/*.bin")
    payload = file.read_bytes()[64:]
    template_bytes, slot_bytes = struct.unpack_from("<II", payload)
    slots = -(-(8 + template_bytes) // 8) * 8
    blobs = -(-(slots + slot_bytes) // 64) * 64

    assert f"`{payload[8 : 8 + template_bytes].decode()}`, {slot_bytes} bytes" in (ROOT / "docs/format.md").read_text()
    assert struct.unpack_from("<qQQ", payload, slots) == (7, 64, 3)
    assert payload[blobs : blobs + 6] == bytes.fromhex("00 00 01 00 02 00")
    assert payload[blobs + 64 : blobs + 67] == "hé".encode() == bytes.fromhex("68 c3 a9")


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


EXAMPLES = {
    "write_and_read.py": ["wrote 1000", "holds 1010 the last is b'record 1009'", "in another order: True"],
    "columns.py": ["50 records of label 3, the first is sample 3", "all the same: True"],
    "prefetch.py": ["epoch 0 records 1000", "epoch 1 records 1000"],
    "batches.py": [
        "rows: 512 in a batch, 20 batches, the last of 272 energy 29994.0",
        "trees: (100, 4, 4) float64 (100,) 100",
        "epochs: [1000, 1000]",
    ],
    "care.py": [
        "problems before: 0\ndamaged: record 242 in",
        "the next one: b'day 2, record 43'\nverify names it: [242]\nsaved 499 lost ((242, 242),)",
        "compacted: 500 records in 1 segment\nthe same: True\nproblems after: 0",
    ],
    "choosing_a_codec.py": [
        "json: {'id': 7, 'text': 'record 7: what they",
        "compressed to less than half: True",
        "dates: 2000-02-29 2000-12-31",
    ],
    "coming_from_acumenindexer.py": [
        "built 100\nimage 3: (8, 8, 3) float16 of 003.npy\nbright: 10 the first is 090.npy",
        "data set: 100 099.npy 99.0",
    ],
    "coming_from_ra_pickles.py": [
        "total 30\nelement 7: [7. 7. 7. 7.]\n10 of 30, all different: True\nwith replacement, 100 of 30: 100",
        "by threads: [1, 2, 3]\nwritten by each of three: [20, 20, 20]\nmerged: 60 more\ntotal 90",
    ],
    "coming_from_splitdataloader.py": ["1000\nb'2'\n499500\n499500 True"],
    "in_place.py": ["copied 60 batches,", "in_place 60 batches,", "kept 8 of which copied 2\nstill there: True"],
    "resume.py": ["killed by SIGKILL\ngoes on in epoch 1 after 48 batches\nbatches: 80 the same: True"],
    "seeing.py": [
        "the workers are the bottleneck, and do not compute",
        "the consumer is the bottleneck",
        "timeline: {'deliver': 22, 'produce': 22, 'send': 20, 'serialise': 20, 'wait': 22, 'wait for room': 20}",
    ],
    "torch_training.py": ["torch"],  # the result, or that it is not installed
}


@pytest.mark.parametrize("name", sorted(path.name for path in (ROOT / "examples").glob("*.py")))
def test_examples_run_and_print_what_they_promise(name: str, tmp_path: Path) -> None:
    """Each as a user would start it, in a fresh process; a new example needs its lines here."""
    done = subprocess.run(
        [sys.executable, "-W", "error", ROOT / "examples" / name], capture_output=True, text=True, cwd=tmp_path
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert all(line in done.stdout for line in EXAMPLES[name]), done.stdout


@pytest.mark.parametrize("page", ["README.md", "docs/storage.md", "docs/pipeline.md"])
def test_a_page_runs_from_top_to_bottom(page: str, tmp_path: Path) -> None:
    """Its Python blocks, one after the other, as one script; then its commands, where the script ran."""
    script = tmp_path / "page.py"
    script.write_text("\n".join(_blocks(page, "python")), encoding="utf-8")
    commands = [shlex.split(line, comments=True)[1:] for block in _blocks(page, "sh") for line in block.splitlines()]
    for command in [[script], *(["-m", "splitpipe", *command] for command in commands)]:
        done = subprocess.run(
            [sys.executable, "-W", "error", *command], capture_output=True, text=True, cwd=tmp_path, timeout=60
        )

        assert (done.returncode, done.stderr) == (0, ""), command


@pytest.mark.parametrize(
    "page", sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("**/*.md") if ".venv" not in str(path))
)
def test_links_lead_somewhere(page: str) -> None:
    """Every relative link of every page."""
    for target in re.findall(r"\]\(([^)#:]+)\)", (ROOT / page).read_text(encoding="utf-8")):
        assert ((ROOT / page).parent / target).exists(), target
