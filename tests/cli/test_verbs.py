"""The verbs that look at data sets and care for them: their text, their JSON and their exit codes."""

import json
import os
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from splitpipe import SplitDataLoader, write_split_data
from splitpipe.cli import main
from splitpipe.storage.layout import MAX_BINS

READING = ["info", "head", "verify", "clean", "compact", "salvage"]


class Shell:
    """Runs the command line within the process, and holds what came of it."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def run(self, *arguments: Any, code: int = 0) -> str:
        """Return what was printed; on failure, the one line of error."""
        found = main([str(argument) for argument in arguments])
        out, err = self._capsys.readouterr()
        assert (found, err.count("\n")) == (code, 0 if code == 0 else 1), err
        return out if code == 0 else err

    def json(self, *arguments: Any) -> Any:
        """Return what was printed as JSON."""
        return json.loads(self.run(*arguments, "--json"))


@pytest.fixture
def shell(capsys: pytest.CaptureFixture[str]) -> Shell:
    """The command line."""
    return Shell(capsys)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Twelve JSON records in two segments, with columns of which some values are missing."""
    rows: list[Any] = [
        ({"i": i, "text": f"é{i}\nsecond"}, {"n": None if i % 5 == 1 else i, "s": f"s{i}", "f": i / 2})
        for i in range(12)
    ]
    for part in (rows[:8], rows[8:]):
        write_split_data(tmp_path / "data", part, splits=2, codec="json", columns={"n": int, "s": str, "f": float})
    return tmp_path / "data"


CODECS: list[tuple[Any, list[Any], list[str], list[Any]]] = [
    ("bytes", [b"some text\nmore", b""], ["some text", "more"], ["some text\nmore", ""]),
    ("bytes", [bytes(range(250, 256)) * 4], ["00000000  fa fb fc fd fe ff"], [{"base64": "+vv8/f7/" * 4}]),
    ("json", [{"a": [1, None, True], "b": {"c": 0.5}}], ["a: [1, None, True]", "c: 0.5"], []),
    ("json+zstd", [None, "x"], ["null"], [None, "x"]),
    (
        "tree",
        [{"x": np.arange(3), "big": np.zeros((9, 9)), "mask": np.ones(9, bool), 1: b"\xff", "n": float("nan")}],
        [
            "x: array int64 3: [0, 1, 2]",
            "big: array float64 9x9, 0 to 0, mean 0",
            "mask: array bool 9, 1 to 1",
            "n: nan",
        ],
        [{"x": [0, 1, 2], "big": [[0.0] * 9] * 9, "mask": [True] * 9, "1": {"base64": "/w=="}, "n": "nan"}],
    ),
    (
        "tree",
        [
            [
                *(
                    np.array([np.inf, -np.inf] * 5),
                    np.array(["2026-01-01"], "M8[D]"),
                    np.array([1j]),
                    np.array([b"ab"]),
                ),
                *(np.zeros((0, 3)), np.array(5), np.float32(0.5), np.datetime64("NaT", "s"), np.str_("t"), (1, 2)),
                *(np.array([(1, b"x")], [("a", "i4"), ("b", "S1")]), np.full(9, 60000, "f2"), np.full(9, True)),
            ]
        ],
        ["array float64 10, -inf to inf, mean nan", "array float64 0x3: []", "array int64 scalar: 5", "mean 60000"],
        [],
    ),
    (
        np.dtype([("id", "<i4"), ("name", "S3"), ("xy", "f4", (2,)), ("when", "M8[s]")]),
        [(7, b"ab", (0.5, 1), np.datetime64("2026-01-01", "s"))],
        ["id: 7 (int32)", "name: ", "xy: array float32 2: [0.5, 1. ]", "when: 2026-01-01T00:00:00"],
        [{"id": 7, "name": "ab", "xy": [0.5, 1.0], "when": "2026-01-01T00:00:00"}],
    ),
    (np.dtype("<f8"), [np.float64(0.1)], ["0.1 (float64)"], [0.1]),
]


@pytest.mark.parametrize(("codec", "records", "shown", "as_json"), CODECS)
def test_records_of_each_codec_are_shown(
    shell: Shell, tmp_path: Path, codec: Any, records: list[Any], shown: list[str], as_json: list[Any]
) -> None:
    """By cat whole, by head in a line, and as JSON."""
    write_split_data(tmp_path, records, splits=1, codec=codec)

    text = shell.run("cat", tmp_path, *range(len(records)))
    assert text.startswith("record 0\n")
    assert all(part in text for part in shown), text
    assert shell.run("head", tmp_path).count("\n") == len(records)
    found = [entry["record"] for entry in shell.json("cat", tmp_path, *range(len(records)))]
    assert not as_json or found == as_json
    assert [entry["record"] for entry in shell.json("head", tmp_path)] == found
    assert shell.json("info", tmp_path)["codec"] == ("struct" if isinstance(codec, np.dtype) else codec)


def test_info_tells_what_a_data_set_holds(shell: Shell, data: Path, tmp_path: Path) -> None:
    """Records, codec, columns, segments and bins; for `struct` the dtype too."""
    facts = shell.json("info", data)
    text = shell.run("info", data)
    write_split_data(tmp_path / "rows", np.arange(3, dtype="<i4"), codec="struct")

    assert {name: facts[name] for name in ("records", "codec", "segments", "bins", "being written")} == {
        "records": 12,
        "codec": "json",
        "segments": 2,
        "bins": 4,
        "being written": 0,
    }
    assert facts["columns"] == {"n": "<i8", "s": "str", "f": "<f8"}
    assert facts["bytes"] == sum(path.stat().st_size for path in data.glob("*/*.bin"))
    assert "records:       12\n" in text
    assert "columns:       n (<i8), s (str), f (<f8)\n" in text
    assert shell.json("info", tmp_path / "rows")["dtype"] == "<i4"
    assert "columns:       none" in shell.run("info", tmp_path / "rows")


def test_head_shows_as_many_as_asked_for_with_their_columns(shell: Shell, data: Path) -> None:
    """A line each, ten by default; all there are at most."""
    lines = shell.run("head", data).splitlines()
    assert len(lines) == 10
    assert lines[0].startswith("     0  i: 0 text: é0 second  n=0  s=s0  f=0.0")
    assert "n=--" in lines[1]
    assert [shell.run("head", data, "-n", n).count("\n") for n in (0, 1, 99, -3)] == [0, 1, 12, 0]
    entries = shell.json("head", data, "--records", 2)
    assert entries[1] == {
        "number": 1,
        "record": {"i": 1, "text": "é1\nsecond"},
        "columns": {"n": None, "s": "s1", "f": 0.5},
    }


def test_cat_takes_numbers_from_either_end(shell: Shell, data: Path) -> None:
    """In the order asked for."""
    assert [entry["number"] for entry in shell.json("cat", data, 3, -1, 3)] == [3, 11, 3]
    text = shell.run("cat", data, -1)
    assert text.startswith("record 11\n  n = --\n  s = s11\n  f = 5.5\n  i: 11\n  text:\n")
    for number in (12, -13):
        assert f"there is no record {number}: there are 12, numbered 0 to 11" in shell.run("cat", data, number, code=2)


def test_cat_raw_writes_the_bytes_alone(tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    """Every one as it is, and nothing between; as a process, for it is for pipes."""
    records = [bytes(range(256)), b"", b"\r\n\n"]
    write_split_data(tmp_path, records, splits=1)
    command = [sys.executable, "-m", "splitpipe", "cat", tmp_path, "0", "1", "2", "0", "--raw"]

    assert subprocess.run(command, capture_output=True, check=True, timeout=60).stdout == b"".join(
        [*records, records[0]]
    )


def test_long_and_binary_records_are_cut_and_say_so(shell: Shell, tmp_path: Path) -> None:
    """At forty lines, and a hundred characters; JSON shows all."""
    records = [b"line\n" * 100, bytes(range(128, 256)) * 100, b"x" * 5000, list(range(1000))]
    write_split_data(tmp_path, records, splits=1, codec="tree")

    assert "… 60 more lines; --json shows all" in shell.run("cat", tmp_path, 0)
    assert "… 760 more lines" in shell.run("cat", tmp_path, 1)
    assert all(len(line) <= 108 for line in shell.run("head", tmp_path).splitlines())
    assert shell.json("cat", tmp_path, 0, 3)[1]["record"] == list(range(1000))


def test_pickles_are_not_loaded_unless_allowed(shell: Shell, tmp_path: Path) -> None:
    """The error names the option; what loads nothing needs none."""
    write_split_data(tmp_path, [{"a", "b"}, 1j], splits=1, codec="pickle")

    for verb in (["head", tmp_path], ["cat", tmp_path, 0], ["head", tmp_path, "--json"]):
        assert "--allow-pickle" in shell.run(*verb, code=1)
    assert "1j" in shell.run("cat", tmp_path, 1, "--allow-pickle")
    assert shell.run("head", tmp_path, "--allow-pickle").count("\n") == 2
    assert shell.json("info", tmp_path)["codec"] == "pickle"
    assert shell.json("verify", tmp_path)["problems"] == []


def _flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def test_verify_names_each_damage_and_fails(shell: Shell, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 1, as `grep` and `diff` have it; 0 if all is as committed."""
    assert "12 records" in (text := shell.run("verify", data))
    assert "all as committed" in text
    assert shell.json("verify", data, "--threads", 2)["problems"] == []
    _flip(min(data.glob("*/00000.bin")), 64)

    assert main(["verify", str(data)]) == 1
    out = capsys.readouterr().out
    assert "record 0 is damaged" in out
    assert "1 problems" in out
    assert main(["verify", str(data), "--json"]) == 1
    (problem,) = json.loads(capsys.readouterr().out)["problems"]
    assert (problem["record"], problem["offset"]) == (0, 64)
    assert "at least 1, and got 0" in shell.run("verify", data, "--threads", 0, code=2)


def test_a_damaged_record_is_one_line_and_code_1(shell: Shell, data: Path) -> None:
    """Named, without a traceback."""
    _flip(min(data.glob("*/00000.bin")), 64)
    for verb in (["cat", data, 0], ["head", data], ["compact", data]):
        assert "record 0 is damaged" in shell.run(*verb, code=1)
    assert shell.json("cat", data, 1)[0]["number"] == 1


@pytest.mark.parametrize("codec", ["bytes", "json", "tree", "struct", "pickle", "json+zlib", "json+zstd", "json+lz4"])
def test_salvage_saves_what_is_there(shell: Shell, tmp_path: Path, codec: str) -> None:
    """Lost indexes are built again in place; lost records are named, and the others saved elsewhere."""
    records: list[Any] = [i * np.arange(2) if codec == "struct" else {"i": i} for i in range(400)]
    if codec == "bytes":
        records = [str(i).encode() for i in range(400)]
    path = tmp_path / "damaged"
    write_split_data(path, records, splits=2, codec=codec)
    next(path.glob("*/index")).unlink()

    report = shell.json("salvage", path)
    assert (report["saved"], report["lost"], report["target"]) == (400, [], str(path))
    assert list(map(str, SplitDataLoader(path, allow_pickle=True))) == list(map(str, records))
    _flip(path.glob("*/00000.bin").__next__(), 64)
    assert f"records are gone: 0. Save the others with `splitpipe salvage {path}" in shell.run("salvage", path, code=1)
    text = shell.run("salvage", path, tmp_path / "saved")
    assert "gone: record 0\n" in text
    assert f"{tmp_path / 'saved'}: 399 records saved" in text
    assert list(map(str, SplitDataLoader(tmp_path / "saved", allow_pickle=True))) == list(map(str, records[1:]))
    assert "is not empty" in shell.run("salvage", path, tmp_path / "saved", code=1)


def test_clean_removes_what_dead_writers_left(shell: Shell, data: Path) -> None:
    """A dry run says what; what may be living is kept unless forced."""
    left = data / f".writing-{uuid.UUID(int=1).hex}"
    left.mkdir()
    (left / "00000.bin").write_bytes(b"x" * 100)

    assert shell.json("info", data)["being written"] == 1
    assert f"kept {left}" in shell.run("clean", data)
    os.utime(left, (0, 0))
    assert f"would remove {left}" in shell.run("clean", data, "--dry-run")
    assert left.exists()
    assert shell.json("clean", data) == {"removed": [str(left)], "kept": [], "bytes": 100}
    assert not left.exists()
    assert "removed 0 leftovers" in shell.run("clean", data, "--force")
    assert len(SplitDataLoader(data)) == 12


def test_merge_and_compact_keep_every_record(shell: Shell, data: Path, tmp_path: Path) -> None:
    """And say how many; a merge of what is there adds none."""
    target = tmp_path / "all"
    assert shell.json("merge", target, data) == {"target": str(target), "added": 12}
    assert "0 records added" in shell.run("merge", target, data)
    assert "12 records in one segment" in shell.run("compact", target, "--splits", 3)
    assert shell.json("compact", target) == {"path": str(target), "records": 12}
    facts = shell.json("info", target)
    assert (facts["records"], facts["segments"], facts["bins"]) == (12, 1, 3)
    assert list(SplitDataLoader(target)) == list(SplitDataLoader(data))
    assert SplitDataLoader(target).columns["n"].tolist() == SplitDataLoader(data).columns["n"].tolist()


def test_a_merge_of_what_is_not_alike_is_refused(shell: Shell, data: Path, tmp_path: Path) -> None:
    """Another codec, other columns; nothing is merged."""
    write_split_data(tmp_path / "tree", [1], codec="tree")
    write_split_data(tmp_path / "bare", [1], codec="json")
    assert "codec 'json' and codec 'tree'" in shell.run("merge", tmp_path / "all", data, tmp_path / "tree", code=1)
    assert "has the columns" in shell.run("merge", tmp_path / "all", data, tmp_path / "bare", code=1)
    assert not (tmp_path / "all").exists()


@pytest.mark.parametrize("splits", [0, -1, MAX_BINS + 1])
def test_an_impossible_number_of_bins_is_code_2(shell: Shell, data: Path, splits: int) -> None:
    """And nothing changes."""
    assert f"--splits is a number of bins, 1 to {MAX_BINS}, and got {splits}" in shell.run(
        "compact", data, f"--splits={splits}", code=2
    )
    assert shell.json("info", data)["segments"] == 2


@pytest.mark.parametrize("verb", READING)
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "there is no such directory"),
        (lambda path: path.write_text("x"), "is a file"),
        (lambda path: (path.mkdir(), (path / "other").write_text("x")), "is no data set"),
    ],
)
def test_what_is_no_data_set_is_one_line_and_code_1(
    shell: Shell, tmp_path: Path, verb: str, make: Any, message: str
) -> None:
    """But a directory with nothing of ours is clean."""
    make(tmp_path / "x")
    if verb == "clean" and message == "is no data set":
        assert "removed 0 leftovers" in shell.run(verb, tmp_path / "x")
    else:
        assert message in shell.run(verb, tmp_path / "x", code=1)


@pytest.mark.parametrize(
    "arguments", [["nonsense"], ["info"], ["cat", "x"], ["cat", "x", "one"], ["head", "x", "-n", "a"]]
)
def test_a_line_that_cannot_be_parsed_is_code_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """With how it is used."""
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "usage: splitpipe" in capsys.readouterr().err


def test_a_missing_package_is_one_line_and_code_1(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the command that installs it."""
    write_split_data(tmp_path, [1], codec="json+zstd")
    monkeypatch.setitem(sys.modules, "zstandard", None)
    assert 'pip install "splitpipe[zstd]"' in shell.run("head", tmp_path, code=1)


@pytest.mark.parametrize("verb", [["info"], ["head", "-n", "100000"], ["cat", *["0"] * 3000], ["head", "--json"]])
def test_a_reader_that_has_seen_enough_is_no_error(tmp_path: Path, verb: list[str]) -> None:
    """`| head -1`: one line, no complaint, exit code 0, however much or little was to be printed."""
    write_split_data(tmp_path, [{"i": i} for i in range(20_000)], splits=2, codec="json")
    command = [sys.executable, "-m", "splitpipe", verb[0], str(tmp_path), *verb[1:]]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        if verb[0] != "info":
            assert process.stdout.readline()
        process.stdout.close()
        errors = process.stderr.read()

    assert (process.returncode, errors) == (0, b"")
