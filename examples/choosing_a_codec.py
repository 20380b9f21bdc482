"""Records as JSON, compressed; and a codec of one's own."""

import datetime
import tempfile
from pathlib import Path

from splitpipe import Codec, SplitDataLoader, register_codec, write_split_data


class DateCodec(Codec):
    """Holds dates, in two bytes each."""

    name = "date"

    def encode(self, record: datetime.date) -> bytes:
        """Return days since the beginning of the year 1970, up to 2149."""
        return (record - datetime.date(1970, 1, 1)).days.to_bytes(2, "little")

    def decode(self, payload: bytes) -> datetime.date:
        """Return the date."""
        return datetime.date(1970, 1, 1) + datetime.timedelta(days=int.from_bytes(payload, "little"))


def size_of(folder: str) -> int:
    """Return how many bytes the bins of a data set have."""
    return sum(path.stat().st_size for path in Path(folder).glob("segment-*/*.bin"))


with tempfile.TemporaryDirectory() as folder:
    plain, packed, dates = (str(Path(folder, name)) for name in ("plain", "packed", "dates"))

    # "+zlib" compresses each record by itself, with a dictionary made from the first ones.
    records = [{"id": i, "text": f"record {i}: " + "what they have in common, " * 4} for i in range(2000)]
    write_split_data(plain, records, codec="json", splits=4)
    write_split_data(packed, records, codec="json+zlib", splits=4)
    print("json:", SplitDataLoader(packed)[7])
    print("compressed to less than half:", size_of(packed) < size_of(plain) / 2)

    # A codec is known by its name: register it before writing, and wherever the data is read.
    register_codec(DateCodec())
    write_split_data(dates, (datetime.date(2000, 1, 1) + datetime.timedelta(days=i) for i in range(366)), codec="date")
    print("dates:", SplitDataLoader(dates)[59], SplitDataLoader(dates)[-1])
