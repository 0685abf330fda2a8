"""Runs one loader of another project over the benchmark's own files and prints a JSON line.

usage: peer.py versions | LOADER ROUNDS LIMIT PATH...

Every loader delivers batches of 256 rows of 768 float32 in random order (safetensors.* read all rows in
order), and touches every batch by a sum. The first round is a warm-up and is not reported.
"""

import importlib.metadata
import json
import sys
import time

BATCH = 256


def numpy_maps(paths):
    """The rows of each file, mapped, as the safetensors header places them."""
    import numpy as np

    maps = []
    for path in paths:
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            entry = json.loads(file.read(length))["x"]
        start = 8 + length + entry["data_offsets"][0]
        maps.append(np.memmap(path, dtype="<f4", mode="r", offset=start, shape=tuple(entry["shape"])))
    return maps


def safetensors_numpy(paths, limit):
    from safetensors.numpy import load_file

    count = 0
    for path in paths:
        rows = load_file(path)["x"]
        rows.sum()
        count += len(rows)
    return count


def safetensors_torch(paths, limit):
    from safetensors.torch import load_file

    count = 0
    for path in paths:
        rows = load_file(path)["x"]
        rows.sum()
        count += len(rows)
    return count


class Rows:
    """A map-style torch dataset over the mapped rows."""

    def __init__(self, paths):
        self.maps = numpy_maps(paths)
        self.length = len(self.maps[0])

    def __len__(self):
        return self.length * len(self.maps)

    def __getitem__(self, index):
        return self.maps[index // self.length][index % self.length]


def dataloader(workers):
    def run(paths, limit):
        import torch

        rows = Rows(paths)
        sampler = torch.utils.data.RandomSampler(
            rows, num_samples=limit, generator=torch.Generator().manual_seed(3)
        )
        loader = torch.utils.data.DataLoader(rows, batch_size=BATCH, sampler=sampler, num_workers=workers)
        count = 0
        for batch in loader:
            batch[0, 0].item()
            count += len(batch)
        return count

    return run


def hf_datasets(paths, limit):
    """The Arrow file that `datasets` itself would keep: fixed-size lists of float32, mapped."""
    import datasets

    rows = datasets.Dataset.from_file(arrow_copy(paths)).with_format("numpy")
    order = rows.shuffle(seed=3)
    count = 0
    for batch in order.iter(batch_size=BATCH):
        batch["x"][0][0]
        count += len(batch["x"])
        if count >= limit:
            break
    return count


def arrow_copy(paths):
    """Made on the first call, whose time is in the warm-up round. In a folder of its own: `datasets` keeps its
    caches beside it."""
    import os

    import pyarrow as pa

    folder = os.path.join(os.path.dirname(os.path.dirname(paths[0])), "peer-datasets")
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, "rows.arrows")
    if os.path.exists(path):
        return path
    kind = pa.list_(pa.float32(), 768)
    schema = pa.schema([("x", kind)])
    with pa.OSFile(path + ".tmp", "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
        for rows in numpy_maps(paths):
            for first in range(0, len(rows), 1000):
                flat = pa.array(rows[first : first + 1000].reshape(-1))
                array = pa.FixedSizeListArray.from_arrays(flat, type=kind)
                writer.write_batch(pa.record_batch([array], schema=schema))
    os.rename(path + ".tmp", path)
    return path


def mlx_data(paths, limit):
    import mlx.data
    import numpy as np

    maps = numpy_maps(paths)
    length = len(maps[0])
    order = np.random.default_rng(3).permutation(length * len(maps))[:limit]
    buffer = mlx.data.buffer_from_vector([{"i": int(i)} for i in order])

    def fetch(sample):
        index = int(sample["i"])
        return {"x": np.ascontiguousarray(maps[index // length][index % length])}

    count = 0
    for batch in buffer.to_stream().sample_transform(fetch).batch(BATCH):
        batch["x"][0][0]
        count += len(batch["x"])
    return count


LOADERS = {
    "safetensors.numpy": safetensors_numpy,
    "safetensors.torch": safetensors_torch,
    "dataloader.0": dataloader(0),
    "dataloader.1": dataloader(1),
    "dataloader.2": dataloader(2),
    "datasets": hf_datasets,
    "mlx-data": mlx_data,
}


def versions():
    names = ["torch", "safetensors", "datasets", "pyarrow", "numpy", "mlx-data"]
    found = {"python": sys.version.split()[0]}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            pass
    return found


def main():
    if sys.argv[1] == "versions":
        print(json.dumps(versions()))
        return
    loader, rounds, limit, paths = LOADERS[sys.argv[1]], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:]
    rates = []
    for _ in range(rounds + 1):
        started = time.perf_counter()
        count = loader(paths, limit)
        rates.append(count / (time.perf_counter() - started))
    print(json.dumps({"rates": rates[1:]}))


if __name__ == "__main__":
    main()
