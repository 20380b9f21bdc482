"""What the README of acumenindexer shows, done with splitpipe."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splitpipe import SplitDataLoader, build_split_data


def data_read_fn(path: Path) -> tuple[NDArray[np.float16], dict[str, Any]]:
    """Read one image, in a worker process; return (data, metadata)."""
    image = np.load(path)  # or cv2.imread(str(path)), or something like this
    return image.astype(np.float16), {"path": path.name, "mean": float(image.mean())}


class CustomDataset:
    """What torch's DataLoader takes as a map-style data set; it needs no base class, and pickles to its path."""

    def __init__(self, path: str) -> None:
        self.data = SplitDataLoader(path)

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> dict[str, Any]:
        image = np.array(self.data[index])  # a copy: what was stored is mapped read-only
        return {"image": image, "path": self.data.columns["path"][index]}


with tempfile.TemporaryDirectory() as folder:
    images, my_data = Path(folder, "images"), str(Path(folder, "my_data"))
    images.mkdir()
    for i in range(100):
        np.save(images / f"{i:03d}.npy", np.full((8, 8, 3), i, np.uint8))

    # ai.split_into_chunks(...). use_gzip=True would be codec="tree+zlib", and n_jobs is workers.
    written = build_split_data(
        my_data, sorted(images.iterdir()), data_read_fn, codec="tree", columns=["path", "mean"], splits=4, workers=2
    )
    print("built", written)

    # ai.load_index(...) and ai.read_from_index(...): opening maps the files, and a record is a view of them.
    data = SplitDataLoader(my_data)
    print("image 3:", data[3].shape, data[3].dtype, "of", data.columns["path"][3])
    bright = data.select(data.columns["mean"] >= 90)
    print("bright:", len(bright), "the first is", bright.columns["path"][0])
    try:
        print(data.columns.to_pandas().tail(2))
    except ImportError as exc:
        print(exc)

    dataset = CustomDataset(my_data)
    print("data set:", len(dataset), dataset[99]["path"], dataset[99]["image"].mean())
