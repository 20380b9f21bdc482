"""Care of a data set: verify it, save what is left of a damaged one, make many segments one."""

import tempfile
from pathlib import Path

from splitpipe import SplitDataLoader, compact, salvage, verify, write_split_data
from splitpipe.errors import CorruptDataError

with tempfile.TemporaryDirectory() as folder:
    damaged, saved = Path(folder, "damaged"), Path(folder, "saved")
    for day in range(5):
        write_split_data(damaged, (f"day {day}, record {i}".encode() for i in range(100)), splits=4)
    print("problems before:", len(verify(damaged).problems))

    # One bit flips on the disk.
    path = next(path for path in damaged.glob("segment-*/*.bin") if b"day 2, record 42" in path.read_bytes())
    content = bytearray(path.read_bytes())
    content[content.index(b"day 2, record 42")] ^= 1
    path.write_bytes(content)

    # Reading that record says so; all others are as good as before.
    data = SplitDataLoader(damaged)
    try:
        data[242]
    except CorruptDataError as exc:
        print("damaged: record", exc.record, "in", Path(exc.path).name)
    print("the next one:", data[243])
    print("verify names it:", [problem.record for problem in verify(damaged).problems])

    # Everything else goes to a directory of its own; the damaged one is not touched.
    report = salvage(damaged, saved)
    print("saved", report.saved, "lost", report.lost)

    # Many segments, as many small commits leave them, become one; records and order stay.
    before = list(SplitDataLoader(saved))
    write_split_data(saved, [b"one more"])
    print("compacted:", compact(saved), "records in", len(list(saved.glob("segment-*"))), "segment")
    print("the same:", list(SplitDataLoader(saved)) == [*before, b"one more"])
    print("problems after:", len(verify(saved).problems))
