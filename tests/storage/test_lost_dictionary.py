"""What was compressed with a dictionary, when index and info, which have it, are both lost."""

from pathlib import Path

import pytest

from splitpipe import SplitDataLoader, salvage, write_split_data
from splitpipe.errors import StorageError

RECORDS = [{"number": i, "text": "what all records have in common " * 2} for i in range(500)]


def test_a_lost_index_is_built_again_with_the_dictionary_from_the_info(tmp_path: Path) -> None:
    write_split_data(tmp_path / "data", RECORDS, codec="json+zlib", splits=2)
    (segment,) = (tmp_path / "data").iterdir()
    (segment / "index").unlink()

    assert salvage(tmp_path / "data").lost == ()
    assert list(SplitDataLoader(tmp_path / "data")) == RECORDS


def test_without_index_and_info_the_records_are_reported_lost(tmp_path: Path) -> None:
    """And nothing is written that claims to be them."""
    write_split_data(tmp_path / "lost", RECORDS, codec="json+zlib", splits=2)
    (segment,) = (tmp_path / "lost").iterdir()
    (segment / "index").unlink()
    (segment / "info").unlink()

    with pytest.raises(StorageError, match="records are gone: 0 to 499"):
        salvage(tmp_path / "lost")
    assert not (segment / "index").exists()

    report = salvage(tmp_path / "lost", tmp_path / "saved")
    assert (report.saved, report.lost) == (0, ((0, 499),))
    assert any("dictionary" in note for note in report.notes)
    assert not (tmp_path / "saved").exists()


def test_other_segments_are_saved(tmp_path: Path) -> None:
    for _ in range(2):
        write_split_data(tmp_path / "data", RECORDS, codec="json+zlib", splits=2)
    first, _ = sorted((tmp_path / "data").iterdir())
    (first / "index").unlink()
    (first / "info").unlink()

    assert salvage(tmp_path / "data", tmp_path / "saved").lost == ((0, 499),)
    assert list(SplitDataLoader(tmp_path / "saved")) == RECORDS
