"""A training with torch: batches from worker processes, and checkpoints to go on from. Needs torch, and says so."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from splitpipe import SplitDataLoader, write_split_data

try:
    import torch
except ImportError:
    torch = None


def prepare(batch: dict[str, Any]) -> dict[str, Any]:
    """Do the work of the workers. Tensors may be made here too; then each worker imports torch, which takes a while."""
    return {"x": batch["x"] / 255, "y": batch["y"]}


def train(folder: str, checkpoint: Path, epochs: int, stop_at: int | None = None) -> Any:
    """Train from the checkpoint on if there is one; return the weights."""
    torch.manual_seed(0)
    model = torch.nn.Linear(16, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    first = steps = 0
    # Under torchrun each process finds its rank, and gets its share of the batches, as many as all others.
    with SplitDataLoader(folder).batches(50, transform=prepare, workers=1, lanes=2, seed=1, epochs=epochs) as batches:
        if checkpoint.exists():
            saved = torch.load(checkpoint)
            model.load_state_dict(saved["model"])
            optimizer.load_state_dict(saved["optimizer"])
            batches.load_state_dict(saved["batches"])
            first, steps = saved["epoch"], saved["steps"]
        for epoch in range(first, epochs):
            for batch in batches:
                # No copy: the arrays are writable, aligned, and this loop's own. With a GPU: .to("cuda").
                x, y = torch.from_numpy(batch["x"]), torch.from_numpy(batch["y"])
                loss = torch.nn.functional.cross_entropy(model(x), y)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                steps += 1
                if steps % 5 == 0:
                    parts = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
                    torch.save({**parts, "batches": batches.state_dict(), "epoch": epoch, "steps": steps}, checkpoint)
                if steps == stop_at:
                    return None
    return model.weight.detach()


def main() -> None:
    """Train at one go, and with an interruption; the weights are the same to the last bit."""
    with tempfile.TemporaryDirectory() as folder:
        rng = np.random.default_rng(0)
        images = rng.integers(0, 256, (1000, 16), dtype=np.uint8)
        samples = ({"x": image.astype(np.float32), "y": int(image[0] > 127)} for image in images)
        data = str(Path(folder, "data"))
        write_split_data(data, samples, splits=4, codec="tree")
        weights = train(data, Path(folder, "none"), epochs=2)
        train(data, Path(folder, "checkpoint"), epochs=2, stop_at=28)
        resumed = train(data, Path(folder, "checkpoint"), epochs=2)
        print("torch: the same weights after a resume:", torch.equal(weights, resumed))


if torch is None:
    print("torch is not installed, so there is nothing to show")
else:
    main()
