"""Write records into bins, read them back: by number, by slice, shuffled bin by bin."""

import tempfile

from splitpipe import SplitDataLoader, SplitWriter, write_split_data

with tempfile.TemporaryDirectory() as target:
    written = write_split_data(target, (f"record {i}".encode() for i in range(1000)), splits=16)
    print("wrote", written)

    # Another writer, perhaps in another process, appends: visible all at once at its commit.
    with SplitWriter(target, splits=4) as writer:
        for i in range(1000, 1010):
            writer.add(f"record {i}".encode())

    data = SplitDataLoader(target)
    print("holds", len(data), "the last is", data[-1])
    print("a view:", list(data[3:6]))
    print("in the order asked:", data[[1005, 0, 7]])

    first = list(data.iterate_binwise(shuffle=True, seed=0))
    second = list(data.iterate_binwise(shuffle=True, seed=0))
    print("two epochs, the same records:", sorted(first) == sorted(second), "in another order:", first != second)
