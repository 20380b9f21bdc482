"""The examples of splitdataloader's README; only the import line is another."""

import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from splitpipe import MpQItr, SplitDataLoader, write_split_data


def example_writer(target_dir: str) -> None:
    """Write a data set."""
    data_source: Iterable[bytes] = (b"%d" % i for i in range(1000))
    write_split_data(target_dir, data_source, splits=128)


def example_loader(data_dir: str) -> None:
    """Length, indexing, iteration."""
    loader = SplitDataLoader(data_dir)
    print(len(loader))
    data = loader[2]
    print(data)
    total = 0
    for data in loader.iterate_binwise(shuffle=True):
        total += int(data)
    print(total)


@dataclass
class BatchType:
    """A tuple, class, or whatever that handles the batch."""

    numbers: list[int]


def batch_generator(data_dir: str, batch_size: int) -> Iterator[BatchType]:
    """A generator function that produces the batches."""
    numbers = []
    for data in SplitDataLoader(data_dir).iterate_binwise(shuffle=True):
        numbers.append(int(data))
        if len(numbers) == batch_size:
            yield BatchType(numbers)
            numbers = []


def batch_wise_processing(data_dir: str) -> None:
    """Batches are made in another process while this one uses them."""
    queued_batch_iterator = MpQItr[BatchType](
        batch_generator,  # the generator function
        data_dir,  # args or kwargs to the generator function
        batch_size=10,
    )
    total = 0
    for batch in queued_batch_iterator:
        total += sum(batch.numbers)
    print(total, type(batch) is BatchType)


with tempfile.TemporaryDirectory() as folder:
    example_writer(folder)
    example_loader(folder)
    batch_wise_processing(folder)
