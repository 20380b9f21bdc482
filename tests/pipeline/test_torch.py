"""Tensors, where torch is installed."""

import functools
from collections.abc import Iterator
from typing import Any

import pytest
from sources import place

from splitpipe import MpQItr, current_lane, empty

torch = pytest.importorskip("torch")

LARGE = 20_000


def _tensors() -> Iterator[Any]:
    yield {
        **{
            str(dtype): torch.arange(12).to(dtype).reshape(3, 4)
            for dtype in (torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.complex64, torch.bool)
        },
        **{str(dtype): torch.arange(12).to(dtype) for dtype in (torch.uint8, torch.int8, torch.int16, torch.int32)},
        "large": torch.full((100, 200), 3.0),
        "transposed": torch.arange(20_000).reshape(100, 200).T,
        "strided": torch.arange(20_000)[::3],
        "empty": torch.empty((0, 3)),
        "scalar": torch.tensor(7.5),
        "grad": torch.ones(3, requires_grad=True),
        "conj": torch.tensor([1 + 2j]).conj(),
        "sparse": torch.eye(3).to_sparse(),
        "parameter": torch.nn.Parameter(torch.ones(2)),
        "from empty": torch.from_numpy(empty(LARGE)).fill_(4),
    }


@pytest.fixture
def torch_forgets() -> Iterator[None]:
    """Have torch forget the sparse tensors that it keeps for `torch.load` to check, each that was ever unpickled."""
    yield
    torch._utils._sparse_tensors_to_validate.clear()


@pytest.mark.usefixtures("torch_forgets")
@pytest.mark.parametrize("start", ["exec", "fork"])
def test_tensors_arrive_as_tensors(start: str) -> None:
    """Of every dtype and layout; plain ones as writable views of the shared memory."""
    (sent,) = _tensors()
    with MpQItr(_tensors, start=start) as pipe:
        (arrived,) = pipe
    assert arrived.keys() == sent.keys()
    for name, tensor in sent.items():
        found = arrived[name]
        assert type(found) is type(tensor), name
        assert (found.dtype, found.shape, found.layout) == (tensor.dtype, tensor.shape, tensor.layout), name
        assert found.requires_grad == tensor.requires_grad, name
        if name != "from empty":
            assert torch.equal(found.to_dense(), tensor.to_dense()), name
    assert place(arrived["large"].data_ptr()) is not None
    assert place(arrived["from empty"].data_ptr()) is not None
    assert (arrived["from empty"] == 4).all()
    arrived["large"] += 1
    assert (arrived["large"] == 4).all()


def test_torch_draws_do_not_depend_on_workers() -> None:
    """Its global generator has a state for each lane, as that of numpy has."""

    def draw() -> Iterator[tuple[int, float]]:
        lane = current_lane()
        for _ in range(4):
            yield lane.index, float(torch.rand(()))

    make = functools.partial(MpQItr, draw, lanes=3, seed=1)
    runs = []
    for workers in range(4):
        with make(workers=workers) as pipe:
            runs.append([*pipe, *pipe])
    assert len({number for _, number in runs[0]}) == 24
    assert runs[1:] == runs[:1] * 3
